# SPDX-License-Identifier: Apache-2.0
"""Files on local disks, and wherever else TensorFlow can reach (`gs://...`).

Local paths do without TensorFlow: importing it costs each process some seconds and 600 MB, and the
converter has a process for each core.
"""

import collections
import contextlib
import ctypes
import errno
import functools
import os
import shutil
import sys
import threading
from collections.abc import Iterator
from typing import IO, Any, Protocol

from object_detection_ext import errors as error_types

# What a file is called until it is whole.
INCOMPLETE = ".being-written"
_OLD = ".being-replaced"

# Seconds that a file system other than this machine's may take to answer for the first time.
REACH_SECONDS = 20.0
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2


class FileSystem(Protocol):
    """What is done with files; all of it by path."""

    def exists(self, path: str) -> bool:
        """Whether there is a file or a folder."""

    def isdir(self, path: str) -> bool:
        """Whether it is a folder."""

    def size(self, path: str) -> int:
        """Bytes of a file."""

    def stamp(self, path: str) -> str:
        """What changes when a file does: its size and its time of modification."""

    def listdir(self, folder: str) -> list[str]:
        """The names in a folder."""

    def walk(self, folder: str) -> Iterator[tuple[str, list[str]]]:
        """(folder, names of its files) of a folder and all below it, each real folder once.

        Links to folders are followed; how often and from where a folder is linked does not matter.
        """

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
    isdir = staticmethod(os.path.isdir)
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
        # Folders before the links to them, so that they have their own names.
        starts, known = collections.deque([folder]), set()
        while starts:
            for root, folders, names in os.walk(starts.popleft()):
                real = os.path.realpath(root)
                if real in known:
                    folders.clear()
                    continue
                known.add(real)
                paths = [os.path.join(root, name) for name in sorted(folders)]
                starts += [path for path in paths if os.path.islink(path)]
                folders[:] = [os.path.basename(path) for path in paths if not os.path.islink(path)]
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
        self.exists, self.isdir = self._gfile.exists, self._gfile.isdir
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
    """The file system that a path belongs to.

    Raises:
        errors.InputError: if it is not this machine's, and cannot be reached.
    """
    check_reachable(path)
    return LocalFiles() if is_local(path) else TensorFlowFiles()


def exists(path: str) -> bool:
    """Whether there is a file or a folder, wherever it is.

    Raises:
        errors.InputError: if that cannot be known, with the reason.
    """
    system = system_of(path)
    try:
        return system.exists(path)
    except errors() as error:
        raise error_types.InputError(f"{path}: cannot be read: {_in_one_line(error)}") from error


def glob(pattern: str) -> list[str]:
    """The paths that match a pattern, sorted, as TensorFlow has it.

    Raises:
        errors.InputError: if they cannot be known, with the reason.
    """
    import tensorflow as tf

    check_reachable(pattern)
    try:
        return sorted(tf.io.gfile.glob(pattern))
    except errors() as error:
        raise error_types.InputError(f"{pattern}: cannot be read: {_in_one_line(error)}") from error


def check_reachable(path: str) -> None:
    """Asks once for each bucket or server whether it answers; local paths always do.

    TensorFlow tries again and again, some minutes for each file, before it says that there is no
    network.

    Raises:
        errors.InputError: if there is no answer within `REACH_SECONDS`, or no way to ask.
    """
    if not is_local(path):
        scheme, _, rest = path.partition("://")
        _check_root(f"{scheme}://{rest.partition('/')[0]}/")


@functools.cache
def _check_root(root: str) -> None:
    answers: list[Exception | None] = []

    def ask():
        try:
            TensorFlowFiles().exists(root)
            answers.append(None)
        except Exception as error:  # of whatever kind: it is passed on
            answers.append(error)

    # A thread, as the call cannot be interrupted; it ends with the process.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(REACH_SECONDS)
    if answers and not _means_unreachable(answers[0]):
        return
    reason = _in_one_line(answers[0]) if answers else f"no answer within {REACH_SECONDS:g} s"
    raise error_types.InputError(
        f"{root}: cannot be reached: {reason.rstrip('.')}. Is there a network, and may this "
        "machine use it (credentials)? Or copy the files to a local disk."
    )


def _means_unreachable(error: Exception | None) -> bool:
    """Whether it is not an answer; who may read files, may not always look at their bucket."""
    import tensorflow as tf

    of_the_way = tf.errors.UnimplementedError, tf.errors.UnavailableError
    of_the_way += tf.errors.FailedPreconditionError, tf.errors.AbortedError
    return isinstance(error, (*of_the_way, tf.errors.DeadlineExceededError, tf.errors.UnknownError))


def _in_one_line(error: object) -> str:
    return " ".join(str(error).split())


# --- Results are written beside their place, and get their names when they are whole -------------


@contextlib.contextmanager
def replaced_path(path: str | os.PathLike) -> Iterator[str]:
    """Gives the path to write a file to, which gets its own name when the body succeeds.

    If the body fails, what was there before stays as it was; so it does if the process is killed,
    and then the incomplete file stays beside it until the next one is written.
    """
    path = os.fspath(path)
    system = system_of(path)
    temporary = path + INCOMPLETE
    try:
        yield temporary
        if is_local(path):
            _synchronize(temporary)
        system.rename(temporary, path)
    except BaseException:
        _remove_if_there(system, temporary)
        raise


@contextlib.contextmanager
def replaced_when_complete(
    path: str | os.PathLike, mode: str = "w", newline: str | None = None
) -> Iterator[IO]:
    """Opens a file to write a result to, which gets its own name when the body succeeds.

    Args:
        path: of the result; local, or what TensorFlow can write to.
        mode: "w" (UTF-8) or "wb".
        newline: as of the builtin `open`; for local files.

    Yields:
        The file. See `replaced_path` for what happens to it.
    """
    with replaced_path(path) as temporary:
        if is_local(temporary):
            encoding = None if "b" in mode else "utf-8"
            file = open(temporary, mode, encoding=encoding, newline=newline)
        else:
            file = system_of(temporary).open(temporary, mode)
        with file:
            yield file


def write_text(path: str | os.PathLike, text: str) -> None:
    """Writes a text file, whole or not at all."""
    with replaced_when_complete(path) as file:
        file.write(text)


@contextlib.contextmanager
def journal(path: str | os.PathLike, *, anew: bool = False) -> Iterator[IO[str]]:
    """Opens a local file that grows: what was written to it before a crash counts, line by line.

    Args:
        path: of the file.
        anew: whether what it holds is dropped.
    """
    with open(path, "w" if anew else "a", encoding="utf-8") as file:
        yield file


@contextlib.contextmanager
def replaced_folder(path: str | os.PathLike) -> Iterator[str]:
    """Gives a new empty folder, which takes the place of a local folder when the body succeeds.

    On Linux the two change places in one step. Where the file system cannot do that, the old one is
    renamed just before; if the process is killed in between, the next call gives it its name back.
    """
    path = os.path.normpath(path)
    if os.path.exists(path + _OLD):
        if os.path.exists(path):
            shutil.rmtree(path + _OLD)
        else:
            os.rename(path + _OLD, path)
    with new_folder(path + INCOMPLETE) as temporary:
        yield temporary
        synchronize(temporary)
        exchange(temporary, path)


@contextlib.contextmanager
def new_folder(path: str) -> Iterator[str]:
    """Makes a folder, without what is left of an earlier one, and removes it at the end."""
    system = system_of(path)
    if system.exists(path):
        system.rmtree(path)
    system.makedirs(path)
    try:
        yield path
    finally:
        if system.exists(path):
            system.rmtree(path)


def exchange(new: str, path: str) -> None:
    """Puts a file or a folder in the place of another, which is then at `new`, if there was one.

    On object stores, which cannot rename a folder, the old one is removed before.
    """
    system = system_of(path)
    if not system.exists(path):
        system.rename(new, path)
    elif not is_local(path):
        if system.isdir(path):
            system.rmtree(path)
        system.rename(new, path)
    elif not exchanged(new, path):
        os.replace(path, path + _OLD)
        os.replace(new, path)
        os.replace(path + _OLD, new)


def exchanged(first: str, second: str) -> bool:
    """Has two local files or folders change places in one step; False where that is not possible.

    Raises:
        OSError: if it is possible here, but not with these.
    """
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError):
        return False
    names = os.fsencode(first), os.fsencode(second)
    if not rename(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE):
        return True
    number = ctypes.get_errno()
    if number in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):
        return False
    raise OSError(number, os.strerror(number), second)


def _synchronize(path: str) -> None:
    """Has a file's content on the disk before its name is: a full disk is told here at the latest.

    Raises:
        OSError: if it cannot be written.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def synchronize(folder: str) -> None:
    """Has all of a local folder on the disk before it gets its name; see `_synchronize`."""
    for root, names in LocalFiles.walk(folder):
        for name in names:
            _synchronize(os.path.join(root, name))


def _remove_if_there(system: FileSystem, path: str) -> None:
    with contextlib.suppress(*errors()):  # what went wrong before is what counts
        if system.exists(path):
            system.remove(path)


# In words of the operating system, which TensorFlow hands on with others around them.
_OF_THE_DISK = tuple(
    os.strerror(number)
    for number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)
)


def is_of_the_disk(error: BaseException) -> bool:
    """Whether an error of a file says that the disk is full, read-only or broken."""
    return isinstance(error, errors()) and words_of_the_disk(str(error)) is not None


def words_of_the_disk(text: str) -> str | None:
    """The operating system's words for a full, read-only or broken disk, if a text has them."""
    return next((words for words in _OF_THE_DISK if words in text), None)


def errors() -> tuple[type[Exception], ...]:
    """What operations on files raise."""
    if "tensorflow" not in sys.modules:
        return (OSError,)
    import tensorflow as tf

    return (OSError, tf.errors.OpError)
