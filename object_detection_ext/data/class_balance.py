# SPDX-License-Identifier: Apache-2.0
"""Repeat-factor sampling: keyframes with rare actions are drawn more often.

As in LVIS (Gupta, Dollar and Girshick, CVPR 2019): with f(c) the part of all keyframes that have
action c, it has the factor r(c) = max(1, sqrt(t / f(c))), and a keyframe the greatest factor of its
actions. It comes that many times in each pass over the records; where the factor is not whole, the
next smaller or the next greater whole number is drawn, so that it is right in the mean.
"""

import dataclasses
import math
from collections.abc import Mapping

import numpy as np

from object_detection_ext import listing
from object_detection_ext.data import record_labels

# Actions in the table: the rarest and the most frequent ones.
_MAX_SHOWN_RARE, _MAX_SHOWN_FREQUENT = 10, 5


@dataclasses.dataclass(frozen=True)
class RepeatFactors:
    """How often keyframes are drawn.

    `by_action` has the factor of each action of the label map, `rows` its rows in the records,
    `shares` and `expected_shares` its part of all rows, in the records and as they are drawn.
    `mean_repeats` is the number of clips that a keyframe gives in a pass, in the mean.
    """

    by_action: dict[str, float]
    rows: dict[str, int]
    shares: dict[str, float]
    expected_shares: dict[str, float]
    mean_repeats: float

    def by_id(self, ids: Mapping[str, int]) -> np.ndarray:
        """The factors by action id, float32 [greatest id + 1]; 1 where there is no such action."""
        factors = np.ones(max(ids.values(), default=0) + 1, np.float32)
        for name, factor in self.by_action.items():
            factors[ids[name]] = factor
        return factors

    def table(self) -> str:
        """What sampling changes, for people."""
        by_rows = sorted(self.rows, key=lambda name: (self.rows[name], name))
        rare, frequent = by_rows, []
        if len(by_rows) > _MAX_SHOWN_RARE + _MAX_SHOWN_FREQUENT:
            rare, frequent = by_rows[:_MAX_SHOWN_RARE], by_rows[-_MAX_SHOWN_FREQUENT:]
        shown = rare + frequent
        width = max(len("action"), *map(len, shown))
        lines = [
            f"class balance: a pass has {self.mean_repeats:.2f} times as many clips as there are "
            "keyframes. Shares of all rows (person and action):",
            f"  {'action':{width}}  {'rows':>8}  {'share':>7}  {'expected':>8}  {'factor':>6}",
        ]
        rows = [
            f"{name:{width}}  {self.rows[name]:8}  {self.shares[name]:7.2%}  "
            f"{self.expected_shares[name]:8.2%}  {self.by_action[name]:6.2f}"
            for name in shown
        ]
        lines += listing.in_lines(rows[: len(rare)], len(rare), len(by_rows) - len(frequent))
        lines += listing.in_lines(rows[len(rare) :], len(frequent))
        return "\n".join(lines)


def repeat_factors(
    keyframes: record_labels.KeyframeActions,
    ids: Mapping[str, int],
    threshold: float,
    max_repeats: float,
) -> RepeatFactors:
    """Computes the factors.

    Args:
        keyframes: of the training records; at least one.
        ids: of the label map, by name. Rows with another name do not count.
        threshold: t, in (0, 1].
        max_repeats: no factor is above this; at least 1.
    """
    num_keyframes = sum(keyframes.counts.values())
    rows, having = keyframes.rows_by_action(ids), dict.fromkeys(ids, 0)
    for actions, count in keyframes.counts.items():
        for name in set(actions) & ids.keys():
            having[name] += count

    def factor(name: str) -> float:
        if not having[name]:
            return 1.0
        return min(max(1.0, math.sqrt(threshold * num_keyframes / having[name])), max_repeats)

    by_action = {name: factor(name) for name in ids}
    drawn, expected = 0.0, dict.fromkeys(ids, 0.0)
    for actions, count in keyframes.counts.items():
        known = [name for name in actions if name in ids]
        times = count * max((by_action[name] for name in known), default=1.0)
        drawn += times
        for name in known:
            expected[name] += times
    return RepeatFactors(
        by_action, rows, _shares(rows), _shares(expected), drawn / max(1, num_keyframes)
    )


def _shares(numbers: Mapping[str, float]) -> dict[str, float]:
    total = sum(numbers.values())
    return {name: number / total if total else 0.0 for name, number in numbers.items()}
