# SPDX-License-Identifier: Apache-2.0
"""Whether a checkpoint belongs to a model: the same variables, of the same shapes.

TensorFlow restores what fits and keeps quiet about the rest.
"""

import functools
import os
from collections.abc import Callable, Iterator

import tensorflow as tf
from google.protobuf import text_format
from object_detection.protos import pipeline_pb2

from object_detection_ext import errors, listing, messages, pipeline_check
from object_detection_ext import options as options_lib
from object_detection_ext.checkpoints import averages, differences, files, model_variables

_EXTENSION_PATH = "video_action_transformer"
# Parts of the options that no variable depends on.
_WITHOUT_VARIABLES = (
    "clip",
    "outputs",
    "summaries",
    "evaluation",
    "class_weights",
    "class_balance",
    "compute",
)


class MismatchError(errors.InputError):
    """A checkpoint that does not belong to the model; the message lists the differences."""


def check(
    pipeline: pipeline_pb2.TrainEvalPipelineConfig,
    contents: files.Contents,
    source: str,
    say: Callable[[str], None] = messages.say,
) -> None:
    """Refuses a checkpoint that does not belong to a pipeline's model, before work starts.

    Pipelines of stock models pass: nothing is known about their variables.

    Args:
        pipeline: checked, with our options as its extension.
        contents: of the checkpoint.
        source: where the pipeline comes from, for the message.
        say: takes warnings.

    Raises:
        MismatchError: with the differences, and what probably causes them.
        errors.InputError: if evaluation is to use moving averages and the checkpoint has none.
    """
    if not pipeline_check.is_video_pipeline(pipeline):
        return
    found = model_variables.of_contents(contents)
    if not found:
        raise MismatchError(_describe_without_weights(contents))
    wanted = _variables_of(pipeline.SerializeToString(deterministic=True))
    differing = differences.between(wanted, found)
    if differing:
        raise MismatchError(_describe(differing, pipeline, contents.prefix, source))
    averages.check(pipeline, contents, source, say)


@functools.lru_cache(maxsize=1)
def _variables_of(pipeline: bytes) -> differences.Shapes:
    """Those of a serialized pipeline's model; an eval loop asks again for every checkpoint."""
    return model_variables.of_pipeline(pipeline_pb2.TrainEvalPipelineConfig.FromString(pipeline))


def _describe_without_weights(contents: files.Contents) -> str:
    text = f"The checkpoint '{contents.prefix}' holds no weights of a detector"
    if files.STEP_KEY in contents.shapes:
        return f"{text}: it was written before the first step of a training."
    return (
        f"{text}: no variable's name starts with '{model_variables.MODEL}'. Weights of a trunk, "
        "that a training starts from, are named in train_config.fine_tune_checkpoint."
    )


def _describe(
    differing: differences.Differences,
    pipeline: pipeline_pb2.TrainEvalPipelineConfig,
    prefix: str,
    source: str,
) -> str:
    lines = [f"The checkpoint '{prefix}' does not belong to the model of {source}."]
    lines += _causes(differing, pipeline, prefix, source)
    lines += differing.lines()
    return "\n".join(lines)


def _causes(
    differing: differences.Differences,
    pipeline: pipeline_pb2.TrainEvalPipelineConfig,
    prefix: str,
    source: str,
) -> Iterator[str]:
    """What the user probably did, from the variables and from the pipeline.config beside them."""
    options = differing.options()
    if options:
        yield "By its variables, the checkpoint was trained with other options:"
        texts = [f"{name}: {a} in the checkpoint, {b} in {source}" for name, a, b in options]
        yield from listing.in_lines(texts, differences.MAX_LISTED)
    path, trained = _config_of(prefix)
    fields = _different_fields(trained, pipeline) if trained is not None else []
    if fields:
        yield f"'{path}', beside the checkpoint and without any --config_override, says:"
        texts = [f"{name}: {there}, not {here}" for name, there, here in fields]
        yield from listing.in_lines(texts, differences.MAX_LISTED)
    if not options and not fields:
        yield "It was probably trained by another network or another version of this package."
    yield (
        "Use the pipeline.config (and the --config_override) that it was trained with, or another "
        "checkpoint."
    )


def _config_of(prefix: str) -> tuple[str, pipeline_pb2.TrainEvalPipelineConfig | None]:
    """The pipeline.config in a checkpoint's folder or the one above; None if there is none."""
    folder = os.path.dirname(os.path.abspath(prefix) if "://" not in prefix else prefix)
    for place in (folder, os.path.dirname(folder)):
        path = os.path.join(place, "pipeline.config")
        try:
            with tf.io.gfile.GFile(path, "r") as file:
                text = file.read()
            return path, text_format.Parse(text, pipeline_pb2.TrainEvalPipelineConfig())
        except (tf.errors.OpError, UnicodeDecodeError, text_format.ParseError):
            continue  # not there, or not one: the variables speak for themselves
    return "", None


def _different_fields(
    there: pipeline_pb2.TrainEvalPipelineConfig, here: pipeline_pb2.TrainEvalPipelineConfig
) -> list[tuple[str, str, str]]:
    """(field, its value there, its value here) of the fields that describe the network."""
    first, second = _fields(there), _fields(here)
    return [
        (name, first.get(name, "not set"), second.get(name, "not set"))
        for name in sorted(first.keys() | second.keys())
        if first.get(name) != second.get(name)
    ]


def _fields(pipeline: pipeline_pb2.TrainEvalPipelineConfig) -> dict[str, str]:
    options = pipeline.Extensions[options_lib.EXTENSION]
    model = dict(_flattened(pipeline.model.faster_rcnn, "model.faster_rcnn"))
    own = {
        name: value
        for name, value in _flattened(options, _EXTENSION_PATH)
        if name.split(".")[1] not in _WITHOUT_VARIABLES
    }
    return {**model, **own}


def _flattened(message, path: str) -> Iterator[tuple[str, str]]:
    """(path, value) of all fields that are set in a message and in those inside it."""
    fields = message.ListFields()
    if not fields:
        yield path, "{ }"
    for field, value in fields:
        name = f"{path}.{field.name}"
        if field.message_type is None:
            is_repeated = field.label == field.LABEL_REPEATED
            yield name, str(list(value) if is_repeated else _enum_name(field, value))
        elif field.label == field.LABEL_REPEATED:
            for index, each in enumerate(value):
                yield from _flattened(each, f"{name}[{index}]")
        else:
            yield from _flattened(value, name)


def _enum_name(field, value):
    return value if field.enum_type is None else field.enum_type.values_by_number[value].name
