# SPDX-License-Identifier: Apache-2.0
"""The pipeline of clips: stock augmentation on all frames alike; broken data skipped and counted.

`tf.print` and tf.data's log write to the process's stderr, so the tests read it with capfd.
"""

import collections

import numpy as np
import pytest
import tensorflow as tf
from object_detection import inputs
from object_detection.protos import input_reader_pb2
from object_detection.utils import config_util

from object_detection_ext import registration
from object_detection_ext.data import clip_dataset, clip_packing, record_files
from tests import tiny_pipeline
from tests.data.picture_size_test import jpeg_bomb, png_bomb

registration.register()

_BOX = [0.25, 0.375, 0.625, 0.75]
_PERSON = [(_BOX, "stand")]


@pytest.fixture
def label_map(tmp_path):
    return tiny_pipeline.write_label_map(tmp_path / "label_map.pbtxt")


def _reader(label_map, *patterns, **fields) -> input_reader_pb2.InputReader:
    reader = input_reader_pb2.InputReader(
        label_map_path=str(label_map), **{"shuffle": False, "num_epochs": 1, **fields}
    )
    reader.tf_record_input_reader.input_path.extend(str(pattern) for pattern in patterns)
    return reader


def _record(name: str, frames=None, keyframes=(2,)) -> bytes:
    return tiny_pipeline.make_record(
        frames or tiny_pipeline.gray_frames(4),
        dict.fromkeys(keyframes, _PERSON),
        video_id=name,
    )


def _names(reader, **kwargs) -> list[str]:
    """Source ids of the clips that a reader gives."""
    dataset = clip_dataset.build(reader, num_frames=4, **kwargs)
    return [clip["source_id"].numpy().decode() for clip in dataset]


def _undecodable_jpeg() -> bytes:
    """Whole at both ends, noise between."""
    jpeg = tiny_pipeline.gray_frames(1)[0]
    return jpeg[:2] + bytes(len(jpeg) - 4) + jpeg[-2:]


def test_clips_come_from_all_files_and_keyframes(tmp_path, label_map, capfd):
    records = [_record("a", keyframes=(0, 3)), _record("b", keyframes=(1,))]
    first = tiny_pipeline.write_records(tmp_path / "first", records)
    assert _names(_reader(label_map, first)) == ["a,0", "a,3", "b,1"]
    second = tiny_pipeline.write_records(tmp_path / "second", [_record("c", keyframes=(2,))])
    assert sorted(_names(_reader(label_map, first, second))) == ["a,0", "a,3", "b,1", "c,2"]
    assert "WARNING" not in capfd.readouterr().err


def test_excluded_frames_are_left_out_by_video_and_time(tmp_path, label_map):
    records = [_record("a", keyframes=(0, 3)), _record("b", keyframes=(0, 3))]
    path = tiny_pipeline.write_records(tmp_path / "records", records)
    # The second is less than a millisecond from the frame, the last a whole one from another.
    excluded = frozenset({("a", 3), ("b", 0.0004), ("c", 3), ("a", 0.001)})
    assert _names(_reader(label_map, path), excluded=excluded) == ["a,0", "b,3"]


def test_excluded_moments_that_meet_no_keyframe_are_reported_after_each_pass(
    tmp_path, label_map, caplog
):
    records = [_record("a", keyframes=(0, 3)), _record("b", keyframes=(0, 3))]
    path = tiny_pipeline.write_records(tmp_path / "records", records)
    excluded = frozenset({("a", 3), ("b", 2.5), ("c", 3)})
    dataset = clip_dataset.build(_reader(label_map, path), num_frames=4, excluded=excluded)
    reported = (
        "evaluation: 2 of 3 excluded timestamps meet no keyframe and exclude nothing (such as 'b' "
        "at 2.5 s: the nearest keyframe is at 0003 s)"
    )
    for passes in (1, 2):
        assert len(list(dataset)) == 3
        assert [r.getMessage() for r in caplog.records].count(reported) == passes


def test_nothing_is_reported_where_every_excluded_moment_meets_a_keyframe(
    tmp_path, label_map, caplog
):
    path = tiny_pipeline.write_records(tmp_path / "records", [_record("a", keyframes=(0, 3))])
    assert _names(_reader(label_map, path), excluded=frozenset({("a", 3)})) == ["a,0"]
    assert "meet no keyframe" not in caplog.text


def test_excluded_frames_cannot_be_found_in_records_with_other_names(tmp_path, label_map):
    path = tiny_pipeline.write_records(tmp_path / "records", [_record("")])
    with pytest.raises(tf.errors.InvalidArgumentError, match="not of the form video_id,timestamp"):
        _names(_reader(label_map, path), excluded=frozenset({("a", 3)}))


def test_shuffled_clips_are_the_same_clips(tmp_path, label_map):
    records = [_record(f"v{index}", keyframes=(1, 2)) for index in range(4)]
    path = tiny_pipeline.write_records(tmp_path / "records", records)
    reader = _reader(label_map, path, shuffle=True, shuffle_buffer_size=4)
    assert sorted(_names(reader)) == [f"v{index},{key}" for index in range(4) for key in (1, 2)]


def test_balanced_keyframes_come_more_often_on_every_replica(tmp_path, label_map):
    """'walk', id 2, three times; a replica reads its own files, with the factors of all."""
    paths = []
    for index in range(4):
        people = {1: _PERSON, 2: [(_BOX, "walk"), (_BOX, "stand")] if index % 2 else _PERSON}
        record = tiny_pipeline.make_record(
            tiny_pipeline.gray_frames(4), people, video_id=f"v{index}"
        )
        paths.append(str(tiny_pipeline.write_records(tmp_path / f"part-{index}", [record])))
    asked = []

    def balance(files):
        asked.append(list(files))
        return [1.0, 1.0, 3.0, 1.0]

    reader = _reader(label_map, tmp_path / "part-*", shuffle=True, filenames_shuffle_buffer_size=1)
    shares = [
        collections.Counter(
            _names(reader, balance=balance, input_context=tf.distribute.InputContext(2, replica, 2))
        )
        for replica in range(2)
    ]
    assert asked == [paths, paths]
    assert shares[0] + shares[1] == {
        f"v{index},{key}": 3 if index % 2 and key == 2 else 1
        for index in range(4)
        for key in (1, 2)
    }
    assert all(shares)


def test_one_of_n_records_and_replicas_share(tmp_path, label_map):
    records = [_record(f"v{index}") for index in range(4)]
    together = tiny_pipeline.write_records(tmp_path / "all", records)
    assert _names(_reader(label_map, together, sample_1_of_n_examples=3)) == ["v0,2", "v3,2"]
    for index, record in enumerate(records):
        tiny_pipeline.write_records(tmp_path / f"part-{index}", [record])
    pattern = tmp_path / "part-*"
    contexts = [tf.distribute.InputContext(2, replica, 2) for replica in range(2)]
    shares = [_names(_reader(label_map, pattern), input_context=c) for c in contexts]
    assert sorted(shares[0] + shares[1]) == [f"v{index},2" for index in range(4)]
    assert len(shares[0]) == len(shares[1]) == 2
    batched = clip_dataset.build(
        _reader(label_map, pattern), num_frames=4, batch_size=4, input_context=contexts[0]
    )
    assert [len(batch["source_id"]) for batch in batched] == [2]


def test_truncated_file_is_warned_of_and_the_rest_is_read(tmp_path, label_map, caplog):
    whole = tiny_pipeline.write_records(tmp_path / "b", [_record("b0"), _record("b1")])
    truncated = tiny_pipeline.write_records(tmp_path / "a", [_record("a0"), _record("a1")])
    truncated.write_bytes(truncated.read_bytes()[:-30])
    assert sorted(_names(_reader(label_map, tmp_path / "?"))) == ["a0,2", "b0,2", "b1,2"]
    (message,) = [record.getMessage() for record in caplog.records if "trunc" in record.message]
    assert "1 of 2 record files" in message
    assert f"{truncated} (after 1 whole records)" in message
    assert str(whole) not in message


def _flip(path, needle: bytes, offset: int = 0) -> None:
    """Flips a bit of the byte at an offset from where the needle stands in a file."""
    data = bytearray(path.read_bytes())
    data[data.index(needle) + offset] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("shuffle", [False, True])
def test_flipped_bytes_cost_their_records_only(tmp_path, label_map, caplog, shuffle):
    path = tiny_pipeline.write_records(
        tmp_path / "shard", [_record(f"v{index}", keyframes=(1, 2)) for index in range(6)]
    )
    for name in (b"v2,1", b"v4,1"):
        _flip(path, name)
    whole = tiny_pipeline.write_records(tmp_path / "whole", [_record("w")])
    # Two epochs: each is reported once.
    names = _names(_reader(label_map, path, whole, shuffle=shuffle, num_epochs=2))
    expected = [f"v{index},{keyframe}" for index in (0, 1, 3, 5) for keyframe in (1, 2)]
    assert sorted(names) == sorted(2 * [*expected, "w,2"])
    reported = [r.getMessage() for r in caplog.records if "record skipped" in r.getMessage()]
    assert [r.levelname for r in caplog.records if "record skipped" in r.getMessage()] == [
        "WARNING"
    ] * 2
    assert f"record skipped: record 2 of {path} is damaged" in reported[0]
    assert f"record skipped: record 4 of {path} is damaged" in reported[1]


def test_nothing_but_damaged_records_is_an_error_not_an_endless_loop(tmp_path, label_map):
    for name in "ab":
        path = tiny_pipeline.write_records(tmp_path / f"shard-{name}", [_record(name)])
        _flip(path, name.encode() + b",2")
    dataset = clip_dataset.build(_reader(label_map, tmp_path / "shard-*", num_epochs=0), 4)
    with pytest.raises(tf.errors.InvalidArgumentError, match="Not one record is whole: all 2"):
        next(iter(dataset))


def test_numbers_of_records_behind_a_damaged_one_are_theirs(tmp_path, label_map, capfd):
    frames = tiny_pipeline.gray_frames(4)
    broken = _record("broken", [*frames[:3], frames[3][:-10]])
    path = tiny_pipeline.write_records(tmp_path / "shard", [_record("a"), _record("b"), broken])
    _flip(path, b"b,2")
    assert _names(_reader(label_map, path)) == ["a,2"]
    assert f'"broken,2" (record 2 of "{path}") cannot be decoded' in capfd.readouterr().err


def test_a_damaged_length_costs_the_rest_of_the_file(tmp_path, label_map, caplog):
    records = [_record(name) for name in "abcd"]
    path = tiny_pipeline.write_records(tmp_path / "shard", records)
    data = bytearray(path.read_bytes())
    data[2 * (16 + len(records[0])) + 1] ^= 1
    path.write_bytes(data)
    assert _names(_reader(label_map, path)) == ["a,2", "b,2"]
    (message,) = [r.getMessage() for r in caplog.records if "length is damaged" in r.getMessage()]
    assert f"{path} (after 2 whole records)" in message


def test_files_that_are_not_local_are_read_up_to_a_damaged_record(tmp_path, label_map, caplog):
    path = tiny_pipeline.write_records(tmp_path / "shard", [_record(name) for name in "abc"])
    reader = _reader(label_map, f"file://{path}", num_epochs=2)
    assert _names(reader) == 2 * ["a,2", "b,2", "c,2"]
    assert "skipped" not in caplog.text
    _flip(path, b"b,2")
    assert _names(reader) == 2 * ["a,2"]
    (reported,) = [r.getMessage() for r in caplog.records if "record skipped" in r.getMessage()]
    assert f"record 1 of file://{path} is damaged" in reported
    assert "what follows in this file is left out" in reported


def test_damage_that_jpeg_decoding_does_not_see_gives_a_picture(tmp_path, label_map, capfd):
    """A JPEG has no checksum: behind wrong bits inside its scan, it is decoded to other pixels."""
    pixels = np.random.default_rng(0).integers(0, 255, (64, 64, 3)).astype(np.uint8)
    jpeg = tiny_pipeline.encode_jpeg(pixels)
    middle = (jpeg.index(b"\xff\xda") + len(jpeg)) // 2
    noise = bytes(byte ^ 0x55 for byte in jpeg[middle : middle + 16])
    damaged = jpeg[:middle] + noise + jpeg[middle + 16 :]
    path = tiny_pipeline.write_records(
        tmp_path / "shard", [_record("a"), _record("b", [jpeg, damaged, jpeg, jpeg]), _record("c")]
    )
    dataset = clip_dataset.build(_reader(label_map, path), num_frames=4)
    clips = {clip["source_id"].numpy().decode(): clip["image"] for clip in dataset}
    assert list(clips) == ["a,2", "b,2", "c,2"]
    whole, other, *_ = clip_packing.unpack_clips(clips["b,2"][tf.newaxis], 4)[0].numpy()
    assert np.array_equal(whole[:16], other[:16]) and not np.array_equal(whole[48:], other[48:])
    # The JPEG library's own line, without a name, is all that is said of it.
    said = capfd.readouterr().err
    assert "Corrupt JPEG data" in said and "skipped" not in said


def test_nothing_to_read_is_an_error_that_says_where(tmp_path, label_map):
    with pytest.raises(record_files.RecordFileError, match=r"No record file matches '.*/no\*'"):
        clip_dataset.build(_reader(label_map, tmp_path / "no*"), num_frames=4)
    (tmp_path / "empty").write_bytes(b"")
    with pytest.raises(record_files.RecordFileError, match="Not one whole record in .*empty"):
        clip_dataset.build(_reader(label_map, tmp_path / "empty"), num_frames=4)


@pytest.mark.parametrize("shuffle", [False, True])
def test_a_file_that_goes_away_ends_reading(tmp_path, label_map, shuffle):
    path = tiny_pipeline.write_records(tmp_path / "records", [_record("v")])
    dataset = clip_dataset.build(_reader(label_map, path, shuffle=shuffle), num_frames=4)
    path.unlink()
    with pytest.raises(tf.errors.OpError, match="records is gone: it was there"):
        next(iter(dataset))


def test_missing_reader_fields_are_named(tmp_path, label_map):
    path = tiny_pipeline.write_records(tmp_path / "records", [_record("v")])
    with pytest.raises(ValueError, match="label_map_path"):
        clip_dataset.build(_reader("", path), num_frames=4)
    with pytest.raises(ValueError, match="tf_record_input_reader"):
        clip_dataset.build(
            input_reader_pb2.InputReader(label_map_path=str(label_map)), num_frames=4
        )


@pytest.mark.parametrize("shuffle", [False, True])
def test_broken_clips_are_skipped_counted_and_named(tmp_path, label_map, capfd, shuffle):
    frames = tiny_pipeline.gray_frames(4)
    broken = {
        "cut": [*frames[:3], frames[3][:-10]],
        "nothing": [b"", *frames[1:]],
        "inside": [*frames[:3], _undecodable_jpeg()],
        "sizes": [*frames[:3], tiny_pipeline.gray_frames(1, size=32)[0]],
    }
    records = [_record("fine0")]
    for number, (name, encoded) in enumerate(broken.items()):
        # The last broken one is the last record of all.
        records += [_record(f"fine{number + 1}"), _record(name, encoded)]
    path = tiny_pipeline.write_records(tmp_path / "records", records)
    names = _names(_reader(label_map, path, shuffle=shuffle))
    assert sorted(names) == [f"fine{number},2" for number in range(5)]
    said = capfd.readouterr().err
    for number, name in enumerate(broken):
        assert f'clip skipped: a frame of "{name},2" (record {2 * number + 2} of "{path}")' in said
        assert f"Clips skipped so far: {number + 1}" in said
    assert said.count("WARNING: clip skipped") == len(broken)


@pytest.mark.parametrize("bomb", [pytest.param(jpeg_bomb, marks=pytest.mark.slow), png_bomb])
@pytest.mark.parametrize("path", ["crop and flip", "whole", "no transform"])
def test_frames_of_too_many_pixels_cost_their_clips(tmp_path, label_map, capfd, bomb, path):
    """A picture of 65,000 x 65,000 would take 12 GB; here the whole test takes what others take."""
    more = "train_config { data_augmentation_options { random_image_scale { } } }"
    configs, model = _train_input(tmp_path, label_map, more if path == "whole" else "")
    frames = tiny_pipeline.gray_frames(4)
    records = [
        _record("keyframe", [*frames[:2], bomb(65000, 65000), frames[3]]),
        _record("other", [*frames[:3], bomb(65000, 65000)]),
        _record("fine"),
    ]
    tiny_pipeline.write_records(tmp_path / "train", records)
    reader = configs["train_input_config"]
    reader.num_epochs = 1
    if path == "no transform":
        assert _names(reader) == ["fine,2"]
    else:
        dataset = inputs.train_input(configs["train_config"], reader, configs["model"], model=model)
        assert len(list(dataset)) == 1
    said = capfd.readouterr().err
    for name in ("keyframe", "other"):
        assert f'clip skipped: a frame of "{name},2"' in said
    assert "has more pixels than clip { max_frame_pixels }" in said
    assert "Clips skipped so far: 2" in said


def test_limit_of_pixels_is_the_option(tmp_path, label_map):
    path = tiny_pipeline.write_records(tmp_path / "records", [_record("v")])
    reader = _reader(label_map, path)
    assert _names(reader, max_frame_pixels=64 * 64) == ["v,2"]
    assert _names(reader, max_frame_pixels=64 * 64 - 1) == []


def test_nothing_but_broken_clips_is_an_error_not_an_endless_loop(tmp_path, label_map, monkeypatch):
    monkeypatch.setattr(clip_dataset, "_MOST_BROKEN_IN_A_ROW", 5)
    frames = tiny_pipeline.gray_frames(4)
    path = tiny_pipeline.write_records(
        tmp_path / "records", [_record("cut", [*frames[:3], frames[3][:-10]])]
    )
    reader = _reader(label_map, path)
    reader.num_epochs = 0  # for ever
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"(?s)Only broken clips.*cut,2"):
        next(iter(clip_dataset.build(reader, num_frames=4)))


@pytest.mark.parametrize("shuffle", [False, True])
def test_bytes_that_are_no_record_of_ours_are_left_out(tmp_path, label_map, shuffle):
    records = [_record("a"), b"no SequenceExample", _record("b")]
    path = tiny_pipeline.write_records(tmp_path / "records", records)
    assert sorted(_names(_reader(label_map, path, shuffle=shuffle))) == ["a,2", "b,2"]


def _moving_gradient() -> list[bytes]:
    """Frame k: red 2 x + 5 k, green 2 y + 7 k, blue 40 k; x and y in pixels."""
    y, x = np.mgrid[: tiny_pipeline.SIZE, : tiny_pipeline.SIZE]
    frames = [
        np.stack([2 * x + 5 * k, 2 * y + 7 * k, np.full_like(x, 40 * k)], axis=-1) for k in range(4)
    ]
    return [tiny_pipeline.encode_jpeg(frame.astype(np.uint8)) for frame in frames]


def _train_input(tmp_path, label_map, override: str):
    frames = _moving_gradient()
    people = {2: [(_BOX, "stand"), (_BOX, "watch (a person)")]}
    path = tiny_pipeline.write_records(
        tmp_path / "train", [tiny_pipeline.make_record(frames, people)]
    )
    pipeline = tiny_pipeline.make_pipeline(label_map=label_map, train=path, evaluation=path)
    del pipeline.train_config.data_augmentation_options[:]
    pipeline.MergeFrom(tiny_pipeline.parse(override))
    pipeline.train_config.batch_size = 1
    configs = config_util.create_configs_from_pipeline_proto(pipeline)
    model = tiny_pipeline.build_model(pipeline, is_training=True)
    return configs, model


def _frames_of(features) -> np.ndarray:
    """The frames [4, H, W, 3] of the first clip of a batch, in [0, 255]."""
    images = features["image"][:1]
    if images.dtype == tf.uint8:
        return clip_packing.unstack_frames(images, 4)[0].numpy().astype(float)
    return (clip_packing.unpack_clips(images, 4)[0].numpy() + 1.0) * 127.5


def _line(values: np.ndarray) -> tuple[float, float]:
    """Slope and offset of values on a line, away from the borders, where resizing repeats."""
    inner = slice(4, -4)
    at = (np.arange(len(values)) + 0.5) / len(values)  # normalized
    slope, offset = np.polyfit(at[inner], values[inner], 1)
    np.testing.assert_allclose(offset + slope * at[inner], values[inner], atol=4)
    return slope, offset


def _place_in_original(frame: np.ndarray, k: int) -> tuple[tuple, tuple]:
    """How new coordinates give old ones (both normalized), from frame k's colours: rows, columns.

    Each as (slope, offset): old = offset + slope * new.
    """
    np.testing.assert_allclose(
        frame[..., 2], 40 * k, atol=8
    )  # still frame k; JPEG costs a few levels
    size = tiny_pipeline.SIZE
    rows = _line((frame[..., 1].mean(axis=1) - 7 * k + 1) / 2)
    columns = _line((frame[..., 0].mean(axis=0) - 5 * k + 1) / 2)
    return tuple(v / size for v in rows), tuple(v / size for v in columns)


# The second one cannot be read from a window: such clips go whole through the stock steps.
@pytest.mark.parametrize("more", ["", "data_augmentation_options { random_image_scale { } }"])
def test_stock_flips_and_crops_act_on_all_frames_and_boxes_alike(tmp_path, label_map, more):
    override = """train_config {
      data_augmentation_options { random_horizontal_flip { } }
      data_augmentation_options { random_crop_image {
        min_object_covered: 1.0 min_aspect_ratio: 0.75 max_aspect_ratio: 1.33
        min_area: 0.3 max_area: 0.9 overlap_thresh: 0.5 random_coef: 0.0
      } }
    MORE }""".replace("MORE", more)
    configs, model = _train_input(tmp_path, label_map, override)
    dataset = inputs.train_input(
        configs["train_config"], configs["train_input_config"], configs["model"], model=model
    )
    flips, widths = [], []
    is_whole = bool(more)
    assert dataset.element_spec[0]["image"].dtype == (tf.float32 if is_whole else tf.uint8)
    for features, labels in dataset.take(12):
        places = np.array(
            [_place_in_original(frame, k) for k, frame in enumerate(_frames_of(features))]
        )  # [frame, rows or columns, slope and offset]
        np.testing.assert_allclose(places, np.broadcast_to(places[:1], places.shape), atol=0.02)
        (row_slope, row_offset), (column_slope, column_offset) = places.mean(axis=0)
        flips.append(column_slope < 0)
        widths.append(abs(column_slope))
        # One row for the person, with both actions.
        assert int(labels["num_groundtruth_boxes"][0]) == 1
        np.testing.assert_array_equal(labels["groundtruth_classes"][0, 0], [1, 0, 1])
        ymin, xmin, ymax, xmax = labels["groundtruth_boxes"][0, 0].numpy()
        in_original = [
            row_offset + row_slope * ymin,
            column_offset + column_slope * (xmax if column_slope < 0 else xmin),
            row_offset + row_slope * ymax,
            column_offset + column_slope * (xmin if column_slope < 0 else xmax),
        ]
        np.testing.assert_allclose(in_original, _BOX, atol=0.03)
    assert set(flips) == {True, False}
    # A crop may keep the whole width; it is read off JPEGs.
    assert max(widths) < 1.02 and max(widths) - min(widths) > 0.02


def test_eval_input_keeps_the_middle_frame_as_the_original_image(tmp_path, label_map):
    configs, model = _train_input(tmp_path, label_map, "")
    dataset = inputs.eval_input(
        configs["eval_config"], configs["eval_input_configs"][0], configs["model"], model=model
    )
    ((features, labels),) = dataset
    original = features["original_image"].numpy()
    assert original.shape == (1, 64, 64, 3) and original.dtype == np.uint8
    rows, columns = _place_in_original(original[0].astype(float), 2)
    np.testing.assert_allclose([rows, columns], [(1, 0), (1, 0)], atol=0.02)
    assert features["image"].shape == [1, 4 * 64, 64, 3]
    # Nothing but the keyframe, at that: the same pixels but for rounding.
    difference = _frames_of(features)[2] - original[0].astype(float)
    assert np.abs(difference).max() <= 1
    np.testing.assert_array_equal(features["true_image_shape"], [[64, 64, 12]])
    # Metrics want a row per person and action.
    assert int(labels["num_groundtruth_boxes"][0]) == 2
    np.testing.assert_allclose(labels["groundtruth_boxes"][0, :2], [_BOX, _BOX], atol=1e-6)
    np.testing.assert_array_equal(labels["groundtruth_classes"][0, :2], [[1, 0, 0], [0, 0, 1]])


def test_evaluation_leaves_no_clip_out_unless_it_is_asked_to(tmp_path, label_map):
    configs, model = _train_input(tmp_path, label_map, "")
    records = [_record(f"v{index}", _moving_gradient()) for index in range(3)]
    path = tiny_pipeline.write_records(tmp_path / "three", records)
    configs["eval_config"].batch_size = 2
    reader = configs["eval_input_configs"][0]
    reader.tf_record_input_reader.input_path[:] = [str(path)]

    def batches():
        dataset = inputs.eval_input(configs["eval_config"], reader, configs["model"], model=model)
        return [features["image"].shape[0] for features, _ in dataset]

    assert batches() == [2, 1]
    reader.drop_remainder = True
    assert batches() == [2]


def _still_record() -> bytes:
    """Four times the same colourful frame."""
    frame = tiny_pipeline.encode_jpeg(
        np.random.default_rng(0)
        .integers(40, 216, (8, 8, 3))
        .astype(np.uint8)
        .repeat(8, 0)
        .repeat(8, 1)
    )
    return tiny_pipeline.make_record([frame] * 4, {2: _PERSON})


@pytest.mark.parametrize(
    "more",
    [
        "",
        pytest.param(
            "data_augmentation_options { random_image_scale { } }", marks=pytest.mark.slow
        ),
    ],
)
def test_colours_change_alike_in_all_frames(tmp_path, label_map, more):
    override = """train_config {
      data_augmentation_options { random_distort_color { } }
      data_augmentation_options { random_horizontal_flip { probability: 1.0 } }
      MORE retain_original_images: true
    }""".replace("MORE", more)
    configs, model = _train_input(tmp_path, label_map, override)
    tiny_pipeline.write_records(tmp_path / "train", [_still_record()])
    dataset = inputs.train_input(
        configs["train_config"], configs["train_input_config"], configs["model"], model=model
    )
    means = []
    for features, _ in dataset.take(3):
        frames = _frames_of(features)
        np.testing.assert_array_equal(frames, np.broadcast_to(frames[:1], frames.shape))
        # The original picture is neither flipped nor coloured.
        original = features["original_image"][0].numpy().astype(float)
        assert np.abs(frames[2] - original[:, ::-1]).max() > 8
        means.append(frames.mean(axis=(0, 1, 2)))
    assert np.ptp(means, axis=0).max() > 2, "each clip has a draw of its own"


@pytest.mark.slow
def test_edited_messages_count_and_other_preprocessing_is_kept(tmp_path, label_map):
    """What a notebook changes behind reading the pipeline is what happens."""
    configs, model = _train_input(tmp_path, label_map, "")
    configs["train_config"].data_augmentation_options.add().random_vertical_flip.probability = 1.0
    arguments = configs["train_config"], configs["train_input_config"], configs["model"]
    ((features, _),) = inputs.train_input(*arguments, model=model).take(1)
    assert features["image"].dtype == tf.uint8
    rows, columns = _place_in_original(_frames_of(features)[1], 1)
    assert rows[0] == pytest.approx(-1, abs=0.02)
    assert columns[0] == pytest.approx(1, abs=0.02)

    class Other(type(model)):
        def preprocess(self, inputs):
            images, shapes = super().preprocess(inputs)
            return images * 0.0 + 7.0, shapes

    model.__class__ = Other
    ((features, _),) = inputs.train_input(*arguments, model=model).take(1)
    assert features["image"].shape == [1, 64, 64, 12]
    np.testing.assert_array_equal(features["image"], np.full([1, 64, 64, 12], 7.0))


def test_training_draws_frames_and_evaluation_does_not(tmp_path, label_map):
    override = """
      [object_detection_ext.protos.video_action_transformer] {
        clip { frame_stride: 2 min_frame_stride: 1 max_frame_stride: 3 temporal_jitter_frames: 1 }
      }"""
    configs, model = _train_input(tmp_path, label_map, override)
    record = tiny_pipeline.make_record(tiny_pipeline.gray_frames(20), {10: _PERSON})
    tiny_pipeline.write_records(tmp_path / "train", [record])

    def frame_numbers(features):
        return tuple(np.round(_frames_of(features).mean(axis=(1, 2, 3)) / 10).astype(int))

    dataset = inputs.train_input(
        configs["train_config"], configs["train_input_config"], configs["model"], model=model
    )
    drawn = {frame_numbers(features) for features, _ in dataset.take(60)}
    possible = {
        tuple(10 + jitter + (k - 2) * stride for k in range(4))
        for jitter in (-1, 0, 1)
        for stride in (1, 2, 3)
    }
    assert drawn <= possible and len(drawn) >= 6
    dataset = inputs.eval_input(
        configs["eval_config"], configs["eval_input_configs"][0], configs["model"], model=model
    )
    assert [frame_numbers(features) for features, _ in dataset] == [(6, 8, 10, 12)]


def test_records_of_another_frame_rate_are_refused(tmp_path, label_map):
    path = tiny_pipeline.write_records(tmp_path / "records", [_record("v")])
    reader = _reader(label_map, path)
    # Frame k of the tiny records has the time k microseconds.
    assert len(list(clip_dataset.build(reader, num_frames=4, fps=1e6))) == 1
    with pytest.raises(record_files.RecordFileError, match=r"records, record 0.* fps: 25 "):
        clip_dataset.build(reader, num_frames=4, fps=25.0)
