# SPDX-License-Identifier: Apache-2.0
"""What is said of a video while people are detected in it."""

from object_detection_ext import listing
from object_detection_ext.data import video_info
from object_detection_ext.data.timed_pictures import DecodeStats

_MAX_LISTED = 3


def warn_of_info(info: video_info.VideoInfo, name: str) -> None:
    """Warns of a video whose colours are not those of a player, or that is not read whole."""
    if info.unread_parts:
        parts = f"{info.unread_parts} of {info.unread_parts + 1}"
        _warn(name, f"left out: {parts} {video_info.UNREAD_CONSEQUENCE}")
    if info.hdr:
        _warn(name, f"HDR ({info.hdr}): {video_info.HDR_CONSEQUENCE}")


def warn_of_restarts(stats: DecodeStats, name: str) -> None:
    """Warns how often the timestamps of a video started over while it was read."""
    if stats.restarts:
        consequence = "each part was taken to follow the one before"
        _warn(name, f"timestamps start over {_times(stats.restarts)}; {consequence}")


def warn_of_size_changes(stats: DecodeStats, name: str) -> None:
    """Warns how often the frames of a video changed their size while it was read."""
    if stats.size_changes:
        consequence = "all were stretched to the size of the first one"
        _warn(name, f"frames change their size {_times(stats.size_changes)}; {consequence}")


def _warn(name: str, text: str) -> None:
    print(f"detection: {name}: warning: {text}", flush=True)


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


class LeftOut:
    """Reports keyframes that cannot be used: the first with the reason, then how many more."""

    def __init__(self, name: str, counts_outside: bool = False):
        """Begins without any.

        Args:
          name: of the video.
          counts_outside: whether keyframes outside the video count too, as somebody asked for them.
        """
        self._name, self._count = name, 0
        self._counts_outside = counts_outside

    def is_left_out(self, problem: str | None, outside: bool) -> bool:
        """Whether there is a problem; it is reported unless nothing was lost by it."""
        if problem and (self._counts_outside or not outside):
            self._count += 1
            if self._count <= _MAX_LISTED:
                print(f"detection: {self._name}: left out: {problem}", flush=True)
        return bool(problem)

    def report_rest(self) -> None:
        """At the end of the source."""
        if self._count > _MAX_LISTED:
            more = listing.counted(self._count - _MAX_LISTED, "more keyframe")
            print(
                f"detection: {self._name}: left out: {more} ({self._count:,} in all)",
                flush=True,
            )
