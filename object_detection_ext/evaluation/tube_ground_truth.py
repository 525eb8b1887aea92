# SPDX-License-Identifier: Apache-2.0
"""Tubes of the ground truth: the boxes of a person id with one action, keyframe after keyframe.

Shapes: N rows.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from object_detection_ext import errors, listing
from object_detection_ext.ava.tables import AvaRows
from object_detection_ext.evaluation.moments import EVEN_SPACING, VideoMoments
from object_detection_ext.evaluation.tubes import Tubes, make_tubes

# That many keyframes in a row with the same number of others left out between them are no accident.
_STRETCH = 3


@dataclass(frozen=True)
class _Rows:
    """Rows of the ground truth in the order of their tubes.

    Attributes:
        video, moment, person, classes: int64 [N].
        place: int64 [N], how many keyframes the ground truth lists before, in the video.
        boxes: float64 [N, 4].
        lines: int64 [N], of the file.
    """

    video: np.ndarray
    moment: np.ndarray
    place: np.ndarray
    person: np.ndarray
    classes: np.ndarray
    boxes: np.ndarray
    lines: np.ndarray

    def __getitem__(self, rows: np.ndarray) -> "_Rows":
        return _Rows(*(values[rows] for values in vars(self).values()))

    def continues(self) -> np.ndarray:
        """Whether each row but the first is of the person and action of the one before."""
        same = np.ones(max(len(self.video) - 1, 0), bool)
        for values in (self.video, self.classes, self.person):
            same &= values[1:] == values[:-1]
        return same


def ground_truth_tubes(
    ground_truth: AvaRows,
    counted: np.ndarray,
    moments: Mapping[str, VideoMoments],
    max_gap: int,
    check_spacing: bool = True,
) -> tuple[Tubes, list[str]]:
    """Makes the tubes of the ground truth.

    A tube lasts while its person does its action; where more than `max_gap` keyframes are missing
    the next box starts another tube, and where fewer are missing boxes are interpolated.

    Args:
        ground_truth: rows with person ids, the 8th column.
        counted: bool [N], which of them count: of a class in the label map, not excluded.
        moments: of all videos of the ground truth, from `moments.number_moments`.
        max_gap: for how many keyframes a tube may have no box and still continue.
        check_spacing: whether parts of a video with wider spaced keyframes are an error.

    Returns:
        (the tubes, warnings).

    Raises:
        InputError: for a row without a person id, a person with two boxes at one keyframe, or
            keyframes of a tube that are spaced in two ways.
    """
    name = ground_truth.name
    _check_person_ids(ground_truth, counted)
    rows = _numbered(ground_truth, counted, moments)
    rows = rows[np.lexsort((rows.lines, rows.moment, rows.person, rows.classes, rows.video))]
    rows, warnings = _without_repeats(name, rows)
    if check_spacing:
        _check_stretches(ground_truth, list(moments), rows)
    goes_on = rows.continues() & (np.diff(rows.moment) <= max_gap + 1)
    tube = np.concatenate([[0], np.cumsum(~goes_on)])[: len(rows.video)]
    ones = np.ones(len(tube))
    return make_tubes(tube, rows.video, rows.classes, rows.moment, rows.boxes, ones), warnings


def _check_person_ids(ground_truth: AvaRows, counted: np.ndarray) -> None:
    persons = ground_truth.persons
    missing = np.flatnonzero(counted & (True if persons is None else persons < 0))
    if len(missing):
        raise errors.InputError(
            f"{ground_truth.name}: {listing.part(len(missing), int(counted.sum()), 'row')} "
            f"{listing.verb(len(missing), 'has', 'have')} no person id, the 8th column (first: "
            f"line {ground_truth.lines[missing[0]]}). Tubes need it: it "
            "says which boxes are the same person (video_id,timestamp,x1,y1,x2,y2,action_id,"
            "person_id)."
        )


def _numbered(ground_truth: AvaRows, counted: np.ndarray, moments) -> _Rows:
    """The rows that count, with numbers for video, keyframe and person."""
    videos = {video: number for number, video in enumerate(moments)}
    of_frame = np.array([videos[video] for video, _ in ground_truth.frames], np.int64)
    seconds = np.array([time for _, time in ground_truth.frames], np.float64)
    moment, place = np.zeros(len(seconds), np.int64), np.zeros(len(seconds), np.int64)
    order = np.argsort(of_frame, kind="stable")
    ends = np.searchsorted(of_frame[order], np.arange(len(videos) + 1))
    for number, own in enumerate(moments.values()):
        frames = order[ends[number] : ends[number + 1]]
        index = np.searchsorted(own.seconds, seconds[frames])
        moment[frames] = own.numbers[index]
        place[frames] = index - np.cumsum(own.is_excluded)[index]
    rows = ground_truth.rows
    frame = rows.frame[counted]
    return _Rows(
        of_frame[frame],
        moment[frame],
        place[frame],
        ground_truth.persons[counted],
        rows.classes[counted],
        rows.boxes[counted],
        ground_truth.lines[counted],
    )


def _without_repeats(name: str, rows: _Rows) -> tuple[_Rows, list[str]]:
    """Leaves out rows that say again what another says; two different boxes are an error."""
    repeats = rows.continues() & (np.diff(rows.moment) == 0)
    again = np.flatnonzero(repeats) + 1
    if not len(again):
        return rows, []
    differ = again[(rows.boxes[again] != rows.boxes[again - 1]).any(axis=1)]
    if len(differ):
        first = differ[0]
        raise errors.InputError(
            f"{name}, lines {rows.lines[first - 1]} and {rows.lines[first]}: two boxes of one "
            "person with one action at one keyframe "
            f"({listing.counted(len(differ), 'such row')}). Person ids must "
            "differ where people of a video do."
        )
    kept = np.ones(len(rows.video), bool)
    kept[again] = False
    return rows[kept], [
        f"{name}: {listing.counted(len(again), 'row')} "
        f"{listing.verb(len(again), 'repeats', 'repeat')} another one (first: line "
        f"{rows.lines[again[0]]}); left out of tubes"
    ]


def _check_stretches(ground_truth: AvaRows, videos: list[str], rows: _Rows) -> None:
    """Raises InputError if keyframes are farther apart in a part of a video than in the rest.

    Where the ground truth lists nothing between the boxes of somebody who keeps doing the same,
    again and again, it is not that nobody was there.
    """
    steps = np.diff(rows.moment)
    sparse = rows.continues() & (steps > 1) & (np.diff(rows.place) == 1)
    run = _STRETCH - 1
    starts = np.ones(max(len(steps) - run, 0), bool)
    for later in range(1, run + 1):
        starts &= sparse[later:][: len(starts)] & (
            steps[later:][: len(starts)] == steps[: len(starts)]
        )
    starts &= sparse[: len(starts)]
    if not starts.any():
        return
    row = np.flatnonzero(starts)[0]
    raise errors.InputError(
        f"{ground_truth.name}: video {videos[rows.video[row]]!r}: from line {rows.lines[row]} on "
        f"the ground truth lists one keyframe in {steps[row]}, elsewhere in the video more. "
        + EVEN_SPACING
    )
