# SPDX-License-Identifier: Apache-2.0
"""What the input pipeline draws: again the same with a seed, and as random as without one."""

import collections
import hashlib

import numpy as np
import pytest
import tensorflow as tf
from object_detection import inputs
from object_detection.utils import config_util
from tensorflow.python.framework import config

from object_detection_ext import registration
from object_detection_ext.data import random_draws
from tests import tiny_pipeline

registration.register()


@pytest.fixture
def determinism():
    """Op determinism, as with --seed."""
    tf.config.experimental.enable_op_determinism()
    yield
    config.disable_op_determinism()


def _uniform(*_):
    return tf.random.uniform([])


def _numbers(name: str | None, count: int = 5) -> list[float]:
    function = _uniform if name is None else random_draws.own_stream(name, _uniform)
    return [float(number) for number in tf.data.Dataset.range(count).map(function)]


def test_functions_draw_numbers_of_their_own(determinism):
    # What is to be mended: two functions of one seed draw the same.
    assert _numbers(None) == _numbers(None)
    first = _numbers("first")
    assert first == _numbers("first") and len(set(first)) == 5
    assert not set(first) & set(_numbers("second"))
    tf.random.set_seed(1)
    assert not set(first) & set(_numbers("first"))


def test_without_op_determinism_streams_are_as_they_were():
    assert _numbers("first") == _numbers("second") == _numbers(None)  # the tests' seed


def _drawn_inside(seeds: tf.data.Dataset) -> list[int]:
    def draw(_, seed):
        return tf.data.Dataset.from_tensors(random_draws.uniform(seed, 0, -50, 50))

    return [int(number) for number in seeds.flat_map(draw)]


def test_datasets_in_datasets_draw_from_seeds(determinism):
    elements = tf.data.Dataset.zip((tf.data.Dataset.range(20),))
    numbers = _drawn_inside(random_draws.with_seeds(elements, "a"))
    assert len(set(numbers)) > 10 and all(-50 <= number <= 50 for number in numbers)
    assert numbers == _drawn_inside(random_draws.with_seeds(elements, "a"))
    assert numbers != _drawn_inside(random_draws.with_seeds(elements, "b"))


def test_uniform_takes_both_ends_alike():
    seeds = random_draws.with_seeds(tf.data.Dataset.zip((tf.data.Dataset.range(600),)), "a")
    counts = collections.Counter(
        int(number) for number in seeds.map(lambda _, seed: random_draws.uniform(seed, 0, -1, 1))
    )
    assert counts.keys() == {-1, 0, 1}
    # 200 each, within 5 standard deviations.
    assert all(abs(count - 200) < 5 * (600 * 2 / 9) ** 0.5 for count in counts.values())


def test_stock_crops_are_drawn_from_the_seed(determinism):
    def crop(_):
        begin, size, _ = tf.compat.v1.image.sample_distorted_bounding_box(
            [100, 100, 3], tf.constant([[[0.2, 0.2, 0.8, 0.8]]]), area_range=[0.1, 0.9]
        )
        return tf.concat([begin[:2], size[:2]], axis=0)

    def crops():
        return [tuple(part.numpy()) for part in tf.data.Dataset.range(5).map(crop)]

    assert crops() == crops()
    assert len(set(crops())) == 5


_STEPS = """
train_config {
  data_augmentation_options { random_crop_image { min_object_covered: 0.5 min_area: 0.5 } }
  data_augmentation_options { random_adjust_brightness { } }
  MORE
}
train_input_reader { num_readers: 3 }
[object_detection_ext.protos.video_action_transformer] {
  clip { max_frame_stride: 2 temporal_jitter_frames: 1 }
  class_balance { threshold: 0.5 }
}
"""


def _pipeline(folder, more: str):
    """3 files of 4 records of 10 frames of noise, each with 2 keyframes."""
    random = np.random.default_rng(5)
    box = [0.1, 0.1, 0.7, 0.5]
    for shard in range(3):
        records = [
            tiny_pipeline.make_record(
                [
                    tiny_pipeline.encode_jpeg(random.integers(0, 255, (64, 64, 3)).astype(np.uint8))
                    for _ in range(10)
                ],
                {3: [(box, "stand")], 5: [(box, "walk" if number == 0 else "stand")]},
                video_id=f"{shard} {number}",
            )
            for number in range(4)
        ]
        tiny_pipeline.write_records(folder / f"train-{shard}", records)
    return tiny_pipeline.make_pipeline(
        tiny_pipeline.SHORT_TRUNK + _STEPS.replace("MORE", more),
        label_map=tiny_pipeline.write_label_map(folder / "label_map.pbtxt"),
        train=folder / "train-?",
    )


def _batches(pipeline, seed: int) -> list[str]:
    """Checksums of the first batches of the stock training input."""
    tf.keras.utils.set_random_seed(seed)
    configs = config_util.create_configs_from_pipeline_proto(pipeline)
    dataset = inputs.train_input(
        configs["train_config"], configs["train_input_config"], configs["model"]
    )
    return [
        hashlib.sha256(
            b"".join(np.ascontiguousarray(part).tobytes() for part in tf.nest.flatten(batch))
        ).hexdigest()
        for batch in dataset.take(20).as_numpy_iterator()
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    "more",
    ["", "data_augmentation_options { random_image_scale { } }"],
    ids=["augmentation before decoding", "whole pictures"],
)
def test_training_input_is_the_same_with_the_same_seed(tmp_path, determinism, more):
    pipeline = _pipeline(tmp_path, more)
    first = _batches(pipeline, 1)
    assert len(set(first)) == 20
    assert _batches(pipeline, 1) == first
    assert not set(_batches(pipeline, 2)) & set(first)
