# SPDX-License-Identifier: Apache-2.0
"""Checks of the record files that a pipeline.config names.

All records of local files are read; lengths and frame rates are those of the first of each file.
"""

import os
from collections.abc import Iterator

from object_detection_ext import builders, listing
from object_detection_ext import options as options_lib
from object_detection_ext.ava import faults, label_maps
from object_detection_ext.data import input_check
from object_detection_ext.doctor import dense_keyframes, findings
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
        texts = [
            f"{path} after {listing.counted(n, 'whole record')}"
            for path, n in records.truncated.items()
        ]
        yield Finding(
            "record_truncated", ERROR, next(iter(records.truncated)),
            "record files that are cut off, no TFRecords, or with a damaged length: "
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
            "records that are not what was written, by their checksums (from 0): "
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
    if records.unreadable:
        text = records.unreadable[0]
        file = _file_of(text, records)
        yield Finding(
            "record_unreadable", ERROR, file,
            f"no records of clips: {findings.in_words(records.unreadable)}",
            "make the records with create_ava_records", count=len(records.unreadable),
            unit="records", value=_after_file(text, records), items=records.unreadable,
        )  # fmt: skip


def whole_records(exam: Examination) -> Iterator[Finding]:
    """What is wrong inside records: lists, pictures, boxes, keyframes."""
    for records in exam.records.values():
        faults = records.faults
        for code, texts, what, unit, advice in (
            (
                "record_lists", faults.lists, "lists that should be of one length differ",
                "records", "write one entry for each frame, and one for each row of a frame",
            ),
            (
                "record_keyframe", faults.keyframes, "annotated frames that cannot be decoded",
                "frames", "convert again; training leaves their clips out",
            ),
            (
                "record_frame_pixels", faults.pixels,
                f"frames of more than {faults.max_frame_pixels:,} pixels", "frames",
                "training leaves their clips out: convert with --short_side, or set clip { "
                "max_frame_pixels }",
            ),
            (
                "record_frame_size", faults.sizes, "frames of another size", "records",
                "all frames of a record must have one size: convert again",
            ),
            (
                "record_box", faults.boxes,
                "boxes [ymin, xmin, ymax, xmax] that are not in the frame", "boxes",
                "write sides in parts of the frame, from 0 to 1, ymin < ymax and xmin < xmax",
            ),
        ):  # fmt: skip
            if texts:
                yield Finding(
                    code, ERROR, _file_of(texts[0], records), f"{what}: {findings.in_words(texts)}",
                    advice, count=len(texts), unit=unit,
                    value=_after_file(texts[0], records), items=tuple(texts),
                )  # fmt: skip
        yield from _without_keyframe(records)


def _without_keyframe(records: SplitRecords) -> Iterator[Finding]:
    texts = records.faults.without_keyframe
    if texts:
        # Where no record of a file has one, training stops before it begins.
        files = [path for path, count in records.faults.with_keyframe.items() if not count]
        yield Finding(
            "record_not_annotated", ERROR if files else WARNING,
            files[0] if files else _file_of(texts[0], records),
            "records without an annotated frame (region/is_annotated), which give no clip: "
            f"{findings.in_words(texts)}",
            "mark the frames that are annotated, also where nobody is on them",
            count=len(texts), unit="records", value=_after_file(texts[0], records),
            items=tuple(texts),
        )  # fmt: skip


def _file_of(text: str, records: SplitRecords) -> str:
    """The file that a text about a record begins with."""
    return max((path for path in records.paths if text.startswith(path)), key=len)


def _after_file(text: str, records: SplitRecords) -> str:
    return text.removeprefix(_file_of(text, records)).lstrip(":, ")


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
        f"records of {listing.counted(record.num_frames, 'frame')} with keyframe {keyframe}, "
        f"but clips of {wanted} "
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
        names = {name: number for number, name in label_maps.read_label_map(path).items()}
    except faults.AnnotationError:
        return  # `pipeline_check` says so
    unknown = {label: of for label, of in sorted(records.labels.items()) if label not in names}
    if unknown:
        label, (_, file) = next(iter(unknown.items()))
        texts = []
        for name, (count, _) in unknown.items():
            near = input_check.nearest_names(name, names)
            hint = f"; nearest: {' or '.join(map(repr, near))}" if near else ""
            texts.append(f"{name!r} ({listing.counted(count, 'row')}{hint})")
        dropped = exam.pipeline.Extensions[options_lib.EXTENSION].clip.drop_unknown_labels
        yield Finding(
            "record_label_unknown", WARNING if dropped else ERROR, file,
            f"labels that {path} does not have: {findings.in_words(texts)}",
            "their rows are dropped in training, as clip { drop_unknown_labels } says" if dropped
            else "training refuses them: use the label map of the conversion, or convert again",
            count=len(unknown), unit="labels", value=label, items=tuple(unknown),
        )  # fmt: skip


def counts(exam: Examination) -> Iterator[Finding]:
    """Records of other keyframes than the annotations have."""
    for records in exam.records.values():
        yield from _counts(records, exam)


def _counts(records: SplitRecords, exam: Examination) -> Iterator[Finding]:
    split = exam.splits.get(records.split)
    if split is None or not records.look.records or records.truncated or records.unreadable:
        return
    if records.look.keyframes_per_record != 1:
        return  # only some records were looked at, and these need not be like the others
    clips = records.num_records
    keyframes = int(dense_keyframes.kept(split, exam.every).sum())
    # Excluded ones are left out by the conversion, or by the evaluation.
    less = int(dense_keyframes.kept(split, exam.every, exam.is_excluded(split)).sum())
    if clips not in (keyframes, less):
        yield Finding(
            "record_count", WARNING, split.path,
            f"{listing.counted(keyframes, 'keyframe')} here, but "
            f"{listing.counted(clips, 'clip')} in {records.name}",
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
            "train_input_reader and eval_input_reader read the same files: "
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
