# SPDX-License-Identifier: Apache-2.0
"""Class weights and focal loss against NumPy, alone and in the loss of a real model.

Shapes: B clips, R proposals, K classes.
"""

import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import text_format
from object_detection.builders import losses_builder
from object_detection.protos import losses_pb2

from object_detection_ext import errors, registration
from object_detection_ext.detection import class_weights
from tests import tiny_pipeline

registration.register()

_LOSS = "Loss/BoxClassifierLoss/classification_loss"
_KINDS = {
    "weighted_sigmoid { }": (None, 0.0),
    "weighted_sigmoid_focal { }": (None, 2.0),
    "weighted_sigmoid_focal { alpha: 0.3 gamma: 1.5 }": (0.3, 1.5),
}
_WEIGHTS = [1.0, 3.0, 0.0, 0.5]  # background, stand, walk, watch
_BOXES = [[0.1, 0.1, 0.7, 0.5], [0.3, 0.5, 0.9, 0.9]]
_CLASSES = [[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]]


def _stock(kind: str):
    message = text_format.Parse(kind, losses_pb2.ClassificationLoss())
    return losses_builder.build_faster_rcnn_classification_loss(message)


def _expected(kind: str, logits, targets, weights, by_class) -> np.ndarray:
    """The loss by its formula, in float64: [B, R, K + 1]."""
    alpha, gamma = _KINDS[kind]
    logits, targets = np.asarray(logits, np.float64), np.asarray(targets, np.float64)
    p = 1.0 / (1.0 + np.exp(-logits))
    positive = -np.log(p) * (1.0 - p) ** gamma * (1.0 if alpha is None else alpha)
    negative = -np.log(1.0 - p) * p**gamma * (1.0 if alpha is None else 1.0 - alpha)
    return np.asarray(weights) * np.where(targets > 0.5, by_class * positive, negative)


def _example():
    """Logits, targets and weights of 2 clips and 5 proposals, the last of which is padding."""
    random = np.random.default_rng(0)
    logits = random.normal(0.0, 2.0, (2, 5, 4)).astype(np.float32)
    targets = random.integers(0, 2, (2, 5, 4)).astype(np.float32)
    weights = np.ones((2, 5, 4), np.float32)
    weights[:, 4] = 0.0
    return logits, targets, weights


def test_one_number_by_hand():
    """Logits of 0, and the person does action 1: ln 2 for each term, 3 ln 2 for that one."""
    loss = class_weights.ClassWeightedLoss(_stock("weighted_sigmoid { }"), [1.0, 3.0, 5.0])
    actual = loss(tf.zeros([1, 1, 3]), tf.constant([[[0.0, 1.0, 0.0]]]), weights=tf.ones([1, 1, 3]))
    np.testing.assert_allclose(actual, [[[0.693147, 2.079442, 0.693147]]], rtol=1e-6)


@pytest.mark.parametrize("kind", _KINDS)
def test_only_positives_are_weighted(kind):
    logits, targets, weights = _example()
    loss = class_weights.ClassWeightedLoss(_stock(kind), _WEIGHTS)
    actual = loss(logits, targets, weights=weights)
    np.testing.assert_allclose(
        actual, _expected(kind, logits, targets, weights, _WEIGHTS), rtol=2e-5, atol=1e-6
    )
    # One weight for all classes of a proposal, and clips that take no part.
    masked = loss(logits, targets, weights=weights[..., :1], losses_mask=tf.constant([True, False]))
    np.testing.assert_array_equal(masked[0], actual[0])
    np.testing.assert_array_equal(masked[1], np.zeros([5, 4]))


@pytest.mark.parametrize("kind", _KINDS)
def test_weights_of_one_change_nothing(kind):
    logits, targets, weights = _example()
    stock = _stock(kind)
    same = class_weights.ClassWeightedLoss(stock, np.ones(4))(logits, targets, weights=weights)
    np.testing.assert_array_equal(same, stock(logits, targets, weights=weights))


def test_full_inverse_frequency_is_that_of_scikit_learn():
    rows = {"stand": 6, "walk": 3, "wave": 1, "jump": 0}
    # compute_class_weight('balanced'): all rows / (classes with rows * rows of the class).
    weights = class_weights.inverse_frequency(rows, power=1.0, max_weight=100.0)
    assert weights == pytest.approx({"stand": 10 / 18, "walk": 10 / 9, "wave": 10 / 3, "jump": 1.0})


@pytest.mark.parametrize("power", [0.0, 0.3, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("max_weight", [1.0, 1.2, 2.0, 1e9])
def test_mean_weight_of_a_row_is_one_with_any_limit(power, max_weight):
    rows = {"stand": 900, "walk": 80, "wave": 15, "jump": 4, "fall": 1, "fly": 0}
    weights = class_weights.inverse_frequency(rows, power, max_weight)
    assert sum(rows[name] * weights[name] for name in rows) == pytest.approx(sum(rows.values()))
    assert max(weights.values()) <= max_weight * (1 + 1e-12)
    assert weights["fly"] == 1.0
    below = [name for name in rows if rows[name] and weights[name] < max_weight * (1 - 1e-9)]
    ratios = [weights[name] * rows[name] ** power for name in below]
    assert ratios == pytest.approx([ratios[0]] * len(ratios)) if ratios else max_weight == 1.0
    if power == 0.0:
        assert set(weights.values()) == {1.0}


def test_square_root_with_a_limit_by_hand():
    # n^-1/2: 1/10, 1/5, 1. Without a limit the scale is 126 / (10 + 5 + 1) = 7.875: at the limit of
    # 6, what is left is 126 - 6 = 120 for 10 + 5.
    weights = class_weights.inverse_frequency({"a": 100, "b": 25, "c": 1}, 0.5, 6.0)
    assert weights == pytest.approx({"a": 0.8, "b": 1.6, "c": 6.0})


def test_description_has_the_ends_and_what_is_without_rows():
    weights = {f"action {number:02d}": float(number) for number in range(12)}
    rows = {name: int(weight) for name, weight in weights.items()}
    text = class_weights.describe(weights, rows)
    assert text.startswith("class weights (rows in the training records): action 11 11 (11), ")
    assert ", action 07 7 (7), ..., action 04 4 (4), " in text
    assert text.endswith("Without a row, so without effect: action 00")
    assert class_weights.describe({"walk": 2.0, "run": 1.0}, None) == "class weights: walk 2, run 1"


def _pipeline(folder, options: str, loss: str = "weighted_sigmoid { }"):
    """6 rows: stand 4, walk 1, watch 1."""
    people = {2: [(_BOXES[0], "stand")]}
    records = [
        tiny_pipeline.make_record(tiny_pipeline.gray_frames(4), rows)
        for rows in (people, people, people, {1: [
            (_BOXES[0], "stand"), (_BOXES[0], "watch (a person)"), (_BOXES[1], "walk")
        ]})
    ]  # fmt: skip
    return tiny_pipeline.make_pipeline(
        tiny_pipeline.SHORT_TRUNK
        + f"""model {{ faster_rcnn {{ second_stage_classification_loss {{ {loss} }} }} }}
        [object_detection_ext.protos.video_action_transformer] {{ {options} }}""",
        label_map=tiny_pipeline.write_label_map(folder / "label_map.pbtxt"),
        train=tiny_pipeline.write_records(folder / "train", records),
    )


def _weights_of(pipeline, is_training=True):
    """What the built model's loss multiplies with; None if it is the stock loss."""
    model = tiny_pipeline.build_model(pipeline, is_training=is_training)
    return getattr(model._second_stage_classification_loss, "_weights", None)


def test_weights_come_from_the_records_and_by_name(tmp_path, capsys):
    frequency = "inverse_frequency { power: 1 }"
    counted = _weights_of(_pipeline(tmp_path, f"class_weights {{ {frequency} }}"))
    np.testing.assert_allclose(counted, [1.0, 6 / (3 * 4), 6 / 3, 6 / 3])
    assert "stand 0.5 (4)" in capsys.readouterr().err
    named = "weight { name: 'watch (a person)' weight: 3 }"
    np.testing.assert_array_equal(
        _weights_of(_pipeline(tmp_path, f"class_weights {{ {named} }}")), [1, 1, 1, 3]
    )
    both = _weights_of(_pipeline(tmp_path, f"class_weights {{ {frequency} {named} }}"))
    np.testing.assert_allclose(both, [1.0, 0.5, 2.0, 3.0])
    assert _weights_of(_pipeline(tmp_path, "")) is None


def test_an_exported_model_needs_no_records(tmp_path):
    pipeline = _pipeline(tmp_path, "class_weights { inverse_frequency { } }")
    (tmp_path / "train").unlink()
    assert _weights_of(pipeline, is_training=False) is None
    with pytest.raises(errors.InputError, match="No record file matches"):
        _weights_of(pipeline)


def test_records_of_other_actions_are_an_error(tmp_path):
    pipeline = _pipeline(tmp_path, "class_weights { inverse_frequency { } }")
    tiny_pipeline.write_label_map(tmp_path / "label_map.pbtxt", {1: "Stand", 2: "Walk"})
    with pytest.raises(errors.InputError, match="no keyframe has an action of the label map"):
        _weights_of(pipeline)


class _Recorder(type(_stock("weighted_sigmoid { }"))):
    """Keeps what the stock second stage hands to its loss."""

    def __init__(self, loss):
        super().__init__()
        self._wrapped, self.calls = loss, []

    def _compute_loss(self, prediction_tensor, target_tensor, weights):
        self.calls.append([np.asarray(x) for x in (prediction_tensor, target_tensor, weights)])
        return self._wrapped(prediction_tensor, target_tensor, weights=weights)


@pytest.fixture(scope="module")
def predicted(tmp_path_factory):
    """A tiny model with weighted focal loss, and what it predicts of two clips."""
    options = "class_weights { " + "".join(
        f"weight {{ name: '{name}' weight: {weight} }}"
        for name, weight in zip(tiny_pipeline.ACTIONS.values(), _WEIGHTS[1:], strict=True)
    )
    pipeline = _pipeline(
        tmp_path_factory.mktemp("data"), options + " } proposals { source: GROUND_TRUTH }",
        "weighted_sigmoid_focal { alpha: 0.3 gamma: 1.5 }",
    )  # fmt: skip
    model = tiny_pipeline.build_model(pipeline, is_training=True)
    model.provide_groundtruth(
        groundtruth_boxes_list=[tf.constant(_BOXES)] * 2,
        groundtruth_classes_list=[tf.constant(_CLASSES)] * 2,
        groundtruth_weights_list=[tf.ones([2])] * 2,
    )
    clips = tf.random.uniform([2, 64, 64, 3 * tiny_pipeline.NUM_FRAMES], maxval=255.0)
    images, shapes = model.preprocess(clips)
    return model, model.predict(images, shapes), shapes


def _model_loss(model, predictions, shapes, loss) -> float:
    model._second_stage_classification_loss = loss
    return float(model.loss(predictions, shapes)[_LOSS])


def test_loss_of_a_model_is_the_sum_over_proposals_by_their_number(predicted):
    model, predictions, shapes = predicted
    weighted = model._second_stage_classification_loss
    recorder = _Recorder(weighted)
    actual = _model_loss(model, predictions, shapes, recorder)
    ((logits, targets, weights),) = recorder.calls
    assert targets.sum() == 2 * 3 + (targets[..., 0] == 1).sum(), "both clips' people are there"
    kind = "weighted_sigmoid_focal { alpha: 0.3 gamma: 1.5 }"
    terms = _expected(kind, logits, targets, weights, _WEIGHTS).sum(-1)  # [B, R]
    count = predictions["num_proposals"].numpy()
    is_there = np.arange(terms.shape[1]) < count[:, np.newaxis]
    # A mean over the proposals of a clip, then over clips: not, as in RetinaNet, over positives.
    expected = (terms * is_there).sum() / (2 * count[0])
    assert (count == count[0]).all()
    assert actual == pytest.approx(expected, rel=1e-5)
    model._second_stage_classification_loss = weighted


def test_weights_of_one_leave_a_models_loss_as_it_is(predicted):
    model, predictions, shapes = predicted
    weighted = model._second_stage_classification_loss
    stock = weighted._loss
    ones = class_weights.ClassWeightedLoss(stock, np.ones(4))
    expected = _model_loss(model, predictions, shapes, stock)
    assert _model_loss(model, predictions, shapes, ones) == expected
    assert _model_loss(model, predictions, shapes, weighted) != pytest.approx(expected, rel=1e-3)
    model._second_stage_classification_loss = weighted
