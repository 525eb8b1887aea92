# SPDX-License-Identifier: Apache-2.0
"""Checkpoints on disk: which there are, whether they are whole, what they hold.

A checkpoint is named by its prefix, such as `model/ckpt-5`.
"""

import dataclasses
import os
import re

import numpy as np
import tensorflow as tf

from object_detection_ext import errors

STEP_KEY = "step/.ATTRIBUTES/VARIABLE_VALUE"
_INDEX_SUFFIX = ".index"
_NUMBER = re.compile(r"-(\d+)$")
# What TensorFlow raises for a missing, cut or damaged file of a checkpoint, by Python's reader
# (IndexError, RuntimeError, ValueError) and by its ops.
_READ_ERRORS = (tf.errors.OpError, IndexError, RuntimeError, ValueError, OSError)


class DamagedError(errors.InputError):
    """A checkpoint that cannot be read in full; the message names it."""


@dataclasses.dataclass(frozen=True)
class Contents:
    """What a checkpoint holds, all of it read once.

    Attributes:
        prefix: of its files.
        shapes: of each variable, by checkpoint key.
        non_finite: keys of floating-point variables with NaN or infinite values.
    """

    prefix: str
    shapes: dict[str, tuple[int, ...]]
    non_finite: tuple[str, ...]


def read(prefix: str) -> Contents:
    """Reads a checkpoint from end to end, which compares its checksums.

    Raises:
        DamagedError: if a part is missing, cut off or damaged.
    """
    try:
        reader = tf.train.load_checkpoint(prefix)
        shapes = {key: tuple(s) for key, s in reader.get_variable_to_shape_map().items()}
        non_finite = tuple(key for key in sorted(shapes) if not _finite(reader.get_tensor(key)))
    except _READ_ERRORS as error:
        raise DamagedError(
            f"The checkpoint '{prefix}' is damaged or incomplete: {error}"
        ) from error
    return Contents(prefix, shapes, non_finite)


def _finite(value) -> bool:
    array = np.asarray(value)
    return array.dtype.kind != "f" or bool(np.isfinite(array).all())


def listed(folder: str) -> list[str]:
    """Prefixes of a folder's checkpoints, newest first, whole or not.

    First those that its `checkpoint` file lists, then others that have an index file.
    """
    try:
        state = tf.train.get_checkpoint_state(folder)
    except _READ_ERRORS:
        state = None  # cut off itself
    found = list(reversed(state.all_model_checkpoint_paths)) if state else []
    on_disk = tf.io.gfile.glob(os.path.join(folder, f"*{_INDEX_SUFFIX}"))
    others = {path.removesuffix(_INDEX_SUFFIX) for path in on_disk} - set(found)
    return found + sorted(others, key=_number, reverse=True)


def _number(prefix: str) -> int:
    match = _NUMBER.search(prefix)
    return int(match.group(1)) if match else -1


def step_of(prefix: str) -> int:
    """The training step at which a checkpoint was saved."""
    return int(tf.train.load_variable(prefix, STEP_KEY))


def step_of_newest(folder: str) -> int:
    """The step of the newest checkpoint in a model directory; 0 if there is none."""
    checkpoint = tf.train.latest_checkpoint(folder)
    return 0 if checkpoint is None else step_of(checkpoint)
