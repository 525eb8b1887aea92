# SPDX-License-Identifier: Apache-2.0
"""A checkpoint that does not fit is refused with its field, and with what would fit."""

import re

import pytest
import tensorflow as tf

from object_detection_ext import pipeline_check, registration
from object_detection_ext.checkpoints import start
from object_detection_ext.trunks import i3d, pretrained
from tests import tiny_pipeline

registration.register()

_EXTENSION = "[object_detection_ext.protos.video_action_transformer]"
_THIN = 0.1  # the tiny pipeline's depth multiplier


def _pipeline(path, more: str = ""):
    return tiny_pipeline.make_pipeline(
        f"train_config {{ fine_tune_checkpoint: '{path}' "
        f"fine_tune_checkpoint_type: 'classification' fine_tune_checkpoint_version: V2 }} {more}"
    )


def _fault(pipeline) -> str:
    with pytest.raises(pipeline_check.PipelineError) as caught:
        start.check(pipeline, "my.config")
    message = str(caught.value)
    assert message.startswith("my.config: train_config.fine_tune_checkpoint")
    return message


@pytest.fixture(scope="module")
def whole_i3d(tmp_path_factory) -> str:
    """All of a thin I3D, as the converter writes it."""
    trunk = i3d.I3D(final_endpoint="Mixed_5c", depth_multiplier=_THIN)
    folder = str(tmp_path_factory.mktemp("i3d"))
    return pretrained.save(pretrained.PretrainedVariables(trunk), folder)


@pytest.mark.parametrize(
    "options",
    ["tx_head { }", "i3d_head { }", "tx_i3d_head { }", "trunk { final_endpoint: 'Mixed_4b' }"],
)
def test_checkpoint_of_the_whole_network_fits_every_head_and_endpoint(whole_i3d, options):
    pipeline = _pipeline(whole_i3d, f"{_EXTENSION} {{ {options} }}")
    before = pipeline.SerializeToString()
    start.check(pipeline, "my.config")
    assert pipeline.SerializeToString() == before


def test_no_checkpoint_is_needed_and_stock_models_are_left_alone():
    start.check(tiny_pipeline.make_pipeline(), "my.config")
    stock = _pipeline("nowhere")
    stock.model.faster_rcnn.feature_extractor.type = "faster_rcnn_resnet50_keras"
    start.check(stock, "my.config")


def test_missing_checkpoint():
    fault = _fault(_pipeline("MODELS/i3d/ckpt"))
    assert "there is no checkpoint 'MODELS/i3d/ckpt'" in fault
    assert "convert_i3d_checkpoint" in fault and "take the field out" in fault


def test_folder_without_a_checkpoint(tmp_path):
    assert f"there is no checkpoint '{tmp_path}'" in _fault(_pipeline(tmp_path))


def test_checkpoint_of_tensorflow_1(tmp_path):
    path = str(tmp_path / "model.ckpt")
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        tf.compat.v1.get_variable("RGB/inception_i3d/w", initializer=1.0, use_resource=False)
        session.run(tf.compat.v1.global_variables_initializer())
        tf.compat.v1.train.Saver().save(session, path)
    fault = _fault(_pipeline(path))
    assert "is a checkpoint of TensorFlow 1" in fault and "convert_i3d_checkpoint" in fault


def test_version(whole_i3d):
    pipeline = _pipeline(whole_i3d)
    pipeline.train_config.ClearField("fine_tune_checkpoint_version")
    fault = _fault(pipeline)
    assert fault.startswith("my.config: train_config.fine_tune_checkpoint_version: set V2")


def test_network_of_another_width(whole_i3d):
    fault = _fault(_pipeline(whole_i3d, f"{_EXTENSION} {{ trunk {{ depth_multiplier: 0.5 }} }}"))
    assert "is of another network" in fault and "missing" not in fault
    assert re.search(r"\d+ of another shape", fault)
    assert "Conv3d_1a_7x7/conv_3d/w [7, 7, 7, 3, 8] instead of [7, 7, 7, 3, 32]" in fault


def test_another_network(whole_i3d):
    other = "model { faster_rcnn { feature_extractor { type: 'faster_rcnn_r3d50_keras' } } }"
    fault = _fault(_pipeline(whole_i3d, other))
    assert "is of another network than feature_extractor.type 'faster_rcnn_r3d50_keras'" in fault
    assert re.search(r"\d+ missing:\n +conv1/", fault)


def test_trunk_without_the_layers_of_the_i3d_head(tmp_path):
    trunk = i3d.I3D(depth_multiplier=_THIN)
    path = pretrained.save(pretrained.PretrainedVariables(trunk), str(tmp_path))
    start.check(_pipeline(path), "my.config")
    fault = _fault(_pipeline(path, f"{_EXTENSION} {{ i3d_head {{ }} }}"))
    assert "48 missing" in fault and "Mixed_5b/Branch_0/Conv3d_0a_1x1/conv_3d/w" in fault


@pytest.fixture(scope="module")
def detector(tmp_path_factory) -> str:
    """The checkpoint of a training, in so far as it is looked at."""
    checkpoint = tf.train.Checkpoint(model=tf.train.Checkpoint(weight=tf.Variable(1.0)))
    return checkpoint.save(str(tmp_path_factory.mktemp("detector") / "ckpt"))


def test_type_that_does_not_go_with_the_checkpoint(detector, whole_i3d):
    assert "holds no trunk" in _fault(_pipeline(detector))
    whole = _pipeline(detector)
    whole.train_config.fine_tune_checkpoint_type = "full"
    start.check(whole, "my.config")
    whole.train_config.fine_tune_checkpoint = whole_i3d
    assert "holds no detector, as fine_tune_checkpoint_type 'full' needs" in _fault(whole)


@pytest.mark.parametrize(("from_detection", "fits"), [(False, False), (True, True)])
def test_type_that_is_not_set_is_the_stock_default(detector, from_detection, fits):
    pipeline = _pipeline(detector)
    pipeline.train_config.ClearField("fine_tune_checkpoint_type")
    pipeline.train_config.from_detection_checkpoint = from_detection
    if fits:
        start.check(pipeline, "my.config")
    else:
        assert "'classification' needs" in _fault(pipeline)
