# SPDX-License-Identifier: Apache-2.0
"""Requests to TF Serving and its answers as JSON; needs neither TensorFlow nor its protos.

Requests are in the columnar form: `{"inputs": {name: array}}` is answered by `{"outputs": {name:
array}}`. The other form, `instances`, lists the clips and repeats every name for each, in the
answer too, and wants all inputs and outputs to have the same batch. Binary strings such as JPEGs
are `{"b64": base64}`.
"""

import base64
import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from object_detection_ext import input_types
from object_detection_ext.serving.inputs import Inputs, ServingError, TensorInfo


def predict_body(inputs: Inputs) -> bytes:
    """Returns the body of a request: arrays of numbers as nested lists, bytes in base64."""
    body = {
        "signature_name": input_types.SIGNATURE,
        "inputs": {name: _jsonable(array.tolist()) for name, array in inputs.items()},
    }
    return json.dumps(body, separators=(",", ":")).encode()


def _jsonable(value: Any) -> Any:
    if isinstance(value, bytes):
        return {"b64": base64.b64encode(value).decode("ascii")}
    if isinstance(value, list) and value and isinstance(value[0], bytes | list):
        return [_jsonable(each) for each in value]
    return value


def predicted(body: bytes, outputs: Sequence[str] = input_types.DETECTIONS) -> dict:
    """Returns outputs by name, float32 as exported models give them.

    Args:
      body: of the answer.
      outputs: names of the wanted ones; none for all. The server sends all in any case.

    Raises:
      ServingError: if it is no such answer, or a wanted output is missing.
    """
    answer = _parsed(body).get("outputs")
    if not isinstance(answer, dict):
        raise ServingError(f"the answer has no outputs by name: {_beginning(body)}")
    missing = [name for name in outputs if name not in answer]
    if missing:
        raise ServingError(
            f"the model does not return {', '.join(missing)}, only {', '.join(sorted(answer))}."
        )
    return {name: np.asarray(answer[name], np.float32) for name in outputs or answer}


def signature_inputs(body: bytes) -> dict[str, TensorInfo]:
    """Returns the inputs of the default signature by name; `body` is of a model's `/metadata`.

    Raises:
      ServingError: if it is no such answer, or the model has no such signature.
    """
    try:
        signatures = _parsed(body)["metadata"]["signature_def"]["signature_def"]
    except KeyError as error:
        raise ServingError(f"the answer has no {error}: {_beginning(body)}") from None
    if input_types.SIGNATURE not in signatures:
        raise ServingError(f"the model has no signature '{input_types.SIGNATURE}'.")
    return {
        name: TensorInfo(info["dtype"], _shape(info["tensor_shape"]))
        for name, info in signatures[input_types.SIGNATURE]["inputs"].items()
    }


def error_text(body: bytes) -> str:
    """Returns what an answer says about an error; TF Serving says it as `{"error": text}`."""
    try:
        return str(_parsed(body)["error"])
    except (ServingError, KeyError):
        return _beginning(body)


def _shape(shape: dict) -> tuple[int | None, ...]:
    # JSON of protos has integers of 64 bits as strings.
    sizes = [int(dim["size"]) for dim in shape["dim"]]
    return tuple(None if size < 0 else size for size in sizes)


def _parsed(body: bytes) -> dict:
    try:
        answer = json.loads(body)
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        raise ServingError(f"the answer is no JSON object: {_beginning(body)}")
    return answer


def _beginning(body: bytes, length: int = 200) -> str:
    text = body.decode("utf-8", errors="replace").strip()
    return (text[:length] + " ...") if len(text) > length else text or "an empty answer"
