# SPDX-License-Identifier: Apache-2.0
"""People's boxes from elsewhere: a file, or a person detector.

The models that take them (`--input_type=clip_and_boxes`) are those of section 4.2, trained on
ground-truth boxes, and any other one, to be used with somebody else's person detector.

Shapes: G boxes of a keyframe, H W pixels.
"""

import os
import sys
from collections.abc import Callable

import numpy as np

from object_detection_ext import errors
from object_detection_ext.ava import annotations, faults, video_ids
from object_detection_ext.ava.row_reader import BOX_TOLERANCE

# From a keyframe's picture, uint8 [H, W, 3] RGB, to boxes [G, 4].
PersonDetector = Callable[[np.ndarray], np.ndarray]


class BoxTable:
    """The boxes of a file, by video and time."""

    def __init__(self, path: str | os.PathLike, box_tolerance: float = BOX_TOLERANCE):
        """Reads rows `video_id,timestamp,x1,y1,x2,y2`; what follows in a row is not looked at.

        So AVA's own annotations will do, where a person has a row for each action, and detections:
        leave out those that your person detector is not sure of. A row of two columns is a
        keyframe without people.

        Args:
          path: the CSV, x to the right and y down, normalized.
          box_tolerance: how far outside of [0, 1] a box may reach to be cut off.

        What is changed in reading is printed on the standard error.

        Raises:
          faults.AnnotationError: if the file cannot be read or is empty, or with a list of
            its bad rows.
        """
        self.path = os.fspath(path)
        self._boxes: dict[str, dict[float, list[tuple[float, ...]]]] = {}
        notes = faults.Notes()
        rows = annotations.read_person_boxes(self.path, notes, box_tolerance)
        for line in notes.messages(self.path):
            print(f"note: {line}", file=sys.stderr, flush=True)
        for row in rows:
            of_video = self._boxes.setdefault(row.video_id, {})
            keyframe = of_video.setdefault(row.seconds, [])
            if row.corners is not None:
                x1, y1, x2, y2 = row.corners
                # A person is one box, however many actions have a row.
                if (box := (y1, x1, y2, x2)) not in keyframe:
                    keyframe.append(box)

    def times(self, video: str) -> list[float]:
        """The video's keyframes, in seconds, ascending.

        Raises:
          errors.InputError: if it has none.
        """
        video = video_ids.same_id(video)
        if video not in self._boxes:
            some = ", ".join(sorted(self._boxes)[:5])
            raise errors.InputError(
                f"{self.path}: there is no row of the video '{video}'; there are rows of {some}"
                + (", ..." if len(self._boxes) > 5 else ".")
            )
        return sorted(self._boxes[video])

    def boxes(self, video: str, time: float) -> np.ndarray:
        """Float [G, 4], [ymin, xmin, ymax, xmax], normalized; of one of `times`."""
        return np.array(self._boxes[video_ids.same_id(video)][time], np.float32).reshape(-1, 4)


PersonBoxes = str | os.PathLike | BoxTable | PersonDetector


def opened(person_boxes: PersonBoxes | None) -> BoxTable | PersonDetector | None:
    """Returns the boxes as they will be asked for: those of a file are read.

    Raises:
      faults.AnnotationError: as `BoxTable`.
    """
    is_path = isinstance(person_boxes, str | os.PathLike)
    return BoxTable(person_boxes) if is_path else person_boxes
