# SPDX-License-Identifier: Apache-2.0
"""CSVs as people have them: every tool reads them alike, says what it changed, or refuses them."""

import codecs

import numpy as np
import pytest

from object_detection_ext.ava import annotations, faults, tables
from object_detection_ext.doctor import annotation_rows
from object_detection_ext.inference import given_boxes

_LABELS = {1: "stand", 3: "sit", 80: "watch (a person)"}

# What every form below says: three rows, and a keyframe on which nobody is.
PLAIN = """v1,0902,0.1,0.2,0.3,0.4,1,7
v1,0902,0.1,0.2,0.3,0.4,80,7
v1,0903
v2,901.5,0,0.25,1,1,3,0
"""
_REGIONS = [
    ("v1", 902.0, [0.2, 0.1, 0.4, 0.3], 1),
    ("v1", 902.0, [0.2, 0.1, 0.4, 0.3], 80),
    ("v2", 901.5, [0.25, 0.0, 1.0, 1.0], 3),
]
_FRAMES = [("v1", 902.0), ("v1", 903.0), ("v2", 901.5)]


def _lines(change) -> str:
    return "".join(change(line.split(",")) + "\n" for line in PLAIN.splitlines())


def _padded(mark: str = ",", empty: str = ""):
    return _lines(lambda fields: mark.join(fields + [empty] * (8 - len(fields))))


_HEADER = "video_id,timestamp,x1,y1,x2,y2,action_id,person_id\n"
_SHUFFLED = "action,xmin,ymin,xmax,ymax,fps,time,video,track\n" + "".join(
    ",".join([*(f[6:7] or [""]), *(f[2:6] or [""] * 4), "25", f[1], f[0], *(f[7:] or [""])]) + "\n"
    for f in (line.split(",") for line in PLAIN.splitlines())
)
_CLOCK = PLAIN.replace("0902", "00:15:02").replace("0903", "0:15:03").replace("901.5", "00:15:01.5")
_QUOTED = _lines(lambda fields: ",".join(f'"{field}"' for field in fields))

# By name: what the file holds, and the codes of what is reported.
FORMS = {
    "as it is": (PLAIN, ()),
    "blank lines": ("\n\n" + PLAIN.replace("\n", "\n\n"), ()),
    "spaces": (PLAIN.replace(",", " , "), ()),
    "no line end": (PLAIN.rstrip("\n"), ()),
    "CRLF": (PLAIN.replace("\n", "\r\n"), ()),
    "CR": (PLAIN.replace("\n", "\r"), ()),
    "byte order mark": (codecs.BOM_UTF8 + PLAIN.encode(), ()),
    "UTF-16": (PLAIN.encode("utf-16"), ("encoding",)),
    "UTF-16 without a mark": (PLAIN.encode("utf-16-le"), ("encoding",)),
    "UTF-16, big end first": (PLAIN.replace("\n", "\r\n").encode("utf-16-be"), ("encoding",)),
    "UTF-16 with tabs, of Excel": (PLAIN.replace(",", "\t").encode("utf-16"),
                                   ("delimiter", "encoding")),
    "semicolons": (PLAIN.replace(",", ";"), ("delimiter",)),
    "semicolons and a line for Excel": ("sep=;\n" + PLAIN.replace(",", ";"), ("delimiter",)),
    "semicolons and decimal commas": (PLAIN.replace(",", ";").replace(".", ","),
                                      ("decimal_comma", "delimiter")),
    "tabs": (PLAIN.replace(",", "\t"), ("delimiter",)),
    "quotation marks": (_QUOTED, ()),
    "quotation marks and semicolons": (_QUOTED.replace(",", ";"), ("delimiter",)),
    "header row": (_HEADER + PLAIN, ("header",)),
    "header row, quoted": (",".join(f'"{n}"' for n in _HEADER.strip().split(",")) + "\n" + PLAIN,
                           ("header",)),
    "header row of other names in another order": (_SHUFFLED, ("header", "padded_row")),
    "header rows of joined files": (_HEADER + PLAIN.replace("v2", _HEADER + "v2"),
                                    ("header", "repeated_header")),
    "trailing commas": (PLAIN.replace("\n", ",\n"), ("padded_row",)),
    "padded by Excel": (_padded(), ("padded_row",)),
    "padded by pandas": (_padded(empty="nan"), ("empty_field",)),
    "padded by R": (_padded(empty="NA"), ("empty_field",)),
    "rows of nothing": (PLAIN + ",,,,,,,\n", ()),
    "fractions": (PLAIN.replace(",1,7", ",1.0,7.0").replace("80,7", "80.0,7.0")
                  .replace("3,0\n", "3.0,0.0\n"), ("whole_number",)),
    "times as fractions": (PLAIN.replace("0902", "902.0").replace("0903", "903.000"), ()),
    "hours, minutes, seconds": (_CLOCK, ("clock_time",)),
    "people that are texts": (PLAIN.replace(",7\n", ",left man\n"), ()),
    "people that nobody knows": (PLAIN.replace(",7\n", ",nan\n"), ("empty_field",)),
    "boxes a little outside": (PLAIN.replace(",0,0.25,1,1,", ",-0.002,0.25,1.0000001,1.01,"),
                               ("box_cut_off",)),
}  # fmt: skip


def _file(tmp_path, content, name="rows.csv") -> str:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


def _codes(notes) -> tuple[str, ...]:
    return tuple(note.code for note in notes)


@pytest.mark.parametrize("form", FORMS)
def test_every_reader_takes_it_alike_and_tells_what_it_changed(tmp_path, form, capsys):
    content, codes = FORMS[form]
    path = _file(tmp_path, content)

    found = annotations.read_annotations(path, _LABELS)
    regions = [(k.video_id, k.timestamp, list(r.box), r.action_id)
               for k in found.keyframes for r in k.regions]  # fmt: skip
    assert regions == _REGIONS
    assert [(k.video_id, k.timestamp) for k in found.keyframes] == _FRAMES
    assert _codes(found.notes) == codes

    rows = annotation_rows.read("train", path)
    assert [rows.video_ids[i] for i in rows.video] == ["v1", "v1", "v1", "v2"]
    assert rows.corners[[0, 1, 3]][:, [1, 0, 3, 2]].tolist() == [box for _, _, box, _ in _REGIONS]
    assert rows.notes == found.notes and rows.problems == []

    table = tables.read_ground_truth(path)
    assert table.frames == _FRAMES
    assert table.rows.boxes.tolist() == [box for _, _, box, _ in _REGIONS]
    assert table.rows.classes.tolist() == [1, 80, 3]
    assert table.notes == found.notes

    boxes = given_boxes.BoxTable(path)
    assert boxes.times("v1") == [902, 903] and boxes.boxes("v1", 903).tolist() == []
    np.testing.assert_array_equal(boxes.boxes("v2", 901.5), [[0.25, 0, 1, 1]])
    # What is only about columns that are not looked at here is not reported.
    of_others = {"whole_number", "empty_field", "padded_row"}
    assert bool(capsys.readouterr().err) or not set(codes) - of_others


@pytest.mark.parametrize("form", FORMS)
def test_the_doctor_finds_what_the_converter_changes(tmp_path, form):
    from object_detection_ext.doctor import annotation_checks, examination

    content, codes = FORMS[form]
    exam = examination.Examination(examination.ClipOptions(4, 25.0, 0))
    exam.splits["train"] = annotation_rows.read("train", _file(tmp_path, content))
    found = list(annotation_checks.notes(exam))
    assert tuple(finding.code for finding in found) == codes
    assert {finding.severity for finding in found} <= {"warning"}


_BOX = "0.1,0.2,0.3,0.4"

# By name: a row that is refused (the second of its file), and what is said of it.
REFUSED = {
    "a lost quotation mark": (f'"v1,0902,{_BOX},1,7', 'quotation marks (") that do not pair'),
    "one in the middle": (f'v1",0902,{_BOX},1,7', 'quotation marks (") that do not pair'),
    "one behind the end": (f'"v1"x,0902,{_BOX},1,7', 'quotation marks (") that do not pair'),
    "minutes or hours": (f"v1,15:02,{_BOX},1,7", "timestamp is '15:02'; it must be seconds, or"),
    "grouped digits": (f"v1,1_902,{_BOX},1,7", "timestamp is '1_902'"),
    "a thousand or one": (f'v1,"1,902",{_BOX},1,7', "timestamp is '1,902'"),
    "half a class": (f"v1,0902,{_BOX},1.5,7", "action_id is '1.5'; it must be a whole number"),
    "a class by name": (f"v1,0902,{_BOX},stand,7", "action_id is 'stand'"),
    "a score for a person": (f"v1,0902,{_BOX},1,0.93", "person_id is '0.93'; it must be a whole"),
    "half a box": ("v1,0902,0.1,,0.3,,1,7", "y1, y2 are empty"),
    "nan in a box": ("v1,0902,0.1,nan,0.3,0.4,1,7", "y1 is 'nan'; it must be a number"),
    "a padded row without an end": ("v1,0902,0.1,,,,,", "3 columns; it must be video_id,"),
    "outside, with all digits": ("v1,0902,0.1,0.2,1.0100000001,0.4,1,7", "x2 is 1.0100000001"),
    "far outside": ("v1,0902,10,20,30,40,1,7", "x1 is 10; boxes are normalized"),
    "cut off to nothing": ("v1,0902,-0.009,0.2,-0.001,0.4,1,7", "x1 is 0 and x2 0"),
    "a line of another delimiter": ("v1;0902;0.1;0.2;0.3;0.4;1;7", "1 column; it must be"),
    "control characters": (f"v\x1b1,0902,{_BOX},1,7", "video_id is 'v\\x1b1'; it must not have"),
    "a person with control characters": (f"v1,0902,{_BOX},1,a\x1bb", "person_id is 'a\\x1bb'"),
}  # fmt: skip


@pytest.mark.parametrize("fault", REFUSED)
def test_what_cannot_be_read_in_one_way_is_refused_with_its_row(tmp_path, fault):
    row, message = REFUSED[fault]
    path = _file(tmp_path, f"v1,0901,{_BOX},1,7\n{row}\nv1,0903,{_BOX},1,7\n")
    with pytest.raises(faults.AnnotationError) as caught:
        annotations.read_annotations(path, _LABELS)
    assert f"{path}:2: {message}" in str(caught.value)
    assert "1 bad row:" in str(caught.value)
    (group,) = annotation_rows.read("train", path).problems[:1]
    assert group.rows == [2] and message.split(";")[0] in str(group.problem)
    if fault not in ("cut off to nothing",):  # the evaluation warns of boxes without area
        with pytest.raises(faults.AnnotationError) as caught:
            tables.read_ground_truth(path)
        assert f"{path}:2: {message}" in str(caught.value)


def test_a_lost_quotation_mark_swallows_no_row(tmp_path):
    rows = [f'"v{i}",0902,{_BOX},1,7\n' for i in range(100)]
    rows[3] = rows[3].replace('v3"', "v3")
    path = _file(tmp_path, "".join(rows))
    assert annotation_rows.read("train", path).num_rows == 100
    with pytest.raises(faults.AnnotationError, match=r"1 bad row:\n.*rows.csv:4: quotation marks"):
        tables.read_csv(path)


def test_one_padded_row_is_one_fault(tmp_path):
    path = _file(tmp_path, f"v1,0901,{_BOX},1,7\nv1,0902,,,,,1,\n")
    (group,) = annotation_rows.read("train", path).problems
    assert str(group.problem).startswith("x1, y1, x2, y2 are empty; give them, or")


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("video_id,timestamp,x1,y1,x2,action_id", "has no column y2; it has video_id,"),
        ("video_id,timestamp,x,y,width,height,action_id", "no column x1 and no column y1 and"),
        ("video,time,x1,y1,x2,y2,action_id,class,label", None),
        ("video,time,x1,y1,x2,y2,class,label", "'class' and 'label', and either could be action"),
    ],
)
def test_header_rows_that_lack_a_column_or_have_two(tmp_path, header, message):
    path = _file(tmp_path, f"{header}\nv,1,{_BOX},1,1,1\n")
    if message is None:
        assert tables.read_ground_truth(path).rows.classes.tolist() == [1]
        return
    with pytest.raises(faults.AnnotationError) as caught:
        tables.read_ground_truth(path)
    assert message in str(caught.value) and f"{path}, line 1: the header row" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "is_told"),
    [
        (f"v1,0902,{_BOX},1,7\nv1,0903", True),
        (f"v1,0902,{_BOX},12,7\nv1,0903,{_BOX},1", True),
        (f"v1,0902,{_BOX},1,7\nv1,0903\n", False),
        (f"v1,0902,{_BOX},1,7\nv1,0903,,,,,,", False),
        (f"v1,0902,{_BOX},1,7\nv1,0903,{_BOX},1,7", False),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_a_file_that_may_be_cut_off_is_told(tmp_path, text, is_told, encoding):
    path = _file(tmp_path, text.encode(encoding))
    found = annotations.read_annotations(path, {1: "a", 12: "b"})
    notes = [note for note in found.notes if note.code == "cut_off"]
    assert len(notes) == is_told
    if is_told:
        assert "the last row (line 2)" in str(notes[0]) and "no line end" in str(notes[0])


def test_a_row_is_counted_once_for_each_kind_of_note(tmp_path):
    path = _file(tmp_path, "v1;0902;0,1;0,2;0,3;0,4;1,0;7,0\nv1;0903;0,1;0,2;0,3;0,4;1;7\n")
    notes = {n.code: n.count for n in annotations.read_annotations(path, _LABELS).notes}
    assert notes == {"decimal_comma": 2, "delimiter": 0, "whole_number": 1}


def test_long_fields_are_cut_in_messages(tmp_path):
    path = _file(tmp_path, f"v1,0902,{_BOX},{'9' * 5000},7\n")
    with pytest.raises(faults.AnnotationError) as caught:
        annotations.read_annotations(path, _LABELS)
    assert "action_id is '999" in str(caught.value) and len(str(caught.value)) < 400


def test_the_tolerance_of_boxes_is_an_option(tmp_path):
    path = _file(tmp_path, "v1,0902,-0.05,0.2,0.3,0.4,1,7\nv1,0902,0,0.2,0.3,1.03,1,7\n")
    found = annotations.read_annotations(path, _LABELS, box_tolerance=0.05)
    assert [region.box for region in found.keyframes[0].regions] == [
        (0.2, 0.0, 0.4, 0.3), (0.2, 0.0, 1.0, 0.3),
    ]  # fmt: skip
    (note,) = found.notes
    assert str(note) == (
        "2 rows with a box up to 0.05 outside of [0, 1], which is cut off at the frame's edge "
        "(first: line 1, -0.05,0.2,0.3,0.4)"
    )
    exact = _file(tmp_path, "v1,0902,0.1,0.2,0.3,1.0000001,1,7\n")
    with pytest.raises(faults.AnnotationError, match=r"y2 is 1\.0000001; .* in \[0, 1\]"):
        annotations.read_annotations(exact, _LABELS, box_tolerance=0.0)


@pytest.mark.parametrize("reads", [tables.read_csv, tables.read_ground_truth])
def test_boxes_further_outside_are_an_error_unless_they_are_taken_as_they_are(tmp_path, reads):
    row = "v1,0902,0,0.2,0.3,1.005,1,7\n"
    path = _file(tmp_path, f"{row}v1,0902,-0.2,0.2,0.3,1.0100000001,1,7\n{row}")
    with pytest.raises(faults.AnnotationError) as caught:
        reads(path)
    said = str(caught.value)
    assert f"{path}: 1 bad row:" in said
    assert f"{path}:2: x1 is -0.2; boxes are normalized, so it must be in [0, 1]; y2 is " in said
    assert "y2 is 1.0100000001; boxes are normalized" in said
    assert "is cut off; --box_tolerance none takes all boxes as they are." in said
    table = reads(path, box_tolerance=None)
    assert table.rows.boxes[:2].tolist() == [[0.2, 0.0, 1.005, 0.3], [0.2, -0.2, 1.0100000001, 0.3]]
    cut = reads(path, box_tolerance=0.25)
    assert cut.rows.boxes[:2].tolist() == [[0.2, 0.0, 1.0, 0.3], [0.2, 0.0, 1.0, 0.3]]
    assert [note.count for note in cut.notes] == [3]


def test_boxes_in_pixels_are_called_that(tmp_path):
    path = _file(tmp_path, "v1,0902,32,48,128,432,1,0.5\n")
    with pytest.raises(faults.AnnotationError, match="x1 is 32; .*divide pixels by the frame's"):
        tables.read_csv(path)
    with pytest.raises(faults.AnnotationError) as caught:
        annotations.read_annotations(path, _LABELS)
    assert "--box_tolerance none" not in str(caught.value)


def test_the_8th_column_is_called_by_what_it_is(tmp_path):
    path = _file(tmp_path, f"v1,0902,{_BOX},1,0.5\n")
    assert tables.read_csv(path).rows.scores.tolist() == [0.5]
    with pytest.raises(faults.AnnotationError, match="person_id is '0.5'"):
        tables.read_ground_truth(path)
    text = _file(tmp_path, f"v1,0902,{_BOX},1,Ann\nv1,0902,{_BOX},1,12\n")
    table = tables.read_ground_truth(text)
    assert (table.rows.scores.tolist(), table.has_score.tolist()) == ([1.0, 12.0], [False, True])
    with pytest.raises(faults.AnnotationError, match="score is 'Ann'; it must be a number"):
        tables.read_csv(text)


def test_scores_of_person_boxes_are_not_overlooked(tmp_path, capsys):
    """PySlowFast's boxes have no action and a score."""
    path = _file(tmp_path, f"v1,0902,{_BOX},,0.93\nv1,0902,0.5,0.5,0.9,0.9,,0.02\n")
    assert len(given_boxes.BoxTable(path).boxes("v1", 902)) == 2
    said = capsys.readouterr().err
    assert said == (
        f"note: {path}: 2 rows with a score, which is not looked at (first: line 1, 0.93)\n"
    )


@pytest.mark.parametrize(
    "content",
    [
        "video_id,timestamp\nv1,0902\nv2,00:15:01.5\n",
        "v1;902.0\nv2;901,5\n",
        "v2;901,5\nv1;902,0\n",
        "v2\t901,5\nv1\t902\n",
        '"v1","0902"\r\n"v2","901.5"\r\n',
        "v1\t0902\nv2\t901.5".encode("utf-16"),
        "v1,0902,,,\nv2,901.5,,,\n",
    ],
)
def test_excluded_timestamps_have_all_forms(tmp_path, content):
    assert tables.read_excluded_timestamps(_file(tmp_path, content)) == {("v1", 902), ("v2", 901.5)}
