# SPDX-License-Identifier: Apache-2.0
"""Actions counted without the pictures are those that the stock decoder finds."""

import collections
import os
from unittest import mock

import numpy as np
import pytest
import tensorflow as tf
from object_detection.data_decoders import tf_sequence_example_decoder

from object_detection_ext.data import record_labels
from tests import tiny_pipeline

_BOX = [0.1, 0.1, 0.7, 0.5]
_BOTH = [(_BOX, "walk"), (_BOX, "stand")]
_RECORDS = [
    {0: _BOTH, 3: [(_BOX, "walk"), ([0.2, 0.2, 0.8, 0.6], "walk")]},
    {1: [], 2: [(_BOX, "gehört nicht dazu")]},
    {},
    {2: _BOTH},
]


def _write(path, records=_RECORDS, frames=None):
    frames = frames or tiny_pipeline.gray_frames(4)
    return tiny_pipeline.write_records(
        path, [tiny_pipeline.make_record(frames, people) for people in records]
    )


_COUNTS = {
    ("stand", "walk"): 2,
    ("walk", "walk"): 1,
    (): 1,
    ("gehört nicht dazu",): 1,
}


def test_every_row_of_every_keyframe_is_counted(tmp_path):
    path = _write(tmp_path / "records")
    found = record_labels.count_keyframes([str(path)])
    assert found.counts == _COUNTS
    assert found.rows_by_action(["walk", "stand", "jump"]) == {"walk": 4, "stand": 2, "jump": 0}


def test_counts_are_those_of_the_stock_decoder(tmp_path):
    label_map = tiny_pipeline.write_label_map(tmp_path / "label_map.pbtxt")
    path = _write(tmp_path / "records")
    stock, ids = collections.Counter(), {name: n for n, name in tiny_pipeline.ACTIONS.items()}
    decoder = tf_sequence_example_decoder.TfSequenceExampleDecoder(str(label_map))
    for record in tf.data.TFRecordDataset(str(path)):
        sequence = {key: value.numpy() for key, value in decoder.decode(record).items()}
        for frame in np.flatnonzero(sequence["is_annotated"]):
            count = sequence["num_groundtruth_boxes"][frame]
            stock.update(sequence["groundtruth_classes"][frame][:count].tolist())
    rows = record_labels.count_keyframes([str(path)]).rows_by_action(ids)
    assert {ids[name]: count for name, count in rows.items()} == {n: stock[n] for n in ids.values()}


def test_pictures_are_stepped_over(tmp_path):
    """A thousandth of what is in the file is read."""
    path = _write(tmp_path / "records", frames=[os.urandom(1_000_000)] * 4)
    read = []

    def counted(descriptor, count, position, pread=os.pread):
        read.append(count)
        return pread(descriptor, count, position)

    with mock.patch.object(os, "pread", counted):
        assert record_labels.count_keyframes([str(path)]).counts == _COUNTS
    assert sum(read) < path.stat().st_size / 100


def test_files_are_counted_once_until_they_change(tmp_path):
    path = _write(tmp_path / "records")
    with mock.patch.object(record_labels, "_count", wraps=record_labels._count) as count:
        for _ in range(2):
            assert sum(record_labels.count_keyframes([str(path)]).counts.values()) == 5
        assert count.call_count == 1
        _write(path, _RECORDS[1:])
        assert sum(record_labels.count_keyframes([str(path)]).counts.values()) == 3


def test_files_that_are_not_local_are_counted_too(tmp_path):
    path = _write(tmp_path / "records")
    with mock.patch.object(os.path, "isfile", return_value=False):
        assert record_labels.count_keyframes([str(path)]).counts == _COUNTS


@pytest.mark.parametrize(
    "data", [b"\x12\xff\xff\xff", b"\x17", b"\x12\x03abc", b"\xff" * 40, b"plain text"]
)
def test_what_is_not_a_record_of_ours_is_left_out(tmp_path, data):
    whole = tiny_pipeline.make_record(tiny_pipeline.gray_frames(4), _RECORDS[0])
    path = tiny_pipeline.write_records(tmp_path / "records", [data, whole])
    found = record_labels.count_keyframes([str(path)])
    assert found.counts == {("stand", "walk"): 1, ("walk", "walk"): 1}


def test_long_work_is_reported(tmp_path, monkeypatch):
    monkeypatch.setattr(record_labels.progress, "INTERVAL_SECONDS", 0.0)
    path, lines = _write(tmp_path / "records"), []
    record_labels.count_keyframes([str(path)], lines.append)
    (line,) = lines
    assert line.startswith("counting actions: 1/1 files")
