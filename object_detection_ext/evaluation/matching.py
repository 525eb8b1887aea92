# SPDX-License-Identifier: Apache-2.0
"""What every detection meets, matched once for all breakdowns.

Boxes are [ymin, xmin, ymax, xmax], as normalized as the files' are. A person is a distinct box of a
frame: in AVA's form every action of a person repeats the box.

Shape legend: G ground-truth rows, g rows of one class, D detections of one class, Q people, K
classes, F frames of the selection, V videos.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from object_detection_ext.ava.label_maps import Category
from object_detection_ext.ava.tables import LabelledBoxes, Report
from object_detection_ext.evaluation import ava_ap, frame_ap
from object_detection_ext.progress import Progress


@dataclass(frozen=True)
class People:
    """The Q people of the ground truth, ordered by frame.

    Attributes:
      frame: int64 [Q].
      boxes: float64 [Q, 4].
      of_row: int64 [G], the person of each ground-truth row.
      actions: bool [Q, K], by the place of the class in the order of ids.
    """

    frame: np.ndarray
    boxes: np.ndarray
    of_row: np.ndarray
    actions: np.ndarray

    @cached_property
    def rows(self) -> LabelledBoxes:
        """The people as rows of one class, for matching whatever the class."""
        count = len(self.frame)
        return LabelledBoxes(self.frame, self.boxes, np.zeros(count, int), np.ones(count))


@dataclass(frozen=True)
class ClassMatching:
    """One class: its ground truth, and what its detections meet, highest score first.

    Attributes:
      id, name: of the class; the name is never empty.
      gt_rows: int64 [g], its rows of the selection's ground truth.
      matches: against its own ground truth; `matches.closest` counts `gt_rows`.
      person: int64 [D], the person that each detection overlaps most, whatever the class; -1 where
        the frame has none.
      person_iou: float64 [D], with that person.
    """

    id: int
    name: str
    gt_rows: np.ndarray
    matches: ava_ap.ClassMatches
    person: np.ndarray
    person_iou: np.ndarray

    @property
    def average_precision(self) -> float | None:
        """As `ava_ap` has it; None without ground truth."""
        if not len(self.gt_rows):
            return None
        return ava_ap.average_precision(self.matches.right, len(self.gt_rows))

    @property
    def tie_span(self) -> ava_ap.TieSpan | None:
        """What the AP becomes with other orders of equal scores; None without ground truth."""
        if not len(self.gt_rows):
            return None
        found = self.matches
        return frame_ap.tie_span(found.detections.scores, found.right, len(self.gt_rows))

    @property
    def first(self) -> slice:
        """The highest-scored detections, as many as the class has ground-truth rows.

        Scores of different classes do not compare; this cut gives each class as many predictions
        as a system would make that knew how frequent the class is.
        """
        return slice(len(self.gt_rows))


@dataclass(frozen=True)
class Matching:
    """What the detections of all classes meet.

    Attributes:
      selection: the rows that count.
      iou_threshold: the least overlap of a right detection.
      people: of the selection's ground truth.
      classes: ordered by id.
      counted: bool [F], frames that count by the protocol.
    """

    selection: ava_ap.Selection
    iou_threshold: float
    people: People
    classes: tuple[ClassMatching, ...]
    counted: np.ndarray

    @property
    def mean_average_precision(self) -> float | None:
        """Over the classes with ground truth; None if there is none."""
        return mean_of(entry.average_precision for entry in self.classes)

    @cached_property
    def tie_span(self) -> ava_ap.TieSpan | None:
        """What the mAP becomes with other orders of equal scores; None without ground truth."""
        return frame_ap.mean_tie_span(self.classes)

    @cached_property
    def videos(self) -> list[str]:
        """Ids of the V videos with a frame that counts, in order of appearance."""
        frames = zip(self.selection.frames, self.counted, strict=True)
        return list(dict.fromkeys(video for (video, _), counted in frames if counted))

    @cached_property
    def video_of_frame(self) -> np.ndarray:
        """int64 [F], the place in `videos`; -1 where no frame of the video counts."""
        place = {video: index for index, video in enumerate(self.videos)}
        return np.array([place.get(video, -1) for video, _ in self.selection.frames], np.int64)


def mean_of(values) -> float | None:
    """The mean of the values that are not None; None if there is none."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def find_people(ground_truth: LabelledBoxes, class_ids: Sequence[int]) -> People:
    """The distinct boxes of each frame.

    Args:
      ground_truth: G rows of the classes only.
      class_ids: K ids in ascending order.
    """
    keys = np.column_stack([ground_truth.frame, ground_truth.boxes])
    _, first, of_row = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    of_row = of_row.reshape(-1)
    actions = np.zeros((len(first), len(class_ids)), bool)
    actions[of_row, np.searchsorted(class_ids, ground_truth.classes)] = True
    return People(ground_truth.frame[first], ground_truth.boxes[first], of_row, actions)


def match_all(
    selection: ava_ap.Selection,
    categories: Sequence[Category],
    iou_threshold: float = ava_ap.DEFAULT_IOU_THRESHOLD,
    report: Report | None = None,
) -> Matching:
    """Matches every class's detections with its own ground truth and with all people.

    Args:
      selection: from `ava_ap.select`.
      categories: {"id", "name"} each, those of the selection.
      iou_threshold: the least overlap of a right detection, in (0, 1].
      report: called with lines of progress when this takes long.
    """
    categories = sorted(categories, key=lambda item: item["id"])
    gt, found = selection.ground_truth, selection.detections
    people = find_people(gt, [category["id"] for category in categories])
    progress = Progress("matching", len(categories), "classes", report, report_end=False)
    classes = []
    for number, category in enumerate(categories):
        gt_rows = np.flatnonzero(gt.classes == category["id"])
        own = found[found.classes == category["id"]]
        matches = ava_ap.match_class(gt[gt_rows], own, iou_threshold)
        person, person_iou = ava_ap.closest_boxes(people.rows, matches.detections)
        name = category["name"] or f"class {category['id']}"
        classes.append(ClassMatching(category["id"], name, gt_rows, matches, person, person_iou))
        progress.update(number + 1)
    # Frames beyond the ground truth's are there only where they count.
    counted = np.ones(len(selection.frames), bool)
    counted[: len(selection.counted.keeps)] = selection.counted.keeps
    return Matching(selection, iou_threshold, people, tuple(classes), counted)
