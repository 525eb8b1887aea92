# SPDX-License-Identifier: Apache-2.0
"""Every kind of bad row is reported with its place, its value and what would be right."""

import pytest

from object_detection_ext.ava import annotations, faults, timestamps

_LABELS = {1: "stand", 3: "sit", 80: "watch (a person)"}


def _read(tmp_path, text, **options):
    path = tmp_path / "a.csv"
    path.write_text(text)
    return annotations.read_annotations(path, _LABELS, **options)


def test_rows_become_keyframes_sorted_by_video_and_time(tmp_path):
    result = _read(
        tmp_path,
        "v2,0902,0.1,0.2,0.3,0.4,80,7\n"
        "\n"
        "v1,1.5,0,0,1,1,1\n"
        "v2, 902.0 ,0.1,0.2,0.3,0.4,1,7\n"
        "v1,0001\n",
    )
    assert [(k.video_id, k.timestamp, k.row) for k in result.keyframes] == [
        ("v1", 1.0, 5), ("v1", 1.5, 3), ("v2", 902.0, 1),
    ]  # fmt: skip
    empty, half, people = result.keyframes
    assert empty.regions == []
    assert half.regions == [annotations.Region((0, 0, 1, 1), 1, None, 3)]
    # x1,y1,x2,y2 of the file is [ymin, xmin, ymax, xmax] here.
    assert people.regions[0] == annotations.Region((0.2, 0.1, 0.4, 0.3), 80, 7, 1)
    assert people.regions[1] == annotations.Region((0.2, 0.1, 0.4, 0.3), 1, 7, 4)
    assert list(result.by_video()) == ["v1", "v2"]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("v,1,0.1,0.2,0.3", "5 columns; it must be video_id,timestamp,x1"),
        ("v,1,0.1,0.2,0.3,0.4,1,0,0.9", "9 columns"),
        ("v,one,0.1,0.2,0.3,0.4,1,0", "timestamp is 'one'; it must be a number"),
        ("v,nan,0.1,0.2,0.3,0.4,1,0", "timestamp is 'nan'"),
        ("v,inf", "timestamp is 'inf'"),
        ("v,1e12", "timestamp is '1e12'; it must be a number of seconds, less than 1,000,000,000"),
        ("v,1,abc,0.2,0.3,0.4,1,0", "x1 is 'abc'; it must be a number"),
        ("v,1,0.1,nan,0.3,0.4,1,0", "y1 is 'nan'"),
        ("v,1,0.1,0.2,,0.4,1,0", "x2 is ''"),
        ("v,1,0.3,0.2,0.3,0.4,1,0", "x1 is 0.3 and x2 0.3; x1 must be less than x2"),
        ("v,1,0.1,0.5,0.3,0.4,1,0", "y1 is 0.5 and y2 0.4; y1 must be less than y2"),
        (
            "v,1,-0.1,0.2,0.3,0.4,1,0",
            r"x1 is -0.1; boxes are normalized, so it must be in \[0, 1\]",
        ),
        ("v,1,10,20,30,40,1,0", "x1 is 10; boxes are normalized"),
        ("v,1,0.1,0.2,0.3,1.02,1,0", "y2 is 1.02"),
        ("v,1,0.1,0.2,0.3,1.0100001,1,0", "y2 is 1.0100001; boxes are normalized"),
        ("v,1,0.1,0.2,0.3,0.4,2,0", "action_id 2 is not in the label map, which has 1, 3, 80"),
        ("v,1,0.1,0.2,0.3,0.4,1.5,0", "action_id is '1.5'; it must be a whole number"),
        ("v,1,0.1,0.2,0.3,0.4,1,0.93", "person_id is '0.93'; it must be a whole number"),
        (",1,0.1,0.2,0.3,0.4,1,0", "video_id is empty"),
    ],
)
def test_bad_row(tmp_path, row, message):
    with pytest.raises(faults.AnnotationError, match=message) as caught:
        _read(tmp_path, f"v,1,0.1,0.2,0.3,0.4,1,0\n{row}\n")
    assert f"{tmp_path / 'a.csv'}:2: " in str(caught.value)
    assert "1 bad row:" in str(caught.value)


def test_all_bad_rows_are_counted_and_the_first_20_listed(tmp_path):
    with pytest.raises(faults.AnnotationError) as caught:
        _read(tmp_path, "v,1,0.1,0.2,0.3,0.4,1,0\n" + "v,1,0.1,0.2,0.3,0.4,2,0\n" * 33)
    lines = str(caught.value).splitlines()
    assert "33 bad rows" in lines[0]
    assert len(lines) == 1 + 20 + 1
    assert lines[1].startswith(f"  {tmp_path / 'a.csv'}:2: ")
    assert lines[-1] == "  ... and 13 more"


def test_a_header_of_unknown_names_gets_a_hint(tmp_path):
    with pytest.raises(faults.AnnotationError, match="first row names columns: .* remove the"):
        _read(tmp_path, "Datei,Zeit,links,oben,rechts,unten,Tat\nv,1,0,0,1,1,1,0\n")


def test_unknown_labels_are_left_out_on_request(tmp_path):
    text = "v,1,0,0,1,1,2,0\nv,1,0,0,1,1,3,0\nv,2,0,0,1,1,4,0\nv,2,0,0,1,1,4,1\n"
    result = _read(tmp_path, text, skip_unknown_labels=True)
    assert result.skipped_labels == {2: 1, 4: 2}
    assert [(len(k.regions), k.num_skipped) for k in result.keyframes] == [(1, 1), (0, 2)]


@pytest.mark.parametrize("text", ["", "\n\n"])
def test_empty_file(tmp_path, text):
    with pytest.raises(faults.AnnotationError, match="the file has no rows; each row is"):
        _read(tmp_path, text)


def test_unreadable_files(tmp_path):
    with pytest.raises(faults.AnnotationError, match="none.csv: there is no such"):
        annotations.read_annotations(tmp_path / "none.csv", _LABELS)
    (tmp_path / "b.csv").write_bytes(b"\xff\xfe\x00v,1\n")
    with pytest.raises(faults.AnnotationError, match="not a CSV file in UTF-8"):
        annotations.read_annotations(tmp_path / "b.csv", _LABELS)


@pytest.mark.parametrize(
    ("seconds", "text"), [(902.0, "0902"), (0.0, "0000"), (1.5, "1.5"), (12345.25, "12345.25")]
)
def test_format_timestamp(seconds, text):
    assert timestamps.format_timestamp(seconds) == text
    assert float(text) == seconds
