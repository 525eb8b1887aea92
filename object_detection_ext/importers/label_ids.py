# SPDX-License-Identifier: Apache-2.0
"""From names of actions to ids, and keyframes to rows."""

import collections
import dataclasses
import difflib
from collections.abc import Iterable, Mapping, Sequence

from object_detection_ext import listing, printable
from object_detection_ext.importers import model, placing


@dataclasses.dataclass(frozen=True, slots=True, order=True)
class Row:
    """A row of an AVA-style CSV: a person with one of its actions, or a keyframe without people.

    `box` is [ymin, xmin, ymax, xmax], normalized; it and `action_id` are None without people.
    """

    seconds: float
    person: int | None = None
    action_id: int | None = None
    box: tuple[float, float, float, float] | None = None


def new_label_map(names: Iterable[str]) -> dict[int, str]:
    """Numbers names from 1, in their order.

    Raises:
        model.ImportFault: if a name is empty, or has control characters.
    """
    names = list(names)
    for name in names:
        if not name.strip() or printable.in_one_line(name) != name:
            raise model.ImportFault(
                f"an action is called '{printable.in_one_line(name)}'; a name must not be empty, "
                "nor have control characters. Rename it in the annotation tool."
            )
    return dict(enumerate(names, start=1))


def check_known(
    videos: Sequence[placing.PlacedVideo], label_map: Mapping[int, str], path: str
) -> None:
    """Checks that a label map has the actions of all people.

    Raises:
        model.ImportFault: if not, with the number of people of each unknown one and what is near.
    """
    known = set(label_map.values())
    unknown = collections.Counter(
        name
        for video in videos
        for people in video.keyframes.values()
        for person in people
        for name in person.actions
        if name not in known
    )
    faults = []
    for name, count in unknown.most_common():
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"; is it '{near[0]}'?" if near else ""
        faults.append(
            f"'{printable.in_one_line(name)}' of {listing.counted(count, 'box', 'boxes')}{hint}"
        )
    model.raise_faults(
        faults,
        f"{path}: actions that the label map does not have (--skip_unknown_labels leaves them out)",
    )


def rows_of(
    video: placing.PlacedVideo, label_map: Mapping[int, str], notes: collections.Counter[str]
) -> list[Row]:
    """The rows of a video in order of time; repeated ones once, counted.

    People are numbered from 0 in order of appearance. Actions that the label map does not have are
    left out, counted, and so are keyframes of which nobody is left.
    """
    ids = {name: number for number, name in label_map.items()}
    people_ids: dict[object, int] = {}
    rows: list[Row] = []
    for time in sorted(video.keyframes):
        people = video.keyframes[time]
        if not people:
            rows.append(Row(time))
            continue
        found: dict[Row, None] = {}
        for person in people:
            number = None
            if person.person is not None:
                number = people_ids.setdefault(person.person, len(people_ids))
            for name in person.actions:
                if name not in ids:
                    notes[f"action '{name}', which the label map does not have, was left out"] += 1
                    continue
                row = Row(time, number, ids[name], person.box)
                notes["rows that stand twice were written once"] += row in found
                found[row] = None
        if not found:
            notes["keyframes of which no person has an action of the label map were left out"] += 1
        rows += found
    return rows
