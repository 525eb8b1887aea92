# SPDX-License-Identifier: Apache-2.0
"""Query preprocessors: what LowRes forgets, HighRes keeps."""

import numpy as np
import pytest

from object_detection_ext.heads.query_preprocessors import (
    HighResQueryPreprocessor,
    LowResQueryPreprocessor,
)

# isort: split
import tensorflow as tf


def crops(people=3, side=7, channels=5):
    rng = np.random.default_rng(0)
    return rng.normal(size=(people, side, side, channels)).astype(np.float32)


def test_low_res_is_the_mean_over_space():
    expected = crops().astype(np.float64).sum((1, 2)) / 49
    np.testing.assert_allclose(LowResQueryPreprocessor()(crops()), expected, atol=1e-6)


def test_high_res_is_a_shared_map_of_each_cell_then_one_of_all():
    layer = HighResQueryPreprocessor(reduced_channels=2)
    people = crops(side=3)
    layer(people)
    reduce_kernel, reduce_bias, combine_kernel, combine_bias = (
        np.random.default_rng(1).normal(size=v.shape) for v in layer.weights
    )
    layer.set_weights([reduce_kernel, reduce_bias, combine_kernel, combine_bias])
    expected = []
    for person in people:
        cells = [cell @ reduce_kernel + reduce_bias for row in person for cell in row]
        expected.append(np.concatenate(cells) @ combine_kernel + combine_bias)
    np.testing.assert_allclose(layer(people), expected, rtol=1e-4, atol=1e-5)


def test_high_res_can_be_the_mean_that_low_res_is():
    """With a 1x1 convolution that changes nothing and a linear layer that averages the cells."""
    people = crops()
    channels = people.shape[-1]
    high = HighResQueryPreprocessor(reduced_channels=channels)
    high(people)
    identity, nothing = np.eye(channels), np.zeros(channels)
    high.set_weights([identity, nothing, np.tile(identity, [49, 1]) / 49, nothing])
    np.testing.assert_allclose(high(people), LowResQueryPreprocessor()(people), atol=1e-5)


@pytest.mark.parametrize("axis", [1, 2])
def test_a_flipped_person_is_another_one_to_high_res_only(axis):
    people = crops()
    flipped = np.flip(people, axis).copy()
    high, low = HighResQueryPreprocessor(), LowResQueryPreprocessor()
    assert np.all(np.abs(high(people) - high(flipped)).max(axis=1) > 1e-2)
    np.testing.assert_allclose(low(people), low(flipped), atol=1e-5)


def test_parameters_at_the_papers_size():
    def count(layer):
        assert layer(tf.zeros([1, 7, 7, 848])).shape == [1, 848]
        return sum(int(np.prod(v.shape)) for v in layer.trainable_weights)

    assert count(LowResQueryPreprocessor()) == 0
    assert count(HighResQueryPreprocessor()) == (848 * 128 + 128) + (7 * 7 * 128 * 848 + 848)


@pytest.mark.parametrize("layer", [LowResQueryPreprocessor(), HighResQueryPreprocessor()])
def test_any_number_of_people(layer):
    run = tf.function(layer, input_signature=[tf.TensorSpec([None, 7, 7, 5])])
    assert run(tf.zeros([0, 7, 7, 5])).shape == [0, 5]
    np.testing.assert_allclose(run(crops()), layer(crops()), rtol=1e-4, atol=1e-5)


def test_gradients_reach_every_variable_and_a_regularizer_every_kernel():
    layer = HighResQueryPreprocessor(kernel_regularizer=tf.keras.regularizers.L2(1.0))
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(layer(crops()) ** 2)
    for gradient in tape.gradient(loss, layer.trainable_variables):
        assert gradient is not None and np.any(gradient.numpy())
    assert len(layer.losses) == 2


def test_bad_sizes_are_named():
    with pytest.raises(ValueError, match="reduced_channels must be at least 1, got 0"):
        HighResQueryPreprocessor(reduced_channels=0)
    run = tf.function(
        HighResQueryPreprocessor(), input_signature=[tf.TensorSpec([None, None, None, 5])]
    )
    with pytest.raises(ValueError, match=r"\[N, P, P, C\]; got \(None, None, None, 5\)"):
        run(crops())
