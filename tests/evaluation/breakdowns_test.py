# SPDX-License-Identifier: Apache-2.0
"""The breakdowns' command line, on files; that its parts agree with the evaluation."""

import json

import numpy as np
import pytest

from object_detection_ext.errors import InputError
from object_detection_ext.evaluation import ava_ap, breakdown_text, breakdowns
from tests.evaluation.ava_rows import CATEGORIES, random_case

LABEL_MAP = "".join(f"item {{ name: '{c['name']}' id: {c['id']} }}\n" for c in CATEGORIES)
GROUND_TRUTH = """\
a,902,0.0,0.0,0.4,1.0,2
a,902,0.5,0.0,0.9,1.0,5
b,902,0.0,0.0,0.4,1.0,2
"""
DETECTIONS = """\
a,902,0.0,0.0,0.4,1.0,2,0.9
a,902,0.5,0.0,0.9,1.0,2,0.8
b,902,0.0,0.0,0.4,1.0,2,0.7
b,902,0.0,0.0,0.4,1.0,5,0.6
"""
TRAINING = "x,1,0,0,1,1,5\nx,1,0,0,1,1,9\nx,1,0,0,1,1,9\nx,2,0,0,1,1,2\nx,2,0,0,1,1,2\n" * 2


@pytest.fixture
def files(tmp_path):
    """Command-line options of the three files."""
    texts = {"l.pbtxt": LABEL_MAP, "g.csv": GROUND_TRUTH, "d.csv": DETECTIONS, "t.csv": TRAINING}
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    options = (("-l", "l.pbtxt"), ("-g", "g.csv"), ("-d", "d.csv"))
    return [part for flag, name in options for part in (flag, str(tmp_path / name))]


def test_json_has_every_breakdown(files, tmp_path, capsys):
    arguments = [*files, "--json", "--bootstrap", "50", "-t", str(tmp_path / "t.csv")]
    assert breakdowns.main(arguments) == 0
    result = json.loads(capsys.readouterr().out)
    # SIT: right, wrong, right of 2: 1/2 + 1/2 * 2/3. TALK: never right.
    assert result["mAP"] == pytest.approx((5 / 6 + 0) / 2)
    assert [(row["name"], row["training_count"]) for row in result["classes"]] == [
        ("talk", 2),
        ("sit", 4),
        ("run", 4),
    ]
    assert result["classes"][2]["average_precision"] is None
    # People: three of three are found.
    assert [(entry["iou_threshold"], entry["average_precision"]) for entry in result["people"]] == [
        (0.5, 1.0),
        (0.75, 1.0),
    ]
    assert result["protocol"][-1] == ava_ap.BOXES_GIVEN
    assert result["training_counts_from"] == "training annotations"
    assert [entry["people"] for entry in result["by_number_of_people"]] == [1, 2]
    assert result["errors_of_all_classes"]["all"]["misclassified"] == 2
    assert result["confusion"]["most_frequent"] == [
        {"does": "sit", "predicted": "talk", "people": 1, "share": 0.5},
        {"does": "talk", "predicted": "sit", "people": 1, "share": 1.0},
    ]
    assert result["bootstrap"]["videos"] == 2


def test_text_has_every_breakdown(files, capsys):
    assert breakdowns.main([*files, "--bootstrap", "20", "--seed", "7"]) == 0
    text = capsys.readouterr().out
    assert "by increasing number of rows in the ground truth" in text
    assert "protocol activitynet" in text
    lines = [line.split() for line in text.splitlines()]
    assert ["talk", "5", "1", "0.0000", "1", "1"] in [line[:6] for line in lines]
    assert ["sit", "2", "2", "0.8333", "2", "3"] in [line[:6] for line in lines]
    assert ["all", "classes", "2", "0", "2", "0", "0", "1"] in lines  # of all detections
    assert ["sit", "talk", "1", "50.0", "%"] in lines
    assert "AP@0.75IOU of people, whatever they do: 1.0000" in text
    assert "mAP@0.5IOU: 0.416667 over 2 of 3 classes\n95 % interval" in text
    assert "(20 resamples of 2 videos, seed 7, mean 0." in text
    assert max(map(len, text.splitlines())) <= 110


def test_the_protocol_decides_what_counts(files, tmp_path, capsys):
    with (tmp_path / "d.csv").open("a") as file:
        file.write("c,902,0.0,0.0,0.4,1.0,2,0.95\n")  # a frame that the ground truth does not list
    found = {}
    for name in ("activitynet", "pyslowfast"):
        assert breakdowns.main([*files, "--json", "--protocol", name]) == 0
        found[name] = json.loads(capsys.readouterr().out)
        assert f"protocol {name}" in found[name]["protocol"][0]
    assert [found[name]["mAP"] for name in found] == pytest.approx([5 / 12, (0.5 + 0) / 2])
    numbers = [entry["label"] for entry in found["pyslowfast"]["by_number_of_people"]]
    assert numbers == ["0", "1", "2"]


def test_one_video_has_no_intervals_and_says_so(files, tmp_path, capsys):
    (tmp_path / "g.csv").write_text("a,902,0.0,0.0,0.4,1.0,2\n")
    assert breakdowns.main([*files, "--bootstrap", "20"]) == 0
    out = capsys.readouterr().out
    assert "no intervals: the ground truth has one video" in out
    assert "95 %" not in out


def test_without_ground_truth_of_any_class_there_is_no_map(files, tmp_path, capsys):
    (tmp_path / "g.csv").write_text("a,902\nb,902\n")
    assert breakdowns.main([*files, "--bootstrap", "20"]) == 1
    captured = capsys.readouterr()
    assert "mAP: none, no class has ground truth" in captured.out
    assert "nan" not in captured.out.lower()
    assert breakdowns.main([*files, "--json", "--bootstrap", "20"]) == 1
    assert json.loads(capsys.readouterr().out)["mAP"] is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--iou_threshold", "0.1"], "IoU threshold is 0.1, but must be more than 0.1"),
        (["--area_bins", "0"], "area bins is 0"),
        (["--bootstrap", "1"], "0 or at least 2 resamples, not 1"),
        (["-d", "no_such_file.csv"], "no_such_file.csv"),
    ],
)
def test_unusable_input_is_an_error(files, options, message, capsys):
    assert breakdowns.main([*files, *options]) == 2
    captured = capsys.readouterr()
    assert message in captured.err and not captured.out


def test_excluded_frames_are_left_out(files, tmp_path, capsys):
    (tmp_path / "e.csv").write_text("b,902\n")
    assert breakdowns.main([*files, "--json", "-e", str(tmp_path / "e.csv")]) == 0
    result = json.loads(capsys.readouterr().out)
    assert [entry["people"] for entry in result["by_number_of_people"]] == [2]
    assert result["counts"]["frames_excluded"] == 1


@pytest.mark.parametrize("seed", range(5))
def test_it_agrees_with_the_evaluation(seed):
    truth, found = random_case(np.random.default_rng(seed))
    result = breakdowns.break_down(truth, found, CATEGORIES, area_bins=1, resamples=20)
    expected = ava_ap.evaluate(truth, found, CATEGORIES)
    assert result.mean_average_precision == expected.mean_average_precision
    assert result.areas[0].mean_average_precision == expected.mean_average_precision
    by_id = {row.id: row.average_precision for row in result.classes}
    assert by_id == expected.average_precision
    all_errors, _ = result.total_errors
    assert all_errors.detections == expected.counts.detection_rows_used
    assert all_errors.right == sum(entry.true_positives for entry in expected.classes)


def test_numbers_out_of_range_raise():
    truth, found = random_case(np.random.default_rng(0))
    with pytest.raises(InputError):
        breakdowns.break_down(truth, found, CATEGORIES, iou_threshold=1.5)


def test_tables_line_up():
    lines = list(breakdown_text.table(["name", "n"], [["a", "1,000"], ["bcdef", "2"]]))
    assert lines == ["  name       n", "  a      1,000", "  bcdef      2"]
