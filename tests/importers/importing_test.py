# SPDX-License-Identifier: Apache-2.0
"""Whole imports: moments by the videos' own times, boxes, ids, splits, and what does not match."""

import csv
import unicodedata

import av
import numpy as np
import pytest
from PIL import Image

from object_detection_ext import errors
from object_detection_ext.ava import annotations, label_maps
from object_detection_ext.importers import importing, model, placing, splitting, video_facts
from tests import numbered_videos
from tests.importers import made_files


def _import(tmp_path, form, *inputs, videos=True, **options):
    options.setdefault("overwrite", True)
    folder = str(tmp_path / "videos") if videos is True else videos or None
    output = str(tmp_path / "out")
    return importing.run(importing.Options(form, inputs, output, videos=folder, **options))


def _rows(tmp_path, name="annotations"):
    with open(tmp_path / "out" / f"{name}.csv", newline="") as file:
        return list(csv.reader(file))


def _labels(tmp_path):
    return label_maps.read_label_map(tmp_path / "out" / "label_map.pbtxt")


def test_a_task_of_cvat_becomes_rows_that_the_converter_reads(tmp_path):
    made_files.video(tmp_path / "videos" / "street.mp4")
    said = _import(tmp_path, "cvat", made_files.cvat(tmp_path / "a.xml"))
    assert _labels(tmp_path) == {1: "waves", 2: "stand", 3: "walk"}
    assert _rows(tmp_path)[:4] == [
        ["street", "0.4", "0.100000", "0.100000", "0.500000", "0.900000", "2", "0"],
        ["street", "0.44", "0.115625", "0.100000", "0.515625", "0.900000", "2", "0"],
        ["street", "0.48", "0.131250", "0.100000", "0.531250", "0.900000", "1", "0"],
        ["street", "0.48", "0.131250", "0.100000", "0.531250", "0.900000", "2", "0"],
    ]
    assert _rows(tmp_path)[4] == [
        "street", "0.48", "0.750000", "0.000000", "1.000000", "1.000000", "3", "1"]  # fmt: skip
    found = annotations.read_annotations(tmp_path / "out" / "annotations.csv", _labels(tmp_path))
    assert len(found.keyframes) == 5
    printed = "\n".join(said)
    assert "annotations.csv: 1 video, 5 keyframes (0 without people), 6 boxes, 9 actions" in printed
    assert "waves 3, stand 5, walk 1" in printed
    assert "note: frames on which nobody is marked were left out (--empty_keyframes" in printed
    assert ": 45" in printed


def test_frames_are_shown_when_the_video_says(tmp_path):
    # A phone's video: frames come later and later, and the file begins at 7 s.
    times = np.cumsum(np.linspace(0.02, 0.06, 50)) - 0.02
    (tmp_path / "videos").mkdir()
    stored = numbered_videos.write(tmp_path / "videos" / "street.mp4", times, offset=7.0)
    _import(tmp_path, "cvat", made_files.cvat(tmp_path / "a.xml"))
    seconds = sorted({float(row[1]) for row in _rows(tmp_path)})
    assert seconds == pytest.approx(stored[10:15] - stored[0], abs=1e-6)


def test_keyframes_without_people_and_every(tmp_path):
    made_files.video(tmp_path / "videos" / "street.mp4")
    path = made_files.cvat(tmp_path / "a.xml")
    _import(tmp_path, "cvat", path, empty_keyframes=True, every=0.5)
    moments = [(row[1], len(row)) for row in _rows(tmp_path)]
    # Nearest to half a second after the one before: 0, 0.48 or 0.52 (the earlier), 0.96 ...
    assert moments == [("0000", 2), ("0.48", 8), ("0.48", 8), ("0.48", 8), ("0.96", 2), ("1.44", 2),
                       ("1.92", 2)]  # fmt: skip
    said = _import(tmp_path, "cvat", path, every=0.1)
    assert [row[1] for row in _rows(tmp_path)] == ["0.4", "0.48", "0.48", "0.48", "0.56", "0.56"]
    assert "note: keyframes left out by --every 0.1: 2" in said


def test_people_without_an_action(tmp_path):
    made_files.video(tmp_path / "videos" / "street.mp4")
    path = made_files.cvat(tmp_path / "a.xml", replace=[(">stand</attribute>", "></attribute>")])
    said = "\n".join(_import(tmp_path, "cvat", path))
    # Frames 10 and 11 have nobody else, so that they are no keyframes at all.
    assert sorted({row[1] for row in _rows(tmp_path)}) == ["0.48", "0.52", "0.56"]
    assert "people without an action were left out, and count as background" in said
    assert "keyframes of which no person has an action were left out: 2" in said
    _import(tmp_path, "cvat", path, no_action="idle")
    assert _labels(tmp_path)[4] == "idle"
    assert [row[6] for row in _rows(tmp_path)[:2]] == ["4", "4"]


def test_a_given_label_map(tmp_path):
    made_files.video(tmp_path / "videos" / "street.mp4")
    path = made_files.cvat(tmp_path / "a.xml")
    labels = tmp_path / "labels.pbtxt"
    labels.write_text("item { id: 7 name: 'stand' } item { id: 9 name: 'wave' }")
    with pytest.raises(errors.InputError, match=r"(?s)labels.pbtxt: actions .*'waves' of 3 boxes; "
                                                r"is it 'wave'\?.*'walk' of 1 box"):  # fmt: skip
        _import(tmp_path, "cvat", path, label_map=str(labels))
    said = _import(tmp_path, "cvat", path, label_map=str(labels), skip_unknown_labels=True)
    assert {row[6] for row in _rows(tmp_path)} == {"7"}
    assert "note: action 'waves', which the label map does not have, was left out: 3" in said
    assert not (tmp_path / "out" / "label_map.pbtxt").exists()


def test_via_needs_the_video_and_takes_its_frames(tmp_path):
    path = made_files.as_json(tmp_path / "p.json", made_files.via_project([
        (1.0, [2, 16, 12, 32, 24], {"2": "0,2"}), (1.013, [2, 0, 0, 8, 24], {"2": "1"}),
    ]))  # fmt: skip
    with pytest.raises(errors.InputError, match="how many pixels 'street.mp4' has: give --videos"):
        _import(tmp_path, "via", path, videos=None)
    made_files.video(tmp_path / "videos" / "street.mp4")
    _import(tmp_path, "via", path)
    # Both were drawn while the frame of 1.0 s was shown.
    assert [row[1:6] for row in _rows(tmp_path)] == [
        ["0001", "0.250000", "0.250000", "0.750000", "0.750000"],
        ["0001", "0.250000", "0.250000", "0.750000", "0.750000"],
        ["0001", "0.000000", "0.000000", "0.125000", "0.500000"],
    ]
    assert all(len(row) == 7 for row in _rows(tmp_path))


def test_label_studio_counts_at_a_rate_of_its_own(tmp_path):
    made_files.video(tmp_path / "videos" / "street.mp4", num_frames=50, fps=25)
    task = made_files.label_studio_task(
        [[(13, False, 0, 0, 50, 100)]], frames_count=48, duration=2.0
    )
    _import(tmp_path, "label_studio", made_files.as_json(tmp_path / "e.json", [task]))
    # Frame 13 at 24 a second is at 0.5 s, when the video shows its frame of 0.48 s.
    assert [row[1] for row in _rows(tmp_path)] == ["0.48"]
    task = made_files.label_studio_task([[(13, False, 0, 0, 50, 100)]])
    _import(tmp_path, "label_studio", made_files.as_json(tmp_path / "e.json", [task]))
    assert [row[1:6] for row in _rows(tmp_path)] == [
        ["0.48", "0.000000", "0.000000", "0.500000", "1.000000"]]  # fmt: skip
    # Without the video, at the rate that the file tells.
    _import(tmp_path, "label_studio", str(tmp_path / "e.json"), videos=None)
    assert [row[1] for row in _rows(tmp_path)] == ["0.48"]
    task = made_files.label_studio_task(
        [[(13, False, 0, 0, 50, 100)]], frames_count=240, duration=10
    )
    path = made_files.as_json(tmp_path / "e.json", [task])
    with pytest.raises(errors.InputError, match=r"street.mp4 lasts 1.96 s and has 50 frames, but .*"
                                                r"e.json says 10.00 s and 240 frames"):  # fmt: skip
        _import(tmp_path, "label_studio", path)


def test_a_rotated_box_of_label_studio(tmp_path):
    made_files.video(tmp_path / "videos" / "street.mp4", shape=(48, 96))
    task = made_files.label_studio_task([[(1, False, 50, 50, 25, 25)]])
    task["annotations"][0]["result"][0]["value"]["sequence"][0]["rotation"] = 90
    path = made_files.as_json(tmp_path / "e.json", [task])
    _import(tmp_path, "label_studio", path)
    # 24 x 12 pixels at (48, 24), turned by 90 degrees around that corner: 12 to the left, 24 down.
    assert _rows(tmp_path)[0][2:6] == ["0.375000", "0.500000", "0.500000", "1.000000"]
    with pytest.raises(errors.InputError, match="how many pixels"):
        _import(tmp_path, "label_studio", path, videos=None)


def test_coco_without_videos_needs_the_frame_rate(tmp_path):
    annotations_ = [(101, 8, [16, 12, 32, 24], {}), (101, 3, [16, 12, 32, 24], {})]
    path = made_files.as_json(tmp_path / "c.json", made_files.coco(annotations_))
    with pytest.raises(errors.InputError, match=r"--videos FOLDER, .*or --fps"):
        _import(tmp_path, "coco", path, videos=None)
    _import(tmp_path, "coco", path, videos=None, fps=10.0, empty_keyframes=True)
    assert _rows(tmp_path) == [
        ["street", "0000"],
        ["street", "0.5", "0.250000", "0.250000", "0.750000", "0.750000", "2"],
        ["street", "0.5", "0.250000", "0.250000", "0.750000", "0.750000", "1"],
        ["street", "0001"],
    ]


def test_a_row_that_stands_twice_is_written_once(tmp_path):
    twice = [(100, 3, [1, 2, 30, 40], {"track_id": 1})] * 2
    path = made_files.as_json(tmp_path / "c.json", made_files.coco(twice))
    said = _import(tmp_path, "coco", path, videos=None, fps=25.0)
    assert len(_rows(tmp_path)) == 1
    assert "note: rows that stand twice were written once: 1" in said


def test_data_sets_with_their_own_splits(tmp_path):
    import pickle

    (tmp_path / "gt.pkl").write_bytes(pickle.dumps(made_files.act_tubes(), 2))
    for name in "ab":
        made_files.video(tmp_path / "videos" / f"v_{name}_c001.mp4", num_frames=10)
    _import(tmp_path, "multisports", str(tmp_path / "gt.pkl"), split=1)
    assert {row[0] for row in _rows(tmp_path, "train")} == {"v_a_c001"}
    assert {row[0] for row in _rows(tmp_path, "val")} == {"v_b_c001"}
    # Frames 3 and 4, counted from 1.
    assert [row[1] for row in _rows(tmp_path, "train")] == ["0.08", "0.12"]
    with pytest.raises(errors.InputError, match="--split 2: the file's splits are: 1"):
        _import(tmp_path, "multisports", str(tmp_path / "gt.pkl"), split=2)


def test_splits_of_several_files_are_joined(tmp_path):
    import pickle

    whole = made_files.act_tubes()
    paths = []
    for number, name in enumerate(("football/v_a_c001", "football/v_b_c001")):
        kept = {key: {name: whole[key][name]} for key in ("gttubes", "nframes", "resolution")}
        lists = {key: [[name]] if is_own else [[]] for key, is_own in
                 (("train_videos", not number), ("test_videos", bool(number)))}  # fmt: skip
        (tmp_path / f"{number}.pkl").write_bytes(pickle.dumps({**whole, **kept, **lists}, 2))
        paths.append(str(tmp_path / f"{number}.pkl"))
    _import(tmp_path, "multisports", *paths, videos=None, fps=25.0, split=1)
    assert {row[0] for row in _rows(tmp_path, "train")} == {"v_a_c001"}
    assert {row[0] for row in _rows(tmp_path, "val")} == {"v_b_c001"}


def test_a_part_without_a_row_is_an_error(tmp_path):
    """No tool reads an empty CSV."""
    import pickle

    content = made_files.act_tubes()
    content["gttubes"]["football/v_b_c001"] = {0: []}
    (tmp_path / "gt.pkl").write_bytes(pickle.dumps(content, 2))
    with pytest.raises(errors.InputError, match="val.csv would have no row: nobody in v_b_c001"):
        _import(tmp_path, "multisports", str(tmp_path / "gt.pkl"), videos=None, fps=25.0, split=1)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("with_files", [False, True])
def test_names_that_look_the_same_are_one_video(tmp_path, with_files):
    """As macOS writes the accents of names of files: as characters of their own."""
    nfc, nfd = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    made_files.video(tmp_path / "videos" / f"{nfd}.mp4")
    made_files.video(tmp_path / "videos" / "street.mp4")
    first = made_files.cvat(tmp_path / "a.xml", replace=[("street.mp4", f"{nfc}.mp4")])
    later = [(f'frame="{n}"', f'frame="{n + 10}"') for n in (15, 14, 13, 12, 11, 10)]
    again = made_files.cvat(tmp_path / "b.xml", replace=[("street.mp4", f"{nfd}.mp4"), *later])
    other = made_files.cvat(tmp_path / "c.xml")
    options = {"videos": True} if with_files else {"videos": None, "fps": 25.0}
    _import(tmp_path, "cvat", first, again, other, val_videos=(nfd,), **options)
    assert {row[0] for row in _rows(tmp_path, "val")} == {nfc}
    assert len({row[1] for row in _rows(tmp_path, "val")}) == 10
    assert {row[0] for row in _rows(tmp_path, "train")} == {"street"}


def test_lists_of_many_videos_take_no_time_that_grows_with_their_square():
    """As those of Kinetics: 40,000 names and as many videos, which took minutes."""
    names = [f"c/v{number}" for number in range(40_000)]
    found = video_facts.ids_without_files([model.SourceVideo(name, "f") for name in names])
    assert [facts.video_id for facts in found] == [f"v{number}" for number in range(40_000)]
    videos = [placing.PlacedVideo(name[2:], name) for name in names]
    assert splitting.by_names(videos, names[:20_000]) == {name[2:] for name in names[:20_000]}


def test_splits_are_of_whole_videos_and_always_the_same(tmp_path):
    videos = [{"id": i, "name": f"v{i}.mp4"} for i in range(10)]
    content = made_files.coco([(100 + i, 3, [1, 2, 30, 40], {}) for i in range(10)],
                              frames=range(10))  # fmt: skip
    content["videos"] = videos
    for i, image in enumerate(content["images"]):
        image["video_id"] = i
    path = made_files.as_json(tmp_path / "c.json", content)
    _import(tmp_path, "coco", path, videos=None, fps=25.0, val_fraction=0.3)
    val, train = ({row[0] for row in _rows(tmp_path, name)} for name in ("val", "train"))
    assert len(val) == 3 and len(train) == 7 and not val & train
    content["videos"].reverse()
    _import(tmp_path, "coco", made_files.as_json(tmp_path / "c.json", content), videos=None,
            fps=25.0, val_fraction=0.3)  # fmt: skip
    assert {row[0] for row in _rows(tmp_path, "val")} == val
    _import(tmp_path, "coco", path, videos=None, fps=25.0, val_videos=("v1", "v7.mp4"))
    assert {row[0] for row in _rows(tmp_path, "val")} == {"v1", "v7"}
    (tmp_path / "names").write_text("v5\nsome other video.mp4\nx/v6.mp4\n")
    _import(tmp_path, "coco", path, videos=None, fps=25.0, val_videos=(str(tmp_path / "names"),))
    assert {row[0] for row in _rows(tmp_path, "val")} == {"v5", "v6"}
    (tmp_path / "list.txt").write_text("v2.avi 2\nv3.avi 1\nx/v4.mp4 2\n")
    _import(tmp_path, "coco", path, videos=None, fps=25.0, val_videos=(str(tmp_path / "*.txt"),))
    assert {row[0] for row in _rows(tmp_path, "val")} == {"v2", "v4"}
    for options, message in (
        ({"val_videos": ("v1", "v99")}, "--val_videos: there is no video v99"),
        ({"val_fraction": 1.5}, "--val_fraction is 1.5"),
        ({"val_fraction": 0.5, "val_videos": ("v1",)}, "Give one of"),
        ({"val_videos": tuple(f"v{i}" for i in range(10))}, "10 of 10 videos are for validation"),
    ):
        with pytest.raises(errors.InputError, match=message):
            _import(tmp_path, "coco", path, videos=None, fps=25.0, **options)


@pytest.mark.parametrize(
    ("video", "task", "message"),
    [
        ({"shape": (96, 128)}, {}, r"street.mp4 is 128x96 pixels, but .*a.xml says 64x48"),
        ({"num_frames": 40}, {}, r"street.mp4 has 40 frames, but .*a.xml says 50 of 'street.mp4'"),
        ({"num_frames": 60}, {}, r"has 60 frames, but .*says 50.*--allow_frame_count_mismatch"),
        ({"num_frames": 12}, {"size": 12}, r"(?s)outside the video 'street.mp4' \(4\):.*line 82: "
         r"frame 12 \(from 0\); the video has 12 frames"),
    ],
)  # fmt: skip
def test_a_video_that_does_not_match_is_an_error_that_names_both(tmp_path, video, task, message):
    made_files.video(tmp_path / "videos" / "street.mp4", **video)
    path = made_files.cvat(tmp_path / "a.xml", **task)
    with pytest.raises(errors.InputError, match=message):
        _import(tmp_path, "cvat", path)
    assert not (tmp_path / "out").exists()


def test_label_studio_rounds_the_number_of_frames_up(tmp_path):
    made_files.video(tmp_path / "videos" / "street.mp4")
    task = made_files.label_studio_task(
        [[(49, True, 0, 0, 50, 100)]], frames_count=51, duration=2.01
    )
    said = _import(tmp_path, "label_studio", made_files.as_json(tmp_path / "e.json", [task]))
    assert [row[1] for row in _rows(tmp_path)] == ["1.92", "1.96"]
    assert "note: boxes after the last frame, by rounding, were left out: 1" in said


def test_label_studio_at_a_higher_rate_than_the_video_s(tmp_path):
    made_files.video(tmp_path / "videos" / "street.mp4", num_frames=25)
    walk = [(1, True, 0, 0, 50, 100), (13, False, 12, 0, 50, 100)]
    task = made_files.label_studio_task([walk], frames_count=60, duration=1.0)
    said = _import(tmp_path, "label_studio", made_files.as_json(tmp_path / "e.json", [task]))
    rows = _rows(tmp_path)
    # 13 of 60 a second are 0.2 s: six frames of the video, each with the person once.
    assert [row[1] for row in rows] == ["0000", "0.04", "0.08", "0.12", "0.16", "0.2"]
    assert [row[2] for row in rows][:2] == ["0.000000", "0.030000"]
    assert "note: boxes between two frames of the video were left out: 7" in said


def test_a_frame_whose_only_box_has_no_area_does_not_say_that_nobody_is_there(tmp_path):
    made_files.video(tmp_path / "videos" / "street.mp4")
    path = made_files.cvat(tmp_path / "a.xml", replace=[('xtl="6.40"', 'xtl="32.00"')])
    said = _import(tmp_path, "cvat", path, empty_keyframes=True)
    assert "note: boxes without an area in the frame were left out: 1" in said
    seconds = [row[1] for row in _rows(tmp_path)]
    assert "0.4" not in seconds and "0.36" in seconds and "0.44" in seconds


def test_a_task_of_a_video_s_beginning(tmp_path):
    made_files.video(tmp_path / "videos" / "street.mp4", num_frames=60)
    path = made_files.cvat(tmp_path / "a.xml")
    _import(tmp_path, "cvat", path, allow_frame_count_mismatch=True)
    assert len(_rows(tmp_path)) == 9
    made_files.video(tmp_path / "videos" / "street.mp4", num_frames=13)
    with pytest.raises(errors.InputError, match=r"outside the video .*\n.*frame 13 \(from 0\)"):
        _import(tmp_path, "cvat", path, allow_frame_count_mismatch=True)


def test_a_job_is_a_part_of_its_task(tmp_path):
    made_files.video(tmp_path / "videos" / "street.mp4", num_frames=60)
    replace = [("<task>", "<job>"), ("</task>", "</job>")]
    _import(tmp_path, "cvat", made_files.cvat(tmp_path / "a.xml", replace=replace))
    assert len(_rows(tmp_path)) == 9


def test_a_turned_video_has_the_size_that_players_show(tmp_path):
    made_files.video(tmp_path / "plain.mp4", shape=(64, 48))
    (tmp_path / "videos").mkdir()
    with av.open(str(tmp_path / "plain.mp4")) as source:
        stream = source.streams.video[0]
        with av.open(str(tmp_path / "videos" / "street.mp4"), "w") as target:
            copy = target.add_stream_from_template(stream)
            copy.set_display_rotation(90)
            for packet in source.demux(stream):
                if packet.dts is not None:
                    packet.stream = copy
                    target.mux(packet)
    assert len(_import(tmp_path, "cvat", made_files.cvat(tmp_path / "a.xml"))) > 1


def test_videos_that_are_missing(tmp_path):
    made_files.video(tmp_path / "videos" / "yard.mp4")
    paths = [made_files.cvat(tmp_path / "a.xml"),
             made_files.cvat(tmp_path / "b.xml", replace=[("street.mp4", "yard.mp4")])]  # fmt: skip
    with pytest.raises(errors.InputError, match=r"no video 'street.mp4' in it or its folders"):
        _import(tmp_path, "cvat", *paths)
    said = _import(tmp_path, "cvat", *paths, skip_missing_videos=True)
    assert {row[0] for row in _rows(tmp_path)} == {"yard"}
    assert "note: videos that are missing or cannot be read were left out: 1" in said
    with pytest.raises(errors.InputError, match="all videos are missing or cannot be read"):
        _import(tmp_path, "cvat", paths[0], skip_missing_videos=True)


def test_videos_of_one_name_have_their_path_for_an_id(tmp_path):
    for folder in ("monday", "tuesday"):
        made_files.video(tmp_path / "videos" / folder / "street.mp4")
    path = made_files.cvat(tmp_path / "a.xml")
    with pytest.raises(errors.InputError, match="more than one video has this id"):
        _import(tmp_path, "cvat", path)
    path = made_files.cvat(tmp_path / "a.xml", replace=[("street.mp4", "tuesday/street.mp4")])
    _import(tmp_path, "cvat", path)
    assert {row[0] for row in _rows(tmp_path)} == {"tuesday/street"}


def test_folders_of_frames_are_videos(tmp_path):
    folder = tmp_path / "videos" / "street"
    folder.mkdir(parents=True)
    for number in range(50):
        Image.fromarray(numbered_videos.draw_number(number)).save(folder / f"{number:05d}.png")
    path = made_files.cvat(tmp_path / "a.xml", replace=[("street.mp4", "street")])
    _import(tmp_path, "cvat", path, frames_fps=10.0)
    assert _rows(tmp_path)[0][:2] == ["street", "0001"]
    with pytest.raises(errors.InputError, match="give --frames_fps"):
        _import(tmp_path, "cvat", path)


def test_two_tasks_of_one_video(tmp_path):
    made_files.video(tmp_path / "videos" / "street.mp4")
    first = made_files.cvat(tmp_path / "a.xml")
    with pytest.raises(errors.InputError, match=r"b.xml: 'street.mp4' is annotated twice at 0.4 s"):
        _import(tmp_path, "cvat", first, made_files.cvat(tmp_path / "b.xml"))
    moved = made_files.CVAT_TRACKS
    for frame in range(15, 9, -1):
        moved = moved.replace(f'frame="{frame}"', f'frame="{frame + 20}"')
    said = _import(tmp_path, "cvat", first, made_files.cvat(tmp_path / "c.xml", moved))
    assert "note: tasks of a video that has others were joined: 1" in said
    people = {row[1]: row[7] for row in _rows(tmp_path) if row[6] == "2"}
    # Tracks of two tasks are two people, though both are called 0.
    assert people["0.4"] == "0" and people["1.2"] not in ("0", "1")


def test_boxes_that_stick_out(tmp_path):
    made_files.video(tmp_path / "videos" / "street.mp4")
    path = made_files.cvat(tmp_path / "a.xml", replace=[('xtl="6.40"', 'xtl="-0.50"')])
    said = _import(tmp_path, "cvat", path)
    assert _rows(tmp_path)[0][2] == "0.000000"
    assert "note: boxes were cut off at the edge of the frame: 1" in said
    path = made_files.cvat(tmp_path / "a.xml", replace=[('xtl="6.40"', 'xtl="-6.40"')])
    with pytest.raises(errors.InputError, match=r"(?s)outside the frame of 'street.mp4' by more .*"
                                                r"line 72: x1, .* are -6.4, .*64x48"):  # fmt: skip
        _import(tmp_path, "cvat", path)
    _import(tmp_path, "cvat", path, box_tolerance=0.1)
    path = made_files.cvat(tmp_path / "a.xml", replace=[('xtl="6.40"', 'xtl="32.00"')])
    said = _import(tmp_path, "cvat", path)
    assert "note: boxes without an area in the frame were left out: 1" in said


def test_files_with_another_content_stay_unless_told(tmp_path):
    made_files.video(tmp_path / "videos" / "street.mp4")
    path = made_files.cvat(tmp_path / "a.xml")
    _import(tmp_path, "cvat", path, overwrite=False)
    _import(tmp_path, "cvat", path, overwrite=False)  # the same again
    corrected = tmp_path / "out" / "annotations.csv"
    corrected.write_text(corrected.read_text() + "street,1\n")
    with pytest.raises(errors.InputError, match="annotations.csv is there already, with another"):
        _import(tmp_path, "cvat", path, overwrite=False)
    assert corrected.read_text().endswith("street,1\n")


@pytest.mark.parametrize(
    ("form", "options", "message"),
    [
        ("cvat", {"score_threshold": 0.5}, "--score_threshold is for --from slowfast only"),
        ("cvat", {"first_frame": 1}, "--first_frame is for --from coco only"),
        ("coco", {"person_attribute": "who"}, "--person_attribute is for --from via only"),
        ("jhmdb", {"attributes": ("a",)}, "--attributes is for --from cvat, via"),
        ("cvat", {"split": 1}, "--split is for --from multisports"),
        ("slowfast", {"every": 1.0}, "--every has no meaning with --from slowfast"),
        ("cvat", {"every": 0.0}, "--every must be at least 0.001"),
        ("cvat", {"every": 1e-9}, "--every must be at least 0.001 seconds, not 1e-09"),
        ("cvat", {"fps": -1.0}, "--fps must be 0.001 to 1000"),
        ("cvat", {"fps": 1e-9}, "--fps must be 0.001 to 1000 frames per second, not 1e-09"),
        ("cvat", {"frames_fps": 0.0}, "--frames_fps must be 0.001 to 1000"),
        ("cvat", {"box_tolerance": 2.0}, "--box_tolerance is 2; it must be 0 to 1"),
        ("cvat", {"skip_unknown_labels": True}, "--skip_unknown_labels needs --label_map"),
        ("cvat", {"videos": None, "skip_missing_videos": True}, "--skip_missing_videos needs"),
        ("vatic", {}, "--from is 'vatic'; it must be one of cvat, via"),
    ],
)
def test_options_without_an_effect_are_errors(tmp_path, form, options, message):
    options = {"videos": None if form == "slowfast" else "videos", **options}
    with pytest.raises(errors.InputError, match=message):
        importing.run(importing.Options(form, ("x",), str(tmp_path / "out"), **options))


def test_names_are_written_so_that_they_are_read_back(tmp_path):
    names = ['say "hi"', "back\\slash", "straße 行", "it's"]
    content = made_files.coco([(100, i, [1, 2, 30, 40], {}) for i in range(4)])
    content["categories"] = [{"id": i, "name": name} for i, name in enumerate(names)]
    path = made_files.as_json(tmp_path / "c.json", content)
    _import(tmp_path, "coco", path, videos=None, fps=25.0)
    assert list(_labels(tmp_path).values()) == names
    content["categories"][0]["name"] = "a\x1b[2J"
    with pytest.raises(errors.InputError, match=r"an action is called 'a\\x1b\[2J'"):
        _import(tmp_path, "coco", made_files.as_json(tmp_path / "c.json", content), videos=None,
                fps=25.0)  # fmt: skip


def test_people_s_boxes(tmp_path):
    (tmp_path / "b.csv").write_text("v,0902,0.1,0.2,0.3,0.4,,0.9\nv,0903,0.1,0.2,0.3,0.4,,0.5\n")
    said = _import(tmp_path, "slowfast", str(tmp_path / "b.csv"), videos=None)
    assert _rows(tmp_path, "person_boxes") == [
        ["v", "0902", "0.100000", "0.200000", "0.300000", "0.400000"], ["v", "0903"]]  # fmt: skip
    assert said[0] == "person_boxes.csv: 1 video, 2 keyframes (1 without people), 1 box"
    assert "note: boxes with a score below 0.8 were left out: 1 of 2" in said
