# SPDX-License-Identifier: Apache-2.0
"""What of an input reader cannot be trained or evaluated on, found before a graph is built.

Files, records, labels, shapes and the batch are looked at together, so that one run names all
faults. `record_contents` says which records are looked at.
"""

import dataclasses
import difflib
import logging
import os
from collections.abc import Iterator, Mapping, Sequence

import tensorflow as tf
from object_detection.protos import input_reader_pb2
from object_detection.utils import config_util, label_map_util

from object_detection_ext import listing
from object_detection_ext.data import (
    clip_augmentation,
    clip_features,
    record_contents,
    record_files,
    stock_transform,
)
from object_detection_ext.data.record_contents import FileContents

# The stock loops' own logger, whose messages they let through.
_log = logging.getLogger("tensorflow")

_OPTION = "[object_detection_ext.protos.video_action_transformer] { clip { %s } }"
_MAX_LISTED = 5
# As a name that was meant, a label of the map must be at least so much like the one that it is for.
_MIN_LIKENESS = 0.6


@dataclasses.dataclass(frozen=True)
class Batch:
    """Who shares a batch, and the files.

    Attributes:
      size: clips of a step, of all replicas together; None: clips are not put into batches.
      num_replicas: devices that each take an equal part.
      num_workers: input pipelines that each read a part of the files.
    """

    size: int | None
    num_replicas: int = 1
    num_workers: int = 1

    @classmethod
    def of(cls, size: int | None, context: tf.distribute.InputContext | None) -> "Batch":
        """The batch of an input pipeline, or, without a context, of the strategy in force."""
        if context is None:
            return cls(size, tf.distribute.get_strategy().num_replicas_in_sync)
        return cls(size, context.num_replicas_in_sync, context.num_input_pipelines)

    @property
    def per_replica(self) -> int:
        """Clips that one replica takes at a time."""
        return 1 if self.size is None else self.size // self.num_replicas


@dataclasses.dataclass(frozen=True)
class Reader:
    """An input reader and what is asked of its data.

    Attributes:
      message: of the pipeline.config.
      paths: its record files.
      batch: see `Batch`.
      transform: the stock transformation; None: any other, or none.
      drops_unknown_labels: whether labels that the label map does not have are dropped.
    """

    message: input_reader_pb2.InputReader
    paths: Sequence[str]
    batch: Batch
    transform: stock_transform.StockTransform | None = None
    drops_unknown_labels: bool = False

    @property
    def field(self) -> str:
        """Its name in the pipeline.config."""
        if self.transform is None:
            return "the input reader"
        return "train_input_reader" if self.transform.is_training else "eval_input_reader"

    @property
    def path_field(self) -> str:
        """The name of the field with its files."""
        return f"{self.field}.tf_record_input_reader.input_path"

    @property
    def batch_field(self) -> str:
        """The name of the field with the size of the batch."""
        if self.transform is None:
            return "batch_size"
        return f"{'train' if self.transform.is_training else 'eval'}_config.batch_size"


@dataclasses.dataclass(frozen=True)
class Checked:
    """What the check found that reading needs.

    Attributes:
      picture_size: height and width in pixels that all clips of a batch must have after resizing,
        where the resizer leaves them open; None: they are known, or need not agree.
      saw_all_records: whether every record was looked at.
    """

    picture_size: tuple[int, int] | None
    saw_all_records: bool


def check(reader: Reader) -> Checked:
    """Looks through an input reader's data; warns of what costs a part of it.

    Raises:
        RecordFileError: naming all faults, each with its file and field.
    """
    contents = record_contents.look_into(reader.paths)
    faults = [
        *_batch_faults(reader),
        *_worker_faults(reader),
        *_file_faults(reader),
        *_foreign_faults(reader, contents),
        *_keyframe_faults(reader, contents),
        *_label_faults(reader, contents),
    ]
    sizes = _resized_sizes(reader, contents)
    faults += _shape_faults(reader, sizes)
    if faults:
        text = "".join(f"\n  - {fault}" for fault in faults)
        raise record_files.RecordFileError(f"{reader.field} cannot be read from:{text}")
    (picture_size,) = sizes or (None,)
    return Checked(
        picture_size, len(contents) == len(reader.paths) and all(c.is_complete for c in contents)
    )


# --- The batch ------------------------------------------------------------------------------------


def _batch_faults(reader: Reader) -> Iterator[str]:
    size, replicas = reader.batch.size, reader.batch.num_replicas
    if size == 0:
        yield f"{reader.batch_field}: 0; at least 1."
    elif size is not None and size % replicas:
        near = max(replicas, size // replicas * replicas)
        yield (
            f"{reader.batch_field}: {size}; {replicas} replicas cannot share it evenly. It is the "
            f"batch of all replicas together: set a multiple of {replicas}, such as {near}."
        )


def _worker_faults(reader: Reader) -> Iterator[str]:
    workers = reader.batch.num_workers
    if workers == 1:
        return
    tf_reader, groups = reader.message.tf_record_input_reader, [reader.paths]
    if reader.message.sample_from_datasets_weights:
        # Each pattern is then a data set of its own, which the workers share.
        groups = [sorted(tf.io.gfile.glob(pattern)) for pattern in tf_reader.input_path]
    for paths in groups:
        used = [path for path in paths if not _is_empty(path)]
        if len(used) < workers:
            yield (
                f"{reader.path_field}: {listing.counted(len(used), 'file')} with records "
                f"({_listed(used)}) for {workers} workers, which each read files of their own. "
                f"Convert with at least {workers} shards (create_ava_records --output "
                f"'records/{{split}}@{workers}')."
            )


def _is_empty(path: str) -> bool:
    return os.path.isfile(path) and not len(record_files.find_records(path).positions)


# --- Files and records ----------------------------------------------------------------------------


def _file_faults(reader: Reader) -> Iterator[str]:
    without = [path for path in reader.paths if _is_empty(path)]
    empty = [path for path in without if not os.path.getsize(path)]
    if empty:
        _log.warning(
            "%s: %s: %s",
            reader.path_field,
            listing.counted(len(empty), "empty file"),
            _listed(empty),
        )
    others = [path for path in without if path not in empty]
    if others:
        yield (
            f"{reader.path_field}: {listing.counted(len(others), 'file')} without one whole "
            "record: "
            f"{_listed(others)}. Not TFRecords (or compressed ones), or cut off in their first "
            "record: name other files, or copy these again."
        )


def _foreign_faults(reader: Reader, contents: Sequence[FileContents]) -> Iterator[str]:
    foreign = [file for file in contents if file.num_foreign]
    whole = [file for file in foreign if file.num_foreign == file.num_read - file.num_damaged]
    if whole:
        texts = [f"{file.path} ({file.foreign[0]})" for file in whole]
        yield (
            f"{reader.path_field}: {listing.counted(len(whole), 'file')} without a "
            "SequenceExample of "
            f"clips {_looked_at(contents)}: {_listed(texts)}. tools/create_ava_records writes such "
            "records; name its files, and no others."
        )
    elif foreign:
        texts = [f"{file.path}, {text}" for file in foreign for text in file.foreign]
        _log.warning(
            "%s: %s %s without what clips need, left out: %s",
            reader.path_field,
            listing.counted(sum(file.num_foreign for file in foreign), "record"),
            _looked_at(contents),
            _listed(texts),
        )


def _keyframe_faults(reader: Reader, contents: Sequence[FileContents]) -> Iterator[str]:
    def usable(file):
        return file.num_read - file.num_damaged - file.num_foreign

    without = [file for file in contents if file.num_without_keyframe]
    whole = [file for file in without if file.num_without_keyframe == usable(file)]
    if whole:
        yield (
            f"{reader.path_field}: {listing.counted(len(whole), 'file')} without an annotated "
            f"frame ({clip_features.IS_ANNOTATED} is 0 for all) {_looked_at(contents)}: "
            f"{_listed([file.path for file in whole])}. They give no clips: annotated frames are "
            "those with 1, also where nobody is on them. Mark them, or name no such files."
        )
    elif without:
        _log.warning(
            "%s: %s %s without an annotated frame (%s), which give no clip, in %s",
            reader.path_field,
            listing.counted(sum(file.num_without_keyframe for file in without), "record"),
            _looked_at(contents),
            clip_features.IS_ANNOTATED,
            _listed([file.path for file in without]),
        )


# --- Labels ---------------------------------------------------------------------------------------


def _label_faults(reader: Reader, contents: Sequence[FileContents]) -> Iterator[str]:
    names = label_map_util.get_label_map_dict(reader.message.label_map_path)
    unknown = unknown_labels(contents, names)
    if not unknown:
        return
    texts = []
    for label, (count, where) in unknown.items():
        near = nearest_names(label, names)
        hint = f"; nearest: {' or '.join(map(repr, near))}" if near else ""
        texts.append(f"{label!r} ({listing.counted(count, 'row')}, first in {where}{hint})")
    rows = sum(count for count, _ in unknown.values())
    text = (
        f"{reader.field}.label_map_path: '{reader.message.label_map_path}' does not have "
        f"{listing.counted(len(unknown), 'label')} of the records, "
        f"{listing.counted(rows, 'row')} of them "
        f"{_looked_at(contents)}: {_listed(texts)}."
    )
    if reader.drops_unknown_labels:
        _log.warning("%s These rows are dropped.", text)
        return
    yield (
        f"{text} Use the label map of the conversion, or convert again. If such rows are to be "
        "dropped, as from AVA's 80 classes for a model of 60, set "
        f"{_OPTION % 'drop_unknown_labels: true'}."
    )


def unknown_labels(
    contents: Sequence[FileContents], names: Mapping[str, int]
) -> dict[str, tuple[int, str]]:
    """Labels that a label map does not have: their number of rows, and the first record in words.

    The most frequent come first.
    """
    unknown: dict[str, tuple[int, str]] = {}
    for file in contents:
        for label, (count, record) in file.labels.items():
            if label not in names:
                before, where = unknown.get(label, (0, f"record {record} of {file.path}"))
                unknown[label] = before + count, where
    return dict(sorted(unknown.items(), key=lambda item: -item[1][0]))


def nearest_names(label: str, names: Mapping[str, int]) -> list[str]:
    """Up to two names of a label map that may have been meant; the case of letters is ignored."""
    by_lower_case = {name.lower(): name for name in names}
    close = difflib.get_close_matches(label.lower(), by_lower_case, n=2, cutoff=_MIN_LIKENESS)
    if close and close[0] == label.lower():
        del close[1:]
    return [by_lower_case[name] for name in close]


# --- Shapes ---------------------------------------------------------------------------------------


def _resized_sizes(reader: Reader, contents: Sequence[FileContents]) -> dict[tuple[int, int], str]:
    """Sizes of resized frames, each with a record in words, where they must agree.

    Height and width in pixels. Empty where the resizer makes all frames alike, where a batch is one
    clip, or where only resizing itself shows it.
    """
    if reader.transform is None or reader.batch.per_replica <= 1:
        return {}
    if -1 not in config_util.get_spatial_image_size(reader.transform.image_resizer):
        return {}
    _, is_set = clip_augmentation.steps_that_draw_sizes(reader.transform.steps.others)
    if is_set:
        return {}
    sizes: dict[tuple[int, int], str] = {}
    for file in contents:
        for size, record in file.sizes.items():
            sizes.setdefault(size, f"{size[0]} x {size[1]} in record {record} of {file.path}")
    resizer, found = reader.transform.build_resizer(), {}
    for size, where in sizes.items():
        with tf.Graph().as_default():
            frame = tf.compat.v1.placeholder(tf.float32, [*size, 3])
            height, width, _ = resizer(frame)[0].shape
        if height is None or width is None:
            return {}
        found.setdefault((height, width), where)
    return found


def _shape_faults(reader: Reader, sizes: Mapping[tuple[int, int], str]) -> Iterator[str]:
    if not sizes:
        return
    resizer = reader.transform.image_resizer
    kind = resizer.WhichOneof("image_resizer_oneof")
    advice = f"Set image_resizer {{ fixed_shape_resizer }}, or {reader.batch_field}: " + str(
        reader.batch.num_replicas
    )
    if kind == "keep_aspect_ratio_resizer":
        advice = f"Set pad_to_max_dimension: true in it. (Or: {advice[0].lower()}{advice[1:]})"
    start = f"model.faster_rcnn.image_resizer.{kind} with {reader.batch_field} "
    start += f"{reader.batch.size}: the clips of a batch must have one shape, but "
    drawing, _ = clip_augmentation.steps_that_draw_sizes(reader.transform.steps.others)
    if drawing:
        steps = ", ".join(sorted(set(drawing)))
        where = f"train_config.data_augmentation_options ({steps})"
        yield f"{start}{where} draw another one for each. {advice}."
    elif len(sizes) > 1:
        texts = [f"{h} x {w} (from {where})" for (h, w), where in sizes.items()]
        yield f"{start}the frames of these records have {len(sizes)}: {_listed(texts)}. {advice}."


# --- In words -------------------------------------------------------------------------------------


def _looked_at(contents: Sequence[FileContents]) -> str:
    """How many records were looked at, in brackets."""
    num_read = sum(file.num_read for file in contents)
    if all(file.is_complete for file in contents):
        return f"(of all {listing.counted(num_read, 'record')})"
    total = sum(file.num_records or 0 for file in contents)
    of_all = f" of {total:,}" if total else ""
    return f"(of {num_read:,}{of_all} records that were looked at)"


def _listed(items: Sequence[str]) -> str:
    return listing.in_line(items, _MAX_LISTED)
