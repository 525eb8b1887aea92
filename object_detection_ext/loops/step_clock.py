# SPDX-License-Identifier: Apache-2.0
"""What a training step is doing and how long: waiting for input, or computing.

TensorFlow's threads report when a batch arrives and when a step is done; see instruments.py.
"""

import collections
import contextlib
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

INPUT, DEVICE = "input", "the device"

# A step of more than so many medians is reported.
_SLOW = 10.0
_MEDIAN_OF = 101
_MIN_STEPS = 3
# Shorter ones nobody would notice.
_SLOW_SECONDS = 2.0


class CallTimes(NamedTuple):
    """Seconds of one call of the stock loop's step function, and of them the wait for input."""

    seconds: float
    input_wait: float


class StepClock:
    """Measures the steps of a training.

    A step lasts from the end of the one before, or from the beginning of the call, to its own end.
    It waits for input until its batch is there. All replicas get their batches at the same time, so
    the first replica's times are taken.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic):
        """Takes the clock, in seconds."""
        self._now = now
        # Held while a checkpoint is written from another thread: no batch gets past it.
        self._gate = threading.RLock()
        self._arrived: collections.Counter[int] = collections.Counter()
        self._done: collections.Counter[int] = collections.Counter()
        self._call_began: float | None = None
        self._step_began: float | None = None
        self._wait = 0.0
        self._has_ended_a_call = False
        self._durations: collections.deque[float] = collections.deque(maxlen=_MEDIAN_OF)

    @property
    def has_begun(self) -> bool:
        """Whether a batch has reached the model: the graph is built."""
        return bool(self._arrived) or self._has_ended_a_call

    def begin_call(self) -> None:
        """The stock loop is about to call its step function."""
        self._call_began = self._step_began = self._now()
        self._wait = 0.0

    def arrive(self, replica: int) -> None:
        """A batch has arrived at a replica; it passes when this returns."""
        # Replicas that have passed wait for this one: it must not wait for the gate.
        is_awaited = self._arrived[replica] < max(self._arrived.values(), default=0)
        with contextlib.nullcontext() if is_awaited else self._gate:
            # The first batch of all comes when the graph is built, which is not a wait for input.
            if replica == 0 and self._arrived and self._step_began is not None:
                self._wait += max(0.0, self._now() - self._step_began)
            self._arrived[replica] += 1

    def finish_step(self, replica: int) -> None:
        """A replica has done a step."""
        is_first = not self._done
        self._done[replica] += 1
        if replica == 0:
            now = self._now()
            if self._step_began is not None and not is_first:
                self._durations.append(now - self._step_began)
            self._step_began = now

    def end_call(self) -> CallTimes | None:
        """The step function has returned. None where it was the first call, or there is no time."""
        is_first, self._has_ended_a_call = not self._has_ended_a_call, True
        began, self._call_began, self._step_began = self._call_began, None, None
        if is_first or began is None:
            return None
        return CallTimes(self._now() - began, self._wait)

    @property
    def waits_for(self) -> str | None:
        """What the step waits for; None between calls."""
        if self._call_began is None:
            return None
        return INPUT if self._arrived == self._done else DEVICE

    def elapsed(self) -> float:
        """Seconds since the step began; 0 between calls."""
        began = self._step_began
        return 0.0 if began is None else self._now() - began

    def slow_limit(self) -> float | None:
        """Seconds above which a step is slow; None while there are too few to say."""
        durations = list(self._durations)
        if len(durations) < _MIN_STEPS:
            return None
        return max(_SLOW * statistics.median(durations), _SLOW_SECONDS)

    def median(self) -> float:
        """Seconds of a step, the median of the last ones."""
        return statistics.median(list(self._durations))

    @contextlib.contextmanager
    def closed(self) -> Iterator[None]:
        """Lets no batch reach the model while this lasts."""
        with self._gate:
            yield


class SlowStepWatch:
    """Reports a step that takes more than ten times the median, while it lasts."""

    def __init__(self, clock: StepClock, say: Callable[[str], None]):
        """Takes what measures the steps, and what takes a line."""
        self._clock, self._say = clock, say
        self._next_at: float | None = None

    def look(self) -> None:
        """Takes a look; reports a slow step at 10 medians, 20, 40, ..."""
        limit, elapsed = self._clock.slow_limit(), self._clock.elapsed()
        waits_for = self._clock.waits_for
        if limit is None or waits_for is None or elapsed < limit:
            self._next_at = None
            return
        if self._next_at is not None and elapsed < self._next_at:
            return
        self._next_at = 2.0 * elapsed
        self._say(
            f"training: this step has taken {elapsed:.1f} s so far, the median is "
            f"{self._clock.median():.2f} s: it waits for {waits_for}"
            + (" (the records, or the processes that read them)" if waits_for == INPUT else "")
        )

    @contextlib.contextmanager
    def watching(self, every_seconds: float = 0.5) -> Iterator[None]:
        """Looks again and again, in a thread of its own, while this lasts."""
        stopped = threading.Event()

        def watch() -> None:
            while not stopped.wait(every_seconds):
                self.look()

        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        try:
            yield
        finally:
            stopped.set()
            thread.join()
