# SPDX-License-Identifier: Apache-2.0
"""AVA frame AP inside the stock evaluation loop (`metrics_set: 'ava_detection_metrics'`).

Same rules and same code as the command line, `ava_ap`.

Shape legend: B clips of an eval_dict, N padded ground-truth rows (one per box and action), D padded
detections, G and M the rows of one clip.
"""

import collections
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from object_detection_ext import compat  # noqa: F401  (must come before object_detection)
from object_detection_ext.evaluation import ava_ap
from object_detection_ext.evaluation.csv_io import Category, LabelledBoxes, concatenate

from object_detection.core import standard_fields  # isort: skip
from object_detection.utils import object_detection_evaluation  # isort: skip

METRIC_PREFIX = "AvaDetectionBoxes_"

_Input = standard_fields.InputDataFields
_Detection = standard_fields.DetectionResultFields
_GT_ROWS = (_Input.groundtruth_boxes, _Input.groundtruth_classes)
_FOUND_ROWS = (
    _Detection.detection_boxes,
    _Detection.detection_scores,
    _Detection.detection_classes,
)


class AvaDetectionEvaluator(object_detection_evaluation.DetectionEvaluator):
    """Frame AP by the ActivityNet AVA rules.

    Every image that is added is a frame of its own, also where image ids repeat: the stock loop
    makes ids by hashing to 32 bits, and two of AVA's 57,000 frames may well share one.

    Kept in memory: the arrays of the rows that count, at most `max_rows_per_frame` detections per
    frame.
    """

    def __init__(
        self,
        categories: Sequence[Category],
        matching_iou_threshold: float = ava_ap.DEFAULT_IOU_THRESHOLD,
        max_rows_per_frame: int = ava_ap.DEFAULT_MAX_ROWS_PER_FRAME,
    ):
        """Makes an empty evaluator.

        Args:
          categories: {"id", "name"} each; ids from 1, not necessarily contiguous.
          matching_iou_threshold: the least overlap of a right detection, in (0, 1].
          max_rows_per_frame: how many detections of a frame count; 0 for all.

        Raises:
          ValueError: for numbers out of range, or ids or names that repeat.
        """
        super().__init__(categories)
        ava_ap.check_rules(matching_iou_threshold, max_rows_per_frame)
        ava_ap.check_categories(categories)
        names = [category["name"] for category in categories]
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise ValueError(f"Class names must differ; the label map repeats {repeated}.")
        self._iou_threshold = matching_iou_threshold
        self._max_rows = max_rows_per_frame
        self._class_ids = np.array([category["id"] for category in categories])
        self.clear()

    def clear(self) -> None:
        """Forgets all frames."""
        self._num_frames = 0
        self._ground_truth: list[LabelledBoxes] = []
        self._detections: list[LabelledBoxes] = []
        # Frames that wait for their detections, by image id, oldest first.
        self._waiting: dict[Any, collections.deque[int]] = {}
        self._num_unlisted = 0
        self._num_nan_scores = 0

    def add_single_ground_truth_image_info(
        self, image_id: Any, groundtruth_dict: Mapping[str, np.ndarray]
    ) -> None:
        """Adds a frame with its ground truth.

        Args:
          image_id: the detections of the frame come with the same id.
          groundtruth_dict: 'groundtruth_boxes' [G, 4], [ymin, xmin, ymax, xmax], in the unit of
            the detections; 'groundtruth_classes' [G], label-map ids. Rows of other classes are
            ignored.

        Raises:
          ValueError: for a box with ymin > ymax or xmin > xmax, or with NaN.
        """
        frame, self._num_frames = self._num_frames, self._num_frames + 1
        self._waiting.setdefault(_hashable(image_id), collections.deque()).append(frame)
        boxes = _as_boxes(groundtruth_dict[_Input.groundtruth_boxes])
        classes = np.asarray(groundtruth_dict[_Input.groundtruth_classes]).reshape(-1)
        _check_same_length(image_id, boxes=boxes, classes=classes)
        known = np.isin(classes, self._class_ids)
        boxes, classes = boxes[known], classes[known]
        wrong = ~(boxes[:, :2] <= boxes[:, 2:]).all(axis=1)
        if wrong.any():
            raise ValueError(
                f"image {image_id}: ground-truth box {boxes[wrong][0].tolist()} is not "
                "[ymin, xmin, ymax, xmax] with ymin <= ymax and xmin <= xmax"
            )
        ordered = ava_ap.order_frame_rows(boxes, classes, np.ones(len(boxes), np.float32))
        self._append(self._ground_truth, frame, *ordered)

    def add_single_detected_image_info(
        self, image_id: Any, detections_dict: Mapping[str, np.ndarray]
    ) -> None:
        """Adds the detections of the oldest frame of that id that has none yet.

        Detections of a frame that was not added before are ignored, as the AVA rules say.

        Args:
          image_id: as the ground truth's.
          detections_dict: 'detection_boxes' [M, 4], [ymin, xmin, ymax, xmax], in the unit of the
            ground truth; 'detection_scores' [M]; 'detection_classes' [M], label-map ids.
        """
        boxes = _as_boxes(detections_dict[_Detection.detection_boxes])
        scores = np.asarray(detections_dict[_Detection.detection_scores]).reshape(-1)
        classes = np.asarray(detections_dict[_Detection.detection_classes]).reshape(-1)
        _check_same_length(image_id, boxes=boxes, scores=scores, classes=classes)
        waiting = self._waiting.get(_hashable(image_id))
        if not waiting:
            self._num_unlisted += len(boxes)
            return
        frame = waiting.popleft()
        if not waiting:
            del self._waiting[_hashable(image_id)]
        known = np.isin(classes, self._class_ids)
        is_number = ~np.isnan(scores)
        self._num_nan_scores += int((known & ~is_number).sum())
        keep = known & is_number
        boxes, classes, scores = ava_ap.order_frame_rows(
            boxes[keep], classes[keep], scores[keep], self._max_rows
        )
        valid, high = ava_ap.is_detection(boxes, scores)
        keep = valid & high
        self._append(self._detections, frame, boxes[keep], classes[keep], scores[keep])

    def add_eval_dict(self, eval_dict: Mapping[str, Any]) -> None:
        """Adds the frames of an eager batch, without its padding.

        Args:
          eval_dict: from `eval_util.result_dict_for_batched_example` (or for a single example,
            without the leading B): 'key' [B]; 'groundtruth_boxes' [B, N, 4] and
            'detection_boxes' [B, D, 4], [ymin, xmin, ymax, xmax], both in pixels or both
            normalized; 'groundtruth_classes' [B, N], 'detection_classes' [B, D], label-map ids;
            'detection_scores' [B, D]; optionally 'num_groundtruth_boxes' [B], 'num_detections'
            [B], 'is_annotated' [B].
        """
        fields = {
            name: np.asarray(eval_dict[name]) for name in (_Input.key, *_GT_ROWS, *_FOUND_ROWS)
        }
        for name in (_Input.num_groundtruth_boxes, _Detection.num_detections, _Input.is_annotated):
            if eval_dict.get(name) is not None:
                fields[name] = np.asarray(eval_dict[name])
        if fields[_Input.key].ndim == 0:
            fields = {name: value[np.newaxis] for name, value in fields.items()}
        for row in range(len(fields[_Input.key])):
            clip = {name: value[row] for name, value in fields.items()}
            if not np.all(clip.get(_Input.is_annotated, True)):
                continue
            image_id = clip[_Input.key].item()
            ground_truth = _unpad(clip, _Input.num_groundtruth_boxes, _GT_ROWS)
            self.add_single_ground_truth_image_info(image_id, ground_truth)
            detections = _unpad(clip, _Detection.num_detections, _FOUND_ROWS)
            self.add_single_detected_image_info(image_id, detections)

    def evaluate(self) -> dict[str, float]:
        """AP of all frames added since the last `clear`.

        Returns:
          'AvaDetectionBoxes_Precision/mAP@0.5IOU' and, for each class with ground truth,
          'AvaDetectionBoxes_PerformanceByCategory/AP@0.5IOU/<name>'. Empty, with a warning, where
          no class has ground truth.
        """
        self._warn()
        classes = ava_ap.score_classes(
            concatenate(self._ground_truth),
            concatenate(self._detections),
            self._categories,
            self._iou_threshold,
        )
        mean = ava_ap.mean_average_precision(classes)
        if mean is None:
            logging.warning("AVA mAP of %d frames: %s", self._num_frames, ava_ap.NO_GROUND_TRUTH)
            return {}
        metrics = {f"{METRIC_PREFIX}Precision/mAP@{self._iou_threshold}IOU": mean}
        by_class = f"{METRIC_PREFIX}PerformanceByCategory/AP@{self._iou_threshold}IOU/"
        for entry in classes:
            if entry.average_precision is not None:
                metrics[by_class + entry.name] = entry.average_precision
        return metrics

    def _warn(self) -> None:
        if self._num_nan_scores:
            logging.warning(
                "AVA mAP: %d detections have a NaN score and are ignored; has training diverged?",
                self._num_nan_scores,
            )
        if self._num_unlisted:
            logging.warning(
                "AVA mAP: %d detections are ignored, on images without ground truth added first",
                self._num_unlisted,
            )

    def _append(
        self,
        rows: list[LabelledBoxes],
        frame: int,
        boxes: np.ndarray,
        classes: np.ndarray,
        scores: np.ndarray,
    ) -> None:
        if len(boxes):
            numbers = np.full(len(boxes), frame, np.int32)
            rows.append(LabelledBoxes(numbers, boxes, classes.astype(np.int32), scores))


def _as_boxes(boxes: Any) -> np.ndarray:
    return np.asarray(boxes).reshape(-1, 4)


def _hashable(image_id: Any) -> Any:
    return image_id.item() if isinstance(image_id, np.ndarray | np.generic) else image_id


def _check_same_length(image_id: Any, **arrays: np.ndarray) -> None:
    lengths = {name: len(array) for name, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"image {image_id}: these must be of one length: {lengths}")


def _unpad(
    clip: Mapping[str, np.ndarray], count_name: str, names: Sequence[str]
) -> dict[str, np.ndarray]:
    """The named arrays of one clip up to its count, or whole where there is no count."""
    count = int(clip[count_name]) if count_name in clip else None
    return {name: clip[name][:count] for name in names}
