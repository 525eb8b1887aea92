# SPDX-License-Identifier: Apache-2.0
"""Long files, read by pyarrow where there is nothing odd in them: many times faster than by rows.

It gives what `row_reader` gives, to the bit, or nothing: whatever that could read in another way,
note or refuse is left to it.

Shape legend: N rows of a file, F frames.
"""

import codecs
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from object_detection_ext import printable
from object_detection_ext.ava import csv_text, row_reader, timestamps, video_ids
from object_detection_ext.ava.columns import ANNOTATIONS, Kind
from object_detection_ext.ava.faults import AnnotationError, Note, Notes
from object_detection_ext.ava.timestamps import Frame

_BLOCK = 1 << 24
_WHOLE = re.compile(r"-?[0-9]{1,18}")
# An id such as 0012 is a text.
_PERSON = re.compile(r"-?(?:0|[1-9][0-9]{0,17})")
_MARK = codecs.BOM_UTF8


@dataclass(frozen=True)
class LongRows:
    """A file of N rows, each with a box.

    Attributes:
        frames: the F frames, in order of appearance.
        frame: int64 [N], counts them.
        corners: float64 [N, 4], x1, y1, x2, y2.
        classes: int64 [N].
        scores: float64 [N]; None without an 8th column.
        persons: int64 [N], a number for each person id; None without person ids.
        lines: int64 [N], from 1.
        notes: what was changed in reading.
    """

    frames: list[Frame]
    frame: np.ndarray
    corners: np.ndarray
    classes: np.ndarray
    scores: np.ndarray | None
    persons: np.ndarray | None
    lines: np.ndarray
    notes: tuple[Note, ...]


class _OddError(Exception):
    """Something that `row_reader` should see."""


def read(path: str, kind: Kind, box_tolerance: float | None) -> LongRows | None:
    """Reads a file; None if anything in it is odd, or pyarrow is not there."""
    try:
        return _read(path, kind, csv_text.layout(path, kind), box_tolerance)
    except (_OddError, AnnotationError, ImportError):
        return None


def _read(path: str, kind: Kind, layout: csv_text.Layout, tolerance: float | None) -> LongRows:
    num_lines, before = _count_lines(path, layout), layout.first_line - 1
    places = layout.places or range(_width(path, layout))
    if len(places) not in (7, 8):
        raise _OddError
    columns = _columns(path, layout, places, kind)
    lines = np.arange(before + 1, num_lines + 1, dtype=np.int64)
    # Otherwise some were left out as blank.
    if len(columns[0]) != len(lines):
        raise _OddError
    notes = Notes()
    csv_text.note(layout, notes)
    frames, frame = _frames(*columns[:2])
    corners = np.stack([_numbers(column, np.float64) for column in columns[2:6]], axis=1)
    outside = _rows_to_cut(corners, kind, tolerance)
    if len(outside):
        line = int(lines[outside[0]])
        fields = _fields(path, layout, line)
        shown = ",".join(fields[place] for place in places[2:6])
        text = row_reader.cut_off_text(tolerance)
        notes.add("box_cut_off", text, line, shown, len(outside))
        cut = corners[outside]
        corners[outside] = np.where(cut < 0.0, 0.0, np.where(cut > 1.0, 1.0, cut))
    scores = persons = None
    if len(places) == 8:
        eighth = columns[7]
        scores = _whole(eighth, _PERSON) if kind is ANNOTATIONS else _numbers(eighth, np.float64)
        if kind is ANNOTATIONS:
            persons = _in_order_of_appearance(scores)
        scores = scores.astype(np.float64)
        if not np.isfinite(scores).all():
            raise _OddError
    classes = _whole(columns[6])
    return LongRows(frames, frame, corners, classes, scores, persons, lines, notes.all())


def _count_lines(path: str, layout: csv_text.Layout) -> int:
    """The number of lines of a file; raises where more than commas and line ends mean something."""
    if layout.encoding not in ("utf-8", "utf-8-sig"):
        raise _OddError
    ends, returns, both, marks, last = 0, 0, 0, 0, b""
    with open(path, "rb") as file:
        while block := file.read(_BLOCK):
            if b'"' in block or b"\0" in block:
                raise _OddError
            ends, returns = ends + block.count(b"\n"), returns + block.count(b"\r")
            both += block.count(b"\r\n") + (last[-1:] == b"\r" and block[:1] == b"\n")
            marks += (last + block).count(_MARK)
            last = block[-2:]
    # One at the beginning is the encoding's.
    if (
        marks > (layout.encoding == "utf-8-sig")
        or last[-1:] != b"\n"
        or (returns, both) not in ((0, 0), (ends, ends))
    ):
        raise _OddError
    return ends


def _fields(path: str, layout: csv_text.Layout, line: int) -> list[str]:
    for number, text in csv_text.lines(path, layout.encoding):
        if number == line:
            return csv_text.split(text, layout.delimiter) or []
    return []


def _width(path: str, layout: csv_text.Layout) -> int:
    return len(layout.header) or len(_fields(path, layout, layout.first_line))


def _columns(path: str, layout: csv_text.Layout, places: Sequence[int], kind: Kind) -> list:
    """The columns of a kind as arrays of pyarrow: numbers, or texts each of which is kept once."""
    import pyarrow as pa
    from pyarrow import csv

    number, text = pa.float64(), pa.dictionary(pa.int32(), pa.string())
    types = [text, text, number, number, number, number, text]
    types.append(text if kind is ANNOTATIONS else number)
    names = [str(place) for place in range(_width(path, layout))]
    used = [names[place] for place in places]
    try:
        table = csv.read_csv(
            path,
            csv.ReadOptions(column_names=names, skip_rows=layout.first_line - 1),
            csv.ParseOptions(delimiter=layout.delimiter, quote_char=False),
            csv.ConvertOptions(
                column_types=dict(zip(used, types, strict=False)),
                include_columns=used,
                null_values=[],
            ),
        )
    except (pa.ArrowException, OSError):
        raise _OddError from None
    table = table.unify_dictionaries().combine_chunks()
    if not len(table):
        raise _OddError
    return [column.chunk(0) for column in table.columns]


def _numbers(column, dtype: type) -> np.ndarray:
    """A column without nulls, [N]; pyarrow's own conversion imports pandas, half a second."""
    if column.null_count:
        raise _OddError
    size = np.dtype(dtype).itemsize
    return np.frombuffer(column.buffers()[1], dtype, len(column), column.offset * size)


def _frames(videos, times) -> tuple[list[Frame], np.ndarray]:
    """Numbers frames in order of appearance: the frames, int64 [N]."""
    ids = [video_ids.same_id(text.strip()) for text in videos.dictionary.to_pylist()]
    seconds = [_seconds(text.strip()) for text in times.dictionary.to_pylist()]
    if not all(video_id and printable.in_one_line(video_id) == video_id for video_id in ids):
        raise _OddError
    if any(map(row_reader.is_quoted, (*ids, *times.dictionary.to_pylist()))):
        raise _OddError
    of_row = _numbers(videos.indices, np.int32).astype(np.int64) * len(seconds)
    of_row += _numbers(times.indices, np.int32)
    starts = np.flatnonzero(np.diff(of_row, prepend=-1))  # of runs of rows of one frame
    distinct, first, of_run = np.unique(of_row[starts], return_index=True, return_inverse=True)
    # Texts that differ may mean one frame: 902 and 0902.
    numbers: dict[Frame, int] = {}
    number_of = np.empty(len(distinct), np.int64)
    for index in np.argsort(first, kind="stable"):
        video, time = divmod(int(distinct[index]), len(seconds))
        frame = timestamps.frame(ids[video], seconds[time])
        number_of[index] = numbers.setdefault(frame, len(numbers))
    lengths = np.diff(starts, append=len(of_row))
    return list(numbers), np.repeat(number_of[of_run], lengths)


def _seconds(text: str) -> float:
    try:
        if timestamps.is_clock(text):
            raise _OddError
        return timestamps.parse(text)
    except ValueError:
        raise _OddError from None


def _in_order_of_appearance(ids: np.ndarray) -> np.ndarray:
    """Numbers ids from 0, int64 [N]."""
    _, first, index = np.unique(ids, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[index]


def _whole(texts, pattern: re.Pattern = _WHOLE) -> np.ndarray:
    """int64 [N] from texts that are whole numbers and nothing else."""
    values = [value.strip() for value in texts.dictionary.to_pylist()]
    if not all(pattern.fullmatch(value) for value in values):
        raise _OddError
    return np.array([int(value) for value in values], np.int64)[_numbers(texts.indices, np.int32)]


def _rows_to_cut(corners: np.ndarray, kind: Kind, tolerance: float | None) -> np.ndarray:
    """The rows whose boxes are to be cut off; raises where a box is none."""
    least, most = float(corners.min()), float(corners.max())
    # Comparisons with NaN are false.
    if not max(-least, most) <= row_reader.MAX_CORNER or not np.isfinite(corners).all():
        raise _OddError
    if tolerance is None or (least >= 0.0 and most <= 1.0):
        return np.zeros(0, np.int64)
    beyond = ((corners < -tolerance) | (corners > 1.0 + tolerance)).any(axis=1)
    if kind is ANNOTATIONS and beyond.any():
        raise _OddError
    return np.flatnonzero(((corners < 0.0) | (corners > 1.0)).any(axis=1) & ~beyond)
