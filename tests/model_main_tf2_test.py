# SPDX-License-Identifier: Apache-2.0
"""The flags of training reach the train loop."""

import random

import numpy as np
import pytest
import tensorflow as tf
from absl import flags
from object_detection import model_lib_v2

from object_detection_ext import model_main_tf2
from object_detection_ext.loops import stopping


@pytest.fixture
def run(monkeypatch):
    """Runs `main` with flags and a loop that stands for the stock one; returns what it got."""

    def run(*arguments, loop=lambda: None):
        got = {}

        def train_loop(**kwargs):
            got.update(kwargs, listener=stopping.active(), value=loop())

        monkeypatch.setattr(model_lib_v2, "train_loop", train_loop)
        names = flags.FLAGS(["program", "--model_dir=m", "--pipeline_config_path=p", *arguments])
        try:
            model_main_tf2.main(names[:1])
        finally:
            flags.FLAGS.unparse_flags()
            for name in ("seed", "checkpoint_max_to_keep", "on_nan", "find_explosions",
                         "keep_checkpoint_every_n_hours", "model_dir"):  # fmt: skip
                flags.FLAGS[name].unparse()
        return got

    return run


def test_flags_of_checkpoints_and_divergence(run):
    got = run()
    assert got["checkpoint_max_to_keep"] == 7
    assert got["keep_checkpoint_every_n_hours"] is None
    assert (got["on_nan"], got["find_explosions"]) == ("stop", True)
    got = run("--checkpoint_max_to_keep=3", "--keep_checkpoint_every_n_hours=0.5",
              "--on_nan=restore", "--nofind_explosions")  # fmt: skip
    assert got["checkpoint_max_to_keep"] == 3
    assert got["keep_checkpoint_every_n_hours"] == 0.5
    assert (got["on_nan"], got["find_explosions"]) == ("restore", False)
    assert isinstance(got["listener"], stopping.Listener)
    assert stopping.active() is None


@pytest.mark.parametrize(
    "argument", ["--checkpoint_max_to_keep=-1", "--on_nan=ignore", "--seed=-1", "--seed=4294967296"]
)
def test_impossible_values_are_refused(run, argument):
    with pytest.raises(flags.IllegalFlagValueError):
        run(argument)


def test_seed_reaches_the_loop(run, monkeypatch):
    determinism = []
    monkeypatch.setattr(
        tf.config.experimental, "enable_op_determinism", lambda: determinism.append(True)
    )

    def draw():
        numbers = random.random(), np.random.rand(), float(tf.random.uniform([]))
        return *numbers, len(determinism)

    first, again = (run("--seed=7", loop=draw)["value"] for _ in range(2))
    other = run("--seed=8", loop=draw)["value"]
    assert first[:3] == again[:3] and first[3] == 1
    assert all(a != b for a, b in zip(first[:3], other[:3], strict=True))
    free = run(loop=draw)["value"]
    assert free[3] == 3  # not switched on
