# SPDX-License-Identifier: Apache-2.0
"""Writes TFRecord files without TensorFlow.

A record is: length (8 bytes), its checksum (4), the data, their checksum (4).
"""

import struct
from types import TracebackType

import google_crc32c

from object_detection_ext import files

_FRAME_BYTES = 16


def masked_checksum(data: bytes) -> bytes:
    """CRC-32C, rotated and shifted as TFRecords have it, so that it is no CRC of what holds it."""
    checksum = google_crc32c.value(data)
    rotated = (checksum >> 15 | checksum << 17) & 0xFFFFFFFF
    return struct.pack("<I", (rotated + 0xA282EAD8) & 0xFFFFFFFF)


class RecordWriter:
    """A new TFRecord file; a context manager that closes it.

    `num_bytes` is the size that the file must have at the end.
    """

    def __init__(self, path: str):
        """Opens the file, on a local disk or wherever TensorFlow can write."""
        self.num_bytes = 0
        self._file = files.system_of(path).open(path, "wb")
        self._file.write(b"")  # TensorFlow makes a file when it is first written to

    def write(self, record: bytes) -> None:
        """Appends a record."""
        length = struct.pack("<Q", len(record))
        for part in (length, masked_checksum(length), record, masked_checksum(record)):
            self._file.write(part)
        self.num_bytes += len(record) + _FRAME_BYTES

    def __enter__(self) -> "RecordWriter":
        """Returns itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Closes the file."""
        self._file.close()
