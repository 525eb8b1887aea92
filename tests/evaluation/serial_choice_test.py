# SPDX-License-Identifier: Apache-2.0
"""choose_in_turn, compared with the loop that it stands for."""

import numpy as np
import pytest

from object_detection_ext.evaluation.serial_choice import choose_in_turn


def _loop(claimants, targets):
    taken, chosen = set(), {}
    for who, what in zip(claimants, targets, strict=True):
        if who not in chosen and what not in taken:
            chosen[who] = what
            taken.add(what)
    return sorted(chosen.items())


@pytest.mark.parametrize("seed", range(200))
def test_it_is_the_loop(seed):
    rng = np.random.default_rng(seed)
    claimants, targets = [], []
    for who in np.sort(rng.choice(50, rng.integers(0, 12), replace=False)):
        wanted = rng.permutation(rng.integers(1, 8))
        claimants += [who] * len(wanted)
        targets += list(100 + wanted)
    who, what = choose_in_turn(np.array(claimants, np.int64), np.array(targets, np.int64))
    pairs = list(zip(who.tolist(), what.tolist(), strict=True))
    assert pairs == _loop(claimants, targets)


def test_the_later_one_gets_its_second_choice():
    who, what = choose_in_turn(np.array([0, 0, 1, 1, 2]), np.array([5, 6, 5, 6, 6]))
    assert (who.tolist(), what.tolist()) == ([0, 1], [5, 6])


def test_nobody_wants_anything():
    who, what = choose_in_turn(np.zeros(0, int), np.zeros(0, int))
    assert len(who) == len(what) == 0
