# SPDX-License-Identifier: Apache-2.0
"""Lines of progress, and the stock log that they take the place of."""

import logging

import pytest

from object_detection_ext.loops import train_progress
from object_detection_ext.loops.step_clock import CallTimes


@pytest.fixture
def clock(monkeypatch):
    """Every look at the clock is 10 s later."""
    times = iter(range(0, 100_000, 10))
    monkeypatch.setattr(train_progress.time, "monotonic", lambda: float(next(times)))
    return train_progress.StoppedClock()


def _lines(capsys) -> list[str]:
    return [line for line in capsys.readouterr().err.splitlines() if line.startswith("training")]


def test_lines_have_step_loss_clips_wait_for_input_and_time_left(capsys, clock):
    progress = train_progress.Progress(0, 5, batch_size=3, clock=clock)
    progress.update(1, 0.5, None)
    for step in range(2, 6):
        progress.update(step, step / 2, CallTimes(seconds=8.0, input_wait=2.0))
    lines = _lines(capsys)
    assert lines[0] == "training: from step 0 to 5"
    assert lines[1] == "training: step 1 of 5, loss 0.500"
    rates = "10.00 s a step, 0.375 clips/s, 25% waiting for input"
    assert lines[2] == f"training: step 2 of 5, loss 1.000, {rates}, 30 s left"
    assert lines[-1] == f"training: step 5 of 5, loss 2.500, {rates}, 0 s left"


def test_rates_are_those_since_the_line_before(capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(train_progress.time, "monotonic", lambda: now[0])
    progress = train_progress.Progress(0, 1000, 2, train_progress.StoppedClock())
    progress.update(1, 1.0, None)
    for step in range(2, 201):
        now[0] += 0.1
        wait = 0.0 if step < 100 else 0.1
        progress.update(step, 1.0, CallTimes(0.1, wait))
    lines = _lines(capsys)[2:]
    assert 2 <= len(lines) < 10  # not one for every step
    assert "20 clips/s, 0% waiting for input" in lines[0]
    assert "20 clips/s, 100% waiting for input" in lines[-1]


def test_a_pause_is_no_time_of_training(capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(train_progress.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(train_progress.time, "time", lambda: 1e9 + now[0])
    clock = train_progress.StoppedClock()
    progress = train_progress.Progress(0, 3, 2, clock)
    progress.update(1, 1.0, None)
    with clock.pause():
        now[0] += 1000.0
    now[0] += 7.0
    progress.update(2, 1.0, CallTimes(7.0, 0.0))
    assert "7.00 s a step" in _lines(capsys)[-1]
    assert clock.time() == 1e9 + 7.0
    assert clock.sleep is train_progress.time.sleep


def test_loss_that_is_not_a_number_is_read_and_shown(capsys, clock):
    log = train_progress.StockLog()
    for text in ("Step 1 per-step time 0.1s", "{'Loss/total_loss': nan}"):
        record = logging.LogRecord("tensorflow", logging.INFO, "", 0, text, (), None)
        assert log.is_not_a_step(record) is False
    other = logging.LogRecord("tensorflow", logging.INFO, "", 0, "Saving", (), None)
    assert log.is_not_a_step(other) is True
    train_progress.Progress(0, 1, 2, clock).update(1, log.loss, None)
    assert "step 1 of 1, loss nan" in capsys.readouterr().err


def test_losses_of_the_stock_log():
    log = train_progress.StockLog()
    for text, loss in (
        ("{'Loss/a': 0.5,\n 'Loss/total_loss': np.float32(2.5),\n 'learning_rate': 0.1}", 2.5),
        ("{'Loss/total_loss': 4.9e+06}", 4.9e6),
    ):
        log.is_not_a_step(logging.LogRecord("tensorflow", logging.INFO, "", 0, text, (), None))
        assert log.loss == loss
