# SPDX-License-Identifier: Apache-2.0
"""What an evaluation must remember of the frames it has seen: a few bytes for each detection.

Whether a detection is right depends on its own frame only. So each frame is matched when it comes,
and of its boxes nothing stays.

Shape legend: D detections of a frame, L IoU thresholds, M detections of all frames.
"""

import array
import collections
from collections.abc import Sequence

import numpy as np

from object_detection_ext.ava.label_maps import Category
from object_detection_ext.ava.tables import LabelledBoxes
from object_detection_ext.evaluation import frame_ap
from object_detection_ext.evaluation.frame_ap import ClassResult

# Bits of the byte that says at which of them a detection is right.
MOST_THRESHOLDS = 8


class MatchLog:
    """Scores of detections, and at which IoU thresholds they are right."""

    def __init__(self, iou_thresholds: Sequence[float]):
        """Makes an empty log.

        Args:
          iou_thresholds: in (0, 1], at most 8.

        Raises:
          ValueError: for none or for more thresholds.
        """
        if not 1 <= len(iou_thresholds) <= MOST_THRESHOLDS:
            raise ValueError(
                f"There are {len(iou_thresholds)} IoU thresholds, but must be 1 to "
                f"{MOST_THRESHOLDS}."
            )
        self._iou_thresholds = tuple(iou_thresholds)
        self._num_ground_truth: collections.Counter[int] = collections.Counter()
        # Python's arrays grow in place, by a small part of their size.
        self._classes = array.array("i")
        self._scores = array.array("d")
        self._right_at = array.array("B")

    @property
    def num_bytes(self) -> int:
        """What the detections take."""
        columns = (self._classes, self._scores, self._right_at)
        return sum(len(column) * column.itemsize for column in columns)

    def add_ground_truth(self, classes: np.ndarray) -> None:
        """Counts ground-truth rows, class ids [G]."""
        self._num_ground_truth.update(classes.tolist())

    def add_detections(self, ground_truth: LabelledBoxes, detections: LabelledBoxes) -> None:
        """Matches one frame.

        Args:
          ground_truth: its rows, which `add_ground_truth` has counted.
          detections: its D rows, in the order in which they claim boxes.
        """
        by_class = np.argsort(detections.classes, kind="stable")
        found = _keyed_by_class(detections)[by_class]
        closest, iou = frame_ap.closest_boxes(_keyed_by_class(ground_truth), found)
        right_at = np.zeros(len(found), np.uint8)
        for bit, iou_threshold in enumerate(self._iou_thresholds):
            right = frame_ap.first_claims(closest, iou, iou_threshold)
            right_at |= right.astype(np.uint8) << bit
        self._classes.frombytes(found.classes.astype(np.int32).tobytes())
        self._scores.frombytes(found.scores.astype(np.float64).tobytes())
        self._right_at.frombytes(right_at.tobytes())

    def score_classes(
        self, categories: Sequence[Category], iou_threshold: float
    ) -> tuple[ClassResult, ...]:
        """As `frame_ap.score_classes`, of all frames.

        Args:
          categories: {"id", "name"} each.
          iou_threshold: one of the log's.
        """
        # Copies: an array that somebody looks into cannot grow.
        classes = np.array(self._classes, np.int32)
        scores = np.array(self._scores, np.float64)
        right_at = np.array(self._right_at, np.uint8)
        right = (right_at >> self._iou_thresholds.index(iou_threshold) & 1).astype(bool)
        results = []
        for category in sorted(categories, key=lambda item: item["id"]):
            rows = np.flatnonzero(classes == category["id"])
            by_score = rows[frame_ap.order_by_score(scores[rows])]
            count = self._num_ground_truth[category["id"]]
            results.append(frame_ap.score_class(category, scores[by_score], right[by_score], count))
        return tuple(results)


def _keyed_by_class(rows: LabelledBoxes) -> LabelledBoxes:
    """Rows of one frame with the class in the frame's place: rows of one class meet, as float64."""
    return LabelledBoxes(
        rows.classes, rows.boxes.astype(np.float64, copy=False), rows.classes, rows.scores
    )
