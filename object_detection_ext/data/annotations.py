# SPDX-License-Identifier: Apache-2.0
"""AVA-style annotations: a CSV without header, and the label map that names its action ids.

Rows are `video_id,timestamp,x1,y1,x2,y2,action_id,person_id`. Seven columns leave the person id
out; two columns are a keyframe on which nobody is annotated. Timestamps are seconds from the start
of the video, as `902`, `0902` or `901.5`. Boxes are normalized to 0..1, x to the right and y down.
"""

import csv
import dataclasses
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from google.protobuf import text_format
from object_detection.protos import string_int_label_map_pb2

from object_detection_ext import errors, printable

_CORNERS = ("x1", "y1", "x2", "y2")
# No video is 30 years long, and in a video's own units larger times do not fit into 64 bits.
_MAX_SECONDS = 1_000_000_000
# Ids are stored in 64 bits.
_TOO_LARGE = 2**63
_COLUMNS = "video_id,timestamp,x1,y1,x2,y2,action_id,person_id"
# Of what is read for its boxes only; more columns may follow.
_BOX_COLUMNS = "video_id,timestamp,x1,y1,x2,y2"
_MAX_LISTED = 20
_AVA_LIST_HINT = (
    ". This one is in the form of AVA v2.2's own list, which the stock API does not read; the same "
    "classes are in label_maps/ava_80.pbtxt"
)


class AnnotationError(errors.InputError):
    """The annotations or their label map cannot be used; the message lists where and why."""


@dataclasses.dataclass(frozen=True, slots=True)
class Region:
    """One row: a person's box with one of the person's actions.

    `box` is [ymin, xmin, ymax, xmax], normalized; `row` counts the file's lines from 1.
    """

    box: tuple[float, float, float, float]
    action_id: int
    person_id: int | None
    row: int


@dataclasses.dataclass(slots=True)
class Keyframe:
    """An annotated moment of a video, `timestamp` in seconds from its start.

    `row` is its first line in the file; `num_skipped` counts rows left out for an unknown action.
    """

    video_id: str
    timestamp: float
    row: int
    regions: list[Region] = dataclasses.field(default_factory=list)
    num_skipped: int = 0


@dataclasses.dataclass(frozen=True)
class Annotations:
    """All keyframes of a file, sorted by video id and time.

    `skipped_labels` counts the rows by action id that the label map does not have.
    """

    path: str
    keyframes: tuple[Keyframe, ...]
    skipped_labels: Mapping[int, int]

    def by_video(self) -> dict[str, list[Keyframe]]:
        """Returns each video's keyframes in order of time, videos sorted by id."""
        videos: dict[str, list[Keyframe]] = {}
        for keyframe in self.keyframes:
            videos.setdefault(keyframe.video_id, []).append(keyframe)
        return videos


def format_timestamp(seconds: float) -> str:
    """Returns seconds as AVA writes them (`0902`), with up to 6 decimals where there are any."""
    if seconds == int(seconds):
        return f"{int(seconds):04d}"
    return f"{seconds:.6f}".rstrip("0")


def read_label_map(path: str | os.PathLike) -> dict[int, str]:
    """Reads a label map in the stock text format.

    Returns:
      Names by action id. Ids start at 1 and need not be contiguous.

    Raises:
      AnnotationError: if the file is missing, is no label map, or repeats an id or a name.
    """
    path = os.fspath(path)
    if not os.path.isfile(path):
        raise AnnotationError(f"{path}: there is no such label map file.")
    # The stock reader says no more than this, and would import TensorFlow first.
    label_map = string_int_label_map_pb2.StringIntLabelMap()
    text = ""
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
        text_format.Parse(text, label_map)
    except (OSError, UnicodeDecodeError, text_format.ParseError) as error:
        raise AnnotationError(
            f"{path}: not a label map ({error}). It holds one block per class: "
            "item { name: 'stand' id: 12 }" + (_AVA_LIST_HINT if "label_id" in text else "")
        ) from error
    return _checked_names(path, label_map)


def _checked_names(path: str, label_map) -> dict[int, str]:
    names: dict[int, str] = {}
    problems = []
    for item in label_map.item:
        if item.id < 1:
            problems.append(f"id {item.id} of {item.name!r} must be at least 1 (0 is background)")
        elif item.id in names:
            problems.append(f"id {item.id} stands twice: {names[item.id]!r} and {item.name!r}")
        elif not item.name:
            problems.append(f"id {item.id} has no name")
        elif printable.in_one_line(item.name) != item.name:
            problems.append(f"name {item.name!r} of id {item.id} has control characters")
        elif item.name in names.values():
            problems.append(f"name {item.name!r} stands twice, the second time with id {item.id}")
        else:
            names[item.id] = item.name
    if not names and not problems:
        problems.append("no class in it; each is: item { name: 'stand' id: 12 }")
    if problems:
        raise AnnotationError(f"{path}: bad label map: " + "; ".join(problems) + ".")
    return names


@dataclasses.dataclass(frozen=True, slots=True)
class RowProblem:
    """One thing that is wrong with one row.

    Attributes:
      code: the kind of the problem, one of `PROBLEM_CODES`.
      column: of `_COLUMNS`; empty where the row as a whole is wrong.
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


HEADER, COLUMNS, VIDEO_ID, CONTROL, NUMBER, RANGE, ORDER = PROBLEM_CODES = (
    "header_row",
    "malformed_row",
    "empty_video_id",
    "control_characters",
    "not_a_number",
    "box_out_of_range",
    "box_corner_order",
)


class ParsedRow(NamedTuple):
    """A line of the file: what could be read of it, and all that is wrong with it.

    `seconds`, `corners` (x1, y1, x2, y2 as the file has them, in range or not) and `action_id` are
    None where they are missing or no numbers.
    """

    row: int
    video_id: str
    seconds: float | None = None
    corners: tuple[float, float, float, float] | None = None
    action_id: int | None = None
    person_id: int | None = None
    problems: Sequence[RowProblem] = ()


def _number(text: str, column: str, problems: list[RowProblem]) -> float | None:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if math.isfinite(value):
        return value
    fault = f"{column} is {text!r}"
    problems.append(RowProblem(NUMBER, column, text, fault, "it must be a number"))
    return None


def _integer(text: str, column: str, problems: list[RowProblem]) -> int | None:
    try:
        value = int(text)
    except ValueError:
        value = _TOO_LARGE
    if abs(value) < _TOO_LARGE:
        return value
    fault = f"{column} is {text!r}"
    problems.append(RowProblem(NUMBER, column, text, fault, "it must be a whole number"))
    return None


def _seconds(text: str, problems: list[RowProblem]) -> float | None:
    seconds = _number(text, "timestamp", problems)
    if seconds is None:
        return None
    if abs(seconds) < _MAX_SECONDS:
        return round(seconds, 6)
    fault = f"timestamp is {text!r}"
    advice = f"it must be a number of seconds, less than {_MAX_SECONDS:,}"
    problems.append(RowProblem(NUMBER, "timestamp", text, fault, advice))
    return None


def _check_box(corners: Sequence[float], problems: list[RowProblem]) -> None:
    x1, y1, x2, y2 = corners
    if 0.0 <= x1 < x2 <= 1.0 and 0.0 <= y1 < y2 <= 1.0:
        return
    for name, value in zip(_CORNERS, corners, strict=True):
        if not 0.0 <= value <= 1.0:
            advice = "boxes are normalized, so it must be in [0, 1]"
            problems.append(RowProblem(RANGE, name, f"{value:g}", f"{name} is {value:g}", advice))
    for axis, low, high in (("x", x1, x2), ("y", y1, y2)):
        if low >= high:
            fault = f"{axis}1 is {low:g} and {axis}2 {high:g}"
            advice = f"{axis}1 must be less than {axis}2"
            problems.append(RowProblem(ORDER, f"{axis}1", f"{low:g} >= {high:g}", fault, advice))


def _header(fields: Sequence[str]) -> RowProblem:
    fault = f"the first row names columns: {','.join(fields)}"
    return RowProblem(
        HEADER, "timestamp", fields[1], fault, "remove it: these files have no header"
    )


def _parse_row(fields: list[str], row: int, first: bool, only_box: bool = False) -> ParsedRow:
    """Reads a row; with `only_box` its first six columns, whatever the others are."""
    problems: list[RowProblem] = []
    if only_box:
        fields = fields[:6]
    if len(fields) not in ((2, 6) if only_box else (2, 7, 8)):
        whole = _BOX_COLUMNS if only_box else f"{_COLUMNS} (the last may be left out)"
        advice = f"it must be {whole}, or video_id,timestamp for a keyframe without people"
        value = ",".join(fields)
        fault = f"{len(fields)} column{'s' * (len(fields) != 1)}"
        problems.append(RowProblem(COLUMNS, "", value, fault, advice))
        return ParsedRow(row, fields[0], problems=problems)
    video_id = fields[0]
    if not video_id:
        advice = "it must be the video's file name without its extension"
        problems.append(RowProblem(VIDEO_ID, "video_id", "", "video_id is empty", advice))
    shown = printable.in_one_line(video_id)
    if shown != video_id:
        fault = f"video_id is '{shown}'"
        advice = "it must not have control characters"
        problems.append(RowProblem(CONTROL, "video_id", shown, fault, advice))
    seconds = _seconds(fields[1], problems)
    if len(fields) == 2:
        corners = action_id = person_id = None
    else:
        corners = tuple(_number(fields[2 + i], _CORNERS[i], problems) for i in range(4))
        if None in corners:
            corners = None
        else:
            _check_box(corners, problems)
        action_id = None if only_box else _integer(fields[6], "action_id", problems)
        person_id = _integer(fields[7], "person_id", problems) if len(fields) == 8 else None
    if first and sum(problem.code == NUMBER for problem in problems) == len(fields) - 1:
        return ParsedRow(row, video_id, problems=[_header(fields)])
    return ParsedRow(row, video_id, seconds, corners, action_id, person_id, problems)


def parse_rows(path: str | os.PathLike) -> Iterator[ParsedRow]:
    """Yields each line of an annotation file that is not blank, with what is wrong with it.

    Whether action ids are in a label map is for the caller to see.

    Raises:
      AnnotationError: if the file is missing or is no text in UTF-8.
    """
    first = True
    for row, fields in _rows(os.fspath(path)):
        yield _parse_row(fields, row, first)
        first = False


def _rows(path: str) -> Iterator[tuple[int, list[str]]]:
    """Yields (line number, stripped fields) of each line that is not blank."""
    if not os.path.isfile(path):
        raise AnnotationError(f"{path}: there is no such annotation file.")
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file)
            for fields in reader:
                fields = [field.strip() for field in fields]
                if any(fields):
                    yield reader.line_num, fields
    except (UnicodeDecodeError, csv.Error) as error:
        raise AnnotationError(f"{path}: not a CSV file in UTF-8: {error}") from error
    except OSError as error:
        raise AnnotationError(f"{path}: cannot be read: {error}") from error


def read_person_boxes(path: str | os.PathLike) -> list[ParsedRow]:
    """Reads rows `video_id,timestamp,x1,y1,x2,y2`, whatever columns follow, or of the first two.

    Raises:
      AnnotationError: as `read_annotations`.
    """
    path = os.fspath(path)
    found, bad_rows = [], []
    for row, fields in _rows(path):
        parsed = _parse_row(fields, row, first=not (found or bad_rows), only_box=True)
        if parsed.problems:
            bad_rows.append(_told(path, row, parsed.problems))
        else:
            found.append(parsed)
    _raise_bad_rows(path, bad_rows)
    if not found:
        raise AnnotationError(f"{path}: the file has no rows; each row is {_BOX_COLUMNS}.")
    return found


def _told(path: str, row: int, problems: Iterable[object]) -> str:
    return f"  {path}:{row}: {'; '.join(map(str, problems))}"


def read_annotations(
    path: str | os.PathLike, label_map: Mapping[int, str], *, skip_unknown_labels: bool = False
) -> Annotations:
    """Reads and checks a whole annotation file.

    Args:
      path: the CSV file.
      label_map: names by action id, as `read_label_map` gives them.
      skip_unknown_labels: leave out and count rows whose action id the label map does not have,
        as with AVA's 80-class rows and its 60-class map.

    Raises:
      AnnotationError: if the file cannot be read or is empty, or with a list of all bad rows (the
        first 20 in words).
    """
    path = os.fspath(path)
    keyframes: dict[tuple[str, float], Keyframe] = {}
    bad_rows: list[str] = []
    skipped: dict[int, int] = {}
    for parsed in parse_rows(path):
        problems: list[object] = list(parsed.problems)
        action_id = parsed.action_id
        unknown = action_id is not None and action_id not in label_map
        if unknown and not skip_unknown_labels:
            problems.append(unknown_action(action_id, label_map))
        if problems:
            bad_rows.append(_told(path, parsed.row, problems))
            continue
        key = (parsed.video_id, parsed.seconds)
        keyframe = keyframes.setdefault(key, Keyframe(*key, parsed.row))
        if unknown:
            keyframe.num_skipped += 1
            skipped[action_id] = skipped.get(action_id, 0) + 1
        elif action_id is not None:
            x1, y1, x2, y2 = parsed.corners
            region = Region((y1, x1, y2, x2), action_id, parsed.person_id, parsed.row)
            keyframe.regions.append(region)
    _raise_bad_rows(path, bad_rows)
    if not keyframes:
        raise AnnotationError(f"{path}: the file has no rows; each row is {_COLUMNS}.")
    return Annotations(path, tuple(keyframes[key] for key in sorted(keyframes)), skipped)


def _raise_bad_rows(path: str, bad_rows: list[str]) -> None:
    if not bad_rows:
        return
    lines = [f"{path}: {len(bad_rows)} bad row{'s' * (len(bad_rows) > 1)}:"]
    lines += bad_rows[:_MAX_LISTED]
    if len(bad_rows) > _MAX_LISTED:
        lines.append(f"  ... and {len(bad_rows) - _MAX_LISTED} more")
    raise AnnotationError("\n".join(lines))


def unknown_action(action_id: int, label_map: Mapping[int, str]) -> str:
    """Returns what is wrong with an action id that the label map does not have."""
    return f"action_id {action_id} is not in the label map, which has {id_ranges(label_map)}"


def id_ranges(label_map: Iterable[int]) -> str:
    """Returns the ids in words, such as `1, 3-12, 80`."""
    ids, ranges = sorted(label_map), []
    for i in ids:
        if ranges and ranges[-1][1] == i - 1:
            ranges[-1][1] = i
        else:
            ranges.append([i, i])
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in ranges)
