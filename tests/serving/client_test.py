# SPDX-License-Identifier: Apache-2.0
"""Both clients against servers on real sockets that run a SavedModel.

Shapes: B clips, T frames, H W pixels.
"""

import http.server
import io
import socket
import subprocess
import sys
import threading

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from object_detection_ext import errors
from object_detection_ext.serving import client as client_lib
from object_detection_ext.serving import inputs
from tests.serving import certificates, fake_servers

_T = fake_servers.T
_CLIENTS = {"grpc": client_lib.GrpcClient, "rest": client_lib.RestClient}
_SERVERS = {"grpc": fake_servers.grpc_server, "rest": fake_servers.rest_server}


@pytest.fixture
def models():
    return {input_type: fake_servers.model(input_type) for input_type in fake_servers.DETECTORS}


@pytest.fixture(params=list(_CLIENTS))
def protocol(request, monkeypatch):
    monkeypatch.setenv("no_proxy", "localhost")
    return request.param


def _clip(level: int) -> list[np.ndarray]:
    """Frames of 32x48, brighter than `level` by 20 a frame; the middle one, 2, is as bright as."""
    return [np.full((32, 48, 3), level + 20 * (k - _T // 2), np.uint8) for k in range(_T)]


def _inputs(input_type: str, levels=(100, 200)) -> inputs.Inputs:
    encode = inputs.frame_encoder(input_type, short_side=24)
    clips = [[encode(frame) for frame in _clip(level)] for level in levels]
    if input_type != "clip_and_boxes":
        return inputs.batch(input_type, clips)
    boxes = np.float32([[fake_servers.BOX] * 3, [fake_servers.FAR] * 3])
    return {**inputs.batch("clip_tensor", clips), "boxes": boxes}


@pytest.mark.parametrize("input_type", list(fake_servers.DETECTORS))
def test_batch_of_clips_gives_each_its_detections(models, protocol, input_type):
    with _SERVERS[protocol](models[input_type]) as address:
        client = _CLIENTS[protocol](address, "vat")
        model = inputs.model_input(client.signature_inputs())
        assert model.input_type == input_type
        assert model.num_frames == (None if input_type == "tf_sequence_example" else _T)
        found = client.predict(_inputs(input_type))
        client.close()
    assert set(found) == {
        "detection_boxes", "detection_scores", "detection_classes", "num_detections"
    }  # fmt: skip
    assert all(value.dtype == np.float32 for value in found.values())
    expected = np.outer([100 / 255, 200 / 255], [0.5, 1.0, 0.25])
    np.testing.assert_allclose(found["detection_scores"], expected, atol=0.01)
    np.testing.assert_array_equal(found["detection_classes"], [[3, 1, 2]] * 2)
    np.testing.assert_array_equal(found["num_detections"], [3, 3])
    if input_type == "clip_and_boxes":
        boxes = [[fake_servers.BOX] * 3, [fake_servers.FAR] * 3]
    else:
        boxes = [[fake_servers.BOX, fake_servers.FAR, fake_servers.BOX]] * 2
    np.testing.assert_allclose(found["detection_boxes"], boxes)


def test_grpc_has_only_the_wanted_outputs_sent(models):
    model = models["encoded_clip"]
    with fake_servers.grpc_server(model) as address:
        client = client_lib.GrpcClient(address, "vat")
        few = client.predict(_inputs("encoded_clip"), ["detection_scores"])
        assert model.requests[-1].output_filter == ["detection_scores"]
        assert set(few) == {"detection_scores"}
        everything = client.predict(_inputs("encoded_clip"), [])
        assert everything["detection_attention"].shape == (2, 2)
        with pytest.raises(inputs.ServingError, match="INVALID_ARGUMENT: .*alias not found.*nope"):
            client.predict(_inputs("encoded_clip"), ["nope"])


def test_large_messages_pass(models, monkeypatch):
    """Beyond 4 MB, gRPC's own limit; those to the server are limited by the server alone."""
    attention = np.arange(1_100_000, dtype=np.float32)[np.newaxis]
    monkeypatch.setattr(
        models["clip_tensor"], "predict", lambda _: {"detection_attention": attention}
    )
    with fake_servers.grpc_server(models["clip_tensor"]) as address:
        clip = np.zeros([1, _T, 700, 700, 3], np.uint8)  # 5.9 MB
        found = client_lib.GrpcClient(address, "vat").predict({"input_tensor": clip}, [])
    np.testing.assert_array_equal(found["detection_attention"], attention)


def test_rest_leaves_out_what_is_not_wanted(models):
    with fake_servers.rest_server(models["clip_tensor"]) as address:
        client = client_lib.RestClient(f"{address}/", "vat")
        assert set(client.predict(_inputs("clip_tensor"), ["num_detections"])) == {"num_detections"}
        with pytest.raises(inputs.ServingError, match="does not return nope, only detection_"):
            client.predict(_inputs("clip_tensor"), ["nope"])


def test_wrong_model_name_is_told(models, protocol):
    with _SERVERS[protocol](models["clip_tensor"]) as address:
        client = _CLIENTS[protocol](address, "other")
        for ask in (client.signature_inputs, lambda: client.predict(_inputs("clip_tensor"))):
            with pytest.raises(
                inputs.ServingError, match=r"has no model 'other'.*MODEL_NAME.*Latest\(other\)"
            ):
                ask()


def _tls_client(protocol: str, address: str, ca_certificate: str | None):
    more = {"tls": True} if protocol == "grpc" else {}
    return _CLIENTS[protocol](address, "vat", timeout=10, ca_certificate=ca_certificate, **more)


def test_encrypted_connection_to_a_server_that_proves_who_it_is(models, protocol, tmp_path):
    certificate = certificates.make(tmp_path, "localhost")
    with _SERVERS[protocol](models["encoded_clip"], certificate) as address:
        client = _tls_client(protocol, address, certificate.public)
        assert inputs.model_input(client.signature_inputs()).num_frames == _T
        found = client.predict(_inputs("encoded_clip"))
        client.close()
    np.testing.assert_array_equal(found["num_detections"], [3, 3])


def test_server_that_does_not_prove_who_it_is_is_told(models, protocol, tmp_path):
    own, other = (certificates.make(tmp_path, host) for host in ("localhost", "elsewhere"))
    for served, trusted in ((own, other.public), (own, None), (other, other.public)):
        with _SERVERS[protocol](models["encoded_clip"], served) as address:
            client = _tls_client(protocol, address, trusted)
            with pytest.raises(
                inputs.ServingError, match=f"server at {address} is not trusted; .*ca_certificate"
            ):
                client.signature_inputs()
            client.close()


def test_files_that_are_no_certificate_are_told(protocol, tmp_path):
    (tmp_path / "ca.pem").write_text("nothing of the kind")
    for name, problem in (("ca.pem", "holds no certificate in PEM form"), ("no.pem", "No such")):
        with pytest.raises(errors.InputError, match=f"{name}: .*{problem}"):
            _tls_client(protocol, "https://localhost:1", str(tmp_path / name))


def test_no_server_is_told(protocol):
    with socket.socket() as taken:  # bound, but nobody listens
        taken.bind(("localhost", 0))
        address = f"localhost:{taken.getsockname()[1]}"
        full = address if protocol == "grpc" else f"http://{address}"
        client = _CLIENTS[protocol](full, "vat")
        with pytest.raises(inputs.ServingError, match=f"no server answers at {full}.*Is it run"):
            client.signature_inputs()


def test_port_of_the_other_protocol_is_told(models, protocol):
    other = {"grpc": "rest", "rest": "grpc"}[protocol]
    with _SERVERS[other](models["clip_tensor"]) as address:
        address = address.removeprefix("http://")
        full = address if protocol == "grpc" else f"http://{address}"
        with pytest.raises(inputs.ServingError, match="no server answers.*port of the protocol"):
            _CLIENTS[protocol](full, "vat", timeout=10).signature_inputs()


def test_silence_ends_after_the_timeout(protocol):
    with socket.create_server(("localhost", 0)) as server:  # accepts, and says nothing
        address = f"localhost:{server.getsockname()[1]}"
        full = address if protocol == "grpc" else f"http://{address}"
        with pytest.raises(inputs.ServingError, match=f"no answer from {full} within 0.3 s"):
            _CLIENTS[protocol](full, "vat", timeout=0.3).signature_inputs()


def test_broken_frame_is_told_in_the_server_s_words(models, protocol):
    broken = {"input_tensor": np.array([[b"no picture"] * _T], dtype=object)}
    with _SERVERS[protocol](models["encoded_clip"]) as address:
        with pytest.raises(inputs.ServingError, match=r"(?s)says (INVALID_ARGUMENT|400): .*JPEG"):
            _CLIENTS[protocol](address, "vat").predict(broken)


def test_too_large_for_a_message_is_told_before_it_is_sent(monkeypatch):
    client = client_lib.GrpcClient("localhost:1", "vat")
    clips = np.broadcast_to(np.uint8(0), [40, 64, 400, 711, 3])
    with pytest.raises(inputs.ServingError, match=r"2\.2 GB are too much.*which holds 2\.1 GB"):
        client.predict({"input_tensor": clips})
    monkeypatch.setattr(client_lib, "MAX_MESSAGE_BYTES", 9)
    with pytest.raises(inputs.ServingError, match="too much for one message"):
        client.predict({"input_tensor": np.array([[b"12345"] * 2], dtype=object)})


@pytest.mark.parametrize(
    ("status", "body", "message"),
    [
        (504, b'{"error": "Timed out waiting for notification"}', "rest_api_timeout_in_ms"),
        (413, b"<html>Payload Too Large</html>", "too large for .*use gRPC"),
        (500, b"", "says 500: an empty answer"),
        (200, b"<html>Welcome</html>", "no JSON object: <html>Welcome</html>"),
        (200, b'{"outputs": [1.0]}', "no outputs by name"),
    ],
)
def test_answers_of_proxies_and_overload_are_told(monkeypatch, status, body, message):
    monkeypatch.setenv("no_proxy", "localhost")

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args):
            """Says nothing."""

    with http.server.HTTPServer(("localhost", 0), Handler) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        client = client_lib.RestClient(f"http://localhost:{server.server_port}", "vat")
        with pytest.raises(inputs.ServingError, match=message):
            client.predict(_inputs("encoded_clip"))
        thread.join()


def test_memory_of_the_server_is_told(models, monkeypatch):
    import grpc

    def full(request):
        raise fake_servers.RefusedError(grpc.StatusCode.RESOURCE_EXHAUSTED, "OOM")

    monkeypatch.setattr(models["clip_tensor"], "predict", full)
    with fake_servers.grpc_server(models["clip_tensor"]) as address:
        with pytest.raises(inputs.ServingError, match="fewer clips at a time.*OOM"):
            client_lib.GrpcClient(address, "vat").predict(_inputs("clip_tensor"))


def test_rest_client_needs_no_tensorflow():
    code = (
        "import sys\n"
        "from object_detection_ext.serving import client\n"
        "client.RestClient('http://localhost:1', 'vat')\n"
        "print('tensorflow' in sys.modules)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert result.stdout.strip() == "False"


def test_missing_package_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_serving.apis", None)
    with pytest.raises(inputs.ServingError, match="pip install tensorflow-serving-api==2"):
        client_lib.GrpcClient("localhost:8500", "vat")


def test_models_that_take_no_clips_are_refused():
    image = inputs.TensorInfo("DT_UINT8", (1, None, None, 3))
    with pytest.raises(
        inputs.ServingError, match=r"inputs are input_tensor: uint8 \[1, \?, \?, 3\]\. Serve one"
    ):
        inputs.model_input({"input_tensor": image})
    with pytest.raises(inputs.ServingError, match="inputs are none"):
        inputs.model_input({})


def test_jpeg_is_near_the_frame_and_small_frames_keep_their_size():
    ramp = np.linspace(0, 255, 64, dtype=np.uint8)
    frame = np.broadcast_to(ramp[None, :, None], (48, 64, 3))
    for short_side, size in ((0, (64, 48)), (24, (32, 24)), (400, (64, 48))):
        encoded = inputs.frame_encoder("encoded_clip", short_side)(np.ascontiguousarray(frame))
        with Image.open(io.BytesIO(encoded)) as picture:
            assert (picture.format, picture.size) == ("JPEG", size)
            pixels = np.asarray(picture).astype(int)
        expected = frame if size == (64, 48) else frame[::2, ::2]
        assert np.abs(pixels - expected).mean() < 3
    raw = inputs.frame_encoder("clip_tensor", 24)(np.ascontiguousarray(frame))
    assert raw.dtype == np.uint8 and raw.shape == (24, 32, 3)


def test_strings_keep_their_last_zero_bytes(models, protocol):
    sent = np.array([b"a\0\0", b"\0"], dtype=object)
    with _SERVERS[protocol](models["tf_sequence_example"]) as address:
        with pytest.raises(inputs.ServingError):  # they are no records
            _CLIENTS[protocol](address, "vat").predict({"input_tensor": sent})
    arrived = models["tf_sequence_example"].requests[-1].inputs["input_tensor"]
    np.testing.assert_array_equal(tf.make_ndarray(arrived), sent)
