# SPDX-License-Identifier: Apache-2.0
"""The same person in keyframe after keyframe: boxes linked by overlap.

Each keyframe's people are assigned to the tracks so that the overlaps sum to the most (SciPy's
assignment); pairs that overlap too little are no link. A track that nobody continues for a while
ends. People who walk faster than their own width between two keyframes are lost and found under a
new number: detect at a higher rate to follow them.

Shapes: P people of a keyframe, N tracks.
"""

import dataclasses

import numpy as np
from object_detection.utils import np_box_ops
from scipy import optimize

from object_detection_ext.inference.results import Keyframe

DEFAULT_MIN_IOU = 0.3
DEFAULT_MAX_GAP_SECONDS = 2.5


class Tracker:
    """Gives the people of keyframes, which come in the order of time, their track numbers."""

    def __init__(
        self,
        min_iou: float = DEFAULT_MIN_IOU,
        max_gap_seconds: float = DEFAULT_MAX_GAP_SECONDS,
    ):
        """Starts without tracks.

        Args:
          min_iou: the least overlap of a person with the last box of the track, in (0, 1].
          max_gap_seconds: for how long nobody may be seen on a track that goes on.

        Raises:
          ValueError: for numbers out of range.
        """
        if not 0 < min_iou <= 1:
            raise ValueError(f"min_iou must be in (0, 1], not {min_iou}.")
        if not max_gap_seconds > 0:
            raise ValueError(f"max_gap_seconds must be more than 0, not {max_gap_seconds}.")
        self._min_iou, self._max_gap = min_iou, max_gap_seconds
        self._next = 1
        self._boxes: dict[int, np.ndarray] = {}
        self._seen: dict[int, float] = {}

    def __call__(self, keyframe: Keyframe) -> Keyframe:
        """The keyframe with a track number, from 1, for each person."""
        for number in [n for n, time in self._seen.items() if keyframe.time - time > self._max_gap]:
            del self._boxes[number], self._seen[number]
        numbers = self._assign(keyframe.boxes)
        people = []
        for person, number in zip(keyframe.people, numbers, strict=True):
            if number is None:
                number, self._next = self._next, self._next + 1
            self._boxes[number], self._seen[number] = person.box, keyframe.time
            people.append(dataclasses.replace(person, track=number))
        return dataclasses.replace(keyframe, people=tuple(people))

    def _assign(self, boxes: np.ndarray) -> list[int | None]:
        """The track of each of the boxes [P, 4], None for a new one."""
        numbers: list[int | None] = [None] * len(boxes)
        if not len(boxes) or not self._boxes:
            return numbers
        tracks = list(self._boxes)
        overlaps = np_box_ops.iou(boxes, np.stack(list(self._boxes.values())))  # [P, N]
        # What is no link must not weigh in the sum.
        overlaps = np.where(overlaps >= self._min_iou, overlaps, 0.0)
        for person, track in zip(
            *optimize.linear_sum_assignment(overlaps, maximize=True), strict=True
        ):
            if overlaps[person, track] > 0:
                numbers[person] = tracks[track]
        return numbers
