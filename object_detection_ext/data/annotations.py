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
from collections.abc import Iterator, Mapping

from object_detection_ext import errors

_COLUMNS = "video_id,timestamp,x1,y1,x2,y2,action_id,person_id"
_MAX_LISTED = 20


class AnnotationError(errors.InputError):
    """The annotations or their label map cannot be used; the message lists where and why."""


@dataclasses.dataclass(frozen=True)
class Region:
    """One row: a person's box with one of the person's actions.

    `box` is [ymin, xmin, ymax, xmax], normalized; `row` counts the file's lines from 1.
    """

    box: tuple[float, float, float, float]
    action_id: int
    person_id: int | None
    row: int


@dataclasses.dataclass
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
    # Here, so that a tool can reject its other input before it waits for TensorFlow.
    from object_detection_ext import compat  # noqa: F401 (before any object_detection module)

    # isort: split
    from object_detection.utils import label_map_util

    path = os.fspath(path)
    if not os.path.isfile(path):
        raise AnnotationError(f"{path}: there is no such label map file.")
    try:
        label_map = label_map_util.load_labelmap(path)
    except Exception as error:
        # After text that it cannot parse, the stock reader fails with errors of many classes.
        raise AnnotationError(
            f"{path}: not a label map ({_parse_problem(path) or error}). It holds one block per "
            "class: item { name: 'stand' id: 12 }"
        ) from error
    return _checked_names(path, label_map)


def _parse_problem(path: str) -> str:
    """Returns where and why the text is no label map; empty if the text is not what is wrong."""
    from google.protobuf import text_format
    from object_detection.protos import string_int_label_map_pb2

    try:
        with open(path, encoding="utf-8") as file:
            text_format.Parse(file.read(), string_int_label_map_pb2.StringIntLabelMap())
    except (OSError, UnicodeDecodeError, text_format.ParseError) as error:
        return str(error)
    return ""


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
        elif item.name in names.values():
            problems.append(f"name {item.name!r} stands twice, the second time with id {item.id}")
        else:
            names[item.id] = item.name
    if not names and not problems:
        problems.append("no class in it; each is: item { name: 'stand' id: 12 }")
    if problems:
        raise AnnotationError(f"{path}: bad label map: " + "; ".join(problems) + ".")
    return names


class _BadRow(Exception):
    """Why one row cannot be used."""


def _number(text: str, column: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise _BadRow(f"{column} is {text!r}; it must be a number")
    return value


def _integer(text: str, column: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise _BadRow(f"{column} is {text!r}; it must be a whole number") from None


def _parse_region(fields: list[str], row: int) -> Region:
    names = ("x1", "y1", "x2", "y2")
    x1, y1, x2, y2 = values = [_number(fields[2 + i], name) for i, name in enumerate(names)]
    problems = []
    for name, value in zip(names, values, strict=True):
        if not 0.0 <= value <= 1.0:
            problems.append(f"{name} is {value:g}; boxes are normalized, so it must be in [0, 1]")
    if x1 >= x2:
        problems.append(f"x1 is {x1:g} and x2 {x2:g}; x1 must be less than x2")
    if y1 >= y2:
        problems.append(f"y1 is {y1:g} and y2 {y2:g}; y1 must be less than y2")
    if problems:
        raise _BadRow("; ".join(problems))
    person_id = _integer(fields[7], "person_id") if len(fields) == 8 else None
    return Region((y1, x1, y2, x2), _integer(fields[6], "action_id"), person_id, row)


def _parse_row(fields: list[str], row: int) -> tuple[str, float, Region | None]:
    """Returns (video id, seconds, region or None). Raises _BadRow."""
    if len(fields) not in (2, 7, 8):
        raise _BadRow(
            f"{len(fields)} columns; it must be {_COLUMNS} (the last may be left out), or "
            "video_id,timestamp for a keyframe without people"
        )
    if not fields[0]:
        raise _BadRow("video_id is empty; it must be the video's file name without its extension")
    seconds = round(_number(fields[1], "timestamp"), 6)
    return fields[0], seconds, _parse_region(fields, row) if len(fields) > 2 else None


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
    for row, fields in _rows(path):
        try:
            video_id, seconds, region = _parse_row(fields, row)
            unknown = region is not None and region.action_id not in label_map
            if unknown and not skip_unknown_labels:
                raise _BadRow(
                    f"action_id {region.action_id} is not in the label map, which has "
                    f"{_id_ranges(label_map)}"
                )
        except _BadRow as problem:
            bad_rows.append(f"  {path}:{row}: {problem}")
            continue
        keyframe = keyframes.setdefault((video_id, seconds), Keyframe(video_id, seconds, row))
        if unknown:
            keyframe.num_skipped += 1
            skipped[region.action_id] = skipped.get(region.action_id, 0) + 1
        elif region is not None:
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
    if bad_rows[0].startswith(f"  {path}:1: ") and len(bad_rows) == 1:
        lines.append("  If row 1 is a header, remove it: these files have none.")
    raise AnnotationError("\n".join(lines))


def _id_ranges(label_map: Mapping[int, str]) -> str:
    """Returns the ids in words, such as `1, 3-12, 80`."""
    ids, ranges = sorted(label_map), []
    for i in ids:
        if ranges and ranges[-1][1] == i - 1:
            ranges[-1][1] = i
        else:
            ranges.append([i, i])
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in ranges)
