# SPDX-License-Identifier: Apache-2.0
"""Pictures of a clip in rows: filmstrips, and films with the rows side by side.

Frames are uint8 [T, H, W, 3] RGB. Times are relative to the middle frame T // 2, the keyframe.

Shapes: T frames, H W pixels, h w pixels of a tile.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from object_detection_ext.visualization import drawing

_PAPER, _INK, _FAINT, _ACCENT = (255, 255, 255), (25, 25, 25), (110, 110, 110), (190, 30, 45)
_GAP = 6
_FONT_SIZE, _TITLE_SIZE = 15, 18
_BAR_WIDTH = 14
# Of the films' panels: smaller frames are enlarged, larger ones made smaller.
_FILM_SHORT_SIDE = 300


@dataclasses.dataclass(frozen=True)
class Bar:
    """A colour bar: uint8 colours [n, 3] from bottom to top, and (place in 0..1, text) marks."""

    colors: np.ndarray
    marks: tuple[tuple[float, str], ...]


@dataclasses.dataclass(frozen=True)
class Row:
    """A way to show the frames of a clip.

    `render` takes a frame's index and the frame itself, uint8 [h, w, 3] at the tile's size, and
    gives the picture of the same shape. `label` may have several lines.
    """

    label: str
    render: Callable[[int, np.ndarray], np.ndarray]
    bar: Bar | None = None


def check_clip(clip: np.ndarray) -> None:
    """Raises ValueError if a clip is not uint8 [T, H, W, 3] with at least one frame and pixel."""
    if clip.ndim != 4 or clip.shape[3] != 3 or clip.dtype != np.uint8 or not clip.size:
        raise ValueError(f"A clip must be uint8 [T, H, W, 3], not {clip.dtype} {clip.shape}.")


def spaced_frames(num_frames: int, columns: int) -> list[int]:
    """Returns up to `columns` evenly spaced indices of T frames, the middle one T // 2 among them.

    Raises:
      ValueError: if one of the numbers is below 1.
    """
    if num_frames < 1 or columns < 1:
        raise ValueError(f"There must be frames and columns, not {num_frames} and {columns}.")
    columns = min(columns, num_frames)
    places = (np.arange(columns) - columns // 2) * num_frames / columns + num_frames // 2
    return np.unique(np.clip(np.round(places), 0, num_frames - 1).astype(int)).tolist()


def time_label(index: int, num_frames: int, fps: float | None) -> str:
    """Returns a frame's time relative to the middle frame: seconds, or frames without `fps`."""
    offset = index - num_frames // 2
    if not offset:
        return "0 s" if fps else "frame 0"
    return f"{offset / fps:+.2f} s" if fps else f"frame {offset:+d}"


def resized(frame: np.ndarray, height: int, width: int) -> np.ndarray:
    """Returns a frame [H, W, 3] at another size; what is made smaller is averaged."""
    if frame.shape[:2] == (height, width):
        return frame
    smaller = height < frame.shape[0]
    method = cv2.INTER_AREA if smaller else cv2.INTER_CUBIC
    return cv2.resize(np.ascontiguousarray(frame), (width, height), interpolation=method)


def filmstrip(
    clip: np.ndarray,
    rows: Sequence[Row],
    *,
    fps: float | None,
    title: str,
    footer: str = "",
    columns: int = 8,
    tile_width: int = 208,
) -> np.ndarray:
    """Draws evenly spaced frames of a clip from left to right, once for each row.

    Args:
      clip: uint8 [T, H, W, 3].
      rows: from top to bottom.
      fps: frames per second, for the times on top; None tells frames instead.
      title: a line on top; long ones are wrapped.
      footer: what the colours mean, below.
      columns: frames to show, at most; see `spaced_frames`.
      tile_width: of a frame, in pixels; portrait frames keep their height below it.

    Returns:
      uint8 [H', W', 3].

    Raises:
      ValueError: if the clip has another type or shape, or there is nothing to draw.
    """
    check_clip(clip)
    chosen = spaced_frames(len(clip), columns)
    height, width = _tile_size(clip.shape[1], clip.shape[2], max(2, tile_width))
    font, large = ImageFont.load_default(size=_FONT_SIZE), ImageFont.load_default(size=_TITLE_SIZE)
    margin = _text_width([row.label for row in rows], font) + 2 * _GAP
    ruler = max((_bar_size(row.bar, font) for row in rows if row.bar), default=0) + _GAP
    full = margin + len(chosen) * (width + _GAP) + ruler
    title_lines, footer_lines = (
        _wrapped(text, kind, full - 2 * _GAP) for text, kind in ((title, large), (footer, font))
    )
    line, title_line = sum(font.getmetrics()), sum(large.getmetrics())
    top = _GAP + title_line * len(title_lines) + _GAP
    below = top + line + 4 + len(rows) * (height + _GAP)
    sheet = Image.new("RGB", (full, below + line * len(footer_lines) + _GAP), _PAPER)
    draw = ImageDraw.Draw(sheet)
    _write_lines(draw, (_GAP, _GAP), title_lines, large, _INK)
    _write_lines(draw, (_GAP, below), footer_lines, font, _FAINT)
    for column, index in enumerate(chosen):
        text = time_label(index, len(clip), fps)
        center = margin + column * (width + _GAP) + width // 2
        color = _ACCENT if index == len(clip) // 2 else _INK
        draw.text((center, top), text, color, font, anchor="ma")
    tiles = {index: resized(clip[index], height, width) for index in chosen}
    for number, row in enumerate(rows):
        y = top + line + 4 + number * (height + _GAP)
        draw.multiline_text((_GAP, y + height // 2), row.label, _INK, font, anchor="lm")
        for column, index in enumerate(chosen):
            picture = Image.fromarray(row.render(index, tiles[index]))
            sheet.paste(picture, (margin + column * (width + _GAP), y))
        if row.bar:
            _draw_bar(sheet, row.bar, margin + len(chosen) * (width + _GAP), y, height, font)
    return np.asarray(sheet)


def film(
    clip: np.ndarray,
    rows: Sequence[Row],
    *,
    fps: float | None,
    title: str,
    short_side: int = _FILM_SHORT_SIDE,
) -> Iterator[np.ndarray]:
    """Yields a picture for each frame of a clip, with a panel for each row.

    Args:
      clip: uint8 [T, H, W, 3].
      rows: the panels, in reading order.
      fps: frames per second, for the time in the title line; None tells the frame instead.
      title: a line on top, with the time behind it.
      short_side: of a panel's picture, in pixels.

    Yields:
      uint8 [H', W', 3], T times, all of one size, with even sides.

    Raises:
      ValueError: if the clip has another type or shape.
    """
    check_clip(clip)
    scale = short_side / min(clip.shape[1:3])
    height, width = (2 * max(1, round(side * scale / 2)) for side in clip.shape[1:3])
    font = ImageFont.load_default(size=_FONT_SIZE)
    line = sum(font.getmetrics())
    ruler = max((_bar_size(row.bar, font) for row in rows if row.bar), default=0)
    columns = len(rows) if len(rows) <= 3 else math.ceil(math.sqrt(len(rows)))
    cell_width, cell_height = width + ruler + 2 * _GAP, height + line + _GAP
    full = columns * cell_width + _GAP
    titles = _wrapped(title, font, full - 2 * _GAP - _text_width(["+00.00 s"], font))
    top = _GAP + line * len(titles)
    size = (full, top + math.ceil(len(rows) / columns) * cell_height + _GAP)
    paper = Image.new("RGB", tuple(side + side % 2 for side in size), _PAPER)
    draw = ImageDraw.Draw(paper)
    _write_lines(draw, (_GAP, _GAP // 2), titles, font, _INK)
    places = []
    for number, row in enumerate(rows):
        x = _GAP + number % columns * cell_width
        y = top + number // columns * cell_height
        draw.text((x, y), " ".join(row.label.split()), _INK, font)
        places.append((x, y + line))
        if row.bar:
            _draw_bar(paper, row.bar, x + width + _GAP, y + line, height, font)
    for index, frame in enumerate(clip):
        picture, tile = paper.copy(), resized(frame, height, width)
        for row, place in zip(rows, places, strict=True):
            picture.paste(Image.fromarray(row.render(index, tile)), place)
        color = _ACCENT if index == len(clip) // 2 else _INK
        text = time_label(index, len(clip), fps)
        at = (full - _GAP, _GAP // 2)
        ImageDraw.Draw(picture).text(at, text, color, font, anchor="ra")
        yield np.asarray(picture)


def people_row(
    label: str,
    people: Sequence[drawing.DetectedPerson],
    num_frames: int,
    *,
    truth: Sequence[drawing.DetectedPerson] = (),
    every_frame: bool = False,
) -> Row:
    """Returns a row of the frames themselves, with people on the middle one or on every one.

    Args:
      label: of the row.
      people: boxes [ymin, xmin, ymax, xmax], normalized, and their actions.
      num_frames: T.
      truth: the ground truth's boxes, drawn in white and without actions.
      every_frame: whether each frame gets the boxes, which are the middle one's.
    """

    def render(index: int, frame: np.ndarray) -> np.ndarray:
        if index != num_frames // 2 and not every_frame:
            return frame
        for person in truth:
            frame = outlined(frame, person.box, (255, 255, 255))
        return drawing.draw_people(frame, people, min_short_side=1)[
            : frame.shape[0], : frame.shape[1]
        ]

    return Row(label, render)


def outlined(
    frame: np.ndarray, box: Sequence[float], color: tuple[int, int, int] = (255, 255, 255)
) -> np.ndarray:
    """Returns a copy of a frame with the outline of a box [ymin, xmin, ymax, xmax], normalized."""
    picture = Image.fromarray(frame)
    height, width = frame.shape[:2]
    ymin, xmin, ymax, xmax = (min(max(float(v), 0.0), 1.0) for v in box)
    corners = (
        round(xmin * (width - 1)),
        round(ymin * (height - 1)),
        max(round(xmin * (width - 1)), round(xmax * (width - 1))),
        max(round(ymin * (height - 1)), round(ymax * (height - 1))),
    )
    ImageDraw.Draw(picture).rectangle(corners, outline=color, width=2)
    return np.asarray(picture)


def _tile_size(height: int, width: int, side: int) -> tuple[int, int]:
    """Even (height, width) of a tile, the longer side `side` pixels."""
    scale = side / max(height, width)
    return tuple(2 * max(1, round(length * scale / 2)) for length in (height, width))


def _text_width(texts: Sequence[str], font) -> int:
    lines = [line for text in texts for line in text.split("\n")]
    return math.ceil(max((font.getlength(line) for line in lines), default=0))


def _wrapped(text: str, font, width: int) -> list[str]:
    """Breaks a text between its words into lines of at most `width` pixels."""
    lines: list[str] = []
    for word in text.split():
        if lines and font.getlength(f"{lines[-1]} {word}") <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


def _write_lines(draw, place: tuple[int, int], lines: Sequence[str], font, color) -> None:
    for number, text in enumerate(lines):
        draw.text((place[0], place[1] + number * sum(font.getmetrics())), text, color, font)


def _bar_size(bar: Bar, font) -> int:
    return _BAR_WIDTH + 4 + _text_width([text for _, text in bar.marks], font)


def _draw_bar(sheet: Image.Image, bar: Bar, x: int, y: int, height: int, font) -> None:
    """Draws a colour bar of a row's height, its marks at the right."""
    places = np.round(np.linspace(len(bar.colors) - 1, 0, height)).astype(int)
    strip = np.repeat(bar.colors[places][:, None], _BAR_WIDTH, axis=1)
    sheet.paste(Image.fromarray(strip.astype(np.uint8)), (x, y))
    draw = ImageDraw.Draw(sheet)
    half = sum(font.getmetrics()) / 2
    taken: list[float] = []
    for place, text in bar.marks:
        at = min(max((1 - place) * height, half), height - half)
        # The first marks are the important ones: one that would touch them is left out.
        if all(abs(at - other) >= 2 * half for other in taken):
            draw.text((x + _BAR_WIDTH + 4, y + at), text, _INK, font, anchor="lm")
            taken.append(at)
