# SPDX-License-Identifier: Apache-2.0
"""What annotation times are ahead of the times in a video: AVA's of films cut to minutes 15 to 30.

The time of an annotation is the time in the file plus the offset, in seconds.
"""

import math
import os
import sys
from collections.abc import Iterable, Mapping

from object_detection_ext import errors, listing, printable
from object_detection_ext.ava import columns, faults, row_reader, timestamps, video_ids
from object_detection_ext.ava.timestamps import Frame

# More than 30 years.
_MAX_SECONDS = 1e9
_MAX_LISTED = 5


class TimeOffsets:
    """The offset of every video, or of each."""

    def __init__(self, of_all: float = 0.0, of_each: Mapping[str, float] | None = None, path=""):
        """Takes what was read.

        Args:
            of_all: seconds, where all videos have the same.
            of_each: seconds by video id in place of it.
            path: where these come from.
        """
        self._of_all, self._of_each, self._path = of_all, of_each, path

    def of(self, video_id: str) -> float:
        """Returns the offset of a video in seconds.

        Raises:
            errors.InputError: if there is none.
        """
        if self._of_each is None:
            return self._of_all
        self.check([video_id])
        return self._of_each[video_ids.same_id(video_id)]

    def check(self, names: Iterable[str]) -> None:
        """Raises errors.InputError if a video has no offset, with all that have none."""
        if self._of_each is None:
            return
        missing = sorted({i for i in names if video_ids.same_id(i) not in self._of_each})
        if missing:
            some = listing.in_line([*map(printable.in_one_line, missing)], _MAX_LISTED)
            raise errors.InputError(
                f"{self._path}: no row for {len(missing)} video{'s' * (len(missing) != 1)}: "
                f"{some}; give each its offset, 0 where there is none."
            )

    def moved(self, frames: Iterable[Frame]) -> list[Frame]:
        """Returns moments in videos as the annotations have them.

        Raises:
            errors.InputError: if a video has no offset.
        """
        frames = list(frames)
        self.check(video_id for video_id, _ in frames)
        return [
            timestamps.frame(video_id, timestamps.rounded(seconds + self.of(video_id)))
            for video_id, seconds in frames
        ]

    def __bool__(self) -> bool:
        """Whether any time is moved."""
        return self._of_each is not None or self._of_all != 0.0


def read(text: str | float | None) -> TimeOffsets:
    """Reads what `--time_offset_seconds` is given.

    Args:
        text: a number of seconds, the path of a CSV with rows `video_id,seconds`, or nothing.

    Raises:
        errors.InputError: if it is none of these, with the row.
    """
    text = "" if text is None else str(text)
    if not text:
        return TimeOffsets()
    seconds = _number(text)
    if seconds is not None:
        return TimeOffsets(seconds)
    if not os.path.isfile(text):
        raise errors.InputError(
            f"--time_offset_seconds {text!r} is neither a number of seconds nor a CSV file of "
            "video_id,seconds."
        )
    return TimeOffsets(of_each=_read_csv(text), path=text)


def _read_csv(path: str) -> dict[str, float]:
    offsets: dict[str, float] = {}
    notes, bad_rows = faults.Notes(), faults.BadRows(path)
    for row in row_reader.read_rows(path, columns.OFFSETS, notes):
        problems: list[object] = list(row.problems)
        if not problems and offsets.setdefault(row.video_id, row.seconds) != row.seconds:
            before = offsets[row.video_id]
            problems.append(f"{row.video_id} is {row.seconds:g} s here and {before:g} s before")
        if problems:
            bad_rows.add(row.row, problems)
    bad_rows.check()
    for line in notes.messages(path):
        print(f"note: {line}", file=sys.stderr, flush=True)
    if not offsets:
        raise errors.InputError(f"{path}: the file has no rows; each row is video_id,seconds.")
    return offsets


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) and abs(value) < _MAX_SECONDS else None
