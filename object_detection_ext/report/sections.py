# SPDX-License-Identifier: Apache-2.0
"""The parts of the report; each function makes one section of the page."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from object_detection_ext import listing
from object_detection_ext.evaluation import breakdown_text, error_split, subsets
from object_detection_ext.evaluation.breakdowns import TRAINING, Breakdowns
from object_detection_ext.evaluation.selection import NO_GROUND_TRUTH
from object_detection_ext.report import plots, tables
from object_detection_ext.report.examples import Example
from object_detection_ext.report.markup import Markup, data_uri, element
from object_detection_ext.report.pictures import FilePicture, Pictures, jpeg_size

_PERCENT_INTERVAL = "95 % interval"
_MOST_CONFUSED = 15
# The examples of more classes than this are folded.
_MANY_CLASSES = 12


@dataclass(frozen=True)
class Section:
    """A part of the page with its heading and the name by which the page links to it."""

    anchor: str
    title: str
    content: tuple

    def render(self) -> Markup:
        """The section's HTML."""
        heading = element("h2", self.title, id=f"{self.anchor}-title")
        return element(
            "section", heading, *self.content,
            id=self.anchor, aria_labelledby=f"{self.anchor}-title",
        )  # fmt: skip


def tiles(result: Breakdowns) -> Markup:
    """The figures that matter most."""
    counts = result.matching.selection.counts
    known = sum(row.average_precision is not None for row in result.classes)
    threshold = f"{result.matching.iou_threshold:g}"
    value, small = "none", NO_GROUND_TRUTH
    if result.mean_average_precision is not None:
        value, small = f"{result.mean_average_precision:.4f}", None
    if result.intervals is not None and result.intervals.mean_average_precision is not None:
        interval = breakdown_text.format_interval(result.intervals.mean_average_precision)
        small = f"{_PERCENT_INTERVAL}: {interval}"
    people = f"{len(result.matching.people.frame):,}"
    shown = [
        (f"mAP at IoU {threshold}", [value, small and _small(small)]),
        ("classes with ground truth", f"{known} of {len(result.classes)}"),
        *(
            (f"person AP at {entry.iou_threshold:g}", _three_digits(entry.average_precision))
            for entry in result.people
        ),
        (
            "frames",
            [
                f"{counts.frames:,}",
                _small(f"of {listing.counted(len(result.matching.videos), 'video')}"),
            ],
        ),
        ("people", [people, _small(f"with {listing.counted(counts.ground_truth_rows, 'action')}")]),
        ("detections that count", f"{counts.detection_rows_used:,}"),
    ]
    return element(
        "dl",
        *(
            element("div", element("dt", name), element("dd", content),
                    class_="main" if place == 0 else None)
            for place, (name, content) in enumerate(shown)
        ),
        class_="tiles",
    )  # fmt: skip


def _small(text: str) -> Markup:
    return element("small", text)


def warnings(texts: Sequence[str]) -> Markup | None:
    """A box with what looks wrong; None if nothing does."""
    if not texts:
        return None
    items = [element("li", text) for text in texts]
    return element(
        "section", element("h2", "Warnings", id="warnings-title"), element("ul", *items),
        class_="warnings", aria_labelledby="warnings-title",
    )  # fmt: skip


def rules(result: Breakdowns) -> Section:
    """How the figures were computed, and what became of every row."""
    counts = asdict(result.matching.selection.counts).items()
    rows = [[name.replace("_", " "), f"{count:,}"] for name, count in counts]
    content = [
        element("p", "Figures compare only with others that were computed by the same rules."),
        element("ul", *(element("li", rule) for rule in result.rules), class_="rules"),
        element("h3", "What became of frames and rows"),
        tables.table("Counts of frames and rows", ["what", "count"], rows),
    ]
    return Section("rules", "Rules and counts", tuple(content))


def classes(result: Breakdowns) -> Section:
    """Figure 5 a, and the table behind it."""
    intervals = result.intervals.classes if result.intervals else {}
    bars = [
        _bar(row.name, row.average_precision, row.training_count, intervals.get(row.id))
        for row in result.classes
    ]
    source = result.count_source
    said = f"AP of {len(bars)} classes, by increasing number of rows in the {source}"
    plot = plots.bar_plot(
        bars, title=said, value_name="AP", count_name=_count_name(result), count_scale="log"
    )
    text = f"Classes by increasing number of rows in the {source} (line, logarithmic)."
    if source != TRAINING:
        text += " Without training annotations, these are the evaluation's own rows."
    header = ["class", "AP", f"rows in the {source}", "ground truth", "detections"]
    rows = []
    for row in result.classes:
        interval = intervals.get(row.id)
        ends = (interval.low, interval.high) if interval else ()
        cells = [row.name, tables.meter(row.average_precision, *ends), f"{row.training_count:,}"]
        cells += [f"{row.ground_truth:,}", f"{row.detections:,}"]
        if intervals:
            shown = "none" if interval is None else f"{interval.low:.3f} to {interval.high:.3f}"
            cells.append(tables.Cell(shown, interval.high - interval.low if interval else -1.0))
        rows.append(cells)
    header += [_PERCENT_INTERVAL] if intervals else []
    content = [element("p", text), tables.scroll_box(said, plot)]
    if result.intervals is not None:
        content.append(element("p", _interval_text(result)))
    content.append(tables.table("AP by class", header, rows, sortable=True))
    return Section("classes", "AP by class", tuple(content))


def _count_name(result: Breakdowns) -> str:
    return "training rows" if result.count_source == TRAINING else "rows"


def _bar(label: str, value: float | None, count: int, interval=None) -> plots.Bar:
    low, high = (interval.low, interval.high) if interval else (None, None)
    return plots.Bar(label, value, count, low, high)


def _interval_text(result: Breakdowns) -> str:
    made = result.intervals
    text = (
        f"Thin lines are 95 % intervals: {made.resamples:,} times, {made.videos:,} videos were "
        f"drawn from the {made.videos:,} with replacement (seed {made.seed}). Sorting by the "
        "interval sorts by its width."
    )
    if made.mean_average_precision is None:
        return text
    return (
        f"{text} The mean of the resamples' mAP is {made.mean_average_precision.mean:.4f}: "
        f"{breakdown_text.MEAN_RULE}"
    )


def bins(result: Breakdowns) -> Section:
    """Figure 5 b and c."""
    areas = _bin_figure(
        result.areas, "by size of the person", "share of the frame", breakdown_text.AREA_RULE
    )
    numbers = _bin_figure(
        result.numbers_of_people,
        "by number of people in the frame",
        "people in the frame",
        breakdown_text.PEOPLE_RULE,
    )
    return Section(
        "bins", "AP by size and company", (element("div", areas, numbers, class_="pair"),)
    )


def _three_digits(value: float | None) -> str:
    return "none" if value is None else f"{value:.3f}"


def _bin_figure(bins_: Sequence[subsets.Subset], what: str, column: str, rule: str) -> Markup:
    said = ", ".join(
        f"{entry.label}: {breakdown_text.format_value(entry.mean_average_precision)}"
        for entry in bins_
    )
    plot = plots.bar_plot(
        [_bar(entry.label, entry.mean_average_precision, entry.ground_truth) for entry in bins_],
        title=f"mAP {what}. {said}",
        value_name="mAP",
        count_name="ground truth",
        count_scale="linear",
    )
    rows = [
        [
            entry.label,
            _three_digits(entry.mean_average_precision),
            f"{entry.people:,}", f"{entry.ground_truth:,}", entry.num_classes,
        ]
        for entry in bins_
    ]  # fmt: skip
    return element(
        "div",
        element("h3", f"mAP {what}"),
        tables.scroll_box(f"Plot: mAP {what}", plot),
        tables.table(
            f"mAP {what}", [column, "mAP", "people", "ground truth", "classes"], rows
        ),
        element("p", rule, class_="soft"),
    )  # fmt: skip


def errors(result: Breakdowns) -> Section:
    """Kinds of errors, of all classes and of each."""
    all_errors, first_errors = result.total_errors
    entries = sorted(result.errors, key=lambda entry: -entry.first.missed)
    content = [
        element(
            "p",
            f"{breakdown_text.FIRST_RULE} Classes with most missed ground truth come first.",
        ),
        tables.legend(error_split.KINDS),
        _kinds_list(),
    ]
    if first_errors.detections:
        header = ["class", "its first detections", *error_split.KINDS, "missed"]
        rows = [_error_row(entry.name, entry.first) for entry in entries]
        total = _error_row("all classes", first_errors)
        content.append(
            tables.table(
                "Kinds of errors, first detections", header, rows, total=total, sortable=True
            )
        )
    header = ["class", *error_split.KINDS, "missed"]
    rows = [_error_row(entry.name, entry.all, with_bar=False) for entry in entries]
    total = _error_row("all classes", all_errors, with_bar=False)
    content.append(
        element(
            "details",
            element("summary", "Kinds of errors of all detections"),
            tables.table(
                "Kinds of errors, all detections", header, rows, total=total, sortable=True
            ),
        )
    )
    return Section("errors", "Kinds of errors", tuple(content))


_KIND_MEANINGS = {
    error_split.RIGHT: "the first to overlap a box of its class enough: what AP counts",
    error_split.DUPLICATE: "overlaps one enough, but a higher-scored detection has it",
    error_split.MISCLASSIFIED: "overlaps a person enough, who does not do this",
    error_split.BADLY_LOCALIZED: (
        "overlaps somebody who does this, by an IoU of at least 0.1, but not enough"
    ),
    error_split.BACKGROUND: "anything else",
}


def _kinds_list() -> Markup:
    items = [
        element("li", element("b", kind), f": {meaning}.")
        for kind, meaning in _KIND_MEANINGS.items()
    ]
    items.append(element("li", element("b", "missed"), ": ground truth that none of them found."))
    listed = element("ul", *items)
    return element("details", element("summary", "What the kinds mean"), listed)


def _error_row(name: str, counts: error_split.KindCounts, with_bar: bool = True) -> list:
    kinds = counts.of_kinds()
    cells: list = [name]
    if with_bar:
        share = kinds[error_split.RIGHT] / counts.detections if counts.detections else -1.0
        bar = tables.stacked(list(kinds.items())) if counts.detections else "none"
        cells.append(tables.Cell(bar, share))
    return [*cells, *(f"{count:,}" for count in (*kinds.values(), counts.missed))]


def confusion(result: Breakdowns) -> Section:
    """Which actions are taken for which."""
    table = result.confusion
    pairs = [
        [table.names[a], table.names[p], f"{people:,}", tables.Cell(f"{100 * share:.1f} %", share)]
        for a, p, people, share in table.most_frequent(_MOST_CONFUSED)
    ]
    content = [element("p", breakdown_text.CONFUSION_RULE)]
    if not pairs:
        content.append(element("p", "No action is taken for another."))
    else:
        header = ["people who do", "are predicted to", "people", "share of those who do"]
        content.append(
            tables.table("Most frequent confusions", header, pairs, sortable=True, text_columns=2)
        )
    done = np.flatnonzero(table.doing)
    if len(done):
        square = np.ix_(done, done)
        content.append(
            element(
                "details",
                element("summary", f"All {len(done)} classes that have ground truth"),
                tables.heat_map(
                    "Per cent of the people who do the row's action, on whom the column's is "
                    "predicted; on the diagonal they do it, too",
                    [table.names[place] for place in done],
                    table.shares[square].tolist(),
                    table.people[square].tolist(),
                ),
                open=len(done) <= 20,
            )
        )
    return Section("confusion", "Confusion of actions", tuple(content))


def top_predictions(chosen, pictures: Pictures | None) -> Section:
    """Figure 6; `chosen` is from `examples.choose`."""
    content = [element("p", "The right detections of the highest scores, from different videos.")]
    content += _example_groups(((name, right) for name, right, _ in chosen), pictures)
    return Section("top", "Top predictions", tuple(content))


def confident_errors(chosen, pictures: Pictures | None) -> Section:
    """Figure 7; `chosen` is from `examples.choose`."""
    content = [element("p", "The wrong detections of the highest scores, from different videos.")]
    content += _example_groups(((name, wrong) for name, _, wrong in chosen), pictures)
    return Section("wrong", "Most confident errors", tuple(content))


def _example_groups(groups, pictures: Pictures | None) -> Iterator[Markup]:
    if pictures is None:
        yield element("p", "There are no pictures, as no folder of videos was given (--videos).")
    else:
        items = [
            element("li", element("i", class_=f"part {name}", aria_hidden="true"), f" {text}")
            for name, text in (("detected", "detection"), ("truth", "ground truth"))
        ]
        yield element("ul", *items, class_="legend")
        yield from (element("p", note) for note in pictures.notes)
    groups = [(name, listed) for name, listed in groups if listed]
    if not groups:
        yield element("p", "There are none.")
    for name, listed in groups:
        heading = element("h3", name)
        figures = [_example_figure(example, pictures) for example in listed]
        shown = element("div", *figures, class_="pictures")
        if len(groups) > _MANY_CLASSES:
            yield element("details", element("summary", heading), shown)
        else:
            yield from (heading, shown)


def _example_figure(example: Example, pictures: Pictures | None) -> Markup:
    place = f"{example.video} at {example.seconds:g} s"
    truth = "Overlaps nobody"
    if example.actions:
        truth = f"Overlaps (IoU {example.iou:.2f}) who does: {', '.join(example.actions)}"
    caption = element(
        "figcaption",
        element("span", example.kind, class_=f"badge {example.kind.replace(' ', '-')}"),
        f" {example.name} {example.score:.2f}. {truth}. ",
        element("span", place, class_="soft"),
    )  # fmt: skip
    if pictures is None:
        return element("figure", caption)
    jpeg = pictures.jpegs.get(example)
    if jpeg is None:
        return element("figure", element("div", "no picture", class_="missing"), caption)
    said = (
        f"Frame of {place}: detection {example.name} with score {example.score:.2f}, and "
        f"{listing.counted(len(example.people), 'person', 'people')} of the ground truth"
    )
    return element("figure", _image(jpeg, said), caption)


def _image(jpeg: bytes, alt: str) -> Markup:
    width, height = jpeg_size(jpeg)
    uri = data_uri(jpeg, "image/jpeg")
    return element("img", src=uri, alt=alt, width=width, height=height)


def attention(pictures: Sequence[FilePicture], notes: Sequence[str]) -> Section:
    """What the model attended to (Figure 4): pictures as they are in their files."""
    figures = [
        element(
            "figure",
            tables.scroll_box(picture.name, _image(picture.jpeg, f"Attention: {picture.name}")),
            element("figcaption", picture.name),
        )
        for picture in pictures
    ]
    content = [element("p", note) for note in notes]
    content.append(element("div", *figures, class_="pictures long"))
    return Section("attention", "Attention", tuple(content))


def model(path: str, config: str, summary: str) -> Section:
    """The pipeline.config, and the model summary or why there is none."""
    content = (
        element("p", "From ", element("code", path), "."),
        element("pre", summary, tabindex=0, role="region", aria_label="Model summary"),
        element(
            "details",
            element("summary", "pipeline.config"),
            element("pre", config, tabindex=0, role="region", aria_label="pipeline.config"),
        ),
    )
    return Section("model", "Model", content)
