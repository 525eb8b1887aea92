# SPDX-License-Identifier: Apache-2.0
"""Pictures for TensorBoard: a frame with numbered people and a list of their actions below it.

At the size at which TensorBoard shows it, text on a frame would hide it or be too small to read. So
the frame only gets boxes and numbers; the actions stand below, in large type.

Frames are uint8 [H, W, 3] RGB. Boxes are [ymin, xmin, ymax, xmax], normalized.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from object_detection_ext.visualization import drawing
from object_detection_ext.visualization import people as people_lib

# TensorBoard shows pictures 350 pixels wide and makes them smaller by leaving pixels out: of two
# panels side by side every second one, which strokes two pixels wide outlive.
PANEL_WIDTH = 350
_FONT_SIZE = 23
_STROKE = 0.5  # more, in pixels, on each side of a letter's lines
_PAD = 8
# Room for a number of two digits in front of the text, and for the mark behind the score.
_TEXT_LEFT = 46
_INDENT = 12  # of an action's further lines
_MARK_WIDTH = 24
_SCORE_WIDTH = 56
_MOST_ACTIONS = 8
_BACKGROUND = (24, 24, 27)
_INK, _FAINT_INK = (240, 240, 240), (170, 170, 175)
_RIGHT_INK, _WRONG_INK = (110, 225, 130), (255, 130, 120)


@dataclasses.dataclass(frozen=True)
class Action:
    """A line of a person's list: `score` in 0..1 or None; `is_right` None: nobody knows."""

    name: str
    score: float | None = None
    is_right: bool | None = None


@dataclasses.dataclass(frozen=True)
class NumberedPerson:
    """A box [4], the number it is known by, from 1, which also gives its colour, and actions."""

    box: Sequence[float]
    number: int
    actions: Sequence[Action]


@dataclasses.dataclass(frozen=True)
class Panel:
    """A frame, its heading, its people, and what is said where there are none."""

    heading: str
    frame: np.ndarray
    people: Sequence[NumberedPerson]
    if_nobody: str = "nobody"


def action_name(action_names: Mapping[int, str], action: int) -> str:
    """An action's name; one without a name shows its id."""
    return action_names.get(action, f"action {action}")


def number_annotated(
    truth: Sequence[people_lib.Person], action_names: Mapping[int, str]
) -> list[NumberedPerson]:
    """Annotated people, numbered in their order."""
    return [
        NumberedPerson(
            person.box, number, [Action(action_name(action_names, a)) for a in person.scores]
        )
        for number, person in enumerate(truth, start=1)
    ]


def draw_panels(panels: Sequence[Panel], title: str = "") -> np.ndarray:
    """Draws panels side by side, below a line with the title (none if empty).

    Args:
      panels: at least one; each is `PANEL_WIDTH` pixels wide, its frame as high as its own shape
        tells.
      title: such as the video and the time.

    Returns:
      uint8 [H', W', 3] RGB.

    Raises:
      ValueError: if a frame is not uint8 [H, W, 3].
    """
    parts = [_draw_panel(panel) for panel in panels]
    height = max(part.height for part in parts)
    top = _line_height() + _PAD if title else 0
    width = PANEL_WIDTH * len(parts)
    picture = Image.new("RGB", (width, top + height), _BACKGROUND)
    if title:
        draw = ImageDraw.Draw(picture)
        (line, *_) = _wrapped(title, width - 2 * _PAD)
        _write(draw, (_PAD, _PAD // 2), line, _INK)
    for index, part in enumerate(parts):
        picture.paste(part, (PANEL_WIDTH * index, top))
    return np.asarray(picture)


def stack_pictures(pictures: Sequence[np.ndarray]) -> np.ndarray:
    """Pictures uint8 [H, W, 3] of one width as [N, most H, W, 3], with background below."""
    height = max(len(picture) for picture in pictures)
    stacked = np.empty([len(pictures), height, *pictures[0].shape[1:]], np.uint8)
    stacked[:] = _BACKGROUND
    for row, picture in zip(stacked, pictures, strict=True):
        row[: len(picture)] = picture
    return stacked


def _font() -> ImageFont.FreeTypeFont:
    return ImageFont.load_default(size=_FONT_SIZE)


def _line_height() -> int:
    return sum(_font().getmetrics())


def _write(draw: ImageDraw.ImageDraw, place, text: str, ink, anchor: str = "la") -> None:
    draw.text(place, text, ink, _font(), anchor, stroke_width=_STROKE)


def _draw_panel(panel: Panel) -> Image.Image:
    frame = _draw_boxes(panel.frame, panel.people)
    lines = list(_lines(panel.people)) or [_Line(panel.if_nobody, _FAINT_INK, gap=_PAD)]
    step = _line_height()
    top = step + _PAD
    height = top + frame.height + _PAD + sum(line.height(step) for line in lines) + _PAD
    picture = Image.new("RGB", (PANEL_WIDTH, height), _BACKGROUND)
    draw = ImageDraw.Draw(picture)
    _write(draw, (_PAD, _PAD // 2), panel.heading, _FAINT_INK)
    # A gap of two pixels on each side keeps neighbours apart.
    picture.paste(frame, (2, top))
    y = top + frame.height + _PAD
    for line in lines:
        line.draw(draw, y, step)
        y += line.height(step)
    return picture


def _draw_boxes(frame: np.ndarray, people: Sequence[NumberedPerson]) -> Image.Image:
    """The frame, as wide as a panel allows, with each person's box and number."""
    if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8:
        raise ValueError(f"A frame must be uint8 [H, W, 3], not {frame.dtype} {frame.shape}.")
    width = PANEL_WIDTH - 4
    height = max(1, round(frame.shape[0] * width / frame.shape[1]))
    picture = Image.fromarray(frame).resize((width, height), Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(picture)
    boxes = [drawing.pixel_box(person.box, height, width) for person in people]
    for person, box in zip(people, boxes, strict=True):
        draw.rectangle(box, outline=drawing.person_color(person.number - 1), width=4)
    taken: list[tuple[int, int, int, int]] = []
    for person, box in zip(people, boxes, strict=True):
        area = _free_corner(str(person.number), box, (width, height), taken)
        _draw_chip(draw, person.number, area)
        taken.append(area)
    return picture


def _chip_size(text: str) -> tuple[int, int]:
    return round(_font().getlength(text)) + 12, _line_height()


def _free_corner(text, box, frame_size, taken) -> tuple[int, int, int, int]:
    """The corner inside the box, else outside it, where the number covers no other number."""
    width, height = _chip_size(text)
    left, top, right, bottom = box
    corners = [
        (left, top),
        (right + 1 - width, top),
        (left, bottom + 1 - height),
        (right + 1 - width, bottom + 1 - height),
        (left, top - height),
        (left, bottom),
    ]
    areas = []
    for x, y in corners:
        x = min(max(0, x), max(0, frame_size[0] - width))
        y = min(max(0, y), max(0, frame_size[1] - height))
        areas.append((x, y, x + width, y + height))
    return min(areas, key=lambda area: sum(drawing.overlap(area, other) for other in taken))


def _draw_chip(draw: ImageDraw.ImageDraw, number: int, area: tuple[int, int, int, int]) -> None:
    color = drawing.person_color(number - 1)
    left, top, right, bottom = area
    draw.rectangle((left, top, right - 1, bottom - 1), fill=color)
    _write(draw, (left + 6, top), str(number), drawing.ink_on(color))


@dataclasses.dataclass(frozen=True)
class _Line:
    """A line of the list; the first one of a person has the number in front."""

    text: str
    ink: tuple[int, int, int] = _INK
    number: int | None = None
    score: str = ""
    is_right: bool | None = None
    left: int = _TEXT_LEFT
    gap: int = 0  # above

    def height(self, step: int) -> int:
        return step + self.gap

    def draw(self, draw: ImageDraw.ImageDraw, y: int, step: int) -> None:
        y += self.gap
        if self.number is not None:
            width, height = _chip_size(str(self.number))
            _draw_chip(draw, self.number, (_PAD, y, _PAD + width, y + height))
        _write(draw, (self.left, y), self.text, self.ink)
        if self.score:
            right = PANEL_WIDTH - _PAD - _MARK_WIDTH
            _write(draw, (right, y), self.score, self.ink, anchor="ra")
        if self.is_right is not None:
            _draw_mark(draw, PANEL_WIDTH - _PAD - _MARK_WIDTH + 7, y + step // 2, self.is_right)


def _draw_mark(draw: ImageDraw.ImageDraw, x: int, y: int, is_right: bool) -> None:
    """A tick or a cross, 16 pixels wide, for those who do not see its colour."""
    if is_right:
        draw.line([(x, y + 2), (x + 6, y + 8), (x + 16, y - 7)], fill=_RIGHT_INK, width=4)
    else:
        for rise in (-7, 7):
            draw.line([(x, y - rise), (x + 15, y + rise)], fill=_WRONG_INK, width=4)


def _lines(people: Sequence[NumberedPerson]) -> Iterator[_Line]:
    for person in people:
        number: int | None = person.number
        for action in person.actions[:_MOST_ACTIONS]:
            yield from _lines_of_action(action, number)
            number = None
        if len(person.actions) > _MOST_ACTIONS:
            yield _Line(f"and {len(person.actions) - _MOST_ACTIONS} more", _FAINT_INK)


def _lines_of_action(action: Action, number: int | None) -> Iterator[_Line]:
    ink = {None: _INK, True: _RIGHT_INK, False: _WRONG_INK}[action.is_right]
    width = PANEL_WIDTH - _PAD - _TEXT_LEFT - _INDENT
    score = ""
    if action.score is not None:
        width -= _SCORE_WIDTH + _MARK_WIDTH
        score = f"{action.score:.2f}"
    first, *rest = _wrapped(action.name, width)
    gap = 0 if number is None else _PAD
    yield _Line(first, ink, number, score, action.is_right, gap=gap)
    for text in rest:
        yield _Line(text, ink, left=_TEXT_LEFT + _INDENT)


def _wrapped(text: str, width: int) -> list[str]:
    """The text in lines of at most so many pixels; a word that is too long is cut."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and _font().getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return [_cut(line, width) for line in lines]


def _cut(line: str, width: int) -> str:
    if _font().getlength(line) <= width:
        return line
    while line and _font().getlength(f"{line}...") > width:
        line = line[:-1]
    return f"{line}..."
