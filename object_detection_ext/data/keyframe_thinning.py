# SPDX-License-Identifier: Apache-2.0
"""One keyframe per so many seconds of densely annotated videos (`--every`).

Tracks have a box on every frame, and neighbouring frames hardly differ: training on all of them
costs 25 times as much as on one a second and teaches little more.
"""

import bisect
from collections.abc import Iterable

from object_detection_ext import rates

# Two keyframes count as equally near within this many seconds; then the earlier one is kept.
_TIE_SECONDS = 1e-6


def check_every(every: float) -> None:
    """Checks the value of `--every`.

    Raises:
        errors.InputError: if it is not a finite number of seconds of at least 0.001.
    """
    rates.check(rates.spacing_faults("--every", every))


def kept_times(times: Iterable[float], every: float) -> list[float]:
    """Chooses the keyframes of one video that are kept.

    The first keyframe is kept. After one that is kept, the next is the one nearest to `every`
    seconds later, of those more than half of that later; so keyframes that are about `every` apart
    already are all kept, and after a gap the first one is.

    Args:
        times: of the video's keyframes, in seconds, in any order; repeated ones count once.
        every: seconds from one kept keyframe to the next.

    Returns:
        The times that are kept, ascending, as they are in `times`.

    Raises:
        errors.InputError: as `check_every`.
    """
    check_every(every)
    ascending = sorted(set(times))
    kept, current = [], 0
    while current < len(ascending):
        kept.append(ascending[current])
        current = _next(ascending, ascending[current], every)
    return kept


def _next(ascending: list[float], last: float, every: float) -> int:
    """Returns the index of the keyframe to keep after `last`; the length if there is none."""
    first = bisect.bisect_right(ascending, last + every / 2 + _TIE_SECONDS)
    after = bisect.bisect_left(ascending, last + every)
    if after <= first:
        return first
    if after == len(ascending):
        return after - 1
    early = last + every - ascending[after - 1]
    late = ascending[after] - (last + every)
    return after if late < early - _TIE_SECONDS else after - 1
