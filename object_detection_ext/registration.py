# SPDX-License-Identifier: Apache-2.0
"""Every change to the stock API, in one place.

After `register()`, stock calls (`model_lib_v2.train_loop`, `model_builder.build`,
`exporter_lib_v2.export_inference_graph`, ...) work with our models, and as before with all others.
"""

import functools
import sys
from collections.abc import Callable

from object_detection_ext import compat  # isort: skip  # before any module of the stock API

import tensorflow as tf
from absl import app, flags
from object_detection import eval_util, exporter_lib_v2, inputs, model_lib, model_lib_v2
from object_detection.builders import model_builder
from object_detection.protos import pipeline_pb2
from object_detection.utils import config_util
from official.modeling.optimization import ema_optimizer

from object_detection_ext import (
    builders,
    command_line,
    devices,
    errors,
    exporting,
    files,
    messages,
    pipeline_check,
    pipeline_overrides,
    pipeline_text,
    static_shapes,
    unused_fields,
)
from object_detection_ext import options as options_lib
from object_detection_ext.checkpoints import averages, matching, model_variables, start
from object_detection_ext.data import random_draws
from object_detection_ext.detection import eval_pictures, video_feature_extractor
from object_detection_ext.evaluation import ava_evaluator
from object_detection_ext.loops import evaluate, train, train_and_evaluate

AVA_METRICS = ava_evaluator.METRICS_SET

_registered = False

# Flags of the stock mains that name files or folders.
_PLACES = (
    "pipeline_config_path",
    "model_dir",
    "checkpoint_dir",
    "trained_checkpoint_dir",
    "output_directory",
)


def register() -> None:
    """Makes the stock API know our models, records and metrics. Calling it again does nothing."""
    global _registered
    if _registered:
        return
    _registered = True
    compat.apply()
    _register_builders()
    _register_configs()
    _register_random_draws()
    _register_loops()
    _register_exporter()


def _register_builders() -> None:
    model_builder.META_ARCH_BUILDER_MAP["faster_rcnn"] = builders.build_faster_rcnn
    for kind in builders.TRUNKS:
        # The stock builder looks a type up here before it builds.
        model_builder.FASTER_RCNN_KERAS_FEATURE_EXTRACTOR_CLASS_MAP[kind] = (
            video_feature_extractor.VideoFeatureExtractor
        )
    stock_build = inputs.INPUT_BUILDER_UTIL_MAP["dataset_build"]
    inputs.INPUT_BUILDER_UTIL_MAP["dataset_build"] = functools.partial(
        builders.build_dataset, stock_build=stock_build
    )
    _register_metrics()


def _register_metrics() -> None:
    eval_util.EVAL_METRICS_CLASS_DICT[AVA_METRICS] = ava_evaluator.AvaDetectionEvaluator
    stock_options = eval_util.evaluator_options_from_eval_config

    @functools.wraps(stock_options)
    def evaluator_options_from_eval_config(eval_config):
        evaluator_options = stock_options(eval_config)
        if AVA_METRICS in eval_config.metrics_set:
            evaluator_options[AVA_METRICS] = builders.evaluator_options(eval_config)
        return evaluator_options

    eval_util.evaluator_options_from_eval_config = evaluator_options_from_eval_config


def _register_configs() -> None:
    """Pipelines are checked when they are read, and their options go with their messages."""
    stock_split = config_util.create_configs_from_pipeline_proto
    stock_join = config_util.create_pipeline_proto_from_configs

    @functools.wraps(stock_split)
    def create_configs_from_pipeline_proto(pipeline_config):
        if pipeline_check.is_video_pipeline(pipeline_config):
            original, pipeline_config = pipeline_config, pipeline_pb2.TrainEvalPipelineConfig()
            pipeline_config.CopyFrom(original)
            options_lib.attach_to_pipeline(pipeline_config)
        return stock_split(pipeline_config)

    @functools.wraps(stock_join)
    def create_pipeline_proto_from_configs(configs):
        return options_lib.restore_extension(stock_join(configs))

    @functools.wraps(config_util.get_configs_from_pipeline_file)
    def get_configs_from_pipeline_file(pipeline_config_path, config_override=None):
        return create_configs_from_pipeline_proto(
            read_pipeline(pipeline_config_path, config_override)
        )

    config_util.create_configs_from_pipeline_proto = create_configs_from_pipeline_proto
    config_util.create_pipeline_proto_from_configs = create_pipeline_proto_from_configs
    config_util.get_configs_from_pipeline_file = get_configs_from_pipeline_file
    model_lib.MODEL_BUILD_UTIL_MAP.update(
        get_configs_from_pipeline_file=get_configs_from_pipeline_file,
        create_pipeline_proto_from_configs=create_pipeline_proto_from_configs,
    )


def _register_random_draws() -> None:
    # The stock crops call it without a seed, which op determinism (a `--seed`) does not allow.
    tf.compat.v1.image.sample_distorted_bounding_box = random_draws.sample_distorted_bounding_box(
        tf.compat.v1.image.sample_distorted_bounding_box
    )


def _register_loops() -> None:
    model_lib_v2.load_fine_tune_checkpoint = start.wrap_load_fine_tune_checkpoint(
        model_lib_v2.load_fine_tune_checkpoint
    )
    model_lib_v2.train_loop = train.wrap_train_loop(
        start.wrap_train_loop(model_lib_v2.train_loop, read_pipeline=read_pipeline),
        read_pipeline=read_pipeline,
        is_video_pipeline=pipeline_check.is_video_pipeline,
        check_checkpoint=start.check,
    )
    model_lib_v2.eager_eval_loop = eval_pictures.wrap_eager_eval_loop(model_lib_v2.eager_eval_loop)
    averaging = ema_optimizer.ExponentialMovingAverage
    averaging.swap_weights = averages.wrap_swap_weights(averaging.swap_weights)
    of_evaluation = {
        "stock_eval": model_lib_v2.eval_continuously,
        "read_pipeline": read_pipeline,
        "check_checkpoint": matching.check,
        "has_weights": model_variables.of_contents,
    }
    model_lib_v2.eval_continuously = evaluate.wrap_eval_continuously(**of_evaluation)
    model_lib_v2.train_loop = train_and_evaluate.wrap_train_loop(
        model_lib_v2.train_loop, check_input=_check_eval_input, **of_evaluation
    )
    for name, work in (("train_loop", devices.TRAINING), ("eval_continuously", devices.EVALUATION)):
        setattr(model_lib_v2, name, _announcing(getattr(model_lib_v2, name), work))


def _check_eval_input(pipeline: pipeline_pb2.TrainEvalPipelineConfig, path: str) -> None:
    """Builds the eval input once, which finds what is wrong with its data.

    Raises:
        InputError: with what is wrong.
    """
    configs = config_util.create_configs_from_pipeline_proto(pipeline)
    if not configs["eval_input_configs"]:
        raise errors.InputError(f"{path}: --train_and_evaluate needs an eval_input_reader.")
    inputs.eval_input(configs["eval_config"], configs["eval_input_configs"][0], configs["model"])


def _announcing(loop: Callable, work: str) -> Callable:
    """A loop that sets the devices up first, for programs that call it without `run`."""

    @functools.wraps(loop)
    def announcing(*args, **kwargs):
        devices.announce(work, use_tpu=kwargs.get("use_tpu", False))
        return loop(*args, **kwargs)

    return announcing


def _register_exporter() -> None:
    exporter_lib_v2.DETECTION_MODULE_MAP.update(exporting.MODULES)
    exporter_lib_v2.export_inference_graph = exporting.wrap_export(
        exporter_lib_v2.export_inference_graph
    )


def read_pipeline(path: str, override: str | None = None) -> pipeline_pb2.TrainEvalPipelineConfig:
    """Reads and checks a pipeline.config.

    Args:
        path: of the file.
        override: text proto that is merged into it.

    Raises:
        PipelineError: naming the file and the line or the field.
    """
    pipeline = parse_pipeline(path, override)
    pipeline_check.check(pipeline, path)
    return pipeline


def parse_pipeline(path: str, override: str | None = None) -> pipeline_pb2.TrainEvalPipelineConfig:
    """As `read_pipeline`, without checking what the fields say.

    Raises:
        PipelineError: naming the file and the line.
    """
    text = pipeline_text.read(path)
    pipeline = pipeline_text.merge(path, text, pipeline_pb2.TrainEvalPipelineConfig())
    if pipeline_check.is_video_pipeline(pipeline):
        # Merging lets the last of two values win, of two heads too. In an override that is wanted,
        # in one file it is a mistake. (Stock files are read as ever.)
        pipeline_text.parse(path, text)
    return pipeline_text.merge(pipeline_overrides.TEXT_SOURCE, override or "", pipeline)


def _check_required_flags() -> None:
    # `model_main_tf2` marks them as required only after the flags are parsed: too late.
    for name in ("pipeline_config_path", "model_dir"):
        if name in flags.FLAGS and not flags.FLAGS[name].value:
            raise errors.InputError(f"The flag --{name} is missing.")
    for name in _PLACES:
        if name in flags.FLAGS and flags.FLAGS[name].value:
            files.check_reachable(flags.FLAGS[name].value)


def _flag(name: str):
    """The value of a flag; None where the program does not have it."""
    return flags.FLAGS[name].value if name in flags.FLAGS else None


def _announce_start(pipeline: pipeline_pb2.TrainEvalPipelineConfig) -> None:
    """Sets the devices up and prints them, and what of the pipeline.config has no effect."""
    if "trained_checkpoint_dir" in flags.FLAGS:
        work = devices.EXPORT
    else:
        work = devices.EVALUATION if _flag("checkpoint_dir") else devices.TRAINING
    # Before anything starts a device.
    devices.announce(work, use_tpu=bool(_flag("use_tpu")))
    if not pipeline_check.is_video_pipeline(pipeline):
        return
    trains, model_dir = work == devices.TRAINING, _flag("model_dir")
    if trains and _flag("seed") is not None and static_shapes.is_wanted(pipeline):
        raise errors.InputError(
            f"--seed cannot make this training repeatable: {static_shapes.OPTION} is true, and XLA "
            "draws dropout and samples from numbers of its own. Leave out one of the two."
        )
    unused = unused_fields.find(
        pipeline,
        trains=trains,
        evaluates=work != devices.EXPORT,
        resumed_from=tf.train.latest_checkpoint(model_dir) if trains and model_dir else None,
    )
    for text in unused:
        messages.say(f"warning: {flags.FLAGS.pipeline_config_path}: no effect: {text}")


def run(stock_main: Callable, override: flags.FlagHolder[str | None] | None = None) -> None:
    """Runs a stock main; an error for people ends with its message and its status.

    Args:
        stock_main: takes the command line's rest.
        override: flag of a text proto that is merged into the pipeline.config, for a stock main
            that has none itself.
    """

    @command_line.ending()
    def main(argv):
        _check_required_flags()
        path = flags.FLAGS.pipeline_config_path
        merged = pipeline_overrides.combined(
            path,
            _flag(pipeline_overrides.FLAG) or (),
            _flag("config_override") if override is None else override.value,
        )
        # The stock mains read the file too, but do not say which file is wrong.
        _announce_start(read_pipeline(path, merged))
        if override is None:
            if merged is not None:
                flags.FLAGS["config_override"].value = merged
        else:
            for name in ("train_loop", "eval_continuously"):
                loop = getattr(model_lib_v2, name)
                setattr(model_lib_v2, name, functools.partial(loop, config_override=merged))
        try:
            stock_main(argv)
        except KeyboardInterrupt:
            # Where training and evaluation do not listen themselves: nothing is half-written.
            command_line.print_error("interrupted")
            sys.exit(130)

    app.run(main)
