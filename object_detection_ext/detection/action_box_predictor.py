# SPDX-License-Identifier: Apache-2.0
"""The second stage: an action head, then the stock linear layers for classes and boxes.

Shapes: B clips, R proposals, t h w cells of the feature map, C channels, K classes; Kb is 1 with
class-agnostic boxes (`share_box_across_classes`), else K.
"""

import tensorflow as tf
from object_detection.core import box_predictor
from object_detection.predictors import mask_rcnn_keras_box_predictor


class ActionBoxPredictor(box_predictor.KerasBoxPredictor):
    """Predicts the actions and the box refinement of each proposal (sections 3.2 to 3.4)."""

    def __init__(
        self,
        *,
        action_head: tf.keras.layers.Layer,
        linear_layers: mask_rcnn_keras_box_predictor.MaskRCNNKerasBoxPredictor,
        name: str = "ActionBoxPredictor",
    ):
        """Creates the predictor.

        Args:
            action_head: from the feature map and the proposals to features per proposal, such as
                `heads.tx_head.TxHead`.
            linear_layers: the stock second-stage predictor, which makes logits and box encodings
                of that feature. Built from the stock `mask_rcnn_box_predictor` field.
            name: of the layer.
        """
        super().__init__(
            is_training=linear_layers._is_training,
            num_classes=linear_layers.num_classes,
            freeze_batchnorm=False,
            inplace_batchnorm_update=False,
            name=name,
        )
        # The head takes the feature map as the trunk computed it.
        self._autocast = False
        self.action_head = action_head
        # One by one, as the two may get different features (Table 3, last row).
        self._box_head = linear_layers._box_prediction_head
        self._class_head = linear_layers._class_prediction_head

    def without_classes(self) -> tf.Module:
        """The layers whose shape does not depend on the number of classes, by their attributes."""
        module = tf.Module()
        module.action_head = self.action_head
        if self._box_head._share_box_across_classes:
            module._box_head = self._box_head
        return module

    def call(self, image_features, roi_pool, training=None, prediction_stage=2):
        """Predicts classes and boxes.

        Args:
            image_features: a list with the feature map [B, t, h, w, C].
            roi_pool: pools the proposals, see `heads.roi_pooling`.
            training: whether dropout and batch statistics act.
            prediction_stage: 2, the only one; part of the stock call.

        Returns:
            The stock dictionary: `box_encodings` [B R, 1, Kb, 4] in the code of the box coder and
            `class_predictions_with_background` [B R, 1, K + 1], logits; and under `head_outputs`
            what the head returned.

        Raises:
            ValueError: for another prediction stage (masks, keypoints).
        """
        if prediction_stage != 2:
            raise ValueError("The action box predictor has no third stage (masks, keypoints).")
        (features,) = image_features
        outputs = self.action_head(features, roi_pool, training=training)
        return {
            box_predictor.BOX_ENCODINGS: self._box_head(_one_cell(outputs.box_features)),
            box_predictor.CLASS_PREDICTIONS_WITH_BACKGROUND: self._class_head(
                _one_cell(outputs.class_features)
            ),
            "head_outputs": outputs,
        }


def _one_cell(features: tf.Tensor) -> tf.Tensor:
    """[B R, F] -> [B R, 1, 1, F] in float32: the stock heads take feature maps."""
    return tf.cast(features, tf.float32)[:, tf.newaxis, tf.newaxis, :]
