# SPDX-License-Identifier: Apache-2.0
"""Matching of detections with ground truth, and average precision.

The figures agree with the programs' to the last bits also where scores, boxes or overlaps are
equal, because what decides the order there is kept: for the ActivityNet program, rows pass a heap
of tuples per frame; for all, `np.argsort`, which does not keep the order of equals, is called on
the same arrays.

Shape legend: N rows, G ground-truth rows, D detections, P pairs of a detection and a ground-truth
box of its frame and class.
"""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from object_detection_ext.evaluation.csv_io import Category, LabelledBoxes, Report
from object_detection_ext.evaluation.protocols import ACTIVITYNET, Protocol, RowOrder
from object_detection_ext.progress import Progress

DEFAULT_IOU_THRESHOLD = 0.5


@dataclass(frozen=True)
class ClassResult:
    """One class: its AP, None without ground truth, and the rows behind it."""

    id: int
    name: str
    average_precision: float | None
    ground_truth: int
    detections: int
    true_positives: int


def order_frame_rows(
    boxes: np.ndarray,
    classes: np.ndarray,
    scores: np.ndarray,
    max_rows: int = 0,
    row_order: RowOrder = "heap",
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows of one frame that the cap leaves, in the order in which they claim boxes.

    Args:
      boxes: [N, 4], [ymin, xmin, ymax, xmax].
      classes: [N] ids.
      scores: [N], no NaN.
      max_rows: the cap; 0 for none.
      row_order: of the protocol.

    Returns:
      (boxes, classes, scores) of at most max_rows rows, in the dtypes given.
    """
    if row_order == "heap":
        return _heap_order(boxes, classes, scores, max_rows)
    kept = np.argsort(-scores, kind="stable")
    kept = kept[:max_rows] if max_rows else kept
    if row_order == "file":
        kept = np.sort(kept)
    return boxes[kept], classes[kept], scores[kept]


def _heap_order(boxes, classes, scores, max_rows) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`order_frame_rows` as the ActivityNet program does it.

    It keeps a heap of (score, class, ymin, xmin, ymax, xmax) per frame and sorts what is left by
    score, so the order of equal scores is that of the heap's array.
    """
    heap: list[tuple] = []
    for row in zip(scores.tolist(), classes.tolist(), *boxes.T.tolist(), strict=True):
        if not max_rows or len(heap) < max_rows:
            heapq.heappush(heap, row)
        elif row[0] > heap[0][0]:
            heapq.heapreplace(heap, row)
    heap.sort(key=lambda row: -row[0])
    table = np.array(heap, np.float64).reshape(-1, 6)
    return (
        table[:, 2:].astype(boxes.dtype),
        table[:, 1].astype(classes.dtype),
        table[:, 0].astype(scores.dtype),
    )


def order_rows(rows: LabelledBoxes, max_rows: int, row_order: RowOrder) -> LabelledBoxes:
    """`order_frame_rows` on every frame; frames in the order in which they first appear."""
    if not len(rows):
        return rows
    _, first_row, frame = np.unique(rows.frame, return_index=True, return_inverse=True)
    rank = np.argsort(np.argsort(first_row))[frame]  # [N], 0 for the frame that appears first
    by_score = np.lexsort((-rows.scores, rank))
    size = np.bincount(rank)
    start = np.cumsum(size) - size
    sorted_rank = rank[by_score]
    kept_size = np.minimum(size, max_rows) if max_rows else size
    place = np.arange(len(rows)) - start[sorted_rank]
    chosen = by_score[place < kept_size[sorted_rank]]
    if row_order == "file":
        return rows[chosen[np.lexsort((chosen, rank[chosen]))]]
    kept = rows[chosen]
    if row_order == "score":
        return kept
    # Frames whose scores all differ need no heap: for them a sort gives the same.
    score = rows.scores[by_score]
    equals = (score[1:] == score[:-1]) & (sorted_rank[1:] == sorted_rank[:-1])
    by_file = np.argsort(rank, kind="stable")
    kept_start = np.cumsum(kept_size) - kept_size
    for group in np.unique(sorted_rank[1:][equals]):
        source = by_file[start[group] : start[group] + size[group]]
        target = slice(kept_start[group], kept_start[group] + kept_size[group])
        kept.boxes[target], kept.classes[target], kept.scores[target] = _heap_order(
            rows.boxes[source], rows.classes[source], rows.scores[source], max_rows
        )
    return kept


def is_detection(
    boxes: np.ndarray, scores: np.ndarray, score_floor: float | None = ACTIVITYNET.score_floor
) -> tuple[np.ndarray, np.ndarray]:
    """Which rows an evaluator looks at at all.

    Args:
      boxes: [N, 4], [ymin, xmin, ymax, xmax].
      scores: [N].
      score_floor: of the protocol.

    Returns:
      (bool [N] boxes with an extent, bool [N] scores above the floor).
    """
    valid = (boxes[:, 0] < boxes[:, 2]) & (boxes[:, 1] < boxes[:, 3])
    high = np.ones(len(scores), bool) if score_floor is None else scores > score_floor
    return valid, high


def stock_order_of_equals(frame: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Permutation [D] that reorders frames with equal scores as the stock evaluator sorts them.

    Rows come frame by frame, highest score first. The stock evaluator sorts each frame's rows of
    a class again, by a sort that is not stable.
    """
    order = np.arange(len(frame))
    same_frame = frame[1:] == frame[:-1]
    equals = same_frame & (scores[1:] == scores[:-1])
    if not equals.any():
        return order
    starts = np.concatenate([[0], np.flatnonzero(~same_frame) + 1, [len(frame)]])
    groups = np.unique(np.searchsorted(starts, np.flatnonzero(equals), side="right") - 1)
    for start, stop in zip(starts[groups], starts[groups + 1], strict=True):
        order[start:stop] = start + np.argsort(scores[start:stop])[::-1]
    return order


def paired_iou(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """IoU of each box with the other of its pair.

    Args:
      boxes: [P, 4], [ymin, xmin, ymax, xmax], normalized or in pixels.
      others: [P, 4], in the same unit.

    Returns:
      [P]; NaN where both have no area.
    """
    low = np.maximum(boxes[:, :2], others[:, :2])
    high = np.minimum(boxes[:, 2:], others[:, 2:])
    sides = np.maximum(0.0, high - low)
    overlap = sides[:, 0] * sides[:, 1]
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    other_area = (others[:, 2] - others[:, 0]) * (others[:, 3] - others[:, 1])
    with np.errstate(divide="ignore", invalid="ignore"):
        return overlap / (area + other_area - overlap)


def closest_boxes(
    ground_truth: LabelledBoxes, detections: LabelledBoxes
) -> tuple[np.ndarray, np.ndarray]:
    """The ground-truth box of its frame that each detection overlaps most, whatever its class.

    Args:
      ground_truth: G rows in any order.
      detections: D rows with the same frame numbers, in any order.

    Returns:
      (int64 [D] rows of the ground truth, the first of equals, -1 where the frame has none;
      float64 [D] IoU with it, 0 where there is none, NaN where neither box has an area).
    """
    closest, overlap = np.full(len(detections), -1), np.zeros(len(detections))
    by_frame = np.argsort(ground_truth.frame, kind="stable")
    gt_frame = ground_truth.frame[by_frame]
    first_box = np.searchsorted(gt_frame, detections.frame, side="left")
    num_boxes = np.searchsorted(gt_frame, detections.frame, side="right") - first_box
    candidates = np.flatnonzero(num_boxes)
    if not len(candidates):
        return closest, overlap
    num_boxes, first_box = num_boxes[candidates], first_box[candidates]
    pair_start = np.cumsum(num_boxes) - num_boxes
    pair_candidate = np.repeat(np.arange(len(candidates)), num_boxes)  # [P]
    pair_box = np.arange(len(pair_candidate)) + (first_box - pair_start)[pair_candidate]
    gt_boxes = ground_truth.boxes[by_frame]
    iou = paired_iou(detections.boxes[candidates[pair_candidate]], gt_boxes[pair_box])
    # np.argmax, which the stock evaluator uses, takes NaN for the largest value.
    rank = np.where(np.isnan(iou), np.inf, iou)
    is_largest = np.flatnonzero(rank == np.maximum.reduceat(rank, pair_start)[pair_candidate])
    _, first = np.unique(pair_candidate[is_largest], return_index=True)
    chosen = is_largest[first]  # [len(candidates)] pairs
    closest[candidates] = by_frame[pair_box[chosen]]
    overlap[candidates] = iou[chosen]
    return closest, overlap


def first_claims(closest: np.ndarray, iou: np.ndarray, iou_threshold: float) -> np.ndarray:
    """Which detections are right, bool [D]: the first of each box that overlap it enough.

    Args:
      closest: int [D], the box that each overlaps most, in the order in which they claim boxes.
      iou: [D], with that box.
      iou_threshold: the least overlap of a right detection.
    """
    right = np.zeros(len(closest), bool)
    matched = np.flatnonzero(iou >= iou_threshold)
    _, earliest = np.unique(closest[matched], return_index=True)
    right[matched[earliest]] = True
    return right


@dataclass(frozen=True)
class ClassMatches:
    """The D detections of one class, highest score first, with what they meet.

    Attributes:
      detections: the rows themselves.
      closest: int64 [D], the row of the class's ground truth in the same frame that it overlaps
        most; -1 where the frame has none.
      iou: float64 [D], with that box.
      right: bool [D], whether it is the first that overlaps its box enough.
    """

    detections: LabelledBoxes
    closest: np.ndarray
    iou: np.ndarray
    right: np.ndarray


def match_class(
    ground_truth: LabelledBoxes,
    detections: LabelledBoxes,
    iou_threshold: float,
    protocol: Protocol = ACTIVITYNET,
) -> ClassMatches:
    """Which detections of one class are right.

    Each detection chooses the box of its frame that it overlaps most, the first of equals. Of the
    detections that overlap the same box enough, only the first is right. So nothing depends on
    what an earlier detection took, and all frames are matched at once.

    Args:
      ground_truth: rows of the class.
      detections: rows of the class, in the order that `score_classes` wants.
      iou_threshold: the least overlap of a right detection.
      protocol: the one that selected the rows.
    """
    found = detections
    if protocol.row_order == "heap":
        found = detections[stock_order_of_equals(detections.frame, detections.scores)]
    closest, iou = closest_boxes(ground_truth, found)
    right = first_claims(closest, iou, iou_threshold)
    by_score = np.argsort(found.scores)[::-1]
    return ClassMatches(found[by_score], closest[by_score], iou[by_score], right[by_score])


def average_precision(is_true_positive: np.ndarray, num_ground_truth: int) -> float:
    """Area under the precision-recall curve, precision made monotonic (PASCAL VOC 2010 and later).

    Args:
      is_true_positive: bool [D], detections of one class, highest score first.
      num_ground_truth: ground-truth boxes of the class, at least 1.
    """
    if not len(is_true_positive):
        return 0.0
    found = np.cumsum(is_true_positive, dtype=np.float64)
    precision = found / np.arange(1, len(found) + 1)
    recall = found / num_ground_truth
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float(np.sum(np.diff(recall, prepend=0.0) * envelope))


def score_classes(
    ground_truth: LabelledBoxes,
    detections: LabelledBoxes,
    categories: Sequence[Category],
    iou_threshold: float = DEFAULT_IOU_THRESHOLD,
    report: Report | None = None,
    protocol: Protocol = ACTIVITYNET,
) -> tuple[ClassResult, ...]:
    """Matches and scores rows that are already selected and ordered.

    Args:
      ground_truth: rows with the frame numbers that the detections use.
      detections: rows frame by frame, each frame's as `order_frame_rows` orders them, and only
        those that `is_detection`.
      categories: {"id", "name"} each; rows of other classes are ignored.
      iou_threshold: the least overlap of a right detection.
      report: called with lines of progress when scoring takes long.
      protocol: the one that selected the rows.

    Returns:
      One result per category, ordered by id.
    """
    results = []
    progress = Progress("scoring", len(categories), "classes", report, tell_end=False)
    for number, category in enumerate(sorted(categories, key=lambda item: item["id"])):
        gt = ground_truth[ground_truth.classes == category["id"]]
        found = detections[detections.classes == category["id"]]
        right = match_class(gt, found, iou_threshold, protocol).right
        precision = average_precision(right, len(gt)) if len(gt) else None
        results.append(
            ClassResult(
                category["id"], category["name"], precision, len(gt), len(found), int(right.sum())
            )
        )
        progress.update(number + 1)
    return tuple(results)


def mean_average_precision(classes: Sequence[ClassResult]) -> float | None:
    """Mean over the classes with ground truth; None if there is none."""
    values = [entry.average_precision for entry in classes if entry.average_precision is not None]
    return float(np.mean(values)) if values else None
