# SPDX-License-Identifier: Apache-2.0
r"""Inflates a Keras ImageNet ResNet-50 to a checkpoint of R3D-50 for `fine_tune_checkpoint`.

    python -m object_detection_ext.tools.inflate_resnet50 \
        --input resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5 --output pretrained/r3d50

Carreira and Zisserman, "Quo Vadis, Action Recognition?", section 2: every 2-D kernel is repeated in
time and divided by the number of times, so that on a clip whose frames are all the same the 3-D
network has the 2-D network's features, but for the cells that see the padding before and after the
clip.

The file serves R3D-50 with and without non-local blocks, and the stages behind the trunk. Non-local
blocks have no source: their variables are written as they are initialized, which makes each block
the identity.

Shapes: H W rows and columns of a kernel, T its size in time, C channels.
"""

import dataclasses
import os
import re
from collections.abc import Mapping, Sequence

import h5py
import numpy as np
import tensorflow as tf
from absl import app, flags

from object_detection_ext import command_line, errors
from object_detection_ext.trunks import pretrained, r3d50

_LAST_STAGE = "res5"
_CLASSIFIER = "predictions/"
_NON_LOCAL = "/non_local_"
_KERNEL, _MEAN = "conv_3d/w", "batch_norm/moving_mean"
_UNIT = re.compile(
    r"(?P<unit>conv1|res(?P<stage>\d)/block_(?P<block>\d)/(?:conv_(?P<conv>\d)|shortcut))/.+"
)


@dataclasses.dataclass(frozen=True)
class Inflation:
    """What was inflated. `prefix` is what `fine_tune_checkpoint` names."""

    prefix: str
    num_inflated: int
    num_values: int
    num_initialized: int
    left_out: tuple[str, ...]

    def summary(self) -> str:
        """For the user, with the lines that the pipeline.config needs."""
        left_out = ""
        if self.left_out:
            left_out = "\nLeft out, the classifier of ImageNet: " + ", ".join(self.left_out)
        return (
            f"R3D-50 up to {_LAST_STAGE}: {self.num_inflated} variables, {self.num_values:,} "
            f"values, in {self.prefix}.index and .data-*.\n"
            f"Of the non-local blocks {self.num_initialized} variables, as initialized.{left_out}\n"
            "In the pipeline.config:\n" + pretrained.train_config_fields(self.prefix)
        )


def inflate(input_path: str, output: str, overwrite: bool = False) -> Inflation:
    """Inflates one file of weights; writes nothing unless every variable fits.

    Args:
      input_path: weights of `tf.keras.applications.ResNet50` as Keras saves them in HDF5, with or
        without the classifier.
      output: directory for the object-based checkpoint.
      overwrite: replaces a checkpoint that is there.

    Raises:
      errors.InputError: the input is no such file, or that of another network; or the output has a
        checkpoint.
    """
    pretrained.check_output(output, overwrite)
    weights = read_weights(input_path)
    left_out = tuple(sorted(name for name in weights if name.startswith(_CLASSIFIER)))
    weights = {name: value for name, value in weights.items() if name not in left_out}
    network = pretrained.PretrainedVariables(r3d50.NonLocalR3D50(final_endpoint=_LAST_STAGE))
    with_source = {p: v for p, v in network.by_path.items() if _NON_LOCAL not in p}
    pretrained.check(_keras_shapes(with_source), weights, input_path)
    for path, variable in with_source.items():
        variable.assign(_inflated(path, variable, weights))
    return Inflation(
        prefix=pretrained.save(network, output),
        num_inflated=len(with_source),
        num_values=sum(variable.shape.num_elements() for variable in with_source.values()),
        num_initialized=len(network.by_path) - len(with_source),
        left_out=left_out,
    )


def read_weights(path: str) -> dict[str, np.ndarray]:
    """All weights in a Keras HDF5 file, by "layer/weight", such as "conv1_conv/kernel".

    Raises:
      errors.InputError: there is no such file, it is not HDF5, or it has another layout.
    """
    if not os.path.isfile(path):
        raise errors.InputError(f"--input: there is no file {path}.")
    weights = {}

    def read(name: str, node: h5py.Group | h5py.Dataset) -> None:
        if isinstance(node, h5py.Dataset):
            layer, _, rest = name.partition("/")
            short = f"{layer}/{rest.rpartition('/')[-1].removesuffix(':0')}"
            weights[name if short in weights else short] = node[()]

    try:
        with h5py.File(path, "r") as file:
            # A model that was saved as a whole has them in a group.
            file.get("model_weights", file).visititems(read)
    except (OSError, RuntimeError, KeyError) as error:
        raise errors.InputError(f"{path} cannot be read as an HDF5 file: {error}") from error
    if any(re.search(r"/\d+$", name) for name in weights):
        raise errors.InputError(
            f"{path} has the layout of Keras 3, which does not name the weights. Save them with "
            "Keras 2, as a file that ends in '.h5' but not in '.weights.h5'."
        )
    return weights


def _keras_layer(path: str) -> str:
    """The layer's name in `tf.keras.applications.ResNet50`, less its "_conv" or "_bn"."""
    match = _UNIT.fullmatch(path)
    if match["unit"] == "conv1":
        return "conv1"
    # Keras counts blocks from 1, and the shortcut as convolution 0.
    return f"conv{match['stage']}_block{int(match['block']) + 1}_{match['conv'] or 0}"


def _keras_shapes(variables: Mapping[str, tf.Variable]) -> dict[str, tuple[int, ...]]:
    shapes = {}
    for path, variable in variables.items():
        layer = _keras_layer(path)
        if path.endswith(_KERNEL):
            shapes[f"{layer}_conv/kernel"] = tuple(variable.shape[1:])  # [H, W, C, C']
            shapes[f"{layer}_conv/bias"] = tuple(variable.shape[-1:])
        else:
            shapes[f"{layer}_bn/{path.rpartition('/')[-1]}"] = tuple(variable.shape)
    return shapes


def _inflated(path: str, variable: tf.Variable, weights: Mapping[str, np.ndarray]) -> np.ndarray:
    """The value of one of R3D-50's variables."""
    layer = _keras_layer(path)
    if path.endswith(_KERNEL):
        kernel = weights[f"{layer}_conv/kernel"]
        if layer == "conv1":
            # Keras's network sees B, G, R of 0 to 255; ours R, G, B over 127.5.
            kernel = kernel[:, :, ::-1] * r3d50.PIXEL_SCALE
        times = variable.shape[0]
        return np.repeat(kernel[np.newaxis] / times, times, axis=0)  # [T, H, W, C, C']
    value = weights[f"{layer}_bn/{path.rpartition('/')[-1]}"]
    # Our convolutions have no bias: batch norm subtracts that much less.
    return value - weights[f"{layer}_conv/bias"] if path.endswith(_MEAN) else value


def define_flags(values: flags.FlagValues) -> None:
    """Defines the tool's options."""
    flags.DEFINE_string(
        "input",
        None,
        "Keras weights of ResNet-50, such as resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5.",
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
    # The same non-local blocks every time.
    tf.keras.utils.set_random_seed(0)
    with command_line.ending():
        inflation = inflate(values.input, values.output, values.overwrite)
        print(inflation.summary())


if __name__ == "__main__":
    define_flags(flags.FLAGS)
    app.run(main)
