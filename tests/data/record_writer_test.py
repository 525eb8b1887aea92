# SPDX-License-Identifier: Apache-2.0
"""Record files must be those that TensorFlow writes."""

import pytest
import tensorflow as tf

from object_detection_ext.data import record_writer


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_bytes_are_those_of_tensorflows_writer(tmp_path, scheme):
    records = [b"", b"a", bytes(range(256)) * 300, b"\xff" * 7]
    with record_writer.RecordWriter(f"{scheme}{tmp_path}/ours") as writer:
        for record in records:
            writer.write(record)
    with tf.io.TFRecordWriter(str(tmp_path / "stock")) as stock:
        for record in records:
            stock.write(record)
    ours = (tmp_path / "ours").read_bytes()
    assert ours == (tmp_path / "stock").read_bytes()
    assert len(ours) == writer.num_bytes


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_no_record_is_an_empty_file(tmp_path, scheme):
    with record_writer.RecordWriter(f"{scheme}{tmp_path}/none"):
        pass
    assert (tmp_path / "none").read_bytes() == b""
