# SPDX-License-Identifier: Apache-2.0
"""Evaluates action detections frame by frame, by the rules of a protocol (section 4).

The command line is `ava_ap`; the rules are in `protocols`, see docs/evaluation.md.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from object_detection_ext.ava import label_maps
from object_detection_ext.ava.box_range import BOX_TOLERANCE
from object_detection_ext.ava.label_maps import Category
from object_detection_ext.ava.tables import AvaRows, LabelledBoxes, Report
from object_detection_ext.ava.timestamps import Frame
from object_detection_ext.evaluation import input_files, person_boxes, protocols
from object_detection_ext.evaluation.frame_ap import (
    DEFAULT_IOU_THRESHOLD,
    ClassResult,
    closest_boxes,
    mean_average_precision,
    mean_tie_span,
    score_classes,
)
from object_detection_ext.evaluation.frame_results import AvaResult, GroupResult, PersonResult
from object_detection_ext.evaluation.protocols import ACTIVITYNET, Protocol
from object_detection_ext.evaluation.selection import select, select_people, with_max_rows

DEFAULT_MAX_ROWS_PER_FRAME = ACTIVITYNET.max_rows_per_frame
# Of coordinates in [0, 1] that both files round to 3 decimals.
_GIVEN_BOX_TOLERANCE = 1.001e-3
_GIVEN_BOX_CHUNK = 100_000


def protocol(iou_threshold: float, max_rows_per_frame: int | None = None) -> tuple[str, ...]:
    """The default rules, one per line, for reports; arguments as in `evaluate`."""
    return with_max_rows(ACTIVITYNET, max_rows_per_frame).rules(iou_threshold)


def group_means(
    classes: Sequence[ClassResult], label_types: Mapping[int, str]
) -> tuple[GroupResult, ...]:
    """Means over the classes of each group.

    Args:
      classes: the results, ordered by id.
      label_types: groups by class id; classes without one are in none.
    """
    members: dict[str, list[ClassResult]] = {}
    for entry in classes:
        if entry.id in label_types:
            members.setdefault(label_types[entry.id], []).append(entry)
    return tuple(
        GroupResult(
            name,
            mean_average_precision(group),
            len(group),
            sum(entry.average_precision is not None for entry in group),
            mean_tie_span(group),
        )
        for name, group in members.items()
    )


def score_people(
    people: LabelledBoxes,
    detections: LabelledBoxes,
    iou_thresholds: Sequence[float] = person_boxes.IOU_THRESHOLDS,
) -> tuple[PersonResult, ...]:
    """AP of people at each threshold.

    Args:
      people: of the ground truth, from `select_people`.
      detections: detected people, from `select_people`.
      iou_thresholds: in (0, 1].
    """
    results = []
    for iou_threshold in iou_thresholds:
        (entry,) = score_classes(people, detections, [person_boxes.PERSON], iou_threshold)
        results.append(
            PersonResult(
                iou_threshold,
                entry.average_precision,
                entry.ground_truth,
                entry.detections,
                entry.true_positives,
                entry.tie_span,
            )
        )
    return tuple(results)


def are_boxes_given(people: LabelledBoxes, detections: LabelledBoxes) -> bool:
    """Whether every detection has the box of a person of its frame, but for 3 decimals' rounding.

    Args:
      people: of the ground truth, boxes normalized.
      detections: rows with the same frame numbers; none at all are not given.
    """
    for start in range(0, len(detections), _GIVEN_BOX_CHUNK):
        chunk = detections[np.arange(start, min(start + _GIVEN_BOX_CHUNK, len(detections)))]
        closest, _ = closest_boxes(people, chunk)
        if (closest < 0).any():
            return False
        if np.abs(people.boxes[closest] - chunk.boxes).max() > _GIVEN_BOX_TOLERANCE:
            return False
    return len(detections) > 0


def evaluate_at(
    iou_thresholds: Sequence[float],
    ground_truth: AvaRows,
    detections: AvaRows,
    categories: Sequence[Category],
    *,
    protocol: Protocol = ACTIVITYNET,
    max_rows_per_frame: int | None = None,
    excluded: frozenset[Frame] = frozenset(),
    label_types: Mapping[int, str] | None = None,
    localization: bool = False,
    report: Report | None = None,
) -> tuple[AvaResult, ...]:
    """`evaluate` at several IoU thresholds, one result for each."""
    for iou_threshold in iou_thresholds:
        protocols.check_iou_threshold(iou_threshold)
    rows = select(ground_truth, detections, categories, max_rows_per_frame, excluded, protocol)
    people = person_boxes.distinct_people(rows.ground_truth)
    given = are_boxes_given(people, rows.detections)
    located: tuple[PersonResult, ...] = ()
    if localization:
        people_and_detected = select_people(
            ground_truth, detections, rows.counted, protocol, report=report
        )
        located = score_people(*people_and_detected)
    results = []
    for iou_threshold in iou_thresholds:
        classes = score_classes(
            rows.ground_truth, rows.detections, categories, iou_threshold, report
        )
        results.append(
            AvaResult(
                mean_average_precision(classes),
                classes,
                rows.counts,
                iou_threshold,
                rows.protocol,
                rows.warnings,
                group_means(classes, label_types or {}),
                located,
                given,
            )
        )
    return tuple(results)


def evaluate(
    ground_truth: AvaRows,
    detections: AvaRows,
    categories: Sequence[Category],
    iou_threshold: float = DEFAULT_IOU_THRESHOLD,
    max_rows_per_frame: int | None = None,
    excluded: frozenset[Frame] = frozenset(),
    report: Report | None = None,
    *,
    protocol: Protocol = ACTIVITYNET,
    label_types: Mapping[int, str] | None = None,
    localization: bool = False,
) -> AvaResult:
    """Evaluates detections by the rules of a protocol.

    Args:
      ground_truth: from `tables.read_csv`; boxes in the unit of the detections.
      detections: from `tables.read_csv`. Any common unit gives the same result, but boxes that
        leave [0, 1] are warned of.
      categories: {"id", "name"} each, as `label_maps.read_categories` gives them.
      iou_threshold: the least overlap of a right detection, in (0, 1].
      max_rows_per_frame: how many rows of a frame count, 0 for all; None for the protocol's number.
      excluded: frames to leave out, as `tables.read_excluded_timestamps` gives them.
      report: called with lines of progress when scoring takes long.
      protocol: the rules.
      label_types: groups by class id, as `label_maps.read_label_types` gives them.
      localization: whether the AP of people is computed, too.

    Raises:
      InputError: for a number out of range, an unusable label map, ground truth without a single
        row, or a ground-truth box that is reversed; names file and line where there is one.
    """
    (result,) = evaluate_at(
        (iou_threshold,),
        ground_truth,
        detections,
        categories,
        protocol=protocol,
        max_rows_per_frame=max_rows_per_frame,
        excluded=excluded,
        label_types=label_types,
        localization=localization,
        report=report,
    )
    return result


def evaluate_files_at(
    iou_thresholds: Sequence[float],
    labelmap: str,
    groundtruth: str,
    detections: str,
    excluded_timestamps: str | None = None,
    report: Report | None = None,
    *,
    protocol: Protocol = ACTIVITYNET,
    label_types: str | None = None,
    localization: bool = False,
    box_tolerance: float | None = BOX_TOLERANCE,
    time_offset_seconds: str | None = None,
) -> tuple[AvaResult, ...]:
    """`evaluate_at` on files. Raises what the readers and it raise.

    Args:
      iou_thresholds: one result comes for each.
      labelmap: path of a label map.
      groundtruth: path of a CSV.
      detections: path of a CSV.
      excluded_timestamps: path of a CSV.
      report: called with lines of progress.
      protocol: the rules.
      label_types: path of a label map with `label_type`; None: the label map's own, if it has any.
      localization: whether the AP of people is computed, too.
      box_tolerance: as of `tables.read_csv`.
      time_offset_seconds: what the ground truth's times are ahead of the detections', as
        `time_offsets.read` takes it.
    """
    categories = label_maps.read_categories(labelmap)
    types = label_maps.read_label_types(label_types or labelmap, required=label_types is not None)
    read = input_files.read(
        groundtruth,
        detections,
        excluded_timestamps,
        report,
        box_tolerance=box_tolerance,
        time_offset_seconds=time_offset_seconds,
    )
    return evaluate_at(
        iou_thresholds,
        read.ground_truth,
        read.detections,
        categories,
        protocol=protocol,
        excluded=read.excluded,
        label_types=types,
        localization=localization,
        report=report,
    )


def evaluate_files(
    labelmap: str,
    groundtruth: str,
    detections: str,
    excluded_timestamps: str | None = None,
    report: Report | None = None,
    *,
    iou_threshold: float = DEFAULT_IOU_THRESHOLD,
    **options,
) -> AvaResult:
    """`evaluate_files_at` with one threshold; `options` are its keywords."""
    (result,) = evaluate_files_at(
        (iou_threshold,),
        labelmap,
        groundtruth,
        detections,
        excluded_timestamps,
        report,
        **options,
    )
    return result
