# SPDX-License-Identifier: Apache-2.0
r"""Where a system fails: AP by class, size and company; kinds of errors; confusions; intervals.

    python -m object_detection_ext.evaluation.breakdowns --labelmap L.pbtxt --groundtruth G.csv \
        --detections D.csv [--train_annotations T.csv] [--protocol activitynet] \
        [--bootstrap 1000] [--json]

Works on AVA CSVs, so on those of any system. The rules are `ava_ap`'s; what each breakdown counts
is in `subsets`, `error_split` and `bootstrap`, and in the lines that are printed with it.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from object_detection_ext.ava import label_maps, tables
from object_detection_ext.ava.box_range import BOX_TOLERANCE
from object_detection_ext.ava.label_maps import Category
from object_detection_ext.ava.tables import AvaRows, Report
from object_detection_ext.ava.timestamps import Frame
from object_detection_ext.errors import InputError
from object_detection_ext.evaluation import (
    bootstrap,
    breakdown_text,
    command_lines,
    error_split,
    frame_evaluation,
    input_files,
    matching,
    protocols,
    subsets,
)
from object_detection_ext.evaluation.frame_ap import DEFAULT_IOU_THRESHOLD
from object_detection_ext.evaluation.frame_results import BOXES_GIVEN, PersonResult
from object_detection_ext.evaluation.selection import Selection, select, select_people

_MOST_CONFUSED = 20

TRAINING, GROUND_TRUTH = "training annotations", "ground truth"


@dataclass(frozen=True)
class ClassRow:
    """A class: its AP, None without ground truth, and how often it is labelled.

    `training_count` is the number of rows in the training annotations, or without them in the
    ground truth.
    """

    id: int
    name: str
    average_precision: float | None
    ground_truth: int
    detections: int
    training_count: int


@dataclass(frozen=True)
class Breakdowns:
    """All breakdowns of one evaluation.

    Attributes:
      matching: what everything is counted from.
      rules: of the evaluation, a line each.
      warnings: for people.
      count_source: TRAINING or GROUND_TRUTH, what `training_count` counts.
      people: AP of people whatever they do, at each of the thresholds of localization.
      classes: by increasing training count.
      areas, numbers_of_people: AP in bins.
      errors: by class, ordered by id.
      confusion: which actions are taken for which.
      intervals: None where none were asked for or can be made.
    """

    matching: matching.Matching
    rules: tuple[str, ...]
    warnings: tuple[str, ...]
    count_source: str
    people: tuple[PersonResult, ...]
    classes: tuple[ClassRow, ...]
    areas: tuple[subsets.Subset, ...]
    numbers_of_people: tuple[subsets.Subset, ...]
    errors: tuple[error_split.ClassErrors, ...]
    confusion: error_split.Confusion
    intervals: bootstrap.Bootstrap | None

    @property
    def mean_average_precision(self) -> float | None:
        """Over the classes with ground truth; None if there is none."""
        return self.matching.mean_average_precision

    @property
    def total_errors(self) -> tuple[error_split.KindCounts, error_split.KindCounts]:
        """The sums over all classes of `all` and of `first`."""
        return tuple(
            error_split.total(getattr(entry, part) for entry in self.errors)
            for part in ("all", "first")
        )


def _training_counts(rows: tables.LabelledBoxes, categories: Sequence[Category]) -> dict[int, int]:
    ids, counts = np.unique(rows.classes, return_counts=True)
    known = dict(zip(ids.tolist(), counts.tolist(), strict=True))
    return {category["id"]: known.get(category["id"], 0) for category in categories}


def break_down(
    ground_truth: AvaRows,
    detections: AvaRows,
    categories: Sequence[Category],
    *,
    train_annotations: AvaRows | None = None,
    excluded: frozenset[Frame] = frozenset(),
    iou_threshold: float = DEFAULT_IOU_THRESHOLD,
    max_rows_per_frame: int | None = None,
    protocol: protocols.Protocol = protocols.ACTIVITYNET,
    area_bins: int = subsets.DEFAULT_AREA_BINS,
    resamples: int = 0,
    seed: int = 0,
    report: Report | None = None,
) -> Breakdowns:
    """Computes all breakdowns.

    Args:
      ground_truth: from `tables.read_csv`; boxes normalized.
      detections: from `tables.read_csv`; boxes normalized.
      categories: {"id", "name"} each, from `label_maps.read_categories`.
      train_annotations: what classes are sorted by; without it, the ground truth.
      excluded: frames to leave out.
      iou_threshold: the least overlap of a right detection, more than 0.1 and at most 1.
      max_rows_per_frame: how many rows of a frame count, 0 for all; None for the protocol's number.
      protocol: the rules.
      area_bins: how many bins of sizes.
      resamples: of the bootstrap; 0 for no intervals. With ground truth on one video alone there
        are none either, which is a warning.
      seed: of the bootstrap.
      report: called with lines of progress when this takes long.

    Raises:
      ValueError: what `selection.select` raises, or a number out of range.
    """
    _check(iou_threshold, area_bins, resamples)
    rows = select(ground_truth, detections, categories, max_rows_per_frame, excluded, protocol)
    met = matching.match_all(rows, categories, iou_threshold, report)
    people = select_people(ground_truth, detections, rows.counted, rows.protocol)
    counted_rows = rows.ground_truth if train_annotations is None else train_annotations.rows
    intervals, can_draw = None, len(met.videos) > 1
    if resamples and can_draw:
        intervals = bootstrap.bootstrap(met, resamples, seed, report)
    return Breakdowns(
        matching=met,
        rules=_rules(rows, met),
        warnings=(*rows.warnings, *_warnings(met, bool(resamples) and not can_draw)),
        count_source=GROUND_TRUTH if train_annotations is None else TRAINING,
        people=frame_evaluation.score_people(*people),
        classes=_class_rows(met, _training_counts(counted_rows, categories)),
        areas=tuple(subsets.by_area(met, area_bins)),
        numbers_of_people=tuple(subsets.by_number_of_people(met)),
        errors=tuple(error_split.split_errors(met)),
        confusion=error_split.confuse(met),
        intervals=intervals,
    )


def _warnings(met: matching.Matching, lacks_intervals: bool) -> Iterator[str]:
    if met.tie_span is not None and met.tie_span.is_wide:
        yield (
            f"equal scores: mAP@{met.iou_threshold:g}IOU is {met.tie_span}, depending on their "
            "order; the figures are those of the order of the file"
        )
    if lacks_intervals:
        yield "no intervals: the ground truth has one video, there is nothing to draw"


def _rules(rows: Selection, met: matching.Matching) -> tuple[str, ...]:
    rules = rows.protocol.rules(met.iou_threshold)
    if not frame_evaluation.are_boxes_given(met.people.rows, rows.detections):
        return rules
    return (*rules, BOXES_GIVEN)


def _check(iou_threshold: float, area_bins: int, resamples: int) -> None:
    if not error_split.LEAST_IOU < iou_threshold <= 1:
        raise InputError(
            f"The IoU threshold is {iou_threshold:g}, but must be more than "
            f"{error_split.LEAST_IOU:g}, where bad localization starts, and at most 1."
        )
    if area_bins < 1:
        raise InputError(f"The number of area bins is {area_bins}, but must be at least 1.")
    if resamples < 0 or resamples == 1:
        raise InputError(f"The bootstrap takes 0 or at least 2 resamples, not {resamples}.")


def _class_rows(met: matching.Matching, counts: dict[int, int]) -> tuple[ClassRow, ...]:
    """By increasing count."""
    rows = [
        ClassRow(
            entry.id,
            entry.name,
            entry.average_precision,
            len(entry.gt_rows),
            len(entry.matches.detections),
            counts[entry.id],
        )
        for entry in met.classes
    ]
    return tuple(sorted(rows, key=lambda row: row.training_count))


def break_down_files(
    labelmap: str,
    groundtruth: str,
    detections: str,
    *,
    train_annotations: str | None = None,
    excluded_timestamps: str | None = None,
    box_tolerance: float | None = BOX_TOLERANCE,
    report: Report | None = None,
    **options,
) -> Breakdowns:
    """`break_down` on files, with its other options. Raises what the readers and it raise."""
    training = None
    if train_annotations:
        training = tables.read_ground_truth(train_annotations, report, box_tolerance)
    read = input_files.read(
        groundtruth, detections, excluded_timestamps, report, box_tolerance=box_tolerance
    )
    return break_down(
        read.ground_truth,
        read.detections,
        label_maps.read_categories(labelmap),
        train_annotations=training,
        excluded=read.excluded,
        report=report,
        **options,
    )


def to_dict(result: Breakdowns) -> dict:
    """The breakdowns in types that JSON has; an AP that does not exist is None."""
    all_errors, first_errors = result.total_errors
    pairs = result.confusion.most_frequent(_MOST_CONFUSED)
    names, met = result.confusion.names, result.matching
    return {
        "mAP": result.mean_average_precision,
        "mAP_of_equals": None if met.tie_span is None else asdict(met.tie_span),
        "protocol": list(result.rules),
        "counts": asdict(result.matching.selection.counts),
        "people": [asdict(entry) for entry in result.people],
        "warnings": list(result.warnings),
        "training_counts_from": result.count_source,
        "classes": [asdict(row) for row in result.classes],
        "by_area": [asdict(subset) for subset in result.areas],
        "by_number_of_people": [asdict(subset) for subset in result.numbers_of_people],
        "errors": [asdict(entry) for entry in result.errors],
        "errors_of_all_classes": {"all": asdict(all_errors), "first": asdict(first_errors)},
        "confusion": {
            "classes": list(result.confusion.ids),
            "people": result.confusion.people.tolist(),
            "doing": result.confusion.doing.tolist(),
            "most_frequent": [
                {"does": names[a], "predicted": names[p], "people": people, "share": share}
                for a, p, people, share in pairs
            ],
        },
        "bootstrap": None if result.intervals is None else asdict(result.intervals),
    }


def _parser() -> argparse.ArgumentParser:
    parser = command_lines.parser(
        "breakdowns",
        "Where action detections fail, from CSVs in AVA's form.",
        protocols.PROTOCOLS,
        protocols.ACTIVITYNET.name,
    )
    add = parser.add_argument
    add("--train_annotations", "-t", help="training annotations (.csv), to sort classes by")
    add("--iou_threshold", type=float, default=DEFAULT_IOU_THRESHOLD, help="0.5 is AVA's")
    add("--area_bins", type=int, default=subsets.DEFAULT_AREA_BINS, help="bins of person sizes")
    add("--bootstrap", type=int, default=0, metavar="N", help="resamples for intervals; 0: none")
    add("--seed", type=int, default=0, help="of the bootstrap")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line. Returns 0, 1 where there is no mAP, or 2 for unusable input."""
    return command_lines.run(_parser(), _evaluate, arguments)


def _evaluate(options: argparse.Namespace, report: Report) -> command_lines.Outcome:
    result = break_down_files(
        options.labelmap,
        options.groundtruth,
        options.detections,
        train_annotations=options.train_annotations,
        excluded_timestamps=options.excluded_timestamps,
        protocol=protocols.by_name(options.protocol),
        iou_threshold=options.iou_threshold,
        area_bins=options.area_bins,
        resamples=options.bootstrap,
        seed=options.seed,
        box_tolerance=options.box_tolerance,
        report=report,
    )
    return command_lines.Outcome(
        result.mean_average_precision is not None,
        result.warnings,
        lambda: breakdown_text.format_breakdowns(result),
        lambda: to_dict(result),
    )


if __name__ == "__main__":
    sys.exit(main())
