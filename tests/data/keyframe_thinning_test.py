# SPDX-License-Identifier: Apache-2.0
"""The choice of keyframes of dense tracks, by hand and against a plain loop."""

import random

import pytest

from object_detection_ext import errors
from object_detection_ext.data import keyframe_thinning


def _kept_by_a_plain_loop(times, every):
    """The docstring's rule, word for word."""
    kept = []
    for _ in range(len(times)):
        if not kept:
            kept.append(min(times))
            continue
        later = [time for time in times if time > kept[-1] + every / 2]
        if later:
            kept.append(min(later, key=lambda time: (abs(time - kept[-1] - every), time)))
    return kept


def test_one_keyframe_a_second_of_every_frame():
    times = [frame / 25 for frame in range(101)]
    assert keyframe_thinning.kept_times(times, 1.0) == [0.0, 1.0, 2.0, 3.0, 4.0]


def test_frame_rates_that_do_not_divide_a_second():
    times = [round(frame * 1001 / 30000, 6) for frame in range(105)]
    assert keyframe_thinning.kept_times(times, 1.0) == [0.0, 1.001, 2.002, 3.003]


def test_keyframes_that_are_apart_already_are_all_kept():
    times = [0.0, 0.9999, 2.0, 2.8, 4.1]
    assert keyframe_thinning.kept_times(times, 1.0) == times


def test_after_a_gap_the_first_one_is_kept():
    times = [0.0, 0.1, 7.33, 7.4, 8.3, 8.4]
    assert keyframe_thinning.kept_times(times, 1.0) == [0.0, 7.33, 8.3]


def test_order_and_repetitions_do_not_matter():
    assert keyframe_thinning.kept_times([2.0, 0.0, 1.0, 1.0, 0.5], 1.0) == [0.0, 1.0, 2.0]
    assert keyframe_thinning.kept_times([], 1.0) == []


def test_of_two_equally_near_the_earlier_is_kept():
    assert keyframe_thinning.kept_times([0.0, 0.75, 1.25], 1.0) == [0.0, 0.75]


@pytest.mark.parametrize("seed", range(5))
def test_against_a_plain_loop(seed):
    draw = random.Random(seed)
    times = [draw.uniform(0, 20) for _ in range(60)]
    every = draw.uniform(0.1, 4)
    assert keyframe_thinning.kept_times(times, every) == _kept_by_a_plain_loop(times, every)


@pytest.mark.parametrize("every", [0.0, -1.0, 1e-9, float("nan"), float("inf")])
def test_what_is_no_number_of_seconds_is_refused(every):
    with pytest.raises(errors.InputError, match="--every must be at least 0.001 seconds"):
        keyframe_thinning.kept_times([0.0], every)
