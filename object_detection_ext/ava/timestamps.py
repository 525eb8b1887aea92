# SPDX-License-Identifier: Apache-2.0
"""Moments of videos: seconds from the start, rounded to microseconds, and the names of frames.

All that reads or writes a timestamp does it here, so that two files that mean one moment agree.
"""

import bisect
import math
import re
from collections.abc import Iterable, Sequence

# (video id, seconds); whole seconds are int, so that they print as AVA has them.
Frame = tuple[str, int | float]

# No video is 30 years long, and in a video's own units larger times do not fit into 64 bits.
MAX_SECONDS = 1_000_000_000
# Two files mean one moment if they are nearer than this: tools write three decimals, or six.
SAME_MOMENT = 0.001
_DIGITS = 6
_CLOCK = re.compile(r"(\d{1,4}):([0-5]\d):([0-5]\d(?:\.\d*)?)")
_WITHOUT_HOURS = re.compile(r"\d+:\d+(?:\.\d*)?")


def rounded(seconds: float) -> float:
    """Seconds to the microsecond, as every file here has them."""
    return round(float(seconds), _DIGITS)


def format_timestamp(seconds: float) -> str:
    """Returns seconds as AVA writes them (`0902`), with up to 6 decimals where there are any."""
    seconds = rounded(seconds)
    if seconds == int(seconds):
        return f"{int(seconds):04d}"
    return f"{seconds:.{_DIGITS}f}".rstrip("0")


def parse(text: str) -> float:
    """Reads `902`, `0902`, `902.5` or `00:15:02.5`.

    Returns:
        Seconds, to the microsecond.

    Raises:
        ValueError: if it is none of them; the message says what would be right.
    """
    clock = _CLOCK.fullmatch(text)
    if clock:
        hours, minutes, seconds = clock.groups()
        return rounded(3600 * int(hours) + 60 * int(minutes) + float(seconds))
    if _WITHOUT_HOURS.fullmatch(text):
        raise ValueError("it must be seconds, or hours, minutes and seconds such as 00:15:02.5")
    try:
        seconds = math.nan if "_" in text else float(text)
    except ValueError:
        seconds = math.nan
    if not math.isfinite(seconds):
        raise ValueError("it must be a number of seconds")
    if abs(seconds) >= MAX_SECONDS:
        raise ValueError(f"it must be a number of seconds, less than {MAX_SECONDS:,}")
    return rounded(seconds)


def is_clock(text: str) -> bool:
    """Whether a timestamp that can be read is in the form `00:15:02.5`."""
    return ":" in text


def frame(video_id: str, seconds: float) -> Frame:
    """A frame of a video; `seconds` as `parse` gives them."""
    return video_id, int(seconds) if seconds == int(seconds) else seconds


def frame_name(video_id: str, seconds: float) -> str:
    """Returns the name of a frame, `video_id,timestamp`, as AVA's CSV rows begin."""
    return f"{video_id},{format_timestamp(seconds)}"


def read_frame(text: str) -> Frame:
    """A frame from its name in records, `video_id,timestamp`.

    Raises:
        ValueError: if it is none.
    """
    video_id, _, timestamp = text.rpartition(",")
    if not video_id:
        raise ValueError(f"{text!r} is not of the form video_id,timestamp")
    return frame(video_id, parse(timestamp))


class Moments:
    """Frames of one file, to be met by those of another.

    A frame meets the one of the same video at the same microsecond; where there is none, the
    nearest that is less than `SAME_MOMENT` away: 1.042 and 1.041667 are one frame of a video,
    written with three decimals and with six.
    """

    def __init__(self, frames: Iterable[Frame]):
        """Takes the frames, in any order."""
        self._frames = frozenset(frames)
        self._by_video: dict[str, list[int | float]] = {}
        for video_id, seconds in sorted(self._frames):
            self._by_video.setdefault(video_id, []).append(seconds)

    def met_by(self, other: Frame) -> Frame | None:
        """The frame that another file's frame means; None if it means none of these."""
        if other in self._frames:
            return other
        found = self.nearest(other)
        # Not quite, as no decimal fraction is exact.
        if found is not None and abs(found[1] - other[1]) < SAME_MOMENT - 1e-9:
            return found
        return None

    def nearest(self, other: Frame) -> Frame | None:
        """The frame of the same video that is nearest in time; the earlier of two."""
        video_id, seconds = other
        times: Sequence[int | float] = self._by_video.get(video_id, ())
        place = bisect.bisect_left(times, seconds)
        around = times[max(0, place - 1) : place + 1]
        if not around:
            return None
        return video_id, min(around, key=lambda time: abs(time - seconds))
