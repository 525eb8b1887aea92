# SPDX-License-Identifier: Apache-2.0
"""Faults inside records, wherever in a file they are."""

import pathlib
from collections.abc import Callable

import pytest
import tensorflow as tf

from object_detection_ext.doctor import whole_records
from object_detection_ext.doctor.findings import ERROR, WARNING
from tests import tiny_pipeline
from tests.data.picture_size_test import jpeg_bomb, png_bomb
from tests.doctor.record_checks_test import Project, write_records
from tests.doctor.small_data import the_only

_COUNT = 40  # more than are looked at for rates and lengths
_NUMBER = 35


@pytest.fixture
def project(data) -> Project:
    made = Project(data)
    write_records(pathlib.Path(made.train), _COUNT)
    return made


def _edit(
    project: Project, edit: Callable[[tf.train.SequenceExample], None], *numbers: int
) -> None:
    """Changes records far behind the first of the training."""
    records = [raw.numpy() for raw in tf.data.TFRecordDataset(project.train)]
    for number in numbers or (_NUMBER,):
        example = tf.train.SequenceExample.FromString(records[number])
        edit(example)
        records[number] = example.SerializeToString()
    tiny_pipeline.write_records(pathlib.Path(project.train), records)


def _finding(project: Project, **options):
    return the_only(project.findings(annotations=None, **options))


def _frame(number: int, encoded: bytes):
    def edit(example):
        step = example.feature_lists.feature_list["image/encoded"].feature[number]
        step.bytes_list.value[:] = [encoded]

    return edit


def _side(name: str, value: float):
    def edit(example):
        step = example.feature_lists.feature_list[f"region/bbox/{name}"].feature[2]
        step.float_list.value[:] = [value]

    return edit


def _unannotated(example):
    for step in example.feature_lists.feature_list["region/is_annotated"].feature:
        step.int64_list.value[:] = [0]


def test_clean_records_have_no_fault(project):
    assert project.findings(annotations=None) == []


@pytest.mark.parametrize("broken", [b"", b"no picture", tiny_pipeline.gray_frames(1)[0][:-20]])
def test_keyframes_that_cannot_be_decoded(project, broken):
    _edit(project, _frame(2, broken), _NUMBER, _NUMBER + 1)
    finding = _finding(project)
    assert (finding.code, finding.severity) == ("record_keyframe", ERROR)
    assert (finding.file, finding.value) == (project.train, f"record {_NUMBER}, frame 2")
    assert (finding.count, finding.unit) == (2, "frames")


def test_frames_of_another_size_or_without_one(project):
    _edit(project, _frame(3, tiny_pipeline.gray_frames(1, size=32)[0]))
    finding = _finding(project)
    assert (finding.code, finding.severity) == ("record_frame_size", ERROR)
    assert f"record {_NUMBER}: 1 of 4 frames are not 64 x 64 pixels" in finding.message
    assert "(frame 3 is 32 x 32 pixels)" in finding.message
    _edit(project, _frame(3, b"no picture"))
    assert "(frame 3 is of no size)" in _finding(project).message


@pytest.mark.parametrize("bomb", [jpeg_bomb, png_bomb])
def test_frames_of_too_many_pixels_are_not_decoded(project, bomb):
    _edit(project, _frame(2, bomb(65000, 65000)))
    finding = _finding(project)
    assert (finding.code, finding.severity) == ("record_frame_pixels", ERROR)
    assert "frames of more than 35,389,440 pixels" in finding.message
    assert f"record {_NUMBER}, frame 2: 65000 x 65000 pixels" in finding.message


def test_limit_of_pixels_is_the_configs(project):
    limit = (
        "[object_detection_ext.protos.video_action_transformer] { clip { max_frame_pixels: %d } }"
    )
    found = project.findings(limit % 4095, annotations=None)
    assert [(finding.code, finding.count) for finding in found] == [
        ("record_frame_pixels", 4 * _COUNT),
        ("record_frame_pixels", 4 * 3),
    ]
    assert project.findings(limit % 4096, annotations=None) == []


@pytest.mark.parametrize(
    ("side", "value", "reported"),
    [
        ("ymin", float("nan"), "[nan, 0.1, 0.9, 0.4] is not finite"),
        ("xmax", float("inf"), "[0.1, 0.1, 0.9, inf] is not finite"),
        ("xmax", 1.01, "[0.1, 0.1, 0.9, 1.01] leaves the frame"),
        ("ymin", -0.01, "[-0.01, 0.1, 0.9, 0.4] leaves the frame"),
        ("ymax", 0.1, "[0.1, 0.1, 0.1, 0.4] has no area"),
        ("xmin", 0.5, "[0.1, 0.5, 0.9, 0.4] has no area"),
    ],
)
def test_boxes_that_are_not_in_the_frame(project, side, value, reported):
    _edit(project, _side(side, value))
    finding = _finding(project)
    assert (finding.code, finding.severity) == ("record_box", ERROR)
    assert finding.value == f"record {_NUMBER}, frame 2, row 0: {reported}"


def test_boxes_up_to_the_frames_edge_are_fine(project):
    _edit(project, _side("xmax", 1.0))
    _edit(project, _side("ymin", 0.0))
    assert project.findings(annotations=None) == []


def test_lists_of_different_lengths(project):
    _edit(project, lambda e: e.feature_lists.feature_list["image/encoded"].feature.pop())
    finding = _finding(project)
    assert (finding.code, finding.severity) == ("record_lists", ERROR)
    assert "image/encoded 3, image/source_id 4" in finding.value


def test_records_without_an_annotated_frame(project):
    _edit(project, _unannotated)
    finding = _finding(project)
    assert (finding.code, finding.severity) == ("record_not_annotated", WARNING)
    assert (finding.value, finding.count) == (f"record {_NUMBER}", 1)
    _edit(project, _unannotated, *range(_COUNT))
    finding = _finding(project)
    assert (finding.severity, finding.count) == (ERROR, _COUNT)


def test_records_of_something_else_far_behind(project):
    _edit(project, lambda e: e.feature_lists.feature_list.pop("region/is_annotated"))
    finding = _finding(project)
    assert (finding.code, finding.severity) == ("record_unreadable", ERROR)
    assert finding.value.startswith(f"record {_NUMBER}: no SequenceExample of frames (it has no ")


def test_labels_of_all_records_are_compared_with_the_label_map(project):
    def edit(example):
        step = example.feature_lists.feature_list["region/label/string"].feature[2]
        step.bytes_list.value[:] = [b"Stand"]

    _edit(project, edit, _NUMBER, _NUMBER + 2)
    finding = _finding(project)
    assert (finding.code, finding.severity, finding.value) == (
        "record_label_unknown",
        ERROR,
        "Stand",
    )
    assert "'Stand' (2 rows; nearest: 'stand')" in finding.message
    dropping = (
        "[object_detection_ext.protos.video_action_transformer] "
        "{ clip { drop_unknown_labels: true } }"
    )
    finding = the_only(project.findings(dropping, annotations=None))
    assert finding.severity == WARNING


def test_sizes_of_whole_clips_are_those_of_single_frames():
    frames = [*tiny_pipeline.gray_frames(2), b"", *tiny_pipeline.gray_frames(1, size=32)]
    assert whole_records._header_sizes(frames) == [(64, 64), (64, 64), None, (32, 32)]
    assert whole_records._header_sizes([]) == []
    assert whole_records._header_sizes([b""]) == [None]
