# SPDX-License-Identifier: Apache-2.0
"""The result of an evaluation of tubes as text."""

from object_detection_ext import listing
from object_detection_ext.evaluation import breakdown_text, frame_ap, frame_ap_text
from object_detection_ext.evaluation.selection import NO_GROUND_TRUTH
from object_detection_ext.evaluation.tube_results import TubeResult


def format_result(result: TubeResult) -> str:
    """The result for people: rules, counts, warnings, a table of classes, mAPs."""
    lines = ["Rules", *(f"  {rule}" for rule in result.protocol.rules()), "Counts"]
    lines += [
        f"  {count:>10,}  {name.replace('_', ' ')}" for name, count in result.all_counts.items()
    ]
    if result.warnings:
        lines += ["Warnings", *(f"  {warning}" for warning in result.warnings)]
    lines += ["Classes", *_class_table(result), *_summary(result)]
    return "\n".join(lines)


def _class_table(result: TubeResult) -> list[str]:
    named = result.protocol.video_ious
    header = ["class", "id", f"frame-AP@{result.protocol.frame_iou:g}"]
    header += [f"video-AP@{threshold.name}" for threshold in named]
    header += ["boxes", "tubes", "detected tubes"]
    rows = []
    for place, entry in enumerate(result.frame_classes):
        tubes = result.tubes_of_class(place)
        values = [result.class_average_precision(place, threshold) for threshold in named]
        rows.append(
            [
                entry.name,
                str(entry.id),
                breakdown_text.format_value(entry.average_precision),
                *map(breakdown_text.format_value, values),
                *(f"{count:,}" for count in (entry.ground_truth, tubes.ground_truth)),
                f"{tubes.detections:,}",
            ]
        )
    return breakdown_text.table(header, rows)


def _summary(result: TubeResult) -> list[str]:
    classes = result.frame_classes
    known = sum(entry.average_precision is not None for entry in classes)
    if not known:
        return [f"mAP: none, {NO_GROUND_TRUTH}"]
    over = f" over {listing.part(known, len(classes), 'class', 'classes')}"
    lines = [
        f"frame-mAP@{result.protocol.frame_iou:g}IOU: {result.frame_mean_average_precision:.6f}"
        f"{over}{frame_ap_text.format_tie_span(frame_ap.mean_tie_span(classes))}"
    ]
    for threshold in result.protocol.video_ious:
        value = result.video_mean_average_precision(threshold)
        span = None
        if len(threshold.values) == 1:
            span = result.video[threshold.values[0]].tie_span
        lines.append(
            f"video-mAP@{threshold.name}IOU: {value:.6f}{over}{frame_ap_text.format_tie_span(span)}"
        )
    return lines
