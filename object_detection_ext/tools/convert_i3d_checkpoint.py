# SPDX-License-Identifier: Apache-2.0
r"""Converts a published Kinetics I3D checkpoint to one that `fine_tune_checkpoint` reads.

    python -m object_detection_ext.tools.convert_i3d_checkpoint \
        --input data/checkpoints/rgb_imagenet/model.ckpt --output pretrained/i3d_rgb_imagenet

Reads the TF1 checkpoints of the kinetics-i3d repository that take RGB. Everything from the clip to
Mixed_5c is converted, so that the file serves the trunk, wherever it ends, and the I3D head's
stages behind it. The classifier of Kinetics's classes is left out.
"""

import dataclasses
import os
import re
from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf
from absl import app, flags

from object_detection_ext import command_line, errors
from object_detection_ext.trunks import i3d, pretrained

_PREFIX = "RGB/inception_i3d/"
_FLOW_PREFIX = "Flow/inception_i3d/"
_CLASSIFIER = "Logits/"
_LAST_STAGE = "Mixed_5c"
_FIRST_KERNEL = "Conv3d_1a_7x7/conv_3d/w"
_FILE_SUFFIX = re.compile(r"\.(index|meta|data-\d{5}-of-\d{5})$")
# What every object-based checkpoint has, and no TF1 one.
_OBJECT_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"


@dataclasses.dataclass(frozen=True)
class Conversion:
    """What was converted. `prefix` is what `fine_tune_checkpoint` names."""

    prefix: str
    num_variables: int
    num_values: int
    left_out: tuple[str, ...]

    def summary(self) -> str:
        """For the user, with the lines that the pipeline.config needs."""
        left_out = ""
        if self.left_out:
            left_out = "\nLeft out, the classifier of Kinetics's classes: " + ", ".join(
                self.left_out
            )
        return (
            f"I3D up to {_LAST_STAGE}: {self.num_variables} variables, {self.num_values:,} values, "
            f"in {self.prefix}.index and .data-*.{left_out}\nIn the pipeline.config:\n"
            + pretrained.train_config_fields(self.prefix)
        )


def convert(input_path: str, output: str, overwrite: bool = False) -> Conversion:
    """Converts one checkpoint; writes nothing unless every variable fits.

    Args:
      input_path: the TF1 checkpoint, "DIR/model.ckpt", or one of its files.
      output: directory for the object-based checkpoint.
      overwrite: replaces a checkpoint that is there.

    Raises:
      errors.InputError: the input is no checkpoint, or one of another kind or network; or the
        output has a checkpoint.
    """
    prefix = _checkpoint_prefix(input_path)
    pretrained.check_output(output, overwrite)
    values, left_out = _network_values(read_checkpoint(prefix), prefix)
    network = pretrained.PretrainedVariables(i3d.I3D(final_endpoint=_LAST_STAGE))
    values = {path: _per_channel(path, value) for path, value in values.items()}
    pretrained.assign(network, values, prefix)
    return Conversion(
        prefix=pretrained.save(network, output),
        num_variables=len(values),
        num_values=sum(value.size for value in values.values()),
        left_out=left_out,
    )


def _checkpoint_prefix(path: str) -> str:
    if os.path.isdir(path):
        prefixes = sorted(
            os.path.join(path, name.removesuffix(".index"))
            for name in os.listdir(path)
            if name.endswith(".index")
        )
        hint = f"Did you mean {' or '.join(prefixes)}?" if prefixes else "It has no checkpoint."
        raise errors.InputError(f"--input {path} is a directory, not a checkpoint. {hint}")
    prefix = _FILE_SUFFIX.sub("", path)
    if not os.path.exists(prefix + ".index"):
        raise errors.InputError(
            f"--input: there is no checkpoint {prefix}. It consists of {prefix}.index and "
            f"{prefix}.data-00000-of-00001."
        )
    return prefix


def read_checkpoint(prefix: str) -> dict[str, np.ndarray]:
    """All variables of a TF1 checkpoint by name.

    Raises:
      errors.InputError: it cannot be read, or it is an object-based checkpoint.
    """
    try:
        reader = tf.train.load_checkpoint(prefix)
        names = reader.get_variable_to_shape_map()
        values = {} if _OBJECT_GRAPH in names else {n: reader.get_tensor(n) for n in names}
    # The reader raises Python's own errors too: IndexError for a file that is cut short.
    except (tf.errors.OpError, RuntimeError, IndexError, ValueError) as error:
        raise errors.InputError(f"{prefix} cannot be read as a checkpoint: {error}") from error
    if _OBJECT_GRAPH in names:
        raise errors.InputError(
            f"{prefix} is an object-based (TF2) checkpoint. This tool reads the TF1 checkpoints of "
            "kinetics-i3d; a checkpoint that it wrote needs no conversion and goes into "
            "fine_tune_checkpoint as it is."
        )
    return values


def _network_values(
    variables: Mapping[str, np.ndarray], source: str
) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """The variables by their path in the network, and the names of the classifier's."""
    # The checkpoint of Kinetics-600 has no prefix.
    prefix = _PREFIX if any(name.startswith(_PREFIX) for name in variables) else ""
    first_kernel = variables.get(prefix + _FIRST_KERNEL)
    if (not prefix and any(name.startswith(_FLOW_PREFIX) for name in variables)) or (
        first_kernel is not None and first_kernel.shape[-2:-1] == (2,)
    ):
        raise errors.InputError(
            f"{source} is I3D for optical flow, whose frames have 2 channels. The trunk takes RGB: "
            "convert one of rgb_imagenet, rgb_scratch or rgb_scratch_kin600."
        )
    values, left_out = {}, []
    for name, value in variables.items():
        if name.startswith(prefix + _CLASSIFIER):
            left_out.append(name)
        else:
            values[name.removeprefix(prefix)] = value
    return values, tuple(sorted(left_out))


def _per_channel(path: str, value: np.ndarray) -> np.ndarray:
    """Sonnet keeps batch norm's variables as [1, 1, 1, 1, C]; here they are [C]."""
    if "/batch_norm/" in path and value.ndim and value.shape[-1] == value.size:
        return value.reshape(-1)
    return value


def define_flags(values: flags.FlagValues) -> None:
    """Defines the tool's options."""
    flags.DEFINE_string(
        "input",
        None,
        "TF1 checkpoint of kinetics-i3d, such as data/checkpoints/rgb_imagenet/model.ckpt.",
        required=True,
        flag_values=values,
    )
    flags.DEFINE_string(
        "output", None, "Directory for the checkpoint.", required=True, flag_values=values
    )
    flags.DEFINE_bool(
        "overwrite", False, "Replace a checkpoint that is in --output.", flag_values=values
    )


def main(argv: Sequence[str], values: flags.FlagValues = flags.FLAGS) -> None:
    if len(argv) > 1:
        raise app.UsageError(f"Unexpected arguments: {argv[1:]}")
    with command_line.ending():
        conversion = convert(values.input, values.output, values.overwrite)
        print(conversion.summary())


if __name__ == "__main__":
    define_flags(flags.FLAGS)
    app.run(main)
