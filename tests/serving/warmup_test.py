# SPDX-License-Identifier: Apache-2.0
"""Warm-up records, read back and run as TF Serving does."""

import sys

import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import text_format
from object_detection.protos import image_resizer_pb2
from tensorflow_serving.apis import prediction_log_pb2

from object_detection_ext import exporting, registration
from object_detection_ext.serving import warmup
from tests import tiny_pipeline
from tests.checkpoints import trained
from tests.serving import fake_servers

registration.register()

_OF_CLIP = {"num_frames": fake_servers.T, "record_stride": 2, "frame_size": (32, 48)}


def _written(folder, input_type: str) -> prediction_log_pb2.PredictionLog:
    assert warmup.write(str(folder), input_type, **_OF_CLIP)
    return _read(folder)


def _read(saved_model) -> prediction_log_pb2.PredictionLog:
    path = saved_model / "assets.extra" / "tf_serving_warmup_requests"
    (record,) = tf.data.TFRecordDataset(str(path)).as_numpy_iterator()
    return prediction_log_pb2.PredictionLog.FromString(record)


@pytest.mark.parametrize("input_type", list(fake_servers.DETECTORS))
def test_record_runs_on_the_model_s_signature(tmp_path, input_type):
    log = _written(tmp_path, input_type)
    assert log.WhichOneof("log_type") == "predict_log"
    request = log.predict_log.request
    assert request.model_spec.signature_name == "serving_default"
    assert not request.output_filter  # all outputs are warmed up
    assert request.ByteSize() < 20_000
    request.model_spec.name = fake_servers.MODEL_NAME  # TF Serving knows whose file it reads
    outputs = fake_servers.model(input_type).predict(request)
    gray = 128 / 255
    np.testing.assert_allclose(outputs["detection_scores"], [[gray / 2, gray, gray / 4]], rtol=0.01)


def test_clip_of_pixels_has_its_size_without_its_bytes(tmp_path):
    inputs = _written(tmp_path, "clip_and_boxes").predict_log.request.inputs
    assert inputs["input_tensor"].ByteSize() < 100
    clip = tf.make_ndarray(inputs["input_tensor"])
    assert clip.dtype == np.uint8 and clip.shape == (1, fake_servers.T, 32, 48, 3)
    assert (clip == 128).all()
    np.testing.assert_array_equal(
        tf.make_ndarray(inputs["boxes"]), np.float32([[[0.25, 0.25, 0.75, 0.75]]])
    )


def test_sequence_example_has_frames_for_the_stride(tmp_path):
    (record,) = tf.make_ndarray(
        _written(tmp_path, "tf_sequence_example").predict_log.request.inputs["input_tensor"]
    )
    lists = tf.train.SequenceExample.FromString(record).feature_lists.feature_list
    assert len(lists["image/encoded"].feature) == 2 * fake_servers.T
    annotated = [each.int64_list.value[0] for each in lists["region/is_annotated"].feature]
    assert annotated == [0, 0, 0, 0, 1, 0, 0, 0]


def test_without_the_package_one_line_says_how_to_get_it(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "tensorflow_serving", None)
    assert not warmup.write(str(tmp_path), "clip_tensor", **_OF_CLIP)
    assert not list(tmp_path.iterdir())
    (line,) = capsys.readouterr().out.splitlines()
    assert "No warm-up requests" in line and "tensorflow-serving-api==2.19.1" in line


def test_export_of_a_clip_model_ends_with_it(tmp_path):
    """After the stock exporter, which here does nothing; exported_models_test has the whole."""
    done = []
    pipeline = tiny_pipeline.make_pipeline(
        "[object_detection_ext.protos.video_action_transformer] { clip { frame_stride: 2 } }",
        label_map=tiny_pipeline.write_label_map(tmp_path / "label_map.pbtxt"),
    )
    trained.write(pipeline, tmp_path)
    exporting.wrap_export(lambda *arguments: done.append(arguments[0]))(
        "tf_sequence_example", pipeline, str(tmp_path), str(tmp_path / "out")
    )
    assert done == ["tf_sequence_example"]
    (record,) = tf.make_ndarray(
        _read(tmp_path / "out" / "saved_model").predict_log.request.inputs["input_tensor"]
    )
    lists = tf.train.SequenceExample.FromString(record).feature_lists.feature_list
    frames = [each.bytes_list.value[0] for each in lists["image/encoded"].feature]
    assert len(frames) == 2 * tiny_pipeline.NUM_FRAMES
    assert tf.io.decode_jpeg(frames[0]).shape == [64, 64, 3]  # the resizer's


@pytest.mark.parametrize(
    ("resizer", "expected"),
    [
        ("fixed_shape_resizer { height: 400 width: 320 }", (400, 320)),
        ("keep_aspect_ratio_resizer { min_dimension: 360 max_dimension: 1000 }", (360, 640)),
        ("keep_aspect_ratio_resizer { min_dimension: 360 max_dimension: 400 }", (360, 400)),
        ("identity_resizer { }", (256, 256)),
        ("", (256, 256)),
    ],
)
def test_size_of_frames_is_the_resizer_s(resizer, expected):
    parsed = text_format.Parse(resizer, image_resizer_pb2.ImageResizer())
    assert warmup.frame_size(parsed) == expected
