# SPDX-License-Identifier: Apache-2.0
"""The variables that a model has and that a checkpoint holds, by the same names.

A name is the key in the checkpoint without TensorFlow's suffix, such as
`model/_mask_rcnn_box_predictor/_class_head/_class_predictor_layers/1/kernel`.
"""

import collections
from collections.abc import Mapping, Sequence

import tensorflow as tf
from object_detection.builders import model_builder
from object_detection.protos import pipeline_pb2
from object_detection.utils import config_util

from object_detection_ext import options as options_lib
from object_detection_ext import precision
from object_detection_ext.checkpoints import files

MODEL = "model/"
_OPTIMIZER_SLOT = "/.OPTIMIZER_SLOT/"
# Pixels; a cell or more of every trunk. Variables do not depend on the size of the clip.
_CLIP_SIZE = 32


def of_pipeline(pipeline: pipeline_pb2.TrainEvalPipelineConfig) -> dict[str, tuple[int, ...]]:
    """The variables of a pipeline's model, by name, with their shapes.

    Makes the model and applies it to one clip of one small frame and one box, without a graph.

    Args:
        pipeline: of a video model, checked, with our options as its extension. It is not changed.
    """
    small = pipeline_pb2.TrainEvalPipelineConfig()
    small.CopyFrom(pipeline)
    small.Extensions[options_lib.EXTENSION].clip.num_frames = 1
    # Variables depend neither on the precision, in which a CPU may be slow, nor on compilation,
    # which takes longer than all else here.
    options_lib.set_precision(small, precision.FLOAT32)
    small.Extensions[options_lib.EXTENSION].compute.ClearField("xla")
    small.model.faster_rcnn.first_stage_max_proposals = 1
    configs = config_util.create_configs_from_pipeline_proto(small)
    with tf.device("CPU"):
        model = model_builder.build(configs["model"], is_training=False)
        model.predict(
            tf.zeros([1, _CLIP_SIZE, _CLIP_SIZE, 3]),
            tf.constant([[_CLIP_SIZE, _CLIP_SIZE, 3]]),
            proposal_boxes=tf.constant([[[0.0, 0.0, 1.0, 1.0]]]),
        )
    return {name: tuple(variable.shape) for name, variable in of_model(model).items()}


def of_model(model: tf.Module) -> dict[str, tf.Variable]:
    """The variables that a model has made, by name."""
    root = tf.train.Checkpoint(model=model)
    view = tf.train.TrackableView(root)
    # Breadth first, as TensorFlow does it: a variable is called after the shortest way to it.
    names = {id(root): ""}
    waiting = collections.deque([root])
    variables = {}
    while waiting:
        trackable = waiting.popleft()
        if isinstance(trackable, tf.Variable):
            variables[names[id(trackable)]] = trackable
        for step, child in view.children(trackable).items():
            if id(child) not in names:
                names[id(child)] = f"{names[id(trackable)]}/{_escaped(step)}".lstrip("/")
                waiting.append(child)
    return variables


def of_contents(contents: files.Contents) -> dict[str, tuple[int, ...]]:
    """The variables of a model in a checkpoint, by name, with their shapes.

    What a training keeps beside the model (step, optimizer, moving averages) is left out.

    Args:
        contents: of the checkpoint.
    """
    return _of_the_model(contents.shapes)


def of_checkpoint(prefix: str) -> dict[str, tuple[int, ...]]:
    """As `of_contents`, of a checkpoint whose values have not been read.

    Args:
        prefix: such as `.../ckpt-3`.

    Raises:
        tf.errors.OpError, ValueError: there is no such checkpoint, or it cannot be read.
    """
    return _of_the_model(dict(tf.train.list_variables(prefix)))


def _of_the_model(shapes: Mapping[str, Sequence[int]]) -> dict[str, tuple[int, ...]]:
    return {
        key.removesuffix(files.VALUE_SUFFIX): tuple(shape)
        for key, shape in shapes.items()
        if key.startswith(MODEL) and key.endswith(files.VALUE_SUFFIX) and _OPTIMIZER_SLOT not in key
    }


def key(name: str) -> str:
    """The key of a variable in a checkpoint."""
    return name + files.VALUE_SUFFIX


def _escaped(step: str) -> str:
    """A step of a name as TensorFlow writes it, so that "/" stands between two steps only."""
    return step.replace(".", "..").replace("/", ".S")
