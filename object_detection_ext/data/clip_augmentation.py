# SPDX-License-Identifier: Apache-2.0
"""Stock augmentation steps, sorted by what they mean for a clip.

A step is a `PreprocessingStep` of `train_config.data_augmentation_options`. The stock functions
know one image. Steps on places (crops, flips, scales, ...) do to a clip packed along the channels
what they do to an image. Steps on colours take the first three channels for red, green and blue,
so they get the clip as one tall picture in place of it: one draw, the same for all frames.

Shapes: T frames, H W pixels.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import tensorflow as tf
from object_detection.builders import preprocessor_builder
from object_detection.protos import preprocessor_pb2

# They change each pixel by its own colour, and by the mean over the clip (contrast).
ON_COLOURS = frozenset(
    {
        "adjust_gamma",
        "random_adjust_brightness",
        "random_adjust_contrast",
        "random_adjust_hue",
        "random_adjust_saturation",
        "random_distort_color",
        "random_rgb_to_gray",
        "rgb_to_gray",
    }
)

# They keep a part of the picture, or flip it, and change nothing else of it.
_CROPS_AND_FLIPS = frozenset(
    {
        "random_crop_image",
        "random_crop_to_aspect_ratio",
        "random_horizontal_flip",
        "random_vertical_flip",
        "ssd_random_crop",
        "ssd_random_crop_fixed_aspect_ratio",
    }
)

_ON_LABELS = frozenset({"drop_label_probabilistically", "random_jitter_boxes", "remap_labels"})

# Of the others, those after which a picture is as large as before, and those after which it has the
# size that the step says.
_KEEP_SIZE = frozenset(
    {
        "normalize_image",
        "random_horizontal_flip",
        "random_patch_gaussian",
        "random_pixel_value_scale",
        "random_vertical_flip",
    }
)
_SET_SIZE = frozenset(
    {"random_resize_method", "random_scale_crop_and_pad_to_square", "resize_image"}
)


class Steps(NamedTuple):
    """A pipeline's steps in two lists, each in the pipeline's order."""

    on_colours: Sequence[preprocessor_pb2.PreprocessingStep]
    others: Sequence[preprocessor_pb2.PreprocessingStep]

    @property
    def only_crop_and_flip(self) -> bool:
        """Whether the others leave a rectangle of the frame, perhaps flipped."""
        return all(kind_of(step) in _CROPS_AND_FLIPS | _ON_LABELS for step in self.others)


def kind_of(step: preprocessor_pb2.PreprocessingStep) -> str | None:
    """The name of the field that is set."""
    return step.WhichOneof("preprocessing_step")


def steps_that_draw_sizes(
    steps: Sequence[preprocessor_pb2.PreprocessingStep],
) -> tuple[list[str], bool]:
    """Which steps make pictures of one size differ.

    Args:
        steps: in the pipeline's order.

    Returns:
        Their kinds, and whether pictures of any size leave the steps with one size.
    """
    drawing, is_set = [], False
    for kind in map(kind_of, steps):
        if kind in _SET_SIZE:
            drawing, is_set = [], True
        elif kind not in ON_COLOURS | _ON_LABELS | _KEEP_SIZE:
            drawing, is_set = [*drawing, kind], False
    return drawing, is_set


def sort_steps(steps: Iterable[preprocessor_pb2.PreprocessingStep]) -> Steps:
    """Sorts steps into those on colours and the others."""
    steps = list(steps)
    return Steps(
        [step for step in steps if kind_of(step) in ON_COLOURS],
        [step for step in steps if kind_of(step) not in ON_COLOURS],
    )


def change_colours(
    clip: tf.Tensor, steps: Iterable[preprocessor_pb2.PreprocessingStep]
) -> tf.Tensor:
    """Applies stock colour steps to a clip, each with one draw for all frames.

    Args:
        clip: float32 [T, H, W, 3] in [0, 255].
        steps: on colours.

    Returns:
        float32 [T, H, W, 3] in [0, 255]; gray pictures have three equal colours.
    """
    shape = tf.shape(clip)
    tall = tf.reshape(clip, [shape[0] * shape[1], shape[2], 3])
    for step in steps:
        function, arguments = preprocessor_builder.build(step)
        tall = function(tall, **arguments)
        if tall.shape[-1] == 1:
            tall = tf.image.grayscale_to_rgb(tall)
    return tf.ensure_shape(tf.reshape(tall, shape), clip.shape)
