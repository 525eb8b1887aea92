# SPDX-License-Identifier: Apache-2.0
"""Checks of the pipeline.config by itself, and against the label map and the annotations."""

from collections.abc import Iterator

import numpy as np

from object_detection_ext import options as options_lib
from object_detection_ext import pipeline_check
from object_detection_ext.ava import faults, label_maps
from object_detection_ext.doctor import annotation_rows, findings
from object_detection_ext.doctor.examination import Examination
from object_detection_ext.doctor.findings import ERROR, WARNING, Finding


def readers(pipeline) -> dict[str, object]:
    """Returns the input readers by split: the one for training and the first for evaluation."""
    found = {"train": pipeline.train_input_reader}
    if pipeline.eval_input_reader:
        found["val"] = pipeline.eval_input_reader[0]
    return found


def field_of(split: str) -> str:
    """The name of a split's reader in the pipeline.config."""
    return {"train": "train_input_reader", "val": "eval_input_reader"}[split]


def clip_options(pipeline) -> tuple[int | None, float | None]:
    """Returns T and the frames per second that the config asks of clips, None where it does not."""
    if not pipeline_check.is_video_pipeline(pipeline):
        return None, None
    clip = pipeline.Extensions[options_lib.EXTENSION].clip
    return clip.num_frames, clip.fps or None


def max_frame_pixels(pipeline) -> int:
    """Returns the pixels that a frame of the records may have."""
    return pipeline.Extensions[options_lib.EXTENSION].clip.max_frame_pixels


def own_faults(exam: Examination) -> Iterator[Finding]:
    """What `pipeline_check` finds, which training would stop at."""
    for fault in pipeline_check.find_faults(exam.pipeline):
        what, _, advice = fault.partition("; ")
        if not advice:
            what, _, advice = fault.partition(". ")
        yield Finding(
            "pipeline_fault", ERROR, exam.pipeline_path, what, advice or "correct this field",
            unit="fields", value=fault.partition(": ")[0],
        )  # fmt: skip


def class_count(exam: Examination) -> Iterator[Finding]:
    """`num_classes` against the label map's highest id."""
    num_classes = exam.pipeline.model.faster_rcnn.num_classes
    highest = max(exam.label_map)
    advice = f"num_classes: {highest}, the highest id of {exam.label_map_path}"
    if num_classes > highest:
        yield Finding(
            "num_classes", WARNING, exam.pipeline_path,
            f"model.faster_rcnn.num_classes is {num_classes}: the ids from {highest + 1} on have "
            "no name and no example", advice, unit="fields", value=str(num_classes),
        )  # fmt: skip
    # The label maps that the config names are looked at by `pipeline_check` already.
    elif num_classes < highest and exam.label_map_path not in {
        reader.label_map_path for reader in readers(exam.pipeline).values()
    }:
        yield Finding(
            "num_classes", ERROR, exam.pipeline_path,
            f"model.faster_rcnn.num_classes is {num_classes}, less than the label map's highest id",
            advice, unit="fields", value=str(num_classes),
        )  # fmt: skip


def label_maps_differ(exam: Examination) -> Iterator[Finding]:
    """The label maps that the config names against the one of the annotations."""
    for split, reader in readers(exam.pipeline).items():
        path = reader.label_map_path
        if not path or path == exam.label_map_path:
            continue
        try:
            other = label_maps.read_label_map(path)
        except faults.AnnotationError:
            continue  # `pipeline_check` says so
        differ = sorted(
            i for i in {*other, *exam.label_map} if other.get(i) != exam.label_map.get(i)
        )
        if differ:
            texts = [f"{i} is {other.get(i)!r}, not {exam.label_map.get(i)!r}" for i in differ]
            yield Finding(
                "label_maps_differ", ERROR, path,
                f"{field_of(split)}.label_map_path names other classes than "
                f"{exam.label_map_path}: {findings.in_words(texts)}",
                "use one label map for the records, the training and the evaluation",
                count=len(differ), unit="classes", value=str(differ[0]), items=tuple(texts),
            )  # fmt: skip


def too_many_boxes(exam: Examination) -> Iterator[Finding]:
    """Keyframes with more rows than the reader's `max_number_of_boxes`, which cuts them off."""
    for split_name, reader in readers(exam.pipeline).items():
        split, limit = exam.splits.get(split_name), reader.max_number_of_boxes
        if split is None or not split.has_box.any():
            continue
        frame, what = split.keyframes.of_row[split.has_box], "rows"
        if split_name == "train" and exam.pipeline.train_config.merge_multiple_label_boxes:
            # There a person is one box with all actions before the limit comes.
            boxes = np.column_stack([frame, split.corners[split.has_box]])
            frame = frame[~annotation_rows.repeated(boxes, np.arange(len(boxes)))]
            what = "people"
        counts = np.bincount(frame, minlength=len(split.keyframes))
        over = counts > limit
        if over.any():
            yield Finding(
                "too_many_boxes", ERROR, split.path,
                f"keyframes with more {what} than {field_of(split_name)}.max_number_of_boxes, "
                f"{limit}: up to {counts.max()}; the others are cut off",
                f"max_number_of_boxes: {counts.max()} in {exam.pipeline_path}",
                count=int(over.sum()), unit="keyframes",
                rows=tuple(np.sort(split.keyframes.row[over])[: findings.MAX_ROWS].tolist()),
                value=str(int(counts.max())),
            )  # fmt: skip
