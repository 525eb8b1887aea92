# SPDX-License-Identifier: Apache-2.0
"""bfloat16 against float32: one set of weights, every head and trunk, detections and gradients.

Everything runs eagerly, as in every_head_test.

Shapes: B clips, R proposals, K classes.
"""

import numpy as np
import pytest
import tensorflow as tf
from object_detection.utils import config_util, np_box_ops

from object_detection_ext import options as options_lib
from object_detection_ext import registration
from object_detection_ext.detection.video_meta_arch import ClipFeatures
from object_detection_ext.protos import video_action_transformer_pb2 as vat_pb2
from tests import tiny_pipeline

registration.register()

_EXTENSION = "[object_detection_ext.protos.video_action_transformer]"
_HEADS = {
    "tx high": "tx_head { query_preprocessor: HIGH_RES num_layers: 2 }",
    "tx low": "tx_head { query_preprocessor: LOW_RES }",
    "i3d": "i3d_head { }",
    "tx+i3d": "tx_i3d_head { tx_head { num_layers: 1 feature_size: 16 ffn_size: 16 } }",
}
_MODELS = [
    *(("i3d", head) for head in _HEADS),
    *((trunk, "tx high") for trunk in ("s3dg", "r3d50", "r3d50_non_local")),
]
# A CPU without bfloat16 instructions takes a minute for all of them: of the fast tests are the
# first head, both heads in one, and the softmax of non-local blocks.
_FAST = [("i3d", "tx high"), ("i3d", "tx+i3d"), ("r3d50_non_local", "tx high")]
_CASES = [
    pytest.param(case, id=" ".join(case), marks=() if case in _FAST else pytest.mark.slow)
    for case in _MODELS
]
_NUM_FRAMES = 8
_BOXES = np.float32(
    [[[0.1, 0.1, 0.7, 0.5], [0.3, 0.5, 0.9, 0.9], [0.0, 0.0, 1.0, 1.0], [0.4, 0.2, 0.8, 0.4]]]
)
_ACTIONS = np.float32([[1, 0, 1], [0, 1, 0], [0, 0, 1], [1, 1, 0]])


def _build(trunk: str, head: str, precision: str, override: str = "", *, is_training: bool = False):
    pipeline = tiny_pipeline.make_pipeline(
        f"{override} model {{ faster_rcnn {{ first_stage_minibatch_size: 256 feature_extractor {{ "
        f"type: 'faster_rcnn_{trunk}_keras' batch_norm_trainable: false }} }} }} "
        f"{_EXTENSION} {{ clip {{ num_frames: {_NUM_FRAMES} }} {_HEADS[head]} "
        f"compute {{ precision: {precision} }} "
        "outputs { attention: "
        f"{str(head != 'i3d').lower()} key_embeddings: {str(head != 'i3d').lower()} }} }}"
    )
    model = tiny_pipeline.build_model(pipeline, is_training=is_training)
    model.provide_groundtruth(
        groundtruth_boxes_list=[tf.constant(_BOXES[0])],
        groundtruth_classes_list=[tf.constant(_ACTIONS)],
    )
    model.predict(*model.preprocess(_clip()))  # makes the variables
    return model


def _clip() -> tf.Tensor:
    """Smooth moving pictures, [1, H, W, 3 T], pixels 0 to 255: what networks are trained on."""
    rows, columns, frames = np.meshgrid(
        np.arange(tiny_pipeline.SIZE),
        np.arange(tiny_pipeline.SIZE),
        np.arange(3 * _NUM_FRAMES),
        indexing="ij",
    )
    picture = 128 + 100 * np.sin(rows / 9 + frames / 5) * np.cos(columns / 7 - frames / 3)
    return tf.constant(picture[np.newaxis], tf.float32)


def _fill(model, other) -> None:
    """The same numbers in both; the box layer's are small, as boxes are refined by little."""
    rng = np.random.default_rng(3)
    for variable, its_twin in zip(model.variables, other.variables, strict=True):
        name = variable.name
        if "moving_variance" in name or name.endswith("gamma:0"):
            value = np.ones(variable.shape)
        elif "moving_mean" in name or "beta" in name or "bias" in name:
            value = np.zeros(variable.shape)
        else:
            gain = 0.03 if "BoxEncoding" in name else 2.0
            value = rng.normal(0, np.sqrt(gain / np.prod(variable.shape[:-1])), variable.shape)
        for each in (variable, its_twin):
            each.assign(value)


def _detect(model):
    images, shapes = model.preprocess(_clip())
    predictions = model.predict(images, shapes, proposal_boxes=tf.constant(_BOXES))
    return predictions, model.postprocess(predictions, shapes)


@pytest.fixture(scope="module", params=_CASES)
def pair(request):
    """One model in float32 and in bfloat16, with the same weights."""
    full, low = (_build(*request.param, precision) for precision in ("FLOAT32", "BFLOAT16"))
    _fill(full, low)
    return full, low


def test_trunk_and_head_compute_in_the_precision_and_nothing_else_does(pair):
    full, low = pair
    for model, expected in ((full, tf.float32), (low, tf.bfloat16)):
        images, _ = model.preprocess(_clip())
        features, _ = model._extract_proposal_features(images)
        head = model._mask_rcnn_box_predictor.action_head
        assert (features.dtype, head.compute_dtype) == (expected, expected.name)
        assert {variable.dtype for variable in model.variables} == {tf.float32}
    predictions, detections = _detect(low)
    for outputs in (predictions, detections):
        for key, value in outputs.items():
            assert getattr(value, "dtype", None) != tf.bfloat16, key
    assert tf.keras.mixed_precision.global_policy().name == "float32"


def test_detections_are_about_the_same(pair, request):
    # Random weights: R3D-50's residual branches add up over 43 convolutions, where a trained
    # network's are small.
    trunk = request.node.callspec.params["pair"][0]
    (_, full), (_, low) = map(_detect, pair)
    found = int(full["num_detections"][0])
    assert found == int(low["num_detections"][0]) > 0

    def by_box_and_class(detections):
        keys = ("detection_anchor_indices", "detection_classes", "detection_boxes")
        rows = zip(*(detections[key][0].numpy()[:found] for key in keys), strict=True)
        scores = detections["detection_scores"][0].numpy()[:found]
        return {
            (int(anchor), int(number)): (box, score)
            for (anchor, number, box), score in zip(rows, scores, strict=True)
        }

    expected, actual = by_box_and_class(full), by_box_and_class(low)
    common = expected.keys() & actual.keys()
    # Scores that are nearly equal may change places, and the last one its place in the list.
    assert len(common) >= found - 1
    overlaps = [
        np_box_ops.iou(expected[key][0][np.newaxis], actual[key][0][np.newaxis])[0, 0]
        for key in common
    ]
    differences = [abs(expected[key][1] - actual[key][1]) for key in common]
    assert min(overlaps) > 0.97, overlaps
    assert max(differences) < (0.03 if trunk in ("i3d", "s3dg") else 0.1), differences
    # That they are computed in another precision is no pretence.
    assert max(differences) > 0


def test_attention_still_sums_to_one(pair):
    _, low = pair
    predictions, detections = _detect(low)
    if "detection_attention" not in detections:
        pytest.skip("the I3D head has no attention")
    sums = tf.reduce_sum(detections["detection_attention"], axis=[-3, -2, -1])
    np.testing.assert_allclose(sums, 1.0, atol=1e-4)
    assert predictions["key_embeddings"].dtype == tf.float32


@pytest.mark.parametrize(
    ("head", "parts", "override", "least"),
    [
        (
            "tx high",
            ["RPNConv", "FirstStage", "ActionBoxPredictor", "Conv3d_2c"],
            tiny_pipeline.SHORT_TRUNK,
            0.95,  # of 19 channels, rounding cancels less
        ),
        pytest.param(
            "tx high",
            ["RPNConv", "FirstStage", "ActionBoxPredictor", "Mixed_4f"],
            "",
            0.99,
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "i3d", ["RPNConv", "ActionBoxPredictor", "Mixed_5c"], "", 0.99, marks=pytest.mark.slow
        ),
    ],
    ids=["tx high, short trunk", "tx high", "i3d"],
)
def test_losses_and_gradients_are_about_the_same(head, parts, override, least):
    """Of the last layers: nearer the input, max pooling picks another of equal bfloat16 values."""
    models = [
        _build("i3d", head, precision, override, is_training=True)
        for precision in ("FLOAT32", "BFLOAT16")
    ]
    _fill(*models)
    losses, gradients = zip(*map(_losses_and_gradients, models), strict=True)
    assert losses[1] == pytest.approx(losses[0], rel=0.02)
    assert {g.dtype for of_model in gradients for g in of_model.values()} == {np.dtype("float32")}
    for part in parts:
        full, low = (
            np.concatenate([g.ravel() for name, g in of_model.items() if part in name])
            for of_model in gradients
        )
        cosine = full @ low / (np.linalg.norm(full) * np.linalg.norm(low))
        assert cosine > least, (part, cosine)


def _losses_and_gradients(model) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    # Dropout draws other numbers in each model: off.
    for layer in model._mask_rcnn_box_predictor.action_head.submodules:
        if isinstance(layer, tf.keras.layers.Dropout):
            layer.rate = 0.0
    images, shapes = model.preprocess(_clip())
    with tf.GradientTape() as tape:
        predictions = model.predict(images, shapes, proposal_boxes=tf.constant(_BOXES))
        losses = model.loss(predictions, shapes)
        total = tf.add_n(list(losses.values()))
    variables = model.trainable_variables
    gradients = tape.gradient(total, variables)
    return (
        {name: float(loss) for name, loss in losses.items()},
        {
            f"{n} {v.name}": g.numpy()
            for n, (v, g) in enumerate(zip(variables, gradients, strict=True))
        },
    )


def _precision_of_the_built(override: str) -> str:
    pipeline = tiny_pipeline.make_pipeline(override)
    model = tiny_pipeline.build_model(pipeline, is_training=False)
    return model._mask_rcnn_box_predictor.action_head.compute_dtype


def test_the_stock_field_counts_where_ours_is_not_set():
    ours = f"{_EXTENSION} {{ compute {{ precision: %s }} }}"
    assert _precision_of_the_built("") == "float32"
    assert _precision_of_the_built("train_config { use_bfloat16: true }") == "bfloat16"
    both = "train_config { use_bfloat16: true } "
    assert _precision_of_the_built(both + ours % "FLOAT32") == "float32"
    assert _precision_of_the_built(ours % "BFLOAT16") == "bfloat16"
    against = "train_config { use_bfloat16: false } "
    assert _precision_of_the_built(against + ours % "BFLOAT16") == "bfloat16"


@pytest.mark.parametrize("stock_field", ["true", "false"])
def test_the_stock_loops_do_not_set_it_for_the_whole_process(stock_field):
    """They would, with --use_tpu: for the region proposal network too."""
    pipeline = tiny_pipeline.make_pipeline(
        f"train_config {{ use_bfloat16: {stock_field} }} "
        f"{_EXTENSION} {{ compute {{ precision: FLOAT32 }} }}"
    )
    configs = config_util.create_configs_from_pipeline_proto(pipeline)
    assert not configs["train_config"].use_bfloat16
    assert pipeline.train_config.HasField("use_bfloat16")  # the caller's


@pytest.mark.parametrize("precision", ["FLOAT32", "BFLOAT16"])
def test_a_policy_of_the_program_changes_nothing(precision):
    tf.keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        model = _build("i3d", "tx high", precision)
        assert tf.keras.mixed_precision.global_policy().name == "mixed_bfloat16"
    finally:
        tf.keras.mixed_precision.set_global_policy("float32")
    predictor = model._mask_rcnn_box_predictor
    assert predictor.action_head.compute_dtype == precision.lower()
    outside = (
        model._first_stage_box_predictor_first_conv,
        model._first_stage_box_predictor,
        predictor._box_head,
        predictor._class_head,
    )
    for part in outside:
        layers = [each for each in part.submodules if isinstance(each, tf.keras.layers.Layer)]
        assert {layer.compute_dtype for layer in layers} == {"float32"}, part


def test_a_saved_pipeline_says_the_precision():
    pipeline = tiny_pipeline.make_pipeline("train_config { use_bfloat16: true }")
    configs = config_util.create_configs_from_pipeline_proto(pipeline)
    saved = config_util.create_pipeline_proto_from_configs(configs)
    assert options_lib.precision(saved) == vat_pb2.Compute.BFLOAT16
    assert saved.train_config.use_bfloat16
    # What the stock loops write does not contradict it.
    configs["train_config"].use_bfloat16 = False
    saved = config_util.create_pipeline_proto_from_configs(configs)
    assert saved.train_config.use_bfloat16
    plain = config_util.create_configs_from_pipeline_proto(tiny_pipeline.make_pipeline())
    saved = config_util.create_pipeline_proto_from_configs(plain)
    assert not saved.Extensions[options_lib.EXTENSION].HasField("compute")


@pytest.mark.parametrize("direction", [1, -1])
def test_a_checkpoint_goes_with_both_precisions(pair, tmp_path, direction):
    source, target = pair[::direction]
    path = tf.train.Checkpoint(model=source).save(str(tmp_path / "ckpt"))
    for variable in target.variables:
        variable.assign(tf.zeros_like(variable))
    tf.train.Checkpoint(model=target).restore(path).assert_consumed()
    for variable, its_twin in zip(source.variables, target.variables, strict=True):
        assert variable.dtype == its_twin.dtype == tf.float32
        np.testing.assert_array_equal(variable, its_twin)


def test_the_feature_map_of_a_stretch_gives_what_the_clip_gives(pair):
    """It leaves the trunk as float32, which loses nothing of what the head then rounds."""
    _, low = pair
    images, shapes = low.preprocess(_clip())
    boxes = tf.constant(_BOXES)
    expected = low.predict(images, shapes, proposal_boxes=boxes)
    features = tf.cast(low._extract_proposal_features(images)[0], tf.float32)
    size = tf.constant([tiny_pipeline.SIZE, tiny_pipeline.SIZE])
    found = low.predict(ClipFeatures(features, size), shapes, proposal_boxes=boxes)
    for key in ("class_predictions_with_background", "refined_box_encodings"):
        np.testing.assert_array_equal(found[key], expected[key])
