# SPDX-License-Identifier: Apache-2.0
"""Which frames and rows of two AVA files count, by the rules of a protocol.

Shape legend: N rows, F frames.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from object_detection_ext import errors
from object_detection_ext.ava.exclusion import Exclusion
from object_detection_ext.ava.label_maps import Category
from object_detection_ext.ava.tables import AvaRows, LabelledBoxes, Report
from object_detection_ext.ava.timestamps import Frame, Moments
from object_detection_ext.evaluation import frame_ap, missed_moments, person_boxes, protocols
from object_detection_ext.evaluation.protocols import ACTIVITYNET, Protocol

# Boxes that reach further are taken for pixels.
_PIXELS_FROM = 2
NO_GROUND_TRUTH = "no class has ground truth"


@dataclass
class AvaCounts:
    """What became of frames and rows. Every detection row is in exactly one of the last counts.

    Attributes:
      frames: those that count.
      frames_skipped: those of either file that do not count, for whatever reason.
      frames_with_ground_truth: that count and have a box of a class in the label map.
      frames_excluded: of either file; skipped.
      frames_unlisted: not excluded, and in the detections' file only. Whether they are skipped is
        the protocol's matter.
      frames_without_boxes_skipped: that the ground truth lists without a box, where the protocol
        skips these.
    """

    frames: int = 0
    frames_skipped: int = 0
    frames_with_ground_truth: int = 0
    frames_excluded: int = 0
    frames_unlisted: int = 0
    frames_without_boxes_skipped: int = 0
    ground_truth_rows: int = 0
    ground_truth_rows_not_in_label_map: int = 0
    ground_truth_rows_excluded: int = 0
    detection_rows_used: int = 0
    detection_rows_not_in_label_map: int = 0
    detection_rows_on_excluded_frames: int = 0
    detection_rows_on_unlisted_frames: int = 0
    detection_rows_on_frames_without_boxes: int = 0
    detection_rows_dropped_by_cap: int = 0
    detection_rows_with_invalid_box: int = 0
    detection_rows_with_score_up_to_floor: int = 0


def check_categories(categories: Sequence[Category]) -> None:
    """Raises InputError unless there are categories, and their ids are 1 or more and differ."""
    ids = [category["id"] for category in categories]
    if not ids:
        raise errors.InputError("The label map has no classes.")
    if min(ids) < 1:
        raise errors.InputError(f"Class ids must be 1 or more; the label map has {min(ids)}.")
    repeated = sorted({class_id for class_id in ids if ids.count(class_id) > 1})
    if repeated:
        raise errors.InputError(f"Class ids must differ; the label map repeats {repeated}.")


def _check_ground_truth_boxes(name: str, rows: LabelledBoxes, lines: np.ndarray) -> list[str]:
    """Raises InputError for a reversed box; returns warnings for flat ones.

    The program stops, without naming the row, as soon as it compares a reversed box with a
    detection. A flat box it accepts: nothing can match it.
    """
    extent = rows.boxes[:, 2:] - rows.boxes[:, :2]
    reversed_rows = np.flatnonzero((extent < 0).any(axis=1))
    if len(reversed_rows):
        row = reversed_rows[0]
        ymin, xmin, ymax, xmax = rows.boxes[row].tolist()
        raise errors.InputError(
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


def _box_text(box: np.ndarray) -> str:
    """x1,y1,x2,y2 of a box [ymin, xmin, ymax, xmax]."""
    return ",".join(f"{value:g}" for value in box[[1, 0, 3, 2]])


def _range_warnings(name: str, rows: LabelledBoxes, lines: np.ndarray) -> list[str]:
    """Warnings for boxes that leave the frame and for scores that are none; both are accepted."""
    warnings = []
    outside = np.flatnonzero(((rows.boxes < 0) | (rows.boxes > 1)).any(axis=1))
    if len(outside):
        warnings.append(
            f"{name}: {len(outside)} of {len(rows)} boxes leave [0, 1] (first: line "
            f"{lines[outside[0]]}, {_box_text(rows.boxes[outside[0]])})"
        )
        if np.abs(rows.boxes).max() > _PIXELS_FROM:
            warnings[-1] += "; they look like pixels, AVA boxes are fractions of the frame's size"
    return warnings


def _score_warnings(name: str, rows: LabelledBoxes, lines: np.ndarray) -> list[str]:
    """A warning for scores that are no probabilities; they are accepted, as only order matters."""
    outside = np.flatnonzero((rows.scores < 0) | (rows.scores > 1))
    if not len(outside):
        return []
    return [
        f"{name}: {len(outside)} of {len(rows)} scores leave [0, 1] (first: line "
        f"{lines[outside[0]]}, {rows.scores[outside[0]]:g}); are they logits or percentages?"
    ]


class CountedFrames:
    """The frames of two files that count by a protocol, numbered.

    Attributes:
      frames: what the numbers mean, (video id, seconds): the ground truth's frames, then those of
        the detections alone, if they count.
      keeps: bool [F], which of the ground truth's frames count.
      target: int64 [F], the number of each of the detections' frames; -1 where it does not count.
      same: int64 [F], for each of the detections' frames the first that is the same moment.
      unmet: what is to be said of excluded moments that meet no frame; None for nothing.
      excluded, unlisted, without_boxes: bool [F], why a detections' frame is not a ground truth's
        that counts; at most one is true.
    """

    def __init__(
        self,
        ground_truth: AvaRows,
        detections: AvaRows,
        excluded: frozenset[Frame],
        protocol: Protocol,
    ):
        listed, found = ground_truth.frames, detections.frames
        self.frames = list(listed)
        has_boxes = np.bincount(ground_truth.rows.frame, minlength=len(listed)) > 0
        self.unmet = Exclusion(excluded, (*listed, *found)).message()
        number = {frame: index for index, frame in enumerate(listed)}
        self.target = np.array([number.get(frame, -1) for frame in found], np.int64)
        self._meet_nearly(listed, found, number)
        self._is_listed = self.target >= 0
        self._listed_excluded = _are_in(Exclusion(excluded, listed).left_out, listed)
        self._empty = ~has_boxes & ~self._listed_excluded & (protocol.frames == "labelled")
        self.keeps = ~self._listed_excluded & ~self._empty
        self.excluded = _are_in(Exclusion(excluded, found).left_out, found)
        self.excluded[self._is_listed] |= self._listed_excluded[self.target[self._is_listed]]
        self.unlisted = ~self._is_listed & ~self.excluded
        self.without_boxes = np.zeros(len(found), bool)
        self.without_boxes[self._is_listed] = self._empty[self.target[self._is_listed]]
        self.target[self.excluded | self.without_boxes] = -1
        if protocol.frames == "all":
            added = np.flatnonzero(self.unlisted)
            self.target[added] = len(listed) + np.arange(len(added))
            self.frames += [found[index] for index in added]

    def _meet_nearly(self, listed: list[Frame], found: list[Frame], number: dict) -> None:
        """Has detections' frames meet the listed ones that are the same moment, otherwise written.

        Where two meet one, they are one.
        """
        alone = np.flatnonzero(self.target < 0).tolist()
        moments = Moments(listed if alone else ())
        for index in alone:
            met = moments.met_by(found[index])
            if met is not None:
                self.target[index] = number[met]
        self.same = np.arange(len(found))
        met = np.flatnonzero(self.target >= 0)
        _, first, of_met = np.unique(self.target[met], return_index=True, return_inverse=True)
        self.same[met] = met[first[of_met]]

    def count(self, counts: AvaCounts) -> None:
        """Fills in the counts of frames, but for `frames_with_ground_truth`."""
        added = len(self.frames) - len(self.keeps)
        only_in_detections = int((self.excluded & ~self._is_listed).sum())
        counts.frames = int(self.keeps.sum()) + added
        counts.frames_excluded = int(self._listed_excluded.sum()) + only_in_detections
        counts.frames_unlisted = int(self.unlisted.sum())
        counts.frames_without_boxes_skipped = int(self._empty.sum())
        counts.frames_skipped = (
            counts.frames_excluded
            + counts.frames_without_boxes_skipped
            + (counts.frames_unlisted - added)
        )


def _are_in(some: frozenset[Frame], frames: Sequence[Frame]) -> np.ndarray:
    return np.array([frame in some for frame in frames], bool)


class _Selecting:
    """The steps of `select`, which share counts and warnings."""

    def __init__(self, categories: Sequence[Category], counted: CountedFrames, protocol: Protocol):
        self.class_ids = np.array([category["id"] for category in categories])
        self.counted = counted
        self.protocol = protocol
        self.counts, self.warnings = AvaCounts(), []
        self._is_normalized = False
        if counted.unmet:
            self.warnings.append(counted.unmet)
        counted.count(self.counts)

    def select_ground_truth(self, source: AvaRows) -> LabelledBoxes:
        """Rows in the label map and on frames that count, in the protocol's order."""
        counts = self.counts
        self.warnings += [f"{source.name}: {note}" for note in source.notes]
        in_map = np.isin(source.rows.classes, self.class_ids)
        keep = in_map & self.counted.keeps[source.rows.frame]
        rows, lines = source.rows[keep], source.lines[keep]
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
        self._is_normalized = bool((rows.boxes <= _PIXELS_FROM).all())
        self.warnings += _range_warnings(source.name, rows, lines)
        return frame_ap.order_ground_truth(rows, self.protocol.row_order)

    def select_detections(self, source: AvaRows) -> LabelledBoxes:
        """Rows that the rules leave, with the numbers of the frames that count."""
        counts, counted = self.counts, self.counted
        self.warnings += [f"{source.name}: {note}" for note in source.notes]
        in_map = np.isin(source.rows.classes, self.class_ids)
        counts.detection_rows_not_in_label_map = int((~in_map).sum())
        self._warn_of_unknown_classes(source, in_map)
        rows, lines = source.rows[in_map], source.lines[in_map]
        self._check_unit(source, rows, lines)
        self.warnings += _range_warnings(source.name, rows, lines)
        self.warnings += _score_warnings(source.name, rows, lines)
        counts.detection_rows_on_excluded_frames = int(counted.excluded[rows.frame].sum())
        counts.detection_rows_on_frames_without_boxes = int(counted.without_boxes[rows.frame].sum())
        on_counted = counted.target[rows.frame] >= 0
        counts.detection_rows_on_unlisted_frames = int(
            (counted.unlisted[rows.frame] & ~on_counted).sum()
        )
        rows = dataclasses.replace(rows, frame=counted.same[rows.frame])[on_counted]
        kept = frame_ap.order_rows(rows, self.protocol.max_rows_per_frame, self.protocol.row_order)
        counts.detection_rows_dropped_by_cap = len(rows) - len(kept)
        valid, high = frame_ap.is_detection(kept.boxes, kept.scores, self.protocol.score_floor)
        counts.detection_rows_with_invalid_box = int((~valid).sum())
        counts.detection_rows_with_score_up_to_floor = int((valid & ~high).sum())
        kept = kept[valid & high]
        counts.detection_rows_used = len(kept)
        self._warn_of_detections(source)
        return LabelledBoxes(counted.target[kept.frame], kept.boxes, kept.classes, kept.scores)

    def _check_unit(self, source: AvaRows, rows: LabelledBoxes, lines: np.ndarray) -> None:
        """Raises InputError for boxes in pixels where those of the ground truth are not."""
        pixels = np.flatnonzero((rows.boxes > _PIXELS_FROM).any(axis=1))
        if self._is_normalized and 2 * len(pixels) > len(rows):
            raise errors.InputError(
                f"{source.name}, line {lines[pixels[0]]}: {len(pixels)} of {len(rows)} boxes look "
                f"like pixels ({_box_text(rows.boxes[pixels[0]])}), but those of the ground truth "
                "are fractions of the frame's size; divide x by its width and y by its height."
            )

    def _warn_of_unknown_classes(self, source: AvaRows, in_map: np.ndarray) -> None:
        unknown = np.flatnonzero(~in_map)
        if len(unknown):
            self.warnings.append(
                f"{source.name}: {len(unknown)} of {len(in_map)} rows have an action id not in the "
                f"label map (first: line {source.lines[unknown[0]]}, "
                f"{source.rows.classes[unknown[0]]}); ignored"
            )

    def _warn_of_detections(self, source: AvaRows) -> None:
        counts, total = self.counts, len(source.rows)
        if not total:
            self.warnings.append(f"{source.name}: no detections, so that every AP is 0")
            return
        without_score = np.flatnonzero(~source.has_score)
        if len(without_score):
            self.warnings.append(
                f"{source.name}: {len(without_score)} of {total} rows have no score, the 8th "
                f"column (first: line {source.lines[without_score[0]]}); 1.0 is used"
            )
        on_listed = self.counted.target[source.rows.frame] >= 0
        on_listed &= ~self.counted.unlisted[source.rows.frame]
        if self.counted.unlisted[source.rows.frame].any() and not on_listed.any():
            video, seconds = source.frames[int(source.rows.frame[0])]
            self.warnings.append(
                f"{source.name}: no detection is on a frame that the ground truth lists (the "
                f"first is on {video!r} at {seconds} s); compare video ids and timestamps"
            )
        for count, what in (
            (counts.detection_rows_with_invalid_box, "have a box with x1 >= x2 or y1 >= y2"),
            (
                counts.detection_rows_with_score_up_to_floor,
                f"have a score <= {self.protocol.score_floor}",
            ),
        ):
            if count:
                self.warnings.append(f"{source.name}: {count} of {total} rows {what}; ignored")


@dataclass(frozen=True)
class Selection:
    """The rows that the rules leave, ready for `frame_ap.score_classes`.

    Attributes:
      frames: what the rows' frame numbers mean, (video id, seconds).
      ground_truth: rows in the label map on frames that count.
      detections: rows frame by frame, in the order in which they claim ground-truth boxes.
      counts: what became of frames and rows.
      warnings: for people, what looks wrong with the input although it was accepted.
      protocol: whose rules these are.
      counted: the frames that count, for `select_people`.
    """

    frames: list[Frame]
    ground_truth: LabelledBoxes
    detections: LabelledBoxes
    counts: AvaCounts
    warnings: tuple[str, ...]
    protocol: Protocol
    counted: CountedFrames


def with_max_rows(protocol: Protocol, max_rows_per_frame: int | None) -> Protocol:
    """The protocol with another cap; None leaves its own. Raises InputError for a negative one."""
    if max_rows_per_frame is None:
        return protocol
    protocols.check_max_rows(max_rows_per_frame)
    return dataclasses.replace(protocol, max_rows_per_frame=max_rows_per_frame)


def select(
    ground_truth: AvaRows,
    detections: AvaRows,
    categories: Sequence[Category],
    max_rows_per_frame: int | None = None,
    excluded: frozenset[Frame] = frozenset(),
    protocol: Protocol = ACTIVITYNET,
) -> Selection:
    """The rows that count by the rules of a protocol.

    Args:
      ground_truth: from `tables.read_csv`; boxes in the unit of the detections.
      detections: from `tables.read_csv`.
      categories: {"id", "name"} each, as `label_maps.read_categories` gives them.
      max_rows_per_frame: how many rows of a frame count, 0 for all; None for the protocol's number.
      excluded: frames to leave out, as `tables.read_excluded_timestamps` gives them.
      protocol: the rules.

    Raises:
      InputError: for a number out of range, an unusable label map, ground truth without a single
        row, or a ground-truth box that is reversed; names file and line where there is one.
    """
    protocol = with_max_rows(protocol, max_rows_per_frame)
    check_categories(categories)
    if not ground_truth.frames:
        raise errors.InputError(
            f"{ground_truth.name}: the ground truth is empty; {NO_GROUND_TRUTH}."
        )
    counted = CountedFrames(ground_truth, detections, excluded, protocol)
    selecting = _Selecting(categories, counted, protocol)
    gt = selecting.select_ground_truth(ground_truth)
    found = selecting.select_detections(detections)
    selecting.warnings += missed_moments.warnings(
        ground_truth.name,
        ground_truth.frames,
        counted.keeps & (np.bincount(ground_truth.rows.frame, minlength=len(counted.keeps)) > 0),
        detections.name,
        detections.frames,
        counted.target,
        counted.unlisted,
    )
    return Selection(
        counted.frames,
        gt,
        found,
        selecting.counts,
        tuple(selecting.warnings),
        protocol,
        counted,
    )


def select_people(
    ground_truth: AvaRows,
    detections: AvaRows,
    counted: CountedFrames,
    protocol: Protocol,
    merge_iou: float = person_boxes.MERGE_IOU,
    report: Report | None = None,
) -> tuple[LabelledBoxes, LabelledBoxes]:
    """The people of the frames that count, each once, whatever the classes of their rows.

    The cap on rows does not hold here: rows are actions, and people are few.

    Args:
      ground_truth: as in `select`.
      detections: as in `select`.
      counted: the frames that count.
      protocol: whose floor for scores holds.
      merge_iou: see `person_boxes.group_detections`.
      report: called with lines of progress.

    Returns:
      (people of the ground truth, detected people), all of class `person_boxes.PERSON`.
    """
    people = person_boxes.distinct_people(ground_truth.rows[counted.keeps[ground_truth.rows.frame]])
    target = counted.target[detections.rows.frame]
    valid, high = frame_ap.is_detection(
        detections.rows.boxes, detections.rows.scores, protocol.score_floor
    )
    keep = (target >= 0) & valid & high
    rows = detections.rows[keep]
    rows = LabelledBoxes(target[keep], rows.boxes, rows.classes, rows.scores)
    return people, person_boxes.group_detections(rows, merge_iou, report)
