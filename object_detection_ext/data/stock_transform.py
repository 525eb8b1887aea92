# SPDX-License-Identifier: Apache-2.0
"""The function that the stock input functions hand to the dataset builder, opened.

`inputs.train_input` and `inputs.eval_input` hand over a function from decoded tensors to (features,
labels), in which augmentation, resizing, label code and padding are wired up, and tell nothing else
of the pipeline. What it is wired to are variables it closed over; they are read here, and a copy of
it can be wired to others. So what the dataset does always follows the very messages that the caller
gave, edited or not.
"""

import dataclasses
import functools
import inspect
import types
from collections.abc import Callable, Sequence
from typing import Any

from object_detection.builders import image_resizer_builder
from object_detection.core import standard_fields
from object_detection.protos import image_resizer_pb2, preprocessor_pb2
from object_detection.utils import config_util

from object_detection_ext.data import clip_augmentation, clip_names

# Of `inputs.train_input` and `inputs.eval_input` both.
_PREPROCESS, _MODEL_CONFIG = "model_preprocess_fn", "model_config"
_TRAIN_CONFIG, _EVAL_CONFIG = "train_config", "eval_config"


@dataclasses.dataclass(frozen=True)
class StockTransform:
    """A stock input function's transformation and what it closed over, by name."""

    function: Callable
    variables: dict[str, Any]

    @property
    def is_training(self) -> bool:
        """Whether it comes from `inputs.train_input`."""
        return _TRAIN_CONFIG in self.variables

    @property
    def preprocess(self) -> Callable:
        """`model.preprocess`: from images to what the model takes."""
        return self.variables[_PREPROCESS]

    @property
    def steps(self) -> clip_augmentation.Steps:
        """The augmentation; none in evaluation."""
        if not self.is_training:
            return clip_augmentation.sort_steps(())
        return clip_augmentation.sort_steps(self.variables[_TRAIN_CONFIG].data_augmentation_options)

    @property
    def image_resizer(self) -> image_resizer_pb2.ImageResizer:
        """The message."""
        return config_util.get_image_resizer_config(self.variables[_MODEL_CONFIG])

    def build_resizer(self) -> Callable:
        """The stock resizer: from an image to [resized image, its shape without padding]."""
        return image_resizer_builder.build(self.image_resizer)

    def rewired(
        self,
        steps: Sequence[preprocessor_pb2.PreprocessingStep],
        preprocess: Callable | None = None,
    ) -> Callable:
        """A copy of the function with other augmentation steps, and another `model.preprocess`.

        In evaluation, labels also hold the clip's name (see `clip_names`).
        """
        replaced = {_PREPROCESS: preprocess or self.preprocess}
        if self.is_training:
            train_config = type(self.variables[_TRAIN_CONFIG])()
            train_config.CopyFrom(self.variables[_TRAIN_CONFIG])
            del train_config.data_augmentation_options[:]
            train_config.data_augmentation_options.extend(steps)
            replaced[_TRAIN_CONFIG] = train_config
        code = self.function.__code__
        cells = tuple(
            types.CellType(replaced[name]) if name in replaced else cell
            for name, cell in zip(code.co_freevars, self.function.__closure__, strict=True)
        )
        rewired = types.FunctionType(code, self.function.__globals__, code.co_name, None, cells)
        return rewired if self.is_training else _with_names(rewired)


def _with_names(function: Callable) -> Callable:
    @functools.wraps(function)
    def named(tensors):
        features, labels = function(tensors)
        name = clip_names.encode(tensors[standard_fields.InputDataFields.source_id])
        return features, {**labels, clip_names.KEY: name}

    return named


def open_transform(function: Callable | None) -> StockTransform | None:
    """Opens a transformation; None if it is not one of the stock input functions'."""
    if not inspect.isfunction(function):
        return None
    variables = dict(inspect.getclosurevars(function).nonlocals)
    is_stock = function.__module__ == "object_detection.inputs" and (
        {_PREPROCESS, _MODEL_CONFIG} <= variables.keys()
        and len({_TRAIN_CONFIG, _EVAL_CONFIG} & variables.keys()) < 2
    )
    return StockTransform(function, variables) if is_stock else None
