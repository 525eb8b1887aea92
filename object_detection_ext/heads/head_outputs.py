# SPDX-License-Identifier: Apache-2.0
"""What every action head returns.

Shapes: B clips, R proposals per clip, t h w cells of the feature map, D query size.
"""

from typing import NamedTuple

import tensorflow as tf


class HeadOutputs(NamedTuple):
    """What an action head gives the predictor and the pictures.

    Proposals are numbered clip by clip: row b * R + r is proposal r of clip b.
    """

    class_features: tf.Tensor  # [B*R, F], classifies the action
    box_features: tf.Tensor  # [B*R, F'], regresses the box; often the same tensor
    # By layer, then by head; every tensor sums to 1 over its cells. Empty without attention.
    attention_weights: tuple[tuple[tf.Tensor, ...], ...] = ()  # each [B, R, t, h, w]
    key_embeddings: tuple[tuple[tf.Tensor, ...], ...] = ()  # each [B, t, h, w, D]

    def stacked_attention_weights(self) -> tf.Tensor:
        """All attention weights as one tensor, [B, R, layers, heads, t, h, w]."""
        return tf.stack([tf.stack(heads, axis=2) for heads in self.attention_weights], axis=2)

    def stacked_key_embeddings(self) -> tf.Tensor:
        """All key embeddings as one tensor, [B, layers, heads, t, h, w, D]."""
        return tf.stack([tf.stack(heads, axis=1) for heads in self.key_embeddings], axis=1)
