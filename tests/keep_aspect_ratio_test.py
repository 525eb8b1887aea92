# SPDX-License-Identifier: Apache-2.0
"""Training on frames that keep their aspect ratio, in batches of two.

The stock main's strategy and the stock loops; videos of 48 x 64 and 96 x 128 pixels.

Shapes: T frames, H W pixels.
"""

import pathlib

import numpy as np
import pytest
import tensorflow as tf
from object_detection import model_lib_v2

from object_detection_ext import registration
from tests import tiny_pipeline

registration.register()

_PEOPLE = {2: [([0.1, 0.1, 0.7, 0.5], "stand")]}


def _record(height: int, width: int, name: str) -> bytes:
    frame = tiny_pipeline.encode_jpeg(np.full((height, width, 3), 90, np.uint8))
    record = tiny_pipeline.make_record([frame] * 4, _PEOPLE, video_id=name)
    example = tf.train.SequenceExample.FromString(record)
    for side, value in (("height", height), ("width", width)):
        example.context.feature[f"image/{side}"].int64_list.value[:] = [value]
    return example.SerializeToString()


def _write(folder: pathlib.Path, padding: bool, sizes) -> pathlib.Path:
    records = tiny_pipeline.write_records(
        folder / "train", [_record(*size, f"v{index}") for index, size in enumerate(sizes)]
    )
    override = f"""
      model {{ faster_rcnn {{ image_resizer {{ keep_aspect_ratio_resizer {{
        min_dimension: 48 max_dimension: 96 pad_to_max_dimension: {str(padding).lower()} }} }} }} }}
      train_config {{ batch_size: 2 num_steps: 2 }} eval_config {{ batch_size: 2 }}"""
    return tiny_pipeline.write_pipeline(
        folder / "pipeline.config",
        tiny_pipeline.SHORT_TRUNK + override,
        label_map=tiny_pipeline.write_label_map(folder / "labels.pbtxt"),
        train=records,
        evaluation=records,
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("padding", "sizes"),
    [(False, [(48, 64), (96, 128)]), (True, [(48, 64), (64, 48)])],
    ids=["shapes agree", "padded"],
)
def test_batches_of_two_train_and_evaluate(tmp_path, padding, sizes):
    config, model_dir = _write(tmp_path, padding, sizes), tmp_path / "model"
    with tf.distribute.MirroredStrategy().scope():
        model_lib_v2.train_loop(pipeline_config_path=str(config), model_dir=str(model_dir))
    checkpoint = tf.train.latest_checkpoint(str(model_dir))
    assert int(tf.train.load_variable(checkpoint, "step/.ATTRIBUTES/VARIABLE_VALUE")) == 2
    model_lib_v2.eval_continuously(
        pipeline_config_path=str(config), model_dir=str(model_dir),
        checkpoint_dir=str(model_dir), wait_interval=1, timeout=5,
    )  # fmt: skip
    events = tiny_pipeline.read_events(model_dir / "eval")
    ((step, loss),) = events.scalars["Loss/total_loss"]
    assert step == 2 and np.isfinite(loss)
