# SPDX-License-Identifier: Apache-2.0
"""Pictures for the report, cut from videos or read from files, as JPEGs of limited size.

Shapes: H W pixels. Boxes are [ymin, xmin, ymax, xmax], normalized.
"""

import io
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from PIL import Image, UnidentifiedImageError

from object_detection_ext import progress as progress_lib
from object_detection_ext.ava import time_offsets
from object_detection_ext.data import video_files, video_info, video_reader, video_windows
from object_detection_ext.report.examples import Example
from object_detection_ext.visualization import drawing

_SHORT_SIDE = 300
_LONGEST_SIDE = 1400
_QUALITY = 82
# Told apart also by those who see little colour; the labels say which is which, too.
DETECTION_COLOR, TRUTH_COLOR = (255, 176, 0), (64, 132, 255)

Report = Callable[[str], None]


@dataclass
class Pictures:
    """JPEGs of examples, and why some have none.

    Attributes:
      jpegs: by example.
      notes: sentences for people.
    """

    jpegs: dict[Example, bytes] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def cut(
    examples: Iterable[Example],
    folder: str,
    report: Report | None = None,
    frames_fps: float = 0.0,
    offsets: time_offsets.TimeOffsets | None = None,
) -> Pictures:
    """Cuts the examples' frames from the videos of a folder, with the boxes drawn.

    A video that is missing or unreadable, and a frame that is not in its video, are notes.

    Args:
      examples: what to show.
      folder: of the videos.
      report: takes lines of progress.
      frames_fps: frames per second of folders of numbered frames; 0 where these are not videos.
      offsets: what the examples' times are ahead of times in the videos.
    """
    offsets = offsets or time_offsets.TimeOffsets()
    by_video: dict[str, list[Example]] = defaultdict(list)
    for example in examples:
        by_video[example.video].append(example)
    pictures, problems = Pictures(), []
    index = video_files.VideoIndex(folder, frames_fps or None)
    progress = progress_lib.Progress("pictures", len(by_video), "videos", report, report_end=False)
    for done, (video, wanted) in enumerate(sorted(by_video.items()), start=1):
        try:
            info = video_files.find_video(video, index)
            for times_examples, frame in _frames(info, wanted, offsets.of(video), problems):
                for example in times_examples:
                    pictures.jpegs[example] = _jpeg(draw(frame, example))
        except video_info.VideoError as error:
            problems.append(str(error))
        progress.update(done)
    missing = sum(map(len, by_video.values())) - len(pictures.jpegs)
    if missing:
        pictures.notes.append(f"{missing} pictures are missing. The first reason: {problems[0]}")
    return pictures


def _frames(
    info: video_info.VideoInfo, wanted: Sequence[Example], offset: float, problems: list[str]
) -> Iterator[tuple[list[Example], np.ndarray]]:
    """Yields (examples of a time, the frame, uint8 [H, W, 3]) in one pass over the video."""
    by_time: dict[float, list[Example]] = defaultdict(list)
    for example in wanted:
        by_time[float(example.seconds) - offset].append(example)
    times = sorted(by_time)
    windows = [video_windows.Window(np.array([time]), (0,)) for time in times]
    reader = video_reader.FrameReader(info, transform=_shrunk)
    for time, found in zip(times, reader.windows(windows), strict=True):
        if found.problems:
            problems.append(f"{info.path}: {found.problems[0].text}")
        else:
            yield by_time[time], found.frames[0]


def _shrunk(frame: np.ndarray) -> np.ndarray:
    picture = Image.fromarray(frame)
    scale = _SHORT_SIDE / min(picture.size)
    if scale >= 1:
        return frame
    size = tuple(max(1, round(side * scale)) for side in picture.size)
    return np.asarray(picture.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0))


def draw(frame: np.ndarray, example: Example) -> np.ndarray:
    """The frame, uint8 [H, W, 3], with the detection and everybody in the ground truth."""
    people = [
        drawing.DetectedPerson(box, (("truth: " + ", ".join(actions), None),))
        for box, actions in example.people
    ]
    people.append(drawing.DetectedPerson(example.box, ((example.name, example.score),)))
    colors = [TRUTH_COLOR] * len(example.people) + [DETECTION_COLOR]
    return drawing.draw_people(frame, people, min_short_side=_SHORT_SIDE, colors=colors)


def _jpeg(frame: np.ndarray) -> bytes:
    with io.BytesIO() as buffer:
        Image.fromarray(frame).save(buffer, "JPEG", quality=_QUALITY, optimize=True)
        return buffer.getvalue()


def jpeg_size(jpeg: bytes) -> tuple[int, int]:
    """(width, height) in pixels."""
    with Image.open(io.BytesIO(jpeg)) as picture:
        return picture.size


@dataclass(frozen=True)
class FilePicture:
    """A picture of a folder: its path below the folder, and a JPEG of it."""

    name: str
    jpeg: bytes


def read_folder(folder: str, limit: int) -> tuple[list[FilePicture], list[str]]:
    """The PNGs of a folder and those below it, in order of their names, at most `limit`.

    Returns:
      (pictures, notes on those that are left out)
    """
    found = []
    for root, _, names in sorted(os.walk(folder)):
        found += [os.path.join(root, name) for name in sorted(names) if name.endswith(".png")]
    pictures, problems = [], []
    for path in found[:limit]:
        try:
            with Image.open(path) as picture:
                picture = picture.convert("RGB")
                picture.thumbnail((_LONGEST_SIDE, _LONGEST_SIDE))
                pictures.append(
                    FilePicture(os.path.relpath(path, folder), _jpeg(np.asarray(picture)))
                )
        except (OSError, UnidentifiedImageError) as error:
            problems.append(f"{path} cannot be read as a picture: {error}")
    if not found:
        problems.append(f"{folder} has no PNG files.")
    if len(found) > limit:
        problems.append(f"The first {limit} of {len(found)} pictures of {folder} are shown.")
    return pictures, problems
