# SPDX-License-Identifier: Apache-2.0
"""Text that a terminal can show without obeying it.

Ids, class names and file names come from others. A terminal takes escape sequences in them for
commands, a newline makes one line two, and marks of the direction of writing reorder what stands
beside them.
"""

import re
from collections.abc import Iterable
from typing import Any

# Control characters (C0 and C1), line and paragraph separators, marks of the direction of writing,
# and halves of surrogate pairs, which stand for bytes of a file name that are not UTF-8.
_UNPRINTABLE = (
    r"\x00-\x1f\x7f-\x9f\u2028\u2029\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff"
)
_IN_ONE_LINE = re.compile(f"[{_UNPRINTABLE}]")
_IN_LINES = re.compile(f"(?![\n\t])[{_UNPRINTABLE}]")


def _escaped(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape").decode("ascii")


def in_one_line(text: object) -> str:
    r"""The text with each character that a terminal would obey as Python writes it (`\x1b`)."""
    return _IN_ONE_LINE.sub(_escaped, str(text))


def in_lines(text: str) -> str:
    """As `in_one_line`, but newlines and tabs stay."""
    return _IN_LINES.sub(_escaped, text)


class PrintableStream:
    """A text stream that passes `in_lines` of what it is given on to another."""

    def __init__(self, stream: Any, names: Iterable[str] = ()):
        """Takes the other stream, which answers all but `write` and `writelines`.

        Args:
            stream: the other one.
            names: what is written as `in_one_line` has it, wherever it stands in a text.
        """
        self._stream = stream
        self._names = {form: in_one_line(name) for name in names for form in (name, in_lines(name))}

    def write(self, text: str) -> int:
        """Writes printable text; returns the number of characters that it was given."""
        shown = text
        for name, printed in self._names.items():
            shown = shown.replace(name, printed)
        self._stream.write(in_lines(shown))
        return len(text)

    def writelines(self, lines) -> None:
        """Writes each."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
