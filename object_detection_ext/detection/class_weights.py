# SPDX-License-Identifier: Apache-2.0
"""Weights of actions in the second stage's classification loss.

A weight multiplies an action's loss where a person does it, and nothing else. The other terms of a
rare action are one for each proposal of each clip, as many as those of any action: multiplied too,
they would outweigh by far the few that the weight is for. (PyTorch's `pos_weight` is the same.) So
scores of actions with a weight above 1 become greater; the order of one action's detections, which
alone AP depends on, stays what the network makes of it. The background's column keeps weight 1.

Shapes: B clips, R proposals, K classes.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from object_detection.core import losses

from object_detection_ext import listing

# Actions in a description.
_MAX_SHOWN = 10


class ClassWeightedLoss(losses.Loss):
    """A stock classification loss with a weight on the positives of each class."""

    def __init__(self, loss: losses.Loss, weights: Sequence[float]):
        """Wraps a loss.

        Args:
            loss: gives [B, R, K + 1] and takes weights of that shape, as the sigmoid losses do.
            weights: float [K + 1], of the background first.
        """
        super().__init__()
        self._loss = loss
        self._weights = np.asarray(weights, np.float32)

    def _compute_loss(self, prediction_tensor, target_tensor, weights, **params):
        """The stock loss, float [B, R, K + 1], with the weights where the target is 1.

        Args:
            prediction_tensor: float [B, R, K + 1], logits.
            target_tensor: float [B, R, K + 1], 0 or 1.
            weights: float [B, R, K + 1] or [B, R, 1].
            **params: as the stock loss takes them.
        """
        factors = 1.0 + target_tensor * (self._weights - 1.0)
        return self._loss(prediction_tensor, target_tensor, weights=weights * factors, **params)


def inverse_frequency(rows: Mapping[str, int], power: float, max_weight: float) -> dict[str, float]:
    """Weights in proportion to `rows ** -power`, the mean over all rows 1.

    So the sum of all positive terms is what it was as long as the network does not tell actions
    apart, and so are learning rate and the balance with other losses. With power 1 and no limit it
    is scikit-learn's `class_weight='balanced'`.

    Args:
        rows: number of rows by action.
        power: 0: weights are 1; 1: all actions weigh the same in sum.
        max_weight: no weight is above this; at least 1. What is cut off goes to the others.

    Returns:
        Weights by action. Actions without rows, which have no positives, have weight 1.
    """
    counted = sorted((name for name in rows if rows[name]), key=lambda name: rows[name])
    weights = dict.fromkeys(rows, 1.0)
    raw = {name: rows[name] ** -power for name in counted}
    left = float(sum(rows.values()))  # what the rows' weights must add up to
    # From the rarest: who is at the limit leaves the rest to the others.
    for number, name in enumerate(counted):
        scale = left / sum(rows[other] * raw[other] for other in counted[number:])
        weights[name] = min(scale * raw[name], max_weight)
        left -= rows[name] * weights[name]
    return weights


def describe(weights: Mapping[str, float], rows: Mapping[str, int] | None) -> str:
    """What the weights are, for people: the greatest and the smallest ones.

    Args:
        weights: by action.
        rows: numbers of rows by action, if they were counted.
    """

    def shown(name: str) -> str:
        return f"{name} {weights[name]:.3g}" + (f" ({rows[name]})" if rows is not None else "")

    names = sorted(weights, key=lambda name: (-weights[name], name))
    text = "class weights" + ("" if rows is None else " (rows in the training records)") + ": "
    if len(names) > _MAX_SHOWN:
        half = _MAX_SHOWN // 2
        ends = [*map(shown, names[:half]), "...", *map(shown, names[-half:])]
        text += ", ".join(ends)
    else:
        text += ", ".join(map(shown, names))
    absent = [name for name in names if rows is not None and not rows[name]]
    if absent:
        text += f". Without a row, so without effect: {listing.in_line(absent)}"
    return text
