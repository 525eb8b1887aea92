# SPDX-License-Identifier: Apache-2.0
"""What is wrong with AVA's files, and what was changed in reading them, in words."""

import dataclasses
from collections.abc import Iterable

from object_detection_ext import errors, listing

_MAX_LISTED = 20


class AnnotationError(errors.InputError):
    """The annotations or their label map cannot be used; the message lists where and why."""


@dataclasses.dataclass(frozen=True, slots=True)
class RowProblem:
    """One thing that is wrong with one row.

    Attributes:
        code: the kind of the problem, one of `PROBLEM_CODES`.
        column: which one; empty where the row as a whole is wrong.
        value: as the file has it.
        fault: what is wrong, in words.
        advice: what would be right, in words.
    """

    code: str
    column: str
    value: str
    fault: str
    advice: str

    def __str__(self) -> str:
        return f"{self.fault}; {self.advice}"


HEADER, COLUMNS, QUOTES, VIDEO_ID, CONTROL, NUMBER, RANGE, ORDER = PROBLEM_CODES = (
    "header_row",
    "malformed_row",
    "broken_quotes",
    "empty_video_id",
    "control_characters",
    "not_a_number",
    "box_out_of_range",
    "box_corner_order",
)


@dataclasses.dataclass(slots=True)
class Note:
    """What was changed in reading a file, or looks wrong though it was taken.

    Attributes:
        code: the kind, stable from version to version.
        text: in words, to be read after "rows with"; or a whole sentence about the file.
        line: the first one, from 1; 0 where it is about the whole file.
        value: of the first one, as the file has it.
        count: of rows; 0 where it is about the whole file.
    """

    code: str
    text: str
    line: int = 0
    value: str = ""
    count: int = 0

    def __str__(self) -> str:
        if not self.count:
            return self.text
        value = f", {self.value}" if self.value else ""
        rows = "row" if self.count == 1 else "rows"
        return f"{self.count:,} {rows} with {self.text} (first: line {self.line}{value})"


class Notes:
    """The notes of a file, one for each kind."""

    def __init__(self):
        """Has none yet."""
        self._notes: dict[str, Note] = {}

    def add(self, code: str, text: str, line: int, value: str = "", count: int = 1) -> None:
        """Counts rows; the first line with its value is kept."""
        note = self._notes.get(code)
        if note is None:
            self._notes[code] = Note(code, text, line, value, count)
            return
        note.count += count
        if line < note.line:
            note.line, note.value = line, value

    def say(self, code: str, text: str, line: int = 0) -> None:
        """Notes something about the whole file."""
        self._notes.setdefault(code, Note(code, text, line))

    def all(self) -> tuple[Note, ...]:
        """In a fixed order, whichever way the file was read."""
        return tuple(self._notes[code] for code in sorted(self._notes))

    def messages(self, path: str) -> tuple[str, ...]:
        """A line for each."""
        return tuple(f"{path}: {note}" for note in self.all())


class BadRows:
    """The bad rows of a file: all are counted, the first 20 are listed."""

    def __init__(self, path: str):
        """Has none yet."""
        self._path = path
        self._lines: list[str] = []
        self._has_range = False
        self.count = 0

    def add(self, row: int, problems: Iterable[object]) -> None:
        """Counts a row with its problems."""
        self.count += 1
        problems = tuple(problems)
        self._has_range |= any(getattr(problem, "code", "") == RANGE for problem in problems)
        if self.count <= _MAX_LISTED:
            self._lines.append(f"{self._path}:{row}: {'; '.join(map(str, problems))}")

    def check(self) -> None:
        """Raises AnnotationError if there are any."""
        if not self.count:
            return
        rows = listing.in_lines(self._lines, _MAX_LISTED, self.count)
        lines = [f"{self._path}: {self.count:,} bad row{'s' * (self.count > 1)}:", *rows]
        if self._has_range:
            lines.append("  (What is no further outside than --box_tolerance is cut off.)")
        raise AnnotationError("\n".join(lines))
