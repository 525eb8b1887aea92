# SPDX-License-Identifier: Apache-2.0
"""Files that could be misread without a word: read in the only way there is, or refused."""

import codecs

import pytest

from object_detection_ext.ava import annotations, faults, label_maps, tables
from object_detection_ext.ava.columns import ANNOTATIONS

_LABELS = {1: "stand", 3: "sit"}
_BOX = "0.1,0.2,0.3,0.4"
_ROW = f"v1,0902,{_BOX},1,7\n"
_GERMAN = _ROW.replace(",", ";").replace(".", ",")
_HEADER = "video_id,timestamp,x1,y1,x2,y2,action_id,person_id\n"


def _file(tmp_path, content) -> str:
    path = tmp_path / "rows.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


def _read(path):
    return annotations.read_annotations(path, _LABELS)


def _error(path, read=_read) -> str:
    with pytest.raises(faults.AnnotationError) as caught:
        read(path)
    return str(caught.value).replace(path, "F")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("v1;1.234;0,1;0,2;0,3;0,4;1;7\n" + _GERMAN,
         "F:1: timestamp is '1.234', and line 1 has decimal commas; is it more than a thousand"),
        (_GERMAN + "v1;1.234\n", "F:2: timestamp is '1.234', and line 1 has decimal commas"),
        ("v1;1.234\n" + _GERMAN, "F:2: decimal commas here, and timestamp '1.234' in line 1"),
        (_GERMAN.replace(";7", ";1.000"), "F:1: person_id is '1.000', and line 1 has"),
    ],
)  # fmt: skip
def test_a_point_is_not_guessed_where_commas_are_decimal(tmp_path, content, message):
    assert message in _error(_file(tmp_path, content))


def test_points_are_decimal_where_no_comma_is(tmp_path):
    path = _file(tmp_path, "v1;1.234\nv1;902.5;0.125;0.2;1.000;0.4;1;7\n")
    assert [k.timestamp for k in _read(path).keyframes] == [1.234, 902.5]


@pytest.mark.parametrize("end", ["", "v1;903,500\n"])
def test_three_decimals_after_a_comma(tmp_path, end):
    """As AVA's numbers look after a German Excel: 1,000 is 1 where 0,077 is a fraction."""
    path = _file(tmp_path, "v1;902,500;0,077;0,200;1,000;1,005;1,000;7,000\n" + end)
    found = _read(path)
    assert [k.timestamp for k in found.keyframes] == [902.5, 903.5][: 1 + bool(end)]
    assert found.keyframes[0].regions[0].box == (0.2, 0.077, 1.0, 1.0)
    assert found.keyframes[0].regions[0].person_id == 7
    counts = {note.code: note.count for note in found.notes}
    assert counts["decimal_comma"] == 1 + bool(end) and counts["whole_number"] == 1


def test_three_decimals_after_a_comma_that_may_be_thousands(tmp_path):
    assert _error(_file(tmp_path, "v1;1,234;0;0;1;1;1;7\n")).endswith(
        "F:1: timestamp is '1,234'; it must be a number of seconds; is it more than a thousand, or "
        "a fraction?"
    )


def test_cut_off_boxes_with_decimal_commas_can_be_told_apart(tmp_path):
    path = _file(tmp_path, "v1;902;0,1;0,2;0,3;1,005;1;7\n")
    assert [n.value for n in _read(path).notes if n.code == "box_cut_off"] == ["0.1,0.2,0.3,1.005"]


def test_a_header_row_of_moments_alone(tmp_path, monkeypatch):
    """As a list of keyframes to detect has it; rows of two columns need no header row."""
    path = _file(tmp_path, "Timestamp,Video_ID\n0902,v1\n903.5,v1\n")
    moments = [("v1", 902.0), ("v1", 903.5)]
    boxes = annotations.read_person_boxes(path, faults.Notes())
    assert [(row.video_id, row.seconds) for row in boxes] == moments
    assert [(k.video_id, k.timestamp) for k in _read(path).keyframes] == moments
    for size in (0, 1 << 62):
        monkeypatch.setattr(tables, "_LONG_FILE", size)
        assert tables.read_ground_truth(path).frames == moments
    other = _file(tmp_path, "video_id,timestamp,box\nv1,0902,0.1 0.2 0.3 0.4\n")
    assert "no column x1" in _error(other)


def test_a_clock_may_have_a_decimal_comma(tmp_path):
    found = _read(_file(tmp_path, "v1;00:15:02,5;0,1;0,2;0,3;0,4;1;7\n"))
    assert [k.timestamp for k in found.keyframes] == [902.5]
    assert [n.code for n in found.notes] == ["clock_time", "decimal_comma", "delimiter"]


@pytest.mark.parametrize("header", ["", _HEADER])
def test_files_put_together_with_their_byte_order_marks(tmp_path, monkeypatch, header):
    """The mark is no part of the second file's first video id."""
    part = codecs.BOM_UTF8 + (header + _ROW).encode()
    path = _file(tmp_path, part * 3)
    (keyframe,) = _read(path).keyframes
    assert keyframe.video_id == "v1" and len(keyframe.regions) == 3
    (note,) = [note for note in _read(path).notes if note.code == "inner_mark"]
    assert (note.count, note.line) == (2, 3 if header else 2)
    monkeypatch.setattr(tables, "_LONG_FILE", 0)
    table = tables.read_ground_truth(path)
    assert table.frames == [("v1", 902)] and table.notes == _read(path).notes


def test_a_mark_in_a_column_that_is_not_looked_at(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "_LONG_FILE", 0)
    header = "note," + _HEADER
    path = _file(tmp_path, header + "a," + _ROW + "\ufeffb," + _ROW)
    assert [note.code for note in tables.read_csv(path).notes] == ["header", "inner_mark"]


@pytest.mark.parametrize(
    "content", [_ROW + _HEADER + _ROW, _HEADER + _ROW + _HEADER.upper() + _ROW, "# x\n" + _HEADER]
)
def test_a_header_row_after_others_is_one_fault(tmp_path, content):
    line = content[: content.lower().rindex(_HEADER)].count("\n") + 1
    message = _error(_file(tmp_path, content))
    assert f"F:{line}: a header row after other rows: " in message
    assert "timestamp is" not in message


def test_a_row_of_units_is_not_called_the_header(tmp_path):
    message = _error(_file(tmp_path, _HEADER + "-,s,n,n,n,n,id,id\n" + _ROW))
    assert "F:2: timestamp is 's'" in message and "first row" not in message


@pytest.mark.parametrize(
    ("eighth", "expected"),
    [("12", 12), ("0012", "0012"), ("00", "00"), ("0", 0), ("12.0", 12), ("-1", -1)],
)
def test_people_with_leading_zeros_are_others(tmp_path, monkeypatch, eighth, expected):
    path = _file(tmp_path, _ROW + f"v1,0902,{_BOX},1,12\nv1,0902,{_BOX},1,{eighth}\n")
    regions = _read(path).keyframes[0].regions
    assert regions[2].person_id == expected and type(regions[2].person_id) is type(expected)
    for size in (0, 1 << 62):
        monkeypatch.setattr(tables, "_LONG_FILE", size)
        persons = tables.read_csv(path, kind=ANNOTATIONS).persons.tolist()
        assert (persons[1] == persons[2]) == (expected == 12)


@pytest.mark.parametrize(
    "action", ["1.0000000000000001", "9007199254740993.0", "1e-400", "1e999999"]
)
def test_numbers_that_are_nearly_whole_are_not(tmp_path, action):
    assert f"F:1: action_id is '{action}'" in _error(_file(tmp_path, f"v1,0902,{_BOX},{action}\n"))


def test_person_boxes_say_that_more_columns_are_left_out(tmp_path):
    """Such as of a row whose line end was lost."""
    path, notes = _file(tmp_path, _ROW.rstrip("\n") + _ROW + _ROW), faults.Notes()
    assert len(annotations.read_person_boxes(path, notes)) == 2
    (note,) = notes.all()
    assert str(note) == (
        "1 row with more than 8 columns, of which the first 6 are read (first: line 1, 15 columns)"
    )


@pytest.mark.parametrize(("left", "right"), ["''", "\u201c\u201d", "\u201e\u201c", "\u00ab\u00bb"])
def test_other_quotation_marks(tmp_path, monkeypatch, left, right):
    def quoted(count):
        fields = _ROW.strip().split(",")
        fields[:count] = [f"{left}{field}{right}" for field in fields[:count]]
        return ",".join(fields) + "\n"

    message = _error(_file(tmp_path, _ROW + quoted(8)))
    assert message.endswith(
        f'F:2: quotation marks ({left}) around the fields; use straight double ones (") or none'
    )
    # A film may be called so.
    path = _file(tmp_path, quoted(1))
    (note,) = _read(path).notes
    assert note.code == "quoted_id" and note.value == f"{left}v1{right}"
    monkeypatch.setattr(tables, "_LONG_FILE", 0)
    assert tables.read_ground_truth(path).notes == (note,)


def test_the_line_that_is_not_text_is_told(tmp_path):
    """Excel's plain CSV is in the encoding of the country."""
    for end in ("\n", "\r\n", "\r"):
        rows = [_ROW.replace("\n", end)] * 1000
        rows[700] = rows[700].replace("v1", "vid\u00e9o")
        path = _file(tmp_path, "".join(rows).encode("cp1252"))
        assert "F, line 701: not a CSV file in UTF-8" in _error(path)
        assert "Excel: CSV UTF-8" in _error(path, tables.read_csv)


@pytest.mark.parametrize(
    ("start", "message"),
    [(b"PK\x03\x04", "a workbook of Excel"), (b"\xd0\xcf\x11\xe0", "a workbook of an older Excel"),
     (b"\x1f\x8b\x08", "compressed by gzip")],
)  # fmt: skip
def test_files_that_are_no_csv_are_called_by_what_they_are(tmp_path, start, message):
    assert f"F: no CSV file, but {message}" in _error(_file(tmp_path, start + bytes(500)))


@pytest.mark.parametrize("tail", [b"\0" * 600, b"\x1a"])
def test_what_follows_the_last_row(tmp_path, tail):
    """A file that a full disk ended with zeros, and one of an old editor."""
    message = _error(_file(tmp_path, _ROW.encode() * 3 + tail))
    assert "F:4: 1 column; " in message and "must not have control characters" in message


def test_tabs_told_by_a_line_for_excel(tmp_path):
    path = _file(tmp_path, "sep=\t\n" + _ROW.replace(",", "\t"))
    assert len(_read(path).keyframes[0].regions) == 1


def test_columns_are_told_apart_even_if_no_row_can_be_read(tmp_path):
    message = _error(_file(tmp_path, _ROW.replace(",", ";").replace("0902", "15:02") * 3))
    assert "3 bad rows" in message and "F:1: timestamp is '15:02'" in message


def test_rows_longer_than_their_header(tmp_path):
    """R's write.table names one column less."""
    message = _error(_file(tmp_path, _HEADER + "1," + _ROW))
    assert "F:2: 9 columns, but the header row has 8; " in message
    assert "F:2: 9 columns, but" in _error(
        _file(tmp_path, _HEADER + "1," + _ROW),
        lambda path: annotations.read_person_boxes(path, faults.Notes()),
    )


def test_messages_stay_short(tmp_path):
    many = ",".join(f"column{i}" for i in range(5000))
    for content in (
        f"video_id,timestamp,{many}\n",
        ("\x1b" * 5000 + _ROW) * 30,
        ('"' + "a" * 5000 + _ROW) * 30,
        ",".join(["name" * 2000] * 8) + "\n",
    ):
        assert len(_error(_file(tmp_path, content))) < 20 * 1000
    path = _file(tmp_path, _HEADER.strip() + f",{many}\n" + _ROW)
    assert len(str(_read(path).notes[0])) < 300
    sparse = {2 * i + 1: str(i) for i in range(5000)}
    assert len(label_maps.unknown_action(2, sparse)) < 300


@pytest.mark.parametrize(
    ("text", "message"),
    [
        # Protobuf takes 010 for 8.
        ("item { name: 'a' id: 010 }", "id '010' is not a whole number"),
        ("item { name: 'a' id: '1' }", "id '1' has quotation marks"),
        ("item { name: stand id: 1 }", 'name stand has no quotation marks; write "stand"'),
        ("item { name: \u00abstand\u00bb id: 1 }", "name \u00abstand\u00bb has no quotation marks"),
        ("item { name: 'a' id: 99999999999 }", "id '99999999999' is not a whole number"),
        ("item { name: ' ' id: 1 }", "id 1 has no name"),
    ],
)  # fmt: skip
def test_label_maps_that_training_would_read_otherwise(tmp_path, text, message):
    path = _file(tmp_path, text)
    assert message in _error(path, label_maps.read_categories)
    assert message in _error(path, label_maps.read_label_map)


def test_label_maps_with_fields_that_training_refuses_are_told(tmp_path):
    path = _file(tmp_path, "item { name: 'a' id: 1 }\nitem { name: 'b' id: 2 color: 'red' }")
    (note,) = label_maps.read(path).notes
    assert (
        note == "blocks have fields that the stock API does not know: color (line 2): remove them"
    )


def test_an_empty_name_beside_a_display_name_is_told(tmp_path):
    path = _file(tmp_path, "item { name: '' display_name: 'sit' id: 1 }")
    assert label_maps.read_label_map(path) == {1: "sit"}
    assert "1 block has a display_name and no name" in label_maps.read(path).notes[0]
