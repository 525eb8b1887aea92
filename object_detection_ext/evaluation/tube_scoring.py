# SPDX-License-Identifier: Apache-2.0
"""AP of tubes, and of single boxes as tubes of one keyframe, by the rules of a data set.

Shapes: D detections, P pairs of a detection and a ground truth.
"""

from collections.abc import Sequence

import numpy as np

from object_detection_ext.ava.label_maps import Category
from object_detection_ext.ava.tables import LabelledBoxes
from object_detection_ext.evaluation import frame_ap
from object_detection_ext.evaluation.frame_ap import ClassResult
from object_detection_ext.evaluation.serial_choice import choose_in_turn
from object_detection_ext.evaluation.tube_overlap import Overlaps
from object_detection_ext.evaluation.tube_protocols import Curve, Matching
from object_detection_ext.evaluation.tubes import Tubes


def boxes_as_tubes(rows: LabelledBoxes) -> Tubes:
    """Each row as a tube of one keyframe, in the order of the rows; frames take videos' place."""
    count = len(rows)
    return Tubes(
        rows.frame,
        rows.classes,
        rows.scores,
        np.arange(count + 1),
        np.zeros(count, np.int64),
        rows.boxes,
        rows.scores,
        np.ones(count, bool),
    )


def score_classes(
    ground_truth: Tubes,
    detections: Tubes,
    overlaps: Overlaps,
    categories: Sequence[Category],
    iou_threshold: float,
    matching: Matching,
    curve: Curve,
) -> tuple[ClassResult, ...]:
    """One result per category, ordered by id.

    Args:
        ground_truth: of the classes in the label map.
        detections: D of these; of equal scores the first comes first.
        overlaps: of detections with ground truth.
        categories: {"id", "name"} each.
        iou_threshold: least IoU of a true positive, in (0, 1].
        matching: which ground truth a detection may claim.
        curve: the area under the precision-recall curve.
    """
    by_score = frame_ap.order_by_score(detections.scores)
    is_true_positive = _claims(overlaps, by_score, iou_threshold, matching)
    scores, classes = detections.scores[by_score], detections.classes[by_score]
    results = []
    for category in sorted(categories, key=lambda item: item["id"]):
        own = classes == category["id"]
        num_ground_truth = int((ground_truth.classes == category["id"]).sum())
        results.append(
            _score_class(category, scores[own], is_true_positive[own], num_ground_truth, curve)
        )
    return tuple(results)


def _claims(
    overlaps: Overlaps, by_score: np.ndarray, iou_threshold: float, matching: Matching
) -> np.ndarray:
    """Which detections are true positives, bool [D], highest score first."""
    rank = np.empty(len(by_score), np.int64)
    rank[by_score] = np.arange(len(by_score))
    claimant, target, iou = rank[overlaps.tube], overlaps.other, overlaps.iou
    order = np.lexsort((target, -iou, claimant))
    claimant, target, iou = claimant[order], target[order], iou[order]
    if matching == "closest":
        is_best = np.ones(len(claimant), bool)
        is_best[1:] = claimant[1:] != claimant[:-1]
        claimant, target, iou = claimant[is_best], target[is_best], iou[is_best]
    enough = iou >= iou_threshold
    winners, _ = choose_in_turn(claimant[enough], target[enough])
    is_true_positive = np.zeros(len(by_score), bool)
    is_true_positive[winners] = True
    return is_true_positive


def _score_class(
    category: Category,
    scores: np.ndarray,
    is_true_positive: np.ndarray,
    num_ground_truth: int,
    curve: Curve,
) -> ClassResult:
    precision_of = None if curve == "envelope" else trapezoid_average_precision
    return frame_ap.score_class(category, scores, is_true_positive, num_ground_truth, precision_of)


def trapezoid_average_precision(is_true_positive: np.ndarray, num_ground_truth: int) -> float:
    """Area under the precision-recall curve, straight lines from point to point.

    The first point has precision 1 and recall 0 (`pr_to_ap` of the ACT detector's programs).

    Args:
        is_true_positive: bool [D], detections of one class, highest score first.
        num_ground_truth: of the class, at least 1.
    """
    found = np.cumsum(is_true_positive, dtype=np.float64)
    precision = np.concatenate([[1.0], found / np.arange(1, len(found) + 1)])
    height = (precision[1:] + precision[:-1]) / 2
    return float(np.sum(height[is_true_positive]) / num_ground_truth)
