# SPDX-License-Identifier: Apache-2.0
"""From the fields of a row to numbers, with all that is wrong with them: the one reading of rows.

What can be read in only one way is taken, and noted where it is unusual; the rest is a problem.
"""

import math
import os
import re
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from object_detection_ext import errors, printable
from object_detection_ext.ava import csv_text, faults, timestamps, video_ids
from object_detection_ext.ava.columns import (
    ANNOTATIONS,
    DETECTIONS,
    KEYFRAMES,
    PERSON_BOXES,
    Kind,
)
from object_detection_ext.ava.faults import Notes, RowProblem

# How far outside of [0, 1] a box may reach to be cut off, as a part of the frame.
BOX_TOLERANCE = 0.01
# From about 1e154 on, the areas of boxes are not numbers.
MAX_CORNER = 1e6

_CORNERS = ("x1", "y1", "x2", "y2")
# Ids are stored in 64 bits.
_TOO_LARGE = 2**63
# As pandas and spreadsheets write a field without a value.
_EMPTY = frozenset(("", "nan", "na", "n/a", "#n/a", "null", "none", "<na>"))
_DECIMAL_COMMA = re.compile(r"[+-]?\d*,\d+")
# One and a fraction, or more than a thousand: nobody knows.
_THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2},\d{3}")

# Characters of a field in messages.
_MAX_SHOWN = 60
_WHOLE, _NUMBER = "it must be a whole number", "it must be a number"

Corners = tuple[float, float, float, float]


class ParsedRow(NamedTuple):
    """A line of the file: what could be read of it, and all that is wrong with it.

    `seconds`, `corners` (x1, y1, x2, y2 as the file has them, in range or not, but cut off where
    that is within the tolerance), `action_id` and `score` are None where they are missing or no
    numbers. A `person_id` may be a text.
    """

    row: int
    video_id: str
    seconds: float | None = None
    corners: Corners | None = None
    action_id: int | None = None
    person_id: int | str | None = None
    score: float | None = None
    problems: Sequence[RowProblem] = ()


def digits(value: float) -> str:
    """A number: short if that is exact, else with all its digits."""
    short = f"{value:g}"
    return short if float(short) == value else repr(value)


def _float(text: str) -> float:
    """A number, also with a decimal comma; raises ValueError where it is not finite or none."""
    if _DECIMAL_COMMA.fullmatch(text) and not _THOUSANDS.fullmatch(text):
        text = text.replace(",", ".")
    value = math.nan if "_" in text else float(text)
    if not math.isfinite(value):
        raise ValueError(text)
    return value


class RowReader:
    """Reads the rows of one file."""

    def __init__(self, kind: Kind, notes: Notes, box_tolerance: float | None = BOX_TOLERANCE):
        """Takes what the file holds.

        Args:
            kind: of the file.
            notes: takes what is changed.
            box_tolerance: how far outside of [0, 1] a box may reach to be cut off. More is a
                problem, but not of detections, which are then taken as they are. None takes all
                boxes as they are, in any unit.
        """
        self._kind = kind
        self._notes = notes
        self._tolerance = box_tolerance
        self._line = 0
        self._first = True
        self._problems: list[RowProblem] = []
        self._noted: set[str] = set()

    def read(self, row: csv_text.Row) -> ParsedRow:
        """Reads a row."""
        first, self._first = self._first, False
        self._line, self._problems = row.line, []
        self._noted.clear()
        if row.fields is None:
            fault = 'quotation marks (") that do not pair on their line'
            advice = "close each field on its line, or write no quotation marks"
            self._add(faults.QUOTES, "", printable.in_one_line(row.text), fault, advice)
            self._check_printable(row.text, "the row")
            return ParsedRow(row.line, "", problems=self._problems)
        fields = self._filled(row)
        if not self._has_right_length(fields, row):
            return ParsedRow(row.line, fields[0], problems=self._problems)
        parsed = self._parsed(fields)
        wrong = sum(problem.code == faults.NUMBER for problem in self._problems)
        if first and wrong >= min(len(fields), self._kind.required) - 1:
            self._problems = [self._unknown_header(row.fields)]
            return ParsedRow(row.line, fields[0], problems=self._problems)
        return parsed

    def _add(self, code: str, column: str, value: str, fault: str, advice: str) -> None:
        self._problems.append(RowProblem(code, column, value, fault, advice))

    def _not_a(self, advice: str, column: str, text: str) -> None:
        shown = text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}..."
        self._add(faults.NUMBER, column, text, f"{column} is {shown!r}", advice)

    def _unknown_header(self, fields: Sequence[str]) -> RowProblem:
        fault = f"the first row names columns: {','.join(fields)}"
        advice = f"the columns are {self._kind.form}: name them so, or remove the header row"
        return RowProblem(faults.HEADER, "timestamp", fields[1], fault, advice)

    def _filled(self, row: csv_text.Row) -> list[str]:
        """The fields without empty ones at their end."""
        fields = row.fields
        if self._kind is PERSON_BOXES:
            if len(fields) > 7 and _is_fraction(fields[7]):
                text = "a score, which is not looked at"
                self._notes.add("score_ignored", text, row.line, fields[7])
            fields = fields[:6]
        elif self._kind is KEYFRAMES:
            fields = fields[:2]
        given = len(fields)
        if all(field.lower() in _EMPTY for field in fields[2:]):
            self._tell_empty(next(filter(None, fields[2:]), ""))
            fields = fields[:2]
        elif self._kind is ANNOTATIONS and given > 7 and fields[7].lower() in _EMPTY:
            self._tell_empty(fields[7])
            fields = [*fields[:7], "", *fields[8:]]
        # A score that is missing is no trailing comma.
        least = 8 if self._kind is DETECTIONS and len(fields) > 7 else 1
        while len(fields) > least and not fields[-1]:
            fields = fields[:-1]
        if len(fields) < min(given, row.given) and not any(row.fields[len(fields) : given]):
            self._note("padded_row", "empty fields at the end", "")
        return fields

    def _tell_empty(self, text: str) -> None:
        if text:
            self._note("empty_field", "nan, NA or the like for a field without a value", text)

    def _note(self, code: str, text: str, value: str) -> None:
        """Counts the row, once for each kind of note."""
        if code not in self._noted:
            self._noted.add(code)
            self._notes.add(code, text, self._line, value)

    def _has_right_length(self, fields: Sequence[str], row: csv_text.Row) -> bool:
        kind, count = self._kind, len(fields) + row.too_many
        if count == 2 or max(3, kind.required) <= count <= len(kind.columns):
            return True
        advice = f"it must be {kind.form}"
        if kind.required > 2:
            advice += ", or video_id,timestamp for a keyframe without people"
        fault = f"{count} column{'s' * (count != 1)}"
        self._add(faults.COLUMNS, "", ",".join(fields), fault, advice)
        return False

    def _parsed(self, fields: Sequence[str]) -> ParsedRow:
        video_id, kind = self._video_id(fields[0]), self._kind
        seconds = self._seconds(fields[1])
        if len(fields) == 2:
            return ParsedRow(self._line, video_id, seconds, problems=self._problems)
        names = kind.columns[: kind.required]
        empty = [name for name, field in zip(names, fields, strict=False) if not field]
        if len(empty) > 1 and empty[0] not in ("video_id", "timestamp"):
            advice = "give them, or video_id,timestamp alone for a keyframe without people"
            fault = f"{', '.join(empty)} are empty"
            self._add(faults.NUMBER, empty[0], "", fault, advice)
            return ParsedRow(self._line, video_id, seconds, problems=self._problems)
        corners = self._box(fields[2:6])
        action_id = self._integer(fields[6], "action_id") if len(fields) > 6 else None
        person_id = score = None
        if len(fields) == 8:
            if kind is DETECTIONS:
                score = self._score(fields[7])
            else:
                person_id = self._person(fields[7])
        return ParsedRow(
            self._line, video_id, seconds, corners, action_id, person_id, score, self._problems
        )

    def _video_id(self, text: str) -> str:
        if not text:
            advice = "it must be the video's file name without its extension"
            self._add(faults.VIDEO_ID, "video_id", "", "video_id is empty", advice)
        self._check_printable(text, "video_id")
        return video_ids.same_id(text)

    def _check_printable(self, text: str, column: str) -> None:
        shown = printable.in_one_line(text)
        if shown != text:
            advice = "it must not have control characters"
            self._add(faults.CONTROL, column, shown, f"{column} is '{shown}'", advice)

    def _seconds(self, text: str) -> float | None:
        plain = text
        if _DECIMAL_COMMA.fullmatch(text) and not _THOUSANDS.fullmatch(text):
            plain = text.replace(",", ".")
            self._tell_comma(text)
        try:
            seconds = timestamps.parse(plain)
        except ValueError as error:
            self._not_a(str(error), "timestamp", text)
            return None
        if timestamps.is_clock(plain):
            self._note("clock_time", "hours, minutes and seconds for a timestamp", text)
        return seconds

    def _tell_comma(self, text: str) -> None:
        if "," in text:
            self._note("decimal_comma", "decimal commas", text)

    def _number(self, text: str, column: str, advice: str = _NUMBER) -> float | None:
        try:
            value = _float(text)
        except ValueError:
            self._not_a(advice, column, text)
            return None
        self._tell_comma(text)
        return value

    def _score(self, text: str) -> float | None:
        if text.lower() in ("inf", "-inf", "infinity", "-infinity"):
            return float(text)
        return self._number(text, "score", "it must be a number, not NaN")

    def _integer(self, text: str, column: str) -> int | None:
        try:
            value = _whole(text)
        except ValueError:
            self._not_a(_WHOLE, column, text)
            return None
        self._tell_fraction(text)
        return value

    def _tell_fraction(self, text: str) -> None:
        if not text.lstrip("+-").isdigit():
            self._note("whole_number", "whole numbers written as fractions", text)

    def _person(self, text: str) -> int | str | None:
        if not text:
            return None
        try:
            value = _whole(text)
        except ValueError:
            if _is_fraction(text):
                self._not_a(f"{_WHOLE}, or a text; is it a score?", "person_id", text)
                return None
            self._check_printable(text, "person_id")
            return text
        self._tell_fraction(text)
        return value

    def _box(self, texts: Sequence[str]) -> Corners | None:
        corners = tuple(map(self._number, texts, _CORNERS))
        if None in corners:
            return None
        if self._tolerance is None:
            return self._any_unit(corners, texts)
        if not all(0.0 <= value <= 1.0 for value in corners):
            corners = self._cut_off(corners, texts)
        self._check_order(corners)
        return corners

    def _any_unit(self, corners: Corners, texts: Sequence[str]) -> Corners:
        for name, value, text in zip(_CORNERS, corners, texts, strict=True):
            if abs(value) > MAX_CORNER:
                self._not_a(f"it must be {MAX_CORNER:,.0f} at most", name, text)
        return corners

    def _cut_off(self, corners: Corners, texts: Sequence[str]) -> Corners:
        low, high = -self._tolerance, 1.0 + self._tolerance
        outside = [name for name, value in zip(_CORNERS, corners, strict=True)
                   if not low <= value <= high]  # fmt: skip
        if not outside:
            self._note("box_cut_off", cut_off_text(self._tolerance), ",".join(texts))
            return tuple(min(max(value, 0.0), 1.0) for value in corners)
        if self._kind is DETECTIONS:
            # Of whatever model: the evaluation warns of them and counts them as they are.
            return self._any_unit(corners, texts)
        for name, value in zip(_CORNERS, corners, strict=True):
            if name in outside:
                shown = digits(value)
                advice = "boxes are normalized, so it must be in [0, 1]"
                self._add(faults.RANGE, name, shown, f"{name} is {shown}", advice)
        return corners

    def _check_order(self, corners: Corners) -> None:
        x1, y1, x2, y2 = corners
        for axis, low, high in (("x", x1, x2), ("y", y1, y2)):
            if low >= high:
                first, second = digits(low), digits(high)
                fault = f"{axis}1 is {first} and {axis}2 {second}"
                advice = f"{axis}1 must be less than {axis}2"
                self._add(faults.ORDER, f"{axis}1", f"{first} >= {second}", fault, advice)


def check_tolerance(box_tolerance: float) -> None:
    """Raises InputError unless it is at least 0 and less than 1."""
    if not 0.0 <= box_tolerance < 1.0:
        raise errors.InputError(
            f"--box_tolerance must be at least 0 and less than 1, not {box_tolerance:g}."
        )


def cut_off_text(tolerance: float) -> str:
    """The note about boxes that are cut off."""
    return f"a box up to {tolerance:g} outside of [0, 1], which is cut off at the frame's edge"


def _whole(text: str) -> int:
    """A whole number of 64 bits, also where a tool wrote it as `12.0`; or raises ValueError."""
    try:
        value = int("" if "_" in text else text)
    except ValueError:
        number = _float(text)
        if number != int(number):
            raise
        value = int(number)
    if abs(value) >= _TOO_LARGE:
        raise ValueError(text)
    return value


def _is_fraction(text: str) -> bool:
    """Whether a text is a number that is not whole."""
    try:
        value = _float(text)
    except ValueError:
        return False
    return value != int(value)


def read_rows(
    path: str | os.PathLike,
    kind: Kind,
    notes: Notes,
    box_tolerance: float | None = BOX_TOLERANCE,
    at_byte: Callable[[int], None] | None = None,
) -> Iterator[ParsedRow]:
    """Yields each row of a file, with what is wrong with it.

    Args:
        path: the CSV file.
        kind: what it holds.
        notes: takes what is changed in reading.
        box_tolerance: as of `RowReader`.
        at_byte: called now and then with how far it is.

    Raises:
        AnnotationError: if the file is missing or no text, or its header row lacks a column.
    """
    path = os.fspath(path)
    layout = csv_text.layout(path, kind)
    reader = RowReader(kind, notes, box_tolerance)
    before = last = 0
    parsed = None
    for row in csv_text.rows(path, layout, notes, at_byte):
        parsed = reader.read(row)
        before, last = last, row.given
        yield parsed
    if parsed is None or kind.required == 2 or csv_text.has_line_end(path, layout.encoding):
        return
    if last == 2 or last < before:
        notes.say(
            "cut_off",
            f"the last row (line {parsed.row}) has {last} columns and no line end: if the file was "
            "cut off there, people are missing",
            parsed.row,
        )
