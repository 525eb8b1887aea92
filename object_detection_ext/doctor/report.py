# SPDX-License-Identifier: Apache-2.0
"""What the doctor says, for people and for machines."""

import dataclasses
import json
import os
import textwrap
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from object_detection_ext import listing, progress
from object_detection_ext.doctor import annotation_checks, findings
from object_detection_ext.doctor.estimates import Estimate
from object_detection_ext.doctor.examination import ClipOptions, Examination
from object_detection_ext.doctor.findings import ERROR, WARNING, Finding

_WIDTH = 100
_INDENT = " " * 9
# Classes that the text names at both ends of the long tail; the JSON has all.
_TAIL = 5

_OPTIONS = {
    "annotations": "--annotations or --val_annotations",
    "train": "--annotations",
    "val": "--val_annotations",
    "label_map": "--label_map",
    "videos": "--videos",
    "samples": "--sample_keyframes",
    "pipeline": "--pipeline_config_path",
    "records": "--pipeline_config_path with records",
    "both records": "--pipeline_config_path with records of both splits",
}


@dataclasses.dataclass(frozen=True)
class SplitSummary:
    """What a split holds; `rows_by_class` by action id, empty without a label map."""

    path: str
    rows: int
    keyframes: int
    keyframes_without_people: int
    boxes: int
    videos: int
    rows_by_class: Mapping[int, int]


@dataclasses.dataclass(frozen=True)
class Report:
    """Everything that was found.

    `not_checked` names for each check that was left out what it lacked; `contact_sheet` is the
    picture's path with the number of keyframes on it.
    """

    clip: ClipOptions
    label_map: Mapping[int, str]
    splits: Mapping[str, SplitSummary]
    findings: Sequence[Finding]
    not_checked: Mapping[str, Sequence[str]]
    estimates: Mapping[str, Estimate]
    contact_sheet: tuple[str, int] | None = None

    def count(self, severity: str) -> int:
        """How many findings of a severity there are."""
        return sum(finding.severity == severity for finding in self.findings)


def summarize(exam: Examination) -> dict[str, SplitSummary]:
    """Counts what each split holds."""
    summaries = {}
    for name, split in exam.splits.items():
        by_class = {}
        if exam.label_map is not None:
            by_class = annotation_checks.rows_by_class(split, exam.label_map)
        with_people = len(np.unique(split.keyframes.of_row[split.has_box]))
        summaries[name] = SplitSummary(
            path=split.path,
            rows=split.num_rows,
            keyframes=len(split.keyframes),
            keyframes_without_people=len(split.keyframes) - with_people,
            boxes=split.num_boxes,
            videos=len(split.video_ids),
            rows_by_class=by_class,
        )
    return summaries


# --- For people -----------------------------------------------------------------------------------


def to_text(report: Report) -> str:
    """The report as a short text: what there is, what is wrong, what was not checked."""
    blocks = [
        list(_summary_lines(report)),
        [line for finding in report.findings for line in _finding_lines(finding)],
        list(_not_checked_lines(report.not_checked)),
        list(_estimate_lines(report)),
        [_verdict(report)],
    ]
    return "\n\n".join("\n".join(lines) for lines in blocks if lines)


def _wrap(text: str, first: str, rest: str) -> list[str]:
    return textwrap.wrap(
        text, _WIDTH, initial_indent=first, subsequent_indent=rest,
        break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip


def _summary_lines(report: Report) -> Iterator[str]:
    for name, split in report.splits.items():
        yield (
            f"{name}: {split.path}: {listing.counted(split.rows, 'row')}, "
            f"{listing.counted(split.boxes, 'box', 'boxes')} on "
            f"{listing.counted(split.keyframes, 'keyframe')} "
            f"({split.keyframes_without_people:,} without people) of "
            f"{listing.counted(split.videos, 'video')}"
        )
        counts = sorted(split.rows_by_class.items(), key=lambda item: (-item[1], item[0]))
        texts = [f"{report.label_map[i]} {count:,}" for i, count in counts]
        if len(texts) > 2 * _TAIL:
            middle = f"... {listing.counted(len(texts) - 2 * _TAIL, 'class', 'classes')} ..."
            texts = [*texts[:_TAIL], middle, *texts[-_TAIL:]]
        if texts:
            yield from _wrap("rows per class: " + ", ".join(texts), "  ", "    ")


def _finding_lines(finding: Finding) -> Iterator[str]:
    where = finding.file
    if finding.rows:
        rows = finding.rows[: findings.MAX_EXAMPLES]
        more = finding.unit == "rows" and finding.count > len(rows)
        more = more or len(finding.rows) > len(rows)
        where += f":{','.join(map(str, rows))}{',...' * more}"
    unit = finding.unit
    if finding.count == 1:
        unit = {"classes": "class"}.get(unit, unit.removesuffix("s"))
    yield f"{finding.severity:<9}{finding.code}, {finding.count:,} {unit}: {where}"
    yield from _wrap(finding.message, _INDENT, _INDENT)
    yield from _wrap(finding.advice, f"{_INDENT}-> ", f"{_INDENT}   ")


def _not_checked_lines(not_checked: Mapping[str, Sequence[str]]) -> Iterator[str]:
    by_lack: dict[tuple[str, ...], list[str]] = {}
    for title, lacks in not_checked.items():
        by_lack.setdefault(tuple(lacks), []).append(title)
    for lacks, titles in by_lack.items():
        options = " and ".join(_OPTIONS[name] for name in lacks)
        yield from _wrap(f"{', '.join(titles)} (needs {options})", "not checked: ", "    ")


def _estimate_lines(report: Report) -> Iterator[str]:
    clip = report.clip
    side = f", short side {clip.short_side}" if clip.short_side else ""
    for name, estimate in report.estimates.items():
        text = (
            f"{name}: {listing.counted(estimate.clips, 'clip')} of "
            f"{listing.counted(clip.num_frames, 'frame')} at {clip.fps:g} fps{side}"
        )
        if estimate.sampled_frames:
            text += (
                f": records of about {_bytes(estimate.total_bytes)} "
                f"({_bytes(estimate.record_bytes)} each), converted in about "
                f"{progress.format_seconds(max(1.0, estimate.total_seconds))} of one core "
                f"(decoding a frame {1000 * estimate.decode_seconds:.1f} ms, encoding it "
                f"{1000 * estimate.encode_seconds:.1f} ms, measured on {estimate.sampled_frames})"
            )
        else:
            text += "; no keyframe of a sample could be read, so size and time are not known"
        yield from _wrap(text, "estimate: ", "    ")


def _bytes(count: float) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


def _verdict(report: Report) -> str:
    lines = []
    if report.contact_sheet:
        path, count = report.contact_sheet
        lines.append(f"{listing.counted(count, 'keyframe')} with all boxes: {path}")
    errors, warnings = report.count(ERROR), report.count(WARNING)
    if errors or warnings:
        texts = [
            listing.counted(count, word)
            for count, word in ((errors, "error"), (warnings, "warning"))
            if count
        ]
        lines.append(f"Found {' and '.join(texts)}.")
    else:
        lines.append("Nothing wrong was found.")
    return "\n".join(lines)


# --- For machines ---------------------------------------------------------------------------------


def to_json(report: Report) -> str:
    """The report as JSON; keys stay from version to version."""
    names = report.label_map
    splits = {}
    for name, split in report.splits.items():
        splits[name] = dataclasses.asdict(split) | {
            "rows_by_class": [
                {"id": i, "name": names[i], "rows": count}
                for i, count in split.rows_by_class.items()
            ]
        }
    result = {
        "errors": report.count(ERROR),
        "warnings": report.count(WARNING),
        "findings": [finding.to_dict() for finding in report.findings],
        "not_checked": [
            {"check": title, "needs": [_OPTIONS[name] for name in lacks]}
            for title, lacks in report.not_checked.items()
        ],
        "splits": splits,
        "clip": dataclasses.asdict(report.clip),
        "estimates": {
            name: dataclasses.asdict(estimate) for name, estimate in report.estimates.items()
        },
        "contact_sheet": None,
    }
    if report.contact_sheet:
        path, count = report.contact_sheet
        result["contact_sheet"] = {"path": os.fspath(path), "keyframes": count}
    return json.dumps(result, indent=1)
