# SPDX-License-Identifier: Apache-2.0
"""An export is there as a whole or not at all: the earlier one stays until the new one is whole."""

import contextlib
import os
from collections.abc import Iterator

from object_detection_ext import errors, files

# What the stock exporter writes; the model itself comes last where they cannot come at once.
_PARTS = ("pipeline.config", "checkpoint", "saved_model")


@contextlib.contextmanager
def replaced(output_directory: str) -> Iterator[str]:
    """Gives the exporter a folder, which takes the place of an earlier export when it is whole.

    It lies beside `output_directory`, and the two change places in one step (see
    `files.replaced_folder`). Where that folder holds other files too, is the working directory or a
    mount, or its parent cannot be written to, the new export lies inside of it, and then the parts
    change places one after the other, each in one step, the SavedModel last. (On object stores an
    old part is removed when the whole new export is there.)

    Raises:
        errors.InputError: if `output_directory` is a file, or the folder of a training.
        errors.OutsideError: if the disk is full, read-only or broken.
    """
    place = files.real_path(output_directory)
    try:
        if files.is_local(place) and os.path.exists(place) and not os.path.isdir(place):
            raise errors.InputError(f"--output_directory {output_directory!r} is a file.")
        if files.system_of(place).exists(f"{place}/checkpoint") and not _is_folder(place):
            raise errors.InputError(
                f"--output_directory {output_directory!r} is the folder of a training: it has the "
                "file 'checkpoint', where an export has a folder. Give another one."
            )
        replaced_whole = files.replaced_folder if _is_own(place) else _replaced_by_parts
        with replaced_whole(place) as folder:
            yield folder
    except files.errors() as error:
        if not files.is_of_the_disk(error):
            raise
        raise errors.OutsideError(
            f"{output_directory}: the model could not be written: {_reason(error)}. What was there "
            "before is as it was."
        ) from error


def _is_folder(place: str) -> bool:
    """Whether the `checkpoint` in a folder is a folder, as an export's is."""
    try:
        files.system_of(place).listdir(f"{place}/checkpoint")
    except files.errors():
        return False
    return True


def _is_own(place: str) -> bool:
    """Whether a folder is there for an export alone, and can be replaced as a whole."""
    if not files.is_local(place):  # object stores have no folders that could be renamed
        return False
    if not os.path.isdir(place):
        os.makedirs(os.path.dirname(place), exist_ok=True)
        return True
    names = {name for name in os.listdir(place) if not name.startswith(files.INCOMPLETE)}
    here = os.path.join(os.path.realpath(os.getcwd()), "")
    return (
        names <= set(_PARTS)
        and not os.path.ismount(place)
        and not here.startswith(os.path.join(place, ""))
        and os.access(os.path.dirname(place), os.W_OK)
    )


@contextlib.contextmanager
def _replaced_by_parts(place: str) -> Iterator[str]:
    system = files.system_of(place)
    system.makedirs(place)
    with files.new_folder(os.path.join(place, files.INCOMPLETE)) as folder:
        yield folder
        if files.is_local(folder):
            files.synchronize(folder)
        for name in _PARTS:
            if system.exists(os.path.join(folder, name)):
                files.exchange(os.path.join(folder, name), os.path.join(place, name))


def _reason(error: Exception) -> str:
    """The operating system's words, without TensorFlow's stack of calls around them."""
    text = getattr(error, "strerror", None) or str(error)
    return files.words_of_the_disk(text) or " ".join(text.split())
