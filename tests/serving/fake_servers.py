# SPDX-License-Identifier: Apache-2.0
"""TF Serving's two protocols over real sockets, answered by a SavedModel in this process.

They check requests and word errors as TF Serving does (predict_util.cc, json_tensor.cc and
http_rest_api_util.cc of its sources), and like it put floats into `float_val` of protos.

Shapes: B clips, T frames, H W pixels.
"""

import base64
import concurrent.futures
import contextlib
import functools
import http.server
import json
import os
import pathlib
import re
import ssl
import tempfile
import threading
from collections.abc import Iterator

import grpc
import numpy as np
import tensorflow as tf
from google.protobuf import json_format
from tensorflow.core.protobuf import meta_graph_pb2
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    predict_pb2,
    prediction_log_pb2,
    prediction_service_pb2_grpc,
)

from tests.serving import certificates

MODEL_NAME = "vat"
T = 4
BOX = [0.2, 0.3, 0.8, 0.6]
FAR = [0.1, 0.7, 0.5, 0.95]
# From this size on, spelling floats out one by one takes seconds in Python.
_MANY_FLOATS = 100_000


class _Detector(tf.Module):
    """Scores follow the brightness of the middle frame, so that the right clip must come in."""

    def _detections(self, middle):
        """The stock outputs for middle frames, uint8 [B, H, W, 3]."""
        score = tf.reduce_mean(tf.cast(middle, tf.float32), axis=[1, 2, 3]) / 255.0  # [B]
        count = tf.size(score)
        return {
            "detection_boxes": tf.tile([[BOX, FAR, BOX]], [count, 1, 1]),
            "detection_scores": score[:, None] * [[0.5, 1.0, 0.25]],
            "detection_classes": tf.tile([[3.0, 1.0, 2.0]], [count, 1]),
            "detection_attention": tf.zeros([count, 2]),
            "num_detections": tf.fill([count], 3.0),
        }


class ClipDetector(_Detector):
    """Takes pixels."""

    @tf.function(input_signature=[tf.TensorSpec([None, T, None, None, 3], tf.uint8)])
    def detect(self, input_tensor):
        return self._detections(input_tensor[:, T // 2])


def _decoded(frames):
    return tf.map_fn(
        lambda frame: tf.io.decode_jpeg(frame, channels=3), frames, fn_output_signature=tf.uint8
    )


class EncodedDetector(_Detector):
    """Takes JPEGs."""

    @tf.function(input_signature=[tf.TensorSpec([None, T], tf.string)])
    def detect(self, input_tensor):
        return self._detections(_decoded(input_tensor[:, T // 2]))


class RecordDetector(_Detector):
    """Takes SequenceExamples; of each the annotated frame."""

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def detect(self, input_tensor):
        def annotated(record):
            _, lists = tf.io.parse_single_sequence_example(
                record,
                sequence_features={
                    "image/encoded": tf.io.FixedLenSequenceFeature([], tf.string),
                    "region/is_annotated": tf.io.FixedLenSequenceFeature([], tf.int64),
                },
            )
            return tf.boolean_mask(lists["image/encoded"], lists["region/is_annotated"] == 1)[0]

        return self._detections(_decoded(tf.map_fn(annotated, input_tensor)))


class BoxDetector(_Detector):
    """Takes pixels and boxes; gives the boxes back."""

    @tf.function(
        input_signature=[
            tf.TensorSpec([None, T, None, None, 3], tf.uint8),
            tf.TensorSpec([None, None, 4], tf.float32),
        ]
    )
    def detect(self, input_tensor, boxes):
        return {**self._detections(input_tensor[:, T // 2]), "detection_boxes": boxes}


DETECTORS = {
    "clip_tensor": ClipDetector,
    "encoded_clip": EncodedDetector,
    "tf_sequence_example": RecordDetector,
    "clip_and_boxes": BoxDetector,
}


def save(input_type: str, folder) -> str:
    """Saves the detector of an input type; returns the folder."""
    module = DETECTORS[input_type]()
    tf.saved_model.save(module, str(folder), signatures={"serving_default": module.detect})
    return str(folder)


class RefusedError(Exception):
    """What TF Serving refuses: a gRPC code and its words."""

    def __init__(self, code: grpc.StatusCode, text: str):
        super().__init__(text)
        self.code = code


class LoadedModel:
    """A SavedModel as TF Serving has it.

    Attributes:
        functions: its signatures by name, to be called.
        signatures: their protos.
        requests: what `predict` was given.
    """

    def __init__(self, saved_model: str):
        self._loaded = tf.saved_model.load(saved_model)
        self.functions = self._loaded.signatures
        # Parsing the file for them takes a minute in Python for a model of real size.
        self.signatures = {name: _signature_def(f) for name, f in self.functions.items()}
        self.requests: list[predict_pb2.PredictRequest] = []

    def check_name(self, name: str) -> None:
        if name != MODEL_NAME:
            text = f"Servable not found for request: Latest({name})"
            raise RefusedError(grpc.StatusCode.NOT_FOUND, text)

    def predict(self, request: predict_pb2.PredictRequest) -> dict[str, np.ndarray]:
        self.check_name(request.model_spec.name)
        self.requests.append(request)
        name = request.model_spec.signature_name or "serving_default"
        if name not in self.signatures:
            text = f'Serving signature key "{name}" not found.'
            raise RefusedError(grpc.StatusCode.FAILED_PRECONDITION, text)
        signature, invalid = self.signatures[name], grpc.StatusCode.INVALID_ARGUMENT
        if set(request.inputs) != set(signature.inputs):
            raise RefusedError(invalid, "input size does not match signature")
        for output in request.output_filter:
            if output not in signature.outputs:
                raise RefusedError(invalid, f"output tensor alias not found in signature: {output}")
        tensors = {
            key: tf.io.parse_tensor(proto.SerializeToString(), tf.as_dtype(proto.dtype))
            for key, proto in request.inputs.items()
        }
        try:
            outputs = self.functions[name](**tensors)
        except (tf.errors.OpError, ValueError, TypeError) as error:
            raise RefusedError(invalid, str(error)[:500]) from error
        return {key: outputs[key].numpy() for key in request.output_filter or outputs}

    def metadata(self, name: str) -> get_model_metadata_pb2.SignatureDefMap:
        self.check_name(name)
        return get_model_metadata_pb2.SignatureDefMap(signature_def=self.signatures)


def _signature_def(function) -> meta_graph_pb2.SignatureDef:
    def infos(specs):
        return {
            name: meta_graph_pb2.TensorInfo(
                name=name, dtype=spec.dtype.as_datatype_enum, tensor_shape=spec.shape.as_proto()
            )
            for name, spec in specs.items()
        }

    return meta_graph_pb2.SignatureDef(
        inputs=infos(function.structured_input_signature[1]),
        outputs=infos(function.structured_outputs),
        method_name="tensorflow/serving/predict",
    )


@functools.cache
def model(input_type: str) -> LoadedModel:
    """The detector of an input type, saved and loaded once for all tests of a process."""
    with tempfile.TemporaryDirectory() as folder:
        return LoadedModel(save(input_type, folder))


def warmup_request(saved_model: os.PathLike) -> predict_pb2.PredictRequest:
    """The request that TF Serving sends itself when it loads this folder."""
    path = os.path.join(saved_model, "assets.extra", "tf_serving_warmup_requests")
    (record,) = tf.data.TFRecordDataset(path).as_numpy_iterator()
    request = prediction_log_pb2.PredictionLog.FromString(record).predict_log.request
    request.model_spec.name = MODEL_NAME  # TF Serving knows whose file it reads
    return request


class _Service(prediction_service_pb2_grpc.PredictionServiceServicer):
    def __init__(self, model: LoadedModel):
        self._model = model

    def Predict(self, request, context):
        try:
            outputs = self._model.predict(request)
        except RefusedError as error:
            context.abort(error.code, str(error))
        response = predict_pb2.PredictResponse(model_spec=request.model_spec)
        for name, value in outputs.items():
            proto = response.outputs[name]
            proto.dtype = tf.as_dtype(value.dtype).as_datatype_enum
            proto.tensor_shape.CopyFrom(tf.TensorShape(value.shape).as_proto())
            if value.size < _MANY_FLOATS:
                proto.float_val.extend(value.ravel())
            else:
                proto.tensor_content = value.tobytes()
        return response

    def GetModelMetadata(self, request, context):
        response = get_model_metadata_pb2.GetModelMetadataResponse(model_spec=request.model_spec)
        try:
            signatures = self._model.metadata(request.model_spec.name)
        except RefusedError as error:
            context.abort(error.code, str(error))
        response.metadata["signature_def"].Pack(signatures)
        return response


@contextlib.contextmanager
def grpc_server(
    model: LoadedModel, certificate: certificates.Certificate | None = None
) -> Iterator[str]:
    """While it lasts, a server answers at the address HOST:PORT; encrypted with a certificate."""
    # As TF Serving: messages of up to 2 GB come in.
    server = grpc.server(
        concurrent.futures.ThreadPoolExecutor(2),
        options=[("grpc.max_receive_message_length", -1)],
    )
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(_Service(model), server)
    if certificate is None:
        port = server.add_insecure_port("localhost:0")
    else:
        files = (certificate.private, certificate.public)
        pair = tuple(pathlib.Path(file).read_bytes() for file in files)
        port = server.add_secure_port("localhost:0", grpc.ssl_server_credentials([pair]))
    server.start()
    try:
        yield f"localhost:{port}"
    finally:
        server.stop(None)


_HTTP_STATUS = {grpc.StatusCode.NOT_FOUND: 404}


class _Handler(http.server.BaseHTTPRequestHandler):
    """Has `model` from the class that `rest_server` makes."""

    model: LoadedModel

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        match = re.fullmatch(r"/v1/models/([^/:]+):predict", self.path)
        self._answer(lambda: answer_json(self.model, match[1], json.loads(body)), match)

    def do_GET(self):
        match = re.fullmatch(r"/v1/models/([^/:]+)/metadata", self.path)
        self._answer(lambda: _metadata(self.model, match[1]), match)

    def _answer(self, make, match):
        try:
            if match is None:
                text = f"Malformed request: {self.command} {self.path}"
                raise RefusedError(grpc.StatusCode.INVALID_ARGUMENT, text)
            status, answer = 200, make()
        except RefusedError as error:
            status, answer = _HTTP_STATUS.get(error.code, 400), {"error": str(error)}
        body = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        """Says nothing."""


def _metadata(model: LoadedModel, name: str) -> dict:
    signatures = json_format.MessageToDict(
        model.metadata(name),
        preserving_proto_field_name=True,
        always_print_fields_with_no_presence=True,
    )
    spec = {"name": name, "signature_name": "", "version": "1"}
    return {"model_spec": spec, "metadata": {"signature_def": signatures}}


def answer_json(model: LoadedModel, name: str, body: dict) -> dict:
    """Either form, `inputs` or `instances`, as json_tensor.cc reads and answers them."""
    model.check_name(name)
    invalid = grpc.StatusCode.INVALID_ARGUMENT
    if not isinstance(body, dict) or ("inputs" in body) == ("instances" in body):
        raise RefusedError(invalid, "Missing 'inputs' or 'instances' key")
    key = body.get("signature_name", "serving_default")
    if key not in model.signatures:
        raise RefusedError(invalid, f'Serving signature name: "{key}" not found in signature def')
    known = model.signatures[key].inputs
    values = body["inputs"] if "inputs" in body else _columns(body["instances"], list(known))
    request = predict_pb2.PredictRequest()
    request.model_spec.name, request.model_spec.signature_name = name, key
    for input_name, info in known.items():
        if input_name not in values:
            raise RefusedError(invalid, f"Missing named input: {input_name} in 'inputs' object.")
        array = _array(values[input_name], tf.as_dtype(info.dtype))
        request.inputs[input_name].CopyFrom(tf.make_tensor_proto(array))
    outputs = {key: value.tolist() for key, value in model.predict(request).items()}
    if "inputs" in body:
        return {"outputs": outputs}
    rows = zip(*outputs.values(), strict=True)
    return {"predictions": [dict(zip(outputs, row, strict=True)) for row in rows]}


def _columns(instances: list, names: list[str]) -> dict[str, list]:
    if len(names) == 1 and not (isinstance(instances[0], dict) and names[0] in instances[0]):
        return {names[0]: instances}
    return {name: [each[name] for each in instances] for name in names}


def _array(value, dtype: tf.DType) -> np.ndarray:
    if dtype != tf.string:
        array = np.array(value)
        if array.dtype.kind not in "iuf" or (dtype.is_integer and array.dtype.kind == "f"):
            text = f"JSON Value is not of expected type: {dtype.name}"
            raise RefusedError(grpc.StatusCode.INVALID_ARGUMENT, text)
        return array.astype(dtype.as_numpy_dtype)
    return np.array(_strings(value), dtype=object)


def _strings(value):
    if isinstance(value, list):
        return [_strings(each) for each in value]
    if isinstance(value, dict) and set(value) == {"b64"}:
        return base64.b64decode(value["b64"], validate=True)
    if not isinstance(value, str):
        text = f"JSON Value: {value} is not of expected type: string"
        raise RefusedError(grpc.StatusCode.INVALID_ARGUMENT, text)
    return value.encode()


@contextlib.contextmanager
def rest_server(
    model: LoadedModel, certificate: certificates.Certificate | None = None
) -> Iterator[str]:
    """While it lasts, a server answers at http://HOST:PORT, with a certificate at https://."""
    handler = type("Handler", (_Handler,), {"model": model})
    server = http.server.ThreadingHTTPServer(("localhost", 0), handler)
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate.public, certificate.private)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        scheme = "http" if certificate is None else "https"
        yield f"{scheme}://localhost:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
