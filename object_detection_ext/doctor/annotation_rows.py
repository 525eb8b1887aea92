# SPDX-License-Identifier: Apache-2.0
"""All rows of an annotation file as columns, good and bad, and its problems by kind.

Shapes: N rows with a video id and a timestamp, F keyframes, V videos.
"""

import array
import dataclasses
import functools

import numpy as np

from object_detection_ext.ava import annotations, faults, timestamps
from object_detection_ext.ava.box_range import BOX_TOLERANCE
from object_detection_ext.doctor import findings

# Stands for "none" in the columns of whole numbers.
NO_NUMBER = -(2**63)
# Stands for the first person id that is a text; its neighbours differ as float64 too.
_FIRST_TEXT = -(2**52)


@dataclasses.dataclass
class ProblemGroup:
    """Rows with the same kind of problem: the first problem, how many, and the first lines."""

    problem: faults.RowProblem
    count: int = 0
    rows: list[int] = dataclasses.field(default_factory=list)
    last_row: int = 0

    def add(self, row: int) -> None:
        """Counts a row once, however many of its fields have the problem."""
        if row == self.last_row:
            return
        self.count, self.last_row = self.count + 1, row
        if len(self.rows) < findings.MAX_ROWS:
            self.rows.append(row)


@dataclasses.dataclass(frozen=True)
class Keyframes:
    """The keyframes of a file, sorted by video (in order of appearance) and time.

    `video` [F] counts `SplitRows.video_ids`, `seconds` [F], `row` [F] is each one's first line,
    `of_row` [N] counts these keyframes.
    """

    video: np.ndarray
    seconds: np.ndarray
    row: np.ndarray
    of_row: np.ndarray

    def __len__(self) -> int:
        return len(self.video)


@dataclasses.dataclass(frozen=True)
class SplitRows:
    """An annotation file.

    Attributes:
      split: "train" or "val".
      path: the file.
      video_ids: the V video ids, in order of appearance.
      num_rows: lines that are not blank.
      video: int32 [N], counts `video_ids`.
      seconds: float64 [N], from the start of the video.
      corners: float64 [N, 4], x1, y1, x2, y2 as the file has them; NaN where there is no box.
      action: int64 [N], the action ids, `NO_NUMBER` where there is none.
      person: int64 [N], the person ids (numbers in place of texts), `NO_NUMBER` where there is
        none.
      row: int64 [N], lines from 1.
      problems: of the rows, by kind.
      notes: what was changed in reading, as the converter changes it.
    """

    split: str
    path: str
    video_ids: list[str]
    num_rows: int
    video: np.ndarray
    seconds: np.ndarray
    corners: np.ndarray
    action: np.ndarray
    person: np.ndarray
    row: np.ndarray
    problems: list[ProblemGroup]
    notes: tuple[faults.Note, ...] = ()

    @functools.cached_property
    def has_box(self) -> np.ndarray:
        """Whether each row has a box of numbers, in range or not: bool [N]."""
        return ~np.isnan(self.corners).any(axis=1)

    @functools.cached_property
    def keyframes(self) -> Keyframes:
        """The keyframes."""
        order = np.lexsort((self.row, self.seconds, self.video))
        video, seconds = self.video[order], self.seconds[order]
        starts = np.ones(len(order), bool)
        starts[1:] = (video[1:] != video[:-1]) | (seconds[1:] != seconds[:-1])
        of_row = np.empty(len(order), np.int64)
        of_row[order] = np.cumsum(starts) - 1
        return Keyframes(video[starts], seconds[starts], self.row[order][starts], of_row)

    def frames(self) -> list[timestamps.Frame]:
        """The F keyframes as (video id, seconds), in the order of `keyframes`."""
        pairs = zip(self.keyframes.video.tolist(), self.keyframes.seconds.tolist(), strict=True)
        return [timestamps.frame(self.video_ids[video], seconds) for video, seconds in pairs]

    @property
    def num_boxes(self) -> int:
        """People: boxes that differ by place or person, in all keyframes."""
        columns = [self.keyframes.of_row, self.corners, self.person]
        keys = np.column_stack(columns)[self.has_box]
        return int((~repeated(keys, np.arange(len(keys)))).sum())

    def rows_of(self, mask: np.ndarray) -> tuple[int, ...]:
        """The first lines that the mask [N] has."""
        return tuple(self.row[np.flatnonzero(mask)[: findings.MAX_ROWS]].tolist())


def repeated(keys: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Returns which rows of `keys` [N, C] repeat one that has a lower `order` [N]: bool [N]."""
    # Sorting by one hash is many times faster than by all columns; equal hashes are compared.
    hashes = np.zeros(len(keys), np.uint64)
    for column in np.ascontiguousarray(keys, np.float64).T:
        bits = np.ascontiguousarray(column + 0.0).view(np.uint64)  # -0.0 becomes 0.0
        hashes = (hashes ^ bits) * np.uint64(0x9E3779B97F4A7C15)
        hashes ^= hashes >> np.uint64(29)
    by_hash = np.lexsort((order, hashes))
    found = np.zeros(len(keys), bool)
    same = (keys[by_hash][1:] == keys[by_hash][:-1]).all(axis=1)
    found[by_hash[1:]] = same
    return found


def read(split: str, path: str, box_tolerance: float = BOX_TOLERANCE) -> SplitRows:
    """Reads a whole file.

    Args:
      split: "train" or "val".
      path: the file.
      box_tolerance: as of `row_reader.RowReader`.

    Raises:
      faults.AnnotationError: if the file is missing or is no text in UTF-8.
    """
    numbers: dict[str, int] = {}
    video, num_rows = array.array("i"), 0
    seconds, corners = array.array("d"), array.array("d")
    action, person, row = array.array("q"), array.array("q"), array.array("q")
    groups: dict[tuple[str, str], ProblemGroup] = {}
    no_box, notes, texts = (np.nan,) * 4, faults.Notes(), {}
    for parsed in annotations.parse_rows(path, notes, box_tolerance):
        num_rows += 1
        for problem in parsed.problems:
            # Numbers that are none are told by column, other problems by their kind alone.
            key = (problem.code, problem.column if problem.code == faults.NUMBER else "")
            groups.setdefault(key, ProblemGroup(problem)).add(parsed.row)
        if parsed.seconds is None or not parsed.video_id:
            continue
        video.append(numbers.setdefault(parsed.video_id, len(numbers)))
        seconds.append(parsed.seconds)
        corners.extend(parsed.corners or no_box)
        action.append(NO_NUMBER if parsed.action_id is None else parsed.action_id)
        person.append(_person_number(parsed.person_id, texts))
        row.append(parsed.row)
    return SplitRows(
        split=split,
        path=path,
        video_ids=list(numbers),
        num_rows=num_rows,
        video=np.frombuffer(video, np.int32) if video else np.zeros(0, np.int32),
        seconds=_column(seconds, np.float64),
        corners=_column(corners, np.float64).reshape(-1, 4),
        action=_column(action, np.int64),
        person=_column(person, np.int64),
        row=_column(row, np.int64),
        problems=list(groups.values()),
        notes=notes.all(),
    )


def _person_number(person_id: int | str | None, texts: dict[str, int]) -> int:
    """A person's id as a number; texts are counted, away from all ids that are numbers."""
    if person_id is None:
        return NO_NUMBER
    if isinstance(person_id, str):
        return _FIRST_TEXT + texts.setdefault(person_id, len(texts))
    return person_id


def _column(values: array.array, dtype) -> np.ndarray:
    return np.frombuffer(values, dtype) if values else np.zeros(0, dtype)
