# SPDX-License-Identifier: Apache-2.0
"""The converter end to end: what it writes, what it leaves out and says, and what it refuses."""

import io
import json
import pathlib
import re
import shutil

import av
import numpy as np
import pytest
import tensorflow as tf
from absl import flags
from PIL import Image

from object_detection_ext.data import annotations, clip_features
from object_detection_ext.tools import create_ava_records, make_toy_dataset
from object_detection_ext.visualization import drawing

ConversionError = create_ava_records.ConversionError


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    folder = tmp_path_factory.mktemp("toy")
    make_toy_dataset.make_dataset(
        folder, num_train=2, num_eval=0, seed=1, width=128, height=96, seconds=2.4, workers=1
    )
    return folder


def _options(toy, prefix, **changes):
    values = {
        "output": f"{prefix}@2",
        "annotations": str(toy / "train.csv"),
        "videos": str(toy / "videos"),
        "label_map": str(toy / "label_map.pbtxt"),
        "num_frames": 8,
        "fps": 12.5,
        **{key: str(v) if isinstance(v, pathlib.Path) else v for key, v in changes.items()},
    }
    return create_ava_records.Options(**values)


def _records(prefix, shards=2):
    context = {
        clip_features.MEDIA_ID: tf.io.FixedLenFeature([], tf.string),
        clip_features.IMAGE_HEIGHT: tf.io.FixedLenFeature([], tf.int64),
        clip_features.IMAGE_WIDTH: tf.io.FixedLenFeature([], tf.int64),
    }
    sequence = {
        clip_features.IMAGE_ENCODED: tf.io.FixedLenSequenceFeature([], tf.string),
        clip_features.IMAGE_TIMESTAMP: tf.io.FixedLenSequenceFeature([], tf.int64),
        clip_features.IMAGE_SOURCE_ID: tf.io.FixedLenSequenceFeature([], tf.string),
        clip_features.IS_ANNOTATED: tf.io.FixedLenSequenceFeature([], tf.int64),
        clip_features.LABEL_STRING: tf.io.RaggedFeature(tf.string),
    }
    for key in (clip_features.BOX_YMIN, clip_features.BOX_XMIN,
                clip_features.BOX_YMAX, clip_features.BOX_XMAX):  # fmt: skip
        sequence[key] = tf.io.RaggedFeature(tf.float32)
    result = {}
    for shard in range(shards):
        path = f"{prefix}-{shard:05d}-of-{shards:05d}"
        for data in tf.data.TFRecordDataset(path):
            parsed = tf.io.parse_single_sequence_example(data, context, sequence)
            fields = {key: value.numpy() for part in parsed[:2] for key, value in part.items()
                      if not isinstance(value, tf.RaggedTensor)}  # fmt: skip
            fields |= {key: value.to_list() for key, value in parsed[1].items()
                       if isinstance(value, tf.RaggedTensor)}  # fmt: skip
            fields["shard"] = shard
            middle = len(fields[clip_features.IS_ANNOTATED]) // 2
            result[fields[clip_features.IMAGE_SOURCE_ID][middle].decode()] = fields
    return result


def _rendered(toy, video_id, seconds):
    """Draws the toy scene afresh: what the frame must look like, from no decoder."""
    tasks = make_toy_dataset._plan(
        toy, "train", 2, {"seed": 1, "width": 128, "height": 96, "seconds": 2.4, "fps": 25}
    )
    task = next(t for t in tasks if t.path.stem == video_id)
    scene = make_toy_dataset.make_scene(task.company, np.random.default_rng(task.seed), task.size)
    return make_toy_dataset.render(scene, seconds)[0].astype(float)


def test_toy_videos_end_to_end(toy, tmp_path):
    report = create_ava_records.convert(_options(toy, tmp_path / "new" / "train", strict=True))
    records = _records(tmp_path / "new" / "train")
    label_map = annotations.read_label_map(toy / "label_map.pbtxt")
    labels = annotations.read_annotations(toy / "train.csv", label_map)
    assert len(records) == len(labels.keyframes) == 4
    assert {fields["shard"] for fields in records.values()} == {0, 1}
    for keyframe in labels.keyframes:
        fields = records[f"{keyframe.video_id},{int(keyframe.timestamp):04d}"]
        assert fields[clip_features.IS_ANNOTATED].tolist() == [0, 0, 0, 0, 1, 0, 0, 0]
        for name, index in (("YMIN", 0), ("XMIN", 1), ("YMAX", 2), ("XMAX", 3)):
            values = fields[getattr(clip_features, f"BOX_{name}")]
            assert [len(v) for v in values] == [0] * 4 + [len(keyframe.regions)] + [0] * 3
            expected = [region.box[index] for region in keyframe.regions]
            np.testing.assert_allclose(values[4], expected, atol=1e-6)
        names = [label_map[region.action_id].encode() for region in keyframe.regions]
        assert fields[clip_features.LABEL_STRING][4] == names
        assert (fields[clip_features.IMAGE_HEIGHT], fields[clip_features.IMAGE_WIDTH]) == (96, 128)
        for k, (jpeg, stamp) in enumerate(
            zip(fields[clip_features.IMAGE_ENCODED], fields[clip_features.IMAGE_TIMESTAMP],
                strict=True)
        ):  # fmt: skip
            wanted = min(keyframe.timestamp + (k - 4) / 12.5, 59 / 25)
            assert stamp == round(wanted * 1e6)
            picture = np.asarray(Image.open(io.BytesIO(jpeg)), float)
            drawn = _rendered(toy, keyframe.video_id, wanted)
            assert np.mean(np.abs(picture - drawn)) < 8
    rows = sum(len(keyframe.regions) for keyframe in labels.keyframes)
    assert report["totals"]["rows"] == rows == sum(report["rows_by_class"].values())
    assert report == json.loads((tmp_path / "new" / "train-report.json").read_text())
    assert not list((tmp_path / "new").glob("*.incomplete"))


def test_second_run_gives_the_same_bytes(toy, tmp_path):
    for name in ("a", "b"):
        create_ava_records.convert(_options(toy, tmp_path / name))
    for shard in ("-00000-of-00002", "-00001-of-00002"):
        first = (tmp_path / f"a{shard}").read_bytes()
        assert first and first == (tmp_path / f"b{shard}").read_bytes()


def test_short_side_and_quality(toy, tmp_path):
    create_ava_records.convert(_options(toy, tmp_path / "a", short_side=48, jpeg_quality=50))
    fields = next(iter(_records(tmp_path / "a").values()))
    assert Image.open(io.BytesIO(fields[clip_features.IMAGE_ENCODED][0])).size == (64, 48)
    assert (fields[clip_features.IMAGE_HEIGHT], fields[clip_features.IMAGE_WIDTH]) == (48, 64)


def _mixed(toy, tmp_path):
    """A folder with a good nested video, an unreadable one and a missing one; returns its CSV."""
    (tmp_path / "videos" / "nested").mkdir(parents=True)
    shutil.copy(toy / "videos" / "train_0000.mp4", tmp_path / "videos" / "nested" / "good.MP4")
    (tmp_path / "videos" / "good.srt").write_text("1\n00:00 --> 00:01\nhello\n")
    (tmp_path / "videos" / "bad.mp4").write_text("not a video")
    path = tmp_path / "a.csv"
    path.write_text(
        "good,1,0.1,0.1,0.5,0.5,1,0\ngood,1,0.1,0.1,0.5,0.5,5,0\ngood,2\n"
        "good,77,0.1,0.1,0.5,0.5,1,0\ngood,-1,0.1,0.1,0.5,0.5,1,0\n"
        "bad,1,0.1,0.1,0.5,0.5,1,0\ngone,1,0.1,0.1,0.5,0.5,1,0\ngone,2,0.1,0.1,0.5,0.5,1,0\n"
    )
    return path


def test_what_is_left_out_is_counted_and_told(toy, tmp_path):
    path = _mixed(toy, tmp_path)
    options = _options(toy, tmp_path / "a", annotations=path, videos=tmp_path / "videos")
    report = create_ava_records.convert(options)
    assert report["totals"]["keyframes"] == 7
    assert report["totals"]["keyframes_kept"] == 2
    assert report["totals"]["keyframes_without_people"] == 1
    assert report["totals"]["boxes"] == 1 and report["totals"]["rows"] == 2
    assert report["skipped_keyframes_by_reason"] == {
        "missing video": 2, "timestamp outside the video": 2, "unreadable video": 1,
    }  # fmt: skip
    assert sorted(skip["row"] for skip in report["skipped_keyframes"]) == [4, 5, 6, 7, 8]
    assert set(_records(tmp_path / "a")) == {"good,0001", "good,0002"}
    text = create_ava_records.summary(options, report)
    assert "Left out: 2 keyframes, missing video." in text
    # For each video and reason: the file, its first row there, and why.
    first = {(s["video_id"], s["reason"]): s["row"] for s in report["skipped_keyframes"][::-1]}
    assert len(first) > 1
    for (video_id, reason), row in first.items():
        assert f"{path}:{row}: {video_id}: {reason}" in text
    assert f"{tmp_path / 'a'}-?????-of-00002" in text


def test_strict_tells_all_before_the_first_decode(toy, tmp_path):
    path = _mixed(toy, tmp_path)
    options = _options(
        toy, tmp_path / "a", annotations=path, videos=tmp_path / "videos", strict=True
    )
    with pytest.raises(ConversionError) as caught:
        create_ava_records.convert(options)
    message = str(caught.value)
    assert "5 keyframes cannot be converted" in message
    assert f"{path}:4: good: timestamp 77 s is outside the video" in message
    assert f"{path}:5: good: timestamp -1 s is outside" in message
    assert f"{path}:6: bad: " in message and "bad.mp4: cannot be read as a video" in message
    assert f"{path}:7: gone: " in message and "(and 1 more keyframes)" in message
    assert not list(tmp_path.glob("a-*"))


def test_strict_tells_what_only_decoding_shows(toy, tmp_path):
    # A little beyond the end: the header alone does not decide.
    path = tmp_path / "a.csv"
    path.write_text("train_0000,1\ntrain_0000,2.6,0.1,0.1,0.5,0.5,1,0\n")
    options = _options(toy, tmp_path / "r", annotations=path, strict=True)
    with pytest.raises(ConversionError, match=r"a.csv:2: train_0000: .*beyond the video's end"):
        create_ava_records.convert(options)
    assert not list(tmp_path.glob("r-*"))


def test_nothing_converted_is_an_error(toy, tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("gone,1,0.1,0.1,0.5,0.5,1,0\n")
    with pytest.raises(ConversionError, match="No keyframe of .*a.csv could be converted"):
        create_ava_records.convert(_options(toy, tmp_path / "a", annotations=path))
    assert not list(tmp_path.glob("a-*"))


def test_two_videos_with_one_id(toy, tmp_path):
    (tmp_path / "videos" / "more").mkdir(parents=True)
    for name in ("v.mp4", "more/v.mkv"):
        shutil.copy(toy / "videos" / "train_0000.mp4", tmp_path / "videos" / name)
    path = tmp_path / "a.csv"
    path.write_text("v,1\nmore/v,1\n")
    options = _options(toy, tmp_path / "a", annotations=path, videos=tmp_path / "videos")
    report = create_ava_records.convert(options)
    assert [s["video_id"] for s in report["skipped_keyframes"]] == ["v"]
    assert "more than one video has this id" in report["skipped_keyframes"][0]["reason"]


def test_unknown_labels(toy, tmp_path):
    path = tmp_path / "a.csv"
    path.write_text(
        "train_0000,1,0.1,0.1,0.5,0.5,1,0\ntrain_0000,1,0.1,0.1,0.5,0.5,9,0\n"
        "train_0000,2,0.1,0.1,0.5,0.5,9,0\n"
    )
    with pytest.raises(annotations.AnnotationError, match="action_id 9 is not in the label map"):
        create_ava_records.convert(_options(toy, tmp_path / "a", annotations=path))
    options = _options(toy, tmp_path / "a", annotations=path, skip_unknown_labels=True, strict=True)
    report = create_ava_records.convert(options)
    assert report["skipped_rows_by_unknown_action_id"] == {"9": 2}
    assert report["skipped_keyframes_by_reason"] == {"unknown labels only": 1}
    assert report["totals"]["keyframes_kept"] == report["totals"]["rows"] == 1
    assert "9 (2 rows)" in create_ava_records.summary(options, report)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"output": "records/train"}, "must be PREFIX@N"),
        ({"output": "records/train@0"}, "must be PREFIX@N"),
        ({"num_frames": 0}, "--num_frames must be at least 1, not 0"),
        ({"fps": 0.0}, "--fps must be more than 0"),
        ({"fps": float("nan")}, "--fps must be more than 0"),
        ({"short_side": -1}, "--short_side must be at least 0"),
        ({"jpeg_quality": 101}, "--jpeg_quality must be 1 to 100, not 101"),
        ({"videos": "no/such/folder"}, "--videos 'no/such/folder' is not a folder"),
    ],
)
def test_options_out_of_range(toy, tmp_path, changes, message):
    with pytest.raises(ConversionError, match=message):
        create_ava_records.convert(_options(toy, tmp_path / "a", **changes))


def test_a_failure_leaves_earlier_records_alone(toy, tmp_path, monkeypatch):
    create_ava_records.convert(_options(toy, tmp_path / "a"))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def fail(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(clip_features, "make_clip_example", fail)
    with pytest.raises(KeyboardInterrupt):
        create_ava_records.convert(_options(toy, tmp_path / "a"))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_rates_and_sizes_may_differ_between_videos(toy, tmp_path):
    (tmp_path / "videos").mkdir()
    for name, fps, size in (("a", 24000 / 1001, (50, 70)), ("b", 60, (64, 64))):
        frames = (np.full((*size, 3), i, np.uint8) for i in range(int(2 * fps)))
        drawing.write_video(tmp_path / "videos" / f"{name}.mp4", frames, fps)
    path = tmp_path / "a.csv"
    path.write_text("a,1\nb,1\n")
    options = _options(toy, tmp_path / "r", annotations=path, videos=tmp_path / "videos")
    report = create_ava_records.convert(options)
    assert report["videos"]["a"]["fps"] == pytest.approx(23.976, abs=1e-3)
    assert report["videos"]["a"]["size"] == [50, 70]
    assert report["videos"]["b"]["fps"] == pytest.approx(60)
    assert set(_records(tmp_path / "r")) == {"a,0001", "b,0001"}


def _run(*arguments):
    values = flags.FlagValues()
    create_ava_records.define_flags(values)
    values(["create_ava_records", *arguments])
    create_ava_records.main(["create_ava_records"], values)


def test_command_line(toy, tmp_path, capsys):
    common = [f"--annotations={toy / 'train.csv'}", f"--videos={toy / 'videos'}",
              f"--label_map={toy / 'label_map.pbtxt'}", f"--output={tmp_path / 'a'}@1"]  # fmt: skip
    with pytest.raises(SystemExit, match="error: --fps must be"):
        _run(*common, "--fps=-1")
    _run(*common, "--fps=12.5", "--num_frames=4", "--short_side=48", "--strict")
    output = capsys.readouterr().out
    assert re.search(r"records: 4/4 keyframes, [\d.]+ per s, 0 s left", output)
    assert "Converted 4 of 4 keyframes" in output and "tf_record_input_reader" in output
    options = json.loads((tmp_path / "a-report.json").read_text())["options"]
    assert (options["fps"], options["num_frames"], options["short_side"]) == (12.5, 4, 48)
    assert options["strict"] is True and options["jpeg_quality"] == 92
    (fields, *_) = _records(tmp_path / "a", shards=1).values()
    assert len(fields[clip_features.IMAGE_ENCODED]) == 4


def test_real_videos(shared_dir, tmp_path):
    options = create_ava_records.Options(
        annotations=str(shared_dir / "media/people_annotations.csv"),
        videos=str(shared_dir / "media"),
        label_map=str(shared_dir / "reference/ava_action_list_v2.1_60.pbtxt"),
        output=f"{tmp_path / 'real'}@2",
        num_frames=16,
        fps=12.5,
        short_side=112,
        strict=True,
    )
    report = create_ava_records.convert(options)
    assert report["totals"]["keyframes_kept"] == report["totals"]["keyframes"] == 14
    assert report["totals"]["rows"] == 48
    assert len(_records(tmp_path / "real")) == 14


def _video_with_broken_jpegs(path, broken):
    """Writes 4 s of MJPEG at 25 fps whose frames at the given numbers are no JPEGs any more."""
    rng = np.random.default_rng(0)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p"
        for _ in range(100):
            pixels = rng.integers(0, 255, (48, 64, 3), np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, "rgb24")))
        container.mux(stream.encode(None))
    with av.open(str(path)) as container:
        spans = [(p.pos, p.size) for p in container.demux(video=0) if p.size]
    data = bytearray(path.read_bytes())
    for number in broken:
        position, size = spans[number]
        data[position + 16 : position + size - 16] = bytes(size - 32)
    path.write_bytes(data)


def test_broken_jpegs_are_told_and_an_error_under_strict(toy, tmp_path):
    folder = tmp_path / "videos"
    folder.mkdir()
    _video_with_broken_jpegs(folder / "v.avi", broken=range(48, 52))
    path = tmp_path / "v.csv"
    # Both keyframes have whole clips: what is broken lies between them.
    path.write_text("v,1,0.1,0.1,0.5,0.9,1,0\nv,3,0.1,0.1,0.5,0.9,1,0\n")
    changes = {"annotations": path, "videos": folder, "fps": 25.0}
    options = _options(toy, tmp_path / "a", **changes)
    report = create_ava_records.convert(options)
    assert report["totals"]["keyframes_kept"] == 2
    assert report["videos"]["v"]["damaged_frames"] >= 4
    assert "Damaged parts were left out of 1 videos" in create_ava_records.summary(options, report)
    with pytest.raises(ConversionError, match=r"--strict.*v\.avi: .*cannot be decoded"):
        create_ava_records.convert(_options(toy, tmp_path / "b", strict=True, **changes))
    assert not list(tmp_path.glob("b-*"))
