# SPDX-License-Identifier: Apache-2.0
"""The Action Transformer (Tx) unit: one person attends to the whole clip (section 3.2).

Shapes: B clips, R proposals, t h w cells of the feature map, M = t*h*w, C channels of the memory,
D query size.
"""

from typing import NamedTuple

import tensorflow as tf

from object_detection_ext.trunks.layers import Dense, fresh_initializer

# As in the Transformer's reference implementation; Keras's 1e-3 is for batch norm.
_LAYER_NORM_EPSILON = 1e-6


class Attention(NamedTuple):
    """What a unit looked at, for pictures and embeddings."""

    weights: tf.Tensor  # [B, R, t, h, w], sum 1 over the cells
    keys: tf.Tensor  # [B, t, h, w, D]


class TxUnit(tf.keras.layers.Layer):
    """Updates each query with what it attends to in the clip.

        Q   = linear(query)                  D per proposal
        A   = softmax(Q K' / sqrt(D)) V      over all t*h*w cells; K, V = linear(memory)
        Q'  = LayerNorm(Q + Dropout(A))
        Q'' = LayerNorm(Q' + Dropout(FFN(Q')))

    The paper's last formula has FFN(Q); its text and figure 2 put the residual branch on Q'. FFN is
    D -> ffn_size -> D with ReLU between. All linear layers have a bias, and LayerNorm gamma and
    beta.

    Args:
      feature_size: D.
      ffn_size: units of the FFN's hidden layer.
      dropout_rate: dropped part of A and of the FFN's output, in training only.
      kernel_initializer, kernel_regularizer: Keras ones, for every linear layer.

    Raises ValueError for sizes below 1 and a dropout rate outside [0, 1).
    """

    def __init__(
        self,
        *,
        feature_size: int = 128,
        ffn_size: int = 512,
        dropout_rate: float = 0.3,
        kernel_initializer="glorot_uniform",
        kernel_regularizer=None,
        name: str | None = None,
    ):
        super().__init__(name=name)
        for option, value in (("feature_size", feature_size), ("ffn_size", ffn_size)):
            if value < 1:
                raise ValueError(f"{option} must be at least 1, got {value}.")
        if not 0 <= dropout_rate < 1:
            raise ValueError(f"dropout_rate must be in [0, 1), got {dropout_rate}.")

        def dense(units: int, name: str, activation: str | None = None) -> Dense:
            return Dense(
                units,
                activation=activation,
                kernel_initializer=fresh_initializer(kernel_initializer),
                kernel_regularizer=tf.keras.regularizers.get(kernel_regularizer),
                name=name,
            )

        self._scale = feature_size**-0.5
        self.query_projection = dense(feature_size, "query")
        self.key_projection = dense(feature_size, "key")
        self.value_projection = dense(feature_size, "value")
        self.ffn_hidden = dense(ffn_size, "ffn_hidden", activation="relu")
        self.ffn_output = dense(feature_size, "ffn_output")
        self.attention_dropout = tf.keras.layers.Dropout(dropout_rate)
        self.ffn_dropout = tf.keras.layers.Dropout(dropout_rate)
        self.attention_norm = tf.keras.layers.LayerNormalization(
            epsilon=_LAYER_NORM_EPSILON, name="attention_norm"
        )
        self.ffn_norm = tf.keras.layers.LayerNormalization(
            epsilon=_LAYER_NORM_EPSILON, name="ffn_norm"
        )

    def call(
        self, query: tf.Tensor, memory: tf.Tensor, training: bool | None = None
    ) -> tuple[tf.Tensor, Attention]:
        """One step of attention.

        Args:
          query: [B, R, any number of channels]; the projection to D is the unit's own.
          memory: [B, t, h, w, C].
          training: whether dropout acts.

        Returns:
          The updated query [B, R, D], and the Attention.
        """
        batch, t, h, w = tf.unstack(tf.shape(memory)[:4])
        cells = tf.reshape(memory, [batch, t * h * w, memory.shape[-1]])  # [B, M, C]
        keys = self.key_projection(cells)  # [B, M, D]
        values = self.value_projection(cells)  # [B, M, D]
        query = self.query_projection(query)  # [B, R, D]
        # Scaling the query, not the scores: R*D numbers instead of R*M.
        scores = tf.matmul(query * self._scale, keys, transpose_b=True)  # [B, R, M]
        # In float32: bfloat16 has 8 bits for a sum over thousands of cells.
        weights = tf.nn.softmax(tf.cast(scores, tf.float32), axis=-1)
        attended = tf.matmul(tf.cast(weights, values.dtype), values)  # [B, R, D]

        query = self.attention_norm(query + self.attention_dropout(attended, training=training))
        update = self.ffn_output(self.ffn_hidden(query))
        query = self.ffn_norm(query + self.ffn_dropout(update, training=training))

        grid = memory.shape[:4]
        attention = Attention(
            weights=tf.reshape(weights, [batch, tf.shape(weights)[1], t, h, w]),
            keys=tf.reshape(keys, [batch, t, h, w, keys.shape[-1]]),
        )
        attention.weights.set_shape([grid[0], query.shape[1], *grid[1:]])
        attention.keys.set_shape([*grid, keys.shape[-1]])
        return query, attention
