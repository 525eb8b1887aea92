# SPDX-License-Identifier: Apache-2.0
"""Pictures as players show them: turned and mirrored as the file says, all of one size."""

import av
import numpy as np
from av.sidedata import sidedata

# Rows and columns of pixels change places; then rows, then columns are reversed.
Orientation = tuple[bool, bool, bool]


def orientation_of(matrix: np.ndarray) -> Orientation:
    """Returns what a display matrix does with a picture.

    The matrix, int32 [9] as FFmpeg and MP4 files have it, takes a pixel at x, y to
    (x * m[0] + y * m[3], x * m[1] + y * m[4]). For a turn by other than right angles the nearest
    one is taken.

    Returns:
        (transposed, rows reversed, columns reversed), in this order.
    """
    a, b, _, c, d = (int(value) for value in matrix[:5])
    if abs(b) + abs(c) > abs(a) + abs(d):
        return True, b < 0, c < 0
    return False, d < 0, a < 0


def oriented(pixels: np.ndarray, orientation: Orientation) -> np.ndarray:
    """The picture, [H, W, ...], in an orientation."""
    transposed, rows, columns = orientation
    if transposed:
        pixels = pixels.swapaxes(0, 1)
    return pixels[:: -1 if rows else 1, :: -1 if columns else 1]


def _of_picture(picture: av.VideoFrame) -> Orientation:
    data = picture.side_data.get(sidedata.Type.DISPLAYMATRIX)
    if data is None:
        return False, False, False
    return orientation_of(np.frombuffer(bytes(data), np.int32))


class UprightPixels:
    """Pictures to uint8 [H, W, 3] RGB, oriented as the file says, all in the first one's size."""

    def __init__(self):
        """Begins without a size."""
        self.shape: tuple[int, int] | None = None

    def __call__(self, picture: av.VideoFrame | np.ndarray) -> np.ndarray:
        """The pixels of a decoded picture; an array is as it should be already."""
        if isinstance(picture, np.ndarray):
            self.shape = self.shape or picture.shape[:2]
            return picture
        orientation = _of_picture(picture)
        height, width = picture.height, picture.width
        if orientation[0]:
            height, width = width, height
        if self.shape is None:
            self.shape = height, width
        if (height, width) == self.shape:
            pixels = picture.to_ndarray(format="rgb24")
        else:
            # The stream changed its size on the way.
            height, width = self.shape[::-1] if orientation[0] else self.shape
            pixels = picture.to_ndarray(format="rgb24", height=height, width=width)
        return np.ascontiguousarray(oriented(pixels, orientation))
