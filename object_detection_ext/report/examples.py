# SPDX-License-Identifier: Apache-2.0
"""Which detections are shown: each class's surest right ones (Figure 6) and wrong ones (Figure 7).

Boxes are [ymin, xmin, ymax, xmax], normalized.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from object_detection_ext.evaluation import error_split
from object_detection_ext.evaluation.matching import ClassMatching, Matching

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Example:
    """A detection with what the ground truth says.

    Attributes:
      name: of the action.
      score: of the detection.
      kind: one of `error_split.KINDS`.
      video, seconds: the frame.
      box: of the detection.
      iou: with the person whom it overlaps most; 0 if there is nobody.
      actions: what that person does; none if it overlaps nobody.
      people: (box, actions) of everybody in the frame.
    """

    name: str
    score: float
    kind: str
    video: str
    seconds: float
    box: Box
    iou: float
    actions: tuple[str, ...]
    people: tuple[tuple[Box, tuple[str, ...]], ...]


def choose(matching: Matching, per_class: int) -> list[tuple[str, list[Example], list[Example]]]:
    """(class name, surest right detections, surest wrong ones) of each class that has any.

    Each list has up to `per_class` detections, highest score first. One of each video comes before
    a second one: frames of one video look alike.
    """
    chosen = []
    for entry in matching.classes:
        kinds = error_split.kinds_of(entry, matching.iou_threshold)
        is_right = kinds == error_split.KINDS.index(error_split.RIGHT)
        right, wrong = (
            [
                _example(matching, entry, row, error_split.KINDS[kinds[row]])
                for row in _spread(np.flatnonzero(wanted), entry, matching, per_class)
            ]
            for wanted in (is_right, ~is_right)
        )
        if right or wrong:
            chosen.append((entry.name, right, wrong))
    return chosen


def _spread(rows: Iterable[int], entry: ClassMatching, matching: Matching, limit: int) -> list[int]:
    """Up to `limit` rows, one of each video if there are as many videos, in their order."""
    first, later, seen = [], [], set()
    for row in rows:
        video = matching.selection.frames[entry.matches.detections.frame[row]][0]
        (later if video in seen else first).append(int(row))
        seen.add(video)
        if len(first) == limit:
            break
    return sorted((first + later)[:limit])


def _example(matching: Matching, entry: ClassMatching, row: int, kind: str) -> Example:
    found, people = entry.matches.detections, matching.people
    frame = int(found.frame[row])
    video, seconds = matching.selection.frames[frame]
    names = [other.name for other in matching.classes]
    start, stop = np.searchsorted(people.frame, [frame, frame + 1])
    in_frame = [
        (_box(people.boxes[q]), _names(people.actions[q], names)) for q in range(start, stop)
    ]
    iou = float(entry.person_iou[row])
    nearest = int(entry.person[row])
    actions = _names(people.actions[nearest], names) if iou > 0 else ()
    return Example(
        name=entry.name,
        score=float(found.scores[row]),
        kind=kind,
        video=video,
        seconds=seconds,
        box=_box(found.boxes[row]),
        iou=iou,
        actions=actions,
        people=tuple(in_frame),
    )


def _box(values: np.ndarray) -> Box:
    return tuple(values.tolist())


def _names(does: np.ndarray, names: Sequence[str]) -> tuple[str, ...]:
    return tuple(names[place] for place in np.flatnonzero(does))
