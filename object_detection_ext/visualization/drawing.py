# SPDX-License-Identifier: Apache-2.0
"""People with their actions, drawn on frames; videos of such frames.

Frames are uint8 [H, W, 3] RGB. Boxes are [ymin, xmin, ymax, xmax], normalized.
"""

import colorsys
import dataclasses
import fractions
import os
from collections.abc import Iterable, Sequence

import av
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from object_detection_ext import files

_MIN_SHORT_SIDE = 360
# The golden ratio's fraction spreads any number of hues around the circle.
_HUE_STEP = 0.61803398875


@dataclasses.dataclass(frozen=True)
class DetectedPerson:
    """A person of a frame: the box and (action name, score in 0..1 or None) pairs, best first."""

    box: tuple[float, float, float, float]
    actions: tuple[tuple[str, float | None], ...]


def person_color(index: int) -> tuple[int, int, int]:
    """Returns the RGB colour of the `index`-th person; neighbours differ clearly."""
    red, green, blue = colorsys.hsv_to_rgb((0.58 + index * _HUE_STEP) % 1.0, 0.75, 0.95)
    return round(red * 255), round(green * 255), round(blue * 255)


def ink_on(color: tuple[int, int, int]) -> tuple[int, int, int]:
    """Returns black or white RGB, whichever can be read on the colour."""
    luminance = 0.299 * color[0] + 0.587 * color[1] + 0.114 * color[2]
    return (0, 0, 0) if luminance > 140 else (255, 255, 255)


def display_size(height: int, width: int, min_short_side: int = _MIN_SHORT_SIDE) -> tuple[int, int]:
    """Returns the even (height, width) in pixels at which a frame is shown.

    Small frames are enlarged until labels can be read; others keep their size, made even.
    """
    scale = max(1.0, min_short_side / min(height, width))
    return tuple(2 * max(1, round(side * scale / 2)) for side in (height, width))


def draw_people(frame: np.ndarray, people: Sequence[DetectedPerson], *, caption: str = "",
                min_short_side: int = _MIN_SHORT_SIDE,
                colors: Sequence[tuple[int, int, int]] | None = None) -> np.ndarray:  # fmt: skip
    """Draws each person's box with one line per action.

    Args:
      frame: uint8 [H, W, 3] RGB; not changed.
      people: who to draw.
      caption: a line for the lower left corner, such as the time; none if empty.
      min_short_side: frames with a shorter side than this, in pixels, are enlarged to it.
      colors: RGB of each person; by default it follows the place in the sequence.

    Returns:
      uint8 [H', W', 3] RGB with the even size that `display_size` gives.

    Raises:
      ValueError: if the frame is not uint8 [H, W, 3].
    """
    if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8:
        raise ValueError(f"A frame must be uint8 [H, W, 3], not {frame.dtype} {frame.shape}.")
    height, width = display_size(frame.shape[0], frame.shape[1], min_short_side)
    picture = Image.fromarray(frame)
    if picture.size != (width, height):
        picture = picture.resize((width, height), Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(picture, "RGBA")
    font = ImageFont.load_default(size=max(11, min(height, width) // 26))
    line_width = max(2, min(height, width) // 180)
    boxes = [pixel_box(person.box, height, width) for person in people]
    colors = colors or [person_color(index) for index in range(len(people))]
    for box, color in zip(boxes, colors, strict=True):
        draw.rectangle(box, outline=color, width=line_width)
    # Labels come after all boxes, and none covers another or the caption where there is room.
    taken = [_draw_caption(draw, caption, height, font)] if caption else []
    for person, box, color in zip(people, boxes, colors, strict=True):
        lines = [_label(name, score) for name, score in person.actions]
        if lines:
            taken.append(_draw_label(draw, lines, box, color, font, taken))
    return np.asarray(picture)


def pixel_box(box: Sequence[float], height: int, width: int) -> tuple[int, int, int, int]:
    """Returns (left, top, right, bottom) in pixels, inside the frame."""
    ymin, xmin, ymax, xmax = (min(max(float(v), 0.0), 1.0) for v in box)
    left, top = round(xmin * (width - 1)), round(ymin * (height - 1))
    return left, top, max(left, round(xmax * (width - 1))), max(top, round(ymax * (height - 1)))


def _label(name: str, score: float | None) -> str:
    return name if score is None else f"{name} {score:.2f}"


def _draw_caption(draw, caption: str, height: int, font) -> tuple[int, int, int, int]:
    """Draws the caption and returns its area (left, top, right, bottom)."""
    line = sum(font.getmetrics())
    area = (0, height - line - 2, round(draw.textlength(caption, font=font)) + 8, height)
    draw.rectangle(area, fill=(0, 0, 0, 170))
    draw.text((4, height - line - 1), caption, fill=(255, 255, 255), font=font)
    return area


def _draw_label(draw, lines, box, color, font, taken) -> tuple[int, int, int, int]:
    """Draws the lines near the box and returns their area (left, top, right, bottom)."""
    pad = 3
    step = sum(font.getmetrics())
    longest = max(draw.textlength(line, font=font) for line in lines)
    width, height = round(longest) + 2 * pad, step * len(lines) + pad
    frame_width, frame_height = draw.im.size
    left, top, right, bottom = box
    # Above the box, else below it, else inside at its top: the first place that is free.
    places = [(left, top - height), (left, bottom), (right - width, bottom), (left, top)]
    areas = []
    for x, y in places:
        x = min(max(0, x), max(0, frame_width - width))
        y = min(max(0, y), max(0, frame_height - height))
        areas.append((x, y, x + width, y + height))
    area = min(areas, key=lambda a: sum(overlap(a, b) for b in (*taken, box)))
    ink = ink_on(color)
    draw.rectangle(area, fill=(*color, 215))
    for row, line in enumerate(lines):
        draw.text((area[0] + pad, area[1] + row * step), line, fill=ink, font=font)
    return area


def overlap(a: Sequence[int], b: Sequence[int]) -> int:
    """Returns the pixels that two areas (left, top, right, bottom) share."""
    return max(0, min(a[2], b[2]) - max(a[0], b[0])) * max(0, min(a[3], b[3]) - max(a[1], b[1]))


def write_video(path: str | os.PathLike, frames: Iterable[np.ndarray], fps: float) -> int:
    """Writes frames as an mp4 file that any browser plays.

    H.264 where the installed PyAV has the encoder, otherwise MPEG-4 part 2; yuv420p, which needs
    even sizes: an odd last row or column is repeated.

    Args:
      path: where to write; an existing file is replaced once the new one is complete.
      frames: uint8 [H, W, 3] RGB each, all of the first one's size; read one at a time.
      fps: frames per second.

    Returns:
      The number of frames written.

    Raises:
      ValueError: if there is no frame, or one differs from the first in size or type.
    """
    with files.replaced_path(path) as temporary:
        count = _encode(temporary, frames, fps)
        if not count:
            raise ValueError(f"There is no frame to write to {path}.")
    return count


def _encode(path: str, frames: Iterable[np.ndarray], fps: float) -> int:
    """Encodes the frames and returns their number."""
    codec = "libx264" if "libx264" in av.codecs_available else "mpeg4"
    rate = fractions.Fraction(fps).limit_denominator(1001)
    count, shape = 0, None
    with av.open(path, "w", format="mp4") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.pix_fmt = "yuv420p"
        stream.options = {"crf": "18", "preset": "veryfast"} if codec == "libx264" else {}
        for frame in frames:
            if shape is None:
                shape = frame.shape
                stream.height, stream.width = (side + side % 2 for side in shape[:2])
                if codec == "mpeg4":
                    stream.bit_rate = max(400_000, 4 * stream.height * stream.width * round(fps))
            if frame.shape != shape or frame.dtype != np.uint8 or frame.ndim != 3:
                raise ValueError(
                    f"Frame {count} is {frame.dtype} {frame.shape}, not uint8 {shape}."
                )
            padding = ((0, shape[0] % 2), (0, shape[1] % 2), (0, 0))
            picture = av.VideoFrame.from_ndarray(np.pad(frame, padding, mode="edge"), "rgb24")
            container.mux(stream.encode(picture))
            count += 1
        if count:
            container.mux(stream.encode(None))
    return count
