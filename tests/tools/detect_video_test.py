# SPDX-License-Identifier: Apache-2.0
"""Detection on video with a tiny SavedModel that reads its answer off the clip's pixels."""

import csv
import re
import subprocess
import sys

import av
import numpy as np
import pytest
import tensorflow as tf
from absl import flags
from PIL import Image

from object_detection_ext.data import annotations, video_reader
from object_detection_ext.tools import detect_video
from object_detection_ext.visualization import drawing

_LABELS = {1: "stand", 3: "hand wave"}
_BOX = [0.2, 0.3, 0.8, 0.6]
_NEARLY = [0.21, 0.3, 0.8, 0.61]
_FAR = [0.1, 0.7, 0.5, 0.95]


class _FakeDetector(tf.Module):
    """Scores follow the brightness of the middle frame, so that the right clip must come in."""

    @tf.function(input_signature=[tf.TensorSpec([1, 4, None, None, 3], tf.uint8)])
    def detect(self, input_tensor):
        score = tf.reduce_mean(tf.cast(input_tensor[0, 2], tf.float32)) / 255.0
        scores = tf.stack([score, 0.9 * score, 0.5 * score, 0.1, 0.95])[None]
        return {
            "detection_boxes": tf.constant([[_BOX, _NEARLY, _FAR, _FAR, _BOX]]),
            "detection_scores": scores,
            "detection_classes": tf.constant([[1.0, 3.0, 1.0, 3.0, 2.0]]),
            "detection_multiclass_scores": tf.zeros([1, 5, 4]),
            "num_detections": tf.constant([5.0]),
        }


class _ImageModel(tf.Module):
    @tf.function(input_signature=[tf.TensorSpec([1, None, None, 3], tf.uint8)])
    def detect(self, input_tensor):
        return {"detection_boxes": tf.cast(input_tensor, tf.float32)}


class _BoxModel(tf.Module):
    @tf.function(
        input_signature=[
            tf.TensorSpec([1, 4, None, None, 3], tf.uint8),
            tf.TensorSpec([1, None, 4], tf.float32),
        ]
    )
    def detect(self, input_tensor, boxes):
        return {"detection_boxes": boxes + tf.reduce_mean(tf.cast(input_tensor, tf.float32))}


class _OpenLengthModel(tf.Module):
    @tf.function(input_signature=[tf.TensorSpec([1, None, None, None, 3], tf.uint8)])
    def detect(self, input_tensor):
        count = tf.cast(tf.shape(input_tensor)[1:2], tf.float32)
        return {
            "detection_boxes": tf.constant([[_BOX]]),
            "detection_scores": count[None] / 10.0,
            "detection_classes": tf.constant([[1.0]]),
            "num_detections": tf.constant([1.0]),
        }


def _save(module, folder):
    tf.saved_model.save(module, str(folder), signatures={"serving_default": module.detect})
    return str(folder)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("detect")
    _save(_FakeDetector(), folder / "model")
    frames = (np.full((48, 64, 3), 4 * i, np.uint8) for i in range(60))
    drawing.write_video(folder / "clip.mp4", frames, 20)
    items = [f"item {{ name: '{name}' id: {i} }}\n" for i, name in _LABELS.items()]
    (folder / "l.pbtxt").write_text("".join(items))
    return folder


def _options(files, output, **changes):
    values = {"saved_model": str(files / "model"), "video": str(files / "clip.mp4"),
              "label_map": str(files / "l.pbtxt"), "output": str(output), "fps": 20.0}  # fmt: skip
    return detect_video.Options(**{**values, **changes})


def test_video_to_detections(files, tmp_path, capsys):
    paths = detect_video.run(_options(files, tmp_path / "out", score_threshold=0.2))
    rows = list(csv.reader(open(paths["detections"])))
    # Frame 20 t has brightness 80 t: at 0, 1 and 2 s the scores are 0, 0.31 and 0.63.
    assert [(row[0], row[1], row[6]) for row in rows] == [
        ("clip", "0001", "1"), ("clip", "0001", "3"),
        ("clip", "0002", "1"), ("clip", "0002", "3"), ("clip", "0002", "1"),
    ]  # fmt: skip
    scores = np.array([float(row[7]) for row in rows])
    np.testing.assert_allclose(scores, np.array([80, 72, 160, 144, 80]) / 255, atol=0.02)
    # A person has one box, that of the best detection, written as x1,y1,x2,y2.
    assert rows[0][2:6] == rows[1][2:6] == ["0.3000", "0.2000", "0.6000", "0.8000"]
    assert rows[4][2:6] == ["0.7000", "0.1000", "0.9500", "0.5000"]
    with av.open(paths["video"]) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(frames) == 60 and frames[0].shape == (360, 480, 3)
    # Until 0.5 s the nearest keyframe is the empty one, then the box of 1 s shows.
    assert _has_box(frames[12]) and _has_box(frames[59]) and not _has_box(frames[5])
    picture = np.asarray(Image.open(paths["picture"]))
    assert picture.shape == (360, 480, 3)
    assert abs(int(picture[20, 20, 0]) - 160) < 6
    output = capsys.readouterr().out
    assert "3 people with 5 actions on 3 keyframes" in output
    assert paths["video"] in output
    assert re.search(r"detection: 3/3 keyframes, [\d.]+ per s, 0 s left", output)


def _has_box(frame):
    """Tells whether the left edge of the box stands out against the gray beside it."""
    edge = frame[200:280, round(0.3 * 480) - 1 : round(0.3 * 480) + 3].astype(int)
    return bool(np.abs(edge[..., 0] - edge[..., 2]).max() > 60)


def test_every_and_short_side(files, tmp_path):
    options = _options(files, tmp_path, every=0.5, short_side=24, score_threshold=0.0)
    model = detect_video.ClipModel(options.saved_model)
    seen = []

    class Spy:
        num_frames = model.num_frames

        def __call__(self, clip):
            seen.append(clip)
            return model(clip)

    results = detect_video.detect(Spy(), options, options.check(), _LABELS)
    assert [result.seconds for result in results] == [0.0, 0.5, 1.0, 1.5, 2.0, 2.5]
    assert {clip.shape for clip in seen} == {(4, 24, 32, 3)}
    # 20 frames per second: the clip at 1 s holds frames 18 to 21.
    np.testing.assert_allclose(seen[2].mean((1, 2, 3)), [72, 76, 80, 84], atol=3)


def test_open_clip_length(files, tmp_path):
    path = _save(_OpenLengthModel(), tmp_path / "open")
    with pytest.raises(detect_video.DetectionError, match="give it as --num_frames"):
        detect_video.ClipModel(path)
    model = detect_video.ClipModel(path, 7)
    _, scores, _ = model(np.zeros((7, 8, 8, 3), np.uint8))
    assert scores[0] == pytest.approx(0.7)
    with pytest.raises(detect_video.DetectionError, match="clips of 4 frames, but --num_frames is"):
        detect_video.ClipModel(str(files / "model"), 7)


def test_models_that_take_no_clips(tmp_path):
    path = _save(_ImageModel(), tmp_path / "image")
    with pytest.raises(detect_video.DetectionError, match=r"must take input_tensor uint8 \[1, T"):
        detect_video.ClipModel(path)
    path = _save(_BoxModel(), tmp_path / "boxes")
    with pytest.raises(detect_video.DetectionError, match="classifies boxes that it is given"):
        detect_video.ClipModel(path)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "saved_model.pb").write_bytes(b"nothing")
    with pytest.raises(detect_video.DetectionError, match="cannot be loaded as a SavedModel"):
        detect_video.ClipModel(str(tmp_path / "broken"))


def test_iou():
    assert detect_video.iou(np.array([0, 0, 1, 1.0]), np.array([0, 0, 1, 1.0])) == 1
    assert detect_video.iou(np.array([0, 0, 1, 1.0]), np.array([0, 0.5, 1, 1.5])) == pytest.approx(
        1 / 3
    )
    assert detect_video.iou(np.array([0, 0, 1, 1.0]), np.array([2, 2, 3, 3.0])) == 0


def test_grouping_does_not_depend_on_the_order_of_detections():
    boxes = np.array([_BOX, _NEARLY, _FAR, _BOX, [0.5, 1.1, 0.7, 1.3]])
    scores, classes = np.array([0.6, 0.8, 0.5, 0.4, 0.9]), np.array([1, 3, 1, 3, 1])
    for order in (range(5), [4, 3, 2, 1, 0], [2, 0, 4, 1, 3]):
        order = list(order)
        people = detect_video.group_people(
            boxes[order], scores[order], classes[order], action_ids=[1, 3], score_threshold=0.3
        )
        # The box outside the frame is nobody; the lower score of an action that is there is not
        # shown a second time.
        assert [person.scores for person in people] == [{3: 0.8, 1: 0.6}, {1: 0.5}]
        np.testing.assert_allclose(people[0].box, _NEARLY)
        # The numbers of the detections that the people have their boxes from.
        assert [order[person.detection] for person in people] == [1, 2]


def test_clearest_keyframe():
    def result(*scores):
        people = [detect_video.Person(np.array(_BOX), {1: score}) for score in scores]
        return detect_video.KeyframeResult(0.0, people)

    assert detect_video.clearest([result(0.9), result(0.6, 0.7), result()]) == 1
    assert detect_video.clearest([result(), result(), result()]) == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"saved_model": "no/model"}, "--saved_model 'no/model' holds no saved_model.pb"),
        ({"label_map": "no.pbtxt"}, "--label_map 'no.pbtxt': there is no such file"),
        ({"every": 0.0}, "--every must be more than 0"),
        ({"score_threshold": 1.5}, r"--score_threshold must be in \[0, 1\], not 1.5"),
        ({"fps": 0.0}, "--fps must be more than 0"),
        ({"short_side": -1}, "--short_side must be at least 0"),
    ],
)
def test_options_out_of_range(files, tmp_path, changes, message):
    with pytest.raises(detect_video.DetectionError, match=message):
        detect_video.run(_options(files, tmp_path / "out", **changes))
    assert not (tmp_path / "out").exists()


def test_bad_input_files(files, tmp_path):
    with pytest.raises(video_reader.VideoError, match="none.mp4: there is no such"):
        detect_video.run(_options(files, tmp_path, video="none.mp4"))
    (tmp_path / "bad.pbtxt").write_text("hello")
    with pytest.raises(annotations.AnnotationError, match="not a label map"):
        detect_video.run(_options(files, tmp_path, label_map=str(tmp_path / "bad.pbtxt")))


def test_errors_come_before_tensorflow_is_loaded(tmp_path):
    code = (
        "import sys\n"
        "from object_detection_ext.tools import detect_video as d\n"
        "try:\n"
        "    d.run(d.Options('no', 'no.mp4', 'no', 'out'))\n"
        "except d.DetectionError:\n"
        "    print('tensorflow' in sys.modules)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert result.stdout.strip() == "False"


def _run(*arguments):
    values = flags.FlagValues()
    detect_video.define_flags(values)
    values(["detect_video", *arguments])
    detect_video.main(["detect_video"], values)


def test_command_line(files, tmp_path, capsys):
    common = [f"--saved_model={files / 'model'}", f"--label_map={files / 'l.pbtxt'}",
              f"--output={tmp_path}", "--fps=20"]  # fmt: skip
    with pytest.raises(SystemExit, match="error: gone.mp4: there is no such video"):
        _run(*common, "--video=gone.mp4")
    _run(*common, f"--video={files / 'clip.mp4'}", "--every=2", "--score_threshold=0.6")
    assert "1 people with 1 actions on 2 keyframes" in capsys.readouterr().out
    assert (tmp_path / "clip_detections.mp4").is_file()
    with pytest.raises(flags.Error, match="saved_model"):
        _run("--video=v.mp4")
