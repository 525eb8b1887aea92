# SPDX-License-Identifier: Apache-2.0
"""The middle frame and the tube."""

import numpy as np
import pytest

from object_detection_ext.heads import roi_pooling

# isort: split
import tensorflow as tf


@pytest.mark.parametrize(("steps", "middle"), [(1, 0), (2, 1), (4, 2), (5, 2), (16, 8), (24, 12)])
def test_middle_of_time(steps, middle):
    features = tf.reshape(tf.range(2 * steps, dtype=tf.float32), [2, steps, 1, 1, 1])
    expected = [[middle], [steps + middle]]
    np.testing.assert_array_equal(
        roi_pooling.middle_of_time(features)[:, 0, 0, 0], np.ravel(expected)
    )
    dynamic = tf.function(
        roi_pooling.middle_of_time, input_signature=[tf.TensorSpec([None] * 4 + [1])]
    )
    np.testing.assert_array_equal(dynamic(features)[:, 0, 0, 0], np.ravel(expected))


def test_a_tube_is_the_same_box_on_every_frame():
    """Clip b, frame t, row y, column x is 1000 b + 100 t + 10 y + x."""
    b, t, y, x = np.meshgrid(*map(np.arange, (2, 3, 4, 5)), indexing="ij")
    features = tf.constant(1000 * b + 100 * t + 10 * y + x, tf.float32)[..., tf.newaxis]
    boxes = {0: [(0, 0), (2, 3)], 1: [(1, 1), (0, 2)]}  # clip: top left corners of 2x2 cells

    def roi_pool(feature_map):
        assert feature_map.shape == [2, 4, 5, 1]
        return tf.stack(
            [
                feature_map[clip, top : top + 2, left : left + 2]
                for clip, corners in boxes.items()
                for top, left in corners
            ]
        )

    tubes = roi_pooling.pool_tubes(features, roi_pool)
    assert tubes.shape == [4, 3, 2, 2, 1]
    for row, (clip, (top, left)) in enumerate(
        (clip, corner) for clip, corners in boxes.items() for corner in corners
    ):
        for time in range(3):
            corner = 1000 * clip + 100 * time + 10 * top + left
            np.testing.assert_array_equal(
                tubes[row, time, ..., 0], [[corner, corner + 1], [corner + 10, corner + 11]]
            )


def test_pooling_again_for_gradients_changes_none():
    features = tf.random.stateless_uniform([2, 3, 4, 4, 5], seed=[1, 2])
    box = tf.constant([[0.1, 0.2, 0.8, 0.9]])
    pooled = []

    def roi_pool(feature_map):
        pooled.append(1)
        crops = tf.image.crop_and_resize(feature_map, tf.repeat(box, 2, 0), [0, 1], [4, 4])
        return tf.nn.max_pool2d(crops, 2, 2, "VALID")

    def run(training):
        pooled.clear()
        with tf.GradientTape() as tape:
            tape.watch(features)
            tubes = roi_pooling.pool_tubes(features, roi_pool, training=training)
            loss = tf.reduce_sum(tubes**3)
        return tubes, tape.gradient(loss, features), len(pooled)

    tubes, gradient, times = run(training=False)
    again_tubes, again_gradient, again_times = run(training=True)
    assert (times, again_times) == (3, 6)
    assert np.abs(gradient).max() > 0
    np.testing.assert_array_equal(tubes, again_tubes)
    np.testing.assert_allclose(gradient, again_gradient, rtol=1e-6)
