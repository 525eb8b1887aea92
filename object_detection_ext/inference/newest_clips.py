# SPDX-License-Identifier: Apache-2.0
"""Clips of a source that does not wait: cameras and streams, however long a detection takes.

A thread reads the source without a pause, so that clips hold the frames of their own time and no
buffer fills with old ones. Of the clips that become complete while a detection is at work only the
newest is kept. What is detected is therefore never older than half a clip, the time between two
keyframes and one detection together.

Shapes: T frames of a clip, H W pixels.
"""

import collections
import contextlib
import threading
import time
from collections.abc import Callable, Iterator

import numpy as np

from object_detection_ext.data import video_reader
from object_detection_ext.inference import sources

# On Windows Ctrl-C is not noticed during a wait without a limit.
_WAIT_SECONDS = 0.5
# A source may hang; who has stopped it does not wait for it any longer than this.
_PATIENCE_SECONDS = 2.0
_REPORT_SECONDS = 30.0

# From the event that ends it to (seconds, uint8 [H, W, 3] RGB) as they come.
Frames = Callable[[threading.Event], Iterator[sources.TimedFrame]]


def newest_clips(
    frames: Frames,
    name: str,
    *,
    every_seconds: float,
    clock: Callable[[], float] = time.monotonic,
    **options,
) -> Iterator[video_reader.Clip]:
    """Yields the newest clip around 0, `every_seconds`, ... seconds from the first frame.

    Clips are those of `sources.clips_of_frames`. Who asks for the next one gets the newest that is
    complete and was not given yet, or waits for it. Keyframes that are skipped in this way are
    counted in a line, every half minute at most. At the source's end no more are skipped.

    Memory is that of the clips that overlap at one time, and of the one that waits to be taken.
    Closing the generator ends the thread and with it the source.

    Args:
      frames: begins to read, in the thread.
      name: of the source, in what is said of it.
      every_seconds: between two keyframes.
      clock: seconds, from any start.
      **options: of `sources.clips_of_frames`; its transform is called in the thread.

    Raises:
      Exception: whatever the source or the transform raises.
    """
    handover = _Handover()
    thread = threading.Thread(
        target=_read,
        args=(handover, frames),
        kwargs={"every_seconds": every_seconds, **options},
        name=name,
        daemon=True,
    )
    skips = _Skips(name, every_seconds, clock)
    thread.start()
    try:
        while (taken := handover.take()) is not None:
            clip, skipped = taken
            skips.count(skipped)
            yield clip
        skips.report()
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


def _read(handover: _Handover, frames: Frames, **options) -> None:
    """Leaves the clips of a source, until it ends or is stopped; what the thread does."""
    has_ended = False
    try:
        with contextlib.closing(frames(handover.stopped)) as running:

            def to_the_end():
                nonlocal has_ended
                yield from running
                has_ended = True

            for clip in sources.clips_of_frames(to_the_end(), **options):
                # With no further frame to come there is nothing to keep up with.
                handover.put(clip, keep_others=has_ended)
    except BaseException as error:  # raised again where the clips are taken
        handover.finish(error)
    else:
        handover.finish()


class _Skips:
    """Says now and then how many keyframes were skipped."""

    def __init__(self, name: str, every_seconds: float, clock: Callable[[], float]):
        self._name, self._every_seconds, self._clock = name, every_seconds, clock
        self._skipped = self._given = self._reported = 0
        self._reported_at = -np.inf

    def count(self, skipped: int) -> None:
        """Counts a clip that was given and those skipped before it."""
        self._skipped += skipped
        self._given += 1
        if self._clock() - self._reported_at >= _REPORT_SECONDS:
            self.report()

    def report(self) -> None:
        """Says it, if there is anything new to say."""
        if self._skipped > self._reported:
            print(
                f"detection: {self._name}: {self._skipped} of "
                f"{self._skipped + self._given} keyframes skipped so far: a detection takes longer "
                f"than the {self._every_seconds:g} s from one to the next",
                flush=True,
            )
            self._reported, self._reported_at = self._skipped, self._clock()
