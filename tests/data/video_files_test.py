# SPDX-License-Identifier: Apache-2.0
"""The video of an id is found, whatever lies beside it and however folders are linked."""

import fractions
import os
import unicodedata

import numpy as np
import pytest
from PIL import Image

from object_detection_ext.data import video_files, video_info, video_probe
from tests import numbered_videos


def _write(path, codec="libx264"):
    path.parent.mkdir(parents=True, exist_ok=True)
    times, base = [i / 25 for i in range(10)], fractions.Fraction(1, 25)
    numbered_videos.write(path, times, codec=codec, time_base=base)
    return path


def _write_picture(path):
    Image.fromarray(np.zeros((48, 64, 3), np.uint8)).save(path)


def _find(folder, video_id):
    index = video_files.VideoIndex(folder)
    return video_files.find_video(video_id, index).path


@pytest.mark.parametrize("name", ["IMG_0412.JPG", "IMG_0412.png", "IMG_0412.webp"])
def test_a_picture_beside_a_video_is_none(tmp_path, name):
    # A phone's live photo, a camera's thumbnail: FFmpeg reads them as videos of one frame.
    video = _write(tmp_path / "IMG_0412.MOV")
    _write_picture(tmp_path / name)
    assert _find(tmp_path, "IMG_0412") == str(video)
    video.unlink()
    with pytest.raises(video_info.VideoError, match=r"no video file IMG_0412\.\* in it"):
        _find(tmp_path, "IMG_0412")


def test_extensions_of_videos_go_before_others(tmp_path):
    video, small = _write(tmp_path / "v.mp4"), _write(tmp_path / "small.mp4")
    small.rename(tmp_path / "v.lrv")
    assert _find(tmp_path, "v") == str(video)
    video.rename(tmp_path / "other.mp4")
    assert _find(tmp_path, "v") == str(tmp_path / "v.lrv")


def test_two_videos_of_one_id_are_told(tmp_path):
    paths = [_write(tmp_path / "a" / "v.mp4"), _write(tmp_path / "b" / "v.mkv")]
    with pytest.raises(video_info.VideoError, match="keep one: ") as caught:
        _find(tmp_path, "v")
    assert all(str(path) in str(caught.value) for path in paths)
    assert _find(tmp_path, "b/v") == str(paths[1])


def test_links_in_a_circle_and_two_links_to_one_folder(tmp_path):
    video = _write(tmp_path / "monday" / "v.mp4")
    (tmp_path / "monday" / "round").symlink_to(tmp_path / "monday")
    (tmp_path / "also").symlink_to(tmp_path / "monday")
    (tmp_path / "w.mp4").symlink_to(video)
    index = video_files.VideoIndex(tmp_path)
    # Each real folder once, by its own name rather than by links to it.
    assert index.videos() == [str(video), str(tmp_path / "w.mp4")]
    assert index.candidates("v") == index.candidates("monday/v") == [str(video)]
    assert _find(tmp_path, "w") == str(tmp_path / "w.mp4")


def test_folders_that_all_link_to_each_other(tmp_path):
    folders = [tmp_path / f"f{number}" for number in range(9)]
    for folder in folders:
        folder.mkdir()
        (folder / f"{folder.name}.mp4").touch()
    for folder in folders:
        for other in folders:
            (folder / f"to_{other.name}").symlink_to(other)
    index = video_files.VideoIndex(tmp_path)
    assert index.videos() == [str(folder / f"{folder.name}.mp4") for folder in folders]


@pytest.mark.parametrize("form", ["NFC", "NFD"])
@pytest.mark.parametrize("asked", ["NFC", "NFD"])
def test_names_that_look_the_same_are_the_same(tmp_path, form, asked):
    # macOS writes an accent as a character of its own, most editors do not.
    name = unicodedata.normalize(form, "Straßencafé_ñ")
    video = _write(tmp_path / unicodedata.normalize(form, "été") / f"{name}.mp4")
    for video_id in ("Straßencafé_ñ", "été/Straßencafé_ñ", "Straßencafé_ñ.mp4"):
        assert _find(tmp_path, unicodedata.normalize(asked, video_id)) == str(video)


def test_ids_that_begin_with_a_dash_and_names_with_a_colon(tmp_path, monkeypatch):
    for name in ("-5KQ66BBWC4", "2024-01-01T10:00"):
        _write(tmp_path / "videos" / f"{name}.mp4")
    monkeypatch.chdir(tmp_path / "videos")
    for name in ("-5KQ66BBWC4", "2024-01-01T10:00"):
        assert _find(".", name) == f"./{name}.mp4"
        assert video_probe.probe(f"{name}.mp4").width == 64


def test_folder_of_frames_is_a_video_where_it_may_be_one(tmp_path):
    numbered_videos.write_frames(tmp_path / "a" / "v", 5, "v_{:06d}.png")
    _write(tmp_path / "w.mp4")
    _write_picture(tmp_path / "w0001.png")
    index = video_files.VideoIndex(tmp_path, frames_fps=25.0)
    assert index.videos() == [str(tmp_path / "a" / "v"), str(tmp_path / "w.mp4")]
    for video_id in ("v", "a/v"):
        info = video_files.find_video(video_id, index)
        assert (info.path, info.frames_fps) == (str(tmp_path / "a" / "v"), 25.0)
    assert video_files.find_video("w", index).frames_fps is None
    with pytest.raises(video_info.VideoError, match="folder, not a video file.*--frames_fps"):
        _find(tmp_path, "v")


def test_video_and_its_frames_beside_it_are_two_of_one_id(tmp_path):
    numbered_videos.write_frames(tmp_path / "v", 5, "{:05d}.jpg")
    video = _write(tmp_path / "v.mp4")
    assert _find(tmp_path, "v") == str(video)
    index = video_files.VideoIndex(tmp_path, frames_fps=25.0)
    with pytest.raises(video_info.VideoError, match="keep one"):
        video_files.find_video("v", index)


def test_stamp_changes_with_a_frame(tmp_path):
    numbered_videos.write_frames(tmp_path / "v", 5, "{:05d}.jpg")
    info = video_probe.probe(tmp_path / "v", 25.0)
    before = video_files.stamp(info)
    assert video_files.stamp(info) == before
    os.utime(tmp_path / "v" / "00003.jpg", (1, 2_000_000_000))
    assert video_files.stamp(info) != before
