# SPDX-License-Identifier: Apache-2.0
"""A clip as an image: with 3 T channels, or T times as high.

The stock input pipeline knows one image per example. Packed along the channels, a clip passes its
crops, flips, resizers, padding and batching unchanged, and every frame gets the same crop and flip.
Stacked, with its frames one below the other, a clip is what decoding gives: nothing is moved in
memory. Where the stock code does nothing more to the pixels, clips are uint8 and stacked.

Shapes: B clips, T frames, H W pixels. Channel 3 k + c of a packed clip is colour c of frame k; row
H k + y of a stacked clip is row y of frame k.
"""

import tensorflow as tf


def pack_clip(clip: tf.Tensor) -> tf.Tensor:
    """Packs a clip [T, H, W, 3] into an image [H, W, 3 T]."""
    shape = tf.shape(clip)
    image = tf.reshape(
        tf.transpose(clip, [1, 2, 0, 3]), [shape[1], shape[2], shape[0] * 3]
    )  # [H, W, T, 3] -> [H, W, 3 T]
    num_frames = clip.shape[0]
    image.set_shape([None, None, None if num_frames is None else 3 * num_frames])
    return image


def unpack_clips(images: tf.Tensor, num_frames: int) -> tf.Tensor:
    """Unpacks images [B, H, W, 3 T] into clips [B, T, H, W, 3].

    Args:
        images: packed clips; the number of channels must be 3 * num_frames.
        num_frames: T.

    Raises:
        ValueError: if the number of channels is known and is not 3 * num_frames.
    """
    channels = images.shape[-1]
    if channels is not None and channels != 3 * num_frames:
        raise ValueError(
            f"A packed clip of {num_frames} frames has {3 * num_frames} channels, but the image "
            f"has {channels}. Do the records and `clip {{ num_frames }}` of the pipeline.config "
            "agree?"
        )
    shape = tf.shape(images)
    static = images.shape
    height = static[1] if static[1] is not None else shape[1]
    width = static[2] if static[2] is not None else shape[2]
    clips = tf.reshape(images, [_batch(images), height, width, num_frames, 3])
    return tf.transpose(clips, [0, 3, 1, 2, 4])  # [B, T, H, W, 3]


def middle_frame_index(num_frames: int) -> int:
    """Index of the keyframe, the frame whose people are labelled, in a clip of T frames."""
    return num_frames // 2


def middle_frames(images: tf.Tensor) -> tf.Tensor:
    """The keyframes [..., H, W, 3] of packed clips [..., H, W, 3 T]."""
    first = 3 * middle_frame_index(images.shape[-1] // 3)
    return images[..., first : first + 3]


def stack_frames(clip: tf.Tensor) -> tf.Tensor:
    """Stacks a clip [T, H, W, 3] into an image [T H, W, 3]."""
    num_frames, height, width, _ = clip.shape
    image = tf.reshape(clip, [-1, tf.shape(clip)[2], 3])
    is_known = num_frames is not None and height is not None
    image.set_shape([num_frames * height if is_known else None, width, 3])
    return image


def unstack_frames(images: tf.Tensor, num_frames: int) -> tf.Tensor:
    """Takes images [B, T H, W, 3] apart into clips [B, T, H, W, 3].

    Args:
        images: stacked clips.
        num_frames: T.

    Raises:
        ValueError: if the shape is known and is not one of T frames.
    """
    _, rows, width, channels = images.shape
    if channels != 3 or (rows is not None and rows % num_frames):
        raise ValueError(
            f"A stacked clip of {num_frames} frames has 3 channels and a multiple of {num_frames} "
            f"rows, but the image has the shape {images.shape}. (A packed clip, of "
            f"{3 * num_frames} channels, is float: see model.preprocess.)"
        )
    height = tf.shape(images)[1] // num_frames if rows is None else rows // num_frames
    width = tf.shape(images)[2] if width is None else width
    return tf.reshape(images, [_batch(images), num_frames, height, width, 3])


def _batch(images: tf.Tensor) -> int:
    """B where it is known: the stock code takes batches apart by it; else what `reshape` finds."""
    return -1 if images.shape[0] is None else images.shape[0]
