# SPDX-License-Identifier: Apache-2.0
"""The result of an evaluation of frames: mAP, classes, groups, localization, counts."""

from dataclasses import asdict, dataclass

from object_detection_ext.evaluation.frame_ap import ClassResult, TieSpan, mean_tie_span
from object_detection_ext.evaluation.protocols import Protocol
from object_detection_ext.evaluation.selection import AvaCounts

BOXES_GIVEN = (
    "every detection has the box of a ground-truth person: the boxes were given, and the figures "
    "are of classification alone (section 4.2)"
)


@dataclass(frozen=True)
class GroupResult:
    """The classes of one `label_type`.

    Attributes:
      name: the `label_type`.
      average_precision: mean over its classes with ground truth; None if there is none.
      classes: how many classes it has.
      classes_with_ground_truth: how many the mean is over.
      tie_span: what the mean becomes with other orders of equal scores.
    """

    name: str
    average_precision: float | None
    classes: int
    classes_with_ground_truth: int
    tie_span: TieSpan | None = None


@dataclass(frozen=True)
class PersonResult:
    """Localization, whatever the actions (Table 2): each person is one box.

    Attributes:
      iou_threshold: the least overlap of a right detection.
      average_precision: of people; None if the ground truth has none.
      ground_truth: distinct people in the ground truth.
      detections: detected people.
      true_positives: how many of these are right.
      tie_span: what the AP becomes with other orders of people with equal scores; which rows are
        one person is not part of it.
    """

    iou_threshold: float
    average_precision: float | None
    ground_truth: int
    detections: int
    true_positives: int
    tie_span: TieSpan | None = None


@dataclass(frozen=True)
class AvaResult:
    """The result of an evaluation at one IoU threshold.

    Attributes:
      mean_average_precision: over the classes with ground truth; None if there is none.
      classes: one per category, ordered by id.
      counts: what became of frames and rows.
      iou_threshold: the least overlap of a right detection.
      protocol: the rules.
      warnings: for people, what looks wrong with the input although it was accepted.
      groups: one per `label_type`, in the order of the class ids; none without label types.
      localization: one per threshold of `person_boxes`; none if it was not asked for.
      boxes_given: whether every detection has the box of a ground-truth person.
    """

    mean_average_precision: float | None
    classes: tuple[ClassResult, ...]
    counts: AvaCounts
    iou_threshold: float
    protocol: Protocol
    warnings: tuple[str, ...] = ()
    groups: tuple[GroupResult, ...] = ()
    localization: tuple[PersonResult, ...] = ()
    boxes_given: bool = False

    @property
    def average_precision(self) -> dict[int, float | None]:
        """AP by class id; None for a class without ground truth."""
        return {entry.id: entry.average_precision for entry in self.classes}

    @property
    def tie_span(self) -> TieSpan | None:
        """What the mAP becomes with the worst and the best order of equal scores; None without."""
        return mean_tie_span(self.classes)

    @property
    def classes_without_ground_truth(self) -> tuple[int, ...]:
        """Ids of the classes that the mean leaves out."""
        return tuple(entry.id for entry in self.classes if entry.average_precision is None)

    @property
    def rules(self) -> tuple[str, ...]:
        """The rules, one per line, and whether boxes were given."""
        given = (BOXES_GIVEN,) if self.boxes_given else ()
        return self.protocol.rules(self.iou_threshold) + given

    def to_dict(self) -> dict:
        """The result in types that JSON has; an AP that does not exist is None."""
        return {
            "mAP": self.mean_average_precision,
            "mAP_of_equals": None if self.tie_span is None else asdict(self.tie_span),
            "per_class": {
                entry.name or str(entry.id): entry.average_precision for entry in self.classes
            },
            "per_group": {group.name: group.average_precision for group in self.groups},
            "classes": [asdict(entry) for entry in self.classes],
            "classes_without_ground_truth": list(self.classes_without_ground_truth),
            "groups": [asdict(entry) for entry in self.groups],
            "localization": [asdict(entry) for entry in self.localization],
            "counts": asdict(self.counts),
            "iou_threshold": self.iou_threshold,
            "max_rows_per_frame": self.protocol.max_rows_per_frame,
            "protocol_name": self.protocol.name,
            "protocol": list(self.rules),
            "boxes_given": self.boxes_given,
            "warnings": list(self.warnings),
        }
