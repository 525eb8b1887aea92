# SPDX-License-Identifier: Apache-2.0
"""Spacings of keyframes whose times are rounded to few decimals: rates, gaps, short videos."""

import fractions
import math

import numpy as np
import pytest

from object_detection_ext.evaluation import moments, spacing

_NTSC = {23.976: (24000, 1001), 29.97: (30000, 1001), 59.94: (60000, 1001)}


def _exact(rate):
    return float(fractions.Fraction(*_NTSC.get(rate, (rate, 1))))


def _times(frames, rate, decimals, first=0.0, rounds=round):
    """Times of frames as a file has them."""
    scale = 10**decimals
    return [rounds((first + k / _exact(rate)) * scale + 1e-6) / scale for k in frames]


def _number(times, **others):
    """The moments of a video; `others` are more videos."""
    listed = [("v", t) for t in times] + [(v, t) for v, ts in others.items() for t in ts]
    return moments.number_moments(listed, frozenset(), "g.csv")["v"]


@pytest.mark.parametrize("rounds", [round, math.floor], ids=["rounded", "cut off"])
@pytest.mark.parametrize("first", [0.0, 12.3417, 902.0])
@pytest.mark.parametrize("rate", [59.94, 60, 72, 90, 50, 48, 40, 30, 29.97, 25, 24, 23.976, 15])
def test_frames_of_every_rate_with_two_decimals(rate, first, rounds):
    found = _number(_times(range(300), rate, 2, first, rounds))
    assert found.spacing == pytest.approx(1 / _exact(rate), rel=2e-3)
    assert found.numbers.tolist() == list(range(300))
    assert not found.may_be_rounded


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("rate", [60, 29.97, 25, 1])
def test_gaps_are_counted_at_two_decimals(rate, seed):
    """People come and go: runs of frames, and times without any."""
    rng, frames, start = np.random.default_rng(seed), [], 0
    for _ in range(6):
        start += int(rng.integers(2, 200))
        length = int(rng.integers(12, 120))
        frames += range(start, start + length)
        start += length
    found = _number(_times(frames, rate, 2))
    assert found.spacing == pytest.approx(1 / _exact(rate), rel=5e-3)
    steps, wanted = np.diff(found.numbers), np.diff(frames)
    assert (steps[wanted == 1] == 1).all() and (steps[wanted > 1] > 1).all()


def test_times_that_were_rounded_to_milliseconds_before():
    """As WebM has them."""
    times = [round(round(k / 60, 3) + 1e-9, 2) for k in range(200)]
    found = _number(times)
    assert found.numbers.tolist() == list(range(200))


def test_one_decimal_and_seven_frames_per_second():
    found = _number(_times(range(100), 7, 1))
    assert found.spacing == pytest.approx(1 / 7, rel=2e-3)
    assert found.numbers.tolist() == list(range(100))


@pytest.mark.parametrize("unit", [1.0, 0.1, 0.01], ids=["1 fps", "10 fps", "100 fps"])
@pytest.mark.parametrize("part", [0.1, 0.5, 0.9])
def test_keyframes_that_were_left_out_stay_missing(unit, part):
    """Differences of 1 and 2 units as well, but off any even grid."""
    kept = np.random.default_rng(int(100 * part)).random(400) > part * 0.6
    frames = np.flatnonzero(kept)
    found = _number(np.round(frames * unit, 6).tolist())
    assert found.spacing == pytest.approx(unit)
    assert found.numbers.tolist() == (frames - frames[0]).tolist()
    assert not found.may_be_rounded


def test_whole_seconds_are_never_taken_for_rounded():
    """AVA's are one a second; of these, every third is left out."""
    seconds = [second for second in range(902, 1100) if second % 3]
    found = _number(seconds)
    assert found.spacing == 1 and not found.may_be_rounded


def test_short_videos_are_seen_together():
    clips = {f"clip{i}": _times(range(9), 60, 2, i / 7) for i in range(12)}
    found = _number(_times(range(9), 60, 2), **clips)
    assert found.spacing == pytest.approx(1 / 60, rel=1e-2)
    assert found.numbers.tolist() == list(range(9))


def test_one_short_video_is_doubtful():
    found = _number(_times(range(9), 60, 2))
    assert found.may_be_rounded
    assert found.spacing == pytest.approx(0.01)


def test_a_spacing_of_several_units():
    (found,) = spacing.measure({"v": np.array(_times(range(50), 29.97, 2))}).values()
    assert found.seconds == pytest.approx(1.001 / 30, rel=1e-2)
    assert spacing.measure({"v": np.array([3.0])})["v"] == spacing.Spacing(None)


def test_long_videos_take_milliseconds():
    """An hour at 60 fps, with two decimals."""
    found = spacing.measure({"v": np.array(_times(range(216_000), 60, 2))})["v"]
    assert found.seconds == pytest.approx(1 / 60, rel=1e-5)


@pytest.mark.parametrize("first", [0.0, 12.3417])
@pytest.mark.parametrize("rate", [59.94, 60, 50, 30, 29.97, 25, 24, 23.976, 15, 7])
def test_frames_before_between_and_after_those_that_are_listed(rate, first):
    """Detections that are rounded as the ground truth is lie at the frames that they are of."""
    listed = [*range(40, 90), *range(110, 160)]
    # Frames in a gap may come after a time without anybody: which they are nobody knows.
    times = _times(range(200), rate, 2, first)
    found = _number([times[k] for k in listed])
    placed = found.place(np.array(times))
    assert placed.exists.all()
    frames = [*range(100), *range(105, 200)]
    shift = np.where(np.array(frames) < 100, placed.numbers[50] - 50, placed.numbers[150] - 150)
    assert (placed.numbers[frames] - shift).tolist() == frames
    assert placed.is_listed.nonzero()[0].tolist() == listed
    assert (np.abs(placed.seconds - times) < 0.0101).all()


def test_times_half_way_between_rounded_frames_are_none():
    """Detections at twice the rate of the ground truth."""
    found = _number(_times(range(40, 90), 15, 2))
    exists = found.place(np.array(_times(range(60, 200), 30, 2))).exists
    assert exists.tolist() == [True, False] * 70


def test_a_short_video_has_the_spacing_of_the_long_ones():
    short = _times(range(10, 30), 60, 2)
    assert _number(short).may_be_rounded
    found = _number(short, w=_times(range(100), 60, 2))
    assert found.numbers.tolist() == list(range(20)) and not found.may_be_rounded
