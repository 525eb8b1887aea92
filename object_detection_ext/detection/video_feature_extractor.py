# SPDX-License-Identifier: Apache-2.0
"""A 3-D trunk as a feature extractor of the stock Faster R-CNN (section 3.1).

Shapes: B clips, T frames, H W pixels, t h w cells of the feature map, C channels.
"""

from collections.abc import Callable

import tensorflow as tf
from object_detection.meta_architectures import faster_rcnn_meta_arch

from object_detection_ext.data import clip_packing
from object_detection_ext.trunks import pretrained


class _ImageTrunk(tf.keras.Model):
    """A trunk that takes clips as images (see clip_packing): to a feature map [B, t, h, w, C]."""

    def __init__(
        self,
        trunk: tf.keras.Model,
        to_clips: Callable,
        compiles: bool = False,
        name: str | None = None,
    ):
        super().__init__(name=name)
        self.trunk = trunk
        self._to_clips = to_clips
        self._compiled = tf.function(self._run_trunk, jit_compile=True) if compiles else None

    def _run_trunk(self, clips):
        return self.trunk(clips, training=False)

    def call(self, images, training=None):
        clips = self._to_clips(images)
        if self._compiled is not None and not training:
            return self._compiled(clips)
        return self.trunk(clips, training=training)


class VideoFeatureExtractor(faster_rcnn_meta_arch.FasterRCNNKerasFeatureExtractor):
    """Makes the feature map that proposals, queries and memory share."""

    def __init__(
        self,
        is_training: bool,
        first_stage_features_stride: int,
        batch_norm_trainable: bool,
        *,
        build_trunk: Callable[[], tf.keras.Model],
        tail: tf.keras.layers.Layer | None,
        num_frames: int,
        compiles: bool = False,
    ):
        """Creates the feature extractor.

        Args:
            is_training: as in the base class.
            first_stage_features_stride: input pixels per cell of the feature map.
            batch_norm_trainable: as in the base class; the trunk was built with the same.
            build_trunk: makes the trunk, from clips [B, T, H, W, 3] in [-1, 1] to a feature map
                [B, t, h, w, C]. Called once, when the model is first applied.
            tail: the trunk's left-out layers, if the head uses them: they are restored with it.
            num_frames: T.
            compiles: whether XLA compiles the trunk alone, once for each size of its input.
                (In training the whole step is compiled.)
        """
        super().__init__(is_training, first_stage_features_stride, batch_norm_trainable)
        self._build_trunk = build_trunk
        self._tail = tail
        self.num_frames = num_frames
        self._compiles = compiles
        # The stock `fine_tune_checkpoint_type: 'classification'` restores into this.
        self.classification_backbone: pretrained.PretrainedVariables | None = None

    def preprocess(self, resized_inputs: tf.Tensor) -> tf.Tensor:
        """Scales pixels from [0, 255] to [-1, 1], as the published I3D takes them.

        Args:
            resized_inputs: packed clips [B, H, W, 3 T], float.
        """
        return resized_inputs * (2.0 / 255.0) - 1.0

    def to_clips(self, images: tf.Tensor) -> tf.Tensor:
        """What the model is given, as clips [B, T, H, W, 3], float in [-1, 1].

        Args:
            images: packed clips [B, H, W, 3 T], float, as `preprocess` gives them; or, as the input
                pipeline hands them over, stacked clips [B, T H, W, 3], uint8.
        """
        if images.dtype != tf.uint8:
            return clip_packing.unpack_clips(images, self.num_frames)
        clips = clip_packing.unstack_frames(images, self.num_frames)
        return self.preprocess(tf.cast(clips, tf.float32))

    def get_proposal_feature_extractor_model(self, name: str | None = None) -> tf.keras.Model:
        """The trunk, from what `to_clips` takes to a feature map [B, t, h, w, C]."""
        trunk = self._build_trunk()
        tails = [] if self._tail is None else [self._tail]
        self.classification_backbone = pretrained.PretrainedVariables(trunk, *tails)
        return _ImageTrunk(trunk, self.to_clips, self._compiles, name=name)

    def get_box_classifier_feature_extractor_model(self, name: str | None = None):
        """Nothing: the action head stands in the box predictor, where it also sees the clip."""
        region = tf.keras.Input([None, None, None])
        return tf.keras.Model(region, region, name=name)
