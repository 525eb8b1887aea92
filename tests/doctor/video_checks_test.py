# SPDX-License-Identifier: Apache-2.0
"""Each fault of the videos is found, with the rows that it costs."""

import random

import av
import pytest
from PIL import Image

from object_detection_ext.doctor import keyframe_choice, video_checks, video_probing
from object_detection_ext.doctor.findings import ERROR, WARNING
from object_detection_ext.visualization import drawing
from tests import numbered_videos
from tests.doctor import small_data
from tests.doctor.small_data import BOX, TRAIN, the_only, write_csv

ROWS_OF_B = tuple(number for number, line in enumerate(TRAIN, 1) if line.startswith("b,"))


def _only_of_b(found, code: str, file: str):
    finding = the_only(found, code)
    assert (finding.severity, finding.file) == (ERROR, file)
    assert finding.rows == ROWS_OF_B
    assert f"({len(ROWS_OF_B)} rows)" in finding.message
    assert finding.count == 1
    return finding


def test_missing_video_with_files_that_nobody_names(data):
    data.path("b").rename(data.path("B-copy"))
    found = data.findings()
    finding = _only_of_b(found, "video_missing", data.train)
    assert finding.value == "b"
    assert f"name each video after its id, in {data.videos}" in finding.advice
    assert "nobody names B-copy.mp4" in finding.advice


def test_all_missing_videos_are_listed_for_machines(data):
    ids = [f"v{number:02d}" for number in range(12)]
    path = write_csv(data.folder / "train.csv", [*TRAIN, *(f"{i},1,{BOX},1,0" for i in ids)])
    finding = the_only(data.findings(annotations=path), "video_missing")
    assert finding.items == tuple(ids)
    assert "v00, v01, v02, v03, v04 and 7 more (--json has all)" in finding.message


def _empty(data):
    data.path("b").write_bytes(b"")


def _sound_only(data):
    small_data.write_sound(data.path("b"))


def _truncated(data):
    data.path("b").write_bytes(data.path("a").read_bytes()[:-400])


def _no_video(data):
    data.path("b").write_text("not a video")


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (_empty, "the video file is empty"),
        (_sound_only, "has no video stream, only audio"),
        (_truncated, "cannot be read as a video"),
        (_no_video, "cannot be read as a video"),
    ],
)
def test_unreadable_video(data, damage, reason):
    damage(data)
    finding = _only_of_b(data.findings(), "video_unreadable", data.train)
    assert finding.value == "b"
    assert f"{data.path('b')}: {reason}" in finding.message


def _cut_off(data) -> None:
    small_data.write_index_first(data.path("a"), data.path("b"))
    with av.open(str(data.path("b"))) as container:
        packets = [p for p in container.demux(video=0) if p.size]
    # Behind the frames of the first second.
    data.path("b").write_bytes(data.path("b").read_bytes()[: packets[25].pos])


def test_video_that_ends_before_its_header_says_so(data):
    _cut_off(data)
    finding = _only_of_b(data.findings(), "video_truncated", data.train)
    assert finding.value == "b"
    assert f"{data.path('b')} ends at 1.0 s of 2.0 s" in finding.message


def test_rows_behind_the_cut_are_named(data):
    _cut_off(data)
    path = write_csv(data.folder / "train.csv", [*TRAIN, f"b,1.8,{BOX},1,0"])
    finding = the_only(data.findings(annotations=path), "timestamp_outside")
    assert (finding.count, finding.rows) == (1, (len(TRAIN) + 1,))
    assert "the first is 1.8 s of b, which is 1.00 s long" in finding.message


def test_sound_that_is_longer_than_the_picture_is_no_fault(data):
    data.path("b").unlink()
    times = [i / 25 for i in range(50)]
    numbered_videos.write(data.videos / "b.mkv", times, sound_seconds=4.0)
    assert data.findings() == []
    path = write_csv(data.folder / "train.csv", [*TRAIN, f"b,3,{BOX},1,0"])
    finding = the_only(data.findings(annotations=path))
    assert finding.code == "timestamp_outside"
    assert "3 s of b, which is 2.00 s long" in finding.message


def test_timestamps_behind_a_video_whose_header_has_no_length(data):
    data.path("b").unlink()
    times = [i / 25 for i in range(50)]
    numbered_videos.write(data.videos / "b.mkv", times, container_options={"live": "1"})
    assert data.findings(sample_keyframes=3) == []
    path = write_csv(data.folder / "train.csv", [*TRAIN, f"b,3,{BOX},1,0"])
    finding = the_only(data.findings(annotations=path, sample_keyframes=3))
    assert finding.code == "timestamp_outside"
    assert "3 s of b, which is 2.00 s long" in finding.message


def test_keyframes_that_cannot_be_decoded_are_found_by_a_sample(data):
    content = bytearray(data.path("a").read_bytes())
    with av.open(str(data.path("a"))) as container:
        packets = [p for p in container.demux(video=0) if p.size]
    rng = random.Random(0)
    for start, size in ((p.pos, p.size) for p in packets):
        content[start : start + size] = rng.randbytes(size)
    data.path("b").write_bytes(bytes(content))
    assert data.findings() == []  # its header is whole
    finding = _only_of_b(data.findings(sample_keyframes=2), "video_damaged", data.train)
    assert finding.value == "b"
    assert str(data.path("b")) in finding.message


def test_sample_of_whole_videos_finds_nothing(data):
    assert data.findings(sample_keyframes=3) == []


def test_two_files_with_one_id(data):
    other = data.videos / "more" / "b.mkv"
    other.parent.mkdir()
    drawing.write_video(other, small_data.frames(10), 25)
    finding = _only_of_b(data.findings(), "video_ambiguous", data.train)
    assert finding.value == "b"
    assert str(other) in finding.message
    assert str(data.path("b")) in finding.message
    assert "keep one file" in finding.advice


def test_links_are_no_second_videos(data):
    (data.videos / "below").mkdir()
    (data.videos / "below" / "round").symlink_to(data.videos)
    (data.videos / "below" / "b.mp4").symlink_to(data.path("b"))
    assert data.findings() == []


def test_files_beside_the_videos_that_are_none(data):
    (data.videos / "b.csv").write_text("x")
    Image.new("RGB", (64, 48)).save(data.videos / "b.png")
    (data.videos / "notes.txt").write_text("x")
    assert data.findings() == []


def test_video_that_no_row_names(data):
    data.path("extra").write_bytes(data.path("a").read_bytes())
    finding = the_only(data.findings())
    assert (finding.code, finding.severity) == ("video_unnamed", WARNING)
    assert (finding.file, finding.value, finding.count) == (str(data.videos), "extra.mp4", 1)


# Timestamps.


@pytest.mark.parametrize(("time", "shown"), [("2.6", "2.6 s of b"), ("-1", "-1 s of b")])
def test_timestamp_outside_the_video(data, time, shown):
    path = write_csv(data.folder / "train.csv", [*TRAIN, f"b,{time},{BOX},1,0"])
    finding = the_only(data.findings(annotations=path))
    assert (finding.code, finding.severity) == ("timestamp_outside", ERROR)
    assert (finding.file, finding.rows) == (path, (len(TRAIN) + 1,))
    assert (finding.value, finding.count) == (time, 1)
    assert f"1 of 7 keyframes is outside the video: the first is {shown}" in finding.message
    assert "which is 2.00 s long" in finding.message
    assert "look like" not in finding.advice


def test_timestamp_a_little_after_the_end_is_a_warning(data):
    """The conversion leaves it out, and ends with status 3."""
    path = write_csv(data.folder / "train.csv", [*TRAIN, f"b,2.3,{BOX},1,0"])
    finding = the_only(data.findings(annotations=path))
    assert (finding.code, finding.severity) == ("timestamp_at_end", WARNING)
    assert (finding.rows, finding.value, finding.count) == ((len(TRAIN) + 1,), "2.3", 1)
    assert "the first by 0.300 s, 2.3 s of b" in finding.message


def test_timestamp_at_the_very_end_is_right(data):
    path = write_csv(data.folder / "train.csv", [*TRAIN, f"b,2.0,{BOX},1,0"])
    assert data.findings(annotations=path) == []


@pytest.mark.parametrize(
    ("factor", "start", "unit"),
    [
        (1000, 0, "milliseconds"),
        (25, 0, "frame numbers"),
        (1, 900, "give --time_offset_seconds 900"),
    ],
)
def test_timestamps_in_another_unit(data, factor, start, unit):
    lines = []
    for line in TRAIN:
        fields = line.split(",")
        # Not 0, which is the same in all units.
        fields[1] = f"{start + factor * (float(fields[1]) + 0.4):g}"
        lines.append(",".join(fields))
    path = write_csv(data.folder / "train.csv", lines)
    finding = the_only(data.findings(annotations=path), "timestamp_outside")
    assert finding.count == 6
    assert unit in finding.advice


# Frame rates.


def test_videos_slower_than_the_clips(data):
    drawing.write_video(data.path("b"), small_data.frames(30), 15)
    finding = the_only(data.findings())
    assert (finding.code, finding.severity) == ("video_fps_low", WARNING)
    assert (finding.file, finding.value, finding.count) == (data.train, "15", 1)
    assert "fewer than the clips' 25 frames per second" in finding.message
    assert "b (15)" in finding.message
    assert "--fps 15" in finding.advice
    assert data.findings(fps=15.0) == []


def test_rates_that_differ_by_rounding_are_equal(data):
    assert data.findings(fps=25.02) == []


# Which keyframes.


def test_keyframes_of_each_video_include_the_last(data):
    exam, _ = data.look()
    chosen = dict(keyframe_choice.of_each_video(exam.splits["train"], 2))
    assert chosen == {"a": [0.0, 1.0], "b": [0.0, 1.0]}
    assert dict(keyframe_choice.of_each_video(exam.splits["val"], 9)) == {"c": [0.0, 0.6, 1.0]}


def test_choice_goes_over_videos_and_rare_classes(data):
    common = [f"v{i},000{t},{BOX},1,0" for i in range(5) for t in range(1, 9)]
    rare = {"v3,0004": 2, "v4,0007": 3}
    lines = [line.replace(f"{BOX},1", f"{BOX},{rare.get(line[:7], 1)}") for line in common]
    path = write_csv(data.folder / "train.csv", lines)
    exam, _ = data.look(annotations=path, videos=None)
    split = exam.splits["train"]
    names = {f"v{i}" for i in range(5)}
    chosen = keyframe_choice.over_videos_and_classes(split, 5, names)
    frames = split.keyframes
    places = [(split.video_ids[frames.video[i]], frames.seconds[i]) for i in chosen]
    assert ("v3", 4.0) in places
    assert ("v4", 7.0) in places
    assert len({video for video, _ in places}) == 5
    assert chosen == keyframe_choice.over_videos_and_classes(split, 5, names)
    assert len(keyframe_choice.over_videos_and_classes(split, 99, names)) == 40
    few = keyframe_choice.over_videos_and_classes(split, 99, {"v1"})
    assert {split.video_ids[frames.video[i]] for i in few} == {"v1"}
    assert keyframe_choice.over_videos_and_classes(split, 5, set()) == []


def test_choice_alternates_between_classes(data):
    lines = [f"a,{t},{BOX},{1 if t < 10 else 2},0" for t in range(40)]
    exam, _ = data.look(annotations=write_csv(data.folder / "train.csv", lines), videos=None)
    split = exam.splits["train"]
    chosen = keyframe_choice.over_videos_and_classes(split, 6, {"a"})
    assert sorted(split.action[chosen]) == [1, 1, 1, 2, 2, 2]


def test_progress_of_many_videos_is_told(data, monkeypatch):
    monkeypatch.setattr("object_detection_ext.progress.INTERVAL_SECONDS", 0.0)
    said = []
    video_probing.probe_videos(str(data.videos), ["a", "b", "c"], said.append)
    assert said[-1].startswith("videos: 3/3 probed")


def test_progress_of_the_decoding_is_told(data, monkeypatch):
    monkeypatch.setattr("object_detection_ext.progress.INTERVAL_SECONDS", 0.0)
    said = []
    exam, _ = data.look(sample_keyframes=1)
    exam.report = said.append
    assert list(video_checks.undecodable_keyframes(exam)) == []
    assert [line.partition(",")[0] for line in said] == [
        "decoding (train): 1/2 videos",
        "decoding (train): 2/2 videos",
        "decoding (val): 1/1 videos",
    ]


def test_one_moment_that_is_written_in_two_ways(data):
    lines = [*TRAIN, f"b,1.041667,{BOX},1,0", "b,1.042,0.5,0.5,0.9,0.9,1,1"]
    finding = the_only(data.findings(annotations=write_csv(data.folder / "train.csv", lines)))
    assert (finding.code, finding.severity) == ("keyframes_nearly_equal", WARNING)
    assert (finding.rows, finding.value) == ((len(lines),), "1.042")
    assert "1.041667 and 1.042 s of b" in finding.message
