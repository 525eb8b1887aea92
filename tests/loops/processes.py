# SPDX-License-Identifier: Apache-2.0
"""Real processes that train, several of them for the price of one import of TensorFlow.

As a program, it takes command lines of `tiny_training` as JSON, by name, and a folder; each runs in
a process of its own, forked after the imports. In the folder are then NAME.pid, NAME.err with what
it prints, and at its end NAME.rc.
"""

import json
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
_SECONDS = 300.0


class Processes:
    """Running trainings, by name."""

    def __init__(self, folder: pathlib.Path, command_lines: Mapping[str, Sequence[str]]):
        """Starts them."""
        self._folder = folder
        command = [sys.executable, "-m", "tests.loops.processes", str(folder)]
        with open(folder / "server.err", "wb") as errors:
            self._server = subprocess.Popen(
                [*command, json.dumps(command_lines)], cwd=ROOT, stderr=errors
            )

    def said(self, name: str) -> str:
        """What it has printed so far."""
        path = self._folder / f"{name}.err"
        return path.read_text(errors="replace") if path.exists() else ""

    def wait_for(self, name: str, text: str) -> None:
        """Waits until it has printed a text."""
        end = time.monotonic() + _SECONDS
        while text not in self.said(name):
            assert time.monotonic() < end and not self._ended(name), self.said(name)
            assert self._server.poll() is None, (self._folder / "server.err").read_text()
            time.sleep(0.02)

    def send(self, name: str, number: signal.Signals) -> None:
        """Sends it a signal."""
        os.kill(int((self._folder / f"{name}.pid").read_text()), number)

    def status(self, name: str) -> int:
        """Waits until it has ended; its exit status, negative if a signal ended it."""
        end = time.monotonic() + _SECONDS
        while not self._ended(name):
            assert time.monotonic() < end, self.said(name)
            time.sleep(0.05)
        return int((self._folder / f"{name}.rc").read_text())

    def _ended(self, name: str) -> bool:
        return (self._folder / f"{name}.rc").exists()

    def close(self) -> None:
        """Ends all that still run."""
        self._server.terminate()
        self._server.wait()


def _write(path: pathlib.Path, text: str) -> None:
    path.with_suffix(".new").write_text(text)
    path.with_suffix(".new").rename(path)


def _serve(folder: pathlib.Path, command_lines: Mapping[str, Sequence[str]]) -> None:
    from tests.loops import tiny_training

    names = {}
    for name, command_line in command_lines.items():
        process = os.fork()
        if process == 0:
            error = os.open(folder / f"{name}.err", os.O_WRONLY | os.O_CREAT)
            os.dup2(error, 1)
            os.dup2(error, 2)
            sys.argv = ["tiny_training", *command_line]
            sys.orig_argv = sys.argv
            tiny_training.run_as_program()
            os._exit(0)
        names[process] = name
        _write(folder / f"{name}.pid", str(process))

    def end(*args) -> None:
        for process in names:
            os.kill(process, signal.SIGKILL)

    signal.signal(signal.SIGTERM, lambda *args: end())
    while names:
        process, status = os.wait()
        _write(folder / f"{names.pop(process)}.rc", str(os.waitstatus_to_exitcode(status)))


if __name__ == "__main__":
    assert threading.active_count() == 1
    _serve(pathlib.Path(sys.argv[1]), json.loads(sys.argv[2]))
