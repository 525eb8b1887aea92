# SPDX-License-Identifier: Apache-2.0
"""Which boxes stand in for the proposals."""

import numpy as np
import pytest

from object_detection_ext.detection import groundtruth_proposals

# isort: split
import tensorflow as tf

A, B, C = [0.1, 0.1, 0.5, 0.5], [0.1, 0.1, 0.5, 0.6], [0.0, 0.2, 1.0, 0.3]
NOBODY = [0.0, 0.0, 0.0, 0.0]


def distinct(rows, weights=None, max_boxes=4):
    boxes, count = groundtruth_proposals.distinct_boxes(
        tf.reshape(tf.constant(rows, tf.float32), [-1, 4]),
        None if weights is None else tf.constant(weights, tf.float32),
        max_boxes,
    )
    assert boxes.shape == [max_boxes, 4]
    np.testing.assert_array_equal(boxes[int(count) :], np.zeros([max_boxes - int(count), 4]))
    return boxes[: int(count)].numpy()


@pytest.mark.parametrize(
    ("rows", "weights", "expected"),
    [
        pytest.param([A, B, A, C, B, A], None, [A, B, C], id="a row for each action"),
        pytest.param([A, B, NOBODY, NOBODY], None, [A, B], id="padding by zeros"),
        pytest.param([A, B, C, C], [1, 0, 0, 0.5], [A, C], id="padding by weight"),
        pytest.param([A, A], [0, 1], [A], id="the padded one of two equal rows"),
        pytest.param([NOBODY, C, A], None, [C, A], id="padding first"),
        pytest.param([], None, np.zeros([0, 4]), id="no rows"),
        pytest.param([NOBODY] * 6, None, np.zeros([0, 4]), id="padding alone"),
        pytest.param([[0.5, 0.1, 0.5, 0.4], A], None, [A], id="no height"),
    ],
)
def test_distinct_boxes(rows, weights, expected):
    np.testing.assert_array_equal(distinct(rows, weights), np.float32(expected))


def test_more_people_than_proposals_are_cut_off():
    rows = [[0.0, 0.0, 0.5, 0.1 * k] for k in range(1, 8)]
    np.testing.assert_array_equal(distinct(rows, max_boxes=3), np.float32(rows[:3]))


def test_distinct_boxes_in_a_graph_and_under_xla():
    rows = tf.constant([A, B, A, NOBODY, C])
    expected, count = groundtruth_proposals.distinct_boxes(rows, None, 6)
    dynamic = tf.function(
        lambda boxes: groundtruth_proposals.distinct_boxes(boxes, None, 6),
        input_signature=[tf.TensorSpec([None, 4])],
    )
    compiled = tf.function(
        lambda boxes: groundtruth_proposals.distinct_boxes(boxes, None, 6), jit_compile=True
    )
    for function in (dynamic, compiled):
        boxes, number = function(rows)
        np.testing.assert_array_equal(boxes, expected)
        assert int(number) == int(count) == 3


def test_padded_boxes():
    boxes, counts = groundtruth_proposals.padded_boxes(
        tf.constant([[A, B, NOBODY], [A, NOBODY, C], [NOBODY, NOBODY, NOBODY]]), 5
    )
    assert boxes.shape == [3, 5, 4]
    np.testing.assert_array_equal(counts, [2, 3, 0])
    np.testing.assert_array_equal(boxes[1], np.float32([A, NOBODY, C, NOBODY, NOBODY]))


def test_more_given_boxes_than_proposals_are_an_error():
    with pytest.raises(tf.errors.InvalidArgumentError, match="first_stage_max_proposals"):
        groundtruth_proposals.padded_boxes(tf.zeros([1, 6, 4]), 5)


def test_to_padded_image():
    """Half of a 50x80 picture in a padded one of 100x100."""
    boxes = groundtruth_proposals.to_padded_image(
        tf.constant([[[0.0, 0.5, 1.0, 1.0]], [[0.0, 0.5, 1.0, 1.0]]]),
        tf.constant([[50, 80, 3], [100, 100, 3]]),
        tf.constant([2, 100, 100, 3]),
    )
    np.testing.assert_allclose(boxes[:, 0], [[0, 0.4, 0.5, 0.8], [0, 0.5, 1, 1]])
