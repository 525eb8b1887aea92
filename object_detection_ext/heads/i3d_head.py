# SPDX-License-Identifier: Apache-2.0
"""The I3D head: the trunk's left-out layers on each person's tube, without context (section 3.3).

Shapes: B clips, R proposals per clip, t h w cells of the feature map, C channels, P P cells of a
RoI feature (7 x 7 in the paper), F channels of the last layer (1024 for I3D).
"""

import tensorflow as tf

from object_detection_ext.heads.head_outputs import HeadOutputs
from object_detection_ext.heads.roi_pooling import RoiPool, pool_tubes


class I3DHead(tf.keras.layers.Layer):
    """One feature per proposal, from the proposal's tube alone.

    Args:
        tail: the layers behind the trunk's endpoint, [N, t, P, P, C] -> [N, t', P', P', F]; for
            I3D MaxPool3d_5a_2x2, Mixed_5b and Mixed_5c. See `trunks.trunk.Trunk.build_tail`.
    """

    def __init__(self, *, tail: tf.keras.layers.Layer, name: str | None = None):
        super().__init__(name=name)
        self.tail = tail

    def call(
        self, features: tf.Tensor, roi_pool: RoiPool, training: bool | None = None
    ) -> HeadOutputs:
        """The mean over the cells of each tube.

        Args:
            features: [B, t, h, w, C], the trunk's feature map (no location channels).
            roi_pool: pools the proposals, see `roi_pooling`.
            training: for the tail's batch norm, and see `pool_tubes`.
        """
        tubes = pool_tubes(features, roi_pool, training=training)  # [B*R, t, P, P, C]
        cells = self.tail(tubes, training=training)  # [B*R, t', P', P', F]
        # In float32, whatever the precision: see `trunks.layers.SelfGating`.
        pooled = tf.reduce_mean(tf.cast(cells, tf.float32), axis=[1, 2, 3])  # [B*R, F]
        return HeadOutputs(class_features=pooled, box_features=pooled)
