# SPDX-License-Identifier: Apache-2.0
"""Finds that a training has diverged: a loss that is not a number, or that has exploded.

The rule for an explosion compares with the loss at the start, not with recent ones: a loss that is
tiny may well grow a thousand times for a while, but one far above that of the untrained model will
not come back. One bad batch must not end a training, so several steps in a row count. Weights need
no second look: no batch of data moves them that far and back.
"""

import collections
import math
import threading
from typing import NamedTuple

import numpy as np
import tensorflow as tf

TOTAL = "Loss/total_loss"

# A loss is compared with the first one, or with this where the first is less: of a resumed or
# fine-tuned model, whose loss may rise again to that of chance, a few units for each class.
_MIN_REFERENCE = 1.0
# So many steps in a row above so many times the reference are an explosion.
_EXPLOSIONS = ((3, 1000.0), (100, 100.0))
# Up to the lowest of them, a loss is in order.
_HEALTHY = min(factor for _, factor in _EXPLOSIONS)
# At the last step there is nothing to wait for.
_STEPS_AT_THE_END = 2
# Root mean square of the trainable weights. Where activations are about 1, so are weights, and
# mostly far less.
_MAX_WEIGHTS = 1000.0


class Step(NamedTuple):
    """What is known of a step.

    Attributes:
        number: steps done, with this one.
        losses: each term, of the whole batch; `TOTAL` is their sum.
        weights: root mean square of the trainable variables after the step; None: not measured.
        hashes: of the names of the batch's clips.
    """

    number: int
    losses: dict[str, float]
    weights: float | None = None
    hashes: tuple[int, ...] = ()


class Diverged(Exception):
    """A training has diverged.

    Attributes:
        reason: what was seen.
        step: the first step at which it was.
        last_healthy: number of the last step whose loss was in order.
    """

    def __init__(self, reason: str, step: Step, last_healthy: int):
        """Takes what was seen, where, and until when all was well."""
        super().__init__(f"{reason} at step {step.number}")
        self.reason, self.step, self.last_healthy = reason, step, last_healthy


class Guard:
    """Judges each step of a run of training."""

    def __init__(self, done: int, num_replicas: int = 1, find_explosions: bool = True):
        """Begins a run.

        Args:
            done: steps done before it.
            num_replicas: each reports its part of each step.
            find_explosions: whether a finite loss can be a divergence.
        """
        self.last_healthy = done
        self.last: Step | None = None
        self._num_replicas = num_replicas
        self._find_explosions = find_explosions
        self._lock = threading.Lock()
        self._parts: dict[int, list[Step]] = collections.defaultdict(list)
        self._reference: float | None = None
        # Of each kind of explosion, the steps in a row that were above its factor.
        self._above: list[list[Step]] = [[] for _ in _EXPLOSIONS]

    @property
    def is_healthy(self) -> bool:
        """Whether the last loss was in order."""
        return self.last is None or self.last.number == self.last_healthy

    @property
    def has_exploded(self) -> bool:
        """Whether it must be taken for an explosion if nothing else comes."""
        return len(self._above[0]) >= _STEPS_AT_THE_END

    def add(self, part: Step) -> None:
        """Takes a replica's part of a step; from any thread."""
        with self._lock:
            self._parts[part.number].append(part)

    def check(self) -> None:
        """Judges the steps that are complete.

        Raises:
            Diverged: with the first bad step.
        """
        with self._lock:
            ready = sorted(
                n for n, parts in self._parts.items() if len(parts) >= self._num_replicas
            )
            steps = [_whole_step(self._parts.pop(number)) for number in ready]
        for step in steps:
            self._judge(step)

    def check_end(self) -> None:
        """Judges the end of training, where too few steps are left to see an explosion.

        Raises:
            Diverged: with the first bad step.
        """
        if self.has_exploded:
            raise self._diverged("the loss has exploded", self._above[0][0])

    def _judge(self, step: Step) -> None:
        self.last = step
        if not all(math.isfinite(value) for value in step.losses.values()):
            raise self._diverged("the loss is not a finite number", step)
        if self._find_explosions:
            self._judge_size(step)
        else:
            self.last_healthy = step.number
        if step.weights is not None and math.isnan(step.weights):
            raise self._diverged("weights of the model are not numbers after the update", step)
        if self._find_explosions and step.weights is not None and step.weights > _MAX_WEIGHTS:
            size = f"root mean square {step.weights:.3g}"
            raise self._diverged(f"the weights of the model have exploded ({size})", step)

    def _judge_size(self, step: Step) -> None:
        loss = step.losses[TOTAL]
        if self._reference is None:
            self._reference = max(loss, _MIN_REFERENCE)
        for (count, factor), above in zip(_EXPLOSIONS, self._above, strict=True):
            above.append(step)
            if loss <= factor * self._reference:
                above.clear()
            if len(above) >= count:
                raise self._diverged(
                    f"the loss has exploded: for {count} steps it has been over {factor:.0f} times "
                    f"{self._reference:.4g}, where it began (or 1, if it began lower)",
                    above[0],
                )
        if loss <= _HEALTHY * self._reference:
            self.last_healthy = step.number

    def _diverged(self, reason: str, step: Step) -> Diverged:
        return Diverged(reason, step, self.last_healthy)


def _whole_step(parts: list[Step]) -> Step:
    losses = {name: sum(part.losses[name] for part in parts) for name in parts[0].losses}
    weights = [part.weights for part in parts if part.weights is not None]
    hashes = tuple(number for part in parts for number in part.hashes)
    # NaN wins, wherever it stands.
    worst = float(np.max(weights)) if weights else None
    return Step(parts[0].number, losses, worst, hashes)


def non_finite_variables(checkpoint: tf.train.Checkpoint) -> list[str]:
    """Names of the variables that a checkpoint would hold and that are not finite."""
    floating = [v for v in saved_variables(checkpoint) if v.dtype.is_floating]
    # One transfer from the device for all of them.
    finite = [tf.reduce_all(tf.math.is_finite(tf.convert_to_tensor(v))) for v in floating]
    if not finite or bool(tf.reduce_all(tf.stack(finite))):
        return []
    flags = tf.stack(finite).numpy()
    return [v.name for v, is_finite in zip(floating, flags, strict=True) if not is_finite]


def saved_variables(checkpoint: tf.train.Checkpoint) -> list[tf.Variable]:
    """The variables that a checkpoint would hold."""
    objects = tf.train.TrackableView(checkpoint).descendants()
    # An optimizer's slots belong to the variables, not to it.
    slots = [
        variable
        for optimizer in objects
        if isinstance(optimizer, tf.keras.optimizers.legacy.Optimizer)
        for variable in optimizer.variables()
    ]
    found = [item for item in objects if isinstance(item, tf.Variable)] + slots
    return list({id(variable): variable for variable in found}.values())
