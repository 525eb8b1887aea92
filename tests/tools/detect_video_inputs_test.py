# SPDX-License-Identifier: Apache-2.0
"""What detect_video is given: keyframes of a CSV, folders of frames, odd videos, streams."""

import csv
import json
import pathlib
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from absl import flags
from PIL import Image

from object_detection_ext import errors
from object_detection_ext.ava import faults
from object_detection_ext.data import video_reader
from object_detection_ext.inference import model as model_lib
from object_detection_ext.inference import network_stream, sources
from object_detection_ext.inference.detector import ActionDetector
from object_detection_ext.tools import detect_video
from tests import numbered_videos
from tests.inference import fake_models

_BOX = "0.1,0.1,0.5,0.9"


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("detect")
    fake_models.save(
        fake_models.Detector(), folder / "model", {"fps": fake_models.FPS, "frame_size": [48, 64]}
    )
    (folder / "videos").mkdir()
    fake_models.write_video(folder / "videos" / "clip.mp4")
    fake_models.write_video(folder / "videos" / "other.mp4", 30)
    return folder


def _options(files, output, *inputs, **changes):
    inputs = inputs or (str(files / "videos" / "clip.mp4"),)
    changes = {"score_threshold": 0.01, "video": False, **changes}
    return detect_video.Options(inputs, str(output), str(files / "model"), **changes)


def _rows(path):
    with open(path, newline="") as file:
        return list(csv.reader(file))


def _times(path):
    return [json.loads(line)["time"] for line in open(path)]


@pytest.mark.parametrize(
    "rows",
    [
        [f"clip,{time},{_BOX},1,0" for time in ("0000", "0.335", "1.041667", "0002")],
        ["clip,2", "clip,0", "clip,1.041667", "clip,0.335", "clip,2"],
        [f"clip,{time},{_BOX},1,0.9" for time in ("0000", "0.335", "1.041667", "0002")],
        ["timestamp,video_id"] + [f"{time},clip" for time in ("0", "0.335", "1.041667", "2")],
        [f"clip,{time},10,20,300,400,1,7" for time in ("0", "0.335", "1.041667", "2")],
        [f"clip,{time},,,,,note" for time in ("0", "0.335", "1.041667", "2")],
    ],
)
def test_keyframes_are_exactly_those_of_a_file(files, tmp_path, rows):
    path = tmp_path / "wanted.csv"
    path.write_text("\n".join(rows) + "\n")
    options = _options(files, tmp_path / "out", keyframes=str(path))
    assert detect_video.run(options) == 0
    assert _times(tmp_path / "out" / "clip.jsonl") == [0.0, 0.335, 1.041667, 2.0]
    written = {row[1] for row in _rows(tmp_path / "out" / "clip_detections.csv")}
    assert written == {"0000", "0.335", "1.041667", "0002"}


def test_videos_that_are_not_listed_are_left_out_and_counted(files, tmp_path, capsys):
    path = tmp_path / "wanted.csv"
    path.write_text("other,1\ngone,1\ngone2,1\n")
    options = _options(files, tmp_path / "out", str(files / "videos"), keyframes=str(path))
    assert detect_video.run(options) == 0
    reported = capsys.readouterr().out
    assert f"1 video not listed in {path}: left out: {files}/videos/clip.mp4" in reported
    assert f"2 videos listed in {path}, but not among the inputs: gone, gone2" in reported
    assert not (tmp_path / "out" / "clip.jsonl").exists()
    path.write_text("gone,1\n")
    with pytest.raises(errors.InputError, match="lists none of the videos, clip, other; it"):
        detect_video.run(options)


def test_videos_are_called_as_the_file_of_keyframes_has_them(files, tmp_path):
    for day in ("monday", "tuesday"):
        (tmp_path / "videos" / day).mkdir(parents=True)
        shutil.copy(files / "videos" / "other.mp4", tmp_path / "videos" / day / "v1.mp4")
    path = tmp_path / "wanted.csv"
    path.write_text("monday/v1,1\ntuesday/v1.mp4,0.5\n")
    options = _options(files, tmp_path / "out", str(tmp_path / "videos"), keyframes=str(path))
    assert detect_video.run(options) == 0
    rows = {(row[0], row[1]) for row in _rows(tmp_path / "out" / "detections.csv")}
    assert rows == {("monday/v1", "0001"), ("tuesday/v1.mp4", "0.5")}
    path.write_text("v1,1\n")
    with pytest.raises(errors.InputError, match="the id 'v1' fits .*monday/v1.mp4 and .*tuesday"):
        detect_video.run(options)
    path.write_text("monday/v1,1\nmonday/v1.mp4,1\n")
    with pytest.raises(errors.InputError, match="monday/v1.mp4 has two ids, 'monday/v1' and"):
        detect_video.run(options)


def test_moments_outside_the_video_are_told(files, tmp_path, capsys):
    path = tmp_path / "wanted.csv"
    path.write_text("clip,-1\nclip,1\nclip,50\n")
    options = _options(files, tmp_path / "out", keyframes=str(path))
    assert detect_video.run(options) == 0
    reported = capsys.readouterr().out
    assert "left out: timestamp -1 s is before the start" in reported
    assert "left out: timestamp 50 s is beyond the video's end" in reported
    assert _times(tmp_path / "out" / "clip.jsonl") == [1.0]


@pytest.mark.parametrize("share", [False, True])
def test_part_of_a_film_has_the_films_times_in_the_csv(files, tmp_path, share):
    path, offsets = tmp_path / "wanted.csv", tmp_path / "offsets.csv"
    path.write_text("clip,901.1\nclip,902\n")
    offsets.write_text("clip,900\n")
    options = _options(files, tmp_path / "out", keyframes=str(path),
                       time_offset_seconds=str(offsets) if share else "900")  # fmt: skip
    assert detect_video.run(options) == 0
    times = _times(tmp_path / "out" / "clip.jsonl")
    assert times == pytest.approx([1.1, 2.0])
    assert [row[1] for row in _rows(tmp_path / "out" / "clip_detections.csv")][::99] == ["901.1"]
    assert {row[1] for row in _rows(tmp_path / "out" / "clip_detections.csv")} == {"901.1", "0902"}
    with pytest.raises(errors.InputError, match="--time_offset_seconds is for --keyframes"):
        detect_video.run(_options(files, tmp_path / "out", time_offset_seconds="900"))
    offsets.write_text("other,900\n")
    with pytest.raises(errors.InputError, match="no row for 1 video: clip"):
        detect_video.run(
            _options(files, tmp_path / "o", keyframes=str(path), time_offset_seconds=str(offsets))
        )


def test_other_keyframes_are_detected_anew_and_the_same_are_not(files, tmp_path, monkeypatch):
    path = tmp_path / "wanted.csv"
    path.write_text("clip,1\n")
    options = _options(files, tmp_path / "out", keyframes=str(path))
    detect_video.run(options)
    path.write_text("clip,1.5\n")
    detect_video.run(options)
    assert _times(tmp_path / "out" / "clip.jsonl") == [1.5]
    monkeypatch.setattr(detect_video.Options, "detector", None)  # not even loaded
    assert detect_video.run(options) == 0


def _write_frames(folder, count=60):
    folder.mkdir(parents=True)
    for number, frame in enumerate(fake_models.frames()[:count]):
        Image.fromarray(frame).save(folder / f"{folder.name}_{number + 1:06d}.png")


def test_folders_of_frames(files, tmp_path, capsys):
    _write_frames(tmp_path / "videos" / "a")
    _write_frames(tmp_path / "videos" / "deep" / "b.1")
    shutil.copy(files / "videos" / "clip.mp4", tmp_path / "videos" / "clip.mp4")
    options = _options(files, tmp_path / "out", str(tmp_path / "videos"), video=True,
                       frames_fps=fake_models.FPS)  # fmt: skip
    assert detect_video.run(options) == 0
    ids = {row[0] for row in _rows(tmp_path / "out" / "detections.csv")}
    assert ids == {"a", "b.1", "clip"}
    of_clip = [row[1:] for row in _rows(tmp_path / "out" / "clip_detections.csv")]
    of_frames = [row[1:] for row in _rows(tmp_path / "out" / "a_detections.csv")]
    assert [row[:6] for row in of_frames] == [row[:6] for row in of_clip]
    scores = [[float(row[6]) for row in rows] for rows in (of_frames, of_clip)]
    np.testing.assert_allclose(*scores, atol=0.02)  # the file is compressed
    assert (tmp_path / "out" / "a_detections.mp4").exists()
    # A folder that holds frames itself is one video.
    one = _options(files, tmp_path / "one", str(tmp_path / "videos" / "a"), frames_fps=10.0)
    assert detect_video.run(one) == 0
    assert _times(tmp_path / "one" / "a.jsonl") == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
    capsys.readouterr()
    with pytest.raises(errors.InputError, match="numbered frames are videos with --frames_fps"):
        detect_video.run(_options(files, tmp_path / "no", str(tmp_path / "videos" / "deep")))


def test_stopped_run_over_frames_goes_on(files, tmp_path, monkeypatch):
    _write_frames(tmp_path / "a")
    options = _options(files, tmp_path / "out", str(tmp_path / "a"), every=0.5,
                       frames_fps=fake_models.FPS)  # fmt: skip
    detect_video.run(options)
    whole = (tmp_path / "out" / "a_detections.csv").read_text()
    lines = (tmp_path / "out" / "a.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "out" / "a.jsonl.incomplete").write_text("".join(lines[:3]))
    (tmp_path / "out" / "a.jsonl").unlink()
    read = []
    real = video_reader.ClipReader.clips
    monkeypatch.setattr(
        video_reader.ClipReader,
        "clips",
        lambda self, times: real(self, read.append(times) or times),
    )
    detect_video.run(options)
    assert read == [[1.5, 2.0, 2.5]]
    assert (tmp_path / "out" / "a_detections.csv").read_text() == whole


def test_gap_in_a_folder_of_frames_is_told(files, tmp_path, capsys):
    _write_frames(tmp_path / "a")
    (tmp_path / "a" / "a_000012.png").unlink()
    options = _options(files, tmp_path / "out", str(tmp_path / "a"), frames_fps=10.0)
    assert detect_video.run(options) == 1
    assert "frame 12 is missing: a_000011.png is followed by a_000013.png" in (
        capsys.readouterr().err
    )


@pytest.mark.parametrize("name", ["v.ts", "v.mkv"])
def test_video_whose_timestamps_start_over_is_detected_to_its_end(files, tmp_path, capsys, name):
    path = tmp_path / name
    numbered_videos.write(path, [i / 20 for i in range(40)])
    path.write_bytes(2 * path.read_bytes())
    assert detect_video.run(_options(files, tmp_path / "out", str(path), every=0.5)) == 0
    assert _times(tmp_path / "out" / "v.jsonl") == [i / 2 for i in range(8)]
    assert "detection: v: warning: timestamps start over once; each part was taken" in (
        capsys.readouterr().out
    )


def test_mp4_files_in_one_are_told(files, tmp_path, capsys):
    path = tmp_path / "v.mp4"
    path.write_bytes(2 * (files / "videos" / "clip.mp4").read_bytes())
    assert detect_video.run(_options(files, tmp_path / "out", str(path))) == 0
    assert "detection: v: warning: left out: 1 of 2 MP4 files that were written one after" in (
        capsys.readouterr().out
    )


def test_frames_that_change_their_size_are_told(files, tmp_path, capsys):
    path = tmp_path / "v.ts"
    numbered_videos.write(path, [i / 20 for i in range(40)])
    first = path.read_bytes()
    numbered_videos.write(path, [i / 20 for i in range(40)], shape=(96, 64))
    path.write_bytes(first + path.read_bytes())
    assert detect_video.run(_options(files, tmp_path / "out", str(path))) == 0
    assert "detection: v: warning: frames change their size once; all were stretched" in (
        capsys.readouterr().out
    )


def test_high_dynamic_range_is_told_once(files, tmp_path, capsys):
    numbered_videos.write(tmp_path / "v.mp4", [i / 20 for i in range(40)], transfer=16)
    assert detect_video.run(_options(files, tmp_path / "out", str(tmp_path / "v.mp4"))) == 0
    assert capsys.readouterr().out.count("v: warning: HDR (PQ): colours are used as stored") == 1


def _run(*arguments):
    values = flags.FlagValues()
    detect_video.define_flags(values)
    rest = values(["detect_video", *arguments])
    with pytest.raises(SystemExit) as ended:
        detect_video.main(rest, values)
    return ended.value.code


def test_names_that_begin_with_a_dash(files, tmp_path, monkeypatch):
    (tmp_path / "videos").mkdir()
    shutil.copy(files / "videos" / "other.mp4", tmp_path / "videos" / "-5KQ66BBWC4.mp4")
    monkeypatch.chdir(tmp_path / "videos")
    common = [f"--saved_model={files / 'model'}", "--score_threshold=0.01"]
    inputs = (("--", "-5KQ66BBWC4.mp4"), ("./-5KQ66BBWC4.mp4",), ("*.mp4",), (".",))
    for number, each in enumerate(inputs):
        output = tmp_path / f"out{number}"
        assert _run(*common, f"--output={output}", *each) == 0
        rows = _rows(output / "-5KQ66BBWC4_detections.csv")
        assert {row[0] for row in rows} == {"-5KQ66BBWC4"}
        assert (output / "-5KQ66BBWC4_detections.mp4").exists()


def test_hint_for_a_name_that_begins_with_a_dash(tmp_path):
    (tmp_path / "-a.mp4").touch()
    result = subprocess.run(
        [sys.executable, "-m", detect_video.__name__, "--saved_model=m", "--output=o", "-a.mp4"],
        cwd=tmp_path, capture_output=True, text=True, timeout=60,
        env={"PYTHONPATH": str(pathlib.Path(__file__).parents[2])},
    )  # fmt: skip
    assert result.returncode == 2
    assert "-a.mp4 begins with a dash: write ./-a.mp4, or -- before it." in result.stderr


def test_a_mistyped_flag_is_one_line(capsys):
    values = flags.FlagValues()
    detect_video.define_flags(values)
    with pytest.raises(SystemExit) as ended:
        detect_video.parse_flags(["detect_video", "--vidoes=a.mp4"], values)
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert "Unknown command line flag 'vidoes'" in said and "dash" not in said


def test_person_boxes_are_read_before_the_model_is_loaded(tmp_path, monkeypatch):
    def loaded(*arguments, **options):
        raise AssertionError("the model was loaded")

    monkeypatch.setattr(model_lib, "load_saved_model", loaded)
    monkeypatch.setattr(model_lib, "load_checkpoint", loaded)
    boxes = tmp_path / "boxes.csv"
    boxes.write_text("v,1,0.1,0.1,0.5\n")
    with pytest.raises(faults.AnnotationError, match="boxes.csv:1"):
        ActionDetector("model", person_boxes=boxes)
    with pytest.raises(faults.AnnotationError, match="boxes.csv:1"):
        ActionDetector.from_checkpoint("a.config", "model", person_boxes=boxes)


def test_boxes_of_a_file_may_stick_out_as_much_as_is_allowed(tmp_path, monkeypatch):
    taken = []
    monkeypatch.setattr(
        detect_video, "ActionDetector", lambda *_, person_boxes, **__: taken.append(person_boxes)
    )
    boxes = tmp_path / "boxes.csv"
    boxes.write_text("v,1,0.1,0.1,0.5,1.04\n")
    values = ((), str(tmp_path), "model")
    with pytest.raises(faults.AnnotationError, match=r"y2 is 1.04; [^$]*--box_tolerance"):
        detect_video.Options(*values, person_boxes=str(boxes)).detector()
    detect_video.Options(*values, person_boxes=str(boxes), box_tolerance=0.05).detector()
    np.testing.assert_allclose(taken[0].boxes("v", 1.0), [[0.1, 0.1, 1.0, 0.5]])
    parsed = flags.FlagValues()
    detect_video.define_flags(parsed)
    parsed(["detect_video", "--saved_model=m", "--output=o", "--box_tolerance=0.05"])
    assert parsed.box_tolerance == 0.05


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"box_tolerance": -0.1}, "--box_tolerance must be at least 0 and less than 1"),
        ({"keyframes": "no.csv"}, "--keyframes: no.csv: there is no such file"),
        ({"keyframes": __file__, "person_boxes": __file__}, "exclude each other"),
        ({"frames_fps": -1.0}, "--frames_fps must be 0 to 1000"),
        ({"inputs": ("rtsp://a/b", "v.mp4")}, "One camera at a time, or one stream"),
        ({"inputs": ("rtsp://a/b",), "keyframes": __file__}, "--keyframes is for video files"),
        ({"inputs": ("0",), "frames_fps": 10.0}, "--frames_fps is for video files"),
    ],
)
def test_options_that_cannot_be(files, tmp_path, changes, message):
    values = {"inputs": ("v.mp4",), "output": str(tmp_path / "out"),
              "saved_model": str(files / "model"), **changes}  # fmt: skip
    with pytest.raises(errors.InputError, match=message):
        detect_video.run(detect_video.Options(**values))
    assert not (tmp_path / "out").exists()


def test_stream_that_is_lost_leaves_its_results(files, tmp_path, monkeypatch, capsys):
    frames = list(sources.at_rate(fake_models.frames(), fake_models.FPS))

    def lost(address, **options):
        assert address == "rtsp://me:secret@cam/1"
        yield from sources.clips_of_frames(frames, **options)
        raise errors.OutsideError("rtsp://cam/1: the connection was lost")

    monkeypatch.setattr(network_stream, "clips", lost)
    common = [f"--saved_model={files / 'model'}", f"--output={tmp_path}", "--every=0.5"]
    assert _run(*common, "rtsp://me:secret@cam/1") == 1
    reported = capsys.readouterr()
    assert "error: rtsp://cam/1: the connection was lost" in reported.err
    assert "secret" not in reported.out + reported.err
    (path,) = tmp_path.glob("stream_cam_1_*_detections.csv")
    assert len(_rows(path)) > 5
    (lines,) = tmp_path.glob("stream_cam_1_*.jsonl")
    assert _times(lines) == [0.0, 0.5, 1.0, 1.5, 2.0, 2.5]
    assert re.fullmatch(r"stream_cam_1_\d{8}_\d{6}.jsonl", lines.name)
