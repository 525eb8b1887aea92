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

from object_detection_ext import (
    compat,  # noqa: F401  (must come before object_detection)
    errors,
    listing,
    printable,
)
from object_detection_ext.ava import box_range
from object_detection_ext.ava.label_maps import Category
from object_detection_ext.ava.tables import LabelledBoxes
from object_detection_ext.evaluation import (
    frame_ap,
    frame_ap_text,
    frame_evaluation,
    person_boxes,
    protocols,
    selection,
)
from object_detection_ext.evaluation.match_log import MatchLog

from object_detection.core import standard_fields  # isort: skip
from object_detection.utils import object_detection_evaluation  # isort: skip

METRICS_SET = "ava_detection_metrics"
METRIC_PREFIX = "AvaDetectionBoxes_"

_Input = standard_fields.InputDataFields
_Detection = standard_fields.DetectionResultFields
_GT_ROWS = (_Input.groundtruth_boxes, _Input.groundtruth_classes)
_FOUND_ROWS = (
    _Detection.detection_boxes,
    _Detection.detection_scores,
    _Detection.detection_classes,
)
BOXES_GIVEN = (
    "the model was given the ground truth's boxes: the figures are of classification (section 4.2)"
)
_WARNINGS = {
    "NaN scores": "with a NaN score, ignored; has training diverged?",
    "NaN boxes": "with a NaN in the box, ignored; has training diverged?",
    "scores outside": "with a score outside [0, 1]; does the model have a score_converter?",
}
# The stock loops' own logger, whose messages they let through.
_log = logging.getLogger("tensorflow")


class AvaDetectionEvaluator(object_detection_evaluation.DetectionEvaluator):
    """Frame AP by the rules of a protocol, and the AP of people, whatever they do.

    Every image that is added is a frame of its own, also where image ids repeat: the stock loop
    makes ids by hashing to 32 bits, and two of AVA's 57,000 frames may well share one. An image
    that is added counts as listed by the ground truth, also without boxes.

    Kept in memory: of each detection that counts, its class, its score and whether it is right. Of
    pictures and boxes, nothing.
    """

    def __init__(
        self,
        categories: Sequence[Category],
        iou_thresholds: Sequence[float] = (frame_ap.DEFAULT_IOU_THRESHOLD,),
        max_rows_per_frame: int | None = None,
        protocol: str = protocols.ACTIVITYNET.name,
        label_types: Mapping[int, str] | None = None,
        boxes_given: bool = False,
    ):
        """Makes an empty evaluator.

        Args:
          categories: {"id", "name"} each; ids from 1, not necessarily contiguous.
          iou_thresholds: the least overlaps of right detections, in (0, 1].
          max_rows_per_frame: how many detections of a frame count, 0 for all; None for the
            protocol's number.
          protocol: a key of `protocols.PROTOCOLS`.
          label_types: the group of each class by its id; metrics of groups come with it.
          boxes_given: whether the model takes ground-truth boxes; only said in the report.

        Raises:
          ValueError: for numbers out of range, ids or names that repeat, or an unknown protocol.
        """
        super().__init__(categories)
        for iou_threshold in iou_thresholds:
            protocols.check_iou_threshold(iou_threshold)
        selection.check_categories(categories)
        names = [category["name"] for category in categories]
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise ValueError(f"Class names must differ; the label map repeats {repeated}.")
        self._iou_thresholds = tuple(iou_thresholds)
        self._protocol = selection.with_max_rows(protocols.by_name(protocol), max_rows_per_frame)
        self._label_types = dict(label_types or {})
        self._boxes_given = boxes_given
        self._class_ids = np.array([category["id"] for category in categories])
        self.clear()

    def clear(self) -> None:
        """Forgets all frames."""
        self._counts = collections.Counter()
        self._actions = MatchLog(self._iou_thresholds)
        self._people = MatchLog(person_boxes.IOU_THRESHOLDS)
        # Ground truth that waits for its detections, by image id, oldest first. None: the frame
        # does not count.
        self._waiting: dict[Any, collections.deque[LabelledBoxes | None]] = {}

    @property
    def num_bytes(self) -> int:
        """What the evaluator remembers of detections; nothing else grows with the frames."""
        return self._actions.num_bytes + self._people.num_bytes

    def add_single_ground_truth_image_info(
        self, image_id: Any, groundtruth_dict: Mapping[str, np.ndarray]
    ) -> None:
        """Adds a frame with its ground truth.

        Args:
          image_id: the detections of the frame come with the same id.
          groundtruth_dict: 'groundtruth_boxes' [G, 4], [ymin, xmin, ymax, xmax], in the unit of
            the detections; 'groundtruth_classes' [G], label-map ids. Rows of other classes are
            people without an action.

        Raises:
          ValueError: for a box with ymin > ymax or xmin > xmax, or with NaN.
          errors.InputError: for a box whose area would not be a number.
        """
        boxes = _as_boxes(groundtruth_dict[_Input.groundtruth_boxes])
        huge = (np.abs(boxes) > box_range.MAX_CORNER).any(axis=1)
        if huge.any():
            raise errors.InputError(
                f"image {printable.in_one_line(image_id)}: ground-truth box "
                f"{boxes[huge][0].tolist()} has corners beyond {box_range.MAX_CORNER:,.0f}; boxes "
                "in records are normalized to [0, 1]."
            )
        classes = np.asarray(groundtruth_dict[_Input.groundtruth_classes]).reshape(-1)
        _check_same_length(image_id, boxes=boxes, classes=classes)
        wrong = ~(boxes[:, :2] <= boxes[:, 2:]).all(axis=1)
        if wrong.any():
            raise ValueError(
                f"image {image_id}: ground-truth box {boxes[wrong][0].tolist()} is not "
                "[ymin, xmin, ymax, xmax] with ymin <= ymax and xmin <= xmax"
            )
        rows = _frame_rows(boxes, classes, np.ones(len(boxes), np.float32))
        counts = self._protocol.frames != "labelled" or len(rows) > 0
        self._counts["frames" if counts else "frames without boxes"] += 1
        queue = self._waiting.setdefault(_hashable(image_id), collections.deque())
        queue.append(rows if counts else None)
        self._actions.add_ground_truth(classes[np.isin(classes, self._class_ids)])
        self._people.add_ground_truth(person_boxes.distinct_people(rows).classes)

    def add_single_detected_image_info(
        self, image_id: Any, detections_dict: Mapping[str, np.ndarray]
    ) -> None:
        """Adds the detections of the oldest frame of that id that has none yet.

        Detections of an image that was not added before are on a frame that the ground truth does
        not list: the protocol says what they are.

        Args:
          image_id: as the ground truth's.
          detections_dict: 'detection_boxes' [M, 4], [ymin, xmin, ymax, xmax], in the unit of the
            ground truth; 'detection_scores' [M]; 'detection_classes' [M], label-map ids. Those of
            other classes are people without an action.
        """
        boxes = _as_boxes(detections_dict[_Detection.detection_boxes])
        scores = np.asarray(detections_dict[_Detection.detection_scores]).reshape(-1)
        classes = np.asarray(detections_dict[_Detection.detection_classes]).reshape(-1)
        _check_same_length(image_id, boxes=boxes, scores=scores, classes=classes)
        ground_truth = self._take_waiting(_hashable(image_id), len(boxes))
        if ground_truth is None:
            return
        self._count_odd(boxes, classes, scores)
        valid, high = frame_ap.is_detection(boxes, scores, self._protocol.score_floor)
        keep = valid & high & ~np.isnan(scores)
        people = person_boxes.group_detections(
            _frame_rows(boxes[keep], classes[keep], scores[keep])
        )
        self._people.add_detections(person_boxes.distinct_people(ground_truth), people)
        self._actions.add_detections(*self._select_actions(ground_truth, boxes, classes, scores))

    def _take_waiting(self, image_id: Any, num_detections: int) -> LabelledBoxes | None:
        """Ground truth of the frame that detections belong to; None if they do not count."""
        queue = self._waiting.get(image_id)
        if queue:
            ground_truth = queue.popleft()
            if not queue:
                del self._waiting[image_id]
            return ground_truth
        self._counts["unlisted detections"] += num_detections
        if self._protocol.frames != "all":
            return None
        self._counts["frames"] += 1
        return _frame_rows(np.zeros((0, 4)), np.zeros(0, np.int32), np.zeros(0))

    def _count_odd(self, boxes: np.ndarray, classes: np.ndarray, scores: np.ndarray) -> None:
        """Counts what is accepted or ignored but looks wrong."""
        known = np.isin(classes, self._class_ids)
        self._counts["NaN scores"] += int((known & np.isnan(scores)).sum())
        self._counts["scores outside"] += int((known & ((scores < 0) | (scores > 1))).sum())
        self._counts["NaN boxes"] += int((known & np.isnan(boxes).any(axis=1)).sum())

    def _select_actions(self, ground_truth, boxes, classes, scores):
        """Ground truth and detections of one frame that count, in the protocol's order."""
        order = self._protocol.row_order
        known = np.isin(ground_truth.classes, self._class_ids)
        labelled = frame_ap.order_frame_ground_truth(
            ground_truth.boxes[known],
            ground_truth.classes[known],
            ground_truth.scores[known],
            order,
        )
        keep = np.isin(classes, self._class_ids) & ~np.isnan(scores)
        boxes, classes, scores = frame_ap.order_frame_rows(
            boxes[keep], classes[keep], scores[keep], self._protocol.max_rows_per_frame, order
        )
        valid, high = frame_ap.is_detection(boxes, scores, self._protocol.score_floor)
        keep = valid & high
        return _frame_rows(*labelled), _frame_rows(boxes[keep], classes[keep], scores[keep])

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
        """AP of all frames added since the last `clear`; logs the rules and what looks wrong.

        Returns:
          For each threshold 'AvaDetectionBoxes_Precision/mAP@0.5IOU'; for each class with ground
          truth 'AvaDetectionBoxes_PerformanceByCategory/AP@0.5IOU/<name>'; for each group with
          ground truth 'AvaDetectionBoxes_PerformanceByGroup/mAP@0.5IOU/<group>'; for people
          'AvaDetectionBoxes_Localization/AP@0.5IOU' and '..@0.75IOU'. What has no ground truth is
          left out, with a warning where no class has any. Where the order of equal scores matters
        to a mean by more than 1e-6, a line in the log says what it may become.
        """
        self._report()
        metrics: dict[str, float] = {}
        for iou_threshold in self._iou_thresholds:
            metrics.update(self._evaluate_actions(iou_threshold))
        for iou_threshold in person_boxes.IOU_THRESHOLDS:
            (entry,) = self._people.score_classes([person_boxes.PERSON], iou_threshold)
            if entry.average_precision is not None:
                name = f"{METRIC_PREFIX}Localization/AP@{iou_threshold}IOU"
                metrics[name] = entry.average_precision
                _log_tie_span(
                    f"person AP@{iou_threshold}IOU", entry.average_precision, entry.tie_span
                )
        return metrics

    def _evaluate_actions(self, iou_threshold: float) -> dict[str, float]:
        classes = self._actions.score_classes(self._categories, iou_threshold)
        mean = frame_ap.mean_average_precision(classes)
        if mean is None:
            logging.warning(
                "AVA mAP of %d frames: %s", self._counts["frames"], selection.NO_GROUND_TRUTH
            )
            return {}
        at = f"@{iou_threshold}IOU"
        metrics = {f"{METRIC_PREFIX}Precision/mAP{at}": mean}
        _log_tie_span(f"mAP{at}", mean, frame_ap.mean_tie_span(classes))
        for entry in classes:
            if entry.average_precision is not None:
                name = f"{METRIC_PREFIX}PerformanceByCategory/AP{at}/{entry.name}"
                metrics[name] = entry.average_precision
        for group in frame_evaluation.group_means(classes, self._label_types):
            if group.average_precision is not None:
                name = f"{METRIC_PREFIX}PerformanceByGroup/mAP{at}/{group.name}"
                metrics[name] = group.average_precision
        return metrics

    def _report(self) -> None:
        """Logs the rules, how many frames they count, and what looks wrong."""
        for rule in self._protocol.rules(self._iou_thresholds[0]):
            _log.info("AVA mAP: %s", rule)
        if self._boxes_given:
            _log.info("AVA mAP: %s", BOXES_GIVEN)
        counts = self._counts
        classes = self._actions.score_classes(self._categories, self._iou_thresholds[0])
        without = [entry.name for entry in classes if not entry.ground_truth]
        _log.info(
            "AVA mAP: %s counted, %d skipped; %s without ground truth%s",
            listing.counted(counts["frames"], "frame"),
            counts["frames without boxes"],
            listing.counted(len(without), "class", "classes"),
            f": {', '.join(without)}" if without else "",
        )
        for name, text in _WARNINGS.items():
            if counts[name]:
                logging.warning("AVA mAP: %s %s", listing.counted(counts[name], "detection"), text)
        if counts["unlisted detections"]:
            fate = "wrong" if self._protocol.frames == "all" else "ignored"
            logging.warning(
                "AVA mAP: %s on images without ground truth added first: %s",
                listing.counted(counts["unlisted detections"], "detection"),
                fate,
            )


def _log_tie_span(name: str, value: float, span: frame_ap.TieSpan | None) -> None:
    """Logs what other orders of equal scores would make of a figure, where that is not the same."""
    if text := frame_ap_text.format_tie_span(span):
        _log.info("AVA %s: %.6f%s", name, value, text)


def _frame_rows(boxes: np.ndarray, classes: np.ndarray, scores: np.ndarray) -> LabelledBoxes:
    """Rows of one frame, which has the number 0."""
    return LabelledBoxes(np.zeros(len(boxes), np.int32), boxes, classes.astype(np.int32), scores)


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
