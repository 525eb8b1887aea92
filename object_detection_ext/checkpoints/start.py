# SPDX-License-Identifier: Apache-2.0
"""Where a training starts: `train_config.fine_tune_checkpoint`, checked and restored.

`check` looks at the checkpoint before the graph is built, and prints what will be taken over;
`load` does it when the model has its variables. Both follow `start_plan`.
"""

import contextvars
import functools
import os
import re
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from object_detection import model_lib_v2
from object_detection.protos import faster_rcnn_pb2, pipeline_pb2, train_pb2

from object_detection_ext import builders, errors, files, messages, pipeline_check
from object_detection_ext import options as options_lib
from object_detection_ext.checkpoints import class_names, model_variables, start_plan, start_report
from object_detection_ext.detection import video_meta_arch
from object_detection_ext.trunks import pretrained

_OBJECT_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"
_FIELD = "train_config.fine_tune_checkpoint"
_PIPELINE = "pipeline.config"
_KINDS = (start_plan.CLASSIFICATION, start_plan.DETECTION, start_plan.FULL)
_HOW_TO_CONVERT = (
    "object_detection_ext.tools.convert_i3d_checkpoint (I3D) and inflate_resnet50 (R3D-50) convert "
    "published weights, see docs/pretrained.md."
)
_START_FROM_NOTHING = "train_config { fine_tune_checkpoint: '' }"
# What TensorFlow raises for files that are missing, cut short, or something else.
_UNREADABLE = (tf.errors.OpError, ValueError, IndexError, RuntimeError)
# Whether a training loop, which has called `check`, is what loads.
_is_checked = contextvars.ContextVar("_is_checked", default=False)


class _Start(NamedTuple):
    """What is taken over, and what is said about it."""

    plan: start_plan.Plan
    report: str


def check(pipeline: pipeline_pb2.TrainEvalPipelineConfig, source: str) -> None:
    """Checks `train_config.fine_tune_checkpoint` of a video pipeline; prints what it gives.

    Args:
        pipeline: parsed, with our options as its extension.
        source: where it comes from, for the message.

    Raises:
        PipelineError: there is no such checkpoint, it is not of this network, or it has numbers
            that are not finite.
    """
    train_config = pipeline.train_config
    path = train_config.fine_tune_checkpoint
    if not path or not pipeline_check.is_video_pipeline(pipeline):
        return
    files.check_reachable(path)
    where = f"{source}: {_FIELD}"
    kind = _kind(train_config)
    if kind not in _KINDS:
        raise pipeline_check.PipelineError(
            f"{where}_type: '{kind}' does not exist. There are: {', '.join(_KINDS)}."
        )
    _check_form(train_config, source)
    if kind == start_plan.CLASSIFICATION:
        _check_pretrained(pipeline, f"{where}: '{path}'")
    try:
        label_map_path = pipeline.train_input_reader.label_map_path
        start = _prepare(model_variables.of_pipeline(pipeline), path, kind, label_map_path)
        if kind != start_plan.CLASSIFICATION:
            _values(start.plan, path)
    except errors.InputError as error:
        raise pipeline_check.PipelineError(f"{where}: '{path}': {error}") from error
    messages.say(start.report)


def load(model: video_meta_arch.VideoActionTransformerMetaArch, path: str, kind: str) -> str:
    """Takes over what a checkpoint has for a model; all else keeps its numbers.

    Args:
        model: with its variables.
        path: prefix of a checkpoint of a whole model, such as `.../ckpt-3`.
        kind: 'detection' or 'full'.

    Returns:
        What was taken over, as text.

    Raises:
        errors.InputError: the checkpoint cannot be read, or does not fit.
    """
    variables = model_variables.of_model(model)
    shapes = {name: tuple(variable.shape) for name, variable in variables.items()}
    try:
        start = _prepare(shapes, path, kind, model.training_label_map_path)
        values = _values(start.plan, path)
    except errors.InputError as error:
        raise errors.InputError(f"'{path}': {error}") from error
    for name, copy in start.plan.copies.items():
        variable, value = variables[name], values[name]
        if copy.columns is not None:
            new, old = np.transpose(copy.columns)
            columns, value = value[..., old], variable.numpy()
            value[..., new] = columns
        variable.assign(value)
    return start.report


def wrap_load_fine_tune_checkpoint(stock_load: Callable) -> Callable:
    """Surrounds `model_lib_v2.load_fine_tune_checkpoint`; same arguments.

    Models of others, and pretrained trunks, are restored as ever.
    """

    @functools.wraps(stock_load)
    def load_fine_tune_checkpoint(
        model,
        checkpoint_path,
        checkpoint_type,
        checkpoint_version,
        run_model_on_dummy_input,
        input_dataset,
        unpad_groundtruth_tensors,
    ):
        is_ours = isinstance(model, video_meta_arch.VideoActionTransformerMetaArch)
        if not is_ours or checkpoint_type not in (start_plan.DETECTION, start_plan.FULL):
            stock_load(
                model,
                checkpoint_path,
                checkpoint_type,
                checkpoint_version,
                run_model_on_dummy_input,
                input_dataset,
                unpad_groundtruth_tensors,
            )
            return
        if run_model_on_dummy_input or not model_variables.of_model(model):
            model_lib_v2._ensure_model_is_built(model, input_dataset, unpad_groundtruth_tensors)
        report = load(model, checkpoint_path, checkpoint_type)
        if not _is_checked.get():
            messages.say(report)

    return load_fine_tune_checkpoint


def wrap_train_loop(stock_train_loop: Callable, *, read_pipeline: Callable) -> Callable:
    """Surrounds `model_lib_v2.train_loop`, which is called with keywords.

    A training that starts keeps its label map, and one that resumes must have it still. Nor does it
    load the checkpoint that it started from, which the stock loop would do before it restores its
    own.

    Args:
        stock_train_loop: the stock function.
        read_pipeline: from a pipeline.config's path and its override to the pipeline.
    """

    @functools.wraps(stock_train_loop)
    def train_loop(*, pipeline_config_path, model_dir, config_override=None, **kwargs):
        pipeline = read_pipeline(pipeline_config_path, config_override)
        if pipeline_check.is_video_pipeline(pipeline):
            _check_folder(pipeline.train_config, model_dir, pipeline_config_path)
            if resumes(model_dir):
                _check_classes(pipeline, model_dir, pipeline_config_path)
                if pipeline.train_config.fine_tune_checkpoint:
                    config_override = f"{config_override or ''}\n{_START_FROM_NOTHING}"
            else:
                if tf.train.latest_checkpoint(model_dir) is not None:
                    check(pipeline, pipeline_config_path)  # it looked as if training resumed
                class_names.keep(pipeline, model_dir)
                # Who finds the checkpoints wants to know what they are of. A config that the user
                # keeps there is left alone.
                if not tf.io.gfile.exists(os.path.join(model_dir, _PIPELINE)):
                    kwargs.setdefault("save_final_config", True)
        token = _is_checked.set(True)
        try:
            stock_train_loop(
                pipeline_config_path=pipeline_config_path,
                model_dir=model_dir,
                config_override=config_override,
                **kwargs,
            )
        finally:
            _is_checked.reset(token)

    return train_loop


def resumes(model_dir: str) -> bool:
    """Whether a training in this folder continues with the model of its newest checkpoint.

    The stock loop writes a checkpoint before the first step, when a model that starts from random
    weights has no variables yet.
    """
    latest = tf.train.latest_checkpoint(model_dir)
    if latest is None:
        return False
    try:
        return bool(model_variables.of_checkpoint(latest))
    except _UNREADABLE:
        return True  # it is damaged: restoring it says so


def _kind(train_config: train_pb2.TrainConfig) -> str:
    """The stock default for a type that is not set."""
    if train_config.fine_tune_checkpoint_type:
        return train_config.fine_tune_checkpoint_type
    return start_plan.DETECTION if train_config.from_detection_checkpoint else _KINDS[0]


def _check_form(train_config: train_pb2.TrainConfig, source: str) -> None:
    """Whether there is a checkpoint, in TensorFlow 2's form, of the kind that is asked for."""
    path, kind = train_config.fine_tune_checkpoint, _kind(train_config)
    where = f"{source}: {_FIELD}"
    try:
        names = [name for name, _ in tf.train.list_variables(path)]
    except _UNREADABLE as error:
        raise pipeline_check.PipelineError(
            f"{where}: there is no checkpoint '{path}'.{_suggestion(path)} {_HOW_TO_CONVERT} To "
            "start from random weights, take the field out."
        ) from error
    suggestion = _suggestion(path)
    if suggestion:
        raise pipeline_check.PipelineError(
            f"{where}: '{path}' is a folder, or one of the files of a checkpoint.{suggestion}"
        )
    if _OBJECT_GRAPH not in names:
        raise pipeline_check.PipelineError(
            f"{where}: '{path}' is a checkpoint of TensorFlow 1. {_HOW_TO_CONVERT}"
        )
    if train_config.fine_tune_checkpoint_version != train_pb2.CheckpointVersion.V2:
        raise pipeline_check.PipelineError(f"{where}_version: set V2, the form of '{path}'.")
    if kind == start_plan.CLASSIFICATION:
        if not any(name.startswith("feature_extractor/by_path/") for name in names):
            raise pipeline_check.PipelineError(
                f"{where}: '{path}' holds no trunk, as fine_tune_checkpoint_type '{kind}' needs. "
                "Checkpoints of whole detectors go with 'full' or 'detection'. "
                f"{_HOW_TO_CONVERT}"
            )
    elif not any(name.startswith(model_variables.MODEL) for name in names):
        raise pipeline_check.PipelineError(
            f"{where}: '{path}' holds no detector, as fine_tune_checkpoint_type '{kind}' needs. "
            "Trunks alone go with 'classification'."
        )


def _suggestion(path: str) -> str:
    """A checkpoint that a path may have meant, as a sentence; empty if none is found."""
    near = (path, os.path.join(path, "checkpoint"), os.path.join(path, os.pardir, "checkpoint"))
    found = next(filter(None, map(tf.train.latest_checkpoint, near)), None)
    prefix = re.sub(r"\.(index|data-\d+-of-\d+)$", "", path)
    if found is None and prefix != path and tf.io.gfile.exists(f"{prefix}.index"):
        found = prefix
    return f" Did you mean '{os.path.normpath(found)}'?" if found else ""


def _check_folder(train_config: train_pb2.TrainConfig, model_dir: str, source: str) -> None:
    """A training does not start from its own folder; it would resume, or overwrite its start."""
    path = train_config.fine_tune_checkpoint
    folder = os.path.dirname(path)
    if path and files.real_path(folder or ".") == files.real_path(model_dir):
        raise pipeline_check.PipelineError(
            f"{source}: {_FIELD}: '{path}' is in the folder that the training writes to. Set "
            "another --model_dir to start from it; to resume the training there, take the field "
            "out."
        )


def _check_classes(
    pipeline: pipeline_pb2.TrainEvalPipelineConfig, model_dir: str, source: str
) -> None:
    try:
        class_names.check_kept(
            pipeline.train_input_reader.label_map_path,
            model_dir,
            pipeline.model.faster_rcnn.num_classes,
        )
    except errors.InputError as error:
        raise pipeline_check.PipelineError(f"{source}: {error}") from error


def _check_pretrained(pipeline: pipeline_pb2.TrainEvalPipelineConfig, where: str) -> None:
    model = faster_rcnn_pb2.FasterRcnn()
    model.CopyFrom(pipeline.model.faster_rcnn)
    options_lib.attach(model, pipeline.Extensions[options_lib.EXTENSION])
    try:
        pretrained.check_checkpoint(
            builders.pretrained_variables(model), pipeline.train_config.fine_tune_checkpoint
        )
    except errors.InputError as error:
        raise pipeline_check.PipelineError(
            f"{where} does not fit feature_extractor.type '{model.feature_extractor.type}' of this "
            f"depth_multiplier.\n{error}"
        ) from error


def _prepare(wanted: start_plan.Shapes, path: str, kind: str, label_map_path: str) -> _Start:
    """Plans what a model of these variables takes over from a checkpoint."""
    if kind == start_plan.CLASSIFICATION:
        plan = start_plan.of_trunk(wanted)
        return _Start(plan, start_report.text(plan, path, kind))
    try:
        stored = model_variables.of_checkpoint(path)
    except _UNREADABLE as error:
        raise errors.InputError(f"it cannot be read as a checkpoint: {error}") from error
    model = class_names.of_training(label_map_path, start_plan.num_classes(wanted) or 0)
    checkpoint = class_names.of_checkpoint(path, start_plan.num_classes(stored) or 0)
    make = start_plan.of_everything if kind == start_plan.FULL else start_plan.of_what_fits
    plan = make(wanted, stored, model, checkpoint)
    return _Start(plan, start_report.text(plan, path, kind, model, checkpoint))


def _values(plan: start_plan.Plan, path: str) -> dict[str, np.ndarray]:
    """What a checkpoint holds for each variable that takes something over, by the model's name.

    Raises:
        errors.InputError: it is damaged, or has numbers that are not finite.
    """
    try:
        reader = tf.train.load_checkpoint(path)
        values = {
            name: reader.get_tensor(model_variables.key(copy.stored))
            for name, copy in plan.copies.items()
        }
    except _UNREADABLE as error:
        raise errors.InputError(f"it is damaged: {error}") from error
    wrong = [plan.copies[name].stored for name, v in values.items() if not np.isfinite(v).all()]
    if wrong:
        raise errors.InputError(
            f"{len(wrong)} of its {len(values)} variables hold numbers that are not finite, such "
            f"as {wrong[0]}. Take an earlier checkpoint."
        )
    return values
