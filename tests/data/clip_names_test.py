# SPDX-License-Identifier: Apache-2.0
"""Names of clips go through numbers and come back as texts for people."""

import numpy as np
import pytest
import tensorflow as tf

from object_detection_ext.data import clip_names


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("1j20qq1JyX4,0902", "1j20qq1JyX4 at 902 s"),
        ("a,b,901.5", "a,b at 901.5 s"),
        ("Übung,7", "Übung at 7 s"),
        ("image_12.jpg", "image_12.jpg"),
        ("video,keyframe", "video,keyframe"),
        ("", ""),
        ("x" * 100, "x" * 64),
    ],
)
def test_names_come_back(name, text):
    numbers = clip_names.encode(tf.constant(name))
    assert numbers.shape == [64] and numbers.dtype == tf.uint8
    assert clip_names.decode(np.asarray(numbers)[np.newaxis]) == [text]


def test_a_character_that_is_cut_does_not_fail():
    (text,) = clip_names.decode(np.asarray(clip_names.encode(tf.constant("x" * 63 + "Ü")))[None])
    assert text.startswith("x" * 63)
