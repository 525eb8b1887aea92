# SPDX-License-Identifier: Apache-2.0
"""Small disks that can be filled."""

import contextlib
import os
import pathlib
import subprocess
from collections.abc import Iterator

import pytest


@contextlib.contextmanager
def small_disk(folder: pathlib.Path, num_bytes: int) -> Iterator[pathlib.Path]:
    """While this lasts, the folder is a file system of its own of so many bytes.

    The test skips where this user may not mount one; those with a limit of the process run anyway.
    """
    folder.mkdir(parents=True, exist_ok=True)
    options = f"size={num_bytes}"
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("there is no command mount")
    if done.returncode:
        pytest.skip(f"a tmpfs cannot be mounted here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder: pathlib.Path, left: int = 0) -> None:
    """Fills a small disk up to so many bytes."""
    status = os.statvfs(folder)
    size = status.f_bavail * status.f_frsize - left
    (folder / "filling").write_bytes(bytes(max(size, 0)))
