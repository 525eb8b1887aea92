# SPDX-License-Identifier: Apache-2.0
"""The result of an evaluation of tubes: frame-AP, video-AP, counts."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass

from object_detection_ext.evaluation import frame_ap
from object_detection_ext.evaluation.frame_ap import ClassResult, TieSpan
from object_detection_ext.evaluation.matching import mean_of
from object_detection_ext.evaluation.selection import AvaCounts
from object_detection_ext.evaluation.tube_detections import PlaceCounts
from object_detection_ext.evaluation.tube_linking import LinkCounts
from object_detection_ext.evaluation.tube_protocols import Thresholds, TubeProtocol


@dataclass(frozen=True)
class VideoResult:
    """Video-AP at one IoU threshold.

    Attributes:
        iou_threshold: least IoU of a true positive.
        classes: one per category, ordered by id; their counts are of tubes.
    """

    iou_threshold: float
    classes: tuple[ClassResult, ...]

    @property
    def mean_average_precision(self) -> float | None:
        """Over the classes with ground truth; None if there is none."""
        return frame_ap.mean_average_precision(self.classes)

    @property
    def tie_span(self) -> TieSpan | None:
        """What the mAP becomes with other orders of equal scores; None where it is not known."""
        return frame_ap.mean_tie_span(self.classes)


@dataclass(frozen=True)
class TubeResult:
    """The result of an evaluation of tubes.

    Attributes:
        protocol: the rules, with the linking and the thresholds that were used.
        frame_classes: frame-AP at `protocol.frame_iou`, one per category, ordered by id; their
            counts are of boxes.
        video: by IoU threshold, ascending.
        counts: what became of frames and rows.
        place_counts: what became of keyframes and of rows that are at none.
        link_counts: what became of detections on their way to tubes.
        ground_truth_tubes: number of tubes of the ground truth.
        ground_truth_boxes_interpolated: number of their boxes that the file does not have.
        warnings: for people, what looks wrong with the input although it was accepted.
    """

    protocol: TubeProtocol
    frame_classes: tuple[ClassResult, ...]
    video: Mapping[float, VideoResult]
    counts: AvaCounts
    place_counts: PlaceCounts
    link_counts: LinkCounts
    ground_truth_tubes: int
    ground_truth_boxes_interpolated: int
    warnings: tuple[str, ...]

    @property
    def frame_mean_average_precision(self) -> float | None:
        """Over the classes with ground truth; None if there is none."""
        return frame_ap.mean_average_precision(self.frame_classes)

    def video_mean_average_precision(self, thresholds: Thresholds) -> float | None:
        """The mean of the mAPs at these thresholds; None if no class has ground truth."""
        return mean_of(self.video[value].mean_average_precision for value in thresholds.values)

    def class_average_precision(self, place: int, thresholds: Thresholds) -> float | None:
        """The mean of a class's video-APs at these thresholds; None without ground truth.

        Args:
            place: of the class in `frame_classes`.
            thresholds: of `protocol.video_ious`.
        """
        return mean_of(
            self.video[value].classes[place].average_precision for value in thresholds.values
        )

    def to_dict(self) -> dict:
        """The result in types that JSON has; an AP that does not exist is None."""
        named = self.protocol.video_ious
        return {
            "frame_mAP": self.frame_mean_average_precision,
            "video_mAP": {t.name: self.video_mean_average_precision(t) for t in named},
            "classes": [
                {
                    "id": entry.id,
                    "name": entry.name,
                    "frame_AP": entry.average_precision,
                    "video_AP": {t.name: self.class_average_precision(place, t) for t in named},
                    "ground_truth_boxes": entry.ground_truth,
                    "ground_truth_tubes": self.tubes_of_class(place).ground_truth,
                    "detected_tubes": self.tubes_of_class(place).detections,
                }
                for place, entry in enumerate(self.frame_classes)
            ],
            "thresholds": [
                {
                    "iou_threshold": value,
                    "mAP": result.mean_average_precision,
                    "mAP_of_equals": None if result.tie_span is None else asdict(result.tie_span),
                    "classes": [asdict(entry) for entry in result.classes],
                }
                for value, result in self.video.items()
            ],
            "frame_iou_threshold": self.protocol.frame_iou,
            "frame_classes": [asdict(entry) for entry in self.frame_classes],
            "protocol_name": self.protocol.name,
            "protocol": list(self.protocol.rules()),
            "linking": asdict(self.protocol.linking),
            "counts": self.all_counts,
            "warnings": list(self.warnings),
        }

    def tubes_of_class(self, place: int) -> ClassResult:
        """Counts of tubes of a class, which are the same at all thresholds."""
        return next(iter(self.video.values())).classes[place]

    @property
    def all_counts(self) -> dict[str, int]:
        """Everything that was counted, by name."""
        return {
            **asdict(self.counts),
            **asdict(self.place_counts),
            "ground_truth_tubes": self.ground_truth_tubes,
            "ground_truth_boxes_interpolated": self.ground_truth_boxes_interpolated,
            **asdict(self.link_counts),
        }
