# SPDX-License-Identifier: Apache-2.0
"""Record files are looked at before training: none, empty, truncated."""

import pytest

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
    assert record_files.count_whole_records(str(whole)) == (3, False)


def test_truncation_at_every_byte_is_noticed(whole):
    content = whole.read_bytes()
    for size in range(len(content)):
        whole.write_bytes(content[:size])
        whole_records = sum(sum(_SIZES[: count + 1]) <= size for count in range(3))
        at_a_boundary = size in (0, _SIZES[0], _SIZES[0] + _SIZES[1])
        expected = (whole_records, not at_a_boundary)
        assert record_files.count_whole_records(str(whole)) == expected, f"{size} bytes"


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
