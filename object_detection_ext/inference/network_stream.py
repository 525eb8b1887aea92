# SPDX-License-Identifier: Apache-2.0
"""Clips of a stream from the network: `rtsp://...`, `http://...`, `udp://...`.

A live stream is read as a camera is (`newest_clips`). When its connection is lost it is connected
again, after waits that double, up to half a minute; after eight attempts in a row that give no
frame it is given up. The clock keeps running meanwhile, so that keyframes have the time at which
they happened, in seconds from the first frame. A file that a server gives has an end, and none of
its keyframes is skipped.

Shapes: T frames of a clip, H W pixels.
"""

import re
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import av
import numpy as np

from object_detection_ext import errors
from object_detection_ext.data import time_line, upright, video_reader, video_times
from object_detection_ext.inference import newest_clips, sources

SCHEMES = (
    "http", "https", "rtmp", "rtmps", "rtp", "rtsp", "rtsps", "srt", "tcp", "udp",
)  # fmt: skip

FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS = 1.0, 30.0
MAX_ATTEMPTS = 8
# To connect, and from one packet to the next.
_OPEN_SECONDS, _READ_SECONDS = 10.0, 15.0
# A live stream's timestamps that leave out more than this have jumped.
_MAX_JUMP_SECONDS = 10.0

# RTSP through the connection that is there already: packets of UDP get lost, and
# firewalls block them. More data than a UDP stream's buffer holds is lost: no reason to stop.
_OPTIONS = {
    "rtsp": {"rtsp_flags": "prefer_tcp"},
    "rtsps": {"rtsp_flags": "prefer_tcp"},
    "udp": {"overrun_nonfatal": "1", "fifo_size": "278876"},
}


def is_address(source: object) -> bool:
    """Whether a source is the address of a stream."""
    return (
        isinstance(source, str)
        and source.partition("://")[0].lower() in SCHEMES
        and ("://" in source)
    )


def shown(address: str) -> str:
    """An address as it may be shown: without the user's name and password, and without a query."""
    parts = urllib.parse.urlsplit(address)
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path}"


def name_of(address: str) -> str:
    """What a stream is called in results: its host and path, in letters that files can have."""
    parts = urllib.parse.urlsplit(address)
    text = parts.netloc.rpartition("@")[2] + parts.path
    return "stream_" + re.sub(r"[^A-Za-z0-9.-]+", "_", text).strip("_")


def clips(
    address: str, *, clock: Callable[[], float] = time.monotonic, **options
) -> Iterator[video_reader.Clip]:
    """Yields the clips of a stream around 0, `every_seconds`, ... seconds from its first frame.

    Args:
      address: of the stream.
      clock: seconds, from any start.
      **options: of `sources.clips_of_frames`.

    Raises:
      errors.InputError: if the first connection fails, or has no video.
      errors.OutsideError: if the connection is lost and cannot be restored.
    """
    stream = NetworkStream(address, clock)
    if stream.is_file:
        return sources.clips_of_frames(stream.frames(threading.Event()), **options)
    return newest_clips.newest_clips(stream.frames, shown(address), clock=clock, **options)


class NetworkStream:
    """The frames of a stream, over as many connections as it takes."""

    def __init__(self, address: str, clock: Callable[[], float] = time.monotonic):
        """Connects.

        Args:
          address: of the stream.
          clock: seconds, from any start.

        Raises:
          errors.InputError: if that fails, or there is no video.
        """
        self._address, self._shown, self._clock = address, shown(address), clock
        self._pixels = upright.UprightPixels()
        self._start: float | None = None
        self._last, self._interval = -np.inf, 0.04
        self.reconnections = 0
        try:
            self._container = self._connect()
        except (av.FFmpegError, OSError, ValueError) as error:
            raise errors.InputError(
                f"{self._shown}: cannot be opened as a stream: {_reason(error)}."
            ) from None
        self.is_file = _is_file(self._container)

    def _connect(self):
        scheme, _, rest = self._address.partition("://")
        scheme = scheme.lower()
        container = av.open(
            f"{scheme}://{rest}",
            options=_OPTIONS.get(scheme, {}),
            timeout=(_OPEN_SECONDS, _READ_SECONDS),
        )
        stream = video_times.video_stream(container)
        if stream is None or stream.codec_context is None:
            container.close()
            raise ValueError("it has no video that can be decoded")
        return container

    def frames(self, stopped: threading.Event) -> Iterator[sources.TimedFrame]:
        """Yields (seconds from the first frame, uint8 [H, W, 3] RGB) until it ends or is stopped.

        Raises:
          errors.OutsideError: if the connection is lost and cannot be restored.
        """
        attempts = 0
        try:
            while not stopped.is_set():
                reason = "the server ended it"
                try:
                    if self._container is None:
                        self._container = self._connect()
                    for frame in self._of_connection(stopped):
                        if attempts:
                            self._tell_restored()
                            attempts = 0
                        yield frame
                    if self.is_file:
                        return
                except (av.FFmpegError, OSError, ValueError) as error:
                    reason = _reason(error)
                self.close()
                if not stopped.is_set():
                    attempts += 1
                    self._wait(attempts, reason, stopped)
        finally:
            self.close()

    def close(self) -> None:
        """Ends the connection."""
        if self._container is not None:
            self._container.close()
            self._container = None

    def _of_connection(self, stopped: threading.Event) -> Iterator[sources.TimedFrame]:
        """Yields the frames of one connection, until it ends."""
        stream = video_times.video_stream(self._container)
        stream.thread_type = "AUTO"
        timed = self._timed(stream, stopped)
        if self.is_file:
            timed = _on_one_line(timed, self._period(stream))
        for seconds, picture in timed:
            if seconds > self._last:
                self._interval = min(seconds - self._last, 1.0)
                self._last = seconds
                yield seconds, self._pixels(picture)

    def _period(self, stream) -> float:
        """Returns the seconds from one picture to the next, on average."""
        return 1.0 / (video_times.frame_rate(self._container, stream) or 25.0)

    def _timed(self, stream, stopped: threading.Event) -> Iterator[tuple[float | None, Any]]:
        """Yields (its time, if it has one, decoded picture) of one connection."""
        first = None  # (time stamp, its time)
        for packet in self._container.demux(stream):
            if stopped.is_set():
                return
            try:
                pictures = stream.decode(packet)
            except av.InvalidDataError:
                continue  # such as what comes before the first whole picture
            for picture in pictures:
                if picture.is_corrupt:
                    continue
                first, seconds = self._seconds(picture.pts, stream.time_base, first)
                yield seconds, picture

    def _seconds(self, stamp: int | None, time_base, first):
        """Returns (stamp and time that others are counted from, this frame's time).

        Within a connection frames are as far apart as their timestamps say, however they arrive.
        Where a connection begins, and where timestamps jump, the clock decides. Not of a file:
        there a frame without a timestamp has no time.
        """
        if self._start is None:
            self._start = self._clock()
        now = self._clock() - self._start
        if stamp is None:
            return first, None if self.is_file else now
        if first is None and self.is_file:
            first = stamp, 0.0
        next_time = max(now, self._last + self._interval)
        if first is None:
            return (stamp, next_time), next_time
        seconds = first[1] + float((stamp - first[0]) * time_base)
        if not self.is_file and not self._last < seconds <= self._last + _MAX_JUMP_SECONDS:
            return (stamp, next_time), next_time
        return first, seconds

    def _wait(self, attempt: int, reason: str, stopped: threading.Event) -> None:
        if attempt > MAX_ATTEMPTS:
            raise errors.OutsideError(
                f"{self._shown}: the connection was lost ({reason}) and not restored in "
                f"{MAX_ATTEMPTS} attempts, after {self.reconnections} reconnections before."
            )
        seconds = min(FIRST_WAIT_SECONDS * 2 ** (attempt - 1), LONGEST_WAIT_SECONDS)
        print(
            f"detection: {self._shown}: connection lost ({reason}); attempt {attempt} of "
            f"{MAX_ATTEMPTS} to connect again in {seconds:g} s",
            flush=True,
        )
        stopped.wait(seconds)

    def _tell_restored(self) -> None:
        self.reconnections += 1
        print(
            f"detection: {self._shown}: connected again (reconnection {self.reconnections})",
            flush=True,
        )


def _is_file(container) -> bool:
    """Whether what is read has an end: a length in seconds or, as TS files have none, in bytes."""
    # What they are read from is a list of files, which may grow.
    is_list = container.format.name in ("dash", "hls")
    return container.duration is not None or (container.size > 0 and not is_list)


def _on_one_line(timed: Iterable, period: float) -> Iterator[tuple[float, Any]]:
    """Yields (time, picture) of a file whose timestamps may start over, or be missing."""
    line, latest = time_line.TimeLine(period), -period
    of_file = ((seconds, (seconds, picture)) for seconds, picture in timed)
    for shift, (seconds, picture) in line.joined(of_file):
        latest = latest + period if seconds is None else seconds + shift
        yield latest, picture


def _reason(error: Exception) -> str:
    """FFmpeg's words, without the address, which may hold a password."""
    if isinstance(error, av.ExitError):
        return "no answer in time"
    return getattr(error, "strerror", None) or str(error)
