# SPDX-License-Identifier: Apache-2.0
"""How far apart the keyframes of videos are, from times as a text file has them.

Times are rounded to a few decimals, so differences of neighbours are not all equal: at 60 frames
per second and with two decimals they are 0.01 or 0.02 s. Read plainly, that is a spacing of 0.01 s
with keyframes left out. What distinguishes the two: times that were rounded stay within the
rounding of an even grid over a whole video, those of keyframes that somebody left out do not.

Shapes: K keyframes of a video, in ascending order.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

_MAX_DECIMALS = 6
# How far multiples may be off, as a fraction of the smallest difference.
_MAX_OFF_MULTIPLE = 0.02
# Of all differences, how many are about the spacing; others are gaps, or come after one.
_FREQUENT = 0.2
# Fewer differences of two neighbouring values may be on an even grid by chance. Of 30 drawn at
# random, fewer than 1 in 100 are.
_MIN_DIFFERENCES, _MIN_OF_EACH = 30, 5
# The search for the grid halves an interval this often.
_HALVINGS = 50
# How wide the band around the grid may be, in units of the last decimal. Rounding makes one; a
# video's own times are often rounded too, to milliseconds.
_MAX_WIDTH = 1.15


@dataclass(frozen=True)
class Spacing:
    """The spacing of one video.

    Attributes:
        seconds: from one keyframe to the next; None for a video with one keyframe.
        longest: keyframes up to so many seconds apart are neighbours, where rounding makes them
            differ by more than half the spacing; else 0.
        may_be_rounded: whether the times may as well be those of a wider spacing, rounded; there
            are too few keyframes to see.
    """

    seconds: float | None
    longest: float = 0.0
    may_be_rounded: bool = False


@dataclass(frozen=True)
class _Steps:
    """The times of a video in units of their last decimal.

    `apart` [K - 1] are the differences, `unit` is in seconds.
    """

    apart: np.ndarray
    unit: float

    @property
    def is_doubtful(self) -> bool:
        """Whether both 1 and 2 units are differences, of times that are not whole seconds."""
        return self.unit < 1 and bool((self.apart == 1).any() and (self.apart == 2).any())


def measure(times: Mapping[str, np.ndarray]) -> dict[str, Spacing]:
    """Measures the spacing of each video.

    Args:
        times: by video id, float64 [K], seconds, ascending and distinct.
    """
    steps = {video: _in_units(seconds) for video, seconds in times.items()}
    doubtful = {video: own for video, own in steps.items() if own.is_doubtful}
    rounded = {video: _rounded([own]) for video, own in doubtful.items()}
    rest = {video: own for video, own in doubtful.items() if rounded[video] is None}
    # Short videos are seen together, and with the others, if they have one spacing.
    for unit in {own.unit for own in rest.values()}:
        alike = [video for video, own in rest.items() if own.unit == unit]
        others = [v for v, own in doubtful.items() if own.unit == unit and v not in rest]
        short = [rest[video] for video in alike]
        together = _rounded(short)
        if together is None and others:
            together = _rounded([*short, *(doubtful[video] for video in others)])
        rounded.update(dict.fromkeys(alike, together))
    found = {}
    for video, seconds in times.items():
        if rounded.get(video) is not None:
            found[video] = Spacing(rounded[video], longest=2.5 * steps[video].unit)
        else:
            may_be = video in doubtful and _grid([doubtful[video]]) is not None
            found[video] = Spacing(
                _plain(np.diff(seconds), steps[video].unit), may_be_rounded=may_be
            )
    return found


def last_decimal(seconds: np.ndarray) -> float:
    """The unit of the last decimal of times, in seconds."""
    return _in_units(seconds).unit


def _in_units(seconds: np.ndarray) -> _Steps:
    for decimals in range(_MAX_DECIMALS + 1):
        scaled = seconds * 10.0**decimals
        whole = np.rint(scaled)
        if (np.abs(scaled - whole) < 1e-3).all():
            break
    return _Steps(np.diff(whole).astype(np.int64), 10.0**-decimals)


def _rounded(videos: Sequence[_Steps]) -> float | None:
    """The spacing of videos, of one unit, whose times are of one even grid but for rounding.

    None if they are not, or if too few differences show it.
    """
    apart = np.concatenate([own.apart for own in videos])
    ones, twos = int((apart == 1).sum()), int((apart == 2).sum())
    if ones + twos < _MIN_DIFFERENCES or min(ones, twos) < _MIN_OF_EACH:
        return None
    grid = _grid(videos)
    return None if grid is None else grid * videos[0].unit


def _grid(videos: Sequence[_Steps]) -> float | None:
    """Units from one keyframe to the next, between 1 and 2; None if no grid fits.

    Times without a difference of more than 2 units between them are one run; each has a grid of its
    own, but all have the same spacing.
    """
    apart = np.concatenate([np.concatenate([[0], own.apart]) for own in videos])
    is_start = np.concatenate([[True], np.zeros(len(apart) - 1, bool)]) | (apart > 2) | (apart == 0)
    starts, units = np.flatnonzero(is_start), np.cumsum(apart)
    index = np.arange(len(units))

    def width(spacing: float) -> float:
        off = units - spacing * index
        return float((np.maximum.reduceat(off, starts) - np.minimum.reduceat(off, starts)).max())

    low, high = 1.0, 2.0
    for _ in range(_HALVINGS):  # the width is convex
        third = (high - low) / 3
        if width(low + third) < width(high - third):
            high -= third
        else:
            low += third
    return (low + high) / 2 if width((low + high) / 2) <= _MAX_WIDTH else None


def _plain(apart: np.ndarray, unit: float) -> float | None:
    """The smallest difference if all are multiples of it, else the smallest that is frequent.

    The median where none is; None for one keyframe.

    Args:
        apart: float64 [K - 1], differences in seconds.
        unit: the last decimal of the times, in seconds.
    """
    if not len(apart):
        return None
    apart = np.sort(apart)
    multiples = apart / apart[0]
    alike = np.searchsorted(apart, 1.1 * apart, side="right") - np.arange(len(apart))
    frequent = np.flatnonzero(alike >= max(2, _FREQUENT * len(apart)))
    if (np.abs(multiples - np.rint(multiples)) < _MAX_OFF_MULTIPLE).all():
        least = apart[0]
    elif len(frequent):
        least = apart[frequent[0]]
    else:
        return float(np.median(apart))
    # The mean, as times with few decimals are rounded up or down: by one unit, which of differences
    # of two is half.
    most = least * 1.5
    if least > 1.5 * unit:
        most = max(most, least + 1.5 * unit)
    return float(np.mean(apart[(apart >= least) & (apart < most)]))
