# SPDX-License-Identifier: Apache-2.0
"""The non-local block against a computation in NumPy, and its known properties."""

import numpy as np
import pytest

from object_detection_ext.trunks import non_local

# isort: split
import tensorflow as tf

CHANNELS = 6


def random_block(seed, **options):
    rng = np.random.default_rng(seed)
    block = non_local.NonLocalBlock(channels=CHANNELS, epsilon=1e-5, name="block", **options)
    for path, variable in block.variables_by_path().items():
        if path.endswith("moving_variance"):
            variable.assign(rng.uniform(0.5, 2, size=variable.shape))
        else:
            variable.assign(rng.normal(size=variable.shape))
    return block


def expected(block, features):
    """One clip and one cell after the other, in float64."""
    v = {k: np.float64(v.numpy()) for k, v in block.variables_by_path().items()}

    def linear(name, x):
        return x @ v[f"{name}/w"][0, 0, 0] + v[f"{name}/b"]

    output = np.empty(features.shape)
    height, width = features.shape[2:4]
    for clip, clip_output in zip(np.float64(features), output, strict=True):
        pooled = [
            frame[y : y + 2, x : x + 2].max((0, 1))
            for frame in clip
            for y in range(0, height, 2)
            for x in range(0, width, 2)
        ]
        keys = [linear("phi", cell) for cell in pooled]
        values = [linear("g", cell) for cell in pooled]
        for at in np.ndindex(clip.shape[:3]):
            query = linear("theta", clip[at])
            weights = np.exp([query @ key / np.sqrt(CHANNELS // 2) for key in keys])
            attended = np.average(values, axis=0, weights=weights)
            update = linear("out/conv_3d", attended)
            mean, variance = v["out/batch_norm/moving_mean"], v["out/batch_norm/moving_variance"]
            update = (update - mean) / np.sqrt(variance + 1e-5)
            update = update * v["out/batch_norm/gamma"] + v["out/batch_norm/beta"]
            clip_output[at] = clip[at] + update
    return output


def random_features(*shape, seed=1):
    return np.random.default_rng(seed).normal(size=(*shape, CHANNELS)).astype(np.float32)


@pytest.mark.parametrize("shape", [(2, 3, 4, 6), (1, 2, 5, 3), (1, 1, 1, 1)])
def test_it_is_the_formula(shape):
    block, features = random_block(0), random_features(*shape)
    np.testing.assert_allclose(block(features), expected(block, features), rtol=1e-4, atol=1e-4)


def test_it_starts_as_the_identity_and_gamma_learns():
    block, features = non_local.NonLocalBlock(channels=CHANNELS), random_features(1, 2, 4, 4)
    with tf.GradientTape() as tape:
        output = block(features)
        loss = tf.reduce_sum(output**2)
    np.testing.assert_array_equal(output, features)
    assert np.all(tape.gradient(loss, block.out.gamma).numpy() != 0)


def test_initial_kernels_are_small_and_differ():
    block = non_local.NonLocalBlock(channels=256)
    kernels = [v.numpy() for k, v in block.variables_by_path().items() if k.endswith("/w")]
    assert len(kernels) == 4
    for kernel in kernels:
        assert 0.0095 < kernel.std() < 0.0105
    assert not np.allclose(kernels[0], kernels[1])


def test_without_theta_every_cell_gets_the_mean():
    block, features = random_block(2), random_features(1, 2, 4, 4)
    for variable in block.theta.weights:
        variable.assign(tf.zeros_like(variable))
    update = block(features) - features
    np.testing.assert_allclose(update, np.broadcast_to(update[0, 0, 0, 0], update.shape), atol=1e-5)


def test_every_cell_sees_every_frame():
    block, features = random_block(3), random_features(1, 5, 4, 4)
    before = block(features)[0, 0, 0, 0]
    features[0, -1] += 1
    assert np.all(np.abs(block(features)[0, 0, 0, 0] - before) > 1e-6)


def test_gradients_reach_every_variable_and_statistics_are_stored_in_training_only():
    block, features = random_block(4, train_batch_norm=True), random_features(2, 2, 4, 4)
    start = block.out.moving_mean.numpy()
    block(features, training=False)
    np.testing.assert_array_equal(block.out.moving_mean, start)
    frozen = random_block(4)
    frozen(features, training=True)
    np.testing.assert_array_equal(frozen.out.moving_mean, start)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(frozen(features, training=True) ** 2)
    gradients = tape.gradient(loss, frozen.trainable_variables)
    # theta, phi, g and W with weight and bias, gamma and beta. A bias of phi shifts all scores of a
    # query by the same number, which softmax does not see.
    assert len(gradients) == 10
    for variable, gradient in zip(frozen.trainable_variables, gradients, strict=True):
        if variable is frozen.phi.bias:
            np.testing.assert_allclose(gradient, np.zeros(CHANNELS // 2), atol=1e-3)
        else:
            assert np.any(np.abs(gradient) > 1e-3), variable.name
    block(features, training=True)
    assert np.all(block.out.moving_mean.numpy() != start)


def test_batched_is_single_and_shapes_may_be_dynamic():
    block, features = random_block(5), random_features(2, 3, 5, 4)
    dynamic = tf.function(block, input_signature=[tf.TensorSpec([None] * 4 + [CHANNELS])])
    singles = tf.concat([dynamic(features[:1]), dynamic(features[1:])], axis=0)
    np.testing.assert_allclose(block(features), singles, rtol=1e-4, atol=1e-5)
