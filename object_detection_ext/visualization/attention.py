# SPDX-License-Identifier: Apache-2.0
"""What a person's query attended to, laid over the frames of the clip (Figure 4, right).

Weights are a softmax: they sum to 1 over the t*h*w cells of the clip. They are shown relative to
uniform attention, times t*h*w: 1 is the weight that every cell would have if nothing stood out.

Cells divide the clip evenly unless a `Placement` says more: cell j of t stands for the frames from
j*T/t to (j+1)*T/t, and its centre lies between them, at frame (j + 0.5)*T/t - 0.5; in space
likewise, so that a map covers its frame from edge to edge. Frames and pixels between two centres
get the linear interpolation of both cells.

Frames are uint8 RGB, boxes [ymin, xmin, ymax, xmax], normalized.

Shapes: M heads, T frames, H W pixels, t h w cells of the feature map.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np

from object_detection_ext.visualization import drawing, sheet

# Black over purple and orange to pale yellow, even steps in lightness: uint8 RGB [256, 3].
_COLORS = cv2.applyColorMap(np.arange(256, dtype=np.uint8)[:, None], cv2.COLORMAP_INFERNO)[
    :, 0, ::-1
]
# How much of the frame the strongest colour hides, and how fast the weaker ones follow.
_MOST_OPAQUE, _OPACITY_EXPONENT = 0.8, 0.6
# A scale ends here at least, so that attention that is nearly uniform looks so.
_LEAST_TOP = 2.0
FOOTER = (
    "Colour: attention relative to uniform. 1x is what each cell of the clip would get if nothing "
    "stood out; a scale holds for all frames of its row."
)
Actions = Sequence[tuple[str, float | None]]


class Placement(NamedTuple):
    """Where the cells of a feature map lie in the clip.

    `extent` is the part of the map's height and width, in 0..1, that the frame takes from the upper
    left corner; below 1 where the model pads the frame. `shift` (in t, y, x) says by which part of
    a cell the centre of what a cell sees lies behind, below and to the right of where it would lie
    if cells divided the clip evenly: strided convolutions with one-sided padding move it.
    """

    extent: tuple[float, float] = (1.0, 1.0)
    shift: tuple[float, float, float] = (0.0, 0.0, 0.0)


EVEN = Placement()


def check_weights(weights: np.ndarray) -> None:
    """Raises ValueError if weights are not [M, t, h, w], at least 0, with a sum of 1 per head."""
    if weights.ndim != 4 or not weights.size:
        raise ValueError(f"Attention must be [heads, t, h, w], not {weights.shape}.")
    sums = weights.sum(axis=(1, 2, 3), dtype=np.float64)
    if not np.allclose(sums, 1.0, atol=1e-3) or weights.min() < 0:
        raise ValueError(
            "Attention must be at least 0 and sum to 1 over the cells of each head; the sums are "
            f"{', '.join(f'{value:g}' for value in sums)}, the least weight {weights.min():g}."
        )


def relative_to_uniform(weights: np.ndarray) -> np.ndarray:
    """Returns weights [..., t, h, w] of sum 1 times t*h*w, so that their mean is 1."""
    return np.asarray(weights, np.float64) * np.prod(weights.shape[-3:])


def frame_weights(weights: np.ndarray, num_frames: int, shift: float = 0.0) -> np.ndarray:
    """Returns what each frame gets of the values of t cells in time.

    Args:
      weights: [t, ...]; the last axes, such as h and w, stay.
      num_frames: T.
      shift: of the cells' centres, in cells; see `Placement`.

    Returns:
      [T, ...]: linear between the centres of cells, the nearest cell's before the first and after
      the last centre. Values are not divided by T: a constant stays what it is.

    Raises:
      ValueError: if there is no cell or no frame.
    """
    weights = np.asarray(weights, np.float64)
    if weights.ndim < 1 or not len(weights) or num_frames < 1:
        raise ValueError(f"There must be cells and frames, not {weights.shape} and {num_frames}.")
    cells = len(weights)
    place = (np.arange(num_frames) + 0.5) * cells / num_frames - 0.5 - shift
    place = np.clip(place, 0, cells - 1).reshape(-1, *[1] * (weights.ndim - 1))
    low = np.floor(place).astype(int)
    part = place - low
    low = low.ravel()
    return (1 - part) * weights[low] + part * weights[np.minimum(low + 1, cells - 1)]


def upsampled(
    cells: np.ndarray, height: int, width: int, placement: Placement = EVEN
) -> np.ndarray:
    """Returns a map of cells, bilinear, at a frame's size.

    Args:
      cells: [h, w] or [h, w, channels].
      height: H in pixels.
      width: W in pixels.
      placement: of the cells in the frame.

    Returns:
      [H, W] or [H, W, channels].
    """
    # Pixels of the padded frame, of which the part without padding is kept.
    sides = [
        round(side / part) for side, part in zip((height, width), placement.extent, strict=True)
    ]
    rows = frame_weights(cells, sides[0], placement.shift[1])[:height]  # [H, w, ...]
    columns = frame_weights(rows.swapaxes(0, 1), sides[1], placement.shift[2])[:width]
    return columns.swapaxes(0, 1)


def overlay(frame: np.ndarray, values: np.ndarray, top: float) -> np.ndarray:
    """Lays a map over a frame; the frame stays visible, the more the less a place weighs.

    Args:
      frame: uint8 [H, W, 3].
      values: [H, W], at least 0, as `upsampled` gives them.
      top: the value that gets the last colour; those above get it too.

    Returns:
      uint8 [H, W, 3].

    Raises:
      ValueError: if the sizes differ, or `top` is not above 0.
    """
    if frame.shape[:2] != values.shape or not top > 0:
        raise ValueError(
            f"A frame {frame.shape}, a map of its size and a top above 0 are needed, not a map "
            f"{values.shape} and {top:g}."
        )
    level = np.clip(values / top, 0.0, 1.0)
    opacity = (_MOST_OPAQUE * level**_OPACITY_EXPONENT)[..., None]
    # In grey, for colours to tell the weight and nothing else.
    grey = np.repeat(cv2.cvtColor(np.ascontiguousarray(frame), cv2.COLOR_RGB2GRAY)[..., None], 3, 2)
    colors = _COLORS[np.round(level * 255).astype(int)]
    return np.round((1 - opacity) * grey + opacity * colors).astype(np.uint8)


def filmstrip(
    clip: np.ndarray,
    weights: np.ndarray,
    box: Sequence[float],
    actions: Actions = (),
    *,
    fps: float | None = None,
    title: str | None = None,
    truth: Sequence[drawing.DetectedPerson] = (),
    placement: Placement = EVEN,
    columns: int = 8,
    tile_width: int = 208,
) -> np.ndarray:
    """Draws a person's attention over evenly spaced frames: heads' mean, then each head, in rows.

    Args:
      clip: uint8 [T, H, W, 3].
      weights: [M, t, h, w], of a layer's heads; each sums to 1.
      box: the person's in the middle frame T // 2.
      actions: (name, score in 0..1 or None) of the person, best first.
      fps: frames per second of the clip, for the times on top; None tells frames instead.
      title: a line on top; None: the actions.
      truth: people of the ground truth; boxes are drawn in white on the middle frame.
      placement: of the cells in the clip.
      columns: frames to show, at most.
      tile_width: of a frame, in pixels.

    Returns:
      uint8 [H', W', 3].

    Raises:
      ValueError: if the clip or the weights have another type or shape, or the weights do not sum
        to 1.
    """
    return sheet.filmstrip(
        clip,
        _rows(clip, weights, box, actions, truth, placement, every_frame=False),
        fps=fps,
        title=described(actions) if title is None else title,
        footer=FOOTER,
        columns=columns,
        tile_width=tile_width,
    )


def film(
    clip: np.ndarray,
    weights: np.ndarray,
    box: Sequence[float],
    actions: Actions = (),
    *,
    fps: float | None = None,
    title: str | None = None,
    truth: Sequence[drawing.DetectedPerson] = (),
    placement: Placement = EVEN,
) -> Iterator[np.ndarray]:
    """Yields the T pictures of an overlay video, uint8 [H', W', 3]; arguments as in `filmstrip`.

    The person's box is that of the middle frame in all of them.
    """
    return sheet.film(
        clip,
        _rows(clip, weights, box, actions, truth, placement, every_frame=True),
        fps=fps,
        title=described(actions) if title is None else title,
    )


def described(actions: Actions) -> str:
    """Returns a person's actions as a line of text."""
    return ", ".join(n if score is None else f"{n} {score:.2f}" for n, score in actions)


def summarize(weights: np.ndarray, num_frames: int, placement: Placement = EVEN) -> dict[str, Any]:
    """Returns the figures of one map as JSON can hold them.

    Args:
      weights: [t, h, w], sum 1.
      num_frames: T.
      placement: of the cells in the clip.

    Returns:
      `frame_mass`: the T frames' parts of the attention, sum 1. `peak`: the centre of the
      strongest cell, `frame`, `y` and `x` normalized by the frame (above 1 in the padding), and its
      weight `times_uniform`.
    """
    per_cell = np.asarray(weights, np.float64).sum(axis=(1, 2))
    mass = frame_weights(per_cell, num_frames, placement.shift[0])
    place = np.unravel_index(int(np.argmax(weights)), weights.shape)
    t, y, x = (
        (index + 0.5 + shift) / cells
        for index, shift, cells in zip(place, placement.shift, weights.shape, strict=True)
    )
    return {
        "frame_mass": [round(float(value), 6) for value in mass / mass.sum()],
        "peak": {
            "frame": min(max(int(t * num_frames), 0), num_frames - 1),
            "y": round(y / placement.extent[0], 4),
            "x": round(x / placement.extent[1], 4),
            "times_uniform": round(float(relative_to_uniform(weights)[place]), 3),
        },
    }


def mean_and_heads(weights: np.ndarray) -> list[tuple[str, np.ndarray]]:
    """Returns (label, map [t, h, w]) of the heads' mean and of each head of [M, t, h, w].

    A single head is its own mean and comes once.
    """
    heads = [(f"head {number}", head) for number, head in enumerate(weights, start=1)]
    return heads if len(heads) == 1 else [("mean of heads", weights.mean(axis=0)), *heads]


def _rows(clip, weights, box, actions, truth, placement, *, every_frame: bool) -> list[sheet.Row]:
    sheet.check_clip(clip)
    check_weights(weights)
    person = drawing.DetectedPerson(tuple(box), tuple(actions))
    rows = [sheet.people_row("clip", [person], len(clip), truth=truth, every_frame=every_frame)]
    marked = range(len(clip)) if every_frame else (len(clip) // 2,)
    for label, of_head in mean_and_heads(weights):
        rows.append(_overlay_row(label, of_head, len(clip), box, marked, placement))
    return rows


def _overlay_row(label, weights, num_frames, box, marked, placement) -> sheet.Row:
    """The row of one map [t, h, w], with its scale; the person's outline on the marked frames."""
    maps = frame_weights(relative_to_uniform(weights), num_frames, placement.shift[0])
    top = max(_LEAST_TOP, float(maps.max()))

    def render(index: int, frame: np.ndarray) -> np.ndarray:
        picture = overlay(frame, upsampled(maps[index], *frame.shape[:2], placement), top)
        return sheet.outlined(picture, box) if index in marked else picture

    marks = ((1.0, f"{top:.3g}x"), (0.0, "0"), (1.0 / top, "1x"))
    return sheet.Row(label.replace(" of ", "\nof "), render, sheet.Bar(_COLORS, marks))
