# SPDX-License-Identifier: Apache-2.0
"""Frame-level average precision by the rules of the ActivityNet AVA evaluation (section 4).

    python -m object_detection_ext.evaluation.ava_ap --labelmap L.pbtxt --groundtruth G.csv \
        --detections D.csv [--excluded_timestamps E.csv] [--json]

The rules are those of the ActivityNet program, which feeds the stock PascalDetectionEvaluator; see
`protocol`. The figures agree with it to the last bits also where scores, boxes or overlaps are
equal, because what decides the order there is kept: rows pass a heap of tuples per frame, and
`np.argsort`, which does not keep the order of equals, is called on the same arrays.

Shape legend: N rows, G ground-truth rows, D detections, F frames, P pairs of a detection and a
ground-truth box of its frame and class.
"""

import argparse
import heapq
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

import numpy as np

from object_detection_ext.evaluation import csv_io
from object_detection_ext.evaluation.csv_io import AvaRows, Category, Frame, LabelledBoxes, Report
from object_detection_ext.progress import Progress

DEFAULT_IOU_THRESHOLD = 0.5
DEFAULT_MAX_ROWS_PER_FRAME = 50
NO_GROUND_TRUTH = "no class has ground truth"
# The stock non-maximum suppression, which removes nothing else here, drops scores up to this one.
_STOCK_SCORE_FLOOR = -10.0


def protocol(iou_threshold: float, max_rows_per_frame: int) -> tuple[str, ...]:
    """The rules of the evaluation, one per line, for reports."""
    cap = (
        f"at most the {max_rows_per_frame} highest-scored rows of a frame count"
        if max_rows_per_frame
        else "all rows of a frame count"
    )
    return (
        f"frame AP at IoU >= {iou_threshold:g}, ActivityNet AVA rules, PASCAL VOC precision curve",
        f"only classes in the label map; of these, {cap}",
        "frames that the ground truth does not list, and excluded ones, are ignored",
        "a detection meets the ground-truth box it overlaps most; the first one to do so is right",
        "boxes with x1 >= x2 or y1 >= y2, and scores <= -10, are no detections",
        "mAP: mean over the classes that have ground truth",
    )


@dataclass
class AvaCounts:
    """What became of frames and rows. Detection rows: every row is in exactly one count."""

    frames: int = 0
    frames_with_ground_truth: int = 0
    frames_excluded: int = 0
    ground_truth_rows: int = 0
    ground_truth_rows_not_in_label_map: int = 0
    ground_truth_rows_excluded: int = 0
    detection_rows_used: int = 0
    detection_rows_not_in_label_map: int = 0
    detection_rows_on_unlisted_frames: int = 0
    detection_rows_on_excluded_frames: int = 0
    detection_rows_dropped_by_cap: int = 0
    detection_rows_with_invalid_box: int = 0
    detection_rows_with_score_up_to_minus_10: int = 0


@dataclass(frozen=True)
class ClassResult:
    """One class: its AP, None without ground truth, and the rows behind it."""

    id: int
    name: str
    average_precision: float | None
    ground_truth: int
    detections: int
    true_positives: int


@dataclass(frozen=True)
class AvaResult:
    """The result of an evaluation.

    Attributes:
      mean_average_precision: over the classes with ground truth; None if there is none.
      classes: one per category, ordered by id.
      counts: what became of frames and rows.
      iou_threshold, max_rows_per_frame: the rules' numbers.
      warnings: for people, what looks wrong with the input although it was accepted.
    """

    mean_average_precision: float | None
    classes: tuple[ClassResult, ...]
    counts: AvaCounts
    iou_threshold: float
    max_rows_per_frame: int
    warnings: tuple[str, ...] = field(default=())

    @property
    def average_precision(self) -> dict[int, float | None]:
        """AP by class id; None for a class without ground truth."""
        return {entry.id: entry.average_precision for entry in self.classes}

    @property
    def classes_without_ground_truth(self) -> tuple[int, ...]:
        """Ids of the classes that the mean leaves out."""
        return tuple(entry.id for entry in self.classes if entry.average_precision is None)

    def to_dict(self) -> dict:
        """The result in types that JSON has; an AP that does not exist is None."""
        return {
            "mAP": self.mean_average_precision,
            "per_class": {
                entry.name or str(entry.id): entry.average_precision for entry in self.classes
            },
            "classes": [asdict(entry) for entry in self.classes],
            "classes_without_ground_truth": list(self.classes_without_ground_truth),
            "counts": asdict(self.counts),
            "iou_threshold": self.iou_threshold,
            "max_rows_per_frame": self.max_rows_per_frame,
            "protocol": list(protocol(self.iou_threshold, self.max_rows_per_frame)),
            "warnings": list(self.warnings),
        }


def order_frame_rows(
    boxes: np.ndarray, classes: np.ndarray, scores: np.ndarray, max_rows: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows of one frame that the cap leaves, highest score first, equals in the program's order.

    The program keeps a heap of (score, class, ymin, xmin, ymax, xmax) per frame and sorts what is
    left by score, so the order of equal scores is that of the heap's array.

    Args:
      boxes: [N, 4], [ymin, xmin, ymax, xmax].
      classes: [N] ids.
      scores: [N], no NaN.
      max_rows: the cap; 0 for none.

    Returns:
      (boxes, classes, scores) of at most max_rows rows, in the dtypes given.
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


def _order_rows(rows: LabelledBoxes, max_rows: int) -> LabelledBoxes:
    """`order_frame_rows` on every frame; frames in the order in which they first appear.

    Frames whose scores all differ need no heap: for them a sort gives the same.
    """
    if not len(rows):
        return rows
    _, first_row, frame = np.unique(rows.frame, return_index=True, return_inverse=True)
    rank = np.argsort(np.argsort(first_row))[frame]  # [N], 0 for the frame that appears first
    by_score = np.lexsort((-rows.scores, rank))
    by_file = np.argsort(rank, kind="stable")
    size = np.bincount(rank)
    start = np.cumsum(size) - size
    score, sorted_rank = rows.scores[by_score], rank[by_score]
    equals = (score[1:] == score[:-1]) & (sorted_rank[1:] == sorted_rank[:-1])
    kept_size = np.minimum(size, max_rows) if max_rows else size
    place = np.arange(len(rows)) - start[sorted_rank]
    kept = rows[by_score[place < kept_size[sorted_rank]]]
    kept_start = np.cumsum(kept_size) - kept_size
    for group in np.unique(sorted_rank[1:][equals]):
        source = by_file[start[group] : start[group] + size[group]]
        target = slice(kept_start[group], kept_start[group] + kept_size[group])
        kept.boxes[target], kept.classes[target], kept.scores[target] = order_frame_rows(
            rows.boxes[source], rows.classes[source], rows.scores[source], max_rows
        )
    return kept


def is_detection(boxes: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which rows the stock evaluator looks at at all.

    Args:
      boxes: [N, 4], [ymin, xmin, ymax, xmax].
      scores: [N].

    Returns:
      (bool [N] boxes with an extent, bool [N] scores above the stock floor of -10).
    """
    valid = (boxes[:, 0] < boxes[:, 2]) & (boxes[:, 1] < boxes[:, 3])
    return valid, scores > _STOCK_SCORE_FLOOR


def _stock_order_of_equals(frame: np.ndarray, scores: np.ndarray) -> np.ndarray:
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


def _paired_iou(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """IoU [P] of boxes [P, 4] and others [P, 4]; NaN where both have no area."""
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
    iou = _paired_iou(detections.boxes[candidates[pair_candidate]], gt_boxes[pair_box])
    # np.argmax, which the stock evaluator uses, takes NaN for the largest value.
    rank = np.where(np.isnan(iou), np.inf, iou)
    is_largest = np.flatnonzero(rank == np.maximum.reduceat(rank, pair_start)[pair_candidate])
    _, first = np.unique(pair_candidate[is_largest], return_index=True)
    chosen = is_largest[first]  # [len(candidates)] pairs
    closest[candidates] = by_frame[pair_box[chosen]]
    overlap[candidates] = iou[chosen]
    return closest, overlap


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
    ground_truth: LabelledBoxes, detections: LabelledBoxes, iou_threshold: float
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
    found = detections[_stock_order_of_equals(detections.frame, detections.scores)]
    closest, iou = closest_boxes(ground_truth, found)
    right = np.zeros(len(found), bool)
    matched = np.flatnonzero(iou >= iou_threshold)
    _, earliest = np.unique(closest[matched], return_index=True)
    right[matched[earliest]] = True
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
    progress = Progress("scoring", len(categories), "classes", report, tell_end=False)
    for number, category in enumerate(sorted(categories, key=lambda item: item["id"])):
        gt = ground_truth[ground_truth.classes == category["id"]]
        found = detections[detections.classes == category["id"]]
        right = match_class(gt, found, iou_threshold).right
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


def check_categories(categories: Sequence[Category]) -> None:
    """Raises ValueError unless there are categories, and their ids are 1 or more and differ."""
    ids = [category["id"] for category in categories]
    if not ids:
        raise ValueError("The label map has no classes.")
    if min(ids) < 1:
        raise ValueError(f"Class ids must be 1 or more; the label map has {min(ids)}.")
    repeated = sorted({class_id for class_id in ids if ids.count(class_id) > 1})
    if repeated:
        raise ValueError(f"Class ids must differ; the label map repeats {repeated}.")


def check_rules(iou_threshold: float, max_rows_per_frame: int) -> None:
    """Raises ValueError for numbers that are no rules."""
    if not 0.0 < iou_threshold <= 1.0:
        raise ValueError(f"iou_threshold is {iou_threshold}, but must be in (0, 1].")
    if max_rows_per_frame < 0:
        raise ValueError(f"max_rows_per_frame is {max_rows_per_frame}, but must be 0 or more.")


def _check_ground_truth_boxes(name: str, rows: LabelledBoxes, lines: np.ndarray) -> list[str]:
    """Raises ValueError for a reversed box; returns warnings for flat ones.

    The program stops, without naming the row, as soon as it compares a reversed box with a
    detection. A flat box it accepts: nothing can match it.
    """
    extent = rows.boxes[:, 2:] - rows.boxes[:, :2]
    reversed_rows = np.flatnonzero((extent < 0).any(axis=1))
    if len(reversed_rows):
        row = reversed_rows[0]
        ymin, xmin, ymax, xmax = rows.boxes[row].tolist()
        raise ValueError(
            f"{name}, line {lines[row]}: box x1={xmin:g}, y1={ymin:g}, x2={xmax:g}, y2={ymax:g}; "
            f"x1 < x2 and y1 < y2 is right ({len(reversed_rows)} such rows)."
        )
    flat = np.flatnonzero((extent == 0).any(axis=1))
    if not len(flat):
        return []
    return [
        f"{name}: {len(flat)} ground-truth boxes have no area and cannot be found (first: line "
        f"{lines[flat[0]]})"
    ]


def _range_warnings(name: str, rows: LabelledBoxes, lines: np.ndarray) -> list[str]:
    """Warnings for boxes that leave the frame; the program accepts them."""
    outside = np.flatnonzero(((rows.boxes < 0) | (rows.boxes > 1)).any(axis=1))
    if not len(outside):
        return []
    ymin, xmin, ymax, xmax = rows.boxes[outside[0]].tolist()
    warning = (
        f"{name}: {len(outside)} of {len(rows)} boxes leave [0, 1] (first: line "
        f"{lines[outside[0]]}, {xmin:g},{ymin:g},{xmax:g},{ymax:g})"
    )
    if np.abs(rows.boxes).max() > 2:
        warning += "; they look like pixels, AVA boxes are fractions of the frame's size"
    return [warning]


class _Selecting:
    """The steps of `select`, which share counts and warnings."""

    def __init__(self, categories, max_rows_per_frame, excluded):
        self.class_ids = np.array([category["id"] for category in categories])
        self.max_rows = max_rows_per_frame
        self.excluded = excluded
        self.counts, self.warnings = AvaCounts(), []

    def select_ground_truth(self, source: AvaRows) -> LabelledBoxes:
        """Rows in the label map and on frames that are not excluded, in the program's order."""
        counts = self.counts
        excluded = np.array([frame in self.excluded for frame in source.frames], bool)
        in_map = np.isin(source.rows.classes, self.class_ids)
        keep = in_map & ~excluded[source.rows.frame]
        rows, lines = source.rows[keep], source.lines[keep]
        counts.frames_excluded = int(excluded.sum())
        counts.frames = len(source.frames) - counts.frames_excluded
        counts.frames_with_ground_truth = len(np.unique(rows.frame))
        counts.ground_truth_rows = len(rows)
        counts.ground_truth_rows_not_in_label_map = int((~in_map).sum())
        counts.ground_truth_rows_excluded = int((in_map & ~keep).sum())
        if not len(rows):
            self.warnings.append(
                f"{source.name}: {NO_GROUND_TRUTH} ({len(source.rows)} rows, of which "
                f"{counts.ground_truth_rows_not_in_label_map} have an action id that is not in "
                f"the label map and {counts.ground_truth_rows_excluded} are on excluded frames)"
            )
        self.warnings += _check_ground_truth_boxes(source.name, rows, lines)
        self.warnings += _range_warnings(source.name, rows, lines)
        return _order_rows(rows, 0)

    def select_detections(self, source: AvaRows, listed: list[Frame]) -> LabelledBoxes:
        """Rows that the rules leave, with the ground truth's frame numbers."""
        counts = self.counts
        in_map = np.isin(source.rows.classes, self.class_ids)
        counts.detection_rows_not_in_label_map = int((~in_map).sum())
        rows, lines = source.rows[in_map], source.lines[in_map]
        self.warnings += _range_warnings(source.name, rows, lines)
        number = {frame: index for index, frame in enumerate(listed)}
        excluded = np.array([frame in self.excluded for frame in source.frames], bool)
        target = np.array([number.get(frame, -1) for frame in source.frames], np.int64)
        on_listed = target[rows.frame] >= 0
        on_excluded = on_listed & excluded[rows.frame]
        counts.detection_rows_on_unlisted_frames = int((~on_listed).sum())
        counts.detection_rows_on_excluded_frames = int(on_excluded.sum())
        rows = rows[on_listed & ~on_excluded]
        kept = _order_rows(rows, self.max_rows)
        counts.detection_rows_dropped_by_cap = len(rows) - len(kept)
        valid, high = is_detection(kept.boxes, kept.scores)
        counts.detection_rows_with_invalid_box = int((~valid).sum())
        counts.detection_rows_with_score_up_to_minus_10 = int((valid & ~high).sum())
        kept = kept[valid & high]
        counts.detection_rows_used = len(kept)
        self._warn_of_detections(source)
        return LabelledBoxes(target[kept.frame], kept.boxes, kept.classes, kept.scores)

    def _warn_of_detections(self, source: AvaRows) -> None:
        counts, total = self.counts, len(source.rows)
        if not total:
            self.warnings.append(f"{source.name}: no detections")
            return
        if source.rows_with_score < total:
            self.warnings.append(
                f"{source.name}: {total - source.rows_with_score} of {total} rows have no score "
                "(8th column); 1.0 is used"
            )
        unlisted = counts.detection_rows_on_unlisted_frames
        if unlisted and unlisted + counts.detection_rows_not_in_label_map == total:
            video, seconds = source.frames[int(source.rows.frame[0])]
            self.warnings.append(
                f"{source.name}: no detection is on a frame that the ground truth lists (the "
                f"first is on {video!r} at {seconds} s); compare video ids and timestamps"
            )
        for count, what in (
            (counts.detection_rows_not_in_label_map, "have an action id not in the label map"),
            (counts.detection_rows_with_invalid_box, "have a box with x1 >= x2 or y1 >= y2"),
            (counts.detection_rows_with_score_up_to_minus_10, "have a score <= -10 (logits?)"),
        ):
            if count:
                self.warnings.append(f"{source.name}: {count} of {total} rows {what}; ignored")


@dataclass(frozen=True)
class Selection:
    """The rows that the rules leave, ready for `score_classes`.

    Attributes:
      frames: what the rows' frame numbers mean, (video id, seconds).
      ground_truth: rows in the label map on frames that are not excluded.
      detections: rows frame by frame, highest score first.
      counts: what became of frames and rows.
      warnings: for people, what looks wrong with the input although it was accepted.
    """

    frames: list[Frame]
    ground_truth: LabelledBoxes
    detections: LabelledBoxes
    counts: AvaCounts
    warnings: tuple[str, ...]


def select(
    ground_truth: AvaRows,
    detections: AvaRows,
    categories: Sequence[Category],
    max_rows_per_frame: int = DEFAULT_MAX_ROWS_PER_FRAME,
    excluded: frozenset[Frame] = frozenset(),
) -> Selection:
    """The rows that count by the rules of `protocol`; arguments and errors as in `evaluate`."""
    check_rules(DEFAULT_IOU_THRESHOLD, max_rows_per_frame)
    check_categories(categories)
    if not ground_truth.frames:
        raise ValueError(f"{ground_truth.name}: the ground truth is empty; {NO_GROUND_TRUTH}.")
    selecting = _Selecting(categories, max_rows_per_frame, excluded)
    gt = selecting.select_ground_truth(ground_truth)
    found = selecting.select_detections(detections, ground_truth.frames)
    return Selection(ground_truth.frames, gt, found, selecting.counts, tuple(selecting.warnings))


def evaluate(
    ground_truth: AvaRows,
    detections: AvaRows,
    categories: Sequence[Category],
    iou_threshold: float = DEFAULT_IOU_THRESHOLD,
    max_rows_per_frame: int = DEFAULT_MAX_ROWS_PER_FRAME,
    excluded: frozenset[Frame] = frozenset(),
    report: Report | None = None,
) -> AvaResult:
    """Evaluates detections by the rules that `protocol` lists.

    Args:
      ground_truth: from `csv_io.read_csv`; boxes in the unit of the detections.
      detections: from `csv_io.read_csv`. Any common unit gives the same result, but boxes that
        leave [0, 1] are warned of.
      categories: {"id", "name"} each, as `csv_io.read_label_map` gives them.
      iou_threshold: the least overlap of a right detection, in (0, 1].
      max_rows_per_frame: how many rows of a frame count; 0 for all.
      excluded: frames to leave out, as `csv_io.read_excluded_timestamps` gives them.
      report: called with lines of progress when scoring takes long.

    Raises:
      ValueError: for a number out of range, an unusable label map, ground truth without a single
        row, or a ground-truth box that is reversed; names file and line where there is one.
    """
    check_rules(iou_threshold, max_rows_per_frame)
    rows = select(ground_truth, detections, categories, max_rows_per_frame, excluded)
    classes = score_classes(rows.ground_truth, rows.detections, categories, iou_threshold, report)
    return AvaResult(
        mean_average_precision(classes),
        classes,
        rows.counts,
        iou_threshold,
        max_rows_per_frame,
        rows.warnings,
    )


def evaluate_files(
    labelmap: str,
    groundtruth: str,
    detections: str,
    excluded_timestamps: str | None = None,
    report: Report | None = None,
) -> AvaResult:
    """`evaluate` on files, by the rules' own numbers. Raises what the readers and it raise."""
    categories = csv_io.read_label_map(labelmap)
    excluded = frozenset()
    if excluded_timestamps:
        excluded = csv_io.read_excluded_timestamps(excluded_timestamps)
    return evaluate(
        csv_io.read_csv(groundtruth, report),
        csv_io.read_csv(detections, report),
        categories,
        excluded=excluded,
        report=report,
    )


def format_result(result: AvaResult) -> str:
    """The result for people: rules, counts, warnings, a table of classes, mAP."""
    lines = ["Rules"]
    lines += [f"  {rule}" for rule in protocol(result.iou_threshold, result.max_rows_per_frame)]
    lines.append("Counts")
    for name, count in asdict(result.counts).items():
        lines.append(f"  {count:>10,}  {name.replace('_', ' ')}")
    lines.append(f"  {len(result.classes_without_ground_truth):>10,}  classes without ground truth")
    if result.warnings:
        lines.append("Warnings")
        lines += [f"  {warning}" for warning in result.warnings]
    width = max(len(entry.name) for entry in result.classes)
    lines.append(f"{'id':>4}  {'class':<{width}}  {'AP':>7}  {'boxes':>8}  {'detections':>10}")
    for entry in result.classes:
        value = "-" if entry.average_precision is None else f"{entry.average_precision:.4f}"
        lines.append(
            f"{entry.id:>4}  {entry.name:<{width}}  {value:>7}  {entry.ground_truth:>8,}  "
            f"{entry.detections:>10,}"
        )
    evaluated = len(result.classes) - len(result.classes_without_ground_truth)
    if result.mean_average_precision is None:
        lines.append(f"mAP: none, {NO_GROUND_TRUTH}")
    else:
        lines.append(
            f"mAP@{result.iou_threshold:g}IOU: {result.mean_average_precision:.6f} over "
            f"{evaluated} of {len(result.classes)} classes"
        )
    return "\n".join(lines)


def _parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m object_detection_ext.evaluation.ava_ap",
        description="Frame AP of action detections by the ActivityNet AVA rules.",
    )
    parser.add_argument("--labelmap", "-l", required=True, help="label map (.pbtxt)")
    parser.add_argument("--groundtruth", "-g", required=True, help="ground truth (.csv)")
    parser.add_argument("--detections", "-d", required=True, help="detections (.csv)")
    parser.add_argument(
        "--excluded_timestamps", "-e", help="frames to leave out (.csv of video_id,timestamp)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON and nothing else")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line. Returns 0, 1 where there is no mAP, or 2 for unusable input."""
    options = _parse_arguments(arguments)

    def report(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    try:
        result = evaluate_files(
            options.labelmap,
            options.groundtruth,
            options.detections,
            options.excluded_timestamps,
            report,
        )
    except (ValueError, OSError) as error:
        report(f"error: {error}")
        return 2
    if options.json:
        for warning in result.warnings:
            report(f"warning: {warning}")
        print(json.dumps(result.to_dict(), indent=2, allow_nan=False))
    else:
        print(format_result(result))
    if result.mean_average_precision is None:
        report(f"error: {NO_GROUND_TRUTH}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
