# SPDX-License-Identifier: Apache-2.0
"""The video of an id is found, whatever lies beside it and however folders are linked."""

import fractions

import numpy as np
import pytest
from PIL import Image

from object_detection_ext.data import video_files, video_info
from tests import numbered_videos


def _write(path, codec="libx264"):
    path.parent.mkdir(parents=True, exist_ok=True)
    times, base = [i / 25 for i in range(10)], fractions.Fraction(1, 25)
    numbered_videos.write(path, times, codec=codec, time_base=base)
    return path


def _write_picture(path):
    Image.fromarray(np.zeros((48, 64, 3), np.uint8)).save(path)


def _find(folder, video_id):
    index = video_files.index_videos(folder)
    return video_files.find_video(video_id, index, str(folder)).path


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
    index = video_files.index_videos(tmp_path)
    # The circle is not walked, other links are.
    assert len({path for paths in index.values() for path in paths}) == 3
    assert index["v"] == [str(tmp_path / "also" / "v.mp4")]
    assert index["monday/v"] == [str(video)]
    assert _find(tmp_path, "w") == str(tmp_path / "w.mp4")
