# SPDX-License-Identifier: Apache-2.0
"""Frames to JPEG."""

import io

import numpy as np
from PIL import Image


class JpegEncoder:
    """Frames, uint8 [H, W, 3] RGB, to JPEG bytes, resized to a short side if one is given."""

    def __init__(self, short_side: int, quality: int):
        """Takes the settings.

        Args:
          short_side: of the result in pixels; 0 keeps the frame's size.
          quality: 1 to 100.
        """
        self._short_side, self._quality = short_side, quality
        self.size: tuple[int, int] | None = None  # (height, width) in pixels of the last result

    def __call__(self, frame: np.ndarray) -> bytes:
        """Encodes a frame, uint8 [H, W, 3]."""
        picture = Image.fromarray(frame)
        if self._short_side:
            scale = self._short_side / min(picture.size)
            size = tuple(max(1, round(side * scale)) for side in picture.size)
            # Reducing in two steps costs a fraction of one antialiased step and looks the same.
            picture = picture.resize(size, Image.Resampling.BILINEAR, reducing_gap=3.0)
        self.size = picture.size[::-1]
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=self._quality)
        return buffer.getvalue()
