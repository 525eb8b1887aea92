# SPDX-License-Identifier: Apache-2.0
"""Whether a checkpoint belongs to a model: the same variables, of the same shapes.

TensorFlow restores what fits and keeps quiet about the rest.
"""

import dataclasses
import functools
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence

import tensorflow as tf
from google.protobuf import text_format
from object_detection.protos import pipeline_pb2

from object_detection_ext import errors, pipeline_check
from object_detection_ext import options as options_lib
from object_detection_ext.checkpoints import averages, files, model_facts, model_variables

_MAX_LISTED = 20
_EXTENSION_PATH = "video_action_transformer"
# Parts of the options that no variable depends on.
_WITHOUT_VARIABLES = ("clip", "outputs", "summaries", "evaluation")

Shapes = Mapping[str, tuple[int, ...]]


class MismatchError(errors.InputError):
    """A checkpoint that does not belong to the model; the message lists the differences."""


@dataclasses.dataclass(frozen=True)
class Differences:
    """How the variables of a checkpoint differ from those of a model; names are sorted.

    Attributes:
        missing: in the checkpoint, though the model has them.
        reshaped: in both, with different shapes.
        left_over: in the checkpoint, though the model does not have them.
    """

    missing: tuple[str, ...]
    reshaped: tuple[str, ...]
    left_over: tuple[str, ...]

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self.missing or self.reshaped or self.left_over)


def differences(wanted: Shapes, found: Shapes) -> Differences:
    """Compares the shapes of variables, by name.

    Args:
        wanted: those of the model.
        found: those of the checkpoint.
    """
    return Differences(
        missing=tuple(sorted(wanted.keys() - found.keys())),
        reshaped=tuple(
            sorted(n for n in wanted.keys() & found.keys() if tuple(wanted[n]) != tuple(found[n]))
        ),
        left_over=tuple(sorted(found.keys() - wanted.keys())),
    )


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def check(
    pipeline: pipeline_pb2.TrainEvalPipelineConfig,
    contents: files.Contents,
    source: str,
    say: Callable[[str], None] = _say,
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
    found = of_contents(contents)
    if not found:
        raise MismatchError(_describe_without_weights(contents))
    wanted = _variables_of(pipeline.SerializeToString(deterministic=True))
    differing = differences(wanted, found)
    if differing:
        raise MismatchError(_describe(differing, wanted, found, pipeline, contents.prefix, source))
    averages.check(pipeline, contents, source, say)


@functools.lru_cache(maxsize=1)
def _variables_of(pipeline: bytes) -> Shapes:
    """Those of a serialized pipeline's model; an eval loop asks again for every checkpoint."""
    return model_variables.of_pipeline(pipeline_pb2.TrainEvalPipelineConfig.FromString(pipeline))


def of_contents(contents: files.Contents) -> dict[str, tuple[int, ...]]:
    """The shapes of the variables of the model that a checkpoint holds, by name.

    What training keeps beside them (step, optimizer, moving averages) is left out.
    """
    return {
        key.removesuffix(files.VALUE_SUFFIX): shape
        for key, shape in contents.shapes.items()
        if key.startswith(model_variables.MODEL)
        and key.endswith(files.VALUE_SUFFIX)
        and "/.OPTIMIZER_SLOT/" not in key
    }


def _describe_without_weights(contents: files.Contents) -> str:
    text = f"The checkpoint '{contents.prefix}' holds no weights of a detector"
    if files.STEP_KEY in contents.shapes:
        return f"{text}: it was written before the first step of a training."
    return (
        f"{text}: no variable's name starts with '{model_variables.MODEL}'. Weights of a trunk, "
        "that a training starts from, are named in train_config.fine_tune_checkpoint."
    )


def _describe(
    differing: Differences,
    wanted: Shapes,
    found: Shapes,
    pipeline: pipeline_pb2.TrainEvalPipelineConfig,
    prefix: str,
    source: str,
) -> str:
    lines = [f"The checkpoint '{prefix}' does not belong to the model of {source}."]
    lines += _causes(wanted, found, pipeline, prefix, source)
    lines += _listed(
        [f"{name} {list(wanted[name])}" for name in differing.missing],
        "of the model {is_are} missing in the checkpoint",
    )
    lines += _listed(
        [
            f"{name}: {list(wanted[name])} in the model, {list(found[name])} in the checkpoint"
            for name in differing.reshaped
        ],
        "{has_have} another shape",
    )
    lines += _listed(
        [f"{name} {list(found[name])}" for name in differing.left_over],
        "of the checkpoint {is_are} not in the model",
    )
    return "\n".join(lines)


def _listed(items: Sequence[str], what: str) -> Iterator[str]:
    """A heading with the number of items, and the first of them."""
    if not items:
        return
    one = len(items) == 1
    what = what.format(is_are="is" if one else "are", has_have="has" if one else "have")
    yield f"{len(items)} variable{'' if one else 's'} {what}:"
    yield from (f"  {item}" for item in items[:_MAX_LISTED])
    if len(items) > _MAX_LISTED:
        yield f"  ... and {len(items) - _MAX_LISTED} more"


def _causes(
    wanted: Shapes,
    found: Shapes,
    pipeline: pipeline_pb2.TrainEvalPipelineConfig,
    prefix: str,
    source: str,
) -> Iterator[str]:
    """What the user probably did, from the variables and from the pipeline.config beside them."""
    in_model, in_checkpoint = model_facts.of(wanted), model_facts.of(found)
    names = [n for n in in_checkpoint if n in in_model and in_model[n] != in_checkpoint[n]]
    if names:
        yield "By its variables, the checkpoint was trained with other options:"
        for name in names[:_MAX_LISTED]:
            yield f"  {name}: {in_checkpoint[name]} in the checkpoint, {in_model[name]} in {source}"
    path, trained = _config_of(prefix)
    fields = _different_fields(trained, pipeline) if trained is not None else []
    if fields:
        yield f"'{path}', beside the checkpoint and without any --config_override, says:"
        for name, there, here in fields[:_MAX_LISTED]:
            yield f"  {name}: {there}, not {here}"
    if not names and not fields:
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
