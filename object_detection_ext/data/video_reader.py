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
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import av
import numpy as np

from object_detection_ext import errors, files
from object_detection_ext.data import video_times

# Two frames count as equally near within this many seconds; then the earlier one is taken.
_TIE_SECONDS = 1e-6
# A gap without wanted frames that is longer than this is jumped over instead of decoded.
_SEEK_GAP_SECONDS = 8.0
# Seeking lands this much before the wanted time, since frames after a jump may lack references.
_SEEK_MARGIN_SECONDS = 1.0


class VideoError(errors.InputError):
    """A video that cannot be used; the message names the file and says why."""


@dataclasses.dataclass(frozen=True)
class VideoInfo:
    """What a file says about its video, before decoding.

    `height` and `width` are in pixels as stored: only decoding tells whether players rotate the
    picture. `fps` is the average; `duration` in seconds is that of the picture, whatever that of
    the sound. The last two are None if unknown.
    """

    path: str
    height: int
    width: int
    fps: float | None
    duration: float | None
    codec: str


@dataclasses.dataclass
class DecodeStats:
    """What a pass over a video met: frames decoded, damaged packets and frames left out.

    `damaged` counts also frames whose time is before that of an earlier one, so that nobody knows
    when to show them. `seeks` counts jumps over parts that nobody asked for. In seconds, `start` is
    when the first frame of the file that can be decoded is shown, None if nobody asked for it;
    `end` is when the last frame that was decoded stops being shown.
    """

    decoded: int = 0
    damaged: int = 0
    seeks: int = 0
    start: float | None = None
    end: float | None = None


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


def probe(path: str | os.PathLike) -> VideoInfo:
    """Reads a video's header.

    Raises:
      VideoError: if the file is missing or unreadable, or has no video stream.
    """
    with _open(path) as container:
        stream = video_times.video_stream(container)
        return VideoInfo(
            os.fspath(path),
            stream.height,
            stream.width,
            video_times.frame_rate(container, stream),
            video_times.header_length(container, stream),
            stream.codec_context.name,
        )


def last_picture_end(info: VideoInfo) -> float | None:
    """Returns when the last frame that is in the file ends, in seconds; None if it has none.

    Packets tell, nothing is decoded: where the header's length is right, the last ones, else all.

    Raises:
      VideoError: if the file is missing or unreadable.
    """
    for tail_of in (info.duration, None) if info.duration else (None,):
        with _open(info.path) as container:
            stream = video_times.video_stream(container)
            end = video_times.last_picture_end(container, stream, tail_of)
        if end is not None:
            return end
    return None


def _open(path: str | os.PathLike):
    path = os.fspath(path)
    source = _source(path)
    try:
        container = av.open(source)
    except (av.FFmpegError, OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise VideoError(f"{path}: cannot be read as a video: {reason}.") from error
    stream = video_times.video_stream(container)
    if stream is None:
        names = {"video": "a cover picture"}
        kinds = sorted({names.get(other.type, other.type) for other in container.streams})
        container.close()
        raise VideoError(f"{path}: has no video stream, only {', '.join(kinds) or 'no streams'}.")
    if stream.codec_context is None:
        container.close()
        raise VideoError(f"{path}: its video codec is not supported by the installed PyAV.")
    return container


def _source(path: str):
    """What PyAV opens: a local path as it is, any other file as TensorFlow opens it.

    Raises:
      VideoError: if there is no such file, or it is empty.
    """
    system = files.system_of(path)
    if os.path.isdir(path):
        raise VideoError(f"{path} is a folder, not a video file.")
    if not system.exists(path):
        raise VideoError(f"{path}: there is no such video file.")
    if system.size(path) == 0:
        raise VideoError(f"{path}: the video file is empty.")
    return path if files.is_local(path) else system.open(path, "rb")


@dataclasses.dataclass
class TimedPicture:
    """A frame: its time in seconds and whether frames before it were lost to damage."""

    time: float
    picture: av.VideoFrame | np.ndarray
    after_damage: bool
    payload: Any = None


class _FrameSource:
    """The frames of a file in order of time, with jumps ahead. Damaged parts are left out."""

    def __init__(self, path: str | os.PathLike, stats: DecodeStats, threads: int = 0):
        self._path, self._stats, self._threads = os.fspath(path), stats, threads
        self._may_seek, self._went_back = True, False
        # Times of the last frame that was given out, and of the last one of the decoder's since it
        # began or jumped.
        self._last_time = self._latest = -np.inf
        self._container = None
        self._restart()

    def close(self) -> None:
        if self._container is not None:
            self._container.close()
            self._container = None

    def _restart(self) -> None:
        self.close()
        self._container = _open(self._path)
        self._stream = video_times.video_stream(self._container)
        self._stream.thread_type = "AUTO"
        self._stream.thread_count = self._threads
        self._period = 1.0 / (video_times.frame_rate(self._container, self._stream) or 25.0)
        packets = self._packets()
        head = list(itertools.islice(packets, video_times.HEAD_PACKETS))
        self._clock = video_times.Clock(self._container, self._stream, head)
        self._begin(itertools.chain(head, packets), from_start=True)

    def _begin(self, packets: Iterable, from_start: bool) -> None:
        self._pictures = self._settled(self._decode(packets))
        self._latest, self._from_start = -np.inf, from_start

    def _packets(self) -> Iterator[av.Packet | None]:
        """Yields the packets; None at last if the rest of the file cannot be read."""
        try:
            yield from self._container.demux(self._stream)
        except (av.FFmpegError, OSError):
            self._stats.damaged += 1
            yield None

    def _decode(self, packets: Iterable) -> Iterator[tuple[av.VideoFrame, bool]]:
        """Yields (picture, whether something before it was damaged) in the decoder's order."""
        damaged = False
        for packet in packets:
            if packet is None:
                # A truncated file ends here. What the decoder still holds comes out of the flush.
                damaged = True
            elif packet.is_corrupt:
                # Part of it was lost before it reached the file (as in a broadcast).
                self._stats.damaged += 1
                damaged = True
            self._clock.see_packet(packet)
            try:
                pictures = self._stream.decode(packet)
            except av.FFmpegError:
                pictures = []
                if packet is not None:
                    self._stats.damaged += 1
                damaged = True
            for picture in pictures:
                if picture.is_corrupt:
                    self._stats.damaged += 1
                    damaged = True
                    continue
                yield picture, damaged
                damaged = False

    def _settled(self, decoded: Iterator) -> Iterator[tuple[av.VideoFrame, bool]]:
        """Yields the same, held back until the clock knows which of their timestamps are right."""
        held: collections.deque = collections.deque()
        for picture, damaged in decoded:
            self._clock.see_picture(picture)
            held.append((picture, damaged))
            while held and (self._clock.is_sure or len(held) > self._clock.LOOK_AHEAD):
                yield held.popleft()
        yield from held

    def next(self) -> TimedPicture | None:
        """Returns the next frame that is later than all before, or None at the end."""
        lost = False
        for picture, damaged in self._pictures:
            lost = lost or damaged
            duration = float(picture.duration * picture.time_base) if picture.duration else 0.0
            time = self._clock.seconds(picture)
            if time is None:
                # It comes after the one before it, at the average rate (such as a raw stream's).
                time = max(self._latest, -self._period) + self._period
            if time < self._latest - _TIE_SECONDS:
                self._stats.damaged += 1
                lost = True
            if time <= self._latest + _TIE_SECONDS:
                continue
            if self._from_start and self._latest == -np.inf:
                self._stats.start = time
            self._latest = time
            if time <= self._last_time + _TIE_SECONDS:
                # It was given out before a jump or a new start.
                self._went_back = True
                continue
            interval = time - self._last_time
            self._last_time = time
            self._stats.decoded += 1
            self._stats.end = time + video_times.shown_for(self._period, duration, interval)
            return TimedPicture(time, picture, lost)
        return None

    def jump(self, seconds: float) -> TimedPicture | None:
        """Returns a frame before `seconds`, near it where the file can be searched by time.

        It never goes back. Where the search fails or lands too late, frames are decoded one by one
        instead, so that the result is the same.
        """
        target = seconds - _SEEK_MARGIN_SECONDS
        if not self._can_seek() or target <= self._last_time:
            return self.next()
        before, self._went_back = self._last_time, False
        try:
            self._container.seek(self._clock.stamp(target), stream=self._stream)
            self._clock.moved()
            self._begin(self._packets(), from_start=False)
            # What was lost on the way is no damage at the place where decoding goes on.
            frame = self.next()
        except (av.FFmpegError, OSError):
            frame = None
        if frame is not None and self._can_seek() and before < frame.time <= target:
            self._stats.seeks += 1
            frame.after_damage = False
            # With few points to start decoding from, jumps only decode the same frames again.
            self._may_seek = not self._went_back
            return frame
        # Start over without seeking and skip what was already seen.
        self._restart()
        self._may_seek, self._last_time = False, before
        return self.next()

    def _can_seek(self) -> bool:
        return self._may_seek and self._stream.start_time is not None and self._clock.can_seek


class _UprightPixels:
    """Pictures to uint8 [H, W, 3] RGB, rotated as the file says, all in the first one's size."""

    def __init__(self):
        self.shape: tuple[int, int] | None = None

    def __call__(self, picture: av.VideoFrame) -> np.ndarray:
        turns = round((picture.rotation or 0) / 90) % 4
        pixels = np.rot90(picture.to_ndarray(format="rgb24"), turns)
        if self.shape is None:
            self.shape = pixels.shape[:2]
        if pixels.shape[:2] != self.shape:
            # The stream changed its size on the way.
            height, width = self.shape if turns % 2 == 0 else self.shape[::-1]
            pixels = picture.to_ndarray(format="rgb24", height=height, width=width)
            pixels = np.rot90(pixels, turns)
        return np.ascontiguousarray(pixels)


def resampled_frames(path: str | os.PathLike, fps: float) -> Iterator[tuple[float, np.ndarray]]:
    """Yields (i / fps, the frame nearest to that time) from 0 to the end of the video.

    Frames are uint8 [H, W, 3] RGB as in `ClipReader`; one stands in memory at a time.

    Raises:
      VideoError: if the file is missing or unreadable, or no frame of it can be decoded.
    """
    stats = DecodeStats()
    source, pixels = _FrameSource(path, stats), _UprightPixels()
    try:
        current, index = source.next(), 0
        if current is None:
            raise VideoError(f"{os.fspath(path)}: no frame of the video can be decoded.")
        while current is not None:
            upcoming, shown = source.next(), None
            limit = stats.end if upcoming is None else (current.time + upcoming.time) / 2
            while index / fps <= limit + _TIE_SECONDS * (1 if upcoming is not None else -1):
                shown = pixels(current.picture) if shown is None else shown
                yield index / fps, shown
                index += 1
            current = upcoming
    finally:
        source.close()


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


class FrameReader:
    """Reads windows of frames out of one video, decoding each frame once.

    Memory is that of the windows that overlap at one time, whatever the length of the video.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        *,
        transform: Callable[[np.ndarray], Any] | None = None,
        threads: int = 0,
    ):
        """Prepares for reading.

        Args:
          path: the video file; with a scheme (`gs://...`) it is read through TensorFlow.
          transform: is called once per wanted frame with uint8 [H, W, 3] RGB as shown (rotated as
            the file says, all of the first frame's size); what it returns goes into the windows. By
            default the frame itself.
          threads: of the decoder; 0 leaves their number to it.
        """
        self._path, self._threads = os.fspath(path), threads
        self._transform = transform or (lambda frame: frame)
        self._pixels = _UprightPixels()
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
        source = _FrameSource(self._path, self.stats, self._threads)
        try:
            yield from self._read(source, waiting)
        finally:
            source.close()

    def _read(self, source: _FrameSource, waiting: collections.deque) -> Iterator[WindowFrames]:
        current = source.jump(waiting[0].start) if self._far(waiting, 0) else None
        current = current or source.next()
        if current is None:
            raise VideoError(f"{self._path}: no frame of the video can be decoded.")
        active: collections.deque[PartialWindow] = collections.deque()
        while current is not None and (active or waiting):
            if not active and self._far(waiting, current.time):
                upcoming = source.jump(waiting[0].start)
            else:
                upcoming = source.next()
            # Up to the middle between two frames the first one is the nearest.
            limit = np.inf
            if upcoming is not None:
                limit = (current.time + upcoming.time) / 2 + _TIE_SECONDS
            while waiting and waiting[0].start <= limit:
                active.append(waiting.popleft())
            for window in active:
                window.take(current, upcoming, limit, self._payload)
            while active and active[0].complete:
                yield self._finished(active.popleft())
            current = upcoming
        # After the last frame everything was given it; only keyframes beyond the end are unusable.

    def _far(self, waiting: collections.deque, now: float) -> bool:
        return bool(waiting) and waiting[0].start - now > _SEEK_GAP_SECONDS

    def _payload(self, frame: TimedPicture) -> Any:
        if frame.payload is None:
            frame.payload = self._transform(self._pixels(frame.picture))
        return frame.payload

    def _finished(self, window: "PartialWindow") -> WindowFrames:
        problems = {}
        for index in window.keyframes:
            problem = self._problem(window, index)
            if problem is not None:
                problems[index] = problem
        if len(problems) == len(window.keyframes):
            return WindowFrames((), np.empty(0), problems)
        return WindowFrames(window.frames, np.array(window.frame_times), problems)

    def _problem(self, window: "PartialWindow", index: int) -> Problem | None:
        time = window.times[index]
        if time < 0:
            return Problem(f"timestamp {time:g} s is before the start of the video", outside=True)
        first = self.stats.start
        if first is not None and time < first - _DAMAGE_TOLERANCE_SECONDS:
            return Problem(
                f"timestamp {time:g} s is before the first frame that can be decoded, {first:.3f} s"
            )
        if index in window.in_damage:
            return Problem(f"the video is damaged around timestamp {time:g} s")
        if index in window.after_last and time > self.stats.end + _TIE_SECONDS:
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
        return probe(self._path).duration


class ClipReader(FrameReader):
    """Reads the clips of one video around any number of keyframes, decoding each frame once."""

    def __init__(self, path: str | os.PathLike, *, num_frames: int, fps: float,
                 transform: Callable[[np.ndarray], Any] | None = None):  # fmt: skip
        """Prepares for reading.

        Args:
          path: as in `FrameReader`.
          num_frames: T, at least 1.
          fps: frames per second of the clips, whatever the video's own rate.
          transform: as in `FrameReader`.

        Raises:
          ValueError: if num_frames or fps is not positive.
        """
        super().__init__(path, transform=transform)
        self._offsets = clip_offsets(num_frames, fps)

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


class PartialWindow:
    """A window while its frames pass by."""

    def __init__(self, window: Window):
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
        if lost and abs(time - frame.time) > _DAMAGE_TOLERANCE_SECONDS:
            self.in_damage.add(index)


# How far a keyframe's picture may be from its time where frames were lost to damage: people move
# little in a tenth of a second, and one lost frame at 10 to 30 fps is within it.
_DAMAGE_TOLERANCE_SECONDS = 0.1
