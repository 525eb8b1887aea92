# SPDX-License-Identifier: Apache-2.0
"""The keyframes of videos by number, so that "the next keyframe" and "a gap" mean something.

Files list keyframes by time. Tubes need to know which keyframes are neighbours and how many are
missing between two. Each video's ground truth says that: its keyframes lie a fixed time apart, its
spacing, but for those that it leaves out. Where some lie nearer, tubes are not defined.

Shapes: K keyframes that the ground truth lists of a video, N times.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from object_detection_ext import errors, listing, rates
from object_detection_ext.ava.exclusion import Exclusion
from object_detection_ext.ava.timestamps import SAME_MOMENT, Frame
from object_detection_ext.evaluation import spacing as spacing_lib

# How far a detection may be off a multiple of the spacing, as a fraction of it.
_MAX_OFF = 0.25
# The same of times that are rounded off an even grid.
_MAX_OFF_ROUNDED = 0.45
# Neighbours on each side that tell where a rounded time was.
_NEIGHBOURS = 25
# Keyframes that are not farther apart than this fraction of the spacing are not of one spacing.
# `--every` keeps none that are.
_LEAST_APART = 0.5005
# Spacings are measured; over many keyframes without a listed one, their errors add up.
_DRIFT = 0.005
EVEN_SPACING = (
    "Tubes count keyframes, so that these must be evenly spaced: keep one keyframe per so many "
    "seconds (--every of the importer), or give the spacing (--spacing)."
)


@dataclass(frozen=True)
class VideoMoments:
    """The keyframes of one video.

    Attributes:
        seconds: float64 [K], ascending, of those that the ground truth lists.
        numbers: int64 [K], which keyframe each is; neighbours differ by 1. Excluded keyframes are
            not counted and have no number of their own.
        is_excluded: bool [K], which of them do not count.
        spacing: seconds from one keyframe to the next.
        may_be_rounded: whether the times may as well be those of a wider spacing, rounded.
        even: float64 [K], the times without their rounding, as far as neighbours tell; None where
            they are not rounded off an even grid.
        unit: the last decimal of such times, in seconds.
    """

    seconds: np.ndarray
    numbers: np.ndarray
    is_excluded: np.ndarray
    spacing: float
    may_be_rounded: bool = False
    even: np.ndarray | None = None
    unit: float = 0.0

    def place(self, seconds: np.ndarray) -> "Places":
        """Finds times among the keyframes.

        Args:
            seconds: float64 [N], of another file on the same video.
        """
        after = np.clip(np.searchsorted(self.seconds, seconds), 0, len(self.seconds) - 1)
        before = np.maximum(after - 1, 0)
        nearer = np.abs(self.seconds[before] - seconds) < np.abs(self.seconds[after] - seconds)
        nearest = np.where(nearer, before, after)
        off_listed = np.abs(seconds - self.seconds[nearest])
        even = self.seconds if self.even is None else self.even
        distance = seconds - even[nearest]
        steps = np.rint(distance / self.spacing).astype(np.int64)
        most = (_MAX_OFF if self.even is None else _MAX_OFF_ROUNDED) * self.spacing
        allowed = np.minimum(SAME_MOMENT + _DRIFT * np.abs(distance) + self.unit, most)
        # As `timestamps.Moments` has it.
        is_there = off_listed < min(SAME_MOMENT, _MAX_OFF * self.spacing) - 1e-9
        steps[is_there] = 0
        off = np.abs(distance - steps * self.spacing)
        exists = np.where(steps == 0, is_there, off < allowed - 1e-9)
        # Counting backwards from a keyframe without a number, the first step is to itself.
        numbers = self.numbers[nearest] + steps + self.is_excluded[nearest] * (steps < 0)
        there = np.round(even[nearest] + steps * self.spacing, 6)
        is_listed = exists & (steps == 0)
        return Places(numbers, np.where(is_listed, self.seconds[nearest], there), is_listed, exists)


@dataclass(frozen=True)
class Places:
    """Where times are among the keyframes of a video.

    Attributes:
        numbers: int64 [N], which keyframe; meaningless where there is none.
        seconds: float64 [N], its time in the ground truth, or where it would be.
        is_listed: bool [N], whether the ground truth lists it.
        exists: bool [N], whether there is a keyframe at that time, listed or not.
    """

    numbers: np.ndarray
    seconds: np.ndarray
    is_listed: np.ndarray
    exists: np.ndarray


def number_moments(
    frames: Sequence[Frame],
    excluded: frozenset[Frame],
    name: str,
    spacing: float | None = None,
) -> dict[str, VideoMoments]:
    """The keyframes of each video that the ground truth lists.

    Args:
        frames: (video id, seconds) of the ground truth, in any order.
        excluded: frames that do not count.
        name: of the ground truth, for messages.
        spacing: seconds from one keyframe to the next; None: each video's own.

    Returns:
        By video id, in order of appearance.

    Raises:
        InputError: for keyframes of a video that are nearer than half its spacing; names video and
            times. For a given spacing that is not at least 0.001.
    """
    if spacing is not None:
        rates.check(rates.spacing_faults("--spacing", spacing))
    times: dict[str, list[float]] = {}
    for video, seconds in frames:
        times.setdefault(video, []).append(seconds)
    ascending = {video: np.unique(np.array(listed, float)) for video, listed in times.items()}
    if spacing is None:
        found = spacing_lib.measure(ascending)
    else:
        found = dict.fromkeys(ascending, spacing_lib.Spacing(spacing))
    usual = float(np.median([own.seconds for own in found.values() if own.seconds] or [1.0]))
    left_out: dict[str, list[float]] = {}
    for video, seconds in Exclusion(excluded, frames).left_out:
        left_out.setdefault(video, []).append(seconds)
    moments = {}
    for video, listed in ascending.items():
        own = found[video].seconds or usual
        longest = found[video].longest
        if not longest:
            _check_apart(listed, own, name, video, is_given=spacing is not None)
        steps = _steps(np.diff(listed), own, longest)
        out = np.isin(listed, left_out.get(video, ()))
        # Keyframes that do not count are not missing between their neighbours either.
        numbers = np.concatenate([[0], np.cumsum(steps)])
        even, unit = _without_rounding(listed, numbers, own)
        moments[video] = VideoMoments(
            listed, numbers - np.cumsum(out), out, own, found[video].may_be_rounded, even, unit
        )
    return moments


def _without_rounding(
    seconds: np.ndarray, numbers: np.ndarray, spacing: float
) -> tuple[np.ndarray | None, float]:
    """Where times were before they were rounded, float64 [K], and the unit of their last decimal.

    (None, 0.0) for times that are on their grid, or are off it by more than rounding.

    Args:
        seconds: float64 [K], ascending.
        numbers: int64 [K], which keyframe each is; all count.
        spacing: seconds from one keyframe to the next.
    """
    unit = spacing_lib.last_decimal(seconds)
    if not SAME_MOMENT < unit < spacing:
        return None, 0.0
    residual = seconds - spacing * numbers
    # After a time without anybody, keyframes may resume at any time.
    run = np.concatenate([[0], np.cumsum(np.diff(numbers) != 1)])
    index = np.arange(len(seconds))
    first = np.maximum(np.searchsorted(run, run, side="left"), index - _NEIGHBOURS)
    last = np.minimum(np.searchsorted(run, run, side="right"), index + _NEIGHBOURS + 1)
    sums = np.concatenate([[0.0], np.cumsum(residual)])
    even = spacing * numbers + (sums[last] - sums[first]) / (last - first)
    off = np.abs(even - seconds).max()
    return (even, unit) if 0.1 * unit < off < unit else (None, 0.0)


def _check_apart(
    seconds: np.ndarray, spacing: float, name: str, video: str, is_given: bool
) -> None:
    """Raises InputError for keyframes that are nearer than half the spacing."""
    apart = np.diff(seconds)
    near = np.flatnonzero(apart < _LEAST_APART * spacing)
    if len(near):
        first = near[0]
        between = "a spacing of" if is_given else "others that are"
        raise errors.InputError(
            f"{name}: video {video!r}: the keyframes at {seconds[first]:g} s and "
            f"{seconds[first + 1]:g} s are {apart[first]:g} s apart, which does not go with "
            f"{between} {spacing:g} s{'' if is_given else ' apart'} ("
            f"{listing.counted(len(near), 'such pair')}). {EVEN_SPACING}"
        )


def _steps(apart: np.ndarray, spacing: float, longest: float) -> np.ndarray:
    """How many keyframes each listed one comes after the one before, int64 [K - 1].

    After a time without anybody, keyframes may resume at any time.
    """
    # Half a keyframe more is none that is missing.
    steps = np.maximum(np.rint(apart / spacing - 0.1), 1).astype(np.int64)
    return np.where(apart < longest, 1, steps)
