# SPDX-License-Identifier: Apache-2.0
"""Clips of streams, and the finding and naming of videos."""

import itertools
import struct

import numpy as np
import pytest
from PIL import Image

from object_detection_ext import errors
from object_detection_ext.data import (
    frame_folders,
    video_decoder,
    video_files,
    video_probe,
    video_reader,
)
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
    info = video_probe.probe(path)
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
    info = video_probe.probe(tmp_path / "v.mkv")
    assert info.duration is None
    monkeypatch.delattr(video_decoder, "FileFrames")
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


def _touched(folder, *names) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")


def test_results_do_not_become_inputs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _touched(tmp_path, "in/v.mp4", "in/out/v_detections.mp4", "in/sub/w.mp4", "in/out/below/x.mp4")
    (tmp_path / "link").symlink_to(tmp_path / "in" / "out")
    for out in ("in/out", "in/sub/../out/", str(tmp_path / "in/out"), "link"):
        assert sources.find_videos(["in"], excluded=out) == ["in/sub/w.mp4", "in/v.mp4"]
        assert sources.find_videos(["in/*/*.mp4"], excluded=out) == ["in/sub/w.mp4"]
        for each in ("in/out", "in/out/*.mp4", "link"):
            with pytest.raises(errors.InputError, match=f"{each[:4]}.*in the output folder are"):
                sources.find_videos([each], excluded=out)
    # By its name each can be had, and the output may lie above the inputs.
    named = ["in/out/v_detections.mp4"]
    assert sources.find_videos(named, excluded="in/out") == named
    assert sources.find_videos(["in/sub"], excluded="in") == ["in/sub/w.mp4"]
    assert sources.find_videos(["in"], excluded="not/yet/there") == [
        "in/out/below/x.mp4", "in/out/v_detections.mp4", "in/sub/w.mp4", "in/v.mp4"
    ]  # fmt: skip
    monkeypatch.chdir(tmp_path / "in" / "out")
    with pytest.raises(errors.InputError, match="output folder"):
        sources.find_videos(["*.mp4"], excluded=".")


def test_hidden_folders_are_not_searched(tmp_path):
    _touched(tmp_path, ".trash/a.mp4", "b/.cache/c.mp4", "b/d.mp4")
    assert sources.find_videos([str(tmp_path)]) == [str(tmp_path / "b" / "d.mp4")]
    # Unless somebody names one.
    assert sources.find_videos([str(tmp_path / ".trash")]) == [str(tmp_path / ".trash" / "a.mp4")]


def test_one_video_of_several_names_is_found_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _touched(tmp_path, "a.mp4", "b.mp4")
    (tmp_path / "link.mp4").symlink_to("a.mp4")
    inputs = ["a.mp4", "./a.mp4", "link.mp4", str(tmp_path / "a.mp4"), "*.mp4"]
    assert sources.find_videos(inputs) == ["a.mp4", "b.mp4"]


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
    index = video_files.VideoIndex(tmp_path)
    assert [index.candidates(video_id) for video_id in ids] == [[str(path)] for path in paths]


def _picture(path, level: int) -> str:
    noise = np.random.default_rng(level).integers(0, 9, [24, 24, 3], np.uint8)
    Image.fromarray(noise + np.uint8(level)).save(path)
    return str(path)


def _damaged(path) -> str:
    """Cuts the file in two, and what is left in its middle."""
    whole = bytearray(path.read_bytes())
    whole[len(whole) // 3] ^= 0xFF
    path.write_bytes(bytes(whole[: len(whole) // 2]))
    return str(path)


def test_pictures_of_a_folder(tmp_path):
    for number in (1, 2, 10):
        Image.new("RGB", (4, 4), (number, 0, 0)).save(tmp_path / f"frame{number}.png")
    (tmp_path / "readme.txt").write_text("no picture")
    pictures = sources.pictures_of_folder(str(tmp_path))
    frames = list(sources.frames_of_folder(pictures, 20.0))
    assert [seconds for seconds, _ in frames] == [0.0, 0.05, 0.1]
    assert [int(frame[0, 0, 0]) for _, frame in frames] == [1, 2, 10]


@pytest.mark.parametrize("extension", ["bmp", "jpg", "png", "webp"])
def test_damaged_picture_is_told(tmp_path, extension):
    path = tmp_path / f"frame3.{extension}"
    _picture(path, 30)
    assert frame_folders.read_picture(str(path)).shape == (24, 24, 3)
    _damaged(path)
    with pytest.raises(errors.InputError, match=rf"frame3.{extension}: cannot be read as a pict"):
        frame_folders.read_picture(str(path))


def test_picture_that_claims_to_be_huge_is_told(tmp_path):
    path = tmp_path / "frame3.bmp"
    _picture(path, 30)
    content = bytearray(path.read_bytes())
    content[18:26] = struct.pack("<ii", 60_000, 60_000)
    path.write_bytes(bytes(content))
    with pytest.raises(errors.InputError, match="frame3.bmp: cannot be read as a picture"):
        frame_folders.read_picture(str(path))


def test_damaged_pictures_are_left_out_and_the_rest_goes_on(tmp_path, capsys):
    levels = [20 * number for number in range(10)]
    paths = [_picture(tmp_path / f"{level}.png", level) for level in levels]
    for number in (0, 1, 4, 8, 9):
        _damaged(tmp_path / f"{levels[number]}.png")
    frames = list(sources.frames_of_folder(paths, 10.0))
    assert [seconds for seconds, _ in frames] == pytest.approx(
        [0, 0.1, 0.2, 0.3, 0.5, 0.6, 0.7, 0.8, 0.9]
    )
    found = [int(frame.min()) // 20 for _, frame in frames]
    assert found == [2, 2, 2, 3, 5, 6, 7, 7, 7]
    reported = capsys.readouterr().out.splitlines()
    assert len(reported) == 5
    assert reported[0].startswith(f"detection: left out: {paths[0]}: cannot be read as a picture")
    # The keyframes are those of the whole folder.
    clips = _clips(frames, every_seconds=0.4)
    assert [clip.keyframe_time for clip in clips] == pytest.approx([0, 0.4, 0.8])
    assert [int(frame.min()) // 20 for frame in clips[1].frames] == [2, 3, 3, 5]
    bad = [paths[number] for number in (0, 1)]
    with pytest.raises(errors.InputError, match="None of 2 pictures can be read: .*/0.png"):
        list(sources.frames_of_folder(bad, 10.0))


def test_large_frames_are_shrunk_to_what_the_model_makes_of_them():
    frame = np.zeros([216, 384, 3], np.uint8)
    shape = {}
    for short_side, frame_size, model_short_side in (
        (None, None, None),
        (None, (90, 120), None),
        (None, None, 40),
        # A resizer that pads: the frame itself is smaller than what the model gets.
        (None, (160, 160), 90),
        (None, None, 145),
        (100, None, 40),
        (0, None, 40),
    ):
        given = sources.shrunk(frame, short_side, frame_size, model_short_side)
        shape[short_side, frame_size, model_short_side] = given.shape[:2]
    assert list(shape.values()) == [
        (216, 384), (90, 160), (40, 71), (90, 160), (216, 384), (100, 178), (216, 384)
    ]  # fmt: skip
