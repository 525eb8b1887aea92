# SPDX-License-Identifier: Apache-2.0
"""Rows of AVA's files as arrays, for evaluation; and lists of moments to leave out.

Needs NumPy, and for long files pyarrow, so that the command line starts without TensorFlow.

Shape legend: N labelled rows of a file, F frames that the file lists.
"""

import array
import os
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from object_detection_ext.ava import columns, faults, long_files, row_reader, timestamps
from object_detection_ext.ava.columns import ANNOTATIONS, DETECTIONS, MOMENTS
from object_detection_ext.ava.faults import Note, Notes
from object_detection_ext.ava.row_reader import BOX_TOLERANCE, ParsedRow
from object_detection_ext.ava.timestamps import Frame
from object_detection_ext.progress import Progress

Report = Callable[[str], None]

_DEFAULT_SCORE = 1.0
# From so many bytes on, pyarrow is worth its import.
_LONG_FILE = 2**20


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
        # Of a mask, once and not for each column.
        rows = np.flatnonzero(rows) if rows.dtype == bool else rows
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
      has_score: bool [N], which rows have a number in the 8th column; the others score 1.0.
      notes: what was changed in reading.
      persons: int64 [N], person ids by number, in order of appearance; -1 for rows without one.
        None for detections.
    """

    name: str
    frames: list[Frame]
    rows: LabelledBoxes
    lines: np.ndarray
    has_score: np.ndarray
    notes: tuple[Note, ...] = ()
    persons: np.ndarray | None = None


class _Rows:
    """Rows as they come, in columns."""

    def __init__(self):
        self.numbers: dict[Frame, int] = {}
        self._frame, self._line, self._class = (array.array("q") for _ in range(3))
        self._corners, self._score = array.array("d"), array.array("d")
        self._has_score = array.array("b")
        self._person, self._person_ids = array.array("q"), {}

    def add(self, parsed: ParsedRow) -> None:
        frame = timestamps.frame(parsed.video_id, parsed.seconds)
        number = self.numbers.setdefault(frame, len(self.numbers))
        if parsed.corners is None:
            return
        # A person's id that is a number stands where the ActivityNet program reads a score.
        score = parsed.person_id if parsed.score is None else parsed.score
        has_score = isinstance(score, int | float)
        self._frame.append(number)
        self._line.append(parsed.row)
        self._class.append(parsed.action_id)
        self._corners.extend(parsed.corners)
        self._score.append(score if has_score else _DEFAULT_SCORE)
        self._has_score.append(has_score)
        number = -1
        if parsed.person_id is not None:
            number = self._person_ids.setdefault(parsed.person_id, len(self._person_ids))
        self._person.append(number)

    def table(self, name: str, notes: Notes, kind: columns.Kind) -> AvaRows:
        corners = np.array(self._corners, np.float64).reshape(-1, 4)
        rows = LabelledBoxes(
            np.array(self._frame, np.int64),
            corners[:, [1, 0, 3, 2]],
            np.array(self._class, np.int64),
            np.array(self._score, np.float64),
        )
        lines, has_score = np.array(self._line, np.int64), np.array(self._has_score, bool)
        persons = np.array(self._person, np.int64) if kind is ANNOTATIONS else None
        return AvaRows(name, list(self.numbers), rows, lines, has_score, notes.all(), persons)


def read_csv(
    path: str | os.PathLike,
    report: Report | None = None,
    *,
    kind: columns.Kind = DETECTIONS,
    box_tolerance: float | None = BOX_TOLERANCE,
) -> AvaRows:
    """Reads ground truth or detections in the AVA form.

    Args:
      path: a CSV of rows `video_id,timestamp,x1,y1,x2,y2,action_id[,score]`, boxes normalized; a
        row of the first two columns alone lists a frame without boxes.
      report: called with lines of progress when reading takes long.
      kind: `columns.DETECTIONS`, or `columns.ANNOTATIONS`, whose 8th column is the person's id. A
        number there is read as a score, as the ActivityNet program does (there it decides nothing
        but the order of rows).
      box_tolerance: how far outside of [0, 1] a box may reach to be cut off, as a part of the
        frame; None takes boxes as they are, in any unit.

    Raises:
      AnnotationError: where the file cannot be read, or with a list of its bad rows, with line,
        column and value.
    """
    path = os.fspath(path)
    if os.path.isfile(path) and os.path.getsize(path) >= _LONG_FILE:
        table = _read_long(path, kind, box_tolerance)
        if table is not None:
            return table
    found, notes, bad_rows = _Rows(), Notes(), faults.BadRows(path)
    at_byte = _progress(path, report)
    for parsed in row_reader.read_rows(path, kind, notes, box_tolerance, at_byte):
        # A box that has no area is the evaluation's matter.
        problems = [problem for problem in parsed.problems if problem.code != faults.ORDER]
        if problems:
            bad_rows.add(parsed.row, problems)
        elif not bad_rows.count:
            found.add(parsed)
    bad_rows.check()
    return found.table(path, notes, kind)


def _progress(path: str, report: Report | None) -> Callable[[int], None] | None:
    if report is None or not os.path.isfile(path):
        return None
    megabytes = os.path.getsize(path) / 1e6
    progress = Progress(f"reading {path}", megabytes, "MB", report, report_end=False)
    return lambda at: progress.update(at / 1e6)


def _read_long(path: str, kind: columns.Kind, box_tolerance: float | None) -> AvaRows | None:
    """The rows of a file that has nothing odd in it; else None."""
    found = long_files.read(path, kind, box_tolerance)
    if found is None:
        return None
    has_score = np.full(len(found.lines), found.scores is not None)
    scores = np.full(len(found.lines), _DEFAULT_SCORE) if found.scores is None else found.scores
    rows = LabelledBoxes(found.frame, found.corners[:, [1, 0, 3, 2]], found.classes, scores)
    persons = None
    if kind is ANNOTATIONS:
        persons = np.full(len(found.lines), -1) if found.persons is None else found.persons
    return AvaRows(path, found.frames, rows, found.lines, has_score, found.notes, persons)


def read_ground_truth(
    path: str | os.PathLike,
    report: Report | None = None,
    box_tolerance: float | None = BOX_TOLERANCE,
) -> AvaRows:
    """`read_csv` for annotations."""
    return read_csv(path, report, kind=ANNOTATIONS, box_tolerance=box_tolerance)


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


def read_excluded_timestamps(
    path: str | os.PathLike, notes: Notes | None = None
) -> frozenset[Frame]:
    """Reads rows `video_id,timestamp` of frames to leave out of the evaluation.

    Which frame of another file a moment means, `timestamps.Moments` says.

    Args:
      path: the CSV file.
      notes: takes what is changed in reading.

    Raises:
      AnnotationError: where the file cannot be read, for a row that does not have two columns, or
        an unreadable timestamp.
    """
    path = os.fspath(path)
    found, bad_rows = set(), faults.BadRows(path)
    for parsed in row_reader.read_rows(path, MOMENTS, Notes() if notes is None else notes):
        if parsed.problems:
            bad_rows.add(parsed.row, parsed.problems)
        else:
            found.add(timestamps.frame(parsed.video_id, parsed.seconds))
    bad_rows.check()
    return frozenset(found)
