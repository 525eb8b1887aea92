# SPDX-License-Identifier: Apache-2.0
"""Times that start over in the middle of a file, put on one line.

A recorder that begins anew, or `cat a.ts b.ts`, leaves files whose timestamps go back. What follows
is shown after what came before, as players show it.
"""

from collections.abc import Iterable, Iterator
from typing import TypeVar

import numpy as np

Item = TypeVar("Item")

# Less than this is disorder, or parts that overlap: such frames are left out as damage is.
_LEAST_STEP_BACK = 0.5
# After a step back that is no single wrong timestamp, the next time is at most so much later.
_LONGEST_INTERVAL = 2.0


class TimeLine:
    """Counts where times start over, and what to add to them there."""

    def __init__(self, period: float):
        """Begins at the start of a file.

        Args:
            period: seconds from one item to the next, on average.
        """
        self.restarts = 0
        self._period, self._shift = period, 0.0
        self._latest, self._interval = -np.inf, 0.0

    def joined(self, timed: Iterable[tuple[float | None, Item]]) -> Iterator[tuple[float, Item]]:
        """Yields (seconds to add to its time, item).

        One time alone that goes back is a fault of that item, not of the line.

        Args:
            timed: (seconds, item), ascending but for the places where times start over and for
                faults; None where an item has no time.
        """
        suspect = None
        for time, item in timed:
            if suspect is not None:
                if self._goes_on_from(suspect[0], time):
                    self._start_over_at(suspect[0])
                yield self._shift, suspect[1]
                suspect = None
            if time is not None and time < self._latest - _LEAST_STEP_BACK:
                suspect = time, item
                continue
            self._see(time)
            yield self._shift, item
        if suspect is not None:
            yield self._shift, suspect[1]

    def _goes_on_from(self, first: float, time: float | None) -> bool:
        return time is not None and 0 < time - first <= _LONGEST_INTERVAL and time < self._latest

    def _start_over_at(self, time: float) -> None:
        step = max(self._period, self._interval if self._interval < 1.0 else 0.0)
        self._shift += self._latest + step - time
        self._latest = time
        self.restarts += 1

    def _see(self, time: float | None) -> None:
        if time is not None and time > self._latest:
            self._interval, self._latest = time - self._latest, time
