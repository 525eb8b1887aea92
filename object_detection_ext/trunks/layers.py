# SPDX-License-Identifier: Apache-2.0
"""Building blocks of the 3-D convolutional trunks.

Shapes: B clips, T frames (or t cells), H W rows and columns, C channels; all tensors are
[B, T, H, W, C].
"""

from collections.abc import Callable

import tensorflow as tf

# Sonnet's and slim's batch norm, with which the published I3D checkpoints were made.
BATCH_NORM_EPSILON = 1e-3
BATCH_NORM_MOMENTUM = 0.999

Triple = tuple[int, int, int]  # (time, height, width)

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


def add_bias(features: tf.Tensor, bias: tf.Tensor, training: bool | None = None) -> tf.Tensor:
    """The features [..., C] plus a bias [C], in the features' precision.

    On CPUs, the gradient of the stock `bias_add` sums in its inputs' precision, one cell after the
    other: in bfloat16 the sum stops growing at some 500 cells. That of a plain sum does not.

    Args:
        features: [..., C].
        bias: float32 [C].
        training: False where no gradient will be asked for, so that TensorFlow may fuse the stock
            operation with the convolution.
    """
    bias = tf.cast(bias, features.dtype)
    if features.dtype == tf.float32 or training is False:
        return tf.nn.bias_add(features, bias)
    return features + bias


class Dense(tf.keras.layers.Dense):
    """The Keras layer of this name, with `add_bias`."""

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """[..., inputs] -> [..., units]."""
        if self.compute_dtype == tf.float32.name or not self.use_bias:
            return super().call(inputs)
        outputs = tf.tensordot(inputs, self.kernel, axes=1)
        return self.activation(add_bias(outputs, self.bias))


def max_pool3d(
    features: tf.Tensor,
    window: Triple,
    strides: Triple,
    padding: Triple | None = None,
) -> tf.Tensor:
    """Max pooling over (time, height, width); padding never wins.

    `padding` is the number of cells added before and after on each axis; None is TensorFlow's SAME,
    which adds one cell more after than before where the sum is odd.
    """
    if padding is None:
        return tf.nn.max_pool3d(features, ksize=window, strides=strides, padding="SAME")
    padded = tf.pad(features, _pad_widths(padding), constant_values=features.dtype.min)
    return tf.nn.max_pool3d(padded, ksize=window, strides=strides, padding="VALID")


def _pad_widths(padding: Triple) -> list[tuple[int, int]]:
    return [(0, 0), *((cells, cells) for cells in padding), (0, 0)]


class Conv(tf.keras.layers.Layer):
    """3-D convolution with SAME padding, and neither batch norm nor activation.

    [B, T, H, W, in_channels] -> [B, ceil(T/s0), ceil(H/s1), ceil(W/s2), filters]. Variables: `w`,
    and `b` unless `use_bias` is False.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        filters: int,
        kernel_size: Triple = (1, 1, 1),
        strides: Triple = (1, 1, 1),
        use_bias: bool = True,
        kernel_initializer="he_normal",
        kernel_regularizer=None,
        name: str | None = None,
    ):
        super().__init__(name=name)
        self._strides = [1, *strides, 1]
        self.bias = None
        with tf.name_scope(self.name):
            self.kernel = self.add_weight(
                name="w",
                shape=(*kernel_size, in_channels, filters),
                initializer=fresh_initializer(kernel_initializer),
                regularizer=tf.keras.regularizers.get(kernel_regularizer),
            )
            if use_bias:
                self.bias = self.add_weight(name="b", shape=(filters,), initializer="zeros")
        self.built = True

    def call(self, features: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        """The convolution, see the class; the same in training."""
        convolved = tf.nn.conv3d(features, self.kernel, strides=self._strides, padding="SAME")
        return convolved if self.bias is None else add_bias(convolved, self.bias, training)

    def variables_by_path(self) -> dict[str, tf.Variable]:
        """The kernel and the bias by their names."""
        return {"w": self.kernel} | ({} if self.bias is None else {"b": self.bias})


class ConvUnit(tf.keras.layers.Layer):
    """3-D convolution, batch norm, ReLU; as it stands I3D's "Unit3D": no bias, beta, no gamma.

    [B, T, H, W, in_channels] -> [B, ceil(T/s0), ceil(H/s1), ceil(W/s2), filters] with SAME padding.

    Batch statistics are used, and the stored ones updated, only if `train_batch_norm` and the call
    is a training one (and the layer is trainable, as Keras has it). In every other case the stored
    mean and variance are constants, and they are folded into the kernel, which saves about a tenth
    of a training step's CPU time. Beta and gamma are trained in both cases (paper, section 3.5:
    only the running mean and variance are fixed).

    Args:
      padding: cells of zeros before and after on each axis; None is TensorFlow's SAME padding.
      use_bias: whether the convolution has a bias before batch norm.
      use_gamma: whether batch norm has a factor. It starts from `gamma_initializer`.
      epsilon: what batch norm adds to the variance.
      activation: applied to the normalized features; None for none.

    Variables (names as in the published I3D checkpoints, where those have them): `conv_3d/w`,
    `conv_3d/b`, `batch_norm/gamma`, `batch_norm/beta`, `batch_norm/moving_mean`,
    `batch_norm/moving_variance`.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        filters: int,
        kernel_size: Triple,
        strides: Triple = (1, 1, 1),
        padding: Triple | None = None,
        use_bias: bool = False,
        use_gamma: bool = False,
        gamma_initializer="ones",
        epsilon: float = BATCH_NORM_EPSILON,
        activation: Callable[[tf.Tensor], tf.Tensor] | None = tf.nn.relu,
        train_batch_norm: bool = False,
        batch_norm_momentum: float = BATCH_NORM_MOMENTUM,
        kernel_initializer="he_normal",
        kernel_regularizer=None,
        name: str | None = None,
    ):
        super().__init__(name=name)
        self._strides = [1, *strides, 1]
        self._padding = padding
        self._epsilon = epsilon
        self._activation = activation or tf.identity
        self._train_batch_norm = train_batch_norm
        self._momentum = batch_norm_momentum
        self.bias = self.gamma = None
        with tf.name_scope(self.name), tf.name_scope("conv_3d"):
            self.kernel = self._add_variable(
                "w",
                (*kernel_size, in_channels, filters),
                fresh_initializer(kernel_initializer),
                regularizer=tf.keras.regularizers.get(kernel_regularizer),
            )
            if use_bias:
                self.bias = self._add_variable("b", (filters,), "zeros")
        with tf.name_scope(self.name), tf.name_scope("batch_norm"):
            if use_gamma:
                self.gamma = self._add_variable("gamma", (filters,), gamma_initializer)
            self.beta = self._add_variable("beta", (filters,), "zeros")
            self.moving_mean = self._add_statistic("moving_mean", filters, "zeros")
            self.moving_variance = self._add_statistic("moving_variance", filters, "ones")
        self.built = True

    def _add_variable(self, name: str, shape: tuple[int, ...], initializer, **kwargs):
        # experimental_autocast off: folding is done in float32 and its result cast, so that a
        # low-precision policy rounds once.
        return self.add_weight(
            name=name, shape=shape, initializer=initializer, experimental_autocast=False, **kwargs
        )

    def _add_statistic(self, name: str, filters: int, initializer: str) -> tf.Variable:
        return self._add_variable(
            name,
            (filters,),
            initializer,
            trainable=False,
            # Each replica collects its own statistics; they are averaged when read.
            synchronization=tf.VariableSynchronization.ON_READ,
            aggregation=tf.VariableAggregation.MEAN,
        )

    def call(self, features: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        """The activations, see the class."""
        if self._train_batch_norm and self.trainable and training:
            return self._call_with_batch_statistics(features)
        scale, bias = self._scale_and_bias(self.moving_mean, self.moving_variance)
        kernel = tf.cast(self.kernel * scale, features.dtype)
        return self._activation(add_bias(self._convolve(features, kernel), bias, training))

    def _scale_and_bias(self, mean: tf.Tensor, variance: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """What batch norm multiplies a convolution (before its bias) by, and what it adds."""
        scale = tf.math.rsqrt(variance + self._epsilon)
        if self.gamma is not None:
            scale *= self.gamma
        if self.bias is not None:
            mean = mean - self.bias
        return scale, self.beta - mean * scale

    def _convolve(self, features: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        padding = "SAME"
        if self._padding is not None:
            features, padding = tf.pad(features, _pad_widths(self._padding)), "VALID"
        return tf.nn.conv3d(features, kernel, strides=self._strides, padding=padding)

    def _call_with_batch_statistics(self, features: tf.Tensor) -> tf.Tensor:
        convolved = self._convolve(features, tf.cast(self.kernel, features.dtype))
        mean, variance = tf.nn.moments(tf.cast(convolved, tf.float32), axes=[0, 1, 2, 3])
        if self.bias is not None:
            mean = mean + self.bias
        for stored, observed in ((self.moving_mean, mean), (self.moving_variance, variance)):
            stored.assign_sub((stored - observed) * (1.0 - self._momentum))
        scale, bias = self._scale_and_bias(mean, variance)
        scaled = convolved * tf.cast(scale, features.dtype)
        return self._activation(scaled + tf.cast(bias, features.dtype))

    def variables_by_path(self) -> dict[str, tf.Variable]:
        """The unit's variables by their name in the published checkpoints, below its own."""
        variables = {
            "conv_3d/w": self.kernel,
            "conv_3d/b": self.bias,
            "batch_norm/gamma": self.gamma,
            "batch_norm/beta": self.beta,
            "batch_norm/moving_mean": self.moving_mean,
            "batch_norm/moving_variance": self.moving_variance,
        }
        return {path: variable for path, variable in variables.items() if variable is not None}


class SelfGating(tf.keras.layers.Layer):
    """Scales every channel by a gate that sees the whole clip: S3D-G's "feature gating".

    features * sigmoid(W mean(features)), the mean over all cells and W without bias; [B, T, H, W,
    channels] -> the same. Section 4.4 of "Rethinking Spatiotemporal Feature Learning". Variable:
    `transformer_W/w`.
    """

    # What the API's own S3D-G starts W from: the gates begin at about a half.
    _INITIAL_STDDEV = 0.01

    def __init__(self, *, channels: int, kernel_regularizer=None, name: str | None = None):
        super().__init__(name=name)
        with tf.name_scope(self.name):
            self.transformer = Conv(
                in_channels=channels,
                filters=channels,
                use_bias=False,
                kernel_initializer=tf.keras.initializers.TruncatedNormal(
                    stddev=self._INITIAL_STDDEV
                ),
                kernel_regularizer=kernel_regularizer,
                name="transformer_W",
            )
        self.built = True

    def call(self, features: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        """The gated features, see the class; the same in training."""
        del training
        # In float32: a low-precision sum over thousands of cells stops growing.
        mean = tf.reduce_mean(tf.cast(features, tf.float32), axis=[1, 2, 3], keepdims=True)
        return features * tf.sigmoid(self.transformer(tf.cast(mean, features.dtype)))

    def variables_by_path(self) -> dict[str, tf.Variable]:
        """The one variable by its path."""
        return {f"transformer_W/{k}": v for k, v in self.transformer.variables_by_path().items()}
