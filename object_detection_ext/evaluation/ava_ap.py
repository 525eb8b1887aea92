# SPDX-License-Identifier: Apache-2.0
"""Frame-level average precision of action detections, by the rules of a protocol (section 4).

    python -m object_detection_ext.evaluation.ava_ap --labelmap L.pbtxt --groundtruth G.csv \
        --detections D.csv [--protocol activitynet|pyslowfast|mmaction2] \
        [--iou_threshold 0.5,0.75] [--excluded_timestamps E.csv] [--localization] \
        [--label_types T.pbtxt] [--json]

The default protocol is that of the ActivityNet program, which feeds the stock
PascalDetectionEvaluator. See `protocols`, and docs/evaluation.md.
"""

import argparse
import sys
from collections.abc import Sequence

from object_detection_ext.ava.tables import LabelledBoxes, Report
from object_detection_ext.evaluation import command_lines, protocols
from object_detection_ext.evaluation.frame_ap import (
    DEFAULT_IOU_THRESHOLD,
    ClassMatches,
    ClassResult,
    TieSpan,
    average_precision,
    closest_boxes,
    match_class,
    mean_average_precision,
    mean_tie_span,
    order_frame_rows,
    score_classes,
)
from object_detection_ext.evaluation.frame_ap_text import (
    format_classes,
    format_result,
    format_tie_span,
)
from object_detection_ext.evaluation.frame_evaluation import (
    DEFAULT_MAX_ROWS_PER_FRAME,
    are_boxes_given,
    evaluate,
    evaluate_at,
    evaluate_files,
    evaluate_files_at,
    group_means,
    protocol,
    score_people,
)
from object_detection_ext.evaluation.frame_results import (
    BOXES_GIVEN,
    AvaResult,
    GroupResult,
    PersonResult,
)
from object_detection_ext.evaluation.selection import (
    NO_GROUND_TRUTH,
    AvaCounts,
    Selection,
    check_categories,
    select,
    select_people,
    with_max_rows,
)

# What programs use of the evaluation of frames.
__all__ = [
    "AvaCounts",
    "AvaResult",
    "BOXES_GIVEN",
    "ClassMatches",
    "ClassResult",
    "DEFAULT_IOU_THRESHOLD",
    "DEFAULT_MAX_ROWS_PER_FRAME",
    "GroupResult",
    "LabelledBoxes",
    "NO_GROUND_TRUTH",
    "PersonResult",
    "Selection",
    "TieSpan",
    "are_boxes_given",
    "average_precision",
    "check_categories",
    "closest_boxes",
    "evaluate",
    "evaluate_at",
    "evaluate_files",
    "evaluate_files_at",
    "format_classes",
    "format_result",
    "format_tie_span",
    "group_means",
    "main",
    "match_class",
    "mean_average_precision",
    "mean_tie_span",
    "order_frame_rows",
    "protocol",
    "score_classes",
    "score_people",
    "select",
    "select_people",
    "with_max_rows",
]


def _parser() -> argparse.ArgumentParser:
    parser = command_lines.parser(
        "ava_ap",
        "Frame AP of action detections by the rules of a protocol. With --json and several "
        "thresholds, the output is a list of objects.",
        protocols.PROTOCOLS,
        protocols.ACTIVITYNET.name,
    )
    add = parser.add_argument
    add(
        "--iou_threshold",
        type=command_lines.iou_thresholds,
        default=(DEFAULT_IOU_THRESHOLD,),
        help="IoU threshold of a true positive, or several: 0.5,0.75 (default: 0.5)",
    )
    add("--localization", action="store_true", help="AP of people, whatever they do, too")
    add(
        "--label_types",
        help="label map (.pbtxt) whose label_type groups the classes (default: --labelmap, if it "
        "has any)",
    )
    command_lines.add_time_offset(parser)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line. Returns 0, 1 where there is no mAP, or 2 for unusable input."""
    return command_lines.run(_parser(), _evaluate, arguments)


def _evaluate(options: argparse.Namespace, report: Report) -> command_lines.Outcome:
    results = evaluate_files_at(
        options.iou_threshold,
        options.labelmap,
        options.groundtruth,
        options.detections,
        options.excluded_timestamps,
        report,
        protocol=protocols.by_name(options.protocol),
        label_types=options.label_types,
        localization=options.localization,
        box_tolerance=options.box_tolerance,
        time_offset_seconds=options.time_offset_seconds,
    )
    return command_lines.Outcome(
        results[0].mean_average_precision is not None,
        results[0].warnings,
        lambda: "\n\n".join(map(format_result, results)),
        lambda: _documents(results),
    )


def _documents(results: Sequence[AvaResult]) -> dict | list[dict]:
    documents = [result.to_dict() for result in results]
    return documents[0] if len(documents) == 1 else documents


if __name__ == "__main__":
    sys.exit(main())
