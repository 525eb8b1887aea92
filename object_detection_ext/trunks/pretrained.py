# SPDX-License-Identifier: Apache-2.0
"""Pretrained weights of a trunk and its tail, kept by their path in the published checkpoints.

A checkpoint of them fits a trunk that ends at any stage, with or without a tail behind it: the
stock restore asks the file for the variables that the model has, and leaves the others alone.
"""

import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from typing import Protocol

import tensorflow as tf

from object_detection_ext import errors, listing

# What the stock `fine_tune_checkpoint_type: 'classification'` calls the root.
_ROOT = "feature_extractor"
_BASENAME = "ckpt"
_INDEX_SUFFIX = ".index"
_MAX_LISTED = 20


class HasVariablesByPath(Protocol):
    """A trunk, a tail, or anything else whose variables have a path."""

    def variables_by_path(self) -> dict[str, tf.Variable]:
        """Every variable by its path, such as "Mixed_3b/Branch_0/Conv3d_0a_1x1/conv_3d/w"."""


class PretrainedVariables(tf.Module):
    """The variables of a trunk and its tail as one dictionary, `by_path`.

    As the feature extractor's `classification_backbone` it is what the stock
    `fine_tune_checkpoint_type: 'classification'` restores from a checkpoint that `save` wrote.

    Raises ValueError if two parts have a variable of the same path.
    """

    def __init__(self, *parts: HasVariablesByPath, name: str | None = None):
        super().__init__(name=name)
        by_path: dict[str, tf.Variable] = {}
        for part in parts:
            variables = part.variables_by_path()
            twice = sorted(by_path.keys() & variables.keys())
            if twice:
                raise ValueError(
                    f"Variables of two parts have the same path: {listing.in_line(twice)}."
                )
            by_path |= variables
        self.by_path = by_path


def assign(
    variables: PretrainedVariables,
    values: Mapping[str, tf.types.experimental.TensorLike],
    source: str,
) -> None:
    """Gives every variable its value; all of them, or none if the values do not fit.

    Args:
      variables: whose `by_path` is to be set.
      values: path to array (with `shape`), one for every variable and no more.
      source: the file that the values come from, for the message.

    Raises:
      errors.InputError: see `check`.
    """
    check({path: v.shape for path, v in variables.by_path.items()}, values, source)
    for path, variable in variables.by_path.items():
        variable.assign(values[path])


def check(
    shapes: Mapping[str, Sequence[int]],
    values: Mapping[str, tf.types.experimental.TensorLike],
    source: str,
) -> None:
    """Checks that the values are those of a network.

    Args:
      shapes: the network's variables, by any name.
      values: the arrays by the same names.
      source: the file that the values come from, for the message.

    Raises:
      errors.InputError: it lists what is missing, what is left over, what has another shape, and
        what holds something else than finite numbers.
    """
    wanted = {path: tuple(shape) for path, shape in shapes.items()}
    given = {path: tuple(value.shape) for path, value in values.items()}
    differences = _shape_differences(wanted, given)
    differences["left over"] = [f"{p} {list(given[p])}" for p in sorted(given.keys() - wanted)]
    differences["not finite numbers"] = [
        path for path in sorted(wanted.keys() & given.keys()) if not _finite(values[path])
    ]
    _raise_if_any(differences, source, len(wanted))


def check_checkpoint(variables: PretrainedVariables, prefix: str) -> None:
    """Checks that a checkpoint that `save` wrote has what a model needs of it.

    The stock restore fails too, but names few of the variables and not the file.

    Args:
      variables: the model's `classification_backbone`.
      prefix: the `fine_tune_checkpoint`.

    Raises:
      errors.InputError: it lists what is missing, what has another shape, and what holds something
        else than finite numbers; or there is no checkpoint, or it is damaged.
    """
    try:
        stored = dict(tf.train.list_variables(prefix))
    except (tf.errors.OpError, ValueError) as error:
        raise errors.InputError(f"{prefix} cannot be read as a checkpoint: {error}") from error
    wanted = {path: tuple(variable.shape) for path, variable in variables.by_path.items()}
    given = {path: tuple(stored[_stored(path)]) for path in wanted if _stored(path) in stored}
    differences = _shape_differences(wanted, given)
    reader = tf.train.load_checkpoint(prefix)
    try:
        differences["not finite numbers"] = [
            path for path in sorted(given) if not _finite(reader.get_tensor(_stored(path)))
        ]
    except (tf.errors.OpError, IndexError, RuntimeError) as error:
        raise errors.InputError(f"{prefix} is damaged: {error}") from error
    _raise_if_any(differences, prefix, len(wanted))


def _stored(path: str) -> str:
    """TensorFlow's name for an entry of `by_path` in the file."""
    escaped = path.replace(".", "..").replace("/", ".S")
    return f"{_ROOT}/by_path/{escaped}/.ATTRIBUTES/VARIABLE_VALUE"


def _shape_differences(
    wanted: Mapping[str, tuple[int, ...]], given: Mapping[str, tuple[int, ...]]
) -> dict[str, list[str]]:
    return {
        "missing": [f"{path} {list(wanted[path])}" for path in sorted(wanted.keys() - given)],
        "of another shape": [
            f"{path} {list(given[path])} instead of {list(wanted[path])}"
            for path in sorted(wanted.keys() & given.keys())
            if given[path] != wanted[path]
        ],
    }


def _raise_if_any(differences: Mapping[str, list[str]], source: str, num_wanted: int) -> None:
    if any(differences.values()):
        raise errors.InputError(
            f"{source}: not the weights of this network, which has {num_wanted} variables."
            + "".join(
                "\n".join([f"\n{len(entries)} {what}:", *listing.in_lines(entries, _MAX_LISTED)])
                for what, entries in differences.items()
                if entries
            )
        )


def _finite(value: tf.types.experimental.TensorLike) -> bool:
    value = tf.convert_to_tensor(value)
    return value.dtype.is_floating and bool(tf.reduce_all(tf.math.is_finite(value)))


def checkpoint_prefix(directory: str) -> str:
    """What `save` writes to, and what `fine_tune_checkpoint` names."""
    return os.path.join(directory, _BASENAME)


def check_output(directory: str, overwrite: bool) -> None:
    """Says whether `save` may write to a directory, before the work starts.

    Raises:
      errors.InputError: it is a file, or it has a checkpoint and `overwrite` is not set.
    """
    if os.path.exists(directory) and not os.path.isdir(directory):
        raise errors.InputError(f"{directory} is a file; the checkpoint needs a directory.")
    index = checkpoint_prefix(directory) + _INDEX_SUFFIX
    if os.path.exists(index) and not overwrite:
        raise errors.InputError(
            f"{directory} has a checkpoint already ({index}). Name another directory, or pass "
            "--overwrite."
        )


def save(variables: PretrainedVariables, directory: str) -> str:
    """Writes a checkpoint for `fine_tune_checkpoint` and returns its prefix.

    It replaces one that is there. The index file, without which there is no checkpoint, appears
    last, so an interrupted call leaves none that is half of one thing and half of another.
    """
    os.makedirs(directory, exist_ok=True)
    prefix = checkpoint_prefix(directory)
    with tempfile.TemporaryDirectory(prefix=".unfinished-", dir=directory) as folder:
        checkpoint = tf.train.Checkpoint(**{_ROOT: variables})
        # The stock restore makes one and asserts that the file has it; `write` alone has none.
        checkpoint.save_counter.assign(0)
        checkpoint.write(os.path.join(folder, _BASENAME))
        written = sorted(os.listdir(folder), key=lambda name: name.endswith(_INDEX_SUFFIX))
        if os.path.exists(prefix + _INDEX_SUFFIX):
            os.remove(prefix + _INDEX_SUFFIX)
        for name in written:
            os.replace(os.path.join(folder, name), os.path.join(directory, name))
    return prefix


def train_config_fields(prefix: str) -> str:
    """What to put into a pipeline.config so that training starts from a saved checkpoint."""
    return "\n".join(
        (
            "train_config {",
            # JSON escapes a path as the text format wants it.
            f"  fine_tune_checkpoint: {json.dumps(prefix, ensure_ascii=False)}",
            '  fine_tune_checkpoint_type: "classification"',
            "  fine_tune_checkpoint_version: V2",
            "}",
        )
    )
