# SPDX-License-Identifier: Apache-2.0
"""Videos as folders of numbered frames: `ID/ID_000001.jpg`, `ID/00001.png`, `ID/img_00001.jpg`.

Frame number i of a folder, counted from its first one, is shown at i / fps. Numbers begin at 0 or 1
and have no gaps: a frame that is missing would move all that follow in time.

Shapes: H W pixels.
"""

import collections
import os
import re
import struct
from collections.abc import Iterable

import numpy as np
from PIL import Image, ImageOps

from object_detection_ext import errors, files
from object_detection_ext.data.timed_pictures import DecodeStats, TimedPicture
from object_detection_ext.data.video_info import FRAMES, VideoError, VideoInfo

PICTURE_EXTENSIONS = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")

_NUMBERED = re.compile(r"(?P<prefix>.*?)(?P<number>[0-9]+)\.[^.]+")
# So many sizes are read of a folder before it is used; those of all others as they are decoded.
_MAX_SIZES = 100


def is_picture(name: str) -> bool:
    """Whether a file is a picture by its name, and not hidden."""
    return name.lower().endswith(PICTURE_EXTENSIONS) and not name.startswith(".")


def has_numbered_pictures(names: Iterable[str]) -> bool:
    """Whether any of these names is that of a numbered picture."""
    return any(is_picture(name) and _NUMBERED.fullmatch(name) for name in names)


def frame_names(folder: str) -> list[str]:
    """Returns the names of a folder's frames, in order.

    Raises:
        VideoError: if there are none, or they are not numbered from 0 or 1 on without a gap.
    """
    pictures = sorted(name for name in files.system_of(folder).listdir(folder) if is_picture(name))
    if not pictures:
        raise VideoError(f"{folder}: no pictures in this folder.")
    series: dict[str, dict[int, str]] = collections.defaultdict(dict)
    for name in pictures:
        match = _NUMBERED.fullmatch(name)
        if match is None:
            raise VideoError(
                f"{folder}: {name} has no number at its end, so it is not clear which frame it is; "
                "take it out of the folder."
            )
        same = series[match["prefix"]]
        number = int(match["number"])
        if number in same:
            raise VideoError(f"{folder}: {same[number]} and {name} have the same number, keep one.")
        same[number] = name
    if len(series) > 1:
        kinds = ", ".join(f"{min(of.values())} ({len(of)})" for of in series.values())
        raise VideoError(
            f"{folder}: numbered pictures of {len(series)} kinds, which begin with {kinds}; a "
            "folder must hold the frames of one video."
        )
    (numbered,) = series.values()
    _check_numbers(folder, numbered)
    return [numbered[number] for number in sorted(numbered)]


def _check_numbers(folder: str, numbered: dict[int, str]) -> None:
    numbers = sorted(numbered)
    if numbers[0] > 1:
        raise VideoError(
            f"{folder}: the first frame is {numbered[numbers[0]]}, number {numbers[0]}; numbers "
            "must begin at 0 or 1, or all timestamps would be wrong. If none is missing, number "
            "them from 1 on."
        )
    missing = numbers[-1] - numbers[0] + 1 - len(numbers)
    if missing:
        before, after = next(
            pair for pair in zip(numbers, numbers[1:], strict=False) if pair[1] > pair[0] + 1
        )
        raise VideoError(
            f"{folder}: frame {before + 1} is missing: {numbered[before]} is followed by "
            f"{numbered[after]} ({missing} missing in all). Frames must be numbered without gaps, "
            "or all that follow would be moved in time."
        )


def probe(folder: str, fps: float) -> VideoInfo:
    """Looks at the names of a folder's frames, and at the sizes of up to 100 of them.

    Args:
        folder: the folder.
        fps: frames per second.

    Raises:
        VideoError: if it does not hold the frames of one video, all of one size.
    """
    names = frame_names(folder)
    step = max(1, len(names) // _MAX_SIZES)
    sizes, problem = {}, None
    for name in [*names[::step], names[-1]]:
        try:
            sizes[name] = _size(folder, name)
        except VideoError as error:
            # Whether others can be read, decoding shows.
            problem = problem or error
    if not sizes:
        raise problem
    first_name, first = next(iter(sizes.items()))
    for name, size in sizes.items():
        _check_size(folder, first_name, first, name, size)
    return VideoInfo(folder, *first, fps, len(names) / fps, FRAMES, frames_fps=fps)


def stamp(folder: str) -> str:
    """Returns what changes when frames come, go or change: their number, sizes and times.

    Elsewhere than on local disks the number alone: asking for each of 90,000 would take an hour.
    """
    system = files.system_of(folder)
    names = frame_names(folder)
    if not files.is_local(folder):
        return str(len(names))
    parts = [system.stamp(os.path.join(folder, name)).split() for name in names]
    return f"{len(parts)} {sum(int(p[0]) for p in parts)} {max(int(p[1]) for p in parts)}"


def _size(folder: str, name: str) -> tuple[int, int]:
    """Returns (height, width) in pixels as shown."""
    path = os.path.join(folder, name)
    try:
        with _open(path) as file, Image.open(file) as picture:
            _check_pixels(picture)
            width, height = picture.size
            # Otherwise Pillow decodes a PNG, in case its EXIF data come last.
            has_exif = picture.format != "PNG" or "exif" in picture.info
            is_turned = has_exif and picture.getexif().get(_EXIF_ORIENTATION, 1) >= 5
    except _errors_of_pictures() as error:
        raise VideoError(f"{path}: cannot be read as a picture ({error}).") from None
    return (width, height) if is_turned else (height, width)


_EXIF_ORIENTATION = 0x0112


def _check_size(folder, first_name, first, name, size) -> None:
    if size != first:
        raise VideoError(
            f"{folder}: {name} has {size[1]}x{size[0]} pixels and {first_name} "
            f"{first[1]}x{first[0]}; the frames of a video must have one size."
        )


def _open(path: str):
    return files.system_of(path).open(path, "rb")


def _errors_of_pictures() -> tuple[type[Exception], ...]:
    """What Pillow raises, and what its decoders stumble over in a damaged file."""
    found = EOFError, SyntaxError, ValueError, struct.error, Image.DecompressionBombError
    return (*files.errors(), *found)


def read_picture(path: str) -> np.ndarray:
    """A picture file as uint8 [H, W, 3] RGB, upright as its EXIF data say.

    Raises:
        errors.InputError: if it cannot be read.
    """
    try:
        with _open(path) as file, Image.open(file) as picture:
            _check_pixels(picture)
            return _rgb(ImageOps.exif_transpose(picture))
    except _errors_of_pictures() as error:
        raise errors.InputError(f"{path}: cannot be read as a picture ({error}).") from None


def _check_pixels(picture: Image.Image) -> None:
    """Raises ValueError for pixels of which nobody knows what is white."""
    if picture.mode in ("I", "F"):
        raise ValueError(
            "its pixels are 32-bit numbers, of which it is not known what is white; save it with 8 "
            "or 16 bits"
        )


def _rgb(picture: Image.Image) -> np.ndarray:
    if picture.mode.startswith("I;16"):
        # Pillow would make white of all that is brighter than 255 of 65,535.
        picture = Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8))
    return np.asarray(picture.convert("RGB"))


class FolderFrames:
    """The frames of a folder in order, as a `PictureSource`; damaged pictures are left out."""

    # Frames are found by their name: going on anywhere costs nothing.
    seek_gap = 0.0

    def __init__(self, info: VideoInfo, stats: DecodeStats):
        """Lists the folder.

        Args:
            info: of the folder, from `probe`.
            stats: counts what is met.

        Raises:
            VideoError: if it does not hold the frames of one video.
        """
        self._info, self._stats = info, stats
        self._names, self._index, self._is_at_start = frame_names(info.path), 0, True

    def next(self) -> TimedPicture | None:
        """The next frame that can be read; None at the end.

        Raises:
            VideoError: if it has not the size of the others.
        """
        lost = False
        while self._index < len(self._names):
            index, name = self._index, self._names[self._index]
            self._index += 1
            try:
                pixels = read_picture(os.path.join(self._info.path, name))
            except errors.InputError:
                self._stats.damaged += 1
                lost = True
                continue
            size = self._info.height, self._info.width
            _check_size(self._info.path, self._names[0], size, name, pixels.shape[:2])
            if self._is_at_start:
                self._stats.start, self._is_at_start = index / self._info.frames_fps, False
            self._stats.decoded += 1
            self._stats.end = (index + 1) / self._info.frames_fps
            return TimedPicture(index / self._info.frames_fps, pixels, lost)
        return None

    def jump(self, seconds: float) -> TimedPicture | None:
        """The last frame that is shown before `seconds`, or the next one where that was passed."""
        before = int(seconds * self._info.frames_fps) - 1
        if before > self._index:
            self._index, self._is_at_start = before, False
            self._stats.seeks += 1
        return self.next()

    def close(self) -> None:
        """Nothing is kept open."""
