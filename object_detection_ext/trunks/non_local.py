# SPDX-License-Identifier: Apache-2.0
"""The non-local block: every cell of a feature map attends to the whole clip.

Wang et al., "Non-local Neural Networks", CVPR 2018, sections 3.2 and 3.3: the embedded Gaussian
form in a bottleneck, with subsampling.

Shapes: B clips, t h w cells, N = t*h*w of them, M = t*ceil(h/2)*ceil(w/2) after subsampling, C
channels.
"""

import tensorflow as tf

from object_detection_ext.trunks import layers

# The published code's for these convolutions, whatever the network's others start from: it keeps
# the first softmax far from one-hot.
_INITIAL_STDDEV = 0.01


class NonLocalBlock(tf.keras.layers.Layer):
    """The block, [B, t, h, w, channels] -> the same.

        S = max pool of x, 1x2x2
        y = softmax(theta(x) phi(S)' / sqrt(C/2)) g(S)
        z = x + BatchNorm(W y)

    theta, phi, g (to C/2) and W (back to C) are 1x1x1 convolutions with bias. Batch norm's gamma
    starts at zero, so the block starts as the identity, and a pretrained network keeps its
    features. Where the paper is silent or of two minds, this follows its published code:
    the scores are scaled (the paper's formula 4 has no factor), and x is pooled before phi and g
    (as the text's y(x, x^) has it; its last sentence pools phi's and g's output). On a map of an
    odd size the last row and column are pooled too.

    The largest tensors are the scores and their softmax, B*N*M numbers each: 0.4 GB in float32 for
    one clip of 50x50 cells and 8 steps in time.

    Args:
      channels: C.
      epsilon: what batch norm adds to the variance.
      train_batch_norm, batch_norm_momentum, kernel_regularizer: see `layers.ConvUnit`.
    """

    def __init__(
        self,
        *,
        channels: int,
        epsilon: float = layers.BATCH_NORM_EPSILON,
        train_batch_norm: bool = False,
        batch_norm_momentum: float = layers.BATCH_NORM_MOMENTUM,
        kernel_regularizer=None,
        name: str | None = None,
    ):
        super().__init__(name=name)
        inner = channels // 2
        kernel_options = {
            "kernel_initializer": tf.keras.initializers.RandomNormal(stddev=_INITIAL_STDDEV),
            "kernel_regularizer": kernel_regularizer,
        }
        self._scale = inner**-0.5
        with tf.name_scope(self.name):
            self.theta, self.phi, self.g = (
                layers.Conv(in_channels=channels, filters=inner, name=name, **kernel_options)
                for name in ("theta", "phi", "g")
            )
            self.out = layers.ConvUnit(
                in_channels=inner,
                filters=channels,
                kernel_size=(1, 1, 1),
                use_bias=True,
                use_gamma=True,
                gamma_initializer="zeros",
                epsilon=epsilon,
                activation=None,
                train_batch_norm=train_batch_norm,
                batch_norm_momentum=batch_norm_momentum,
                name="out",
                **kernel_options,
            )
        self.built = True

    def call(self, features: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        """z, see the class."""
        subsampled = layers.max_pool3d(features, (1, 2, 2), (1, 2, 2))
        # Scaling the queries, not the scores: N*C/2 numbers instead of N*M.
        queries = _as_cells(self.theta(features)) * self._scale  # [B, N, C/2]
        keys = _as_cells(self.phi(subsampled))  # [B, M, C/2]
        values = _as_cells(self.g(subsampled))  # [B, M, C/2]
        scores = tf.matmul(queries, keys, transpose_b=True)  # [B, N, M]
        # In float32: bfloat16 has 8 bits for a sum over thousands of cells.
        weights = tf.nn.softmax(tf.cast(scores, tf.float32))
        attended = tf.matmul(tf.cast(weights, values.dtype), values)  # [B, N, C/2]
        grid = tf.concat([tf.shape(features)[:4], [values.shape[-1]]], axis=0)
        attended = tf.ensure_shape(
            tf.reshape(attended, grid), [*features.shape[:4], values.shape[-1]]
        )  # [B, t, h, w, C/2]
        return features + self.out(attended, training=training)

    def variables_by_path(self) -> dict[str, tf.Variable]:
        """Every variable by its path, such as "theta/w" or "out/batch_norm/gamma"."""
        return {
            f"{part.name}/{path}": variable
            for part in (self.theta, self.phi, self.g, self.out)
            for path, variable in part.variables_by_path().items()
        }


def _as_cells(features: tf.Tensor) -> tf.Tensor:
    """[B, t, h, w, C] -> [B, t*h*w, C]."""
    return tf.reshape(features, [tf.shape(features)[0], -1, features.shape[-1]])
