# SPDX-License-Identifier: Apache-2.0
"""Folders of numbered frames are read as videos are: the frame nearest to each time."""

import numpy as np
import pytest
from PIL import Image

from object_detection_ext.data import frame_folders, video_info, video_probe, video_reader
from tests import numbered_videos


def _numbers(path, times, *, fps=10.0, num_frames=1, clip_fps=10.0):
    info = video_probe.probe(path, fps)
    reader = video_reader.ClipReader(info, num_frames=num_frames, fps=clip_fps)
    clips = list(reader.clips(times))
    numbers = [[numbered_videos.read_number(frame) for frame in clip.frames] for clip in clips]
    return numbers, clips, reader.stats


@pytest.mark.parametrize(
    "pattern", ["v_{:06d}.jpg", "{:05d}.png", "img_{:05d}.jpg", "{}.png", "v-{:03d}.JPEG",
                "frame 2 of {:04d}.bmp", "v.{:04d}.tif"],
)  # fmt: skip
@pytest.mark.parametrize("first", [0, 1])
def test_frames_are_nearest_to_their_times(tmp_path, pattern, first):
    numbered_videos.write_frames(tmp_path / "v", 120, pattern, first=first)
    (tmp_path / "v" / "Thumbs.db").write_bytes(b"x")
    (tmp_path / "v" / ".00007.jpg").write_bytes(b"x")
    numbers, clips, stats = _numbers(tmp_path / "v", [0.0, 1.52, 9.0, 11.9], num_frames=4)
    times = np.array([0.0, 1.52, 9.0, 11.9])[:, None] + (np.arange(4) - 2) / 10
    assert numbers == np.clip(np.round(times * 10 - 1e-6), 0, 119).astype(int).tolist()
    np.testing.assert_allclose(clips[1].frame_times, [1.3, 1.4, 1.5, 1.6])
    # What lies between the clips is not read.
    assert stats.decoded < 40 and stats.seeks == 3
    assert stats.start == 0.0


def test_header_of_a_folder(tmp_path):
    numbered_videos.write_frames(tmp_path / "v", 30, "{:05d}.jpg")
    info = video_probe.probe(tmp_path / "v", 12.5)
    assert (info.height, info.width, info.fps, info.duration) == (48, 64, 12.5, 2.4)
    assert video_probe.extent(info).end == 2.4
    frames = list(video_reader.resampled_frames(info, 5.0))
    assert [seconds for seconds, _ in frames] == [i / 5 for i in range(12)]


def test_times_outside_a_folder(tmp_path):
    numbered_videos.write_frames(tmp_path / "v", 30, "{:05d}.jpg")
    _, clips, _ = _numbers(tmp_path / "v", [-0.5, 2.99, 3.1])
    assert [clip.outside for clip in clips] == [True, False, True]
    assert [clip.problem is None for clip in clips] == [False, True, False]


def _error(path):
    with pytest.raises(video_info.VideoError) as caught:
        video_probe.probe(path, 25.0)
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_first_gap_is_named(tmp_path):
    numbered_videos.write_frames(tmp_path, 30, "v_{:06d}.jpg")
    for number in (12, 13, 20):
        (tmp_path / f"v_{number:06d}.jpg").unlink()
    message = _error(tmp_path)
    assert "frame 12 is missing: v_000011.jpg is followed by v_000014.jpg" in message
    assert "3 missing in all" in message


def test_numbers_that_do_not_begin_at_0_or_1(tmp_path):
    numbered_videos.write_frames(tmp_path, 5, "{:05d}.jpg", first=17)
    assert "the first frame is 00017.jpg, number 17; numbers must begin at 0 or 1" in _error(
        tmp_path
    )


def test_frames_of_two_sizes(tmp_path):
    numbered_videos.write_frames(tmp_path, 30, "{:05d}.jpg")
    Image.new("RGB", (32, 24)).save(tmp_path / "00017.jpg")
    message = _error(tmp_path)
    assert "00017.jpg has 32x24 pixels and 00001.jpg 64x48" in message


def test_frame_of_another_size_that_was_not_looked_at_before(tmp_path, monkeypatch):
    numbered_videos.write_frames(tmp_path, 30, "{:05d}.jpg")
    Image.new("RGB", (32, 24)).save(tmp_path / "00017.jpg")
    monkeypatch.setattr(frame_folders, "_MAX_SIZES", 2)
    with pytest.raises(video_info.VideoError, match="00017.jpg has 32x24 pixels"):
        _numbers(tmp_path, [1.0, 1.6], num_frames=2)


def test_folders_that_are_not_clear(tmp_path):
    assert "no pictures in this folder" in _error(tmp_path)
    numbered_videos.write_frames(tmp_path, 3, "{:05d}.jpg")
    Image.new("RGB", (64, 48)).save(tmp_path / "cover.jpg")
    assert "cover.jpg has no number at its end" in _error(tmp_path)
    (tmp_path / "cover.jpg").rename(tmp_path / "2.png")
    assert "2.png have the same number" in _error(tmp_path)
    (tmp_path / "2.png").rename(tmp_path / "flow_00001.png")
    assert "of 2 kinds, which begin with 00001.jpg (3), flow_00001.png (1)" in _error(tmp_path)


def test_damaged_frame_is_told_as_damage(tmp_path):
    numbered_videos.write_frames(tmp_path, 30, "{:05d}.png")
    for number in (15, 16, 17):
        path = tmp_path / f"{number:05d}.png"
        path.write_bytes(path.read_bytes()[:60])
    _, clips, stats = _numbers(tmp_path, [0.5, 1.5, 2.5], num_frames=4)
    assert [clip.problem for clip in clips] == [None, "the video is damaged around timestamp 1.5 s",
                                                None]  # fmt: skip
    assert stats.damaged == 3


def test_pictures_that_a_phone_turned_are_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    for number in range(3):
        picture = Image.fromarray(numbered_videos.draw_number(number))
        picture.save(tmp_path / f"{number}.png", exif=exif)
    info = video_probe.probe(tmp_path, 10.0)
    assert (info.height, info.width) == (64, 48)
    (clip,) = video_reader.ClipReader(info, num_frames=1, fps=10).clips([0.1])
    assert np.array_equal(clip.frames[0], np.rot90(numbered_videos.draw_number(1), -1))


def test_gray_of_16_bits_keeps_its_brightness(tmp_path):
    gray = np.arange(48 * 64, dtype=np.uint16).reshape(48, 64) * 21
    for number, name in enumerate(("0.png", "1.tif", "2.png")):
        pixels = gray if number < 2 else np.rot90(gray).copy()
        exif = Image.Exif()
        exif[0x0112] = 1 if number < 2 else 6
        Image.fromarray(pixels).save(tmp_path / name, exif=exif)
        found = frame_folders.read_picture(str(tmp_path / name))
        assert np.array_equal(found, np.repeat((gray // 256).astype(np.uint8)[..., None], 3, 2))
    info = video_probe.probe(tmp_path, 10.0)
    assert (info.height, info.width) == (48, 64)


@pytest.mark.parametrize("kind", [np.int32, np.float32])
def test_pixels_without_a_known_white_are_refused(tmp_path, kind):
    for number in range(3):
        Image.fromarray(np.full((48, 64), 0.5, kind)).save(tmp_path / f"{number}.tif")
    assert "0.tif: cannot be read as a picture (its pixels are 32-bit numbers" in _error(tmp_path)
