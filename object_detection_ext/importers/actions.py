# SPDX-License-Identifier: Apache-2.0
"""Which attributes of an annotation tool are actions, and which action a value stands for."""

import collections
import dataclasses
from collections.abc import Iterable, Sequence

from object_detection_ext import printable
from object_detection_ext.importers import model

# An attribute that is ticked or not, one with a value of a list, and one of free text or a number.
CHECKBOX, CHOICE, FREE = "checkbox", "choice", "text"
_YES, _NO = frozenset(["yes", "true"]), frozenset(["no", "false"])
# How tools write that nothing was chosen.
_NOTHING = frozenset(["", "__undefined__"])


@dataclasses.dataclass(frozen=True)
class Attribute:
    """An attribute of a tool's project: CHECKBOX, CHOICE with its options, or FREE."""

    name: str
    kind: str
    options: tuple[str, ...] = ()

    @property
    def is_ticked(self) -> bool:
        """Whether its value is no more than yes or no."""
        values = {option.lower() for option in self.options} - _NOTHING
        return self.kind == CHECKBOX or (bool(values) and values <= _YES | _NO)


class ActionNames:
    """Names of actions, from the values of attributes.

    A ticked attribute is the action that it is called; a chosen value is the action. A value that
    two attributes have is called `attribute: value`.
    """

    def __init__(self, attributes: Iterable[Attribute], chosen: Sequence[str], file: str):
        """Chooses the attributes that hold actions.

        Args:
            attributes: of the project; the first of a name counts.
            chosen: names of those to use; if empty, all that are ticked or chosen from a list.
            file: for messages.

        Raises:
            model.ImportFault: if there is no attribute of a chosen name.
        """
        by_name: dict[str, Attribute] = {}
        for attribute in attributes:
            earlier = by_name.setdefault(attribute.name, attribute)
            if earlier != attribute:
                options = dict.fromkeys((*earlier.options, *attribute.options))
                kind = earlier.kind if earlier.kind == attribute.kind else FREE
                by_name[attribute.name] = Attribute(attribute.name, kind, tuple(options))
        unknown = [name for name in chosen if name not in by_name]
        if unknown:
            there = ", ".join(map(printable.in_one_line, by_name)) or "none"
            raise model.ImportFault(
                f"{file}: there is no attribute {', '.join(map(repr, unknown))} (--attributes); "
                f"there are: {there}."
            )
        self.all = by_name
        self.used = {
            name: attribute
            for name, attribute in by_name.items()
            if (name in chosen if chosen else attribute.kind != FREE)
        }
        values = collections.Counter(
            option for each in self.used.values() if not each.is_ticked for option in each.options
        )
        ticked = {name for name, each in self.used.items() if each.is_ticked}
        self._shared = {option for option in values if values[option] > 1 or option in ticked}

    @property
    def names(self) -> list[str]:
        """All actions that the options stand for, in their order."""
        names: list[str] = []
        for attribute in self.used.values():
            if attribute.is_ticked:
                names.append(attribute.name)
            else:
                options = (option for option in attribute.options if option not in _NOTHING)
                names += [self._name(attribute, option) for option in options]
        return names

    @property
    def unused(self) -> list[str]:
        """The attributes that hold no actions."""
        return [name for name in self.all if name not in self.used]

    def of(self, name: str, value: str) -> str | None:
        """The action of a value of an attribute; None if it is not one.

        Raises:
            model.ImportFault: if the attribute does not have this value; without file and place.
        """
        attribute = self.used.get(name)
        if attribute is None or value in _NOTHING:
            return None
        if attribute.is_ticked:
            if value.lower() not in _YES | _NO:
                raise model.ImportFault(f"attribute '{name}' is {value!r}, not true or false")
            return name if value.lower() in _YES else None
        if attribute.kind == CHOICE and value not in attribute.options:
            options = ", ".join(attribute.options)
            raise model.ImportFault(f"attribute '{name}' is {value!r}, not one of: {options}")
        return self._name(attribute, value)

    def _name(self, attribute: Attribute, value: str) -> str:
        return f"{attribute.name}: {value}" if value in self._shared else value
