# SPDX-License-Identifier: Apache-2.0
"""The columns of AVA's CSVs: their order without a header row, and the names that a header has."""

import dataclasses
import re
from collections.abc import Sequence

from object_detection_ext import listing
from object_detection_ext.ava.faults import AnnotationError

# Names of a header row in messages.
_MAX_LISTED = 20

_BOX = ("video_id", "timestamp", "x1", "y1", "x2", "y2")


@dataclasses.dataclass(frozen=True)
class Kind:
    """What a file holds.

    Attributes:
        columns: in the order that rows without a header have.
        required: how many of them must be there.
        form: a row, for messages.
    """

    columns: tuple[str, ...]
    required: int
    form: str


ANNOTATIONS = Kind(
    (*_BOX, "action_id", "person_id"), 7,
    ",".join(_BOX) + ",action_id,person_id (the last may be left out)",
)  # fmt: skip
DETECTIONS = Kind((*_BOX, "action_id", "score"), 7, ",".join(_BOX) + ",action_id,score")
# More columns may follow.
PERSON_BOXES = Kind(_BOX, 6, ",".join(_BOX))
MOMENTS = Kind(_BOX[:2], 2, "video_id,timestamp")
# Of a file of any of these kinds; more columns may follow.
KEYFRAMES = Kind(_BOX[:2], 2, "video_id,timestamp, whatever columns follow")
# Times to add to those of a video.
OFFSETS = Kind(_BOX[:2], 2, "video_id,seconds")

# By column the names that mean it: those of a group before those of the next.
_NAMES: dict[str, tuple[tuple[str, ...], ...]] = {
    "video_id": (
        ("video_id",), ("video_name", "videoid", "clip_id", "vid"),
        ("video", "clip", "file", "filename", "file_name"),
    ),
    "timestamp": (
        ("timestamp",),
        ("time_stamp", "timestamp_s", "timestamp_sec", "timestamp_seconds", "frame_timestamp"),
        ("time", "time_s", "time_sec", "time_seconds", "second", "seconds", "sec"),
        ("offset", "offset_s", "offset_seconds", "time_offset", "time_offset_seconds"),
    ),
    "x1": (("x1",), ("xmin", "x_min", "left")),
    "y1": (("y1",), ("ymin", "y_min", "top")),
    "x2": (("x2",), ("xmax", "x_max", "right")),
    "y2": (("y2",), ("ymax", "y_max", "bottom")),
    "action_id": (
        ("action_id",), ("label_id", "class_id", "category_id"),
        ("action", "label", "class", "category"),
    ),
    "person_id": (("person_id",), ("track_id", "entity_id", "instance_id"), ("person", "track")),
    "score": (("score",), ("confidence", "conf", "probability", "prob")),
}  # fmt: skip
_MEANING = {name: column for column, groups in _NAMES.items() for of in groups for name in of}


def _normalized(name: str) -> str:
    return re.sub(r"[\s.-]+", "_", name.strip().lstrip("#").strip().lower())


def is_header(fields: Sequence[str]) -> bool:
    """Whether a row has the names of a video's and of a timestamp's column."""
    found = {_MEANING.get(_normalized(field)) for field in fields}
    return {"video_id", "timestamp"} <= found


def places(fields: Sequence[str], kind: Kind, where: str) -> list[int]:
    """Where a header row has the columns of a kind: their places, those that it lacks left out.

    Only a column at the end of `kind.columns` can be lacking; or all but the first two, where the
    header row has no other.

    Args:
        fields: of the header row.
        kind: of the file.
        where: the file and the line, for messages.

    Raises:
        AnnotationError: if a column is missing, or two could be the one.
    """
    names = [_normalized(field) for field in fields]
    found, missing = [], []
    for column in kind.columns:
        place = _place(names, fields, column, where)
        if place is not None:
            found.append(place)
        elif column in kind.columns[: kind.required]:
            missing.append(column)
    # Moments alone are keyframes without people, as rows of two columns are.
    if missing and (len(found) != 2 or sum(map(bool, names)) > 2):
        raise AnnotationError(
            f"{where}: the header row has no column {' and no column '.join(missing)}; it has "
            f"{listing.in_line(fields, _MAX_LISTED)}. The columns are {kind.form}."
        )
    return found


def _place(names: Sequence[str], fields: Sequence[str], column: str, where: str) -> int | None:
    for group in _NAMES[column]:
        found = [place for place, name in enumerate(names) if name in group]
        if len(found) > 1:
            both = " and ".join(repr(fields[place]) for place in found)
            raise AnnotationError(
                f"{where}: the header row has {both}, and either could be {column}; call one of "
                f"them {column}."
            )
        if found:
            return found[0]
    return None
