# SPDX-License-Identifier: Apache-2.0
"""JSON of annotation tools: read with its line, looked into with the place in every message."""

import json
import math
from typing import Any

from object_detection_ext import json_text, printable
from object_detection_ext.importers import model

_KINDS = {
    dict: "an object", list: "a list", str: "a text", int: "a whole number", float: "a number",
    bool: "true or false",
}  # fmt: skip
_REQUIRED = object()


def read(path: str, kinds: type | tuple[type, ...] = dict) -> Any:
    """Reads a JSON file.

    Args:
        path: the file, in any encoding that JSON may have.
        kinds: what its outermost value must be.

    Raises:
        model.ImportFault: if it is not JSON, with the line, or is of another kind.
    """
    content = model.read_bytes(path)
    try:
        value = json_text.parsed(content)
    except json.JSONDecodeError as error:
        raise model.ImportFault(
            f"{path}: line {error.lineno}, column {error.colno}: not JSON: {error.msg}."
        ) from error
    except ValueError as error:
        raise model.ImportFault(f"{path}: not JSON: {error}.") from error
    if not isinstance(value, kinds):
        kinds = kinds if isinstance(kinds, tuple) else (kinds,)
        wanted = " or ".join(_KINDS[kind] for kind in kinds)
        raise model.ImportFault(f"{path}: it holds {_name(value)}; it must be {wanted}.")
    return value


def _name(value: Any) -> str:
    return _KINDS.get(type(value), "nothing")


def field(node: Any, name: str, kind: type, where: str, default: Any = _REQUIRED) -> Any:
    """A field of an object.

    Args:
        node: the object.
        name: of the field.
        kind: dict, list, str, bool, int (also written as 2.0) or float (any finite number).
        where: file and place, for messages.
        default: what a missing field, or null, stands for; without one it is an error.

    Raises:
        model.ImportFault: if it is missing or of another kind.
    """
    if not isinstance(node, dict):
        raise model.ImportFault(f"{where}: it is {_name(node)}; it must be an object.")
    value = node.get(name)
    if value is None:
        if default is _REQUIRED:
            raise model.ImportFault(f"{where}: '{name}' is missing; it must be {_KINDS[kind]}.")
        return default
    read_as = as_kind(value, kind)
    if read_as is None:
        shown = printable.in_one_line(json.dumps(value))[:60]
        raise model.ImportFault(f"{where}: '{name}' is {shown}; it must be {_KINDS[kind]}.")
    return read_as


def as_kind(value: Any, kind: type) -> Any:
    """The value as a kind of `field`; None if it is of another."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if kind in (int, float):
        if not is_number or not math.isfinite(value) or (kind is int and value != int(value)):
            return None
        return kind(value)
    return value if isinstance(value, kind) else None


def numbers(node: Any, name: str, count: int, where: str) -> tuple[float, ...]:
    """A field that is a list of so many finite numbers.

    Raises:
        model.ImportFault: if it is not.
    """
    values = [as_kind(value, float) for value in field(node, name, list, where)]
    if len(values) != count or None in values:
        shown = printable.in_one_line(json.dumps(node[name]))[:60]
        raise model.ImportFault(f"{where}: '{name}' is {shown}; it must be {count} numbers.")
    return tuple(values)
