# SPDX-License-Identifier: Apache-2.0
"""Which frames of a video belong together: those nearest to the times of a clip or a record.

Shapes: T frames of a clip.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from object_detection_ext.data.timed_pictures import TimedPicture

# How far a keyframe's picture may be from its time where frames were lost to damage: people move
# little in a tenth of a second, and one lost frame at 10 to 30 fps is within it.
DAMAGE_TOLERANCE_SECONDS = 0.1


@dataclasses.dataclass(frozen=True)
class Window:
    """Frames that are wanted together.

    `times` are ascending, in seconds; `keyframes` says which of them are annotated moments.
    """

    times: np.ndarray
    keyframes: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Problem:
    """Why the picture at a keyframe's time cannot be used.

    `outside` if the time is not in the video, which ends where it should: nothing was lost.
    """

    text: str
    outside: bool = False


@dataclasses.dataclass(frozen=True)
class WindowFrames:
    """The frames nearest to a window's times.

    `frames` are results of the reader's transform (equal objects where a frame is repeated),
    `frame_times` their presentation times in seconds. `problems` has the keyframes that cannot be
    used, by their index in the window; without a usable keyframe the other two are empty.
    """

    frames: Sequence[Any]
    frame_times: np.ndarray
    problems: Mapping[int, Problem]


def clip_offsets(num_frames: int, fps: float) -> np.ndarray:
    """Times of a clip's T frames relative to its keyframe, in seconds: [T], 0 at T // 2.

    Raises:
      ValueError: if num_frames or fps is not positive.
    """
    if num_frames < 1:
        raise ValueError(f"num_frames must be at least 1, not {num_frames}.")
    if not 0 < fps < np.inf:
        raise ValueError(f"fps must be more than 0, not {fps}.")
    return (np.arange(num_frames) - num_frames // 2) / fps


class PartialWindow:
    """A window while its frames pass by."""

    def __init__(self, window: Window):
        """Begins without a frame."""
        self.times, self.keyframes = window.times, window.keyframes
        self.start = float(window.times[0])
        self.frames: list[Any] = []
        self.frame_times: list[float] = []
        # Keyframes that were given a frame where others were lost, or the video's last one.
        self.in_damage: set[int] = set()
        self.after_last: set[int] = set()

    @property
    def is_before_start(self) -> bool:
        """Whether no keyframe of it can be in the video."""
        return all(self.times[index] < 0 for index in self.keyframes)

    @property
    def complete(self) -> bool:
        """Whether all of its times have their frame."""
        return len(self.frames) == len(self.times)

    def take(
        self, frame: TimedPicture, upcoming: TimedPicture | None, limit: float, payload
    ) -> None:
        """Appends the frame for each wanted time up to `limit`, where the next one is nearer."""
        first = len(self.frames)
        count = int(np.searchsorted(self.times[first:], limit, side="right"))
        if not count:
            return
        for index in self.keyframes:
            if first <= index < first + count:
                self._look(index, frame, upcoming)
        self.frames.extend([payload(frame)] * count)
        self.frame_times.extend([frame.time] * count)

    def _look(self, index: int, frame: TimedPicture, upcoming: TimedPicture | None) -> None:
        """Marks a keyframe after the end, or where frames were lost and none kept is near."""
        if upcoming is None:
            self.after_last.add(index)
        time = self.times[index]
        late, early = time - frame.time, frame.time - time
        lost = late > 0 and upcoming is not None and upcoming.after_damage
        lost = lost or (early > 0 and frame.after_damage)
        if lost and abs(time - frame.time) > DAMAGE_TOLERANCE_SECONDS:
            self.in_damage.add(index)
