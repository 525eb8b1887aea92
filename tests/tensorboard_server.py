# SPDX-License-Identifier: Apache-2.0
"""TensorBoard for tests: the installed program on a free port of this machine, read over HTTP."""

import io
import json
import os
import pathlib
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from typing import Any

import numpy as np
from PIL import Image

_START_SECONDS = 120.0
_READ_SECONDS = 30.0


class TensorBoard:
    """A running TensorBoard; a context manager."""

    def __init__(self, logdir: str | os.PathLike, folder: str | os.PathLike):
        """Starts the server.

        Args:
          logdir: where the event files are.
          folder: takes the server's log.
        """
        self._log = pathlib.Path(folder) / "tensorboard.log"
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "tensorboard.main"),
                    *("--logdir", os.fspath(logdir), "--host", "127.0.0.1", "--port", str(port)),
                    *("--load_fast", "false", "--reload_interval", "1"),
                ],
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def __enter__(self) -> "TensorBoard":
        try:
            self.wait_for("/data/plugins_listing", _START_SECONDS)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def close(self) -> None:
        """Ends the server."""
        self._process.terminate()
        self._process.wait()

    def get(self, path: str, **query: str) -> bytes:
        """The answer to a request. Raises urllib.error.URLError if there is none."""
        encoded = urllib.parse.urlencode(query)
        with urllib.request.urlopen(f"{self.url}{path}?{encoded}", timeout=_READ_SECONDS) as answer:
            return answer.read()

    def wait_for(self, path: str, seconds: float = _READ_SECONDS) -> Any:
        """The JSON behind a path as soon as there is some that is not empty."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and self._process.poll() is None:
            try:
                if value := json.loads(self.get(path)):
                    return value
            except (urllib.error.URLError, ConnectionError):
                pass  # not up yet
            time.sleep(0.2)
        raise RuntimeError(f"TensorBoard gives no {path}:\n{self._log.read_text()[-2000:]}")

    def scalar(self, run: str, tag: str) -> list[tuple[int, float]]:
        """(step, value) of a run's scalar."""
        points = json.loads(self.get("/data/plugin/scalars/scalars", run=run, tag=tag))
        return [(int(step), value) for _, step, value in points]

    def pictures(self, run: str, tag: str, sample: int = 0) -> list[np.ndarray]:
        """A run's pictures of a tag, one for each step, uint8 [H, W, 3]."""
        path = "/data/plugin/images/images"
        entries = json.loads(self.get(path, run=run, tag=tag, sample=str(sample)))
        one = "/data/plugin/images/individualImage?"
        pngs = [self.get(f"{one}{entry['query']}&") for entry in entries]
        return [np.asarray(Image.open(io.BytesIO(png)).convert("RGB")) for png in pngs]
