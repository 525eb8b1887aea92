# SPDX-License-Identifier: Apache-2.0
"""Data that cannot be trained on is refused before a graph is built, by file and field."""

import gzip
import os
import pathlib
import subprocess
import sys

import pytest
import tensorflow as tf
from object_detection import inputs
from object_detection.utils import config_util

from object_detection_ext import registration
from object_detection_ext.data import (
    clip_augmentation,
    clip_dataset,
    input_check,
    record_contents,
    record_files,
    stock_transform,
)
from tests import tiny_pipeline
from tests.data.record_contents_test import plain_example

registration.register()

_BOX = [0.25, 0.375, 0.625, 0.75]
_FRAMES = tiny_pipeline.gray_frames(4)
_KEEP = """model { faster_rcnn { image_resizer { keep_aspect_ratio_resizer {
  min_dimension: 48 max_dimension: 96 %s } } } }"""


def _record(label="stand", keyframes=(2,), height=64, width=64) -> bytes:
    record = tiny_pipeline.make_record(_FRAMES, dict.fromkeys(keyframes, [(_BOX, label)]))
    example = tf.train.SequenceExample.FromString(record)
    example.context.feature["image/height"].int64_list.value[:] = [height]
    example.context.feature["image/width"].int64_list.value[:] = [width]
    return example.SerializeToString()


class _Project:
    """A pipeline whose records are written by each test."""

    def __init__(self, folder: pathlib.Path):
        self.folder = folder
        self.label_map = tiny_pipeline.write_label_map(folder / "label_map.pbtxt")

    def write(self, name: str, *records: bytes) -> str:
        return str(tiny_pipeline.write_records(self.folder / name, records))

    def pipeline(self, override: str = "", pattern: str = "*.record"):
        pattern = self.folder / pattern
        pipeline = tiny_pipeline.make_pipeline(
            label_map=self.label_map, train=pattern, evaluation=pattern
        )
        if "data_augmentation_options" in override:
            del pipeline.train_config.data_augmentation_options[:]
        pipeline.MergeFrom(tiny_pipeline.parse(override))
        return pipeline

    def build(self, override="", is_training=True, context=None, **options) -> tf.data.Dataset:
        """The dataset as the stock loops get it; the model's preprocessing is all of it here."""
        pipeline = self.pipeline(override, **options)
        configs = config_util.create_configs_from_pipeline_proto(pipeline)
        model = tiny_pipeline.build_model(pipeline, is_training=is_training)
        if is_training:
            return inputs.train_input(
                configs["train_config"], configs["train_input_config"], configs["model"],
                model=model, input_context=context,
            )  # fmt: skip
        return inputs.eval_input(
            configs["eval_config"], configs["eval_input_configs"][0], configs["model"],
            model=model, input_context=context,
        )  # fmt: skip

    def fault(self, *args, **options) -> str:
        with pytest.raises(record_files.RecordFileError) as caught:
            self.build(*args, **options)
        return str(caught.value)


@pytest.fixture
def project(tmp_path) -> _Project:
    return _Project(tmp_path)


# Files and records.


@pytest.mark.parametrize(
    ("content", "reported"),
    [
        ([plain_example()] * 3, "(record 0: a plain tf.Example, not a SequenceExample"),
        ([b"garbage"], "(record 0: not a SequenceExample)"),
        ([b""], "(record 0: not a SequenceExample)"),
        (
            [
                tf.train.SequenceExample(
                    feature_lists=tf.train.FeatureLists(
                        feature_list={"audio/encoded": tf.train.FeatureList()}
                    )
                ).SerializeToString()
            ],
            "(record 0: it has no feature list image/encoded, but 'audio/encoded')",
        ),
    ],
    ids=["tf.Example", "garbage", "empty record", "another schema"],
)
@pytest.mark.parametrize("is_training", [True, False])
def test_files_of_other_records_are_refused(project, content, reported, is_training):
    project.write("a.record", _record())
    path = project.write("b.record", *content)
    fault = project.fault(is_training=is_training)
    field = "train_input_reader" if is_training else "eval_input_reader"
    assert f"{field}.tf_record_input_reader.input_path: 1 file without a SequenceExample" in fault
    assert f"{path} {reported}" in fault and "create_ava_records" in fault


def test_files_that_are_not_tfrecords_are_refused_and_empty_ones_warned_of(project, caplog):
    whole = project.write("a.record", _record())
    (project.folder / "empty.record").write_bytes(b"")
    project.build()
    assert "1 empty file: " in caplog.text and "empty.record" in caplog.text
    packed = project.folder / "packed.record"
    packed.write_bytes(gzip.compress(pathlib.Path(whole).read_bytes()))
    assert f"1 file without one whole record: {packed}. Not TFRecords" in project.fault()


def test_a_few_other_records_in_a_file_are_counted(project, caplog):
    path = project.write("a.record", _record(), plain_example(), _record(), b"garbage")
    project.build()
    assert "2 records (of all 4 records) without what clips need, left out" in caplog.text
    assert f"{path}, record 1: a plain tf.Example" in caplog.text
    assert f"{path}, record 3: not a SequenceExample" in caplog.text


def test_records_without_an_annotated_frame(project, caplog):
    project.write("a.record", _record(), _record(keyframes=()), _record())
    project.build()
    assert "1 record (of all 3 records) without an annotated frame" in caplog.text
    path = project.write("b.record", _record(keyframes=()), _record(keyframes=()))
    fault = project.fault()
    assert "1 file without an annotated frame (region/is_annotated is 0 for all)" in fault
    assert path in fault and "a.record" not in fault


# Labels.


@pytest.mark.parametrize("is_training", [True, False])
def test_labels_that_the_label_map_lacks_are_counted_with_the_nearest_names(project, is_training):
    project.write("a.record", *[_record("walk")] * 3, *[_record("Stand")] * 2)
    path = project.write("b.record", _record("jump"), _record("Stand"))
    fault = project.fault(is_training=is_training)
    field = "train_input_reader" if is_training else "eval_input_reader"
    assert f"{field}.label_map_path: '{project.label_map}' does not have 2 labels" in fault
    assert "4 rows of them (of all 7 records)" in fault
    assert (
        f"'Stand' (3 rows, first in record 3 of {project.folder}/a.record; nearest: 'stand')"
        in (fault)
    )
    assert f"'jump' (1 row, first in record 0 of {path})" in fault
    assert "drop_unknown_labels: true" in fault


def test_labels_may_be_dropped_where_that_is_asked_for(project, caplog):
    """AVA's records of 80 classes for a model of 60."""
    project.write("a.record", _record(), _record("jump"))
    dropping = (
        "[object_detection_ext.protos.video_action_transformer] "
        "{ clip { drop_unknown_labels: true } }"
    )
    project.build(dropping, is_training=False)
    assert "does not have 1 label of the records, 1 row of them" in caplog.text
    assert "'jump' (1 row" in caplog.text and "are dropped" in caplog.text


def test_rows_that_the_look_did_not_see_are_counted_while_reading(project, monkeypatch, caplog):
    monkeypatch.setattr(record_contents, "MIN_RECORDS_OF_FILE", 2)
    monkeypatch.setattr(record_contents.look_into, "__defaults__", (2,))
    names = ["stand", *["Stand"] * 11, "jump", "stand"]
    path = project.write("a.record", *[_record(name) for name in names])
    reader = project.pipeline().eval_input_reader[0]
    clips = list(clip_dataset.build(reader, num_frames=4))
    assert [len(clip["groundtruth_classes"]) for clip in clips] == [1, *[0] * 12, 1]
    reported = [r.getMessage() for r in caplog.records if "label rows dropped" in r.getMessage()]
    assert [text.split(".")[0] for text in reported] == [
        "label rows dropped so far: 1",
        "label rows dropped so far: 10",
    ]
    assert "'Stand' (10)" in reported[1] and str(project.label_map) in reported[1]
    assert path


def test_nearest_names_ignore_case_and_stop_at_the_same_name():
    names = {"stand": 1, "Bend/Bow": 2, "standing still": 3}
    assert input_check.nearest_names("STAND", names) == ["stand"]
    assert input_check.nearest_names("bend/bowl", names) == ["Bend/Bow"]
    assert input_check.nearest_names("xyz", names) == []


# The batch and who shares it.


def _context(workers: int, replicas: int) -> tf.distribute.InputContext:
    return tf.distribute.InputContext(workers, 0, replicas)


def test_a_batch_that_replicas_cannot_share(project):
    project.write("a.record", _record())
    fault = project.fault("train_config { batch_size: 5 }", context=_context(1, 2))
    assert "train_config.batch_size: 5; 2 replicas cannot share it evenly" in fault
    assert "a multiple of 2, such as 4" in fault
    fault = project.fault("eval_config { batch_size: 1 }", False, context=_context(1, 4))
    assert "eval_config.batch_size: 1; 4 replicas" in fault and "such as 4" in fault
    project.build("train_config { batch_size: 4 }", context=_context(1, 2))
    assert "train_config.batch_size: 0" in project.fault("train_config { batch_size: 0 }")


def test_without_a_context_the_strategy_in_force_shares_the_batch(monkeypatch):
    assert input_check.Batch.of(3, None) == input_check.Batch(3, 1, 1)

    class Two:
        num_replicas_in_sync = 2

    monkeypatch.setattr(tf.distribute, "get_strategy", Two)
    assert input_check.Batch.of(3, None) == input_check.Batch(3, 2, 1)
    assert input_check.Batch.of(4, _context(3, 4)) == input_check.Batch(4, 4, 3)


def test_fewer_files_than_workers(project):
    for name in "ab":
        project.write(f"{name}.record", _record())
    (project.folder / "c.record").write_bytes(b"")
    project.build("train_config { batch_size: 2 }", context=_context(2, 2))
    fault = project.fault("train_config { batch_size: 3 }", context=_context(3, 3))
    assert "train_input_reader.tf_record_input_reader.input_path: 2 files with records" in fault
    assert "for 3 workers" in fault and "@3" in fault
    # With weights, the workers share the files of each pattern.
    weights = """train_input_reader { sample_from_datasets_weights: 1
      sample_from_datasets_weights: 2 tf_record_input_reader { input_path: '%s' } }"""
    weights %= project.folder / "a.record"
    fault = project.fault(weights, context=_context(2, 2))
    assert f"1 file with records ({project.folder}/a.record) for 2 workers" in fault


# Shapes.


@pytest.mark.slow
def test_frames_that_keep_their_aspect_ratio_agree_or_are_refused(project):
    project.write("a.record", _record(height=48, width=64), _record(height=96, width=128))
    project.build(_KEEP % "")
    path = project.write("b.record", _record(height=64, width=48))
    for is_training in (True, False):
        part = "train" if is_training else "eval"
        fault = project.fault(
            _KEEP % "" + f"{part}_config {{ batch_size: 2 }}", is_training=is_training
        )
        assert (
            f"model.faster_rcnn.image_resizer.keep_aspect_ratio_resizer with "
            f"{part}_config.batch_size 2: the clips of a batch must have one shape" in fault
        )
        assert f"48 x 64 (from 48 x 64 in record 0 of {project.folder}/a.record)" in fault
        assert f"64 x 48 (from 64 x 48 in record 0 of {path})" in fault
        assert "pad_to_max_dimension: true" in fault
    project.build(_KEEP % "pad_to_max_dimension: true")
    project.build(_KEEP % "" + "train_config { batch_size: 1 }")
    project.build(_KEEP % "" + "train_config { batch_size: 2 }", context=_context(1, 2))


def test_steps_that_draw_sizes_are_refused_where_shapes_must_agree(project):
    project.write("a.record", _record())
    crop = "train_config { data_augmentation_options { random_crop_image { } } }"
    fault = project.fault(_KEEP % "" + crop)
    assert "train_config.data_augmentation_options (random_crop_image) draw another" in fault
    project.build(_KEEP % "pad_to_max_dimension: true" + crop)
    flip = """train_config { data_augmentation_options { random_vertical_flip { } }
      data_augmentation_options { random_adjust_hue { } } }"""
    project.build(_KEEP % "" + flip)


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        (["random_horizontal_flip", "random_adjust_hue", "random_jitter_boxes"], ([], False)),
        (["random_crop_image", "random_vertical_flip"], (["random_crop_image"], False)),
        (["random_crop_image", "resize_image"], ([], True)),
        (["resize_image", "random_pad_image"], (["random_pad_image"], False)),
    ],
)
def test_which_steps_draw_sizes(project, steps, expected):
    options = "".join(f"data_augmentation_options {{ {step} {{ }} }}" for step in steps)
    pipeline = tiny_pipeline.parse(f"train_config {{ {options} }}")
    found = clip_augmentation.steps_that_draw_sizes(pipeline.train_config.data_augmentation_options)
    assert found == expected


@pytest.mark.slow
def test_frames_that_differ_from_what_their_header_says_end_reading_with_advice(project):
    """The header says one size for all; the frames of one record have another."""
    wide = tiny_pipeline.encode_jpeg(tf.zeros([48, 96, 3], tf.uint8).numpy())
    example = tf.train.SequenceExample.FromString(_record())
    for step in example.feature_lists.feature_list["image/encoded"].feature:
        step.bytes_list.value[:] = [wide]
    project.write("a.record", _record(), example.SerializeToString())
    dataset = project.build(_KEEP % "", is_training=False)
    assert len(list(dataset)) == 2  # a batch of one each
    dataset = project.build(_KEEP % "" + "eval_config { batch_size: 2 }", is_training=False)
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"(?s)48 x 48 .*pad_to_max_dim"):
        list(dataset)


def test_all_faults_are_told_at_once(project):
    project.write("a.record", _record("Stand"))
    project.write("b.record", plain_example())
    fault = project.fault("train_config { batch_size: 3 }", context=_context(1, 2))
    assert fault.count("\n  - ") == 3


def test_other_transformations_are_checked_without_field_names(project):
    project.write("a.record", _record("Stand"))
    assert stock_transform.open_transform(None) is None
    with pytest.raises(record_files.RecordFileError, match="the input reader.label_map_path"):
        clip_dataset.build(project.pipeline().train_input_reader, num_frames=4)


@pytest.mark.slow
def test_the_command_line_says_it_without_a_traceback_before_the_graph(project):
    project.write("a.record", *[plain_example()] * 4)
    config = project.folder / "pipeline.config"
    tiny_pipeline.write_pipeline(
        config,
        label_map=project.label_map,
        train=project.folder / "a.record",
        evaluation=project.folder / "a.record",
    )
    done = subprocess.run(
        [
            sys.executable, "-m", "object_detection_ext.model_main_tf2",
            f"--pipeline_config_path={config}", f"--model_dir={project.folder / 'model'}",
        ],
        capture_output=True, text=True, timeout=300, check=False,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2"},
    )  # fmt: skip
    assert done.returncode == 2, done.stderr[-2000:]
    assert "Traceback" not in done.stderr
    (error,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert error == "error: train_input_reader cannot be read from:"
    assert "a.record (record 0: a plain tf.Example, not a SequenceExample" in done.stderr
    assert len(done.stderr) < 20_000
    assert not list((project.folder / "model").glob("ckpt-*"))
