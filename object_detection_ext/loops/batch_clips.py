# SPDX-License-Identifier: Apache-2.0
"""Finds the clips of a batch again: in which record of which file they are.

The stock inputs pass on a hash of each clip's name; the names are in the records.
"""

import time
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import tensorflow as tf
from object_detection import inputs

from object_detection_ext.data import clip_features

_SEPARATOR = "\n"
_FILES_AT_ONCE = 4
_RECORDS_AT_ONCE = 32


class Place(NamedTuple):
    """Where a clip is: name of its keyframe, file, number of the record in it, from 0."""

    name: str
    path: str
    number: int

    def __str__(self) -> str:
        """As people read it."""
        return f"{self.name} (record {self.number} of {self.path})"


def hash_of(name: str) -> int:
    """What the stock inputs make of a clip's name."""
    return int(_hashes(tf.constant(name)))


def _hashes(names: tf.Tensor) -> tf.Tensor:
    return tf.cast(tf.strings.to_hash_bucket_fast(names, inputs.HASH_BINS), tf.int32)


def find(hashes: Iterable[int], patterns: Sequence[str], max_seconds: float = 60.0) -> list[Place]:
    """Searches record files for clips.

    Args:
        hashes: of the clips' names.
        patterns: `input_path` entries of a pipeline.config.
        max_seconds: when to end the search.

    Returns:
        The clips that were found until then, by file and number. Records that cannot be read are
        passed over.
    """
    wanted = sorted(set(hashes))
    paths = sorted({path for pattern in patterns for path in tf.io.gfile.glob(pattern)})
    if not wanted or not paths:
        return []
    found: dict[int, Place] = {}
    end = time.monotonic() + max_seconds
    for files, numbers, names in _names_of_records(paths, wanted):
        for path, number, joined in zip(files.numpy(), numbers.numpy(), names.numpy(), strict=True):
            for name in filter(None, joined.decode("utf-8", "replace").split(_SEPARATOR)):
                place = Place(name, path.decode(), int(number))
                found.setdefault(hash_of(name), place)
        if len(found) == len(wanted) or time.monotonic() > end:
            break
    return sorted(found.values(), key=lambda place: (place.path, place.number))


def _names_of_records(paths: Sequence[str], hashes: Sequence[int]) -> tf.data.Dataset:
    """Batches of (file, number, names of the record's keyframes that have one of the hashes)."""
    sequence = {
        clip_features.IMAGE_SOURCE_ID: tf.io.FixedLenSequenceFeature([], tf.string),
        clip_features.IS_ANNOTATED: tf.io.FixedLenSequenceFeature([], tf.int64),
    }

    def look(path, number, record):
        _, columns = tf.io.parse_single_sequence_example(record, sequence_features=sequence)
        is_keyframe = tf.cast(columns[clip_features.IS_ANNOTATED], tf.bool)
        names = tf.boolean_mask(columns[clip_features.IMAGE_SOURCE_ID], is_keyframe)
        same = _hashes(names)[:, tf.newaxis] == tf.constant(hashes, tf.int32)
        matches = tf.boolean_mask(names, tf.reduce_any(same, axis=1))
        return path, number, tf.strings.reduce_join(matches, separator=_SEPARATOR)

    def records(path):
        # An error ends the file.
        numbered = tf.data.TFRecordDataset(path).ignore_errors().enumerate()
        return numbered.map(lambda number, record: (path, number, record))

    dataset = tf.data.Dataset.from_tensor_slices(list(paths))
    dataset = dataset.interleave(records, cycle_length=_FILES_AT_ONCE, num_parallel_calls=2)
    dataset = dataset.map(look, num_parallel_calls=2).ignore_errors()
    return dataset.batch(_RECORDS_AT_ONCE)
