# SPDX-License-Identifier: Apache-2.0
"""Clips of a camera whose time goes on only as the test says.

Shapes: T frames of a clip, H W pixels.
"""

import concurrent.futures
import itertools
import re
import threading
import weakref

import numpy as np
import pytest

from object_detection_ext import errors
from object_detection_ext.inference import camera as camera_lib
from object_detection_ext.inference import sources

_RATE = 30.0
# Clips of 1.6 s, from 0.8 s before their keyframe to 0.7 s after it.
_OPTIONS = {"num_frames": 16, "fps": 10.0, "every_seconds": 1.0}
_LIMIT_SECONDS = 20.0


class _Camera:
    """Frame k, at k / _RATE seconds, is k // 256 in green and k % 256 in red."""

    def __init__(self, num_frames: int = 10**9):
        self._changed = threading.Condition()
        self._end, self._number, self._allowed = num_frames, 0, 0
        self._waits = False
        self.index, self.released = None, False

    def open(self, index: int) -> "_Camera":
        self.index = index
        return self

    def isOpened(self) -> bool:
        return True

    def read(self):
        with self._changed:
            self._waits = True
            self._changed.notify_all()
            assert self._changed.wait_for(lambda: self._number < self._allowed, _LIMIT_SECONDS)
            self._waits = False
            if self._number >= self._end:
                return False, None
            number, self._number = self._number, self._number + 1
        # BGR, as OpenCV gives it.
        return True, np.full([4, 6, 3], [0, number // 256, number % 256], np.uint8)

    def release(self):
        with self._changed:
            self.released = True
            self._changed.notify_all()

    def now(self) -> float:
        """The time of the last frame."""
        return (self._number - 1) / _RATE

    def allow(self, seconds: float) -> None:
        """Lets time go on to these seconds as soon as somebody reads."""
        with self._changed:
            self._allowed = round(seconds * _RATE) + 1
            self._changed.notify_all()

    def go_on(self, seconds: float) -> None:
        """Lets so much more time pass; afterwards all of its frames have been dealt with."""
        self.allow((self._allowed - 1) / _RATE + seconds)
        with self._changed:
            assert self._changed.wait_for(
                lambda: self.released or (self._waits and self._number == self._allowed),
                _LIMIT_SECONDS,
            )


@pytest.fixture
def camera():
    """A camera that never ends; nothing may be left of the thread that reads it."""
    camera = _Camera()
    yield camera
    camera.allow(1e6)
    assert not _threads()


def _threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("camera ")]


def _clips(camera: _Camera, **options):
    return camera_lib.clips_of_camera(
        3, clock=camera.now, open_camera=camera.open, **{**_OPTIONS, **options}
    )


def _numbers(clip) -> list[int]:
    return [256 * int(frame[0, 0, 1]) + int(frame[0, 0, 0]) for frame in clip.frames]


def _closed(camera: _Camera, clips) -> None:
    camera.allow(1e6)
    clips.close()


def test_slow_detection_gets_new_clips_of_their_own_frames(camera, capsys):
    clips = _clips(camera)
    found, lags = [], []
    camera.allow(0.8)
    for clip in itertools.islice(clips, 40):
        camera.go_on(2.4)  # the detection
        found.append(clip)
        lags.append(camera.now() - clip.keyframe_time)
    _closed(camera, clips)
    assert camera.index == 3 and camera.released
    # Half a clip, the time between two keyframes and the detection.
    assert max(lags) <= 0.7 + 1.0 + 2.4 + 2 / _RATE
    assert [clip.keyframe_time for clip in found[:6]] == [0, 2, 4, 7, 9, 12]
    for clip in found[1:]:
        first = (clip.keyframe_time - 0.8) * _RATE
        np.testing.assert_allclose(_numbers(clip), first + 3 * np.arange(16), atol=0.01)
        np.testing.assert_allclose(clip.frame_times, np.array(_numbers(clip)) / _RATE)
    reported = re.findall(
        r"detection: camera 3: (\d+) of (\d+) keyframes skipped", capsys.readouterr().out
    )
    # Of 94 s: a line for the first one, and then each half minute.
    assert reported == [("1", "3"), ("19", "34"), ("37", "65")]


def test_fast_detection_gets_every_keyframe_as_a_stream_does(capsys):
    camera = _Camera(round(5.3 * _RATE))
    clips, found = _clips(camera), []
    camera.allow(0.8)
    for clip in clips:
        camera.go_on(1.0 if len(found) < 4 else 5.0)
        found.append(clip)
    assert not _threads() and camera.released
    stream = ((k / _RATE, np.full([4, 6, 3], [k, 0, 0], np.uint8)) for k in range(159))
    expected = list(sources.clips_of_frames(stream, **_OPTIONS))
    # The last ones become complete together at the end, and are not skipped.
    assert [clip.keyframe_time for clip in expected] == pytest.approx([0, 1, 2, 3, 4, 5])
    assert [clip.keyframe_time for clip in found] == [clip.keyframe_time for clip in expected]
    assert [_numbers(clip) for clip in found] == [_numbers(clip) for clip in expected]
    assert "skipped" not in capsys.readouterr().out


def test_next_clip_is_waited_for(camera):
    clips = _clips(camera)
    camera.allow(0.8)
    assert next(clips).keyframe_time == 0.0
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        upcoming = pool.submit(next, clips)
        camera.go_on(0.7)
        assert not upcoming.done()
        camera.go_on(0.3)
        assert upcoming.result(_LIMIT_SECONDS).keyframe_time == 1.0
    _closed(camera, clips)


def test_memory_is_that_of_a_few_clips(camera):
    class Frame:
        """What a weak reference can point to."""

    alive = weakref.WeakSet()

    def transform(frame):
        kept = Frame()
        alive.add(kept)
        return kept

    clips = _clips(camera, transform=transform)
    camera.allow(0.8)
    next(clips)
    for _ in range(60):
        camera.go_on(1.0)
        # Half of the clip is there twice: in the clip that waits and in the next one.
        assert len(alive) <= 3 * _OPTIONS["num_frames"]
    _closed(camera, clips)


def test_interrupted_consumer_ends_the_thread(camera):
    def detect():
        for _ in _clips(camera):
            camera.allow(1e6)
            raise KeyboardInterrupt

    camera.allow(0.8)
    with pytest.raises(KeyboardInterrupt):
        detect()
    for thread in _threads():
        thread.join(_LIMIT_SECONDS)
    assert camera.released


def test_errors_of_the_thread_reach_the_consumer(camera):
    def transform(frame):
        if frame[0, 0, 0] > 40:
            raise MemoryError("no room for this frame")
        return frame

    clips = _clips(camera, transform=transform)
    camera.allow(3.0)
    assert next(clips).keyframe_time == 0.0
    with pytest.raises(MemoryError, match="no room for this frame"):
        next(clips)
    assert camera.released


def test_camera_that_is_none():
    camera = _Camera(0)
    camera.allow(1.0)
    with pytest.raises(errors.InputError, match="Camera 3 is there, but gives no frame"):
        next(_clips(camera))
    assert camera.released
    camera.isOpened = lambda: False
    with pytest.raises(errors.InputError, match="There is no camera 3, or it is in use"):
        next(_clips(camera))
    assert not _threads()
