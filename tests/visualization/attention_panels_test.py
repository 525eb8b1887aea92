# SPDX-License-Identifier: Apache-2.0
"""Attention is drawn where and when it was paid."""

import numpy as np
import pytest

from object_detection_ext.visualization import attention_panels, panels

_PERSON = panels.NumberedPerson((0.6, 0.6, 0.9, 0.9), 1, [panels.Action("stand", 0.9)])
_CLIP = np.full((8, 120, 160, 3), 100, np.uint8)


def _warmth(picture) -> np.ndarray:
    """Red over blue, which grey frames have none of, float [H, W]."""
    return picture[..., 0].astype(float) - picture[..., 2]


def test_the_brightest_place_is_the_attended_cell_of_the_attended_frame():
    weights = np.full([2, 4, 6, 8], 1e-6)
    weights[0, 0, 1, 6] = weights[1, 0, 1, 6] = 1  # early, upper right
    weights /= weights.sum(axis=(1, 2, 3), keepdims=True)
    picture = attention_panels.draw(_CLIP, weights, _PERSON)
    keyframe, attended = np.split(picture, 2, axis=1)
    frame = _warmth(attended)[29:291, 2:348]
    row, column = np.unravel_index(np.argmax(frame), frame.shape)
    assert abs(row / 260 - 1.5 / 6) < 0.06 and abs(column / 346 - 6.5 / 8) < 0.05
    assert frame.max() > 100
    # At the keyframe nothing is attended: but for the person's box the frame is grey.
    rest = _warmth(keyframe)[40:170, 2:348]
    assert np.abs(rest).max() < 15


def test_uniform_attention_looks_uniform_and_is_not_bright():
    weights = np.full([1, 4, 6, 8], 1 / 192)
    _, attended = np.split(attention_panels.draw(_CLIP, weights, _PERSON), 2, axis=1)
    frame = attended[60:250, 10:340]
    assert frame.std(axis=(0, 1)).max() < 1
    assert frame.mean() < 190


def test_weights_that_are_none_are_refused():
    with pytest.raises(ValueError, match="sum to 1"):
        attention_panels.draw(_CLIP, np.ones([1, 2, 2, 2]), _PERSON)
