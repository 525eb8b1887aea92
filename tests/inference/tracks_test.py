# SPDX-License-Identifier: Apache-2.0
"""Track numbers over hand-made keyframes."""

import numpy as np
import pytest

from object_detection_ext.inference import tracks
from object_detection_ext.inference.results import Keyframe, Person


def _keyframe(time, *lefts, width=0.2):
    people = tuple(
        Person(np.array([0.2, left, 0.8, left + width]), {1: 0.5}, {1: "stand"}) for left in lefts
    )
    return Keyframe("v", time, people)


def _numbers(keyframes, **options):
    tracker = tracks.Tracker(**options)
    return [[person.track for person in tracker(keyframe).people] for keyframe in keyframes]


def test_people_keep_their_numbers_whatever_their_order():
    assert _numbers(
        [_keyframe(0.0, 0.1, 0.6), _keyframe(1.0, 0.62, 0.13), _keyframe(2.0, 0.16, 0.64, 0.4)]
    ) == [[1, 2], [2, 1], [1, 2, 3]]


def test_overlaps_are_taken_so_that_their_sum_is_the_most():
    # The right one overlaps track 1 the most, but then the left one would have none.
    assert _numbers([_keyframe(0.0, 0.30, 0.42), _keyframe(1.0, 0.22, 0.34)]) == [[1, 2], [1, 2]]


def test_who_jumps_is_somebody_new():
    assert _numbers([_keyframe(0.0, 0.1), _keyframe(1.0, 0.5)]) == [[1], [2]]
    assert _numbers([_keyframe(0.0, 0.1), _keyframe(1.0, 0.2)]) == [[1], [1]]  # IoU 1/3
    assert _numbers([_keyframe(0.0, 0.1), _keyframe(1.0, 0.2)], min_iou=0.5) == [[1], [2]]


def test_who_is_away_for_long_is_somebody_new():
    short = [_keyframe(0.0, 0.1), _keyframe(1.0), _keyframe(2.0, 0.1)]
    assert _numbers(short) == [[1], [], [1]]
    long = [_keyframe(0.0, 0.1), _keyframe(3.0, 0.1), _keyframe(4.0, 0.1)]
    assert _numbers(long) == [[1], [2], [2]]


@pytest.mark.parametrize("options", [{"min_iou": 0.0}, {"min_iou": 1.1}, {"max_gap_seconds": 0.0}])
def test_numbers_out_of_range(options):
    with pytest.raises(ValueError, match="must be"):
        tracks.Tracker(**options)
