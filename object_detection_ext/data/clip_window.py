# SPDX-License-Identifier: Apache-2.0
"""What part of a frame an augmentation keeps, without touching the frame.

Stock augmentation takes an image and its boxes and draws as it goes. To learn what it would do to
the frames of a clip, it is given a picture whose pixels hold their own coordinates: from what comes
back, crop and flips are read, exactly, and the frames need to be decoded for that part only.

Shapes: H W pixels of a whole frame, h w of the part.
"""

from typing import NamedTuple

import tensorflow as tf

# The third colour of every pixel: a step that changes it changes more than places.
_MARK = 1.0

# Pixels between those that are checked.
_STEP = 8


class Window(NamedTuple):
    """Part of a frame.

    `box` is int32 [4]: top, left, height, width in pixels. The flips, bool scalars, act on it.
    """

    box: tf.Tensor
    is_upside_down: tf.Tensor
    is_mirrored: tf.Tensor


def coordinate_picture(size: tf.Tensor) -> tf.Tensor:
    """A picture of its own coordinates.

    Args:
        size: int32 [2], H and W.

    Returns:
        float32 [H, W, 3]: row, column, mark.
    """
    rows, columns = tf.meshgrid(
        tf.range(tf.cast(size[0], tf.float32)),
        tf.range(tf.cast(size[1], tf.float32)),
        indexing="ij",
    )
    return tf.stack([rows, columns, tf.fill(tf.shape(rows), _MARK)], axis=-1)


def read_window(picture: tf.Tensor) -> Window:
    """The window that a coordinate picture was cut to.

    Args:
        picture: float32 [h, w, 3], made by `coordinate_picture`, then cropped and flipped.

    Raises:
        tf.errors.InvalidArgumentError: if more than crops and flips happened to it.
    """
    shape = tf.shape(picture)
    first, last = picture[0, 0, :2], picture[-1, -1, :2]
    rows = tf.linspace(first[0], last[0], shape[0])[::_STEP]
    columns = tf.linspace(first[1], last[1], shape[1])[::_STEP]
    sample = picture[::_STEP, ::_STEP]
    is_window = (
        tf.reduce_all(tf.equal(tf.abs(last - first), tf.cast(shape[:2] - 1, tf.float32)))
        & tf.reduce_all(tf.abs(sample[..., 0] - rows[:, tf.newaxis]) < 0.01)
        & tf.reduce_all(tf.abs(sample[..., 1] - columns) < 0.01)
        & tf.reduce_all(tf.equal(sample[..., 2], _MARK))
    )
    tf.debugging.Assert(
        is_window,
        [
            "train_config.data_augmentation_options: a step that should crop or flip only did more "
            "than that to the picture; its pixels now come from, first and last:",
            first,
            last,
            "of a picture of",
            shape,
        ],
    )
    corner = tf.cast(tf.round(tf.minimum(first, last)), tf.int32)
    return Window(tf.concat([corner, shape[:2]], axis=0), first[0] > last[0], first[1] > last[1])


def flip(picture: tf.Tensor, window: Window) -> tf.Tensor:
    """Flips the part of a frame [h, w, 3] as the window says."""
    picture = tf.cond(
        window.is_upside_down, lambda: tf.reverse(picture, [0]), lambda: tf.identity(picture)
    )
    return tf.cond(
        window.is_mirrored, lambda: tf.reverse(picture, [1]), lambda: tf.identity(picture)
    )
