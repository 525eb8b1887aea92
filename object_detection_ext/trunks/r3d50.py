# SPDX-License-Identifier: Apache-2.0
"""R3D-50, the inflated ResNet-50 of the paper's Table 6, and the same with 5 non-local blocks.

It is the "I3D ResNet-50" of Wang et al., "Non-local Neural Networks", CVPR 2018: table 1 there has
the sizes and strides of the stages, its published code the blocks whose first 1x1x1 convolution is
inflated to 3x1x1. Inside a block the stride is in the first convolution, as in He et al.'s network
and in `tf.keras.applications.ResNet50`, so that the ImageNet weights of the latter can be inflated;
padding and batch norm's epsilon are its as well.

Shapes: B clips, T frames, H W pixels, t h w cells of the feature map, C channels.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from object_detection_ext.trunks import layers, non_local, stages, trunk

# Keras's ResNet-50's, so that its weights give its features.
BATCH_NORM_EPSILON = 1.001e-5

# Mean of ImageNet's pixels, R, G, B of 0 to 255, that `tf.keras.applications.resnet` subtracts (and
# Caffe's ResNet-50 before it), as a value in our clips' range of [-1, 1]. Subtracting it here makes
# the padding of the first convolution the same as there. What differs is a scale and an order,
# which a converter puts into the first kernel: Keras's network sees 127.5 times these values, and
# as B, G, R.
PIXEL_SCALE = 127.5
IMAGENET_MEAN = tuple(value / PIXEL_SCALE - 1 for value in (123.68, 116.779, 103.939))


class Bottleneck(tf.keras.layers.Layer):
    """He et al.'s bottleneck block: ReLU(shortcut(x) + conv_3(conv_2(conv_1(x)))).

    [B, T, H, W, in_channels] -> [B, T, ceil(H/stride), ceil(W/stride), filters]. conv_1 is
    time x 1 x 1 with the stride, to `inner` channels, conv_2 1x3x3, conv_3 1x1x1 to `filters`; each
    has batch norm with gamma and beta, the first two ReLU. With `project` the shortcut is a 1x1x1
    convolution with the stride and batch norm, else x.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        inner: int,
        filters: int,
        time: int,
        stride: int,
        project: bool,
        name: str | None = None,
        **unit_options,
    ):
        super().__init__(name=name)
        options = {"use_gamma": True, "epsilon": BATCH_NORM_EPSILON, **unit_options}
        strides = (1, stride, stride)
        with tf.name_scope(self.name):
            self.shortcut = None
            if project:
                self.shortcut = layers.ConvUnit(
                    in_channels=in_channels,
                    filters=filters,
                    kernel_size=(1, 1, 1),
                    strides=strides,
                    activation=None,
                    name="shortcut",
                    **options,
                )
            self.conv_1 = layers.ConvUnit(
                in_channels=in_channels,
                filters=inner,
                kernel_size=(time, 1, 1),
                strides=strides,
                name="conv_1",
                **options,
            )
            self.conv_2 = layers.ConvUnit(
                in_channels=inner,
                filters=inner,
                kernel_size=(1, 3, 3),
                name="conv_2",
                **options,
            )
            self.conv_3 = layers.ConvUnit(
                in_channels=inner,
                filters=filters,
                kernel_size=(1, 1, 1),
                activation=None,
                name="conv_3",
                **options,
            )
        self.built = True

    def call(self, features: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        """The block's output, see the class."""
        residual = features
        for unit in (self.conv_1, self.conv_2, self.conv_3):
            residual = unit(residual, training=training)
        if self.shortcut is not None:
            features = self.shortcut(features, training=training)
        return tf.nn.relu(features + residual)

    def variables_by_path(self) -> dict[str, tf.Variable]:
        """Every variable by its path, such as "conv_1/conv_3d/w" or "shortcut/batch_norm/beta"."""
        units = (self.shortcut, self.conv_1, self.conv_2, self.conv_3)
        return {
            f"{unit.name}/{path}": variable
            for unit in units
            if unit is not None
            for path, variable in unit.variables_by_path().items()
        }


@dataclasses.dataclass(frozen=True)
class Stem:
    """The first convolution, 5x7x7, of the clip less ImageNet's mean."""

    name: str = "conv1"
    channels: int = 64
    kernel: layers.Triple = (5, 7, 7)
    strides: layers.Triple = (2, 2, 2)
    padding: layers.Triple = (2, 3, 3)

    def output_channels(self, in_channels: int, depth_multiplier: float) -> int:
        """See `stages.Stage`."""
        return layers.scale_channels(self.channels, depth_multiplier)

    def add_units(
        self,
        add: Callable[..., None],
        in_channels: int,
        depth_multiplier: float,
        unit_options: dict[str, Any],
    ) -> None:
        """See `stages.Stage`."""
        add(
            self.name,
            layers.ConvUnit,
            in_channels=in_channels,
            filters=self.output_channels(in_channels, depth_multiplier),
            kernel_size=self.kernel,
            strides=self.strides,
            padding=self.padding,
            use_gamma=True,
            epsilon=BATCH_NORM_EPSILON,
            **unit_options,
        )

    def apply(self, features: tf.Tensor, run: Callable[..., tf.Tensor]) -> tf.Tensor:
        """See `stages.Stage`."""
        return run(self.name, features - tf.constant(IMAGENET_MEAN, features.dtype))


@dataclasses.dataclass(frozen=True)
class Pool:
    """Max pooling with the same padding before and after."""

    name: str
    window: layers.Triple
    strides: layers.Triple
    padding: layers.Triple

    def output_channels(self, in_channels: int, depth_multiplier: float) -> int:
        """See `stages.Stage`."""
        return in_channels

    def add_units(self, *args, **kwargs) -> None:
        """Nothing: pooling has no variables."""

    def apply(self, features: tf.Tensor, run: Callable[..., tf.Tensor]) -> tf.Tensor:
        """See `stages.Stage`."""
        return layers.max_pool3d(features, self.window, self.strides, self.padding)


@dataclasses.dataclass(frozen=True)
class Residual:
    """A stage of bottleneck blocks "block_0", ..., of which the first has stride and projection."""

    name: str
    channels: int  # of the output; a quarter of it inside the blocks
    times: tuple[int, ...]  # per block: size in time of its first kernel
    stride: int
    non_local: tuple[int, ...] = ()  # blocks behind which "non_local_<block>" stands

    @property
    def strides(self) -> layers.Triple:
        """See `stages.Stage`."""
        return (1, self.stride, self.stride)

    def output_channels(self, in_channels: int, depth_multiplier: float) -> int:
        """See `stages.Stage`."""
        return layers.scale_channels(self.channels, depth_multiplier)

    def add_units(
        self,
        add: Callable[..., None],
        in_channels: int,
        depth_multiplier: float,
        unit_options: dict[str, Any],
    ) -> None:
        """See `stages.Stage`."""
        filters = self.output_channels(in_channels, depth_multiplier)
        # A non-local block's convolutions have an initializer of their own.
        non_local_options = {k: v for k, v in unit_options.items() if k != "kernel_initializer"}
        for block, time in enumerate(self.times):
            first = block == 0
            add(
                f"{self.name}/block_{block}",
                Bottleneck,
                in_channels=in_channels if first else filters,
                inner=layers.scale_channels(self.channels // 4, depth_multiplier),
                filters=filters,
                time=time,
                stride=self.stride if first else 1,
                project=first,
                **unit_options,
            )
            if block in self.non_local:
                add(
                    f"{self.name}/non_local_{block}",
                    non_local.NonLocalBlock,
                    channels=filters,
                    epsilon=BATCH_NORM_EPSILON,
                    **non_local_options,
                )

    def apply(self, features: tf.Tensor, run: Callable[..., tf.Tensor]) -> tf.Tensor:
        """See `stages.Stage`."""
        for block in range(len(self.times)):
            features = run(f"{self.name}/block_{block}", features)
            if block in self.non_local:
                features = run(f"{self.name}/non_local_{block}", features)
        return features


# Symmetric padding keeps sizes at ceil(size / stride), as SAME does, and on maps of even size keeps
# Keras's (and Caffe's) alignment, which SAME does not.
TABLE = stages.StageTable(
    network="R3D-50",
    scope="r3d50",
    default_endpoint="res4",
    stages=(
        Stem(),
        Pool("pool1", (3, 3, 3), (2, 2, 2), (1, 1, 1)),
        Residual("res2", 256, (3, 3, 3), stride=1),
        Pool("pool2", (3, 1, 1), (2, 1, 1), (1, 0, 0)),
        Residual("res3", 512, (3, 1, 3, 1), stride=2),
        Residual("res4", 1024, (3, 1, 3, 1, 3, 1), stride=2),
        Residual("res5", 2048, (1, 3, 1), stride=2),
    ),
)

# "Going deeper with non-local blocks" there: 3 in res4 and 2 in res3, after every other block.
_NON_LOCAL_AFTER = {"res3": (1, 3), "res4": (1, 3, 5)}

NON_LOCAL_TABLE = dataclasses.replace(
    TABLE,
    network="non-local R3D-50",
    stages=tuple(
        dataclasses.replace(stage, non_local=_NON_LOCAL_AFTER[stage.name])
        if stage.name in _NON_LOCAL_AFTER
        else stage
        for stage in TABLE.stages
    ),
)


class R3D50(stages.StagedTrunk):
    """`stages.StagedTrunk` of R3D-50; at res4 the map is T/8 x H/16 x W/16, 1024 channels."""

    table = TABLE


class NonLocalR3D50(stages.StagedTrunk):
    """`R3D50` with a non-local block behind every other block of res3 and res4."""

    table = NON_LOCAL_TABLE


TRUNK = trunk.Trunk(
    endpoints=TABLE.endpoints,
    default_endpoint=TABLE.default_endpoint,
    strides=TABLE.strides,
    build=R3D50,
    build_tail=stages.tail_builder(TABLE),
)

NON_LOCAL_TRUNK = trunk.Trunk(
    endpoints=NON_LOCAL_TABLE.endpoints,
    default_endpoint=NON_LOCAL_TABLE.default_endpoint,
    strides=NON_LOCAL_TABLE.strides,
    build=NonLocalR3D50,
    build_tail=stages.tail_builder(NON_LOCAL_TABLE),
)
