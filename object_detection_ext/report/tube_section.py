# SPDX-License-Identifier: Apache-2.0
"""The part of the report about action tubes."""

from object_detection_ext.evaluation import breakdown_text
from object_detection_ext.evaluation.selection import NO_GROUND_TRUTH
from object_detection_ext.evaluation.video_ap import TubeResult
from object_detection_ext.report import plots, tables
from object_detection_ext.report.markup import Markup, element
from object_detection_ext.report.sections import Section


def tubes(result: TubeResult) -> Section:
    """Video-AP by IoU threshold and by class, and the rules of both."""
    content = [
        element(
            "p",
            "Detections of single keyframes are linked to tubes, one for each person and action; "
            "video-AP asks for the right tubes, frame-AP for the right boxes.",
        ),
        _means(result),
        _plot(result),
        _classes(result),
        *_details(result),
    ]
    return Section("tubes", "Action tubes", tuple(content))


def _means(result: TubeResult) -> Markup:
    rows = [
        ["frame-mAP", f"{result.protocol.frame_iou:g}", result.frame_mean_average_precision],
        *(
            ["video-mAP", threshold.name, result.video_mean_average_precision(threshold)]
            for threshold in result.protocol.video_ious
        ),
    ]
    cells = [[f"{what} at IoU {iou}", tables.meter(value)] for what, iou, value in rows]
    caption = f"Means over the classes with ground truth, protocol {result.protocol.name}"
    return tables.table(caption, ["figure", "value"], cells)


def _plot(result: TubeResult) -> Markup:
    bars = [
        plots.Bar(
            f"{value:g}",
            video.mean_average_precision,
            sum(entry.true_positives for entry in video.classes),
        )
        for value, video in result.video.items()
    ]
    said = ", ".join(f"{bar.label}: {breakdown_text.format_value(bar.value)}" for bar in bars)
    plot = plots.bar_plot(
        bars,
        title=f"video-mAP by IoU threshold. {said}",
        value_name="mAP",
        count_name="true positive tubes",
        count_scale="linear",
    )
    return tables.scroll_box("Plot: video-mAP by IoU threshold", plot)


def _classes(result: TubeResult) -> Markup:
    named = result.protocol.video_ious
    header = ["class", f"frame-AP at {result.protocol.frame_iou:g}"]
    header += [f"video-AP at {threshold.name}" for threshold in named]
    header += ["boxes", "tubes", "detected tubes"]
    rows = []
    for place, entry in enumerate(result.frame_classes):
        counts = result.tubes_of_class(place)
        values = [entry.average_precision]
        values += [result.class_average_precision(place, threshold) for threshold in named]
        rows.append(
            [
                entry.name or f"class {entry.id}",
                *map(_number, values),
                f"{entry.ground_truth:,}",
                f"{counts.ground_truth:,}",
                f"{counts.detections:,}",
            ]
        )
    return tables.table("Frame-AP and video-AP by class", header, rows, sortable=True)


def _number(value: float | None) -> tables.Cell:
    return tables.Cell("none", -1.0) if value is None else tables.Cell(f"{value:.3f}", value)


def _details(result: TubeResult) -> list[Markup]:
    rules = element(
        "details",
        element("summary", "Rules of tubes"),
        element("ul", *(element("li", rule) for rule in result.protocol.rules()), class_="rules"),
    )
    counts = [[name.replace("_", " "), f"{count:,}"] for name, count in result.all_counts.items()]
    counted = element(
        "details",
        element("summary", "What became of rows and tubes"),
        tables.table("Counts of rows and tubes", ["what", "count"], counts),
    )
    if result.frame_mean_average_precision is None:
        return [element("p", f"There is no mAP: {NO_GROUND_TRUTH}."), rules, counted]
    return [rules, counted]
