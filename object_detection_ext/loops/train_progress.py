# SPDX-License-Identifier: Apache-2.0
"""Progress of a training: lines with the time left, and the same scalars for TensorBoard."""

import contextlib
import logging
import re
import time
from collections.abc import Iterator

import tensorflow as tf
from object_detection import model_lib_v2

from object_detection_ext.loops import step_clock
from object_detection_ext.messages import info_logs, say
from object_detection_ext.progress import format_seconds

_REPORT_SECONDS = 5.0

_STEP_PATTERN = re.compile(r"^Step (\d+) per-step time ([\d.]+)s")
_LOSS_PATTERN = re.compile(r"'Loss/total_loss': (?:np\.float32\()?([-+.\deE]+|nan|inf)")


class StockLog:
    """Takes step and loss out of the stock loop's log messages.

    Attributes:
        loss: the total loss that was last logged; None before.
    """

    def __init__(self):
        """Nothing was logged yet."""
        self.loss: float | None = None

    def is_not_a_step(self, record: logging.LogRecord) -> bool:
        """A filter that takes the step messages out of the log, as they are reported here."""
        message = record.getMessage()
        if match := _LOSS_PATTERN.search(message):
            self.loss = float(match.group(1))
            return False
        return not _STEP_PATTERN.match(message)


@contextlib.contextmanager
def stock_log(log_every: int) -> Iterator[StockLog]:
    """Has the stock loop log every so many steps, and reads it, while this lasts."""
    stock_log_every = model_lib_v2.LOG_EVERY
    model_lib_v2.LOG_EVERY = log_every
    log = StockLog()
    try:
        with info_logs() as logger:
            logger.addFilter(log.is_not_a_step)
            try:
                yield log
            finally:
                logger.removeFilter(log.is_not_a_step)
    finally:
        model_lib_v2.LOG_EVERY = stock_log_every


class StoppedClock:
    """Stands for the `time` module in the stock loop: time that is paused does not pass.

    So the stock `steps_per_sec` is that of training alone.
    """

    def __init__(self):
        """Starts with the system's time."""
        self.paused = 0.0

    def __getattr__(self, name: str):
        """Everything else is the module's."""
        return getattr(time, name)

    def time(self) -> float:
        """Seconds since the epoch, less all pauses."""
        return time.time() - self.paused

    def monotonic(self) -> float:
        """Seconds, less all pauses."""
        return time.monotonic() - self.paused

    @contextlib.contextmanager
    def pause(self) -> Iterator[None]:
        """Stops the clock while this lasts."""
        start = time.monotonic()
        try:
            yield
        finally:
            self.paused += time.monotonic() - start

    @contextlib.contextmanager
    def installed(self) -> Iterator[None]:
        """Gives the stock loop this clock while this lasts."""
        stock_time = model_lib_v2.time
        model_lib_v2.time = self
        try:
            yield
        finally:
            model_lib_v2.time = stock_time


class Progress:
    """Prints how far a training is, every few seconds and at its end."""

    def __init__(self, done: int, total: int, batch_size: int, clock: StoppedClock):
        """Begins with a line.

        Args:
            done: steps done.
            total: steps at the end.
            batch_size: clips of a step.
            clock: stands still while training does.
        """
        self._total, self._batch_size, self._clock = total, batch_size, clock
        self._first: tuple[int, float] | None = None
        self._last_report = 0.0
        self._since_report = step_clock.CallTimes(0.0, 0.0)
        self._last_step = self._reported_step = done
        say(f"training: from step {done} to {total}")

    def update(self, step: int, loss: float | None, times: step_clock.CallTimes | None) -> None:
        """Takes a call of the stock loop's step function.

        Args:
            step: steps done.
            loss: of the last one; None if it is not known.
            times: of the call; None if it was not measured, as the first one.
        """
        now = self._clock.monotonic()
        if times is not None:
            self._write_scalars(step, times, now)
            self._since_report = step_clock.CallTimes(
                self._since_report.seconds + times.seconds,
                self._since_report.input_wait + times.input_wait,
            )
        if self._first is None:
            # The first steps hold the compilation: no measure of what comes.
            self._first = (step, now)
            self._last_step = self._reported_step = step
            say(f"training: step {step} of {self._total}{_loss(loss)}")
            return
        self._last_step = step
        if now - self._last_report < _REPORT_SECONDS and step < self._total:
            return
        seconds = self._seconds_a_step(step, now)
        left = format_seconds(seconds * (self._total - step))
        say(
            f"training: step {step} of {self._total}{_loss(loss)}, {seconds:.2f} s a step"
            f"{self._rates(step)}, {left} left"
        )
        self._last_report, self._reported_step = now, step
        self._since_report = step_clock.CallTimes(0.0, 0.0)

    def _seconds_a_step(self, step: int, now: float) -> float:
        """The mean since the first step."""
        first_step, first_time = self._first
        return (now - first_time) / max(1, step - first_step)

    def _rates(self, step: int) -> str:
        """Clips per second and the wait for input, since the line before."""
        seconds, wait = self._since_report
        if seconds <= 0.0:
            return ""
        clips = (step - self._reported_step) * self._batch_size
        return f", {clips / seconds:.3g} clips/s, {wait / seconds:.0%} waiting for input"

    def _write_scalars(self, step: int, times: step_clock.CallTimes, now: float) -> None:
        clips = (step - self._last_step) * self._batch_size
        seconds = max(times.seconds, 1e-9)
        tf.summary.scalar("clips_per_sec", clips / seconds, step=step)
        tf.summary.scalar("input_wait_share", min(1.0, times.input_wait / seconds), step=step)
        if self._first is not None:
            left = self._seconds_a_step(step, now) * (self._total - step)
            tf.summary.scalar("seconds_left", left, step=step)


def _loss(loss: float | None) -> str:
    if loss is None:
        return ""
    return f", loss {loss:.4g}" if abs(loss) >= 1e5 else f", loss {loss:.3f}"
