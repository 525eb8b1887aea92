# SPDX-License-Identifier: Apache-2.0
"""Faults of the pipeline.config and of the records that it names."""

import pathlib
import re

import pytest

from object_detection_ext import progress
from object_detection_ext.ava import annotations
from object_detection_ext.data import clip_features
from object_detection_ext.doctor.findings import ERROR, WARNING
from tests import tiny_pipeline
from tests.doctor.small_data import TRAIN, the_only, write_csv

LABELS = dict(tiny_pipeline.ACTIONS)


def write_records(path: pathlib.Path, count: int, *, num_frames: int = 4, fps: float = 25.0,
                  label_map=LABELS) -> str:  # fmt: skip
    """Writes clips of one person with the first action of the label map."""
    region = annotations.Region((0.1, 0.1, 0.9, 0.4), min(label_map), 0, 1)
    records = []
    for index in range(count):
        keyframe = annotations.Keyframe("a", float(index), 1, [region])
        times = [index + (k - num_frames // 2) / fps + 1.0 for k in range(num_frames)]
        record = clip_features.serialized_example(
            {num_frames // 2: keyframe}, label_map, frame_times=times, height=64, width=64,
            encoded_frames=tiny_pipeline.gray_frames(num_frames),
        )  # fmt: skip
        records.append(record)
    return str(tiny_pipeline.write_records(path, records))


class Project:
    """The small data set with the records and the pipeline.config of its training."""

    def __init__(self, data):
        self.data = data
        self.train = write_records(data.folder / "train.record", 6)
        self.val = write_records(data.folder / "val.record", 3)
        self.config = data.folder / "my.config"

    def findings(self, override: str = "", label_map=None, train=None, val=None, **options):
        tiny_pipeline.write_pipeline(
            self.config,
            override,
            label_map=label_map or self.data.label_map,
            train=train or self.train,
            evaluation=val or self.val,
        )
        return self.data.findings(pipeline_config_path=str(self.config), **options)


@pytest.fixture
def project(data) -> Project:
    return Project(data)


def test_nothing_is_found_in_a_clean_project(project):
    assert project.findings() == []


# The config.


def test_faults_of_the_config_itself(project):
    finding = the_only(project.findings("model { faster_rcnn { number_of_stages: 1 } }"))
    assert (finding.code, finding.severity) == ("pipeline_fault", ERROR)
    assert finding.file == str(project.config)
    assert finding.value == "model.faster_rcnn.number_of_stages"
    assert "number_of_stages: 1" in finding.message
    assert "has 2" in finding.advice


def test_config_that_is_none(data):
    path = data.folder / "my.config"
    path.write_text("model { fast_rcnn { } }")
    finding = the_only(data.findings(pipeline_config_path=str(path)))
    assert (finding.code, finding.file) == ("unreadable_file", str(path))
    assert "fast_rcnn" in finding.message


def test_more_classes_than_the_label_map(project):
    finding = the_only(project.findings("model { faster_rcnn { num_classes: 7 } }"))
    assert (finding.code, finding.severity, finding.value) == ("num_classes", WARNING, "7")
    assert "ids from 4 on" in finding.message
    assert "num_classes: 3" in finding.advice


def test_fewer_classes_than_the_label_map(project):
    found = project.findings("model { faster_rcnn { num_classes: 2 } }")
    # One for each reader, whose label map it is.
    assert [finding.code for finding in found] == ["pipeline_fault"] * 2
    assert "num_classes is 2" in found[0].message
    other = tiny_pipeline.write_label_map(
        project.data.folder / "config.pbtxt", {1: "stand", 2: "walk"}
    )
    found = project.findings("model { faster_rcnn { num_classes: 2 } }", label_map=other)
    finding = the_only(found, "num_classes")
    assert (finding.severity, finding.value) == (ERROR, "2")


def test_label_map_of_the_config_is_the_default(project):
    assert project.findings(label_map=None) == []
    exam, _ = project.data.look(label_map=None, pipeline_config_path=str(project.config))
    assert exam.label_map == LABELS


def test_another_label_map_in_the_config(project):
    other = project.data.folder / "other.pbtxt"
    tiny_pipeline.write_label_map(other, {1: "stand", 2: "run", 3: LABELS[3]})
    found = project.findings(label_map=other)
    assert [finding.code for finding in found] == ["label_maps_differ"] * 2
    assert found[0].file == str(other)
    assert found[0].value == "2"
    assert "2 is 'run', not 'walk'" in found[0].message
    assert {finding.message.split(".")[0] for finding in found} == {
        "train_input_reader", "eval_input_reader",
    }  # fmt: skip


def test_more_rows_than_the_reader_takes(project):
    many = [f"a,0001,0.{i},0.2,0.9,0.9,1,{i}" for i in range(10, 20)]
    path = write_csv(project.data.folder / "val.csv", [
        line.replace("a,", "c,", 1) for line in [*TRAIN[:12], *many]
    ])  # fmt: skip
    finding = the_only(project.findings(val_annotations=path))
    assert (finding.code, finding.severity) == ("too_many_boxes", ERROR)
    # 4 rows of the clean data and 10 more; the tiny config takes 10.
    assert (finding.file, finding.rows, finding.value) == (path, (9,), "14")
    assert "eval_input_reader.max_number_of_boxes, 10" in finding.message


def test_merged_labels_count_people(project):
    override = "train_input_reader { max_number_of_boxes: 2 }"
    assert project.findings(override) == []
    finding = the_only(
        project.findings(override + " train_config { merge_multiple_label_boxes: false }")
    )
    assert (finding.code, finding.value) == ("too_many_boxes", "4")


# Records.


def test_missing_records(project):
    pattern = f"{project.data.folder}/none-?????-of-?????"
    finding = the_only(project.findings(train=pattern))
    assert (finding.code, finding.severity) == ("record_missing", ERROR)
    assert (finding.file, finding.value) == (str(project.config), pattern)
    assert "train_input_reader.tf_record_input_reader.input_path" in finding.message
    assert "create_ava_records" in finding.advice


def test_truncated_records(project):
    path = pathlib.Path(project.train)
    path.write_bytes(path.read_bytes()[:-9])
    finding = the_only(project.findings())
    assert (finding.code, finding.severity, finding.file) == ("record_truncated", ERROR, str(path))
    assert f"{path} after 5 whole records" in finding.message
    assert finding.value == "train.record"


def test_empty_record_file(project):
    path = pathlib.Path(project.val)
    path.write_bytes(b"")
    finding = the_only(project.findings())
    assert (finding.code, finding.severity, finding.file) == ("record_empty", ERROR, str(path))


def test_empty_shard_beside_others(project):
    (project.data.folder / "train.record-2").write_bytes(b"")
    finding = the_only(project.findings(train=f"{project.train}*"))
    assert (finding.code, finding.severity) == ("record_empty", WARNING)
    assert finding.value == "train.record-2"


def test_records_of_something_else(project):
    tiny_pipeline.write_records(pathlib.Path(project.val), [b"no example"])
    finding = the_only(project.findings())
    assert (finding.code, finding.severity) == ("record_unreadable", ERROR)
    assert (finding.file, finding.count) == (project.val, 1)
    assert "no SequenceExample" in finding.message
    assert finding.value.startswith("record 0: no SequenceExample of frames (")


def test_a_flipped_byte_is_found_wherever_it_is(project, monkeypatch):
    # Far behind the records that are looked into.
    path = pathlib.Path(write_records(pathlib.Path(project.train), 40))
    data = bytearray(path.read_bytes())
    size = len(data) // 40
    for number in (35, 38):
        data[number * size + size // 2] ^= 1
    path.write_bytes(data)
    lines = []
    monkeypatch.setattr(progress, "INTERVAL_SECONDS", 0.0)
    finding = the_only(project.findings(annotations=None, report=lines.append))
    assert finding.code == "record_damaged"
    assert (finding.severity, finding.file, finding.value) == (ERROR, str(path), "35")
    assert finding.items == (f"{path}, record 35", f"{path}, record 38")
    assert (finding.count, finding.unit) == (2, "records")
    assert any(re.match(r"train records: \d+/\d+ MB read", line) for line in lines)


def test_shards_of_two_conversions(project):
    for index, count in ((0, 2), (1, 2), (0, 1)):
        name = f"both.record-{index:05d}-of-{count:05d}"
        write_records(project.data.folder / name, 6 - 3 * (count == 2))
    pattern = f"{project.data.folder}/both.record-?????-of-?????"
    found = project.findings(train=pattern)
    finding = the_only(found, "record_shards_mixed")
    assert (finding.severity, finding.file) == (ERROR, str(project.config))
    assert finding.items == tuple(
        f"{project.data.folder}/both.record-?????-of-0000{count}" for count in (1, 2)
    )
    assert "train_input_reader.tf_record_input_reader.input_path" in finding.message
    found = project.findings(train=pattern[:-5] + "00002")
    assert found == []


def test_records_shorter_than_a_clip(project):
    write_records(pathlib.Path(project.val), 3, num_frames=3)
    finding = the_only(project.findings())
    assert (finding.code, finding.severity, finding.file) == (
        "record_too_short",
        ERROR,
        project.val,
    )
    assert (finding.value, finding.count) == ("3", 3)
    assert "records of 3 frames with keyframe 1, but clips of 4 frames take" in finding.message
    assert finding.advice == "convert with --num_frames 4, or set clip { num_frames: 3 }"


def test_records_too_short_for_the_stride(project):
    stride = "[object_detection_ext.protos.video_action_transformer] { clip { frame_stride: 2 } }"
    train, val = project.findings(stride)
    assert (train.code, train.severity, train.file) == ("record_too_short", WARNING, project.train)
    assert "take up to 4 before and 2 behind" in train.message
    assert train.advice == "convert with --num_frames 8"
    assert val.file == project.val
    write_records(pathlib.Path(project.train), 6, num_frames=8)
    write_records(pathlib.Path(project.val), 3, num_frames=8)
    assert project.findings(stride) == []


def test_longer_records_are_fine(project):
    write_records(pathlib.Path(project.val), 3, num_frames=9)
    assert project.findings() == []


def test_records_of_another_rate_than_asked(project):
    found = project.findings(fps=12.5)
    assert [finding.code for finding in found] == ["record_fps"] * 2
    assert found[0].file == project.train
    assert found[0].value == "25"
    assert "25 frames per second, not --fps 12.5" in found[0].message


def test_rate_of_the_records_is_the_default(project):
    for path, count in ((project.train, 6), (project.val, 3)):
        write_records(pathlib.Path(path), count, fps=12.5)
    assert project.findings() == []
    exam, _ = project.data.look(pipeline_config_path=str(project.config))
    assert exam.clip.fps == pytest.approx(12.5)


def test_records_of_another_rate_than_the_config_says(project):
    rate = "[object_detection_ext.protos.video_action_transformer] { clip { fps: 10 } }"
    found = project.findings(rate)
    # Videos of 25 frames per second are fast enough for it.
    assert [finding.code for finding in found] == ["record_fps"] * 2
    assert "25 frames per second, not the config's 10" in found[0].message
    exam, _ = project.data.look(pipeline_config_path=str(project.config))
    assert exam.clip.fps == 10


def test_rates_of_short_records_are_not_exact(project):
    # Eight frames that are the nearest of a video with 30 frames per second.
    write_records(pathlib.Path(project.val), 3, num_frames=8, fps=30.0)
    assert project.findings(fps=25.0) == []
    write_records(pathlib.Path(project.val), 3, num_frames=24, fps=30.0)
    codes = {finding.code for finding in project.findings(fps=25.0)}
    assert codes == {"record_fps"}


def test_splits_of_different_rates(project):
    write_records(pathlib.Path(project.val), 3, fps=12.5)
    found = project.findings()
    finding = the_only(found, "record_fps_differ")
    assert (finding.severity, finding.file, finding.value) == (ERROR, project.val, "12.5")
    assert "those of the training 25" in finding.message


def test_labels_that_the_label_map_lacks(project):
    write_records(pathlib.Path(project.train), 6, label_map={1: "juggle"})
    finding = the_only(project.findings())
    assert (finding.code, finding.severity) == ("record_label_unknown", ERROR)
    assert (finding.file, finding.value) == (project.train, "juggle")
    assert project.data.label_map in finding.message


def test_records_of_other_annotations(project):
    write_records(pathlib.Path(project.train), 5)
    finding = the_only(project.findings())
    assert (finding.code, finding.severity) == ("record_count", WARNING)
    assert (finding.file, finding.value, finding.count) == (project.data.train, "5", 1)
    assert "6 keyframes here, but 5 clips in train.record" in finding.message


def test_one_file_for_training_and_evaluation(project):
    link = project.data.folder / "link.record"
    link.symlink_to(project.train)
    found = project.findings(val=link)
    finding = the_only(found, "record_shared")
    assert (finding.severity, finding.file) == (ERROR, str(project.config))
    assert finding.value == "link.record"
    assert "videos that the training does not see" in finding.advice


def test_annotations_are_not_needed(project):
    found = project.findings(annotations=None, val_annotations=None, videos=None)
    assert found == []
