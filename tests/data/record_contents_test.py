# SPDX-License-Identifier: Apache-2.0
"""Records read without their pictures say what they say with them."""

import io

import pytest
import tensorflow as tf

from object_detection_ext.ava import annotations
from object_detection_ext.data import clip_features, record_contents
from tests import tiny_pipeline

_BOX = [0.1, 0.2, 0.5, 0.6]
_PEOPLE = {1: [(_BOX, "stand"), (_BOX, "walk")], 3: [], 5: [(_BOX, "walk")]}


def _record(people=_PEOPLE, num_frames=6, **options) -> bytes:
    return tiny_pipeline.make_record(tiny_pipeline.gray_frames(num_frames), people, **options)


def _own_record() -> bytes:
    """As the converter writes it, in another order of the fields."""
    region = annotations.Region((0.1, 0.1, 0.9, 0.4), 1, 0, 1)
    return clip_features.serialized_example(
        {2: annotations.Keyframe("a", 1.0, 1, [region])},
        tiny_pipeline.ACTIONS,
        encoded_frames=tiny_pipeline.gray_frames(4),
        frame_times=[0.0, 0.5, 1.0, 1.5],
        height=64,
        width=64,
    )


def _edited(edit, record: bytes | None = None) -> bytes:
    example = tf.train.SequenceExample.FromString(record or _record())
    edit(example)
    return example.SerializeToString()


def _outline(record: bytes) -> tf.train.SequenceExample:
    return record_contents.read_outline(io.BytesIO(record), len(record))


@pytest.mark.parametrize("record", [_record(), _own_record()], ids=["stock", "own"])
def test_outline_is_the_record_without_its_pictures(record):
    expected = tf.train.SequenceExample.FromString(record)
    del expected.feature_lists.feature_list["image/encoded"].feature[:]
    assert _outline(record) == expected


def test_pictures_are_not_read(tmp_path):
    """Of a record of 3 MB, some kilobytes are."""
    frame = b"\xff" * 50_000
    record = tiny_pipeline.make_record([frame] * 64, {32: [(_BOX, "stand")]})
    path = tiny_pipeline.write_records(tmp_path / "r", [record])

    class Counting(io.FileIO):
        num_read = 0

        def readinto(self, buffer):
            count = super().readinto(buffer)
            self.num_read += count
            return count

    with Counting(path) as raw:
        file = io.BufferedReader(raw)
        file.seek(12)
        record_contents.read_outline(file, len(record))
        assert raw.num_read < 60_000 < 3_000_000 < len(record)


def test_contents_are_those_of_annotated_frames():
    def label_elsewhere(example):
        lists = example.feature_lists.feature_list
        lists["region/label/string"].feature[0].bytes_list.value.append(b"juggle")
        for side in ("ymin", "xmin", "ymax", "xmax"):
            lists[f"region/bbox/{side}"].feature[0].float_list.value.append(0.5)

    contents = record_contents.examine(_outline(_edited(label_elsewhere)))
    assert contents.keyframes == (1, 3, 5)
    assert contents.labels == {"stand": 1, "walk": 2}
    assert contents.size == (64, 64)


def _without_list(name):
    return lambda example: example.feature_lists.feature_list.pop(name)


def _without_context(name):
    return lambda example: example.context.feature.pop(name)


def _shorter(name):
    return lambda example: example.feature_lists.feature_list[name].feature.pop()


def _more_labels(example):
    lists = example.feature_lists.feature_list
    lists["region/label/string"].feature[1].bytes_list.value.append(b"walk")


def _float_marks(example):
    step = example.feature_lists.feature_list["region/is_annotated"].feature[2]
    step.float_list.value.append(1.0)


@pytest.mark.parametrize(
    ("edit", "problem"),
    [
        (_without_list("image/encoded"), "no feature list image/encoded, but 'image/source_id'"),
        (_without_list("image/source_id"), "no feature list image/source_id"),
        (_without_list("region/is_annotated"), "no feature list region/is_annotated"),
        (_without_list("region/bbox/xmax"), "no feature list region/bbox/xmax"),
        (_without_context("image/height"), "no feature image/height"),
        (_shorter("region/is_annotated"), "differ in length .*region/is_annotated 5"),
        (_shorter("region/label/string"), "differ in length .*region/label/string 5"),
        (_more_labels, "frame 1 has lists of different lengths .*region/label/string 3"),
        (_float_marks, "region/is_annotated of frame 2 is not one value of type int64"),
    ],
)
def test_records_of_another_kind_are_named_with_the_field(edit, problem):
    with pytest.raises(record_contents.NotAClipError, match=problem):
        record_contents.examine(_outline(_edited(edit)))


def test_pictures_count_where_they_are_there():
    example = tf.train.SequenceExample.FromString(_edited(_shorter("image/encoded")))
    with pytest.raises(
        record_contents.ListLengthError, match=r"image/encoded 5, image/source_id 6"
    ):
        record_contents.examine(example, has_pictures=True)
    record_contents.examine(_outline(example.SerializeToString()))


def test_records_without_boxes_may_have_no_lists_of_them():
    def edit(example):
        for name in list(example.feature_lists.feature_list):
            if name.startswith("region/") and name != "region/is_annotated":
                del example.feature_lists.feature_list[name]

    contents = record_contents.examine(_outline(_edited(edit)))
    assert contents.keyframes == (1, 3, 5) and not contents.labels


def plain_example(height: int = 64) -> bytes:
    """A tf.Example of an image, as the stock converters write them."""
    features = {
        "image/encoded": tf.train.Feature(
            bytes_list=tf.train.BytesList(value=tiny_pipeline.gray_frames(1))
        ),
        "image/height": tf.train.Feature(int64_list=tf.train.Int64List(value=[height])),
    }
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()


@pytest.mark.parametrize(
    ("record", "problem"),
    [
        (plain_example(), "a plain tf.Example, not a SequenceExample .it has 'image/encoded'"),
        (b"garbage that is long enough to look like something", "not a SequenceExample"),
        (b"", "not a SequenceExample"),
        (b"\x12\xff\xff\xff\xff\x7f", "not a SequenceExample"),
        (_record()[:-20], "not a SequenceExample"),
    ],
)
def test_what_is_not_a_record_of_ours_is_told(record, problem):
    with pytest.raises(record_contents.NotAClipError, match=problem):
        record_contents.examine(_outline(record))


def test_files_are_looked_through_and_counted(tmp_path):
    records = [_record({2: [(_BOX, "stand")]}), plain_example(), _record({}), _record(size=99)]
    path = str(tiny_pipeline.write_records(tmp_path / "r", records))
    (file,) = record_contents.look_into([path])
    assert (file.path, file.num_records, file.num_read) == (path, 4, 4) and file.is_complete
    assert (file.num_foreign, file.num_without_keyframe, file.num_damaged) == (1, 1, 0)
    assert file.foreign[0].startswith("record 1: a plain tf.Example")
    assert file.labels == {"stand": (2, 0), "walk": (2, 3)}
    assert file.sizes == {(64, 64): 0, (99, 99): 3}


def test_many_records_are_looked_at_in_even_parts(tmp_path, monkeypatch):
    monkeypatch.setattr(record_contents, "MIN_RECORDS_OF_FILE", 2)
    long, short = (
        str(tiny_pipeline.write_records(tmp_path / name, [_record()] * count))
        for name, count in (("long", 30), ("short", 3))
    )
    files = record_contents.look_into([long, short], max_records=11)
    assert [(file.num_read, file.num_records) for file in files] == [(10, 30), (2, 3)]
    assert not files[0].is_complete


def test_damaged_records_are_not_taken_for_foreign_ones(tmp_path):
    path = tiny_pipeline.write_records(tmp_path / "r", [_record(), _record()])
    data = bytearray(path.read_bytes())
    data[12] ^= 1  # the first byte of the first record
    path.write_bytes(data)
    (file,) = record_contents.look_into([str(path)])
    assert (file.num_read, file.num_damaged, file.num_foreign) == (2, 1, 0)


def test_of_files_that_are_not_local_the_first_records_are_read(tmp_path):
    first = tiny_pipeline.write_records(tmp_path / "a", [_record(), b"garbage"])
    second = tiny_pipeline.write_records(tmp_path / "b", [plain_example()])
    files = record_contents.look_into([f"file://{first}", f"file://{second}"])
    assert [(file.num_records, file.num_read, file.num_foreign) for file in files] == [
        (None, 1, 0),
        (None, 1, 1),
    ]
    assert files[0].labels == {"stand": (1, 0), "walk": (2, 0)}
    assert not files[0].is_complete
