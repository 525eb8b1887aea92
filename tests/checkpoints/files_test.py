# SPDX-License-Identifier: Apache-2.0
"""Which checkpoints there are, and whether they are whole."""

import tensorflow as tf

from object_detection_ext.checkpoints import files


def _save_checkpoint(folder, step: int) -> None:
    checkpoint = tf.train.Checkpoint(step=tf.Variable(step, dtype=tf.int64))
    tf.train.CheckpointManager(checkpoint, str(folder), max_to_keep=2).save()


def test_step_of_newest_is_that_of_the_newest(tmp_path):
    assert files.step_of_newest(str(tmp_path / "nothing")) == 0
    assert files.step_of_newest(str(tmp_path)) == 0
    _save_checkpoint(tmp_path, 7)
    assert files.step_of_newest(str(tmp_path)) == 7
    _save_checkpoint(tmp_path, 19)
    assert files.step_of_newest(str(tmp_path)) == 19
