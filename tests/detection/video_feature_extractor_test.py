# SPDX-License-Identifier: Apache-2.0
"""The trunk as a stock feature extractor: pixels scaled, clips unpacked, the trunk built once."""

import numpy as np
import pytest
import tensorflow as tf

from object_detection_ext.data import clip_packing
from object_detection_ext.detection import video_feature_extractor


class _RecordingTrunk(tf.keras.Model):
    """Returns the clip and remembers how it was called."""

    def __init__(self, path="stage/w"):
        super().__init__()
        self._by_path = {path: tf.Variable(1.0)}

    def call(self, clips, training=None):
        self.last_call = (clips, training)
        return clips

    def variables_by_path(self):
        return dict(self._by_path)


def _make_extractor(tail=None):
    return video_feature_extractor.VideoFeatureExtractor(
        is_training=True,
        first_stage_features_stride=16,
        batch_norm_trainable=False,
        build_trunk=_RecordingTrunk,
        tail=tail,
        num_frames=3,
    )


@pytest.fixture
def extractor():
    return _make_extractor()


def test_pixels_are_scaled_as_the_published_trunk_takes_them(extractor):
    np.testing.assert_allclose(
        extractor.preprocess(tf.constant([0.0, 127.5, 255.0])), [-1.0, 0.0, 1.0], atol=1e-6
    )


@pytest.mark.parametrize("training", [True, False])
def test_trunk_gets_frames_in_order_and_the_mode(extractor, training):
    clip = tf.random.uniform([3, 8, 6, 3])
    model = extractor.get_proposal_feature_extractor_model()
    features = model(clip_packing.pack_clip(clip)[tf.newaxis], training=training)
    np.testing.assert_array_equal(features[0], clip)
    assert model.trunk.last_call[1] is training


def test_stacked_bytes_are_scaled_on_the_way_into_the_trunk(extractor):
    clips = np.random.default_rng(0).integers(0, 256, (2, 3, 8, 6, 3), np.uint8)
    stacked = tf.stack([clip_packing.stack_frames(tf.constant(clip)) for clip in clips])
    model = extractor.get_proposal_feature_extractor_model()
    expected = extractor.preprocess(tf.cast(clips, tf.float32))
    np.testing.assert_array_equal(model(stacked), expected)


def test_classification_checkpoints_restore_into_the_trunk(extractor):
    assert extractor.classification_backbone is None
    model = extractor.get_proposal_feature_extractor_model()
    assert dict(extractor.classification_backbone.by_path) == model.trunk.variables_by_path()
    # The second stage's part is empty: the head stands in the box predictor.
    assert extractor.get_box_classifier_feature_extractor_model().variables == []


def test_classification_checkpoints_restore_into_the_tail_too():
    tail = _RecordingTrunk("last_stage/w")
    extractor = _make_extractor(tail)
    trunk = extractor.get_proposal_feature_extractor_model().trunk
    assert dict(extractor.classification_backbone.by_path) == {
        **trunk.variables_by_path(),
        **tail.variables_by_path(),
    }
