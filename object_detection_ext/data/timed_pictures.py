# SPDX-License-Identifier: Apache-2.0
"""Pictures with their times, as they come out of a file or a folder, and what was met there."""

import dataclasses
from typing import Any, Protocol

import av
import numpy as np

# Two frames count as equally near within this many seconds; then the earlier one is taken.
TIE_SECONDS = 1e-6


@dataclasses.dataclass
class DecodeStats:
    """What a pass over a video met: frames decoded, damaged packets and frames left out.

    `damaged` counts also frames whose time is before that of an earlier one, so that nobody knows
    when to show them. `restarts` counts the places where all timestamps start over, as in files
    that were put together; what follows is shown after what came before. `seeks` counts jumps over
    parts that nobody asked for, `size_changes` the places where frames have another size than the
    one before. In seconds, `start` is when the first frame of the file that can be
    decoded is shown, None if nobody asked for it; `end` is when the last frame that was decoded
    stops being shown.
    """

    decoded: int = 0
    damaged: int = 0
    restarts: int = 0
    seeks: int = 0
    size_changes: int = 0
    start: float | None = None
    end: float | None = None


@dataclasses.dataclass
class TimedPicture:
    """A frame: its time in seconds and whether frames before it were lost to damage."""

    time: float
    picture: av.VideoFrame | np.ndarray
    after_damage: bool
    payload: Any = None


class PictureSource(Protocol):
    """The frames of a video in order of time."""

    # A gap without wanted frames that is longer than this many seconds is jumped over.
    seek_gap: float

    def next(self) -> TimedPicture | None:
        """The next frame, later than all before; None at the end."""

    def jump(self, seconds: float) -> TimedPicture | None:
        """A frame before `seconds`, later than all before and near it if possible."""

    def close(self) -> None:
        """Ends the use of the file."""
