# SPDX-License-Identifier: Apache-2.0
"""Which checkpoint is good, and half of every kind of learning rate."""

import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import text_format
from object_detection.protos import optimizer_pb2

from object_detection_ext import errors
from object_detection_ext.loops import restoring


def _halved(text: str) -> str:
    optimizer = text_format.Parse(text, optimizer_pb2.Optimizer())
    restoring.halve_learning_rate(optimizer)
    return text_format.MessageToString(optimizer, as_one_line=True)


@pytest.mark.parametrize("kind", ["adam_optimizer", "momentum_optimizer", "rms_prop_optimizer"])
@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (
            "constant_learning_rate { learning_rate: 0.5 }",
            "constant_learning_rate { learning_rate: 0.25 }",
        ),
        (  # the stock default
            "constant_learning_rate { }",
            "constant_learning_rate { learning_rate: 0.001 }",
        ),
        (
            "cosine_decay_learning_rate { learning_rate_base: 0.5 total_steps: 9 "
            "warmup_learning_rate: 0.25 warmup_steps: 3 }",
            "cosine_decay_learning_rate { learning_rate_base: 0.25 total_steps: 9 "
            "warmup_learning_rate: 0.125 warmup_steps: 3 }",
        ),
        (
            "exponential_decay_learning_rate { initial_learning_rate: 0.5 decay_steps: 3 "
            "decay_factor: 0.5 burnin_learning_rate: 0.25 burnin_steps: 2 "
            "min_learning_rate: 0.125 }",
            "exponential_decay_learning_rate { initial_learning_rate: 0.25 decay_steps: 3 "
            "decay_factor: 0.5 burnin_learning_rate: 0.125 burnin_steps: 2 "
            "min_learning_rate: 0.0625 }",
        ),
        (
            "manual_step_learning_rate { initial_learning_rate: 0.5 "
            "schedule { step: 3 learning_rate: 0.25 } schedule { step: 6 learning_rate: 0.125 } "
            "warmup: true }",
            "manual_step_learning_rate { initial_learning_rate: 0.25 "
            "schedule { step: 3 learning_rate: 0.125 } schedule { step: 6 learning_rate: 0.0625 } "
            "warmup: true }",
        ),
    ],
)
def test_every_learning_rate_is_halved(kind, schedule, expected):
    optimizer = "{} {{ learning_rate {{ {} }} }} use_moving_average: false"
    assert _halved(optimizer.format(kind, schedule)) == optimizer.format(kind, expected).replace(
        "{  }", "{ }"
    )


def test_an_optimizer_without_learning_rate_cannot_be_halved():
    with pytest.raises(errors.InputError, match="needs a learning rate"):
        _halved("momentum_optimizer { }")


def _save(folder, values) -> None:
    """A checkpoint for each (step, weight)."""
    step, weight = tf.Variable(0, dtype=tf.int64), tf.Variable(0.0)
    model = tf.train.Checkpoint(weight=weight)
    manager = tf.train.CheckpointManager(
        tf.train.Checkpoint(step=step, model=model), str(folder), max_to_keep=None
    )
    for number, value in values:
        step.assign(number)
        weight.assign(value)
        manager.save()


def test_a_checkpoint_without_weights_is_no_place_to_go_back_to(tmp_path):
    """The one before the first step, of a model that starts from random weights."""
    step = tf.train.Checkpoint(step=tf.Variable(0, dtype=tf.int64))
    tf.train.CheckpointManager(step, str(tmp_path), max_to_keep=None).save()
    assert restoring.last_good(str(tmp_path), 1) is None


def test_a_good_checkpoint_is_finite_whole_and_was_followed_by_a_good_loss(tmp_path):
    _save(tmp_path, [(0, 1.0), (10, 1.0), (20, np.nan), (30, 1.0), (40, 1.0)])
    for last_healthy, number in ((45, 5), (40, 4), (30, 2), (11, 2), (10, 1)):
        assert restoring.last_good(str(tmp_path), last_healthy) == f"{tmp_path}/ckpt-{number}"
    assert restoring.last_good(str(tmp_path), 0) is None
    assert restoring.suspects(str(tmp_path), f"{tmp_path}/ckpt-2", 35) == [f"{tmp_path}/ckpt-5"]
    (tmp_path / "ckpt-5.data-00000-of-00001").write_bytes(b"cut")
    assert restoring.last_good(str(tmp_path), 45) == f"{tmp_path}/ckpt-4"


def test_the_note_is_there_as_a_whole_or_not_at_all(tmp_path):
    assert not restoring.was_restored(str(tmp_path))
    restoring.note(str(tmp_path), 7, 5)
    assert restoring.was_restored(str(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == [restoring.NOTE]
