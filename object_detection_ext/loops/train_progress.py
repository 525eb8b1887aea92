# SPDX-License-Identifier: Apache-2.0
"""Turns the stock train loop's log messages into progress with the time left."""

import contextlib
import logging
import re
import time
from collections.abc import Callable

from object_detection import model_lib_v2

from object_detection_ext.loops.messages import heartbeat, info_logs, say
from object_detection_ext.progress import format_seconds

_REPORT_SECONDS = 5.0

_STEP_PATTERN = re.compile(r"^Step (\d+) per-step time ([\d.]+)s")
_LOSS_PATTERN = re.compile(r"'Loss/total_loss': (?:np\.float32\()?([-+.\deE]+|nan|inf)")


@contextlib.contextmanager
def progress_of_training(done: int, total: int, log_every: int):
    """Turns the stock loop's log messages into progress with the time left."""
    stock_log_every = model_lib_v2.LOG_EVERY
    model_lib_v2.LOG_EVERY = log_every
    what = "training: building the graph and running the first step"
    say(f"training: from step {done} to {total}")
    try:
        with heartbeat(what) as stop_heartbeat, info_logs() as logger:
            reporter = _StepReporter(done, total, stop_heartbeat)
            logger.addHandler(reporter)
            logger.addFilter(reporter.is_not_a_step)
            try:
                yield
            finally:
                logger.removeFilter(reporter.is_not_a_step)
                logger.removeHandler(reporter)
    finally:
        model_lib_v2.LOG_EVERY = stock_log_every


class _StepReporter(logging.Handler):
    """Reads step and loss from the stock loop's messages and says how long the rest takes."""

    def __init__(self, done: int, total: int, on_first_step: Callable[[], None]):
        super().__init__()
        self._total = total
        self._on_first_step = on_first_step
        self._first: tuple[int, float] | None = None
        self._start_step = done
        self._step, self._last_report = done, 0.0

    def is_not_a_step(self, record: logging.LogRecord) -> bool:
        """A filter that takes the stock step messages out of the log, as they are reported here."""
        message = record.getMessage()
        if not (_STEP_PATTERN.match(message) or _LOSS_PATTERN.search(message)):
            return True
        self.emit(record)
        return False

    def emit(self, record: logging.LogRecord) -> None:
        """Takes a message; every few seconds prints a line."""
        message = record.getMessage()
        if match := _STEP_PATTERN.match(message):
            self._step = int(match.group(1))
            self._on_first_step()
        elif match := _LOSS_PATTERN.search(message):
            self._report(float(match.group(1)))

    def _report(self, loss: float) -> None:
        now = time.monotonic()
        if self._first is None:
            # The first steps hold the compilation: no measure of what comes.
            self._first = (self._step, now)
            say(f"training: step {self._step} of {self._total}, loss {loss:.3f}")
            return
        if now - self._last_report < _REPORT_SECONDS and self._step < self._total:
            return
        self._last_report = now
        seconds = (now - self._first[1]) / max(1, self._step - self._first[0])
        left = format_seconds(seconds * (self._total - self._step))
        say(
            f"training: step {self._step} of {self._total}, loss {loss:.3f}, "
            f"{seconds:.2f} s a step, {left} left"
        )
