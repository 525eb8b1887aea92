# SPDX-License-Identifier: Apache-2.0
"""Training frames resized in bytes, several times as fast as the stock resizer.

The stock fixed_shape_resizer takes output pixel i from source pixel i s, where s is source pixels
to an output pixel; OpenCV, like most of the world, from (i + 1/2) s - 1/2. So OpenCV makes of a
frame what the stock resizer would make of it moved by (s - 1) / 2 source pixels. `moved_boxes`
moves ground truth as far: a person in a box looks in training as in evaluation and in an exported
model, which both have the stock resizer.

Shapes: T frames, H W pixels of a decoded part, h w pixels as the model gets them.
"""

from collections.abc import Sequence

import cv2
import numpy as np
import tensorflow as tf

from object_detection_ext.data import clip_decoder, clip_window

# By (upside down, mirrored): as OpenCV counts axes.
_FLIP_CODES = {(True, False): 0, (False, True): 1, (True, True): -1}


def stacked_clip(
    parts: clip_decoder.Parts, window: clip_window.Window, height: int, width: int
) -> tf.Tensor:
    """Cuts the window out of decoded parts, flips it and resizes it to h w.

    Args:
        parts: T of them, each uint8 [H, W, 3].
        window: with the part that is wanted.
        height: h.
        width: w.

    Returns:
        uint8 [T h, w, 3].
    """

    def resize(offset, extent, is_upside_down, is_mirrored, *pictures):
        flips = (bool(is_upside_down), bool(is_mirrored))
        return _stacked(pictures, (*offset, *extent), flips, height, width)

    # One call for all frames: TensorFlow enters Python once a clip, and OpenCV writes each frame
    # where it stays. A map over frames would copy them into a list and from there into the clip.
    clip = tf.numpy_function(
        resize,
        [parts.offset, window.box[2:], window.is_upside_down, window.is_mirrored, *parts.pictures],
        tf.uint8,
        stateful=False,
    )
    return tf.ensure_shape(clip, [len(parts.pictures) * height, width, 3])


def _stacked(
    pictures: Sequence[np.ndarray],
    box: tuple[int, int, int, int],
    flips: tuple[bool, bool],
    height: int,
    width: int,
) -> np.ndarray:
    top, left, rows, columns = box
    clip = np.empty((len(pictures) * height, width, 3), np.uint8)
    for index, picture in enumerate(pictures):
        frame = clip[index * height : (index + 1) * height]
        part = picture[top : top + rows, left : left + columns]
        cv2.resize(part, (width, height), dst=frame, interpolation=cv2.INTER_LINEAR)
        if any(flips):
            cv2.flip(frame, _FLIP_CODES[flips], dst=frame)
    return clip


def moved_boxes(
    boxes: tf.Tensor, count: tf.Tensor, extent: tf.Tensor, height: int, width: int
) -> tf.Tensor:
    """Ground truth moved as `stacked_clip` moves the picture.

    Args:
        boxes: float32 [n, 4], normalized [ymin, xmin, ymax, xmax].
        count: int32 scalar; rows behind are padding and stay.
        extent: int32 [2], height and width of the part in source pixels.
        height: h.
        width: w.

    Returns:
        float32 [n, 4], within [0, 1].
    """
    size = tf.constant([height, width], tf.float32)
    move = (1.0 / tf.cast(extent, tf.float32) - 1.0 / size) / 2.0
    moved = tf.clip_by_value(boxes + tf.tile(move, [2]), 0.0, 1.0)
    return tf.where(tf.sequence_mask(count, tf.shape(boxes)[0])[:, tf.newaxis], moved, boxes)
