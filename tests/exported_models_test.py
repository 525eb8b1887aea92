# SPDX-License-Identifier: Apache-2.0
"""Each head, exported and loaded again, gives what its checkpoint gives; each by another input.

The HighRes head and clips of pixels are end_to_end_test's, on what it has trained.

What is compared with is the model itself: built anew, its checkpoint restored, run op by op on
pixels that are resized and rounded as the evaluation's input is.

Shapes: B clips, T frames, H W pixels, G boxes of a clip.
"""

import csv
import functools
import pathlib
from typing import NamedTuple

import numpy as np
import pytest
import tensorflow as tf
from object_detection import exporter_lib_v2

from object_detection_ext import exporting, registration
from object_detection_ext import options as options_lib
from object_detection_ext.ava import label_maps
from object_detection_ext.data import clip_packing
from object_detection_ext.protos import video_action_transformer_pb2 as vat_pb2
from object_detection_ext.serving import client as client_lib
from object_detection_ext.serving import inputs
from object_detection_ext.tools import serving_client
from object_detection_ext.visualization import drawing
from tests import tiny_pipeline
from tests.serving import fake_servers

registration.register()

# Each export takes 15 to 30 s. `make test` has one, in end_to_end_test, and what exported modules
# compute, in exporting_test.
pytestmark = pytest.mark.slow

# Not that of the model, which is 64x64.
_HEIGHT, _WIDTH = 50, 70
_FPS, _RECORD_STRIDE = 20.0, 2
_ATTENTION = "outputs { attention: true key_embeddings: true }"
_TX = "num_layers: 1 feature_size: 16 ffn_size: 16"


class _Case(NamedTuple):
    """A model and what it takes."""

    input_type: str
    options: str
    trunk: str = ""


_CASES = {
    "tx low": _Case(
        "tf_sequence_example",
        f"tx_head {{ {_TX} query_preprocessor: LOW_RES }} {_ATTENTION}",
        tiny_pipeline.SHORT_TRUNK,
    ),
    # The tail begins where the trunk ends, so that a short trunk would save nothing.
    "i3d": _Case("clip_and_boxes", "i3d_head { } proposals { source: GROUND_TRUTH }"),
    "tx+i3d": _Case("encoded_clip", f"tx_i3d_head {{ tx_head {{ {_TX} }} }} {_ATTENTION}"),
}


class _Export:
    """A model with random weights: its checkpoint and its SavedModel."""

    def __init__(self, folder: pathlib.Path, case: _Case):
        self.case = case
        self._pipeline = tiny_pipeline.make_pipeline(
            f"""{case.trunk} [object_detection_ext.protos.video_action_transformer] {{
              clip {{ fps: {_FPS} frame_stride: {_RECORD_STRIDE} }} {case.options}
            }}""",
            label_map=tiny_pipeline.write_label_map(folder / "some_map.pbtxt"),
        )
        head = self._pipeline.Extensions[options_lib.EXTENSION].tx_head
        if head.query_preprocessor == vat_pb2.TxHead.LOW_RES:
            head.ClearField("query_channels")  # only the other one has them
        self._model_dir = folder / "model"
        model = self._built()
        _detections(model, self.clips(), self.boxes())  # makes the variables
        tf.train.Checkpoint(model=model).save(str(self._model_dir / "ckpt"))
        exporter_lib_v2.export_inference_graph(
            case.input_type, self._pipeline, str(self._model_dir), str(folder / "exported")
        )
        self.saved_model = folder / "exported" / "saved_model"
        self.loaded = fake_servers.LoadedModel(str(self.saved_model))
        self.detect = self.loaded.functions["serving_default"]

    def _built(self):
        return tiny_pipeline.build_model(self._pipeline, is_training=False)

    @functools.cached_property
    def restored(self):
        """The model with the checkpoint's weights."""
        model = self._built()
        path = tf.train.latest_checkpoint(str(self._model_dir))
        status = tf.train.Checkpoint(model=model).restore(path)
        _detections(model, self.clips(), self.boxes())
        status.assert_consumed()
        return model

    def clips(self, batch: int = 2) -> np.ndarray:
        """Noise, uint8 [B, T, H, W, 3]."""
        shape = [batch, tiny_pipeline.NUM_FRAMES, _HEIGHT, _WIDTH, 3]
        return np.random.default_rng(3).integers(0, 256, shape, np.uint8)

    def boxes(self) -> np.ndarray | None:
        """Float [2, 2, 4], the last one padding; None for a model with proposals of its own."""
        if self.case.input_type != "clip_and_boxes":
            return None
        people = [[[0.1, 0.1, 0.7, 0.5], [0.3, 0.5, 0.9, 0.9]], [[0.2, 0.1, 0.6, 0.8], [0.0] * 4]]
        return np.float32(people)


@pytest.fixture(scope="module")
def exports(tmp_path_factory):
    """The exported model of a head; made when it is first asked for."""

    @functools.cache
    def get(head: str) -> _Export:
        return _Export(tmp_path_factory.mktemp("export"), _CASES[head])

    return get


def _detections(model, clips: np.ndarray, boxes: np.ndarray | None = None):
    """All that a model finds in clips, uint8 [B, T, H, W, 3], by itself, with ids as classes."""
    packed = [tf.cast(clip_packing.pack_clip(tf.constant(clip)), tf.float32) for clip in clips]
    resized = tf.stack([model.image_resizer(clip)[0] for clip in packed])
    images, shapes = model.preprocess(tf.floor(resized + 0.5))
    given = {} if boxes is None else {"proposal_boxes": tf.constant(boxes)}
    found = model.postprocess(model.predict(images, shapes, **given), shapes)
    return {
        name: value.numpy() + (1 if name == "detection_classes" else 0)
        for name, value in found.items()
    }


def _assert_same(actual, expected):
    assert set(actual) == set(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(actual[name], value, atol=1e-5, err_msg=name)


def _records(clips: np.ndarray) -> list[bytes]:
    """Records in which the clips are every second frame around the annotated one, or the middle."""
    other = np.full([_HEIGHT, _WIDTH, 3], 7, np.uint8)
    records = []
    for clip, annotated in zip(clips, (True, False), strict=True):
        frames = [tiny_pipeline.encode_png(frame) for taken in clip for frame in (taken, other)]
        # Frame T // 2 of the clip; behind it are 3 frames, before it 4 and those that come here.
        before = [tiny_pipeline.encode_png(other)] * 6 if annotated else []
        people = {len(before) + 4: [([0.1, 0.1, 0.7, 0.5], "walk")]} if annotated else {}
        records.append(tiny_pipeline.make_record([*before, *frames], people))
    return records


def _inputs(export: _Export) -> dict[str, tf.Tensor]:
    """The clips and boxes as the signature takes them."""
    clips = export.clips()
    encoded = [[tiny_pipeline.encode_png(frame) for frame in clip] for clip in clips]
    of_type = {
        "encoded_clip": lambda: {"input_tensor": encoded},
        "tf_sequence_example": lambda: {"input_tensor": _records(clips)},
        "clip_and_boxes": lambda: {"input_tensor": clips, "boxes": export.boxes()},
    }[export.case.input_type]
    return {name: tf.constant(value) for name, value in of_type().items()}


@pytest.mark.parametrize("head", _CASES)
def test_saved_model_gives_what_the_checkpoint_gives(exports, head):
    export = exports(head)
    expected = _detections(export.restored, export.clips(), export.boxes())
    assert {"detection_multiclass_scores", "raw_detection_boxes"} <= set(expected)
    assert ("detection_attention" in expected) == ("key_embeddings" in expected) == ("tx" in head)
    assert expected["num_detections"].min() > 0
    for name in ("detection_boxes", "detection_scores"):
        assert np.ptp(expected[name], axis=0).max() > 1e-3, f"{name} of both clips are the same"
    _assert_same(export.detect(**_inputs(export)), expected)


@pytest.mark.parametrize("count", [0, 1])
def test_any_number_of_boxes_gives_what_the_checkpoint_gives(exports, count):
    export = exports("i3d")
    boxes, clips = export.boxes()[:, :count], export.clips()
    expected = _detections(export.restored, clips, boxes)
    assert (expected["num_detections"].min() > 0) == (count > 0)
    _assert_same(export.detect(input_tensor=tf.constant(clips), boxes=tf.constant(boxes)), expected)


@pytest.mark.parametrize("head", _CASES)
def test_label_map_and_description_travel_in_the_assets(exports, head):
    export = exports(head)
    assets = export.saved_model / "assets"
    assert label_maps.read_label_map(str(assets / "label_map.pbtxt")) == tiny_pipeline.ACTIONS
    description = exporting.ClipDescription.from_json((assets / "clip.json").read_text())
    assert description == exporting.ClipDescription(
        export.case.input_type, tiny_pipeline.NUM_FRAMES, 10.0, _RECORD_STRIDE, 6, (64, 64)
    )


@pytest.mark.parametrize("head", _CASES)
def test_nothing_is_saved_that_nobody_calls(exports, head):
    content = (exports(head).saved_model / "saved_model.pb").read_bytes()
    assert b"serving_default" in content and b"ActionBoxPredictor" in content
    # What Keras would add for each layer.
    assert content.count(b"layer_call_and_return_conditional_losses") == 0


@pytest.mark.parametrize("head", _CASES)
def test_warm_up_request_runs_on_the_signature(exports, head):
    export = exports(head)
    request = fake_servers.warmup_request(export.saved_model)
    outputs = export.loaded.predict(request)
    assert set(outputs) == set(export.detect.structured_outputs)
    for name, value in outputs.items():
        # TF Serving batches requests only if all outputs have the batch in front.
        assert value.shape[0] == 1 and np.isfinite(value).all(), name


@pytest.mark.parametrize("head", _CASES)
def test_servers_signature_tells_the_input_type(exports, head):
    export = exports(head)
    with fake_servers.grpc_server(export.loaded) as address:
        client = client_lib.GrpcClient(address, fake_servers.MODEL_NAME)
        assert inputs.model_input(client.signature_inputs()).input_type == export.case.input_type


def _noise_video(folder: pathlib.Path, seconds: float) -> str:
    shape = [round(seconds * _FPS), _HEIGHT, _WIDTH, 3]
    noise = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    drawing.write_video(folder / "noise.mp4", iter(noise), _FPS)
    return str(folder / "noise.mp4")


def test_video_through_both_protocols(exports, tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "localhost")
    export, video = exports("tx+i3d"), _noise_video(tmp_path, 1.5)
    servers = {"server": fake_servers.grpc_server, "rest": fake_servers.rest_server}
    written = []
    for protocol, served in servers.items():
        with served(export.loaded) as address:
            path = serving_client.run(
                serving_client.Options(
                    video=video, output=str(tmp_path / protocol),
                    saved_model=str(export.saved_model), score_threshold=0.0, batch_size=2,
                    **{protocol: address},
                )
            )  # fmt: skip
        written.append(list(csv.reader(open(path))))
    assert written[0] == written[1]
    assert {row[1] for row in written[0]} == {"0000", "0001"}
    assert {int(row[6]) for row in written[0]} <= set(tiny_pipeline.ACTIONS)
