# SPDX-License-Identifier: Apache-2.0
"""The Tx unit against its formulas written out in NumPy."""

import math

import numpy as np
import pytest

from object_detection_ext.heads.tx_unit import TxUnit

# isort: split
import tensorflow as tf

B, R, GRID, C, D = 2, 3, (2, 3, 4), 5, 4


def inputs(seed=0):
    rng = np.random.default_rng(seed)
    query = rng.normal(size=(B, R, 6)).astype(np.float32)
    return query, rng.normal(size=(B, *GRID, C)).astype(np.float32)


def make_unit(seed=1, **options):
    """A unit whose every weight, biases and LayerNorm too, is a random number."""
    unit = TxUnit(feature_size=D, ffn_size=7, **options)
    unit(*inputs())
    rng = np.random.default_rng(seed)
    unit.set_weights([rng.normal(size=v.shape) for v in unit.weights])
    return unit


def weights_by_name(unit):
    return {v.name.split("/", 1)[1].removesuffix(":0"): v.numpy() for v in unit.weights}


def layer_norm(x, w, name):
    normalized = (x - x.mean()) / math.sqrt(x.var() + 1e-6)
    return normalized * w[f"{name}/gamma"] + w[f"{name}/beta"]


def one_proposal(q, cells, w):
    """The paper's formulas for one query [6] and the cells [M, C] of its clip, without dropout."""

    def linear(x, name):
        return x @ w[f"{name}/kernel"] + w[f"{name}/bias"]

    q = linear(q, "query")
    scores = np.array([np.dot(q, linear(cell, "key")) / math.sqrt(D) for cell in cells])
    weights = np.exp(scores) / np.exp(scores).sum()
    attended = sum(a * linear(cell, "value") for a, cell in zip(weights, cells, strict=True))
    q = layer_norm(q + attended, w, "attention_norm")
    ffn = linear(np.maximum(linear(q, "ffn_hidden"), 0), "ffn_output")
    return layer_norm(q + ffn, w, "ffn_norm"), weights


def test_unit_is_the_formulas():
    unit = make_unit()
    query, memory = inputs()
    w = weights_by_name(unit)
    updated, attention = unit(query, memory)
    assert updated.shape == (B, R, D)
    assert attention.weights.shape == (B, R, *GRID)
    assert attention.keys.shape == (B, *GRID, D)
    for b in range(B):
        for r in range(R):
            expected, weights = one_proposal(query[b, r], memory[b].reshape(-1, C), w)
            np.testing.assert_allclose(updated[b, r], expected, rtol=1e-4, atol=1e-5)
            np.testing.assert_allclose(
                attention.weights[b, r], weights.reshape(GRID), rtol=1e-4, atol=1e-6
            )
    keys = memory @ w["key/kernel"] + w["key/bias"]
    np.testing.assert_allclose(attention.keys, keys, rtol=1e-4, atol=1e-5)


def test_attention_sums_to_one_and_follows_the_keys():
    unit = make_unit()
    query, memory = inputs()
    _, attention = unit(query, memory)
    np.testing.assert_allclose(tf.reduce_sum(attention.weights, [2, 3, 4]), np.ones([B, R]), 1e-5)
    # Cells in another order: the same weights in that order, and the same result.
    flipped = memory[:, :, ::-1].copy()
    updated, attention_flipped = unit(query, flipped)
    np.testing.assert_allclose(attention_flipped.weights[:, :, :, ::-1], attention.weights, 1e-4)
    np.testing.assert_allclose(updated, unit(query, memory)[0], rtol=1e-4, atol=1e-5)


def test_dropout_acts_in_training_only():
    unit = make_unit(dropout_rate=0.5)
    plain = make_unit(dropout_rate=0.0)
    inference = unit(*inputs(), training=False)[0].numpy()
    np.testing.assert_array_equal(inference, unit(*inputs(), training=False)[0])
    np.testing.assert_array_equal(inference, plain(*inputs(), training=True)[0])
    first, second = (unit(*inputs(), training=True)[0].numpy() for _ in range(2))
    assert np.abs(first - inference).max() > 1e-2
    assert np.abs(first - second).max() > 1e-2


@pytest.mark.parametrize("dropped", ["attention_dropout", "ffn_dropout"])
def test_both_dropouts_are_on_the_residual_branch(dropped):
    """With one branch dropped whole, what remains is the other one: by formula."""
    unit = make_unit(dropout_rate=0.0)

    class DropAll(tf.keras.layers.Layer):
        def call(self, x, training=None):
            return tf.zeros_like(x) if training else x

    setattr(unit, dropped, DropAll())
    query, memory = inputs()
    w = weights_by_name(unit)
    if dropped == "attention_dropout":
        w |= {"value/kernel": np.zeros([C, D]), "value/bias": np.zeros(D)}
    else:
        w |= {"ffn_output/kernel": np.zeros([7, D]), "ffn_output/bias": np.zeros(D)}
    expected, _ = one_proposal(query[0, 0], memory[0].reshape(-1, C), w)
    updated, _ = unit(query, memory, training=True)
    np.testing.assert_allclose(updated[0, 0], expected, rtol=1e-4, atol=1e-5)


def test_gradients_reach_every_variable():
    unit = make_unit()
    rng = np.random.default_rng(3)
    target = tf.constant(rng.normal(size=(B, R, D)), tf.float32)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(unit(*inputs())[0] * target)
    gradients = tape.gradient(loss, unit.trainable_variables)
    for variable, gradient in zip(unit.trainable_variables, gradients, strict=True):
        assert gradient is not None, variable.name
        # The key's bias moves all of a query's scores alike, so that the softmax undoes it.
        if not variable.name.endswith("key/bias:0"):
            assert np.abs(gradient.numpy()).max() > 1e-4, variable.name


def test_xla_compiles_it():
    unit = make_unit(dropout_rate=0.5)
    query, memory = inputs()
    compiled = tf.function(unit, jit_compile=True)
    eager = unit(query, memory, training=False)
    for ours, theirs in zip(
        tf.nest.flatten(compiled(query, memory, training=False)),
        tf.nest.flatten(eager),
        strict=True,
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)
    updated, attention = compiled(query, memory, training=True)
    assert np.abs(updated - eager[0]).max() > 1e-2
    np.testing.assert_allclose(attention.weights, eager[1].weights, rtol=1e-4, atol=1e-5)


def test_static_shapes_survive_and_dynamic_ones_work():
    unit = make_unit()
    spec = [tf.TensorSpec([None, None, 6]), tf.TensorSpec([None, None, None, None, C])]
    dynamic = tf.function(lambda q, m: unit(q, m), input_signature=spec)
    query, memory = inputs()
    np.testing.assert_allclose(
        dynamic(query, memory)[0], unit(query, memory)[0], rtol=1e-4, atol=1e-5
    )
    _, none = dynamic(query[:, :0], memory)
    assert none.weights.shape == (B, 0, *GRID)
    static = tf.function(lambda q, m: unit(q, m)).get_concrete_function(*map(tf.constant, inputs()))
    assert [s.as_list() for s in tf.nest.flatten(static.output_shapes)] == [
        [B, R, D],
        [B, R, *GRID],
        [B, *GRID, D],
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"feature_size": 0}, "feature_size must be at least 1, got 0"),
        ({"ffn_size": -1}, "ffn_size must be at least 1, got -1"),
        ({"dropout_rate": 1.0}, r"dropout_rate must be in \[0, 1\), got 1.0"),
        ({"dropout_rate": -0.1}, r"dropout_rate must be in \[0, 1\), got -0.1"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        TxUnit(**options)
