# SPDX-License-Identifier: Apache-2.0
"""Clips of a camera, however long the detection in each of them takes.

A thread reads the camera without a pause, so that clips hold the frames of their own time and the
camera's own buffer never fills with old ones. Of the clips that become complete while a detection
is at work only the newest is kept. What is detected is therefore never older than half a clip, the
time between two keyframes and one detection together.

Shapes: T frames of a clip, H W pixels.
"""

import collections
import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import cv2
import numpy as np

from object_detection_ext import errors
from object_detection_ext.data import video_reader
from object_detection_ext.inference import sources

# On Windows Ctrl-C is not noticed during a wait without a limit.
_WAIT_SECONDS = 0.5
# A camera may hang; who has stopped it does not wait for it any longer than this.
_PATIENCE_SECONDS = 2.0
_TELL_SECONDS = 30.0


class Capture(Protocol):
    """What is used of OpenCV's VideoCapture."""

    def isOpened(self) -> bool:
        """Whether the camera is there."""

    def read(self) -> tuple[bool, np.ndarray]:
        """Waits for the next frame, uint8 [H, W, 3] BGR; False at the end."""

    def release(self) -> None:
        """Ends the use of the camera."""


def clips_of_camera(
    index: int,
    *,
    num_frames: int,
    fps: float,
    every_seconds: float,
    transform: Callable[[np.ndarray], Any] = lambda frame: frame,
    clock: Callable[[], float] = time.monotonic,
    open_camera: Callable[[int], Capture] = cv2.VideoCapture,
) -> Iterator[video_reader.Clip]:
    """Yields the newest clip around 0, `every_seconds`, ... seconds from the camera's first frame.

    Clips are those of `sources.clips_of_frames`. Who asks for the next one gets the newest that is
    complete and was not given yet, or waits for it. Keyframes that are skipped in this way are
    counted in a line, every half minute at most. At the camera's end no more are skipped.

    Memory is that of the clips that overlap at one time, and of the one that waits to be taken.
    Closing the generator ends the thread and releases the camera.

    Args:
      index: the camera's number.
      num_frames: T.
      fps: frames per second of the clips, whatever those of the camera.
      every_seconds: between two keyframes.
      transform: is called in the thread, once per wanted frame, uint8 [H, W, 3] RGB; what it
        returns goes into the clips.
      clock: seconds, from any start.
      open_camera: from the camera's number to the camera.

    Raises:
      errors.InputError: if there is no such camera, or it gives no frame.
      Exception: whatever the camera or `transform` raises.
    """
    # Not in the thread: macOS asks the user for leave only from the main one.
    camera = open_camera(index)
    if not camera.isOpened():
        camera.release()
        raise errors.InputError(f"There is no camera {index}, or it is in use.")
    handover = _Handover()
    thread = threading.Thread(
        target=_read,
        args=(handover, index, camera, clock),
        kwargs={"num_frames": num_frames, "fps": fps, "every_seconds": every_seconds,
                "transform": transform},
        name=f"camera {index}",
        daemon=True,
    )  # fmt: skip
    skips = _Skips(index, every_seconds, clock)
    thread.start()
    try:
        while (taken := handover.take()) is not None:
            clip, skipped = taken
            skips.count(skipped)
            yield clip
        skips.tell()
    finally:
        handover.stopped.set()
        thread.join(_PATIENCE_SECONDS)


class _Handover:
    """Where the thread that reads leaves the newest clip for the one that detects."""

    def __init__(self):
        self.stopped = threading.Event()
        self._changed = threading.Condition()
        self._clips: collections.deque[video_reader.Clip] = collections.deque()
        self._skipped = 0
        self._finished, self._error = False, None

    def put(self, clip: video_reader.Clip, keep_others: bool) -> None:
        """Leaves a clip, in place of those that nobody took unless they are to be kept."""
        with self._changed:
            if not keep_others:
                self._skipped += len(self._clips)
                self._clips.clear()
            self._clips.append(clip)
            self._changed.notify_all()

    def finish(self, error: BaseException | None = None) -> None:
        """Says that no clip will follow, and why."""
        with self._changed:
            self._finished, self._error = True, error
            self._changed.notify_all()

    def take(self) -> tuple[video_reader.Clip, int] | None:
        """Waits for a clip; returns it and how many were skipped before it, None at the end."""
        with self._changed:
            while not self._clips and not self._finished:
                self._changed.wait(_WAIT_SECONDS)
            if self._clips:
                skipped, self._skipped = self._skipped, 0
                return self._clips.popleft(), skipped
            if self._error is not None:
                raise self._error
            return None


def _read(handover: _Handover, index: int, camera: Capture, clock, **options) -> None:
    """Leaves the clips of the camera, until it ends or is stopped; what the thread does."""
    has_ended = False
    try:
        with contextlib.closing(_frames(index, camera, clock, handover.stopped)) as frames:

            def to_the_end():
                nonlocal has_ended
                yield from frames
                has_ended = True

            for clip in sources.clips_of_frames(to_the_end(), **options):
                # With no further frame to come there is nothing to keep up with.
                handover.put(clip, keep_others=has_ended)
    except BaseException as error:  # whoever takes the clips is told
        handover.finish(error)
    else:
        handover.finish()


def _frames(
    index: int, camera: Capture, clock: Callable[[], float], stopped: threading.Event
) -> Iterator[sources.TimedFrame]:
    """The frames of a camera as they come, uint8 [H, W, 3] RGB; seconds from the first one."""
    start = None
    try:
        while not stopped.is_set():
            is_there, frame = camera.read()
            if not is_there:
                if start is None:
                    raise errors.InputError(f"Camera {index} is there, but gives no frame.")
                return
            now = clock()
            start = now if start is None else start
            yield now - start, cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
    finally:
        camera.release()


class _Skips:
    """Says now and then how many keyframes were skipped."""

    def __init__(self, index: int, every_seconds: float, clock: Callable[[], float]):
        self._index, self._every_seconds, self._clock = index, every_seconds, clock
        self._skipped = self._given = self._told = 0
        self._told_at = -np.inf

    def count(self, skipped: int) -> None:
        """Counts a clip that was given and those skipped before it."""
        self._skipped += skipped
        self._given += 1
        if self._clock() - self._told_at >= _TELL_SECONDS:
            self.tell()

    def tell(self) -> None:
        """Says it, if there is anything new to say."""
        if self._skipped > self._told:
            print(
                f"detection: camera {self._index}: {self._skipped} of "
                f"{self._skipped + self._given} keyframes skipped so far: a detection takes longer "
                f"than the {self._every_seconds:g} s from one to the next",
                flush=True,
            )
            self._told, self._told_at = self._skipped, self._clock()
