# SPDX-License-Identifier: Apache-2.0
"""Tx+I3D: the one classifies, the other regresses."""

import numpy as np

from object_detection_ext.heads import combined_head, i3d_head, tx_head
from object_detection_ext.heads.location_embedding import LocationEmbedding
from object_detection_ext.heads.query_preprocessors import HighResQueryPreprocessor
from object_detection_ext.trunks import i3d

# isort: split
import tensorflow as tf

B, R, T, C = 2, 3, 4, 81  # 81 channels: Mixed_4f with a tenth of the channels


def make_heads():
    tail = i3d.I3DStages(first="MaxPool3d_5a_2x2", last="Mixed_5c", depth_multiplier=0.1)
    tx = tx_head.TxHead(
        query_preprocessor=HighResQueryPreprocessor(reduced_channels=8),
        location_embedding=LocationEmbedding(),
        feature_size=8,
    )
    return tx, i3d_head.I3DHead(tail=tail)


def roi_pool(feature_map):
    """The top left 7x7 cells, R times, each a little different."""
    crops = feature_map[:, tf.newaxis, :7, :7] * tf.reshape([1.0, 1.5, -1.0], [1, R, 1, 1, 1])
    return tf.reshape(crops, [-1, 7, 7, feature_map.shape[-1]])


def test_tx_classifies_and_i3d_regresses():
    tx, tubes = make_heads()
    head = combined_head.TxI3DHead(tx_head=tx, i3d_head=tubes)
    features = tf.random.stateless_uniform([B, T, 8, 9, C], seed=[1, 2])
    outputs = head(features, roi_pool)
    action, box = tx(features, roi_pool), tubes(features, roi_pool)
    np.testing.assert_allclose(outputs.class_features, action.class_features, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(outputs.box_features, box.box_features, rtol=1e-5, atol=1e-6)
    # The Tx head sees the location channels, the I3D head the trunk's features alone.
    assert tx.units[0][0].key_projection.kernel.shape == [C + 16, 8]
    assert outputs.box_features.shape == [B * R, tubes.tail.output_channels]
    assert outputs.class_features.shape == [B * R, 16]
    np.testing.assert_allclose(
        outputs.stacked_attention_weights(), action.stacked_attention_weights(), rtol=1e-5
    )


def test_training_reaches_both_heads():
    tx, tubes = make_heads()
    head = combined_head.TxI3DHead(tx_head=tx, i3d_head=tubes)
    features = tf.random.stateless_uniform([B, T, 8, 9, C], seed=[1, 2])
    inference = head(features, roi_pool, training=False)
    training = head(features, roi_pool, training=True)
    assert np.abs(inference.class_features - training.class_features).max() > 1e-2  # dropout
    np.testing.assert_allclose(inference.box_features, training.box_features, rtol=1e-5)
    names = {v.name for v in head.trainable_variables}
    assert len(names) == len(head.trainable_variables)
    assert len(head.trainable_variables) == len(tx.trainable_variables) + len(
        tubes.trainable_variables
    )
