# SPDX-License-Identifier: Apache-2.0
"""The Tx head: its wiring, its properties and its size."""

import numpy as np
import pytest

from object_detection_ext.heads.location_embedding import LocationEmbedding
from object_detection_ext.heads.query_preprocessors import (
    HighResQueryPreprocessor,
    LowResQueryPreprocessor,
)
from object_detection_ext.heads.tx_head import TxHead
from object_detection_ext.trunks import i3d

# isort: split
import tensorflow as tf

B, R, GRID, C = 2, 3, (2, 3, 4), 6


def make_head(preprocessor=LowResQueryPreprocessor, **options):
    options = {"num_layers": 3, "num_heads": 2, "feature_size": 8} | options
    return TxHead(
        query_preprocessor=preprocessor(), location_embedding=LocationEmbedding(), **options
    )


def run(head, seed=0, training=None):
    """Outputs for random people and features, and those two."""
    rng = np.random.default_rng(seed)
    memory = head.embed_location(rng.normal(size=(B, *GRID, C)).astype(np.float32))
    people = tf.constant(rng.normal(size=(B * R, 7, 7, memory.shape[-1])), tf.float32)
    return head.attend(people, memory, training=training), people, memory


def count(layer):
    return sum(int(np.prod(v.shape)) for v in layer.trainable_weights)


@pytest.mark.parametrize(("num_layers", "num_heads"), [(1, 1), (3, 2), (2, 3)])
def test_shapes_of_any_number_of_layers_and_heads(num_layers, num_heads):
    head = make_head(num_layers=num_layers, num_heads=num_heads)
    outputs, _, memory = run(head)
    assert memory.shape == (B, *GRID, C + 16)
    assert outputs.class_features.shape == (B * R, num_heads * 8)
    assert outputs.box_features is outputs.class_features
    assert head.output_size == num_heads * 8
    weights = outputs.stacked_attention_weights()
    assert weights.shape == (B, R, num_layers, num_heads, *GRID)
    np.testing.assert_allclose(tf.reduce_sum(weights, [4, 5, 6]), 1, rtol=1e-5)
    np.testing.assert_array_equal(weights[:, :, -1, -1], outputs.attention_weights[-1][-1])
    keys = outputs.stacked_key_embeddings()
    assert keys.shape == (B, num_layers, num_heads, *GRID, 8)
    np.testing.assert_array_equal(keys[:, -1, 0], outputs.key_embeddings[-1][0])


def test_each_layer_reads_all_heads_of_the_layer_before():
    """The wiring, unit by unit; the units are tested by themselves."""
    head = make_head(num_layers=2)
    outputs, people, memory = run(head)
    query = tf.reduce_mean(people, [1, 2])
    query = tf.stack([query[:R], query[R:]])
    first = [unit(query, memory)[0] for unit in head.units[0]]
    query = tf.concat(first, axis=-1)
    second = [unit(query, memory)[0] for unit in head.units[1]]
    expected = np.concatenate(second, axis=-1).reshape(B * R, 16)
    np.testing.assert_allclose(outputs.class_features, expected, rtol=1e-4, atol=1e-5)


def test_people_are_cut_out_of_the_memorys_middle_frame():
    head = make_head()
    features = np.random.default_rng(0).normal(size=(B, 5, 3, 4, C)).astype(np.float32)
    seen = []

    def roi_pool(feature_map):
        seen.append(feature_map)
        return tf.repeat(feature_map[:, :2, :2], R, axis=0)

    outputs = head(features, roi_pool)
    memory = head.embed_location(features)
    (middle,) = seen
    np.testing.assert_array_equal(middle, memory[:, 2])
    expected = head.attend(roi_pool(memory[:, 2]), memory)
    np.testing.assert_array_equal(outputs.class_features, expected.class_features)
    np.testing.assert_array_equal(
        outputs.stacked_attention_weights(), expected.stacked_attention_weights()
    )


def test_units_share_nothing():
    head = make_head()
    run(head)
    units = [unit for layer in head.units for unit in layer]
    assert len({v.ref() for unit in units for v in unit.weights}) == 6 * 14
    kernels = [unit.key_projection.kernel.numpy() for unit in units]
    for i in range(1, 6):
        assert not np.allclose(kernels[0], kernels[i])


def test_permuted_proposals_permute_the_outputs():
    head = make_head(HighResQueryPreprocessor)
    outputs, people, memory = run(head)
    order = np.array([2, 0, 1, 4, 5, 3])  # within each clip
    permuted = head.attend(tf.gather(people, order), memory)
    np.testing.assert_allclose(
        permuted.class_features, outputs.class_features.numpy()[order], rtol=1e-4, atol=1e-5
    )
    weights = outputs.stacked_attention_weights().numpy().reshape(B * R, -1)[order]
    np.testing.assert_allclose(
        permuted.stacked_attention_weights().numpy().reshape(B * R, -1), weights, rtol=1e-4
    )


def test_batched_is_single():
    head = make_head(HighResQueryPreprocessor)
    outputs, people, memory = run(head)
    assert np.abs(outputs.class_features[:R] - outputs.class_features[R:]).max() > 1e-2
    for clip in range(B):
        single = head.attend(people[clip * R : (clip + 1) * R], memory[clip : clip + 1])
        np.testing.assert_allclose(
            single.class_features,
            outputs.class_features[clip * R : (clip + 1) * R],
            rtol=1e-4,
            atol=1e-5,
        )


def test_only_high_res_sees_the_persons_layout():
    for preprocessor, differs in [
        (HighResQueryPreprocessor, True),
        (LowResQueryPreprocessor, False),
    ]:
        head = make_head(preprocessor)
        outputs, people, memory = run(head)
        flipped = head.attend(people[:, :, ::-1], memory)
        change = np.abs(flipped.class_features - outputs.class_features).max()
        assert (change > 1e-2) == differs, preprocessor


def test_location_matters_exactly_if_embedded():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(1, *GRID, C)).astype(np.float32)
    moved = features[:, ::-1, :, ::-1].copy()
    for embedding, differs in [(LocationEmbedding(), True), (None, False)]:
        head = TxHead(
            query_preprocessor=LowResQueryPreprocessor(),
            location_embedding=embedding,
            feature_size=8,
        )
        channels = head.embed_location(features).shape[-1]
        people = tf.constant(rng.normal(size=(R, 7, 7, channels)), tf.float32)
        # Sharper than at the start, where all cells weigh nearly the same.
        a, b = (
            head.attend(people, 10 * head.embed_location(f)).class_features
            for f in (features, moved)
        )
        assert (np.abs(a - b).max() > 1e-3) == differs


def test_dropout_acts_in_training_only():
    head = make_head()
    (inference, people, memory) = run(head)
    np.testing.assert_array_equal(
        inference.class_features, head.attend(people, memory, training=False).class_features
    )
    training = head.attend(people, memory, training=True).class_features
    assert np.abs(training - inference.class_features).max() > 1e-2


@pytest.mark.parametrize("preprocessor", [LowResQueryPreprocessor, HighResQueryPreprocessor])
def test_gradients_reach_every_variable(preprocessor):
    head = make_head(preprocessor)
    run(head)
    with tf.GradientTape() as tape:
        outputs, _, _ = run(head)
        target = tf.random.stateless_normal(outputs.class_features.shape, seed=[0, 1])
        loss = tf.reduce_sum(outputs.class_features * target)
    gradients = tape.gradient(loss, head.trainable_variables)
    for variable, gradient in zip(head.trainable_variables, gradients, strict=True):
        assert gradient is not None, variable.name
        # The key's bias moves all of a query's scores alike, so that the softmax undoes it.
        if not variable.name.endswith("key/bias:0"):
            assert np.any(gradient.numpy()), variable.name


def test_xla_compiles_it_forward_and_backward():
    head = make_head(HighResQueryPreprocessor, dropout_rate=0.0)
    outputs, people, memory = run(head)

    def step(people, memory):
        with tf.GradientTape() as tape:
            outputs = head.attend(people, memory, training=True)
            loss = tf.reduce_sum(outputs.class_features**3)
        return outputs, tape.gradient(loss, head.units[0][0].value_projection.kernel)

    compiled, gradient = tf.function(step, jit_compile=True)(people, memory)
    assert isinstance(compiled, type(outputs))
    for ours, theirs in zip(tf.nest.flatten(compiled), tf.nest.flatten(outputs), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(gradient, step(people, memory)[1], rtol=1e-3, atol=1e-4)


def test_dynamic_shapes_and_no_proposals():
    head = make_head(HighResQueryPreprocessor)
    outputs, people, memory = run(head)
    spec = [tf.TensorSpec([None, 7, 7, C + 16]), tf.TensorSpec([None, None, None, None, C + 16])]
    dynamic = tf.function(lambda p, m: head.attend(p, m), input_signature=spec)
    np.testing.assert_allclose(
        dynamic(people, memory).class_features, outputs.class_features, rtol=1e-4, atol=1e-5
    )
    none = dynamic(people[:0], memory)
    assert none.class_features.shape == (0, 16)
    assert none.stacked_attention_weights().shape == (B, 0, 3, 2, *GRID)
    assert head.attend(people[:0], memory).class_features.shape == (0, 16)


def test_regularizer_reaches_every_kernel_of_the_units():
    head = make_head(kernel_regularizer=tf.keras.regularizers.L2(0.5))
    run(head)
    kernels = [v.numpy() for v in head.weights if "layer_" in v.name and "kernel" in v.name]
    assert len(kernels) == len(head.losses) == 6 * 5
    expected = 0.5 * sum(np.sum(np.square(kernel)) for kernel in kernels)
    np.testing.assert_allclose(sum(head.losses), expected, rtol=1e-5)


# Biases in every linear layer, gamma and beta in every LayerNorm: with the RPN and the final
# layers that is 13.863M and 19.291M, the paper's 13.9 and 19.3 (tables 1 and 6).
RPN = (832 * 512 * 9 + 512) + (512 * 12 * 4 + 12 * 4) + (512 * 12 * 2 + 12 * 2)
FINAL = (256 * 81 + 81) + (256 * 4 + 4)


@pytest.mark.parametrize(
    ("preprocessor", "head_parameters", "total", "printed"),
    [
        (LowResQueryPreprocessor, 2_446_520, 13_862_933, 13.863),
        (HighResQueryPreprocessor, 7_874_696, 19_291_109, 19.291),
    ],
)
def test_parameters_at_the_papers_size(preprocessor, head_parameters, total, printed):
    trunk = i3d.I3D()
    head = TxHead(query_preprocessor=preprocessor(), location_embedding=LocationEmbedding())
    memory = head.embed_location(tf.zeros([1, 1, 2, 2, trunk.output_channels]))
    head.attend(tf.zeros([1, 7, 7, memory.shape[-1]]), memory)
    assert [count(unit) for unit in head.units[0]] == [458_240] * 2
    assert [count(unit) for layer in head.units[1:] for unit in layer] == [382_464] * 4
    assert count(head) == head_parameters
    assert count(trunk) + count(head) + RPN + FINAL == total
    assert abs(total / 1e6 - printed) < 0.0005


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_layers": 0}, "num_layers must be at least 1, got 0"),
        ({"num_heads": 0}, "num_heads must be at least 1, got 0"),
        ({"dropout_rate": 1.5}, r"dropout_rate must be in \[0, 1\), got 1.5"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        make_head(**options)
