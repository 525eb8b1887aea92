# SPDX-License-Identifier: Apache-2.0
"""Two replicas of the stock loop, each with its part of the batch, in a process of its own."""

import json
import subprocess
import sys

import pytest

from tests.loops import processes, tiny_training

_CHILD = """
import json, pathlib, sys
from tests.loops import tiny_training
import tensorflow as tf
from object_detection import model_lib_v2
from object_detection_ext.loops import train
cpu, = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
config, model_dir = sys.argv[1:]
with tiny_training.substituted(poison=7):
    with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
        try:
            model_lib_v2.train_loop(
                pipeline_config_path=config, model_dir=model_dir, checkpoint_every_n=1
            )
        except train.DivergedError as error:
            print(json.dumps(str(error)))
"""


@pytest.mark.slow
def test_two_replicas_are_watched_as_one(tmp_path):
    config = tiny_training.write_config(tmp_path, num_steps=6)
    done = subprocess.run(
        [sys.executable, "-c", _CHILD, str(config), str(tmp_path / "model")],
        cwd=processes.ROOT, capture_output=True, text=True, check=False, timeout=500,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    text = json.loads(done.stdout.splitlines()[-1])
    # Batches 6 and 7 are those of step 4.
    assert "Training has diverged at step 4: the loss is not a finite number" in text
    assert all(f"v{number},2 (record " in text for number in (0, 1, 2, 3))
    assert f"Last good checkpoint: '{tmp_path}/model/ckpt-3' (step 2)" in text
    assert "waiting for input" in done.stderr
