# SPDX-License-Identifier: Apache-2.0
"""Matching of detections with ground truth, and average precision.

Where scores are all different, the figures agree with the programs'. The programs order equal
scores by `np.argsort`, whose order of equals depends on the CPU. Here equal scores come in the
order of the detections' rows, on every machine, and `TieSpan` says how much that choice matters.

Shape legend: N rows, G ground-truth rows, D detections, P pairs of a detection and a ground-truth
box of its frame and class.
"""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from object_detection_ext.ava.label_maps import Category
from object_detection_ext.ava.tables import LabelledBoxes, Report
from object_detection_ext.evaluation.protocols import ACTIVITYNET, RowOrder
from object_detection_ext.progress import Progress

DEFAULT_IOU_THRESHOLD = 0.5
# A span up to this one is not worth a word: it does not change the six digits that are printed.
_MIN_SPAN = 1e-6


@dataclass(frozen=True)
class TieSpan:
    """What AP becomes with the worst and with the best order of equal scores.

    Which of two equals claims a box, and which of them comes first on the precision-recall curve,
    is free: no sort by score, stable or not, gives an AP outside this span. Which rows a cap keeps
    is not free, see `order_frame_rows`.

    Attributes:
        worst: with false positives before true positives in every group of equals.
        best: with true positives first.
    """

    worst: float
    best: float

    @property
    def is_wide(self) -> bool:
        """Whether the order of equals changes the AP by more than 1e-6."""
        return self.best - self.worst > _MIN_SPAN

    def __str__(self) -> str:
        return f"{self.worst:.6f} to {self.best:.6f}"


@dataclass(frozen=True)
class ClassResult:
    """One class: its AP, None without ground truth, and the rows behind it."""

    id: int
    name: str
    average_precision: float | None
    ground_truth: int
    detections: int
    true_positives: int
    tie_span: TieSpan | None = None


def order_frame_rows(
    boxes: np.ndarray,
    classes: np.ndarray,
    scores: np.ndarray,
    max_rows: int = 0,
    row_order: RowOrder = "heap",
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Detections of one frame that the cap leaves, in the order in which they claim boxes.

    Of equal scores at the cap, "heap" keeps what the ActivityNet program's heap keeps, the other
    orders keep the first rows.

    Args:
      boxes: [N, 4], [ymin, xmin, ymax, xmax].
      classes: [N] ids.
      scores: [N], no NaN.
      max_rows: the cap; 0 for none.
      row_order: of the protocol.

    Returns:
      (boxes, classes, scores) of at most max_rows rows, in the dtypes given.
    """
    kept = np.argsort(-scores, kind="stable")
    if max_rows and len(kept) > max_rows:
        if row_order == "heap" and scores[kept[max_rows - 1]] == scores[kept[max_rows]]:
            in_heap = [row[-1] for row in _heap(boxes, classes, scores, max_rows)]
            kept = kept[np.isin(kept, in_heap)]
        kept = kept[:max_rows]
    if row_order == "file":
        kept = np.sort(kept)
    return boxes[kept], classes[kept], scores[kept]


def order_frame_ground_truth(
    boxes: np.ndarray, classes: np.ndarray, scores: np.ndarray, row_order: RowOrder = "heap"
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ground truth of one frame; of boxes that a detection overlaps equally, it meets the first.

    Args and returns are those of `order_frame_rows`, without a cap.
    """
    if row_order == "heap":
        # As the program: by score, and equals (ground truth has no scores) as the heap has them.
        heap = sorted(_heap(boxes, classes, scores, 0), key=lambda row: -row[0])
        kept = np.array([row[-1] for row in heap], int)
        return boxes[kept], classes[kept], scores[kept]
    return order_frame_rows(boxes, classes, scores, 0, row_order)


def _heap(boxes, classes, scores, max_rows) -> list[tuple]:
    """The ActivityNet program's heap of (score, class, ymin, xmin, ymax, xmax), in its own order.

    Each entry ends with its place among the N rows. Of rows that are equal in all else the program
    may keep any; here it is the first, so places count down inside the heap.
    """
    heap: list[tuple] = []
    rows = zip(
        scores.tolist(), classes.tolist(), *boxes.T.tolist(), range(0, -len(scores), -1),
        strict=True,
    )  # fmt: skip
    for row in rows:
        if not max_rows or len(heap) < max_rows:
            heapq.heappush(heap, row)
        elif row[0] > heap[0][0]:
            heapq.heapreplace(heap, row)
    return [(*row[:-1], -row[-1]) for row in heap]


def order_rows(rows: LabelledBoxes, max_rows: int, row_order: RowOrder) -> LabelledBoxes:
    """`order_frame_rows` on every frame; frames in the order in which they first appear."""
    if not len(rows):
        return rows
    rank, size = _rank_of_frame(rows.frame)
    by_score = np.lexsort((-rows.scores, rank))  # keeps the order of equals
    start = (np.cumsum(size) - size)[rank[by_score]]
    place = np.arange(len(rows)) - start
    chosen = by_score[place < max_rows] if max_rows else by_score
    if row_order == "heap" and max_rows:
        # Frames whose scores differ at the cap need no heap: for them a sort gives the same.
        first_out = np.flatnonzero(place == max_rows)
        last_kept = rows.scores[by_score[first_out - 1]]
        cut = first_out[rows.scores[by_score[first_out]] == last_kept]
        kept_start = np.cumsum(np.minimum(size, max_rows)) - np.minimum(size, max_rows)
        for first in cut:
            number = rank[by_score[first]]
            own = by_score[start[first] : start[first] + size[number]]
            source = np.sort(own)
            frame = rows[source]
            heap = _heap(frame.boxes, frame.classes, frame.scores, max_rows)
            kept = own[np.isin(own, source[[row[-1] for row in heap]])]
            chosen[kept_start[number] : kept_start[number] + max_rows] = kept
    if row_order == "file":
        chosen = chosen[np.lexsort((chosen, rank[chosen]))]
    return rows[chosen]


def order_ground_truth(rows: LabelledBoxes, row_order: RowOrder) -> LabelledBoxes:
    """`order_frame_ground_truth` on every frame; frames in the order in which they appear."""
    if row_order != "heap" or not len(rows):
        return order_rows(rows, 0, row_order)
    rank, size = _rank_of_frame(rows.frame)
    ordered = rows[np.argsort(rank, kind="stable")]
    stops = np.cumsum(size)
    for stop, count in zip(stops[size > 1].tolist(), size[size > 1].tolist(), strict=True):
        own = slice(stop - count, stop)
        ordered.boxes[own], ordered.classes[own], ordered.scores[own] = order_frame_ground_truth(
            ordered.boxes[own], ordered.classes[own], ordered.scores[own]
        )
    return ordered


def _rank_of_frame(frame: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each row the rank of its frame by first appearance, and for each rank its rows."""
    _, first_row, index = np.unique(frame, return_index=True, return_inverse=True)
    rank = np.argsort(np.argsort(first_row))[index]
    return rank, np.bincount(rank)


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
) -> ClassMatches:
    """Which detections of one class are right.

    Each detection chooses the box of its frame that it overlaps most, the first of equals. Of the
    detections that overlap the same box enough, only the first is right. So nothing depends on
    what an earlier detection took, and all frames are matched at once.

    Args:
      ground_truth: rows of the class.
      detections: rows of the class, in the order that `score_classes` wants.
      iou_threshold: the least overlap of a right detection.
    """
    closest, iou = closest_boxes(ground_truth, detections)
    right = first_claims(closest, iou, iou_threshold)
    by_score = order_by_score(detections.scores)
    return ClassMatches(detections[by_score], closest[by_score], iou[by_score], right[by_score])


def order_by_score(scores: np.ndarray) -> np.ndarray:
    """Permutation [D] that puts the highest score first and keeps the order of equals.

    NumPy's default sort is a different one on CPUs with AVX-512, with AVX2 and without, and each
    leaves equals in an order of its own.
    """
    return np.argsort(-scores, kind="stable")


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


def tie_span(scores: np.ndarray, is_true_positive: np.ndarray, num_ground_truth: int) -> TieSpan:
    """AP with the worst and with the best order of equal scores.

    How many true positives a group of equals has does not depend on their order: of the detections
    that overlap a ground-truth box enough, one with the highest score is the true positive, or,
    where a file's order decides, the first in the file. So the groups keep their counts, and as AP
    never falls when a true positive moves up, the extremes are true positives first and last.

    Args:
      scores: [D] of one class, highest first.
      is_true_positive: bool [D].
      num_ground_truth: ground-truth boxes of the class, at least 1.
    """
    given = average_precision(is_true_positive, num_ground_truth)
    starts = np.flatnonzero(np.concatenate([[True], scores[1:] != scores[:-1]]))
    if len(starts) == len(scores) or not is_true_positive.any():
        return TieSpan(given, given)
    size = np.diff(starts, append=len(scores))
    found = np.add.reduceat(is_true_positive, starts, dtype=np.int64)
    if not ((found > 0) & (found < size)).any():
        return TieSpan(given, given)
    place = np.arange(len(scores)) - np.repeat(starts, size)
    first, last = place < np.repeat(found, size), place >= np.repeat(size - found, size)
    return TieSpan(
        average_precision(last, num_ground_truth), average_precision(first, num_ground_truth)
    )


def score_class(
    category: Category, scores: np.ndarray, is_true_positive: np.ndarray, num_ground_truth: int
) -> ClassResult:
    """The result of one class.

    Args:
      category: {"id", "name"}.
      scores: [D], highest first.
      is_true_positive: bool [D].
      num_ground_truth: ground-truth boxes of the class; 0: it has no AP.
    """
    precision = span = None
    if num_ground_truth:
        precision = average_precision(is_true_positive, num_ground_truth)
        span = tie_span(scores, is_true_positive, num_ground_truth)
    return ClassResult(
        category["id"],
        category["name"],
        precision,
        num_ground_truth,
        len(scores),
        int(is_true_positive.sum()),
        span,
    )


def score_classes(
    ground_truth: LabelledBoxes,
    detections: LabelledBoxes,
    categories: Sequence[Category],
    iou_threshold: float = DEFAULT_IOU_THRESHOLD,
    report: Report | None = None,
) -> tuple[ClassResult, ...]:
    """Matches and scores rows that are already selected and ordered.

    Args:
      ground_truth: rows with the frame numbers that the detections use.
      detections: rows frame by frame, each frame's as `order_frame_rows` orders them, and only
        those that `is_detection`.
      categories: {"id", "name"} each; rows of other classes are ignored.
      iou_threshold: the least overlap of a right detection.
      report: called with lines of progress when scoring takes long.

    Returns:
      One result per category, ordered by id.
    """
    results = []
    progress = Progress("scoring", len(categories), "classes", report, report_end=False)
    for number, category in enumerate(sorted(categories, key=lambda item: item["id"])):
        gt = ground_truth[ground_truth.classes == category["id"]]
        found = detections[detections.classes == category["id"]]
        matches = match_class(gt, found, iou_threshold)
        results.append(score_class(category, matches.detections.scores, matches.right, len(gt)))
        progress.update(number + 1)
    return tuple(results)


def mean_average_precision(classes: Sequence[ClassResult]) -> float | None:
    """Mean over the classes with ground truth; None if there is none."""
    values = [entry.average_precision for entry in classes if entry.average_precision is not None]
    return float(np.mean(values)) if values else None


def mean_tie_span(classes: Sequence) -> TieSpan | None:
    """The `tie_span` of the mean over the classes with ground truth; None if there is none.

    No detection is of two classes, so all may be at their worst, or best, at once.

    Args:
      classes: `ClassResult`s, or others with a `tie_span`.
    """
    spans = [entry.tie_span for entry in classes if entry.tie_span is not None]
    if not spans:
        return None
    return TieSpan(
        float(np.mean([span.worst for span in spans])), float(np.mean([s.best for s in spans]))
    )
