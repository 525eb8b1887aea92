# SPDX-License-Identifier: Apache-2.0
"""I3D, the inflated Inception-v1 network: the trunk of the Video Action Transformer.

"Quo Vadis, Action Recognition? A New Model and the Kinetics Dataset", CVPR 2017; the paper's
section 3.1 takes it up to Mixed_4f. Names and structure are those of the published Kinetics
checkpoints, so that their variables map by path (`I3D.variables_by_path`; the checkpoints put
"RGB/inception_i3d/" before it).

Shapes: B clips, T frames, H W pixels, t h w cells of the feature map, C channels.
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import tensorflow as tf

from object_detection_ext.trunks import layers, stages, trunk


class TemporalIdentity(tf.keras.initializers.Initializer):
    """A kernel [time, 1, 1, C, C] whose convolution gives back its input; time must be odd.

    S3D-G's temporal convolutions start from it, so that the network starts as a 2-D one.
    """

    def __call__(self, shape, dtype=None, **kwargs):
        """The kernel. ValueError for another shape."""
        time, height, width, in_channels, filters = shape
        if time % 2 == 0 or (height, width) != (1, 1) or in_channels != filters:
            raise ValueError(f"No temporal identity of shape {tuple(shape)}.")
        identity = tf.eye(filters, dtype=dtype or tf.float32)[tf.newaxis, tf.newaxis, tf.newaxis]
        return tf.pad(identity, [(time // 2, time // 2), (0, 0), (0, 0), (0, 0), (0, 0)])


@dataclasses.dataclass(frozen=True)
class Conv:
    """A convolution with batch norm and ReLU; as a stage and as a step of a branch.

    `separable`: kernel (1, k, k), then (time, 1, 1) with bias and ReLU and no batch norm.
    `gated`: self-gating behind it. Both are S3D-G's.
    """

    name: str
    channels: int
    kernel: layers.Triple
    strides: layers.Triple = (1, 1, 1)
    separable: bool = False
    gated: bool = False

    def output_channels(self, in_channels: int, depth_multiplier: float) -> int:
        """See `stages.Stage`."""
        return layers.scale_channels(self.channels, depth_multiplier)

    def add_units(
        self,
        add: Callable[..., None],
        in_channels: int,
        depth_multiplier: float,
        unit_options: dict[str, Any],
        scope: str = "",
    ) -> None:
        """See `stages.Stage`; `scope` is the path of the branch, with a slash at its end."""
        path, filters = scope + self.name, self.output_channels(in_channels, depth_multiplier)
        kernel_regularizer = unit_options["kernel_regularizer"]
        add(
            path,
            layers.ConvUnit,
            in_channels=in_channels,
            filters=filters,
            kernel_size=(1, *self.kernel[1:]) if self.separable else self.kernel,
            strides=(1, *self.strides[1:]) if self.separable else self.strides,
            **unit_options,
        )
        if self.separable:
            add(
                f"{path}/temporal",
                layers.Conv,
                in_channels=filters,
                filters=filters,
                kernel_size=(self.kernel[0], 1, 1),
                strides=(self.strides[0], 1, 1),
                kernel_initializer=TemporalIdentity(),
                kernel_regularizer=kernel_regularizer,
            )
        if self.gated:
            add(
                f"{path}/self_gating",
                layers.SelfGating,
                channels=filters,
                kernel_regularizer=kernel_regularizer,
            )

    def apply(
        self, features: tf.Tensor, run: Callable[..., tf.Tensor], scope: str = ""
    ) -> tf.Tensor:
        """See `stages.Stage` and `add_units`."""
        path = scope + self.name
        features = run(path, features)
        if self.separable:
            features = tf.nn.relu(run(f"{path}/temporal", features))
        return run(f"{path}/self_gating", features) if self.gated else features


@dataclasses.dataclass(frozen=True)
class Pool:
    """Max pooling, as a stage and as a step of a branch."""

    name: str
    window: layers.Triple
    strides: layers.Triple

    def output_channels(self, in_channels: int, depth_multiplier: float) -> int:
        """See `stages.Stage`."""
        return in_channels

    def add_units(self, *args, **kwargs) -> None:
        """Nothing: pooling has no variables."""

    def apply(
        self, features: tf.Tensor, run: Callable[..., tf.Tensor], scope: str = ""
    ) -> tf.Tensor:
        """See `stages.Stage`."""
        return layers.max_pool3d(features, self.window, self.strides)


@dataclasses.dataclass(frozen=True)
class Mixed:
    """An Inception block: four branches whose outputs are concatenated."""

    name: str
    branch_0: int  # 1x1x1
    branch_1: tuple[int, int]  # 1x1x1, then 3x3x3
    branch_2: tuple[int, int]  # 1x1x1, then 3x3x3
    branch_3: int  # max pool 3x3x3, then 1x1x1
    # The published network misnames this one convolution in Mixed_5b ("0a"); its checkpoints too.
    branch_2_name: str = "Conv3d_0b_3x3"
    separable: bool = False  # the 3x3x3 convolutions
    gated: bool = False  # each branch's last convolution

    strides = (1, 1, 1)

    def branches(self) -> Iterator[tuple[str, tuple[Conv | Pool, ...]]]:
        """The branches' names and steps, in the order of concatenation."""
        one, three = (1, 1, 1), (3, 3, 3)
        last = {"gated": self.gated}
        last_of_three = {"separable": self.separable, "gated": self.gated}
        yield "Branch_0", (Conv("Conv3d_0a_1x1", self.branch_0, one, **last),)
        yield (
            "Branch_1",
            (
                Conv("Conv3d_0a_1x1", self.branch_1[0], one),
                Conv("Conv3d_0b_3x3", self.branch_1[1], three, **last_of_three),
            ),
        )
        yield (
            "Branch_2",
            (
                Conv("Conv3d_0a_1x1", self.branch_2[0], one),
                Conv(self.branch_2_name, self.branch_2[1], three, **last_of_three),
            ),
        )
        yield (
            "Branch_3",
            (
                Pool("MaxPool3d_0a_3x3", three, one),
                Conv("Conv3d_0b_1x1", self.branch_3, one, **last),
            ),
        )

    def output_channels(self, in_channels: int, depth_multiplier: float) -> int:
        """See `stages.Stage`."""
        return sum(
            steps[-1].output_channels(in_channels, depth_multiplier) for _, steps in self.branches()
        )

    def add_units(
        self,
        add: Callable[..., None],
        in_channels: int,
        depth_multiplier: float,
        unit_options: dict[str, Any],
    ) -> None:
        """See `stages.Stage`."""
        for branch, steps in self.branches():
            scope, channels = f"{self.name}/{branch}/", in_channels
            for step in steps:
                step.add_units(add, channels, depth_multiplier, unit_options, scope=scope)
                channels = step.output_channels(channels, depth_multiplier)

    def apply(self, features: tf.Tensor, run: Callable[..., tf.Tensor]) -> tf.Tensor:
        """See `stages.Stage`."""
        outputs = []
        for branch, steps in self.branches():
            scope, output = f"{self.name}/{branch}/", features
            with tf.name_scope(branch):
                for step in steps:
                    output = step.apply(output, run, scope=scope)
            outputs.append(output)
        return tf.concat(outputs, axis=-1)


# Kernels, windows and strides are (time, height, width).
TABLE = stages.StageTable(
    network="I3D",
    scope="inception_i3d",
    default_endpoint="Mixed_4f",
    stages=(
        Conv("Conv3d_1a_7x7", 64, (7, 7, 7), (2, 2, 2)),
        Pool("MaxPool3d_2a_3x3", (1, 3, 3), (1, 2, 2)),
        Conv("Conv3d_2b_1x1", 64, (1, 1, 1)),
        Conv("Conv3d_2c_3x3", 192, (3, 3, 3)),
        Pool("MaxPool3d_3a_3x3", (1, 3, 3), (1, 2, 2)),
        Mixed("Mixed_3b", 64, (96, 128), (16, 32), 32),
        Mixed("Mixed_3c", 128, (128, 192), (32, 96), 64),
        Pool("MaxPool3d_4a_3x3", (3, 3, 3), (2, 2, 2)),
        Mixed("Mixed_4b", 192, (96, 208), (16, 48), 64),
        Mixed("Mixed_4c", 160, (112, 224), (24, 64), 64),
        Mixed("Mixed_4d", 128, (128, 256), (24, 64), 64),
        Mixed("Mixed_4e", 112, (144, 288), (32, 64), 64),
        Mixed("Mixed_4f", 256, (160, 320), (32, 128), 128),
        Pool("MaxPool3d_5a_2x2", (2, 2, 2), (2, 2, 2)),
        Mixed("Mixed_5b", 256, (160, 320), (32, 128), 128, branch_2_name="Conv3d_0a_3x3"),
        Mixed("Mixed_5c", 384, (192, 384), (48, 128), 128),
    ),
)

VALID_ENDPOINTS = TABLE.endpoints
endpoint_channels = TABLE.channels
endpoint_strides = TABLE.strides


class I3DStages(stages.Stages):
    """`stages.Stages` of I3D: the I3D head (section 3.3) is "MaxPool3d_5a_2x2" to "Mixed_5c"."""

    def __init__(self, *, first: str, last: str, **options):
        super().__init__(table=TABLE, first=first, last=last, **options)


class I3D(stages.StagedTrunk):
    """`stages.StagedTrunk` of I3D; at Mixed_4f the map is T/4 x H/16 x W/16, 832 channels."""

    table = TABLE


TRUNK = trunk.Trunk(
    endpoints=VALID_ENDPOINTS,
    default_endpoint=TABLE.default_endpoint,
    strides=endpoint_strides,
    build=I3D,
    build_tail=stages.tail_builder(TABLE),
)
