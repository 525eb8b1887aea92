# SPDX-License-Identifier: Apache-2.0
"""Location embedding: tells every cell of the feature map where and when it is (section 3.4).

Shapes: B clips, t h w cells of the feature map, C channels.
"""

import tensorflow as tf

from object_detection_ext.trunks.layers import fresh_initializer


def centred_coordinates(size: tf.Tensor | int) -> tf.Tensor:
    """[size] positions of the cells' centres, relative to the map's centre, over its size.

    All lie inside (-0.5, 0.5), for any size: cell i is at (i + 0.5) / size - 0.5.
    """
    size = tf.cast(size, tf.float32)
    return (tf.range(size) + 0.5) / size - 0.5


class LocationEmbedding(tf.keras.layers.Layer):
    """Appends an embedding of (h, w) and one of (t) to every cell.

    [B, t, h, w, C] -> [B, t, h, w, C + 2 * embedding_size], in the order features, space, time.
    Each embedding is a 2-layer perceptron (ReLU between, both layers of `embedding_size` units
    with bias) of the `centred_coordinates`. Every size may be dynamic, but for C.
    """

    def __init__(
        self,
        *,
        embedding_size: int = 8,
        kernel_initializer="glorot_uniform",
        kernel_regularizer=None,
        name: str | None = None,
    ):
        super().__init__(name=name)
        if embedding_size < 1:
            raise ValueError(f"embedding_size must be at least 1, got {embedding_size}.")
        self.embedding_size = embedding_size

        def dense(name: str, activation: str | None, inputs: int) -> tf.keras.layers.Dense:
            layer = tf.keras.layers.Dense(
                embedding_size,
                activation=activation,
                kernel_initializer=fresh_initializer(kernel_initializer),
                kernel_regularizer=tf.keras.regularizers.get(kernel_regularizer),
                name=name,
                # In bfloat16, neighbouring cells of a large map would have one coordinate.
                dtype=tf.float32,
            )
            with tf.name_scope(f"{self.name}/{name}"):
                layer.build((None, inputs))
            return layer

        self.space_hidden = dense("space_hidden", "relu", 2)
        self.space_output = dense("space_output", None, embedding_size)
        self.time_hidden = dense("time_hidden", "relu", 1)
        self.time_output = dense("time_output", None, embedding_size)

    def call(self, features: tf.Tensor) -> tf.Tensor:
        """The features with their location, see the class."""
        batch, t, h, w, _ = tf.unstack(tf.shape(features))
        rows, columns = tf.meshgrid(centred_coordinates(h), centred_coordinates(w), indexing="ij")
        space = self.space_output(self.space_hidden(tf.stack([rows, columns], axis=-1)))
        time = self.time_output(self.time_hidden(centred_coordinates(t)[:, tf.newaxis]))
        shape = [batch, t, h, w, self.embedding_size]
        space = tf.broadcast_to(tf.cast(space, features.dtype), shape)
        time = tf.broadcast_to(tf.cast(time, features.dtype)[:, tf.newaxis, tf.newaxis], shape)
        # tf.broadcast_to forgets static sizes that it gets as tensors.
        for embedding in (space, time):
            embedding.set_shape([*features.shape[:-1], self.embedding_size])
        return tf.concat([features, space, time], axis=-1)
