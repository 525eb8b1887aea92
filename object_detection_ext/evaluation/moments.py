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

from object_detection_ext import errors
from object_detection_ext.ava.exclusion import Exclusion
from object_detection_ext.ava.timestamps import SAME_MOMENT, Frame

# How far a detection may be off a multiple of the spacing, as a fraction of it.
_MAX_OFF = 0.25
# Keyframes that are not farther apart than this fraction of the spacing are not of one spacing.
# `--every` keeps none that are.
_LEAST_APART = 0.5005
# How far multiples may be off, as a fraction of the smallest difference.
_MAX_OFF_MULTIPLE = 0.02
# Of all differences, how many are about the spacing; others are gaps, or come after one.
_FREQUENT = 0.2
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
    """

    seconds: np.ndarray
    numbers: np.ndarray
    is_excluded: np.ndarray
    spacing: float

    def place(self, seconds: np.ndarray) -> "Places":
        """Finds times among the keyframes.

        Args:
            seconds: float64 [N], of another file on the same video.
        """
        after = np.clip(np.searchsorted(self.seconds, seconds), 0, len(self.seconds) - 1)
        before = np.maximum(after - 1, 0)
        nearer = np.abs(self.seconds[before] - seconds) < np.abs(self.seconds[after] - seconds)
        nearest = np.where(nearer, before, after)
        distance = seconds - self.seconds[nearest]
        steps = np.rint(distance / self.spacing).astype(np.int64)
        off = np.abs(distance - steps * self.spacing)
        allowed = np.minimum(
            SAME_MOMENT + _DRIFT * np.abs(distance) * (steps != 0), _MAX_OFF * self.spacing
        )
        exists = off < allowed - 1e-9  # as `timestamps.Moments` has it
        # Counting backwards from a keyframe without a number, the first step is to itself.
        numbers = self.numbers[nearest] + steps + self.is_excluded[nearest] * (steps < 0)
        there = np.round(self.seconds[nearest] + steps * self.spacing, 6)
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
            times.
    """
    if spacing is not None and not 0 < spacing < float("inf"):
        raise errors.InputError(f"spacing is {spacing}, but must be more than 0 seconds.")
    times: dict[str, list[float]] = {}
    for video, seconds in frames:
        times.setdefault(video, []).append(seconds)
    ascending = {video: np.unique(np.array(listed, float)) for video, listed in times.items()}
    found = {video: spacing or _measured_spacing(listed) for video, listed in ascending.items()}
    usual = float(np.median([value for value in found.values() if value] or [1.0]))
    left_out: dict[str, list[float]] = {}
    for video, seconds in Exclusion(excluded, frames).left_out:
        left_out.setdefault(video, []).append(seconds)
    moments = {}
    for video, listed in ascending.items():
        own = found[video] or usual
        steps = _steps(listed, own, name, video, is_given=spacing is not None)
        out = np.isin(listed, left_out.get(video, ()))
        # Keyframes that do not count are not missing between their neighbours either.
        numbers = np.concatenate([[0], np.cumsum(steps)]) - np.cumsum(out)
        moments[video] = VideoMoments(listed, numbers, out, own)
    return moments


def _measured_spacing(seconds: np.ndarray) -> float | None:
    """The smallest difference if all are multiples of it, else the smallest that is frequent.

    The median where none is; None for one keyframe.
    """
    apart = np.sort(np.diff(seconds))
    if not len(apart):
        return None
    multiples = apart / apart[0]
    alike = np.searchsorted(apart, 1.1 * apart, side="right") - np.arange(len(apart))
    frequent = np.flatnonzero(alike >= max(2, _FREQUENT * len(apart)))
    if (np.abs(multiples - np.rint(multiples)) < _MAX_OFF_MULTIPLE).all():
        least = apart[0]
    elif len(frequent):
        least = apart[frequent[0]]
    else:
        return float(np.median(apart))
    # The mean, as times with few decimals are rounded up or down.
    return float(np.mean(apart[(apart >= least) & (apart < 1.5 * least)]))


def _steps(
    seconds: np.ndarray, spacing: float, name: str, video: str, is_given: bool
) -> np.ndarray:
    """How many keyframes each listed one comes after the one before, int64 [K - 1].

    After a time without anybody, keyframes may resume at any time.
    """
    apart = np.diff(seconds)
    near = np.flatnonzero(apart < _LEAST_APART * spacing)
    if len(near):
        first = near[0]
        between = "a spacing of" if is_given else "others that are"
        raise errors.InputError(
            f"{name}: video {video!r}: the keyframes at {seconds[first]:g} s and "
            f"{seconds[first + 1]:g} s are {apart[first]:g} s apart, which does not go with "
            f"{between} {spacing:g} s{'' if is_given else ' apart'} ({len(near)} such "
            f"pairs). {EVEN_SPACING}"
        )
    # Half a keyframe more is none that is missing.
    return np.maximum(np.rint(apart / spacing - 0.1), 1).astype(np.int64)
