# SPDX-License-Identifier: Apache-2.0
"""COCO's JSON for videos, and what must be refused, with its id."""

import pytest

from object_detection_ext.importers import coco, model
from tests.importers import made_files

_ANNOTATIONS = [
    (100, 3, [16, 12, 32, 24], {"track_id": 4}),
    (100, 8, [16, 12, 32, 24], {"track_id": 4}),
    (101, 8, [16.5, 12, 32, 24], {"attributes": {"waves": True, "pose": "sit", "occluded": False,
                                                 "says": ["hi", "bye"], "track_id": 4}}),
]  # fmt: skip


def _read(path, content, **options):
    return coco.read(made_files.as_json(path / "coco.json", content), model.ReadOptions(**options))


def test_categories_are_actions(tmp_path):
    source = _read(tmp_path, made_files.coco(_ANNOTATIONS))
    (video,) = source.videos
    assert (video.name, video.width, video.height) == ("street", 64, 48)
    assert video.listed == [0, 5, 10]
    assert source.labels == ["stand", "walk"]
    first, second, third = video.marks
    assert (first.frame, first.box, first.actions) == (0, (16, 12, 48, 36), ("stand",))
    assert second.actions == third.actions == ("walk",)
    assert first.person == second.person == third.person == 4
    assert (third.frame, third.box) == (5, (16.5, 12, 48.5, 36))


def test_attributes_are_actions_where_they_are_chosen(tmp_path):
    content = made_files.coco(_ANNOTATIONS)
    source = _read(tmp_path, content, attributes=("waves", "pose", "occluded", "says"))
    assert source.videos[0].marks[2].actions == ("waves", "sit", "hi", "bye")
    assert source.labels == ["waves", "sit", "hi", "bye"]
    with pytest.raises(model.ImportFault, match=r"no annotation has the attribute poze"):
        _read(tmp_path, content, attributes=("poze",))


@pytest.mark.parametrize(
    ("values", "names"),
    [
        ([{"walks": "true"}, {"walks": "false"}], [("walks",), ()]),
        ([{"walks": 1}, {"walks": 0}], [("walks",), ()]),
        ([{"walks": "No"}, {"walks": "Yes"}, {}], [(), ("walks",), ()]),
        ([{"pose": 0}, {"pose": 2}, {"pose": None}], [("0",), ("2",), ()]),
        ([{"pose": "left"}, {"gaze": "left"}], [("pose: left",), ("gaze: left",)]),
        ([{"says": True}, {"says": "hi"}, {"says": False}], [("says",), ("hi",), ()]),
    ],
)
def test_what_is_ticked_is_seen_from_all_values(tmp_path, values, names):
    """Programs write true and false as texts and as numbers too."""
    rows = [(100, 3, [1, 2, 3, 4], {"attributes": each}) for each in values]
    wanted = tuple({name: None for each in values for name in each})
    source = _read(tmp_path, made_files.coco(rows), attributes=wanted)
    assert [mark.actions for mark in source.videos[0].marks] == names


def test_frames_from_one_and_videos_by_folder(tmp_path):
    content = made_files.coco(_ANNOTATIONS, first=1)
    for image in content["images"]:
        del image["video_id"]
    del content["videos"]
    source = _read(tmp_path, content, first_frame=1)
    assert source.videos[0].name == "street" and source.videos[0].listed == [0, 5, 10]
    content["images"][0]["frame_id"] = 0
    with pytest.raises(model.ImportFault, match="image 100: 'frame_id' is 0, before --first_frame"):
        _read(tmp_path, content, first_frame=1)


def test_crowds_are_left_out(tmp_path):
    source = _read(tmp_path, made_files.coco([(100, 3, [1, 2, 3, 4], {"iscrowd": 1})]))
    assert source.videos[0].marks == []
    assert source.notes["annotations of crowds (iscrowd) were left out"] == 1


def _changed(part, **changes):
    content = made_files.coco(_ANNOTATIONS)
    content[part][0] |= changes
    return content


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (_changed("annotations", category_id=5), "annotation 1: 'categories' has no category_id 5"),
        (_changed("annotations", image_id=7), "annotation 1: 'images' has no image_id 7"),
        (_changed("annotations", bbox=[1, 2, 3]), "annotation 1: 'bbox' is .*; it must be 4 numb"),
        (_changed("annotations", bboxes=[]), "annotation 1: it has a list of boxes"),
        (_changed("images", frame_id=None), "image 100: 'frame_id' is missing"),
        (_changed("images", frame_id="a"), "image 100: 'frame_id' is \"a\"; it must be a whole"),
        (_changed("images", video_id=2), "image 100: 'videos' has no video_id 2"),
        (_changed("images", id=101), "image 101: this id stands twice"),
        (_changed("images", width=32), "image 101: 'width' is 64, but 32 of video 'street'"),
        (_changed("categories", name=None), "category 3: 'name' is missing"),
        (_changed("videos", name=None), "video 1: 'name' is missing"),
        ({"images": []}, "'categories' is missing"),
    ],
)
def test_what_is_not_as_coco_has_it_is_refused(tmp_path, content, message):
    with pytest.raises(model.ImportFault, match=message):
        _read(tmp_path, content)
