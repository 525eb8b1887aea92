# SPDX-License-Identifier: Apache-2.0
"""Requests to TF Serving and its answers as protos: PredictionService over gRPC."""

import math
from collections.abc import Sequence

import numpy as np
import tensorflow as tf
from google.protobuf import message
from tensorflow.core.framework import tensor_pb2, types_pb2
from tensorflow_serving.apis import get_model_metadata_pb2, predict_pb2

from object_detection_ext import input_types
from object_detection_ext.serving import answers
from object_detection_ext.serving.inputs import Inputs, ServingError, TensorInfo

_SIGNATURES = "signature_def"
_NUMBERS = frozenset(
    getattr(types_pb2, f"DT_{name}")
    for name in "FLOAT DOUBLE HALF INT8 UINT8 INT16 UINT16 INT32 UINT32 INT64 UINT64".split()
)


def predict_request(
    model_name: str, inputs: Inputs, outputs: Sequence[str] = input_types.DETECTIONS
) -> predict_pb2.PredictRequest:
    """Returns a request.

    Args:
      model_name: as the server knows it.
      inputs: by name, arrays of numbers or of objects (bytes).
      outputs: names of the wanted ones; none for all. The server sends no others, which matters:
        scores of every class for every proposal, or attention, are many times the detections.
    """
    request = predict_pb2.PredictRequest(output_filter=outputs)
    request.model_spec.name = model_name
    request.model_spec.signature_name = input_types.SIGNATURE
    for name, value in inputs.items():
        request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
    return request


def predicted(
    response: predict_pb2.PredictResponse,
    outputs: Sequence[str],
    num_clips: int,
    max_bytes: int,
) -> dict[str, np.ndarray]:
    """Returns the outputs by name, float32.

    Args:
      response: of the server.
      outputs: names of the wanted ones; none for all.
      num_clips: B, as it was asked for.
      max_bytes: of an array; a proto of some bytes may stand for one of any size.

    Raises:
      ServingError: if it is not such an answer, or see `answers.checked`.
    """
    answers.missing_outputs(response.outputs, outputs)
    found = {
        name: _array(name, response.outputs[name], max_bytes)
        for name in outputs or list(response.outputs)
    }
    return answers.checked(found, num_clips)


def _array(name: str, proto: tensor_pb2.TensorProto, max_bytes: int) -> np.ndarray:
    """The numbers of a proto. Raises ServingError if it does not hold what it declares."""
    shown = answers.shown(name)
    if proto.dtype not in _NUMBERS:
        raise ServingError(f"{shown} must hold numbers; its type is {_type_name(proto.dtype)}.")
    dtype = tf.as_dtype(proto.dtype).as_numpy_dtype
    sizes = [dim.size for dim in proto.tensor_shape.dim]
    if (
        proto.tensor_shape.unknown_rank
        or len(sizes) > answers.MAX_RANK
        or min(sizes, default=0) < 0
    ):
        raise ServingError(f"{shown} has no shape: {answers.shown(sizes)}.")
    num_bytes = math.prod(sizes) * np.dtype(dtype).itemsize
    if num_bytes > max_bytes:
        raise ServingError(
            f"{shown} has the shape {sizes}, {num_bytes / 1e6:.0f} MB; at most "
            f"{max_bytes / 1e6:.0f} MB are taken ({answers.SIZE_HINT})."
        )
    if proto.tensor_content and len(proto.tensor_content) != num_bytes:
        raise ServingError(
            f"{shown} has {len(proto.tensor_content)} bytes, but its shape {sizes} needs "
            f"{num_bytes}."
        )
    try:
        return tf.make_ndarray(proto)
    except (TypeError, ValueError, OverflowError) as error:
        raise ServingError(
            f"{shown} does not hold what its shape {sizes} needs: {answers.shown(error)}"
        ) from None


def _type_name(number: int) -> str:
    try:
        return types_pb2.DataType.Name(number)
    except ValueError:
        return f"{number}, which does not exist"


def metadata_request(model_name: str) -> get_model_metadata_pb2.GetModelMetadataRequest:
    """Returns a request for the model's signatures."""
    request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=[_SIGNATURES])
    request.model_spec.name = model_name
    return request


def signature_inputs(
    response: get_model_metadata_pb2.GetModelMetadataResponse,
) -> dict[str, TensorInfo]:
    """Returns the inputs of the default signature by name.

    Raises:
      ServingError: if it is not such an answer, or the model has no such signature.
    """
    signatures = get_model_metadata_pb2.SignatureDefMap()
    try:
        is_one = response.metadata[_SIGNATURES].Unpack(signatures)
    except message.DecodeError:
        is_one = False
    if not is_one:
        raise ServingError("the answer holds no signatures of a model.")
    if input_types.SIGNATURE not in signatures.signature_def:
        raise ServingError(f"the model has no signature '{input_types.SIGNATURE}'.")
    return {
        name: answers.tensor_info(
            name, _type_name(info.dtype), [dim.size for dim in info.tensor_shape.dim]
        )
        for name, info in signatures.signature_def[input_types.SIGNATURE].inputs.items()
    }
