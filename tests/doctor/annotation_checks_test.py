# SPDX-License-Identifier: Apache-2.0
"""Each fault of the annotations is found where it is, with its value and what would be right."""

import av
import numpy as np
import pytest

from object_detection_ext.doctor import annotation_rows, findings
from object_detection_ext.doctor.findings import ERROR, WARNING
from object_detection_ext.visualization import drawing
from tests import tiny_pipeline
from tests.doctor.small_data import BOX, TRAIN, VAL, rows, the_only, write_csv

LAST = len(TRAIN) + 1


def _with(data, *more: str) -> str:
    return write_csv(data.folder / "train.csv", [*TRAIN, *more])


def _mapped(lines, change) -> list[str]:
    """Rows with `change` applied to the fields."""
    return [",".join(map(str, change(line.split(",")))) for line in lines]


def test_nothing_is_found_in_clean_data(data):
    exam, found = data.look()
    assert found == []
    assert exam.splits["train"].num_boxes == 12
    assert len(exam.splits["train"].keyframes) == 6


@pytest.mark.parametrize(
    ("row", "code", "value", "message", "advice"),
    [
        ("a,0001,0.1", "malformed_row", "a,0001,0.1", "3 columns: 'a,0001,0.1'", "must be video"),
        (f",0001,{BOX},1,0", "empty_video_id", "", "video_id is empty", "file name"),
        (f"a,one,{BOX},1,0", "not_a_number", "one", "timestamp is 'one'", "must be a number"),
        (f"a,0001,{BOX},1.5,0", "not_a_number", "1.5", "action_id is '1.5'", "whole number"),
        (f"a,0001,{BOX},{2**63},0", "not_a_number", str(2**63), "action_id is", "whole number"),
        ("a,0001,0.1,0.1,0.2,1.02,1,0", "box_out_of_range", "1.02", "y2 is 1.02",
         "in [0, 1]; a larger --box_tolerance cuts the box off"),
        ("a,0001,-3,0.1,0.2,0.9,1,0", "box_out_of_range", "-3", "x1 is -3", "must be in [0, 1]"),
        ("a,0001,0.3,0.1,0.3,0.9,1,0", "box_corner_order", "0.3 >= 0.3", "x1 is 0.3 and x2 0.3",
         "x1 must be less than x2"),
        ("a,0001,0.1,0.9,0.3,0.2,1,0", "box_corner_order", "0.9 >= 0.2", "y1 is 0.9 and y2 0.2",
         "y1 must be less than y2"),
    ],
)  # fmt: skip
def test_bad_row(data, row, code, value, message, advice):
    finding = the_only(data.findings(annotations=_with(data, row)))
    assert (finding.code, finding.severity, finding.value) == (code, ERROR, value)
    assert (finding.file, finding.rows, finding.count) == (data.train, (LAST,), 1)
    assert message in finding.message
    assert advice in finding.advice


def test_ten_thousand_equal_faults_are_one_finding(data):
    bad = ["a,0001,0.1,0.1,0.2,1.02,1,0"] + [f"a,0001,0.1,0.1,0.2,1.0{i},1,0" for i in range(3, 6)]
    found = data.findings(annotations=_with(data, *(bad * 2500)))
    finding = the_only(found, "box_out_of_range")
    assert finding.count == 10_000
    assert finding.rows == tuple(range(LAST, LAST + findings.MAX_ROWS))


def test_faults_of_one_row_are_all_found(data):
    found = data.findings(annotations=_with(data, "a,x,0.3,2,0.2,3,x,0"))
    assert [finding.code for finding in found] == ["not_a_number", "box_out_of_range",
                                                   "box_corner_order", "not_a_number"]  # fmt: skip
    assert all(finding.rows == (LAST,) and finding.count == 1 for finding in found)


def test_boxes_of_rows_without_a_time_alone(data):
    path = write_csv(data.folder / "train.csv", ["a,x,0.1,0.1,0.2,1.02,1,0", "a,x,0.3,0,0.2,1,1,0"])
    codes = {finding.code: finding.rows for finding in data.findings(annotations=path)}
    assert codes["box_out_of_range"] == (1,)
    assert codes["box_corner_order"] == (2,)


def test_header_row_of_unknown_names(data):
    header = "Datei,Zeit,links,oben,rechts,unten,Tat,Person"
    path = write_csv(data.folder / "train.csv", [header, *TRAIN])
    finding = the_only(data.findings(annotations=path))
    assert (finding.code, finding.rows, finding.severity) == ("header_row", (1,), ERROR)
    assert header in finding.message
    assert "remove the header" in finding.advice


def test_file_without_rows(data):
    found = data.findings(annotations=write_csv(data.folder / "train.csv", [""]))
    assert the_only(found, "no_rows").file == data.train


def test_file_that_is_no_text(data):
    path = data.folder / "train.csv"
    path.write_bytes(b"a\xff,1\n")
    finding = the_only(data.findings(annotations=str(path)), "unreadable_file")
    assert finding.file == str(path)
    assert "UTF-8" in finding.message


@pytest.mark.parametrize(("mark", "name"), [(";", "semicolons"), ("\t", "tabs")])
def test_other_separators_are_read_and_told(data, mark, name):
    lines = [line.replace(",", mark) for line in TRAIN]
    found = data.findings(annotations=write_csv(data.folder / "train.csv", lines))
    finding = the_only(found)
    assert (finding.code, finding.severity) == ("delimiter", WARNING)
    assert name in finding.message


# Boxes.


def _scaled(width: float, height: float) -> list[str]:
    def change(fields):
        x1, y1, x2, y2 = map(float, fields[2:6])
        return *fields[:2], x1 * width, y1 * height, x2 * width, y2 * height, *fields[6:]

    return _mapped(TRAIN, change)


def test_boxes_in_pixels_are_told_once_with_the_size_of_the_video(data):
    path = write_csv(data.folder / "train.csv", _scaled(64, 48))
    finding = the_only(data.findings(annotations=path))
    assert (finding.code, finding.severity) == ("boxes_in_pixels", ERROR)
    assert (finding.count, finding.rows) == (len(TRAIN), tuple(range(1, LAST)))
    assert finding.value == "16,6,32,42"
    assert "in pixels: the first is 16,6,32,42" in finding.message
    assert "a has 64 x 48 pixels" in finding.advice
    finding = the_only(data.findings(annotations=path, videos=None))
    assert finding.code == "boxes_in_pixels"
    assert finding.advice.endswith("divide x by the video's width and y by its height")


def test_boxes_in_percent(data):
    path = write_csv(data.folder / "train.csv", _scaled(100, 100))
    finding = the_only(data.findings(annotations=path, videos=None))
    assert "in pixels" in finding.message  # which of the two needs the size
    large = [np.zeros((240, 320, 3), np.uint8)] * 50
    drawing.write_video(data.path("a"), large, 25)
    finding = the_only(data.findings(annotations=path))
    assert "in percent" in finding.message
    assert "divide x and y by 100" in finding.advice


def test_size_is_that_of_the_video_as_shown(data):
    with (
        av.open(str(data.path("b"))) as whole,
        av.open(str(data.path("a")), "w") as turned,
    ):
        stream = turned.add_stream_from_template(whole.streams.video[0])
        stream.set_display_rotation(90)
        for packet in whole.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                turned.mux(packet)
    path = write_csv(data.folder / "train.csv", _scaled(64, 48))
    finding = the_only(data.findings(annotations=path))
    assert "a has 48 x 64 pixels" in finding.advice


def test_width_and_height_in_place_of_the_second_corner(data):
    def change(fields):
        x1, y1, x2, y2 = map(float, fields[2:6])
        return *fields[:2], x1, y1, x2 - x1, y2 - y1, *fields[6:]

    path = write_csv(data.folder / "train.csv", _mapped(TRAIN, change))
    finding = the_only(data.findings(annotations=path), "box_corner_order")
    assert "looks like x,y,width,height" in finding.advice


def test_swapped_axes_are_told_with_the_numbers(data):
    def change(fields):
        x1, y1, x2, y2 = fields[2:6]
        return *fields[:2], y1, x1, y2, x2, *fields[6:]

    path = write_csv(data.folder / "train.csv", _mapped(TRAIN, change))
    finding = the_only(data.findings(annotations=path))
    assert (finding.code, finding.severity) == ("axes_swapped", WARNING)
    assert (finding.file, finding.rows) == (path, tuple(range(1, LAST)))
    # Three in four boxes: 0.25 of 48 pixels high and 0.75 of 64 wide; as meant 36 by 16.
    assert finding.value == "0.25"
    assert "0.25 times as high as wide" in finding.message
    assert "swapped it is 2.25" in finding.message


def test_wide_people_are_no_fault(data):
    wide = [line.replace(BOX, "0.1,0.5,0.7,0.9") for line in TRAIN]
    assert data.findings(annotations=write_csv(data.folder / "train.csv", wide)) == []


def test_duplicates(data):
    again = [TRAIN[0], TRAIN[0].removesuffix("0") + "7"]
    row, box = data.findings(annotations=_with(data, *again))
    assert (row.code, row.severity, row.rows, row.count) == ("duplicate_row", WARNING, (LAST,), 1)
    assert row.value == f"a,0000,{BOX},1"
    assert (box.code, box.severity, box.rows) == ("duplicate_box", WARNING, (LAST + 1,))
    assert "another person" in box.message
    assert row.file == box.file == data.train


def test_duplicates_are_found_by_value_not_by_text(data):
    again = TRAIN[0].replace("0000", "0.0").replace("0.25", "0.250")
    finding = the_only(data.findings(annotations=_with(data, again)))
    assert (finding.code, finding.rows) == ("duplicate_row", (LAST,))


# Action ids.


def _shifted(by: int) -> list[str]:
    return _mapped(TRAIN, lambda f: (*f[:6], int(f[6]) + by, f[7]))


def test_unknown_action(data):
    found = data.findings(annotations=_with(data, f"a,0001,{BOX},77,0", f"b,0001,{BOX},9,0"))
    finding = the_only(found)
    assert (finding.code, finding.severity) == ("action_id_unknown", ERROR)
    assert (finding.rows, finding.count, finding.value) == ((LAST, LAST + 1), 2, "77")
    assert "9 (1 row), 77 (1 row)" in finding.message
    assert f"{data.label_map} has 1-3" in finding.advice


@pytest.mark.parametrize(
    ("by", "wrong", "sign", "advice"),
    [(-1, 0, "+", "add 1 to every action_id"), (1, 4, "-", "subtract 1 from every action_id")],
)
def test_ids_off_by_one(data, by, wrong, sign, advice):
    path = write_csv(data.folder / "train.csv", _shifted(by))
    finding = the_only(data.findings(annotations=path), "action_ids_off_by_one")
    assert finding.severity == ERROR
    assert finding.value == str(wrong)
    assert finding.rows[0] == next(
        number for number, line in enumerate(_shifted(by), 1) if line.split(",")[6] == str(wrong)
    )
    assert f"off by one: {wrong} (" in finding.message
    assert f"every id {sign} 1 is" in finding.message
    assert ("0 occurs, and the highest id, 3, never does" in finding.message) == (by < 0)
    assert advice in finding.advice


def test_ids_off_by_one_in_a_map_with_gaps(data):
    path = tiny_pipeline.write_label_map(data.folder / "labels.pbtxt", {3: "a", 6: "b", 8: "c"})
    ids = {"1": 2, "2": 5, "3": 7}
    lines = _mapped(TRAIN, lambda f: (*f[:6], ids[f[6]], f[7]))
    train = write_csv(data.folder / "train.csv", lines)
    found = data.findings(annotations=train, label_map=str(path), val_annotations=None)
    finding = the_only(found, "action_ids_off_by_one")
    assert "2 (12 rows), 5 (6 rows), 7 (6 rows) are not" in finding.message
    assert finding.count == len(TRAIN)


def test_zero_alone_is_the_background(data):
    finding = the_only(data.findings(annotations=_with(data, f"a,0001,{BOX},0,0")))
    assert finding.code == "action_id_unknown"
    assert finding.value == "0"
    assert "0 is the background" in finding.advice


@pytest.mark.parametrize(("split", "what"), [("train", "cannot learn"), ("val", "cannot be meas")])
def test_class_without_examples(data, split, what):
    lines = {"train": TRAIN, "val": VAL}[split]
    kept = [line for line in lines if line.split(",")[6] != "2"]
    option = {"train": "annotations", "val": "val_annotations"}[split]
    path = write_csv(data.folder / f"{split}.csv", kept)
    finding = the_only(data.findings(**{option: path}))
    assert (finding.code, finding.severity) == ("class_without_examples", WARNING)
    assert (finding.file, finding.value) == (path, "2")
    assert "1 of 3 classes: 2 'walk'" in finding.message
    assert what in finding.advice


# The two splits, and what the evaluation leaves out.


def test_video_in_both_splits(data):
    path = write_csv(data.folder / "val.csv", [*VAL, *rows("b")])
    finding = the_only(data.findings(val_annotations=path))
    assert (finding.code, finding.severity, finding.value) == ("split_overlap", ERROR, "b")
    assert (finding.file, finding.rows[0]) == (path, len(VAL) + 1)
    assert f"{data.train} has too: b" in finding.message


@pytest.mark.parametrize("other", ["b.mp4", "monday/b", "link"])
def test_one_video_in_both_splits_by_two_ids(data, other):
    (data.videos / "monday").mkdir()
    (data.videos / "b.mp4").rename(data.videos / "monday" / "b.mp4")
    (data.videos / "link.mp4").symlink_to(data.videos / "monday" / "b.mp4")
    if other != "link":
        (data.videos / "link.mp4").unlink()
    train = write_csv(data.folder / "train.csv", rows("a", "monday/b"))
    train = train if other == "b.mp4" else write_csv(data.folder / "train.csv", rows("a", "b"))
    path = write_csv(data.folder / "val.csv", [*VAL, *rows(other)])
    found = data.findings(annotations=train, val_annotations=path)
    finding = the_only(found, "split_overlap")
    assert (finding.severity, finding.value, finding.count) == (ERROR, other, 1)
    assert (finding.file, finding.rows[0]) == (path, len(VAL) + 1)
    there = "monday/b" if other == "b.mp4" else "b"
    assert finding.items == (f"{other} (there {there}: {data.videos}/monday/b.mp4)",)
    # Without the videos nobody can know.
    found = data.findings(annotations=train, val_annotations=path, videos=None)
    assert not [finding for finding in found if finding.code == "split_overlap"]


def test_one_video_with_two_ids_in_a_split(data):
    path = write_csv(data.folder / "val.csv", [*VAL, *rows("c.mp4")])
    finding = the_only(data.findings(val_annotations=path))
    assert (finding.code, finding.severity, finding.value) == ("video_ids_differ", ERROR, "c.mp4")
    assert (finding.file, finding.rows[0], finding.count) == (path, len(VAL) + 1, 1)
    assert finding.items == (f"c and c.mp4 ({data.path('c')})",)


def test_excluded_timestamps_of_another_data_set(data):
    excluded = write_csv(data.folder / "excluded.csv", ["c,0001", "stranger,0001"])
    finding = the_only(data.findings(excluded_timestamps=excluded))
    assert (finding.code, finding.severity) == ("excluded_video_unknown", WARNING)
    assert (finding.file, finding.value, finding.count) == (excluded, "stranger", 1)


def test_excluded_timestamps_of_the_only_annotations(data):
    """A file that is converted by itself is given as --annotations."""
    excluded = write_csv(data.folder / "excluded.csv", ["a,0001", "stranger,0001"])
    found = data.findings(val_annotations=None, excluded_timestamps=excluded)
    finding = the_only(found)
    assert (finding.code, finding.value) == ("excluded_video_unknown", "stranger")


def test_a_file_without_a_box_is_a_warning(data):
    """Columns were lost: each row is a keyframe without people."""
    lines = [",".join(line.split(",")[:2]) for line in TRAIN]
    finding = the_only(data.findings(annotations=write_csv(data.folder / "train.csv", lines)))
    assert (finding.code, finding.severity, finding.count) == ("no_boxes", WARNING, 6)


def test_label_map_that_is_none(data):
    path = data.folder / "labels.pbtxt"
    path.write_text("hello")
    finding = the_only(data.findings(label_map=str(path)))
    assert (finding.code, finding.file) == ("unreadable_file", str(path))
    assert "not a label map" in finding.message


def test_rows_of_half_a_million_lines_are_compared_exactly():
    rng = np.random.default_rng(0)
    keys = np.repeat(rng.random((50_000, 3)).round(2), 10, axis=0)
    keys = keys[rng.permutation(len(keys))]
    expected, seen = [], set()
    for key in map(tuple, keys):
        expected.append(key in seen)
        seen.add(key)
    assert annotation_rows.repeated(keys, np.arange(len(keys))).tolist() == expected


@pytest.mark.parametrize("text", ["0.5999", "0.599", "0.6004"])
def test_excluded_timestamps_that_nearly_meet_a_keyframe(data, text):
    """Less than a millisecond away is met; a keyframe without rows, as in AVA's list, is none."""
    excluded = write_csv(data.folder / "excluded.csv", [f"c,{text}", "c,0001", "c,0017"])
    found = data.findings(excluded_timestamps=excluded)
    if text != "0.599":
        assert found == []
        return
    finding = the_only(found)
    assert (finding.code, finding.severity) == ("excluded_timestamp_unmet", WARNING)
    assert (finding.count, finding.items) == (1, ("c,0.599",))
    assert "the nearest keyframe is at 0.6 s" in finding.message


def test_excluded_timestamps_of_which_none_meets_a_keyframe(data):
    excluded = write_csv(data.folder / "excluded.csv", ["c,25", "c,50"])
    finding = the_only(data.findings(excluded_timestamps=excluded))
    assert (finding.code, finding.count) == ("excluded_timestamp_unmet", 2)


def test_how_the_list_of_excluded_timestamps_is_written(data):
    excluded = write_csv(data.folder / "excluded.csv", ["video_id;timestamp", "c;0001"])
    codes = [finding.code for finding in data.findings(excluded_timestamps=excluded)]
    assert codes == ["delimiter", "header"]


def test_label_maps_that_the_stock_api_reads_otherwise(data):
    path = data.folder / "labels.pbtxt"
    path.write_text("\ufeff" + path.read_text().replace("name:", "display_name:"))
    found = data.findings(label_map=str(path))
    assert {finding.code for finding in found} == {"label_map_form"}
    assert {finding.severity for finding in found} == {WARNING}
    reported = " ".join(finding.message for finding in found)
    assert "byte order mark" in reported and "display_name and no name" in reported


def test_people_that_are_texts_are_told_apart(data):
    lines = [line.replace(f"{BOX},", f"{BOX},").rsplit(",", 1)[0] + ",Ann" for line in TRAIN]
    path = write_csv(data.folder / "train.csv", [*lines, lines[0].replace("Ann", "Bob"), lines[0]])
    exam, found = data.look(annotations=path)
    assert exam.splits["train"].num_boxes == 13
    assert [finding.code for finding in found] == ["duplicate_row", "duplicate_box"]
