# SPDX-License-Identifier: Apache-2.0
"""AVA-style annotations: people with their actions, keyframe by keyframe.

Rows are `video_id,timestamp,x1,y1,x2,y2,action_id,person_id`. Seven columns leave the person id
out; two columns are a keyframe on which nobody is annotated. Timestamps are seconds from the start
of the video, as `902`, `0902` or `901.5`. Boxes are normalized to 0..1, x to the right and y down.
`row_reader` says what else is taken.
"""

import dataclasses
import os
from collections.abc import Iterator, Mapping

from object_detection_ext.ava import columns, faults, label_maps, row_reader
from object_detection_ext.ava.row_reader import BOX_TOLERANCE, ParsedRow


@dataclasses.dataclass(frozen=True, slots=True)
class Region:
    """One row: a person's box with one of the person's actions.

    `box` is [ymin, xmin, ymax, xmax], normalized; `row` counts the file's lines from 1.
    """

    box: tuple[float, float, float, float]
    action_id: int
    person_id: int | str | None
    row: int


@dataclasses.dataclass(slots=True)
class Keyframe:
    """An annotated moment of a video, `timestamp` in seconds from its start.

    `row` is its first line in the file; `num_skipped` counts rows left out for an unknown action.
    """

    video_id: str
    timestamp: float
    row: int
    regions: list[Region] = dataclasses.field(default_factory=list)
    num_skipped: int = 0


@dataclasses.dataclass(frozen=True)
class Annotations:
    """All keyframes of a file, sorted by video id and time.

    `skipped_labels` counts the rows by action id that the label map does not have; `notes`
    list what was changed in reading.
    """

    path: str
    keyframes: tuple[Keyframe, ...]
    skipped_labels: Mapping[int, int]
    notes: tuple[faults.Note, ...] = ()

    def by_video(self) -> dict[str, list[Keyframe]]:
        """Returns each video's keyframes in order of time, videos sorted by id."""
        videos: dict[str, list[Keyframe]] = {}
        for keyframe in self.keyframes:
            videos.setdefault(keyframe.video_id, []).append(keyframe)
        return videos


def parse_rows(
    path: str | os.PathLike, notes: faults.Notes, box_tolerance: float = BOX_TOLERANCE
) -> Iterator[ParsedRow]:
    """Yields each line of an annotation file that is not blank, with what is wrong with it.

    Whether action ids are in a label map is for the caller to see.

    Args:
        path: the CSV file.
        notes: takes what is changed in reading.
        box_tolerance: how far outside of [0, 1] a box may reach to be cut off.

    Raises:
        faults.AnnotationError: if the file is missing or is no text.
    """
    return row_reader.read_rows(path, columns.ANNOTATIONS, notes, box_tolerance)


def read_person_boxes(
    path: str | os.PathLike, notes: faults.Notes, box_tolerance: float = BOX_TOLERANCE
) -> list[ParsedRow]:
    """Reads rows `video_id,timestamp,x1,y1,x2,y2`, whatever columns follow, or of the first two.

    Args:
        path: the CSV file.
        notes: takes what is changed in reading.
        box_tolerance: how far outside of [0, 1] a box may reach to be cut off.

    Raises:
        faults.AnnotationError: as `read_annotations`.
    """
    return _read_rows(os.fspath(path), columns.PERSON_BOXES, notes, box_tolerance)


def read_keyframes(path: str | os.PathLike, notes: faults.Notes) -> list[ParsedRow]:
    """Reads the first two columns, `video_id,timestamp`, of any of AVA's CSVs.

    Args:
        path: the CSV file; boxes may be in any unit.
        notes: takes what is changed in reading.

    Raises:
        faults.AnnotationError: as `read_annotations`.
    """
    return _read_rows(os.fspath(path), columns.KEYFRAMES, notes)


def _read_rows(
    path: str, kind: columns.Kind, notes: faults.Notes, box_tolerance: float = BOX_TOLERANCE
) -> list[ParsedRow]:
    found, bad_rows = [], faults.BadRows(path)
    for parsed in row_reader.read_rows(path, kind, notes, box_tolerance):
        if parsed.problems:
            bad_rows.add(parsed.row, parsed.problems)
        else:
            found.append(parsed)
    bad_rows.check()
    if not found:
        raise faults.AnnotationError(f"{path}: the file has no rows; each row is {kind.form}.")
    return found


def read_annotations(
    path: str | os.PathLike,
    label_map: Mapping[int, str],
    *,
    skip_unknown_labels: bool = False,
    box_tolerance: float = BOX_TOLERANCE,
) -> Annotations:
    """Reads and checks a whole annotation file.

    Args:
        path: the CSV file.
        label_map: names by action id, as `label_maps.read_label_map` gives them.
        skip_unknown_labels: leave out and count rows whose action id the label map does not have,
            as with AVA's 80-class rows and its 60-class map.
        box_tolerance: how far outside of [0, 1] a box may reach to be cut off.

    Raises:
        faults.AnnotationError: if the file cannot be read or is empty, or with a list of all bad
            rows (the first 20 in words).
    """
    path = os.fspath(path)
    keyframes: dict[tuple[str, float], Keyframe] = {}
    bad_rows, notes = faults.BadRows(path), faults.Notes()
    skipped: dict[int, int] = {}
    for parsed in parse_rows(path, notes, box_tolerance):
        problems: list[object] = list(parsed.problems)
        action_id = parsed.action_id
        unknown = action_id is not None and action_id not in label_map
        if unknown and not skip_unknown_labels:
            problems.append(label_maps.unknown_action(action_id, label_map))
        if problems:
            bad_rows.add(parsed.row, problems)
            continue
        key = (parsed.video_id, parsed.seconds)
        keyframe = keyframes.setdefault(key, Keyframe(*key, parsed.row))
        if unknown:
            keyframe.num_skipped += 1
            skipped[action_id] = skipped.get(action_id, 0) + 1
        elif action_id is not None:
            x1, y1, x2, y2 = parsed.corners
            region = Region((y1, x1, y2, x2), action_id, parsed.person_id, parsed.row)
            keyframe.regions.append(region)
    bad_rows.check()
    if not keyframes:
        raise faults.AnnotationError(
            f"{path}: the file has no rows; each row is {columns.ANNOTATIONS.form}."
        )
    in_order = tuple(keyframes[key] for key in sorted(keyframes))
    return Annotations(path, in_order, skipped, notes.all())
