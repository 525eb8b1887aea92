# SPDX-License-Identifier: Apache-2.0
"""Whether XLA can compile for the device that computes: known before a model is built."""

import functools

import tensorflow as tf

from object_detection_ext import errors, printable
from object_detection_ext.static_shapes import OPTION


@tf.function(jit_compile=True)
def _exponential(value):
    # On GPUs it needs what else a step needs: CUDA's libdevice and ptxas.
    return tf.exp(value)


@functools.cache
def check() -> None:
    """Compiles a function of one number, once in a process.

    Raises:
        errors.InputError: if that is not possible here, with XLA's reason.
    """
    try:
        with tf.init_scope():
            _exponential(tf.constant(1.0))
    except (tf.errors.OpError, ValueError) as error:
        reason = printable.in_one_line(str(error).strip().partition("\n")[0]).rstrip(".")
        raise errors.InputError(
            f"{OPTION}: true, but XLA cannot compile for {_device()}: {reason}. Take the option "
            "out; or, if a GPU's libdevice or ptxas is missing, install what "
            "tensorflow[and-cuda] lists."
        ) from error


def _device() -> str:
    return "this GPU" if tf.config.get_visible_devices("GPU") else "this CPU"
