# SPDX-License-Identifier: Apache-2.0
"""Writes AVA's files; each gets its name when it is whole."""

import contextlib
import csv
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from typing import IO

from object_detection_ext import errors, files, printable
from object_detection_ext.ava import timestamps

# Of a box's corners and of scores; more than a pixel of the largest screens.
_DECIMALS = 4


class RowWriter:
    """Writes rows to an open file; `num_rows` counts them."""

    def __init__(self, file: IO[str], decimals: int = _DECIMALS):
        """Takes a text file that is opened with `newline=""`.

        Args:
            file: to write to.
            decimals: of the boxes' corners.
        """
        self._writer = csv.writer(file, lineterminator="\n")
        self._decimals = decimals
        self.num_rows = 0

    def detection(
        self, video_id: str, seconds: float, box: Sequence[float], action_id: int, score: float
    ) -> None:
        """Writes a detection.

        Args:
            video_id: the video's.
            seconds: from its start.
            box: [ymin, xmin, ymax, xmax], normalized.
            action_id: of the label map.
            score: 0..1.
        """
        self._write(video_id, seconds, *self._corners(box), action_id, f"{score:.{_DECIMALS}f}")

    def annotation(
        self,
        video_id: str,
        seconds: float,
        box: Sequence[float],
        action_id: int,
        person_id: int | str | None = None,
    ) -> None:
        """Writes a person with one action; arguments as of `detection`.

        Args:
            video_id: the video's.
            seconds: from its start.
            box: [ymin, xmin, ymax, xmax], normalized.
            action_id: of the label map.
            person_id: the same for the same person; None leaves the column out.
        """
        person = () if person_id is None else (person_id,)
        self._write(video_id, seconds, *self._corners(box), action_id, *person)

    def person_box(self, video_id: str, seconds: float, box: Sequence[float]) -> None:
        """Writes a person's box alone; arguments as of `detection`."""
        self._write(video_id, seconds, *self._corners(box))

    def nobody(self, video_id: str, seconds: float) -> None:
        """Writes a keyframe without people, or a moment to leave out."""
        self._write(video_id, seconds)

    def _corners(self, box: Sequence[float]) -> tuple[str, ...]:
        ymin, xmin, ymax, xmax = (f"{value:.{self._decimals}f}" for value in box)
        return xmin, ymin, xmax, ymax

    def _write(self, video_id: str, seconds: float, *fields: object) -> None:
        if printable.in_one_line(video_id) != video_id:
            raise errors.InputError(
                f"video id '{printable.in_one_line(video_id)}' has control characters; rename it"
            )
        self._writer.writerow([video_id, timestamps.format_timestamp(seconds), *fields])
        self.num_rows += 1


@contextlib.contextmanager
def writing(path: str | os.PathLike, decimals: int = _DECIMALS) -> Iterator[RowWriter]:
    """Gives a writer of rows; the file takes its place when the body succeeds.

    Args:
        path: of the CSV.
        decimals: of the boxes' corners.
    """
    with files.replaced_when_complete(path, newline="") as file:
        yield RowWriter(file, decimals)


def join(path: str | os.PathLike, parts: Sequence[str]) -> None:
    """Puts the rows of files that this module wrote into one file."""
    with files.replaced_when_complete(path, newline="") as file:
        for part in parts:
            with open(part, encoding="utf-8", newline="") as rows:
                shutil.copyfileobj(rows, file)


def write_label_map(path: str | os.PathLike, names: Mapping[int, str]) -> None:
    """Writes a label map in the stock form.

    Args:
        path: of the file.
        names: by action id.
    """
    files.write_text(path, label_map_text(names))


def label_map_text(names: Mapping[int, str]) -> str:
    """A label map in the stock form; names by action id."""
    blocks = []
    for action_id, name in names.items():
        text = name.replace("\\", "\\\\").replace('"', '\\"')
        blocks.append(f'item {{\n  name: "{text}"\n  id: {action_id}\n}}\n')
    return "".join(blocks)
