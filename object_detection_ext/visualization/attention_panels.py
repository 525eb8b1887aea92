# SPDX-License-Identifier: Apache-2.0
"""A person's attention in a picture for TensorBoard: where the last layer looked, and when.

Shapes: T frames, H W pixels, M heads, t h w cells of the feature map.
"""

import numpy as np

from object_detection_ext.data import clip_packing
from object_detection_ext.visualization import attention, panels

# A scale that ends lower would show attention that is nearly uniform as if it stood out.
_LEAST_TOP = 2.0


def draw(
    clip: np.ndarray,
    weights: np.ndarray,
    person: panels.NumberedPerson,
    *,
    extent: tuple[float, float] = (1.0, 1.0),
    title: str = "",
) -> np.ndarray:
    """Draws the heads' mean over the keyframe, and over the frame that gets the most attention.

    Both have one scale: the brightest colour is the largest weight of any cell and frame, and at
    least twice what uniform attention would give each cell.

    Args:
        clip: uint8 [T, H, W, 3].
        weights: [M, t, h, w] of a layer; each head's sum is 1.
        person: whose attention it is; the box is normalized.
        extent: the part of the map's height and width, in 0..1, that frames take, from the upper
            left corner; below 1 where the model pads frames.
        title: the line above.

    Returns:
        uint8 [H', W', 3].

    Raises:
        ValueError: if the weights have another shape or do not sum to 1.
    """
    attention.check_weights(weights)
    num_frames, height, width, _ = clip.shape
    maps = attention.frame_weights(
        attention.relative_to_uniform(weights.mean(axis=0)), num_frames
    )  # [T, h, w]
    top = max(_LEAST_TOP, float(maps.max()))

    def overlaid(index: int) -> np.ndarray:
        cells = attention.upsampled(maps[index], height, width, attention.Placement(extent))
        return attention.overlay(clip[index], cells, top)

    middle = clip_packing.middle_frame_index(num_frames)
    most = int(np.argmax(maps.sum(axis=(1, 2))))
    left = panels.Panel("attention, keyframe", overlaid(middle), [person])
    right = panels.Panel(
        f"most attended: frame {most - middle:+d}",
        overlaid(most),
        [],
        f"brightest: {top:.3g}x uniform",
    )
    return panels.draw_panels([left, right], title)
