# SPDX-License-Identifier: Apache-2.0
"""What a served model takes, and clips of frames as its inputs.

Strings are NumPy arrays of objects: NumPy's own strings would lose zero bytes at their end.

Shapes: B clips, T frames, H W pixels.
"""

import dataclasses
import io
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from PIL import Image

from object_detection_ext import errors, input_types
from object_detection_ext.ava import annotations
from object_detection_ext.conversion import jpeg
from object_detection_ext.data import clip_features

# As the converter's records have.
JPEG_QUALITY = 92

# A frame as it is sent: pixels, uint8 [H, W, 3] RGB, or a JPEG of them.
Frame = np.ndarray | bytes
# By name, the batch in front.
Inputs = dict[str, np.ndarray]


class ServingError(errors.OutsideError):
    """A server, or its model, that cannot be used; the message says why and what would be right."""


@dataclasses.dataclass(frozen=True)
class TensorInfo:
    """An input of a signature: `dtype` as protos name it (`DT_UINT8`), None for open dimensions."""

    dtype: str
    shape: tuple[int | None, ...]

    def __str__(self) -> str:
        sizes = ", ".join("?" if size is None else str(size) for size in self.shape)
        return f"{self.dtype.removeprefix('DT_').lower()} [{sizes}]"


@dataclasses.dataclass(frozen=True)
class ModelInput:
    """What a model takes: `input_type` of `input_types`; T, None where the signature hides it."""

    input_type: str
    num_frames: int | None


def model_input(signature: Mapping[str, TensorInfo]) -> ModelInput:
    """Tells by the inputs of its signature what a model takes.

    Raises:
      ServingError: if these are not the inputs of a model of clips.
    """
    main = signature.get(input_types.INPUT)
    kind = main and (main.dtype, len(main.shape))
    with_boxes = set(signature) == {input_types.INPUT, input_types.BOXES}
    if kind == ("DT_UINT8", 5) and with_boxes:
        return ModelInput(input_types.CLIP_AND_BOXES, main.shape[1])
    if len(signature) == 1:
        if kind == ("DT_UINT8", 5):
            return ModelInput(input_types.CLIP_TENSOR, main.shape[1])
        if kind == ("DT_STRING", 2):
            return ModelInput(input_types.ENCODED_CLIP, main.shape[1])
        if kind == ("DT_STRING", 1):
            return ModelInput(input_types.TF_SEQUENCE_EXAMPLE, None)
    found = ", ".join(f"{name}: {info}" for name, info in sorted(signature.items()))
    raise ServingError(
        f"the model does not take clips: its inputs are {found or 'none'}. Serve one that "
        "object_detection_ext.exporter_main_v2 exported."
    )


def frame_encoder(input_type: str, short_side: int) -> Callable[[np.ndarray], Frame]:
    """Returns what makes a frame to send of uint8 [H, W, 3] RGB.

    Args:
      input_type: of the model.
      short_side: frames with a longer one are shrunk to it, in pixels; 0 keeps all. The model
        resizes frames in any case, so that enlarging them here would only cost.
    """

    def shrunk(frame: np.ndarray) -> Image.Image:
        return jpeg.resized(Image.fromarray(frame), short_side)

    if input_type in (input_types.CLIP_TENSOR, input_types.CLIP_AND_BOXES):
        return lambda frame: np.asarray(shrunk(frame))
    return lambda frame: jpeg.encoded(shrunk(frame), JPEG_QUALITY)


def frames_of_clip(input_type: str, num_frames: int, record_stride: int) -> tuple[int, int]:
    """Returns how many frames of which rate, in multiples of the clip's, are cut out of a video.

    A SequenceExample holds `record_stride` frames for each one of the clip that the model takes out
    of it; with T times as many, the frame in the middle has enough of them on both sides.
    """
    stride = record_stride if input_type == input_types.TF_SEQUENCE_EXAMPLE else 1
    return num_frames * stride, stride


def batch(input_type: str, clips: Sequence[Sequence[Frame]]) -> Inputs:
    """Makes the inputs of a model out of B clips.

    Args:
      input_type: of the model; not `clip_and_boxes`, whose boxes are the caller's to add.
      clips: for each clip its frames, as `frame_encoder` returns them.

    Returns:
      `input_tensor`: uint8 [B, T, H, W, 3], or objects (bytes), [B, T] or [B].
    """
    if input_type == input_types.CLIP_TENSOR:
        return {input_types.INPUT: np.stack([np.stack(clip) for clip in clips])}
    if input_type == input_types.ENCODED_CLIP:
        return {input_types.INPUT: np.array([list(clip) for clip in clips], dtype=object)}
    records = [sequence_example(clip) for clip in clips]
    return {input_types.INPUT: np.array(records, dtype=object)}


def sequence_example(frames: Sequence[bytes]) -> bytes:
    """Returns a record with these JPEGs whose middle frame is a keyframe without people."""
    with Image.open(io.BytesIO(frames[0])) as picture:
        width, height = picture.size
    middle = len(frames) // 2
    keyframe = annotations.Keyframe(video_id="clip", timestamp=middle, row=0)
    return clip_features.serialized_example(
        {middle: keyframe},
        {},
        encoded_frames=frames,
        frame_times=range(len(frames)),
        height=height,
        width=width,
    )
