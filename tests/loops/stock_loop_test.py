# SPDX-License-Identifier: Apache-2.0
"""The stock train loop itself, on a model of a few weights, with what surrounds it."""

import re
import time

import numpy as np
import pytest
import tensorflow as tf
from object_detection import model_lib_v2

from object_detection_ext.checkpoints import files
from object_detection_ext.loops import stopping, train, train_progress
from tests import tiny_pipeline
from tests.loops import tiny_training


def run(
    folder,
    *,
    optimizer=tiny_training.SGD % 0.01,
    steps=6,
    dataset=None,
    moving_average=False,
    **kwargs,
):
    """Trains; returns the model directory."""
    folder.mkdir(exist_ok=True)
    config = tiny_training.write_config(folder, optimizer, steps, moving_average)
    with tiny_training.substituted(**(dataset or {})):
        strategy = tf.compat.v2.distribute.MirroredStrategy()
        with strategy.scope():
            model_lib_v2.train_loop(
                pipeline_config_path=str(config), model_dir=str(folder / "model"), **kwargs
            )
    return folder / "model"


def saved_steps(model_dir) -> list[int]:
    """Steps of the checkpoints that are listed, oldest first."""
    state = tf.train.get_checkpoint_state(str(model_dir))
    return [files.step_of(prefix) for prefix in state.all_model_checkpoint_paths]


def test_checkpoints_at_multiples_and_at_the_last_step_in_onerun(tmp_path, capsys):
    model_dir = run(tmp_path, steps=7, checkpoint_every_n=3)
    assert saved_steps(model_dir) == [0, 3, 6, 7]
    assert "training: step 7 of 7, loss" in capsys.readouterr().err
    run(tmp_path, steps=10, checkpoint_every_n=3)
    assert saved_steps(model_dir) == [0, 3, 6, 7, 9, 10]
    assert "training: from step 7 to 10" in capsys.readouterr().err


@pytest.mark.parametrize("damage", ["no index", "cut data", "cut state", "no state"])
def test_resumes_from_the_newest_whole_checkpoint(tmp_path, capsys, damage):
    model_dir = run(tmp_path, steps=6, checkpoint_every_n=2)
    newest = sorted(model_dir.glob("ckpt-*.index"))[-1]
    first = (model_dir / "ckpt-1.index").read_bytes()
    data = newest.with_name(f"{newest.stem}.data-00000-of-00001")
    state = model_dir / "checkpoint"
    if damage == "no index":
        newest.unlink()
    elif damage == "cut data":
        data.write_bytes(data.read_bytes()[:-20])
    elif damage == "cut state":
        state.write_bytes(state.read_bytes()[:30])
    else:
        state.unlink()
    capsys.readouterr()
    run(tmp_path, steps=8, checkpoint_every_n=2)
    said = capsys.readouterr().err
    step = 6 if "state" in damage else 4
    assert f"training: from step {step} to 8" in said
    if damage != "no state":
        assert "WARNING" in said
    assert (model_dir / "ckpt-1.index").read_bytes() == first
    assert saved_steps(model_dir)[-1] == 8


def test_number_of_checkpoints_and_those_kept_for_ever(tmp_path):
    model_dir = run(tmp_path / "a", checkpoint_every_n=1, checkpoint_max_to_keep=2)
    assert saved_steps(model_dir) == [5, 6]
    assert len(list(model_dir.glob("*.index"))) == 2
    model_dir = run(tmp_path / "b", checkpoint_every_n=1, checkpoint_max_to_keep=0)
    assert saved_steps(model_dir) == [0, 1, 2, 3, 4, 5, 6]
    model_dir = run(
        tmp_path / "c",
        checkpoint_every_n=1,
        checkpoint_max_to_keep=1,
        keep_checkpoint_every_n_hours=1e-9,
    )
    assert saved_steps(model_dir) == [6]
    assert len(list(model_dir.glob("*.index"))) == 7


def test_scalars_of_progress_are_beside_the_stock_ones(tmp_path):
    model_dir = run(tmp_path, dataset={"input_seconds": 0.2}, steps=8)
    scalars = tiny_pipeline.read_events(model_dir / "train").scalars
    assert len(scalars["steps_per_sec"]) == len(scalars["Loss/total_loss"]) == 8
    # The first call holds the compilation.
    assert [step for step, _ in scalars["clips_per_sec"]] == list(range(2, 9))
    assert [step for step, _ in scalars["input_wait_share"]] == list(range(2, 9))
    # What the numbers are, train_progress_test shows on a clock of its own.
    left = [value for _, value in scalars["seconds_left"]]
    assert len(left) == 7 and left[-1] == 0 and min(left[:-1]) > 0
    assert min(value for _, value in scalars["clips_per_sec"]) > 0


def _wait_shares(folder, capsys, input_seconds: float, step_seconds: float) -> list[float]:
    """Shares of time that steps waited for input, after a look at the printed one."""
    dataset = {"input_seconds": input_seconds, "step_seconds": step_seconds}
    model_dir = run(folder, dataset=dataset, steps=12, checkpoint_every_n=12)
    scalars = tiny_pipeline.read_events(model_dir / "train").scalars["input_wait_share"]
    shares = [share for _, share in scalars]
    last = re.search(r"step 12 of 12.* (\d+)% waiting for input, 0 s left", capsys.readouterr().err)
    assert last and min(shares) - 0.01 <= int(last[1]) / 100 <= max(shares) + 0.01
    # The first steps take what was read while the graph was built.
    return [share for step, share in scalars if step > 4]


@pytest.mark.slow
@pytest.mark.parametrize("per_call", [1, 4])
def test_wait_for_input_is_what_the_step_waits(tmp_path, capsys, monkeypatch, per_call):
    """Slow input, fast step, and the other way round; one step a call, and four."""
    monkeypatch.setattr(train, "_LONG_RUN_STEPS", 0 if per_call > 1 else 100)
    monkeypatch.setattr(train, "_STEPS_PER_CALL_OF_LONG_RUN", per_call)
    slow_input = _wait_shares(tmp_path / "input", capsys, 0.4, 0.0)
    slow_step = _wait_shares(tmp_path / "step", capsys, 0.0, 0.4)
    # Compared with each other: on a busy machine everything takes long.
    assert np.median(slow_input) > np.median(slow_step) + 0.2
    assert 0.0 <= min(slow_step) and max(slow_input) <= 1.0


class _JumpingTime:
    """The module `time`, with clocks that can be put forward."""

    def __init__(self):
        self.ahead = 0.0

    def __getattr__(self, name):
        return getattr(time, name)

    def time(self):
        return time.time() + self.ahead

    def monotonic(self):
        return time.monotonic() + self.ahead


def test_evaluations_run_at_their_steps_and_do_not_count_as_training(tmp_path, capsys, monkeypatch):
    clocks, seen = _JumpingTime(), []
    monkeypatch.setattr(train_progress, "time", clocks)

    def on_checkpoint(prefix, step):
        seen.append((files.step_of(prefix), step))
        # An evaluation so long that no machine is slow enough to hide it.
        clocks.ahead += 1000.0

    model_dir = run(
        tmp_path, steps=7, checkpoint_every_n=3, evaluate_every_n=2, on_checkpoint=on_checkpoint
    )
    assert seen == [(2, 2), (4, 4), (6, 6), (7, 7)]
    assert saved_steps(model_dir) == [0, 2, 3, 4, 6, 7]
    speeds = tiny_pipeline.read_events(model_dir / "train").scalars["steps_per_sec"]
    assert min(value for step, value in speeds if step > 1) > 0.01
    seconds = re.search(r"step 7 of 7.* ([\d.]+) s a step", capsys.readouterr().err)
    assert float(seconds[1]) < 100.0


def test_what_runs_after_a_checkpoint_can_end_training(tmp_path, capsys):
    def on_checkpoint(prefix, step):
        if step == 4:
            raise stopping.StopTraining("no gain for 2 evaluations")

    model_dir = run(tmp_path, evaluate_every_n=2, on_checkpoint=on_checkpoint)
    assert saved_steps(model_dir) == [0, 2, 4]
    assert "training: ended: no gain for 2 evaluations" in capsys.readouterr().err
