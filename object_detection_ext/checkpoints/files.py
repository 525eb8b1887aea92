# SPDX-License-Identifier: Apache-2.0
"""Checkpoints on disk: which there are, whether they are whole, what they hold.

A checkpoint is named by its prefix, such as `model/ckpt-5`: `model/ckpt-5.index` lists its
variables, `model/ckpt-5.data-00000-of-00001` holds their values. The file `checkpoint` of a folder
lists the checkpoints there and says which is the newest.
"""

import contextlib
import dataclasses
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import tensorflow as tf
from google.protobuf import text_format

from object_detection_ext import errors, listing
from object_detection_ext import files as file_systems

STEP_KEY = "step/.ATTRIBUTES/VARIABLE_VALUE"
OBJECT_GRAPH_KEY = "_CHECKPOINTABLE_OBJECT_GRAPH"
VALUE_SUFFIX = "/.ATTRIBUTES/VARIABLE_VALUE"
_STATE_FILE = "checkpoint"
_INDEX_SUFFIX = ".index"
_NUMBER = re.compile(r"-(\d+)$")
# Of the train loop's own; others (published weights, say) are only taken if they are named.
_OF_TRAINING = re.compile(r"^ckpt-\d+$")
_PART_OF_A_CHECKPOINT = re.compile(r"\.(index|meta|data-\d{5}-of-(\d{5}))$")
_PATTERN = re.compile(r"[*?\[\\]")
_MAX_LISTED = 10
# What TensorFlow raises for a missing, cut or damaged file of a checkpoint, by Python's reader
# (IndexError, RuntimeError, ValueError) and by its ops.
_READ_ERRORS = (tf.errors.OpError, IndexError, RuntimeError, ValueError, OSError)


class DamagedError(errors.InputError):
    """A checkpoint that cannot be read in full; the message names it and the file at fault."""


@dataclasses.dataclass(frozen=True)
class Contents:
    """What a checkpoint holds, all of it read once.

    Attributes:
        prefix: of its files.
        shapes: of each variable, by checkpoint key.
        non_finite: keys of floating-point variables with NaN or infinite values.
    """

    prefix: str
    shapes: dict[str, tuple[int, ...]]
    non_finite: tuple[str, ...]


def read(prefix: str) -> Contents:
    """Reads a checkpoint from end to end, which compares its checksums.

    Raises:
        DamagedError: if a part is missing, cut off or damaged.
    """
    try:
        reader = tf.train.load_checkpoint(prefix)
        shapes = {key: tuple(s) for key, s in reader.get_variable_to_shape_map().items()}
        non_finite = tuple(key for key in sorted(shapes) if not _finite(reader.get_tensor(key)))
    except _READ_ERRORS as error:
        raise DamagedError(
            f"The checkpoint '{prefix}' is damaged or incomplete: {_fault(prefix, error)}."
        ) from error
    return Contents(prefix, shapes, non_finite)


def _finite(value) -> bool:
    array = np.asarray(value)
    # bfloat16 is of kind 'V' to NumPy.
    is_float = array.dtype.kind in "fc" or array.dtype == tf.bfloat16.as_numpy_dtype
    return not is_float or bool(np.isfinite(array).all())


def _fault(prefix: str, error: Exception) -> str:
    """The file at fault and what is wrong with it."""
    if _PATTERN.search(prefix):
        return "TensorFlow takes * ? [ and \\ in a path for a pattern; rename the folder"
    index = prefix + _INDEX_SUFFIX
    if not tf.io.gfile.exists(index):
        return f"{index} is missing"
    data = [path for path in _parts(prefix) if _PART_OF_A_CHECKPOINT.search(path)[2]]
    if not data:
        return f"{prefix}.data-00000-of-00001 is missing"
    total = int(_PART_OF_A_CHECKPOINT.search(data[0])[2])
    wanted = [f"{prefix}.data-{number:05d}-of-{total:05d}" for number in range(total)]
    missing = [path for path in wanted if path not in data]
    if missing:
        return f"{missing[0]} is missing"
    message = " ".join(str(error).split())
    if _readable(index):
        return f"{' or '.join(data[:_MAX_LISTED])} is cut off or damaged ({message})"
    return f"{index} is cut off or damaged ({message})"


def _readable(index: str) -> bool:
    try:
        return bool(tf.train.list_variables(index.removesuffix(_INDEX_SUFFIX)))
    except _READ_ERRORS:
        return False


def _parts(prefix: str) -> list[str]:
    """The files of a checkpoint that are there."""
    folder = os.path.dirname(prefix)
    names = [
        name for name in _names(folder) if _PART_OF_A_CHECKPOINT.sub("", name) == _name(prefix)
    ]
    return [os.path.join(folder, name) for name in names if name != _name(prefix)]


def _names(folder: str) -> list[str]:
    """What is in a folder, sorted; nothing if there is no such folder."""
    folder = folder or "."
    return sorted(tf.io.gfile.listdir(folder)) if tf.io.gfile.isdir(folder) else []


def listed(folder: str) -> list[str]:
    """Prefixes of a folder's checkpoints, newest first, whole or not.

    First the one that its `checkpoint` file calls the newest, then the others that it lists, then
    others of training (`ckpt-5`) of which a file is there.
    """
    state = _state(folder)
    found = [state.model_checkpoint_path] if state else []
    if state:
        found += [p for p in reversed(state.all_model_checkpoint_paths) if p not in found]
    on_disk = {_PART_OF_A_CHECKPOINT.sub("", name) for name in _names(folder)}
    others = {os.path.join(folder, name) for name in on_disk if _OF_TRAINING.match(name)}
    others -= set(found)
    return found + sorted(others, key=_number, reverse=True)


def _state(folder: str):
    """What the `checkpoint` file says; None without one, or if it cannot be read."""
    try:
        return tf.train.get_checkpoint_state(folder)
    except _READ_ERRORS:
        return None


def _prefixes(folder: str) -> list[str]:
    """Prefixes of all checkpoints in a folder that have an index file, by name."""
    return [
        os.path.join(folder, name.removesuffix(_INDEX_SUFFIX))
        for name in _names(folder)
        if name.endswith(_INDEX_SUFFIX)
    ]


def _name(prefix: str) -> str:
    return os.path.basename(prefix)


def _number(prefix: str) -> int:
    match = _NUMBER.search(prefix)
    return int(match.group(1)) if match else -1


def newest_whole(folder: str, say: Callable[[str], None]) -> Contents | None:
    """Reads the newest checkpoint of a folder that is whole.

    Args:
        folder: of checkpoints.
        say: takes a warning for each damaged one that is passed over.

    Returns:
        It, finite or not; None if there is no checkpoint.

    Raises:
        DamagedError: if there are checkpoints, but none is whole.
    """
    damaged: dict[str, DamagedError] = {}
    # Somebody else may be training here: a checkpoint that is gone since it was listed was
    # replaced by newer ones. So the list is read again after each that is damaged.
    while left := [prefix for prefix in listed(folder) if prefix not in damaged]:
        try:
            contents = read(left[0])
        except DamagedError as error:
            damaged[left[0]] = error
            continue
        still_there = [damaged[prefix] for prefix in listed(folder) if prefix in damaged]
        _report_passed_over(folder, still_there, contents.prefix, say)
        return contents
    if damaged:
        raise DamagedError(
            f"None of the {len(damaged)} checkpoints of '{folder}' is whole.\n"
            + "\n".join(str(error) for error in list(damaged.values())[:_MAX_LISTED])
        )
    return None


def _report_passed_over(
    folder: str, damaged: Sequence[DamagedError], taken: str, say: Callable[[str], None]
) -> None:
    state = os.path.join(folder, _STATE_FILE)
    if _state(folder) is None and tf.io.gfile.exists(state) and not tf.io.gfile.isdir(state):
        say(
            f"WARNING: '{state}', which names the checkpoints of the folder, is cut off or "
            "damaged; they are taken by their numbers."
        )
    for error in damaged:
        say(f"WARNING: {error} It is passed over.")
    if damaged:
        say(f"WARNING: taking the checkpoint before: '{taken}'.")


def resolve(path: str, say: Callable[[str], None]) -> Contents:
    """Reads the checkpoint that a user means.

    Args:
        path: a folder, whose newest whole checkpoint is taken, or a checkpoint's own prefix
            (`model/ckpt-5`; also one of its files).
        say: takes a warning for each damaged one that is passed over.

    Raises:
        errors.InputError: if there is none, with what is there instead.
        DamagedError: if the one that the prefix names is damaged, or all of the folder are.
    """
    prefix = _PART_OF_A_CHECKPOINT.sub("", path)
    if _parts(prefix):
        return read(prefix)
    folder = path
    if _name(path) == _STATE_FILE and not tf.io.gfile.isdir(path):
        folder = os.path.dirname(path)
    try:
        contents = newest_whole(folder, say) if tf.io.gfile.isdir(folder) else None
        if contents is None:
            raise errors.InputError(_there_is_none(path))
    except tf.errors.OpError as error:  # of a place that cannot be reached
        raise errors.InputError(f"'{path}' cannot be read: {error.message}") from error
    return contents


def _there_is_none(path: str) -> str:
    """Says that a path leads to no checkpoint, and what is there."""
    if not tf.io.gfile.exists(path):
        folder = os.path.dirname(path.rstrip("/")) or "."
        text = f"There is no folder and no checkpoint '{path}'."
        if not tf.io.gfile.isdir(folder):
            return text
        others = [_name(prefix) for prefix in _prefixes(folder)]
        return f"{text} The checkpoints of '{folder}': {listing.in_line(others) or 'none'}."
    if not tf.io.gfile.isdir(path):
        return (
            f"'{path}' is not a checkpoint: give its prefix, such as 'model/ckpt-5', or a folder."
        )
    text = f"There is no checkpoint in '{path}'."
    for below in ("checkpoint", "model", "best"):
        if _prefixes(os.path.join(path, below)):
            return f"{text} There is one in '{os.path.join(path, below)}': give that."
    if _prefixes(path):
        return (
            f"{text[:-1]} with a name of training's (ckpt-5). To take another one, give its own "
            f"prefix: {listing.in_line(_prefixes(path))}."
        )
    if tf.io.gfile.exists(os.path.join(path, "saved_model.pb")):
        return f"{text} It holds an exported SavedModel; a training's folder is needed."
    return f"{text} It holds {listing.in_line(_names(path)) or 'nothing'}."


def readable_name(key: str) -> str:
    """A variable's checkpoint key without what all of them have."""
    name, _, slot = key.removesuffix(VALUE_SUFFIX).partition("/.OPTIMIZER_SLOT/")
    return f"{name} ({slot})" if slot else name


def check_finite(contents: Contents) -> None:
    """Refuses a checkpoint with values that are not finite.

    Raises:
        errors.InputError: naming it, and how many of its variables which.
    """
    if not contents.non_finite:
        return
    good = _newest_finite(contents)
    raise errors.InputError(
        f"The checkpoint '{contents.prefix}' cannot be used: {describe_non_finite(contents)} The "
        "training that wrote it had diverged. "
        + (
            f"The newest checkpoint beside it without such values is '{good}'."
            if good
            else "No checkpoint beside it is without such values."
        )
    )


def describe_non_finite(contents: Contents) -> str:
    """How many variables have values that are not finite, and the first of them."""
    count, total = len(contents.non_finite), len(contents.shapes.keys() - {OBJECT_GRAPH_KEY})
    names = listing.in_line([readable_name(key) for key in contents.non_finite])
    has = "has" if count == 1 else "have"
    return f"{count} of its {total} variables {has} NaN or infinite values: {names}."


def _newest_finite(contents: Contents) -> str | None:
    """The newest checkpoint beside it that has the same variables, all of them finite."""
    for prefix in listed(os.path.dirname(contents.prefix) or "."):
        with contextlib.suppress(DamagedError):
            other = read(prefix)
            # That of step 0 has no weights.
            if not other.non_finite and other.shapes.keys() >= contents.shapes.keys():
                return prefix
    return None


def make_newest(folder: str, prefix: str, say: Callable[[str], None]) -> None:
    """Has a folder's `checkpoint` file call this one the newest, for the stock train loop.

    The loop resumes from there, and its next checkpoint has the number after. Checkpoints that the
    file lists as newer are no longer in it; their files are left alone until one of the same number
    is saved.

    Args:
        folder: of checkpoints; must be writable.
        prefix: one of its checkpoints.
        say: takes a line if the file is changed.
    """
    state = _state(folder)
    if state is not None and state.model_checkpoint_path == prefix:
        return
    stamps = {}
    if state is not None:
        paths, of_paths = state.all_model_checkpoint_paths, state.all_model_checkpoint_timestamps
        stamps = dict(zip(paths, of_paths, strict=False))
    now = time.time()
    # Only what the file has listed is ever deleted to make room.
    kept = [p for p in stamps if _number(p) < _number(prefix) and _parts(p)] + [prefix]
    written = tf.compat.v1.train.generate_checkpoint_state_proto(
        os.path.abspath(folder),
        os.path.relpath(prefix, folder),
        [os.path.relpath(path, folder) for path in kept],
        [stamps.get(path, now) for path in kept],
        state.last_preserved_timestamp if stamps else now - 1.0,
    )
    path = os.path.join(folder, _STATE_FILE)
    file_systems.write_text(path, text_format.MessageToString(written))
    say(f"'{path}' now calls '{prefix}' the newest checkpoint; no file was removed.")


@contextlib.contextmanager
def folder_of(prefix: str) -> Iterator[str]:
    """A folder in which stock code finds this checkpoint, and no other, while this lasts.

    Nothing is written to the checkpoint's own folder.
    """
    with tempfile.TemporaryDirectory() as folder:
        absolute = prefix if "://" in prefix else os.path.abspath(prefix)
        state = tf.compat.v1.train.generate_checkpoint_state_proto(folder, absolute)
        with open(os.path.join(folder, _STATE_FILE), "w", encoding="utf-8") as file:
            file.write(text_format.MessageToString(state))
        yield folder


def step_of(prefix: str) -> int:
    """The training step at which a checkpoint was saved."""
    return int(tf.train.load_variable(prefix, STEP_KEY))


def step_of_newest(folder: str) -> int:
    """The step of the newest checkpoint in a model directory; 0 if there is none."""
    checkpoint = tf.train.latest_checkpoint(folder)
    return 0 if checkpoint is None else step_of(checkpoint)
