# SPDX-License-Identifier: Apache-2.0
"""Location embedding against numbers worked out by hand."""

import numpy as np
import pytest

from object_detection_ext.heads.location_embedding import LocationEmbedding, centred_coordinates

# isort: split
import tensorflow as tf

# Of a 2 x 3 x 4 map (t, h, w): cell centres at (i + 1/2) / n, less 1/2.
T = [-0.25, 0.25]
H = [-1 / 3, 0.0, 1 / 3]
W = [-0.375, -0.125, 0.125, 0.375]


def test_coordinates_by_hand():
    for size, expected in [(1, [0.0]), (2, T), (3, H), (4, W)]:
        np.testing.assert_allclose(centred_coordinates(size), expected, atol=1e-7)
    many = centred_coordinates(1000).numpy()
    assert -0.5 < many.min() < -0.499 and 0.499 < many.max() < 0.5


def test_embedding_by_hand():
    layer = LocationEmbedding(embedding_size=2)
    layer.set_weights(
        [
            np.array([[1.0, 2.0], [-1.0, 1.0]]),  # (h, w) -> hidden
            np.array([0.5, -0.25]),
            np.array([[1.0, -1.0], [3.0, 0.5]]),
            np.array([0.0, 10.0]),
            np.array([[4.0, -4.0]]),  # t -> hidden
            np.array([0.5, 0.0]),
            np.array([[1.0, 2.0], [1.0, 0.0]]),
            np.array([0.0, -1.0]),
        ]
    )
    features = np.arange(2 * 2 * 3 * 4 * 5, dtype=np.float32).reshape(2, 2, 3, 4, 5)
    embedded = layer(features).numpy()
    assert embedded.shape == (2, 2, 3, 4, 9)
    np.testing.assert_array_equal(embedded[..., :5], features)
    for i, t in enumerate(T):
        hidden = [max(4 * t + 0.5, 0), max(-4 * t, 0)]
        time = [hidden[0] + hidden[1], 2 * hidden[0] - 1]
        for j, h in enumerate(H):
            for k, w in enumerate(W):
                a, b = max(h - w + 0.5, 0), max(2 * h + w - 0.25, 0)
                expected = [a + 3 * b, -a + 0.5 * b + 10, *time]
                for clip in range(2):
                    np.testing.assert_allclose(embedded[clip, i, j, k, 5:], expected, atol=1e-6)


def test_default_has_16_channels_and_184_parameters():
    layer = LocationEmbedding(name="location")
    assert layer(tf.zeros([1, 2, 3, 4, 832])).shape == [1, 2, 3, 4, 848]
    # Space 2*8+8 + 8*8+8, time 1*8+8 + 8*8+8.
    assert sum(int(np.prod(v.shape)) for v in layer.trainable_weights) == 96 + 88
    assert layer.weights[0].name == "location/space_hidden/kernel:0"


def test_every_size_may_be_dynamic():
    layer = LocationEmbedding()
    embed = tf.function(layer, input_signature=[tf.TensorSpec([None, None, None, None, 3])])
    for shape in [(1, 2, 3, 4, 3), (2, 1, 1, 5, 3), (0, 2, 3, 4, 3)]:
        features = tf.random.stateless_normal(shape, seed=[0, 1])
        np.testing.assert_allclose(embed(features), layer(features), atol=1e-6)
    assert embed.get_concrete_function().output_shapes.as_list() == [None, None, None, None, 19]


def test_gradients_reach_every_variable_and_the_features():
    layer = LocationEmbedding()
    features = tf.ones([1, 4, 5, 6, 3])
    with tf.GradientTape() as tape:
        tape.watch(features)
        loss = tf.reduce_sum(layer(features) ** 2)
    for gradient in tape.gradient(loss, [features, *layer.trainable_variables]):
        assert gradient is not None and np.any(gradient.numpy())


def test_regularizer_and_bad_size():
    layer = LocationEmbedding(kernel_regularizer=tf.keras.regularizers.L2(0.5))
    kernels = [v.numpy() for v in layer.weights if "kernel" in v.name]
    np.testing.assert_allclose(sum(layer.losses), sum(0.5 * np.sum(k**2) for k in kernels))
    with pytest.raises(ValueError, match="embedding_size must be at least 1, got 0"):
        LocationEmbedding(embedding_size=0)
