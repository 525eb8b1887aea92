# SPDX-License-Identifier: Apache-2.0
"""The converter end to end: what it writes, what it leaves out and says, and what it refuses."""

import io
import json
import shutil

import av
import numpy as np
import pytest
from PIL import Image

from object_detection_ext.ava import annotations, faults, label_maps
from object_detection_ext.conversion import beam_pipeline, plan
from object_detection_ext.conversion import convert as convert_lib
from object_detection_ext.conversion import manifest as manifest_lib
from object_detection_ext.conversion import options as options_lib
from object_detection_ext.data import clip_features
from object_detection_ext.tools import make_toy_dataset
from object_detection_ext.visualization import drawing
from tests import toy_records

ConversionError = options_lib.ConversionError


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    return toy_records.make_toy(tmp_path_factory.mktemp("toy"))


def _rendered(toy, video_id, seconds):
    """Draws the toy scene afresh: what the frame must look like, from no decoder."""
    tasks = make_toy_dataset._plan(
        toy, "train", 2, {"seed": 1, "width": 128, "height": 96, "seconds": 2.4, "fps": 25}
    )
    task = next(t for t in tasks if t.path.stem == video_id)
    scene = make_toy_dataset.make_scene(task.company, np.random.default_rng(task.seed), task.size)
    return make_toy_dataset.render(scene, seconds)[0].astype(float)


def test_toy_videos_end_to_end(toy, tmp_path):
    manifest = toy_records.convert(
        toy_records.options(toy, tmp_path / "new" / "train", strict=True)
    )
    records = toy_records.read(tmp_path / "new" / "train")
    label_map = label_maps.read_label_map(toy / "label_map.pbtxt")
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
    assert manifest["totals"]["rows"] == rows == sum(manifest["rows_by_class"].values())
    assert manifest == json.loads((tmp_path / "new" / "train-manifest.json").read_text())
    assert not list((tmp_path / "new").glob("*.incomplete"))


def test_second_run_gives_the_same_bytes(toy, tmp_path):
    for name in ("a", "b"):
        toy_records.convert(toy_records.options(toy, tmp_path / name))
    for shard in ("-00000-of-00002", "-00001-of-00002"):
        first = (tmp_path / f"a{shard}").read_bytes()
        assert first and first == (tmp_path / f"b{shard}").read_bytes()


def test_short_side_and_quality(toy, tmp_path):
    toy_records.convert(toy_records.options(toy, tmp_path / "a", short_side=48, jpeg_quality=50))
    fields = next(iter(toy_records.read(tmp_path / "a").values()))
    assert Image.open(io.BytesIO(fields[clip_features.IMAGE_ENCODED][0])).size == (64, 48)
    assert (fields[clip_features.IMAGE_HEIGHT], fields[clip_features.IMAGE_WIDTH]) == (48, 64)


def test_small_frames_are_not_enlarged(toy, tmp_path):
    toy_records.convert(toy_records.options(toy, tmp_path / "a", short_side=4000))
    fields = next(iter(toy_records.read(tmp_path / "a").values()))
    with av.open(str(toy / "videos" / "train_0000.mp4")) as container:
        (video,) = container.streams.video
    size = Image.open(io.BytesIO(fields[clip_features.IMAGE_ENCODED][0])).size
    assert size == (video.width, video.height)


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
    options = toy_records.options(toy, tmp_path / "a", annotations=path, videos=tmp_path / "videos")
    manifest = toy_records.convert(options)
    assert manifest["totals"]["keyframes"] == 7
    assert manifest["totals"]["keyframes_kept"] == 2
    assert manifest["totals"]["keyframes_without_people"] == 1
    assert manifest["totals"]["boxes"] == 1 and manifest["totals"]["rows"] == 2
    assert manifest["skipped_keyframes_by_reason"] == {
        "missing video": 2, "timestamp outside the video": 2, "unreadable video": 1,
    }  # fmt: skip
    of_videos = manifest["videos"]
    assert of_videos["gone"] == {
        "path": None, "keyframes_kept": 0, "keyframes_skipped": {"missing video": 2}
    }  # fmt: skip
    assert of_videos["good"]["keyframes"] == 4 and of_videos["good"]["keyframes_kept"] == 2
    assert of_videos["good"]["keyframes_skipped"] == {"timestamp outside the video": 2}
    assert of_videos["good"]["fps"] == pytest.approx(25)
    assert of_videos["good"]["duration"] == pytest.approx(2.4, abs=0.05)
    assert 51 <= of_videos["good"]["decoded_frames"] <= 60
    assert manifest["versions"]["av"] == av.__version__ and manifest["totals"]["videos"] == 1
    assert sorted(skip["row"] for skip in manifest["skipped_keyframes"]) == [4, 5, 6, 7, 8]
    assert set(toy_records.read(tmp_path / "a")) == {"good,0001", "good,0002"}
    text = manifest_lib.summary(options, manifest)
    assert "Left out: 2 keyframes, missing video." in text
    # For each video and reason: the file, its first row there, and why.
    first = {(s["video_id"], s["reason"]): s["row"] for s in manifest["skipped_keyframes"][::-1]}
    assert len(first) > 1
    for (video_id, reason), row in first.items():
        assert f"{path}:{row}: {video_id}: {reason}" in text
    assert f"{tmp_path / 'a'}-?????-of-00002" in text


def test_strict_tells_all_before_the_first_decode(toy, tmp_path):
    path = _mixed(toy, tmp_path)
    options = toy_records.options(
        toy, tmp_path / "a", annotations=path, videos=tmp_path / "videos", strict=True
    )
    with pytest.raises(ConversionError) as caught:
        toy_records.convert(options)
    message = str(caught.value)
    assert "5 keyframes cannot be converted" in message
    assert f"{path}:4: good: timestamp 77 s is outside the video" in message
    assert f"{path}:5: good: timestamp -1 s is outside" in message
    assert f"{path}:6: bad: " in message and "bad.mp4: cannot be read as a video" in message
    assert f"{path}:7: gone: " in message and "(and 1 more keyframe)" in message
    assert not list(tmp_path.glob("a-*"))


def test_strict_tells_what_only_decoding_shows(toy, tmp_path):
    # A little beyond the end: the header alone does not decide.
    path = tmp_path / "a.csv"
    path.write_text("train_0000,1\ntrain_0000,2.6,0.1,0.1,0.5,0.5,1,0\n")
    options = toy_records.options(toy, tmp_path / "r", annotations=path, strict=True)
    with pytest.raises(ConversionError, match=r"a.csv:2: train_0000: .*beyond the video's end"):
        toy_records.convert(options)
    assert not list(tmp_path.glob("r-*"))


def test_nothing_converted_is_an_error(toy, tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("gone,1,0.1,0.1,0.5,0.5,1,0\n")
    with pytest.raises(ConversionError, match="No keyframe of .*a.csv could be converted"):
        toy_records.convert(toy_records.options(toy, tmp_path / "a", annotations=path))
    assert not list(tmp_path.glob("a-*"))


def test_two_videos_with_one_id(toy, tmp_path):
    (tmp_path / "videos" / "more").mkdir(parents=True)
    for name in ("v.mp4", "more/v.mkv"):
        shutil.copy(toy / "videos" / "train_0000.mp4", tmp_path / "videos" / name)
    path = tmp_path / "a.csv"
    path.write_text("v,1\nmore/v,1\n")
    options = toy_records.options(toy, tmp_path / "a", annotations=path, videos=tmp_path / "videos")
    manifest = toy_records.convert(options)
    assert [s["video_id"] for s in manifest["skipped_keyframes"]] == ["v"]
    assert "more than one video has this id" in manifest["skipped_keyframes"][0]["reason"]


def test_several_ids_for_one_file_are_an_error(toy, tmp_path):
    (tmp_path / "videos" / "monday").mkdir(parents=True)
    shutil.copy(toy / "videos" / "train_0000.mp4", tmp_path / "videos" / "monday" / "v1.mp4")
    (tmp_path / "videos" / "link.mp4").symlink_to(tmp_path / "videos" / "monday" / "v1.mp4")
    path = tmp_path / "a.csv"
    options = toy_records.options(toy, tmp_path / "a", annotations=path, videos=tmp_path / "videos")
    for other in ("v1.mp4", "monday/v1", "link"):
        path.write_text(f"{other},2\nv1,2\nv1,1,0.1,0.1,0.5,0.5,1,0\n")
        with pytest.raises(ConversionError, match="several ids for one video file") as caught:
            toy_records.convert(options)
        for name, row in ((other, 1), ("v1", 2)):
            assert f"{name} (row {row})" in str(caught.value)
    assert not list(tmp_path.glob("a-*"))


def test_records_too_large_to_read_are_refused(toy, tmp_path, monkeypatch):
    path = tmp_path / "a.csv"
    path.write_text("".join(f"train_0000,{t}\n" for t in (0.4, 0.8, 1.2, 1.6, 2.0)))
    options = toy_records.options(toy, tmp_path / "a", annotations=path, seconds_per_record=60.0)
    monkeypatch.setattr(plan, "_MAX_RECORD_BYTES", 60_000)
    # By the header, before anything is decoded: 28 frames of about 128 x 96 x 0.2 bytes.
    with pytest.raises(
        ConversionError, match=r"--seconds_per_record 60: .*28 frames of about 2 kB"
    ):
        toy_records.convert(options)
    # And by what the frames really take.
    monkeypatch.setattr(plan, "check_record_sizes", lambda *_: None)
    monkeypatch.setattr(plan, "_MAX_RECORD_BYTES", 10_000)
    with pytest.raises(
        ConversionError, match=r"train_0000 \(.*mp4\) would hold 28 frames"
    ) as caught:
        toy_records.convert(options)
    assert "--num_frames 8: " in str(caught.value) and "--short_side" in str(caught.value)
    assert not list(tmp_path.glob("a-*"))


@pytest.mark.parametrize(
    ("shards", "workers", "said"),
    [
        (1, 2, "records: 1 of 2 cores idle; each file keeps one busy: --output PREFIX@N with a "
               "larger N uses up to 2"),
        (2, 3, "records: 1 of 3 cores idle; a video keeps one core busy, however long it is"),
        (2, 2, None),
    ],
)  # fmt: skip
def test_idle_cores_are_told(toy, tmp_path, capsys, monkeypatch, shards, workers, said):
    # In this process, whatever was asked for.
    stock = beam_pipeline.run
    monkeypatch.setattr(
        beam_pipeline, "run", lambda work, **options: stock(work, **{**options, "workers": 1})
    )
    options = toy_records.options(toy, tmp_path / "a", output=f"{tmp_path / 'a'}@{shards}")
    convert_lib.convert([options], workers=workers)
    output = capsys.readouterr().out
    assert said in output if said else "idle" not in output


def test_unknown_labels(toy, tmp_path):
    path = tmp_path / "a.csv"
    path.write_text(
        "train_0000,1,0.1,0.1,0.5,0.5,1,0\ntrain_0000,1,0.1,0.1,0.5,0.5,9,0\n"
        "train_0000,2,0.1,0.1,0.5,0.5,9,0\n"
    )
    with pytest.raises(faults.AnnotationError, match="action_id 9 is not in the label map"):
        toy_records.convert(toy_records.options(toy, tmp_path / "a", annotations=path))
    options = toy_records.options(
        toy, tmp_path / "a", annotations=path, skip_unknown_labels=True, strict=True
    )
    manifest = toy_records.convert(options)
    assert manifest["skipped_rows_by_unknown_action_id"] == {"9": 2}
    assert manifest["skipped_keyframes_by_reason"] == {"unknown labels only": 1}
    assert manifest["totals"]["keyframes_kept"] == manifest["totals"]["rows"] == 1
    assert "9 (2 rows)" in manifest_lib.summary(options, manifest)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"output": "records/train"}, "must be PREFIX@N"),
        ({"output": "records/train@0"}, "must be PREFIX@N"),
        ({"num_frames": 0}, "--num_frames must be at least 1, not 0"),
        ({"fps": 0.0}, "--fps must be 0.001 to 1000"),
        ({"fps": float("nan")}, "--fps must be 0.001 to 1000"),
        ({"short_side": -1}, "--short_side must be at least 0"),
        ({"jpeg_quality": 101}, "--jpeg_quality must be 1 to 100, not 101"),
        ({"videos": "no/such/folder"}, "--videos 'no/such/folder' is not a folder"),
    ],
)
def test_options_out_of_range(toy, tmp_path, changes, message):
    with pytest.raises(ConversionError, match=message):
        toy_records.convert(toy_records.options(toy, tmp_path / "a", **changes))


def test_a_failure_leaves_earlier_records_alone(toy, tmp_path, monkeypatch):
    toy_records.convert(toy_records.options(toy, tmp_path / "a"))
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}

    def fail(*args, **kwargs):
        raise MemoryError("of another kind than bad input")

    monkeypatch.setattr(clip_features, "serialized_example", fail)
    changed = toy_records.options(toy, tmp_path / "a", num_frames=4, overwrite=True)
    message = r"While converting train_000\d \(.*mp4\): MemoryError: of another kind"
    with pytest.raises(ConversionError, match=message):
        toy_records.convert(changed)
    after = {p.name: p.read_bytes() for p in tmp_path.iterdir() if p.is_file()}
    assert after == before
    monkeypatch.undo()
    toy_records.convert(changed)
    after = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    assert after.keys() == before.keys() and all(after[name] != before[name] for name in after)


def test_rates_and_sizes_may_differ_between_videos(toy, tmp_path):
    (tmp_path / "videos").mkdir()
    for name, fps, size in (("a", 24000 / 1001, (50, 70)), ("b", 60, (64, 64))):
        frames = (np.full((*size, 3), i, np.uint8) for i in range(int(2 * fps)))
        drawing.write_video(tmp_path / "videos" / f"{name}.mp4", frames, fps)
    path = tmp_path / "a.csv"
    path.write_text("a,1\nb,1\n")
    options = toy_records.options(toy, tmp_path / "r", annotations=path, videos=tmp_path / "videos")
    manifest = toy_records.convert(options)
    assert manifest["videos"]["a"]["fps"] == pytest.approx(23.976, abs=1e-3)
    assert manifest["videos"]["a"]["size"] == [50, 70]
    assert manifest["videos"]["b"]["fps"] == pytest.approx(60)
    assert set(toy_records.read(tmp_path / "r")) == {"a,0001", "b,0001"}


def test_real_videos(shared_dir, tmp_path):
    options = options_lib.Options(
        annotations=str(shared_dir / "media/people_annotations.csv"),
        videos=str(shared_dir / "media"),
        label_map=str(shared_dir / "reference/ava_action_list_v2.1_60.pbtxt"),
        output=f"{tmp_path / 'real'}@2",
        num_frames=16,
        fps=12.5,
        short_side=112,
        strict=True,
    )
    manifest = toy_records.convert(options)
    assert manifest["totals"]["keyframes_kept"] == manifest["totals"]["keyframes"] == 14
    assert manifest["totals"]["rows"] == 48
    assert len(toy_records.read(tmp_path / "real")) == 14


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
    options = toy_records.options(toy, tmp_path / "a", **changes)
    manifest = toy_records.convert(options)
    assert manifest["totals"]["keyframes_kept"] == 2
    assert manifest["videos"]["v"]["damaged_frames"] >= 4
    assert "Damaged parts were left out of 1 video" in manifest_lib.summary(options, manifest)
    with pytest.raises(ConversionError, match=r"--strict.*v\.avi: .*cannot be decoded"):
        toy_records.convert(toy_records.options(toy, tmp_path / "b", strict=True, **changes))
    assert not list(tmp_path.glob("b-*"))


def test_neighbours_go_to_different_shards_whatever_is_left_out(toy, tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("".join(f"train_0000,{t}\n" for t in (-1, 0.2, 0.4, 0.6, 0.8, 1.0)))
    options = toy_records.options(
        toy, tmp_path / "r", annotations=path, output=f"{tmp_path / 'r'}@3"
    )
    toy_records.convert(options)
    records = toy_records.read(tmp_path / "r", shards=3)
    # The keyframe before the start has its place, in shard 0, too.
    assert [fields["shard"] for _, fields in sorted(records.items())] == [1, 2, 0, 1, 2]
