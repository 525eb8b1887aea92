# SPDX-License-Identifier: Apache-2.0
"""A checkpoint and a config that do not belong together are reported apart, and why."""

import pathlib
import shutil

import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import text_format

from object_detection_ext import registration
from object_detection_ext.checkpoints import files, matching, model_variables
from tests import tiny_pipeline
from tests.checkpoints import trained

registration.register()

_SHORT = tiny_pipeline.SHORT_TRUNK
_EXTENSION = "[object_detection_ext.protos.video_action_transformer]"
_CLASS_SPECIFIC = (
    "model { faster_rcnn { second_stage_box_predictor { mask_rcnn_box_predictor "
    "{ share_box_across_classes: false } } } }"
)
_MORE_ANCHORS = (
    "model { faster_rcnn { first_stage_anchor_generator { grid_anchor_generator { scales: 2 } } } }"
)


def _trunk(kind: str) -> str:
    return f"model {{ faster_rcnn {{ feature_extractor {{ type: 'faster_rcnn_{kind}_keras' }} }} }}"


def _options(text: str) -> str:
    return f"{_EXTENSION} {{ {text} }}"


def _check(override: str, contents: files.Contents) -> list[str]:
    """Gives what was said."""
    said = []
    pipeline = tiny_pipeline.make_pipeline(_SHORT + override)
    matching.check(pipeline, contents, "my.config", said.append)
    return said


def _refusal(override: str, contents: files.Contents) -> str:
    with pytest.raises(matching.MismatchError) as info:
        _check(override, contents)
    assert info.value.exit_status == 2
    return str(info.value)


@pytest.fixture(scope="module")
def contents(tmp_path_factory) -> files.Contents:
    """Of a checkpoint of the tiny model with its Tx head."""
    folder = tmp_path_factory.mktemp("trained")
    return files.read(trained.write(tiny_pipeline.make_pipeline(_SHORT), folder))


_MODELS = {
    "tx_head": "",
    "i3d_head": _options("i3d_head { }"),
    "tx_i3d_head": _options("tx_i3d_head { tx_head { num_layers: 2 feature_size: 8 } }"),
    "s3dg, low res": _trunk("s3dg") + _options("tx_head { query_preprocessor: LOW_RES }"),
    "class-specific, no location": (
        _CLASS_SPECIFIC + _options("tx_head { location_embedding { enabled: false } }")
    ),
    "groundtruth boxes": _options("proposals { source: GROUND_TRUTH }"),
}


@pytest.mark.parametrize(
    ("model", "optimizer"),
    [
        ("tx_head", "averages"),
        ("i3d_head", "adam"),
        pytest.param("tx_head", "momentum", marks=pytest.mark.slow),
        pytest.param("tx_head", "adam, averages", marks=pytest.mark.slow),
        pytest.param("tx_i3d_head", "averages", marks=pytest.mark.slow),
        pytest.param("s3dg, low res", "adam", marks=pytest.mark.slow),
        pytest.param("class-specific, no location", "momentum", marks=pytest.mark.slow),
        pytest.param("groundtruth boxes", "adam", marks=pytest.mark.slow),
    ],
)
def test_checkpoint_of_the_model_passes_with_every_optimizer(tmp_path, model, optimizer):
    pipeline = tiny_pipeline.make_pipeline(_SHORT + _MODELS[model])
    contents = files.read(trained.write(pipeline, tmp_path, optimizer))
    assert any(".OPTIMIZER_SLOT" in key for key in contents.shapes)
    _check(_MODELS[model], contents)


@pytest.mark.slow
@pytest.mark.parametrize("trunk", ["i3d", "s3dg", "r3d50", "r3d50_non_local"])
def test_checkpoint_of_every_trunk_passes(tmp_path, trunk):
    pipeline = tiny_pipeline.make_pipeline(_trunk(trunk))
    contents = files.read(trained.write(pipeline, tmp_path, "adam"))
    matching.check(pipeline, contents, "my.config", pytest.fail)
    other = "s3dg" if trunk == "i3d" else "i3d"
    with pytest.raises(matching.MismatchError) as info:
        matching.check(tiny_pipeline.make_pipeline(_trunk(other)), contents, "my.config")
    assert (
        f"  feature_extractor.type: faster_rcnn_{trunk}_keras in the checkpoint, "
        f"faster_rcnn_{other}_keras in my.config\n"
    ) in str(info.value)


_TX_HEAD = "tx_head { num_layers: 1 feature_size: 16 ffn_size: 16 query_channels: 8 }"
_CAUSES = {
    _options("tx_head { num_layers: 5 }"): "tx_head.num_layers: 1 in the checkpoint, 5",
    _options("tx_head { num_heads: 4 }"): "tx_head.num_heads: 2 in the checkpoint, 4",
    _options("tx_head { feature_size: 8 }"): "tx_head.feature_size: 16 in the checkpoint, 8",
    _options("tx_head { ffn_size: 8 }"): "tx_head.ffn_size: 16 in the checkpoint, 8",
    _options("tx_head { query_channels: 4 }"): "tx_head.query_channels: 8 in the checkpoint, 4",
    _options("tx_head { query_preprocessor: LOW_RES }"): (
        "tx_head.query_preprocessor: HIGH_RES in the checkpoint, LOW_RES"
    ),
    _options("tx_head { location_embedding { enabled: false } }"): (
        "tx_head.location_embedding.enabled: true in the checkpoint, false"
    ),
    _options("tx_head { location_embedding { embedding_size: 4 } }"): (
        "tx_head.location_embedding.embedding_size: 8 in the checkpoint, 4"
    ),
    _options("i3d_head { }"): "head: tx_head in the checkpoint, i3d_head",
    _options(f"tx_i3d_head {{ {_TX_HEAD} }}"): "head: tx_head in the checkpoint, tx_i3d_head",
    _options("trunk { depth_multiplier: 0.2 }"): (
        "trunk.depth_multiplier (channels of Conv3d_2c_3x3): 19 in the checkpoint, 38"
    ),
    _options("trunk { final_endpoint: 'Mixed_3b' }"): (
        "last layer of the trunk with weights: Conv3d_2c_3x3 in the checkpoint, Mixed_3b"
    ),
    _trunk("s3dg"): (
        "feature_extractor.type: faster_rcnn_i3d_keras in the checkpoint, faster_rcnn_s3dg_keras"
    ),
    "model { faster_rcnn { num_classes: 7 } }": "num_classes: 3 in the checkpoint, 7",
    "model { faster_rcnn { num_classes: 1 } }": "num_classes: 3 in the checkpoint, 1",
    _CLASS_SPECIFIC: "share_box_across_classes: true in the checkpoint, false",
    "model { faster_rcnn { first_stage_box_predictor_depth: 8 } }": (
        "first_stage_box_predictor_depth: 16 in the checkpoint, 8"
    ),
    _MORE_ANCHORS: ("anchors of a cell (scales x aspect ratios): 4 in the checkpoint, 6"),
}


@pytest.mark.parametrize("override", _CAUSES)
def test_every_option_with_variables_is_found_and_named(contents, override):
    lines = _refusal(override, contents).splitlines()
    assert (
        lines[0] == f"The checkpoint '{contents.prefix}' does not belong to the model of my.config."
    )
    assert f"  {_CAUSES[override]} in my.config" in lines
    # And no guess too many: one line between the headings.
    assert lines[1].startswith("By its variables") and lines[3].startswith(
        "Use the pipeline.config"
    )


def test_shapes_that_differ_are_listed_with_both(contents):
    text = _refusal("model { faster_rcnn { num_classes: 7 } }", contents)
    layers = "model/_mask_rcnn_box_predictor/_class_head/_class_predictor_layers/1"
    assert text.endswith(
        "2 variables have another shape:\n"
        f"  {layers}/bias: [8] in the model, [4] in the checkpoint\n"
        f"  {layers}/kernel: [32, 8] in the model, [32, 4] in the checkpoint"
    )


def test_missing_ones_are_counted_and_twenty_of_them_listed(contents):
    lines = _refusal(_options("tx_head { num_layers: 5 }"), contents).splitlines()
    # 4 layers of 2 heads with 3 projections, 2 layers of the FFN, 2 norms: 14 variables.
    start = lines.index("112 variables of the model are missing in the checkpoint:")
    assert lines[start + 21 :] == ["  ... and 92 more"]
    assert all("/units/1/" in line for line in lines[start + 1 : start + 21])


def test_left_over_ones_are_refused_too(tmp_path):
    """All of the model is there; the checkpoint is of a larger one."""
    pipeline = tiny_pipeline.make_pipeline(_SHORT + _options("tx_head { num_layers: 2 }"))
    text = _refusal("", files.read(trained.write(pipeline, tmp_path)))
    assert "28 variables of the checkpoint are not in the model:\n" in text
    assert "tx_head.num_layers: 2 in the checkpoint, 1 in my.config" in text
    assert "missing" not in text and "another shape" not in text


@pytest.mark.parametrize("place", ["model", "model/best", "export/checkpoint"])
def test_pipeline_config_beside_the_checkpoint_or_above_is_compared(tmp_path, contents, place):
    folder = tmp_path / place
    shutil.copytree(pathlib.Path(contents.prefix).parent, folder)
    trained_with = tiny_pipeline.make_pipeline(_SHORT)
    beside = folder.parent / "pipeline.config"
    beside.write_text(text_format.MessageToString(trained_with))
    override = _options("tx_head { num_layers: 5 } clip { fps: 30 }")
    text = _refusal(override, files.read(str(folder / "ckpt-1")))
    assert f"'{beside}', beside the checkpoint and without any --config_override, says:\n" in text
    assert "\n  video_action_transformer.tx_head.num_layers: 1, not 5\n" in text
    assert "fps" not in text and "learning_rate" not in text  # they change no variable


def test_pipeline_config_that_is_not_readable_does_not_matter(tmp_path, contents):
    folder = tmp_path / "model"
    shutil.copytree(pathlib.Path(contents.prefix).parent, folder)
    (folder / "pipeline.config").write_text("not a { pipeline")
    text = _refusal(_options("i3d_head { }"), files.read(str(folder / "ckpt-1")))
    assert "head: tx_head in the checkpoint" in text and "beside the checkpoint" not in text


def test_weights_of_a_trunk_are_not_a_model(tmp_path):
    prefix = tf.train.Checkpoint(feature_extractor=tf.Variable(1.0)).write(str(tmp_path / "i3d"))
    text = _refusal("", files.read(prefix))
    assert "holds no weights of a detector: no variable" in text
    assert "fine_tune_checkpoint" in text


def test_checkpoint_of_step_0_has_no_weights(tmp_path):
    """The stock train loop saves one before the model has made its variables."""
    saved = tf.train.Checkpoint(step=tf.Variable(0, dtype=tf.int64), model=tf.Module())
    text = _refusal("", files.read(saved.save(str(tmp_path / "ckpt"))))
    assert "it was written before the first step" in text


def test_stock_models_pass(contents):
    stock = text_format.Parse("model { ssd { } }", type(tiny_pipeline.make_pipeline())())
    matching.check(stock, contents, "my.config", pytest.fail)


@pytest.mark.parametrize("trained_in, used_in", [("FLOAT32", "BFLOAT16"), ("BFLOAT16", "FLOAT32")])
def test_checkpoint_goes_with_another_precision(tmp_path, trained_in, used_in):
    def pipeline(precision):
        compute = _options(f"compute {{ precision: {precision} }}")
        return tiny_pipeline.make_pipeline(_SHORT + compute)

    prefix = trained.write(pipeline(trained_in), tmp_path, "momentum")
    contents = files.read(prefix)
    assert _check(_options(f"compute {{ precision: {used_in} }}"), contents) == []
    reader = tf.train.load_checkpoint(prefix)
    floats = {kind for kind in reader.get_variable_to_dtype_map().values() if kind.is_floating}
    assert floats == {tf.float32}
    model = trained.build(pipeline(used_in))
    tf.train.Checkpoint(model=model).restore(prefix).assert_existing_objects_matched()
    variables = model_variables.of_model(model)
    assert variables.keys() == model_variables.of_contents(contents).keys()
    for name, variable in variables.items():
        assert variable.dtype == tf.float32
        np.testing.assert_array_equal(variable, reader.get_tensor(model_variables.key(name)))


def test_precision_and_weights_of_classes_are_no_cause(tmp_path, contents):
    config = tiny_pipeline.make_pipeline(
        _SHORT
        + _options(
            "compute { precision: BFLOAT16 } class_weights { weight { name: 'walk' weight: 2 } } "
            "class_balance { }"
        )
    )
    config.model.faster_rcnn.num_classes = 5
    for path in pathlib.Path(contents.prefix).parent.glob("ckpt-1.*"):
        shutil.copy(path, tmp_path)
    (tmp_path / "pipeline.config").write_text(text_format.MessageToString(config))
    text = _refusal(_options("tx_head { feature_size: 8 }"), files.read(str(tmp_path / "ckpt-1")))
    assert "model.faster_rcnn.num_classes: 5, not 3" in text
    assert not any(name in text for name in ("compute", "class_weights", "class_balance"))
