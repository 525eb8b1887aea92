# SPDX-License-Identifier: Apache-2.0
"""Each fault of a pipeline.config gives a message that names the field and what would be right."""

import dataclasses
import pathlib
import re

import pytest
from google.protobuf import text_format
from object_detection.protos import pipeline_pb2

from object_detection_ext import builders, errors, pipeline_check, registration
from object_detection_ext.trunks import i3d
from tests import tiny_pipeline

registration.register()

_EXTENSION = "[object_detection_ext.protos.video_action_transformer]"
_CONFIGS = pathlib.Path(__file__).resolve().parent.parent / "pipeline_configs"
# Builds with nothing from disk.
_FASTER_RCNN = "model.faster_rcnn"
_LOSS = f"{_FASTER_RCNN}.second_stage_classification_loss"


def _faults(pipeline: pipeline_pb2.TrainEvalPipelineConfig) -> list[str]:
    with pytest.raises(pipeline_check.PipelineError) as caught:
        pipeline_check.check(pipeline, "some.config")
    first, *faults = str(caught.value).splitlines()
    assert first == "some.config:"
    assert all(fault.startswith("  - ") for fault in faults)
    return [fault.removeprefix("  - ") for fault in faults]


def _ours(text: str) -> str:
    return f"{_EXTENSION} {{ {text} }}"


def _model(text: str) -> str:
    return f"model {{ faster_rcnn {{ {text} }} }}"


def _loss(text: str) -> str:
    return _model(f"second_stage_classification_loss {{ {text} }}")


def test_tiny_pipeline_has_no_fault():
    pipeline_check.check(tiny_pipeline.make_pipeline(), "tiny")


@pytest.mark.parametrize("path", sorted(_CONFIGS.glob("*.config")), ids=lambda path: path.stem)
def test_pipelines_of_the_repository_have_no_fault_but_places_to_fill_in(path, monkeypatch):
    monkeypatch.chdir(_CONFIGS.parent)  # where their commands run
    pipeline = tiny_pipeline.parse(path.read_text())
    for reader in (pipeline.train_input_reader, *pipeline.eval_input_reader):
        if reader.label_map_path.startswith(("DATA/", "PATH/")):
            reader.label_map_path = ""
    pipeline_check.check(pipeline, str(path))


@pytest.mark.parametrize(
    ("override", "field", "message"),
    [
        (_ours("clip { num_frames: 0 }"), f"{_EXTENSION}.clip.num_frames", "0; at least 1"),
        (_ours("tx_head { num_heads: 0 }"), f"{_EXTENSION}.tx_head.num_heads", "at least 1"),
        (_ours("tx_head { num_layers: 0 }"), f"{_EXTENSION}.tx_head.num_layers", "at least 1"),
        (_ours("tx_head { feature_size: 0 }"), f"{_EXTENSION}.tx_head.feature_size", "least 1"),
        (_ours("tx_head { ffn_size: 0 }"), f"{_EXTENSION}.tx_head.ffn_size", "at least 1"),
        (_ours("tx_head { query_channels: 0 }"), f"{_EXTENSION}.tx_head.query_channels", "least 1"),
        (
            _ours("tx_head { location_embedding { embedding_size: 0 } }"),
            f"{_EXTENSION}.tx_head.location_embedding.embedding_size",
            "at least 1",
        ),
        (_ours("tx_head { dropout_rate: 1.0 }"), f"{_EXTENSION}.tx_head.dropout_rate", r"\[0, 1\)"),
        (_ours("tx_head { dropout_rate: nan }"), f"{_EXTENSION}.tx_head.dropout_rate", r"\[0, 1\)"),
        (
            _ours("trunk { depth_multiplier: -0.5 }"),
            f"{_EXTENSION}.trunk.depth_multiplier",
            "-0.5; .* greater than 0",
        ),
        (
            _ours("trunk { batch_norm_momentum: 1 }"),
            f"{_EXTENSION}.trunk.batch_norm_momentum",
            r"1; .*\[0, 1\)",
        ),
        (
            _ours("trunk { final_endpoint: 'Mixed_4g' }"),
            f"{_EXTENSION}.trunk.final_endpoint",
            "'Mixed_4g' does not exist.*Mixed_4f",
        ),
        (_model("context_config { }"), f"{_FASTER_RCNN}.context_config", "another model"),
        (_model("number_of_stages: 1"), f"{_FASTER_RCNN}.number_of_stages", "1; this model has 2"),
        (
            _model("second_stage_box_predictor { rfcn_box_predictor { } }"),
            f"{_FASTER_RCNN}.second_stage_box_predictor",
            "set mask_rcnn_box_predictor",
        ),
        (
            _model(
                "second_stage_box_predictor { mask_rcnn_box_predictor "
                "{ predict_instance_masks: true } }"
            ),
            f"{_FASTER_RCNN}.second_stage_box_predictor",
            "masks",
        ),
        (
            _loss("weighted_softmax { }"),
            f"{_LOSS}.weighted_softmax",
            r"set weighted_sigmoid \{ \} or weighted_sigmoid_focal \{ \}. .*several at once",
        ),
        (_loss("weighted_logits_softmax { }"), f"{_LOSS}.weighted_logits_softmax", "at once"),
        (
            _loss("bootstrapped_sigmoid { alpha: 0.5 }"),
            f"{_LOSS}.bootstrapped_sigmoid",
            "takes softmax in its place",
        ),
        (
            _loss("weighted_dice_classification_loss { }"),
            f"{_LOSS}.weighted_dice_classification_loss",
            "takes softmax in its place",
        ),
        (
            _loss("weighted_sigmoid_focal { gamma: -1 }"),
            f"{_LOSS}.weighted_sigmoid_focal.gamma",
            "-1; at least 0",
        ),
        (
            _loss("weighted_sigmoid_focal { alpha: 1 }"),
            f"{_LOSS}.weighted_sigmoid_focal.alpha",
            "1; between 0 and 1",
        ),
        (
            _loss("weighted_sigmoid_focal { }") + _model("hard_example_miner { }"),
            f"{_LOSS}.weighted_sigmoid_focal",
            "hard_example_miner. Take one",
        ),
        (
            _ours("class_balance { threshold: 0 }"),
            f"{_EXTENSION}.class_balance.threshold",
            "than 0",
        ),
        (
            _ours("class_balance { max_repeats: 0.5 }"),
            f"{_EXTENSION}.class_balance.max_repeats",
            "at least 1",
        ),
        (
            _ours("class_balance { }") + "train_input_reader { shuffle: false }",
            f"{_EXTENSION}.class_balance",
            "Set train_input_reader.shuffle: true",
        ),
        (_ours("class_weights { }"), f"{_EXTENSION}.class_weights", "says nothing"),
        (
            _ours("class_weights { inverse_frequency { power: -1 } }"),
            f"{_EXTENSION}.class_weights.inverse_frequency.power",
            "-1; at least 0",
        ),
        (
            _ours("class_weights { inverse_frequency { max_weight: 0.9 } }"),
            f"{_EXTENSION}.class_weights.inverse_frequency.max_weight",
            "0.9; at least 1",
        ),
        (
            _ours("class_weights { weight { name: 'walk' weight: -1 } }"),
            f"{_EXTENSION}.class_weights.weight[0].weight",
            "-1; a number, at least 0",
        ),
        (
            _ours("class_weights { weight { name: 'walk' } }"),
            f"{_EXTENSION}.class_weights.weight[0].weight",
            "missing",
        ),
        (
            _model("second_stage_post_processing { score_converter: SOFTMAX }"),
            f"{_FASTER_RCNN}.second_stage_post_processing.score_converter",
            "set SIGMOID",
        ),
        (
            _model("feature_extractor { first_stage_features_stride: 8 }"),
            f"{_FASTER_RCNN}.feature_extractor.first_stage_features_stride",
            "8; the trunk's Mixed_4f has a cell every 16 pixels",
        ),
        (
            _model("first_stage_anchor_generator { grid_anchor_generator { height_stride: 8 } }"),
            f"{_FASTER_RCNN}.first_stage_anchor_generator.grid_anchor_generator.height_stride",
            "8; .* every 16 pixels",
        ),
        (
            _model("first_stage_anchor_generator { grid_anchor_generator { width_stride: 32 } }"),
            f"{_FASTER_RCNN}.first_stage_anchor_generator.grid_anchor_generator.width_stride",
            "32; .* every 16 pixels",
        ),
        (_ours("clip { fps: 0 }"), f"{_EXTENSION}.clip.fps", "0; .* greater than 0"),
        (_ours("clip { fps: inf }"), f"{_EXTENSION}.clip.fps", "greater than 0"),
        (
            _ours("clip { max_frame_pixels: 0 }"),
            f"{_EXTENSION}.clip.max_frame_pixels",
            "0; at least 1",
        ),
        (_ours("clip { frame_stride: 0 }"), f"{_EXTENSION}.clip.frame_stride", "0; at least 1"),
        (
            _ours("clip { min_frame_stride: 0 }"),
            f"{_EXTENSION}.clip.min_frame_stride",
            "0; at least 1",
        ),
        (
            _ours("clip { frame_stride: 2 min_frame_stride: 3 }"),
            f"{_EXTENSION}.clip.min_frame_stride",
            "3 is more than max_frame_stride, 2",
        ),
        (
            "train_config { data_augmentation_options { random_pad_image { pad_color: 1 } } }",
            r"train_config.data_augmentation_options[1].random_pad_image.pad_color",
            "Take the field out",
        ),
        (
            _model("image_resizer { fixed_shape_resizer { convert_to_grayscale: true } }"),
            f"{_FASTER_RCNN}.image_resizer.fixed_shape_resizer.convert_to_grayscale",
            "rgb_to_gray",
        ),
        (
            "train_input_reader { label_map_path: 'no/such/map.pbtxt' }",
            "train_input_reader.label_map_path",
            "there is no file 'no/such/map.pbtxt'",
        ),
        (
            "eval_input_reader { } eval_input_reader { label_map_path: 'nowhere' }",
            "eval_input_reader[2].label_map_path",
            "there is no file 'nowhere'",
        ),
    ],
)
def test_one_fault_gives_one_message_with_its_field(override, field, message):
    (fault,) = _faults(tiny_pipeline.make_pipeline(override))
    assert fault.startswith(f"{field}: ")

    assert re.search(message, fault), fault


@pytest.mark.parametrize(
    "kind",
    ["random_jpeg_quality", "random_black_patches", "subtract_channel_mean", "autoaugment_image"],
)
def test_augmentations_of_one_image_are_refused(kind):
    override = f"train_config {{ data_augmentation_options {{ {kind} {{ }} }} }}"
    (fault,) = _faults(tiny_pipeline.make_pipeline(override))
    # The tiny pipeline has a flip before it.
    assert fault.startswith(f"train_config.data_augmentation_options[1].{kind}: ")


@pytest.mark.parametrize(
    "kind",
    [
        "random_crop_image",
        "random_rotation90",
        "random_adjust_brightness",
        "random_adjust_contrast",
        "random_adjust_hue",
        "random_adjust_saturation",
        "random_distort_color",
        "random_rgb_to_gray",
        "rgb_to_gray",
        "adjust_gamma",
    ],
)
def test_augmentations_that_work_on_clips_are_allowed(kind):
    override = f"train_config {{ data_augmentation_options {{ {kind} {{ }} }} }}"
    pipeline_check.check(tiny_pipeline.make_pipeline(override), "fine")


@pytest.mark.parametrize(
    ("options", "field", "message"),
    [
        ("iou_threshold: 0.0", "iou_threshold", "0; an overlap, greater than 0 and at most 1"),
        ("iou_threshold: nan", "iou_threshold", "nan; an overlap, greater than 0 and at most 1"),
        ("iou_threshold: [0.5, 0.5]", "iou_threshold", r"\[0.5, 0.5\]; at most 8, each once"),
        ("excluded_timestamps_path: 'e.csv'", "excluded_timestamps_path", "no file 'e.csv'"),
        ("label_types_path: 'bad'", "label_types_path", "bad, line 1: a block without an 'id'"),
        ("label_types_path: 'none'", "label_types_path", "none: no class has a label_type"),
    ],
)
def test_wrong_evaluation_option_is_named(tmp_path, monkeypatch, options, field, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad").write_text("label { name: 'stand' }")
    (tmp_path / "none").write_text("item { name: 'stand' id: 1 }")
    pipeline = tiny_pipeline.make_pipeline(_ours(f"evaluation {{ {options} }}"))
    (fault,) = pipeline_check.find_faults(pipeline)
    assert fault.startswith(f"{_EXTENSION}.evaluation.{field}: ")
    assert re.search(message, fault)


def test_evaluation_options_without_our_metrics_have_no_effect():
    pipeline = tiny_pipeline.make_pipeline(_ours("evaluation { protocol: PYSLOWFAST }"))
    assert not pipeline_check.find_faults(pipeline)
    del pipeline.eval_config.metrics_set[:]
    (fault,) = pipeline_check.find_faults(pipeline)
    assert "no effect without eval_config.metrics_set: 'ava_detection_metrics'" in fault


def test_choice_of_frames_that_fits_together_is_allowed():
    for clip in (
        "fps: 12.5",
        "frame_stride: 3",
        "frame_stride: 2 min_frame_stride: 1",
        "min_frame_stride: 2 max_frame_stride: 2 temporal_jitter_frames: 5",
    ):
        pipeline_check.check(tiny_pipeline.make_pipeline(_ours(f"clip {{ {clip} }}")), "fine")


def test_stride_follows_the_endpoint():
    override = _ours("trunk { final_endpoint: 'Mixed_3c' }")
    faults = _faults(tiny_pipeline.make_pipeline(override))
    assert len(faults) == 3
    assert all("Mixed_3c has a cell every 8 pixels" in fault for fault in faults)


def test_all_faults_are_listed_at_once():
    override = _ours("clip { num_frames: 0 } tx_head { num_heads: 0 dropout_rate: 2 }")
    faults = _faults(tiny_pipeline.make_pipeline(override))
    assert [fault.split(":")[0].rsplit(".", 1)[-1] for fault in faults] == [
        "num_frames",
        "num_heads",
        "dropout_rate",
    ]


def test_label_id_outside_the_classes_is_named_with_its_file(tmp_path):
    label_map = tiny_pipeline.write_label_map(tmp_path / "map.pbtxt", {1: "a", 4: "too high"})
    faults = _faults(tiny_pipeline.make_pipeline(label_map=label_map))
    assert [fault.split(":")[0] for fault in faults] == [
        "train_input_reader.label_map_path",
        "eval_input_reader[0].label_map_path",
    ]
    for fault in faults:
        assert f"'{label_map}' gives 'too high' the id 4" in fault
        assert "model.faster_rcnn.num_classes is 3" in fault


def test_a_background_item_is_no_fault(tmp_path):
    path = tiny_pipeline.write_label_map(tmp_path / "map.pbtxt")
    path.write_text("item { id: 0 name: 'background' }\n" + path.read_text())
    pipeline_check.check(tiny_pipeline.make_pipeline(label_map=path), "some.config")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace("name:", "display_name:"), "write name: in its place"),
        (lambda text: "\ufeff" + text, "does not read it: it begins with a byte order mark"),
    ],
)
def test_label_maps_that_the_records_but_not_the_training_can_be_made_with(
    tmp_path, change, message
):
    path = tiny_pipeline.write_label_map(tmp_path / "map.pbtxt")
    path.write_text(change(path.read_text()))
    faults = _faults(tiny_pipeline.make_pipeline(label_map=path))
    assert len(faults) == 2 and all(message in fault for fault in faults)


@pytest.mark.parametrize(
    "content", ["no label map", "item { id: 0 name: 'background' }", "item { id: 'one' }"]
)
def test_file_that_is_no_label_map(tmp_path, content):
    path = tmp_path / "map.pbtxt"
    path.write_text(content)
    pipeline = tiny_pipeline.make_pipeline()
    pipeline.train_input_reader.label_map_path = str(path)
    (fault,) = _faults(pipeline)
    assert fault.startswith("train_input_reader.label_map_path: ") and str(path) in fault


def test_unknown_feature_extractor_suggests_the_near_one():
    override = _model("feature_extractor { type: 'faster_rcnn_i3d_kera' }")
    (fault,) = _faults(tiny_pipeline.make_pipeline(override))
    assert fault.startswith("model.faster_rcnn.feature_extractor.type: 'faster_rcnn_i3d_kera'")
    assert "Did you mean faster_rcnn_i3d_keras" in fault


def test_unlike_feature_extractor_lists_what_there_is():
    (fault,) = _faults(tiny_pipeline.make_pipeline(_model("feature_extractor { type: 'x' }")))
    assert "faster_rcnn_i3d_keras" in fault and "faster_rcnn_resnet50_keras" in fault


@pytest.mark.parametrize("head", ["i3d_head { }", "tx_i3d_head { }"])
def test_head_needs_layers_behind_the_endpoint(head):
    override = _ours(f"trunk {{ final_endpoint: 'Mixed_5c' }} {head}")
    stride = _model(
        "feature_extractor { first_stage_features_stride: 32 } first_stage_anchor_generator "
        "{ grid_anchor_generator { height_stride: 32 width_stride: 32 } }"
    )
    (fault,) = _faults(tiny_pipeline.make_pipeline(override + stride))
    assert fault.startswith(f"{_EXTENSION}.trunk.final_endpoint: 'Mixed_5c' is the last layer")
    assert head.split()[0] in fault and fault.endswith("MaxPool3d_5a_2x2, Mixed_5b.")
    # The Tx head needs none.
    tx = _ours("trunk { final_endpoint: 'Mixed_5c' }")
    pipeline_check.check(tiny_pipeline.make_pipeline(tx + stride), "fine")


def test_head_that_cannot_go_with_a_trunk(monkeypatch):
    without_tail = dataclasses.replace(i3d.TRUNK, build_tail=None)
    monkeypatch.setitem(builders.TRUNKS, "faster_rcnn_short_keras", without_tail)
    short = _model("feature_extractor { type: 'faster_rcnn_short_keras' }")
    (fault,) = _faults(tiny_pipeline.make_pipeline(short + _ours("i3d_head { }")))
    assert fault.startswith(f"{_EXTENSION}.i3d_head: feature_extractor.type 'faster_rcnn_short")
    assert "Set tx_head, or one of these types: " in fault and "faster_rcnn_i3d_keras" in fault
    assert "short_keras" not in fault.partition("these types")[2]
    pipeline_check.check(tiny_pipeline.make_pipeline(short), "fine")


_TX = f"{_EXTENSION}.tx_head"
_COMBINED = f"{_EXTENSION}.tx_i3d_head.tx_head"


@pytest.mark.parametrize(
    ("options", "field", "remedy"),
    [
        ("i3d_head { } outputs { attention: true }", f"{_EXTENSION}.outputs.attention", "tx_head"),
        (
            "i3d_head { } outputs { key_embeddings: true }",
            f"{_EXTENSION}.outputs.key_embeddings",
            "tx_head",
        ),
        ("tx_head { query_preprocessor: LOW_RES }", f"{_TX}.query_channels", "HIGH_RES"),
        (
            "tx_i3d_head { tx_head { query_preprocessor: LOW_RES query_channels: 8 } }",
            f"{_COMBINED}.query_channels",
            "HIGH_RES",
        ),
        (
            "tx_head { location_embedding { enabled: false embedding_size: 4 } }",
            f"{_TX}.location_embedding.embedding_size",
            "enabled: true",
        ),
    ],
)
def test_option_that_the_head_does_not_read(options, field, remedy):
    (fault,) = _faults(tiny_pipeline.make_pipeline(_ours(options)))
    assert fault.startswith(f"{field}: ")
    assert remedy in fault


def test_options_of_the_combined_head_are_checked():
    override = _ours("tx_i3d_head { tx_head { num_layers: 0 } }")
    (fault,) = _faults(tiny_pipeline.make_pipeline(override))
    assert fault == f"{_COMBINED}.num_layers: 0; it must be at least 1."


def test_stock_models_are_not_checked_but_refuse_our_options():
    resnet = _model("feature_extractor { type: 'faster_rcnn_resnet50_keras' } number_of_stages: 1")
    pipeline = tiny_pipeline.make_pipeline(resnet)
    (fault,) = _faults(pipeline)
    assert fault.startswith(f"{_EXTENSION} has no effect")
    pipeline.ClearExtension(registration.options_lib.EXTENSION)
    pipeline_check.check(pipeline, "stock")
    ssd = tiny_pipeline.parse(f"model {{ ssd {{ }} }} {_ours('')}")
    (fault,) = _faults(ssd)
    assert "belongs to a model of kind faster_rcnn" in fault


# What reading a file adds: its name and line.


def _error_of_reading(path, override=None) -> str:
    with pytest.raises(errors.InputError) as caught:
        registration.read_pipeline(str(path), override)
    return str(caught.value)


def test_unknown_option_names_file_and_line(tmp_path):
    path = tmp_path / "wrong.config"
    text = text_format.MessageToString(tiny_pipeline.make_pipeline())
    line = text[: text.index("num_heads")].count("\n") + 1
    path.write_text(text.replace("num_heads", "number_of_heads"))
    message = _error_of_reading(path)
    assert message.startswith(f"{path}:{line}:")
    assert "number_of_heads" in message


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("tx_head {", "i3d_head { }\ntx_head {", "i3d_head"),
        ("num_heads: 2", "num_heads: 2\n" * 2, ""),
    ],
    ids=["two heads", "the same field"],
)
def test_what_is_said_twice_names_file_and_line(tmp_path, old, new, named):
    path = tmp_path / "wrong.config"
    text = text_format.MessageToString(tiny_pipeline.make_pipeline())
    line = text[: text.index(old)].count("\n") + 2
    path.write_text(text.replace(old, new, 1))
    message = _error_of_reading(path)
    assert message.startswith(f"{path}:{line}:")
    assert named in message and old.split()[0].rstrip(":") in message
    # An override replaces what the file says.
    path.write_text(text)
    pipeline = registration.read_pipeline(str(path), _ours("i3d_head { }"))
    assert builders.head_kind(pipeline.Extensions[registration.options_lib.EXTENSION]) == "i3d_head"


@pytest.mark.parametrize(
    ("old", "new"),
    [("depth_multiplier: 0.1", "depth_multiplier: 'thin'"), ("model {", "model ")],
    ids=["type", "brace"],
)
def test_other_syntax_errors_name_the_file(tmp_path, old, new):
    path = tmp_path / "wrong.config"
    text = text_format.MessageToString(tiny_pipeline.make_pipeline())
    assert old in text
    path.write_text(text.replace(old, new, 1))
    assert _error_of_reading(path).startswith(f"{path}:")


@pytest.mark.parametrize("focal", ["", "gamma: 0", "gamma: 2 alpha: 0.25"])
def test_focal_loss_is_allowed(focal):
    pipeline_check.check(
        tiny_pipeline.make_pipeline(_loss(f"weighted_sigmoid_focal {{ {focal} }}")), "focal"
    )


def test_no_loss_is_softmax_to_the_stock_code():
    pipeline = tiny_pipeline.make_pipeline()
    pipeline.model.faster_rcnn.ClearField("second_stage_classification_loss")
    (fault,) = _faults(pipeline)
    assert fault.startswith(f"{_LOSS}: set weighted_sigmoid") and "takes softmax" in fault


def test_weights_of_actions_are_looked_up_in_the_label_map(tmp_path):
    label_map = tiny_pipeline.write_label_map(tmp_path / "label_map.pbtxt")
    names = ("Walk", "stand", "stand")
    weights = "".join(f"weight {{ name: '{name}' weight: 2 }}" for name in names)
    pipeline = tiny_pipeline.make_pipeline(
        _ours(f"class_weights {{ {weights} }}"), label_map=label_map
    )
    unknown, again = _faults(pipeline)
    where = f"{_EXTENSION}.class_weights.weight"
    assert unknown.startswith(f"{where}[0].name: 'Walk' is not in '{label_map}'.")
    assert unknown.endswith("Did you mean 'walk'?")
    assert again.startswith(f"{where}[2].name: 'stand' has a weight already")


def test_missing_file_is_named(tmp_path):
    assert f"{tmp_path}/no.config" in _error_of_reading(tmp_path / "no.config")


def test_file_that_is_not_text_is_named(tmp_path):
    path = tmp_path / "binary.config"
    path.write_bytes(tiny_pipeline.make_pipeline().SerializeToString() + b"\xff\xfe")
    assert _error_of_reading(path).startswith(f"{path}:")


def test_wrong_override_is_called_so(tmp_path):
    path = tiny_pipeline.write_pipeline(tmp_path / "right.config")
    registration.read_pipeline(str(path))
    assert "override of the pipeline.config" in _error_of_reading(path, "train_config { step: 1 }")
    # A fault that the override brings in is found, too.
    assert "clip.num_frames" in _error_of_reading(path, _ours("clip { num_frames: 0 }"))
