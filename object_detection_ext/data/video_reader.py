# SPDX-License-Identifier: Apache-2.0
"""Clips out of video files, by presentation time, in one pass.

Time is in seconds from the start of the video's picture, which is 0 whatever the file's first
timestamp. Frame k of a clip around the keyframe time t is the frame of the video nearest to
t + (k - T // 2) / fps, so the keyframe is at index T // 2; before the first and after the last
frame of the video these are repeated. Constant or variable frame rates make no difference.

Shapes: T frames of a clip, H W pixels.
"""

import collections
import dataclasses
import functools
import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from object_detection_ext.data import (
    frame_folders,
    upright,
    video_decoder,
    video_probe,
    video_times,
    video_windows,
)
from object_detection_ext.data.timed_pictures import (
    TIE_SECONDS,
    DecodeStats,
    PictureSource,
    TimedPicture,
)
from object_detection_ext.data.video_info import VideoError, VideoInfo
from object_detection_ext.data.video_windows import PartialWindow, Problem, Window, WindowFrames

# A video file by its path, or what `video_probe.probe` says of a file or a folder of frames.
Video = str | os.PathLike | VideoInfo


@dataclasses.dataclass(frozen=True)
class Clip:
    """The clip around one keyframe.

    `frames` are the T results of the reader's transform (equal objects where a frame is repeated),
    `frame_times` the T presentation times in seconds. `problem` says in words why the clip cannot
    be used, in which case `frames` is empty; `outside` that this is for lying outside the video.
    """

    keyframe_time: float
    frames: Sequence[Any]
    frame_times: np.ndarray
    problem: str | None = None
    outside: bool = False


def _opened(video: Video, stats: DecodeStats, threads: int = 0) -> PictureSource:
    if isinstance(video, VideoInfo) and video.frames_fps is not None:
        return frame_folders.FolderFrames(video, stats)
    return video_decoder.FileFrames(os.fspath(video), stats, threads)


def resampled_frames(video: Video, fps: float) -> Iterator[tuple[float, np.ndarray]]:
    """Yields (i / fps, the frame nearest to that time) from 0 to the end of the video.

    Frames are uint8 [H, W, 3] RGB as in `ClipReader`; one stands in memory at a time.

    Args:
      video: as in `FrameReader`.
      fps: frames per second that are yielded.

    Raises:
      VideoError: if the file is missing or unreadable, or no frame of it can be decoded.
    """
    stats = DecodeStats()
    source, pixels = _opened(video, stats), upright.UprightPixels()
    try:
        current, index = source.next(), 0
        if current is None:
            raise VideoError(f"{os.fspath(video)}: no frame of the video can be decoded.")
        while current is not None:
            upcoming, shown = source.next(), None
            limit = stats.end if upcoming is None else (current.time + upcoming.time) / 2
            while index / fps <= limit + TIE_SECONDS * (1 if upcoming is not None else -1):
                shown = pixels(current.picture) if shown is None else shown
                yield index / fps, shown
                index += 1
            current = upcoming
    finally:
        source.close()


class FrameReader:
    """Reads windows of frames out of one video, decoding each frame once.

    Memory is that of the windows that overlap at one time, whatever the length of the video.
    """

    def __init__(
        self,
        video: Video,
        *,
        transform: Callable[[np.ndarray], Any] | None = None,
        threads: int = 0,
    ):
        """Prepares for reading.

        Args:
          video: the path of a file; with a scheme (`gs://...`) it is read through TensorFlow. Or
            what `video_probe.probe` says of a file or of a folder of numbered frames.
          transform: is called once per wanted frame with uint8 [H, W, 3] RGB as shown (turned and
            mirrored as the file says, all of one size); what it returns goes into the windows. By
            default the frame itself.
          threads: of the decoder; 0 leaves their number to it.
        """
        self._video, self._path, self._threads = video, os.fspath(video), threads
        self._transform = transform or (lambda frame: frame)
        self._pixels = upright.UprightPixels()
        self.stats = DecodeStats()

    @property
    def shape(self) -> tuple[int, int] | None:
        """(height, width) in pixels of the frames as shown, None before the first one."""
        return self._pixels.shape

    def windows(self, windows: Sequence[Window]) -> Iterator[WindowFrames]:
        """Yields the frames of each window, in order.

        A keyframe before 0 or the first frame, beyond the end, or in a gap that damage left is a
        problem.

        Args:
          windows: sorted by their first time.

        Raises:
          VideoError: if the file is missing or unreadable, or no frame of it can be decoded.
          ValueError: if the windows are not sorted.
        """
        starts = [window.times[0] for window in windows]
        if any(b < a for a, b in itertools.pairwise(starts)):
            raise ValueError(f"The windows of {self._path} must be sorted by their first time.")
        self.stats = DecodeStats()
        waiting = collections.deque(PartialWindow(window) for window in windows)
        while waiting and waiting[0].is_before_start:
            yield self._finished(waiting.popleft())
        if not waiting:
            return
        source = _opened(self._video, self.stats, self._threads)
        try:
            yield from self._read(source, waiting)
        finally:
            source.close()

    def _read(self, source: PictureSource, waiting: collections.deque) -> Iterator[WindowFrames]:
        current = source.jump(waiting[0].start) if _far(source, waiting, 0) else None
        current = current or source.next()
        if current is None:
            raise VideoError(f"{self._path}: no frame of the video can be decoded.")
        active: collections.deque[PartialWindow] = collections.deque()
        while current is not None and (active or waiting):
            if not active and _far(source, waiting, current.time):
                upcoming = source.jump(waiting[0].start)
            else:
                upcoming = source.next()
            # Up to the middle between two frames the first one is the nearest.
            limit = np.inf
            if upcoming is not None:
                limit = (current.time + upcoming.time) / 2 + TIE_SECONDS
            while waiting and waiting[0].start <= limit:
                active.append(waiting.popleft())
            for window in active:
                window.take(current, upcoming, limit, self._payload)
            while active and active[0].complete:
                yield self._finished(active.popleft())
            current = upcoming
        # After the last frame everything was given it; only keyframes beyond the end are unusable.

    def _payload(self, frame: TimedPicture) -> Any:
        if frame.payload is None:
            frame.payload = self._transform(self._pixels(frame.picture))
        return frame.payload

    def _finished(self, window: PartialWindow) -> WindowFrames:
        problems = {}
        for index in window.keyframes:
            problem = self._problem(window, index)
            if problem is not None:
                problems[index] = problem
        if len(problems) == len(window.keyframes):
            return WindowFrames((), np.empty(0), problems)
        return WindowFrames(window.frames, np.array(window.frame_times), problems)

    def _problem(self, window: PartialWindow, index: int) -> Problem | None:
        time = window.times[index]
        if time < 0:
            return Problem(f"timestamp {time:g} s is before the start of the video", outside=True)
        first = self.stats.start
        if first is not None and time < first - video_windows.DAMAGE_TOLERANCE_SECONDS:
            return Problem(
                f"timestamp {time:g} s is before the first frame that can be decoded, {first:.3f} s"
            )
        if index in window.in_damage:
            return Problem(f"the video is damaged around timestamp {time:g} s")
        if index in window.after_last and time > self.stats.end + TIE_SECONDS:
            return self._behind_end(time)
        return None

    def _behind_end(self, time: float) -> Problem:
        """Tells a time that is in no video from one that was lost with the end of this file."""
        end, length, damaged = self.stats.end, self._header_length, self.stats.damaged
        text = f"timestamp {time:g} s is beyond the video's end, {end:.3f} s"
        if damaged:
            text += f" (with {damaged} damaged packets or frames before)"
        if length is None:
            return Problem(text, outside=not damaged)
        is_cut = damaged > 0 or end < length - video_times.LENGTH_TOLERANCE
        if not is_cut or time > length:
            return Problem(text, outside=True)
        return Problem(f"{text}: the file is damaged or cut off, its header says {length:.3f} s")

    @functools.cached_property
    def _header_length(self) -> float | None:
        if isinstance(self._video, VideoInfo):
            return self._video.duration
        return video_probe.probe(self._path).duration


def _far(source: PictureSource, waiting: collections.deque, now: float) -> bool:
    return bool(waiting) and waiting[0].start - now > source.seek_gap


class ClipReader(FrameReader):
    """Reads the clips of one video around any number of keyframes, decoding each frame once."""

    def __init__(self, video: Video, *, num_frames: int, fps: float,
                 transform: Callable[[np.ndarray], Any] | None = None):  # fmt: skip
        """Prepares for reading.

        Args:
          video: as in `FrameReader`.
          num_frames: T, at least 1.
          fps: frames per second of the clips, whatever the video's own rate.
          transform: as in `FrameReader`.

        Raises:
          ValueError: if num_frames or fps is not positive.
        """
        super().__init__(video, transform=transform)
        self._offsets = video_windows.clip_offsets(num_frames, fps)

    def clips(self, keyframe_times: Sequence[float]) -> Iterator[Clip]:
        """Yields one clip per keyframe, in order.

        A keyframe before 0 or the first frame, beyond the end, or in a gap that damage left gives
        a clip with a `problem` in place of frames.

        Args:
          keyframe_times: seconds, ascending.

        Raises:
          VideoError: if the file is missing or unreadable, or no frame of it can be decoded.
          ValueError: if the times do not ascend.
        """
        times = [float(t) for t in keyframe_times]
        if any(b <= a for a, b in itertools.pairwise(times)):
            raise ValueError(f"The keyframe times of {self._path} must ascend.")
        middle = len(self._offsets) // 2
        windows = [Window(time + self._offsets, (middle,)) for time in times]
        for time, found in zip(times, self.windows(windows), strict=True):
            problem = found.problems.get(middle)
            if problem is None:
                yield Clip(time, found.frames, found.frame_times)
            else:
                yield Clip(time, (), np.empty(0), problem.text, problem.outside)
