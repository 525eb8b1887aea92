# SPDX-License-Identifier: Apache-2.0
"""How the variables of a checkpoint differ from those of a model, by name and shape."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

from object_detection_ext import listing
from object_detection_ext.checkpoints import model_facts

MAX_LISTED = 20

Shapes = Mapping[str, tuple[int, ...]]


@dataclasses.dataclass(frozen=True)
class Differences:
    """Those of one checkpoint; names are sorted.

    Attributes:
        wanted: the shapes of the model's variables.
        found: those of the checkpoint.
        missing: in the checkpoint, though the model has them.
        reshaped: in both, with different shapes.
        left_over: in the checkpoint, though the model does not have them.
    """

    wanted: Shapes
    found: Shapes
    missing: tuple[str, ...]
    reshaped: tuple[str, ...]
    left_over: tuple[str, ...]

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self.missing or self.reshaped or self.left_over)

    def options(self) -> list[tuple[str, str, str]]:
        """(option, in the checkpoint, in the model) of options that differ by the variables."""
        here, there = model_facts.of(self.wanted), model_facts.of(self.found)
        return [
            (name, there[name], here[name])
            for name in there
            if name in here and here[name] != there[name]
        ]

    def lines(self) -> Iterator[str]:
        """The three lists: each with its number of variables, and the first of them."""
        yield from _listed(
            [f"{name} {list(self.wanted[name])}" for name in self.missing],
            "of the model {is_are} missing in the checkpoint",
        )
        yield from _listed(
            [
                f"{name}: {list(self.wanted[name])} in the model, {list(self.found[name])} in the "
                "checkpoint"
                for name in self.reshaped
            ],
            "{has_have} another shape",
        )
        yield from _listed(
            [f"{name} {list(self.found[name])}" for name in self.left_over],
            "of the checkpoint {is_are} not in the model",
        )


def between(wanted: Shapes, found: Shapes) -> Differences:
    """Compares the shapes of variables, by name.

    Args:
        wanted: those of the model.
        found: those of the checkpoint.
    """
    both = wanted.keys() & found.keys()
    return Differences(
        wanted=wanted,
        found=found,
        missing=tuple(sorted(wanted.keys() - found.keys())),
        reshaped=tuple(sorted(n for n in both if tuple(wanted[n]) != tuple(found[n]))),
        left_over=tuple(sorted(found.keys() - wanted.keys())),
    )


def _listed(items: Sequence[str], what: str) -> Iterator[str]:
    if not items:
        return
    one = len(items) == 1
    what = what.format(is_are="is" if one else "are", has_have="has" if one else "have")
    yield f"{len(items)} variable{'' if one else 's'} {what}:"
    yield from listing.in_lines(items, MAX_LISTED)
