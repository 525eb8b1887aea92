# SPDX-License-Identifier: Apache-2.0
"""What exported models and those who use them agree on; light to import.

What each input type takes is told in `exporting.py`, by the modules that take it.

Shapes: T frames of a clip, h w pixels as the model gets them, R the pipeline's
`first_stage_max_proposals`.
"""

import dataclasses
import json
import os

from object_detection_ext import errors

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
    """

    input_type: str
    num_frames: int
    fps: float | None
    record_stride: int
    max_boxes: int
    frame_size: tuple[int, int] | None = None

    def to_json(self) -> str:
        """As text."""
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "ClipDescription":
        """From text. Raises ValueError if it is none."""
        try:
            description = cls(**json.loads(text))
        except TypeError as error:
            raise ValueError(str(error)) from None
        size = description.frame_size
        return dataclasses.replace(description, frame_size=None if size is None else tuple(size))

    @classmethod
    def of_saved_model(cls, path: str) -> "ClipDescription | None":
        """That of an exported model; None where its assets hold none.

        Raises:
            errors.InputError: if it cannot be read.
        """
        file = asset(path, CLIP_ASSET)
        if not os.path.isfile(file):
            return None
        try:
            with open(file, encoding="utf-8") as text:
                return cls.from_json(text.read())
        except ValueError as error:
            raise errors.InputError(
                f"{file}: not a clip description: {error}; export the model again."
            ) from None


def asset(saved_model: str, name: str) -> str:
    """The path of one of a SavedModel's assets."""
    return os.path.join(saved_model, "assets", name)
