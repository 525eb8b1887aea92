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
import sys
from collections.abc import Sequence

from object_detection_ext.ava.tables import Report
from object_detection_ext.evaluation import command_lines, tube_protocols, video_ap_text
from object_detection_ext.evaluation.tube_evaluation import evaluate, evaluate_files
from object_detection_ext.evaluation.tube_results import TubeResult, VideoResult

# What programs use of the evaluation of tubes.
__all__ = ["TubeResult", "VideoResult", "evaluate", "evaluate_files", "main"]

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


def _parser() -> argparse.ArgumentParser:
    parser = command_lines.parser(
        "video_ap",
        "Video-AP and frame-AP of action tubes, by the rules of a data set.",
        tube_protocols.TUBE_PROTOCOLS,
        tube_protocols.GENERAL.name,
        groundtruth="ground truth with person ids (.csv)",
        detections="detections of single keyframes (.csv)",
    )
    add = parser.add_argument
    add("--frame_iou", type=float, help="IoU threshold of frame-AP (default: the protocol's)")
    add(
        "--video_iou", help="IoU thresholds of video-AP: 0.2,0.5,0.5:0.95 (default: the protocol's)"
    )
    add("--spacing", type=float, help="seconds between keyframes (default: each video's own)")
    for flag, kind, text in _LINKING_FLAGS.values():
        add(f"--{flag}", type=kind, help=f"{text} (default: the protocol's)")
    command_lines.add_time_offset(parser)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line. Returns 0, 1 where there is no mAP, or 2 for unusable input."""
    return command_lines.run(_parser(), _evaluate, arguments)


def _evaluate(options: argparse.Namespace, report: Report) -> command_lines.Outcome:
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
    return command_lines.Outcome(
        result.frame_mean_average_precision is not None,
        result.warnings,
        lambda: video_ap_text.format_result(result),
        result.to_dict,
    )


if __name__ == "__main__":
    sys.exit(main())
