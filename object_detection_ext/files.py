# SPDX-License-Identifier: Apache-2.0
"""Files on local disks, and wherever else TensorFlow can reach (`gs://...`).

Local paths do without TensorFlow: importing it costs each process some seconds and 600 MB, and the
converter has a process for each core.
"""

import os
import shutil
import sys
from collections.abc import Iterator
from typing import IO, Any, Protocol


class FileSystem(Protocol):
    """What is done with files; all of it by path."""

    def exists(self, path: str) -> bool:
        """Whether there is a file or a folder."""

    def size(self, path: str) -> int:
        """Bytes of a file."""

    def stamp(self, path: str) -> str:
        """What changes when a file does: its size and its time of modification."""

    def listdir(self, folder: str) -> list[str]:
        """The names in a folder."""

    def walk(self, folder: str) -> Iterator[tuple[str, list[str]]]:
        """(folder, names of its files) of a folder and all below it."""

    def open(self, path: str, mode: str) -> IO:
        """Opens a file; modes as of the builtin `open`."""

    def makedirs(self, folder: str) -> None:
        """Makes a folder and those above it, where they are missing."""

    def rename(self, source: str, target: str) -> None:
        """Renames a file; replaces the target."""

    def remove(self, path: str) -> None:
        """Removes a file."""

    def rmtree(self, folder: str) -> None:
        """Removes a folder with all that is in it."""


class LocalFiles:
    """A `FileSystem` of the operating system's."""

    exists = staticmethod(os.path.exists)
    size = staticmethod(os.path.getsize)
    listdir = staticmethod(os.listdir)
    rename = staticmethod(os.replace)
    remove = staticmethod(os.remove)
    rmtree = staticmethod(shutil.rmtree)

    @staticmethod
    def stamp(path: str) -> str:  # noqa: D102 (as all below: see FileSystem)
        status = os.stat(path)
        return f"{status.st_size} {status.st_mtime_ns}"

    @staticmethod
    def walk(folder: str) -> Iterator[tuple[str, list[str]]]:  # noqa: D102
        # What each folder and those above it really are: a link to one of them is no way on.
        passed = {folder: frozenset([os.path.realpath(folder)])}
        for root, folders, names in os.walk(folder, followlinks=True):
            above = passed.pop(root)
            real = {name: os.path.realpath(os.path.join(root, name)) for name in folders}
            folders[:] = sorted(name for name in folders if real[name] not in above)
            passed |= {os.path.join(root, name): above | {real[name]} for name in folders}
            yield root, names

    @staticmethod
    def open(path: str, mode: str) -> IO:  # noqa: D102
        return open(path, mode, encoding=None if "b" in mode else "utf-8")

    @staticmethod
    def makedirs(folder: str) -> None:  # noqa: D102
        os.makedirs(folder, exist_ok=True)


class TensorFlowFiles:
    """A `FileSystem` of `tf.io.gfile`."""

    def __init__(self):
        """Imports TensorFlow."""
        import tensorflow as tf

        self._gfile: Any = tf.io.gfile
        self.exists = self._gfile.exists
        self.listdir, self.makedirs = self._gfile.listdir, self._gfile.makedirs
        self.remove, self.rmtree = self._gfile.remove, self._gfile.rmtree
        self.open = self._gfile.GFile

    def size(self, path: str) -> int:  # noqa: D102
        return self._gfile.stat(path).length

    def stamp(self, path: str) -> str:  # noqa: D102
        status = self._gfile.stat(path)
        return f"{status.length} {status.mtime_nsec}"

    def walk(self, folder: str) -> Iterator[tuple[str, list[str]]]:  # noqa: D102
        for root, _, names in self._gfile.walk(folder):
            yield root, names

    def rename(self, source: str, target: str) -> None:  # noqa: D102
        self._gfile.rename(source, target, overwrite=True)


def is_local(path: str) -> bool:
    """Whether it is a path of this machine's own file system."""
    return "://" not in path


def real_path(path: str) -> str:
    """A local path without links, any other as it is: equal for one file under two names."""
    return os.path.realpath(path) if is_local(path) else path


def system_of(path: str) -> FileSystem:
    """The file system that a path belongs to."""
    return LocalFiles() if is_local(path) else TensorFlowFiles()


def errors() -> tuple[type[Exception], ...]:
    """What operations on files raise."""
    if "tensorflow" not in sys.modules:
        return (OSError,)
    import tensorflow as tf

    return (OSError, tf.errors.OpError)
