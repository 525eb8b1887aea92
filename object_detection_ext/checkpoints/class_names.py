# SPDX-License-Identifier: Apache-2.0
"""The names of a model's classes, and which classes of two models are the same.

A column of the last layers stands for an id of the label map that the model was trained with. A
training therefore keeps a copy of it beside its checkpoints: the file that its pipeline.config
names may be changed later, an id then stands for another class.
"""

import collections
import dataclasses
import os
from collections.abc import Iterator, Mapping

import tensorflow as tf
from google.protobuf import text_format
from object_detection.protos import pipeline_pb2
from object_detection.utils import label_map_util

from object_detection_ext import errors, listing
from object_detection_ext import files as file_systems
from object_detection_ext.input_types import LABEL_MAP_ASSET

# What a training's copy is called, in its model_dir.
KEPT_LABEL_MAP = "training_label_map.pbtxt"
_PIPELINE = "pipeline.config"
# Folders of checkpoints inside an export or a model_dir, which describes them.
_INNER_FOLDERS = ("checkpoint", "best")


@dataclasses.dataclass(frozen=True)
class ClassNames:
    """Names by id, from 1; or why they are not known."""

    num_classes: int
    source: str = ""
    by_id: Mapping[int, str] = dataclasses.field(default_factory=dict)
    unknown: str = ""


@dataclasses.dataclass(frozen=True)
class ClassMatch:
    """Which classes of a checkpoint are classes of a model."""

    # (id in the model, id in the checkpoint), by the model's id.
    pairs: tuple[tuple[int, int], ...]
    new: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()


def match(model: ClassNames, checkpoint: ClassNames) -> ClassMatch:
    """Matches the classes of two models, whose names are known, by name."""
    old_ids = {name: number for number, name in checkpoint.by_id.items()}
    ids = sorted(model.by_id.items())
    if model == dataclasses.replace(checkpoint, source=model.source):
        # The same label map: classes without a name are the same too.
        every_id = range(1, model.num_classes + 1)
        return ClassMatch(pairs=tuple((number, number) for number in every_id))
    new_names = set(model.by_id.values())
    return ClassMatch(
        pairs=tuple((number, old_ids[name]) for number, name in ids if name in old_ids),
        new=tuple(name for _, name in ids if name not in old_ids),
        dropped=tuple(
            name for _, name in sorted(checkpoint.by_id.items()) if name not in new_names
        ),
    )


def of_training(label_map_path: str, num_classes: int) -> ClassNames:
    """The names of the classes that a training has.

    Args:
        label_map_path: `train_input_reader.label_map_path`.
        num_classes: of the model.
    """
    if not label_map_path:
        return ClassNames(num_classes, unknown="train_input_reader.label_map_path is not set")
    return _read(label_map_path, num_classes)


def of_checkpoint(prefix: str, num_classes: int) -> ClassNames:
    """The names of the classes of the model that a checkpoint holds.

    From the copy that its training kept, from the export that it belongs to, or from the label map
    that the pipeline.config beside it names.

    Args:
        prefix: such as `.../ckpt-3`.
        num_classes: that its last layer has.
    """
    folder = os.path.dirname(prefix)
    for path in _label_maps(folder):
        if tf.io.gfile.exists(path):
            return _read(path, num_classes)
    return ClassNames(
        num_classes,
        unknown=f"'{folder or '.'}' has no {KEPT_LABEL_MAP}, as trainings write it, is not of an "
        f"export, and has no {_PIPELINE} that names a label map which is there",
    )


def keep(pipeline: pipeline_pb2.TrainEvalPipelineConfig, model_dir: str) -> None:
    """Copies a training's label map into its folder; it replaces one that is there."""
    path = pipeline.train_input_reader.label_map_path
    if not path:
        return
    tf.io.gfile.makedirs(model_dir)
    with tf.io.gfile.GFile(path) as file:
        text = file.read()
    file_systems.write_text(os.path.join(model_dir, KEPT_LABEL_MAP), text)


def check_kept(label_map_path: str, model_dir: str, num_classes: int) -> None:
    """Checks that a training that resumes has the classes that it started with.

    Args:
        label_map_path: `train_input_reader.label_map_path`.
        model_dir: with the copy of the label map; without one nothing is checked.
        num_classes: of the model.

    Raises:
        errors.InputError: it lists the ids that stand for another class now.
    """
    kept = os.path.join(model_dir, KEPT_LABEL_MAP)
    if not label_map_path or not tf.io.gfile.exists(kept):
        return
    now, then = _read(label_map_path, num_classes), _read(kept, num_classes)
    if now.unknown or then.unknown:
        return
    changed = [
        f"{number} is {now.by_id.get(number, '')!r} and was {then.by_id.get(number, '')!r}"
        for number in sorted(now.by_id.keys() | then.by_id.keys())
        if now.by_id.get(number) != then.by_id.get(number)
    ]
    if changed:
        raise errors.InputError(
            f"train_input_reader.label_map_path: '{label_map_path}' is not the label map with "
            f"which this training started, '{kept}': {listing.in_line(changed)}. To train with "
            "other classes, start from this training's checkpoint in another --model_dir (see "
            f"docs/fine_tuning.md). If names were only corrected, remove '{kept}'."
        )


def _label_maps(folder: str) -> Iterator[str]:
    """Where the label map of a folder's checkpoints may be, the most reliable places first."""
    folders = [folder]
    if os.path.basename(os.path.abspath(folder)) in _INNER_FOLDERS:
        folders.append(os.path.join(folder, os.pardir))
    folders = [os.path.normpath(path) if path else "" for path in folders]
    for path in folders:
        yield os.path.join(path, KEPT_LABEL_MAP)
    for path in folders:
        yield os.path.join(path, "saved_model", "assets", LABEL_MAP_ASSET)
    for path in folders:
        named = _named_by(os.path.join(path, _PIPELINE))
        if named:
            yield named
            # Relative to the folder in which the training was started, which may be this one.
            yield os.path.join(path, named)


def _named_by(config: str) -> str:
    """The label map that a pipeline.config names; empty if it names none or cannot be read."""
    if not tf.io.gfile.exists(config):
        return ""
    pipeline = pipeline_pb2.TrainEvalPipelineConfig()
    try:
        with tf.io.gfile.GFile(config, "r") as file:
            text_format.Merge(file.read(), pipeline)
    except (text_format.ParseError, UnicodeDecodeError, tf.errors.OpError):
        return ""
    readers = (pipeline.train_input_reader, *pipeline.eval_input_reader)
    return next((reader.label_map_path for reader in readers if reader.label_map_path), "")


def _read(path: str, num_classes: int) -> ClassNames:
    try:
        items = [item for item in label_map_util.load_labelmap(path).item if item.id]
    except Exception as error:  # the parser's and the validator's errors have no common base
        return ClassNames(num_classes, unknown=f"'{path}' is not a label map: {error}")
    unknown = ""
    outside = [item.id for item in items if item.id > num_classes]
    if outside:
        unknown = (
            f"'{path}' has the id {outside[0]} and the model {num_classes} "
            f"class{'' if num_classes == 1 else 'es'}: it was changed later, or is of another model"
        )
    for field in ("id", "name"):
        counts = collections.Counter(getattr(item, field) for item in items)
        twice = [value for value, count in counts.items() if value and count > 1]
        if twice:
            unknown = f"'{path}' has the {field} {twice[0]!r} more than once"
    if unknown:
        return ClassNames(num_classes, unknown=unknown)
    return ClassNames(num_classes, path, {item.id: item.name for item in items if item.name})
