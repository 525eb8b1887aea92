# SPDX-License-Identifier: Apache-2.0
"""Which losses are a divergence, and which are not."""

import math

import numpy as np
import pytest

from object_detection_ext.loops import guard


def _step(number, loss, weights=0.1, hashes=()):
    return guard.Step(number, {"Loss/a": loss, guard.TOTAL: loss}, weights, hashes)


def _check(losses, *, done=0, weights=None, **kwargs) -> guard.Guard:
    judge = guard.Guard(done, **kwargs)
    for number, loss in enumerate(losses, done + 1):
        judge.add(_step(number, loss, 0.1 if weights is None else weights[number - done - 1]))
        judge.check()
    return judge


_RANDOM = np.random.default_rng(0)
_STEPS = np.arange(2000)
_HEALTHY = {
    "falls": 8.0 * np.exp(-_STEPS / 300),
    "noise": np.exp(_RANDOM.normal(1.0, 1.0, 2000)),
    "heavy tails": np.abs(_RANDOM.standard_t(1.5, 2000)) + 0.01,
    "rises in the warm-up, then falls": 5.0 * np.exp(-(((_STEPS - 200) / 100.0) ** 2)) * 80 + 2.0,
    "one batch a million times higher": np.where(_STEPS % 500 == 250, 1e6, 1.0),
    "two batches in a row": np.where(np.isin(_STEPS % 500, (250, 251)), 1e5, 1.0),
    "tiny": np.where(_STEPS < 1000, 1e-7, 1e-3),
    "tiny, back to that of chance": np.where(_STEPS < 1000, 1e-5, 55.0),
    "first batch without people": np.concatenate([[1e-6], np.full(1999, 60.0)]),
    "huge by its weights, all along": 1e9 * np.exp(_RANDOM.normal(0.0, 1.0, 2000)),
    "huge at the start": 1e8 * np.exp(-_STEPS / 20),
    "negative": np.full(2000, -3.0),
    "bump of 50 steps, 300 times higher": np.where((_STEPS > 500) & (_STEPS < 550), 900.0, 3.0),
}


@pytest.mark.parametrize("losses", _HEALTHY.values(), ids=_HEALTHY.keys())
@pytest.mark.parametrize("done", [0, 12_345])
def test_healthy_trainings_are_not_stopped(losses, done):
    judge = _check(losses.tolist(), done=done)
    judge.check_end()
    assert judge.last.number == done + 2000


@pytest.mark.parametrize(
    ("losses", "step", "last_healthy"),
    [
        ([5.0, 6.0, 4.9e6, 4.9e6, 4.9e6], 3, 2),  # Adam with 1e4
        ([5.0, math.nan], 2, 1),
        ([5.0, 4.0, math.inf], 3, 2),
        ([-math.inf], 1, 0),
        ([math.nan], 1, 0),
        ([5.0, 1e6, 1e7, math.nan], 2, 1),
        ([0.01, *[2000.0] * 3], 2, 1),
        ([5.0, *[600.0] * 100], 2, 1),
        ([5.0, 450.0, 7e3, 8e3, 9e3], 3, 2),
        ([3.0 * 1.5**number for number in range(60)], 19, 12),  # slowly
    ],
)
def test_divergence(losses, step, last_healthy):
    with pytest.raises(guard.Diverged) as found:
        _check(losses)
    if not math.isfinite(losses[-1]) and len(losses) == 4:
        assert found.value.step.number == 4  # NaN came before the third step of the explosion
        assert found.value.last_healthy == last_healthy
        return
    assert (found.value.step.number, found.value.last_healthy) == (step, last_healthy)


def test_weights_tell_an_explosion_before_the_loss_does():
    with pytest.raises(guard.Diverged, match="weights of the model have exploded") as found:
        _check([5.0, 4.0], weights=[0.1, 1e4])
    assert (found.value.step.number, found.value.last_healthy) == (2, 2)
    with pytest.raises(guard.Diverged, match="not numbers after the update") as found:
        _check([5.0, 4.0], weights=[0.1, math.nan], find_explosions=False)
    assert found.value.step.number == 2


def test_explosions_can_be_let_be_but_not_nan():
    judge = _check([5.0, 1e9, 1e9, 1e9], weights=[0.1, 1e9, 1e9, math.inf], find_explosions=False)
    assert judge.is_healthy and not judge.has_exploded
    judge.check_end()
    with pytest.raises(guard.Diverged):
        _check([5.0, 1e9, math.nan], find_explosions=False)


def test_the_end_of_training_does_not_wait_for_a_third_step():
    judge = _check([5.0, 1e6])
    assert not judge.is_healthy and not judge.has_exploded
    judge.check_end()
    judge = _check([5.0, 1e6, 1e6])
    assert judge.has_exploded
    with pytest.raises(guard.Diverged) as found:
        judge.check_end()
    assert (found.value.step.number, found.value.last_healthy) == (2, 1)


def test_replicas_are_put_together():
    judge = guard.Guard(0, num_replicas=2)
    judge.add(guard.Step(1, {"a": 1.0, guard.TOTAL: 1.0}, 0.1, (7, 8)))
    judge.check()
    assert judge.last is None
    judge.add(guard.Step(2, {"a": 5.0, guard.TOTAL: 5.0}, 0.1, (1, 2)))
    judge.add(guard.Step(1, {"a": 2.0, guard.TOTAL: 3.0}, 0.2, (9, 10)))
    judge.check()
    assert judge.last == guard.Step(1, {"a": 3.0, guard.TOTAL: 4.0}, 0.2, (7, 8, 9, 10))
    judge.add(guard.Step(2, {"a": 1.0, guard.TOTAL: math.nan}, 0.1, (3, 4)))
    with pytest.raises(guard.Diverged) as found:
        judge.check()
    assert found.value.step.hashes == (1, 2, 3, 4)
