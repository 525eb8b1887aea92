# SPDX-License-Identifier: Apache-2.0
"""Both heads: the Tx head classifies, the I3D head regresses the box (Table 3, last row).

Shapes: B clips, R proposals per clip, t h w cells of the feature map, C channels.
"""

import tensorflow as tf

from object_detection_ext.heads.head_outputs import HeadOutputs
from object_detection_ext.heads.i3d_head import I3DHead
from object_detection_ext.heads.roi_pooling import RoiPool
from object_detection_ext.heads.tx_head import TxHead


class TxI3DHead(tf.keras.layers.Layer):
    """Class features and attention of a Tx head, box features of an I3D head."""

    def __init__(self, *, tx_head: TxHead, i3d_head: I3DHead, name: str | None = None):
        super().__init__(name=name)
        self.tx_head = tx_head
        self.i3d_head = i3d_head

    def call(
        self, features: tf.Tensor, roi_pool: RoiPool, training: bool | None = None
    ) -> HeadOutputs:
        """Both heads' outputs.

        Args:
            features: [B, t, h, w, C], the trunk's feature map.
            roi_pool: pools the proposals, see `roi_pooling`.
            training: for dropout and batch norm.
        """
        action = self.tx_head(features, roi_pool, training=training)
        box = self.i3d_head(features, roi_pool, training=training)
        return action._replace(box_features=box.box_features)
