# SPDX-License-Identifier: Apache-2.0
"""A disk that fills up while a training saves, as a real process on a small tmpfs."""

import os
import subprocess

import pytest
import tensorflow as tf

from object_detection_ext.checkpoints import files
from object_detection_ext.loops import manager
from tests.loops import processes, tiny_training


@pytest.fixture
def small_disk(tmp_path):
    """A folder with room for a few checkpoints of the tiny model."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small disk")
    command = ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("no tmpfs can be mounted here")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_full_disk_leaves_the_older_checkpoints_and_ends_with_a_line(tmp_path, small_disk):
    config = tiny_training.write_config(tmp_path, num_steps=1000)
    flags = ["--checkpoint_every_n=1", "--checkpoint_max_to_keep=0"]
    paths = [f"--pipeline_config_path={config}", f"--model_dir={small_disk}"]
    training = processes.Processes(tmp_path, {"full": [*paths, *flags]})
    try:
        assert training.status("full") == 1
    finally:
        training.close()
    said = training.said("full")
    assert "Traceback" not in said
    (line,) = [line for line in said.splitlines() if line.startswith("error:")]
    assert "could not be written: No space left on device. The newest whole one is" in line
    listed = files.listed(str(small_disk))
    assert len(listed) > 2
    # What is there is whole, each with its step: nothing half-written has the name of a checkpoint.
    assert [files.step_of(p) for p in listed] == list(range(len(listed) - 1, -1, -1))
    assert all(not files.read(prefix).non_finite for prefix in listed)
    indexes = {path.name.removesuffix(".index") for path in small_disk.glob("*.index")}
    assert indexes == {os.path.basename(prefix) for prefix in listed}
    assert not list(small_disk.glob("*temp*")) and not list(small_disk.glob("*.tmp*"))
    assert f"'{listed[0]}'" in line


def test_what_writing_left_is_removed_but_nothing_listed(tmp_path):
    checkpoint = tf.train.Checkpoint(step=tf.Variable(3, dtype=tf.int64))
    writer = tf.train.CheckpointManager(checkpoint, str(tmp_path), max_to_keep=2)
    writer.save()
    whole = sorted(path.name for path in tmp_path.iterdir())
    for name in (
        "ckpt-2.index",
        "ckpt-2.data-00000-of-00001",
        "checkpoint.tmp1234",
        "ckpt-22.index",
    ):
        (tmp_path / name).write_text("half")
    (tmp_path / "ckpt-2_temp").mkdir()
    (tmp_path / "ckpt-2_temp" / "part-00000-of-00001.data-00000-of-00001").write_text("half")
    manager.remove_unfinished(str(tmp_path), f"{tmp_path}/ckpt-2")
    manager.remove_unfinished(str(tmp_path), f"{tmp_path}/ckpt-1")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*whole, "ckpt-22.index"])


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (
            tf.errors.ResourceExhaustedError(None, None, "a/b.data; No space left on device"),
            "No space left on device",
        ),
        (tf.errors.UnknownError(None, None, "a/b; File too large\n\t [[node]]"), "File too large"),
        (
            tf.errors.PermissionDeniedError(None, None, "a/b; Permission denied\nat line 3"),
            "a/b; Permission denied",
        ),
        (OSError(28, "No space left on device"), "No space left on device"),
    ],
)
def test_errors_of_writing_are_one_line(error, text):
    assert manager.describe(error) == text
