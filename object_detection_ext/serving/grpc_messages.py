# SPDX-License-Identifier: Apache-2.0
"""Requests to TF Serving and its answers as protos: PredictionService over gRPC."""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import tensor_shape_pb2, types_pb2
from tensorflow_serving.apis import get_model_metadata_pb2, predict_pb2

from object_detection_ext import input_types
from object_detection_ext.serving.inputs import Inputs, ServingError, TensorInfo

_SIGNATURES = "signature_def"


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


def predicted(response: predict_pb2.PredictResponse) -> dict[str, np.ndarray]:
    """Returns the outputs by name."""
    return {name: tf.make_ndarray(proto) for name, proto in response.outputs.items()}


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
      ServingError: if the model has no such signature.
    """
    signatures = get_model_metadata_pb2.SignatureDefMap()
    response.metadata[_SIGNATURES].Unpack(signatures)
    if input_types.SIGNATURE not in signatures.signature_def:
        raise ServingError(f"the model has no signature '{input_types.SIGNATURE}'.")
    return {
        name: TensorInfo(types_pb2.DataType.Name(info.dtype), _shape(info.tensor_shape))
        for name, info in signatures.signature_def[input_types.SIGNATURE].inputs.items()
    }


def _shape(proto: tensor_shape_pb2.TensorShapeProto) -> tuple[int | None, ...]:
    return tuple(None if dim.size < 0 else dim.size for dim in proto.dim)
