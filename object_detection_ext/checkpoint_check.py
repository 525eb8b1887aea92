# SPDX-License-Identifier: Apache-2.0
"""Looks at the checkpoint that a training is to start from, before the graph is built."""

import re

import tensorflow as tf
from object_detection.protos import faster_rcnn_pb2, pipeline_pb2, train_pb2

from object_detection_ext import builders, pipeline_check
from object_detection_ext import options as options_lib

_OBJECT_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"
# How a checkpoint names `PretrainedVariables.by_path`, see trunks/pretrained.py.
_PRETRAINED = re.compile(r"^feature_extractor/by_path/(.+)/\.ATTRIBUTES/VARIABLE_VALUE$")
_MAX_LISTED = 8
_HOW_TO_CONVERT = (
    "object_detection_ext.tools.convert_i3d_checkpoint (I3D) and inflate_resnet50 (R3D-50) convert "
    "published weights, see docs/pretrained.md."
)


def check(pipeline: pipeline_pb2.TrainEvalPipelineConfig, source: str) -> None:
    """Checks `train_config.fine_tune_checkpoint` of a video pipeline.

    Args:
        pipeline: parsed, with our options as its extension.
        source: where it comes from, for the message.

    Raises:
        PipelineError: there is no such checkpoint, or it is not of this network.
    """
    train_config = pipeline.train_config
    path = train_config.fine_tune_checkpoint
    if not path or not pipeline_check.is_video_pipeline(pipeline):
        return
    where = f"{source}: train_config.fine_tune_checkpoint"
    try:
        shapes = dict(tf.train.list_variables(path))
    except (tf.errors.OpError, ValueError) as error:
        raise pipeline_check.PipelineError(
            f"{where}: there is no checkpoint '{path}'. {_HOW_TO_CONVERT} To start from random "
            "weights, take the field out."
        ) from error
    if _OBJECT_GRAPH not in shapes:
        raise pipeline_check.PipelineError(
            f"{where}: '{path}' is a checkpoint of TensorFlow 1. {_HOW_TO_CONVERT}"
        )
    if train_config.fine_tune_checkpoint_version != train_pb2.CheckpointVersion.V2:
        raise pipeline_check.PipelineError(
            f"{source}: train_config.fine_tune_checkpoint_version: set V2, the form of '{path}'."
        )
    if _kind(train_config) == "classification":
        _check_pretrained(pipeline, shapes, f"{where}: '{path}'")
    elif not any(name.startswith("model/") for name in shapes):
        raise pipeline_check.PipelineError(
            f"{where}: '{path}' holds no detector, as fine_tune_checkpoint_type "
            f"'{_kind(train_config)}' needs. Trunks alone go with 'classification'."
        )


def _kind(train_config: train_pb2.TrainConfig) -> str:
    """The stock default for a type that is not set."""
    if train_config.fine_tune_checkpoint_type:
        return train_config.fine_tune_checkpoint_type
    return "detection" if train_config.from_detection_checkpoint else "classification"


def _check_pretrained(pipeline, shapes: dict[str, list[int]], where: str) -> None:
    model = faster_rcnn_pb2.FasterRcnn()
    model.CopyFrom(pipeline.model.faster_rcnn)
    given = {
        # A checkpoint writes '.S' for a slash inside of a name and '..' for a dot.
        match.group(1).replace(".S", "/").replace("..", "."): list(shape)
        for name, shape in shapes.items()
        if (match := _PRETRAINED.match(name))
    }
    if not given:
        raise pipeline_check.PipelineError(
            f"{where} holds no trunk, as fine_tune_checkpoint_type 'classification' needs. "
            f"Checkpoints of whole detectors go with 'full' or 'detection'. {_HOW_TO_CONVERT}"
        )
    options_lib.attach(model, pipeline.Extensions[options_lib.EXTENSION])
    wanted = {
        path: variable.shape.as_list()
        for path, variable in builders.pretrained_variables(model).items()
    }
    missing = [f"{path} {shape}" for path, shape in wanted.items() if path not in given]
    other_shape = [
        f"{path} {given[path]} instead of {shape}"
        for path, shape in wanted.items()
        if given.get(path, shape) != shape
    ]
    if missing or other_shape:
        raise pipeline_check.PipelineError(
            f"{where} is of another network than feature_extractor.type "
            f"'{model.feature_extractor.type}' of this depth_multiplier."
            + _listed("missing", missing)
            + _listed("of another shape", other_shape)
        )


def _listed(what: str, entries: list[str]) -> str:
    if not entries:
        return ""
    more = f"\n    and {len(entries) - _MAX_LISTED} more" if len(entries) > _MAX_LISTED else ""
    return f"\n  {len(entries)} {what}:\n    " + "\n    ".join(entries[:_MAX_LISTED]) + more
