# SPDX-License-Identifier: Apache-2.0
"""A look at TFRecord files before the expensive part starts."""

import logging
import os
import struct
from collections.abc import Iterable, Sequence

import tensorflow as tf

from object_detection_ext import errors

# A TFRecord is: length (8 bytes), its CRC (4), the data, their CRC (4).
_HEADER, _FOOTER = 12, 4


class RecordFileError(errors.InputError):
    """No usable record in the input files."""


def count_whole_records(path: str) -> tuple[int, bool]:
    """Counts the records of a local TFRecord file by their lengths, without reading them.

    Returns:
        The number of whole records, and whether the file ends inside a record.
    """
    size = os.path.getsize(path)
    position = count = 0
    with open(path, "rb") as file:
        while position < size:
            header = file.read(_HEADER)
            if len(header) < _HEADER:
                return count, True
            position += _HEADER + struct.unpack("<Q", header[:8])[0] + _FOOTER
            if position > size:
                return count, True
            file.seek(position)
            count += 1
    return count, False


def check_record_files(patterns: Iterable[str]) -> Sequence[str]:
    """Finds record files and warns of truncated ones, with a count.

    Files that are not on a local disk are left to the reader, which skips what it cannot read.

    Args:
        patterns: `input_path` entries of a pipeline.config: paths or glob patterns.

    Returns:
        The paths.

    Raises:
        RecordFileError: if a pattern matches nothing, or if no file holds a whole record.
    """
    paths = []
    for pattern in patterns:
        matches = sorted(tf.io.gfile.glob(pattern))
        if not matches:
            raise RecordFileError(
                f"No record file matches '{pattern}' (tf_record_input_reader.input_path). "
                "tools/create_ava_records writes such files; sharded ones match with "
                "'NAME-?????-of-?????'."
            )
        paths.extend(matches)
    local = [path for path in paths if os.path.isfile(path)]
    truncated, records = [], 0
    for path in local:
        count, is_truncated = count_whole_records(path)
        records += count
        if is_truncated:
            truncated.append(f"{path} (after {count} whole records)")
    if truncated:
        logging.warning(
            "%d of %d record files are truncated; what follows is left out: %s",
            len(truncated),
            len(local),
            ", ".join(truncated[:10]) + (", ..." if len(truncated) > 10 else ""),
        )
    if len(local) == len(paths) and not records:
        raise RecordFileError(f"Not one whole record in {', '.join(paths[:10])}.")
    return paths
