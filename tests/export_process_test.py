# SPDX-License-Identifier: Apache-2.0
"""The exporter as a process of its own, on a disk that is too small for the model."""

import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import text_format

from object_detection_ext import registration
from object_detection_ext.data import clip_packing
from tests import full_disk, tiny_pipeline

registration.register()


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> pathlib.Path:
    """A folder with a pipeline.config, a label map and a checkpoint of random weights."""
    folder = tmp_path_factory.mktemp("trained")
    pipeline = tiny_pipeline.make_pipeline(
        tiny_pipeline.SHORT_TRUNK, label_map=tiny_pipeline.write_label_map(folder / "map.pbtxt")
    )
    (folder / "pipeline.config").write_text(text_format.MessageToString(pipeline))
    model = tiny_pipeline.build_model(pipeline, is_training=False)
    clip = np.zeros([tiny_pipeline.NUM_FRAMES, 64, 64, 3], np.uint8)
    packed = tf.cast(clip_packing.pack_clip(tf.constant(clip)), tf.float32)
    model.predict(*model.preprocess(model.image_resizer(packed)[0][tf.newaxis]))
    tf.train.Checkpoint(model=model).save(str(folder / "model" / "ckpt"))
    return folder


def _export(trained: pathlib.Path, output: pathlib.Path) -> subprocess.CompletedProcess:
    command = [
        sys.executable, "-m", "object_detection_ext.exporter_main_v2", "--input_type=clip_tensor",
        f"--pipeline_config_path={trained}/pipeline.config", f"--output_directory={output}",
        f"--trained_checkpoint_dir={trained}/model",
    ]  # fmt: skip
    return subprocess.run(command, capture_output=True, text=True, timeout=600)


@pytest.mark.slow
def test_full_disk_is_one_line_then_the_same_command_replaces_the_export(trained, tmp_path):
    with full_disk.small_disk(tmp_path / "disk", 60_000_000) as disk:
        output = disk / "exported"
        for part in ("pipeline.config", "checkpoint/ckpt-0.index", "saved_model/saved_model.pb"):
            (output / part).parent.mkdir(parents=True, exist_ok=True)
            (output / part).write_text("old")
        full_disk.fill(disk, left=600_000)
        done = _export(trained, output)
        reported = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
        assert done.returncode == 1, done.stderr[-3000:]
        assert len(reported) == 1 and "could not be written: No space left on device" in reported[0]
        assert "Traceback" not in done.stderr
        assert (output / "saved_model" / "saved_model.pb").read_text() == "old"
        assert sorted(os.listdir(disk)) == ["exported", "filling"]
        (disk / "filling").unlink()
        done = _export(trained, output)
        assert done.returncode == 0, done.stderr[-3000:]
        assert os.listdir(disk) == ["exported"]
        loaded = tf.saved_model.load(str(output / "saved_model"))
        assert "serving_default" in loaded.signatures
        assert (output / "saved_model" / "assets" / "clip.json").is_file()
        assert (output / "saved_model" / "assets.extra").is_dir()
        newest = tf.train.latest_checkpoint(str(output / "checkpoint"))
        assert newest == str(output / "checkpoint" / "ckpt-0") and tf.train.list_variables(newest)
