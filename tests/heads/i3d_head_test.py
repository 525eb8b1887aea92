# SPDX-License-Identifier: Apache-2.0
"""The I3D head: its wiring, its properties and its size."""

import numpy as np
import pytest

from object_detection_ext.heads import i3d_head
from object_detection_ext.trunks import i3d

# isort: split
import tensorflow as tf

B, R, T, C = 2, 3, 4, 81  # 81 channels: Mixed_4f with a tenth of the channels


def make_head(train_batch_norm=False, **options):
    tail = i3d.I3DStages(
        first="MaxPool3d_5a_2x2",
        last="Mixed_5c",
        depth_multiplier=0.1,
        train_batch_norm=train_batch_norm,
        **options,
    )
    assert tail.in_channels == C
    return i3d_head.I3DHead(tail=tail)


def pool(tubes):
    """A `roi_pool` that gives prepared tubes [B*R, T, 7, 7, C], frame by frame."""
    frames = iter(tf.unstack(tubes, axis=1))
    return lambda feature_map: next(frames)


def run(head, tubes, training=None, clips=B):
    return head(tf.zeros([clips, T, 5, 5, C]), pool(tubes), training=training)


@pytest.fixture
def tubes():
    return tf.random.stateless_uniform([B * R, T, 7, 7, C], seed=[1, 2])


def test_it_is_the_mean_of_the_left_out_layers(tubes):
    head = make_head()
    outputs = run(head, tubes)
    features = head.tail.endpoints(tubes)
    # 3.4: the head's input is t x 7 x 7; 5a halves each size.
    assert features["MaxPool3d_5a_2x2"].shape == [B * R, T // 2, 4, 4, C]
    assert list(features) == ["MaxPool3d_5a_2x2", "Mixed_5b", "Mixed_5c"]
    expected = np.mean(features["Mixed_5c"], axis=(1, 2, 3))
    np.testing.assert_allclose(outputs.class_features, expected, rtol=1e-4, atol=1e-6)
    assert outputs.class_features is outputs.box_features
    assert outputs.attention_weights == outputs.key_embeddings == ()


def test_a_persons_feature_depends_on_the_persons_tube_alone(tubes):
    head = make_head()
    expected = run(head, tubes).class_features.numpy()
    assert np.abs(expected[0] - expected[1]).max() > 1e-4
    changed = tf.tensor_scatter_nd_update(tubes, [[4]], tubes[:1])
    actual = run(head, changed).class_features.numpy()
    others = [0, 1, 2, 3, 5]
    np.testing.assert_allclose(actual[others], expected[others], rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(actual[4], expected[0], rtol=1e-5, atol=1e-7)


def test_permuted_proposals_permute_the_features_and_batched_is_single(tubes):
    head = make_head()
    expected = run(head, tubes).class_features.numpy()
    order = [2, 0, 1, 4, 5, 3]
    permuted = run(head, tf.gather(tubes, order)).class_features
    np.testing.assert_allclose(permuted, expected[order], rtol=1e-5, atol=1e-7)
    single = run(head, tubes[:R], clips=1).class_features
    np.testing.assert_allclose(single, expected[:R], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("train_batch_norm", [True, False])
def test_batch_norm_statistics_move_only_if_they_are_to(tubes, train_batch_norm):
    head = make_head(train_batch_norm)
    before = [v.numpy() for v in head.non_trainable_variables]
    run(head, tubes, training=False)
    np.testing.assert_array_equal(before[0], head.non_trainable_variables[0])
    run(head, tubes, training=True)
    moved = [
        np.abs(old - new).max() > 0
        for old, new in zip(before, head.non_trainable_variables, strict=True)
    ]
    assert all(moved) if train_batch_norm else not any(moved)


def test_gradients_reach_every_variable(tubes):
    head = make_head()
    with tf.GradientTape() as tape:
        features = run(head, tubes).class_features
        loss = tf.reduce_sum(features * tf.random.stateless_normal(features.shape, [0, 1]))
    for variable, gradient in zip(
        head.trainable_variables, tape.gradient(loss, head.trainable_variables), strict=True
    ):
        assert gradient is not None and np.any(gradient.numpy()), variable.name


def test_size_at_full_width():
    """Table 1: 16.2 M with trunk, region proposals and the last layers, 1024 to 81 + 4."""
    tail = i3d.I3DStages(first="MaxPool3d_5a_2x2", last="Mixed_5c")
    assert (tail.in_channels, tail.output_channels) == (832, 1024)
    head = sum(int(np.prod(v.shape)) for v in tail.trainable_variables)
    rpn = (832 * 512 * 9 + 512) + (512 * 12 * 6 + 12 * 6)
    total = 7_523_264 + rpn + head + (1024 * 81 + 81) + (1024 * 4 + 4)
    assert round(total / 1e6, 3) == 16.238
