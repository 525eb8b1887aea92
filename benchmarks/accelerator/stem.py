# SPDX-License-Identifier: Apache-2.0
"""I3D's first convolution, 7x7x7 with stride 2 on 3 channels, as 4x4x4 with stride 1 on 24.

Exact: each 2x2x2 block of pixels becomes one cell of 24 channels, and the kernel is rearranged in
the same way. TensorFlow's SAME adds 2 cells before and 3 after where a size is even, 3 and 3 where
it is odd; with one cell more before, an odd size is as an even one.

Works on the arrays of NumPy and of JAX. Shapes: B clips, T H W, C channels, F filters.
"""

import numpy as np

KERNEL = 7
BLOCK = 2
# Cells that the 4x4x4 convolution gets before and after, on every axis.
PADDING = (1, 2)


def blocks(clips):
    """[B, T, H, W, C] -> [B, ceil(T/2), ceil(H/2), ceil(W/2), 8 C]."""
    odd = [size % BLOCK for size in clips.shape[1:4]]
    if any(odd):
        xp = _module(clips)
        clips = xp.pad(clips, [(0, 0), *((cells, 0) for cells in odd), (0, 0)])
    batch, t, h, w, channels = clips.shape
    cells = clips.reshape(batch, t // 2, 2, h // 2, 2, w // 2, 2, channels)
    cells = cells.transpose(0, 1, 3, 5, 2, 4, 6, 7)
    return cells.reshape(batch, t // 2, h // 2, w // 2, 8 * channels)


def kernel_of_blocks(kernel):
    """[7, 7, 7, C, F] -> [4, 4, 4, 8 C, F]."""
    size, _, _, channels, filters = kernel.shape
    if size != KERNEL:
        raise ValueError(f"The stem's kernel is {KERNEL} cells wide, got {tuple(kernel.shape)}.")
    kernel = _module(kernel).pad(kernel, [(0, 1)] * 3 + [(0, 0)] * 2)  # cell 7 is 0
    taps = kernel.reshape(4, 2, 4, 2, 4, 2, channels, filters)
    return taps.transpose(0, 2, 4, 1, 3, 5, 6, 7).reshape(4, 4, 4, 8 * channels, filters)


def _module(array):
    if isinstance(array, np.ndarray):
        return np
    import jax.numpy

    return jax.numpy


def plain_convolution(clips, kernel):
    """The convolution as it stands; JAX arrays."""
    return _convolve(clips, kernel, (2, 2, 2), "SAME")


def block_convolution(clips, kernel):
    """The same by blocks; JAX arrays, the kernel as it is trained."""
    return _convolve(blocks(clips), kernel_of_blocks(kernel), (1, 1, 1), [PADDING] * 3)


def _convolve(clips, kernel, strides, padding):
    from jax import lax

    dimensions = ("NDHWC", "DHWIO", "NDHWC")
    return lax.conv_general_dilated(clips, kernel, strides, padding, dimension_numbers=dimensions)
