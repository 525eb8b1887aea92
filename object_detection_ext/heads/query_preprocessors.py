# SPDX-License-Identifier: Apache-2.0
"""Query preprocessors (QPr): from a person's RoI feature to one query vector (section 3.2).

Shapes: N people (all clips of the batch), P P cells of the RoI feature (7 x 7 in the paper), C
channels.
"""

import tensorflow as tf

from object_detection_ext.trunks.layers import Dense, fresh_initializer


class LowResQueryPreprocessor(tf.keras.layers.Layer):
    """The mean over space, which forgets the person's layout. [N, P, P, C] -> [N, C]."""

    def call(self, person_features: tf.Tensor) -> tf.Tensor:
        """One vector per person, see the class."""
        # In float32, whatever the precision: see `trunks.layers.SelfGating`.
        mean = tf.reduce_mean(tf.cast(person_features, tf.float32), axis=[1, 2])
        return tf.cast(mean, person_features.dtype)


class HighResQueryPreprocessor(tf.keras.layers.Layer):
    """Keeps the person's spatial layout. [N, P, P, C] -> [N, C].

    One 1x1 convolution, C -> `reduced_channels`, shared by all cells; the cells concatenated row
    by row; a linear layer back to C. Both linear, with bias; the head's own linear layer to the
    query size D comes after it, as it does after LowRes. P and C must be static, else ValueError.
    """

    def __init__(
        self,
        *,
        reduced_channels: int = 128,
        kernel_initializer="glorot_uniform",
        kernel_regularizer=None,
        name: str | None = None,
    ):
        super().__init__(name=name)
        if reduced_channels < 1:
            raise ValueError(f"reduced_channels must be at least 1, got {reduced_channels}.")
        self.reduced_channels = reduced_channels
        self._kernel_initializer = kernel_initializer
        self._kernel_regularizer = kernel_regularizer
        # A 1x1 convolution is a dense layer on the last axis.
        self.reduce = self._dense(reduced_channels, "reduce_1x1")

    def _dense(self, units: int, name: str) -> Dense:
        return Dense(
            units,
            kernel_initializer=fresh_initializer(self._kernel_initializer),
            kernel_regularizer=tf.keras.regularizers.get(self._kernel_regularizer),
            name=name,
            # Also what `build` makes, long after the policy of the constructor's time is gone.
            dtype=self.dtype_policy,
        )

    def build(self, input_shape: tf.TensorShape) -> None:
        """Makes the linear layer over all cells, whose size the crops decide."""
        _, rows, columns, channels = input_shape
        if None in (rows, columns, channels):
            raise ValueError(
                "The HighRes query preprocessor needs crops of a known size, [N, P, P, C]; got "
                f"{tuple(input_shape)}."
            )
        self._flat_size = rows * columns * self.reduced_channels
        self.combine = self._dense(channels, "combine")
        super().build(input_shape)

    def call(self, person_features: tf.Tensor) -> tf.Tensor:
        """One vector per person, see the class."""
        reduced = self.reduce(person_features)
        # [N, P, P, reduced] -> [N, P * P * reduced]
        return self.combine(tf.reshape(reduced, [tf.shape(reduced)[0], self._flat_size]))
