# SPDX-License-Identifier: Apache-2.0
"""The moments that a CSV lists for each video: ground truth, excluded timestamps, detections.

Detections count in an evaluation only at exactly the moments of the ground truth.
"""

import os
import sys
from collections.abc import Iterable, Sequence

from object_detection_ext import errors, printable
from object_detection_ext.ava import annotations, faults, time_offsets, video_ids
from object_detection_ext.inference import sources

_MAX_LISTED = 5


class WantedKeyframes:
    """The moments of a CSV, by video."""

    def __init__(self, path: str, offsets: time_offsets.TimeOffsets):
        """Reads the file.

        Args:
          path: rows `video_id,timestamp`, whatever columns follow.
          offsets: what its times are ahead of times in the videos.

        Raises:
          faults.AnnotationError: if the file cannot be read or is empty, or with a list of
            its bad rows.
          errors.InputError: if a video has no offset.
        """
        self.path, self.offsets = path, offsets
        found: dict[str, set[float]] = {}
        notes = faults.Notes()
        rows = annotations.read_keyframes(path, notes)
        for line in notes.messages(path):
            print(f"note: {line}", file=sys.stderr, flush=True)
        for row in rows:
            found.setdefault(row.video_id, set()).add(row.seconds)
        offsets.check(found)
        self._times = {video_id: sorted(times) for video_id, times in found.items()}

    def times(self, video_id: str) -> list[float]:
        """The moments of a video, in seconds in the video, ascending."""
        offset = self.offsets.of(video_id)
        return [time - offset for time in self._times[video_id]]

    def ids_of(self, paths: Sequence[str]) -> dict[str, str]:
        """Returns what the file calls the videos that it lists, by their paths.

        Any name that the video would answer to in a folder will do, see `video_files`.

        Raises:
          errors.InputError: if it calls one video by several names, or several by one.
        """
        named: dict[str, list[str]] = {}
        for path in paths:
            for name in _names(path):
                named.setdefault(name, []).append(path)
        found: dict[str, str] = {}
        for video_id in self._times:
            fitting = named.get(video_ids.same_id(os.path.normpath(video_id)), [])
            if len(fitting) > 1:
                raise errors.InputError(
                    f"{self.path}: the id '{printable.in_one_line(video_id)}' fits "
                    f"{' and '.join(fitting)}; give one of them."
                )
            for path in fitting:
                if path in found:
                    raise errors.InputError(
                        f"{self.path}: {path} has two ids, '{found[path]}' and '{video_id}'; write "
                        "one in all rows."
                    )
                found[path] = video_id
        return found

    def chosen(self, paths: Sequence[str]) -> dict[str, str]:
        """As `ids_of`; says how many of the videos are not listed, and how many listed are missing.

        Raises:
          errors.InputError: as `ids_of`, or if none of the videos is listed.
        """
        found = self.ids_of(paths)
        unlisted = [path for path in paths if path not in found]
        missing = sorted(set(self._times) - set(found.values()))
        if not found:
            raise errors.InputError(
                f"{self.path}: it lists none of the videos, {_some(sources.names_of(paths))}; it "
                f"lists {_some(missing)}."
            )
        if unlisted:
            _report(len(unlisted), f"not listed in {self.path}: left out", unlisted)
        if missing:
            _report(len(missing), f"listed in {self.path}, but not among the inputs", missing)
        return found


def _names(path: str) -> set[str]:
    """All that a video answers to: its name and the ends of its path, with or without extension."""
    parts = os.path.normpath(path).split(os.sep)
    ends = {os.path.join(*parts[start:]) for start in range(len(parts)) if parts[start]}
    if not os.path.isdir(path):
        ends |= {os.path.splitext(end)[0] for end in ends}
    return {video_ids.same_id(end) for end in ends}


def _some(names: Iterable[str]) -> str:
    names = [printable.in_one_line(name) for name in names]
    return ", ".join(names[:_MAX_LISTED]) + (", ..." if len(names) > _MAX_LISTED else "")


def _report(count: int, what: str, names: Sequence[str]) -> None:
    print(f"detection: {count} video{'s' * (count != 1)} {what}: {_some(names)}", flush=True)
