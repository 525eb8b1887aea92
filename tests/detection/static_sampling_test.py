# SPDX-License-Identifier: Apache-2.0
"""Sampling and suppression of fixed sizes against the stock code's own, and on large numbers."""

import numpy as np
import pytest
import tensorflow as tf

from object_detection_ext import registration

registration.register()

from object_detection.core import (  # noqa: E402
    balanced_positive_negative_sampler,
    box_list,
    box_list_ops,
)

from benchmarks import non_max_suppression  # noqa: E402
from object_detection_ext.detection import static_sampling  # noqa: E402
from tests import tiny_pipeline  # noqa: E402

_Stock = balanced_positive_negative_sampler.BalancedPositiveNegativeSampler


@pytest.mark.parametrize("size", [4, 30, 200, 300])
def test_start_and_end_are_the_stock_ones(size):
    rng = np.random.default_rng(size)
    stock = _Stock(0.3, is_static=True)
    ours = static_sampling.ExactSampler(stock)
    for first in (0, 1, size // 3, size):
        values = tf.constant(rng.integers(-200, 200, 200), tf.int32)
        arguments = values, tf.constant(first), tf.constant(size - first), size
        expected = stock._get_values_from_start_and_end(*arguments)
        np.testing.assert_array_equal(ours._get_values_from_start_and_end(*arguments), expected)


def test_sampler_keeps_the_options_of_the_stock_one():
    for fraction, is_static in ((0.25, True), (0.5, False)):
        sampler = static_sampling.ExactSampler(_Stock(fraction, is_static))
        assert (sampler._positive_fraction, sampler._is_static) == (fraction, is_static)


def test_only_what_is_indicated_is_sampled_at_the_wanted_ratio():
    """More anchors than numbers of 11 bits have room for."""
    rng = np.random.default_rng(0)
    indicated = rng.random(9000) < 0.5
    labels = rng.random(9000) < 0.3
    sampler = static_sampling.ExactSampler(_Stock(0.25, is_static=True))
    sampled = sampler.subsample(tf.constant(indicated), 256, tf.constant(labels)).numpy()
    assert sampled.sum() == 256
    assert not (sampled & ~indicated).any()
    assert (sampled & labels).sum() == 64


@pytest.mark.parametrize("indicated", [(), (0,), (3, 5), (1, 2, 4, 6), range(7)])
def test_mask_of_fixed_size_is_the_stock_one(indicated):
    boxes = box_list.BoxList(tf.random.stateless_uniform([7, 4], [1, 2]))
    boxes.add_field("scores", tf.range(7.0))
    indicator = tf.constant(np.isin(np.arange(7), list(indicated)))
    for size in {max(len(indicated), 1), 7}:
        expected = box_list_ops.boolean_mask(
            boxes, indicator, use_static_shapes=True, indicator_sum=size
        )
        actual = static_sampling.boolean_mask(boxes, indicator, True, size)
        np.testing.assert_array_equal(actual.get(), expected.get())
        np.testing.assert_array_equal(actual.get_field("scores"), expected.get_field("scores"))
    if indicated:
        plain = static_sampling.boolean_mask(boxes, indicator)
        np.testing.assert_array_equal(plain.get_field("scores"), list(indicated))


def test_box_of_each_proposals_own_class():
    """Against the stock code, and by hand for the background."""
    override = (
        "model { faster_rcnn { second_stage_box_predictor { mask_rcnn_box_predictor { "
        "share_box_across_classes: false } } } }"
    )
    model = tiny_pipeline.build_model(tiny_pipeline.make_pipeline(override), is_training=True)
    encodings = tf.random.stateless_normal([12, 3, 4], [3, 4])
    classes = [0, 1, 2, 3, 3, 0, 1, 1, 2, 0, 3, 2]
    arguments = encodings, tf.one_hot(classes, 4), 2
    actual = model._get_refined_encodings_for_postitive_class(*arguments).numpy()
    stock = super(type(model), model)._get_refined_encodings_for_postitive_class
    np.testing.assert_array_equal(actual, stock(*arguments))
    flat = actual.reshape(12, 4)
    for row, number in enumerate(classes):
        expected = np.zeros(4) if number == 0 else encodings[row, number - 1]
        np.testing.assert_array_equal(flat[row], expected)


@pytest.mark.parametrize("way", ["padded", "partitioned"])
@pytest.mark.parametrize(
    "task",
    [
        non_max_suppression.Task(700, 1, 60, 60, 0.7, 0.0),
        non_max_suppression.Task(60, 5, 20, 60, 0.5, 0.01),
        non_max_suppression.Task(40, 3, 10, 300, 0.5, 0.3),  # fewer boxes than there is room for
    ],
    ids=["proposals", "classes", "few boxes"],
)
def test_suppression_of_fixed_size_keeps_the_boxes_of_the_hard_one(task, way):
    hard = non_max_suppression.suppression(task, "hard", xla=False)
    other = non_max_suppression.suppression(task, way, xla=False)
    for seed in range(3):
        arguments = tuple(map(tf.constant, non_max_suppression.random_boxes(task, seed)))
        reference, results = hard(*arguments), other(*arguments)
        assert int(results[-1][0]) == int(reference[-1][0]) > 3
        assert non_max_suppression.agreement(results, reference) == 1.0


def test_compiled_suppression_keeps_the_boxes_of_the_hard_one():
    task = non_max_suppression.Task(700, 1, 60, 60, 0.7, 0.0)
    arguments = tuple(map(tf.constant, non_max_suppression.random_boxes(task)))
    reference = non_max_suppression.suppression(task, "hard", xla=False)(*arguments)
    for way in ("padded", "partitioned"):
        results = non_max_suppression.suppression(task, way, xla=True)(*arguments)
        assert non_max_suppression.agreement(results, reference) == 1.0


def test_agreement_counts_boxes_that_are_missing():
    boxes, scores, classes = np.zeros([1, 3, 4]), np.float32([[0.9, 0.5, 0.1]]), np.zeros([1, 3])
    boxes[0, :, 2] = [1, 2, 3]
    number = np.array([3])
    reference = boxes, scores, classes, number
    assert non_max_suppression.agreement(reference, reference) == 1.0
    moved = boxes.copy()
    moved[0, 1, 0] = 0.5
    result = non_max_suppression.agreement((moved, scores, classes, number), reference)
    assert result == pytest.approx(2 / 3)
    fewer = non_max_suppression.agreement((boxes, scores, classes, np.array([1])), reference)
    assert fewer == pytest.approx(1 / 3)
