# SPDX-License-Identifier: Apache-2.0
"""Runs the slim networks of the installed API, which nobody here wrote, with values of ours."""

import contextlib
import importlib
import sys
from collections.abc import Iterator, Mapping

import numpy as np
import pytest

from object_detection_ext import compat  # noqa: F401  (before any object_detection module)

# isort: split
import tensorflow as tf


@contextlib.contextmanager
def modules() -> Iterator[tuple]:
    """The API's `s3dg` and `i3d`, which import each other from a top-level package `nets`.

    And slim looks for Keras's TF1 layers where tf-keras no longer has them.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "nets", importlib.import_module("object_detection.nets"))
        for module in ("", ".base", ".convolutional", ".normalization", ".pooling"):
            patch.setitem(
                sys.modules,
                f"tf_keras.legacy_tf_layers{module}",
                importlib.import_module(f"tf_keras.src.legacy_tf_layers{module}"),
            )
        yield (
            importlib.import_module("object_detection.nets.s3dg"),
            importlib.import_module("object_detection.nets.i3d"),
        )


def run(
    base, arg_scope, values: Mapping[str, np.ndarray], clip: np.ndarray, is_training: bool
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """{endpoint: array} and {variable: array} after one run of base(clip) with `values`.

    `values` must be all variables of the network, by name.
    """
    import tf_slim as slim

    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        with (
            slim.arg_scope(arg_scope),
            slim.arg_scope([slim.batch_norm], is_training=is_training),
        ):
            _, endpoints = base(tf.constant(clip))
        variables = {v.op.name: v for v in tf.compat.v1.global_variables()}
        assert set(variables) == set(values)
        # In one run; `variable.load` takes one each.
        initializers = {name: variable.initializer for name, variable in variables.items()}
        session.run(
            list(initializers.values()),
            feed_dict={op.inputs[1]: values[name] for name, op in initializers.items()},
        )
        updates = tf.compat.v1.get_collection(tf.compat.v1.GraphKeys.UPDATE_OPS)
        outputs, _ = session.run([endpoints, updates])
        return outputs, session.run(variables)
