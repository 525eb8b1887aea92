# SPDX-License-Identifier: Apache-2.0
"""What heads cut out of the feature map: the middle frame, or a tube through time.

A head gets the proposals as a function, `roi_pool`, which pools the R boxes of each clip out of any
feature map of one frame, [B, h, w, C] -> [B * R, P, P, C], the R of the first clip first. (The
stock crop and max pool do the work, see `detection/video_meta_arch.py`.)

Shapes: B clips, R proposals per clip, t h w cells of the feature map, C channels, P P cells of a
RoI feature.
"""

from collections.abc import Callable

import tensorflow as tf

RoiPool = Callable[[tf.Tensor], tf.Tensor]


def middle_of_time(features: tf.Tensor) -> tf.Tensor:
    """The cells [B, h, w, C] of the middle frame: index t // 2 of [B, t, h, w, C]."""
    steps = features.shape[1]
    if steps is None:
        steps = tf.shape(features)[1]
    return features[:, steps // 2]


def pool_tubes(features: tf.Tensor, roi_pool: RoiPool, training: bool | None = None) -> tf.Tensor:
    """ST-RoIPool (section 3.3): the same box on every frame, the results stacked in time.

    Training pools each frame a second time when it computes gradients, in place of keeping the
    crops: 300 tubes of 14x14x832 numbers on 16 frames are 3.1 GB (docs/benchmarks.md).

    Args:
        features: [B, t, h, w, C]; t and C must be static.
        roi_pool: see the module.
        training: whether gradients will be asked for.

    Returns:
        [B * R, t, P, P, C].
    """
    if training:
        roi_pool = tf.recompute_grad(roi_pool)
    frames = tf.unstack(features, axis=1)
    return tf.stack([roi_pool(frame) for frame in frames], axis=1)
