# SPDX-License-Identifier: Apache-2.0
"""Clips of a camera, as `newest_clips` gives them.

Shapes: T frames of a clip, H W pixels.
"""

import functools
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import cv2
import numpy as np

from object_detection_ext import errors
from object_detection_ext.data import video_reader
from object_detection_ext.inference import newest_clips, sources


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
    return newest_clips.newest_clips(
        functools.partial(_frames, index, camera, clock),
        f"camera {index}",
        every_seconds=every_seconds,
        clock=clock,
        num_frames=num_frames,
        fps=fps,
        transform=transform,
    )


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
