# SPDX-License-Identifier: Apache-2.0
"""Runs a part's process to its limit, and hands over what it measures.

Needs the standard library alone.
"""

import collections
import ctypes
import json
import os
import pathlib
import queue
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping

RESULT = "RESULT "
# Of a process that died: the line with the reason, before what is printed after it.
_REASON = re.compile(r"F\d{4} |(\w+\.)*\w*(Error|Exception|Interrupt)\b|.*(?i:out of memory)")
_TAIL = 200

_ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
_PR_SET_PDEATHSIG = 1


class Failure(Exception):
    """A part that did not run to its end; the text says why."""


class OutOfTime(Failure):
    """It was ended at its limit."""


def run_process(
    command: list[str],
    log: pathlib.Path,
    seconds: float,
    receive: Callable[[dict], object],
    environment: Mapping[str, str],
) -> None:
    """Runs a command and hands each of its measurements to `receive`.

    Args:
        command: of the process; it and all that it started are ended at the limit.
        log: gets all that it prints.
        seconds: the limit.
        receive: called with each measurement.
        environment: of the process.

    Raises:
        Failure: at the limit, or for another exit status than 0.
    """
    deadline = time.monotonic() + seconds
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        cwd=_ROOT,
        env=environment,
        start_new_session=True,
    )
    lines: queue.Queue = queue.Queue()
    reader = threading.Thread(target=_read, args=(process.stdout, lines), daemon=True)
    reader.start()
    try:
        with log.open("a", encoding="utf-8") as file:
            last = _drain(lines, deadline, file, receive)
        status = process.wait(timeout=max(deadline - time.monotonic(), 1.0))
    except (queue.Empty, subprocess.TimeoutExpired):
        raise OutOfTime(f"stopped after {seconds:.0f} s, its limit") from None
    finally:
        _end(process)
    if status:
        raise Failure(f"{_how_it_ended(status)}: {last}")


def _read(stream, lines: queue.Queue) -> None:
    for line in stream:
        lines.put(line)
    lines.put(None)


def _drain(lines: queue.Queue, deadline: float, log, receive) -> str:
    """Reads to the end of the output; returns its last words. queue.Empty at the deadline."""
    tail: collections.deque = collections.deque(maxlen=_TAIL)
    while True:
        line = lines.get(timeout=max(deadline - time.monotonic(), 0.01))
        if line is None:
            return last_words(tail)
        if line.startswith(RESULT):
            receive(json.loads(line.removeprefix(RESULT)))
            continue
        log.write(line)
        log.flush()
        if line.strip():
            tail.append(line.strip())


def last_words(lines: Iterable[str]) -> str:
    """The last line that names an error, else the last line: a stack trace may come after it."""
    lines = list(lines) or ["it printed nothing"]
    return next((line for line in reversed(lines) if _REASON.match(line)), lines[-1])


def _end(process: subprocess.Popen) -> None:
    """Ends a process and those that it started."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()


def _how_it_ended(status: int) -> str:
    if status > 0:
        return f"exit status {status}"
    try:
        return f"ended by {signal.Signals(-status).name}"
    except ValueError:
        return f"ended by signal {-status}"


def end_with_parent() -> None:
    """Asks Linux to end this process when the one that started it ends, however it does.

    Else a killed run would leave a part that holds the GPU's memory beside the next run's.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def is_out_of_memory(text: str) -> bool:
    """Whether an error's text says so, in XLA's words or PyTorch's."""
    return "RESOURCE_EXHAUSTED" in text or "out of memory" in text.lower()
