# SPDX-License-Identifier: Apache-2.0
"""Building blocks of the 3-D convolutional trunks.

Shapes: B clips, T frames (or t cells), H W rows and columns, C channels; all tensors are
[B, T, H, W, C].
"""

import tensorflow as tf

# Sonnet's and slim's batch norm, with which the published I3D checkpoints were made.
BATCH_NORM_EPSILON = 1e-3
BATCH_NORM_MOMENTUM = 0.999

_MIN_CHANNELS = 8


def scale_channels(channels: int, depth_multiplier: float) -> int:
    """Channels of a layer in a network made thinner or wider by `depth_multiplier`.

    Rounds down, and keeps at least 8 channels (or the layer's own number, if that is smaller), so
    that the narrow 5x5-like branches of Inception survive small multipliers.
    """
    return max(int(channels * depth_multiplier), min(channels, _MIN_CHANNELS))


def fresh_initializer(initializer):
    """A Keras initializer of this name, class or configuration, shared with no other layer.

    An unseeded Keras initializer object gives the same numbers at every use, so two layers of one
    shape would start out as copies of each other; hence every weight gets an object of its own.
    (With a seed of its own that cannot be helped: pass initializers without one and seed globally.)
    """
    initializer = tf.keras.initializers.get(initializer)
    if isinstance(initializer, tf.keras.initializers.Initializer):
        return type(initializer).from_config(initializer.get_config())
    return initializer


def max_pool3d(
    features: tf.Tensor, window: tuple[int, int, int], strides: tuple[int, int, int]
) -> tf.Tensor:
    """Max pooling over (time, height, width) with SAME padding; padding never wins."""
    return tf.nn.max_pool3d(features, ksize=window, strides=strides, padding="SAME")


class ConvUnit(tf.keras.layers.Layer):
    """3-D convolution without bias, batch norm with beta and no gamma, ReLU: I3D's "Unit3D".

    [B, T, H, W, in_channels] -> [B, ceil(T/s0), ceil(H/s1), ceil(W/s2), filters], SAME padding.

    Batch statistics are used, and the stored ones updated, only if `train_batch_norm` and the call
    is a training one (and the layer is trainable, as Keras has it). In every other case the stored
    mean and variance are constants, and they are folded into the kernel, which saves about a tenth
    of a training step's CPU time. Beta is trained in both cases (paper, section 3.5: only the
    running mean and variance are fixed).

    Variables (names as in the published checkpoints): `conv_3d/w`, `batch_norm/beta`,
    `batch_norm/moving_mean`, `batch_norm/moving_variance`.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        filters: int,
        kernel_size: tuple[int, int, int],
        strides: tuple[int, int, int] = (1, 1, 1),
        train_batch_norm: bool = False,
        batch_norm_momentum: float = BATCH_NORM_MOMENTUM,
        kernel_initializer="he_normal",
        kernel_regularizer=None,
        name: str | None = None,
    ):
        super().__init__(name=name)
        self._strides = [1, *strides, 1]
        self._train_batch_norm = train_batch_norm
        self._momentum = batch_norm_momentum
        # experimental_autocast off: folding is done in float32 and its result cast, so that a
        # low-precision policy rounds once.
        with tf.name_scope(self.name), tf.name_scope("conv_3d"):
            self.kernel = self.add_weight(
                name="w",
                shape=(*kernel_size, in_channels, filters),
                initializer=fresh_initializer(kernel_initializer),
                regularizer=tf.keras.regularizers.get(kernel_regularizer),
                experimental_autocast=False,
            )
        with tf.name_scope(self.name), tf.name_scope("batch_norm"):
            self.beta = self.add_weight(
                name="beta", shape=(filters,), initializer="zeros", experimental_autocast=False
            )
            self.moving_mean = self._add_statistic("moving_mean", filters, "zeros")
            self.moving_variance = self._add_statistic("moving_variance", filters, "ones")
        self.built = True

    def _add_statistic(self, name: str, filters: int, initializer: str) -> tf.Variable:
        return self.add_weight(
            name=name,
            shape=(filters,),
            initializer=initializer,
            trainable=False,
            # Each replica collects its own statistics; they are averaged when read.
            synchronization=tf.VariableSynchronization.ON_READ,
            aggregation=tf.VariableAggregation.MEAN,
            experimental_autocast=False,
        )

    def call(self, features: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        """The activations, see the class."""
        if self._train_batch_norm and self.trainable and training:
            return self._call_with_batch_statistics(features)
        scale = tf.math.rsqrt(self.moving_variance + BATCH_NORM_EPSILON)
        kernel = tf.cast(self.kernel * scale, features.dtype)
        bias = tf.cast(self.beta - self.moving_mean * scale, features.dtype)
        return tf.nn.relu(tf.nn.bias_add(self._convolve(features, kernel), bias))

    def _convolve(self, features: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        return tf.nn.conv3d(features, kernel, strides=self._strides, padding="SAME")

    def _call_with_batch_statistics(self, features: tf.Tensor) -> tf.Tensor:
        convolved = self._convolve(features, tf.cast(self.kernel, features.dtype))
        mean, variance = tf.nn.moments(tf.cast(convolved, tf.float32), axes=[0, 1, 2, 3])
        for stored, observed in ((self.moving_mean, mean), (self.moving_variance, variance)):
            stored.assign_sub((stored - observed) * (1.0 - self._momentum))
        scale = tf.math.rsqrt(variance + BATCH_NORM_EPSILON)
        bias = tf.cast(self.beta - mean * scale, features.dtype)
        return tf.nn.relu(convolved * tf.cast(scale, features.dtype) + bias)

    def variables_by_path(self) -> dict[str, tf.Variable]:
        """The four variables by their name in the published checkpoints, below the unit's own."""
        return {
            "conv_3d/w": self.kernel,
            "batch_norm/beta": self.beta,
            "batch_norm/moving_mean": self.moving_mean,
            "batch_norm/moving_variance": self.moving_variance,
        }
