# SPDX-License-Identifier: Apache-2.0
"""A look at TFRecord files before the expensive part starts."""

import dataclasses
import functools
import itertools
import logging
import os
import statistics
import struct
from collections.abc import Callable, Iterable, Sequence
from typing import BinaryIO, NamedTuple

import numpy as np
import tensorflow as tf
from google.protobuf import message as protobuf_message

from object_detection_ext import errors, files
from object_detection_ext.data import picture_size, record_writer

# A TFRecord is: length (8 bytes), its CRC (4), the data, their CRC (4).
HEADER_BYTES, _FOOTER = 12, 4
FRAME_BYTES = HEADER_BYTES + _FOOTER
# Up to this part of it, a measured frame rate is reported as the plain number that it is next to.
_PLAIN_RATE_WITHIN = 0.01


class RecordFileError(errors.InputError):
    """No usable record in the input files."""


class WholeRecords(NamedTuple):
    """The records of a file whose lengths are intact and that end inside it.

    `positions`, int64 [N], are where they begin, in bytes; `is_cut` is whether something else
    follows: a part of a record, or a damaged length, behind which nothing can be found.
    """

    positions: np.ndarray
    is_cut: bool


def find_records(path: str) -> WholeRecords:
    """Finds the records of a local TFRecord file by their lengths, without reading them."""
    status = os.stat(path)
    return _find_records(path, status.st_size, status.st_mtime_ns)


@functools.cache  # files are opened in each epoch; 8 bytes a record
def _find_records(path: str, size: int, stamp: int) -> WholeRecords:
    position, positions = 0, []
    with open(path, "rb", buffering=0) as file:
        while position < size:
            header = os.pread(file.fileno(), HEADER_BYTES, position)
            length, is_intact = record_length(header)
            end = position + HEADER_BYTES + length + _FOOTER
            if not is_intact or end > size:
                break
            positions.append(position)
            position = end
    return WholeRecords(np.array(positions, np.int64), position < size)


def record_length(header: bytes) -> tuple[int, bool]:
    """A record's length, from its first `HEADER_BYTES`, and whether it is the one written."""
    if len(header) < HEADER_BYTES:
        return 0, False
    length = header[:8]
    return struct.unpack("<Q", length)[0], record_writer.masked_checksum(length) == header[8:]


def read_record(path: str, position: int) -> bytes | None:
    """Reads a whole record of a local file; None if it is not what was written."""
    with open(path, "rb") as file:
        file.seek(position)
        return _read_record(file)


def _read_record(file: BinaryIO) -> bytes | None:
    length, _ = record_length(file.read(HEADER_BYTES))
    record, checksum = file.read(length), file.read(_FOOTER)
    return record if record_writer.masked_checksum(record) == checksum else None


def damaged_records(
    path: str,
    tell: Callable[[int], None] | None = None,
    look: Callable[[int, bytes], None] | None = None,
) -> list[int]:
    """Reads a whole local file and compares the checksum of each record.

    Args:
      path: the file.
      tell: takes the bytes read so far, after each record.
      look: takes the number, from 0, and the bytes of each record that is what was written.

    Returns:
      Numbers, from 0, of the whole records that are not what was written.
    """
    damaged, positions = [], find_records(path).positions
    with open(path, "rb") as file:
        for number in range(len(positions)):
            record = _read_record(file)
            if record is None:
                damaged.append(number)
            elif look is not None:
                look(number, record)
            if tell is not None:
                tell(file.tell())
    return damaged


def check_exists(path: str) -> None:
    """Raises RecordFileError if a record file that was there is gone."""
    if not files.exists(path):
        raise RecordFileError(
            f"{path} is gone: it was there when reading began. Training and evaluation read their "
            "record files again and again, so they must stay."
        )


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
        matches = files.glob(pattern)
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
        found = find_records(path)
        records += len(found.positions)
        if found.is_cut:
            truncated.append(f"{path} (after {len(found.positions)} whole records)")
    if truncated:
        logging.warning(
            "%d of %d record files are truncated, or a record's length is damaged; what follows is "
            "left out: %s",
            len(truncated),
            len(local),
            ", ".join(truncated[:10]) + (", ..." if len(truncated) > 10 else ""),
        )
    if len(local) == len(paths) and not records:
        raise RecordFileError(f"Not one whole record in {', '.join(paths[:10])}.")
    return paths


class RecordFacts(NamedTuple):
    """What one record says.

    `number` counts from 0 in the file at `path`. `fps` is None where the timestamps do not tell it:
    a single frame, none, or all the same; `fps_error` is the part of it by which frames that were
    taken as the nearest to a time can move it. `height` and `width` are those of the encoded
    keyframe, in pixels; where it cannot be read, those that the record's header says. `keyframes`
    are indices of annotated frames, `labels` the names of the actions on them. `frame_bytes` is the
    mean size of an encoded frame.
    """

    path: str
    number: int
    num_frames: int
    fps: float | None
    height: int
    width: int
    keyframes: tuple[int, ...]
    labels: frozenset[str]
    frame_bytes: float
    fps_error: float = 0.0

    @property
    def rate(self) -> str:
        """`fps` as people say it: the next half where the timestamps allow it, 25 for 25.05."""
        plain = round(2 * self.fps) / 2
        allowed = min(self.fps_error, _PLAIN_RATE_WITHIN)
        return f"{plain if abs(plain / self.fps - 1.0) <= allowed else self.fps:.4g}"


@dataclasses.dataclass(frozen=True)
class RecordLook:
    """A few records of some files. Summaries need at least one record.

    `unreadable` tells, one text each, what was found in place of records.
    """

    records: tuple[RecordFacts, ...]
    unreadable: tuple[str, ...] = ()

    @property
    def num_frames(self) -> int:
        """Frames of the shortest record."""
        return min(record.num_frames for record in self.records)

    @property
    def fps(self) -> float | None:
        """Frames per second, the median of the records; None where none tells."""
        rates = [record.fps for record in self.records if record.fps is not None]
        return statistics.median(rates) if rates else None

    @property
    def sizes(self) -> frozenset[tuple[int, int]]:
        """Heights and widths of the frames, in pixels."""
        return frozenset((record.height, record.width) for record in self.records)

    @property
    def keyframes_per_record(self) -> float:
        """Annotated frames of a record, that is clips; the mean."""
        return statistics.fmean(len(record.keyframes) for record in self.records)

    @property
    def frame_bytes(self) -> float:
        """Size of an encoded frame, the mean."""
        return statistics.fmean(record.frame_bytes for record in self.records)

    def frames_around_keyframes(self) -> tuple[int, int]:
        """Frames that every keyframe has before and behind it, in its record."""
        around = [
            (keyframe, record.num_frames - 1 - keyframe)
            for record in self.records
            for keyframe in record.keyframes
        ]
        before, behind = zip(*around, strict=True) if around else ((0,), (0,))
        return min(before), min(behind)


def look_at_records(paths: Sequence[str], max_records: int = 8) -> RecordLook:
    """Reads the first records of the first files.

    Args:
        paths: TFRecord files of clips; local or not.
        max_records: how many to read; from as many files as there are.

    Returns:
        What the records say. What is no record of clips is listed as unreadable.
    """
    files = list(paths)[:max_records]
    per_file = -(-max_records // max(1, len(files)))
    records, unreadable = [], []
    for path in files:
        try:
            for number, raw in enumerate(tf.data.TFRecordDataset(path).take(per_file)):
                example = tf.train.SequenceExample.FromString(raw.numpy())
                records.append(_facts(path, number, example))
        except (protobuf_message.DecodeError, KeyError, IndexError) as error:
            unreadable.append(f"{path}, record {number}: no SequenceExample of frames ({error})")
        except tf.errors.OpError as error:
            unreadable.append(f"{path}: {error.message}")
    return RecordLook(tuple(records[:max_records]), tuple(unreadable))


def check_frame_rate(look: RecordLook, fps: float | None) -> None:
    """Compares records' frame rates with the one that is expected.

    Args:
        look: at some records.
        fps: frames per second, expected; None: any.

    Raises:
        RecordFileError: naming the file whose record has another rate.
    """
    for record in look.records if fps is not None else ():
        if record.fps is not None and abs(record.fps / fps - 1.0) > record.fps_error:
            raise RecordFileError(
                f"{record.path}, record {record.number}: its {record.num_frames} frames have "
                f"{record.rate} frames per second by their timestamps (image/timestamp, in "
                f"microseconds), but clip {{ fps: {fps:g} }} of the pipeline.config expects "
                f"{fps:g}. Write the records with create_ava_records --fps {fps:g}, or set fps to "
                f"{record.rate}."
            )


def warn_of_repeated_frames(look: RecordLook, before: int, behind: int) -> None:
    """Warns if records end before a clip does: its first or last frame is then repeated.

    Args:
        look: at some records.
        before: frames that a clip takes before its keyframe, at most.
        behind: frames that it takes behind it, at most.
    """
    for record in look.records:
        for keyframe in record.keyframes:
            has = keyframe, record.num_frames - 1 - keyframe
            if has[0] < before or has[1] < behind:
                logging.warning(
                    "%s, record %d: keyframe %d has %d frames before and %d behind it, but clips "
                    "take up to %d and %d (clip { num_frames frame_stride temporal_jitter_frames } "
                    "of the pipeline.config): the first or last frame is repeated. Records of more "
                    "frames: create_ava_records --num_frames %d.",
                    record.path,
                    record.number,
                    keyframe,
                    *has,
                    before,
                    behind,
                    2 * max(before, behind + 1),
                )
                return


def _facts(path: str, number: int, example: tf.train.SequenceExample) -> RecordFacts:
    lists = example.feature_lists.feature_list

    def column(name: str, kind: str) -> list[Sequence]:
        # Reading a map of messages with [] would add what is missing.
        return [getattr(step, kind).value for step in lists[name].feature] if name in lists else []

    encoded = [value[0] for value in column("image/encoded", "bytes_list")]
    if not encoded:
        raise KeyError("image/encoded")
    annotated = column("region/is_annotated", "int64_list")
    keyframes = tuple(index for index, value in enumerate(annotated) if value and value[0])
    height, width = _frame_size(encoded[keyframes[0] if keyframes else 0], example)
    labels = column("region/label/string", "bytes_list")
    times = [value[0] for value in column("image/timestamp", "int64_list") if value]
    fps, fps_error = _frame_rate(times)
    return RecordFacts(
        path=path,
        number=number,
        num_frames=len(encoded),
        fps=fps,
        height=height,
        width=width,
        keyframes=keyframes,
        labels=frozenset(name.decode("utf-8", "replace") for row in labels for name in row),
        frame_bytes=statistics.fmean(map(len, encoded)),
        fps_error=fps_error,
    )


def _frame_size(encoded: bytes, example: tf.train.SequenceExample) -> tuple[int, int]:
    """Height and width of an encoded picture; as the header has them if it cannot be read."""
    try:
        height, width = picture_size.header_size(tf.constant(encoded)).numpy()
    except tf.errors.OpError:
        header = example.context.feature
        height, width = (
            (header[name].int64_list.value or [0])[0] for name in ("image/height", "image/width")
        )
    return int(height), int(width)


def _frame_rate(microseconds: Sequence[int]) -> tuple[float | None, float]:
    """Frames per second, and by which part of them they may be off.

    At the ends of a video its first or last frame is repeated: such do not count. A frame stands up
    to half a frame of the video off its time, and a video of fewer frames repeats them.
    """
    times = list(microseconds)
    while len(times) > 1 and times[0] == times[1]:
        times.pop(0)
    while len(times) > 1 and times[-1] == times[-2]:
        times.pop()
    steps = [after - before for before, after in itertools.pairwise(times) if after != before]
    if not steps or min(steps) < 0:
        return None, 0.0
    span = times[-1] - times[0]
    return (len(times) - 1) * 1e6 / span, 2.0 * statistics.median(steps) / span
