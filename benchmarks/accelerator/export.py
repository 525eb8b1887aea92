# SPDX-License-Identifier: Apache-2.0
r"""Exports the main model's trunk, inference and training step as StableHLO, without weights.

    python -m benchmarks.accelerator.export --output programs [--size tiny] [--only training] \
        [--batches 3,8,16,1] [--precisions bf16,fp32] [--exact] [--reference]

Each program is a text of StableHLO, compressed, beside a manifest of its parameters. The training
step is the stock `eager_train_step`: forward, losses, gradients, clipping and the momentum update.
"inference" ends with the boxes and scores of all proposals; "detections", which is exported if it
is asked for, continues with the suppression in each class, 80 loops for each clip. Programs that
are there already are kept; --overwrite makes them again.

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
from collections.abc import Sequence

from object_detection_ext import compat  # noqa: F401 (before any object_detection module)

# isort: split
import numpy as np
import tensorflow as tf
from absl import app, flags
from object_detection.builders import model_builder
from object_detection.utils import config_util
from tensorflow.python.eager.polymorphic_function import compiler_ir

from benchmarks.accelerator import functions, plan, programs
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

# Of a captured constant; more would be a table that should be drawn.
_MOST_NUMBERS = 1000


def captures_of(
    model: functions.Model, function: functions.Function
) -> list[tf.Variable | tf.Tensor]:
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
    model: functions.Model,
    function: functions.Function,
    captures: Sequence[tf.Variable | tf.Tensor],
) -> list[programs.Parameter]:
    """The program's parameters: the arguments, then the captures in their order."""
    state = {variable.ref() for variable in model.state}
    names = collections.Counter()
    parameters = list(function.inputs)
    for capture in captures:
        is_variable = functions.is_variable(capture)
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
    function: functions.Function, parameters: Sequence[programs.Parameter]
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
    pipeline = functions.pipeline_of(path, size=size, precision="fp32", exact=False)
    # The native crop multiplies no matrices: the counted work is the model's, not the way's.
    pipeline.model.faster_rcnn.ClearField("use_static_shapes")
    pipeline.Extensions[options_lib.EXTENSION].ClearField("compute")
    configs = config_util.create_configs_from_pipeline_proto(pipeline)
    with tf.Graph().as_default():
        model = model_builder.build(configs["model"], is_training=False)
        clips = functions.clips(pipeline, 1)
        images = tf.compat.v1.placeholder(tf.uint8, clips.shape)
        if part == "trunk":
            outputs = [model._extract_proposal_features(images)[0]]
        else:
            prediction = model.predict(images, functions.true_shapes(pipeline, 1))
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


def export(folder: pathlib.Path, model: functions.Model, batch: int, work: float) -> None:
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
    function = functions.trace(model, batch)
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
    programs.check_portable(text, name)
    programs.program_path(folder, name).write_bytes(gzip.compress(text.encode(), 9, mtime=0))
    if _REFERENCE.value:
        _write_reference(folder, manifest, function, captures)
    # Last: a program without its manifest is exported again.
    programs.manifest_path(folder, name).write_text(manifest.to_json(), "utf-8")


def _write_reference(
    folder: pathlib.Path,
    manifest: programs.Manifest,
    function: functions.Function,
    captures: Sequence[tf.Variable | tf.Tensor],
) -> None:
    """Runs the function uncompiled on drawn values; writes what it gives."""
    values = programs.draw_all(manifest.parameters, SEED)
    variables = {
        parameter.name: capture
        for capture, parameter in zip(
            captures, manifest.parameters[len(function.inputs) :], strict=True
        )
        if functions.is_variable(capture)
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
            pipeline = functions.pipeline_of(
                _PIPELINE.value, size=_SIZE.value, precision=precision, exact=_EXACT.value
            )
            model = functions.build(part, pipeline)
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
