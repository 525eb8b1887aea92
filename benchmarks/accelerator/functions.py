# SPDX-License-Identifier: Apache-2.0
"""The functions that export.py exports: the model of a part, and its trace for some clips.

Shapes: B clips, T frames, H W pixels, G rows of ground truth, K classes.
"""

import pathlib
from collections.abc import Callable
from typing import NamedTuple

from object_detection_ext import compat  # noqa: F401 (before any object_detection module)

# isort: split
import tensorflow as tf
from google.protobuf import text_format
from object_detection import model_lib_v2
from object_detection.builders import model_builder, optimizer_builder
from object_detection.core import standard_fields
from object_detection.protos import pipeline_pb2
from object_detection.utils import config_util

from benchmarks.accelerator import programs
from object_detection_ext import options as options_lib
from object_detection_ext import registration
from object_detection_ext.protos import video_action_transformer_pb2 as vat_pb2

# What compiled steps are in training, and in evaluation all of the model.
_STATIC = """
model { faster_rcnn {
  use_static_shapes: true
  use_static_shapes_for_eval: true
  second_stage_post_processing { batch_non_max_suppression { use_static_shapes: true } }
} }
[object_detection_ext.protos.video_action_transformer] {
  compute { xla: true }
  summaries { training_picture_every_n_steps: 0 }  # they are drawn on the host
}
"""
_TINY = """
model { faster_rcnn {
  num_classes: 5
  image_resizer { fixed_shape_resizer { height: 64 width: 64 } }
  first_stage_max_proposals: 8
  second_stage_batch_size: 8
  first_stage_minibatch_size: 64
} }
[object_detection_ext.protos.video_action_transformer] {
  clip { num_frames: 8 }
  trunk { depth_multiplier: 0.125 }
}
"""
_EXACTLY = """
[object_detection_ext.protos.video_action_transformer] { tx_head { dropout_rate: 0.0 } }
"""
_DETECTIONS = ("detection_boxes", "detection_classes", "detection_scores", "num_detections")
# AVA's keyframes have about 2 people; the rest of the padded rows weighs nothing.
_PEOPLE = 4


class Model(NamedTuple):
    """A part's model with its variables made; `batch`es of it are traced one by one."""

    part: str
    pipeline: pipeline_pb2.TrainEvalPipelineConfig
    network: tf.Module
    optimizer: tf.keras.optimizers.legacy.Optimizer | None
    step: tf.Variable | None

    @property
    def state(self) -> list[tf.Variable]:
        """The optimizer's variables."""
        if self.optimizer is None:
            return []
        numbers = [value for value in self.optimizer._hyper.values() if is_variable(value)]
        return [self.step, *self.optimizer.variables(), *numbers]


def is_variable(value) -> bool:
    """Whether it is one of TensorFlow."""
    return isinstance(value, tf.Variable)


class Function(NamedTuple):
    """A part at a number of clips: what is traced, and what its manifest needs."""

    concrete: tf.types.experimental.ConcreteFunction
    inputs: list[programs.Parameter]
    run: Callable[..., dict[str, tf.Tensor]]  # the same, not compiled

    @property
    def output_names(self) -> list[str]:
        """Of the function's own outputs, in their order."""
        return sorted(self.concrete.structured_outputs)


def pipeline_of(
    path: str, *, size: str, precision: str, exact: bool
) -> pipeline_pb2.TrainEvalPipelineConfig:
    """The config with what the program's kind asks for."""
    pipeline = text_format.Parse(
        pathlib.Path(path).read_text("utf-8"), pipeline_pb2.TrainEvalPipelineConfig()
    )
    for override in (_STATIC, _TINY if size == "tiny" else "", _EXACTLY if exact else ""):
        text_format.Merge(override, pipeline)
    if precision == "bf16":
        options = pipeline.Extensions[options_lib.EXTENSION]
        options.compute.precision = vat_pb2.Compute.BFLOAT16
    if exact:
        # All anchors: nothing is left to be drawn.
        pipeline.model.faster_rcnn.first_stage_minibatch_size = _num_anchors(pipeline)
    return pipeline


def _num_anchors(pipeline: pipeline_pb2.TrainEvalPipelineConfig) -> int:
    model = pipeline.model.faster_rcnn
    size = model.image_resizer.fixed_shape_resizer
    stride = model.feature_extractor.first_stage_features_stride
    anchors = model.first_stage_anchor_generator.grid_anchor_generator
    cells = -(-size.height // stride) * -(-size.width // stride)
    return cells * len(anchors.scales) * len(anchors.aspect_ratios)


def build(part: str, pipeline: pipeline_pb2.TrainEvalPipelineConfig) -> Model:
    """The model of a part, with all its variables."""
    registration.register()
    configs = config_util.create_configs_from_pipeline_proto(pipeline)
    network = model_builder.build(configs["model"], is_training=part == "training")
    optimizer = step = None
    if part == "trunk":
        network._image_trunk()
    else:
        _make_variables(network, pipeline)
    if part == "training":
        step = tf.Variable(0, dtype=tf.int64, name="global_step", trainable=False)
        optimizer, _ = optimizer_builder.build(pipeline.train_config.optimizer, global_step=step)
        optimizer._create_all_weights(network.trainable_variables)
    return Model(part, pipeline, network, optimizer, step)


def _make_variables(network, pipeline: pipeline_pb2.TrainEvalPipelineConfig) -> None:
    """Builds the model's layers by tracing a prediction of one clip; runs none."""

    @tf.function(autograph=False)
    def predict():
        given = clips(pipeline, 1)
        network.provide_groundtruth(
            groundtruth_boxes_list=[tf.zeros([1, 4])],
            groundtruth_classes_list=[tf.zeros([1, network.num_classes])],
            groundtruth_weights_list=[tf.ones([1])],
        )
        prediction = network.predict(tf.zeros(given.shape, given.dtype), true_shapes(pipeline, 1))
        return prediction["rpn_box_encodings"]

    predict.get_concrete_function()


def trace(model: Model, batch: int) -> Function:
    """The part's function for so many clips."""
    inputs = [clips(model.pipeline, batch)]
    if model.part == "training":
        inputs += _groundtruth(model.pipeline, batch)
    part = {
        "training": _training,
        "inference": _inference,
        "detections": _detections,
        "trunk": _trunk,
    }[model.part]

    def run(*arguments: tf.Tensor) -> dict[str, tf.Tensor]:
        return part(model, true_shapes(model.pipeline, batch), *arguments)

    signature = [tf.TensorSpec(row.shape, row.dtype, name=row.name) for row in inputs]
    compiled = tf.function(run, input_signature=signature, autograph=False, jit_compile=True)
    plain = tf.function(run, input_signature=signature, autograph=False)
    return Function(compiled.get_concrete_function(), inputs, plain)


def clips(pipeline: pipeline_pb2.TrainEvalPipelineConfig, batch: int) -> programs.Parameter:
    """Stacked clips [B, T H, W, 3], as the input pipeline hands them over."""
    size = pipeline.model.faster_rcnn.image_resizer.fixed_shape_resizer
    num_frames = pipeline.Extensions[options_lib.EXTENSION].clip.num_frames
    shape = (batch, num_frames * size.height, size.width, 3)
    rule = {"kind": programs.INTEGERS, "low": 0, "high": 256}
    return programs.Parameter("clips", shape, "uint8", "input", rule)


def true_shapes(pipeline: pipeline_pb2.TrainEvalPipelineConfig, batch: int) -> tf.Tensor:
    """int32 [B, 3]: frames without padding."""
    size = pipeline.model.faster_rcnn.image_resizer.fixed_shape_resizer
    return tf.constant([[size.height, size.width, 3]] * batch, tf.int32)


def _groundtruth(
    pipeline: pipeline_pb2.TrainEvalPipelineConfig, batch: int
) -> list[programs.Parameter]:
    """Padded ground truth as the stock input makes it: boxes, classes, weights."""
    shape = (batch, pipeline.train_input_reader.max_number_of_boxes)
    num_classes = pipeline.model.faster_rcnn.num_classes

    def parameter(name: str, last: tuple[int, ...], kind: str) -> programs.Parameter:
        rule = {"kind": kind, "rows": _PEOPLE}
        return programs.Parameter(name, (*shape, *last), "float32", "input", rule)

    return [
        parameter("boxes", (4,), programs.BOXES),
        parameter("classes", (num_classes,), programs.K_HOT),
        parameter("weights", (), programs.ROWS),
    ]


def _trunk(model: Model, shapes: tf.Tensor, images: tf.Tensor) -> dict[str, tf.Tensor]:
    features, _ = model.network._extract_proposal_features(images)
    return {"features": tf.cast(features, tf.float32)}


def _inference(model: Model, shapes: tf.Tensor, images: tf.Tensor) -> dict[str, tf.Tensor]:
    """Boxes and scores of every proposal."""
    network = model.network
    # The classes' suppression is left out before it is traced: 80 loops for each clip.
    suppress, network._second_stage_nms_fn = network._second_stage_nms_fn, _no_suppression
    try:
        detections = network.postprocess(network.predict(images, shapes), shapes)
    finally:
        network._second_stage_nms_fn = suppress
    return {name: detections[name] for name in ("raw_detection_boxes", "raw_detection_scores")}


def _no_suppression(boxes, scores, *, additional_fields, num_valid_boxes, **_):
    return boxes, scores, scores, None, additional_fields, num_valid_boxes


def _detections(model: Model, shapes: tf.Tensor, images: tf.Tensor) -> dict[str, tf.Tensor]:
    """What an exported model gives: with non-maximum suppression in each class."""
    detections = model.network.postprocess(model.network.predict(images, shapes), shapes)
    return {name: detections[name] for name in _DETECTIONS}


def _training(
    model: Model, shapes: tf.Tensor, images, boxes, classes, weights
) -> dict[str, tf.Tensor]:
    fields = standard_fields.InputDataFields
    train_config = model.pipeline.train_config
    losses = model_lib_v2.eager_train_step(
        model.network,
        {fields.image: images, fields.true_image_shape: shapes},
        {
            fields.groundtruth_boxes: boxes,
            fields.groundtruth_classes: classes,
            fields.groundtruth_weights: weights,
            fields.num_groundtruth_boxes: tf.reduce_sum(tf.cast(weights > 0, tf.int32), axis=1),
        },
        False,  # as compiled steps have it
        model.optimizer,
        training_step=model.step,
        clip_gradients_value=train_config.gradient_clipping_by_norm,
    )
    model.step.assign_add(1)
    return losses
