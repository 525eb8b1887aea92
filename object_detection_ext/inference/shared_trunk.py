# SPDX-License-Identifier: Apache-2.0
"""Clips that overlap share the trunk: it runs once over a stretch of video.

Clips of 64 frames at 25 frames a second, a second apart, have 60 % of their frames in common. Here
the trunk runs over the frames of several neighbouring clips at once, and each clip's window is cut
out of the feature map. Two things differ from clip by clip:

- a window sees beyond its ends, where a clip is padded with zeros;
- windows begin at a cell, so that a clip is moved by up to half the trunk's temporal stride (2
  frames for I3D) and its box is that of the moved middle frame.

docs/inference.md has what that changes in scores and boxes, and what it saves.

Shapes: T frames of a clip, n frames of a stretch, n' cells of its feature map, t cells of a clip.
"""

import itertools
from collections.abc import Iterator, Sequence

import numpy as np

from object_detection_ext import errors
from object_detection_ext.data import video_reader, video_windows
from object_detection_ext.inference import clip_model

DEFAULT_CLIPS_PER_STRETCH = 16

# The largest temporal stride of a trunk; lengths that it divides keep all cells in step.
_WHOLE_STRIDES = 8


def check(model: clip_model.ClipModel) -> None:
    """Raises errors.InputError unless the model has what sharing needs."""
    if model.features is None or model.detect_in_features is None:
        raise errors.InputError(
            f"{model.name} was exported without what sharing the trunk needs; export it again, "
            "with --input_type=clip_tensor."
        )


def plan(
    times: Sequence[float], num_frames: int, fps: float, clips_per_stretch: int
) -> list[tuple[video_windows.Window, np.ndarray]]:
    """Groups keyframes into stretches.

    Args:
      times: of the keyframes, seconds, ascending.
      num_frames: T.
      fps: of the clips.
      clips_per_stretch: the most keyframes in a stretch. Memory grows with it.

    Returns:
      For each stretch the times of its frames, as a window whose keyframes are the given ones, and
      where the clip of each keyframe begins in it, in frames. Keyframes whose clips do not touch
      are not put together.
    """
    offsets = video_windows.clip_offsets(num_frames, fps)
    groups: list[list[float]] = []
    for time in times:
        is_near = groups and (time - groups[-1][-1]) * fps < num_frames
        if is_near and len(groups[-1]) < clips_per_stretch:
            groups[-1].append(time)
        else:
            groups.append([time])
    stretches = []
    for group in groups:
        starts = np.rint((np.array(group) - group[0]) * fps).astype(int)
        length = -(-(starts[-1] + num_frames) // _WHOLE_STRIDES) * _WHOLE_STRIDES
        grid = group[0] + offsets[0] + np.arange(length) / fps
        keyframes = tuple(int(start) + num_frames // 2 for start in starts)
        stretches.append((video_windows.Window(grid, keyframes), starts))
    return stretches


def detect(
    model: clip_model.ClipModel, frames: np.ndarray, starts: np.ndarray
) -> list[dict[str, np.ndarray]]:
    """Detections of the clips of a stretch, as `ClipModel` gives them.

    Args:
      model: one that `check` accepts.
      frames: uint8 [n, H, W, 3].
      starts: where each clip begins, in frames.
    """
    features, size, true_size, stride, steps = model.features(frames)
    stride, steps = int(stride), int(steps)
    last = features.shape[1] - steps
    found = []
    # One by one: the memory of many proposals is that of one clip, and little is saved by batches.
    for start in starts:
        cell = min(int(np.rint(start / stride)), last)
        window = features[:, cell : cell + steps]
        found += clip_model.unbatched(model.detect_in_features(window, size, true_size))
    return found


def results(
    model: clip_model.ClipModel,
    reader: video_reader.FrameReader,
    times: Sequence[float],
    clips_per_stretch: int = DEFAULT_CLIPS_PER_STRETCH,
    start_seconds: float = 0.0,
) -> Iterator[
    tuple[float, dict[str, np.ndarray] | None, np.ndarray | None, video_windows.Problem | None]
]:
    """Yields (time, detections, keyframe's picture, problem) of each keyframe.

    There is either a problem or the two before it. Keyframes before `start_seconds` are left out;
    the stretches are those of all the times, so that the others get what they would have got.
    """
    stretches, remaining = [], iter(times)
    for window, starts in plan(times, model.num_frames, model.fps, clips_per_stretch):
        group = list(itertools.islice(remaining, len(starts)))
        if group[-1] >= start_seconds:
            stretches.append((window, starts, group))
    windows = reader.windows([window for window, *_ in stretches])
    for (window, starts, group), found in zip(stretches, windows, strict=True):
        wanted = [
            index not in found.problems and time >= start_seconds
            for index, time in zip(window.keyframes, group, strict=True)
        ]
        detections = iter(())
        if any(wanted):
            detections = iter(detect(model, np.stack(found.frames), starts[wanted]))
        for index, time, is_wanted in zip(window.keyframes, group, wanted, strict=True):
            if is_wanted:
                yield time, next(detections), found.frames[index], None
            elif time >= start_seconds:
                yield time, None, None, found.problems[index]
