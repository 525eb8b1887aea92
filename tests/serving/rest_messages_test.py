# SPDX-License-Identifier: Apache-2.0
"""JSON as TF Serving's documentation of its REST API has it."""

import base64
import json

import numpy as np
import pytest

from object_detection_ext.serving import rest_messages
from object_detection_ext.serving.inputs import ServingError, TensorInfo

# The documentation's own example of bytes: "image bytes" is aW1hZ2UgYnl0ZXM=.
_BYTES, _BASE64 = b"image bytes", "aW1hZ2UgYnl0ZXM="


def test_bytes_are_base64_objects_at_any_depth():
    for array, expected in (
        (np.array([_BYTES], dtype=object), [{"b64": _BASE64}]),
        (np.array([[_BYTES, _BYTES]], dtype=object), [[{"b64": _BASE64}, {"b64": _BASE64}]]),
    ):
        body = json.loads(rest_messages.predict_body({"input_tensor": array}))
        assert body == {"signature_name": "serving_default", "inputs": {"input_tensor": expected}}


def test_any_bytes_survive():
    everything = bytes(range(256)) * 3 + b"\0"
    array = np.array([everything], dtype=object)
    body = json.loads(rest_messages.predict_body({"input_tensor": array}))
    assert base64.b64decode(body["inputs"]["input_tensor"][0]["b64"], validate=True) == everything


def test_numbers_are_nested_lists():
    arrays = {
        "input_tensor": np.arange(6, dtype=np.uint8).reshape(1, 2, 3),
        "boxes": np.float32([[[0.5, 0.25, 1, 1]]]),
    }
    assert json.loads(rest_messages.predict_body(arrays))["inputs"] == {
        "input_tensor": [[[0, 1, 2], [3, 4, 5]]],
        "boxes": [[[0.5, 0.25, 1.0, 1.0]]],
    }


def test_outputs_are_arrays():
    body = b'{"outputs": {"a": [[0.5, 3], [-7, 1e-05]], "b": [3.0, 1.0]}}'
    found = rest_messages.predicted(body, ["a"], num_clips=2)
    np.testing.assert_array_equal(found["a"], np.float32([[0.5, 3], [-7, 1e-5]]))
    assert found["a"].dtype == np.float32
    assert set(found) == {"a"} and set(rest_messages.predicted(body, [], 2)) == {"a", "b"}


def test_numbers_that_are_not_finite_are_no_matter_where_nobody_asked_for_them():
    body = b'{"outputs": {"a": [NaN, -Infinity], "b": [3.0, 1.0]}}'
    assert set(rest_messages.predicted(body, ["b"], num_clips=2)) == {"b"}
    with pytest.raises(ServingError, match="a has values that are not finite"):
        rest_messages.predicted(body, ["a"], num_clips=2)


def test_signature_of_the_metadata():
    dims = [{"size": "-1", "name": ""}, {"size": "64", "name": ""}]
    info = {"dtype": "DT_STRING", "tensor_shape": {"dim": dims, "unknown_rank": False}, "name": "x"}
    metadata = {"serving_default": {"inputs": {"input_tensor": info}, "outputs": {}}}
    body = {"metadata": {"signature_def": {"signature_def": metadata}}}
    found = rest_messages.signature_inputs(json.dumps(body).encode())
    assert found == {"input_tensor": TensorInfo("DT_STRING", (None, 64))}
    metadata["other"] = metadata.pop("serving_default")
    with pytest.raises(ServingError, match="no signature 'serving_default'"):
        rest_messages.signature_inputs(json.dumps(body).encode())
    with pytest.raises(ServingError, match="the answer has no 'metadata': {}"):
        rest_messages.signature_inputs(b"{}")


def test_long_answers_are_cut_in_messages():
    assert rest_messages.error_text(b"x" * 999) == "x" * 200 + " ..."
    assert rest_messages.error_text(b'{"error": "Servable not found"}') == "Servable not found"
