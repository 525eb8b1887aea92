# SPDX-License-Identifier: Apache-2.0
"""Requests that TF Serving sends itself when it loads a model, so that nobody waits for the first.

They stand in the SavedModel as TF Serving looks for them: a TFRecord of PredictionLogs. There is
one, with a gray clip. A proto with a shape and one value stands for a tensor full of this value, so
that even a clip of pixels takes some bytes only.

Shapes: T frames, H W pixels.
"""

import importlib.util
import os

import numpy as np
import tensorflow as tf
from object_detection.protos import image_resizer_pb2
from PIL import Image
from tensorflow.core.framework import tensor_pb2

from object_detection_ext import files, input_types
from object_detection_ext.conversion import jpeg
from object_detection_ext.serving import inputs

FILE = os.path.join("assets.extra", "tf_serving_warmup_requests")

_GRAY = 128
_DEFAULT_SIZE = (256, 256)
_WIDESCREEN = 16 / 9
# The middle of the picture: [ymin, xmin, ymax, xmax], normalized.
_BOX = (0.25, 0.25, 0.75, 0.75)


def frame_size(resizer: image_resizer_pb2.ImageResizer) -> tuple[int, int]:
    """Returns (H, W) in pixels of frames that the model gets: widescreen where they may differ."""
    kind = resizer.WhichOneof("image_resizer_oneof")
    if kind == "fixed_shape_resizer":
        return resizer.fixed_shape_resizer.height, resizer.fixed_shape_resizer.width
    if kind == "keep_aspect_ratio_resizer":
        height = resizer.keep_aspect_ratio_resizer.min_dimension
        longest = resizer.keep_aspect_ratio_resizer.max_dimension
        return height, min(longest, round(height * _WIDESCREEN))
    return _DEFAULT_SIZE


def tensors(
    input_type: str, *, num_frames: int, record_stride: int, frame_size: tuple[int, int]
) -> dict[str, tensor_pb2.TensorProto]:
    """Returns the inputs of one gray clip by name.

    Args:
      input_type: of the model.
      num_frames: T.
      record_stride: frames of a SequenceExample for each one of the clip.
      frame_size: (H, W) in pixels.
    """
    if input_type in (input_types.CLIP_TENSOR, input_types.CLIP_AND_BOXES):
        shape = [1, num_frames, *frame_size, 3]
        found = {input_types.INPUT: tf.make_tensor_proto(_GRAY, tf.uint8, shape)}
        if input_type == input_types.CLIP_AND_BOXES:
            found[input_types.BOXES] = tf.make_tensor_proto([[_BOX]], tf.float32)
        return found
    frame = _gray_jpeg(frame_size)
    if input_type == input_types.ENCODED_CLIP:
        return {input_types.INPUT: tf.make_tensor_proto(frame, tf.string, [1, num_frames])}
    count, _ = inputs.frames_of_clip(input_type, num_frames, record_stride)
    record = inputs.sequence_example([frame] * count)
    return {input_types.INPUT: tf.make_tensor_proto(record, tf.string, [1])}


def write(saved_model: str, input_type: str, **of_clip) -> bool:
    """Adds the request to a SavedModel, or says why not.

    Args:
      saved_model: the folder, local or what TensorFlow can write to.
      input_type: of the model.
      **of_clip: see `tensors`.

    Returns:
      Whether it was written: not without tensorflow-serving-api.
    """
    if importlib.util.find_spec("tensorflow_serving") is None:
        print(
            "No warm-up requests for TF Serving in the SavedModel: they need tensorflow-serving-api"
            "==2.19.1 (the extra [serving] of this package).",
            flush=True,
        )
        return False
    from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

    request = predict_pb2.PredictRequest(inputs=tensors(input_type, **of_clip))
    request.model_spec.signature_name = input_types.SIGNATURE
    log = prediction_log_pb2.PredictionLog()
    log.predict_log.request.CopyFrom(request)
    path = os.path.join(saved_model, FILE)
    tf.io.gfile.makedirs(os.path.dirname(path))
    with files.replaced_path(path) as temporary, tf.io.TFRecordWriter(temporary) as writer:
        writer.write(log.SerializeToString())
    return True


def _gray_jpeg(size: tuple[int, int]) -> bytes:
    picture = Image.fromarray(np.full((*size, 3), _GRAY, np.uint8))
    return jpeg.encoded(picture, inputs.JPEG_QUALITY)
