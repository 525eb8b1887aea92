# SPDX-License-Identifier: Apache-2.0
"""Two processes that train with the same seed end with the same weights.

The seed is set as `model_main_tf2 --seed` sets it.
"""

import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from object_detection import model_lib_v2

from object_detection_ext import registration
from tests import tiny_pipeline

_ROOT = pathlib.Path(__file__).resolve().parent.parent
_STEPS = 20
_CHILD = (
    "import sys; from object_detection_ext import registration; "
    "from tests import end_to_end_seed_test as test; test._train(*sys.argv[1:])"
)
# All that is drawn in training: order, repeats, frames, flips, crops, colours, dropout, anchors.
_OVERRIDE = (
    tiny_pipeline.SHORT_TRUNK
    + """
train_config {
  data_augmentation_options { random_crop_image { min_object_covered: 0.5 min_area: 0.5 } }
  data_augmentation_options { random_distort_color { } }
}
train_input_reader { num_readers: 3 }
[object_detection_ext.protos.video_action_transformer] {
  clip { max_frame_stride: 2 temporal_jitter_frames: 1 }
  tx_head { dropout_rate: 0.3 }
  class_weights { inverse_frequency { } }
  class_balance { threshold: 0.5 }
  summaries { training_picture_every_n_steps: 5 }
}
"""
)


def _write_data(folder: pathlib.Path) -> pathlib.Path:
    """3 files of 4 records of 10 frames of noise, each with 2 keyframes; returns the pipeline."""
    random = np.random.default_rng(5)
    people = [([0.1, 0.1, 0.7, 0.5], "stand"), ([0.3, 0.5, 0.9, 0.9], "walk")]
    for shard in range(3):
        records = [
            tiny_pipeline.make_record(
                [
                    tiny_pipeline.encode_jpeg(random.integers(0, 255, (64, 64, 3)).astype(np.uint8))
                    for _ in range(10)
                ],
                {3: people[:1], 5: people if number == 0 else people[:1]},
                video_id=f"{shard} {number}",
            )
            for number in range(4)
        ]
        tiny_pipeline.write_records(folder / f"train-{shard}", records)
    return tiny_pipeline.write_pipeline(
        folder / "pipeline.config",
        _OVERRIDE,
        label_map=tiny_pipeline.write_label_map(folder / "label_map.pbtxt"),
        train=folder / "train-?",
    )


def _train(pipeline: str, model_dir: str) -> None:
    tf.keras.utils.set_random_seed(1)
    tf.config.experimental.enable_op_determinism()
    registration.register()
    model_lib_v2.train_loop(
        pipeline_config_path=pipeline,
        model_dir=model_dir,
        train_steps=_STEPS,
        checkpoint_every_n=_STEPS,
    )


def _variables(model_dir: pathlib.Path) -> dict[str, np.ndarray]:
    reader = tf.train.load_checkpoint(tf.train.latest_checkpoint(str(model_dir)))
    names = [name for name in reader.get_variable_to_shape_map() if "OBJECT_GRAPH" not in name]
    return {name: reader.get_tensor(name) for name in names}


@pytest.mark.slow
def test_two_processes_with_the_same_seed_end_with_the_same_weights(tmp_path):
    pipeline = _write_data(tmp_path)
    environment = {**os.environ, "PYTHONPATH": str(_ROOT)}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", _CHILD, pipeline, tmp_path / name],
            cwd=_ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )
        for name in ("first", "second")
    ]  # fmt: skip
    for process in processes:
        output, _ = process.communicate(timeout=1200)
        assert process.returncode == 0, output.decode()[-4000:]
    assert "class balance: a pass has" in output.decode()
    first, second = (_variables(tmp_path / name) for name in ("first", "second"))
    assert int(first["step/.ATTRIBUTES/VARIABLE_VALUE"]) == _STEPS
    assert first.keys() == second.keys() and len(first) > 40
    for name, value in first.items():
        np.testing.assert_array_equal(value, second[name], err_msg=name)
