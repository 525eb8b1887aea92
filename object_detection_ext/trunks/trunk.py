# SPDX-License-Identifier: Apache-2.0
"""What the rest of the package knows of a kind of trunk.

A new trunk is one file, which ends in a `Trunk`, and one line in `builders.TRUNKS`.

Shapes: B clips, T frames, H W pixels, t h w cells of the feature map, C channels; N tubes, one for
each proposal of each clip, P P cells of a RoI feature.
"""

import dataclasses
from collections.abc import Callable

import tensorflow as tf


@dataclasses.dataclass(frozen=True)
class Trunk:
    """A kind of trunk, such as I3D.

    Both builders take, by keyword, `depth_multiplier` (factor on every layer's channels),
    `train_batch_norm`, `batch_norm_momentum` (see `layers.ConvUnit`), `kernel_initializer` and
    `kernel_regularizer` (of the convolutions). What they return has `output_channels`, and
    `variables_by_path()`, a dictionary from a path, which is unique over trunk and tail and the
    same wherever the trunk ends, to a variable.
    """

    # The stages at whose end the trunk may stop, from the clip on.
    endpoints: tuple[str, ...]
    # Where it stops if the options do not say.
    default_endpoint: str
    # From an endpoint to (temporal stride in frames, spatial stride in pixels) of one cell.
    strides: Callable[[str], tuple[int, int]]
    # build(final_endpoint=..., ...): the trunk, a Keras model from clips [B, T, H, W, 3] of RGB in
    # [-1, 1] to a feature map [B, t, h, w, C].
    build: Callable[..., tf.keras.Model]
    # build_tail(endpoint=..., ...): the stages behind an endpoint, a Keras layer [N, t, P, P, C] ->
    # [N, t', P', P', C']. None: this trunk has no such stages, so no I3D head.
    build_tail: Callable[..., tf.keras.layers.Layer] | None = None

    def endpoints_with_tail(self) -> tuple[str, ...]:
        """The endpoints behind which stages are left for an I3D head (section 3.3)."""
        return self.endpoints[:-1] if self.build_tail else ()
