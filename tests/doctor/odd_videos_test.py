# SPDX-License-Identifier: Apache-2.0
"""What the doctor says of folders of frames, parts of films, and videos that are unusual."""

import shutil

import pytest

from object_detection_ext import errors
from object_detection_ext.doctor import contact_sheet
from object_detection_ext.doctor.findings import WARNING
from tests import numbered_videos
from tests.doctor.small_data import BOX, TRAIN, the_only, write_csv


def _as_frames(data, name):
    data.path(name).unlink()
    numbered_videos.write_frames(data.videos / name, 50, name + "_{:06d}.jpg")


def test_folders_of_frames_are_videos_at_their_rate(data):
    for name in "abc":
        _as_frames(data, name)
    assert data.findings(frames_fps=25.0, sample_keyframes=3) == []
    outside = data.findings(frames_fps=200.0)
    assert {finding.code for finding in outside} == {"timestamp_outside", "timestamp_at_end"}
    (missing, *_) = data.findings()
    assert missing.code == "video_unreadable"
    assert "give --frames_fps" in missing.message


def test_gap_in_a_folder_of_frames(data):
    _as_frames(data, "b")
    (data.videos / "b" / "b_000012.jpg").unlink()
    finding = the_only(data.findings(frames_fps=25.0))
    assert finding.code == "video_unreadable"
    assert "frame 12 is missing: b_000011.jpg is followed by b_000013.jpg" in finding.message


def test_folder_of_frames_that_no_row_names(data):
    numbered_videos.write_frames(data.videos / "extra", 5, "{:05d}.jpg")
    assert data.findings() == []
    finding = the_only(data.findings(frames_fps=25.0))
    assert (finding.code, finding.value) == ("video_unnamed", "extra")


def _moved(rows, seconds):
    fields = [row.split(",") for row in rows]
    return [",".join([f[0], f"{float(f[1]) + seconds:g}", *f[2:]]) for f in fields]


def test_parts_of_films(data):
    train = write_csv(data.folder / "moved.csv", _moved(TRAIN, 900))
    offsets = write_csv(data.folder / "offsets.csv", ["a,900", "b,900", "c,0"])
    exam, found = data.look(annotations=train, time_offset_seconds=offsets, sample_keyframes=3)
    assert found == []
    tiles = list(contact_sheet.choose(exam, 2))
    pictures = [picture for _, picture in contact_sheet._pictures(exam, tiles)]
    # A frame of the video, not the grey notice that it has no such time.
    assert all(picture[0, 0].min() > 122 and picture.std() > 10 for picture in pictures)
    finding = the_only(
        data.findings(annotations=train, time_offset_seconds="895", val_annotations=None)
    )
    assert finding.code == "timestamp_outside"
    assert "timestamps are seconds from the start of the video plus the time offset, 895" in (
        finding.advice
    )


def test_offsets_that_lack_a_video_are_wrong_options(data):
    offsets = write_csv(data.folder / "offsets.csv", ["a,900"])
    with pytest.raises(errors.InputError, match="no row for 2 videos: b, c"):
        data.findings(time_offset_seconds=offsets)


def test_timestamps_that_start_over(data):
    data.path("b").unlink()
    path = data.videos / "b.ts"
    numbered_videos.write(path, [i / 25 for i in range(50)])
    path.write_bytes(2 * path.read_bytes())
    rows = write_csv(data.folder / "long.csv", [*TRAIN, f"b,3.8,{BOX},1,0"])
    finding = the_only(data.findings(annotations=rows))
    assert (finding.code, finding.severity) == ("video_timestamps_start_over", WARNING)
    assert finding.items == ("b (1)",)


def test_sound_that_begins_before_the_picture(data):
    for name in "abc":
        data.path(name).unlink()
    times = [i / 25 for i in range(50)]
    numbered_videos.write(data.videos / "b.mkv", times, offset=1.5, sound_seconds=3.5)
    numbered_videos.write(data.videos / "a.mkv", times, offset=0.04, sound_seconds=2.0)
    numbered_videos.write(data.videos / "c.mkv", times, sound_seconds=1.0, sound_start=1.0)
    finding = the_only(data.findings())
    assert (finding.code, finding.severity) == ("video_sound_first", WARNING)
    (item,) = finding.items
    assert item.startswith("b (1.5")
    assert "--time_offset_seconds" in finding.advice


def test_mp4_files_in_one(data):
    data.path("b").write_bytes(2 * data.path("b").read_bytes())
    finding = the_only(data.findings())
    assert (finding.code, finding.severity) == ("video_parts_unread", WARNING)
    assert finding.items == ("b (1)",)


@pytest.mark.parametrize(("transfer", "name"), [(16, "PQ"), (18, "HLG"), (1, None)])
def test_high_dynamic_range(data, transfer, name):
    numbered_videos.write(data.path("b"), [i / 25 for i in range(50)], transfer=transfer)
    found = data.findings()
    if name is None:
        assert found == []
    else:
        finding = the_only(found)
        assert (finding.code, finding.severity) == ("video_hdr", WARNING)
        assert finding.items == (f"b ({name})",)


def _at(times, *videos):
    return [f"{video},{time},{BOX},1,0" for video in videos for time in times]


@pytest.fixture
def minute(data):
    """Videos of 60 s."""
    numbered_videos.write(data.path("a"), [i / 25 for i in range(1500)], gop=250)
    shutil.copy(data.path("a"), data.path("b"))
    return data


@pytest.mark.parametrize(
    ("times", "is_suspect"),
    [
        (range(5, 55, 5), True),  # each fifth frame of two seconds
        (range(1, 44, 6), True),
        (range(0, 60, 5), False),  # each fifth second to the end
        (range(2, 60, 2), False),
        (range(0, 20), False),  # a keyframe a second
        ((0, 5, 10), False),  # too few to say
        ((0.5, 5.5, 10.5, 15.5, 20.5, 25.5), False),
    ],
)
def test_frame_numbers_inside_the_video(minute, times, is_suspect):
    path = write_csv(minute.folder / "t.csv", _at(times, "a", "b"))
    found = [
        finding
        for finding in minute.findings(annotations=path, val_annotations=None)
        if finding.code == "timestamps_like_frame_numbers"
    ]
    assert bool(found) == is_suspect
    if is_suspect:
        (finding,) = found
        assert (finding.severity, finding.count) == (WARNING, 2)
        assert "at 25 frames per second" in finding.message


def test_frame_numbers_of_one_video_among_others_are_no_sign(minute):
    rows = [*_at(range(5, 55, 5), "a"), *_at(range(0, 60, 5), "b")]
    path = write_csv(minute.folder / "t.csv", rows)
    found = minute.findings(annotations=path, val_annotations=None)
    assert "timestamps_like_frame_numbers" not in [finding.code for finding in found]
