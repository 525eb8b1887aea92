# SPDX-License-Identifier: Apache-2.0
"""Bytes resized by OpenCV, and the boxes that move with them."""

import numpy as np
import pytest
import tensorflow as tf

from object_detection_ext.data import clip_decoder, clip_resizing, clip_window

_H, _W = 60, 90


def _window(box, is_upside_down=False, is_mirrored=False) -> clip_window.Window:
    return clip_window.Window(
        tf.constant(box), tf.constant(is_upside_down), tf.constant(is_mirrored)
    )


def _column_picture() -> np.ndarray:
    """Each pixel is twice its column."""
    return np.tile(np.arange(_W, dtype=np.uint8)[np.newaxis, :, np.newaxis] * 2, (_H, 1, 3))


@pytest.mark.parametrize("is_upside_down", [False, True])
@pytest.mark.parametrize("is_mirrored", [False, True])
def test_frames_are_cut_flipped_and_resized(is_upside_down, is_mirrored):
    rng = np.random.default_rng(0)
    coarse = rng.uniform(0, 255, (2, 6, 9, 3)).astype(np.float32)
    pictures = tf.saturate_cast(tf.image.resize(coarse, [_H, _W], "bicubic"), tf.uint8)
    # The parts start at row 5 and column 10 of the frame; the window at 7 and 12.
    parts = clip_decoder.Parts(tf.unstack(pictures), tf.constant([2, 2]))
    window = _window([7, 12, 40, 50], is_upside_down, is_mirrored)
    clip = tf.function(lambda: clip_resizing.stacked_clip(parts, window, 48, 32))()
    assert clip.shape == [2 * 48, 32, 3] and clip.dtype == tf.uint8
    cut = pictures[:, 2:42, 2:52]
    axes = [1] * is_upside_down + [2] * is_mirrored
    expected = tf.image.resize(tf.reverse(cut, axes), [48, 32]).numpy()
    assert np.abs(clip.numpy().reshape(expected.shape) - expected).max() <= 1.0


@pytest.mark.parametrize("width", [45, 64, 90, 200])
@pytest.mark.parametrize("is_mirrored", [False, True])
def test_what_is_at_a_boxs_edge_in_evaluation_is_there_in_training(width, is_mirrored):
    left, right = 20 / _W, 60 / _W
    picture = _column_picture()
    boxes = tf.constant([[0.1, left, 0.9, right], [0.0, 0.0, 0.0, 0.0]])
    size = tf.constant([_H, _W])
    moved = clip_resizing.moved_boxes(boxes, tf.constant(1), size, _H, width).numpy()
    parts = clip_decoder.Parts([tf.constant(picture)], tf.constant([0, 0]))
    window = _window([0, 0, _H, _W], is_mirrored=is_mirrored)
    trained = clip_resizing.stacked_clip(parts, window, _H, width).numpy()[0, :, 0]
    flipped = picture[:, ::-1] if is_mirrored else picture
    stock = tf.compat.v1.image.resize_images(flipped.astype(np.float32), [_H, width])
    stock = stock.numpy()[0, :, 0]
    columns = np.arange(width)
    for edge, moved_edge in ((left, moved[0, 1]), (right, moved[0, 3])):
        seen = np.interp(moved_edge * width, columns, trained)
        assert seen == pytest.approx(np.interp(edge * width, columns, stock), abs=0.6)
    np.testing.assert_array_equal(moved[1], 0.0)
    # The height is the same, so nothing moves along it.
    np.testing.assert_allclose(moved[0, [0, 2]], [0.1, 0.9], atol=1e-6)


def test_moved_boxes_stay_within_the_picture():
    boxes = tf.constant([[0.0, 0.0, 1.0, 1.0]])
    for side in (10, 1000):
        moved = clip_resizing.moved_boxes(boxes, tf.constant(1), tf.constant([_H, _W]), side, side)
        assert moved.numpy().min() >= 0.0 and moved.numpy().max() <= 1.0
