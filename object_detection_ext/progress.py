# SPDX-License-Identifier: Apache-2.0
"""How far a piece of work is, and how long the rest takes."""

import functools
import time
from collections.abc import Callable

INTERVAL_SECONDS = 3.0
# Below this, one decimal of the rate tells too little.
_SLOW_PER_SECOND = 0.1

_print = functools.partial(print, flush=True)


def format_seconds(seconds: float) -> str:
    """Seconds as people say them: '42 s', '3 min 20 s', '2 h 05 min'."""
    seconds = max(0, round(seconds))
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60:02d} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60:02d} min"


class Progress:
    """Says every few seconds how much is done of how much, and the time left."""

    def __init__(
        self,
        task: str,
        total: float,
        unit: str,
        report: Callable[[str], None] | None = _print,
        report_end: bool = True,
    ):
        """Starts the clock.

        Args:
            task: what is done, the first words of each line.
            total: how much there is to do.
            unit: what is counted.
            report: takes each line; None for silence.
            report_end: whether the end is reported too if the last interval is not over; without
                it, short work is silent.
        """
        self._task, self._total, self._unit = task, total, unit
        self._report, self._report_end = report, report_end
        self._start = self._last = time.monotonic()
        self._ended = False

    def update(self, done: float, note: str = "") -> None:
        """Says it if an interval has passed since the last line, or at the end.

        Args:
            done: how much of the total is done.
            note: what else to say, at the end of the line.
        """
        now = time.monotonic()
        at_end = self._report_end and done >= self._total
        if self._report is None or self._ended:
            return
        if now - self._last < INTERVAL_SECONDS and not at_end:
            return
        self._last, self._ended = now, at_end
        seconds = max(now - self._start, 1e-9)
        rate = "starting"
        if done > 0:
            left = seconds / done * max(self._total - done, 0.0)
            is_slow = done / seconds < _SLOW_PER_SECOND
            speed = f"{seconds / done:.0f} s each" if is_slow else f"{done / seconds:.1f} per s"
            rate = f"{speed}, {format_seconds(left)} left"
        self._report(
            f"{self._task}: {done:.0f}/{self._total:.0f} {self._unit}, {rate}"
            + (note and f", {note}")
        )
