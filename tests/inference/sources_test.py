# SPDX-License-Identifier: Apache-2.0
"""Clips of streams, and the finding and naming of videos."""

import itertools

import numpy as np
import pytest
from PIL import Image

from object_detection_ext import errors
from object_detection_ext.data import video_files, video_reader
from object_detection_ext.inference import sources
from tests import numbered_videos
from tests.inference import fake_models


def _levels(clips):
    return [[int(frame[0, 0, 0]) // fake_models.STEP for frame in clip.frames] for clip in clips]


def _clips(frames, **options):
    values = {"num_frames": 4, "fps": 10.0, "every_seconds": 0.5, **options}
    return list(sources.clips_of_frames(frames, **values))


def test_stream_gives_the_clips_of_the_same_video(tmp_path):
    path = fake_models.write_video(tmp_path / "v.mp4", 50)
    info = video_reader.probe(path)
    for every in (0.3, 1.0):
        times = sources.keyframe_times(info, every)
        reader = video_reader.ClipReader(path, num_frames=4, fps=10.0)
        from_file = [clip for clip in reader.clips(times) if not clip.problem]
        stream = sources.at_rate(fake_models.frames(50), fake_models.FPS)
        from_stream = _clips(stream, every_seconds=every)
        np.testing.assert_allclose(
            [clip.keyframe_time for clip in from_stream],
            [clip.keyframe_time for clip in from_file],
        )
        for a, b in zip(from_stream, from_file, strict=True):
            np.testing.assert_allclose(a.frame_times, b.frame_times, atol=1e-6)


def test_keyframes_of_a_video_whose_header_has_no_length(tmp_path, monkeypatch):
    # As browsers record. Packets tell its end; decoding all of it would take minutes.
    times = [i / 25 for i in range(50)]
    numbered_videos.write(tmp_path / "v.mkv", times, container_options={"live": "1"})
    info = video_reader.probe(tmp_path / "v.mkv")
    assert info.duration is None
    monkeypatch.delattr(video_reader, "_FrameSource")
    assert sources.keyframe_times(info, 0.5) == [0.0, 0.5, 1.0, 1.5]


def test_frames_nearest_to_their_time_of_a_stream_with_odd_times():
    times = [0.0, 0.09, 0.22, 0.28, 0.41, 0.5, 0.66]
    frames = list(zip(times, fake_models.frames(7), strict=True))
    clips = _clips(frames, every_seconds=0.3)
    # Wanted are -0.2 to 0.1 and 0.1 to 0.4 and 0.4 to 0.7 s.
    assert _levels(clips) == [[0, 0, 0, 1], [1, 2, 3, 4], [4, 5, 6, 6]]
    assert [clip.keyframe_time for clip in clips] == pytest.approx([0.0, 0.3, 0.6])


def test_stream_shorter_than_a_clip_repeats_its_ends():
    clips = _clips(sources.at_rate(fake_models.frames(2), 10.0))
    assert _levels(clips) == [[0, 0, 0, 1]]


def test_clips_come_as_soon_as_their_frames_are_there():
    def endless():
        for number in itertools.count():
            assert number < 30, "asked for more than the clips need"
            yield number / 10.0, np.full([4, 4, 3], number, np.uint8)

    clips = sources.clips_of_frames(endless(), num_frames=4, fps=10.0, every_seconds=1.0)
    assert [next(clips).keyframe_time for _ in range(3)] == [0.0, 1.0, 2.0]


def test_transform_is_called_once_for_each_wanted_frame():
    seen = []

    def transform(frame):
        seen.append(int(frame[0, 0, 0]) // fake_models.STEP)
        return frame

    _clips(sources.at_rate(fake_models.frames(17), 10.0), every_seconds=1.0, transform=transform)
    assert seen == [0, 1, 8, 9, 10, 11]


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        ([], "no frames"),
        ([(0.0, np.zeros([4, 4, 3]))], "Frame 0 is float64"),
        ([(0.0, np.zeros([4, 4], np.uint8))], r"must be uint8 \[H, W, 3\]"),
        (
            [(0.0, np.zeros([4, 4, 3], np.uint8)), (1.0, np.zeros([4, 5, 3], np.uint8))],
            "Frame 1 is .4, 5, 3., but the first one .4, 4, 3.",
        ),
        (
            [(0.0, np.zeros([4, 4, 3], np.uint8)), (0.0, np.zeros([4, 4, 3], np.uint8))],
            "Frame 1 is at 0 s, which is not after 0 s",
        ),
    ],
)
def test_streams_that_are_none(frames, message):
    with pytest.raises(errors.InputError, match=message):
        _clips(frames)


def test_videos_are_found_once_in_the_order_of_people(tmp_path):
    for name in ("b10.mp4", "b9.MOV", "notes.txt", ".hidden.mp4", "sub/c.mkv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    below = sources.find_videos([str(tmp_path)])
    assert [path[len(str(tmp_path)) + 1 :] for path in below] == ["b9.MOV", "b10.mp4", "sub/c.mkv"]
    found = sources.find_videos([str(tmp_path / "*.mp4"), str(tmp_path / "b10.mp4"), "gone.mp4"])
    assert found == [str(tmp_path / "b10.mp4"), "gone.mp4"]
    with pytest.raises(errors.InputError, match=r"\*\.avi: nothing fits this pattern"):
        sources.find_videos([str(tmp_path / "*.avi")])
    (tmp_path / "empty").mkdir()
    with pytest.raises(errors.InputError, match="empty: no video in this folder"):
        sources.find_videos([str(tmp_path / "empty")])


def test_names_tell_files_apart():
    assert sources.names_of(["a/x.mp4", "b/y.mov"]) == ["x", "y"]
    assert sources.names_of(["a/x.mp4", "b/x.mp4", "y.mp4"]) == ["a_x", "b_x", "y"]
    assert sources.names_of(["a/x.mp4", "a/x.mov"]) == ["x_mp4", "x_mov"]


def test_ids_are_those_that_annotations_would_use(tmp_path):
    paths = [tmp_path / below for below in ("a/x.mp4", "b/x.mp4", "b/y.mp4", "b/y.mov", "z.mp4")]
    for path in paths:
        path.parent.mkdir(exist_ok=True)
        path.touch()
    ids = sources.ids_of(list(map(str, paths)))
    assert ids == ["a/x", "b/x", "y.mp4", "y.mov", "z"]
    index = video_files.index_videos(tmp_path)
    assert [index[video_id] for video_id in ids] == [[str(path)] for path in paths]


def test_pictures_of_a_folder(tmp_path):
    for number in (1, 2, 10):
        Image.new("RGB", (4, 4), (number, 0, 0)).save(tmp_path / f"frame{number}.png")
    (tmp_path / "readme.txt").write_text("no picture")
    frames = [sources.read_picture(path) for path in sources.pictures_of_folder(str(tmp_path))]
    assert [int(frame[0, 0, 0]) for frame in frames] == [1, 2, 10]
    (tmp_path / "frame3.png").write_bytes(b"broken")
    with pytest.raises(errors.InputError, match="frame3.png: cannot be read as a picture"):
        sources.read_picture(str(tmp_path / "frame3.png"))


def test_camera(tmp_path, monkeypatch):
    import cv2

    path = fake_models.write_video(tmp_path / "v.mp4", 5)
    opened, real = [], cv2.VideoCapture

    def capture(index):
        opened.append(index)
        return real(path)

    monkeypatch.setattr(cv2, "VideoCapture", capture)
    ticks = itertools.count(100)
    frames = list(sources.camera_frames(2, clock=lambda: next(ticks) / 2.0))
    assert opened == [2]
    assert [seconds for seconds, _ in frames] == [0.0, 0.5, 1.0, 1.5, 2.0]
    assert abs(int(frames[4][1][0, 0, 0]) - 16) < 4
    monkeypatch.setattr(cv2, "VideoCapture", lambda index: real(str(tmp_path / "none.mp4")))
    with pytest.raises(errors.InputError, match="There is no camera 7"):
        next(sources.camera_frames(7))
