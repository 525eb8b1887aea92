# SPDX-License-Identifier: Apache-2.0
"""Readers of AVA CSVs and label maps."""

import numpy as np
import pytest

from object_detection_ext import progress
from object_detection_ext.ava import csv_text, tables
from object_detection_ext.ava.faults import AnnotationError


def _file(tmp_path, text, name="rows.csv"):
    path = tmp_path / name
    path.write_text(text)
    return str(path)


def test_rows_of_all_lengths_are_read(tmp_path):
    rows = tables.read_csv(
        _file(
            tmp_path,
            "a,0902,0.1,0.2,0.3,0.4,12,0.5\n"
            "a,903\n"
            "\n"
            "b,0902,0.1,0.2,0.3,0.4,7\n"
            "a,902,0,0,1,1,80.0,7\n",
        )
    )
    assert rows.frames == [("a", 902), ("a", 903), ("b", 902)]
    np.testing.assert_array_equal(rows.rows.frame, [0, 2, 0])
    np.testing.assert_array_equal(rows.rows.boxes[0], [0.2, 0.1, 0.4, 0.3])
    np.testing.assert_array_equal(rows.rows.classes, [12, 7, 80])
    np.testing.assert_array_equal(rows.rows.scores, [0.5, 1.0, 7.0])
    np.testing.assert_array_equal(rows.lines, [1, 4, 5])
    np.testing.assert_array_equal(rows.has_score, [True, False, True])


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("v,0902,0.1,0.2,0.3,0.4", "2: 6 columns; it must be video_id,timestamp,x1,y1,x2,y2,act"),
        ("v,0902,0.1,0.2,x,0.4,1,0.5", "2: x2 is 'x'; it must be a number"),
        ("v,0902,0.1,inf,0.3,0.4,1,0.5", "2: y1 is 'inf'; it must be a number"),
        ("v,0902,0.1,0.2,0.3,nan,1,0.5", "2: y2 is 'nan'"),
        ("v,0902,0.1,0.2,1e154,0.4,1,0.5", "2: x2 is 1e+154; boxes are normalized, so it must be"),
        ("v,0902,-1e7,0.2,0.3,0.4,1", "2: x1 is -1e+07; boxes are normalized, so it must be"),
        ('"a\x1b[2J",0902,0.1,0.2,0.3,0.4,1', r"2: video_id is 'a\x1b[2J'; it must not"),
        ("v,0902,0.1,0.2,0.3,0.4,1.5,0.5", "2: action_id is '1.5'; it must be a whole number"),
        ("v,0902,0.1,0.2,0.3,0.4,1e30,0.5", "2: action_id is '1e30'"),
        ("v,0902,0.1,0.2,0.3,0.4,1,NaN", "2: score is 'NaN'; it must be a number, not NaN"),
        ("v,0902,0.1,0.2,0.3,0.4,1,", "2: score is ''; it must be a number, not NaN"),
        ("v,soon,0.1,0.2,0.3,0.4,1,0.5", "2: timestamp is 'soon'; it must be a number"),
        ("v,inf", "2: timestamp is 'inf'; it must be a number of seconds"),
    ],
)
def test_errors_name_file_line_and_value(tmp_path, row, message):
    path = _file(tmp_path, f"v,0902,0.1,0.2,0.3,0.4,1,0.5\n{row}\n")
    with pytest.raises(AnnotationError, match="rows.csv: 1 bad row") as caught:
        tables.read_csv(path)
    assert f"rows.csv:{message}" in str(caught.value)


@pytest.mark.parametrize("corner", ["1e154", "-1e7"])
def test_boxes_in_any_unit_have_areas_that_are_numbers(tmp_path, corner):
    path = _file(tmp_path, f"v,0902,640,0.2,{corner},0.4,1,0.5\n")
    with pytest.raises(AnnotationError, match=f"1: x2 is '{corner}'; it must be 1,000,000 at most"):
        tables.read_csv(path, box_tolerance=None)


def test_a_binary_file_is_an_error(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_bytes(b"v,0902\n\xff\xfe\x00\x01")
    with pytest.raises(AnnotationError, match="rows.csv, line 2: not a CSV file in UTF-8"):
        tables.read_csv(str(path))


def test_long_files_are_read_in_parts_with_progress(tmp_path, monkeypatch):
    monkeypatch.setattr(csv_text, "_REPORT_LINES", 3)
    monkeypatch.setattr(progress, "INTERVAL_SECONDS", 0.0)
    lines = [f"v,{i // 2},0,0,1,1,{i},0.5\n" for i in range(10)]
    said = []
    rows = tables.read_csv(_file(tmp_path, "".join(lines)), said.append)
    np.testing.assert_array_equal(rows.rows.classes, np.arange(10))
    np.testing.assert_array_equal(rows.lines, np.arange(1, 11))
    assert len(rows.frames) == 5
    assert said and "0 s left" in said[-1] and "MB" in said[-1]


def test_excluded_timestamps(tmp_path):
    path = _file(tmp_path, "a,0902\nb,17\n")
    assert tables.read_excluded_timestamps(path) == {("a", 902), ("b", 17)}
    with pytest.raises(ValueError, match="rows.csv:1: 3 columns"):
        tables.read_excluded_timestamps(_file(tmp_path, "a,0902,1\n"))
