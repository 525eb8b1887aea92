# SPDX-License-Identifier: Apache-2.0
"""The stock input functions' transformation: opened, and rewired in a copy of its own."""

import pytest
import tensorflow as tf
from object_detection import inputs
from object_detection.utils import config_util

from object_detection_ext import registration
from object_detection_ext.data import clip_augmentation, stock_transform
from tests import tiny_pipeline

registration.register()


@pytest.fixture
def opened(monkeypatch):
    """(configs, model, training's transformation, evaluation's)."""
    pipeline = tiny_pipeline.make_pipeline(
        "train_config { data_augmentation_options { rgb_to_gray { } } }"
    )
    configs = config_util.create_configs_from_pipeline_proto(pipeline)
    model = tiny_pipeline.build_model(pipeline, is_training=True)
    monkeypatch.setitem(
        inputs.INPUT_BUILDER_UTIL_MAP,
        "dataset_build",
        lambda *args, transform_input_data_fn, **kwargs: transform_input_data_fn,
    )
    functions = (
        inputs.train_input(
            configs["train_config"], configs["train_input_config"], configs["model"], model=model
        ),
        inputs.eval_input(
            configs["eval_config"], configs["eval_input_configs"][0], configs["model"], model=model
        ),
    )
    return configs, model, *map(stock_transform.open_transform, functions)


def test_stock_functions_are_opened(opened):
    configs, model, training, evaluation = opened
    assert training.is_training and not evaluation.is_training
    for transform in (training, evaluation):
        assert transform.preprocess == model.preprocess
        assert transform.image_resizer == configs["model"].faster_rcnn.image_resizer
    steps = training.steps
    assert [clip_augmentation.kind_of(step) for step in steps.others] == ["random_horizontal_flip"]
    assert [clip_augmentation.kind_of(step) for step in steps.on_colours] == ["rgb_to_gray"]
    assert evaluation.steps == ([], [])


def test_later_edits_are_seen(opened):
    configs, _, training, _ = opened
    configs["train_config"].data_augmentation_options.add().random_rotation90.SetInParent()
    assert not training.steps.only_crop_and_flip
    configs["model"].faster_rcnn.image_resizer.fixed_shape_resizer.height = 32
    assert training.image_resizer.fixed_shape_resizer.height == 32


def test_rewired_copy_runs_other_steps_and_leaves_the_messages(opened):
    configs, _, training, _ = opened
    before = configs["train_config"].SerializeToString()
    seen = []

    def preprocess(images):
        seen.append(images.shape)
        return tf.zeros([1, 64, 64, 3]), tf.constant([[64, 64, 3]])

    tensors = {
        "image": tf.zeros([20, 30, 3], tf.uint8),
        "source_id": tf.constant("clip"),
        "original_image_spatial_shape": tf.constant([20, 30]),
        "groundtruth_boxes": tf.constant([[0.1, 0.2, 0.3, 0.4]]),
        "groundtruth_classes": tf.constant([1]),
        "groundtruth_weights": tf.constant([1.0]),
        "num_groundtruth_boxes": tf.constant(1),
    }
    # With `rgb_to_gray` an image of one channel would come.
    features, _ = training.rewired(training.steps.others, preprocess)(tensors)
    assert seen == [[1, 20, 30, 3]]
    assert features["image"].shape == [64, 64, 3]
    assert configs["train_config"].SerializeToString() == before
    # The original still has its own.
    assert training.variables["model_preprocess_fn"] != preprocess


@pytest.mark.parametrize("function", [None, len, lambda tensors: tensors])
def test_other_functions_are_not_opened(function):
    assert stock_transform.open_transform(function) is None
