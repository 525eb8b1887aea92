# SPDX-License-Identifier: Apache-2.0
"""Each fault that an evaluation's files can have, on the command line: what it says and returns."""

import json

import pytest

from object_detection_ext.evaluation import ava_ap, breakdowns

LABEL_MAP = 'item { name: "stand" id: 1 }\nitem { name: "walk" id: 3 }\n'
BOX = "0.1,0.1,0.4,0.9"
GROUND_TRUTH = f"v,0902,{BOX},1\n"
GOOD = f"v,0902,{BOX},1,0.9\n"


def _run(tmp_path, capsys, *, ground_truth=GROUND_TRUTH, detections=GOOD, flags=(), program=ava_ap):
    """(status, what is printed, what is said)."""
    for name, text in (("l.pbtxt", LABEL_MAP), ("g.csv", ground_truth), ("d.csv", detections)):
        (tmp_path / name).write_text(text)
    paths = [str(tmp_path / name) for name in ("l.pbtxt", "g.csv", "d.csv")]
    labelmap, gt, found = paths
    status = program.main(["-l", labelmap, "-g", gt, "-d", found, *flags])
    printed = capsys.readouterr()
    return status, printed.out, printed.err


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (f"{GOOD}v,0902,1\n", "d.csv:3: 3 columns; it must be video_id,"),
        ("v,0902,0.1,x,0.4,0.9,1,0.5\n", "d.csv:2: y1 is 'x'; it must be a number"),
        ("v,0902,0.1,inf,0.4,0.9,1,0.5\n", "d.csv:2: y1 is 'inf'; it must be a number"),
        ("v,noon,0.1,0.1,0.4,0.9,1,0.5\n", "d.csv:2: timestamp is 'noon'; it must be a number"),
        (f"v,0902,{BOX},1.5,0.5\n", "d.csv:2: action_id is '1.5'; it must be a whole"),
        (f"v,0902,{BOX},1,nan\n", "d.csv:2: score is 'nan'; it must be a number, not NaN"),
    ],
)
def test_an_unreadable_row_is_an_error(tmp_path, capsys, row, message):
    status, printed, said = _run(tmp_path, capsys, detections=GOOD + row)
    assert (status, printed) == (2, "")
    assert message in said


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            f"v,0902,{BOX},2,0.5\n",
            "1 of 2 rows have an action id not in the label map (first: line",
        ),
        (
            f"v,0902,{BOX},2,0.5\n",
            "1 of 2 rows have an action id not in the label map (first: line 2, 2); ignored",
        ),
        (f"v,0902,{BOX},1,1.5\n", "1 of 2 scores leave [0, 1] (first: line 2, 1.5)"),
        (f"v,0902,{BOX},1,-3\n", "1 of 2 scores leave [0, 1] (first: line 2, -3)"),
        (
            "v,0902,32,48,128,432,1,0.5\n",
            "1 of 2 boxes leave [0, 1] (first: line 2, 32,48,128,432)",
        ),
        (
            "v,0902,32,48,128,432,1,0.5\n",
            "1 of 2 boxes leave [0, 1] (first: line 2, 32,48,128,432); they look like pixels",
        ),
        (f"v,0902,{BOX},1\n", "1 of 2 rows have no score, the 8th column (first: line 2)"),
        ("v,0902,0.4,0.1,0.1,0.9,1,0.5\n", "1 of 2 rows have a box with x1 >= x2 or y1 >= y2"),
    ],
)
@pytest.mark.parametrize("flags", [(), ("--json",)], ids=["text", "json"])
def test_an_odd_row_is_a_counted_warning(tmp_path, capsys, row, message, flags):
    status, printed, said = _run(tmp_path, capsys, detections=GOOD + row, flags=flags)
    assert status == 0
    assert f"d.csv: {message}" in (said if flags else printed)


@pytest.mark.parametrize("program", [ava_ap, breakdowns], ids=["ava_ap", "breakdowns"])
def test_what_was_changed_in_reading_is_a_counted_warning(tmp_path, capsys, program):
    detections = GOOD + f"v,00:15:02,0.1,-0.001,0.4,0.9,1.0,0.5\nv,0902,{BOX},1,0.4,,\n"
    files = {"ground_truth": GROUND_TRUTH.replace(",", ";"), "detections": detections}
    status, printed, _ = _run(tmp_path, capsys, program=program, **files)
    assert status == 0
    for reported in (
        "g.csv: semicolons stand between the columns, and are read as commas",
        "d.csv: 1 row with a box up to 0.01 outside of [0, 1], which is cut off at the frame's "
        "edge (first: line 2, 0.1,-0.001,0.4,0.9)",
        "d.csv: 1 row with empty fields at the end (first: line 3)",
        "d.csv: 1 row with hours, minutes and seconds for a timestamp (first: line 2, 00:15:02)",
        "d.csv: 1 row with whole numbers written as fractions (first: line 2, 1.0)",
    ):
        assert reported in printed


def test_ground_truth_and_most_detections_in_pixels_are_errors(tmp_path, capsys):
    pixels = "v,0902,32,48,128,432,1"
    status, _, said = _run(tmp_path, capsys, ground_truth=f"{pixels}\n")
    assert status == 2 and "g.csv:1: x1 is 32; boxes are normalized" in said
    status, _, said = _run(tmp_path, capsys, detections=GOOD + f"{pixels},0.5\n" * 2)
    assert status == 2
    assert "d.csv, line 2: 2 of 3 boxes look like pixels (32,48,128,432), but those of" in said
    files = {"ground_truth": f"{pixels}\n", "detections": f"{pixels},0.5\n"}
    status, printed, _ = _run(tmp_path, capsys, **files, flags=["--box_tolerance", "none"])
    assert status == 0 and "mAP@0.5IOU: 1.000000" in printed


@pytest.mark.parametrize("value", ["-0.1", "1", "much", "nan"])
def test_a_tolerance_that_is_none_is_an_error(tmp_path, capsys, value):
    with pytest.raises(SystemExit) as caught:
        _run(tmp_path, capsys, flags=["--box_tolerance", value])
    assert caught.value.code == 2
    assert "must be at least 0 and less than 1" in capsys.readouterr().err


def test_a_detections_file_without_a_row_is_said(tmp_path, capsys):
    status, printed, _ = _run(tmp_path, capsys, detections="")
    assert status == 0
    assert "d.csv: no detections, so that every AP is 0" in printed
    assert "mAP@0.5IOU: 0.000000 over 1 of 2 classes" in printed


def test_an_empty_ground_truth_is_an_error(tmp_path, capsys):
    status, printed, said = _run(tmp_path, capsys, ground_truth="")
    assert (status, printed) == (2, "")
    assert "g.csv: the ground truth is empty; no class has ground truth" in said


@pytest.mark.parametrize("protocol", ["activitynet", "pyslowfast", "mmaction2"])
@pytest.mark.parametrize("ground_truth", ["v,0902\n", f"v,0902,{BOX},2\n"], ids=["none", "other"])
def test_ground_truth_without_one_box_has_no_map(tmp_path, capsys, ground_truth, protocol):
    flags = ["--protocol", protocol]
    status, printed, said = _run(tmp_path, capsys, ground_truth=ground_truth, flags=flags)
    assert status == 1
    assert "mAP@0.5IOU: none, no class has ground truth" in printed
    assert "error: no class has ground truth" in said
    assert "nan" not in printed.lower()
    flags += ["--json", "--localization"]
    status, printed, _ = _run(tmp_path, capsys, ground_truth=ground_truth, flags=flags)
    assert status == 1
    assert json.loads(printed)["mAP"] is None


@pytest.mark.parametrize("value", ["0", "1.5", "half", "0.5,,0.75", "nan"])
def test_a_threshold_that_is_none_is_an_error(tmp_path, capsys, value):
    with pytest.raises(SystemExit) as caught:
        _run(tmp_path, capsys, flags=["--iou_threshold", value])
    assert caught.value.code == 2
    assert "--iou_threshold" in capsys.readouterr().err


def test_several_thresholds_are_a_list_in_json(tmp_path, capsys):
    loose = "v,0902,0.1,0.1,0.4,0.65,1,0.9\n"  # IoU 0.6875
    _, printed, _ = _run(
        tmp_path, capsys, detections=loose, flags=["--iou_threshold", "0.5,0.75", "--json"]
    )
    assert [(r["iou_threshold"], r["mAP"]) for r in json.loads(printed)] == [(0.5, 1.0), (0.75, 0)]
