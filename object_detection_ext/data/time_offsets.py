# SPDX-License-Identifier: Apache-2.0
"""What annotation times are ahead of the times in a video: AVA's of films cut to minutes 15 to 30.

The time of an annotation is the time in the file plus the offset, in seconds.
"""

import csv
import math
import os
from collections.abc import Iterable, Mapping

from object_detection_ext import errors, printable
from object_detection_ext.data import video_files

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
        return self._of_each[video_files.same_name(video_id)]

    def check(self, video_ids: Iterable[str]) -> None:
        """Raises errors.InputError if a video has no offset, with all that have none."""
        if self._of_each is None:
            return
        missing = sorted({i for i in video_ids if video_files.same_name(i) not in self._of_each})
        if missing:
            some = ", ".join(map(printable.in_one_line, missing[:_MAX_LISTED]))
            more = f" and {len(missing) - _MAX_LISTED} more" if len(missing) > _MAX_LISTED else ""
            raise errors.InputError(
                f"{self._path}: no row for {len(missing)} videos: {some}{more}; give each its "
                "offset, 0 where there is none."
            )

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
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            for fields in reader:
                fields = [field.strip() for field in fields]
                if any(fields) and not (not offsets and fields[0].lower() == "video_id"):
                    _add(offsets, f"{path}:{reader.line_num}", fields)
    except (UnicodeDecodeError, csv.Error) as error:
        raise errors.InputError(f"{path}: not a CSV file in UTF-8: {error}.") from None
    if not offsets:
        raise errors.InputError(f"{path}: the file has no rows; each row is video_id,seconds.")
    return offsets


def _add(offsets: dict[str, float], where: str, fields: list[str]) -> None:
    seconds = _number(fields[1]) if len(fields) == 2 else None
    if seconds is None or not fields[0]:
        shown = printable.in_one_line(",".join(fields))
        raise errors.InputError(f"{where}: '{shown}' must be video_id,seconds.")
    video_id = video_files.same_name(fields[0])
    if offsets.setdefault(video_id, seconds) != seconds:
        shown = printable.in_one_line(fields[0])
        raise errors.InputError(
            f"{where}: {shown} has the offset {seconds:g} s here and {offsets[video_id]:g} s "
            "before."
        )


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) and abs(value) < _MAX_SECONDS else None
