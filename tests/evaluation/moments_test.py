# SPDX-License-Identifier: Apache-2.0
"""Keyframes by number: spacings, gaps, rounded times, and times that are no keyframe."""

import numpy as np
import pytest

from object_detection_ext import errors
from object_detection_ext.data import keyframe_thinning
from object_detection_ext.evaluation import moments


def _number(seconds, excluded=(), spacing=None):
    frames = [("v", time) for time in seconds]
    found = moments.number_moments(
        frames, frozenset(("v", time) for time in excluded), "g.csv", spacing
    )
    return found["v"]


@pytest.mark.parametrize(
    ("seconds", "spacing", "numbers"),
    [
        ([902, 903, 904], 1, [0, 1, 2]),
        ([904, 902, 903, 902], 1, [0, 1, 2]),
        ([0, 2, 3, 60], 1, [0, 2, 3, 60]),
        ([0, 0.04, 0.08, 0.2], 0.04, [0, 1, 2, 5]),
        ([10, 15, 25], 5, [0, 1, 3]),
    ],
)
def test_neighbours_differ_by_one_and_gaps_count(seconds, spacing, numbers):
    found = _number(seconds)
    assert found.spacing == pytest.approx(spacing)
    assert found.numbers.tolist() == numbers


@pytest.mark.parametrize(
    ("seconds", "numbers"),
    [
        ([0, 1, 2, 5.32, 6.32, 6.9], [0, 1, 2, 5, 6, 7]),
        ([0, 1, 1.6], [0, 1, 2]),
        ([0, 1.001, 2.002, 2.97], [0, 1, 2, 3]),
        ([0, 0.0333, 0.0833, 0.1166], [0, 1, 2, 3]),
    ],
    ids=["after a gap", "an end", "29.97 fps", "a late frame"],
)
def test_what_every_keeps_of_tracks_is_evenly_spaced(seconds, numbers):
    assert _number(seconds).numbers.tolist() == numbers


@pytest.mark.parametrize("rate", [23.976, 24, 25, 29.97, 30, 59.94, 60, 120, 240])
@pytest.mark.parametrize("decimals", [3, 6])
def test_every_frame_of_every_rate_with_few_decimals(rate, decimals):
    count = 2000
    times = [round(k / rate, decimals) for k in range(count) if k % 100 < 90]
    found = _number(times)
    assert found.numbers.tolist() == [k for k in range(count) if k % 100 < 90]
    assert found.spacing == pytest.approx(1 / rate, rel=1e-3)


def test_a_long_time_without_keyframes_is_a_gap_whatever_its_length():
    assert _number([0, 1, 2, 3602.4, 3603.4]).numbers.tolist() == [0, 1, 2, 3602, 3603]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        ([0, 1, 2, 2.3, 3, 4], "'v': the keyframes at 2 s and 2.3 s are 0.3 s apart"),
        (
            [0, 0.033, 0.0333, 0.067, 0.1],
            "0.0003 s apart, which does not go with others that are 0.033",
        ),
    ],
)
def test_keyframes_that_are_not_evenly_spaced_are_an_error(seconds, words):
    with pytest.raises(errors.InputError) as caught:
        _number(seconds)
    assert "g.csv: video " in str(caught.value)
    assert words in str(caught.value)
    assert "--every" in str(caught.value)


def test_a_given_spacing_is_used_unless_keyframes_are_nearer():
    assert _number([0, 2, 4], spacing=1.0).numbers.tolist() == [0, 2, 4]
    with pytest.raises(errors.InputError, match="0.5 s apart, which does not go with a spacing"):
        _number([0, 0.5, 1], spacing=2.0)
    with pytest.raises(errors.InputError, match="--spacing must be at least 0.001 seconds, not 0"):
        _number([0, 1], spacing=0)


def test_excluded_keyframes_are_not_missing_between_others():
    found = _number([0, 1, 2, 3, 5], excluded=[1, 2])
    assert found.numbers[~found.is_excluded].tolist() == [0, 1, 3]
    before = _number([4, 5, 6], excluded=[5]).place(np.array([3.0, 7.0]))
    assert before.numbers.tolist() == [-1, 2]
    first = _number([4, 5, 6], excluded=[4])
    assert first.numbers[1:].tolist() == [0, 1]
    assert first.place(np.array([2.0, 3.0, 5.0])).numbers.tolist() == [-2, -1, 0]


def test_a_video_with_one_keyframe_has_the_usual_spacing():
    frames = [("a", 1), ("b", 0), ("b", 0.5), ("b", 1)]
    found = moments.number_moments(frames, frozenset(), "g.csv")
    assert (found["a"].spacing, found["a"].numbers.tolist()) == (0.5, [0])
    assert moments.number_moments([("a", 7)], frozenset(), "g.csv")["a"].spacing == 1


def test_times_of_another_file():
    own = _number([0, 1, 2, 5])
    placed = own.place(np.array([0.0, 1.0004, 1.3, 3.0, 5.0, 7.0, -1.0, 9.5]))
    assert placed.exists.tolist() == [True, True, False, True, True, True, True, False]
    assert placed.is_listed.tolist() == [True, True, False, False, True, False, False, False]
    assert placed.numbers[placed.exists].tolist() == [0, 1, 3, 5, 7, -1]
    assert placed.seconds[placed.exists].tolist() == [0, 1, 3, 5, 7, -1]


def test_three_decimals_in_one_file_and_six_in_the_other_are_the_same_keyframes():
    exact = [k / 29.97 for k in range(500)]
    own = _number([round(time, 3) for time in exact])
    placed = own.place(np.round(exact, 6))
    assert placed.is_listed.all()
    assert placed.numbers.tolist() == list(range(500))


@pytest.mark.parametrize("seed", range(60))
def test_whatever_every_keeps_can_be_numbered(seed):
    rng = np.random.default_rng(seed)
    rate = rng.choice([12.5, 23.976, 25, 29.97, 30, 50, 60])
    frames, times = 0, []
    for _ in range(rng.integers(1, 6)):  # people come and go
        frames += rng.integers(1, 400)
        times += [round((frames + k) / rate, 3) for k in range(rng.integers(1, 300))]
        frames += 300
    kept = keyframe_thinning.kept_times(times, 1.0)
    found = _number(kept)
    apart = np.diff(kept)
    assert (np.diff(found.numbers)[(apart > 0.9) & (apart < 1.1)] == 1).all() or len(kept) < 4
