# SPDX-License-Identifier: Apache-2.0
"""Readers of AVA CSVs and label maps."""

import numpy as np
import pytest

from object_detection_ext import progress
from object_detection_ext.evaluation import csv_io


def _file(tmp_path, text, name="rows.csv"):
    path = tmp_path / name
    path.write_text(text)
    return str(path)


def test_rows_of_all_lengths_are_read(tmp_path):
    rows = csv_io.read_csv(
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
        ("v,0902,0.1,0.2,0.3,0.4", "line 2: 6 columns, but an AVA row has 7 or 8"),
        ("v,0902,0.1,0.2,x,0.4,1,0.5", "line 2: x2 is 'x', but must be a finite number"),
        ("v,0902,0.1,inf,0.3,0.4,1,0.5", "line 2: y1 is 'inf', but must be a finite number"),
        ("v,0902,0.1,0.2,0.3,nan,1,0.5", "line 2: y2 is 'nan'"),
        (
            "v,0902,0.1,0.2,1e154,0.4,1,0.5",
            "line 2: x2 is '1e154', but must be a finite number",
        ),
        ("v,0902,-1e7,0.2,0.3,0.4,1", "line 2: x1 is '-1e7', but must be a finite number"),
        ('"a\x1b[2J",0902,0.1,0.2,0.3,0.4,1', r"line 2: video_id is 'a\x1b[2J', but must not"),
        ("v,0902,0.1,0.2,0.3,0.4,1.5,0.5", "line 2: action_id is '1.5', but must be a whole"),
        ("v,0902,0.1,0.2,0.3,0.4,1e30,0.5", "line 2: action_id is '1e30'"),
        ("v,0902,0.1,0.2,0.3,0.4,1,NaN", "line 2: score is 'NaN', but must be a number, not NaN"),
        ("v,soon,0.1,0.2,0.3,0.4,1,0.5", "line 2: timestamp 'soon' is not a number of seconds"),
        ("v,inf", "line 2: timestamp 'inf' is not a number of seconds"),
    ],
)
def test_errors_name_file_line_and_value(tmp_path, row, message):
    path = _file(tmp_path, f"v,0902,0.1,0.2,0.3,0.4,1,0.5\n{row}\n")
    with pytest.raises(ValueError, match="rows.csv, line") as caught:
        csv_io.read_csv(path)
    assert message in str(caught.value)


def test_a_header_row_is_recognized(tmp_path):
    path = _file(tmp_path, "video_id,timestamp,x1,y1,x2,y2,action_id\n")
    with pytest.raises(ValueError, match="AVA files have no header row"):
        csv_io.read_csv(path)


def test_a_binary_file_is_an_error(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_bytes(b"v,0902\n\xff\xfe\x00\x01")
    with pytest.raises(ValueError, match="not a text CSV"):
        csv_io.read_csv(str(path))


def test_long_files_are_read_in_parts_with_progress(tmp_path, monkeypatch):
    monkeypatch.setattr(csv_io, "_CHUNK_ROWS", 3)
    monkeypatch.setattr(progress, "INTERVAL_SECONDS", 0.0)
    lines = [f"v,{i // 2},0,0,1,1,{i},0.5\n" for i in range(10)]
    said = []
    rows = csv_io.read_csv(_file(tmp_path, "".join(lines)), said.append)
    np.testing.assert_array_equal(rows.rows.classes, np.arange(10))
    np.testing.assert_array_equal(rows.lines, np.arange(1, 11))
    assert len(rows.frames) == 5
    assert said and "0 s left" in said[-1] and "MB" in said[-1]


def test_excluded_timestamps(tmp_path):
    path = _file(tmp_path, "a,0902\nb,17\n")
    assert csv_io.read_excluded_timestamps(path) == {("a", 902), ("b", 17)}
    with pytest.raises(ValueError, match="line 1: 3 columns"):
        csv_io.read_excluded_timestamps(_file(tmp_path, "a,0902,1\n"))


STOCK_FORM = """
# A comment with { and "
item {
  name: "bend/bow (at the waist)"  # another
  id: 1
}
item{id:80 name:'watch (e.g., TV) {1}' display_name: "Watch \\"it\\""
  keypoints { id: 5 label: "nose" } }
"""
AVA_FORM = """label {
  name: "bend/bow (at the waist)"
  label_id: 1
  label_type: PERSON_MOVEMENT
}
label {
  name: "watch (e.g., TV) {1}"
  label_id: 80
  label_type: PERSON_INTERACTION
}
"""


@pytest.mark.parametrize("text", [STOCK_FORM, AVA_FORM])
def test_both_forms_of_label_maps(tmp_path, text):
    assert csv_io.read_label_map(_file(tmp_path, text, "map.pbtxt")) == [
        {"id": 1, "name": "bend/bow (at the waist)"},
        {"id": 80, "name": "watch (e.g., TV) {1}"},
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no classes"),
        ("item { name: 'a' }", "line 1: a block without an 'id'"),
        ("item { name: 'a' id: x }", "id 'x' is not a whole number"),
        ("item { name: 'a' id: 0 }", "id 0 of 'a' must be 1 or more"),
        ("item { name: 'a' id: 2 }\nitem { name: 'b' id: 2 }", "line 2: id 2 of 'b' is taken"),
        ("item { name: 'a id: 2 }", "line 1: a quoted text is not closed"),
        ("item { name: 'a' id: 2 ", "line 1: this block is not closed"),
        ("}", "closes nothing"),
    ],
)
def test_label_map_errors_name_file_and_line(tmp_path, text, message):
    with pytest.raises(ValueError, match="map.pbtxt") as caught:
        csv_io.read_label_map(_file(tmp_path, text, "map.pbtxt"))
    assert message in str(caught.value)


def test_a_background_item_is_left_out(tmp_path):
    text = "item { id: 0 name: 'background' } item { id: 1 name: 'a' }"
    assert csv_io.read_label_map(_file(tmp_path, text)) == [{"id": 1, "name": "a"}]
