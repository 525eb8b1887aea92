# SPDX-License-Identifier: Apache-2.0
"""What exported models and those who use them agree on; light to import.

What each input type takes is told in `exporting.py`, by the modules that take it.

Shapes: T frames of a clip, h w pixels as the model gets them, R the pipeline's
`first_stage_max_proposals`.
"""

import dataclasses
import json
import os
from collections.abc import Callable
from typing import Any

from object_detection_ext import errors, files, json_text
from object_detection_ext import precision as precision_lib

# Values of the exporter's --input_type.
CLIP_TENSOR = "clip_tensor"
ENCODED_CLIP = "encoded_clip"
TF_SEQUENCE_EXAMPLE = "tf_sequence_example"
CLIP_AND_BOXES = "clip_and_boxes"
INPUT_TYPES = (CLIP_TENSOR, ENCODED_CLIP, TF_SEQUENCE_EXAMPLE, CLIP_AND_BOXES)

# More than any model takes; a description with more is damaged, and would fill the memory.
MAX_FRAMES = 10_000
MAX_SIDE = 10_000
MAX_BOXES = 100_000
MAX_FPS = 1000
_MAX_SHOWN = 80

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
        precision: that trunk and head compute in, one of `precision.NAMES`. Exports that do not
            say it are older than the option.
    """

    input_type: str
    num_frames: int
    fps: float | None
    record_stride: int
    max_boxes: int
    frame_size: tuple[int, int] | None = None
    short_side: int | None = None
    precision: str = precision_lib.FLOAT32

    def to_json(self) -> str:
        """As text."""
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "ClipDescription":
        """From text; fields that later versions may add are left out.

        Raises:
            ValueError: if it is not a description, a field is missing, or its value cannot be.
        """
        values = json_text.parsed(text)
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


def _is_count(value: Any, most: int) -> bool:
    # To Python, True is a number too.
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= most


def _is_rate(value: Any) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and 0 < value <= MAX_FPS


def _is_size(value: Any) -> bool:
    return (
        isinstance(value, list) and len(value) == 2 and all(_is_count(v, MAX_SIDE) for v in value)
    )


def _count(most: int) -> tuple[str, Callable[[Any], bool]]:
    return f"a whole number, 1 to {most}", lambda value: _is_count(value, most)


def _or_null(kind: tuple[str, Callable[[Any], bool]]) -> tuple[str, Callable[[Any], bool]]:
    words, fits = kind
    return f"{words}, or null", lambda value: value is None or fits(value)


# What a field of a ClipDescription must be: in words, and whether a value is.
_KINDS = {
    "input_type": (f"one of {', '.join(INPUT_TYPES)}", lambda value: value in INPUT_TYPES),
    "num_frames": _count(MAX_FRAMES),
    "fps": _or_null((f"a number, more than 0 and at most {MAX_FPS}", _is_rate)),
    "record_stride": _count(MAX_FRAMES),
    "max_boxes": _count(MAX_BOXES),
    "frame_size": _or_null((f"[h, w], two whole numbers of pixels, 1 to {MAX_SIDE}", _is_size)),
    "short_side": _or_null(_count(MAX_SIDE)),
    "precision": (
        f"one of {', '.join(precision_lib.NAMES)}",
        lambda value: value in precision_lib.NAMES,
    ),
}


def _checked(field: str, value: Any) -> Any:
    """A value out of JSON as the field has it. Raises ValueError if it is of another kind."""
    kind, fits = _KINDS[field]
    if not fits(value):
        shown = json.dumps(value)
        shown = shown if len(shown) <= _MAX_SHOWN else f"{shown[:_MAX_SHOWN]} ..."
        raise ValueError(f"{field} must be {kind}, not {shown}")
    return tuple(value) if isinstance(value, list) else value


def asset(saved_model: str, name: str) -> str:
    """The path of one of a SavedModel's assets."""
    return os.path.join(saved_model, "assets", name)
