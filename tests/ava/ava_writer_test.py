# SPDX-License-Identifier: Apache-2.0
"""What the writer writes, the readers read; a file is there when it is whole."""

import pytest
from google.protobuf import text_format
from object_detection.protos import string_int_label_map_pb2

from object_detection_ext import errors
from object_detection_ext.ava import annotations, label_maps, tables, writer

_BOX = [0.12345678, 0.1, 0.5, 1.0]
_IDS = ["v1", "monday/v 1", "a,b", 'say "hi"', "-x", "видео", "a;b"]


def test_rows_as_ava_has_them(tmp_path):
    path = tmp_path / "rows.csv"
    with writer.writing(path) as rows:
        rows.annotation("v1", 902.0, _BOX, 80, 7)
        rows.annotation("v1", 902.5, _BOX, 1)
        rows.detection("v1", 1.0416666, _BOX, 3, 0.98765)
        rows.nobody("v1", 903)
    assert path.read_bytes().decode() == (
        "v1,0902,0.1000,0.1235,1.0000,0.5000,80,7\n"
        "v1,902.5,0.1000,0.1235,1.0000,0.5000,1\n"
        "v1,1.041667,0.1000,0.1235,1.0000,0.5000,3,0.9877\n"
        "v1,0903\n"
    )
    assert rows.num_rows == 4


def test_every_id_comes_back_as_it_was(tmp_path):
    path = tmp_path / "rows.csv"
    with writer.writing(path, decimals=8) as rows:
        for index, video_id in enumerate(_IDS):
            rows.annotation(video_id, index + 0.04, _BOX, 1, "left, man")
    found = annotations.read_annotations(path, {1: "stand"})
    assert found.notes == ()
    assert {k.video_id: k.timestamp for k in found.keyframes} == {
        video_id: index + 0.04 for index, video_id in enumerate(_IDS)
    }
    assert {r.person_id for k in found.keyframes for r in k.regions} == {"left, man"}
    assert found.keyframes[0].regions[0].box == tuple(_BOX)


def test_an_id_that_no_reader_takes_is_not_written(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("what was there\n")
    with pytest.raises(errors.InputError, match="has control characters"):
        with writer.writing(path) as rows:
            rows.nobody("v1", 1)
            rows.nobody("v\n1", 1)
    assert path.read_text() == "what was there\n"
    assert [p.name for p in tmp_path.iterdir()] == ["rows.csv"]


def test_files_are_joined(tmp_path):
    parts = [str(tmp_path / name) for name in ("a.csv", "b.csv", "c.csv")]
    for number, part in enumerate(parts):
        with writer.writing(part) as rows:
            if number != 1:  # one without a row
                rows.detection(f"v{number}", 1.0, _BOX, 1, 0.5)
    writer.join(tmp_path / "all.csv", parts)
    assert tables.read_csv(tmp_path / "all.csv").frames == [("v0", 1), ("v2", 1)]
    writer.join(tmp_path / "all.csv", [])
    assert (tmp_path / "all.csv").read_text() == ""


def test_label_maps_are_those_of_the_stock_api(tmp_path):
    path = tmp_path / "map.pbtxt"
    names = {3: 'say "hi"', 1: "back\\slash", 80: "it's", 2: "走路"}
    writer.write_label_map(path, names)
    stock = string_int_label_map_pb2.StringIntLabelMap()
    text_format.Parse(path.read_text(encoding="utf-8"), stock)
    assert {item.id: item.name for item in stock.item} == names
    assert label_maps.read_label_map(path) == names
