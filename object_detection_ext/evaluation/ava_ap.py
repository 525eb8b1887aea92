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
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np

from object_detection_ext import command_line
from object_detection_ext.ava import label_maps, row_reader, tables, time_offsets
from object_detection_ext.ava.label_maps import Category
from object_detection_ext.ava.row_reader import BOX_TOLERANCE
from object_detection_ext.ava.tables import AvaRows, LabelledBoxes, Report
from object_detection_ext.ava.timestamps import Frame
from object_detection_ext.evaluation import person_boxes, protocols
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
from object_detection_ext.evaluation.protocols import ACTIVITYNET, Protocol
from object_detection_ext.evaluation.selection import (
    NO_GROUND_TRUTH,
    AvaCounts,
    Selection,
    check_categories,
    select,
    select_people,
    with_max_rows,
)

__all__ = [
    "AvaCounts",
    "AvaResult",
    "ClassMatches",
    "ClassResult",
    "GroupResult",
    "LabelledBoxes",
    "DEFAULT_IOU_THRESHOLD",
    "DEFAULT_MAX_ROWS_PER_FRAME",
    "NO_GROUND_TRUTH",
    "PersonResult",
    "Selection",
    "TieSpan",
    "average_precision",
    "check_categories",
    "closest_boxes",
    "evaluate",
    "evaluate_at",
    "evaluate_files",
    "evaluate_files_at",
    "match_class",
    "mean_average_precision",
    "mean_tie_span",
    "order_frame_rows",
    "protocol",
    "score_classes",
    "select",
    "select_people",
]

BOXES_GIVEN = (
    "every detection has the box of a ground-truth person: the boxes were given, and the figures "
    "are of classification alone (section 4.2)"
)
DEFAULT_MAX_ROWS_PER_FRAME = ACTIVITYNET.max_rows_per_frame
# Of coordinates in [0, 1] that both files round to 3 decimals.
_GIVEN_BOX_TOLERANCE = 1.001e-3
_GIVEN_BOX_CHUNK = 100_000


def protocol(iou_threshold: float, max_rows_per_frame: int | None = None) -> tuple[str, ...]:
    """The default rules, one per line, for reports; arguments as in `evaluate`."""
    return with_max_rows(ACTIVITYNET, max_rows_per_frame).rules(iou_threshold)


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
    offsets = time_offsets.read(time_offset_seconds)
    categories = label_maps.read_categories(labelmap)
    types = label_maps.read_label_types(label_types or labelmap, required=label_types is not None)
    excluded = frozenset()
    if excluded_timestamps:
        excluded = tables.read_excluded_timestamps(excluded_timestamps)
    found = tables.read_csv(detections, report, box_tolerance=box_tolerance)
    return evaluate_at(
        iou_thresholds,
        tables.read_ground_truth(groundtruth, report, box_tolerance),
        replace(found, frames=offsets.moved(found.frames)) if offsets else found,
        categories,
        protocol=protocol,
        excluded=excluded,
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


def _format_number(value: float | None, digits: int = 4) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def format_tie_span(span: TieSpan | None) -> str:
    """What to add to a printed AP: nothing where the order of equals does not change it."""
    if span is None or not span.is_wide:
        return ""
    return f"; equal scores: {span}, by their order"


def format_classes(result: AvaResult) -> list[str]:
    """The table of classes, one line each; the last column only where equal scores matter."""
    width = max(len(entry.name) for entry in result.classes)
    lines = [f"{'id':>4}  {'class':<{width}}  {'AP':>7}  {'boxes':>8}  {'detections':>10}"]
    lines += [
        f"{entry.id:>4}  {entry.name:<{width}}  {_format_number(entry.average_precision):>7}  "
        f"{entry.ground_truth:>8,}  {entry.detections:>10,}"
        for entry in result.classes
    ]
    spans = [entry.tie_span for entry in result.classes]
    if any(span is not None and span.is_wide for span in spans):
        lines[0] += "  by the order of equals"
        for number, span in enumerate(spans, 1):
            if span is not None and span.is_wide:
                lines[number] += f"  {span}"
    return lines


def _format_summary(result: AvaResult) -> list[str]:
    """Groups, localization, mAP: one line each."""
    at = f"@{result.iou_threshold:g}IOU"
    lines = [
        f"{group.name} mAP{at}: {_format_number(group.average_precision, 6)} over "
        f"{group.classes_with_ground_truth} of {group.classes} classes"
        f"{format_tie_span(group.tie_span)}"
        for group in result.groups
    ]
    lines += [
        f"localization, person AP@{entry.iou_threshold:g}IOU: "
        f"{_format_number(entry.average_precision, 6)} ({entry.ground_truth:,} people, "
        f"{entry.detections:,} detected, {entry.true_positives:,} right)"
        f"{format_tie_span(entry.tie_span)}"
        for entry in result.localization
    ]
    if result.mean_average_precision is None:
        return [*lines, f"mAP{at}: none, {NO_GROUND_TRUTH}"]
    evaluated = len(result.classes) - len(result.classes_without_ground_truth)
    lines.append(
        f"mAP{at}: {result.mean_average_precision:.6f} over {evaluated} of "
        f"{len(result.classes)} classes{format_tie_span(result.tie_span)}"
    )
    return lines


def format_result(result: AvaResult) -> str:
    """The result for people: rules, counts, warnings, a table of classes, mAP."""
    lines = ["Rules"]
    lines += [f"  {rule}" for rule in result.rules]
    lines.append("Counts")
    for name, count in asdict(result.counts).items():
        lines.append(f"  {count:>10,}  {name.replace('_', ' ')}")
    lines.append(f"  {len(result.classes_without_ground_truth):>10,}  classes without ground truth")
    if result.warnings:
        lines.append("Warnings")
        lines += [f"  {warning}" for warning in result.warnings]
    return "\n".join([*lines, *format_classes(result), *_format_summary(result)])


def _box_tolerance(text: str) -> float | None:
    if text.lower() == "none":
        return None
    try:
        value = float(text)
        row_reader.check_tolerance(value)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} must be at least 0 and less than 1, or 'none' to take boxes as they are"
        ) from None
    return value


# Of every command line that reads ground truth and detections with `argparse`.
BOX_TOLERANCE_OPTION = {
    "type": _box_tolerance,
    "default": BOX_TOLERANCE,
    "help": "how far outside of [0, 1] a box may reach to be cut off, as a part of the frame; "
    "more is an error. 'none' takes boxes as they are, in any unit (default: %(default)s)",
}


def _iou_thresholds(text: str) -> tuple[float, ...]:
    """One or several thresholds, parted by commas."""
    try:
        values = tuple(float(part) for part in text.split(","))
        for value in values:
            protocols.check_iou_threshold(value)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return values


def _parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m object_detection_ext.evaluation.ava_ap",
        description="Frame AP of action detections by the rules of a protocol.",
    )
    add = parser.add_argument
    add("--labelmap", "-l", required=True, help="label map (.pbtxt)")
    add("--groundtruth", "-g", required=True, help="ground truth (.csv)")
    add("--detections", "-d", required=True, help="detections (.csv)")
    add("--excluded_timestamps", "-e", help="frames to leave out (.csv of video_id,timestamp)")
    add(
        "--protocol",
        choices=protocols.PROTOCOLS,
        default=ACTIVITYNET.name,
        help="whose rules hold (docs/evaluation.md; default: %(default)s)",
    )
    add(
        "--iou_threshold",
        type=_iou_thresholds,
        default=(DEFAULT_IOU_THRESHOLD,),
        help="least overlap of a right detection, or several: 0.5,0.75 (default: 0.5)",
    )
    add("--localization", action="store_true", help="AP of people, whatever they do, too")
    add(
        "--label_types",
        help="label map (.pbtxt) whose label_type groups the classes (default: --labelmap, if it "
        "has any)",
    )
    add("--box_tolerance", **BOX_TOLERANCE_OPTION)
    add(
        "--time_offset_seconds",
        help="what the ground truth's times are ahead of the detections', as with films cut to "
        "AVA's minutes 15 to 30 (900): seconds, or a CSV of video_id,seconds; not for detections "
        "of detect_video --keyframes, which have the ground truth's times",
    )
    add(
        "--json",
        action="store_true",
        help="print JSON and nothing else: an object, or a list of objects for several thresholds",
    )
    return parser.parse_args(arguments)


def _print_json(results: Sequence[AvaResult], report: Report) -> None:
    for warning in results[0].warnings:
        report(f"warning: {warning}")
    documents = [result.to_dict() for result in results]
    document = documents[0] if len(documents) == 1 else documents
    print(json.dumps(document, indent=2, allow_nan=False))


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line. Returns 0, 1 where there is no mAP, or 2 for unusable input."""
    with command_line.printing():
        return _run(_parse_arguments(arguments))


def _run(options: argparse.Namespace) -> int:
    def report(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    try:
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
    except (ValueError, OSError) as error:
        report(f"error: {error}")
        return 2
    if options.json:
        _print_json(results, report)
    else:
        print("\n\n".join(format_result(result) for result in results))
    if results[0].mean_average_precision is None:
        report(f"error: {NO_GROUND_TRUTH}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
