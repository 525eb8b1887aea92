# SPDX-License-Identifier: Apache-2.0
"""The stock train loop on a model of a few weights: its graph is built in a second.

Only the model and the input pipeline are replaced; loop, optimizers, checkpoints and summaries are
the stock ones, with what surrounds them. As a program it is `model_main_tf2` with these two:

    python -m tests.loops.tiny_training --pipeline_config_path=F --model_dir=DIR [--flag ...]

Shapes: B clips of a batch.
"""

import contextlib
import pathlib
import sys
import time
from collections.abc import Iterator
from unittest import mock

import numpy as np
from absl import flags

from object_detection_ext import registration

registration.register()

import tensorflow as tf  # noqa: E402
from object_detection import inputs, model_lib_v2  # noqa: E402
from object_detection.core import model as model_lib  # noqa: E402
from object_detection.core import standard_fields as fields  # noqa: E402

from object_detection_ext.loops import batch_clips  # noqa: E402
from tests import tiny_pipeline  # noqa: E402

NUM_CLIPS, BATCH_SIZE = 6, 2
# The models that were built since the last substitution.
built: list["TinyModel"] = []
BLOCKED_SECONDS = 1000.0

# A stock pipeline: nothing of ours looks at its model.
_CONFIG = """
model {{ ssd {{ }} }}
train_config {{
  batch_size: {batch_size}
  num_steps: {num_steps}
  optimizer {{ {optimizer} use_moving_average: {moving_average} }}
}}
train_input_reader {{ tf_record_input_reader {{ input_path: '{records}' }} }}
"""
SGD = "momentum_optimizer { learning_rate { constant_learning_rate { learning_rate: %g } } }"
ADAM = "adam_optimizer { learning_rate { constant_learning_rate { learning_rate: %g } } }"
RMS = "rms_prop_optimizer { learning_rate { constant_learning_rate { learning_rate: %g } } }"


def write_config(
    folder: pathlib.Path,
    optimizer: str = SGD % 0.01,
    num_steps: int = 6,
    moving_average: bool = False,
) -> pathlib.Path:
    """Writes the pipeline.config, and records with the names of its clips, two a file."""
    frames = tiny_pipeline.gray_frames(4)
    for number in range(NUM_CLIPS // 2):
        records = [
            tiny_pipeline.make_record(frames, {2: []}, video_id=f"v{clip}")
            for clip in (2 * number, 2 * number + 1)
        ]
        tiny_pipeline.write_records(folder / f"train-{number}", records)
    path = folder / "pipeline.config"
    path.write_text(
        _CONFIG.format(
            batch_size=BATCH_SIZE,
            num_steps=num_steps,
            optimizer=optimizer,
            moving_average=str(moving_average).lower(),
            records=folder / "train-?",
        )
    )
    return path


class TinyModel(model_lib.DetectionModel):
    """Two layers on the mean colour of an image."""

    def __init__(self, step_seconds: float = 0.0, statistics: float = 1.0):
        """Takes how long a step sleeps, and the value of variables that no loss depends on."""
        super().__init__(num_classes=1)
        self._step_seconds, self.num_batches = step_seconds, 0
        start = tf.keras.initializers.GlorotUniform(seed=1)
        self._hidden = tf.keras.layers.Dense(
            8, activation="tanh", kernel_initializer=start, name="hidden"
        )
        self._last = tf.keras.layers.Dense(1, kernel_initializer=start, name="last")
        self.statistics = tf.Variable([statistics] * 2, trainable=False, name="statistics")

    def preprocess(self, inputs):
        """Changes nothing."""
        return inputs, None

    def predict(self, preprocessed_inputs, true_image_shapes, **side_inputs):
        """One number for each image."""
        del true_image_shapes, side_inputs
        colour = tf.reduce_mean(preprocessed_inputs, axis=(1, 2))

        def sleep(value):
            self.num_batches += 1
            print(f"batch {self.num_batches} arrived", file=sys.stderr, flush=True)
            time.sleep(self._step_seconds)
            return value

        if self._step_seconds:
            shape = colour.shape
            colour = tf.ensure_shape(tf.numpy_function(sleep, [colour], tf.float32), shape)
        return {"number": self._last(self._hidden(colour))}

    def loss(self, prediction_dict, true_image_shapes, scope=None):
        """How far the numbers are from 1."""
        del true_image_shapes, scope
        number = prediction_dict["number"]
        return {
            "Loss/square": tf.reduce_mean(tf.square(number - 1.0)),
            "Loss/absolute": 0.1 * tf.reduce_mean(tf.abs(number - 1.0)),
        }

    def postprocess(self, prediction_dict, true_image_shapes, **params):
        """Not used in training."""

    def regularization_losses(self):
        """None."""
        return []

    def restore_map(self, *args, **kwargs):
        """Not used."""

    def restore_from_objects(self, *args, **kwargs):
        """Not used."""

    def updates(self):
        """None."""
        return []


def make_dataset(
    block_after: int | None = None, input_seconds: float = 0.0, poison: int | None = None
) -> tf.data.Dataset:
    """Batches of (features, labels) as the stock inputs give them.

    Args:
        block_after: so many batches come, then none.
        input_seconds: how long each takes.
        poison: number of the batch, from 0, whose images are not numbers.
    """
    generator = np.random.default_rng(0)
    images = generator.uniform(0.5, 1.5, (NUM_CLIPS, 2, 2, 3)).astype(np.float32)
    names = [f"v{clip},2" for clip in range(NUM_CLIPS)]
    hashes = np.array([batch_clips.hash_of(name) for name in names], np.int32)

    def read(number):
        if input_seconds:
            time.sleep(input_seconds)
        if block_after is not None and number >= block_after:
            time.sleep(BLOCKED_SECONDS)
        clips = [(number * BATCH_SIZE + index) % NUM_CLIPS for index in range(BATCH_SIZE)]
        factor = np.float32(np.nan if number == poison else 1.0)
        return images[clips] * factor, hashes[clips]

    def batch(number):
        image, hashed = tf.numpy_function(read, [number], (tf.float32, tf.int32))
        features = {
            fields.InputDataFields.image: tf.ensure_shape(image, [BATCH_SIZE, 2, 2, 3]),
            inputs.HASH_KEY: tf.ensure_shape(hashed, [BATCH_SIZE]),
            fields.InputDataFields.true_image_shape: tf.fill([BATCH_SIZE, 3], 2),
        }
        labels = {
            fields.InputDataFields.num_groundtruth_boxes: tf.ones([BATCH_SIZE], tf.int32),
            fields.InputDataFields.groundtruth_boxes: tf.ones([BATCH_SIZE, 1, 4]),
            fields.InputDataFields.groundtruth_classes: tf.ones([BATCH_SIZE, 1, 1]),
        }
        return features, labels

    return tf.data.Dataset.range(1_000_000).map(batch)


@contextlib.contextmanager
def substituted(step_seconds: float = 0.0, statistics: float = 1.0, **dataset) -> Iterator[None]:
    """The stock loop trains `TinyModel` on `make_dataset(**dataset)` while this lasts."""
    built.clear()

    def build(model_config, is_training, add_summaries):
        del model_config, is_training, add_summaries
        built.append(TinyModel(step_seconds, statistics))
        return built[-1]

    def train_input(**kwargs):
        del kwargs
        return make_dataset(**dataset)

    names = {"detection_model_fn_base": build}
    with (
        mock.patch.dict(model_lib_v2.MODEL_BUILD_UTIL_MAP, names),
        mock.patch.object(inputs, "train_input", train_input),
    ):
        yield


def run_as_program() -> None:
    """Runs `model_main_tf2` on the command line's flags."""
    from object_detection_ext import model_main_tf2

    block_after = flags.DEFINE_integer("block_after", None, "See make_dataset.")
    input_seconds = flags.DEFINE_float("input_seconds", 0.0, "See make_dataset.")
    poison = flags.DEFINE_integer("poison", None, "See make_dataset.")
    step_seconds = flags.DEFINE_float("step_seconds", 0.0, "How long a step sleeps.")
    save_seconds = flags.DEFINE_float("save_seconds", 0.0, "How long a checkpoint takes to write.")
    stock_record = tf.train.CheckpointManager._record_state

    def record_state(manager):
        # The data are written, but no file lists them yet.
        if len(manager.checkpoints) > 1:
            print("recording a second checkpoint", file=sys.stderr, flush=True)
            time.sleep(save_seconds.value)
        stock_record(manager)

    def main(argv):
        with (
            mock.patch.object(tf.train.CheckpointManager, "_record_state", record_state),
            substituted(
                step_seconds.value,
                block_after=block_after.value,
                input_seconds=input_seconds.value,
                poison=poison.value,
            ),
        ):
            model_main_tf2.main(argv)

    registration.run(main, model_main_tf2.OVERRIDE)


if __name__ == "__main__":
    run_as_program()
