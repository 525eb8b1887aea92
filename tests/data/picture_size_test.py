# SPDX-License-Identifier: Apache-2.0
"""Sizes of pictures from their headers, against Pillow's files; bombs are not decoded."""

import io
import struct
import zlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from object_detection_ext.data import picture_size
from object_detection_ext.protos import video_action_transformer_pb2 as vat_pb2


def png_bomb(height: int, width: int) -> bytes:
    """A PNG of a few bytes that claims a size."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)

    def chunk(name, data):
        checksum = zlib.crc32(name + data)
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", checksum)

    pixels = chunk(b"IDAT", zlib.compress(b""))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + pixels + chunk(b"IEND", b"")


def jpeg_bomb(height: int, width: int) -> bytes:
    """A JPEG of some hundred bytes that claims a size: the right one is overwritten."""
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16)).save(buffer, "JPEG")
    data = bytearray(buffer.getvalue())
    start = data.index(b"\xff\xc0") + 5
    data[start : start + 4] = struct.pack(">HH", height, width)
    return bytes(data)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP"])
def test_size_is_that_of_the_decoded_picture(kind):
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((5, 9, 3), np.uint8)).save(buffer, kind)
    size = picture_size.header_size(tf.constant(buffer.getvalue()))
    assert size.dtype == tf.int32
    np.testing.assert_array_equal(size, [5, 9])
    decoded = tf.io.decode_image(buffer.getvalue(), expand_animations=False)
    np.testing.assert_array_equal(size, decoded.shape[:2])


@pytest.mark.parametrize("bomb", [png_bomb, jpeg_bomb])
def test_bombs_claim_what_they_say(bomb):
    encoded = bomb(65500, 65400)
    assert len(encoded) < 1000
    np.testing.assert_array_equal(picture_size.header_size(tf.constant(encoded)), [65500, 65400])


@pytest.mark.parametrize(
    "content", [b"", b"BM", b"GIF8", b"\x89PNG\r\n\x1a\n" + bytes(12), b"RIFF"]
)
def test_what_is_not_a_picture_has_no_size(content):
    with pytest.raises(tf.errors.InvalidArgumentError):
        picture_size.header_size(tf.constant(content))


def test_limit_is_on_the_product_and_names_the_largest():
    picture_size.check_pixels(tf.constant([[4, 5], [2, 3]]), 20)
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"(?s)more than the 19 pix.*4, 5"):
        picture_size.check_pixels(tf.constant([[2, 3], [4, 5]]), 19)
    # The product does not fit 32 bits, nor does a size below 0 pass.
    for size in ([65536, 65536], [-1, 5]):
        with pytest.raises(tf.errors.InvalidArgumentError):
            picture_size.check_pixels(tf.constant(size), 1000)


def test_default_of_the_option_is_the_modules():
    assert vat_pb2.Clip().max_frame_pixels == picture_size.MAX_PIXELS == 8192 * 4320
