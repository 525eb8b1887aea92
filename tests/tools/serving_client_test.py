# SPDX-License-Identifier: Apache-2.0
"""A video to rows through servers on real sockets that run a SavedModel.

Shapes: T frames, H W pixels.
"""

import csv
import dataclasses
import re

import numpy as np
import pytest
import tensorflow as tf
from absl import flags

from object_detection_ext import errors, exporting
from object_detection_ext.ava import tables
from object_detection_ext.data import video_info, video_reader
from object_detection_ext.serving import inputs
from object_detection_ext.tools import serving_client
from object_detection_ext.visualization import drawing
from tests.serving import certificates, fake_servers

_FPS = 20
_CLIP = exporting.ClipDescription(
    input_type="encoded_clip", num_frames=fake_servers.T, fps=20.0, record_stride=1, max_boxes=3
)


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    """3 s in which frame k has the level 4 k: at 0, 1 and 2 s levels are 0, 80 and 160."""
    path = tmp_path_factory.mktemp("video") / "ramp.mp4"
    drawing.write_video(path, (np.full((48, 64, 3), 4 * k, np.uint8) for k in range(60)), _FPS)
    return str(path)


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "localhost")


def _assets(folder, label_map="item { id: 1 name: 'stand' } item { id: 3 name: 'wave' }", **clip):
    """A folder that holds what a SavedModel's assets hold."""
    (folder / "assets").mkdir(parents=True)
    (folder / "assets" / "clip.json").write_text(dataclasses.replace(_CLIP, **clip).to_json())
    (folder / "assets" / "label_map.pbtxt").write_text(label_map)
    return str(folder)


def _options(video, output, **changes):
    values = {"video": video, "output": str(output), "server": "localhost:1", "fps": 20.0}
    return serving_client.Options(**{**values, **changes})


@pytest.mark.parametrize("input_type", ["clip_tensor", "encoded_clip", "tf_sequence_example"])
@pytest.mark.parametrize("protocol", ["server", "rest"])
def test_video_to_rows(video, tmp_path, capsys, protocol, input_type):
    served = fake_servers.rest_server if protocol == "rest" else fake_servers.grpc_server
    saved_model = _assets(tmp_path / "m", input_type=input_type, record_stride=2)
    model = fake_servers.model(input_type)
    before = len(model.requests)
    with served(model) as address:
        options = {"server": "", protocol: address, "saved_model": saved_model, "fps": 0.0}
        path = serving_client.run(
            _options(video, tmp_path / "out", batch_size=2, score_threshold=0.2, **options)
        )
    assert path == str(tmp_path / "out" / "ramp_detections.csv")
    assert [each.name for each in (tmp_path / "out").iterdir()] == ["ramp_detections.csv"]
    rows = list(csv.reader(open(path)))
    # The scores are the brightness, its half (class 3) and its quarter (class 2, which the label
    # map does not have).
    assert [(row[0], row[1], row[6]) for row in rows] == [
        ("ramp", "0001", "1"), ("ramp", "0002", "1"), ("ramp", "0002", "3")
    ]  # fmt: skip
    np.testing.assert_allclose([float(row[7]) for row in rows], [80 / 255, 160 / 255, 80 / 255],
                               atol=0.02)  # fmt: skip
    assert rows[0][2:6] == ["0.7000", "0.1000", "0.9500", "0.5000"]  # x1,y1,x2,y2
    assert rows[2][2:6] == ["0.3000", "0.2000", "0.6000", "0.8000"]
    assert len(tables.read_csv(path).rows) == 3
    sizes = [each.inputs["input_tensor"].tensor_shape.dim[0].size for each in model.requests]
    assert sizes[before:] == [2, 1]
    said = capsys.readouterr().out
    assert f"3 rows on 3 keyframes (score at least 0.2): {path}" in said
    assert re.search(r"detection: 3/3 keyframes, [\d.]+ per s, 0 s left", said)


def test_records_have_the_frames_that_the_model_s_stride_takes(video, tmp_path):
    model = fake_servers.model("tf_sequence_example")
    saved_model = _assets(
        tmp_path / "m", input_type="tf_sequence_example", record_stride=2, fps=10.0
    )
    with fake_servers.grpc_server(model) as address:
        serving_client.run(
            _options(video, tmp_path, server=address, saved_model=saved_model, fps=0.0, every=2)
        )
    (record,) = tf.make_ndarray(model.requests[-1].inputs["input_tensor"])
    lists = tf.train.SequenceExample.FromString(record).feature_lists.feature_list
    levels = [
        tf.io.decode_jpeg(frame.bytes_list.value[0]).numpy().mean()
        for frame in lists["image/encoded"].feature
    ]
    # Clips of 4 frames at 10 a second are every second frame of 8 at 20; that of 2 s is frame 40.
    np.testing.assert_allclose(levels, 4 * np.arange(36, 44), atol=3)


def test_frames_are_shrunk_and_keyframes_as_asked(video, tmp_path):
    model = fake_servers.model("clip_tensor")
    before = len(model.requests)
    with fake_servers.grpc_server(model) as address:
        serving_client.run(_options(video, tmp_path, server=address, every=0.5, short_side=24))
    clips = [tf.make_ndarray(each.inputs["input_tensor"]) for each in model.requests[before:]]
    assert [clip.shape for clip in clips] == [(1, fake_servers.T, 24, 32, 3)] * 6
    # 20 frames a second: the clip at 1 s holds frames 18 to 21.
    np.testing.assert_allclose(clips[2][0].mean((1, 2, 3)), [72, 76, 80, 84], atol=3)


def test_keyframes_that_cannot_be_read_are_told(video, tmp_path, capsys, monkeypatch):
    read = video_reader.ClipReader.clips

    def damaged(reader, times):
        for clip in read(reader, times):
            if clip.keyframe_time == 1.0:
                yield video_reader.Clip(1.0, (), np.empty(0), "damaged around 1 s")
            else:
                yield clip

    monkeypatch.setattr(video_reader.ClipReader, "clips", damaged)
    with fake_servers.grpc_server(fake_servers.model("encoded_clip")) as address:
        path = serving_client.run(_options(video, tmp_path, server=address, score_threshold=0.0))
    assert "detection: left out: damaged around 1 s\n" in capsys.readouterr().out
    assert {row[1] for row in csv.reader(open(path))} == {"0000", "0002"}


@pytest.mark.parametrize("protocol", ["server", "rest"])
def test_encrypted_connection(video, tmp_path, protocol):
    certificate = certificates.make(tmp_path, "localhost")
    served = fake_servers.rest_server if protocol == "rest" else fake_servers.grpc_server
    options = {"server": "", "tls": protocol == "server", "ca_certificate": certificate.public}
    with served(fake_servers.model("encoded_clip"), certificate) as address:
        path = serving_client.run(
            _options(video, tmp_path / "out", every=2, **{**options, protocol: address})
        )
    assert len(list(csv.reader(open(path)))) == 2


def test_without_assets_all_ids_are_kept_and_the_rate_is_told(video, tmp_path, capsys):
    with fake_servers.grpc_server(fake_servers.model("encoded_clip")) as address:
        path = serving_client.run(
            _options(video, tmp_path, server=address, fps=0.0, every=2, score_threshold=0.1)
        )
    assert sorted(row[6] for row in csv.reader(open(path))) == ["1", "2", "3"]
    assert "Clips at 25 frames a second; if others are right, give --fps" in capsys.readouterr().out


def test_what_went_wrong_on_the_way_leaves_no_whole_file(video, tmp_path, monkeypatch):
    model = fake_servers.model("encoded_clip")
    answer, questions = model.predict, []

    def dies_at_the_second(request):
        questions.append(request)
        if len(questions) > 1:
            raise fake_servers.RefusedError(fake_servers.grpc.StatusCode.UNAVAILABLE, "gone")
        return answer(request)

    monkeypatch.setattr(model, "predict", dies_at_the_second)
    with fake_servers.grpc_server(model) as address:
        with pytest.raises(inputs.ServingError, match="no server answers.*gone"):
            serving_client.run(_options(video, tmp_path, server=address))
    assert not list(tmp_path.iterdir())


def test_models_that_do_not_fit(video, tmp_path):
    with fake_servers.grpc_server(fake_servers.model("clip_and_boxes")) as address:
        with pytest.raises(errors.InputError, match="'vat' classifies boxes that it is given"):
            serving_client.run(_options(video, tmp_path, server=address))
    with fake_servers.grpc_server(fake_servers.model("tf_sequence_example")) as address:
        with pytest.raises(errors.InputError, match="SequenceExamples.*as --saved_model"):
            serving_client.run(_options(video, tmp_path, server=address))


def test_lengths_must_agree(video, tmp_path):
    options = _options(video, tmp_path, num_frames=7)
    with pytest.raises(errors.InputError, match="4 by the server, 7 by --num_frames"):
        serving_client.plan(options, inputs.ModelInput("encoded_clip", 4))
    plan = serving_client.plan(options, inputs.ModelInput("encoded_clip", None))
    assert plan == serving_client.ClipPlan("encoded_clip", 7, 20.0)
    other = _options(video, tmp_path, saved_model=_assets(tmp_path / "m", num_frames=64))
    with pytest.raises(errors.InputError, match="4 by the server, 64 by --saved_model"):
        serving_client.plan(other, inputs.ModelInput("encoded_clip", 4))
    with pytest.raises(errors.InputError, match="give it as --num_frames"):
        serving_client.plan(_options(video, tmp_path), inputs.ModelInput("encoded_clip", None))


def test_broken_assets_are_told(video, tmp_path):
    saved_model = _assets(tmp_path / "m")
    for text, problem in (('{"T": 4}', "no input_type"), ("[]", "list"), ("?", "Expecting value")):
        (tmp_path / "m" / "assets" / "clip.json").write_text(text)
        options = _options(video, tmp_path, saved_model=saved_model)
        with pytest.raises(errors.InputError, match=f"clip.json: not a clip desc.*{problem}"):
            serving_client.plan(options, inputs.ModelInput("encoded_clip", 4))


def test_boxes_outside_and_padding_give_no_rows():
    detections = {
        "num_detections": np.float32(3),
        "detection_boxes": np.float32(
            [[-0.1, 0.2, 0.5, 1.2], [0.1, 1.1, 0.5, 1.3], [0, 0, 1, 1], [0, 0, 1, 1]]
        ),
        "detection_scores": np.float32([0.5, 0.9, 0.7, 0.8]),
        "detection_classes": np.float32([1, 1, 2, 2]),
    }
    found = serving_client.rows("v", 1.5, detections, score_threshold=0.5, known_ids=None)
    assert [(video, time, box.tolist(), action) for video, time, box, action, _ in found] == [
        ("v", 1.5, [0, 0, 1, 1], 2),
        ("v", 1.5, [0, np.float32(0.2), 0.5, 1], 1),
    ]
    assert [row[-1] for row in found] == [np.float32(0.7), 0.5]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rest": "http://localhost:8501"}, "give either --server HOST:PORT .* or --rest"),
        ({"server": ""}, "give either --server"),
        ({"server": "http://localhost:8500"}, "--server must be HOST:PORT such as localhost:8500"),
        ({"server": "localhost"}, "--server must be HOST:PORT"),
        ({"server": "", "rest": "localhost:8501"}, "--rest must begin with http://"),
        ({"server": "", "rest": "https://x:1", "tls": True}, "--tls is for --server"),
        ({"ca_certificate": "ca.pem"}, "--ca_certificate is for --tls, and for --rest https"),
        ({"server": "", "rest": "http://x:1", "ca_certificate": "a"}, "--ca_certificate is for"),
        ({"tls": True, "ca_certificate": "no.pem"}, "no.pem: the certificate cannot be read: No"),
        ({"model_name": ""}, "--model_name must not be empty"),
        ({"saved_model": "no/model"}, "'no/model' has no assets/clip.json; give the folder"),
        ({"label_map": "no.pbtxt"}, "--label_map 'no.pbtxt': there is no such file"),
        ({"every": 0.0}, "--every must be at least 0.001"),
        ({"every": 1e-9}, "--every must be at least 0.001 seconds, not 1e-09"),
        ({"batch_size": 0}, "--batch_size must be at least 1, not 0"),
        ({"score_threshold": 1.5}, r"--score_threshold must be in \[0, 1\], not 1.5"),
        ({"fps": -1.0}, "--fps must be 0, for the model's own, or 0.001"),
        ({"num_frames": -1}, "--num_frames must be at least 0"),
        ({"short_side": -1}, "--short_side must be at least 0"),
        ({"timeout": 0.0}, "--timeout must be more than 0"),
        ({"max_answer_mb": 0}, "--max_answer_mb must be 1 to 2047, not 0"),
    ],
)
def test_options_out_of_range(video, tmp_path, changes, message):
    with pytest.raises(errors.InputError, match=message):
        serving_client.run(_options(video, tmp_path / "out", **changes))
    assert not (tmp_path / "out").exists()


def test_missing_video_is_told(tmp_path):
    with pytest.raises(video_info.VideoError, match="none.mp4: there is no such"):
        serving_client.run(_options("none.mp4", tmp_path))


def _run(*arguments):
    values = flags.FlagValues()
    serving_client.define_flags(values)
    values(["serving_client", *arguments])
    serving_client.main(["serving_client"], values)


def test_command_line(video, tmp_path, capsys):
    common = [f"--video={video}", f"--output={tmp_path}", "--fps=20", "--score_threshold=0.6"]
    with pytest.raises(SystemExit) as ended:
        _run(*common, "--server=localhost:1")
    assert ended.value.code == 1
    assert "error: no server answers at localhost:1. Is it running" in capsys.readouterr().err
    with fake_servers.rest_server(fake_servers.model("encoded_clip")) as address:
        _run(*common, f"--rest={address}", "--model_name=vat", "--every=2", "--batch_size=8")
    assert "1 row on 2 keyframes (score at least 0.6)" in capsys.readouterr().out
    with pytest.raises(SystemExit) as ended:
        _run(*common, "--server=localhost:1", "--tls", f"--ca_certificate={__file__}")
    assert ended.value.code == 2
    assert "serving_client_test.py: holds no certificate" in capsys.readouterr().err
    with pytest.raises(flags.Error, match="video"):
        _run("--output=out")
