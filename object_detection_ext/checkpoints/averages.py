# SPDX-License-Identifier: Apache-2.0
"""Moving averages of a model's weights in its checkpoints.

The stock train loop keeps them if `train_config.optimizer.use_moving_average` is true, as slots of
the optimizer; the stock eval loop evaluates them if `eval_config.use_moving_averages` is true.
"""

import contextlib
import functools
import os
import tempfile
from collections.abc import Callable, Iterator

import tensorflow as tf
from object_detection.protos import pipeline_pb2

from object_detection_ext import errors
from object_detection_ext.checkpoints import files

_SLOT_SUFFIX = f"/.OPTIMIZER_SLOT/optimizer/average{files.VALUE_SUFFIX}"
_OPTIMIZER = "optimizer/"


def keys(contents: files.Contents) -> dict[str, str]:
    """The key of the average of each variable that has one, by the variable's own key."""
    return {
        key.removesuffix(_SLOT_SUFFIX) + files.VALUE_SUFFIX: key
        for key in contents.shapes
        if key.endswith(_SLOT_SUFFIX)
    }


def check(
    pipeline: pipeline_pb2.TrainEvalPipelineConfig,
    contents: files.Contents,
    source: str,
    say: Callable[[str], None],
) -> None:
    """Compares the averages that evaluation is to use with those that a checkpoint has.

    Args:
        pipeline: checked.
        contents: of the checkpoint.
        source: where the pipeline comes from, for the message.
        say: takes a warning if there are averages that evaluation does not use.

    Raises:
        errors.InputError: if evaluation is to use averages that are not there. (The stock loop
            would evaluate weights of 0.)
    """
    wanted, found = pipeline.eval_config.use_moving_averages, bool(keys(contents))
    if wanted and not found:
        raise errors.InputError(
            f"{source}: eval_config.use_moving_averages is true, but the checkpoint "
            f"'{contents.prefix}' has no moving averages: {_reason(contents)} Set "
            "eval_config.use_moving_averages to false for this checkpoint."
        )
    if found and not wanted:
        say(
            f"WARNING: the checkpoint '{contents.prefix}' has moving averages of its weights, but "
            f"{source} does not set eval_config.use_moving_averages: evaluated and exported are "
            "the weights of its last step."
        )


def _reason(contents: files.Contents) -> str:
    if any(key.startswith(_OPTIMIZER) for key in contents.shapes):
        return "it was trained with train_config.optimizer.use_moving_average false."
    return "it is from an export, whose weights are used as they are."


def wrap_swap_weights(stock_swap_weights: Callable) -> Callable:
    """Surrounds the moving-average optimizer's `swap_weights`; same arguments.

    The stock eval loop calls it outside of distribution strategies, where the stock method raises.
    There the weights and their averages change places, to the last bit.
    """

    @functools.wraps(stock_swap_weights)
    def swap_weights(self):
        if tf.distribute.in_cross_replica_context():
            return stock_swap_weights(self)
        for average, weight in zip(self._average_weights, self._model_weights, strict=True):
            value = tf.identity(weight)
            weight.assign(average)
            average.assign(value)
        return None

    return swap_weights


@contextlib.contextmanager
def folder_to_export(
    pipeline: pipeline_pb2.TrainEvalPipelineConfig, contents: files.Contents
) -> Iterator[str]:
    """A folder whose newest checkpoint has the weights that evaluation uses, while this lasts.

    Args:
        pipeline: says whether these are the averages.
        contents: of the checkpoint.
    """
    if not pipeline.eval_config.use_moving_averages:
        with files.folder_of(contents.prefix) as folder:
            yield folder
        return
    with tempfile.TemporaryDirectory() as place:
        averaged = os.path.join(place, "averaged")
        _write_averaged(contents, averaged)
        with files.folder_of(averaged) as folder:
            yield folder


def _write_averaged(contents: files.Contents, prefix: str) -> None:
    """Copies a checkpoint without the optimizer's slots, with the averages as the values."""
    reader = tf.train.load_checkpoint(contents.prefix)
    averaged = keys(contents)
    kept = [key for key in contents.shapes if "/.OPTIMIZER_SLOT/" not in key]
    tf.raw_ops.SaveV2(
        prefix=prefix,
        tensor_names=kept,
        shape_and_slices=[""] * len(kept),
        tensors=[tf.constant(reader.get_tensor(averaged.get(key, key))) for key in kept],
    )
