# SPDX-License-Identifier: Apache-2.0
"""The command line over many videos, stopped and started again."""

import dataclasses
import errno
import fractions
import json
import math
import os
import re
import shutil
import subprocess
import sys

import av
import numpy as np
import pytest
from absl import flags
from PIL import Image

from object_detection_ext import errors
from object_detection_ext.ava import tables
from object_detection_ext.inference import annotated_video, camera, sources
from object_detection_ext.inference.detector import ActionDetector
from object_detection_ext.tools import detect_video
from tests import numbered_videos
from tests.inference import fake_models
from tests.tools import detected_videos
from tests.tools.detected_videos import options as _options
from tests.tools.detected_videos import rows as _rows


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return detected_videos.write(tmp_path_factory.mktemp("detect"))


def test_video_to_detections(files, tmp_path, capsys):
    assert detect_video.run(_options(files, tmp_path, score_threshold=0.2)) == 0
    rows = _rows(tmp_path / "clip_detections.csv")
    # Frame 20 t has brightness 80 t: at 0, 1 and 2 s the scores are 0, 0.31 and 0.63.
    assert [(row[0], float(row[1]), row[6]) for row in rows] == [
        ("clip", 1.0, "1"), ("clip", 1.0, "3"),
        ("clip", 2.0, "1"), ("clip", 2.0, "3"), ("clip", 2.0, "1"),
    ]  # fmt: skip
    scores = np.array([float(row[7]) for row in rows])
    np.testing.assert_allclose(scores, np.array([80, 72, 160, 144, 80]) / 255, atol=0.02)
    # A person has one box, that of the best detection, written as x1,y1,x2,y2.
    assert rows[0][2:6] == rows[1][2:6] == ["0.3000", "0.2000", "0.6000", "0.8000"]
    assert rows[4][2:6] == ["0.7000", "0.1000", "0.9500", "0.5000"]
    assert len(tables.read_csv(str(tmp_path / "clip_detections.csv")).rows) == 5
    lines = [json.loads(line) for line in open(tmp_path / "clip.jsonl")]
    assert [len(line["people"]) for line in lines] == [0, 1, 2]
    picture = np.asarray(Image.open(tmp_path / "clip_detections.png"))
    assert picture.shape == (360, 480, 3)
    assert abs(int(picture[20, 20, 0]) - 160) < 6
    assert (tmp_path / "clip_detections.mp4").stat().st_size > 1000
    output = capsys.readouterr().out
    assert "clip: 3 people with 5 actions on 3 keyframes" in output
    assert re.search(r"detection: 3/3 keyframes, [\d.]+ per s, 0 s left, clip", output)
    assert not list(tmp_path.glob("*.incomplete"))


def test_bad_video_does_not_stop_the_others(files, tmp_path, capsys):
    videos = tmp_path / "videos"
    videos.mkdir()
    (videos / "a.mp4").write_bytes(b"no video")
    fake_models.write_video(videos / "b.mp4", 10)
    output = tmp_path / "out"
    options = _options(files, output, str(videos), str(tmp_path / "gone.mp4"), video=False)
    assert detect_video.run(options) == 2
    assert (output / "b_detections.csv").exists() and not (output / "b_detections.mp4").exists()
    reported = capsys.readouterr()
    assert "error: 2 of 3 videos could not be used" in reported.err
    assert re.search(r"a\.mp4: cannot be read as a video", reported.err)
    assert "gone.mp4: there is no such video" in reported.err
    assert "detection: 3/3 videos" in reported.out


def test_cut_off_video_gives_what_is_there_and_says_so(files, tmp_path, capsys):
    whole, cut = tmp_path / "whole.mkv", tmp_path / "cut.mkv"
    numbered_videos.write(whole, np.arange(300) / 30)
    cut.write_bytes(whole.read_bytes()[: os.path.getsize(whole) // 2])
    options = _options(files, tmp_path / "out", str(cut), every=0.5, video=False)
    assert detect_video.run(options) == 0
    reported = capsys.readouterr().out
    lines = (tmp_path / "out" / "cut.jsonl").read_text().splitlines()
    assert 4 < len(lines) < 16
    assert "damaged or cut off, its header says 10" in reported
    assert f"left out: {20 - len(lines) - 3} more keyframes ({20 - len(lines)} in all)" in reported


def test_corrupt_frames_in_the_middle_cost_their_keyframes_only(files, tmp_path, capsys):
    path = tmp_path / "v.avi"
    # Every frame of this file stands for itself.
    numbered_videos.write(
        path, np.arange(100) / 25, codec="mjpeg", time_base=fractions.Fraction(1, 25)
    )
    data = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        packets = [(p.pos, p.size, float(p.pts * p.time_base)) for p in container.demux(video=0)
                   if p.pts is not None]  # fmt: skip
    for position, size, seconds in packets:
        if 1.0 <= seconds < 2.0:
            data[position + 16 : position + size - 16] = bytes(size - 32)
    path.write_bytes(data)
    assert detect_video.run(_options(files, tmp_path / "out", str(path), every=0.5)) == 0
    times = [json.loads(line)["time"] for line in open(tmp_path / "out" / "v.jsonl")]
    assert times == [0.0, 0.5, 1.0, 2.0, 2.5, 3.0, 3.5]
    reported = capsys.readouterr().out
    assert "v: left out: the video is damaged around timestamp 1.5 s" in reported
    assert (tmp_path / "out" / "v_detections.mp4").exists()


def test_own_output_is_not_looked_at(files, tmp_path):
    fake_models.write_video(tmp_path / "v.mp4", 30)
    options = _options(files, tmp_path / "found", str(tmp_path))
    for _ in range(2):
        assert detect_video.run(options) == 0
    videos = {path.name for path in (tmp_path / "found").glob("*.mp4")}
    assert videos == {"v_detections.mp4"}


def test_videos_of_one_name_are_called_as_in_the_annotations(files, tmp_path):
    for day in ("monday", "tuesday"):
        (tmp_path / "videos" / day).mkdir(parents=True)
        fake_models.write_video(tmp_path / "videos" / day / "v1.mp4")
    output = tmp_path / "out"
    options = _options(files, output, str(tmp_path / "videos"), video=False)
    assert detect_video.run(options) == 0
    assert {row[0] for row in _rows(output / "monday_v1_detections.csv")} == {"monday/v1"}
    assert {row[0] for row in _rows(output / "detections.csv")} == {"monday/v1", "tuesday/v1"}


def test_finished_videos_are_not_done_again(files, tmp_path, capsys, monkeypatch):
    options = _options(files, tmp_path, str(files / "videos"), video=False)
    assert detect_video.run(options) == 0
    together = (tmp_path / "detections.csv").read_text()
    each = [(tmp_path / f"{n}_detections.csv").read_text() for n in ("clip", "other")]
    assert together == "".join(each) and each[0] and each[1]
    capsys.readouterr()
    (tmp_path / "other.jsonl").rename(tmp_path / "other.jsonl.incomplete")
    called = []
    real = ActionDetector.__call__

    def spy(self, source, *args, **kwargs):
        called.append((os.path.basename(source), kwargs["start_seconds"]))
        return real(self, source, *args, **kwargs)

    monkeypatch.setattr(ActionDetector, "__call__", spy)
    assert detect_video.run(options) == 0
    assert called == [("other.mp4", math.nextafter(1.0, 2.0))]  # at 0 and 1 s all was there
    assert "1 video finished by an earlier run" in capsys.readouterr().out
    monkeypatch.setattr(detect_video.Options, "detector", None)  # not even loaded
    assert detect_video.run(options) == 0


def test_other_options_and_other_videos_are_done_anew(files, tmp_path):
    first = _options(files, tmp_path, video=False, score_threshold=0.2)
    detect_video.run(first)
    assert len(_rows(tmp_path / "clip_detections.csv")) == 5
    detect_video.run(_options(files, tmp_path, video=False, score_threshold=0.5))
    assert len(_rows(tmp_path / "clip_detections.csv")) == 2


def test_stopped_run_goes_on_and_gives_the_same(files, tmp_path, monkeypatch, capsys):
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    changes = {"every": 0.25, "score_threshold": 0.2, "tracks": True, "video": False}
    detect_video.run(_options(files, whole, **changes))
    real = ActionDetector._keyframe
    seen = []

    def until_the_fifth(self, name, time, *args):
        seen.append(time)
        if len(seen) == 5:
            raise KeyboardInterrupt
        return real(self, name, time, *args)

    monkeypatch.setattr(ActionDetector, "_keyframe", until_the_fifth)
    with pytest.raises(KeyboardInterrupt):
        detect_video.run(_options(files, stopped, **changes))
    assert not (stopped / "clip_detections.csv").exists()
    with open(stopped / "clip.jsonl.incomplete", "a") as file:
        file.write('{"video": "clip", "ti')  # killed while it wrote
    capsys.readouterr()
    detect_video.run(_options(files, stopped, **changes))
    assert seen == [0.0, 0.25, 0.5, 0.75, 1.0] + [1.0 + 0.25 * i for i in range(8)]
    assert "clip: going on after 0.8 s" in capsys.readouterr().out
    for name in ("clip.jsonl", "clip_detections.csv"):
        assert (stopped / name).read_bytes() == (whole / name).read_bytes()
    tracks = [p["track"] for line in open(whole / "clip.jsonl") for p in json.loads(line)["people"]]
    assert set(tracks) == {1, 2}


def test_stopped_run_with_attention_goes_on_and_gives_the_same_video(files, tmp_path, monkeypatch):
    model = fake_models.save(
        fake_models.Detector(attention=True), tmp_path / "model",
        {"fps": fake_models.FPS, "frame_size": [48, 64]},
    )  # fmt: skip
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    options = dataclasses.replace(
        _options(files, whole, every=0.5, score_threshold=0.2, attention=True), saved_model=model
    )
    detect_video.run(options)
    real = ActionDetector._keyframe
    seen = []

    def until_the_fourth(self, name, time, *args):
        seen.append(time)
        if len(seen) == 4:
            raise KeyboardInterrupt
        return real(self, name, time, *args)

    monkeypatch.setattr(ActionDetector, "_keyframe", until_the_fourth)
    options = dataclasses.replace(options, output=str(stopped))
    with pytest.raises(KeyboardInterrupt):
        detect_video.run(options)
    detect_video.run(options)
    assert seen == [0.0, 0.5, 1.0, 1.5, 1.5, 2.0, 2.5]
    for name in ("clip.jsonl", "clip_detections.csv"):
        assert (stopped / name).read_bytes() == (whole / name).read_bytes()
    frames = [_frames(folder / "clip_detections.mp4") for folder in (whole, stopped)]
    np.testing.assert_array_equal(*frames)
    # Colour away from boxes and labels is attention, also in what the first run found: 20 frames a
    # second, the keyframe at 1 s was before the interruption, the one at 2.5 s after it.
    corners = frames[1][:, 5:20, 5:20].astype(int)
    colour = np.abs(corners[..., 0] - corners[..., 2]).max(axis=(1, 2))
    assert colour[2] < 12 and colour[20] > 15 and colour[55] > 15


def test_annotated_video_of_what_was_detected_before(files, tmp_path, monkeypatch, capsys):
    detect_video.run(_options(files, tmp_path, score_threshold=0.2, tracks=True, video=False))
    csv_before = (tmp_path / "clip_detections.csv").read_bytes()
    lines_before = (tmp_path / "clip.jsonl").read_bytes()
    monkeypatch.setattr(ActionDetector, "__call__", None)  # nothing is detected again
    options = _options(files, tmp_path, score_threshold=0.2, tracks=True)
    real = annotated_video.write

    def full(*args):
        raise RuntimeError("encoder")

    monkeypatch.setattr(annotated_video, "write", full)
    capsys.readouterr()
    assert detect_video.run(options) == 1
    assert "clip.mp4: RuntimeError: encoder" in capsys.readouterr().err
    assert not (tmp_path / "clip_detections.mp4").exists()
    monkeypatch.setattr(annotated_video, "write", real)
    assert detect_video.run(options) == 0
    assert (tmp_path / "clip_detections.mp4").exists()
    assert (tmp_path / "clip_detections.png").exists()
    assert (tmp_path / "clip_detections.csv").read_bytes() == csv_before
    assert (tmp_path / "clip.jsonl").read_bytes() == lines_before
    # What is drawn with one threshold is not left beside results with another.
    monkeypatch.undo()
    detect_video.run(_options(files, tmp_path, score_threshold=0.5, video=False))
    assert not (tmp_path / "clip_detections.mp4").exists()


def test_whatever_a_video_does_the_others_are_done(files, tmp_path, monkeypatch, capsys):
    real = ActionDetector.__call__

    def fails(self, source, *args, **kwargs):
        if "clip" in os.path.basename(source):
            raise problem
        return real(self, source, *args, **kwargs)

    monkeypatch.setattr(ActionDetector, "__call__", fails)
    options = _options(files, tmp_path, str(files / "videos"), video=False)
    problem = RuntimeError("out of memory")
    assert detect_video.run(options) == 1
    assert "clip.mp4: RuntimeError: out of memory" in capsys.readouterr().err
    assert (tmp_path / "other_detections.csv").exists()
    problem = OSError(errno.ENOSPC, "No space left on device")
    assert _run(f"--saved_model={files / 'model'}", f"--output={tmp_path / 'more'}", "--novideo",
                str(files / "videos")) == 1  # fmt: skip
    assert "No space left on device" in capsys.readouterr().err
    assert not (tmp_path / "more" / "other_detections.csv").exists()
    problem = KeyboardInterrupt()
    assert _run(f"--saved_model={files / 'model'}", f"--output={tmp_path / 'more'}", "--novideo",
                str(files / "videos")) == 130  # fmt: skip
    assert "Run the same command again to resume" in capsys.readouterr().err


def test_name_that_no_file_of_results_can_hold(files, tmp_path, capsys):
    folder = tmp_path / "videos"
    folder.mkdir()
    for name in (os.fsdecode(b"caf\xe9.mp4"), "caf\u00e9.mp4"):
        os.link(files / "videos" / "other.mp4", folder / name)
    output = tmp_path / "out"
    options = _options(files, output, str(folder), score_threshold=0.2, video=False)
    assert detect_video.run(options) == 1
    assert "caf\\udce9.mp4': the name is not in UTF-8; rename the file" in capsys.readouterr().err
    assert {row[0] for row in _rows(output / "caf\u00e9_detections.csv")} == {"caf\u00e9"}
    assert len(os.listdir(output)) == 4


def test_results_of_another_video_of_that_name_are_kept(files, tmp_path, monkeypatch, capsys):
    (tmp_path / "a").mkdir()
    video = str(tmp_path / "a" / "other.mp4")
    shutil.copy(files / "videos" / "clip.mp4", video)
    output = tmp_path / "out"
    first = _options(files, output, video, score_threshold=0.2, video=False)
    detect_video.run(first)
    before = (output / "other.jsonl").read_bytes()
    second = _options(files, output, str(files / "videos" / "other.mp4"), video=False)
    assert detect_video.run(second) == 1
    assert "are the results of" in capsys.readouterr().err
    assert (output / "other.jsonl").read_bytes() == before
    # The same video by another path, or moved, is the same.
    monkeypatch.setattr(detect_video.Options, "detector", None)
    monkeypatch.chdir(tmp_path)
    assert detect_video.run(dataclasses.replace(first, inputs=("a/other.mp4",))) == 0
    os.rename("a", "b")
    assert detect_video.run(dataclasses.replace(first, inputs=("b/other.mp4",))) == 0


def test_damaged_line_of_an_interrupted_run_is_done_again(files, tmp_path):
    options = _options(files, tmp_path, every=0.5, score_threshold=0.2, video=False)
    detect_video.run(options)
    expected = (tmp_path / "clip.jsonl").read_text()
    lines = expected.splitlines(keepends=True)
    os.remove(tmp_path / "clip.jsonl")
    lines[2] = "\0" * 20 + "\n"
    (tmp_path / "clip.jsonl.incomplete").write_text("".join(lines[:4]))
    detect_video.run(options)
    assert (tmp_path / "clip.jsonl").read_text() == expected


def _frames(path):
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def test_person_boxes_of_a_file(files, tmp_path, capsys):
    model = fake_models.save(
        fake_models.BoxModel(), tmp_path / "model",
        {"input_type": "clip_and_boxes", "fps": fake_models.FPS, "frame_size": [48, 64]},
    )  # fmt: skip
    boxes = tmp_path / "boxes.csv"
    # A person with two actions, as in AVA's annotations; times off the grid; another video.
    boxes.write_text(
        "clip,1.5,0.1,0.2,0.3,0.8,12,0\nclip,1.5,0.1,0.2,0.3,0.8,80,0\n"
        "clip,2.05,0.1,0.2,0.3,0.8\nclip,2.05,0.5,0.2,0.9,0.8,,0.97\nclip,2.5\nelse,1,0,0,1,1\n"
    )
    videos = [str(files / "videos" / name) for name in ("clip.mp4", "other.mp4")]
    options = dataclasses.replace(
        _options(files, tmp_path / "out", *videos, score_threshold=0.2, video=False),
        saved_model=model,
        person_boxes=str(boxes),
    )
    assert detect_video.run(options) == 1
    reported = capsys.readouterr()
    assert (
        "boxes.csv: there is no row of the video 'other'; there are rows of clip, else"
        in reported.err
    )
    rows = _rows(tmp_path / "out" / "clip_detections.csv")
    assert [(row[1], *row[2:6]) for row in rows] == [
        ("1.5", "0.1000", "0.2000", "0.3000", "0.8000"),
        ("2.05", "0.1000", "0.2000", "0.3000", "0.8000"),
        ("2.05", "0.5000", "0.2000", "0.9000", "0.8000"),
    ]
    # Frames 30 and 41.
    scores = [float(row[7]) for row in rows]
    assert scores == pytest.approx([120 / 255, 164 / 255, 164 / 255], abs=0.02)
    lines = [json.loads(line) for line in open(tmp_path / "out" / "clip.jsonl")]
    assert [line["time"] for line in lines] == [1.5, 2.05, 2.5]
    # Other boxes are other work.
    boxes.write_text("clip,1.5,0.1,0.2,0.3,0.8\n")
    detect_video.run(dataclasses.replace(options, inputs=tuple(videos[:1])))
    assert len(_rows(tmp_path / "out" / "clip_detections.csv")) == 1


def test_camera(files, tmp_path, monkeypatch, capsys):
    frames = list(sources.at_rate(fake_models.frames(), fake_models.FPS))

    def stopped_after_a_while(index, **options):
        assert index == 0
        yield from sources.clips_of_frames(frames, **options)
        raise KeyboardInterrupt

    monkeypatch.setattr(camera, "clips_of_camera", stopped_after_a_while)
    assert detect_video.run(_options(files, tmp_path, "0", every=0.5)) == 0
    (path,) = tmp_path.glob("camera_0_*.jsonl")
    lines = [json.loads(line) for line in open(path)]
    assert [line["time"] for line in lines] == [0.0, 0.5, 1.0, 1.5, 2.0, 2.5]
    reported = capsys.readouterr().out
    assert "0.0 s  nobody" in reported and re.search(r"2\.5 s  stand 0\.7\d, hand wave", reported)
    (path,) = tmp_path.glob("camera_0_*_detections.csv")
    assert {(row[0], float(row[1])) for row in _rows(path)} == {
        (path.name.removesuffix("_detections.csv"), time) for time in (1.0, 1.5, 2.0, 2.5)
    }
    with pytest.raises(errors.InputError, match="share_trunk is for video files"):
        detect_video.run(_options(files, tmp_path, "0", share_trunk=True))
    with pytest.raises(errors.InputError, match="One camera at a time"):
        detect_video.run(_options(files, tmp_path, "0", "1"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"every": 0.0}, "--every must be at least 0.001"),
        ({"every": 1e-9}, "--every must be at least 0.001 seconds, not 1e-09"),
        ({"every": float("nan")}, "--every must be at least 0.001 seconds, not nan"),
        ({"frames_fps": 1e-9}, "--frames_fps must be 0, where no folder is a video, or 0.001 to"),
        ({"inputs": ()}, "Give at least one video"),
        ({"saved_model": "no/model"}, "'no/model' holds no saved_model.pb"),
        ({"inputs": ("no*.mp4",)}, "nothing fits this pattern"),
        ({"person_boxes": "no.csv"}, "--person_boxes: no.csv: there is no such file"),
        ({"person_boxes": __file__, "inputs": ("0",)}, "--person_boxes is for video files"),
        ({"precision": "half"}, "precision must be float32 or bfloat16, not 'half'"),
        ({"precision": "bfloat16"}, "was exported in float32, .* cannot be bfloat16 any more"),
    ],
)
def test_options_that_cannot_be(files, tmp_path, changes, message):
    values = {"inputs": ("v.mp4",), "output": str(tmp_path / "out"),
              "saved_model": str(files / "model"), **changes}  # fmt: skip
    with pytest.raises(errors.InputError, match=message):
        detect_video.run(detect_video.Options(**values))
    assert not (tmp_path / "out").exists()


def test_precision_of_the_model_changes_nothing_and_is_no_other_run(files, tmp_path, capsys):
    assert detect_video.run(_options(files, tmp_path, video=False)) == 0
    lines = (tmp_path / "clip.jsonl").read_bytes()
    capsys.readouterr()
    assert detect_video.run(_options(files, tmp_path, video=False, precision="FLOAT32")) == 0
    assert "1 video finished by an earlier run" in capsys.readouterr().out
    assert (tmp_path / "clip.jsonl").read_bytes() == lines


def test_errors_come_before_tensorflow_is_loaded():
    code = (
        "import sys\n"
        "from object_detection_ext import errors\n"
        "from object_detection_ext.tools import detect_video as d\n"
        "try:\n"
        "    d.run(d.Options(('no.mp4',), 'out', 'no'))\n"
        "except errors.InputError:\n"
        "    print('tensorflow' in sys.modules)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert result.stdout.strip() == "False"


def _run(*arguments):
    values = flags.FlagValues()
    detect_video.define_flags(values)
    rest = values(["detect_video", *arguments])
    with pytest.raises(SystemExit) as ended:
        detect_video.main(rest, values)
    return ended.value.code


def test_command_line(files, tmp_path, capsys):
    common = [f"--saved_model={files / 'model'}", f"--output={tmp_path}"]
    clip = str(files / "videos" / "clip.mp4")
    assert _run(*common, clip, "--every=2", "--score_threshold=0.6", "--novideo") == 0
    assert "1 person with 1 action on 2 keyframes" in capsys.readouterr().out
    assert _run(*common, "gone.mp4") == 1
    assert _run(*common) == 2
    assert "error: Give at least one video" in capsys.readouterr().err
    with pytest.raises(flags.Error, match="saved_model"):
        _run("v.mp4")
