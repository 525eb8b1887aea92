# SPDX-License-Identifier: Apache-2.0
"""Record files are looked at before training: none, empty, truncated."""

import pytest
import tensorflow as tf

from object_detection_ext.data import record_files
from tests import tiny_pipeline

_RECORDS = [b"", b"x", b"y" * 100]
# Each record: length, its CRC, data, their CRC.
_SIZES = [16 + len(record) for record in _RECORDS]


@pytest.fixture
def whole(tmp_path):
    return tiny_pipeline.write_records(tmp_path / "whole.record", _RECORDS)


def test_record_sizes_are_those_of_the_format(whole):
    assert whole.stat().st_size == sum(_SIZES)
    positions, is_cut = record_files.find_records(str(whole))
    assert positions.tolist() == [0, _SIZES[0], _SIZES[0] + _SIZES[1]] and not is_cut


def test_truncation_at_every_byte_is_noticed(whole):
    content = whole.read_bytes()
    for size in range(len(content)):
        whole.write_bytes(content[:size])
        whole_records = sum(sum(_SIZES[: count + 1]) <= size for count in range(3))
        at_a_boundary = size in (0, _SIZES[0], _SIZES[0] + _SIZES[1])
        positions, is_cut = record_files.find_records(str(whole))
        assert (len(positions), is_cut) == (whole_records, not at_a_boundary), f"{size} bytes"


def test_every_flipped_byte_is_found(whole):
    content = whole.read_bytes()
    assert record_files.damaged_records(str(whole)) == []
    starts = [0, _SIZES[0], _SIZES[0] + _SIZES[1]]
    for position in range(len(content)):
        flipped = bytearray(content)
        flipped[position] ^= 4
        path = whole.with_name(f"flipped-{position}")
        path.write_bytes(flipped)
        number = sum(start <= position for start in starts) - 1
        positions, is_cut = record_files.find_records(str(path))
        if position - starts[number] < 12:
            # A damaged length: where the next record begins is not known.
            assert (positions.tolist(), is_cut) == (starts[:number], True), position
            continue
        assert (positions.tolist(), is_cut) == (starts, False), position
        assert record_files.damaged_records(str(path)) == [number], position
        for index, start in enumerate(starts):
            expected = None if index == number else _RECORDS[index]
            assert record_files.read_record(str(path), start) == expected


def test_a_full_look_tells_how_far_it_is(whole):
    reported = []
    record_files.damaged_records(str(whole), reported.append)
    assert reported == [_SIZES[0], _SIZES[0] + _SIZES[1], sum(_SIZES)]


def test_truncated_files_are_counted_and_named(whole, tmp_path, caplog):
    truncated = tmp_path / "truncated.record"
    truncated.write_bytes(whole.read_bytes()[:-1])
    paths = record_files.check_record_files([str(tmp_path / "*.record")])
    assert paths == [str(truncated), str(whole)]
    (warning,) = caplog.records
    assert warning.levelname == "WARNING"
    assert "1 of 2 record files" in warning.getMessage()
    assert f"{truncated} (after 2 whole records)" in warning.getMessage()


def test_whole_files_give_no_warning(whole, caplog):
    assert record_files.check_record_files([str(whole)]) == [str(whole)]
    assert not caplog.records


def test_pattern_without_a_file_is_named(whole, tmp_path):
    missing = f"{tmp_path}/train.record-?????-of-?????"
    with pytest.raises(record_files.RecordFileError) as caught:
        record_files.check_record_files([str(whole), missing])
    assert missing in str(caught.value)
    assert "tf_record_input_reader.input_path" in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"not a record file at all"])
def test_files_without_one_whole_record_are_refused(tmp_path, content):
    path = tmp_path / "empty.record"
    path.write_bytes(content)
    with pytest.raises(record_files.RecordFileError, match=r"Not one whole record in .*empty"):
        record_files.check_record_files([str(path)])


# The first records themselves.


def _clip_record(num_frames=6, keyframes=(3,), fps=25.0, repeated=(0, 0)) -> bytes:
    """A record; `repeated` frames at its start and end have the time of the one beside them."""
    people = {index: [([0.1, 0.2, 0.5, 0.6], "walk")] for index in keyframes}
    frames = tiny_pipeline.gray_frames(num_frames, step=3)
    record = tiny_pipeline.make_record(frames, people, size=99)
    example = tf.train.SequenceExample.FromString(record)
    times = example.feature_lists.feature_list["image/timestamp"].feature
    for index, time in enumerate(times):
        index = min(max(index, repeated[0]), num_frames - 1 - repeated[1])
        time.int64_list.value[:] = [round(2e6 + 1e6 * index / fps)]
    return example.SerializeToString()


def test_look_at_records_tells_what_they_hold(tmp_path):
    records = [_clip_record(), _clip_record(num_frames=9, keyframes=(2, 4))]
    path = str(tiny_pipeline.write_records(tmp_path / "clips", records))
    look = record_files.look_at_records([path])
    assert [(r.path, r.number, r.num_frames, r.keyframes) for r in look.records] == [
        (path, 0, 6, (3,)),
        (path, 1, 9, (2, 4)),
    ]
    assert look.num_frames == 6
    assert look.fps == pytest.approx(25.0, rel=1e-4)
    # Of the pictures: the header says 99.
    assert look.sizes == {(tiny_pipeline.SIZE, tiny_pipeline.SIZE)}
    assert look.keyframes_per_record == 1.5
    assert look.frames_around_keyframes() == (2, 2)
    assert look.records[0].labels == {"walk"}
    frames = tiny_pipeline.gray_frames(9, step=3)
    assert look.records[1].frame_bytes == pytest.approx(sum(map(len, frames)) / 9)
    assert not look.unreadable


def test_look_reads_a_few_records_of_many_files(tmp_path):
    paths = [
        str(tiny_pipeline.write_records(tmp_path / f"clips{index}", [_clip_record()] * 3))
        for index in range(3)
    ]
    look = record_files.look_at_records(paths, max_records=4)
    assert [(r.path, r.number) for r in look.records] == [
        (paths[0], 0),
        (paths[0], 1),
        (paths[1], 0),
        (paths[1], 1),
    ]
    look = record_files.look_at_records(paths, max_records=2)
    assert [(r.path, r.number) for r in look.records] == [(paths[0], 0), (paths[1], 0)]


@pytest.mark.parametrize(
    ("record", "fps"),
    [
        (_clip_record(num_frames=8, fps=12.5, repeated=(3, 2)), 12.5),
        (_clip_record(num_frames=1, keyframes=(0,)), None),
        (_clip_record(num_frames=4, repeated=(3, 0)), None),
    ],
    ids=["edges repeated", "one frame", "one time"],
)
def test_frame_rate_comes_from_the_frames_that_differ(tmp_path, record, fps):
    path = str(tiny_pipeline.write_records(tmp_path / "clips", [record]))
    assert record_files.look_at_records([path]).fps == (fps and pytest.approx(fps, rel=1e-4))


def test_what_cannot_be_read_is_listed(tmp_path):
    mixed = tiny_pipeline.write_records(tmp_path / "mixed", [_clip_record(), b"no example"])
    truncated = tiny_pipeline.write_records(tmp_path / "truncated", [_clip_record()])
    truncated.write_bytes(truncated.read_bytes()[:-30])
    look = record_files.look_at_records([str(mixed), str(truncated)])
    assert [(r.path, r.number) for r in look.records] == [(str(mixed), 0)]
    of_mixed, of_truncated = look.unreadable
    assert of_mixed.startswith(f"{mixed}, record 1: ")
    assert of_truncated.startswith(f"{truncated}: ")


def _look(tmp_path, *records: bytes) -> record_files.RecordLook:
    return record_files.look_at_records(
        [str(tiny_pipeline.write_records(tmp_path / "clips", records))]
    )


@pytest.mark.parametrize(
    ("written", "expected"), [(25.0, 25.0), (25.0, None), (12.5, 12.5), (29.97, 30.0)]
)
def test_right_frame_rates_pass(tmp_path, written, expected):
    record_files.check_frame_rate(
        _look(tmp_path, _clip_record(num_frames=64, fps=written)), expected
    )


def test_frames_that_tell_no_rate_pass(tmp_path):
    record_files.check_frame_rate(_look(tmp_path, _clip_record(1, keyframes=(0,))), 25.0)


@pytest.mark.parametrize(("written", "expected"), [(24.0, 25.0), (30.0, 25.0), (12.5, 25.0)])
def test_wrong_frame_rate_names_file_and_both_rates(tmp_path, written, expected):
    look = _look(tmp_path, _clip_record(num_frames=64, fps=written))
    with pytest.raises(record_files.RecordFileError) as caught:
        record_files.check_frame_rate(look, expected)
    assert str(caught.value).startswith(f"{tmp_path / 'clips'}, record 0: ")
    assert f"{written:g} frames per second" in str(caught.value)
    assert f"--fps {expected:g}" in str(caught.value)


@pytest.mark.parametrize(
    ("source_fps", "fps", "reported"), [(30, 25.0, "25"), (28, 12.5, "12.5"), (760, 15.2, "15.2")]
)
def test_rate_is_reported_as_given_to_the_converter(tmp_path, source_fps, fps, reported):
    """Frames that are the nearest of another rate's measure 24.89, say, where 25 was meant."""
    record = tf.train.SequenceExample.FromString(_clip_record(num_frames=64))
    for k, step in enumerate(record.feature_lists.feature_list["image/timestamp"].feature):
        step.int64_list.value[:] = [round(1e6 * round(k / fps * source_fps) / source_fps)]
    look = _look(tmp_path, record.SerializeToString())
    assert look.records[0].rate == reported
    with pytest.raises(record_files.RecordFileError, match=f"or set fps to {reported}\\.$"):
        record_files.check_frame_rate(look, 3.0)


@pytest.mark.parametrize("source_fps", [15, 24, 29.97, 60])
def test_frames_taken_by_time_from_a_video_of_another_rate_pass(tmp_path, source_fps):
    """As the converter takes them: the nearest frame, so that times stand off or repeat."""
    for start in (3.0, 3.013, 3.027):
        record = tf.train.SequenceExample.FromString(_clip_record(num_frames=64))
        for k, step in enumerate(record.feature_lists.feature_list["image/timestamp"].feature):
            time = round((start + k / 25) * source_fps) / source_fps
            step.int64_list.value[:] = [round(1e6 * time)]
        record_files.check_frame_rate(_look(tmp_path, record.SerializeToString()), 25.0)


@pytest.mark.parametrize(("before", "behind", "warns"), [(3, 2, 0), (4, 2, 1), (3, 3, 1)])
def test_clips_that_reach_beyond_their_records_are_told_once(
    tmp_path, caplog, before, behind, warns
):
    look = _look(tmp_path, _clip_record(), _clip_record())  # 6 frames, the keyframe is 3
    record_files.warn_of_repeated_frames(look, before, behind)
    assert len(caplog.records) == warns
    for record in caplog.records:
        assert f"{tmp_path / 'clips'}, record 0: keyframe 3" in record.getMessage()
        assert "--num_frames" in record.getMessage()
