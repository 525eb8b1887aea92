# SPDX-License-Identifier: Apache-2.0
"""Looks at the checkpoint that a training is to start from, before the graph is built."""

import tensorflow as tf
from object_detection.protos import faster_rcnn_pb2, pipeline_pb2, train_pb2

from object_detection_ext import builders, errors, files, pipeline_check
from object_detection_ext import options as options_lib
from object_detection_ext.trunks import pretrained

_OBJECT_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"
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
    files.check_reachable(path)
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
        if not any(name.startswith("feature_extractor/by_path/") for name in shapes):
            raise pipeline_check.PipelineError(
                f"{where}: '{path}' holds no trunk, as fine_tune_checkpoint_type 'classification' "
                f"needs. Checkpoints of whole detectors go with 'full' or 'detection'. "
                f"{_HOW_TO_CONVERT}"
            )
        _check_pretrained(pipeline, f"{where}: '{path}'")
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


def _check_pretrained(pipeline, where: str) -> None:
    model = faster_rcnn_pb2.FasterRcnn()
    model.CopyFrom(pipeline.model.faster_rcnn)
    options_lib.attach(model, pipeline.Extensions[options_lib.EXTENSION])
    try:
        pretrained.check_checkpoint(
            builders.pretrained_variables(model), pipeline.train_config.fine_tune_checkpoint
        )
    except errors.InputError as error:
        raise pipeline_check.PipelineError(
            f"{where} is of another network than feature_extractor.type "
            f"'{model.feature_extractor.type}' of this depth_multiplier.\n{error}"
        ) from error
