# SPDX-License-Identifier: Apache-2.0
"""A tiny model as it is really exported, served over both protocols, warmed up, sent a video."""

import csv

import numpy as np
import pytest
import tensorflow as tf
from object_detection import exporter_lib_v2
from tensorflow_serving.apis import prediction_log_pb2

from object_detection_ext import exporting, input_types, registration
from object_detection_ext.serving import client as client_lib
from object_detection_ext.serving import inputs
from object_detection_ext.tools import serving_client
from object_detection_ext.visualization import drawing
from tests import tiny_pipeline
from tests.serving import fake_servers

registration.register()

_FPS = 12.5
_OPTIONS = (
    f"[object_detection_ext.protos.video_action_transformer] {{ clip {{ fps: {_FPS} }} "
    "outputs { attention: true } }"
)


def _export(folder, input_type: str) -> str:
    """Exports an untrained model; returns the folder of the SavedModel."""
    label_map = tiny_pipeline.write_label_map(folder / "label_map.pbtxt")
    pipeline = tiny_pipeline.make_pipeline(_OPTIONS, label_map=label_map)
    model = tiny_pipeline.build_model(pipeline, is_training=False)
    # Once through it, so that it has its variables.
    clip = tf.zeros([1, tiny_pipeline.NUM_FRAMES, 64, 64, 3], tf.uint8)
    exporting.MODULES["clip_tensor"](model)._detect(clip)
    tf.train.Checkpoint(model=model).save(str(folder / "model" / "ckpt"))
    exporter_lib_v2.export_inference_graph(
        input_type, pipeline, str(folder / "model"), str(folder / "exported")
    )
    return str(folder / "exported" / "saved_model")


def _warmup_request(saved_model: str):
    path = f"{saved_model}/assets.extra/tf_serving_warmup_requests"
    (record,) = tf.data.TFRecordDataset(path).as_numpy_iterator()
    request = prediction_log_pb2.PredictionLog.FromString(record).predict_log.request
    request.model_spec.name = fake_servers.MODEL_NAME
    return request


@pytest.mark.slow
@pytest.mark.parametrize("input_type", ["clip_and_boxes", "tf_sequence_example"])
def test_served_warm_up_gives_what_the_signature_gives(tmp_path, input_type):
    saved_model = _export(tmp_path, input_type)
    arrays = {
        name: tf.make_ndarray(proto) for name, proto in _warmup_request(saved_model).inputs.items()
    }
    model = fake_servers.LoadedModel(saved_model)
    signature = model.functions["serving_default"]
    expected = signature(**{name: tf.constant(value) for name, value in arrays.items()})
    with fake_servers.grpc_server(model) as address:
        client = client_lib.GrpcClient(address, "vat")
        assert inputs.model_input(client.signature_inputs()).input_type == input_type
        found = client.predict(arrays, outputs=[])
    assert set(input_types.DETECTIONS) < set(found) == set(expected)
    for name, value in found.items():
        # TF Serving batches requests only if all outputs have the batch in front.
        assert value.shape[0] == 1, name
        np.testing.assert_allclose(value, expected[name], atol=1e-6, err_msg=name)


@pytest.mark.slow
def test_video_through_both_protocols(tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "localhost")
    saved_model = _export(tmp_path, "encoded_clip")
    model = fake_servers.LoadedModel(saved_model)
    assert model.predict(_warmup_request(saved_model))["detection_attention"].shape[0] == 1
    noise = np.random.default_rng(0).integers(0, 256, [25, 48, 64, 3], np.uint8)
    drawing.write_video(tmp_path / "noise.mp4", iter(noise), _FPS)
    servers = {"server": fake_servers.grpc_server, "rest": fake_servers.rest_server}
    written = []
    for protocol, served in servers.items():
        with served(model) as address:
            path = serving_client.run(
                serving_client.Options(
                    video=str(tmp_path / "noise.mp4"), output=str(tmp_path / protocol),
                    saved_model=saved_model, score_threshold=0.0, batch_size=2,
                    **{protocol: address},
                )
            )  # fmt: skip
        written.append(list(csv.reader(open(path))))
    assert written[0] == written[1]
    assert {row[1] for row in written[0]} == {"0000", "0001"}
    assert {int(row[6]) for row in written[0]} <= set(tiny_pipeline.ACTIONS)
