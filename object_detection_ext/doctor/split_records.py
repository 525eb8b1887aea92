# SPDX-License-Identifier: Apache-2.0
"""The record files of a split, as a pipeline.config names them."""

import functools
import os
import re
from collections.abc import Callable, Sequence

from object_detection_ext import files
from object_detection_ext import progress as progress_lib
from object_detection_ext.data import picture_size, record_files
from object_detection_ext.doctor import findings, whole_records

_MAX_RECORDS = 32
_SHARD = re.compile(r"(?P<set>.*)-\d{5}-of-(?P<count>\d{5})")


class SplitRecords:
    """The record files of a split: which there are, how many records, what the first ones say.

    Attributes:
      split: "train" or "val".
      without_match: patterns that match no file.
      paths: the files.
      truncated: local files that end inside a record, with the whole records before.
      damaged: numbers of records that are not what was written, by local file.
      empty: local files without a record.
      num_records: of all local files.
      faults: of the contents of all records of local files.
      look: at the first records of files that are whole.
    """

    def __init__(
        self,
        split: str,
        patterns: Sequence[str],
        report: Callable[[str], None] | None = None,
        max_frame_pixels: int = picture_size.MAX_PIXELS,
    ):
        """Reads local files once, compares checksums and looks at each record.

        Args:
          split: "train" or "val".
          patterns: of the reader's `input_path`.
          report: takes lines of progress.
          max_frame_pixels: that a frame may have.
        """
        self.split = split
        self.without_match: list[str] = []
        self.paths: list[str] = []
        for pattern in patterns:
            found = files.glob(pattern)
            self.paths += [path for path in found if path not in self.paths]
            if not found:
                self.without_match.append(pattern)
        local = [path for path in self.paths if os.path.isfile(path)]
        found = {path: record_files.find_records(path) for path in local}
        self.truncated = {
            p: len(records.positions) for p, records in found.items() if records.is_cut
        }
        self.empty = [p for p in local if not len(found[p].positions) and p not in self.truncated]
        self.num_records = sum(len(records.positions) for records in found.values())
        self.faults = whole_records.RecordFaults(max_frame_pixels)
        self.damaged = _damaged(split, local, report, self.faults)
        unusable = {*self.truncated, *self.empty, *self.damaged}
        readable = [path for path in self.paths if path not in unusable]
        self.look = record_files.look_at_records(readable, _MAX_RECORDS)

    @property
    def shard_sets(self) -> dict[str, list[int]]:
        """Numbers N of shards `NAME-?????-of-N`, by name, where the files have more than one."""
        counts: dict[str, set[int]] = {}
        for match in filter(None, map(_SHARD.fullmatch, self.paths)):
            counts.setdefault(match["set"], set()).add(int(match["count"]))
        return {name: sorted(several) for name, several in counts.items() if len(several) > 1}

    @property
    def unreadable(self) -> tuple[str, ...]:
        """What was found in place of records of clips, one text each."""
        local = tuple(path for path in self.paths if os.path.isfile(path))
        elsewhere = (text for text in self.look.unreadable if not text.startswith(local))
        return (*self.faults.unreadable, *elsewhere)

    @property
    def labels(self) -> dict[str, tuple[int, str]]:
        """Labels of the records: in how many rows, and the file of the first.

        Of files that are not local, those of the first records, which do not give the rows.
        """
        labels = dict(self.faults.labels)
        for record in self.look.records:
            for label in record.labels:
                labels.setdefault(label, (0, record.path))
        return labels

    @property
    def fps(self) -> float | None:
        """Frames per second of the records; None if none tells."""
        return self.look.fps

    @property
    def name(self) -> str:
        """The files in words."""
        return findings.in_words([os.path.basename(path) for path in self.paths])


def _damaged(
    split: str, paths: Sequence[str], report, faults: whole_records.RecordFaults
) -> dict[str, list[int]]:
    """Reads all records: numbers of the damaged ones by file; the others go to `faults`."""
    total = sum(os.path.getsize(path) for path in paths)
    progress = progress_lib.Progress(
        f"{split} records", total / 1e6, "MB read", report, report_end=False
    )
    damaged, before = {}, 0
    for path in paths:
        numbers = record_files.damaged_records(
            path,
            lambda position, before=before: progress.update((before + position) / 1e6),
            functools.partial(faults.look, path),
        )
        before += os.path.getsize(path)
        if numbers:
            damaged[path] = numbers
    return damaged
