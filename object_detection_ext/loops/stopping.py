# SPDX-License-Identifier: Apache-2.0
"""Ends training early: because somebody decides so, or on SIGTERM and SIGINT.

While the main thread waits inside a TensorFlow op, Python runs no signal handler. So a thread of
its own hears of signals, through a pipe that the C-level handler writes to.
"""

import contextlib
import os
import shlex
import signal
import sys
import threading
from collections.abc import Callable, Iterator

from object_detection_ext import errors
from object_detection_ext.messages import say

SIGNALS = (signal.SIGTERM, signal.SIGINT)
# What ends the listening thread; no signal has this number.
_END = b"\0"


class StopTraining(Exception):
    """Raised by what runs after a checkpoint to end training normally; says why."""


class Interrupted(errors.ReportedError):
    """Training ended because of a signal."""

    def __init__(self, number: int, message: str):
        """Takes the signal's number and what to print."""
        super().__init__(message)
        self.exit_status = exit_status(number)


def exit_status(number: int) -> int:
    """The exit status of a program that a signal ends."""
    return 128 + number


def command() -> str:
    """This process's own command line, to be copied into a shell."""
    return shlex.join(sys.orig_argv)


def before_first_step(number: int) -> str:
    """What to print when a signal comes before there is anything to save."""
    name = signal.Signals(number).name
    return f"{name}: ended before the first step, nothing is to be saved. To run again: {command()}"


class Listener:
    """Hears of SIGTERM and SIGINT wherever the main thread is.

    The first signal is passed to the handler that is set, in a thread of its own; without a handler
    it ends the process. The second one ends the process at once.

    Attributes:
        received: number of the first signal; None before.
    """

    def __init__(self):
        """Listens to nothing yet; see `listening`."""
        self.received: int | None = None
        self._handlers: list[Callable[[int], None]] = []

    @contextlib.contextmanager
    def handler(self, handle: Callable[[int], None]) -> Iterator[None]:
        """Has the first signal handled while this lasts."""
        self._handlers.append(handle)
        try:
            yield
        finally:
            self._handlers.remove(handle)

    def end_process(self, number: int, message: str) -> None:
        """Prints a line and ends the process as a signal would, without waiting for any thread."""
        say(message)
        sys.stdout.flush()
        os._exit(exit_status(number))

    def hear(self, number: int) -> None:
        """Takes a signal."""
        name = signal.Signals(number).name
        if self.received is not None:
            self.end_process(number, f"{name} again: ended at once.")
        self.received = number
        if not self._handlers:
            self.end_process(number, before_first_step(number))
        threading.Thread(target=self._handlers[-1], args=(number,), daemon=True).start()


_active: Listener | None = None


def active() -> Listener | None:
    """The listener of this process; None where signals act as ever, as in a notebook."""
    return _active


@contextlib.contextmanager
def listening() -> Iterator[Listener]:
    """Listens to signals while this lasts; for the main thread of a program of our own."""
    global _active
    listener = Listener()
    reading, writing = os.pipe()
    os.set_blocking(writing, False)

    def listen() -> None:
        while (data := os.read(reading, 1)) != _END:
            if data[0] in SIGNALS:
                listener.hear(data[0])

    thread = threading.Thread(target=listen, daemon=True)
    # The numbers go through the pipe; a handler in Python has to be there for that.
    before = {number: signal.signal(number, lambda *args: None) for number in SIGNALS}
    fd_before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    _active = listener
    thread.start()
    try:
        yield listener
    finally:
        _active = None
        signal.set_wakeup_fd(fd_before)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.write(writing, _END)
        thread.join()
        os.close(reading)
        os.close(writing)
