# SPDX-License-Identifier: Apache-2.0
"""Box CSVs of PySlowFast and proposals, by their scores."""

import pickle

import numpy as np
import pytest

from object_detection_ext.importers import model, slowfast

# A box with two labels has a row for each; one without has an empty one.
_CSV = """1j20qq1JyX4,0902,0.002,0.118,0.714,0.977,12,0.998
1j20qq1JyX4,0902,0.002,0.118,0.714,0.977,79,0.998
1j20qq1JyX4,0902,0.444,0.054,1.004,0.990,,0.85
1j20qq1JyX4,0903,0.016,0.207,0.743,0.996,,0.31
2DUITARAsWQ,0902,0.1,0.2,0.3,0.4,,0.8
"""


def _write(path, text):
    (path / "boxes.csv").write_text(text)
    return str(path / "boxes.csv")


def test_boxes_by_their_score(tmp_path):
    found = slowfast.read_boxes(_write(tmp_path, _CSV), 0.8)
    assert found.boxes == {
        ("1j20qq1JyX4", 902.0): [(0.002, 0.118, 0.714, 0.977), (0.444, 0.054, 1.0, 0.99)],
        ("1j20qq1JyX4", 903.0): [],
        ("2DUITARAsWQ", 902.0): [(0.1, 0.2, 0.3, 0.4)],
    }
    assert (found.num_read, found.num_below, found.num_cut) == (4, 1, 1)
    assert slowfast.read_boxes(_write(tmp_path, _CSV), 0.9).num_below == 3


def test_a_header_and_other_delimiters(tmp_path):
    text = "video;timestamp;x1;y1;x2;y2;label;score\nv;00:15:02;0.1;0.2;0.3;0.4;;0.9\n"
    found = slowfast.read_boxes(_write(tmp_path, text), 0.5)
    assert found.boxes == {("v", 902.0): [(0.1, 0.2, 0.3, 0.4)]}
    assert [note.code for note in found.notes] == ["delimiter", "header"]


def test_proposals(tmp_path):
    content = {
        "1j20qq1JyX4,0902": np.array([[0.1, 0.2, 0.3, 0.4, 0.9], [0.5, 0.2, 0.9, 0.4, 0.3]]),
        "1j20qq1JyX4,0903": np.zeros((0, 5)),
    }
    (tmp_path / "p.pkl").write_bytes(pickle.dumps(content, 2))
    found = slowfast.read_boxes(str(tmp_path / "p.pkl"), 0.5)
    assert found.boxes == {
        ("1j20qq1JyX4", 902.0): [(0.1, 0.2, 0.3, 0.4)],
        ("1j20qq1JyX4", 903.0): [],
    }
    content = {"1j20qq1JyX4": np.zeros((1, 5)), "a,902": np.array([[0.5, 0.2, 0.3, 0.4, 0.9]])}
    (tmp_path / "p.pkl").write_bytes(pickle.dumps(content))
    with pytest.raises(
        model.ImportFault,
        match=r"(?s)\(2\).*'1j20qq1JyX4' is not of the form video_id,timestamp.*x1 must be less",
    ):
        slowfast.read_boxes(str(tmp_path / "p.pkl"), 0.5)


def test_a_header_of_its_own_names(tmp_path):
    text = "video,second,x1,y1,x2,y2,label,score\nv,902,0.1,0.2,0.3,0.4,,0.9\n"
    found = slowfast.read_boxes(_write(tmp_path, text), 0.5)
    assert found.boxes == {("v", 902.0): [(0.1, 0.2, 0.3, 0.4)]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("v,902,0.1,0.2,0.3,0.4,12\n", "boxes.csv:1: there is no score in column 8"),
        ("v,902,0.1,0.2,0.3,0.4,12,1.5\n", "a score is 1.5; scores are in"),
        ("v,902,0.1,0.2,0.3,0.4,12,4\nv,902,0.1,0.2,0.3,0.4,12,0\n", "person ids, as in AVA's ann"),
        ("v,902,0.1,0.2,0.3,0.4,12,high\n", "boxes.csv:1: score is 'high'; it must be a number"),
        ("v,902,10,20,30,40,12,0.9\n", r"boxes.csv:1: box 10.0, .*must be normalized"),
        ("v,15:02,0.1,0.2,0.3,0.4,12,0.9\n", "boxes.csv:1: second is '15:02'; it must be seconds"),
        ("v,902,0.3,0.2,0.1,0.4,12,0.9\n", "boxes.csv:1: box .*x1 must be less than x2"),
        ('"v,902,0.1,0.2,0.3,0.4,12,0.9\n', "boxes.csv:1: quotation marks that"),
        ("original_vido_id video_id frame_id path labels\n", "boxes.csv:1: 1 column"),
        ("\n", "boxes.csv"),
    ],
)
def test_what_has_no_scores_is_refused(tmp_path, text, message):
    with pytest.raises(model.ImportFault, match=message):
        slowfast.read_boxes(_write(tmp_path, text), 0.5)


def test_a_threshold_is_a_score(tmp_path):
    with pytest.raises(model.ImportFault, match="--score_threshold is 80; it must be in"):
        slowfast.read_boxes(_write(tmp_path, _CSV), 80)
