# SPDX-License-Identifier: Apache-2.0
"""Crops and flips are read back from a picture of coordinates; other changes are errors."""

import numpy as np
import pytest
import tensorflow as tf

from object_detection_ext.data import clip_window

_SIZE = (13, 40)


def _picture() -> np.ndarray:
    return clip_window.coordinate_picture(tf.constant(_SIZE)).numpy()


def test_picture_holds_its_coordinates():
    picture = _picture()
    assert picture.shape == (*_SIZE, 3)
    np.testing.assert_array_equal(picture[4, 33], [4, 33, 1])


@pytest.mark.parametrize("box", [(0, 0, 13, 40), (2, 5, 9, 20), (12, 39, 1, 1), (3, 0, 1, 40)])
@pytest.mark.parametrize("upside_down", [False, True])
@pytest.mark.parametrize("mirrored", [False, True])
def test_window_is_read_and_gives_the_same_part(box, upside_down, mirrored):
    top, left, height, width = box
    frame = np.random.default_rng(0).integers(0, 256, (*_SIZE, 3), np.uint8)

    def cut(picture):
        part = picture[top : top + height, left : left + width]
        return part[:: -1 if upside_down else 1, :: -1 if mirrored else 1]

    window = clip_window.read_window(tf.constant(cut(_picture())))
    np.testing.assert_array_equal(window.box, box)
    # A single row or column looks the same either way.
    assert bool(window.is_upside_down) == (upside_down and height > 1)
    assert bool(window.is_mirrored) == (mirrored and width > 1)
    part = frame[top : top + height, left : left + width]
    np.testing.assert_array_equal(clip_window.flip(tf.constant(part), window), cut(frame))


@pytest.mark.parametrize(
    "change",
    [
        lambda picture: picture.transpose(1, 0, 2),
        lambda picture: picture[::2, ::2],
        lambda picture: picture + [0, 0, 0.1],
        lambda picture: np.pad(picture, [(0, 5), (0, 0), (0, 0)]),
        lambda picture: np.roll(picture, 3, axis=1),
        lambda picture: np.where(np.arange(40)[:, np.newaxis] < 20, picture, 0.0),
    ],
    ids=["rotated", "scaled", "colour", "padded", "rolled", "patch"],
)
def test_other_changes_are_an_error_that_names_the_option(change):
    picture = tf.constant(change(_picture()), tf.float32)
    with pytest.raises(tf.errors.InvalidArgumentError, match="data_augmentation_options"):
        clip_window.read_window(picture)
