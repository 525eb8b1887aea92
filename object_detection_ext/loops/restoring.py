# SPDX-License-Identifier: Apache-2.0
"""Back to the last good checkpoint of a training that has diverged, with half the learning rate.

What was done is noted in the model directory, so that the same command, run again, keeps the halved
rate and does not go back a second time.
"""

import contextlib
import functools
import json
import os
from collections.abc import Iterator

import tensorflow as tf
from google.protobuf import message as protobuf_message
from object_detection import model_lib_v2
from object_detection.protos import optimizer_pb2

from object_detection_ext import errors
from object_detection_ext import files as file_systems
from object_detection_ext.checkpoints import files, model_variables

NOTE = "restored_after_divergence.json"
FACTOR = 0.5


def last_good(model_dir: str, last_healthy: int) -> str | None:
    """The newest checkpoint that is known to be good.

    It is whole and finite, and training went on from it with a loss that was in order: the step
    after it was healthy.

    Args:
        model_dir: folder of checkpoints.
        last_healthy: the last step whose loss was in order.

    Returns:
        Its prefix; None if there is none.
    """
    for prefix in files.listed(model_dir):
        contents = _read(prefix)
        # At step 0 a model may have no variables yet: going back there would be a new start.
        if contents is None or contents.non_finite or not model_variables.of_contents(contents):
            continue
        if files.step_of(prefix) < last_healthy:
            return prefix
    return None


def suspects(model_dir: str, good: str | None, last_healthy: int) -> list[str]:
    """Checkpoints that were written when training had perhaps diverged already, newest first."""
    found = []
    for prefix in files.listed(model_dir):
        if prefix == good:
            break
        if _read(prefix) and files.step_of(prefix) >= last_healthy:
            found.append(prefix)
    return found


def _read(prefix: str) -> files.Contents | None:
    """What a checkpoint holds; None if it is not whole."""
    try:
        return files.read(prefix)
    except files.DamagedError:
        return None


def was_restored(model_dir: str) -> bool:
    """Whether a training in this folder went back once already."""
    return tf.io.gfile.exists(os.path.join(model_dir, NOTE))


def note(model_dir: str, diverged_at: int, restored_step: int) -> None:
    """Writes down that training went back."""
    facts = {
        "diverged_at_step": diverged_at,
        "restored_step": restored_step,
        "learning_rate_factor": FACTOR,
    }
    file_systems.write_text(os.path.join(model_dir, NOTE), json.dumps(facts, indent=2) + "\n")


def halve_learning_rate(optimizer: optimizer_pb2.Optimizer) -> None:
    """Halves every learning rate of an optimizer, whatever its schedule."""
    kind = optimizer.WhichOneof("optimizer")
    rate = getattr(optimizer, kind).learning_rate
    schedule = rate.WhichOneof("learning_rate")
    if schedule is None:
        raise errors.InputError(
            "--on_nan=restore needs a learning rate in train_config.optimizer, to halve it."
        )
    _halve(getattr(rate, schedule))


def _halve(message: protobuf_message.Message) -> None:
    for field in message.DESCRIPTOR.fields:
        if field.cpp_type == field.CPPTYPE_MESSAGE:
            for part in getattr(message, field.name):
                _halve(part)
        elif field.cpp_type == field.CPPTYPE_FLOAT and "learning_rate" in field.name:
            # Where it is not given, the default counts.
            setattr(message, field.name, FACTOR * getattr(message, field.name))


@contextlib.contextmanager
def halved_learning_rate() -> Iterator[None]:
    """Has the stock train loop read pipelines with half the learning rate while this lasts."""
    key = "get_configs_from_pipeline_file"
    stock_read = model_lib_v2.MODEL_BUILD_UTIL_MAP[key]

    @functools.wraps(stock_read)
    def read(*args, **kwargs):
        configs = stock_read(*args, **kwargs)
        halve_learning_rate(configs["train_config"].optimizer)
        return configs

    model_lib_v2.MODEL_BUILD_UTIL_MAP[key] = read
    try:
        yield
    finally:
        model_lib_v2.MODEL_BUILD_UTIL_MAP[key] = stock_read
