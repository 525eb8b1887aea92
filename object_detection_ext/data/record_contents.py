# SPDX-License-Identifier: Apache-2.0
"""What the records of a file say, read without their pictures.

A record of clips is some megabytes, of which all but some kilobytes are encoded frames. These are
skipped by the lengths that the format has, so that records can be looked through before a training
starts.

Shapes: N frames of a record, G ground-truth rows (one per box and action) of a frame.
"""

import collections
import functools
import os
from collections.abc import Mapping, Sequence
from typing import BinaryIO, NamedTuple

import numpy as np
import tensorflow as tf
from google.protobuf import message as protobuf_message

from object_detection_ext import listing
from object_detection_ext.data import clip_features, record_files

# Of a whole set of files, and of each of its files at least: what is read before the start.
MAX_RECORDS = 20_000
MIN_RECORDS_OF_FILE = 8
# Where a file is not on a local disk, each record is read with its pictures.
_RECORDS_OF_REMOTE_FILE = 1
_REMOTE_FILES = 4

_MAX_LISTED = 5

# Field numbers of the format: SequenceExample.feature_lists, FeatureLists.feature_list, and the
# key and the value of the latter's entries (a map's).
_FEATURE_LISTS, _FEATURE_LIST, _KEY, _VALUE = 2, 1, 1, 2
_LENGTH_DELIMITED = 2

BOX_SIDES = (
    clip_features.BOX_YMIN,
    clip_features.BOX_XMIN,
    clip_features.BOX_YMAX,
    clip_features.BOX_XMAX,
)
_PER_FRAME = (
    clip_features.IMAGE_ENCODED,
    clip_features.IMAGE_SOURCE_ID,
    clip_features.IS_ANNOTATED,
)
_ROWS = (*BOX_SIDES, clip_features.LABEL_STRING)


class NotAClipError(ValueError):
    """A record that is not a SequenceExample of clips; the text says what is missing."""


class ListLengthError(NotAClipError):
    """Lists of a record that should be of one length differ."""


class RecordContents(NamedTuple):
    """What one record says.

    `keyframes` are indices of annotated frames, `labels` the names of the actions on them with
    their number of rows, `size` height and width of its frames in pixels, by its header.
    """

    keyframes: tuple[int, ...]
    labels: Mapping[str, int]
    size: tuple[int, int]


class FileContents(NamedTuple):
    """What records of one file say.

    Attributes:
      path: the file.
      num_records: in the file; None if it is not on a local disk.
      num_read: records that were looked at.
      num_foreign: how many of these are not SequenceExamples of clips.
      foreign: texts of the first of them: its number, and what is wrong.
      num_damaged: how many do not have the checksum that was written.
      num_without_keyframe: how many have no annotated frame.
      labels: names of actions with their number of rows and the first record that has them.
      sizes: (height, width) of frames in pixels, with the first record that has them.
    """

    path: str
    num_records: int | None
    num_read: int
    num_foreign: int
    foreign: tuple[str, ...]
    num_damaged: int
    num_without_keyframe: int
    labels: Mapping[str, tuple[int, int]]
    sizes: Mapping[tuple[int, int], int]

    @property
    def is_complete(self) -> bool:
        """Whether all records of the file were looked at."""
        return self.num_read == self.num_records


def examine(example: tf.train.SequenceExample, *, has_pictures: bool = False) -> RecordContents:
    """Looks at a record.

    Args:
        example: the record.
        has_pictures: whether it is whole; else its pictures were left out (see `read_outline`).

    Raises:
        NotAClipError: if it cannot be read as clips, naming the field.
    """
    _check_fields(example)
    _check_lengths(example.feature_lists.feature_list, has_pictures)
    lists = example.feature_lists.feature_list
    annotated = lists[clip_features.IS_ANNOTATED].feature
    keyframes = tuple(index for index, f in enumerate(annotated) if f.int64_list.value[0])
    labels: collections.Counter = collections.Counter()
    if clip_features.LABEL_STRING in lists:
        rows = lists[clip_features.LABEL_STRING].feature
        for keyframe in keyframes:
            names = rows[keyframe].bytes_list.value
            labels.update(name.decode("utf-8", "backslashreplace") for name in names)
    header = example.context.feature
    height, width = (
        header[name].int64_list.value[0]
        for name in (clip_features.IMAGE_HEIGHT, clip_features.IMAGE_WIDTH)
    )
    return RecordContents(keyframes, labels, (height, width))


def _check_fields(example: tf.train.SequenceExample) -> None:
    """Checks that a record has the fields that reading needs."""
    context, lists = example.context.feature, example.feature_lists.feature_list
    if not lists:
        if context:
            raise NotAClipError(
                f"a plain tf.Example, not a SequenceExample (it has {_names(context)})"
            )
        raise NotAClipError("not a SequenceExample")
    for name in _PER_FRAME:
        if name not in lists:
            raise NotAClipError(f"it has no feature list {name}, but {_names(lists)}")
    for name in (clip_features.IMAGE_HEIGHT, clip_features.IMAGE_WIDTH):
        if name not in context or len(context[name].int64_list.value) != 1:
            raise NotAClipError(f"its context has no feature {name} with one integer")
    for name, kind in (
        (clip_features.IMAGE_ENCODED, "bytes"),
        (clip_features.IS_ANNOTATED, "int64"),
    ):
        for index, step in enumerate(lists[name].feature):
            if len(getattr(step, f"{kind}_list").value) != 1:
                raise NotAClipError(f"{name} of frame {index} is not one value of type {kind}")


def _check_lengths(lists: Mapping[str, tf.train.FeatureList], has_pictures: bool) -> None:
    """Checks that lists have one entry for each frame, and that frames' rows are complete.

    In a record without its pictures, only those of annotated frames: all of a hundred frames would
    cost as much as everything else.
    """
    lengths = {name: len(lists[name].feature) for name in (*_PER_FRAME, *_ROWS) if name in lists}
    if not has_pictures:
        del lengths[clip_features.IMAGE_ENCODED]
    if len(set(lengths.values())) > 1:
        texts = (f"{name} {length}" for name, length in lengths.items())
        raise ListLengthError(f"its lists differ in length (in frames): {', '.join(texts)}")
    present = [name for name in _ROWS if name in lists]
    if present and len(present) < len(_ROWS):
        missing = ", ".join(name for name in _ROWS if name not in lists)
        raise NotAClipError(f"it has no feature list {missing}, but {', '.join(present)}")
    annotated = lists[clip_features.IS_ANNOTATED].feature
    for index, mark in enumerate(annotated if present else ()):
        if not (has_pictures or mark.int64_list.value[0]):
            continue
        counts = [len(lists[name].feature[index].float_list.value) for name in BOX_SIDES]
        counts.append(len(lists[clip_features.LABEL_STRING].feature[index].bytes_list.value))
        if len(set(counts)) > 1:
            texts = (f"{name} {n}" for name, n in zip(_ROWS, counts, strict=True))
            raise ListLengthError(
                f"frame {index} has lists of different lengths (in rows): {', '.join(texts)}"
            )


def _names(fields: Mapping) -> str:
    """The first names of a message's fields, in quotes and without control characters."""
    return listing.in_line([repr(name) for name in sorted(fields)], _MAX_LISTED)


# --- Without pictures -----------------------------------------------------------------------------


def read_outline(file: BinaryIO, size: int) -> tf.train.SequenceExample:
    """Reads a serialized SequenceExample but for its pictures: `image/encoded` is an empty list.

    Args:
        file: stands where it begins.
        size: its bytes.

    Raises:
        NotAClipError: if this is not a message of this format.
    """
    end, kept = file.tell() + size, []
    try:
        while file.tell() < end:
            number, length = _read_tag(file, end)
            if number != _FEATURE_LISTS:
                kept.append(_part(number, file.read(length)))
                continue
            lists_end, entries = file.tell() + length, []
            while file.tell() < lists_end:
                entries.append(_read_entry(file, lists_end))
            kept.append(_part(_FEATURE_LISTS, b"".join(entries)))
        return tf.train.SequenceExample.FromString(b"".join(kept))
    except protobuf_message.DecodeError as error:
        raise NotAClipError("not a SequenceExample") from error


def _read_entry(file: BinaryIO, lists_end: int) -> bytes:
    """One feature list with its name; that of the pictures without what is in it."""
    number, length = _read_tag(file, lists_end)
    start, end = file.tell(), file.tell() + length
    if number == _FEATURE_LIST and length:
        field, key_length = _read_tag(file, end)
        pictures = clip_features.IMAGE_ENCODED.encode()
        if field == _KEY and key_length == len(pictures) and file.read(key_length) == pictures:
            file.seek(end)
            return _part(_FEATURE_LIST, _part(_KEY, pictures) + _part(_VALUE, b""))
        file.seek(start)
    return _part(number, file.read(length))


def _read_tag(file: BinaryIO, end: int) -> tuple[int, int]:
    """Number of a field, and its length; all fields of these messages have one."""
    tag = _read_varint(file)
    length = _read_varint(file)
    if tag & 7 != _LENGTH_DELIMITED or file.tell() + length > end:
        raise protobuf_message.DecodeError("no field of a SequenceExample")
    return tag >> 3, length


def _read_varint(file: BinaryIO) -> int:
    value = 0
    for shift in range(0, 64, 7):
        byte = file.read(1)
        if not byte:
            break
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return value
    raise protobuf_message.DecodeError("no number")


def _part(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | _LENGTH_DELIMITED) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*encoded, value))


# --- Files ----------------------------------------------------------------------------------------


def look_into(paths: Sequence[str], max_records: int = MAX_RECORDS) -> list[FileContents]:
    """Looks through the records of files, or through an even part of them.

    Args:
        paths: TFRecord files. Of those that are not on a local disk, the first records of the first
            few are read.
        max_records: of all files together; up to it, all records are looked at. Of each file at
            least `MIN_RECORDS_OF_FILE` are.

    Returns:
        What they say, for each file that was looked at.
    """
    local = [path for path in paths if os.path.isfile(path)]
    counts = {path: len(record_files.find_records(path).positions) for path in local}
    total = sum(counts.values())
    found = []
    for path, count in counts.items():
        share = count if total <= max_records else count * max_records // total
        wanted = min(count, max(share, MIN_RECORDS_OF_FILE))
        status = os.stat(path)
        found.append(_look_into(path, wanted, status.st_size, status.st_mtime_ns))
    remote = [path for path in paths if path not in counts]
    return found + [_look_into_remote(path) for path in remote[:_REMOTE_FILES]]


@functools.cache  # a training opens its files several times
def _look_into(path: str, wanted: int, size: int, stamp: int) -> FileContents:
    """Looks at so many records, evenly spread, the first and the last among them."""
    positions = record_files.find_records(path).positions
    numbers = np.unique(np.linspace(0, max(len(positions) - 1, 0), wanted).round().astype(int))
    gathered = _Gathered(path, len(positions))
    with open(path, "rb") as file:
        for number in numbers.tolist():
            start = int(positions[number])
            file.seek(start)
            length, _ = record_files.record_length(file.read(record_files.HEADER_BYTES))
            try:
                gathered.add(number, examine(read_outline(file, length)))
            except NotAClipError as error:
                if record_files.read_record(path, start) is None:
                    gathered.add_damaged()
                else:
                    gathered.add_foreign(number, str(error))
    return gathered.result()


def _look_into_remote(path: str) -> FileContents:
    gathered = _Gathered(path, None)
    try:
        for number, raw in enumerate(
            tf.data.TFRecordDataset(path).take(_RECORDS_OF_REMOTE_FILE).as_numpy_iterator()
        ):
            try:
                gathered.add(number, examine(tf.train.SequenceExample.FromString(raw)))
            except protobuf_message.DecodeError:
                gathered.add_foreign(number, "not a SequenceExample")
            except NotAClipError as error:
                gathered.add_foreign(number, str(error))
    except tf.errors.DataLossError:
        gathered.add_damaged()
    return gathered.result()


class _Gathered:
    """Adds up what records say."""

    def __init__(self, path: str, num_records: int | None):
        self._path, self._num_records = path, num_records
        self._num_read = self._num_damaged = self._num_without = self._num_foreign = 0
        self._foreign: list[str] = []
        self._labels: dict[str, tuple[int, int]] = {}
        self._sizes: dict[tuple[int, int], int] = {}

    def add(self, number: int, contents: RecordContents) -> None:
        self._num_read += 1
        self._num_without += not contents.keyframes
        for name, count in contents.labels.items():
            before, first = self._labels.get(name, (0, number))
            self._labels[name] = before + count, first
        self._sizes.setdefault(contents.size, number)

    def add_foreign(self, number: int, problem: str) -> None:
        self._num_read += 1
        self._num_foreign += 1
        if len(self._foreign) < _MAX_LISTED:
            self._foreign.append(f"record {number}: {problem}")

    def add_damaged(self) -> None:
        self._num_read += 1
        self._num_damaged += 1

    def result(self) -> FileContents:
        return FileContents(
            self._path,
            self._num_records,
            self._num_read,
            self._num_foreign,
            tuple(self._foreign),
            self._num_damaged,
            self._num_without,
            self._labels,
            self._sizes,
        )
