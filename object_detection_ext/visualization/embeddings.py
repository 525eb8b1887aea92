# SPDX-License-Identifier: Apache-2.0
"""The keys of a clip as colours, by principal components (Figure 4, left).

Every cell of the clip has a key of D numbers in each head. A PCA over all cells of the clip, one
for each head, keeps the three directions in which keys differ most: they become red, green and
blue. Cells of the same colour look the same to the head; colours of two heads, or of two clips,
cannot be compared.

Cells stand for frames and places as in `attention`. Frames are uint8 RGB.

Shapes: M heads, T frames, H W pixels, t h w cells, D size of a key.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import cv2
import numpy as np

from object_detection_ext.visualization import attention, drawing, sheet

# Of the cells, this part at either end of a component gets the darkest or brightest colour.
_CUT_OFF = 0.02
# A component that explains less than this part of the variance is noise of the arithmetic.
_LEAST_VARIANCE = 1e-9
_OPACITY = 0.7
FOOTER = (
    "Colour: the keys' first three principal components as red, green and blue, one PCA per head "
    "over all cells of the clip; below the head, the part of the variance that each explains. "
    "Colours of different rows do not compare."
)


class Components(NamedTuple):
    """The three components of a clip's cells.

    `values` are [t, h, w, 3], 0 where there are fewer; `variance` [3] is the part that each
    explains.
    """

    values: np.ndarray
    variance: np.ndarray


def check_keys(keys: np.ndarray) -> None:
    """Raises ValueError if keys are not finite numbers [M, t, h, w, D]."""
    if keys.ndim != 5 or not keys.size or not np.all(np.isfinite(keys)):
        raise ValueError(
            f"Keys must be finite numbers [heads, t, h, w, D], not {keys.dtype} {keys.shape}"
            f"{'' if np.all(np.isfinite(keys)) else ' with NaN or infinity'}."
        )


def principal_components(keys: np.ndarray) -> Components:
    """Projects the cells of one head [t, h, w, D] on their first three principal directions.

    A direction's sign is arbitrary; here its largest coefficient is positive, so that the order of
    cells, and what a library happens to return, make no difference.
    """
    cells = np.asarray(keys, np.float64).reshape(-1, keys.shape[-1])
    cells = cells - cells.mean(axis=0)
    _, lengths, directions = np.linalg.svd(cells, full_matrices=False)
    total = np.sum(lengths**2)
    count = min(3, len(lengths))
    variance = np.zeros(3)
    # All cells equal: what is left is rounding, which a relative limit would not notice.
    if total > _LEAST_VARIANCE * np.sum(np.asarray(keys, np.float64) ** 2):
        variance[:count] = lengths[:count] ** 2 / total
    largest = np.argmax(np.abs(directions), axis=1)
    signs = np.sign(directions[np.arange(len(directions)), largest])
    values = np.zeros([len(cells), 3])
    values[:, :count] = cells @ (directions[:count] * signs[:count, None]).T
    is_noise = variance <= _LEAST_VARIANCE
    values[:, is_noise], variance[is_noise] = 0.0, 0.0
    return Components(values.reshape(*keys.shape[:-1], 3), variance)


def colors(components: np.ndarray) -> np.ndarray:
    """Scales each component of [t, h, w, 3] to 0..1 for the whole clip, outliers cut off.

    A component without differences is 0.5 everywhere.
    """
    cells = components.reshape(-1, 3)
    low, high = np.quantile(cells, [_CUT_OFF, 1 - _CUT_OFF], axis=0)
    # Where nearly all cells are the same, the few others are what there is to see.
    is_flat = high <= low
    low = np.where(is_flat, cells.min(axis=0), low)
    span = np.where(is_flat, cells.max(axis=0), high) - low
    scaled = np.where(span > 0, (components - low) / np.where(span > 0, span, 1.0), 0.5)
    return np.clip(scaled, 0.0, 1.0)


def tinted(frame: np.ndarray, tint: np.ndarray) -> np.ndarray:
    """Mixes a frame's brightness, uint8 [H, W, 3], with a colour of 0..1 per pixel [H, W, 3].

    Raises:
      ValueError: if the sizes differ.
    """
    if frame.shape != tint.shape:
        raise ValueError(f"Frame {frame.shape} and colours {tint.shape} differ in size.")
    grey = cv2.cvtColor(np.ascontiguousarray(frame), cv2.COLOR_RGB2GRAY)[..., None]
    return np.round((1 - _OPACITY) * grey + _OPACITY * 255.0 * tint).astype(np.uint8)


def filmstrip(
    clip: np.ndarray,
    keys: np.ndarray,
    *,
    fps: float | None = None,
    title: str = "Key embeddings",
    people: Sequence[drawing.DetectedPerson] = (),
    placement: attention.Placement = attention.EVEN,
    columns: int = 8,
    tile_width: int = 208,
) -> np.ndarray:
    """Draws the keys of each head over evenly spaced frames of the clip, a row per head.

    Args:
      clip: uint8 [T, H, W, 3].
      keys: [M, t, h, w, D], of a layer's heads.
      fps: frames per second of the clip, for the times on top; None tells frames instead.
      title: a line on top.
      people: are drawn on the middle frame T // 2.
      placement: of the cells in the clip.
      columns: frames to show, at most.
      tile_width: of a frame, in pixels.

    Returns:
      uint8 [H', W', 3].

    Raises:
      ValueError: if the clip or the keys have another type or shape, or keys are not finite.
    """
    return sheet.filmstrip(
        clip,
        _rows(clip, keys, people, placement),
        fps=fps,
        title=title,
        footer=FOOTER,
        columns=columns,
        tile_width=tile_width,
    )


def film(
    clip: np.ndarray,
    keys: np.ndarray,
    *,
    fps: float | None = None,
    title: str = "Key embeddings",
    people: Sequence[drawing.DetectedPerson] = (),
    placement: attention.Placement = attention.EVEN,
) -> Iterator[np.ndarray]:
    """Yields the T pictures of a video, uint8 [H', W', 3]; arguments as in `filmstrip`."""
    return sheet.film(clip, _rows(clip, keys, people, placement), fps=fps, title=title)


def _rows(clip, keys, people, placement) -> list[sheet.Row]:
    sheet.check_clip(clip)
    check_keys(keys)
    rows = [sheet.people_row("clip", people, len(clip))]
    for number, of_head in enumerate(keys, start=1):
        rows.append(_colored_row(f"head {number}", of_head, len(clip), placement))
    return rows


def _colored_row(label: str, keys: np.ndarray, num_frames: int, placement) -> sheet.Row:
    components = principal_components(keys)
    tints = attention.frame_weights(colors(components.values), num_frames, placement.shift[0])

    def render(index: int, frame: np.ndarray) -> np.ndarray:
        return tinted(frame, attention.upsampled(tints[index], *frame.shape[:2], placement))

    parts = "+".join(f"{100 * part:.0f}" for part in components.variance)
    return sheet.Row(f"{label}\n{parts} %", render)
