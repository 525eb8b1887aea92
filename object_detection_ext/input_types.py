# SPDX-License-Identifier: Apache-2.0
"""What exported models and those who use them agree on; light to import.

What each input type takes is told in `exporting.py`, by the modules that take it.

Shapes: T frames of a clip, h w pixels as the model gets them, R the pipeline's
`first_stage_max_proposals`.
"""

import dataclasses
import json
import os
from typing import Any

from object_detection_ext import errors, files

# Values of the exporter's --input_type.
CLIP_TENSOR = "clip_tensor"
ENCODED_CLIP = "encoded_clip"
TF_SEQUENCE_EXAMPLE = "tf_sequence_example"
CLIP_AND_BOXES = "clip_and_boxes"

# The signature, and its inputs.
SIGNATURE = "serving_default"
INPUT = "input_tensor"
BOXES = "boxes"

# The outputs that make up the detections; a model has more.
DETECTIONS = ("detection_boxes", "detection_scores", "detection_classes", "num_detections")

# Files in the SavedModel's assets.
LABEL_MAP_ASSET = "label_map.pbtxt"
CLIP_ASSET = "clip.json"


@dataclasses.dataclass(frozen=True)
class ClipDescription:
    """What one must know of a model to give it clips; `clip.json` in the SavedModel's assets.

    Attributes:
        input_type: the exporter's --input_type.
        num_frames: T.
        fps: of the clip's frames; None where the pipeline.config leaves it open.
        record_stride: frames of a record from one frame of the clip to the next.
        max_boxes: R.
        frame_size: (h, w) in pixels; None where it depends on the frames.
        short_side: of the frame itself in pixels, without padding, where the model keeps the aspect
            ratio (wide frames may come out smaller); None where it does not.
    """

    input_type: str
    num_frames: int
    fps: float | None
    record_stride: int
    max_boxes: int
    frame_size: tuple[int, int] | None = None
    short_side: int | None = None

    def to_json(self) -> str:
        """As text."""
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "ClipDescription":
        """From text; fields that later versions may add are left out.

        Raises:
            ValueError: if it is none, a field is missing, or its value is of another kind.
        """
        values = json.loads(text)
        if not isinstance(values, dict):
            raise ValueError(f"it must be an object, not {type(values).__name__}")
        known = {}
        for field in dataclasses.fields(cls):
            if field.name in values:
                known[field.name] = _checked(field.name, values[field.name])
            elif field.default is dataclasses.MISSING:
                raise ValueError(f"there is no {field.name}")
        return cls(**known)

    @classmethod
    def of_saved_model(cls, path: str) -> "ClipDescription | None":
        """That of an exported model; None where its assets hold none.

        Raises:
            errors.InputError: if it cannot be read.
        """
        file = asset(path, CLIP_ASSET)
        system = files.system_of(file)
        if not system.exists(file):
            return None
        try:
            with system.open(file, "r") as text:
                return cls.from_json(text.read())
        except ValueError as error:
            raise errors.InputError(
                f"{file}: not a clip description: {error}; export the model again."
            ) from None
        except files.errors() as error:
            raise errors.InputError(f"{file}: cannot be read: {error}.") from None


def _is_whole(value: Any) -> bool:
    # To Python, True is a number too.
    return isinstance(value, int) and not isinstance(value, bool)


def _is_size(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(map(_is_whole, value))


# What a field of a ClipDescription must be: in words, and whether a value is.
_KINDS = {
    "input_type": ("a string", lambda value: isinstance(value, str)),
    "num_frames": ("a whole number", _is_whole),
    "fps": (
        "a number or null",
        lambda value: value is None or _is_whole(value) or isinstance(value, float),
    ),
    "record_stride": ("a whole number", _is_whole),
    "max_boxes": ("a whole number", _is_whole),
    "frame_size": (
        "[h, w], two whole numbers, or null",
        lambda value: value is None or _is_size(value),
    ),
    "short_side": ("a whole number or null", lambda value: value is None or _is_whole(value)),
}


def _checked(field: str, value: Any) -> Any:
    """A value out of JSON as the field has it. Raises ValueError if it is of another kind."""
    kind, fits = _KINDS[field]
    if not fits(value):
        raise ValueError(f"{field} must be {kind}, not {json.dumps(value)}")
    return tuple(value) if isinstance(value, list) else value


def asset(saved_model: str, name: str) -> str:
    """The path of one of a SavedModel's assets."""
    return os.path.join(saved_model, "assets", name)
