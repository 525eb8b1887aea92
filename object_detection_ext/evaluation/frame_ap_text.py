# SPDX-License-Identifier: Apache-2.0
"""The result of an evaluation of frames as text."""

from dataclasses import asdict

from object_detection_ext import listing
from object_detection_ext.evaluation.frame_ap import TieSpan
from object_detection_ext.evaluation.frame_results import AvaResult
from object_detection_ext.evaluation.selection import NO_GROUND_TRUTH


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
        f"{listing.part(group.classes_with_ground_truth, group.classes, 'class', 'classes')}"
        f"{format_tie_span(group.tie_span)}"
        for group in result.groups
    ]
    lines += [
        f"localization, person AP@{entry.iou_threshold:g}IOU: "
        f"{_format_number(entry.average_precision, 6)} ("
        f"{listing.counted(entry.ground_truth, 'person', 'people')}, "
        f"{entry.detections:,} detected, {entry.true_positives:,} right)"
        f"{format_tie_span(entry.tie_span)}"
        for entry in result.localization
    ]
    if result.mean_average_precision is None:
        return [*lines, f"mAP{at}: none, {NO_GROUND_TRUTH}"]
    evaluated = len(result.classes) - len(result.classes_without_ground_truth)
    over = listing.part(evaluated, len(result.classes), "class", "classes")
    lines.append(
        f"mAP{at}: {result.mean_average_precision:.6f} over {over}"
        f"{format_tie_span(result.tie_span)}"
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
