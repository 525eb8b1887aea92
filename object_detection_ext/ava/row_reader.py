# SPDX-License-Identifier: Apache-2.0
"""From the fields of a row to numbers, with all that is wrong with them: the one reading of rows.

What can be read in only one way is taken, and noted where it is unusual; the rest is a problem.
"""

import os
import re
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from object_detection_ext import errors, printable
from object_detection_ext.ava import columns, csv_text, faults, number_text, timestamps, video_ids
from object_detection_ext.ava.columns import ANNOTATIONS, DETECTIONS, KEYFRAMES, PERSON_BOXES, Kind
from object_detection_ext.ava.faults import Notes, RowProblem

# How far outside of [0, 1] a box may reach to be cut off, as a part of the frame.
BOX_TOLERANCE = 0.01
# From about 1e154 on, the areas of boxes are not numbers.
MAX_CORNER = 1e6

_CORNERS = ("x1", "y1", "x2", "y2")
# As pandas and spreadsheets write a field without a value.
_EMPTY = frozenset(("", "nan", "na", "n/a", "#n/a", "null", "none", "<na>"))
# Quotation marks that no CSV means, but a word processor or another language.
_OTHER_QUOTES = re.compile("(['`\u00b4\u2018-\u201f\u2032\u2033\u00ab\u00bb]).*"
                           "['`\u00b4\u2018-\u201f\u2032\u2033\u00ab\u00bb]")  # fmt: skip
# Such an id is a text: 0012 and 12 need not be one person.
_LEADING_ZERO = re.compile(r"0\d+")
# Of the columns that may be more than 1.
_COUNTED = ("timestamp", "action_id", "person_id")

# Characters of a field, and of a row, in messages.
_MAX_SHOWN, _MAX_ROW_SHOWN = 60, 200
_ONE_MARK = "is it more than a thousand, or a fraction? Write all numbers with one decimal mark"
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


def is_quoted(text: str) -> bool:
    """Whether a text has quotation marks around it that are no CSV's."""
    return _OTHER_QUOTES.fullmatch(text) is not None


def _row_shown(fields: Sequence[str]) -> str:
    text = ",".join(fields)
    return text if len(text) <= _MAX_ROW_SHOWN else f"{text[:_MAX_ROW_SHOWN]}..."


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
        # The first row with a decimal comma, and with what would then be a thousand.
        self._comma_line = 0
        self._thousand: tuple[str, str, int] | None = None

    def read(self, row: csv_text.Row) -> ParsedRow:
        """Reads a row."""
        first, self._first = self._first, False
        self._line, self._problems = row.line, []
        self._noted.clear()
        if row.fields is None:
            fault = 'quotation marks (") that do not pair on their line'
            advice = "close each field on its line, or write no quotation marks"
            text = (
                row.text if len(row.text) <= _MAX_ROW_SHOWN else f"{row.text[:_MAX_ROW_SHOWN]}..."
            )
            self._add(faults.QUOTES, "", printable.in_one_line(text), fault, advice)
            self._check_printable(row.text, "the row")
            return ParsedRow(row.line, "", problems=self._problems)
        fields = self._filled(row)
        if not self._has_right_length(fields, row):
            self._check_printable(",".join(fields), "the row")
            return ParsedRow(row.line, fields[0], problems=self._problems)
        if self._has_other_quotes(fields):
            return ParsedRow(row.line, fields[0], problems=self._problems)
        parsed = self._parsed(self._with_points(fields))
        self._check_thousands(fields)
        wrong = sum(problem.code == faults.NUMBER for problem in self._problems)
        if wrong >= min(len(fields), self._kind.required) - 1:
            problem = self._header_problem(row, first)
            if problem is not None:
                self._problems = [problem]
                return ParsedRow(row.line, fields[0], problems=self._problems)
        return parsed

    def _add(self, code: str, column: str, value: str, fault: str, advice: str) -> None:
        self._problems.append(RowProblem(code, column, value, fault, advice))

    def _not_a(self, advice: str, column: str, text: str) -> None:
        shown = text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}..."
        if number_text.has_doubtful_comma(text):
            advice += "; is it more than a thousand, or a fraction?"
        self._add(faults.NUMBER, column, text, f"{column} is {shown!r}", advice)

    def _header_problem(self, row: csv_text.Row, is_first: bool) -> RowProblem | None:
        """What is wrong with a row of names; None if it is none."""
        if columns.is_header(row.fields):
            fault = f"a header row after other rows: {_row_shown(row.fields)}"
            advice = "it must be the first row, and be the same where it stands again"
        elif is_first and not row.named:
            fault = f"the first row names columns: {_row_shown(row.fields)}"
            advice = f"the columns are {self._kind.form}: name them so, or remove the header row"
        else:
            return None
        return RowProblem(faults.HEADER, "timestamp", row.fields[1], fault, advice)

    def _has_other_quotes(self, fields: Sequence[str]) -> bool:
        """Whether numbers are quoted as no CSV is; that of a video's id alone is only noted."""
        match = _OTHER_QUOTES.fullmatch(fields[1])
        if match:
            fault = f"quotation marks ({match[1]}) around the fields"
            advice = 'use straight double ones (") or none'
            self._add(faults.QUOTES, "timestamp", fields[1], fault, advice)
        elif is_quoted(fields[0]):
            text = 'quotation marks other than " around the video id, as a part of it'
            self._note("quoted_id", text, fields[0])
        return match is not None

    def _with_points(self, fields: list[str]) -> list[str]:
        """Decimal points in doubtful numbers (1,000) where other commas can only be decimal."""
        if not any("," in field for field in fields[1:]):
            return fields
        doubtful = [number_text.has_doubtful_comma(field) for field in fields]
        if not any(doubtful[1:]):
            return fields
        if not self._comma_line and not any(map(number_text.has_decimal_comma, fields[1:])):
            return fields
        self._tell_comma(fields[doubtful.index(True, 1)])
        pairs = zip(fields[1:], doubtful[1:], strict=True)
        return [fields[0], *(text.replace(",", ".") if is_one else text for text, is_one in pairs)]

    def _check_thousands(self, fields: Sequence[str]) -> None:
        """Refuses a point that separates thousands where other numbers have decimal commas."""
        if not self._comma_line and "decimal_comma" in self._noted:
            self._comma_line = self._line
            if self._thousand is not None:
                column, text, line = self._thousand
                fault = f"decimal commas here, and {column} {text!r} in line {line}"
                self._add(faults.NUMBER, column, text, fault, _ONE_MARK)
        if self._comma_line or self._thousand is None:
            for column, text in zip(self._kind.columns, fields, strict=False):
                if text[-4:-3] == "." and column in _COUNTED and number_text.is_grouped(text):
                    self._add_thousand(column, text)

    def _add_thousand(self, column: str, text: str) -> None:
        if self._comma_line:
            fault = f"{column} is {text!r}, and line {self._comma_line} has decimal commas"
            self._add(faults.NUMBER, column, text, fault, _ONE_MARK)
        elif self._thousand is None:
            self._thousand = column, text, self._line

    def _filled(self, row: csv_text.Row) -> list[str]:
        """The fields without empty ones at their end."""
        fields = row.fields
        if self._kind is PERSON_BOXES:
            if len(fields) > 7 and number_text.is_fraction(fields[7]):
                text = "a score, which is not looked at"
                self._notes.add("score_ignored", text, row.line, fields[7])
            if not row.named and any(fields[8:]):
                text = "more than 8 columns, of which the first 6 are read"
                self._notes.add("more_columns", text, row.line, f"{len(fields)} columns")
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
        if row.too_many:
            fault = f"{row.given} columns, but the header row has {row.named}"
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
            shown = shown if len(shown) <= _MAX_ROW_SHOWN else f"{shown[:_MAX_ROW_SHOWN]}..."
            advice = "it must not have control characters"
            self._add(faults.CONTROL, column, shown, f"{column} is '{shown}'", advice)

    def _seconds(self, text: str) -> float | None:
        plain = text
        if number_text.has_decimal_comma(text):
            plain = text.replace(",", ".")
            self._tell_comma(text)
        elif timestamps.is_clock(text) and text.count(",") == 1:
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
            value = number_text.number(text)
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
            value = number_text.whole(text)
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
        if _LEADING_ZERO.fullmatch(text):
            return text
        try:
            value = number_text.whole(text)
        except ValueError:
            if number_text.is_fraction(text):
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
            shown = ",".join(text.replace(",", ".") for text in texts)
            self._note("box_cut_off", cut_off_text(self._tolerance), shown)
            return tuple(min(max(value, 0.0), 1.0) for value in corners)
        if self._kind is DETECTIONS:
            # Of whatever model: the evaluation warns of them and counts them as they are.
            return self._any_unit(corners, texts)
        for name, value in zip(_CORNERS, corners, strict=True):
            if name in outside:
                shown = number_text.digits(value)
                advice = "boxes are normalized, so it must be in [0, 1]"
                self._add(faults.RANGE, name, shown, f"{name} is {shown}", advice)
        return corners

    def _check_order(self, corners: Corners) -> None:
        x1, y1, x2, y2 = corners
        for axis, low, high in (("x", x1, x2), ("y", y1, y2)):
            if low >= high:
                first, second = number_text.digits(low), number_text.digits(high)
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
            f"the last row (line {parsed.row}) has {last} column{'s' * (last != 1)} and no line "
            "end: if the file was cut off there, people are missing",
            parsed.row,
        )
