# SPDX-License-Identifier: Apache-2.0
"""What the loops print: lines of our own, signs of life, the stock loops' log messages once."""

import contextlib
import logging
import sys
import threading
import time

from object_detection_ext.progress import format_seconds

_HEARTBEAT_SECONDS = 15.0


def say(text: str) -> None:
    """Prints a line on standard error at once."""
    print(text, file=sys.stderr, flush=True)


@contextlib.contextmanager
def heartbeat(what: str):
    """Says every few seconds that something is still under way; gives a function to stop it."""
    start, stopped = time.monotonic(), threading.Event()

    def beat():
        while not stopped.wait(_HEARTBEAT_SECONDS):
            say(f"{what} ... {format_seconds(time.monotonic() - start)}")

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield stopped.set
    finally:
        stopped.set()
        thread.join()


@contextlib.contextmanager
def info_logs():
    """Lets the stock loops' own messages through, each once."""
    logger = logging.getLogger("tensorflow")
    level, propagate = logger.level, logger.propagate
    logger.setLevel(logging.INFO)
    # TensorFlow's logger has a handler of its own and hands on to absl's, which prints it again.
    logger.propagate = not logger.handlers
    try:
        yield logger
    finally:
        logger.setLevel(level)
        logger.propagate = propagate
