# SPDX-License-Identifier: Apache-2.0
"""Checkpoints as the stock train loop writes them, without its graph."""

import pathlib

import tensorflow as tf
from google.protobuf import text_format
from object_detection.builders import optimizer_builder
from object_detection.protos import optimizer_pb2

from tests import tiny_pipeline

_LEARNING_RATE = "learning_rate { constant_learning_rate { learning_rate: 0.01 } }"
OPTIMIZERS = {
    "momentum": f"momentum_optimizer {{ {_LEARNING_RATE} }} use_moving_average: false",
    "adam": f"adam_optimizer {{ {_LEARNING_RATE} }} use_moving_average: false",
    "averages": f"momentum_optimizer {{ {_LEARNING_RATE} }} use_moving_average: true",
    "adam, averages": f"adam_optimizer {{ {_LEARNING_RATE} }} use_moving_average: true",
}


def optimizer(name: str) -> str:
    """Text of a pipeline with one of `OPTIMIZERS`."""
    return f"train_config {{ optimizer {{ {OPTIMIZERS[name]} }} }}"


def build(pipeline):
    """The pipeline's model with its variables, run as in training."""
    model = tiny_pipeline.build_model(pipeline, is_training=True)
    channels = 3 * model.feature_extractor.num_frames
    size = tiny_pipeline.SIZE
    model.provide_groundtruth(
        groundtruth_boxes_list=[tf.constant([[0.1, 0.1, 0.6, 0.6]])],
        groundtruth_classes_list=[tf.ones([1, pipeline.model.faster_rcnn.num_classes])],
    )
    model.predict(tf.zeros([1, size, size, channels]), tf.constant([[size, size, channels]]))
    return model


def write(pipeline, folder: pathlib.Path, name: str = "momentum") -> str:
    """Writes `ckpt-1` after a step with one of `OPTIMIZERS`; gives its prefix."""
    model, step = build(pipeline), tf.Variable(0, dtype=tf.int64)
    config = text_format.Parse(OPTIMIZERS[name], optimizer_pb2.Optimizer())
    stock_optimizer, _ = optimizer_builder.build(config, global_step=step)
    if config.use_moving_average:
        stock_optimizer.shadow_copy(model)
    weights = model.trainable_variables
    stock_optimizer.apply_gradients([(tf.ones_like(weight), weight) for weight in weights])
    step.assign_add(1)
    saved = tf.train.Checkpoint(step=step, model=model, optimizer=stock_optimizer)
    return tf.train.CheckpointManager(saved, str(folder), max_to_keep=7).save()
