# SPDX-License-Identifier: Apache-2.0
"""Exports of Label Studio as it writes them, and what must be refused, with task and result."""

import pytest

from object_detection_ext.importers import label_studio, model
from tests.importers import made_files

_WALK = [
    (1, True, 10, 20, 30, 40),
    (5, False, 18, 20, 30, 44),
    (10, True, 50, 50, 20, 20),
]
_ONCE = [(7, False, 0, 0, 50, 100)]


def _read(path, content, **options):
    options = model.ReadOptions(**options)
    return label_studio.read(made_files.as_json(path / "export.json", content), options)


def test_keyframes_are_interpolated_within_their_stretch(tmp_path):
    task = made_files.label_studio_task([_WALK, _ONCE], frames_count=12, duration=0.48)
    source = _read(tmp_path, [task])
    (video,) = source.videos
    assert (video.name, video.unit, video.num_frames) == ("street.mp4", model.PERCENT, 12)
    assert video.rate == 25.0 and list(video.listed) == list(range(12))
    walk = {mark.frame: mark for mark in video.marks if mark.person == "r0"}
    # From 1 to 5, its end included; from 10 to the end of the video: here from 0.
    assert sorted(walk) == [0, 1, 2, 3, 4, 9, 10, 11]
    assert walk[0].box == (10, 20, 40, 60) and walk[1].box == (12, 20, 42, 61)
    assert walk[4].box == (18, 20, 48, 64) and walk[11].box == (50, 50, 70, 70)
    # One that is not enabled anywhere is seen on that frame alone.
    assert [mark.frame for mark in video.marks if mark.person == "r1"] == [6]
    assert source.labels == ["stand", "walk"]
    assert walk[0].actions == ("stand",)
    assert source.notes["boxes interpolated between keyframes"] == 5
    assert source.notes["tracks without an end: they last to the end of the video"] == 1


def test_an_export_with_interpolated_frames_says_the_same(tmp_path):
    task = made_files.label_studio_task([_WALK[:2]], frames_count=12, duration=0.48)
    sparse = _read(tmp_path, [task]).videos[0].marks
    dense = [(f, f < 5, 10 + 2 * (f - 1), 20, 30, 40 + (f - 1)) for f in range(1, 6)]
    task = made_files.label_studio_task([dense], frames_count=12, duration=0.48)
    marks = _read(tmp_path, [task]).videos[0].marks
    assert [(m.frame, m.box) for m in marks] == [(m.frame, m.box) for m in sparse]


def test_choices_of_a_region_are_its_actions(tmp_path):
    labels, choices = ["person", "person"], [["walk", "wave"], []]
    task = made_files.label_studio_task([_WALK, _ONCE], labels=labels, choices=choices)
    source = _read(tmp_path, [task])
    assert source.labels == ["walk", "wave"]
    assert {m.actions for m in source.videos[0].marks if m.person == "r0"} == {("walk", "wave")}
    assert {m.actions for m in source.videos[0].marks if m.person == "r1"} == {()}
    source = _read(tmp_path, [task], attributes=("box",))
    assert source.labels == ["person"]
    with pytest.raises(model.ImportFault, match="no result is from_name 'does it'.*box, does"):
        _read(tmp_path, [task], attributes=("does it",))


def test_the_annotation_that_counts(tmp_path):
    task = made_files.label_studio_task([_ONCE])
    newer = made_files.label_studio_task([_ONCE], labels=["wave"])["annotations"][0]
    task["annotations"] += [newer | {"updated_at": "2025-01-01T00:00:00Z", "id": 4},
                            newer | {"was_cancelled": True, "updated_at": "2026"}]  # fmt: skip
    source = _read(tmp_path, [task, {**task, "annotations": []}])
    assert source.labels == ["wave"]
    assert source.notes["tasks with several annotations: the ground truth or newest one was taken"]
    assert source.notes["tasks without an annotation were left out"] == 1


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("/data/upload/1/8f2c1a9e-my%20street.mp4", "my street.mp4"),
        ("/data/local-files/?d=videos/a/street.mp4", "street.mp4"),
        ("s3://bucket/videos/deadbeef-street.mp4", "deadbeef-street.mp4"),
        ("https://example.org/street.mp4?token=1", "street.mp4"),
    ],
)
def test_names_of_videos(tmp_path, address, name):
    task = made_files.label_studio_task([_ONCE])
    task["data"]["video"] = address
    assert _read(tmp_path, [task]).videos[0].name == name


def _broken(**changes):
    task = made_files.label_studio_task([_WALK])
    value = task["annotations"][0]["result"][0]["value"]
    for name, change in changes.items():
        if name in ("frame", "x", "enabled"):
            value["sequence"][1][name] = change
        else:
            value[name] = change
    return [task]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (_broken(x="left"), "task 11: result 'r0', frame 5: 'x' is \"left\"; it must be a number"),
        (_broken(frame=2.5), "task 11: result 'r0': 'frame' is 2.5; it must be a whole number"),
        (_broken(frame=51), "task 11: result 'r0': frame 51; frames are 1 to framesCount, 50"),
        (_broken(framesCount=10**30), "framesCount is 10{30} and duration 2; both must be over 0"),
        (_broken(enabled="no"), "frame 5: 'enabled' is \"no\"; it must be true or false"),
        (_broken(framesCount=None), "task 11: result 'r0': 'framesCount' is missing"),
        (_broken(duration=0), "result 'r0': framesCount is 50 and duration 0"),
        (_broken(sequence=None), "result 'r0': 'sequence' is missing; it must be a list"),
        ([7], "task 1 is not an object"),
        ([{"id": 4, "annotations": [7]}], "task 4: a list has '7', not an object"),
        ("x", "it holds a text; it must be a list or an object"),
    ],
)
def test_what_is_not_as_label_studio_writes_it_is_refused(tmp_path, content, message):
    with pytest.raises(model.ImportFault, match=message):
        _read(tmp_path, content)


def test_relations_between_regions_are_left_out(tmp_path):
    """As Label Studio exports them: without an id and a value."""
    task = made_files.label_studio_task([_WALK, _ONCE], frames_count=12, duration=0.48)
    marks = _read(tmp_path, [task]).videos[0].marks
    task["annotations"][0]["result"].append(
        {"from_id": "r0", "to_id": "r1", "type": "relation", "direction": "right"}
    )
    source = _read(tmp_path, [task])
    assert source.videos[0].marks == marks
    assert source.notes["relations between regions were left out"] == 1


def test_a_task_with_two_videos_is_refused(tmp_path):
    """As a project with two Video tags exports it: all regions would be of the first one."""
    task = made_files.label_studio_task([_WALK, _ONCE], frames_count=12, duration=0.48)
    task["data"] = {"left": "/data/upload/1/left.mp4", "right": "/data/upload/1/right.mp4"}
    with pytest.raises(model.ImportFault, match="'data' names 2 videos: left.mp4, right.mp4"):
        _read(tmp_path, [task])
    task["data"]["video"] = task["data"].pop("left")
    task["annotations"][0]["result"][1]["to_name"] = "right"
    with pytest.raises(model.ImportFault, match=r"several videos \(to_name is right, video\)"):
        _read(tmp_path, [task])


def test_the_video_of_a_task_is_the_text_that_has_its_extension(tmp_path):
    task = made_files.label_studio_task([_WALK], frames_count=12, duration=0.48)
    task["data"] = {"notes": "a.txt", "clip": "https://host/street.mp4?token=a.b"}
    assert _read(tmp_path, [task]).videos[0].name == "street.mp4"
