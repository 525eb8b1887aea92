# SPDX-License-Identifier: Apache-2.0
"""Projects of VIA 3 as VIA saves them, and what must be refused, with its entry."""

import pytest

from object_detection_ext.importers import model, via
from tests.importers import made_files

_REGIONS = [
    (1.0, [2, 16, 12, 32, 24], {"2": "0,2", "3": "Ann"}),
    (1.0, [2, 0, 0, 8, 24], {"2": "1"}),
    (1.52, [2, 18, 12, 32, 24], {"2": "", "3": "Ann"}),
]


def _read(path, content, **options):
    return via.read(
        made_files.as_json(path / "project.json", content), model.ReadOptions(**options)
    )


def test_a_project_as_via_saves_it(tmp_path):
    source = _read(tmp_path, made_files.via_project(_REGIONS))
    (video,) = source.videos
    assert (video.name, video.width, video.unit) == ("street.mp4", None, model.PIXELS)
    assert source.labels == ["stand", "walk", "wave"]
    first, second, third = video.marks
    assert (first.seconds, first.frame, first.box) == (1.0, None, (16, 12, 48, 36))
    assert first.actions == ("stand", "wave") and second.actions == ("walk",)
    assert third.actions == () and first.person is None
    assert source.notes["attribute 'who' was not taken for an action (--attributes)"] == 0


def test_an_attribute_says_who_a_person_is(tmp_path):
    source = _read(tmp_path, made_files.via_project(_REGIONS), person_attribute="who")
    assert [mark.person for mark in source.videos[0].marks] == ["Ann", None, "Ann"]
    assert source.notes == {}
    with pytest.raises(model.ImportFault, match="no attribute 'name' of regions.*action, who"):
        _read(tmp_path, made_files.via_project(_REGIONS), person_attribute="name")


def test_radio_select_and_text_attributes(tmp_path):
    attributes = {
        "a": {"aname": "pose", "anchor_id": "FILE1_Z1_XY1", "type": 3, "desc": "",
              "options": {"1": "stand", "7": "sit"}, "default_option_id": ""},
        "b": {"aname": "hand", "anchor_id": "FILE1_Z1_XY1", "type": 4, "desc": "",
              "options": {"1": "wave", "2": "sit"}, "default_option_id": "1"},
        "c": {"aname": "free", "anchor_id": "FILE1_Z1_XY1", "type": 1, "desc": "",
              "options": {}, "default_option_id": ""},
    }  # fmt: skip
    regions = [(0.0, [2, 1, 2, 3, 4], {"a": "7", "b": "1", "c": "shout"})]
    project = made_files.via_project(regions, attributes=attributes)
    source = _read(tmp_path, project)
    # "sit" stands for two things, so that it says which.
    assert source.labels == ["stand", "pose: sit", "wave", "hand: sit"]
    assert source.videos[0].marks[0].actions == ("pose: sit", "wave")
    source = _read(tmp_path, project, attributes=("pose", "free"))
    assert source.videos[0].marks[0].actions == ("sit", "shout")


def test_polygons_have_a_box_and_what_is_no_region_is_counted(tmp_path):
    regions = [
        (1.0, [7, 10, 10, 30, 12, 20, 40], {"2": "0"}),
        (1.0, [1, 10, 10], {"2": "0"}),
        ([1.0, 2.0], [], {"1": "0"}),
    ]
    source = _read(tmp_path, made_files.via_project(regions))
    (mark,) = source.videos[0].marks
    assert mark.box == (10, 10, 30, 40)
    assert source.notes["polygons: the box around each was taken"] == 1
    assert source.notes["regions that are neither rectangles nor polygons were left out"] == 1
    lost = "entries without a region (of a segment of time, or of a file) were left out"
    assert source.notes[lost] == 1


def _changed(**changes):
    project = made_files.via_project(_REGIONS)
    project["metadata"]["1_00000000"] |= changes
    return project


@pytest.mark.parametrize(
    ("project", "message"),
    [
        (_changed(xy=[2, 16, 12, 32]), "'1_00000000': 'xy' is .*; a rectangle is 2,x,y,w,h"),
        (_changed(xy=[2, 16, 12, "w", 24]), "'1_00000000': 'xy' is .*; it must be 5 numbers"),
        (_changed(z=[1.0, 2.0]), "'1_00000000': 'z' has 2 moments"),
        (_changed(z=["now"]), "'1_00000000': 'z' is .*; it must be 1 numbers"),
        (_changed(vid="9"), "'1_00000000': view '9': '9' is missing"),
        (
            _changed(av={"2": "5"}),
            "'1_00000000': attribute 'action' is '5'; its options .* 0, 1, 2",
        ),
        (
            _changed(av={"8": "0"}),
            "'1_00000000': 'av' has attribute '8'; the project's are 1, 2, 3",
        ),
        ({"_via_img_metadata": {}}, "a project of VIA 2, which is for images"),
        ({"metadata": {}}, "project: 'attribute' is missing; it must be an object"),
        ([], "it holds a list; it must be an object"),
    ],
)
def test_what_is_not_as_via_writes_it_is_refused(tmp_path, project, message):
    with pytest.raises(model.ImportFault, match=message):
        _read(tmp_path, project)


def test_broken_json_is_refused_with_its_line(tmp_path):
    path = tmp_path / "project.json"
    path.write_text('{\n  "project": {\n    "pid": ,\n')
    with pytest.raises(model.ImportFault, match=r"project.json: line 3, column 12: not JSON"):
        via.read(str(path), model.ReadOptions())
    path.write_text("[" * 100_000)
    with pytest.raises(model.ImportFault, match="project.json: not JSON: it is nested too deeply"):
        via.read(str(path), model.ReadOptions())
