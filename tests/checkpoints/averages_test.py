# SPDX-License-Identifier: Apache-2.0
"""What is exported is what was evaluated, where the optimizer keeps moving averages."""

import pathlib

import numpy as np
import pytest
import tensorflow as tf
from object_detection import exporter_lib_v2, model_lib_v2
from official.modeling.optimization import ema_optimizer

from object_detection_ext import errors, exporting, pipeline_check, registration
from object_detection_ext.checkpoints import averages, files, model_variables
from tests import tiny_pipeline
from tests.checkpoints import trained

registration.register()

_EVALUATED = "eval_config { use_moving_averages: true }"
_KEPT = trained.optimizer("averages")
_WEIGHT = f"model/weight{files.VALUE_SUFFIX}"
_STATISTIC = f"model/statistic{files.VALUE_SUFFIX}"


def _checkpoint(folder: pathlib.Path, *, averaged: bool, with_optimizer: bool = True) -> str:
    """Of a weight and a batch norm's statistic, as the stock train loop saves them."""
    model = tf.Module()
    model.weight, model.statistic = tf.Variable([1.0, 2.0]), tf.Variable(5.0, trainable=False)
    optimizer = tf.keras.optimizers.legacy.SGD(0.5, momentum=0.9)
    if averaged:
        optimizer = ema_optimizer.ExponentialMovingAverage(optimizer, average_decay=0.9)
        optimizer.shadow_copy(model)
    optimizer.apply_gradients([(tf.ones([2]), model.weight)])
    saved = {"model": model}
    if with_optimizer:
        saved |= {"optimizer": optimizer, "step": tf.Variable(1, dtype=tf.int64)}
    return tf.train.Checkpoint(**saved).save(str(folder / "ckpt"))


def _check(override: str, prefix: str) -> list[str]:
    said = []
    averages.check(
        tiny_pipeline.make_pipeline(override), files.read(prefix), "my.config", said.append
    )
    return said


def _exported_values(override: str, prefix: str) -> dict[str, np.ndarray]:
    pipeline = tiny_pipeline.make_pipeline(override)
    with averages.folder_to_export(pipeline, files.read(prefix)) as folder:
        reader = tf.train.load_checkpoint(folder)
        return {key: reader.get_tensor(key) for key in (_WEIGHT, _STATISTIC)}


def test_averages_are_exported_where_they_are_evaluated(tmp_path):
    """By hand: the weight is 1 - 0.5 = 0.5; from 0, with decay (1 + 1) / (10 + 1), 9/11 of it."""
    prefix = _checkpoint(tmp_path, averaged=True)
    found = _exported_values(_KEPT + _EVALUATED, prefix)
    np.testing.assert_allclose(found[_WEIGHT], [0.5 * 9 / 11, 1.5 * 9 / 11], rtol=1e-6)
    assert found[_STATISTIC] == 5.0  # has no average
    assert _check(_KEPT + _EVALUATED, prefix) == []


def test_weights_are_exported_where_averages_are_not_evaluated(tmp_path):
    prefix = _checkpoint(tmp_path, averaged=True)
    np.testing.assert_array_equal(_exported_values(_KEPT, prefix)[_WEIGHT], [0.5, 1.5])
    (warning,) = _check(_KEPT, prefix)
    assert warning.startswith(f"WARNING: the checkpoint '{prefix}' has moving averages")
    assert "my.config does not set eval_config.use_moving_averages" in warning


def test_checkpoint_without_averages_is_not_evaluated_by_them(tmp_path):
    prefix = _checkpoint(tmp_path, averaged=False)
    with pytest.raises(errors.InputError, match="has no moving averages: it was trained with"):
        _check(_KEPT + _EVALUATED, prefix)
    assert _check(_KEPT, prefix) == []


def test_exported_checkpoint_is_evaluated_as_it_is(tmp_path):
    prefix = _checkpoint(tmp_path, averaged=False, with_optimizer=False)
    with pytest.raises(errors.InputError, match="it is from an export.*to false for this"):
        _check(_KEPT + _EVALUATED, prefix)
    assert _check(_KEPT, prefix) == []


def test_averages_that_training_does_not_keep_are_refused():
    pipeline = tiny_pipeline.make_pipeline(_EVALUATED)
    with pytest.raises(pipeline_check.PipelineError, match="keeps no averages to evaluate"):
        pipeline_check.check(pipeline, "my.config")
    pipeline_check.check(tiny_pipeline.make_pipeline(_KEPT + _EVALUATED), "my.config")


def test_weights_and_averages_change_places_without_a_strategy():
    """As the stock eval loop asks for it."""
    model = tf.Module()
    model.weight = tf.Variable([1.0, 1e-30, 3e38])
    optimizer = ema_optimizer.ExponentialMovingAverage(tf.keras.optimizers.legacy.SGD(0.5))
    optimizer.shadow_copy(model)
    average = optimizer.get_slot(model.weight, "average")
    average.assign([0.1, 3e38, 1e-30])
    optimizer.swap_weights()
    np.testing.assert_array_equal(model.weight, np.float32([0.1, 3e38, 1e-30]))
    np.testing.assert_array_equal(average, np.float32([1.0, 1e-30, 3e38]))


def _evaluated_weights(config: pathlib.Path, folder: pathlib.Path, monkeypatch) -> dict:
    """Variables of the model that the stock eval loop evaluates, by name."""
    seen = {}

    def look(model, *args, **kwargs):
        seen.update({n: v.numpy() for n, v in model_variables.of_model(model).items()})

    monkeypatch.setattr(model_lib_v2, "eager_eval_loop", look)
    model_lib_v2.eval_continuously(
        pipeline_config_path=str(config),
        model_dir=str(folder),
        checkpoint_dir=str(folder),
        wait_interval=1,
        timeout=1,
    )
    return seen


@pytest.mark.slow
@pytest.mark.parametrize("override", [_KEPT + _EVALUATED, _KEPT])
def test_export_has_the_weights_that_the_stock_loop_evaluates(tmp_path, monkeypatch, override):
    people = {2: [([0.1, 0.1, 0.5, 0.5], "walk")]}
    record = tiny_pipeline.make_record(tiny_pipeline.gray_frames(4), people)
    config = tiny_pipeline.write_pipeline(
        tmp_path / "pipeline.config",
        tiny_pipeline.SHORT_TRUNK + override,
        label_map=tiny_pipeline.write_label_map(tmp_path / "l.pbtxt"),
        train=tiny_pipeline.write_records(tmp_path / "train.record", [record]),
        evaluation=tiny_pipeline.write_records(tmp_path / "eval.record", [record]),
    )
    pipeline = registration.read_pipeline(str(config))
    trained.write(pipeline, tmp_path / "model", "averages")
    exporter_lib_v2.export_inference_graph(
        "clip_tensor", pipeline, str(tmp_path / "model"), str(tmp_path / "out")
    )
    contents = exporting.usable_checkpoint(pipeline, str(tmp_path / "model"), "my.config")
    module = exporting.restored_module(pipeline, contents, "clip_tensor")
    restored = model_variables.of_model(module._model)
    evaluated = _evaluated_weights(config, tmp_path / "model", monkeypatch)
    exported = tf.train.load_checkpoint(str(tmp_path / "out/checkpoint"))
    for name, value in evaluated.items():
        np.testing.assert_array_equal(exported.get_tensor(model_variables.key(name)), value, name)
        np.testing.assert_array_equal(restored[name], value, name)  # of `from_checkpoint`
    # The export's own config says how its checkpoint is evaluated: as it is.
    again = registration.read_pipeline(str(tmp_path / "out/pipeline.config"))
    assert not again.eval_config.use_moving_averages
