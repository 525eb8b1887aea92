# SPDX-License-Identifier: Apache-2.0
"""Lists in messages: the first entries, and how many more there are."""

from collections.abc import Sequence

MAX_LISTED = 10


def in_line(entries: Sequence[str], limit: int = MAX_LISTED) -> str:
    """The first entries in one line, such as "a, b and 3 more".

    Args:
        entries: of the list; for none, the text is empty.
        limit: number of entries that are shown.
    """
    rest = len(entries) - limit
    return ", ".join(entries[:limit]) + (f" and {rest:,} more" if rest > 0 else "")


def in_lines(entries: Sequence[str], limit: int, count: int | None = None) -> list[str]:
    """The first entries, an indented line each, and a line with the number of those left out.

    Args:
        entries: of the list.
        limit: number of entries that are shown.
        count: number of entries of the whole list, where only its first are given.
    """
    rest = (len(entries) if count is None else count) - limit
    return [f"  {entry}" for entry in entries[:limit]] + (
        [f"  ... and {rest:,} more"] if rest > 0 else []
    )
