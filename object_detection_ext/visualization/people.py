# SPDX-License-Identifier: Apache-2.0
"""From rows, one per box and action, to people with several actions.

Boxes are [ymin, xmin, ymax, xmax], normalized. Shapes: N rows of a frame.
"""

import dataclasses
from collections.abc import Container, Sequence

import numpy as np
from object_detection.utils import np_box_ops

# Rows of one person differ little: the box is refined once for all actions. Rows of two people
# overlap less, as multi-class suppression leaves them.
_SAME_PERSON_IOU = 0.7
# The usual overlap from which on a detection counts as that person's.
_MATCH_IOU = 0.5


@dataclasses.dataclass
class Person:
    """A person of a frame: box [4], scores by action id, and the row that the box was taken from.

    Annotated actions have the score 1.
    """

    box: np.ndarray
    scores: dict[int, float]
    row: int = 0


def iou(a: Sequence[float], b: Sequence[float]) -> float:
    """Returns the intersection over union of two boxes [ymin, xmin, ymax, xmax], one with area."""
    return float(np_box_ops.iou(np.asarray(a)[np.newaxis], np.asarray(b)[np.newaxis])[0, 0])


def group_people(
    boxes: np.ndarray,
    scores: np.ndarray,
    classes: np.ndarray,
    *,
    action_ids: Container[int],
    score_threshold: float,
) -> list[Person]:
    """Groups detections into people.

    Args:
      boxes: [N, 4].
      scores: [N], 0..1.
      classes: [N] action ids.
      action_ids: the known ones; the others are left out (ids that the label map skips).
      score_threshold: detections below it are left out.

    Returns:
      The people, the surest first. A person's box is that of the best detection; detections that
      overlap it by an IoU over 0.7 are the person's other actions.
    """
    boxes = np.asarray(boxes)
    people: list[Person] = []
    people_boxes = np.empty_like(boxes)  # one array, so that a row meets all people in one call
    for index in np.argsort(-np.asarray(scores), kind="stable"):
        action, score = int(classes[index]), float(scores[index])
        if score < score_threshold or action not in action_ids:
            continue
        overlaps = np_box_ops.iou(people_boxes[: len(people)], boxes[index : index + 1])[:, 0]
        best = int(np.argmax(overlaps)) if people else 0
        if not people or overlaps[best] <= _SAME_PERSON_IOU:
            box = np.clip(boxes[index], 0.0, 1.0)
            # A box of no area after clipping stands outside the frame: nobody to show.
            if np.all(box[2:] > box[:2]):
                people_boxes[len(people)] = box
                people.append(Person(box, {action: score}, int(index)))
        else:
            people[best].scores.setdefault(action, score)
    return people


def group_annotations(boxes: np.ndarray, classes: np.ndarray) -> list[Person]:
    """Groups annotated rows into people: rows with equal boxes are one person.

    Args:
      boxes: [N, 4]; rows without an area are padding and left out.
      classes: [N] action ids.

    Returns:
      The people, from left to right.
    """
    people: dict[tuple[float, ...], Person] = {}
    for row, (box, action) in enumerate(zip(boxes, classes, strict=True)):
        if np.all(box[2:] > box[:2]):
            person = people.setdefault(tuple(map(float, box)), Person(np.asarray(box), {}, row))
            person.scores[int(action)] = 1.0
    return sorted(people.values(), key=lambda person: float(person.box[1]))


def match(truth: Sequence[Person], found: Sequence[Person]) -> list[int | None]:
    """Says who of the annotated people each detected one is.

    Args:
      truth: the annotated people.
      found: the detected ones; the first ones choose first.

    Returns:
      For each detected person the index of the annotated one with the highest IoU of at least 0.5,
      None if there is none. Nobody is chosen twice.
    """
    free, matches = set(range(len(truth))), []
    for person in found:
        overlaps = {index: iou(truth[index].box, person.box) for index in sorted(free)}
        best = max(overlaps, key=overlaps.__getitem__, default=None)
        if best is not None and overlaps[best] < _MATCH_IOU:
            best = None
        free.discard(best)
        matches.append(best)
    return matches
