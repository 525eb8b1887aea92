# SPDX-License-Identifier: Apache-2.0
"""The Action Transformer head: layers of Tx units over the clip, several heads each (section 3.2).

Shapes: B clips, R proposals per clip, t h w cells of the feature map, C channels of the trunk, L
the memory's channels (C plus the location embedding), P P cells of a RoI feature, D query size.
"""

import tensorflow as tf

from object_detection_ext.heads.head_outputs import HeadOutputs
from object_detection_ext.heads.roi_pooling import RoiPool, middle_of_time
from object_detection_ext.heads.tx_unit import TxUnit


class TxHead(tf.keras.layers.Layer):
    """A stack of `num_layers` layers with `num_heads` Tx units each, which share nothing.

    The first layer's query is the preprocessed RoI feature of the person in the middle frame, and
    that of each further layer the concatenated outputs of the layer before; every unit has its own
    linear layer from there to D.

    Args:
      query_preprocessor: [N, P, P, L] -> [N, any] layer, see `query_preprocessors`.
      location_embedding: [B, t, h, w, C] -> [B, t, h, w, L] layer, or None for L = C.
      num_layers, num_heads: at least 1 (3 and 2 in the paper's main model, table 5).
      feature_size: D.
      ffn_size: hidden units of the units' FFN; None for the Transformer's 4 * D.
      dropout_rate: see `TxUnit`.
      kernel_initializer, kernel_regularizer: Keras ones, for every linear layer of the units (the
        preprocessor and the location embedding come with their own).

    Raises ValueError for numbers out of range.
    """

    def __init__(
        self,
        *,
        query_preprocessor: tf.keras.layers.Layer,
        location_embedding: tf.keras.layers.Layer | None,
        num_layers: int = 3,
        num_heads: int = 2,
        feature_size: int = 128,
        ffn_size: int | None = None,
        dropout_rate: float = 0.3,
        kernel_initializer="glorot_uniform",
        kernel_regularizer=None,
        name: str | None = None,
    ):
        super().__init__(name=name)
        for option, value in (("num_layers", num_layers), ("num_heads", num_heads)):
            if value < 1:
                raise ValueError(f"{option} must be at least 1, got {value}.")
        self.query_preprocessor = query_preprocessor
        self.location_embedding = location_embedding
        self.output_size = num_heads * feature_size
        self.units = [
            [
                TxUnit(
                    feature_size=feature_size,
                    ffn_size=4 * feature_size if ffn_size is None else ffn_size,
                    dropout_rate=dropout_rate,
                    kernel_initializer=kernel_initializer,
                    kernel_regularizer=kernel_regularizer,
                    name=f"layer_{layer}_head_{head}",
                )
                for head in range(num_heads)
            ]
            for layer in range(num_layers)
        ]

    def embed_location(self, features: tf.Tensor) -> tf.Tensor:
        """The memory: the trunk's features with their location, [B, t, h, w, C] -> [..., L]."""
        if self.location_embedding is None:
            return features
        return self.location_embedding(features)

    def call(
        self, features: tf.Tensor, roi_pool: RoiPool, training: bool | None = None
    ) -> HeadOutputs:
        """One feature per proposal, and what each attended to.

        Args:
          features: [B, t, h, w, C], the trunk's feature map.
          roi_pool: pools the proposals, see `roi_pooling`.
          training: whether dropout acts.
        """
        memory = self.embed_location(features)
        # The query carries the location as the memory does (section 3.4).
        return self.attend(roi_pool(middle_of_time(memory)), memory, training=training)

    def attend(
        self, person_features: tf.Tensor, memory: tf.Tensor, training: bool | None = None
    ) -> HeadOutputs:
        """The same, for people that were cut out already.

        Args:
          person_features: [B*R, P, P, L], RoI features from the memory's middle frame, the R of
            the first clip first.
          memory: [B, t, h, w, L], from `embed_location`.
          training: whether dropout acts.
        """
        query = self.query_preprocessor(person_features)
        batch = memory.shape[0] or tf.shape(memory)[0]
        proposals = query.shape[0] or tf.shape(query)[0]
        # [B*R, channels] -> [B, R, channels]
        query = tf.reshape(query, [batch, proposals // batch, query.shape[-1]])
        attentions = []
        for units in self.units:
            results = [unit(query, memory, training=training) for unit in units]
            query = tf.concat([updated for updated, _ in results], axis=-1)  # [B, R, heads * D]
            attentions.append([attention for _, attention in results])
        features = tf.reshape(query, [proposals, self.output_size])
        return HeadOutputs(
            class_features=features,
            box_features=features,
            attention_weights=tuple(tuple(a.weights for a in heads) for heads in attentions),
            key_embeddings=tuple(tuple(a.keys for a in heads) for heads in attentions),
        )
