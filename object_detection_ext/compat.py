# SPDX-License-Identifier: Apache-2.0
"""Gives back the names that the 2022 Object Detection API expects and later releases removed.

Import it before any `object_detection` module:

    from object_detection_ext import compat

A name is added only where it is missing, so on releases that still have it nothing changes, and
nothing that exists is replaced. `SHIMS` is the whole list, each with the reader that needs it.
"""

import collections
import importlib
import sys
import types
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from PIL import ImageFont
from tensorflow.python.ops import (
    array_ops,
    array_ops_stack,
    cond,
    control_flow_case,
    control_flow_ops,
    while_loop,
)


class Shim(NamedTuple):
    """One name to give back.

    Attributes:
      owner: the module or class that used to have the name.
      name: the attribute.
      value: what the name meant in the releases that had it.
      needed_by: the dotted names of the modules that read it.
    """

    owner: Any
    name: str
    value: Any
    needed_by: tuple[str, ...]

    @property
    def full_name(self) -> str:
        """The name as its readers write it, such as `numpy.float`."""
        if isinstance(self.owner, type):
            return f"{self.owner.__module__}.{self.owner.__name__}.{self.name}"
        return f"{self.owner.__name__}.{self.name}"


def _font_size(font, text: str, *args, **kwargs) -> tuple[int, int]:
    """(width, height) in pixels, as `getsize` measured them until Pillow 10.

    The height runs from the line's top to the lowest pixel, so it includes the space above the
    letters, as the removed method did; the width leaves out the offset on the left.
    """
    left, _, right, bottom = font.getbbox(text, *args, **kwargs)
    return round(right - left), round(bottom)


class _EstimatorNamespace(types.ModuleType):
    """The three names of `tf.estimator` that TF2 code paths of the API still read."""

    def __getattr__(self, name: str):
        raise AttributeError(
            f"tf.compat.v1.estimator.{name} does not exist: TensorFlow removed Estimators in "
            f"2.16, and object_detection_ext gives back only {sorted(vars(self).keys() - _DUNDER)}"
            ". Train and evaluate with the TF2 loops of object_detection.model_lib_v2."
        )


_DUNDER = set(vars(types.ModuleType("empty")))


def _estimator_namespace() -> types.ModuleType:
    """`tf.compat.v1.estimator`, as far as the TF2 side of the API reads it.

    `ModeKeys` has the values of the removed class. `ServingInputReceiver` is the plain record
    that `inputs.create_predict_input_fn` returns.
    """
    namespace = _EstimatorNamespace("tensorflow.compat.v1.estimator")
    namespace.ModeKeys = type(
        "ModeKeys", (), {"TRAIN": "train", "EVAL": "eval", "PREDICT": "infer"}
    )
    namespace.export = types.SimpleNamespace(
        ServingInputReceiver=collections.namedtuple(
            "ServingInputReceiver",
            ["features", "receiver_tensors", "receiver_tensors_alternatives"],
            defaults=[None],
        )
    )
    return namespace


# The API reads `tf.compat.v1` by `import tensorflow.compat.v1 as tf`, which is this module.
_TF_V1 = sys.modules[tf.compat.v1.__name__]

SHIMS: tuple[Shim, ...] = (
    # Removed in NumPy 1.24.
    Shim(
        np,
        "float",
        float,
        (
            # Average precision of every Pascal metric.
            "object_detection.utils.metrics",
            "object_detection.metrics.tf_example_parser",
            # The LVIS metric runs on the `lvis` package.
            "lvis.eval",
        ),
    ),
    Shim(
        np,
        "int",
        int,
        (
            # No TF2 model reads it, but the tests of CenterNet do: they are run here as the proof
            # that the API works.
            "object_detection.meta_architectures.center_net_meta_arch_tf2_test",
            "object_detection.datasets.build_imagenet_data",
        ),
    ),
    # Removed in NumPy 2.0.
    Shim(
        np,
        "NAN",
        np.nan,
        # Average precision of a class without ground truth.
        ("object_detection.utils.metrics",),
    ),
    # Only a test reads it.
    Shim(np, "string_", np.bytes_, ("object_detection.utils.ops_test",)),
    # Removed with Estimators in TensorFlow 2.16; read when these modules are imported.
    Shim(
        _TF_V1,
        "estimator",
        _estimator_namespace(),
        (
            "object_detection.inputs",
            # model_lib_v2 imports it, and so do both mains.
            "object_detection.model_lib",
        ),
    ),
    # TensorFlow 2.13 moved these into modules of their own. The readers belong to tf-slim, which
    # decodes the API's tf.Example records.
    Shim(
        control_flow_ops,
        "case",
        control_flow_case.case,
        ("tf_slim.data.tfexample_decoder",),
    ),
    Shim(
        control_flow_ops,
        "cond",
        cond.cond,
        ("tf_slim.data.tfexample_decoder", "tf_slim.layers.utils", "tf_slim.metrics.metric_ops"),
    ),
    Shim(
        control_flow_ops,
        "while_loop",
        while_loop.while_loop,
        ("tf_slim.losses.metric_learning",),
    ),
    Shim(
        array_ops,
        "stack",
        array_ops_stack.stack,
        ("tf_slim.data.tfexample_decoder", "tf_slim.layers.layers", "tf_slim.metrics.metric_ops"),
    ),
    Shim(array_ops, "unstack", array_ops_stack.unstack, ("tf_slim.layers.layers",)),
    # Removed in Pillow 10: the labels over the boxes of every evaluation picture. `load_default`
    # returns one class or the other, depending on whether Pillow was built with FreeType.
    Shim(
        ImageFont.ImageFont,
        "getsize",
        _font_size,
        ("object_detection.utils.visualization_utils",),
    ),
    Shim(
        ImageFont.FreeTypeFont,
        "getsize",
        _font_size,
        ("object_detection.utils.visualization_utils",),
    ),
)


def apply() -> tuple[str, ...]:
    """Adds the names of `SHIMS` that are missing; runs when this module is imported.

    Calling it again changes nothing.

    Returns:
      The names that this call added, empty when nothing was missing.
    """
    added = []
    for shim in SHIMS:
        if not hasattr(shim.owner, shim.name):
            setattr(shim.owner, shim.name, shim.value)
            added.append(shim.full_name)
    return tuple(added)


def check_opencv() -> None:
    """Loads OpenCV, which the API's LVIS metric and so its whole evaluation imports.

    The API's dependencies install both `opencv-python` and `opencv-python-headless` into the same
    folder. Where the first was written last, a machine without a desktop misses its libraries.

    Raises:
      ImportError: OpenCV cannot be loaded; the message says how to repair it.
    """
    try:
        importlib.import_module("cv2")
    except ImportError as error:
        raise ImportError(
            f"OpenCV cannot be loaded: {error}. The desktop build (opencv-python) overwrote the "
            "headless one. Either put the headless build back with `python -m pip install "
            "--force-reinstall --no-deps opencv-python-headless`, or install the desktop "
            "libraries with `apt-get install libgl1 libglib2.0-0`."
        ) from error


ADDED_AT_IMPORT: tuple[str, ...] = apply()
check_opencv()
