# SPDX-License-Identifier: Apache-2.0
"""AP on parts of the ground truth: by size of the person, by number of people (Figure 5 b, c).

A bin's AP is that of its ground truth alone. A detection that overlaps a ground-truth box of its
class enough belongs to that box's bin, right or not, so ground truth of other bins is neither
missed nor makes a detection wrong. Any other detection is wrong in one bin, that of its own box or
frame. Every detection and every ground-truth row is thus in exactly one bin, and one bin gives the
AP of the whole. A bin's mAP is the mean over the classes with ground truth in the bin.

Shape legend: N boxes, Q people, F frames, G ground-truth rows, D detections of a class.
"""

from dataclasses import dataclass

import numpy as np

from object_detection_ext.evaluation import frame_ap
from object_detection_ext.evaluation.matching import Matching, mean_of

DEFAULT_AREA_BINS = 5
# Frames with more people than this are one bin: there are few.
_MANY_PEOPLE = 6


@dataclass(frozen=True)
class Subset:
    """A bin.

    Attributes:
      label: for people.
      low, high: the bin has low <= value < high; high is None in the last bin.
      people: how many of the ground truth are in it.
      ground_truth: how many rows (a person's actions are one each).
      detections: how many that count in it.
      mean_average_precision: None if no class has ground truth in it.
      average_precision: by class id; None without ground truth in it.
    """

    label: str
    low: float
    high: float | None
    people: int
    ground_truth: int
    detections: int
    mean_average_precision: float | None
    average_precision: dict[int, float | None]

    @property
    def num_classes(self) -> int:
        """How many classes have ground truth in the bin."""
        return sum(value is not None for value in self.average_precision.values())


def areas(boxes: np.ndarray) -> np.ndarray:
    """Areas [N] of boxes [N, 4], [ymin, xmin, ymax, xmax]; normalized ones: shares of the frame."""
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def equal_size_edges(values: np.ndarray, num_bins: int) -> np.ndarray:
    """Inner edges that cut values [N] into bins of equal counts; equal values stay together.

    Returns:
      Ascending values of the input, at most num_bins - 1; a value is in bin
      `np.searchsorted(edges, value, side="right")`. Fewer where equal values leave no choice.
    """
    if not len(values):
        return np.zeros(0)
    ordered = np.sort(values)
    edges = np.unique(ordered[np.arange(1, num_bins) * len(ordered) // num_bins])
    return edges[edges > ordered[0]]


def by_area(matching: Matching, num_bins: int = DEFAULT_AREA_BINS) -> list[Subset]:
    """AP by the share of the frame that the person takes, in bins with equal numbers of people.

    Raises:
      ValueError: if num_bins is below 1.
    """
    if num_bins < 1:
        raise ValueError(f"The number of area bins is {num_bins}, but must be at least 1.")
    person_area = areas(matching.people.boxes)
    edges = equal_size_edges(person_area, num_bins)
    bounds = [0.0, *edges.tolist(), None]
    labels = [_area_label(low, high) for low, high in zip(bounds, bounds[1:], strict=False)]
    own_bins = [
        np.searchsorted(edges, areas(entry.matches.detections.boxes), side="right")
        for entry in matching.classes
    ]
    return _subsets(
        matching, labels, bounds, np.searchsorted(edges, person_area, side="right"), own_bins
    )


def _area_label(low: float, high: float | None) -> str:
    if high is None:
        return f"{100 * low:.3g} % or more" if low else "any size"
    return f"{100 * low:.3g} to {100 * high:.3g} %"


def by_number_of_people(matching: Matching) -> list[Subset]:
    """AP by how many people the ground truth has in the frame: 0, 1, 2, ..., 6 or more.

    Numbers that no frame has are left out.
    """
    size = np.bincount(matching.people.frame, minlength=len(matching.selection.frames))  # [F]
    size = np.minimum(size, _MANY_PEOPLE)
    numbers, bin_of_frame = np.unique(size[matching.counted], return_inverse=True)
    bins = np.zeros(len(size), np.int64)
    bins[matching.counted] = bin_of_frame
    bounds = [*(float(number) for number in numbers), None]
    labels = [f"{n} or more" if n == _MANY_PEOPLE else str(n) for n in numbers.tolist()]
    own_bins = [bins[entry.matches.detections.frame] for entry in matching.classes]
    return _subsets(matching, labels, bounds, bins[matching.people.frame], own_bins)


def _subsets(matching, labels, bounds, bin_of_person, own_bins) -> list[Subset]:
    """The bins' APs; `bin_of_person` is int [Q], `own_bins` has an int [D] for each class."""
    bin_of_row = bin_of_person[matching.people.of_row]
    precision: list[dict[int, float | None]] = [{} for _ in labels]
    detections = np.zeros(len(labels), int)
    for entry, own_bin in zip(matching.classes, own_bins, strict=True):
        bin_of_gt = bin_of_row[entry.gt_rows]
        bin_of_detection = np.array(own_bin)
        met = entry.matches.iou >= matching.iou_threshold
        bin_of_detection[met] = bin_of_gt[entry.matches.closest[met]]
        detections += np.bincount(bin_of_detection, minlength=len(labels))
        num_gt = np.bincount(bin_of_gt, minlength=len(labels))
        for index in range(len(labels)):
            right = entry.matches.right[bin_of_detection == index]
            precision[index][entry.id] = (
                frame_ap.average_precision(right, int(num_gt[index])) if num_gt[index] else None
            )
    people = np.bincount(bin_of_person, minlength=len(labels))
    rows = np.bincount(bin_of_row, minlength=len(labels))
    return [
        Subset(
            label,
            bounds[index],
            bounds[index + 1],
            int(people[index]),
            int(rows[index]),
            int(detections[index]),
            mean_of(precision[index].values()),
            precision[index],
        )
        for index, label in enumerate(labels)
    ]
