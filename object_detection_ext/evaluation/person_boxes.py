# SPDX-License-Identifier: Apache-2.0
"""From rows of a person and an action to people, for localization without actions (Table 2).

A person who does several things has a row for each, in the ground truth and in detections. Here
all actions are one class, "person", and a person is one box.

Shape legend: N rows, G distinct people.
"""

from collections.abc import Sequence

import numpy as np

from object_detection_ext.ava.label_maps import Category
from object_detection_ext.ava.tables import LabelledBoxes, Report
from object_detection_ext.evaluation.frame_ap import paired_iou
from object_detection_ext.progress import Progress

PERSON: Category = {"id": 1, "name": "person"}
# The two of Table 2.
IOU_THRESHOLDS: Sequence[float] = (0.5, 0.75)
# Rows of one person under several actions have the same box, but for the rounding of a text file.
# Two people whose detections overlap so much would not have passed non-maximum suppression.
MERGE_IOU = 0.9
_CHUNK_ROWS = 20_000


def distinct_people(rows: LabelledBoxes) -> LabelledBoxes:
    """Ground truth with one row for each person: of rows of one frame with equal boxes, the first.

    Args:
      rows: N rows, of whatever classes.

    Returns:
      G rows of class `PERSON`, in the order of their first rows.
    """
    columns = (*rows.boxes.T, rows.frame)
    order = np.lexsort(columns)  # keeps the order of equals
    is_first = np.ones(len(order), bool)
    is_first[1:] = np.any([column[order][1:] != column[order][:-1] for column in columns], axis=0)
    kept = rows[np.sort(order[is_first])]
    return LabelledBoxes(kept.frame, kept.boxes, _person_ids(len(kept)), kept.scores)


def group_detections(
    rows: LabelledBoxes, merge_iou: float = MERGE_IOU, report: Report | None = None
) -> LabelledBoxes:
    """Detections with one row for each person.

    Per frame, the row with the highest score, the first of equals, becomes a person with its box
    and its score; all rows that overlap it at `merge_iou` or more are taken for other actions of
    the same person and are gone. The same then happens to what is left. So a person's score is
    that of the action that the detector is surest of.

    Args:
      rows: N rows with boxes that have an area, of whatever classes.
      merge_iou: in (0, 1].
      report: called with lines of progress when grouping takes long.

    Returns:
      G rows of class `PERSON`, frame by frame, highest score first, equals in the order given.
    """
    order = np.lexsort((-rows.scores, rows.frame))
    frame = rows.frame[order]
    # Whole frames, about as many rows as stay in the processor's cache.
    cuts = np.searchsorted(frame, frame[_CHUNK_ROWS::_CHUNK_ROWS], side="left")
    chunks = np.split(order, np.unique(cuts))
    progress = Progress("grouping people", len(order), "rows", report, report_end=False)
    people, done = [], 0
    for chunk in chunks:
        people.append(chunk[leaders(rows.frame[chunk], rows.boxes[chunk], merge_iou)])
        done += len(chunk)
        progress.update(done)
    kept = rows[np.concatenate(people)]
    return LabelledBoxes(kept.frame, kept.boxes, _person_ids(len(kept)), kept.scores)


def leaders(frame: np.ndarray, boxes: np.ndarray, merge_iou: float) -> np.ndarray:
    """Which rows become people, int [G], in order.

    Args:
      frame: [N], ascending.
      boxes: [N, 4]; each frame's with the highest score first.
      merge_iou: the overlap at which rows are one person.
    """
    boxes = boxes.astype(np.float64, copy=False)
    left, people = np.arange(len(frame)), []
    while len(left):  # one round takes one person of every frame
        starts = np.ones(len(left), bool)
        starts[1:] = frame[left][1:] != frame[left][:-1]
        leaders = left[starts]
        people.append(leaders)
        leader = leaders[np.cumsum(starts) - 1]
        # A box that is no number overlaps nothing, not even itself: the leader goes in any case.
        joins = starts | (paired_iou(boxes[left], boxes[leader]) >= merge_iou)
        left = left[~joins]
    return np.sort(np.concatenate(people)) if people else left


def _person_ids(count: int) -> np.ndarray:
    return np.full(count, PERSON["id"], np.int64)
