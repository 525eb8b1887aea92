# SPDX-License-Identifier: Apache-2.0
r"""Exports the main model's trunk, inference and training step as StableHLO, without weights.

    python -m benchmarks.accelerator.export --output programs [--size tiny] [--only training] \
        [--batches 3,8,16,1] [--precisions bf16,fp32] [--exact] [--reference]

Each program is a text of StableHLO, compressed, beside a manifest of its parameters. The training
step is the stock `eager_train_step`: forward, losses, gradients, clipping and the momentum update.
"inference" ends with the boxes and scores of all proposals; "detections", which is exported if it
is asked for, goes on to the suppression in each class, 80 loops for each clip. Programs that are
there already are kept; --overwrite makes them anew.

--exact leaves out what is random (dropout, and which anchors are sampled), so that numbers can be
compared; --reference also runs the function in TensorFlow, op by op as the graph has it and not
compiled, with values drawn by the manifest's rules, and keeps its results for check.py.

Shapes: B clips, T frames, H W pixels, G rows of ground truth, K classes.
"""

import collections
import gzip
import itertools
import pathlib
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from object_detection_ext import compat  # noqa: F401 (before any object_detection module)

# isort: split
import numpy as np
import tensorflow as tf
from absl import app, flags
from google.protobuf import text_format
from object_detection import model_lib_v2
from object_detection.builders import model_builder, optimizer_builder
from object_detection.core import standard_fields
from object_detection.protos import pipeline_pb2
from object_detection.utils import config_util
from tensorflow.python.eager.polymorphic_function import compiler_ir

from benchmarks.accelerator import plan, programs
from object_detection_ext import flops, registration
from object_detection_ext import options as options_lib
from object_detection_ext.protos import video_action_transformer_pb2 as vat_pb2

_ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
_CONFIG = str(_ROOT / "pipeline_configs" / "ava_i3d_tx_highres_r300.config")
PARTS = ("training", "inference", "trunk", "detections")
SIZES = ("full", "tiny")
PRECISIONS = ("bf16", "fp32")
SEED = 0

_OUTPUT = flags.DEFINE_string("output", None, "Folder for the programs.", required=True)
_PIPELINE = flags.DEFINE_string("pipeline_config_path", _CONFIG, "The model.")
_SIZE = flags.DEFINE_enum("size", "full", SIZES, "The config's own size, or one for tests.")
_ONLY = flags.DEFINE_list("only", list(PARTS[:3]), f"The parts to export, of {PARTS}.")
_BATCHES = flags.DEFINE_list("batches", ["3", "1", "8", "16"], "Clips in a call.")
_PRECISIONS = flags.DEFINE_list("precisions", [], "bf16, fp32; default: what run.py measures.")
_EXACT = flags.DEFINE_bool("exact", False, "Without what is random.")
_REFERENCE = flags.DEFINE_bool("reference", False, "Also keep TensorFlow's results.")
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "Also what is there already.")

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
# Of a captured constant; more would be a table that should be drawn.
_MOST_NUMBERS = 1000


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
        numbers = [value for value in self.optimizer._hyper.values() if _is_variable(value)]
        return [self.step, *self.optimizer.variables(), *numbers]


def _is_variable(value) -> bool:
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
        clips = _clips(pipeline, 1)
        network.provide_groundtruth(
            groundtruth_boxes_list=[tf.zeros([1, 4])],
            groundtruth_classes_list=[tf.zeros([1, network.num_classes])],
            groundtruth_weights_list=[tf.ones([1])],
        )
        prediction = network.predict(tf.zeros(clips.shape, clips.dtype), _true_shapes(pipeline, 1))
        return prediction["rpn_box_encodings"]

    predict.get_concrete_function()


def trace(model: Model, batch: int) -> Function:
    """The part's function for so many clips."""
    inputs = [_clips(model.pipeline, batch)]
    if model.part == "training":
        inputs += _groundtruth(model.pipeline, batch)
    part = {
        "training": _training,
        "inference": _inference,
        "detections": _detections,
        "trunk": _trunk,
    }[model.part]

    def run(*arguments: tf.Tensor) -> dict[str, tf.Tensor]:
        return part(model, _true_shapes(model.pipeline, batch), *arguments)

    signature = [tf.TensorSpec(row.shape, row.dtype, name=row.name) for row in inputs]
    compiled = tf.function(run, input_signature=signature, autograph=False, jit_compile=True)
    plain = tf.function(run, input_signature=signature, autograph=False)
    return Function(compiled.get_concrete_function(), inputs, plain)


def _clips(pipeline: pipeline_pb2.TrainEvalPipelineConfig, batch: int) -> programs.Parameter:
    """Stacked clips [B, T H, W, 3], as the input pipeline hands them over."""
    size = pipeline.model.faster_rcnn.image_resizer.fixed_shape_resizer
    num_frames = pipeline.Extensions[options_lib.EXTENSION].clip.num_frames
    shape = (batch, num_frames * size.height, size.width, 3)
    rule = {"kind": programs.INTEGERS, "low": 0, "high": 256}
    return programs.Parameter("clips", shape, "uint8", "input", rule)


def _true_shapes(pipeline: pipeline_pb2.TrainEvalPipelineConfig, batch: int) -> tf.Tensor:
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


def captures_of(model: Model, function: Function) -> list[tf.Variable | tf.Tensor]:
    """What the function captures, in its order: variables, and constants of a few numbers.

    Raises:
        ProgramError: if it captures anything else, which would have to travel with the program.
    """
    network = model.network._image_trunk() if model.part == "trunk" else model.network
    known = [*network.variables, *model.state]
    by_handle = {id(variable.handle): variable for variable in known}
    captures = []
    for tensor in function.concrete.captured_inputs:
        capture = by_handle.get(id(tensor), tensor)
        if capture is tensor and (
            tensor.dtype == tf.resource or tensor.shape.num_elements() > _MOST_NUMBERS
        ):
            raise programs.ProgramError(f"The function captures {tensor!r}, no variable of it.")
        captures.append(capture)
    return captures


def parameters_of(
    model: Model, function: Function, captures: Sequence[tf.Variable | tf.Tensor]
) -> list[programs.Parameter]:
    """The program's parameters: the arguments, then the captures in their order."""
    state = {variable.ref() for variable in model.state}
    names = collections.Counter()
    parameters = list(function.inputs)
    for capture in captures:
        is_variable = _is_variable(capture)
        name = capture.name.split(":")[0] if is_variable else "constant"
        names[name] += 1
        if names[name] > 1:
            name = f"{name}#{names[name]}"
        if is_variable:
            parameters.append(_variable_parameter(capture, name, capture.ref() in state))
        else:
            parameters.append(_constant_parameter(capture.numpy(), name))
    return parameters


def _constant_parameter(value: np.ndarray, name: str) -> programs.Parameter:
    rule = {"kind": programs.VALUES, "values": value.flatten().tolist()}
    return programs.Parameter(name, value.shape, value.dtype.name, "constant", rule)


def _variable_parameter(variable: tf.Variable, name: str, is_state: bool) -> programs.Parameter:
    """How to draw a variable: as it starts, but nothing all zero or all one.

    Variables of one shape that start out equal would hide a confusion of their order.
    """
    value = variable.numpy()
    role = "state" if is_state else "weight" if variable.trainable else "statistic"
    if value.dtype.kind != "f" or not value.shape:
        rule = {"kind": programs.CONSTANT, "value": value.item()}
    elif name.endswith("moving_variance"):
        rule = {"kind": programs.UNIFORM, "low": 0.5, "high": 1.5}
    elif is_state:
        rule = {"kind": programs.NORMAL, "mean": 0.0, "std": 1e-3}
    else:
        std = max(float(value.std()), 0.02)
        rule = {"kind": programs.NORMAL, "mean": float(value.mean()) if value.ndim == 1 else 0.0}
        rule["std"] = std
    return programs.Parameter(name, tuple(value.shape), value.dtype.name, role, rule)


def outputs_of(
    function: Function, parameters: Sequence[programs.Parameter]
) -> list[programs.Output]:
    """The program's outputs: the function's own by name, then the variables that it assigns to."""
    own = function.concrete.structured_outputs
    outputs = [
        programs.Output(name, tuple(own[name].shape), own[name].dtype.name)
        for name in function.output_names
    ]
    assigned = assigned_captures(function.concrete)
    for place, parameter in enumerate(parameters[len(function.inputs) :]):
        if place in assigned:
            outputs.append(
                programs.Output(
                    f"new {parameter.name}", parameter.shape, parameter.dtype, parameter.name
                )
            )
    return outputs


def assigned_captures(concrete) -> set[int]:
    """Which captures, by their place among them, an op of the function assigns to."""
    places = {tensor.ref(): place for place, (_, tensor) in enumerate(concrete.graph.captures)}
    writers = ("Assign", "ResourceApply", "ResourceScatter", "ResourceSparse")
    return {
        places[tensor.ref()]
        for op in concrete.graph.get_operations()
        if op.type.startswith(writers)
        for tensor in op.inputs
        if tensor.ref() in places
    }


def multiply_adds(path: str, size: str, part: str) -> float:
    """Of the forward pass of one clip, see `object_detection_ext.flops`."""
    registration.register()
    pipeline = pipeline_of(path, size=size, precision="fp32", exact=False)
    # The native crop multiplies no matrices: the counted work is the model's, not the way's.
    pipeline.model.faster_rcnn.ClearField("use_static_shapes")
    pipeline.Extensions[options_lib.EXTENSION].ClearField("compute")
    configs = config_util.create_configs_from_pipeline_proto(pipeline)
    with tf.Graph().as_default():
        model = model_builder.build(configs["model"], is_training=False)
        clips = _clips(pipeline, 1)
        images = tf.compat.v1.placeholder(tf.uint8, clips.shape)
        if part == "trunk":
            outputs = [model._extract_proposal_features(images)[0]]
        else:
            prediction = model.predict(images, _true_shapes(pipeline, 1))
            outputs = [
                prediction[name]
                for name in (
                    "rpn_box_encodings",
                    "rpn_objectness_predictions_with_background",
                    "refined_box_encodings",
                    "class_predictions_with_background",
                )
            ]
        return float(sum(op.multiply_adds for op in flops.count_multiply_adds(outputs)))


def export(folder: pathlib.Path, model: Model, batch: int, work: float) -> None:
    """Exports the program of a model for so many clips and, if asked to, its reference.

    Args:
        folder: where it goes.
        model: of the part.
        batch: clips.
        work: multiply-adds of one clip's forward pass.
    """
    precision = options_lib.precision(model.pipeline)
    bf16 = precision == vat_pb2.Compute.BFLOAT16
    name = programs.program_name(
        model.part, _SIZE.value, batch, "bf16" if bf16 else "fp32", _EXACT.value
    )
    function = trace(model, batch)
    captures = captures_of(model, function)
    parameters = parameters_of(model, function, captures)
    manifest = programs.Manifest(
        name=name,
        part=model.part,
        size=_SIZE.value,
        batch=batch,
        precision="bf16" if bf16 else "fp32",
        exact=_EXACT.value,
        multiply_adds=work,
        parameters=tuple(parameters),
        outputs=tuple(outputs_of(function, parameters)),
        versions={"tensorflow": tf.__version__},
    )
    manifest.check(name)
    text = compiler_ir.from_concrete_function(function.concrete)(stage="stablehlo")
    programs.program_path(folder, name).write_bytes(gzip.compress(text.encode(), 9, mtime=0))
    if _REFERENCE.value:
        _write_reference(folder, manifest, function, captures)
    # Last: a program without its manifest is exported anew.
    programs.manifest_path(folder, name).write_text(manifest.to_json(), "utf-8")


def _write_reference(
    folder: pathlib.Path,
    manifest: programs.Manifest,
    function: Function,
    captures: Sequence[tf.Variable | tf.Tensor],
) -> None:
    """Runs the function uncompiled on drawn values; writes what it gives."""
    values = programs.draw_all(manifest.parameters, SEED)
    variables = {
        parameter.name: capture
        for capture, parameter in zip(
            captures, manifest.parameters[len(function.inputs) :], strict=True
        )
        if _is_variable(capture)
    }
    kept = {name: variable.numpy() for name, variable in variables.items()}
    for name, variable in variables.items():
        variable.assign(values[name])
    results = function.run(*(tf.constant(values[row.name]) for row in function.inputs))
    arrays = {name: result.numpy() for name, result in results.items()}
    updated = {output.updates for output in manifest.outputs}
    for name, variable in variables.items():
        if name in updated:
            arrays[f"new {name}"] = variable.numpy()
        variable.assign(kept[name])
    path = programs.reference_path(folder, manifest.name)
    path.parent.mkdir(exist_ok=True)
    np.savez(path, **arrays)


def wanted_batches(part: str, precision: str) -> list[int]:
    """The batches of a part to export in a precision."""
    batches = [int(batch) for batch in _BATCHES.value]
    if _PRECISIONS.value or part not in plan.WHATS:
        return batches if precision in (_PRECISIONS.value or PRECISIONS) else []
    planned = {(row.what, row.batch, row.precision) for row in plan.full_plan(tuple(batches))}
    return [batch for batch in batches if (part, batch, precision) in planned]


def main(argv: Sequence[str]) -> None:
    """Exports what is not there yet."""
    if len(argv) > 1:
        raise app.UsageError(f"Unexpected arguments: {argv[1:]}")
    for flag, known in ((_ONLY, PARTS), (_PRECISIONS, PRECISIONS)):
        if not set(flag.value) <= set(known):
            raise app.UsageError(f"--{flag.name}: {flag.value}; known are: {', '.join(known)}.")
    folder = pathlib.Path(_OUTPUT.value)
    folder.mkdir(parents=True, exist_ok=True)
    for part, precision in itertools.product(_ONLY.value, PRECISIONS):
        names = {
            batch: programs.program_name(part, _SIZE.value, batch, precision, _EXACT.value)
            for batch in wanted_batches(part, precision)
        }
        missing = [
            batch
            for batch, name in names.items()
            if _OVERWRITE.value or not programs.manifest_path(folder, name).exists()
        ]
        if missing:
            work = multiply_adds(_PIPELINE.value, _SIZE.value, part)
            pipeline = pipeline_of(
                _PIPELINE.value, size=_SIZE.value, precision=precision, exact=_EXACT.value
            )
            model = build(part, pipeline)
        for batch in missing:
            start = time.monotonic()
            export(folder, model, batch, work)
            size = programs.program_path(folder, names[batch]).stat().st_size
            seconds = time.monotonic() - start
            print(f"{names[batch]}: {size / 2**20:.2f} MiB, {seconds:.0f} s", flush=True)
    total = sum(path.stat().st_size for path in folder.iterdir() if path.is_file())
    print(f"{folder}: {len(programs.exported_names(folder))} programs, {total / 2**20:.1f} MiB")


if __name__ == "__main__":
    app.run(main)
