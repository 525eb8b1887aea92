# SPDX-License-Identifier: Apache-2.0
"""Compiles the stock training step with XLA: forward, losses, gradients, clipping, update.

What calls Python (the reports of `instruments`) stands around the compiled part. On several
replicas the update stands outside too: replicas exchange gradients in it, which cannot be done in
the middle of a compiled function.

Shapes: B clips of a replica, G ground-truth rows.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator

import tensorflow as tf
from object_detection import model_lib_v2
from object_detection.core import standard_fields

from object_detection_ext.messages import say
from object_detection_ext.static_shapes import OPTION

_SLOW_ON_CPU = (
    "there is no GPU here, and XLA makes 3-D convolutions slower on CPUs: I3D to Mixed_4f took "
    "4.3 s compiled and 1.04 s without on 64x224x224 (2 cores with AVX-512). Set false on CPUs."
)
_WEIGHTS = standard_fields.InputDataFields.groundtruth_weights


def announce(*, use_tpu: bool) -> None:
    """Says what compiled steps leave out, and warns where they are slow.

    Args:
        use_tpu: whether a TPU does the work.
    """
    say(
        "training: steps are compiled with XLA, which takes minutes at full size before the first "
        "one; no training pictures are written (the evaluation's are)"
    )
    if not use_tpu and not tf.config.get_visible_devices("GPU"):
        say(f"warning: {OPTION}: {_SLOW_ON_CPU}")


@contextlib.contextmanager
def installed() -> Iterator[None]:
    """Has the stock train loop compile its steps while this lasts."""
    stock_step = model_lib_v2.eager_train_step
    model_lib_v2.eager_train_step = compiled(stock_step)
    try:
        yield
    finally:
        model_lib_v2.eager_train_step = stock_step


def compiled(stock_step: Callable) -> Callable:
    """The stock `eager_train_step`, compiled; same arguments.

    Ground truth stays padded, as XLA needs it: rows of padding have weight 0.
    """

    @functools.wraps(stock_step)
    def eager_train_step(
        detection_model,
        features,
        labels,
        unpad_groundtruth_tensors,
        optimizer,
        training_step,
        **kwargs,
    ):
        del unpad_groundtruth_tensors
        if _WEIGHTS not in labels:
            raise ValueError("Without groundtruth_weights, padding would count as people.")
        strategy = tf.distribute.get_strategy()
        run = functools.partial(stock_step, detection_model, training_step=training_step, **kwargs)
        if isinstance(strategy, tf.distribute.TPUStrategy):  # the stock loop compiles it
            return run(features, labels, False, optimizer)
        features, labels = _numbers(features), _numbers(labels)
        if strategy.num_replicas_in_sync == 1:

            def step(features, labels):
                return run(features, labels, False, optimizer)

            return _compile(step)(features, labels)
        losses, gradients, variables = _gradients(run, features, labels)
        optimizer.apply_gradients(zip(gradients, variables, strict=True))
        return losses

    return eager_train_step


def _compile(function: Callable) -> Callable:
    # One for each replica, which has variables of its own.
    return tf.function(function, jit_compile=True, autograph=False)


class _GradientsOnly:
    """Takes the optimizer's place in a step: keeps the gradients and changes nothing."""

    def __init__(self):
        self.gradients: list = []
        self.variables: list = []

    def apply_gradients(self, pairs) -> None:
        """Keeps them."""
        self.gradients, self.variables = map(list, zip(*pairs, strict=True))


def _gradients(run: Callable, features: dict, labels: dict) -> tuple[dict, list, list]:
    """Losses, gradients and their variables of a compiled step without its update."""
    kept = _GradientsOnly()

    def step(features, labels):
        losses = run(features, labels, False, kept)
        # A variable that the loss does not depend on has none.
        return losses, [gradient for gradient in kept.gradients if gradient is not None]

    losses, gradients = _compile(step)(features, labels)
    has_gradient = [gradient is not None for gradient in kept.gradients]
    rest = iter(gradients)
    return losses, [next(rest) if has else None for has in has_gradient], kept.variables


def _numbers(tensors: dict) -> dict:
    """Without strings, such as a clip's name, which XLA does not take."""
    return {key: tensor for key, tensor in tensors.items() if tensor.dtype != tf.string}
