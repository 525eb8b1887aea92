# SPDX-License-Identifier: Apache-2.0
"""What is built from a pipeline: the paper's sizes, each option, stock models untouched."""

import io
import pathlib
import types

import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import text_format
from object_detection import inputs
from object_detection.builders import model_builder
from object_detection.meta_architectures import faster_rcnn_meta_arch
from object_detection.protos import pipeline_pb2
from PIL import Image

from object_detection_ext import builders, registration
from object_detection_ext import options as options_lib
from object_detection_ext.detection import video_meta_arch
from object_detection_ext.heads import query_preprocessors
from tests import tiny_pipeline

registration.register()

_CONFIGS = pathlib.Path(__file__).resolve().parent.parent / "pipeline_configs"
_EXTENSION = "[object_detection_ext.protos.video_action_transformer]"


def _read(name: str, override: str = "") -> pipeline_pb2.TrainEvalPipelineConfig:
    pipeline = text_format.Parse(
        (_CONFIGS / name).read_text(), pipeline_pb2.TrainEvalPipelineConfig()
    )
    return text_format.Merge(override, pipeline)


def _build_and_run(pipeline, *, is_training: bool = False, num_frames: int = 4):
    """The model with its variables, which it makes when it is first applied."""
    model = tiny_pipeline.build_model(pipeline, is_training=is_training)
    clip = tf.zeros([1, 64, 64, 3 * num_frames])
    if is_training:
        model.provide_groundtruth(
            groundtruth_boxes_list=[tf.constant([[0.1, 0.1, 0.6, 0.6]])],
            groundtruth_classes_list=[tf.ones([1, tiny_pipeline.NUM_CLASSES])],
        )
    model.predict(clip, tf.constant([[64, 64, 3 * num_frames]]))
    return model


def _trunk(model):
    return model._feature_extractor_for_proposal_features.trunk


def _parameters(model) -> int:
    return sum(int(np.prod(variable.shape)) for variable in model.trainable_variables)


@pytest.mark.parametrize(
    ("query_preprocessor", "expected"), [("HIGH_RES", 19_291_109), ("LOW_RES", 13_862_933)]
)
def test_full_size_model_has_the_papers_number_of_parameters(query_preprocessor, expected):
    """Table 1: 19.3 M and 13.9 M. Neither T nor H and W has parameters, so the clip is small."""
    override = (
        f"{_EXTENSION} {{ clip {{ num_frames: 2 }} "
        f"tx_head {{ query_preprocessor: {query_preprocessor} }} }}"
    )
    model = _build_and_run(_read("ava_i3d_tx_highres_r300.config", override), num_frames=2)
    assert _parameters(model) == expected
    # Section 4.5: 80 actions and a background column; one box for all classes.
    shapes = {
        variable.name.split("/")[-2]: tuple(variable.shape)
        for variable in model.trainable_variables
        if variable.name.endswith("kernel:0")
    }
    assert shapes["ClassPredictor_dense"] == (256, 81)
    assert shapes["BoxEncodingPredictor_dense"] == (256, 4)


@pytest.mark.parametrize("path", sorted(_CONFIGS.glob("*.config")), ids=lambda path: path.stem)
def test_every_pipeline_config_builds(path):
    model = tiny_pipeline.build_model(_read(path.name), is_training=True)
    assert isinstance(model, video_meta_arch.VideoActionTransformerMetaArch)


def test_head_options_reach_the_head():
    override = f"""{_EXTENSION} {{ tx_head {{
        num_heads: 3 num_layers: 2 feature_size: 24 ffn_size: 40 dropout_rate: 0.25
        query_preprocessor: HIGH_RES query_channels: 5
        location_embedding {{ embedding_size: 6 }}
    }} }}"""
    model = _build_and_run(tiny_pipeline.make_pipeline(override))
    head = model._mask_rcnn_box_predictor.action_head
    assert [len(layer) for layer in head.units] == [3, 3]
    unit = head.units[1][2]
    # Layer 2 takes the 3 heads' 24 each.
    assert unit.query_projection.kernel.shape == [72, 24]
    assert unit.ffn_hidden.kernel.shape == [24, 40]
    assert unit.attention_dropout.rate == unit.ffn_dropout.rate == 0.25
    channels = _trunk(model).output_channels
    assert unit.key_projection.kernel.shape == [channels + 2 * 6, 24]
    assert head.query_preprocessor.reduce.kernel.shape == [channels + 12, 5]


def test_location_embedding_can_be_left_out():
    override = f"""{_EXTENSION} {{ tx_head {{
        query_preprocessor: LOW_RES location_embedding {{ enabled: false }} }} }}"""
    model = _build_and_run(tiny_pipeline.make_pipeline(override))
    head = model._mask_rcnn_box_predictor.action_head
    assert head.location_embedding is None
    assert isinstance(head.query_preprocessor, query_preprocessors.LowResQueryPreprocessor)
    channels = _trunk(model).output_channels
    assert head.units[0][0].key_projection.kernel.shape == [channels, 16]


def test_trunk_options_reach_the_trunk():
    override = f"{_EXTENSION} {{ trunk {{ final_endpoint: 'Mixed_4b' depth_multiplier: 0.5 }} }}"
    model = _build_and_run(tiny_pipeline.make_pipeline(override))
    trunk = _trunk(model)
    variables = trunk.variables_by_path()
    assert any("Mixed_4b" in path for path in variables)
    assert not any("Mixed_4c" in path for path in variables)
    (first,) = (v for path, v in variables.items() if path.endswith("1a_7x7/conv_3d/w"))
    assert first.shape == [7, 7, 7, 3, 32]


@pytest.mark.parametrize("trainable", [True, False])
def test_batch_norm_statistics_move_only_if_they_are_to(trainable):
    override = (
        "model { faster_rcnn { feature_extractor "
        f"{{ batch_norm_trainable: {str(trainable).lower()} }} }} }} "
        f"{_EXTENSION} {{ trunk {{ batch_norm_momentum: 0.75 }} }}"
    )
    model = _build_and_run(tiny_pipeline.make_pipeline(override), is_training=True)
    variables = _trunk(model).variables_by_path()
    (kernel,) = (v for path, v in variables.items() if path.endswith("1a_7x7/conv_3d/w"))
    (variance,) = (
        v for p, v in variables.items() if p.endswith("1a_7x7/batch_norm/moving_variance")
    )
    assert not any("moving" in variable.name for variable in model.trainable_variables)
    # The clip was constant, the padding around it makes the variance; it began at 1.
    clip = tf.zeros([1, 4, 64, 64, 3])
    observed = tf.math.reduce_variance(
        tf.nn.conv3d(clip, kernel, [1, 2, 2, 2, 1], "SAME"), [0, 1, 2, 3]
    )
    expected = 0.75 + 0.25 * observed if trainable else tf.ones_like(observed)
    np.testing.assert_allclose(variance, expected, rtol=1e-4)


def test_every_weight_matrix_is_regularized_as_the_stock_fields_say():
    override = """model { faster_rcnn {
        feature_extractor { conv_hyperparams { regularizer { l2_regularizer { weight: 2 } } } }
        first_stage_box_predictor_conv_hyperparams { regularizer { l2_regularizer { weight: 2 } } }
        second_stage_box_predictor { mask_rcnn_box_predictor { fc_hyperparams {
            regularizer { l2_regularizer { weight: 2 } } } } }
    } }"""
    model = _build_and_run(tiny_pipeline.make_pipeline(override))
    # The stock second-stage linear layers take no regularizer, in stock models either.
    matrices = [
        variable
        for variable in model.trainable_variables
        if len(variable.shape) > 1 and "Predictor_dense" not in variable.name
    ]
    # The stock l2_regularizer of weight 2 is half of it times the sum of squares.
    expected = sum(float(tf.reduce_sum(tf.square(matrix))) for matrix in matrices)
    assert float(tf.add_n(model.regularization_losses())) == pytest.approx(expected, rel=1e-4)


def test_two_models_with_other_options_live_in_one_process():
    small = tiny_pipeline.make_pipeline()
    large = tiny_pipeline.make_pipeline(
        f"{_EXTENSION} {{ clip {{ num_frames: 5 }} tx_head {{ num_layers: 3 }} }}"
    )
    # Interleaved: split, split, build, build.
    models = [tiny_pipeline.build_model(p, is_training=False) for p in (small, large, small)]
    heads = [model._mask_rcnn_box_predictor.action_head for model in models]
    assert [len(head.units) for head in heads] == [1, 3, 1]
    assert [model.feature_extractor.num_frames for model in models] == [4, 5, 4]
    for model, num_frames in zip(models, (4, 5, 4), strict=True):
        shapes = tf.constant([[64, 64, 3 * num_frames]])
        predictions = model.predict(tf.zeros([1, 64, 64, 3 * num_frames]), shapes)
        assert predictions["class_predictions_with_background"].shape == [6, 4]


def test_options_default_without_an_extension():
    """As when a stock message is built by hand: the paper's main model."""
    pipeline = tiny_pipeline.make_pipeline()
    model = model_builder.build(pipeline.model, is_training=False)
    head = model._mask_rcnn_box_predictor.action_head
    assert [len(layer) for layer in head.units] == [2, 2, 2]
    assert model.feature_extractor.num_frames == 64


_STOCK_MODEL = """
  faster_rcnn {
    num_classes: 2
    image_resizer { fixed_shape_resizer { height: 64 width: 64 } }
    feature_extractor { type: 'faster_rcnn_resnet50_keras' }
    first_stage_anchor_generator { grid_anchor_generator {
      scales: [1.0] aspect_ratios: [1.0]
    } }
    first_stage_box_predictor_conv_hyperparams {
      regularizer { l2_regularizer { } } initializer { truncated_normal_initializer { } }
    }
    initial_crop_size: 14 maxpool_kernel_size: 2 maxpool_stride: 2
    second_stage_box_predictor {
      mask_rcnn_box_predictor {
        fc_hyperparams {
          op: FC
          regularizer { l2_regularizer { } } initializer { variance_scaling_initializer { } }
        }
      }
    }
    second_stage_post_processing { batch_non_max_suppression { } score_converter: SOFTMAX }
  }
"""


def test_stock_faster_rcnn_is_built_by_the_stock_builder():
    pipeline = text_format.Parse(
        f"model {{ {_STOCK_MODEL} }}", pipeline_pb2.TrainEvalPipelineConfig()
    )
    model = tiny_pipeline.build_model(pipeline, is_training=False)
    assert type(model) is faster_rcnn_meta_arch.FasterRCNNMetaArch
    assert "resnet" in type(model.feature_extractor).__name__.lower()
    # Our builds leave the stock builder's own names alone.
    tiny_pipeline.build_model(tiny_pipeline.make_pipeline(), is_training=False)
    assert model_builder.faster_rcnn_meta_arch is faster_rcnn_meta_arch
    assert type(tiny_pipeline.build_model(pipeline, is_training=False)) is type(model)


def test_stock_reader_goes_to_the_stock_dataset(tmp_path):
    picture = io.BytesIO()
    Image.fromarray(np.full((20, 30, 3), 77, np.uint8)).save(picture, "PNG")
    example = text_format.Parse("", tf.train.Example())
    features = example.features.feature
    features["image/encoded"].bytes_list.value.append(picture.getvalue())
    features["image/format"].bytes_list.value.append(b"png")
    features["image/class/dummy"].int64_list.value.append(1)
    for key, value in {"xmin": 0.1, "xmax": 0.5, "ymin": 0.2, "ymax": 0.9}.items():
        features[f"image/object/bbox/{key}"].float_list.value.append(value)
    features["image/object/class/label"].int64_list.value.append(2)
    records = tiny_pipeline.write_records(tmp_path / "images", [example.SerializeToString()])
    pipeline = tiny_pipeline.make_pipeline(
        label_map=tiny_pipeline.write_label_map(tmp_path / "map.pbtxt"), train=records
    )
    reader = pipeline.train_input_reader  # not split: it carries no options
    reader.num_epochs = 1
    (decoded,) = inputs.INPUT_BUILDER_UTIL_MAP["dataset_build"](reader)
    assert decoded["image"].shape == [20, 30, 3]
    assert (decoded["image"].numpy() == 77).all()
    np.testing.assert_allclose(decoded["groundtruth_boxes"], [[0.2, 0.1, 0.9, 0.5]])
    np.testing.assert_array_equal(decoded["groundtruth_classes"], [2])


def test_batch_norm_cannot_be_updated_in_place():
    pipeline = tiny_pipeline.make_pipeline(
        "model { faster_rcnn { inplace_batchnorm_update: true } }"
    )
    with pytest.raises(ValueError, match="inplace_batchnorm_update"):
        tiny_pipeline.build_model(pipeline, is_training=True)


@pytest.mark.parametrize("is_training", [False, True])
def test_only_evaluation_leaves_out_excluded_frames(tmp_path, monkeypatch, capsys, is_training):
    path = tmp_path / "excluded.csv"
    path.write_text("a;0003\n")
    pipeline = tiny_pipeline.make_pipeline(
        f"""[object_detection_ext.protos.video_action_transformer] {{
          evaluation {{ excluded_timestamps_path: '{path}' }}
        }}"""
    )
    reader = pipeline.eval_input_reader[0]
    options_lib.attach(reader, pipeline.Extensions[options_lib.EXTENSION])
    transform = types.SimpleNamespace(is_training=is_training, preprocess=None)
    monkeypatch.setattr(builders.stock_transform, "open_transform", lambda _: transform)
    monkeypatch.setattr(builders, "_is_stock_preprocess", lambda _: True)
    monkeypatch.setattr(builders.clip_dataset, "build", lambda reader, **given: given["excluded"])
    excluded = builders.build_dataset(reader, stock_build=None)
    assert excluded == (frozenset() if is_training else {("a", 3)})
    notes = capsys.readouterr().err
    assert notes.startswith(f"note: {path}: semicolons") != is_training


@pytest.mark.parametrize("is_training", [False, True])
def test_only_training_draws_rare_actions_more_often(tmp_path, monkeypatch, capsys, is_training):
    box = [0.1, 0.1, 0.7, 0.5]
    records = [
        tiny_pipeline.make_record(tiny_pipeline.gray_frames(4), {2: [(box, name)]})
        for name in ["stand"] * 15 + ["walk"]
    ]
    pipeline = tiny_pipeline.make_pipeline(
        f"{_EXTENSION} {{ class_balance {{ threshold: 0.25 }} }}",
        label_map=tiny_pipeline.write_label_map(tmp_path / "label_map.pbtxt"),
        train=tiny_pipeline.write_records(tmp_path / "train", records),
    )
    reader = pipeline.train_input_reader
    options_lib.attach(reader, pipeline.Extensions[options_lib.EXTENSION])
    transform = types.SimpleNamespace(is_training=is_training, preprocess=None)
    monkeypatch.setattr(builders.stock_transform, "open_transform", lambda _: transform)
    monkeypatch.setattr(builders, "_is_stock_preprocess", lambda _: True)
    monkeypatch.setattr(builders.clip_dataset, "build", lambda reader, **given: given["balance"])
    balance = builders.build_dataset(reader, stock_build=None)
    if not is_training:
        assert balance is None
        return
    # walk is in 1 of 16 keyframes: sqrt(0.25 * 16) = 2.
    for _ in range(2):
        np.testing.assert_allclose(balance([str(tmp_path / "train")]), [1.0, 1.0, 2.0, 1.0])
    said = capsys.readouterr().err
    assert said.count("class balance: a pass has 1.06 times") == 1, "datasets are built repeatedly"
    # 2 of 17 rows that are drawn.
    assert ["walk", "1", "6.25%", "11.76%", "2.00"] in [line.split() for line in said.splitlines()]
