# SPDX-License-Identifier: Apache-2.0
"""Second names for a checkpoint's files, so that it is there for as long as it is needed."""

import contextlib
import os
import shutil
import socket

import tensorflow as tf

_INDEX_SUFFIX = ".index"


def link(prefix: str, target: str) -> None:
    """Gives a checkpoint's files another name: hard links where there can be, else copies.

    Args:
        prefix: the checkpoint.
        target: the other prefix; its folder exists.

    Raises:
        FileNotFoundError: if the checkpoint is not there (any more).
    """
    data = sorted(tf.io.gfile.glob(f"{_escaped(prefix)}.data-*"))
    # The index comes last: a checkpoint with an index has its data.
    parts = [*data, prefix + _INDEX_SUFFIX]
    if not data:
        raise FileNotFoundError(prefix)
    for path in parts:
        _link_or_copy(path, target + path.removeprefix(prefix))


def remove(prefix: str) -> None:
    """Removes a checkpoint's files, as many as there are, the index first."""
    for path in (prefix + _INDEX_SUFFIX, *tf.io.gfile.glob(f"{_escaped(prefix)}.data-*")):
        with contextlib.suppress(tf.errors.NotFoundError):
            tf.io.gfile.remove(path)


def _escaped(prefix: str) -> str:
    """A path as a pattern that only it matches."""
    return "".join(f"\\{letter}" if letter in "*?[\\" else letter for letter in prefix)


def _link_or_copy(source: str, target: str) -> None:
    if "://" in source or "://" in target:
        try:
            tf.io.gfile.copy(source, target, overwrite=True)
        except tf.errors.NotFoundError as error:
            raise FileNotFoundError(source) from error
        return
    try:
        os.link(source, target)
    except (FileNotFoundError, FileExistsError):
        raise
    except OSError:  # another file system, or one without links
        shutil.copyfile(source, target)


class Holder:
    """Keeps checkpoints that are restored one after the other, though training deletes its own.

    The one before the newest is kept too: what is restored into objects that do not exist yet, such
    as an optimizer's slots, TensorFlow reads when the next checkpoint is restored.
    """

    def __init__(self, beside: str):
        """Holds nothing yet; a folder of that name with an ending comes with the first."""
        self._beside = beside
        self._held: list[str] = []
        self._count = 0

    def __enter__(self) -> "Holder":
        """Removes what earlier processes left."""
        remove_left_over(self._beside)
        return self

    def __exit__(self, *_: object) -> None:
        """Lets all go."""
        remove_own(self._beside)

    def hold(self, prefix: str) -> str:
        """The prefix under which a checkpoint stays.

        Raises:
            FileNotFoundError: if the checkpoint is not there (any more).
        """
        # Two that come one after the other may have the same name.
        folder = os.path.join(_own_folder(self._beside), str(self._count))
        self._count += 1
        tf.io.gfile.makedirs(folder)
        self._held.append(folder)
        second = os.path.join(folder, os.path.basename(prefix))
        link(prefix, second)
        while len(self._held) > 2:
            tf.io.gfile.rmtree(self._held.pop(0))
        return second


def remove_own(beside: str) -> None:
    """Removes what this process holds there, if anything."""
    with contextlib.suppress(tf.errors.OpError):
        tf.io.gfile.rmtree(_own_folder(beside))


def _own_folder(beside: str) -> str:
    return f"{beside}{_ending()}{os.getpid()}"


def remove_left_over(beside: str) -> None:
    """Removes the folders of processes of this machine that were killed while they held.

    Args:
        beside: as `Holder` has it.
    """
    parent, stem = os.path.dirname(beside) or ".", os.path.basename(beside) + _ending()
    for name in tf.io.gfile.listdir(parent) if tf.io.gfile.isdir(parent) else []:
        number = name.rstrip("/").removeprefix(stem)
        if number != name and number.isdigit() and not _is_running(int(number)):
            with contextlib.suppress(tf.errors.OpError):
                tf.io.gfile.rmtree(os.path.join(parent, name))


def _ending() -> str:
    """What the folders of this machine's processes have before the process's number."""
    return f".evaluating-{socket.gethostname()}-"


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
