# SPDX-License-Identifier: Apache-2.0
"""Clients of TF Serving, one for each of its protocols, with the same two questions."""

import http.client
import ssl
import urllib.parse
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from object_detection_ext import errors, input_types
from object_detection_ext.serving import answers, http_question, rest_messages
from object_detection_ext.serving.inputs import Inputs, ServingError, TensorInfo

DEFAULT_TIMEOUT = 120.0
# The detections of a hundred clips take less than 1 MB; what a REST server sends besides them
# (scores of every class for every proposal) some MB for each clip.
DEFAULT_MAX_ANSWER_BYTES = 32 * 2**20

# Protobuf's limit, which TF Serving sets as its own.
MAX_MESSAGE_BYTES = 2**31 - 1
_MAX_HEADER_BYTES = 64 * 2**10
_START_HINT = (
    "Is it running, and is this the port of the protocol (by default 8500 for gRPC, 8501 for "
    "REST)? While it loads and warms up the model, it does not answer yet."
)
# What gRPC says of a server that does not prove who it is.
_NOT_TRUSTED = ("CERTIFICATE_VERIFY_FAILED", "Hostname Verification Check failed")
_INSTALL = "pip install tensorflow-serving-api==2.19.1 (the extra [serving] of this package)"


class Client(Protocol):
    """A model on a server."""

    def signature_inputs(self) -> dict[str, TensorInfo]:
        """Asks what the model takes: the inputs of its default signature by name.

        Raises:
          ServingError: if there is no answer in time, or it is an error or not to be trusted.
        """

    def predict(
        self, inputs: Inputs, outputs: Sequence[str] = input_types.DETECTIONS
    ) -> dict[str, np.ndarray]:
        """Has the model run.

        Args:
          inputs: by name, B clips in front; see `inputs.batch`.
          outputs: names of the wanted ones; none for all.

        Returns:
          The outputs by name, B in front: `detection_boxes` [B, N, 4], normalized [ymin, xmin,
          ymax, xmax]; `detection_scores` and `detection_classes` [B, N]; `num_detections` [B].

        Raises:
          ServingError: if there is no answer in time, it is an error, or it is not of the shapes,
            types and ranges that detections have.
        """

    def close(self) -> None:
        """Ends the connection."""


class GrpcClient:
    """See `Client`. Needs tensorflow-serving-api."""

    def __init__(
        self,
        address: str,
        model_name: str,
        timeout: float = DEFAULT_TIMEOUT,
        *,
        max_answer_bytes: int = DEFAULT_MAX_ANSWER_BYTES,
        tls: bool = False,
        ca_certificate: str | None = None,
    ):
        """Does not connect yet.

        Args:
          address: HOST:PORT.
          model_name: as the server knows it.
          timeout: of each question with its answer, in seconds.
          max_answer_bytes: of an answer; no more is read.
          tls: whether the connection is encrypted, and the server must prove who it is.
          ca_certificate: with `tls`, the PEM file of the authority that signed the server's
            certificate; None trusts those that gRPC brings.

        Raises:
          ServingError: if tensorflow-serving-api is not installed.
          errors.InputError: if the file is not a certificate.
        """
        try:
            import grpc
            from tensorflow_serving.apis import prediction_service_pb2_grpc

            from object_detection_ext.serving import grpc_messages
        except ImportError as error:
            raise ServingError(f"gRPC needs tensorflow-serving-api ({error}): {_INSTALL}") from None
        self._grpc, self._messages = grpc, grpc_messages
        self._address, self._model_name, self._timeout = address, model_name, timeout
        self._max_answer_bytes = min(max_answer_bytes, MAX_MESSAGE_BYTES)
        # gRPC's own limit for an answer is 4 MB, less than attention or many classes take.
        limits = [
            ("grpc.max_receive_message_length", self._max_answer_bytes),
            ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
            ("grpc.max_metadata_size", _MAX_HEADER_BYTES),
            ("grpc.absolute_max_metadata_size", _MAX_HEADER_BYTES),
            # Some bytes may unpack to any number: nothing packed is taken.
            ("grpc.compression_enabled_algorithms_bitset", 1),
        ]
        if tls:
            roots = None if ca_certificate is None else _root_certificates(ca_certificate)
            credentials = grpc.ssl_channel_credentials(root_certificates=roots)
            self._channel = grpc.secure_channel(address, credentials, options=limits)
        else:
            self._channel = grpc.insecure_channel(address, options=limits)
        self._stub = prediction_service_pb2_grpc.PredictionServiceStub(self._channel)

    def signature_inputs(self) -> dict[str, TensorInfo]:
        """See `Client`."""
        request = self._messages.metadata_request(self._model_name)
        return self._messages.signature_inputs(self._ask(self._stub.GetModelMetadata, request))

    def predict(
        self, inputs: Inputs, outputs: Sequence[str] = input_types.DETECTIONS
    ) -> dict[str, np.ndarray]:
        """See `Client`."""
        _check_size(sum(_num_bytes(array) for array in inputs.values()))
        request = self._messages.predict_request(self._model_name, inputs, outputs)
        answer = self._ask(self._stub.Predict, request)
        return self._messages.predicted(answer, outputs, _num_clips(inputs), self._max_answer_bytes)

    def close(self) -> None:
        """See `Client`."""
        self._channel.close()

    def _ask(self, method: Callable, request):
        try:
            return method(request, timeout=self._timeout)
        except self._grpc.RpcError as error:
            raise ServingError(self._explained(error.code(), error.details() or "")) from error

    def _explained(self, code, details: str) -> str:
        codes = self._grpc.StatusCode
        is_not_trusted = any(words in details for words in _NOT_TRUSTED)
        is_too_long = "larger than max" in details
        details = answers.shown(details)
        if code == codes.UNAVAILABLE and is_not_trusted:
            return _not_trusted(self._address, details)
        if code == codes.UNAVAILABLE:
            return f"no server answers at {self._address}. {_START_HINT} gRPC says: {details}"
        if code == codes.DEADLINE_EXCEEDED:
            return _too_late(self._address, self._timeout)
        if code == codes.NOT_FOUND:
            return _no_model(self._address, self._model_name, details)
        if code == codes.RESOURCE_EXHAUSTED and is_too_long:
            return _too_long(self._address, self._max_answer_bytes)
        if code == codes.RESOURCE_EXHAUSTED:
            return (
                f"a message was too large for the server at {self._address}, or its memory ran "
                f"out; send fewer clips at a time, or smaller frames. It says: {details}"
            )
        return f"the server at {self._address} says {code.name}: {details}"


class RestClient:
    """See `Client`. The server sends every output, whatever is wanted."""

    def __init__(
        self,
        address: str,
        model_name: str,
        timeout: float = DEFAULT_TIMEOUT,
        *,
        max_answer_bytes: int = DEFAULT_MAX_ANSWER_BYTES,
        ca_certificate: str | None = None,
    ):
        """Does not connect yet.

        Args:
          address: http://HOST:PORT, or https:// for an encrypted connection to a server that must
            prove who it is.
          model_name: as the server knows it.
          timeout: of each question with its answer, in seconds.
          max_answer_bytes: of an answer; no more is read.
          ca_certificate: with https, the PEM file of the authority that signed the server's
            certificate; None trusts those of this machine.

        Raises:
          errors.InputError: if the file is not a certificate.
        """
        self._address, self._model_name, self._timeout = address.rstrip("/"), model_name, timeout
        self._max_answer_bytes = max_answer_bytes
        self._tls = None if ca_certificate is None else _tls_context(ca_certificate)

    def signature_inputs(self) -> dict[str, TensorInfo]:
        """See `Client`."""
        return rest_messages.signature_inputs(self._ask("/metadata"))

    def predict(
        self, inputs: Inputs, outputs: Sequence[str] = input_types.DETECTIONS
    ) -> dict[str, np.ndarray]:
        """See `Client`."""
        answer = self._ask(":predict", rest_messages.predict_body(inputs))
        return rest_messages.predicted(answer, outputs, _num_clips(inputs))

    def close(self) -> None:
        """See `Client`."""

    def _ask(self, what: str, body: bytes | None = None) -> bytes:
        name = urllib.parse.quote(self._model_name, safe="")
        question = http_question.Question(
            f"{self._address}/v1/models/{name}{what}", body, self._timeout, self._tls
        )
        try:
            status, answer = question.ask(self._max_answer_bytes)
        except http_question.TooLateError as error:
            raise ServingError(_too_late(self._address, self._timeout)) from error
        except http_question.TooLongError as error:
            raise ServingError(_too_long(self._address, self._max_answer_bytes)) from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            reason = getattr(error, "reason", error)
            if isinstance(reason, ssl.SSLCertVerificationError):
                raise ServingError(_not_trusted(self._address, str(reason))) from error
            raise ServingError(
                f"no server answers at {self._address}. {_START_HINT} ({answers.shown(reason)})"
            ) from error
        if status != http.client.OK:
            raise ServingError(self._explained(status, rest_messages.error_text(answer)))
        return answer

    def _explained(self, status: int, details: str) -> str:
        if status == http.client.NOT_FOUND:
            return _no_model(self._address, self._model_name, details)
        if status == http.client.REQUEST_ENTITY_TOO_LARGE:
            return (
                f"the request was too large for {self._address}; send fewer clips at a time, or "
                "use gRPC."
            )
        if status == http.client.GATEWAY_TIMEOUT:
            return (
                f"the model at {self._address} took longer than the server allows over REST (30 s "
                "unless it was started with --rest_api_timeout_in_ms); send fewer clips at a "
                f"time, or use gRPC. It says: {details}"
            )
        return f"the server at {self._address} says {status}: {details}"


def _too_late(address: str, timeout: float) -> str:
    return (
        f"no answer from {address} within {timeout:g} s; allow more time, or send fewer clips at a "
        "time."
    )


def _too_long(address: str, max_bytes: int) -> str:
    return (
        f"the answer from {address} is longer than {max_bytes / 1e6:.0f} MB; send fewer clips at a "
        f"time, ask for fewer outputs over gRPC, or take more ({answers.SIZE_HINT})."
    )


def _not_trusted(address: str, details: str) -> str:
    return (
        f"the certificate of the server at {address} is not trusted; give that of the authority "
        "that signed it as ca_certificate (--ca_certificate on the command line), and name the "
        f"server as the certificate does. What was found: {details}"
    )


def _tls_context(ca_certificate: str) -> ssl.SSLContext:
    """What trusts this authority alone.

    Raises:
      errors.InputError: if the file cannot be read, or holds no certificate.
    """
    try:
        return ssl.create_default_context(cafile=ca_certificate)
    except ssl.SSLError:
        raise errors.InputError(f"{ca_certificate}: holds no certificate in PEM form.") from None
    except OSError as error:
        raise errors.InputError(
            f"{ca_certificate}: the certificate cannot be read: {error.strerror}."
        ) from None


def _root_certificates(path: str) -> bytes:
    """The same for gRPC, which would tell a wrong file only when it connects, as no server."""
    _tls_context(path)
    with open(path, "rb") as file:
        return file.read()


def _no_model(address: str, model_name: str, details: str) -> str:
    return (
        f"the server at {address} has no model '{model_name}'; the name is that of MODEL_NAME or "
        f"--model_name when it was started. It says: {details}"
    )


def _num_clips(inputs: Inputs) -> int:
    return len(next(iter(inputs.values())))


def _num_bytes(array: np.ndarray) -> int:
    return sum(map(len, array.flat)) if array.dtype == object else array.nbytes


def _check_size(num_bytes: int) -> None:
    if num_bytes > MAX_MESSAGE_BYTES:
        raise ServingError(
            f"{num_bytes / 1e9:.1f} GB are too much for one message, which holds 2.1 GB at most; "
            "send fewer clips at a time, smaller frames, or JPEGs (--input_type=encoded_clip)."
        )
