# SPDX-License-Identifier: Apache-2.0
"""Trainings that are stopped by signals, as real processes; the loop is the stock one."""

import signal
import time

import pytest
import tensorflow as tf

from object_detection_ext.checkpoints import files
from tests.loops import processes, tiny_training

_COMMAND_LINES = {
    "stepping": ["--step_seconds=0.3", "--num_train_steps=10000", "--checkpoint_every_n=2000"],
    # 10 steps a call: it would end after 40 s.
    "long call": ["--step_seconds=4", "--num_train_steps=100000"],
    "computing for ever": ["--step_seconds=1000"],
    "blocked": ["--block_after=5", "--checkpoint_every_n=2"],
    "blocked at first": ["--block_after=0"],
    "saving": ["--save_seconds=1000", "--checkpoint_every_n=2"],
    "slow": ["--block_after=60", "--num_train_steps=1000"],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Data and model directories."""
    return tmp_path_factory.mktemp("stopping")


@pytest.fixture(scope="module")
def running(folder):
    """The trainings, started."""
    config = tiny_training.write_config(folder, num_steps=10)
    command_lines = {
        name: [f"--pipeline_config_path={config}", f"--model_dir={folder / name}", *flags]
        for name, flags in _COMMAND_LINES.items()
    }
    started = processes.Processes(folder, command_lines)
    yield started
    started.close()


def _steps(folder, name) -> list[int]:
    state = tf.train.get_checkpoint_state(str(folder / name))
    return [files.step_of(prefix) for prefix in state.all_model_checkpoint_paths]


def _last_line(running, name) -> str:
    said = running.said(name)
    assert "Traceback" not in said
    return said.splitlines()[-1]


def test_step_ends_and_a_checkpoint_is_written(running, folder):
    running.wait_for("stepping", "training: step 1 of")
    running.send("stepping", signal.SIGTERM)
    assert running.status("stepping") == 143
    first, last = _steps(folder, "stepping")
    assert first == 0 and last >= 1
    said = running.said("stepping")
    assert "training: SIGTERM: this step ends, and a checkpoint is written" in said
    line = _last_line(running, "stepping")
    newest = f"{folder}/stepping/ckpt-2"
    assert line.startswith(
        f"SIGTERM: training ended. The newest checkpoint is '{newest}' (step {last})"
    )
    assert line.endswith("--step_seconds=0.3 --num_train_steps=10000 --checkpoint_every_n=2000")
    assert "To resume: tiny_training --pipeline_config_path=" in line
    assert files.newest_whole(str(folder / "stepping"), print).prefix.endswith("ckpt-2")


def test_blocked_input_is_not_waited_for(running, folder):
    running.wait_for("blocked", "it waits for input")
    running.send("blocked", signal.SIGINT)
    assert running.status("blocked") == 130
    # Batches 0 to 4 came; the last step was saved though no call returned to Python after it.
    assert _steps(folder, "blocked") == [0, 2, 4, 5]
    assert "(step 5). To resume: tiny_training" in _last_line(running, "blocked")
    assert not files.read(f"{folder}/blocked/ckpt-4").non_finite


def test_a_call_of_many_steps_is_not_waited_for(running, folder):
    running.wait_for("long call", "batch 2 arrived")
    start = time.monotonic()
    running.send("long call", signal.SIGTERM)
    assert running.status("long call") == 143
    assert time.monotonic() - start < 30.0
    first, last = _steps(folder, "long call")
    assert first == 0 and last >= 1


def test_before_the_first_step_there_is_nothing_to_save(running, folder):
    running.wait_for("blocked at first", "training: from step 0")
    running.send("blocked at first", signal.SIGTERM)
    assert running.status("blocked at first") == 143
    line = _last_line(running, "blocked at first")
    assert line.startswith("SIGTERM: ended before the first step, nothing is to be saved. To run ")
    assert f"again: tiny_training --pipeline_config_path={folder}/pipeline.config" in line


def test_a_second_signal_ends_at_once(running, folder):
    name = "computing for ever"
    running.wait_for(name, "batch 1 arrived")
    running.send(name, signal.SIGINT)
    running.wait_for(name, "training: SIGINT: this step ends")
    running.send(name, signal.SIGTERM)
    assert running.status(name) == 143
    assert _last_line(running, name) == "SIGTERM again: ended at once."
    assert _steps(folder, name) == [0]


def test_a_second_signal_while_a_checkpoint_is_written_leaves_the_older_ones(running, folder):
    running.wait_for("saving", "training: step 1 of")
    running.wait_for("saving", "recording a second checkpoint")
    running.send("saving", signal.SIGTERM)
    running.wait_for("saving", "this step ends")
    running.send("saving", signal.SIGINT)
    assert running.status("saving") == 130
    assert _steps(folder, "saving") == [0]
    contents = files.newest_whole(str(folder / "saving"), print)
    assert not contents.non_finite


def test_a_slow_step_is_reported_while_it_lasts(running):
    running.wait_for("slow", "so far, the median is")
    (line,) = [line for line in running.said("slow").splitlines() if "so far, the" in line][:1]
    assert line.startswith("training: this step has taken ")
    assert line.endswith("it waits for input (the records, or the processes that read them)")
