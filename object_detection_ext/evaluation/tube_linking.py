# SPDX-License-Identifier: Apache-2.0
"""Links detections of single keyframes to tubes.

The greedy linking of Singh et al. (ICCV 2017) and Kalogeiton et al. (ICCV 2017): keyframe by
keyframe, the tubes of a class take turns by mean score, and each takes the highest-scored box that
overlaps its last one enough. All videos and classes advance together, so that the loop is as long
as the longest video.

Shapes: N rows, A tubes that may continue.
"""

from dataclasses import dataclass

import numpy as np

from object_detection_ext.ava.tables import LabelledBoxes, Report
from object_detection_ext.evaluation import person_boxes, tube_overlap, tube_trimming, tubes
from object_detection_ext.evaluation.frame_ap import paired_iou
from object_detection_ext.evaluation.serial_choice import choose_in_turn
from object_detection_ext.evaluation.tube_protocols import Linking, TimeOverlap
from object_detection_ext.evaluation.tubes import Tubes
from object_detection_ext.progress import Progress


@dataclass
class LinkCounts:
    """What became of the detections on their way to tubes."""

    detection_rows_suppressed: int = 0
    detection_rows_over_cap: int = 0
    detected_boxes_linked: int = 0
    detected_boxes_interpolated: int = 0
    detected_boxes_trimmed: int = 0
    detected_tubes_linked: int = 0
    detected_tubes_too_short: int = 0
    detected_tubes_with_low_score: int = 0
    detected_tubes_suppressed: int = 0
    detected_tubes: int = 0


def link(
    rows: LabelledBoxes,
    video: np.ndarray,
    moment: np.ndarray,
    linking: Linking,
    time_overlap: TimeOverlap,
    report: Report | None = None,
) -> tuple[Tubes, LinkCounts]:
    """Makes tubes of detections.

    Args:
        rows: N detections of any videos, whose boxes have an area; `rows.frame` differs where video
            or keyframe does. Of equal scores the first row comes first.
        video: int64 [N], numbers of their videos.
        moment: int64 [N], numbers of their keyframes.
        linking: how; checked.
        time_overlap: how long tubes overlap in time, for `tube_nms_iou`.
        report: called with lines of progress when linking takes long.

    Returns:
        (the tubes, counts).
    """
    counts = LinkCounts()
    kept = _thinned(rows, linking, counts)
    rows, video, moment = rows[kept], video[kept], moment[kept]
    counts.detected_boxes_linked = len(rows)
    tube = link_boxes(rows, video, moment, linking.min_iou, linking.max_gap, report)
    made = tubes.make_tubes(tube, video, rows.classes, moment, rows.boxes, rows.scores)
    counts.detected_tubes_linked = len(made)
    counts.detected_boxes_interpolated = int((~made.is_found).sum())
    if linking.trim_penalty is not None:
        before = len(made.moment)
        made = tube_trimming.trim(made, linking.trim_penalty)
        counts.detected_boxes_trimmed = before - len(made.moment)
    is_long = made.lengths >= linking.min_keyframes
    is_high = made.scores >= linking.min_score
    counts.detected_tubes_too_short = int((~is_long).sum())
    counts.detected_tubes_with_low_score = int((is_long & ~is_high).sum())
    made = made.only(is_long & is_high)
    if linking.tube_nms_iou:
        stays = tube_overlap.suppress(made, linking.tube_nms_iou, time_overlap)
        counts.detected_tubes_suppressed = int((~stays).sum())
        made = made.only(stays)
    counts.detected_tubes = len(made)
    return made, counts


def _thinned(rows: LabelledBoxes, linking: Linking, counts: LinkCounts) -> np.ndarray:
    """The rows that are linked, int64, ascending."""
    # Frames and classes as one number: those of a class suppress each other only.
    _, number = np.unique(rows.classes, return_inverse=True)
    group = rows.frame * (number.max(initial=0) + 1) + number
    order = np.lexsort((-rows.scores, group))
    if linking.box_nms_iou:
        leaders = person_boxes.leaders(group[order], rows.boxes[order], linking.box_nms_iou)
        counts.detection_rows_suppressed = len(order) - len(leaders)
        order = order[leaders]
    if linking.max_boxes:
        ordered = group[order]
        place = np.arange(len(order)) - np.searchsorted(ordered, ordered, side="left")
        counts.detection_rows_over_cap = int((place >= linking.max_boxes).sum())
        order = order[place < linking.max_boxes]
    return np.sort(order)


class _OpenTubes:
    """The A tubes that may continue, as arrays of one length."""

    def __init__(self):
        none = np.zeros(0, np.int64)
        self.number = self.group = self.video = self.moment = self.count = none
        self.total, self.boxes = np.zeros(0), np.zeros((0, 4))

    def keep(self, chosen: np.ndarray) -> None:
        """Drops the others; `chosen` may be a mask or an order."""
        for name, values in vars(self).items():
            setattr(self, name, values[chosen])

    def open(self, **columns: np.ndarray) -> None:
        """Adds tubes."""
        for name, values in columns.items():
            setattr(self, name, np.concatenate([getattr(self, name), values]))

    def order(self) -> None:
        """By group and, within it, by mean score; the older of equals first."""
        self.keep(np.lexsort((self.number, -self.total / self.count, self.group)))


def link_boxes(
    rows: LabelledBoxes,
    video: np.ndarray,
    moment: np.ndarray,
    min_iou: float,
    max_gap: int,
    report: Report | None = None,
) -> np.ndarray:
    """Numbers of the tubes that the rows belong to, int64 [N].

    Args:
        rows: N detections, as for `link`.
        video: int64 [N].
        moment: int64 [N].
        min_iou: least IoU of a box with the last one of the tube.
        max_gap: for how many keyframes a tube may have no box and still continue.
        report: called with lines of progress when linking takes long.
    """
    tube = np.full(len(rows), -1)
    _, number = np.unique(rows.classes, return_inverse=True)
    group = video * (number.max(initial=0) + 1) + number
    step = _steps(video, moment)
    order = np.lexsort((-rows.scores, group, step))
    stops = np.cumsum(np.bincount(step)) if len(step) else []
    progress = Progress("linking", len(stops), "keyframes", report, report_end=False)
    open_tubes, num_tubes, start = _OpenTubes(), 0, 0
    now = np.full(int(video.max(initial=0)) + 1, np.iinfo(np.int64).max // 2)
    for done, stop in enumerate(stops, 1):
        own = order[start:stop]
        start = stop
        # A video without a row in this step has none in later ones.
        now[:] = np.iinfo(np.int64).max // 2
        now[video[own]] = moment[own]
        open_tubes.keep(now[open_tubes.video] - open_tubes.moment <= max_gap + 1)
        open_tubes.order()
        tubes_on, rows_on = _continued(open_tubes, group[own], rows.boxes[own], min_iou)
        rows_on = own[rows_on]
        tube[rows_on] = open_tubes.number[tubes_on]
        open_tubes.moment[tubes_on] = moment[rows_on]
        open_tubes.boxes[tubes_on] = rows.boxes[rows_on]
        open_tubes.total[tubes_on] += rows.scores[rows_on]
        open_tubes.count[tubes_on] += 1
        fresh = own[tube[own] < 0]
        tube[fresh] = num_tubes + np.arange(len(fresh))
        num_tubes += len(fresh)
        open_tubes.open(
            number=tube[fresh],
            group=group[fresh],
            video=video[fresh],
            moment=moment[fresh],
            count=np.ones(len(fresh), np.int64),
            total=rows.scores[fresh].astype(np.float64),
            boxes=rows.boxes[fresh],
        )
        progress.update(done)
    return tube


def _steps(video: np.ndarray, moment: np.ndarray) -> np.ndarray:
    """For each row, how many earlier keyframes its video has rows at, int64 [N]."""
    if not len(video):
        return np.zeros(0, np.int64)
    low, span = moment.min(), moment.max() - moment.min() + 1
    keyframes, index = np.unique(video * span + moment - low, return_inverse=True)
    of_video = keyframes // span
    return (np.arange(len(keyframes)) - np.searchsorted(of_video, of_video))[index]


def _continued(
    open_tubes: _OpenTubes, group: np.ndarray, boxes: np.ndarray, min_iou: float
) -> tuple[np.ndarray, np.ndarray]:
    """Which tubes continue, and with which rows.

    Args:
        open_tubes: in the order in which they take turns.
        group: of the rows of this keyframe, ascending; within a group the highest score first.
        boxes: of these rows.
        min_iou: least IoU.
    """
    low = np.searchsorted(group, open_tubes.group, side="left")
    count = np.searchsorted(group, open_tubes.group, side="right") - low
    tube = np.repeat(np.arange(len(count)), count)
    row = np.arange(len(tube)) + np.repeat(low - (np.cumsum(count) - count), count)
    near = paired_iou(open_tubes.boxes[tube], boxes[row]) >= min_iou
    return choose_in_turn(tube[near], row[near])
