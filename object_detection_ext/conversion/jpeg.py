# SPDX-License-Identifier: Apache-2.0
"""Frames to JPEG."""

import io

import numpy as np
from PIL import Image


def resized(picture: Image.Image, short_side: int) -> Image.Image:
    """The picture shrunk to this short side in pixels; as it is for 0, or if it is not larger."""
    if not short_side or short_side >= min(picture.size):
        return picture
    scale = short_side / min(picture.size)
    size = tuple(max(1, round(side * scale)) for side in picture.size)
    # Reducing in two steps costs a fraction of one antialiased step and looks the same.
    return picture.resize(size, Image.Resampling.BILINEAR, reducing_gap=3.0)


def encoded(picture: Image.Image, quality: int) -> bytes:
    """The picture as JPEG of a quality from 1 to 100."""
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


class JpegEncoder:
    """Frames, uint8 [H, W, 3] RGB, to JPEG bytes; larger ones than a short side are shrunk."""

    def __init__(self, short_side: int, quality: int):
        """Takes the settings.

        Args:
          short_side: what larger frames are shrunk to, in pixels; 0 keeps the frame's size.
          quality: 1 to 100.
        """
        self._short_side, self._quality = short_side, quality
        self.size: tuple[int, int] | None = None  # (height, width) in pixels of the last result

    def __call__(self, frame: np.ndarray) -> bytes:
        """Encodes a frame, uint8 [H, W, 3]."""
        picture = resized(Image.fromarray(frame), self._short_side)
        self.size = picture.size[::-1]
        return encoded(picture, self._quality)
