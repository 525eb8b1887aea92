# SPDX-License-Identifier: Apache-2.0
"""The breakdowns as text tables."""

import textwrap
from collections.abc import Iterator, Sequence

from object_detection_ext import listing
from object_detection_ext.evaluation import error_split
from object_detection_ext.evaluation.bootstrap import Interval
from object_detection_ext.evaluation.selection import NO_GROUND_TRUTH

_MOST_CONFUSED = 10
_WIDTH = 100

# What each table counts, for text and report alike.
AREA_RULE = (
    "A bin has its own ground truth, and the detections that overlap it enough. A detection that "
    "overlaps no ground truth of its class enough is wrong in the bin of its own size alone. Bins "
    "have about equally many people; mAP is over the classes with ground truth in the bin."
)
PEOPLE_RULE = (
    "Frames by the number of people that the ground truth has in them; mAP is over the classes "
    "with ground truth in the bin."
)
FIRST_RULE = (
    "Of the highest-scored detections of each class, as many as it has ground-truth boxes, so "
    "that a perfect system would have right ones only."
)
CONFUSION_RULE = (
    "How many people who do one action, and not the other, have the other predicted on them by one "
    "of its highest-scored detections (as many as it has ground-truth boxes)."
)

MEAN_RULE = (
    "the more it is above the mAP, the more the intervals owe to classes that are in few videos."
)


def table(header: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> Iterator[str]:
    """Lines of a table; the first `left` columns start at the left, numbers end at the right."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    for row in (header, *rows):
        cells = [
            f"{cell:<{width}}" if place < left else f"{cell:>{width}}"
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield "  " + "  ".join(cells).rstrip()


def _rule(text: str) -> list[str]:
    return textwrap.wrap(text, _WIDTH, initial_indent="  ", subsequent_indent="  ")


def format_value(value: float | None) -> str:
    """An AP with four digits; '-' where there is none."""
    return "-" if value is None else f"{value:.4f}"


def format_interval(interval: Interval | None) -> str:
    """Both ends; '-' where there is none."""
    return "-" if interval is None else f"{interval.low:.4f} to {interval.high:.4f}"


def format_breakdowns(result) -> str:
    """All breakdowns for people; `result` is `breakdowns.Breakdowns`."""
    lines = ["Rules", *(line for rule in result.rules for line in _rule(rule))]
    if result.warnings:
        lines += ["Warnings", *(f"  {warning}" for warning in result.warnings)]
    lines += _class_lines(result)
    lines += ["", "AP by size of the person, as a share of the frame", *_rule(AREA_RULE)]
    lines += _subset_lines(result.areas, "share of the frame")
    lines += ["", "AP by number of people in the frame", *_rule(PEOPLE_RULE)]
    lines += _subset_lines(result.numbers_of_people, "people")
    lines += _error_lines(result)
    lines += _confusion_lines(result)
    return "\n".join([*lines, "", *_people_lines(result), _mean_line(result)])


def _class_lines(result) -> Iterator[str]:
    yield f"\nAP by class, by increasing number of rows in the {result.count_source}"
    header = ["class", "id", "rows", "AP", "boxes", "detections"]
    intervals = result.intervals
    rows = []
    for row in result.classes:
        cells = [row.name, str(row.id), f"{row.training_count:,}"]
        cells += [format_value(row.average_precision), f"{row.ground_truth:,}"]
        cells.append(f"{row.detections:,}")
        if intervals is not None:
            cells.append(format_interval(intervals.classes[row.id]))
        rows.append(cells)
    yield from table(header + ["95 % interval"] * (intervals is not None), rows)


def _subset_lines(bins, name: str) -> Iterator[str]:
    rows = [
        [
            subset.label,
            f"{subset.people:,}",
            f"{subset.ground_truth:,}",
            str(subset.num_classes),
            f"{subset.detections:,}",
            format_value(subset.mean_average_precision),
        ]
        for subset in bins
    ]
    yield from table([name, "people", "boxes", "classes", "detections", "mAP"], rows)


def _error_lines(result) -> Iterator[str]:
    all_errors, first_errors = result.total_errors
    header = ["class", *error_split.KINDS, "missed"]
    for title, rule, part, total in (
        ("Kinds of errors, first detections", _rule(FIRST_RULE), "first", first_errors),
        ("Kinds of errors, all detections", [], "all", all_errors),
    ):
        yield from ("", title, *rule)
        entries = [(entry.name, getattr(entry, part)) for entry in result.errors]
        rows = [
            [name, *(f"{n:,}" for n in (*counts.of_kinds().values(), counts.missed))]
            for name, counts in (*entries, ("all classes", total))
        ]
        yield from table(header, rows)


def _confusion_lines(result) -> Iterator[str]:
    yield from ("", "Most frequent confusions", *_rule(CONFUSION_RULE))
    names = result.confusion.names
    rows = [
        [names[a], names[p], f"{people:,}", f"{100 * share:.1f} %"]
        for a, p, people, share in result.confusion.most_frequent(_MOST_CONFUSED)
    ]
    if rows:
        yield from table(["do", "predicted", "people", "of those who do"], rows, left=2)
    else:
        yield "  none"


def _people_lines(result) -> Iterator[str]:
    for entry in result.people:
        yield (
            f"AP@{entry.iou_threshold:g}IOU of people, whatever they do: "
            f"{format_value(entry.average_precision)}"
        )


def _mean_line(result) -> str:
    if result.mean_average_precision is None:
        return f"mAP: none, {NO_GROUND_TRUTH}"
    known = sum(row.average_precision is not None for row in result.classes)
    line = (
        f"mAP@{result.matching.iou_threshold:g}IOU: {result.mean_average_precision:.6f} over "
        f"{listing.part(known, len(result.classes), 'class', 'classes')}"
    )
    if result.intervals is None:
        return line
    made = result.intervals
    return (
        f"{line}\n95 % interval {format_interval(made.mean_average_precision)} "
        f"({made.resamples} resamples of {made.videos} videos, seed {made.seed}, mean "
        f"{made.mean_average_precision.mean:.4f})"
    )
