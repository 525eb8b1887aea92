# SPDX-License-Identifier: Apache-2.0
"""Keyframes that an evaluation leaves out, in a stream of keyframes."""

import logging

import numpy as np
import tensorflow as tf

from object_detection_ext.ava import exclusion, timestamps
from object_detection_ext.ava.timestamps import Frame

# The stock loops' own logger, whose messages they let through.
_log = logging.getLogger("tensorflow")


class _Excluding:
    """Which keyframes of a pass are excluded, and which excluded moments met none."""

    def __init__(self, excluded: frozenset[Frame]):
        self._excluded = excluded
        self._moments = timestamps.Moments(excluded)
        self._seen: set[Frame] = set()

    def keeps(self, name: bytes) -> bool:
        frame = timestamps.read_frame(name.decode())
        self._seen.add(frame)
        is_excluded = self._moments.met_by(frame) is not None
        if is_excluded:
            _log.info("evaluation: frame %s is excluded", name.decode())
        return not is_excluded

    def count_of(self, part: int) -> np.int64:
        """How many keyframes a part of a pass has: all of them (-1), then at the end none."""
        if not part:
            self._seen.clear()
            return np.int64(-1)
        unmet = exclusion.Exclusion(self._excluded, self._seen).message()
        if unmet:
            _log.warning("evaluation: %s", unmet)
        return np.int64(0)


def without(dataset, excluded: frozenset[Frame]) -> tf.data.Dataset:
    """Leaves out keyframes. At the end of a whole pass, moments that met no keyframe are reported.

    Args:
        dataset: of ((file, record, name), keyframe), which stay as they are; `name` is
            `video_id,timestamp`. With another name, iteration raises InvalidArgumentError.
        excluded: moments to leave out.
    """
    excluding = _Excluding(excluded)

    def call(function, *arguments, dtype: tf.DType):
        return tf.ensure_shape(tf.numpy_function(function, arguments, dtype), [])

    kept = dataset.filter(lambda whole, keyframe: call(excluding.keeps, whole[2], dtype=tf.bool))
    parts = tf.data.Dataset.range(2)
    return parts.flat_map(lambda part: kept.take(call(excluding.count_of, part, dtype=tf.int64)))
