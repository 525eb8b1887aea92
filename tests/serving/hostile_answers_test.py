# SPDX-License-Identifier: Apache-2.0
"""No answer of a server is trusted: each ends as a ServingError, in time, in bounded memory.

Shapes: B clips, N detections.
"""

import json
import socket
import struct
import subprocess
import sys
import time
import zlib

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2, types_pb2
from tensorflow_serving.apis import get_model_metadata_pb2, predict_pb2

from object_detection_ext.serving import client as client_lib
from object_detection_ext.serving.inputs import ServingError
from tests.serving import hostile_servers
from tests.serving.hostile_servers import http_answer

_B = 2
_DEADLINE = 1.0
_INPUTS = {"input_tensor": np.array([[b"a", b"b"]] * _B, dtype=object)}
_GOOD = {
    "detection_boxes": [[[0.1, 0.2, 0.5, 0.6], [0.0, 0.0, 1.0, 1.0]]] * _B,
    "detection_scores": [[0.9, 0.5]] * _B,
    "detection_classes": [[1.0, 7.0]] * _B,
    "num_detections": [2.0, 1.0],
}


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "localhost")


def _good_with(**changes) -> dict:
    return {name: value for name, value in {**_GOOD, **changes}.items() if value is not None}


def _json(**changes) -> bytes:
    return http_answer(json.dumps({"outputs": _good_with(**changes)}).encode())


def _body(text: bytes) -> bytes:
    return http_answer(text)


def _outputs(text: str) -> bytes:
    """An answer with this text in the place of the scores."""
    good = json.dumps({"outputs": _GOOD})
    return http_answer(good.replace(json.dumps(_GOOD["detection_scores"]), text).encode())


def _sends(data: bytes):
    return lambda line: line.sendall(data)


def _drips(start: bytes, drop: bytes = b"a", pause: float = 0.1):
    """Sends a start, and then a drop now and then for ever: no single read waits long."""

    def script(line):
        line.sendall(start)
        while True:
            time.sleep(pause)
            line.sendall(drop)

    return script


def _floods(start: bytes, block: bytes):
    def script(line):
        line.sendall(start)
        while True:
            line.sendall(block)

    return script


def _resets(data: bytes):
    def script(line):
        line.sendall(data)
        line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    return script


_HEAD = b"HTTP/1.1 200 OK\r\n"
_NESTED = b"[" * 100_000 + b"]" * 100_000

# By what they are: what the server sends, and what the client says.
_REST = {
    "nothing": (_sends(b""), "no server answers"),
    "no HTTP": (_sends(b"\x00\x01\x02 hello\r\n\r\n"), "no server answers"),
    "greeting of another protocol": (_sends(b"220 mail ready\r\n"), "no server answers"),
    "HTML": (_sends(_body(b"<html>Welcome</html>")), "no JSON object.*<html>"),
    "empty body": (_sends(_body(b"")), "an empty answer"),
    "content shorter than declared": (
        _sends(_HEAD + b'Content-Length: 999\r\n\r\n{"outputs": {}}'), "no server answers.*Incompl",
    ),
    "negative length": (_sends(_HEAD + b"Content-Length: -5\r\n\r\n{}"), "no outputs by name"),
    "length that is not a number": (_sends(_HEAD + b"Content-Length: ?\r\n\r\n{}"), "no outputs"),
    "declared length of a terabyte": (
        _sends(_HEAD + b"Content-Length: 1099511627776\r\n\r\n{"), "longer than 34 MB",
    ),
    "bad chunk": (
        _sends(_HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n"), "no server answers",
    ),
    "endless chunks": (
        _floods(
            _HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"10000\r\n" + b" " * 65536 + b"\r\n"
        ),
        "longer than 34 MB",
    ),
    "endless body": (_floods(_HEAD + b"\r\n", b" " * 65536), "longer than 34 MB"),
    "endless header": (_floods(_HEAD, b"X-A: b\r\n"), "no server answers.*headers"),
    "endless line of a header": (_floods(_HEAD + b"X-A: ", b"b" * 65536), "no server answers"),
    "endless interim answers": (
        _floods(b"", b"HTTP/1.1 100 Continue\r\n\r\n"), "no answer from .* within 1 s",
    ),
    "dripping status": (_drips(b"HTTP/1.1 2"), "no answer from .* within 1 s"),
    "dripping header": (_drips(_HEAD + b"X-A: "), "no answer from .* within 1 s"),
    "dripping headers": (_drips(_HEAD, b"X: a\r\n"), "no answer from .* within 1 s"),
    "dripping body": (
        _drips(_HEAD + b"Content-Length: 100000\r\n\r\n"), "no answer from .* within 1 s",
    ),
    "dripping body without an end": (_drips(_HEAD + b"\r\n"), "no answer from .* within 1 s"),
    "dripping chunks": (
        _drips(_HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"), "within 1 s",
    ),
    "dripping error": (
        _drips(b"HTTP/1.1 500 Oops\r\nContent-Length: 100000\r\n\r\n"), "within 1 s",
    ),
    "redirect to itself": (
        _sends(http_answer(b"", "302 Found", "Location: /v1/models/vat:predict")), "says 302",
    ),
    "redirect to a file": (
        _sends(http_answer(b"", "301 Moved", "Location: file:///etc/passwd")), "says 301",
    ),
    "success without content": (_sends(http_answer(b"", "204 No Content")), "says 204"),
    "error with a huge body": (
        _floods(b"HTTP/1.1 500 Oops\r\n\r\n", b"\x1b[2J" + b"e" * 65536), r"says 500: \\x1b\[2Je+",
    ),
    "error that is not text": (
        _sends(http_answer(b'{"error": [{"a": null}]}', "400 Bad")), "says 400",
    ),
    "error with a command for the terminal": (
        _sends(http_answer(b'{"error": "\\u001b]0;owned\\u0007\\n\\u202e"}', "500 Oops")),
        r"says 500: \\x1b\]0;owned\\x07\\n\\u202e$",
    ),
    "connection that is reset": (
        _resets(_HEAD + b"Content-Length: 100000\r\n\r\n{"), "no server answers",
    ),
    "gzip": (
        _sends(http_answer(zlib.compress(b" " * 10**8, 9), "200 OK", "Content-Encoding: gzip")),
        "no JSON object",
    ),
    "text that is not UTF-8": (_sends(_body(b'{"outputs": "\xff\xfe"}')), "no JSON object"),
    "nesting of 100,000": (_sends(_body(_NESTED)), "nested too deeply"),
    "nested scores": (_sends(_outputs("[" * 300 + "]" * 300)), "detection_scores must be lists"),
    "number of 100,000 digits": (_sends(_outputs("9" * 100_000)), "no JSON object"),
    "number of 4,000 digits": (
        _sends(_outputs("[" + "9" * 4000 + ", 1]")), "detection_scores must be lists of numbers",
    ),
    "a list": (_sends(_body(b"[]")), "no JSON object"),
    "a number": (_sends(_body(b"7")), "no JSON object"),
    "an error in an answer of success": (_sends(_body(b'{"error": "no"}')), "no outputs by name"),
    "outputs that are a list": (_sends(_body(b'{"outputs": []}')), "no outputs by name"),
    "outputs that are null": (_sends(_body(b'{"outputs": null}')), "no outputs by name"),
    "missing output": (_sends(_json(detection_boxes=None)), "does not return detection_boxes"),
    "null for an array": (_sends(_outputs("null")), "detection_scores must be lists of numbers"),
    "text for numbers": (_sends(_json(detection_scores=[["0.9", "0.5"]] * _B)), "lists of numbers"),
    "truth for numbers": (_sends(_json(detection_scores=[[True, 0.5]] * _B)), "lists of numbers"),
    "object for an array": (_sends(_json(num_detections={"a": 1})), "lists of numbers"),
    "NaN": (_sends(_outputs("[[NaN, 0.5], [0.9, 0.5]]")), "detection_scores .* not finite"),
    "Infinity": (_sends(_outputs("[[Infinity, 0.5], [0.9, 0.5]]")), "not finite"),
    "more than a float32 holds": (_sends(_json(detection_scores=[[1e300, 0]] * _B)), "not finite"),
    "uneven lists": (_sends(_json(detection_scores=[[0.9], [0.9, 0.5]])), "all of one length"),
    "scores of one clip": (_sends(_json(detection_scores=[[0.9, 0.5]])), "2 clips were sent"),
    "number without a batch": (_sends(_json(num_detections=2)), "2 clips were sent"),
    "boxes of three corners": (
        _sends(_json(detection_boxes=[[[0.1, 0.2, 0.5]] * 2] * _B)), r"must be \[B, N, 4\]",
    ),
    "flat boxes": (_sends(_json(detection_boxes=[[0.1, 0.2, 0.5, 0.6]] * _B)), "must be .B, N, 4"),
    "classes with a dimension more": (
        _sends(_json(detection_classes=[[[1.0], [7.0]]] * _B)), r"must be \[B, N\]",
    ),
    "more scores than boxes": (
        _sends(_json(detection_scores=[[0.9, 0.5, 0.4]] * _B)), "3 detection_scores, .* as many",
    ),
    "number below 0": (_sends(_json(num_detections=[-1.0, 1.0])), "num_detections must be"),
    "number above N": (_sends(_json(num_detections=[3.0, 1.0])), "num_detections must be"),
    "number that is huge": (_sends(_json(num_detections=[1e18, 1.0])), "num_detections must be"),
    "number that is not whole": (_sends(_json(num_detections=[1.5, 1.0])), "num_detections must"),
    "detections without one": (
        _sends(_json(detection_boxes=[[]] * _B, detection_scores=[[]] * _B,
                     detection_classes=[[]] * _B)), r"must be \[B, N, 4\]",
    ),
    "box outside": (
        _sends(_json(detection_boxes=[[[0.1, 0.2, 7.5, 0.6]] * 2] * _B)), "normalized .*7.5",
    ),
    "box upside down": (
        _sends(_json(detection_boxes=[[[0.5, 0.2, 0.1, 0.6]] * 2] * _B)), "detection_boxes must",
    ),
    "score above 1": (_sends(_json(detection_scores=[[1.7, 0.5]] * _B)), r"in \[0, 1\]; .* 1.7"),
    "score below 0": (_sends(_json(detection_scores=[[-0.1, 0.5]] * _B)), "detection_scores must"),
    "class 0": (_sends(_json(detection_classes=[[0, 1]] * _B)), "detection_classes must"),
    "class that is not whole": (_sends(_json(detection_classes=[[1.5, 1]] * _B)), "_classes must"),
    "class that is huge": (_sends(_json(detection_classes=[[1e9, 1]] * _B)), "_classes must"),
}  # fmt: skip


def _asked(client, message: str, ask=None) -> None:
    """Checks that a question ends as it should, and in time."""
    start = time.monotonic()
    with pytest.raises(ServingError, match=message) as caught:
        (ask or (lambda: client.predict(_INPUTS)))()
    assert time.monotonic() - start < _DEADLINE + 2
    reported = str(caught.value)
    assert reported.isprintable() and len(reported) < 1000


def _rest(address: str) -> client_lib.RestClient:
    return client_lib.RestClient(f"http://{address}", "vat", timeout=_DEADLINE)


@pytest.mark.parametrize("name", list(_REST))
def test_hostile_answers_over_rest(name):
    script, message = _REST[name]
    with hostile_servers.raw_server(script) as address:
        _asked(_rest(address), message)


def test_what_is_right_passes_over_rest():
    padded = _good_with(
        detection_boxes=[[[0.1, 0.2, 0.5, 0.6], [-9, 9, 9, -9]]] * _B,
        detection_scores=[[0.9, 7.0]] * _B,
        num_detections=[1.0, 1.0],
        unknown_output="whatever",
    )
    for outputs in (_GOOD, padded):
        answer = http_answer(json.dumps({"outputs": outputs, "more": 1}).encode())
        with hostile_servers.raw_server(_sends(answer)) as address:
            found = _rest(address).predict(_INPUTS)
        assert found["detection_boxes"].shape == (_B, 2, 4)
        assert set(found) == set(_GOOD)


def test_encrypted_line_that_is_garbage():
    for script in (_sends(b"\x16\x03\x01" + bytes(200)), _drips(b"\x16\x03\x01\x7f\xff")):
        with hostile_servers.raw_server_at_once(script) as address:
            client = client_lib.RestClient(f"https://{address}", "vat", timeout=_DEADLINE)
            _asked(client, "no server answers|no answer from|says UNKNOWN")


def _info(dtype="DT_STRING", sizes=("-1", "4"), **changes) -> dict:
    return {"dtype": dtype, "tensor_shape": {"dim": [{"size": s} for s in sizes]}, **changes}


def _metadata(info) -> dict:
    signature = {"serving_default": {"inputs": {"input_tensor": info}}}
    return {"metadata": {"signature_def": {"signature_def": signature}}}


_METADATA = {
    "list": ([], "no JSON object"),
    "metadata of another kind": ({"metadata": 7}, "no 'metadata'"),
    "signatures of another kind": ({"metadata": {"signature_def": []}}, "no 'signature_def'"),
    "signature of another kind": (
        {"metadata": {"signature_def": {"signature_def": {"serving_default": 1}}}},
        "no 'serving_default'",
    ),
    "input of another kind": (_metadata([]), "no 'input_tensor'"),
    "no shape": (_metadata({"dtype": "DT_UINT8"}), "no tensor_shape"),
    "shape of another kind": (_metadata(_info(tensor_shape=[1])), "no shape of dimensions"),
    "dimension of another kind": (
        _metadata(_info(tensor_shape={"dim": [4]})), "no shape of whole numbers",
    ),
    "size that is not a number": (_metadata(_info(sizes=("x", "4"))), "no shape of whole numbers"),
    "size that is huge": (_metadata(_info(sizes=("-1", "1000000000"))), "dimension of 1000000000"),
    "size below -1": (_metadata(_info(sizes=("-1", "-7"))), "dimension of -7"),
    "size of 0": (_metadata(_info(sizes=("-1", 0))), "dimension of 0"),
    "many dimensions": (_metadata(_info(sizes=["4"] * 1000)), "no shape of dimensions"),
    "no type": (_metadata(_info(dtype=None)), "has the type None"),
    "type with a newline": (_metadata(_info(dtype="\n\x1b[2J")), r"has the type \\n\\x1b"),
}  # fmt: skip


@pytest.mark.parametrize("name", list(_METADATA))
def test_hostile_metadata_over_rest(name):
    body, message = _METADATA[name]
    with hostile_servers.raw_server(_sends(http_answer(json.dumps(body).encode()))) as address:
        client = _rest(address)
        _asked(client, message, client.signature_inputs)


# --- gRPC -----------------------------------------------------------------------------------------


def _protos(**changes) -> predict_pb2.PredictResponse:
    response = predict_pb2.PredictResponse()
    for name, value in _good_with(**changes).items():
        if not isinstance(value, tensor_pb2.TensorProto):
            value = tf.make_tensor_proto(np.array(value, np.float32))
        response.outputs[name].CopyFrom(value)
    return response


def _proto(sizes, dtype=types_pb2.DT_FLOAT, unknown_rank=False, **values):
    proto = tensor_pb2.TensorProto(dtype=dtype, **values)
    proto.tensor_shape.unknown_rank = unknown_rank
    for size in sizes:
        proto.tensor_shape.dim.add(size=size)
    return proto


def _scores(*args, **kwargs) -> bytes:
    return _protos(detection_scores=_proto(*args, **kwargs)).SerializeToString()


_GRPC = {
    "bytes that are not a message": (b"\xff" * 50, "says INTERNAL"),
    "empty message": (b"", "does not return detection_boxes"),
    "missing output": (
        _protos(num_detections=None).SerializeToString(), "does not return num_detections",
    ),
    "text": (_scores([_B, 2], types_pb2.DT_STRING, string_val=[b"a"] * 4), "its type is DT_STRING"),
    "truth": (_scores([_B, 2], types_pb2.DT_BOOL, bool_val=[True] * 4), "its type is DT_BOOL"),
    "variant": (_scores([_B, 2], types_pb2.DT_VARIANT), "its type is DT_VARIANT"),
    "type that does not exist": (_scores([_B, 2], 999), "its type is 999"),
    "no type": (_scores([_B, 2], 0, float_val=[0.1] * 4), "its type is DT_INVALID"),
    "content that is too short": (_scores([_B, 2], tensor_content=b"\0" * 7), "7 bytes, but"),
    "content that is too long": (_scores([_B, 2], tensor_content=b"\0" * 99), "99 bytes, but"),
    "too many values": (_scores([_B, 2], float_val=[0.1] * 9), "does not hold what its shape"),
    "one value for a shape of a terabyte": (
        _scores([_B, 2**38], float_val=[0.1]), "at most 34 MB are taken",
    ),
    "sizes whose product overflows": (
        _scores([2**62, 2**62, 4], float_val=[0.1]), "at most 34 MB are taken",
    ),
    "negative size": (_scores([_B, -2], float_val=[0.1] * 4), "has no shape"),
    "unknown rank": (_scores([], unknown_rank=True, float_val=[0.1] * 4), "has no shape"),
    "many dimensions": (_scores([1] * 200, float_val=[0.1]), "has no shape"),
    "one clip": (_scores([1, 2], float_val=[0.1] * 2), "2 clips were sent"),
    "NaN": (_scores([_B, 2], float_val=[float("nan")] * 4), "not finite"),
    "double that is too large": (
        _scores([_B, 2], types_pb2.DT_DOUBLE, double_val=[1e300] * 4), "not finite",
    ),
    "number above N": (_protos(num_detections=[9.0, 0.0]).SerializeToString(), "num_detections"),
    "score above 1": (_protos(detection_scores=[[3, 0]] * 2).SerializeToString(), "scores must be"),
    "box outside": (
        _protos(detection_boxes=[[[0, 0, 1, 9]] * 2] * 2).SerializeToString(), "boxes must be",
    ),
    "class below 1": (_protos(detection_classes=[[-3, 1]] * 2).SerializeToString(), "ids of a"),
    "longer than it may be": (
        _scores([_B, 2], tensor_content=bytes(70 * 10**6)), "longer than 34 MB",
    ),
}  # fmt: skip


def _grpc(address: str) -> client_lib.GrpcClient:
    return client_lib.GrpcClient(address, "vat", timeout=_DEADLINE)


@pytest.mark.parametrize("name", list(_GRPC))
def test_hostile_answers_over_grpc(name):
    answer, message = _GRPC[name]
    with hostile_servers.grpc_server(lambda: answer) as address:
        client = _grpc(address)
        _asked(client, message)
        client.close()


def test_what_is_right_passes_over_grpc():
    # One value for all, as TensorFlow packs equal ones, is right where the shape is.
    answer = _scores([_B, 2], float_val=[0.5])
    with hostile_servers.grpc_server(lambda: answer) as address:
        found = _grpc(address).predict(_INPUTS)
    np.testing.assert_array_equal(found["detection_scores"], np.full([_B, 2], 0.5))


def _signatures(sizes, dtype=types_pb2.DT_STRING) -> bytes:
    signatures = get_model_metadata_pb2.SignatureDefMap()
    info = signatures.signature_def["serving_default"].inputs["input_tensor"]
    info.dtype = dtype
    for size in sizes:
        info.tensor_shape.dim.add(size=size)
    response = get_model_metadata_pb2.GetModelMetadataResponse()
    response.metadata["signature_def"].Pack(signatures)
    return response.SerializeToString()


def _damaged_signatures() -> bytes:
    response = get_model_metadata_pb2.GetModelMetadataResponse.FromString(_signatures([-1, 4]))
    response.metadata["signature_def"].value = b"\xff\xff\xff"
    return response.SerializeToString()


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (b"", "holds no signatures"),
        (_damaged_signatures(), "holds no signatures"),
        (_signatures([-1, 10**9]), "dimension of 1000000000"),
        (_signatures([-1, -4]), "dimension of -4"),
        (_signatures([-1, 4], 999), "has the type 999"),
    ],
)
def test_hostile_metadata_over_grpc(answer, message):
    with hostile_servers.grpc_server(lambda: answer) as address:
        client = _grpc(address)
        _asked(client, message, client.signature_inputs)
        client.close()


def test_another_protocol_on_the_port_of_grpc():
    for script in (_sends(http_answer(b"<html>")), _drips(b"\0\0\0\4\0\0\0\0\0" * 3)):
        with hostile_servers.raw_server_at_once(script) as address:
            client = _grpc(address)
            _asked(client, "no server answers|no answer from|says UNKNOWN")
            client.close()


# --- Memory ---------------------------------------------------------------------------------------

_ASKS = """
import re, sys
import numpy as np
from object_detection_ext.serving import client, inputs

def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) // 1024

kind, address = sys.argv[1:]
made = getattr(client, kind)(address, "vat", timeout=60)
open("/proc/self/clear_refs", "w").write("5")  # the peak starts anew
before = peak()
try:
    made.predict({"input_tensor": np.array([[b"a"]], dtype=object)})
except inputs.ServingError as error:
    print(error)
print(peak() - before)
"""


def _asked_in_a_process(kind: str, address: str) -> tuple[str, int]:
    """What the client says, and how much its memory grew, in MB."""
    done = subprocess.run(
        [sys.executable, "-c", _ASKS, kind, address],
        capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    reported, grown = done.stdout.strip().splitlines()
    return reported, int(grown)


def test_memory_is_bounded_over_rest():
    start = _HEAD + b"Content-Length: 1500000000\r\n\r\n"
    for script in (_floods(start, b" " * 65536), _floods(_HEAD + b"\r\n", b" " * 65536)):
        with hostile_servers.raw_server(script) as address:
            reported, grown = _asked_in_a_process("RestClient", f"http://{address}")
        assert "longer than 34 MB" in reported
        assert grown < 150


@pytest.mark.slow
def test_packed_answers_are_not_unpacked_over_grpc():
    answer = _scores([_B, 2], tensor_content=bytes(100 * 10**6))
    with hostile_servers.grpc_server(lambda: answer, grpc.Compression.Gzip) as address:
        reported, grown = _asked_in_a_process("GrpcClient", address)
    assert "gzip' is disabled" in reported
    assert grown < 50
