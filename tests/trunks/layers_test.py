# SPDX-License-Identifier: Apache-2.0
"""Conv unit and max pool against loops in NumPy, and the rules of batch norm."""

import itertools

import numpy as np
import pytest

from object_detection_ext.trunks import layers

# isort: split
import tensorflow as tf


def same_padding(features, window, strides, fill):
    """TensorFlow's SAME rule, from its documentation: the odd cell of padding goes to the end."""
    pads = [(0, 0)]
    for size, width, stride in zip(features.shape[1:4], window, strides, strict=True):
        total = max((-(-size // stride) - 1) * stride + width - size, 0)
        pads.append((total // 2, total - total // 2))
    return np.pad(features, [*pads, (0, 0)], constant_values=fill)


def slide(features, window, strides, fill, reduce):
    padded = same_padding(features, window, strides, fill)
    sizes = [-(-n // s) for n, s in zip(features.shape[1:4], strides, strict=True)]
    rows = []
    for position in itertools.product(*map(range, sizes)):
        at = [slice(p * s, p * s + k) for p, s, k in zip(position, strides, window, strict=True)]
        rows.append(reduce(padded[:, at[0], at[1], at[2], :]))
    return np.stack(rows, axis=1).reshape(features.shape[0], *sizes, -1)


def make_unit(rng, **options):
    unit = layers.ConvUnit(
        in_channels=3, filters=4, kernel_size=(3, 3, 2), strides=(2, 1, 2), name="unit", **options
    )
    unit.kernel.assign(rng.normal(size=unit.kernel.shape))
    unit.beta.assign(rng.normal(size=4))
    unit.moving_mean.assign(rng.normal(size=4))
    unit.moving_variance.assign(rng.uniform(0.1, 3, size=4))
    return unit


def convolve(unit, clip):
    kernel = unit.kernel.numpy().astype(np.float64)
    return slide(
        clip, (3, 3, 2), (2, 1, 2), 0, lambda cells: np.einsum("nthwc,thwcf->nf", cells, kernel)
    )


@pytest.mark.parametrize("shape", [(2, 5, 7, 3, 3), (1, 4, 4, 5, 3)])
def test_conv_unit_with_stored_statistics_is_the_formula(shape):
    rng = np.random.default_rng(0)
    unit, clip = make_unit(rng), rng.normal(size=shape)
    normalized = (convolve(unit, clip) - unit.moving_mean) / np.sqrt(unit.moving_variance + 1e-3)
    expected = np.maximum(normalized + unit.beta, 0)
    np.testing.assert_allclose(unit(clip.astype(np.float32)), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("strides", [(2, 2, 2), (1, 2, 2), (1, 1, 1)])
def test_max_pool_is_the_formula(strides):
    # All negative: padding must not win.
    rng = np.random.default_rng(1)
    features = -rng.uniform(1, 2, size=(2, 5, 7, 4, 3)).astype(np.float32)
    expected = slide(features, (3, 3, 2), strides, -np.inf, lambda cells: cells.max((1, 2, 3)))
    np.testing.assert_allclose(layers.max_pool3d(features, (3, 3, 2), strides), expected)


def test_frozen_statistics_stay_and_beta_learns():
    rng = np.random.default_rng(2)
    unit, clip = make_unit(rng), tf.constant(rng.normal(size=(1, 4, 4, 4, 3)), tf.float32)
    before = [unit.moving_mean.numpy(), unit.moving_variance.numpy()]
    with tf.GradientTape() as tape:
        trained = unit(clip, training=True)
        loss = tf.reduce_sum(trained)
    np.testing.assert_array_equal(trained, unit(clip, training=False))
    np.testing.assert_array_equal(before[0], unit.moving_mean)
    np.testing.assert_array_equal(before[1], unit.moving_variance)
    assert [v.name for v in unit.trainable_weights] == [
        "unit/conv_3d/w:0",
        "unit/batch_norm/beta:0",
    ]
    # d(sum of ReLU)/d(beta) counts the cells that are on.
    gradient = tape.gradient(loss, unit.beta)
    np.testing.assert_allclose(gradient, np.sum(trained.numpy() > 0, axis=(0, 1, 2, 3)))


def test_batch_statistics_normalize_and_are_stored():
    rng = np.random.default_rng(3)
    unit = make_unit(rng, train_batch_norm=True, batch_norm_momentum=0.9)
    clip = rng.normal(size=(2, 5, 4, 5, 3))
    stored_mean, stored_variance = unit.moving_mean.numpy(), unit.moving_variance.numpy()
    convolved = convolve(unit, clip)
    mean, variance = convolved.mean((0, 1, 2, 3)), convolved.var((0, 1, 2, 3))
    expected = np.maximum((convolved - mean) / np.sqrt(variance + 1e-3) + unit.beta.numpy(), 0)
    trained = unit(clip.astype(np.float32), training=True)
    np.testing.assert_allclose(trained, expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(unit.moving_mean, 0.9 * stored_mean + 0.1 * mean, rtol=1e-4)
    np.testing.assert_allclose(
        unit.moving_variance, 0.9 * stored_variance + 0.1 * variance, rtol=1e-4
    )
    now = [unit.moving_mean.numpy(), unit.moving_variance.numpy()]
    assert not np.allclose(unit(clip.astype(np.float32), training=False), trained, atol=1e-2)
    unit.trainable = False
    unit(clip.astype(np.float32), training=True)
    np.testing.assert_array_equal(now[0], unit.moving_mean)
    np.testing.assert_array_equal(now[1], unit.moving_variance)


def test_scale_channels_rounds_down_and_keeps_a_minimum():
    assert layers.scale_channels(64, 1.0) == 64
    assert layers.scale_channels(112, 0.3) == 33
    assert layers.scale_channels(24, 0.25) == 8
    assert layers.scale_channels(4, 0.5) == 4
    assert layers.scale_channels(24, 2.0) == 48


def test_layers_given_one_initializer_object_start_out_different():
    initializer = tf.keras.initializers.HeNormal()
    units = [
        layers.ConvUnit(
            in_channels=3, filters=4, kernel_size=(1, 1, 1), kernel_initializer=initializer
        )
        for _ in range(2)
    ]
    assert not np.allclose(units[0].kernel, units[1].kernel)


def pad_evenly(features, padding, fill):
    return np.pad(features, [(0, 0), *((p, p) for p in padding), (0, 0)], constant_values=fill)


def slide_without_padding(features, window, strides, reduce):
    sizes = [(n - k) // s + 1 for n, k, s in zip(features.shape[1:4], window, strides, strict=True)]
    rows = []
    for position in itertools.product(*map(range, sizes)):
        at = [slice(p * s, p * s + k) for p, s, k in zip(position, strides, window, strict=True)]
        rows.append(reduce(features[:, at[0], at[1], at[2], :]))
    return np.stack(rows, axis=1).reshape(features.shape[0], *sizes, -1)


def test_max_pool_with_padding_on_both_sides_is_the_formula():
    # All negative: padding must not win.
    features = -np.random.default_rng(4).uniform(1, 2, size=(2, 4, 6, 5, 3)).astype(np.float32)
    expected = slide_without_padding(
        pad_evenly(features, (1, 1, 0), -np.inf), (3, 3, 2), (2, 2, 1), lambda x: x.max((1, 2, 3))
    )
    pooled = layers.max_pool3d(tf.constant(features), (3, 3, 2), (2, 2, 1), padding=(1, 1, 0))
    np.testing.assert_array_equal(pooled, expected.astype(np.float32))


@pytest.mark.parametrize("training", [False, True])
def test_conv_unit_with_every_option_is_the_formula(training):
    rng = np.random.default_rng(5)
    unit = make_unit(
        rng,
        padding=(1, 0, 1),
        use_bias=True,
        use_gamma=True,
        epsilon=0.2,
        activation=tf.math.tanh,
        train_batch_norm=True,
        batch_norm_momentum=0.9,
    )
    unit.bias.assign(rng.normal(size=4))
    unit.gamma.assign(rng.normal(size=4))
    clip = rng.normal(size=(2, 4, 5, 6, 3))
    kernel = unit.kernel.numpy().astype(np.float64)
    convolved = unit.bias.numpy() + slide_without_padding(
        pad_evenly(clip, (1, 0, 1), 0),
        (3, 3, 2),
        (2, 1, 2),
        lambda cells: np.einsum("nthwc,thwcf->nf", cells, kernel),
    )
    mean, variance = unit.moving_mean.numpy(), unit.moving_variance.numpy()
    if training:
        stored, (mean, variance) = mean, (convolved.mean((0, 1, 2, 3)), convolved.var((0, 1, 2, 3)))
    expected = np.tanh(
        (convolved - mean) / np.sqrt(variance + 0.2) * unit.gamma.numpy() + unit.beta.numpy()
    )
    np.testing.assert_allclose(
        unit(clip.astype(np.float32), training=training), expected, rtol=1e-4, atol=1e-5
    )
    if training:
        np.testing.assert_allclose(unit.moving_mean, 0.9 * stored + 0.1 * mean, rtol=1e-4)


def test_variables_of_a_conv_unit_have_their_names():
    unit = layers.ConvUnit(
        in_channels=3, filters=4, kernel_size=(1, 1, 1), use_bias=True, use_gamma=True, name="unit"
    )
    for path, variable in unit.variables_by_path().items():
        assert variable.name == f"unit/{path}:0"
    assert len(unit.variables_by_path()) == len(unit.weights) == 6


@pytest.mark.parametrize("use_bias", [False, True])
def test_conv_is_the_formula(use_bias):
    rng = np.random.default_rng(6)
    conv = layers.Conv(
        in_channels=3,
        filters=4,
        kernel_size=(3, 3, 2),
        strides=(2, 1, 2),
        use_bias=use_bias,
        name="conv",
    )
    for variable in conv.weights:
        variable.assign(rng.normal(size=variable.shape))
    clip = rng.normal(size=(2, 5, 4, 3, 3))
    expected = convolve(conv, clip) + (conv.bias.numpy() if use_bias else 0)
    np.testing.assert_allclose(conv(clip.astype(np.float32)), expected, rtol=1e-4, atol=1e-5)
    assert {f"conv/{path}:0" for path in conv.variables_by_path()} == {v.name for v in conv.weights}


def test_self_gating_is_the_formula():
    rng = np.random.default_rng(7)
    gating = layers.SelfGating(channels=3, name="self_gating")
    (kernel,) = gating.variables_by_path().values()
    kernel.assign(rng.normal(size=kernel.shape))
    features = rng.normal(size=(2, 4, 3, 5, 3))
    gates = 1 / (1 + np.exp(-features.mean((1, 2, 3)) @ kernel.numpy()[0, 0, 0]))
    expected = features * gates[:, np.newaxis, np.newaxis, np.newaxis]
    np.testing.assert_allclose(gating(features.astype(np.float32)), expected, rtol=1e-5)
    assert kernel.name == "self_gating/transformer_W/w:0"


_WITH_BIAS = {
    "unit": lambda: layers.ConvUnit(in_channels=1, filters=2, kernel_size=(1, 1, 1)),
    "conv": lambda: layers.Conv(in_channels=1, filters=2),
    "dense": lambda: layers.Dense(2, activation="relu"),
}


@pytest.mark.parametrize("kind", _WITH_BIAS)
def test_gradient_of_a_bias_in_bfloat16_counts_every_cell(kind):
    """The stock `bias_add` and its gradient stop at 512 of 20,000 cells on a CPU."""
    cells = tf.ones([1, 2, 100, 100, 1])
    found = {}
    before = tf.keras.mixed_precision.global_policy()
    for policy in ("float32", "mixed_bfloat16"):
        tf.keras.mixed_precision.set_global_policy(policy)
        try:
            layer = _WITH_BIAS[kind]()
        finally:
            tf.keras.mixed_precision.set_global_policy(before)
        layer(cells)
        for variable, value in zip(
            layer.trainable_variables, ([[0.5, 2.0]], [0.25, 3.0]), strict=True
        ):
            variable.assign(tf.reshape(tf.constant(value), variable.shape))
        with tf.GradientTape() as tape:
            outputs = layer(cells, **({} if kind == "dense" else {"training": True}))
            loss = tf.reduce_sum(tf.cast(outputs, tf.float32))
        found[policy] = outputs, tape.gradient(loss, layer.trainable_variables[-1])
    (full, of_full), (low, of_low) = found.values()
    assert (full.dtype, low.dtype, of_low.dtype) == (tf.float32, tf.bfloat16, tf.float32)
    np.testing.assert_array_equal(of_full, [20000.0, 20000.0])
    np.testing.assert_allclose(of_low, of_full, rtol=0.004)
    np.testing.assert_allclose(tf.cast(low, tf.float32), full, rtol=0.004)


def test_dense_in_float32_is_that_of_keras():
    """Also without a bias, and with an activation."""
    values = tf.constant(np.random.default_rng(0).normal(size=(2, 3, 4)), tf.float32)
    for options in ({}, {"use_bias": False}, {"activation": "relu"}):
        ours, theirs = layers.Dense(5, **options), tf.keras.layers.Dense(5, **options)
        theirs(values)
        ours(values)
        ours.set_weights(theirs.get_weights())
        np.testing.assert_array_equal(ours(values), theirs(values))
