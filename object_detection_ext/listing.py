# SPDX-License-Identifier: Apache-2.0
"""Lists and counts in messages: the first entries, and how many more there are."""

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


def counted(number: int, noun: str, plural: str = "") -> str:
    """A number and what is counted, such as "1 video" and "1,200 videos".

    Args:
        number: how many.
        noun: what one is called.
        plural: what others are called; empty: the noun with an s.
    """
    return f"{number:,} {noun if number == 1 else plural or f'{noun}s'}"


def part(number: int, total: int, noun: str, plural: str = "") -> str:
    """How many of all, such as "1 of 1 video" and "1 of 1,200 videos"; arguments as `counted`."""
    return f"{number:,} of {counted(total, noun, plural)}"


def verb(number: int, one: str, others: str) -> str:
    """The form of a verb that goes with a number, such as "has" and "have"."""
    return one if number == 1 else others
