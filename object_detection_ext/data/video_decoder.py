# SPDX-License-Identifier: Apache-2.0
"""The frames of a video file in order of time, with jumps over parts that nobody asked for."""

import collections
import itertools
import os
from collections.abc import Iterable, Iterator

import av
import numpy as np

from object_detection_ext.data import time_line, video_probe, video_times
from object_detection_ext.data.timed_pictures import TIE_SECONDS, DecodeStats, TimedPicture

# Seeking lands this much before the wanted time, since frames after a jump may lack references.
_SEEK_MARGIN_SECONDS = 1.0


class FileFrames:
    """The frames of a file in order of time, a `PictureSource`. Damaged parts are left out.

    Where timestamps start over, what follows is shown after what came before.
    """

    seek_gap = 8.0

    def __init__(self, path: str | os.PathLike, stats: DecodeStats, threads: int = 0):
        """Opens the file.

        Args:
          path: of the file.
          stats: counts what is met.
          threads: of the decoder; 0 leaves their number to it.

        Raises:
          VideoError: if the file is missing or unreadable.
        """
        self._path, self._stats, self._threads = os.fspath(path), stats, threads
        self._may_seek, self._went_back = True, False
        self._is_one_line: bool | None = None  # unknown
        # Times of the last frame that was given out, and of the last one of the decoder's since it
        # began or jumped.
        self._last_time = self._latest = -np.inf
        self._size: tuple[int, ...] | None = None  # of the last frame, as stored
        self._container = None
        self._restart()

    def close(self) -> None:
        """Closes the file."""
        if self._container is not None:
            self._container.close()
            self._container = None

    def _restart(self) -> None:
        self.close()
        self._container = video_probe.open_file(self._path)
        self._stream = video_times.video_stream(self._container)
        self._stream.thread_type = "AUTO"
        self._stream.thread_count = self._threads
        self._period = 1.0 / (video_times.frame_rate(self._container, self._stream) or 25.0)
        packets = self._packets()
        head = list(itertools.islice(packets, video_times.HEAD_PACKETS))
        self._clock = video_times.Clock(self._container, self._stream, head)
        self._begin(itertools.chain(head, packets), from_start=True)

    def _begin(self, packets: Iterable, from_start: bool) -> None:
        self._line = time_line.TimeLine(self._period)
        self._pictures = self._line.joined(self._timed(self._settled(self._decode(packets))))
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

    def _timed(self, settled: Iterator) -> Iterator[tuple[float | None, tuple]]:
        """Yields (seconds as the file has them, (the same, picture, damaged before it))."""
        for picture, damaged in settled:
            time = self._clock.seconds(picture)
            yield time, (time, picture, damaged)

    def next(self) -> TimedPicture | None:
        """Returns the next frame that is later than all before, or None at the end."""
        lost = False
        for shift, (time, picture, damaged) in self._pictures:
            lost = lost or damaged
            if time is None:
                # It comes after the one before it, at the average rate (such as a raw stream's).
                time = max(self._latest, -self._period) + self._period
            else:
                time += shift
            self._stats.restarts = max(self._stats.restarts, self._line.restarts)
            if time < self._latest - TIE_SECONDS:
                self._stats.damaged += 1
                lost = True
            if time <= self._latest + TIE_SECONDS:
                continue
            if self._from_start and self._latest == -np.inf:
                self._stats.start = time
            self._latest = time
            if time <= self._last_time + TIE_SECONDS:
                # It was given out before a jump or a new start.
                self._went_back = True
                continue
            interval = time - self._last_time
            self._last_time = time
            self._stats.decoded += 1
            self._see_size(picture.width, picture.height)
            duration = self._clock.duration(picture)
            self._stats.end = time + video_times.shown_for(self._period, duration, interval)
            return TimedPicture(time, picture, lost)
        return None

    def _see_size(self, *size: int) -> None:
        self._stats.size_changes += self._size not in (None, size)
        self._size = size

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
            # What was lost on the way is no damage at the place where decoding resumes.
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
        if not (self._may_seek and self._stream.start_time is not None and self._clock.can_seek):
            return False
        if self._is_one_line is None:
            self._is_one_line = not self._starts_over()
        return self._is_one_line and not self._stats.restarts

    def _starts_over(self) -> bool:
        """Whether one time stands for several places of the file; reads all of its packets."""
        if not video_times.may_start_over(self._container):
            return False
        with video_probe.open_file(self._path) as container:
            return video_times.starts_over(container, video_times.video_stream(container))
