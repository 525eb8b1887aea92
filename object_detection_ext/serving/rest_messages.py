# SPDX-License-Identifier: Apache-2.0
"""Requests to TF Serving and its answers as JSON; needs neither TensorFlow nor its protos.

Requests are in the columnar form: `{"inputs": {name: array}}` is answered by `{"outputs": {name:
array}}`. The other form, `instances`, lists the clips and repeats every name for each, in the
answer too, and wants all inputs and outputs to have the same batch. Binary strings such as JPEGs
are `{"b64": base64}`.
"""

import base64
import json
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from object_detection_ext import input_types, json_text
from object_detection_ext.serving import answers
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


def predicted(
    body: bytes, outputs: Sequence[str] = input_types.DETECTIONS, num_clips: int = 1
) -> dict[str, np.ndarray]:
    """Returns outputs by name, float32 as exported models give them.

    Args:
      body: of the answer.
      outputs: names of the wanted ones; none for all. The server sends all in any case.
      num_clips: B, as it was asked for.

    Raises:
      ServingError: if it is not such an answer, or see `answers.checked`.
    """
    answer = _parsed(body).get("outputs")
    if not isinstance(answer, dict):
        raise ServingError(f"the answer has no outputs by name: {_beginning(body)}")
    answers.missing_outputs(answer, outputs)
    found = {name: _array(name, answer[name]) for name in outputs or answer}
    return answers.checked(found, num_clips)


def _array(name: str, value: Any) -> np.ndarray:
    """An array of numbers. Raises ServingError for anything else in it, and for uneven lists."""
    if not _holds_numbers(value, answers.MAX_RANK):
        raise ServingError(f"{answers.shown(name)} must be lists of numbers.")
    try:
        return np.array(value, np.float64)
    except (ValueError, OverflowError) as error:
        raise ServingError(
            f"{answers.shown(name)} must be lists of numbers, all of one length: {error}"
        ) from None


def _holds_numbers(value: Any, depth: int) -> bool:
    # NumPy would take texts and truth values for numbers.
    if isinstance(value, list):
        return depth > 0 and all(_holds_numbers(each, depth - 1) for each in value)
    return isinstance(value, int | float) and not isinstance(value, bool)


def signature_inputs(body: bytes) -> dict[str, TensorInfo]:
    """Returns the inputs of the default signature by name; `body` is of a model's `/metadata`.

    Raises:
      ServingError: if it is not such an answer, or the model has no such signature.
    """
    found: Any = _parsed(body)
    for key in ("metadata", "signature_def", "signature_def"):
        found = _member(found, key, body)
    if input_types.SIGNATURE not in found:
        raise ServingError(f"the model has no signature '{input_types.SIGNATURE}'.")
    signature = _member(found, input_types.SIGNATURE, body)
    infos = {}
    for name in _member(signature, "inputs", body):
        info = _member(signature["inputs"], name, body)
        if info.get("tensor_shape") is None:
            raise ServingError(f"the answer has no tensor_shape: {_beginning(body)}")
        sizes = _sizes(info["tensor_shape"], body)
        infos[name] = answers.tensor_info(name, info.get("dtype"), sizes)
    return infos


def _member(value: dict, key: str, body: bytes) -> dict:
    """An object inside of another. Raises ServingError if there is none."""
    if not isinstance(value.get(key), dict):
        raise ServingError(f"the answer has no '{answers.shown(key)}': {_beginning(body)}")
    return value[key]


def error_text(body: bytes) -> str:
    """Returns what an answer says about an error; TF Serving says it as `{"error": text}`."""
    try:
        return answers.shown(_parsed(body)["error"])
    except (ServingError, KeyError):
        return _beginning(body)


def _sizes(shape: Any, body: bytes) -> list[int]:
    dims = shape.get("dim") if isinstance(shape, dict) else None
    if not isinstance(dims, list) or len(dims) > answers.MAX_RANK:
        raise ServingError(f"the answer has no shape of dimensions: {_beginning(body)}")
    # JSON of protos has integers of 64 bits as strings.
    sizes = [str(dim.get("size")) if isinstance(dim, dict) else "" for dim in dims]
    if not all(re.fullmatch(r"-?[0-9]{1,19}", size) for size in sizes):
        raise ServingError(f"the answer has no shape of whole numbers: {_beginning(body)}")
    return list(map(int, sizes))


def _parsed(body: bytes) -> dict:
    try:
        answer = json_text.parsed(body, any_number=True)
    except ValueError as error:
        raise ServingError(f"the answer is no JSON object: {_beginning(body)} ({error})") from None
    if not isinstance(answer, dict):
        raise ServingError(f"the answer is no JSON object: {_beginning(body)}")
    return answer


def _beginning(body: bytes, length: int = 1000) -> str:
    text = body[:length].decode("utf-8", errors="replace").strip()
    return answers.shown(text) if text else "an empty answer"
