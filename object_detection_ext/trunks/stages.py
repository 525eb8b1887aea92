# SPDX-License-Identifier: Apache-2.0
"""A trunk as a table of named stages, at whose ends it may stop and another network take over.

Shapes: B clips, T frames, H W pixels, t h w cells of the feature map, C channels.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Protocol

import tensorflow as tf

from object_detection_ext.trunks import layers

RGB = 3


class Stage(Protocol):
    """A named part of a trunk, at whose end the trunk may stop."""

    name: str
    # Of the stage as a whole.
    strides: layers.Triple

    def output_channels(self, in_channels: int, depth_multiplier: float) -> int:
        """Channels after the stage."""

    def add_units(
        self,
        add: Callable[..., None],
        in_channels: int,
        depth_multiplier: float,
        unit_options: dict[str, Any],
    ) -> None:
        """Adds the layers that have variables: add(path in the trunk, layer class, **kwargs).

        `unit_options` are `layers.ConvUnit`'s: those of batch norm's training and of the kernel.
        """

    def apply(self, features: tf.Tensor, run: Callable[..., tf.Tensor]) -> tf.Tensor:
        """The stage's output, where run(path, features) calls an added layer."""


@dataclasses.dataclass(frozen=True)
class StageTable:
    """The stages of a kind of trunk, in order."""

    network: str  # for messages
    scope: str  # name of the trunk's variables' scope
    default_endpoint: str
    stages: tuple[Stage, ...]

    @property
    def endpoints(self) -> tuple[str, ...]:
        """The names of the stages."""
        return tuple(stage.name for stage in self.stages)

    def index(self, endpoint: str) -> int:
        """Position of the stage of this name. ValueError for an unknown one."""
        if endpoint not in self.endpoints:
            raise ValueError(
                f"Unknown {self.network} endpoint {endpoint!r}. It must be one of: "
                f"{', '.join(self.endpoints)}."
            )
        return self.endpoints.index(endpoint)

    def after(self, endpoint: str) -> str:
        """The stage behind `endpoint`. ValueError for an unknown one and for the last."""
        index = self.index(endpoint) + 1
        if index == len(self.stages):
            raise ValueError(f"There is no {self.network} stage after {endpoint!r}, the last.")
        return self.endpoints[index]

    def channels(self, endpoint: str, depth_multiplier: float = 1.0) -> int:
        """Channels of the feature map at `endpoint`. ValueError for an unknown one."""
        channels = RGB
        for stage in self.stages[: self.index(endpoint) + 1]:
            channels = stage.output_channels(channels, depth_multiplier)
        return channels

    def strides(self, endpoint: str) -> tuple[int, int]:
        """(temporal stride in frames, spatial stride in pixels) of one cell at `endpoint`.

        A clip of T frames and H x W pixels becomes ceil(T / temporal) x ceil(H / spatial) x
        ceil(W / spatial) cells. ValueError for an unknown endpoint.
        """
        temporal, spatial = 1, 1
        for stage in self.stages[: self.index(endpoint) + 1]:
            temporal *= stage.strides[0]
            spatial *= stage.strides[1]
        return temporal, spatial


class Stages(tf.keras.layers.Layer):
    """A run of consecutive stages of a table, `first` to `last` inclusive.

    A trunk is the run from the first stage; the stages that an I3D head (paper, section 3.3) takes
    over are the run from the next one on. [B, T, H, W, in_channels] -> [B, t, h, w,
    output_channels]. All variables exist after construction.

    Args:
      table: the network.
      first, last: names of stages.
      depth_multiplier: factor on every layer's channels, rounded by `layers.scale_channels`.
      train_batch_norm, batch_norm_momentum, kernel_initializer, kernel_regularizer: see
        `layers.ConvUnit`.

    Raises ValueError for an unknown stage, for `last` before `first`, and for a depth multiplier
    that is not positive.
    """

    def __init__(
        self,
        *,
        table: StageTable,
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
        first_index, last_index = table.index(first), table.index(last)
        if last_index < first_index:
            raise ValueError(f"The {table.network} stage {last!r} comes before {first!r}.")
        self._stages = table.stages[first_index : last_index + 1]
        self.in_channels = (
            table.channels(table.endpoints[first_index - 1], depth_multiplier)
            if first_index
            else RGB
        )
        self.output_channels = table.channels(last, depth_multiplier)
        # path, such as "Mixed_3b/Branch_1/Conv3d_0a_1x1" -> layer
        self._units: dict[str, tf.keras.layers.Layer] = {}
        unit_options = {
            "train_batch_norm": train_batch_norm,
            "batch_norm_momentum": batch_norm_momentum,
            "kernel_initializer": kernel_initializer,
            "kernel_regularizer": kernel_regularizer,
        }
        channels = self.in_channels
        for stage in self._stages:
            stage.add_units(self._add_unit, channels, depth_multiplier, unit_options)
            channels = stage.output_channels(channels, depth_multiplier)
        self.built = True

    def _add_unit(self, path: str, unit_class: type[tf.keras.layers.Layer], **kwargs) -> None:
        scope, _, name = path.rpartition("/")
        with tf.name_scope(f"{self.name}/{scope}/" if scope else f"{self.name}/"):
            self._units[path] = unit_class(name=name, **kwargs)

    def endpoints(self, features: tf.Tensor, training: bool | None = None) -> dict[str, tf.Tensor]:
        """The feature map after every stage, in order: {stage name: [B, t, h, w, C]}.

        In a graph the ops of a stage have its name as a part of theirs.
        """

        def run(path: str, inputs: tf.Tensor) -> tf.Tensor:
            return self._units[path](inputs, training=training)

        outputs = {}
        for stage in self._stages:
            with tf.name_scope(stage.name):
                features = stage.apply(features, run)
            outputs[stage.name] = features
        return outputs

    def call(self, features: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        """The feature map after the last stage, [B, t, h, w, output_channels]."""
        return list(self.endpoints(features, training=training).values())[-1]

    def variables_by_path(self) -> dict[str, tf.Variable]:
        """Every variable by its path in the whole network, wherever this run begins and ends.

        For instance "Mixed_3b/Branch_1/Conv3d_0a_1x1/batch_norm/moving_mean".
        """
        return {
            f"{path}/{name}": variable
            for path, unit in self._units.items()
            for name, variable in unit.variables_by_path().items()
        }


class StagedTrunk(tf.keras.Model):
    """The stages of a table from the clip to `final_endpoint`; a subclass names the table.

    [B, T, H, W, 3] of RGB in [-1, 1] -> [B, t, h, w, output_channels], with t, h, w as
    `StageTable.strides` says. All variables exist after construction.

    Args:
      final_endpoint: the last stage, by name; None is the table's default endpoint.
      depth_multiplier: factor on every layer's channels, rounded by `layers.scale_channels`; below
        1 for small machines. Published weights fit 1.0 only.
      train_batch_norm: False (paper, section 3.5) keeps the stored statistics always; True uses
        and updates batch statistics in training calls.
      batch_norm_momentum: the part of a stored statistic that a training step keeps. The
        published 0.999 suits runs of many thousands of steps; a short run from scratch needs
        less, or evaluation sees statistics of the untrained network.
      kernel_initializer, kernel_regularizer: Keras initializer and regularizer of the
        convolutions; the regularizer's terms are in `losses`.

    Raises ValueError for an unknown endpoint and for a depth multiplier that is not positive.
    """

    table: StageTable

    def __init__(
        self,
        *,
        final_endpoint: str | None = None,
        depth_multiplier: float = 1.0,
        train_batch_norm: bool = False,
        batch_norm_momentum: float = layers.BATCH_NORM_MOMENTUM,
        kernel_initializer="he_normal",
        kernel_regularizer=None,
        name: str | None = None,
    ):
        super().__init__(name=name)
        final_endpoint = final_endpoint or self.table.default_endpoint
        self.temporal_stride, self.spatial_stride = self.table.strides(final_endpoint)
        self.stages = Stages(
            table=self.table,
            first=self.table.endpoints[0],
            last=final_endpoint,
            depth_multiplier=depth_multiplier,
            train_batch_norm=train_batch_norm,
            batch_norm_momentum=batch_norm_momentum,
            kernel_initializer=kernel_initializer,
            kernel_regularizer=kernel_regularizer,
            name=self.table.scope,
        )
        self.output_channels = self.stages.output_channels
        self.built = True

    def call(self, clip: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        """The feature map of `clip` at the final endpoint. ValueError for another shape."""
        return self.stages(self._checked(clip), training=training)

    def endpoints(self, clip: tf.Tensor, training: bool | None = None) -> dict[str, tf.Tensor]:
        """The feature map of `clip` after every stage, in order: {name: [B, t, h, w, C]}."""
        return self.stages.endpoints(self._checked(clip), training=training)

    def variables_by_path(self) -> dict[str, tf.Variable]:
        """See `Stages.variables_by_path`."""
        return self.stages.variables_by_path()

    def _checked(self, clip: tf.Tensor) -> tf.Tensor:
        clip = tf.convert_to_tensor(clip)
        if clip.shape.rank != 5 or clip.shape[-1] != RGB:
            raise ValueError(
                f"{self.table.network} takes clips of shape [B, T, H, W, 3], got {clip.shape}."
            )
        return clip


def tail_builder(table: StageTable) -> Callable[..., Stages]:
    """`Trunk.build_tail` of a table: the stages behind an endpoint, to the table's last.

    The builder takes `endpoint` and the keyword arguments of `Stages`. It raises ValueError for an
    unknown endpoint and for the last one, behind which there is nothing.
    """

    def build_tail(*, endpoint: str, name: str | None = None, **options) -> Stages:
        return Stages(
            table=table,
            first=table.after(endpoint),
            last=table.endpoints[-1],
            name=name or f"{table.scope}_tail",
            **options,
        )

    return build_tail
