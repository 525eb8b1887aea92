# SPDX-License-Identifier: Apache-2.0
"""Faster R-CNN on clips: the Video Action Transformer as a stock meta-architecture (section 3).

Overrides the seams where a clip differs from an image. Losses, target assignment, sampling,
non-maximum suppression and restoring stay stock.

Shapes: B clips, T frames, H W pixels, t h w cells of the feature map, C channels, R proposals, K
classes, G ground-truth rows, N detections, L layers and M heads of Tx units, D query size.
"""

import functools
import types
from typing import NamedTuple

import tensorflow as tf
from object_detection.core import box_list_ops, box_predictor, standard_fields
from object_detection.meta_architectures import faster_rcnn_meta_arch
from object_detection.utils import label_map_util, ops

from object_detection_ext.data import clip_packing
from object_detection_ext.detection import (
    action_box_predictor,
    groundtruth_proposals,
    static_sampling,
)
from object_detection_ext.heads.roi_pooling import RoiPool, middle_of_time
from object_detection_ext.visualization import panels, training_pictures

DETECTION_ATTENTION = "detection_attention"
KEY_EMBEDDINGS = "key_embeddings"

_ATTENTION = "proposal_attention"
_MOST_CLIPS_SHOWN = 3


class ClipFeatures(NamedTuple):
    """Clips whose feature map is there already, in the place of preprocessed inputs.

    `feature_map` is float [B, t, h, w, C]; `image_size` int32 [2], height and width in pixels of
    the frames that it was made from, with padding.
    """

    feature_map: tf.Tensor
    image_size: tf.Tensor


class VideoActionTransformerMetaArch(faster_rcnn_meta_arch.FasterRCNNMetaArch):
    """Detects the people in a clip's middle frame and their actions."""

    def __init__(
        self,
        *,
        action_head: tf.keras.layers.Layer,
        proposals_from_groundtruth: bool = False,
        output_attention: bool = False,
        output_key_embeddings: bool = False,
        picture_every_n_steps: int = 0,
        picture_label_map_path: str = "",
        **faster_rcnn_kwargs,
    ):
        """Creates the model.

        Args:
            action_head: from the feature map and the proposals to features per proposal.
            proposals_from_groundtruth: whether the ground truth's boxes take the place of the
                region proposal network's (section 4.2), in training and in evaluation.
            output_attention: whether detections hold `detection_attention`, float
                [B, N, L, M, t, h, w].
            output_key_embeddings: whether detections hold `key_embeddings`, float
                [B, L, M, t, h, w, D].
            picture_every_n_steps: steps between two training pictures in TensorBoard; 0: none, as
                XLA and TPU want it.
            picture_label_map_path: of the label map with the names for these pictures; empty: ids.
                Read when the first picture is made.
            **faster_rcnn_kwargs: as in the base class. The feature extractor must be a
                `VideoFeatureExtractor`; `second_stage_mask_rcnn_box_predictor` gives the linear
                layers behind the action head.
        """
        super().__init__(**faster_rcnn_kwargs)
        self._mask_rcnn_box_predictor = action_box_predictor.ActionBoxPredictor(
            action_head=action_head, linear_layers=self._mask_rcnn_box_predictor
        )
        # Never applied (see VideoFeatureExtractor), but restoring asks for it.
        self._feature_extractor_for_box_classifier_features = (
            self._feature_extractor.get_box_classifier_feature_extractor_model(
                name=self.second_stage_feature_extractor_scope
            )
        )
        if self._use_static_shapes:
            self._first_stage_sampler = static_sampling.ExactSampler(self._first_stage_sampler)
            self._second_stage_sampler = static_sampling.ExactSampler(self._second_stage_sampler)
        self._proposals_from_groundtruth = proposals_from_groundtruth
        self._output_attention = output_attention
        self._output_key_embeddings = output_key_embeddings
        self._picture_every_n_steps = picture_every_n_steps
        self._picture_label_map_path = picture_label_map_path

    @property
    def proposals_from_groundtruth(self) -> bool:
        """Whether the model classifies boxes that it is given, in place of its own proposals."""
        return self._proposals_from_groundtruth

    @property
    def training_label_map_path(self) -> str:
        """Where the names of the classes stand that the training has; empty: not known."""
        return self._picture_label_map_path

    @property
    def image_resizer(self):
        """From a frame [H, W, 3] to (resized frame [h, w, 3], its shape without padding [3])."""
        return self._image_resizer_fn

    def to_clips(self, images: tf.Tensor) -> tf.Tensor:
        """What `predict` takes, as clips [B, T, H, W, 3], float in [-1, 1]."""
        return self._feature_extractor.to_clips(images)

    def predict(self, preprocessed_inputs, true_image_shapes, **side_inputs):
        """Predicts raw tensors; see the base class.

        Args:
            preprocessed_inputs: packed clips [B, H, W, 3 T] in [-1, 1], as `preprocess` gives them,
                or stacked clips [B, T H, W, 3], uint8, as the input pipeline gives them, or
                `ClipFeatures`.
            true_image_shapes: int32 [B, 3], sizes in pixels before padding.
            **side_inputs: `proposal_boxes`, float [B, any number up to R, 4], normalized by the
                true image: boxes that take the place of the proposals. Boxes without an area are
                padding if they stand last.

        Raises:
            ValueError: if proposals come from the ground truth and there is none.
        """
        # Who trains with a loop of their own need not tell the step.
        if self._is_training and self._picture_every_n_steps and self._training_step is not None:
            self._write_training_picture(preprocessed_inputs)
        return super().predict(preprocessed_inputs, true_image_shapes, **side_inputs)

    def postprocess(self, prediction_dict, true_image_shapes, **params):
        """Detections; see the base class. Adds the outputs for pictures that were asked for."""
        detections = super().postprocess(prediction_dict, true_image_shapes, **params)
        if _ATTENTION in prediction_dict:
            proposals = detections[standard_fields.DetectionResultFields.detection_anchor_indices]
            detections[DETECTION_ATTENTION] = tf.gather(
                prediction_dict[_ATTENTION], proposals, batch_dims=1
            )
        if KEY_EMBEDDINGS in prediction_dict:
            detections[KEY_EMBEDDINGS] = prediction_dict[KEY_EMBEDDINGS]
        return detections

    def restore_from_objects(self, fine_tune_checkpoint_type="detection"):
        """What to restore; see the base class.

        'detection' means here all but the layers whose shape depends on the number of classes.
        Trainings restore more than that, see `checkpoints.start`.
        """
        if fine_tune_checkpoint_type != "detection":
            return super().restore_from_objects(fine_tune_checkpoint_type)
        model = tf.Module()
        for name in (
            "_feature_extractor_for_proposal_features",
            "_first_stage_box_predictor_first_conv",
            "_first_stage_box_predictor",
        ):
            setattr(model, name, getattr(self, name))
        model._mask_rcnn_box_predictor = self._mask_rcnn_box_predictor.without_classes()
        return {"model": model}

    @property
    def feature_map_size(self) -> tuple[int, int]:
        """T and C: time steps and channels of a clip's feature map."""
        trunk = self._image_trunk().trunk
        steps = -(-self._feature_extractor.num_frames // trunk.temporal_stride)
        return steps, trunk.output_channels

    @property
    def temporal_stride(self) -> int:
        """Frames from one time step of the feature map to the next."""
        return self._image_trunk().trunk.temporal_stride

    def trunk_features(self, frames: tf.Tensor) -> tf.Tensor:
        """The trunk's feature map of stretches of video of any length.

        Args:
            frames: uint8 [B, n, H, W, 3], resized.

        Returns:
            float [B, n', h, w, C], with n' the n frames by the trunk's temporal stride, rounded up.
        """
        clips = self._feature_extractor.preprocess(tf.cast(frames, tf.float32))
        return tf.cast(self._image_trunk().trunk(clips, training=False), tf.float32)

    def _image_trunk(self):
        if isinstance(self._feature_extractor_for_proposal_features, str):  # not built yet
            self._feature_extractor_for_proposal_features = (
                self._feature_extractor.get_proposal_feature_extractor_model(
                    name=self.first_stage_feature_extractor_scope
                )
            )
        return self._feature_extractor_for_proposal_features

    def _extract_proposal_features(self, preprocessed_inputs):
        if isinstance(preprocessed_inputs, ClipFeatures):
            return preprocessed_inputs.feature_map, {}
        return self._image_trunk()(preprocessed_inputs, training=self._is_training), {}

    def _extract_rpn_feature_maps(self, preprocessed_inputs):
        """Proposals come from the middle frame, the second stage sees the whole clip.

        In place of the stock 4-D map, `rpn_features_to_crop` holds the feature map
        [B, t, h, w, C], so that the second stage gets it without state in between.
        """
        feature_map, self.endpoints = self._extract_proposal_features(preprocessed_inputs)
        # The region proposal network is float32 whatever the trunk computes in.
        middle = tf.cast(middle_of_time(feature_map), tf.float32)  # [B, h, w, C]
        rpn_features = self._first_stage_box_predictor_first_conv(middle)
        cells = tf.shape(middle)
        anchors = box_list_ops.concatenate(
            self._first_stage_anchor_generator.generate([(cells[1], cells[2])])
        )
        return [rpn_features], [feature_map], anchors, self._packed_shape(preprocessed_inputs)

    def _packed_shape(self, images):
        """int32 [4], of the packed clips: [B, H, W, 3 T]."""
        if isinstance(images, ClipFeatures):
            num_clips = tf.shape(images.feature_map)[:1]
            channels = [3 * self._feature_extractor.num_frames]
            return tf.concat([num_clips, images.image_size, channels], axis=0)
        shape = tf.shape(images)
        if images.dtype != tf.uint8:
            return shape
        num_frames = self._feature_extractor.num_frames
        return tf.stack([shape[0], shape[1] // num_frames, shape[2], 3 * num_frames])

    def _predict_second_stage(
        self,
        rpn_box_encodings,
        rpn_objectness_predictions_with_background,
        rpn_features_to_crop,
        anchors,
        image_shape,
        true_image_shapes,
        proposal_boxes=None,
    ):
        """As the base class; boxes that are given take the place of the proposals."""
        if proposal_boxes is None and not self._proposals_from_groundtruth:
            return super()._predict_second_stage(
                rpn_box_encodings,
                rpn_objectness_predictions_with_background,
                rpn_features_to_crop,
                anchors,
                image_shape,
                true_image_shapes,
            )
        if proposal_boxes is None:
            boxes, num_proposals = self._groundtruth_proposals()
        else:
            boxes, num_proposals = groundtruth_proposals.padded_boxes(
                proposal_boxes, self.max_num_proposals
            )
        prediction_dict = self._box_prediction(
            rpn_features_to_crop,
            groundtruth_proposals.to_padded_image(boxes, true_image_shapes, image_shape),
            image_shape,
            true_image_shapes,
        )
        return {**prediction_dict, "num_proposals": num_proposals}

    def _groundtruth_proposals(self):
        """The people of each clip, [B, R, 4] normalized by the true image, and their number [B]."""
        if not self.groundtruth_has_field(standard_fields.BoxListFields.boxes):
            raise ValueError(
                "This model takes the ground truth's boxes as proposals, but has no ground truth: "
                "call provide_groundtruth, or predict(..., proposal_boxes=boxes)."
            )
        boxes = self.groundtruth_lists(standard_fields.BoxListFields.boxes)
        weights = [None] * len(boxes)
        if self.groundtruth_has_field(standard_fields.BoxListFields.weights):
            weights = self.groundtruth_lists(standard_fields.BoxListFields.weights)
        people, counts = zip(
            *(
                groundtruth_proposals.distinct_boxes(*clip, self.max_num_proposals)
                for clip in zip(boxes, weights, strict=True)
            ),
            strict=True,
        )
        return tf.stack(people), tf.stack(counts)

    def _roi_pool(self, proposal_boxes_normalized: tf.Tensor, image_shape: tf.Tensor) -> RoiPool:
        """The stock crop and max pool of these boxes, for the heads (see `heads.roi_pooling`)."""

        def pool(feature_map: tf.Tensor) -> tf.Tensor:
            # In bfloat16, CropAndResize has no gradient anywhere and no kernel on GPUs.
            pooled = self._compute_second_stage_input_feature_maps(
                [tf.cast(feature_map, tf.float32)], proposal_boxes_normalized, image_shape
            )
            return tf.cast(pooled, feature_map.dtype)

        return pool

    def _box_prediction(
        self,
        rpn_features_to_crop,
        proposal_boxes_normalized,
        image_shape,
        true_image_shapes,
    ):
        """As the base class, with the action head in place of a per-region classifier."""
        predictions = self._mask_rcnn_box_predictor(
            rpn_features_to_crop,
            roi_pool=self._roi_pool(proposal_boxes_normalized, image_shape),
            training=self._is_training,
        )
        box_encodings = tf.squeeze(predictions[box_predictor.BOX_ENCODINGS], axis=1)
        class_logits = tf.squeeze(
            predictions[box_predictor.CLASS_PREDICTIONS_WITH_BACKGROUND], axis=1
        )
        proposal_boxes = ops.normalized_to_image_coordinates(
            proposal_boxes_normalized, image_shape, self._parallel_iterations
        )
        prediction_dict = {
            "refined_box_encodings": tf.cast(box_encodings, tf.float32),
            "class_predictions_with_background": tf.cast(class_logits, tf.float32),
            "proposal_boxes": proposal_boxes,
            "box_classifier_features": tf.cast(
                predictions["head_outputs"].class_features, tf.float32
            ),
            "proposal_boxes_normalized": proposal_boxes_normalized,
            "final_anchors": proposal_boxes_normalized,
        }
        if self._output_attention:
            attention = predictions["head_outputs"].stacked_attention_weights()
            prediction_dict[_ATTENTION] = tf.cast(attention, tf.float32)
        if self._output_key_embeddings:
            keys = predictions["head_outputs"].stacked_key_embeddings()
            prediction_dict[KEY_EMBEDDINGS] = tf.cast(keys, tf.float32)
        if self._return_raw_detections_during_predict:
            prediction_dict.update(
                self._raw_detections_and_feature_map_inds(
                    box_encodings, proposal_boxes, true_image_shapes
                )
            )
        return prediction_dict

    def _format_groundtruth_data(self, image_shapes):
        """As the base class, with all actions of a person on each of the person's rows.

        The stock training input can merge equal boxes (`merge_multiple_label_boxes`), the eval
        input cannot, since metrics want a row per box and action. Without this, the eval loss
        would count every action but one as wrong.
        """
        boxlists, classes, masks, weights = super()._format_groundtruth_data(image_shapes)
        classes = [
            merge_actions_of_equal_boxes(boxlist.get(), rows)
            for boxlist, rows in zip(boxlists, classes, strict=True)
        ]
        return boxlists, classes, masks, weights

    def _sample_box_classifier_minibatch_single_image(self, *args):
        """As the base class; a fixed number of samples is taken without rounding their boxes."""
        stock = faster_rcnn_meta_arch.FasterRCNNMetaArch
        function = stock._sample_box_classifier_minibatch_single_image
        # A private copy of the stock function: nobody else's names change.
        names = dict(function.__globals__)
        names["box_list_ops"] = types.SimpleNamespace(boolean_mask=static_sampling.boolean_mask)
        return types.FunctionType(function.__code__, names)(self, *args)

    def _get_refined_encodings_for_postitive_class(
        self, refined_box_encodings, flat_cls_targets_with_background, batch_size
    ):
        """As the base class: each proposal's box for its own class, zeros for the background.

        The stock code finds its place in one list of all proposals and classes, 72,900 entries for
        3 clips, 300 proposals and 80 classes.

        Args:
            refined_box_encodings: float [B R, K, 4].
            flat_cls_targets_with_background: float [B R, K + 1], one-hot.
            batch_size: B.

        Returns:
            float [B, R, 4].
        """
        encodings = tf.pad(refined_box_encodings, [[0, 0], [1, 0], [0, 0]])
        classes = tf.argmax(flat_cls_targets_with_background, axis=1)
        own = tf.gather(encodings, classes, batch_dims=1)
        return tf.reshape(own, [batch_size, self.max_num_proposals, self._box_coder.code_size])

    def _write_training_picture(self, images):
        """The first clips' middle frames with the ground truth's people, every n-th step."""
        step = tf.cast(self.training_step, tf.int64)
        boxes = self.groundtruth_lists(standard_fields.BoxListFields.boxes)[:_MOST_CLIPS_SHOWN]
        classes = self.groundtruth_lists(standard_fields.BoxListFields.classes)[:_MOST_CLIPS_SHOWN]

        def draw():
            clips = self.to_clips(images[: len(boxes)])
            middle = clip_packing.middle_frame_index(self._feature_extractor.num_frames)
            frames = tf.image.convert_image_dtype(
                (clips[:, middle] + 1.0) / 2.0, tf.uint8, saturate=True
            )  # [B, H, W, 3]
            return training_pictures.draw(frames, boxes, classes, self._picture_action_names)

        is_due = tf.equal(step % self._picture_every_n_steps, 0)
        nothing = tf.zeros([len(boxes), 1, panels.PANEL_WIDTH, 3], tf.uint8)
        pictures = tf.cond(is_due, draw, lambda: nothing)
        with tf.summary.record_if(is_due):
            tf.summary.image(
                "train_middle_frame_with_groundtruth", pictures, step, max_outputs=len(boxes)
            )

    @functools.cached_property
    def _picture_action_names(self) -> dict[int, str]:
        if not self._picture_label_map_path:
            return {}
        index = label_map_util.create_category_index_from_labelmap(self._picture_label_map_path)
        return {number: item["name"] for number, item in index.items()}


def merge_actions_of_equal_boxes(boxes: tf.Tensor, classes: tf.Tensor) -> tf.Tensor:
    """Gives each row the actions of all rows with the same box.

    Args:
        boxes: float [G, 4], any frame of coordinates.
        classes: float [G, K + 1], one-hot or k-hot.

    Returns:
        float [G, K + 1], k-hot.
    """
    equal = tf.reduce_all(tf.equal(boxes[:, tf.newaxis], boxes[tf.newaxis]), axis=-1)  # [G, G]
    return tf.minimum(tf.matmul(tf.cast(equal, classes.dtype), classes), 1.0)
