# SPDX-License-Identifier: Apache-2.0
"""I3D, the inflated Inception-v1 network: the trunk of the Video Action Transformer.

"Quo Vadis, Action Recognition? A New Model and the Kinetics Dataset", CVPR 2017; the paper's
section 3.1 takes it up to Mixed_4f. Names and structure are those of the published Kinetics
checkpoints, so that their variables map by path (`I3DStages.variables_by_path`).

Shapes: B clips, T frames, H W pixels, t h w cells of the feature map, C channels.
"""

from collections.abc import Iterator
from typing import NamedTuple

import tensorflow as tf

from object_detection_ext.trunks import layers

_Triple = tuple[int, int, int]


class _Conv(NamedTuple):
    name: str
    channels: int
    kernel: _Triple
    strides: _Triple = (1, 1, 1)


class _Pool(NamedTuple):
    name: str
    window: _Triple
    strides: _Triple


class _Mixed(NamedTuple):
    """An Inception block: four branches whose outputs are concatenated."""

    name: str
    branch_0: int  # 1x1x1
    branch_1: tuple[int, int]  # 1x1x1, then 3x3x3
    branch_2: tuple[int, int]  # 1x1x1, then 3x3x3
    branch_3: int  # max pool 3x3x3, then 1x1x1
    # The published network misnames this one convolution in Mixed_5b ("0a"); its checkpoints too.
    branch_2_name: str = "Conv3d_0b_3x3"

    strides = (1, 1, 1)

    def branches(self) -> Iterator[tuple[str, tuple[_Conv | _Pool, ...]]]:
        one, three = (1, 1, 1), (3, 3, 3)
        yield "Branch_0", (_Conv("Conv3d_0a_1x1", self.branch_0, one),)
        yield (
            "Branch_1",
            (
                _Conv("Conv3d_0a_1x1", self.branch_1[0], one),
                _Conv("Conv3d_0b_3x3", self.branch_1[1], three),
            ),
        )
        yield (
            "Branch_2",
            (
                _Conv("Conv3d_0a_1x1", self.branch_2[0], one),
                _Conv(self.branch_2_name, self.branch_2[1], three),
            ),
        )
        yield (
            "Branch_3",
            (
                _Pool("MaxPool3d_0a_3x3", three, one),
                _Conv("Conv3d_0b_1x1", self.branch_3, one),
            ),
        )


# Kernels, windows and strides are (time, height, width).
_STAGES = (
    _Conv("Conv3d_1a_7x7", 64, (7, 7, 7), (2, 2, 2)),
    _Pool("MaxPool3d_2a_3x3", (1, 3, 3), (1, 2, 2)),
    _Conv("Conv3d_2b_1x1", 64, (1, 1, 1)),
    _Conv("Conv3d_2c_3x3", 192, (3, 3, 3)),
    _Pool("MaxPool3d_3a_3x3", (1, 3, 3), (1, 2, 2)),
    _Mixed("Mixed_3b", 64, (96, 128), (16, 32), 32),
    _Mixed("Mixed_3c", 128, (128, 192), (32, 96), 64),
    _Pool("MaxPool3d_4a_3x3", (3, 3, 3), (2, 2, 2)),
    _Mixed("Mixed_4b", 192, (96, 208), (16, 48), 64),
    _Mixed("Mixed_4c", 160, (112, 224), (24, 64), 64),
    _Mixed("Mixed_4d", 128, (128, 256), (24, 64), 64),
    _Mixed("Mixed_4e", 112, (144, 288), (32, 64), 64),
    _Mixed("Mixed_4f", 256, (160, 320), (32, 128), 128),
    _Pool("MaxPool3d_5a_2x2", (2, 2, 2), (2, 2, 2)),
    _Mixed("Mixed_5b", 256, (160, 320), (32, 128), 128, branch_2_name="Conv3d_0a_3x3"),
    _Mixed("Mixed_5c", 384, (192, 384), (48, 128), 128),
)

VALID_ENDPOINTS = tuple(stage.name for stage in _STAGES)

_RGB = 3


def _stage_index(endpoint: str) -> int:
    if endpoint not in VALID_ENDPOINTS:
        raise ValueError(
            f"Unknown I3D endpoint {endpoint!r}. It must be one of: {', '.join(VALID_ENDPOINTS)}."
        )
    return VALID_ENDPOINTS.index(endpoint)


def _stage_channels(stage, in_channels: int, depth_multiplier: float) -> int:
    if isinstance(stage, _Pool):
        return in_channels
    if isinstance(stage, _Conv):
        return layers.scale_channels(stage.channels, depth_multiplier)
    last_units = (stage.branch_0, stage.branch_1[1], stage.branch_2[1], stage.branch_3)
    return sum(layers.scale_channels(channels, depth_multiplier) for channels in last_units)


def endpoint_channels(endpoint: str, depth_multiplier: float = 1.0) -> int:
    """Channels of the feature map at `endpoint`. ValueError for an unknown endpoint."""
    channels = _RGB
    for stage in _STAGES[: _stage_index(endpoint) + 1]:
        channels = _stage_channels(stage, channels, depth_multiplier)
    return channels


def endpoint_strides(endpoint: str) -> tuple[int, int]:
    """(temporal stride in frames, spatial stride in pixels) of one cell at `endpoint`.

    A clip of T frames and H x W pixels becomes ceil(T / temporal) x ceil(H / spatial) x
    ceil(W / spatial) cells. ValueError for an unknown endpoint.
    """
    temporal, spatial = 1, 1
    for stage in _STAGES[: _stage_index(endpoint) + 1]:
        temporal *= stage.strides[0]
        spatial *= stage.strides[1]
    return temporal, spatial


class I3DStages(tf.keras.layers.Layer):
    """A run of consecutive I3D stages, `first` to `last` inclusive.

    The trunk is the run from the first stage; the I3D head (paper, section 3.3) is the run
    "MaxPool3d_5a_2x2" to "Mixed_5c". [B, T, H, W, C] -> [B, t, h, w, output_channels]; the C that
    a run expects is `in_channels`. All variables exist after construction.

    Raises ValueError for an unknown stage, for `last` before `first`, and for a depth multiplier
    that is not positive.
    """

    def __init__(
        self,
        *,
        first: str,
        last: str,
        depth_multiplier: float = 1.0,
        train_batch_norm: bool = False,
        batch_norm_momentum: float = layers.BATCH_NORM_MOMENTUM,
        kernel_initializer="he_normal",
        kernel_regularizer=None,
        name: str | None = None,
    ):
        super().__init__(name=name)
        if not depth_multiplier > 0:
            raise ValueError(f"depth_multiplier must be greater than 0, got {depth_multiplier}.")
        first_index, last_index = _stage_index(first), _stage_index(last)
        if last_index < first_index:
            raise ValueError(f"The I3D stage {last!r} comes before {first!r}.")
        self._stages = _STAGES[first_index : last_index + 1]
        self._depth_multiplier = depth_multiplier
        self._unit_options = {
            "train_batch_norm": train_batch_norm,
            "batch_norm_momentum": batch_norm_momentum,
            "kernel_initializer": kernel_initializer,
            "kernel_regularizer": kernel_regularizer,
        }
        self.in_channels = (
            endpoint_channels(VALID_ENDPOINTS[first_index - 1], depth_multiplier)
            if first_index
            else _RGB
        )
        self.output_channels = endpoint_channels(last, depth_multiplier)
        # path, such as "Mixed_3b/Branch_1/Conv3d_0a_1x1" -> unit
        self._units: dict[str, layers.ConvUnit] = {}
        self._build_units()
        self.built = True

    def _build_units(self) -> None:
        channels = self.in_channels
        for stage in self._stages:
            if isinstance(stage, _Conv):
                self._add_unit("", stage, channels)
            elif isinstance(stage, _Mixed):
                for branch, steps in stage.branches():
                    branch_channels = channels
                    for step in steps:
                        if isinstance(step, _Conv):
                            self._add_unit(f"{stage.name}/{branch}/", step, branch_channels)
                        branch_channels = _stage_channels(
                            step, branch_channels, self._depth_multiplier
                        )
            channels = _stage_channels(stage, channels, self._depth_multiplier)

    def _add_unit(self, scope: str, conv: _Conv, in_channels: int) -> None:
        with tf.name_scope(f"{self.name}/{scope}"):
            self._units[scope + conv.name] = layers.ConvUnit(
                in_channels=in_channels,
                filters=_stage_channels(conv, in_channels, self._depth_multiplier),
                kernel_size=conv.kernel,
                strides=conv.strides,
                name=conv.name,
                **self._unit_options,
            )

    def endpoints(self, features: tf.Tensor, training: bool | None = None) -> dict[str, tf.Tensor]:
        """The feature map after every stage, in order: {stage name: [B, t, h, w, C]}."""
        outputs = {}
        for stage in self._stages:
            if isinstance(stage, _Mixed):
                branches = []
                for branch, steps in stage.branches():
                    scope, out = f"{stage.name}/{branch}/", features
                    for step in steps:
                        out = self._apply(scope, step, out, training)
                    branches.append(out)
                features = tf.concat(branches, axis=-1)
            else:
                features = self._apply("", stage, features, training)
            outputs[stage.name] = features
        return outputs

    def _apply(
        self, scope: str, step: _Conv | _Pool, features: tf.Tensor, training: bool | None
    ) -> tf.Tensor:
        if isinstance(step, _Pool):
            return layers.max_pool3d(features, step.window, step.strides)
        return self._units[scope + step.name](features, training=training)

    def call(self, features: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        """The feature map after the last stage, [B, t, h, w, output_channels]."""
        return self.endpoints(features, training=training)[self._stages[-1].name]

    def variables_by_path(self) -> dict[str, tf.Variable]:
        """Every variable by its path in the published checkpoints.

        For instance "Mixed_3b/Branch_1/Conv3d_0a_1x1/batch_norm/moving_mean"; the checkpoints put
        "RGB/inception_i3d/" before it.
        """
        return {
            f"{path}/{name}": variable
            for path, unit in self._units.items()
            for name, variable in unit.variables_by_path().items()
        }


class I3D(tf.keras.Model):
    """I3D from the clip to `final_endpoint`.

    [B, T, H, W, 3] of RGB in [-1, 1] -> [B, t, h, w, output_channels], with t, h, w as
    `endpoint_strides` says (for Mixed_4f: T/4, H/16, W/16, 832 channels). All variables exist
    after construction.

    Args:
      final_endpoint: the last stage, one of `VALID_ENDPOINTS`.
      depth_multiplier: factor on every layer's channels, rounded by `layers.scale_channels`;
        below 1 for small machines. Published weights fit 1.0 only.
      train_batch_norm: False (paper, section 3.5) keeps the stored statistics always; True uses
        and updates batch statistics in training calls.
      batch_norm_momentum: the part of a stored statistic that a training step keeps. The
        published 0.999 suits runs of many thousands of steps; a short run from scratch needs
        less, or evaluation sees statistics of the untrained network.
      kernel_initializer, kernel_regularizer: Keras initializer and regularizer of the
        convolutions; the regularizer's terms are in `losses`.

    Raises ValueError for an unknown endpoint and for a depth multiplier that is not positive.
    """

    def __init__(
        self,
        *,
        final_endpoint: str = "Mixed_4f",
        depth_multiplier: float = 1.0,
        train_batch_norm: bool = False,
        batch_norm_momentum: float = layers.BATCH_NORM_MOMENTUM,
        kernel_initializer="he_normal",
        kernel_regularizer=None,
        name: str | None = None,
    ):
        super().__init__(name=name)
        self.temporal_stride, self.spatial_stride = endpoint_strides(final_endpoint)
        self.stages = I3DStages(
            first=VALID_ENDPOINTS[0],
            last=final_endpoint,
            depth_multiplier=depth_multiplier,
            train_batch_norm=train_batch_norm,
            batch_norm_momentum=batch_norm_momentum,
            kernel_initializer=kernel_initializer,
            kernel_regularizer=kernel_regularizer,
            name="inception_i3d",
        )
        self.output_channels = self.stages.output_channels
        self.built = True

    def call(self, clip: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        """The feature map of `clip` at the final endpoint. ValueError for another shape."""
        return self.stages(_checked_clip(clip), training=training)

    def endpoints(self, clip: tf.Tensor, training: bool | None = None) -> dict[str, tf.Tensor]:
        """The feature map of `clip` after every stage, in order: {name: [B, t, h, w, C]}."""
        return self.stages.endpoints(_checked_clip(clip), training=training)

    def variables_by_path(self) -> dict[str, tf.Variable]:
        """See `I3DStages.variables_by_path`."""
        return self.stages.variables_by_path()


def _checked_clip(clip: tf.Tensor) -> tf.Tensor:
    clip = tf.convert_to_tensor(clip)
    if clip.shape.rank != 5 or clip.shape[-1] != _RGB:
        raise ValueError(f"I3D takes clips of shape [B, T, H, W, 3], got {clip.shape}.")
    return clip
