# SPDX-License-Identifier: Apache-2.0
"""Links detections to tubes and evaluates both by the rules of a data set.

The command line is `video_ap`; the rules are in `tube_protocols`, see docs/evaluation.md.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from object_detection_ext import listing
from object_detection_ext.ava import label_maps
from object_detection_ext.ava.box_range import BOX_TOLERANCE
from object_detection_ext.ava.label_maps import Category
from object_detection_ext.ava.tables import AvaRows, Report
from object_detection_ext.ava.timestamps import Frame
from object_detection_ext.evaluation import (
    input_files,
    moments,
    protocols,
    selection,
    tube_detections,
    tube_ground_truth,
    tube_linking,
    tube_overlap,
    tube_protocols,
    tube_scoring,
)
from object_detection_ext.evaluation.frame_ap import ClassResult
from object_detection_ext.evaluation.tube_linking import LinkCounts
from object_detection_ext.evaluation.tube_protocols import TubeProtocol
from object_detection_ext.evaluation.tube_results import TubeResult, VideoResult
from object_detection_ext.evaluation.tubes import Tubes


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
    warnings += _spacing_warnings(ground_truth.name, known)
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


def _spacing_warnings(name: str, known: Mapping[str, moments.VideoMoments]) -> list[str]:
    doubtful = [video for video, own in known.items() if own.may_be_rounded]
    if not doubtful:
        return []
    return [
        f"{name}: {listing.counted(len(doubtful), 'video')} with keyframes one or two units of the "
        f"last decimal apart (such as {doubtful[0]!r}), taken for {known[doubtful[0]].spacing:g} s "
        "with keyframes missing between; if their times are rounded, write more decimals or give "
        "--spacing"
    ]


def _tube_warnings(
    name: str, truth: Tubes, counts: LinkCounts, protocol: TubeProtocol
) -> list[str]:
    warnings, linking = [], protocol.linking
    single = int((truth.lengths == 1).sum())
    if single and protocol.time_overlap == "duration":
        warnings.append(
            f"{name}: tubes of one keyframe: {single:,} of {len(truth):,}; by these rules they "
            "have no duration and cannot be found"
        )
    short = int((truth.lengths < linking.min_keyframes).sum())
    if short:
        warnings.append(
            f"{name}: tubes shorter than the {linking.min_keyframes} keyframes that a detected "
            f"tube must have (--min_keyframes): {short:,} of {len(truth):,}"
        )
    linked, short = counts.detected_tubes_linked, counts.detected_tubes_too_short
    if linked and not counts.detected_tubes:
        warnings.append(
            f"no linked tube is left of {linked:,}: shorter than "
            f"{listing.counted(linking.min_keyframes, 'keyframe')} (--min_keyframes): {short:,}; "
            f"with a score below {linking.min_score:g} (--min_tube_score): "
            f"{counts.detected_tubes_with_low_score:,}; every video-AP is 0"
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
    categories = label_maps.read_categories(labelmap)
    read = input_files.read(
        groundtruth,
        detections,
        excluded_timestamps,
        report,
        box_tolerance=box_tolerance,
        time_offset_seconds=time_offset_seconds,
    )
    return evaluate(
        read.ground_truth,
        read.detections,
        categories,
        excluded=read.excluded,
        report=report,
        **options,
    )
