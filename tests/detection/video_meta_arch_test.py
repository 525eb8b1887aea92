# SPDX-License-Identifier: Apache-2.0
"""The meta-architecture: properties of losses, proposals, detections and attention.

Everything runs eagerly: tracing a training step takes half a minute, running it a second.

Shapes: B clips, T frames, H W pixels, t h w cells, R proposals, K classes, N detections, L layers
and M heads of Tx units.
"""

import numpy as np
import pytest
import tensorflow as tf

from object_detection_ext import registration
from object_detection_ext.data import clip_packing
from object_detection_ext.detection import video_meta_arch
from object_detection_ext.visualization import panels
from tests import tiny_pipeline

registration.register()

_ONE_PERSON = ([[0.1, 0.1, 0.7, 0.5]], [[1.0, 0.0, 1.0]])
_NOBODY = (np.zeros([0, 4]), np.zeros([0, 3]))
# All 64 anchors in the minibatch: no random choice of anchors.
_ALL_ANCHORS = "model { faster_rcnn { first_stage_minibatch_size: 64 } }"
_ATTENTION = (
    "[object_detection_ext.protos.video_action_transformer] "
    "{ outputs { attention: true key_embeddings: true } tx_head { num_layers: 2 } }"
)
_LOSSES = {
    "Loss/RPNLoss/localization_loss",
    "Loss/RPNLoss/objectness_loss",
    "Loss/BoxClassifierLoss/localization_loss",
    "Loss/BoxClassifierLoss/classification_loss",
}


@pytest.fixture(scope="module")
def trained_mode():
    """A model as in training; used eagerly."""
    return tiny_pipeline.build_model(tiny_pipeline.make_pipeline(), is_training=True)


@pytest.fixture(scope="module")
def inference():
    """A model that detects, with attention."""
    pipeline = tiny_pipeline.make_pipeline(_ALL_ANCHORS + _ATTENTION)
    return tiny_pipeline.build_model(pipeline, is_training=False)


def _clips(batch: int = 2, seed: int = 1) -> tf.Tensor:
    """Packed clips [B, H, W, 3 T] of noise, pixels 0 to 255."""
    shape = [batch, tiny_pipeline.SIZE, tiny_pipeline.SIZE, 3 * tiny_pipeline.NUM_FRAMES]
    return tf.constant(np.random.default_rng(seed).uniform(0, 255, shape), tf.float32)


def _provide(model, *people, weights=None) -> None:
    """Gives a model the ground truth of each clip: (boxes [G, 4], classes [G, K])."""
    boxes, classes = (
        [tf.constant(part, tf.float32) for part in parts] for parts in zip(*people, strict=True)
    )
    model.provide_groundtruth(
        groundtruth_boxes_list=boxes,
        groundtruth_classes_list=classes,
        groundtruth_weights_list=weights or [tf.ones(len(of_clip)) for of_clip in boxes],
    )


def _losses(model, *people, weights=None, clips=None) -> dict[str, float]:
    _provide(model, *people, weights=weights)
    preprocessed, shapes = model.preprocess(_clips(len(people)) if clips is None else clips)
    losses = model.loss(model.predict(preprocessed, shapes), shapes)
    return {name: float(value) for name, value in losses.items()}


def _detect(model, clips):
    preprocessed, shapes = model.preprocess(clips)
    predictions = model.predict(preprocessed, shapes)
    return predictions, model.postprocess(predictions, shapes)


@pytest.mark.parametrize(
    "people",
    [(_ONE_PERSON, _ONE_PERSON), (_ONE_PERSON, _NOBODY), (_NOBODY, _NOBODY)],
    ids=["people", "one empty", "all empty"],
)
def test_training_losses_are_finite(trained_mode, people):
    losses = _losses(trained_mode, *people)
    assert losses.keys() == _LOSSES
    assert all(np.isfinite(value) and value >= 0 for value in losses.values()), losses
    assert losses["Loss/RPNLoss/objectness_loss"] > 0
    assert losses["Loss/BoxClassifierLoss/classification_loss"] > 0
    has_people = any(len(boxes) for boxes, _ in people)
    assert (losses["Loss/RPNLoss/localization_loss"] > 0) == has_people


def test_stacked_bytes_and_preprocessed_clips_are_the_same_input(inference):
    """What the input pipeline gives, and what `preprocess` gives to everyone else."""
    clips = tf.cast(tf.cast(_clips(), tf.uint8), tf.float32)
    frames = clip_packing.unpack_clips(tf.cast(clips, tf.uint8), tiny_pipeline.NUM_FRAMES)
    stacked = tf.stack([clip_packing.stack_frames(clip) for clip in frames])
    preprocessed, shapes = inference.preprocess(clips)
    expected = inference.predict(preprocessed, shapes)
    actual = inference.predict(stacked, shapes)
    assert stacked.dtype == tf.uint8 and actual.keys() == expected.keys()
    for key in ("image_shape", "proposal_boxes", "class_predictions_with_background"):
        np.testing.assert_allclose(actual[key], expected[key], rtol=1e-4, atol=1e-5, err_msg=key)


def test_padding_rows_of_the_groundtruth_change_no_loss(inference):
    boxes, classes = (np.asarray(part) for part in _ONE_PERSON)
    padded = (np.pad(boxes, [(0, 4), (0, 0)]), np.pad(classes, [(0, 4), (0, 0)]))
    nobody = (np.zeros([5, 4]), np.zeros([5, 3]))
    weights = [tf.constant([1.0, 0, 0, 0, 0]), tf.zeros([5])]
    expected = _losses(inference, _ONE_PERSON, _NOBODY)
    actual = _losses(inference, padded, nobody, weights=weights)
    assert expected["Loss/RPNLoss/localization_loss"] > 0
    assert actual == pytest.approx(expected, rel=1e-5)


def test_eval_loss_is_the_same_for_merged_and_for_single_action_rows(inference):
    # Boxes of proposals, so that the second stage has something to classify.
    box, other = _detect(inference, _clips(1))[0]["proposal_boxes_normalized"][0, :2].numpy()
    merged = ([box, other], [[1, 0, 1], [0, 1, 0]])
    single = ([box, other, box], [[1, 0, 0], [0, 1, 0], [0, 0, 1]])
    expected = _losses(inference, merged)
    assert _losses(inference, single) == pytest.approx(expected, rel=1e-5)
    # The comparison is able to notice a missing action.
    key = "Loss/BoxClassifierLoss/classification_loss"
    without_one = _losses(inference, ([box, other], [[1, 0, 0], [0, 1, 0]]))
    assert without_one[key] != pytest.approx(expected[key], rel=1e-3)


def test_merge_actions_of_equal_boxes():
    a, b = [0.0, 0.0, 0.5, 0.5], [0.0, 0.0, 0.5, 0.6]
    rows = [[0, 1, 0, 0], [0, 0, 0, 1], [0, 0, 1, 0], [0, 1, 0, 0]]
    merged = video_meta_arch.merge_actions_of_equal_boxes(
        tf.constant([a, b, a, a]), tf.constant(rows, tf.float32)
    )
    np.testing.assert_array_equal(merged, [[0, 1, 1, 0], [0, 0, 0, 1], [0, 1, 1, 0], [0, 1, 1, 0]])
    empty = video_meta_arch.merge_actions_of_equal_boxes(tf.zeros([0, 4]), tf.zeros([0, 4]))
    assert empty.shape == [0, 4]


def test_every_trainable_variable_gets_a_gradient(trained_mode):
    _provide(trained_mode, _ONE_PERSON, _ONE_PERSON)
    preprocessed, shapes = trained_mode.preprocess(_clips())
    with tf.GradientTape() as tape:
        losses = trained_mode.loss(trained_mode.predict(preprocessed, shapes), shapes)
        total = tf.add_n(list(losses.values()))
    variables = trained_mode.trainable_variables
    gradients = tape.gradient(total, variables)
    assert variables
    assert [v.name for v, g in zip(variables, gradients, strict=True) if g is None] == []
    moved = {v.name for v, g in zip(variables, gradients, strict=True) if float(tf.norm(g)) > 0}
    for part in (
        "Conv3d_1a_7x7/conv_3d/w",  # the trunk's first layer, through everything
        "RPNConv",
        "layer_0_head_0/query/kernel",
        "layer_0_head_1/value/kernel",
        "reduce_1x1/kernel",
        "space_hidden/kernel",
        "ClassPredictor",
        "BoxEncodingPredictor",
    ):
        assert any(part in name for name in moved), f"{part} not in {sorted(moved)}"


def test_detections_have_the_stock_shapes_and_ranges(inference):
    _, detections = _detect(inference, _clips())
    assert detections["detection_boxes"].shape == [2, 7, 4]
    assert detections["detection_scores"].shape == [2, 7]
    assert detections["detection_classes"].shape == [2, 7]
    boxes, scores = detections["detection_boxes"].numpy(), detections["detection_scores"].numpy()
    assert (detections["num_detections"].numpy() > 0).all()
    assert (boxes >= 0).all() and (boxes <= 1).all() and (boxes[..., 2:] >= boxes[..., :2]).all()
    assert (scores >= 0).all() and (scores <= 1).all() and (np.diff(scores) <= 0).all()
    classes = detections["detection_classes"].numpy()
    assert set(np.unique(classes)) <= {0, 1, 2}
    assert detections["detection_attention"].shape == [2, 7, 2, 2, 1, 4, 4]
    assert detections["key_embeddings"].shape == [2, 2, 2, 1, 4, 4, 16]


def test_attention_is_only_given_when_asked_for():
    model = tiny_pipeline.build_model(tiny_pipeline.make_pipeline(), is_training=False)
    _, detections = _detect(model, _clips(1))
    assert video_meta_arch.DETECTION_ATTENTION not in detections
    assert video_meta_arch.KEY_EMBEDDINGS not in detections


def test_a_batch_gives_what_its_clips_give_alone(inference):
    clips = _clips(2)
    _, together = _detect(inference, clips)
    for index in range(2):
        _, alone = _detect(inference, clips[index : index + 1])
        for key in ("detection_boxes", "detection_scores", "detection_attention", "key_embeddings"):
            np.testing.assert_allclose(together[key][index], alone[key][0], atol=1e-5, err_msg=key)
        np.testing.assert_array_equal(
            together["detection_classes"][index], alone["detection_classes"][0]
        )


def test_attention_sums_to_one_and_is_the_detected_proposals_own(inference):
    predictions, detections = _detect(inference, _clips())
    attention = detections["detection_attention"].numpy()
    np.testing.assert_allclose(attention.sum(axis=(-3, -2, -1)), 1.0, atol=1e-5)
    # Which proposal a detection comes from shows in its scores, too.
    logits = predictions["class_predictions_with_background"].numpy().reshape(2, 6, 4)
    of_proposal = predictions["proposal_attention"].numpy()
    seen = set()
    for clip in range(2):
        for found in range(int(detections["num_detections"][clip])):
            scores = detections["detection_multiclass_scores"][clip, found].numpy()
            distance = np.abs(1 / (1 + np.exp(-logits[clip])) - scores).max(axis=1)
            (proposal,) = np.flatnonzero(distance < 1e-6)
            np.testing.assert_array_equal(attention[clip, found], of_proposal[clip, proposal])
            seen.add((clip, proposal))
    assert len(seen) > 2
    (first, second, *_) = sorted(seen)
    assert np.abs(of_proposal[first] - of_proposal[second]).max() > 1e-6


def test_key_embeddings_are_the_units_own_keys_of_the_clip(inference):
    predictions, detections = _detect(inference, _clips())
    head = inference._mask_rcnn_box_predictor.action_head
    memory = head.embed_location(predictions["rpn_features_to_crop"][0])  # [B, t, h, w, C]
    for layer, head_number in np.ndindex(2, 2):
        keys = detections["key_embeddings"][:, layer, head_number]
        expected = head.units[layer][head_number].key_projection(memory)
        np.testing.assert_allclose(keys, expected, rtol=1e-4, atol=1e-5)
    assert np.abs(keys - detections["key_embeddings"][:, 0, 0]).max() > 0.1


def _model_with_transparent_trunk(num_frames: int):
    """A model whose feature map [B, T, 4, 4, 3] is the clip itself, 16 times smaller."""
    override = (
        "[object_detection_ext.protos.video_action_transformer] "
        f"{{ clip {{ num_frames: {num_frames} }} tx_head {{ query_preprocessor: LOW_RES }} }}"
    )
    model = tiny_pipeline.build_model(tiny_pipeline.make_pipeline(override), is_training=False)

    def trunk(images, training):
        del training
        clips = clip_packing.unpack_clips(images, num_frames)
        return tf.nn.avg_pool3d(clips, [1, 16, 16], [1, 16, 16], "VALID")

    model._feature_extractor_for_proposal_features = trunk
    return model


@pytest.mark.parametrize("num_frames", [4, 5])
def test_proposals_see_the_raw_middle_frame_only(num_frames):
    model = _model_with_transparent_trunk(num_frames)
    clip = np.random.default_rng(0).uniform(0, 255, [1, 64, 64, num_frames, 3]).astype(np.float32)
    keys = (
        "rpn_box_encodings",
        "rpn_objectness_predictions_with_background",
        "proposal_boxes_normalized",
    )

    def predict(frames):
        packed = tf.reshape(frames, [1, 64, 64, 3 * num_frames])
        return _detect(model, packed)[0]

    before = predict(clip)
    # 3 channels: without the location's.
    assert model._first_stage_box_predictor_first_conv.trainable_variables[0].shape[2] == 3
    assert before["rpn_features_to_crop"][0].shape == [1, num_frames, 4, 4, 3]
    for frame in range(num_frames):
        changed = clip.copy()
        changed[:, :, :, frame] = 255 - changed[:, :, :, frame]
        after = predict(changed)
        for key in keys[:2]:
            is_equal = np.array_equal(before[key], after[key])
            assert is_equal == (frame != num_frames // 2), f"{key}, frame {frame}"
        if frame != num_frames // 2:
            np.testing.assert_array_equal(before[keys[2]], after[keys[2]])
        # The whole clip is the memory, so actions depend on every frame.
        logits = "class_predictions_with_background"
        assert np.abs(before[logits] - after[logits]).max() > 1e-6, f"frame {frame}"


def test_heads_pool_the_proposals_with_the_stock_crop():
    model = _model_with_transparent_trunk(4)
    feature_map = np.zeros([1, 4, 4, 1], np.float32)
    feature_map[0, :, :, 0] = np.arange(4)  # the column
    boxes = tf.constant([[[0.0, 0.0, 1.0, 0.0], [0.0, 1.0, 1.0, 1.0]]])  # left and right edge
    roi_pool = model._roi_pool(boxes, tf.constant([1, 64, 64, 12]))
    crops = roi_pool(tf.constant(feature_map))
    assert crops.shape == [2, 7, 7, 1]
    np.testing.assert_allclose(crops[0], 0.0)
    np.testing.assert_allclose(crops[1], 3.0)


def test_clips_of_another_length_are_refused_with_the_numbers(inference):
    with pytest.raises(ValueError, match="4 frames has 12 channels, but the image has 15"):
        inference.predict(tf.zeros([1, 64, 64, 15]), tf.constant([[64, 64, 15]]))


def test_training_pictures_are_middle_frames_with_people_and_actions(tmp_path):
    override = (
        "[object_detection_ext.protos.video_action_transformer] "
        "{ summaries { training_picture_every_n_steps: 5 } }"
    )
    label_map = tiny_pipeline.write_label_map(tmp_path / "label_map.pbtxt")
    pipeline = tiny_pipeline.make_pipeline(override, label_map=label_map)
    model = tiny_pipeline.build_model(pipeline, is_training=True)
    levels = np.repeat([0, 50, 100, 150], 3).astype(np.float32)  # frame k is 50 k
    preprocessed, shapes = model.preprocess(tf.ones([2, 64, 64, 12]) * levels)
    nobody = (np.zeros([2, 4], np.float32), np.zeros([2, 3], np.float32))  # padding
    boxes, classes = zip(_ONE_PERSON, nobody, strict=True)
    with tf.summary.create_file_writer(str(tmp_path)).as_default():
        for step in (9, 10):
            model.provide_groundtruth(
                groundtruth_boxes_list=[tf.constant(rows, tf.float32) for rows in boxes],
                groundtruth_classes_list=[tf.constant(rows, tf.float32) for rows in classes],
                training_step=step,
            )
            model.predict(preprocessed, shapes)
    pictures = tiny_pipeline.read_events(tmp_path).pictures
    (first, second) = pictures["train_middle_frame_with_groundtruth"]
    assert first[0] == second[0] == 10
    person, nobody = (
        panels.Panel("keyframe, ground truth", np.full([64, 64, 3], 100, np.uint8), people, text)
        for people, text in (
            (_numbered(*_ONE_PERSON), ""),
            ([], "nobody is annotated"),
        )
    )
    expected = panels.stack_pictures([panels.draw_panels([person]), panels.draw_panels([nobody])])
    np.testing.assert_array_equal(first[1], expected[0])
    np.testing.assert_array_equal(second[1], expected[1])


def _numbered(boxes, classes):
    """The one person of these rows, as panels want it."""
    ids = np.nonzero(classes)[1] + 1
    actions = [panels.Action(tiny_pipeline.ACTIONS[number]) for number in ids]
    return [panels.NumberedPerson(np.float32(boxes[0]), 1, actions)]


def test_a_training_loop_of_ones_own_need_not_tell_the_step(trained_mode):
    # As in the stock eager notebook: provide_groundtruth without training_step.
    assert trained_mode._training_step is None
    assert trained_mode._picture_every_n_steps > 0
    assert np.isfinite(sum(_losses(trained_mode, _ONE_PERSON).values()))


def test_one_more_prediction_stage_is_refused(inference):
    with pytest.raises(ValueError, match="no third stage"):
        inference._mask_rcnn_box_predictor([None], roi_pool=None, prediction_stage=3)


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    ["tx_head { }", "tx_i3d_head { } proposals { source: GROUND_TRUTH }"],
    ids=["tx", "tx+i3d, groundtruth"],
)
def test_forward_and_loss_compile_with_the_stock_static_shapes(options):
    override = f"[object_detection_ext.protos.video_action_transformer] {{ {options} }}"
    override += """
      model { faster_rcnn {
        use_static_shapes: true use_static_shapes_for_eval: true
        use_matmul_crop_and_resize: true use_static_balanced_label_sampler: true
        use_matmul_gather_in_matcher: true
        second_stage_post_processing { batch_non_max_suppression { use_static_shapes: true } }
      } }
    """
    pipeline = tiny_pipeline.make_pipeline(override)
    model = tiny_pipeline.build_model(pipeline, is_training=True)
    boxes, classes = (tf.constant(part, tf.float32) for part in _ONE_PERSON)
    padded = [tf.pad(part, [[0, 3], [0, 0]]) for part in (boxes, classes)]
    weights = tf.constant([1.0, 0, 0, 0])

    @tf.function(jit_compile=True)
    def losses_of(images):
        model.provide_groundtruth(
            groundtruth_boxes_list=[padded[0]] * 2,
            groundtruth_classes_list=[padded[1]] * 2,
            groundtruth_weights_list=[weights] * 2,
        )
        shapes = tf.constant([[64, 64, 12]] * 2)
        with tf.GradientTape() as tape:
            losses = model.loss(model.predict(images, shapes), shapes)
            total = tf.add_n(list(losses.values()))
        return losses, tape.gradient(total, model.trainable_variables)

    images, shapes = model.preprocess(_clips())
    _provide(model, _ONE_PERSON, _ONE_PERSON)
    model.predict(images, shapes)  # makes the variables, which XLA cannot
    losses, gradients = losses_of(images)
    assert losses.keys() == _LOSSES
    assert all(np.isfinite(float(value)) for value in losses.values())
    assert sum(float(tf.norm(gradient)) for gradient in gradients) > 0
