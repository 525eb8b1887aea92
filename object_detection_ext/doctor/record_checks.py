# SPDX-License-Identifier: Apache-2.0
"""Checks of the record files that a pipeline.config names.

All local ones are read for their checksums; what records say is that of the first of each file.
"""

import os
from collections.abc import Iterator

from object_detection_ext import builders
from object_detection_ext import options as options_lib
from object_detection_ext.data import annotations
from object_detection_ext.doctor import findings
from object_detection_ext.doctor.examination import Examination
from object_detection_ext.doctor.findings import ERROR, WARNING, Finding
from object_detection_ext.doctor.pipeline_checks import clip_options, field_of, readers
from object_detection_ext.doctor.split_records import SplitRecords


def files(exam: Examination) -> Iterator[Finding]:
    """Record files that are missing, cut off, damaged, empty or no records of clips."""
    for records in exam.records.values():
        yield from _files(records, exam)
        yield from _contents(records)


def _files(records: SplitRecords, exam: Examination) -> Iterator[Finding]:
    field = f"{field_of(records.split)}.tf_record_input_reader.input_path"
    for pattern in records.without_match:
        yield Finding(
            "record_missing", ERROR, exam.pipeline_path,
            f"{field}: no file matches '{pattern}' (from {os.getcwd()})",
            "make the records with create_ava_records; sharded ones match with "
            "'NAME-?????-of-?????'", unit="patterns", value=pattern,
        )  # fmt: skip
    if records.truncated:
        texts = [f"{path} after {n} whole records" for path, n in records.truncated.items()]
        yield Finding(
            "record_truncated", ERROR, next(iter(records.truncated)),
            f"record files that are cut off, no TFRecords, or with a damaged length: "
            f"{findings.in_words(texts)}",
            "copy the files again, or convert again", count=len(texts), unit="files",
            value=os.path.basename(next(iter(records.truncated))), items=tuple(texts),
        )  # fmt: skip
    for name, counts in records.shard_sets.items():
        texts = [f"{name}-?????-of-{count:05d}" for count in counts]
        yield Finding(
            "record_shards_mixed", ERROR, exam.pipeline_path,
            f"{field}: files of several conversions: {findings.in_words(texts)}",
            "remove those of the older conversion, or name one set in full", count=len(texts),
            unit="sets", value=texts[0], items=tuple(texts),
        )  # fmt: skip


def _contents(records: SplitRecords) -> Iterator[Finding]:
    if records.damaged:
        texts = [f"{p}, record {n}" for p, numbers in records.damaged.items() for n in numbers]
        path, (number, *_) = next(iter(records.damaged.items()))
        yield Finding(
            "record_damaged", ERROR, path,
            f"records that are not what was written, by their checksums (from 0): "
            f"{findings.in_words(texts)}",
            "copy the files again, or convert again; training leaves these records out",
            count=len(texts), unit="records", value=str(number), items=tuple(texts),
        )  # fmt: skip
    if records.empty:
        severity = WARNING if records.num_records else ERROR
        yield Finding(
            "record_empty", severity, records.empty[0],
            f"record files without a record: {findings.in_words(records.empty)}",
            "use fewer shards, or convert again", count=len(records.empty), unit="files",
            value=os.path.basename(records.empty[0]), items=tuple(records.empty),
        )  # fmt: skip
    if records.look.unreadable:
        text = records.look.unreadable[0]
        file = max((path for path in records.paths if text.startswith(path)), key=len)
        yield Finding(
            "record_unreadable", ERROR, file,
            f"no records of clips: {findings.in_words(records.look.unreadable)}",
            "make the records with create_ava_records", count=len(records.look.unreadable),
            unit="records", value=text.removeprefix(file).lstrip(":, "),
            items=records.look.unreadable,
        )  # fmt: skip


def lengths(exam: Examination) -> Iterator[Finding]:
    """Records with fewer frames than a clip."""
    for records in exam.records.values():
        yield from _lengths(records, exam)


def _lengths(records: SplitRecords, exam: Examination) -> Iterator[Finding]:
    wanted = exam.clip.num_frames
    clip = exam.pipeline.Extensions[options_lib.EXTENSION].clip
    before, behind = builders.frame_choice(clip, is_training=records.split == "train").reach(wanted)
    short = [
        (record, keyframe)
        for record in records.look.records
        for keyframe in record.keyframes
        if keyframe < before or record.num_frames - 1 - keyframe < behind
    ]
    if not short:
        return
    record, keyframe = min(short, key=lambda item: item[0].num_frames)
    fewer = record.num_frames < wanted
    advice = f"convert with --num_frames {max(wanted, 2 * max(before, behind + 1))}"
    yield Finding(
        "record_too_short", ERROR if fewer else WARNING, record.path,
        f"records of {record.num_frames} frames with keyframe {keyframe}, but clips of {wanted} "
        f"frames take up to {before} before and {behind} behind it ({len(short)} of "
        f"{len(records.look.records)} looked at): first and last frames would be repeated",
        advice + f", or set clip {{ num_frames: {record.num_frames} }}" * fewer,
        count=len(short), unit="records", value=str(record.num_frames),
    )  # fmt: skip


def frame_rates(exam: Examination) -> Iterator[Finding]:
    """Records with another frame rate than the config or --fps says."""
    for records in exam.records.values():
        yield from _rates(records, exam)


def _rates(records: SplitRecords, exam: Examination) -> Iterator[Finding]:
    wanted = exam.clip.fps
    other = [
        record
        for record in records.look.records
        if record.fps and abs(record.fps / wanted - 1.0) > record.fps_error
    ]
    if other:
        source = "the config's" if clip_options(exam.pipeline)[1] == wanted else "--fps"
        yield Finding(
            "record_fps", ERROR, other[0].path,
            f"records with {other[0].rate} frames per second, not {source} {wanted:g} "
            f"({len(other)} of {len(records.look.records)} looked at)",
            f"convert with --fps {wanted:g}, or say {other[0].rate} where {wanted:g} is said",
            count=len(other), unit="records",
            value=other[0].rate,
        )  # fmt: skip


def labels(exam: Examination) -> Iterator[Finding]:
    """Labels in the records that the reader's label map does not have."""
    for records in exam.records.values():
        yield from _labels(records, exam)


def _labels(records: SplitRecords, exam: Examination) -> Iterator[Finding]:
    path = readers(exam.pipeline)[records.split].label_map_path
    try:
        names = set(annotations.read_label_map(path).values())
    except annotations.AnnotationError:
        return  # `pipeline_check` says so
    unknown: dict[str, str] = {}
    for record in records.look.records:
        for label in sorted(record.labels - names):
            unknown.setdefault(label, record.path)
    if unknown:
        label, file = next(iter(unknown.items()))
        yield Finding(
            "record_label_unknown", ERROR, file,
            f"labels that {path} does not have: {findings.in_words([repr(x) for x in unknown])}",
            "their rows are dropped in training: use the label map of the conversion, or convert "
            "again", count=len(unknown), unit="labels", value=label, items=tuple(unknown),
        )  # fmt: skip


def counts(exam: Examination) -> Iterator[Finding]:
    """Records of other keyframes than the annotations have."""
    for records in exam.records.values():
        yield from _counts(records, exam)


def _counts(records: SplitRecords, exam: Examination) -> Iterator[Finding]:
    split = exam.splits.get(records.split)
    if split is None or not records.look.records or records.truncated or records.look.unreadable:
        return
    if records.look.keyframes_per_record != 1:
        return  # only some records were looked at, and these need not be like the others
    clips = records.num_records
    keyframes = len(split.keyframes)
    if clips != keyframes:
        yield Finding(
            "record_count", WARNING, split.path,
            f"{keyframes:,} keyframes here, but {clips:,} clips in {records.name}",
            "convert again if the annotations changed; what a conversion left out is in its "
            "-manifest.json", count=abs(clips - keyframes), unit="keyframes", value=str(clips),
        )  # fmt: skip


def shared_files(exam: Examination) -> Iterator[Finding]:
    """Files that both the training and the evaluation read."""
    train, val = exam.records["train"], exam.records["val"]
    real = {os.path.realpath(path) for path in train.paths}
    both = [path for path in val.paths if os.path.realpath(path) in real]
    if both:
        yield Finding(
            "record_shared", ERROR, exam.pipeline_path,
            f"train_input_reader and eval_input_reader read the same files: "
            f"{findings.in_words(both)}",
            "give the evaluation records of videos that the training does not see",
            count=len(both), unit="files", value=os.path.basename(both[0]), items=tuple(both),
        )  # fmt: skip


def different_rates(exam: Examination) -> Iterator[Finding]:
    """Records of the two splits with different frame rates."""
    train, val = exam.records["train"], exam.records["val"]
    if not train.fps or not val.fps:
        return
    error = max(record.fps_error for record in (*train.look.records, *val.look.records))
    if abs(train.fps / val.fps - 1.0) <= error:
        return
    yield Finding(
        "record_fps_differ", ERROR, val.look.records[0].path,
        f"these records have {val.fps:.4g} frames per second, those of the training "
        f"{train.fps:.4g}",
        "convert both splits with the same --fps", unit="splits", value=f"{val.fps:.4g}",
    )  # fmt: skip
