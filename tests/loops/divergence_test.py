# SPDX-License-Identifier: Apache-2.0
"""Trainings that diverge, in the stock loop itself, on a model of a few weights."""

import json
import math
import re

import pytest
import tensorflow as tf

from object_detection_ext import errors
from object_detection_ext.checkpoints import files
from object_detection_ext.loops import guard, manager, restoring, train
from tests import tiny_pipeline
from tests.loops import tiny_training
from tests.loops.stock_loop_test import run, saved_steps


def _keys_of_non_finite(model_dir) -> list[str]:
    return [key for p in files.listed(str(model_dir)) for key in files.read(p).non_finite]


@pytest.mark.parametrize(
    "optimizer",
    [
        tiny_training.SGD % 1e9,
        tiny_training.SGD % 1e12,
        tiny_training.ADAM % 1e4,
        tiny_training.RMS % 1e6,
    ],
)
def test_too_high_a_learning_rate_ends_training_with_all_that_is_known(tmp_path, optimizer):
    with pytest.raises(train.DivergedError) as ended:
        run(tmp_path, optimizer=optimizer, steps=8, checkpoint_every_n=1)
    assert ended.value.exit_status == 4
    text = str(ended.value)
    assert "Training has diverged at step 1: the weights of the model have exploded" in text
    assert re.search(r"absolute \d\.\d+, square \d\.\d+, total_loss \d\.\d+\.\n", text)
    # The first batch is of clips 0 and 1, which are the records of the first file.
    for number in (0, 1):
        assert f"v{number},2 (record {number} of {tmp_path}/train-0)" in text
    assert f"Last good checkpoint: '{tmp_path}/model/ckpt-1' (step 0)" in text
    # An exploded checkpoint is not written either.
    assert saved_steps(tmp_path / "model") == [0]


@pytest.mark.parametrize("per_call", [1, 4])
def test_the_exact_step_and_batch_are_found(tmp_path, monkeypatch, per_call):
    """A batch whose images are not numbers, in the middle of a call of several steps too."""
    monkeypatch.setattr(train, "_LONG_RUN_STEPS", 0 if per_call > 1 else 100)
    monkeypatch.setattr(train, "_STEPS_PER_CALL_OF_LONG_RUN", per_call)
    with pytest.raises(train.DivergedError) as ended:
        run(tmp_path, steps=12, checkpoint_every_n=per_call, dataset={"poison": 5})
    text = str(ended.value)
    assert "Training has diverged at step 6: the loss is not a finite number" in text
    assert "Loss terms of that step: absolute nan, square nan, total_loss nan" in text
    # Batch 5 is of clips 4 and 5.
    for number in (0, 1):
        assert f"v{number + 4},2 (record {number} of {tmp_path}/train-2)" in text
    # The checkpoint of step 5 was never tried.
    assert f"(step {4 if per_call == 1 else 4})" in text
    assert ("Written when training may have diverged already" in text) == (per_call == 1)
    assert _keys_of_non_finite(tmp_path / "model") == []


def test_an_explosion_at_the_end_is_seen_before_the_last_checkpoint(tmp_path, monkeypatch):
    """By its losses: two steps are too few for the rule, but no third one comes."""
    monkeypatch.setattr(guard, "_MAX_WEIGHTS", math.inf)
    with pytest.raises(train.DivergedError, match="step 2: the loss has exploded"):
        run(tmp_path, optimizer=tiny_training.ADAM % 1e4, steps=3)
    assert saved_steps(tmp_path / "model") == [0]


def test_explosions_can_be_let_be(tmp_path):
    model_dir = run(tmp_path, optimizer=tiny_training.ADAM % 1e4, find_explosions=False)
    assert saved_steps(model_dir) == [0, 6]
    losses = tiny_pipeline.read_events(model_dir / "train").scalars["Loss/total_loss"]
    assert losses[-1][1] > 1e5


def test_back_to_the_last_good_checkpoint_with_half_the_learning_rate(tmp_path, capsys):
    model_dir = run(
        tmp_path, steps=5, checkpoint_every_n=1, dataset={"poison": 3}, on_nan=train.RESTORE
    )
    said = capsys.readouterr().err
    assert "training: Training has diverged at step 4: the loss is not a finite number" in said
    assert f"training: back to '{model_dir}/ckpt-3' (step 2), with half the learning rate" in said
    assert "training: from step 2 to 5" in said
    assert saved_steps(model_dir) == [0, 1, 2, 3, 4, 5]
    assert _keys_of_non_finite(model_dir) == []
    assert json.loads((model_dir / restoring.NOTE).read_text()) == {
        "diverged_at_step": 4,
        "restored_step": 2,
        "learning_rate_factor": 0.5,
    }
    events = tiny_pipeline.read_events(model_dir / "train").scalars
    rates = [(step, round(rate, 6)) for step, rate in events["learning_rate"]]
    assert sorted(rates)[-3:] == [(4, 0.005), (4, 0.01), (5, 0.005)]
    # The same command resumes with the halved rate, and stops the next time.
    with pytest.raises(train.DivergedError, match="It had gone back once already"):
        run(tmp_path, steps=9, dataset={"poison": 2}, on_nan=train.RESTORE)
    assert "the learning rate is half of the config's" in capsys.readouterr().err


def test_a_second_divergence_ends_training(tmp_path, capsys):
    with pytest.raises(train.DivergedError, match="It had gone back once already") as ended:
        run(tmp_path, optimizer=tiny_training.SGD % 1e9, on_nan=train.RESTORE)
    assert ended.value.exit_status == 4
    assert capsys.readouterr().err.count("training: back to") == 1


def test_a_training_goes_back_once_however_often_it_is_started(tmp_path, capsys):
    run(tmp_path, steps=5, checkpoint_every_n=1, dataset={"poison": 3}, on_nan=train.RESTORE)
    capsys.readouterr()
    with pytest.raises(train.DivergedError, match="It had gone back once already"):
        run(tmp_path, steps=9, checkpoint_every_n=1, dataset={"poison": 1}, on_nan=train.RESTORE)
    said = capsys.readouterr().err
    assert "the learning rate is half of the config's" in said and "back to" not in said


def test_without_a_good_checkpoint_there_is_no_way_back(tmp_path):
    with pytest.raises(train.DivergedError, match="No checkpoint in '.*' is known to be good"):
        run(tmp_path, dataset={"poison": 0}, on_nan=train.RESTORE)


def test_variables_that_the_loss_does_not_see_are_checked_before_they_are_saved(tmp_path):
    def spoil(prefix, step):
        if step == 2:
            (model,) = tiny_training.built
            model.statistics.assign([1.0, math.inf])

    with pytest.raises(train.DivergedError, match="1 variable is not finite: statistics") as ended:
        run(tmp_path, checkpoint_every_n=4, evaluate_every_n=2, on_checkpoint=spoil)
    assert saved_steps(tmp_path / "model") == [0, 2]
    assert f"Last good checkpoint: '{tmp_path}/model/ckpt-2' (step 2)" in str(ended.value)


@pytest.mark.parametrize("moving_average", [False, True])
@pytest.mark.parametrize("optimizer", [tiny_training.ADAM % 0.01, tiny_training.SGD % 0.01])
def test_every_variable_of_a_checkpoint_is_checked(
    tmp_path, monkeypatch, optimizer, moving_average
):
    checked = {}
    stock_write = manager.Manager.write

    def write(self):
        prefix = stock_write(self)
        variables = guard.saved_variables(self.checkpoint)
        checked[prefix] = sorted(tuple(v.shape) for v in variables if v.dtype.is_floating)
        return prefix

    monkeypatch.setattr(manager.Manager, "write", write)
    model_dir = run(tmp_path, optimizer=optimizer, steps=2, moving_average=moving_average)
    prefix = tf.train.latest_checkpoint(str(model_dir))
    reader = tf.train.load_checkpoint(prefix)
    kinds = reader.get_variable_to_dtype_map()
    saved = [
        tuple(shape)
        for key, shape in reader.get_variable_to_shape_map().items()
        if kinds[key].is_floating
    ]
    assert checked[prefix] == sorted(saved)
    # More than the weights: slots of the optimizer, and averages.
    assert len(saved) > 8


def test_weights_to_start_from_must_be_finite(tmp_path):
    with pytest.raises(
        errors.InputError,
        match="Not all variables that training starts from are finite: statistics",
    ):
        run(tmp_path, dataset={"statistics": math.nan})
    assert not list((tmp_path / "model").glob("ckpt*"))
