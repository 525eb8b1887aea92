# SPDX-License-Identifier: Apache-2.0
"""A real training from a model of one's own: train, start again with other classes, resume."""

import inspect
import os
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from object_detection import model_lib_v2
from object_detection.utils import variables_helper

from object_detection_ext import registration
from object_detection_ext.checkpoints import start
from tests import tiny_pipeline

registration.register()

# Of the two wrappers around it, the inner one is tested here.
_STOCK_LOOP = inspect.unwrap(model_lib_v2.train_loop)

_ROOT = pathlib.Path(__file__).resolve().parents[2]
_CLASSES = {1: "watch (a person)", 2: "jump", 3: "stand", 4: "walk"}
_KERNEL = "model/_mask_rcnn_box_predictor/_class_head/_class_predictor_layers/1/kernel"
_TABLE = "Training starts from "


def _run(config: pathlib.Path, model_dir: pathlib.Path, steps: int, override: str = ""):
    return subprocess.run(
        [
            sys.executable,
            "-m",
            "object_detection_ext.model_main_tf2",
            f"--pipeline_config_path={config}",
            f"--model_dir={model_dir}",
            f"--num_train_steps={steps}",
            "--checkpoint_every_n=2",
            f"--config_override={override}",
        ],
        cwd=_ROOT,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2"},
        capture_output=True,
        text=True,
        timeout=3600,
        check=False,
    )


def _value(model_dir: pathlib.Path, number: int, name: str) -> np.ndarray:
    prefix = str(model_dir / f"ckpt-{number}")
    return tf.train.load_variable(prefix, f"{name}/.ATTRIBUTES/VARIABLE_VALUE")


def _start(path: pathlib.Path, kind: str) -> str:
    return (
        f"train_config {{ fine_tune_checkpoint: '{path}' fine_tune_checkpoint_type: '{kind}' "
        "fine_tune_checkpoint_version: V2 }"
    )


def _write_data(folder: pathlib.Path) -> tuple[pathlib.Path, pathlib.Path]:
    """Records with a label map; the pipeline.config, and the label map."""
    frames = tiny_pipeline.gray_frames(4)
    people = {2: [([0.1, 0.1, 0.7, 0.5], "stand"), ([0.3, 0.5, 0.9, 0.9], "walk")]}
    records = tiny_pipeline.write_records(
        folder / "train.record", [tiny_pipeline.make_record(frames, people)] * 2
    )
    label_map = tiny_pipeline.write_label_map(folder / "label_map.pbtxt")
    config = tiny_pipeline.write_pipeline(
        folder / "my.config", tiny_pipeline.SHORT_TRUNK, label_map=label_map, train=records
    )
    return config, label_map


class _ReachedError(Exception):
    """The stock loop came to a place; what is after it takes a minute."""


@pytest.mark.slow
@pytest.mark.parametrize("resumes", [False, True])
def test_stock_loop_loads_the_start_only_when_it_starts(tmp_path, monkeypatch, resumes):
    def reach(place):
        def stop(*args, **kwargs):
            raise _ReachedError(place)

        return stop

    config, _ = _write_data(tmp_path)
    own = tf.train.Checkpoint(
        step=tf.Variable(1, dtype=tf.int64), model=tf.train.Checkpoint(weight=tf.Variable(1.0))
    )
    if resumes:
        tf.train.CheckpointManager(own, str(tmp_path / "new"), max_to_keep=1).save()
    monkeypatch.setattr(
        variables_helper, "ensure_checkpoint_supported", reach("the checkpoint to start from")
    )
    # Not reached by a loop that starts.
    train = model_lib_v2.tf.compat.v2.train
    monkeypatch.setattr(train, "CheckpointManager", reach("its own checkpoints"))
    monkeypatch.setattr(start, "check", lambda pipeline, source: None)
    loop = start.wrap_train_loop(_STOCK_LOOP, read_pipeline=registration.read_pipeline)
    with pytest.raises(_ReachedError) as caught:
        loop(
            pipeline_config_path=str(config),
            model_dir=str(tmp_path / "new"),
            config_override=_start(tmp_path / "gone" / "ckpt-1", "full"),
            train_steps=2,
            record_summaries=False,
        )
    expected = "its own checkpoints" if resumes else "the checkpoint to start from"
    assert str(caught.value) == expected


@pytest.mark.slow
def test_training_starts_from_a_training_with_other_classes_and_resumes(tmp_path):
    config, label_map = _write_data(tmp_path)
    old, new = tmp_path / "old", tmp_path / "new"
    first = _run(config, old, 1)
    assert first.returncode == 0, first.stderr[-3000:]
    assert _TABLE not in first.stderr

    # The label map is changed in place, as people do it.
    tiny_pipeline.write_label_map(label_map, _CLASSES)
    four = "model { faster_rcnn { num_classes: 4 } }"
    checkpoint = old / "ckpt-2"
    refused = _run(config, new, 3, f"{four} {_start(checkpoint, 'full')}")
    assert refused.returncode == 2
    assert "num_classes is 4 here and 3 in it" in refused.stderr
    assert "Traceback" not in refused.stderr and not new.exists()

    override = f"{four} {_start(checkpoint, 'detection')}"
    second = _run(config, new, 3, override)  # two runs of the stock loop: 2 steps, then the third
    assert second.returncode == 0, second.stderr[-3000:]
    assert second.stderr.count(_TABLE) == 1
    assert "Classes by name: 3 taken over, 1 new ('jump'), 0 dropped." in second.stderr
    was, is_now = _value(old, 2, _KERNEL), _value(new, 1, _KERNEL)
    np.testing.assert_array_equal(is_now[:, [0, 3, 4, 1]], was)  # before the first step

    shutil.rmtree(old)
    third = _run(config, new, 4, override)
    assert third.returncode == 0, third.stderr[-3000:]
    assert _TABLE not in third.stderr
    assert "from step 3 to 4" in third.stderr
    # A step of training away from where it was, not from where it started.
    moved = np.abs(_value(new, 4, _KERNEL) - _value(new, 3, _KERNEL)).max()
    assert 0 < moved < 0.05
