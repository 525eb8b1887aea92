# SPDX-License-Identifier: Apache-2.0
"""A video with the people of its keyframes, their actions, and what they attend to.

Shapes: H W pixels, h w cells of the feature map.
"""

import os
from collections.abc import Iterator, Sequence

import numpy as np
from PIL import Image

from object_detection_ext import errors, files, progress
from object_detection_ext.data import video_probe, video_reader
from object_detection_ext.inference.results import Keyframe, clearest, with_attention_map
from object_detection_ext.visualization import attention, drawing

_MAX_FPS = 60.0
# People move: further from a keyframe than this, its boxes would be beside them.
_REACH_SECONDS = 1.0
# Cells with this many times the attention of a uniform one get the strongest colour.
_LEAST_TOP = 4.0


def write(
    video: video_reader.Video,
    output: str,
    keyframes: Sequence[Keyframe],
    picture: str | None = None,
) -> int:
    """Writes the video with each frame showing the people of the nearest keyframe within a second.

    Where people hold their attention, frames show that of the keyframe's people, as strong as the
    middle frame of the clip had it.

    Args:
      video: the video file, or what `video_probe.probe` says of a video.
      output: the mp4 file to write; replaced when the new one is complete.
      keyframes: at least one.
      picture: where to write the frame of the clearest keyframe, a PNG; None writes none.

    Returns:
      The number of frames written.

    Raises:
      errors.InputError: if there is no keyframe, or the video cannot be read.
    """
    if not keyframes:
        raise errors.InputError(f"{os.fspath(video)}: no keyframe of the video could be read.")
    info = video_probe.known(video)
    fps = min(info.fps or 25.0, _MAX_FPS)
    return drawing.write_video(output, _frames(info, fps, keyframes, picture), fps)


def _frames(info, fps, keyframes, picture) -> Iterator[np.ndarray]:
    times = np.array([keyframe.time for keyframe in keyframes])
    drawn = [drawn_people(keyframe) for keyframe in keyframes]
    maps = [with_attention_map(keyframe).attention_map for keyframe in keyframes]
    best = times[clearest(keyframes)]
    best_shown, best_distance = None, np.inf
    told = progress.Progress("video", info.duration or float(times[-1]), "s of video")
    for seconds, frame in video_reader.resampled_frames(info, fps):
        nearest = int(np.argmin(np.abs(times - seconds)))
        is_near = abs(times[nearest] - seconds) <= _REACH_SECONDS
        if is_near and maps[nearest] is not None:
            frame = _overlaid(frame, maps[nearest])
        people = drawn[nearest] if is_near else []
        shown = drawing.draw_people(frame, people, caption=f"{seconds:.1f} s")
        if abs(best - seconds) < best_distance:
            best_shown, best_distance = shown, abs(best - seconds)
        told.update(seconds)
        yield shown
    if picture and best_shown is not None:
        with files.replaced_when_complete(picture, "wb") as file:
            Image.fromarray(best_shown).save(file, "PNG")


def drawn_people(keyframe: Keyframe) -> list[drawing.DetectedPerson]:
    """The people as they are drawn, from left to right; with a track, its number comes first."""
    people = sorted(keyframe.people, key=lambda person: float(person.box[1]))
    drawn = []
    for person in people:
        actions = tuple(person.actions.items())
        if person.track is not None:
            actions = ((f"#{person.track}", None), *actions)
        drawn.append(drawing.DetectedPerson(tuple(person.box), actions))
    return drawn


def _overlaid(frame: np.ndarray, cells: np.ndarray) -> np.ndarray:
    top = max(_LEAST_TOP, float(cells.max()))
    return attention.overlay(frame, attention.upsampled(cells, *frame.shape[:2]), top)
