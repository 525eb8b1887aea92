# SPDX-License-Identifier: Apache-2.0
"""The record files of a split, as a pipeline.config names them."""

import os
from collections.abc import Sequence

import tensorflow as tf

from object_detection_ext.data import record_files
from object_detection_ext.doctor import findings

_MAX_RECORDS = 32


class SplitRecords:
    """The record files of a split: which there are, how many records, what the first ones say."""

    def __init__(self, split: str, patterns: Sequence[str]):
        """Counts the records of local files and reads the first ones.

        Args:
          split: "train" or "val".
          patterns: of the reader's `input_path`.
        """
        self.split = split
        self.without_match: list[str] = []
        self.paths: list[str] = []
        for pattern in patterns:
            found = sorted(tf.io.gfile.glob(pattern))
            self.paths += [path for path in found if path not in self.paths]
            if not found:
                self.without_match.append(pattern)
        local = [path for path in self.paths if os.path.isfile(path)]
        counts = {path: record_files.count_whole_records(path) for path in local}
        self.truncated = {path: count for path, (count, cut) in counts.items() if cut}
        self.empty = [path for path, (count, cut) in counts.items() if not count and not cut]
        self.num_records = sum(count for count, _ in counts.values())
        readable = [path for path in self.paths if path not in {*self.truncated, *self.empty}]
        self.look = record_files.look_at_records(readable, _MAX_RECORDS)

    @property
    def fps(self) -> float | None:
        """Frames per second of the records; None if none tells."""
        return self.look.fps

    @property
    def name(self) -> str:
        """The files in words."""
        return findings.in_words([os.path.basename(path) for path in self.paths])
