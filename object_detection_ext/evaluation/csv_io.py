# SPDX-License-Identifier: Apache-2.0
"""Readers for AVA files: action CSVs, excluded timestamps, label maps.

Needs only NumPy, so that the command line starts without TensorFlow.

Shape legend: N labelled rows of a file, F frames that the file lists.
"""

import csv
import itertools
import math
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from object_detection_ext import errors, printable
from object_detection_ext.progress import Progress

Frame = tuple[str, int | float]
Category = dict[str, int | str]
Report = Callable[[str], None]

_COLUMNS = ("video_id", "timestamp", "x1", "y1", "x2", "y2", "action_id", "score")
_CHUNK_ROWS = 100_000
_DEFAULT_SCORE = 1.0
# Boxes are normalized; from about 1e154 on, their areas are not numbers.
MAX_CORNER = 1e6


@dataclass(frozen=True)
class LabelledBoxes:
    """Boxes with an action each, of any number of frames.

    Attributes:
      frame: int [N], which frame a row belongs to.
      boxes: float64 [N, 4], [ymin, xmin, ymax, xmax], all normalized or all in pixels.
      classes: int64 [N], ids of the label map.
      scores: float64 [N].
    """

    frame: np.ndarray
    boxes: np.ndarray
    classes: np.ndarray
    scores: np.ndarray

    def __len__(self) -> int:
        return len(self.frame)

    def __getitem__(self, rows: np.ndarray) -> "LabelledBoxes":
        return LabelledBoxes(
            self.frame[rows], self.boxes[rows], self.classes[rows], self.scores[rows]
        )


@dataclass(frozen=True)
class AvaRows:
    """One AVA file, in the order of its rows.

    Attributes:
      name: where the rows come from, for messages.
      frames: the F frames that the file lists, (video id, seconds), in order of appearance;
        `rows.frame` counts them. A frame may have no rows.
      rows: the N labelled rows; boxes are [ymin, xmin, ymax, xmax], normalized.
      lines: int64 [N], the line of each row in the file, from 1.
      has_score: bool [N], which rows have the 8th column; the others score 1.0.
    """

    name: str
    frames: list[Frame]
    rows: LabelledBoxes
    lines: np.ndarray
    has_score: np.ndarray


def _read_timestamp(text: str) -> int | float:
    """Seconds; whole ones as int, so that "902", "0902" and "902.0" are one frame.

    The ActivityNet program takes whole seconds only. Others are accepted here, to the millisecond.
    """
    try:
        return int(text)
    except ValueError:
        seconds = round(float(text), 3)
    if not math.isfinite(seconds):
        raise ValueError(f"{text!r} is not a time")
    return int(seconds) if seconds == int(seconds) else seconds


def _read_integer(text: str) -> int:
    """An id, also where a tool wrote it as "12.0"."""
    try:
        number = int(text)
    except ValueError:
        number = float(text)
    if not abs(number) < 2**63 or number != int(number):
        raise ValueError(f"{text!r} is not a whole number of 64 bits")
    return int(number)


def _read_corner(text: str) -> float:
    number = float(text)
    if not abs(number) <= MAX_CORNER:
        raise ValueError(f"{text!r} is not finite, or too large")
    return number


def _read_score(text: str) -> float:
    number = float(text)
    if math.isnan(number):
        raise ValueError("NaN is not a score")
    return number


_FIELD_READERS = (_read_corner,) * 4 + (_read_integer, _read_score)
_FIELD_WANTS = (
    f"a finite number, of a box that is normalized to [0, 1] ({MAX_CORNER:,.0f} at most)",
) * 4 + ("a whole number", "a number, not NaN")


class _FrameIndex:
    """Numbers frames by (video id, timestamp), in order of appearance."""

    def __init__(self, name: str):
        self._name = name
        self._number_of_text: dict[tuple[str, str], int] = {}
        self._number_of_frame: dict[Frame, int] = {}

    @property
    def frames(self) -> list[Frame]:
        return list(self._number_of_frame)

    def number(self, video_id: str, timestamp: str, line: int) -> int:
        text = (video_id, timestamp)
        known = self._number_of_text.get(text)
        if known is not None:
            return known
        try:
            frame = (video_id, _read_timestamp(timestamp))
        except ValueError:
            hint = " AVA files have no header row." if line == 1 else ""
            raise errors.InputError(
                f"{self._name}, line {line}: timestamp {timestamp!r} is not a number of seconds."
                f"{hint}"
            ) from None
        if printable.in_one_line(video_id) != video_id:
            raise errors.InputError(
                f"{self._name}, line {line}: video_id is '{printable.in_one_line(video_id)}', but "
                "must not have control characters."
            )
        number = self._number_of_frame.setdefault(frame, len(self._number_of_frame))
        self._number_of_text[text] = number
        return number


def _raise_for_field(name: str, rows: list[list[str]], lines: list[int]) -> None:
    """Finds the field that could not be read and raises an error that names it."""
    for row, line in zip(rows, lines, strict=True):
        fields = zip(row[2:], _COLUMNS[2:], _FIELD_READERS, _FIELD_WANTS, strict=False)
        for text, column, read, want in fields:
            try:
                read(text)
            except ValueError:
                raise errors.InputError(
                    f"{name}, line {line}: {column} is {text!r}, but must be {want}."
                ) from None


def _read_labelled(
    name: str, rows: list[list[str]], lines: list[int], frame: list[int]
) -> LabelledBoxes:
    """Turns rows of 7 or 8 texts into arrays. Raises InputError for an unreadable field."""
    count = len(rows)
    texts = itertools.chain.from_iterable(row[2:6] for row in rows)
    try:
        corners = np.fromiter(map(float, texts), np.float64, 4 * count).reshape(count, 4)
        classes = np.fromiter((_read_integer(row[6]) for row in rows), np.int64, count)
        scores = np.fromiter(
            (float(row[7]) if len(row) == 8 else _DEFAULT_SCORE for row in rows), np.float64, count
        )
    except ValueError:
        _raise_for_field(name, rows, lines)
        raise
    if not (np.abs(corners) <= MAX_CORNER).all() or np.isnan(scores).any():
        _raise_for_field(name, rows, lines)
    return LabelledBoxes(np.array(frame, np.int64), corners[:, [1, 0, 3, 2]], classes, scores)


def _row_chunks(path: str, report: Report | None) -> Iterator[list[tuple[int, list[str]]]]:
    """Yields lists of (line, fields), blank lines left out."""
    megabytes = os.path.getsize(path) / 1e6
    progress = Progress(f"reading {path}", megabytes, "MB", report, tell_end=False)
    line = 0
    with open(path, newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file)
        while True:
            try:
                chunk = list(itertools.islice(reader, _CHUNK_ROWS))
            except (csv.Error, UnicodeDecodeError) as error:
                raise errors.InputError(
                    f"{path}, after line {line}: not a text CSV ({error})."
                ) from None
            if not chunk:
                return
            yield [(line + 1 + i, row) for i, row in enumerate(chunk) if row]
            line += len(chunk)
            progress.update(file.buffer.tell() / 1e6)


def read_csv(path: str, report: Report | None = None) -> AvaRows:
    """Reads ground truth or detections in the AVA form.

    Args:
      path: a CSV of rows `video_id,timestamp,x1,y1,x2,y2,action_id[,score]`, boxes normalized, no
        header; a row of the first two columns alone lists a frame without boxes. The 8th column
        of ground truth, where there is one, is the person's id, and is read as a score, as the
        ActivityNet program does (there it decides nothing but the order of rows).
      report: called with lines of progress when reading takes long.

    Raises:
      InputError: for a row with another number of columns, an unreadable or infinite number, or a
        NaN score; names file, line, column and value.
      OSError: where the file cannot be opened.
    """
    index, parts, all_lines, has_score = _FrameIndex(path), [], [], []
    for chunk in _row_chunks(path, report):
        rows, lines, frame = [], [], []
        for line, row in chunk:
            if len(row) not in (2, 7, 8):
                raise errors.InputError(
                    f"{path}, line {line}: {len(row)} columns, but an AVA row has 7 or 8 "
                    f"({','.join(_COLUMNS)}), or 2 for a frame without boxes."
                )
            number = index.number(row[0], row[1], line)
            if len(row) > 2:
                rows.append(row)
                lines.append(line)
                frame.append(number)
        if rows:
            parts.append(_read_labelled(path, rows, lines, frame))
            all_lines.append(np.array(lines, np.int64))
            has_score.append(np.array([len(row) == 8 for row in rows], bool))
    lines = np.concatenate(all_lines) if parts else np.zeros(0, np.int64)
    scored = np.concatenate(has_score) if parts else np.zeros(0, bool)
    return AvaRows(path, index.frames, concatenate(parts), lines, scored)


def concatenate(parts: list[LabelledBoxes]) -> LabelledBoxes:
    """Rows of all parts, in order, as float64 and int64; no parts give no rows."""
    if not parts:
        empty = np.zeros(0, np.int64)
        return LabelledBoxes(empty, np.zeros((0, 4)), empty, np.zeros(0))
    return LabelledBoxes(
        np.concatenate([part.frame for part in parts]).astype(np.int64, copy=False),
        np.concatenate([part.boxes for part in parts]).astype(np.float64, copy=False),
        np.concatenate([part.classes for part in parts]).astype(np.int64, copy=False),
        np.concatenate([part.scores for part in parts]).astype(np.float64, copy=False),
    )


def read_excluded_timestamps(path: str) -> frozenset[Frame]:
    """Reads rows `video_id,timestamp` of frames to leave out of the evaluation.

    Raises:
      InputError: for a row that does not have two columns, or an unreadable timestamp.
    """
    index = _FrameIndex(path)
    for chunk in _row_chunks(path, None):
        for line, row in chunk:
            if len(row) != 2:
                raise errors.InputError(
                    f"{path}, line {line}: {len(row)} columns, but a row of excluded timestamps "
                    "has 2 (video_id,timestamp)."
                )
            index.number(row[0], row[1], line)
    return frozenset(index.frames)


_TOKEN = re.compile(
    r"""(?P<skip>[\s,;]+|\#[^\n]*)|(?P<text>"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*')"""
    r"""|(?P<mark>[{}<>:])|(?P<word>[^\s{}<>:"'\#,;]+)"""
)
_ESCAPES = {"n": "\n", "t": "\t"}


def _tokens(path: str, text: str) -> Iterator[tuple[str, str, int]]:
    """Yields (kind, token, line) of a protobuf text file, comments left out."""
    position, line = 0, 1
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise errors.InputError(
                f"{path}, line {line}: a quoted text is not closed on its line."
            )
        token = match.group()
        if match.lastgroup == "text":
            value = re.sub(r"\\(.)", lambda m: _ESCAPES.get(m[1], m[1]), token[1:-1])
            yield "text", value, line
        elif match.lastgroup != "skip":
            yield match.lastgroup, token, line
        position, line = match.end(), line + token.count("\n")


def _label_blocks(path: str, text: str) -> Iterator[tuple[int, dict[str, str]]]:
    """Yields (line, fields) of each outermost block; fields of nested blocks are left out."""
    depth, start, fields, key = 0, 0, {}, None
    for kind, token, line in _tokens(path, text):
        if kind == "mark":
            if token in "{<":
                depth += 1
                if depth == 1:
                    start, fields = line, {}
            elif token in "}>":
                depth -= 1
                if depth < 0:
                    raise errors.InputError(f"{path}, line {line}: {token!r} closes nothing.")
                if depth == 0:
                    yield start, fields
            key = key if token == ":" else None
        elif kind == "word" and key is None:
            key = token
        elif depth == 1 and key is not None:
            fields[key] = token
            key = None
        else:
            key = None
    if depth:
        raise errors.InputError(f"{path}, line {start}: this block is not closed.")


@dataclass(frozen=True)
class _Label:
    line: int
    id: int
    name: str
    type: str


def _read_labels(path: str) -> list[_Label]:
    """The blocks of a label map, as `read_label_map` describes it."""
    with open(path, encoding="utf-8-sig") as file:
        try:
            text = file.read()
        except UnicodeDecodeError:
            raise errors.InputError(
                f"{path}: a label map must be text, not a binary file."
            ) from None
    labels: dict[int, _Label] = {}
    for line, fields in _label_blocks(path, text):
        label = _read_label(path, line, fields)
        if label.id == 0 and label.name == "background":
            continue
        if label.id < 1:
            raise errors.InputError(
                f"{path}, line {line}: id {label.id} of {label.name!r} must be 1 or more."
            )
        if label.id in labels:
            raise errors.InputError(
                f"{path}, line {line}: id {label.id} of {label.name!r} is taken by line "
                f"{labels[label.id].line}."
            )
        labels[label.id] = label
    if not labels:
        raise errors.InputError(
            f"{path}: no classes; blocks 'item {{ name: \"..\" id: 1 }}' are expected."
        )
    return list(labels.values())


def _read_label(path: str, line: int, fields: dict[str, str]) -> _Label:
    id_text = fields.get("id", fields.get("label_id"))
    if id_text is None:
        raise errors.InputError(f"{path}, line {line}: a block without an 'id' or a 'label_id'.")
    if not re.fullmatch(r"-?\d+", id_text):
        raise errors.InputError(f"{path}, line {line}: id {id_text!r} is not a whole number.")
    name = fields.get("name") or fields.get("display_name", "")
    if printable.in_one_line(name) != name:
        raise errors.InputError(f"{path}, line {line}: name {name!r} has control characters.")
    return _Label(line, int(id_text), name, fields.get("label_type", ""))


def read_label_map(path: str) -> list[Category]:
    """Reads a label map, as the stock API has it or as the AVA release does.

    Args:
      path: blocks `item { name: ".." id: 3 }` or `label { name: ".." label_id: 3 .. }`. Ids need
        not be contiguous.

    Returns:
      Categories {"id": .., "name": ..} in the order of the file.

    Raises:
      InputError: for a file without blocks, a block without an id, an id below 1 (0 is left out
        where its name is "background", as the stock API allows), or two blocks with one id.
      OSError: where the file cannot be opened.
    """
    return [{"id": label.id, "name": label.name} for label in _read_labels(path)]


def read_label_types(path: str, required: bool = True) -> dict[int, str]:
    """Reads which group each class of a label map belongs to.

    Args:
      path: as for `read_label_map`; the blocks' `label_type`, such as PERSON_MOVEMENT in the AVA
        release. (The stock API's own label maps cannot have that field.)
      required: whether it is an error that no class has one.

    Returns:
      Groups by class id, without the classes that have none.

    Raises:
      InputError, OSError: as `read_label_map`; InputError if what is required is missing.
    """
    types = {label.id: label.type for label in _read_labels(path) if label.type}
    if required and not types:
        raise errors.InputError(
            f'{path}: no class has a label_type; blocks \'label {{ name: ".." label_id: 1 '
            "label_type: PERSON_MOVEMENT }' are expected."
        )
    return types


def read_frame(text: str) -> Frame:
    """A frame from its name in records, `video_id,timestamp`.

    Raises:
      ValueError: if it is none.
    """
    video_id, _, timestamp = text.rpartition(",")
    if not video_id:
        raise ValueError(f"{text!r} is not of the form video_id,timestamp")
    return video_id, _read_timestamp(timestamp)
