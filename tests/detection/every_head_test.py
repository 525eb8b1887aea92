# SPDX-License-Identifier: Apache-2.0
"""What holds for the whole detector with each head, trunk and source of proposals.

Everything runs eagerly: tracing a training step takes half a minute, running it a second.

Shapes: B clips, G boxes, R proposals, K classes, N detections.
"""

import tempfile

import numpy as np
import pytest
import tensorflow as tf

from object_detection_ext import registration
from tests import tiny_pipeline

registration.register()

_R = 6
# All 64 anchors in the minibatch: no random choice of anchors.
_BASE = "model { faster_rcnn { first_stage_minibatch_size: 64 } } "
_MODELS = {
    "tx high": "tx_head { query_preprocessor: HIGH_RES }",
    "tx low": "tx_head { query_preprocessor: LOW_RES }",
    "i3d": "i3d_head { }",
    "tx+i3d": "tx_i3d_head { tx_head { num_layers: 1 feature_size: 16 ffn_size: 16 } }",
    "tx gt": "proposals { source: GROUND_TRUTH }",
    "i3d gt": "i3d_head { } proposals { source: GROUND_TRUTH }",
}
_TRUNKS = ("r3d50", "r3d50_non_local", "s3dg")
_GT_MODELS = [name for name in _MODELS if name.endswith(" gt")]
_CLASS_SPECIFIC = (
    "model { faster_rcnn { second_stage_box_predictor { mask_rcnn_box_predictor "
    "{ share_box_across_classes: false } } } } "
)
_TWO_PEOPLE = np.float32([[0.1, 0.1, 0.7, 0.5], [0.3, 0.5, 0.9, 0.9]])
_ACTIONS = np.float32([[1, 0, 1], [0, 1, 0]])


def _pipeline(options: str, more: str = ""):
    extension = f"[object_detection_ext.protos.video_action_transformer] {{ {options} }}"
    return tiny_pipeline.make_pipeline(_BASE + more + extension)


def _clips(batch: int = 2, seed: int = 1, num_frames: int = tiny_pipeline.NUM_FRAMES) -> tf.Tensor:
    """Packed clips [B, H, W, 3 T] of noise, pixels 0 to 255."""
    shape = [batch, tiny_pipeline.SIZE, tiny_pipeline.SIZE, 3 * num_frames]
    return tf.constant(np.random.default_rng(seed).uniform(0, 255, shape), tf.float32)


def _fill(model) -> None:
    """Gives every variable numbers that depend on nothing but its place in the model."""
    for place, variable in enumerate(model.variables):
        name = variable.name
        if "moving_variance" in name or name.endswith("gamma:0"):
            variable.assign(tf.ones_like(variable))
        elif "moving_mean" in name or "beta" in name or "bias" in name:
            variable.assign(tf.zeros_like(variable))
        else:
            rng = np.random.default_rng(place)
            fan_in = int(np.prod(variable.shape[:-1]))
            # More than at a start of training, so that no loss is that of chance.
            gain = 3.0 if name.endswith("/w:0") else 30.0
            variable.assign(rng.normal(0, np.sqrt(gain / fan_in), variable.shape))


def _build(pipeline, *, is_training: bool = False):
    model = tiny_pipeline.build_model(pipeline, is_training=is_training)
    model.provide_groundtruth(
        groundtruth_boxes_list=[tf.constant(_TWO_PEOPLE)],
        groundtruth_classes_list=[tf.constant(_ACTIONS)],
    )
    images, shapes = model.preprocess(_clips(1, num_frames=model.feature_extractor.num_frames))
    model.predict(images, shapes)  # makes the variables
    _fill(model)
    return model


@pytest.fixture(scope="module")
def models():
    """Each of the models, for inference; built when it is first asked for."""
    built = {}

    def get(name: str):
        if name not in built:
            built[name] = _build(_pipeline(_MODELS[name]))
        return built[name]

    return get


def _predict(model, clips, *, boxes=None, people=None, actions=None, weights=None):
    """Predictions and detections; with `boxes` [B, G, 4] in place of proposals."""
    if people is not None:
        model.provide_groundtruth(
            groundtruth_boxes_list=[
                tf.reshape(tf.constant(p, tf.float32), [-1, 4]) for p in people
            ],
            groundtruth_classes_list=[
                tf.reshape(tf.constant(a, tf.float32), [-1, 3]) for a in actions
            ],
            groundtruth_weights_list=[
                tf.constant(of_clip, tf.float32)
                for of_clip in (weights or [np.ones(len(of_clip)) for of_clip in people])
            ],
        )
    images, shapes = model.preprocess(clips)
    given = {} if boxes is None else {"proposal_boxes": tf.constant(boxes, tf.float32)}
    predictions = model.predict(images, shapes, **given)
    return predictions, model.postprocess(predictions, shapes), shapes


def _losses(model, clips, **groundtruth) -> dict[str, float]:
    predictions, _, shapes = _predict(model, clips, **groundtruth)
    return {
        name.removeprefix("Loss/"): float(value)
        for name, value in model.loss(predictions, shapes).items()
    }


def _class_logits(predictions, batch: int) -> np.ndarray:
    return predictions["class_predictions_with_background"].numpy().reshape(batch, _R, -1)


# RPN localization and objectness, then the second stage's localization and classification.
_GOLDEN = {
    "tx high": (2.547863, 22.09009, 8.391222, 13.04477),
    "tx low": (3.890117, 36.5416, 12.40833, 7.390589),
    "i3d": (2.373465, 15.9654, 34.44032, 22.90542),
    "tx+i3d": (2.289957, 22.6413, 57.68948, 5.151501),
    "tx gt": (2.547863, 22.09009, 16.83036, 5.467574),
    "i3d gt": (2.373465, 15.9654, 69.03945, 20.07088),
}


@pytest.mark.parametrize("name", _MODELS)
def test_seeded_losses_stay_what_they_are(models, name):
    groundtruth = {
        "people": [_TWO_PEOPLE, _TWO_PEOPLE[:1]],
        "actions": [_ACTIONS, _ACTIONS[:1]],
    }
    if name not in _GT_MODELS:
        # Two proposals that are nearly right and one of nobody; noise proposes no people.
        nobody = [[0.7, 0.0, 1.0, 0.2]]
        boxes = np.concatenate([_TWO_PEOPLE + np.float32([0.03, -0.02, 0.05, 0.04]), nobody])
        groundtruth["boxes"] = np.float32([boxes, boxes])
    losses = _losses(models(name), _clips(2), **groundtruth)
    assert tuple(losses.values()) == pytest.approx(_GOLDEN[name], rel=1e-4)


@pytest.mark.parametrize("name", _MODELS)
def test_a_batch_gives_what_its_clips_give_alone(models, name):
    clips, model = _clips(2), models(name)
    people = [_TWO_PEOPLE, _TWO_PEOPLE[1:]]
    actions = [_ACTIONS, _ACTIONS[1:]]
    predictions, together, _ = _predict(model, clips, people=people, actions=actions)
    together_logits = _class_logits(predictions, 2)
    for clip in range(2):
        one = slice(clip, clip + 1)
        predictions, alone, _ = _predict(
            model, clips[one], people=people[one], actions=actions[one]
        )
        np.testing.assert_allclose(
            together_logits[clip], _class_logits(predictions, 1)[0], rtol=1e-3, atol=1e-4
        )
        for key in ("detection_boxes", "detection_scores", "num_detections"):
            np.testing.assert_allclose(together[key][clip], alone[key][0], atol=1e-5, err_msg=key)


@pytest.mark.parametrize("name", _MODELS)
def test_permuted_boxes_permute_the_predictions(models, name):
    boxes = np.random.default_rng(0).uniform(0, 0.5, [1, _R, 4]).astype(np.float32)
    boxes[..., 2:] += boxes[..., :2] + 0.1
    order = [3, 1, 5, 0, 4, 2]
    expected, _, _ = _predict(models(name), _clips(1), boxes=boxes)
    actual, _, _ = _predict(models(name), _clips(1), boxes=boxes[:, order])
    logits = _class_logits(expected, 1)[0]
    assert np.abs(logits[0] - logits[1]).max() > 1e-4
    np.testing.assert_allclose(_class_logits(actual, 1)[0], logits[order], rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(
        actual["refined_box_encodings"].numpy(),
        expected["refined_box_encodings"].numpy()[order],
        rtol=1e-3,
        atol=1e-5,
    )


@pytest.mark.parametrize("name", _MODELS)
def test_padding_of_the_given_boxes_changes_nothing(models, name):
    padded = np.concatenate([_TWO_PEOPLE, np.zeros([3, 4], np.float32)])
    _, expected, _ = _predict(models(name), _clips(1), boxes=_TWO_PEOPLE[np.newaxis])
    _, actual, _ = _predict(models(name), _clips(1), boxes=padded[np.newaxis])
    assert int(expected["num_detections"][0]) > 0
    for key in ("num_detections", "detection_boxes", "detection_scores"):
        np.testing.assert_allclose(actual[key], expected[key], atol=1e-6, err_msg=key)
    # Every detection comes from one of the two boxes.
    found = int(expected["num_detections"][0])
    assert set(expected["detection_anchor_indices"].numpy()[0, :found].astype(int)) <= {0, 1}


@pytest.mark.parametrize("name", _GT_MODELS)
def test_groundtruth_and_given_boxes_are_the_same_proposals(models, name):
    model = models(name)
    from_truth, truth, _ = _predict(model, _clips(1), people=[_TWO_PEOPLE], actions=[_ACTIONS])
    from_input, given, _ = _predict(model, _clips(1), boxes=_TWO_PEOPLE[np.newaxis])
    np.testing.assert_array_equal(from_truth["num_proposals"], [2])
    np.testing.assert_allclose(
        from_truth["proposal_boxes_normalized"][0, :2], _TWO_PEOPLE, atol=1e-6
    )
    for key in ("num_proposals", "proposal_boxes", "class_predictions_with_background"):
        np.testing.assert_allclose(from_truth[key], from_input[key], atol=1e-5, err_msg=key)
    np.testing.assert_allclose(truth["detection_scores"], given["detection_scores"], atol=1e-6)


@pytest.mark.parametrize("name", _GT_MODELS)
def test_padded_and_repeated_groundtruth_change_no_loss(models, name):
    model, clips = models(name), _clips(2)
    expected = _losses(
        model, clips, people=[_TWO_PEOPLE, []], actions=[_ACTIONS, []], weights=[[1, 1], []]
    )
    box, other = _TWO_PEOPLE
    rows = [[box, other, box, 0 * box, box], [0 * box] * 5]
    # As the stock eval input has them: a row for each action; then padding.
    actions = [[[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0], [0, 0, 0]], np.zeros([5, 3])]
    weights = [[1, 1, 1, 0, 0], [0] * 5]
    actual = _losses(model, clips, people=rows, actions=actions, weights=weights)
    assert expected["BoxClassifierLoss/classification_loss"] > 0
    assert actual == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", _GT_MODELS)
@pytest.mark.parametrize("is_training", [True, False])
def test_nobody_in_the_groundtruth(models, name, is_training):
    model = _build(_pipeline(_MODELS[name]), is_training=True) if is_training else models(name)
    nobody = {"people": [[], []], "actions": [[], []]}
    losses = _losses(model, _clips(2), **nobody)
    assert all(np.isfinite(value) and value >= 0 for value in losses.values()), losses
    assert losses["BoxClassifierLoss/classification_loss"] == 0
    assert losses["RPNLoss/objectness_loss"] > 0
    predictions, detections, _ = _predict(model, _clips(2), **nobody)
    np.testing.assert_array_equal(predictions["num_proposals"], [0, 0])
    np.testing.assert_array_equal(detections["num_detections"], [0, 0])


def test_training_uses_every_person_once(models):
    model = _build(_pipeline(_MODELS["tx gt"]), is_training=True)
    predictions, _, _ = _predict(
        model, _clips(2), people=[_TWO_PEOPLE, _TWO_PEOPLE[:1]], actions=[_ACTIONS, _ACTIONS[:1]]
    )
    np.testing.assert_array_equal(predictions["num_proposals"], [2, 1])
    pixels = predictions["proposal_boxes"].numpy()
    np.testing.assert_allclose(pixels[0, :2], _TWO_PEOPLE * 64, rtol=1e-5)
    np.testing.assert_array_equal(pixels[1, 1:], 0)


def test_groundtruth_model_without_boxes_says_what_it_needs():
    model = tiny_pipeline.build_model(_pipeline(_MODELS["tx gt"]), is_training=False)
    images, shapes = model.preprocess(_clips(1))
    with pytest.raises(ValueError, match="provide_groundtruth, or predict.*proposal_boxes"):
        model.predict(images, shapes)


def test_boxes_are_relative_to_the_picture_without_its_padding():
    """A 32x64 picture, padded to 64x64 as `keep_aspect_ratio_resizer` does."""
    model = _build(_pipeline(_MODELS["tx gt"]))
    images, _ = model.preprocess(_clips(1))
    shapes = tf.constant([[32, 64, 12]])
    box = tf.constant([[[0.25, 0.5, 1.0, 1.0]]])
    given = model.predict(images, shapes, proposal_boxes=box)
    np.testing.assert_allclose(given["proposal_boxes"][0, 0], [8, 32, 32, 64], rtol=1e-6)
    np.testing.assert_allclose(
        given["proposal_boxes_normalized"][0, 0], [0.125, 0.5, 0.5, 1.0], rtol=1e-6
    )


def test_boxes_for_each_class():
    """Table 4: class-specific box regression."""
    model = _build(_pipeline("i3d_head { }", _CLASS_SPECIFIC))
    predictions, detections, shapes = _predict(
        model, _clips(1), people=[_TWO_PEOPLE], actions=[_ACTIONS]
    )
    assert predictions["refined_box_encodings"].shape == [_R, tiny_pipeline.NUM_CLASSES, 4]
    boxes = detections["detection_boxes"].numpy()[0]
    assert boxes.shape == (7, 4) and (boxes >= 0).all() and (boxes <= 1).all()
    assert all(np.isfinite(float(loss)) for loss in model.loss(predictions, shapes).values())
    (kernel,) = (
        v for v in model.trainable_variables if "BoxEncodingPredictor_dense/kernel" in v.name
    )
    assert kernel.shape[1] == 4 * tiny_pipeline.NUM_CLASSES


@pytest.mark.parametrize(
    "kind",
    [
        # What the plain residual network has, the one with non-local blocks has too.
        pytest.param(kind, marks=[pytest.mark.slow] if kind == "r3d50" else [])
        for kind in _TRUNKS
    ],
)
@pytest.mark.parametrize("head", ["tx_head { }", "i3d_head { }"])
def test_every_trunk_goes_with_every_head(kind, head):
    override = (
        f"model {{ faster_rcnn {{ feature_extractor {{ type: 'faster_rcnn_{kind}_keras' }} }} }} "
    )
    pipeline = _pipeline(f"clip {{ num_frames: 8 }} {head}", override)
    registration.pipeline_check.check(pipeline, kind)
    model = _build(pipeline, is_training=True)
    model.provide_groundtruth(
        groundtruth_boxes_list=[tf.constant(_TWO_PEOPLE)],
        groundtruth_classes_list=[tf.constant(_ACTIONS)],
    )
    images, shapes = model.preprocess(_clips(1, num_frames=8))
    with tf.GradientTape() as tape:
        losses = model.loss(model.predict(images, shapes), shapes)
        total = tf.add_n(list(losses.values()))
    assert np.isfinite(float(total))
    gradients = tape.gradient(total, model.trainable_variables)
    missing = [
        v.name for v, g in zip(model.trainable_variables, gradients, strict=True) if g is None
    ]
    assert missing == []
    # What the pretrained checkpoint must hold: the trunk, and the tail if the head uses it.
    paths = model.feature_extractor.classification_backbone.by_path
    last = {"r3d50": "res5/", "r3d50_non_local": "res5/", "s3dg": "Mixed_5c/"}[kind]
    assert any(path.startswith(last) for path in paths) == head.startswith("i3d")


@pytest.mark.parametrize(
    ("name", "num_frames"),
    [("tx high", 3), ("tx high", 96), ("tx+i3d", 8)],
)
def test_a_model_runs_on_clips_of_another_length_with_the_same_weights(models, name, num_frames):
    """Table 7, last row: trained at 64 frames, evaluated at 96."""
    trained = models(name)
    options = f"clip {{ num_frames: {num_frames} }} {_MODELS[name]} outputs {{ attention: true }}"
    other = _build(_pipeline(options))
    for variable in other.variables:
        variable.assign(tf.zeros_like(variable))
    checkpoint = tf.train.Checkpoint(model=trained)
    with tempfile.TemporaryDirectory() as folder:
        path = checkpoint.save(f"{folder}/ckpt")
        tf.train.Checkpoint(model=other).restore(path).assert_consumed()
    assert [v.shape for v in other.variables] == [v.shape for v in trained.variables]
    predictions, detections, _ = _predict(other, _clips(1, num_frames=num_frames))
    assert np.isfinite(predictions["class_predictions_with_background"]).all()
    attention = detections["detection_attention"].numpy()
    assert attention.shape[-3:] == (-(-num_frames // 4), 4, 4)
    np.testing.assert_allclose(attention.sum(axis=(-3, -2, -1)), 1.0, atol=1e-5)
