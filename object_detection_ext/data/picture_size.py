# SPDX-License-Identifier: Apache-2.0
"""The size of an encoded picture, from its first bytes.

A picture of a few kilobytes can claim 65,500 x 65,500 pixels, and decoding makes room for all of
them. So the size is looked at, and compared with a limit, before anything is decoded.
"""

import tensorflow as tf

# 8192 x 4320, the largest that video formats have: what claims more is not a frame of a video.
MAX_PIXELS = 8192 * 4320

_JPEG_START = b"\xff\xd8\xff"
_PNG_START = b"\x89PNG\r\n\x1a\n"
_GIF_START = b"GIF8"
_BMP_START = b"BM"


def is_jpeg(encoded: tf.Tensor) -> tf.Tensor:
    """Whether pictures are JPEGs by their first bytes; bool of the same shape."""
    return _begins_with(encoded, _JPEG_START)


def header_size(encoded: tf.Tensor) -> tf.Tensor:
    """Height and width that a picture claims, int32 [2]; nothing is decoded.

    Args:
        encoded: string scalar: a JPEG, PNG, GIF or BMP.

    Raises:
        tf.errors.InvalidArgumentError: if it is none of these, or is cut off in its header.
    """

    def integers(start: int, kind: tf.DType, little_endian: bool) -> tf.Tensor:
        part = tf.strings.substr(encoded, start, 2 * kind.size)
        both = tf.io.decode_raw(part, kind, little_endian=little_endian)
        return tf.cast(tf.ensure_shape(both, [2]), tf.int32)

    def unknown():
        error = tf.debugging.Assert(
            False, ["Unknown image file format: a frame is not a JPEG, PNG, GIF or BMP."]
        )
        with tf.control_dependencies([error]):
            return tf.zeros([2], tf.int32)

    return tf.case(
        [
            (is_jpeg(encoded), lambda: tf.io.extract_jpeg_shape(encoded)[:2]),
            # Width and height stand at these bytes; a BMP's height is negative if its rows begin
            # at the top.
            (_begins_with(encoded, _PNG_START), lambda: integers(16, tf.int32, False)[::-1]),
            (_begins_with(encoded, _GIF_START), lambda: integers(6, tf.uint16, True)[::-1]),
            (_begins_with(encoded, _BMP_START), lambda: abs(integers(18, tf.int32, True)[::-1])),
        ],
        default=unknown,
    )


def check_pixels(sizes: tf.Tensor, max_pixels: int) -> tf.Operation | None:
    """Checks that no frame has more pixels than the limit.

    Args:
        sizes: int32 [..., 2], heights and widths.
        max_pixels: the limit.

    Returns:
        The operation that decoding must wait for; None where operations run at once.

    Raises:
        tf.errors.InvalidArgumentError: with the size.
    """
    sides = tf.reshape(tf.cast(sizes, tf.int64), [-1, 2])
    pixels = tf.reduce_prod(sides, axis=1)
    return tf.debugging.Assert(
        tf.reduce_all((pixels <= max_pixels) & tf.reduce_all(sides >= 0, axis=1)),
        [
            f"A frame has more than the {max_pixels} pixels of clip {{ max_frame_pixels }} "
            "(pipeline.config). The largest has the height and width",
            tf.gather(sides, tf.argmax(pixels)),
        ],
    )


def _begins_with(encoded: tf.Tensor, start: bytes) -> tf.Tensor:
    return tf.equal(tf.strings.substr(encoded, 0, len(start)), start)
