# SPDX-License-Identifier: Apache-2.0
"""Cuts tubes in time where the action is not, by the second pass of Saha et al. (BMVC 2016).

Every box of a tube is labelled action or background so that the sum is largest of the score where
the label is action, of 1 - score where it is background, and of -penalty wherever the label
changes. Viterbi's algorithm finds the labels; all tubes advance together.

Shapes: T tubes, R boxes.
"""

import numpy as np

from object_detection_ext import errors
from object_detection_ext.evaluation.tubes import Tubes, make_tubes


def trim(tubes: Tubes, penalty: float) -> Tubes:
    """Keeps the stretches of tubes that are labelled action, each as a tube of its own.

    Args:
        tubes: T tubes with scores in [0, 1].
        penalty: the cost of a change of the label, at least 0. The larger it is, the longer a dip
            of the score must be to cut a tube.

    Raises:
        InputError: for scores outside [0, 1], of which there is no background score.
    """
    if not len(tubes):
        return tubes
    low, high = tubes.box_scores.min(), tubes.box_scores.max()
    if low < 0 or high > 1:
        raise errors.InputError(
            f"Tubes can be trimmed only with scores in [0, 1], but the detections' are from "
            f"{low:g} to {high:g}."
        )
    is_action = label(tubes, penalty)
    starts = np.zeros(len(is_action), bool)
    starts[tubes.starts[:-1]] = True
    starts[1:] |= is_action[1:] != is_action[:-1]
    stretch, tube = np.cumsum(starts)[is_action], tubes.tube_of_box[is_action]
    return make_tubes(
        stretch,
        tubes.video[tube],
        tubes.classes[tube],
        tubes.moment[is_action],
        tubes.boxes[is_action],
        tubes.box_scores[is_action],
        tubes.is_found[is_action],
    )


def label(tubes: Tubes, penalty: float) -> np.ndarray:
    """Which boxes are of the action, bool [R].

    Between equals, the label stays as it is, and the last box is of the action.

    Args:
        tubes: T tubes with scores in [0, 1].
        penalty: the cost of a change of the label.
    """
    by_length = np.argsort(-tubes.lengths, kind="stable")
    first, lengths = tubes.starts[:-1][by_length], tubes.lengths[by_length]
    # How many tubes have a box at each place.
    active = len(lengths) - np.searchsorted(lengths[::-1], np.arange(lengths[0]), side="right")
    action_from_action = np.ones(len(tubes.moment), bool)
    background_from_background = np.ones(len(tubes.moment), bool)
    action = tubes.box_scores[first]
    background = 1 - action
    for place, count in enumerate(active[1:], 1):
        box = first[:count] + place
        score = tubes.box_scores[box]
        stay, change = action[:count], background[:count] - penalty
        action_from_action[box] = stay >= change
        best = np.maximum(stay, change)
        stay, change = background[:count], action[:count] - penalty
        background_from_background[box] = stay >= change
        background[:count] = np.maximum(stay, change) + 1 - score
        action[:count] = best + score
    is_action = np.zeros(len(tubes.moment), bool)
    current = action >= background  # of each tube, of the box after `place`
    for place in range(len(active) - 1, -1, -1):
        count = active[place]
        box = first[:count] + place
        is_action[box] = current[:count]
        same = np.where(current[:count], action_from_action[box], background_from_background[box])
        current[:count] = current[:count] == same
    return is_action
