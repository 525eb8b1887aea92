# SPDX-License-Identifier: Apache-2.0
"""Evaluation as real processes: lines, exit statuses, signals; the tiny model, given metrics."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest
import tensorflow as tf

from object_detection_ext.checkpoints import files
from tests import tiny_pipeline
from tests.loops import best_test, tiny_evaluation, tiny_training

_ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
_LIMIT_SECONDS = 300


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> pathlib.Path:
    path = tiny_training.write_config(tmp_path_factory.mktemp("data"), num_steps=20)
    path.write_text(path.read_text() + tiny_evaluation.CONFIG)
    return path


def _start(config, model_dir, *more: str) -> subprocess.Popen:
    return subprocess.Popen(
        [
            sys.executable,
            "-m",
            "tests.loops.tiny_evaluation",
            f"--pipeline_config_path={config}",
            f"--model_dir={model_dir}",
            *more,
        ],
        cwd=_ROOT,
        env={**os.environ, "PYTHONPATH": str(_ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def _run(config, model_dir, *more: str) -> tuple[int, list[str]]:
    """Exit status and the lines that were said."""
    process = _start(config, model_dir, *more)
    _, said = process.communicate(timeout=_LIMIT_SECONDS)
    return process.returncode, said.splitlines()


def _interrupt(process: subprocess.Popen, when, number: int) -> list[str]:
    """Sends a signal as soon as `when()` is true; what was said after that."""
    try:
        start = time.monotonic()
        while not when():
            assert process.poll() is None, process.stderr.read()
            assert time.monotonic() - start < _LIMIT_SECONDS
            time.sleep(0.05)
        process.send_signal(number)
        _, said = process.communicate(timeout=30)
    finally:
        process.kill()
    return said.splitlines()


def _scalars(model_dir) -> dict[str, list[tuple[int, float]]]:
    return tiny_pipeline.read_events(model_dir / "eval" / "val").scalars


@pytest.mark.slow
def test_training_pauses_and_ends_early_and_what_was_stopped_is_evaluated_first(config, tmp_path):
    model_dir = tmp_path / "model"
    options = (
        "--train_and_evaluate",
        "--checkpoint_every_n=2",
        "--checkpoint_max_to_keep=1",
        "--stop_after_evals_without_gain=2",
    )
    # The evaluation of step 6 takes long, and is stopped.
    process = _start(config, model_dir, "--values=0.2,0.5,-1", *options)
    said = _interrupt(
        process,
        lambda: list(model_dir.glob("best.evaluating*/*/ckpt-4.index")),
        signal.SIGTERM,
    )
    assert process.returncode == 143
    assert said[-1].startswith("SIGTERM: evaluation of step 6 ended before its result; ")
    assert f"{model_dir / 'best'} is as it was" in said[-1]
    record = json.loads((model_dir / "best" / "best.json").read_text())
    assert (record["step"], record["value"]) == (4, 0.5)
    assert [step for step, _ in _scalars(model_dir)[tiny_evaluation.MEAN_AP]] == [2, 4]
    assert list(model_dir.glob("best.evaluating*")) == []

    status, said = _run(config, model_dir, "--values=0.4,0.3", *options)
    assert status == 0
    results = [line for line in said if line.startswith("evaluation: step")]
    assert [line[:35] for line in results] == [
        "evaluation: step 6: mAP@0.5IOU 0.40",
        "evaluation: step 8: mAP@0.5IOU 0.30",
    ]
    assert said[-1] == (
        "training: ended: 2 evaluations in a row without gain (--stop_after_evals_without_gain=2);"
        f" best: mAP@0.5IOU 0.500 at step 4, kept in {model_dir / 'best'}"
    )
    # Only the newest is kept, and the best.
    assert files.step_of_newest(str(model_dir)) == 8
    assert files.step_of_newest(str(model_dir / "best")) == 4
    best = files.read(tf.train.latest_checkpoint(str(model_dir / "best")))
    assert any(key.startswith("model/_hidden") for key in best.shapes)


@pytest.mark.slow
def test_evaluation_beside_training_ends_by_signal_or_timeout(config, tmp_path):
    model_dir = tmp_path / "model"
    model_dir.mkdir()
    beside = f"--checkpoint_dir={model_dir}"
    status, said = _run(config, model_dir, beside, "--eval_timeout=1")
    assert status == 3
    assert said[-1] == (
        f"error: No checkpoint with weights came to '{model_dir}' within 1 s (--eval_timeout): "
        "nothing was evaluated."
    )
    process = _start(config, model_dir, beside)
    waiting = _line(process, "evaluation: waiting for a checkpoint")
    said = _interrupt(process, waiting, signal.SIGINT)
    assert process.returncode == 130
    assert len(said) == 1 and said[0].startswith("SIGINT: evaluation of '")


def _line(process: subprocess.Popen, start: str):
    """Whether a line that begins so has been said; reads until it has."""
    return lambda: process.stderr.readline().startswith(start)


@pytest.mark.slow
def test_wrong_flags_end_with_status_2(config, tmp_path):
    model_dir = tmp_path / "model"
    best_test.save(model_dir, 1)
    for flags, message in (
        ([f"--checkpoint_dir={tmp_path / 'modle'}"], "no checkpoint"),
        ([f"--checkpoint_dir={model_dir}", "--train_and_evaluate"], "give one of them"),
        (["--eval_every_n=5"], "--eval_every_n is for --train_and_evaluate"),
        (["--train_and_evaluate", "--num_workers=2"], "in a process of its own"),
        (["--best_metric=Loss/total_loss"], "are for evaluations"),
    ):
        status, said = _run(config, model_dir, *flags)
        assert status == 2 and said[-1].startswith("error: ") and message in said[-1], said
