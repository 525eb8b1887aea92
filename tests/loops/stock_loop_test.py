# SPDX-License-Identifier: Apache-2.0
"""The stock train loop itself, on a model of a few weights, with what surrounds it."""

import re
import time

import numpy as np
import pytest
import tensorflow as tf
from object_detection import model_lib_v2

from object_detection_ext.checkpoints import files
from object_detection_ext.loops import stopping, train
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
    speeds = [value for _, value in scalars["clips_per_sec"]][2:]
    assert np.median(speeds) < 1.05 * tiny_training.BATCH_SIZE / 0.2


@pytest.mark.parametrize("per_call", [1, 4])
@pytest.mark.parametrize(
    ("input_seconds", "step_seconds", "expected"), [(0.3, 0.0, (0.85, 1.0)), (0.0, 0.3, (0.0, 0.1))]
)
def test_wait_for_input_is_what_the_step_waits(
    tmp_path, capsys, monkeypatch, per_call, input_seconds, step_seconds, expected
):
    """Slow input, fast step, and the other way round; one step a call, and four."""
    monkeypatch.setattr(train, "_LONG_RUN_STEPS", 0 if per_call > 1 else 100)
    monkeypatch.setattr(train, "_STEPS_PER_CALL_OF_LONG_RUN", per_call)
    dataset = {"input_seconds": input_seconds, "step_seconds": step_seconds}
    model_dir = run(tmp_path, dataset=dataset, steps=16, checkpoint_every_n=16)
    shares = tiny_pipeline.read_events(model_dir / "train").scalars["input_wait_share"]
    # The first steps take what was read while the graph was built.
    median = np.median([share for step, share in shares if step > 4])
    assert expected[0] <= median <= expected[1]
    last = re.search(r"step 16 of 16.* (\d+)% waiting for input, 0 s left", capsys.readouterr().err)
    assert last and abs(int(last[1]) / 100 - np.mean([s for _, s in shares])) < 0.35


def test_evaluations_run_at_their_steps_and_do_not_count_as_training(tmp_path, capsys):
    seen = []

    def on_checkpoint(prefix, step):
        seen.append((files.step_of(prefix), step))
        time.sleep(1.0)

    model_dir = run(
        tmp_path, steps=7, checkpoint_every_n=3, evaluate_every_n=2, on_checkpoint=on_checkpoint
    )
    assert seen == [(2, 2), (4, 4), (6, 6), (7, 7)]
    assert saved_steps(model_dir) == [0, 2, 3, 4, 6, 7]
    speeds = tiny_pipeline.read_events(model_dir / "train").scalars["steps_per_sec"]
    assert min(value for step, value in speeds if step > 1) > 1.0
    seconds = re.search(r"step 7 of 7.* ([\d.]+) s a step", capsys.readouterr().err)
    assert float(seconds[1]) < 0.5


def test_what_runs_after_a_checkpoint_can_end_training(tmp_path, capsys):
    def on_checkpoint(prefix, step):
        if step == 4:
            raise stopping.StopTraining("no gain for 2 evaluations")

    model_dir = run(tmp_path, evaluate_every_n=2, on_checkpoint=on_checkpoint)
    assert saved_steps(model_dir) == [0, 2, 4]
    assert "training: ended: no gain for 2 evaluations" in capsys.readouterr().err
