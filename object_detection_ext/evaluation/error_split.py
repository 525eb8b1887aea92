# SPDX-License-Identifier: Apache-2.0
"""What is wrong with each class's detections, and which actions are taken for which.

Every detection is of exactly one kind, the first that fits:
  right              what AP counts: the first to overlap a ground-truth box of its class enough
  duplicate          overlaps one enough, but a higher-scored detection has it
  misclassified      overlaps a person enough, who does not do this
  badly localized    overlaps somebody who does this by an IoU from 0.1 to below the threshold
  background         anything else

Shape legend: D detections of a class, Q people, K classes.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass

import numpy as np

from object_detection_ext.evaluation.matching import ClassMatching, Matching

RIGHT, DUPLICATE, MISCLASSIFIED, BADLY_LOCALIZED, BACKGROUND = KINDS = (
    "right", "duplicate", "misclassified", "badly localized", "background",
)  # fmt: skip
LEAST_IOU = 0.1


@dataclass(frozen=True)
class KindCounts:
    """How many detections of each kind there are, and how much ground truth none of them found."""

    right: int
    duplicate: int
    misclassified: int
    badly_localized: int
    background: int
    missed: int

    @property
    def detections(self) -> int:
        """All of them, of every kind."""
        return sum(self.of_kinds().values())

    def of_kinds(self) -> dict[str, int]:
        """The count of each of KINDS."""
        values = asdict(self)
        return {kind: values[kind.replace(" ", "_")] for kind in KINDS}


@dataclass(frozen=True)
class ClassErrors:
    """The split of one class's detections.

    Attributes:
      id, name: of the class.
      ground_truth: its rows.
      all: of all detections.
      first: of the highest-scored ones, as many as the class has ground-truth rows.
    """

    id: int
    name: str
    ground_truth: int
    all: KindCounts
    first: KindCounts


def kinds_of(entry: ClassMatching, iou_threshold: float) -> np.ndarray:
    """The kind of each detection of a class: int [D], places in KINDS."""
    matches = entry.matches
    fits = [
        matches.right,
        matches.iou >= iou_threshold,
        entry.person_iou >= iou_threshold,
        matches.iou >= LEAST_IOU,
    ]
    return np.select(fits, range(len(fits)), default=KINDS.index(BACKGROUND))


def _count(kinds: np.ndarray, num_ground_truth: int) -> KindCounts:
    counts = np.bincount(kinds, minlength=len(KINDS)).tolist()
    return KindCounts(*counts, missed=num_ground_truth - counts[0])


def split_errors(matching: Matching) -> list[ClassErrors]:
    """The split for every class, ordered by id."""
    split = []
    for entry in matching.classes:
        kinds, num_gt = kinds_of(entry, matching.iou_threshold), len(entry.gt_rows)
        split.append(
            ClassErrors(
                entry.id,
                entry.name,
                num_gt,
                _count(kinds, num_gt),
                _count(kinds[entry.first], num_gt),
            )
        )
    return split


def total(counts: Iterable[KindCounts]) -> KindCounts:
    """The sum of several counts."""
    sums = np.array([list(asdict(entry).values()) for entry in counts], np.int64).reshape(-1, 6)
    return KindCounts(*sums.sum(axis=0).tolist())


@dataclass(frozen=True)
class Confusion:
    """Which actions are predicted on people who do others.

    A prediction is one of the highest-scored detections of its class, as many as the class has
    ground-truth rows. It is on the person whom it overlaps most, if that is enough.

    Attributes:
      ids, names: of the K classes, ordered by id.
      people: int64 [K, K]; [a, p] is the number of people who do a and not p, on whom p is
        predicted; [a, a] of those who do a and on whom a is predicted. A person who does several
        actions is in several rows.
      doing: int64 [K], people who do each class.
    """

    ids: tuple[int, ...]
    names: tuple[str, ...]
    people: np.ndarray
    doing: np.ndarray

    @property
    def shares(self) -> np.ndarray:
        """float64 [K, K], `people` over `doing`; NaN in rows of classes that nobody does."""
        with np.errstate(invalid="ignore"):
            return self.people / np.where(self.doing, self.doing, np.nan)[:, None]

    def most_frequent(self, limit: int) -> list[tuple[int, int, int, float]]:
        """Up to `limit` pairs (place of a, place of p, people, share), most people first."""
        off_diagonal = self.people * ~np.eye(len(self.ids), dtype=bool)
        order = np.argsort(-off_diagonal, axis=None, kind="stable")[:limit]
        pairs = [divmod(int(index), len(self.ids)) for index in order]
        shares = self.shares
        return [
            (a, p, int(self.people[a, p]), float(shares[a, p]))
            for a, p in pairs
            if off_diagonal[a, p]
        ]


def confuse(matching: Matching) -> Confusion:
    """Counts who is taken to do what."""
    actions = matching.people.actions  # [Q, K]
    num_classes = len(matching.classes)
    people = np.zeros((num_classes, num_classes), np.int64)
    for place, entry in enumerate(matching.classes):
        meets = entry.person_iou[entry.first] >= matching.iou_threshold
        predicted_on = np.unique(entry.person[entry.first][meets])
        does_it = actions[predicted_on, place]
        people[:, place] = actions[predicted_on[~does_it]].sum(axis=0)
        people[place, place] = does_it.sum()
    return Confusion(
        tuple(entry.id for entry in matching.classes),
        tuple(entry.name for entry in matching.classes),
        people,
        actions.sum(axis=0),
    )
