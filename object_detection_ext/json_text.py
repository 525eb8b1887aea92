# SPDX-License-Identifier: Apache-2.0
"""JSON from files and servers, which may hold anything."""

import json
from typing import Any


def parsed(text: str | bytes, *, any_number: bool = False) -> Any:
    """What JSON says.

    Args:
        text: as a string, or encoded as JSON may be.
        any_number: whether NaN and Infinity are taken, which JSON does not have.

    Raises:
        ValueError: if it is not JSON, or is nested more deeply than Python can follow.
    """
    try:
        return json.loads(text, parse_constant=None if any_number else _refuse)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _refuse(constant: str):
    raise ValueError(f"{constant} is not a number of JSON")
