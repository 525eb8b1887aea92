# SPDX-License-Identifier: Apache-2.0
"""The actions of all keyframes of record files, without reading their frames.

A record is nearly all pictures. In local files only the feature lists of labels are read and the
others are stepped over, by the lengths that the protocol buffers' wire format gives them, so that
all records of a training are counted before it starts.
"""

import collections
import contextlib
import functools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import tensorflow as tf
from google.protobuf import message as protobuf_message

from object_detection_ext import progress
from object_detection_ext.data import clip_features, record_files

# Of a TFRecord: in front of its data.
_HEADER_BYTES = 12
# What is read at once. Keys and lengths are a few bytes each.
_BLOCK_BYTES = 4096
_MAX_VARINT_BYTES = 10

# SequenceExample.feature_lists, and the entries of the map in it.
_FEATURE_LISTS, _KEY, _VALUE = 2, 1, 2
# Wire types.
_VARINT, _FIXED64, _LENGTH_DELIMITED, _FIXED32 = 0, 1, 2, 5

# From a position and a number of bytes to these bytes.
_Read = Callable[[int, int], bytes]
# The actions of one keyframe: a name for each row (person and action), sorted.
Actions = tuple[str, ...]


class KeyframeActions(NamedTuple):
    """The keyframes of some files: `counts` has their number by their rows."""

    counts: collections.Counter[Actions]

    def rows_by_action(self, names: Iterable[str]) -> dict[str, int]:
        """The number of rows (person and action) of each of these actions."""
        rows = dict.fromkeys(names, 0)
        for actions, count in self.counts.items():
            for name in actions:
                if name in rows:
                    rows[name] += count
        return rows


class _WireError(ValueError):
    """The bytes are not what they should be."""


def count_keyframes(
    paths: Sequence[str], report: Callable[[str], None] | None = None
) -> KeyframeActions:
    """Counts the keyframes of record files by their actions.

    Files that were counted before in this process are not read again unless they have changed.

    Args:
        paths: TFRecord files of clips. Local ones are read in parts; others as a whole.
        report: takes lines of progress, if it takes longer than some seconds.

    Returns:
        The keyframes. What is not a SequenceExample is left out, as in training; records with
        damaged pictures are counted.
    """
    shown = progress.Progress("counting actions", len(paths), "files", report, report_end=False)
    total = collections.Counter()
    for number, path in enumerate(paths, 1):
        if os.path.isfile(path):
            status = os.stat(path)
            found = _count_local(path, status.st_size, status.st_mtime_ns)
        else:
            found = _count(_records(path))
        total.update(found)
        shown.update(number)
    return KeyframeActions(total)


@functools.cache
def _count_local(path: str, size: int, stamp: int) -> collections.Counter[Actions]:
    del stamp  # part of the cache's key
    with open(path, "rb", buffering=0) as file:
        read = _block_reader(file.fileno(), size)
        return _count(_local_records(read, record_files.find_records(path).positions))


def _local_records(read: _Read, positions: Sequence[int]) -> Iterator[tuple[_Read, int, int]]:
    for position in map(int, positions):
        start = position + _HEADER_BYTES
        length = int.from_bytes(read(position, 8), "little")
        yield read, start, start + length


def _records(path: str) -> Iterator[tuple[_Read, int, int]]:
    records = tf.data.TFRecordDataset(path).ignore_errors(log_warning=True)
    for record in records.as_numpy_iterator():
        yield functools.partial(_part, record), 0, len(record)


def _part(data: bytes, position: int, count: int) -> bytes:
    return data[position : position + count]


def _block_reader(descriptor: int, size: int) -> _Read:
    """Reads a file in blocks; of small parts that stand together, one reading makes all."""
    start, block = 0, b""

    def read(position: int, count: int) -> bytes:
        nonlocal start, block
        if not start <= position <= position + count <= start + len(block):
            start = position
            block = os.pread(descriptor, min(max(count, _BLOCK_BYTES), size - position), position)
        return block[position - start : position - start + count]

    return read


def _count(records: Iterator[tuple[_Read, int, int]]) -> collections.Counter[Actions]:
    counts: collections.Counter[Actions] = collections.Counter()
    for read, start, end in records:
        with contextlib.suppress(_WireError, protobuf_message.DecodeError):
            counts.update(list(_keyframes(read, start, end)))
    return counts


def _keyframes(read: _Read, start: int, end: int) -> Iterator[Actions]:
    """The actions of each annotated frame of a serialized SequenceExample."""
    lists = _feature_lists(
        read, start, end, {clip_features.IS_ANNOTATED, clip_features.LABEL_STRING}
    )
    annotated = lists[clip_features.IS_ANNOTATED].feature
    labels = lists[clip_features.LABEL_STRING].feature
    for index, flag in enumerate(annotated):
        if any(flag.int64_list.value):
            rows = labels[index].bytes_list.value if index < len(labels) else ()
            yield tuple(sorted(name.decode("utf-8", "replace") for name in rows))


def _feature_lists(
    read: _Read, start: int, end: int, wanted: set[str]
) -> dict[str, tf.train.FeatureList]:
    """The feature lists of these names; those that are not there are empty."""
    found = {name: tf.train.FeatureList() for name in wanted}
    for number, first, after in _fields(read, start, end):
        if number != _FEATURE_LISTS:
            continue
        for _, entry, entry_end in _fields(read, first, after):
            parts = {field: (a, b) for field, a, b in _fields(read, entry, entry_end)}
            if _KEY not in parts or _VALUE not in parts:
                continue
            (key, key_end), (value, value_end) = parts[_KEY], parts[_VALUE]
            name = read(key, key_end - key).decode("utf-8", "replace")
            if name in wanted:
                found[name].ParseFromString(read(value, value_end - value))
    return found


def _fields(read: _Read, position: int, end: int) -> Iterator[tuple[int, int, int]]:
    """The length-delimited fields of a message: (number, where it begins, where it ends)."""
    while position < end:
        tag, position = _varint(read, position, end)
        number, wire_type = tag >> 3, tag & 7
        if wire_type == _VARINT:
            _, position = _varint(read, position, end)
        elif wire_type in (_FIXED64, _FIXED32):
            position += 8 if wire_type == _FIXED64 else 4
        elif wire_type == _LENGTH_DELIMITED:
            length, position = _varint(read, position, end)
            if position + length > end:
                raise _WireError("a field is longer than its message")
            yield number, position, position + length
            position += length
        else:
            raise _WireError(f"wire type {wire_type}")
    if position > end:
        raise _WireError("a message ends within a field")


def _varint(read: _Read, position: int, end: int) -> tuple[int, int]:
    """A number of variable length, and where it ends."""
    value = 0
    for shift, byte in enumerate(read(position, min(_MAX_VARINT_BYTES, end - position))):
        value |= (byte & 0x7F) << (7 * shift)
        if byte < 0x80:
            return value, position + shift + 1
    raise _WireError("a number without an end")
