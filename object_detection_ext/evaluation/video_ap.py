# SPDX-License-Identifier: Apache-2.0
"""Video-AP and frame-AP of action tubes, as J-HMDB, UCF101-24 and MultiSports evaluate them.

    python -m object_detection_ext.evaluation.video_ap --labelmap L.pbtxt --groundtruth G.csv \
        --detections D.csv [--protocol general|jhmdb|ucf101_24|multisports] \
        [--video_iou 0.2,0.5,0.5:0.95] [--link_iou 0.5] [--max_gap 2] [--trim 3] [--json]

The ground truth needs person ids, its 8th column; detections are those of single keyframes, and are
linked to tubes here. The rules, and how boxes are linked, are in `tube_protocols`; see
docs/evaluation.md.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np

from object_detection_ext import command_line
from object_detection_ext.ava import label_maps, tables, time_offsets
from object_detection_ext.ava.label_maps import Category
from object_detection_ext.ava.row_reader import BOX_TOLERANCE
from object_detection_ext.ava.tables import AvaRows, Report
from object_detection_ext.ava.timestamps import Frame
from object_detection_ext.evaluation import (
    ava_ap,
    frame_ap,
    moments,
    protocols,
    selection,
    tube_detections,
    tube_ground_truth,
    tube_linking,
    tube_overlap,
    tube_protocols,
    tube_scoring,
    video_ap_text,
)
from object_detection_ext.evaluation.frame_ap import ClassResult, TieSpan
from object_detection_ext.evaluation.selection import NO_GROUND_TRUTH, AvaCounts
from object_detection_ext.evaluation.tube_detections import PlaceCounts
from object_detection_ext.evaluation.tube_linking import LinkCounts
from object_detection_ext.evaluation.tube_protocols import Thresholds, TubeProtocol
from object_detection_ext.evaluation.tubes import Tubes


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
        return _mean(self.video[value].mean_average_precision for value in thresholds.values)

    def class_average_precision(self, place: int, thresholds: Thresholds) -> float | None:
        """The mean of a class's video-APs at these thresholds; None without ground truth.

        Args:
            place: of the class in `frame_classes`.
            thresholds: of `protocol.video_ious`.
        """
        return _mean(
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


def _mean(values) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def evaluate(
    ground_truth: AvaRows,
    detections: AvaRows,
    categories: Sequence[Category],
    *,
    protocol: TubeProtocol = tube_protocols.GENERAL,
    excluded: frozenset[Frame] = frozenset(),
    spacing: float | None = None,
    report: Report | None = None,
) -> TubeResult:
    """Links detections to tubes and evaluates both by the rules of a data set.

    Args:
        ground_truth: from `tables.read_ground_truth`, with person ids; boxes in the unit of the
            detections.
        detections: from `tables.read_csv`, of single keyframes.
        categories: {"id", "name"} each, as `label_maps.read_categories` gives them.
        protocol: the rules, thresholds and linking; `dataclasses.replace` changes what is not as
            wanted.
        excluded: frames to leave out, as `tables.read_excluded_timestamps` gives them.
        spacing: seconds from one keyframe to the next; None: each video's own.
        report: called with lines of progress when this takes long.

    Raises:
        InputError: for a number out of range, an unusable label map, ground truth without a row, or
            tubes that its rows do not define: no person ids, two boxes of one person at one time,
            uneven keyframes. Names file and line where there is one.
    """
    protocol.linking.check()
    protocols.check_iou_threshold(protocol.frame_iou)
    selection.check_categories(categories)
    known = moments.number_moments(ground_truth.frames, excluded, ground_truth.name, spacing)
    placed = tube_detections.place(ground_truth, detections, known, protocol.frames)
    rows = selection.select(
        ground_truth, placed.rows, categories, None, excluded, protocol.frame_protocol
    )
    counted = rows.counted.keeps[ground_truth.rows.frame] & np.isin(
        ground_truth.rows.classes, [category["id"] for category in categories]
    )
    truth, warnings = tube_ground_truth.ground_truth_tubes(
        ground_truth, counted, known, protocol.linking.max_gap, check_spacing=spacing is None
    )
    found, link_counts = _link(rows, known, protocol, report)
    warnings += _tube_warnings(ground_truth.name, truth, link_counts, protocol)
    return TubeResult(
        protocol,
        _score_frames(rows, categories, protocol),
        _score_tubes(truth, found, categories, protocol),
        rows.counts,
        placed.counts,
        link_counts,
        len(truth),
        int((~truth.is_found).sum()),
        (*rows.warnings, *placed.warnings, *warnings),
    )


def _link(
    rows: selection.Selection,
    known: Mapping[str, moments.VideoMoments],
    protocol: TubeProtocol,
    report: Report | None,
) -> tuple[Tubes, LinkCounts]:
    video, moment = tube_detections.numbers(rows, known)
    frame = rows.detections.frame
    return tube_linking.link(
        rows.detections,
        video[frame],
        moment[frame],
        protocol.linking,
        protocol.time_overlap,
        report,
    )


def _score_frames(
    rows: selection.Selection, categories: Sequence[Category], protocol: TubeProtocol
) -> tuple[ClassResult, ...]:
    truth = tube_scoring.boxes_as_tubes(rows.ground_truth)
    found = tube_scoring.boxes_as_tubes(rows.detections)
    return tube_scoring.score_classes(
        truth,
        found,
        tube_overlap.overlaps(found, truth, "moments"),
        categories,
        protocol.frame_iou,
        protocol.matching,
        protocol.curve,
    )


def _score_tubes(
    truth: Tubes, found: Tubes, categories: Sequence[Category], protocol: TubeProtocol
) -> dict[float, VideoResult]:
    met = tube_overlap.overlaps(found, truth, protocol.time_overlap)
    values = sorted({value for named in protocol.video_ious for value in named.values})
    return {
        value: VideoResult(
            value,
            tube_scoring.score_classes(
                truth, found, met, categories, value, protocol.matching, protocol.curve
            ),
        )
        for value in values
    }


def _tube_warnings(
    name: str, truth: Tubes, counts: LinkCounts, protocol: TubeProtocol
) -> list[str]:
    warnings, linking = [], protocol.linking
    single = int((truth.lengths == 1).sum())
    if single and protocol.time_overlap == "duration":
        warnings.append(
            f"{name}: {single} of {len(truth)} tubes have one keyframe; by these rules they have "
            "no duration and cannot be found"
        )
    short = int((truth.lengths < linking.min_keyframes).sum())
    if short:
        warnings.append(
            f"{name}: {short} of {len(truth)} tubes are shorter than the {linking.min_keyframes} "
            "keyframes that a detected tube must have (--min_keyframes)"
        )
    linked, short = counts.detected_tubes_linked, counts.detected_tubes_too_short
    if linked and not counts.detected_tubes:
        warnings.append(
            f"none of the {linked} linked tubes is left: {short} are shorter than "
            f"{linking.min_keyframes} keyframes (--min_keyframes), "
            f"{counts.detected_tubes_with_low_score} have a score below {linking.min_score:g} "
            "(--min_tube_score); every video-AP is 0"
        )
    return warnings


def evaluate_files(
    labelmap: str,
    groundtruth: str,
    detections: str,
    excluded_timestamps: str | None = None,
    report: Report | None = None,
    *,
    box_tolerance: float | None = BOX_TOLERANCE,
    time_offset_seconds: str | None = None,
    **options,
) -> TubeResult:
    """`evaluate` on files, with its other options. Raises what the readers and it raise."""
    offsets = time_offsets.read(time_offset_seconds)
    categories = label_maps.read_categories(labelmap)
    excluded = frozenset()
    if excluded_timestamps:
        excluded = tables.read_excluded_timestamps(excluded_timestamps)
    found = tables.read_csv(detections, report, box_tolerance=box_tolerance)
    return evaluate(
        tables.read_ground_truth(groundtruth, report, box_tolerance),
        replace(found, frames=offsets.moved(found.frames)) if offsets else found,
        categories,
        excluded=excluded,
        report=report,
        **options,
    )


# Flags of the command line by the field of `Linking` that they set.
_LINKING_FLAGS: dict[str, tuple[str, type, str]] = {
    "min_iou": ("link_iou", float, "least IoU of a box with the last one of the tube"),
    "max_gap": ("max_gap", int, "keyframes for which a tube may have no box and still continue"),
    "box_nms_iou": ("box_nms_iou", float, "boxes that overlap a higher-scored one of their class "
                    "by this or more are left out before; 0: none"),
    "max_boxes": ("max_boxes", int, "boxes of a class and keyframe that are linked; 0: all"),
    "min_keyframes": ("min_keyframes", int, "shorter tubes are left out"),
    "min_score": ("min_tube_score", float, "tubes with a lower mean score are left out"),
    "tube_nms_iou": ("tube_nms_iou", float, "tubes that overlap a higher-scored one of their class "
                     "by more than this are left out; 0: none"),
    "trim_penalty": ("trim", float, "cut tubes where background is likelier than the action; the "
                     "cost of a change between the two, such as 3"),
}  # fmt: skip


def _parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m object_detection_ext.evaluation.video_ap",
        description="Video-AP and frame-AP of action tubes, by the rules of a data set.",
    )
    add = parser.add_argument
    add("--labelmap", "-l", required=True, help="label map (.pbtxt)")
    add("--groundtruth", "-g", required=True, help="ground truth with person ids (.csv)")
    add("--detections", "-d", required=True, help="detections of single keyframes (.csv)")
    add("--excluded_timestamps", "-e", help="frames to leave out (.csv of video_id,timestamp)")
    add(
        "--protocol",
        choices=tube_protocols.TUBE_PROTOCOLS,
        default=tube_protocols.GENERAL.name,
        help="whose rules hold (docs/evaluation.md; default: %(default)s)",
    )
    add("--frame_iou", type=float, help="IoU threshold of frame-AP (default: the protocol's)")
    add(
        "--video_iou", help="IoU thresholds of video-AP: 0.2,0.5,0.5:0.95 (default: the protocol's)"
    )
    add("--spacing", type=float, help="seconds between keyframes (default: each video's own)")
    for flag, kind, text in _LINKING_FLAGS.values():
        add(f"--{flag}", type=kind, help=f"{text} (default: the protocol's)")
    add("--box_tolerance", **ava_ap.BOX_TOLERANCE_OPTION)
    add(
        "--time_offset_seconds",
        help="what the ground truth's times are ahead of the detections': seconds, or a CSV of "
        "video_id,seconds",
    )
    add("--json", action="store_true", help="print JSON and nothing else")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line. Returns 0, 1 where there is no mAP, or 2 for unusable input."""
    with command_line.printing():
        return _run(_parse_arguments(arguments))


def _run(options: argparse.Namespace) -> int:
    def report(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    try:
        linking = {field: getattr(options, flag) for field, (flag, *_) in _LINKING_FLAGS.items()}
        result = evaluate_files(
            options.labelmap,
            options.groundtruth,
            options.detections,
            options.excluded_timestamps,
            report,
            protocol=tube_protocols.changed(
                options.protocol, options.frame_iou, options.video_iou, **linking
            ),
            spacing=options.spacing,
            box_tolerance=options.box_tolerance,
            time_offset_seconds=options.time_offset_seconds,
        )
    except (ValueError, OSError) as error:
        report(f"error: {error}")
        return 2
    if options.json:
        for warning in result.warnings:
            report(f"warning: {warning}")
        print(json.dumps(result.to_dict(), indent=2, allow_nan=False))
    else:
        print(video_ap_text.format_result(result))
    if result.frame_mean_average_precision is None:
        report(f"error: {NO_GROUND_TRUTH}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
