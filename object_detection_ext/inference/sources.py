# SPDX-License-Identifier: Apache-2.0
"""Clips out of whatever holds pictures: video files, frames in memory, streams, folders.

Cameras are in `camera.py`.

Shapes: T frames of a clip, N frames of a source, H W pixels.
"""

import collections
import glob
import itertools
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import cv2
import numpy as np

from object_detection_ext import errors, listing, rates
from object_detection_ext.data import (
    frame_folders,
    timed_pictures,
    video_files,
    video_info,
    video_probe,
    video_reader,
    video_times,
    video_windows,
)

# The model's own resizer takes single pixels of frames that are larger than this, which flickers.
_MUCH_LARGER = 1.5

_ARE_RESULTS = (
    "videos in the output folder are taken for results; give another output folder, or name the "
    "videos one by one"
)

TimedFrame = tuple[float, np.ndarray]


def keyframe_times(info: video_info.VideoInfo, every_seconds: float) -> list[float]:
    """Returns 0, `every_seconds`, 2 `every_seconds`, ... up to the end of the video.

    Raises:
      errors.InputError: if `every_seconds` is not at least 0.001.
    """
    rates.check(rates.spacing_faults("every_seconds", every_seconds))
    # What was lost with the end of a file is asked for, and so is what is there beyond the length
    # that its header says.
    duration, end = info.duration or 0.0, video_probe.extent(info).end or 0.0
    if end > duration + (video_times.LENGTH_TOLERANCE if duration else 0.0):
        duration = end
    return [
        index * every_seconds
        for index in range(max(1, int(np.ceil(duration / every_seconds - 1e-6))))
    ]


def shrunk(
    frame: np.ndarray,
    short_side: int | None,
    frame_size: tuple[int, int] | None,
    model_short_side: int | None = None,
) -> np.ndarray:
    """A frame as a model is given it: smaller, its pixels averaged, or as it is.

    Args:
      frame: uint8 [H, W, 3].
      short_side: pixels that larger frames are shrunk to; 0 keeps them. None shrinks frames that
        are much larger than the model's own size to it.
      frame_size: (H, W) inside the model; None if it depends on the frame.
      model_short_side: pixels of the frame's short side inside the model, where the model keeps
        the aspect ratio; then `frame_size` may hold padding.
    """
    short = min(frame.shape[:2])
    own = model_short_side or (frame_size and min(frame_size))
    if short_side is None and own:
        short_side = own if short > _MUCH_LARGER * own else 0
    if not short_side or short <= short_side:
        return frame
    height, width = (max(1, round(side * short_side / short)) for side in frame.shape[:2])
    return cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA)


def clips_of_frames(
    frames: Iterable[TimedFrame],
    *,
    num_frames: int,
    fps: float,
    every_seconds: float,
    transform: Callable[[np.ndarray], Any] = lambda frame: frame,
) -> Iterator[video_reader.Clip]:
    """Yields the clips around 0, `every_seconds`, ... seconds, as soon as their frames are there.

    Frame k of the clip at t is the one nearest to t + (k - T // 2) / fps; the first and the last
    frame of the source are repeated. Frames that no clip wants any more are let go.

    Args:
      frames: (seconds, uint8 [H, W, 3]), seconds ascending; read one at a time.
      num_frames: T.
      fps: frames per second of the clips, whatever those of the source.
      every_seconds: between two keyframes; the first is that of the first frame.
      transform: is called once per wanted frame; what it returns goes into the clips.

    Raises:
      errors.InputError: for a frame that is not uint8 [H, W, 3] of the first one's size, seconds
        that do not ascend, or no frame at all.
    """
    offsets = video_windows.clip_offsets(num_frames, fps)
    checked = _checked(frames)
    current = next(checked, None)
    if current is None:
        raise errors.InputError("The source has no frames.")
    first, interval, index = current.time, 0.0, 0
    waiting: collections.deque[video_windows.PartialWindow] = collections.deque()

    def payload(frame):
        if frame.payload is None:
            frame.payload = transform(frame.picture)
        return frame.payload

    while current is not None:
        upcoming = next(checked, None)
        if upcoming is not None:
            interval = upcoming.time - current.time
        limit = np.inf if upcoming is None else (current.time + upcoming.time) / 2
        # The last frame is shown for as long as the one before it; rounding adds no keyframe.
        end = np.inf if upcoming is not None else current.time + max(interval - 1e-6, 1e-9)
        while (keyframe := first + index * every_seconds) + offsets[0] <= limit and keyframe < end:
            window = video_windows.Window(keyframe + offsets, (num_frames // 2,))
            waiting.append(video_windows.PartialWindow(window))
            index += 1
        for window in waiting:
            window.take(current, upcoming, limit, payload)
        while waiting and waiting[0].complete:
            done = waiting.popleft()
            # A clip that began before the end may have its keyframe behind it.
            if done.times[num_frames // 2] < end:
                yield video_reader.Clip(
                    float(done.times[num_frames // 2]), done.frames, np.array(done.frame_times)
                )
        current = upcoming


def _checked(frames: Iterable[TimedFrame]) -> Iterator[timed_pictures.TimedPicture]:
    shape, before = None, -np.inf
    for number, (seconds, frame) in enumerate(frames):
        frame = np.asarray(frame)
        shape = shape or frame.shape
        if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
            raise errors.InputError(
                f"Frame {number} is {frame.dtype} {list(frame.shape)}, but must be uint8 [H, W, 3]."
            )
        if frame.shape != shape:
            raise errors.InputError(
                f"Frame {number} is {list(frame.shape)}, but the first one {list(shape)}."
            )
        if not seconds > before:
            raise errors.InputError(
                f"Frame {number} is at {seconds:g} s, which is not after {before:g} s."
            )
        before = seconds
        yield timed_pictures.TimedPicture(float(seconds), frame, False)


def at_rate(frames: Iterable[np.ndarray], fps: float) -> Iterator[TimedFrame]:
    """Frames that follow each other at a fixed rate, from 0 s."""
    for number, frame in enumerate(frames):
        yield number / fps, frame


def pictures_of_folder(folder: str) -> list[str]:
    """The pictures in a folder, by name, numbers as people count ("9" before "10")."""
    return sorted(
        (entry.path for entry in os.scandir(folder) if frame_folders.is_picture(entry.name)),
        key=_natural,
    )


def frames_of_folder(paths: Sequence[str], fps: float) -> Iterator[TimedFrame]:
    """Pictures that follow each other at a fixed rate, from 0 s.

    One that cannot be read is left out, with a line that says so; the times of the others stay.
    At the ends its neighbour stands in, so that the source begins and ends where it would.

    Args:
      paths: of the pictures, in order.
      fps: pictures per second.

    Raises:
      errors.InputError: if none can be read.
    """
    last, missing, problem = None, 0, None
    for number, path in enumerate(paths):
        try:
            frame = frame_folders.read_picture(path)
        except errors.InputError as error:
            print(f"detection: left out: {error}", flush=True)
            missing, problem = missing + 1, problem or error
            continue
        if last is None:
            yield from ((before / fps, frame) for before in range(number))
        yield number / fps, frame
        last, missing = frame, 0
    if last is None:
        raise errors.InputError(
            f"None of {listing.counted(len(paths), 'picture')} can be read: {problem}"
        )
    yield from ((after / fps, last) for after in range(len(paths) - missing, len(paths)))


def timed_frames(source: Any, source_fps: float | None) -> tuple[Iterable, str]:
    """A source of frames as (seconds, frame), and what it is called.

    Args:
      source: a folder of pictures, frames, or (seconds, frame) already.
      source_fps: frames per second of a source that has no times.

    Raises:
      errors.InputError: if it is none of these, or has no frame.
    """
    if isinstance(source, bool) or source is None:
        raise errors.InputError(f"{source!r} is no video, folder, camera, array or iterable.")
    default = "frames"
    if isinstance(source, str | os.PathLike):
        pictures = pictures_of_folder(os.fspath(source))
        if not pictures:
            raise errors.InputError(
                f"{os.fspath(source)}: no pictures in this folder; call the detector for each "
                "video of a folder."
            )
        default = os.path.basename(os.path.normpath(source))
        return frames_of_folder(pictures, _needed(source_fps)), default
    if isinstance(source, np.ndarray):
        return at_rate(source, _needed(source_fps)), default
    if not isinstance(source, Iterable):
        raise errors.InputError(f"{source!r} is no video, folder, camera, array or iterable.")
    frames = iter(source)
    first = next(frames, None)
    if first is None:
        raise errors.InputError("The source has no frames.")
    frames = itertools.chain([first], frames)
    if isinstance(first, tuple):
        return frames, default
    return at_rate(frames, _needed(source_fps)), default


def _needed(source_fps: float | None) -> float:
    if source_fps is None:
        raise errors.InputError(
            f"Give source_fps, the source's frames per second, {rates.MIN_FPS:g} to "
            f"{rates.MAX_FPS}: it has no times."
        )
    rates.check(rates.fps_faults("source_fps", source_fps))
    return source_fps


def is_video(source: Any) -> bool:
    """Whether a source is a video: the path of a file, or what is known of a file or a folder."""
    if isinstance(source, video_info.VideoInfo):
        return True
    return isinstance(source, str | os.PathLike) and not os.path.isdir(source)


def find_videos(
    inputs: Sequence[str], excluded: str | None = None, frames_fps: float = 0.0
) -> list[str]:
    """Videos by path, pattern or folder (all that are below it), each once, in order.

    Hidden files and folders below a folder are left out.

    Args:
      inputs: paths and patterns.
      excluded: a folder whose videos are taken for results: folders are not searched below it, and
        patterns do not find what lies in it. A path finds its file in any case.
      frames_fps: frames per second of folders of numbered frames; 0 where these are not videos.

    Raises:
      errors.InputError: for an input that gives no video.
    """
    excluded = None if excluded is None else os.path.realpath(excluded)
    found: dict[str, str] = {}
    for each in inputs:
        if os.path.isdir(each) and not (frames_fps and _holds_frames(each)):
            paths = _videos_below(each, excluded, frames_fps)
        elif os.path.exists(each) or not glob.has_magic(each):
            # What is not there is told when its turn comes: the others are done all the same.
            paths = [each]
        else:
            paths = _videos_of_pattern(each, excluded, frames_fps)
        for path in paths:
            found.setdefault(os.path.realpath(path), path)
    return list(found.values())


def _holds_frames(folder: str) -> bool:
    return video_files.is_frame_folder(os.listdir(folder))


def _videos_below(folder: str, excluded: str | None, frames_fps: float) -> list[str]:
    real = os.path.realpath(folder)
    if real == excluded:
        raise errors.InputError(f"{folder}: {_ARE_RESULTS}.")
    if not _is_within(excluded, real):
        excluded = None
    paths = [
        path
        for path, is_folder in video_files.found(folder)
        if (frames_fps if is_folder else video_files.is_video_name(os.path.basename(path)))
        and not _is_within(path, excluded)
    ]
    if not paths:
        extensions = " ".join(sorted(video_files.EXTENSIONS))
        hint = "" if frames_fps else "; numbered frames are videos with --frames_fps"
        raise errors.InputError(f"{folder}: no video in this folder ({extensions}{hint}).")
    return sorted(paths, key=_natural)


def _is_within(path: str | None, folder: str | None) -> bool:
    return (
        path is not None
        and folder is not None
        and (os.path.realpath(path) + os.sep).startswith(folder + os.sep)
    )


def _videos_of_pattern(pattern: str, excluded: str | None, frames_fps: float) -> list[str]:
    fitting = [
        path
        for path in glob.glob(pattern, recursive=True)
        if os.path.isfile(path) or (frames_fps and os.path.isdir(path) and _holds_frames(path))
    ]
    if not fitting:
        raise errors.InputError(f"{pattern}: nothing fits this pattern.")
    paths = [path for path in fitting if os.path.realpath(os.path.dirname(path) or ".") != excluded]
    if not paths:
        raise errors.InputError(f"{pattern}: all that fits this pattern: {_ARE_RESULTS}.")
    return sorted(paths, key=_natural)


def names_of(paths: Sequence[str]) -> list[str]:
    """What files of results are called: the video's name without extension.

    Videos of the same name in different folders get as much of their folders as tells them apart,
    `monday_v1`.
    """
    return ["_".join(parts) + more.replace(".", "_") for parts, more in _told_apart(paths)]


def ids_of(paths: Sequence[str]) -> list[str]:
    """What videos are called in results, as annotations name them (`video_files`).

    The name without extension; for videos of the same name with their folders, `monday/v1`.
    """
    return ["/".join(parts) + more for parts, more in _told_apart(paths)]


def _told_apart(paths: Sequence[str]) -> list[tuple[list[str], str]]:
    """As many of the last folders and the name as are needed, and the extension if it is too."""
    split = [
        (path, "") if os.path.isdir(path) else os.path.splitext(path)
        for path in map(os.path.normpath, paths)
    ]
    stems = collections.Counter(stem for stem, _ in split)
    # v1.mp4 beside v1.mov: only the extension differs, and no folder would tell them apart.
    endings = [extension if stems[stem] > 1 else "" for stem, extension in split]
    parts = [stem.split(os.sep) for stem, _ in split]
    used = [1] * len(parts)
    while True:
        names = [
            "_".join(part[-count:]) + ending
            for part, count, ending in zip(parts, used, endings, strict=True)
        ]
        counts = collections.Counter(names)
        longer = [
            index
            for index, name in enumerate(names)
            if counts[name] > 1 and used[index] < len(parts[index])
        ]
        if not longer:
            return [
                (part[-count:], ending)
                for part, count, ending in zip(parts, used, endings, strict=True)
            ]
        for index in longer:
            used[index] += 1


def _natural(path: str) -> list:
    return [(int(p), "") if p.isdigit() else (-1, p) for p in re.split(r"(\d+)", path)]
