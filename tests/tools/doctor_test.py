# SPDX-License-Identifier: Apache-2.0
"""The command line: what it says and how it ends, on toy data and on wrong options."""

import json
import pathlib
import subprocess
import sys

import pytest
from absl import flags

from object_detection_ext.doctor import report as report_lib
from object_detection_ext.doctor.findings import WARNING, Finding
from object_detection_ext.tools import doctor, make_toy_dataset
from tests import tiny_pipeline


@pytest.fixture(scope="module")
def toy(tmp_path_factory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("toy")
    # As many videos as there are kinds of company: every class is in both splits.
    make_toy_dataset.make_dataset(
        folder, num_train=11, num_eval=11, width=96, height=72, seconds=1.2, workers=2
    )
    return folder


def _options(toy, **changes) -> list[str]:
    options = {
        "annotations": toy / "train.csv",
        "val_annotations": toy / "eval.csv",
        "label_map": toy / "label_map.pbtxt",
        "videos": toy / "videos",
        "num_frames": 8,
        **changes,
    }
    return [f"--{name}={value}" for name, value in options.items() if value is not None]


def _run(options, capsys) -> tuple[int, str, str]:
    """Returns (exit status, what it printed, what it printed as errors and progress)."""
    values = flags.FlagValues()
    doctor.define_flags(values)
    arguments = values(["doctor", *options])
    status = 0
    try:
        doctor.main(arguments, values)
    except SystemExit as end:
        status = end.code
    return status, *capsys.readouterr()


def test_clean_toy_data(toy, tmp_path, capsys):
    sheet = tmp_path / "sheet.png"
    options = _options(toy, contact_sheet=sheet, sample_keyframes=1)
    status, text, said = _run(options, capsys)
    assert status == 0
    assert "Nothing wrong was found." in text
    assert "11 videos" in text
    assert "rows per class: stand 10," in text
    assert f"12 keyframes with all boxes: {sheet}" in text
    assert sheet.is_file()
    assert "estimate: train: 11 clips of 8 frames at 25 fps: records of about" in text
    assert "num_classes" in text.partition("not checked: ")[2]
    assert "(needs --pipeline_config_path)" in text
    assert "with records" not in text
    assert f"reading {toy / 'train.csv'}" in said


def test_errors_end_with_status_1(toy, tmp_path, capsys):
    train = tmp_path / "train.csv"
    lines = (toy / "train.csv").read_text().splitlines()
    train.write_text("\n".join([*lines, "train_0000,0001,0.1,0.1,0.2,1.7,1,0"]))
    status, text, _ = _run(_options(toy, annotations=train), capsys)
    assert status == 1
    row = len(lines) + 1
    assert f"error    box_out_of_range, 1 row: {train}:{row}\n         y2 is 1.7" in text
    assert "-> boxes are normalized, so it must be in [0, 1]" in text
    assert text.endswith("Found 1 error.\n")


def test_warnings_alone_end_with_status_0(toy, capsys):
    status, text, _ = _run(_options(toy, fps=30), capsys)
    assert status == 0
    assert "warning  video_fps_low, 11 videos" in text
    assert "Found 2 warnings." in text


def test_json_has_everything(toy, tmp_path, capsys):
    labels = tiny_pipeline.write_label_map(tmp_path / "l.pbtxt", {1: "stand", 2: "crouch", 9: "x"})
    sheet = tmp_path / "sheet.png"
    status, text, _ = _run(
        ["--json", *_options(toy, label_map=labels, contact_sheet=sheet,
                             contact_sheet_keyframes=2)], capsys
    )  # fmt: skip
    assert status == 1
    result = json.loads(text)
    assert list(result) == [
        "errors", "warnings", "findings", "not_checked", "splits", "clip", "estimates",
        "contact_sheet",
    ]  # fmt: skip
    assert (result["errors"], result["warnings"]) == (2, 2)
    assert [finding["code"] for finding in result["findings"]] == [
        "action_id_unknown", "action_id_unknown",
        "class_without_examples", "class_without_examples",
    ]  # fmt: skip
    for finding in result["findings"]:
        assert list(finding) == [
            "code", "severity", "file", "message", "advice", "count", "unit", "rows", "value",
            "items",
        ]  # fmt: skip
    unknown = result["findings"][0]
    assert unknown["items"][0].startswith("3 (")
    assert {"check": "pipeline.config", "needs": ["--pipeline_config_path"]} in result[
        "not_checked"
    ]
    train = result["splits"]["train"]
    assert train["rows_by_class"][0] == {"id": 1, "name": "stand", "rows": 10}
    assert train["rows_by_class"][2] == {"id": 9, "name": "x", "rows": 0}
    assert result["clip"] == {"num_frames": 8, "fps": 25.0, "short_side": 0}
    assert result["estimates"]["val"]["clips"] == 11
    assert result["contact_sheet"] == {"path": str(sheet), "keyframes": 2}


def test_real_videos(shared_dir, capsys):
    options = {
        "annotations": shared_dir / "media/people_annotations.csv",
        "label_map": shared_dir / "reference/ava_action_list_v2.1_60.pbtxt",
        "videos": shared_dir / "media",
        "sample_keyframes": 3,
    }
    status, text, _ = _run([f"--{name}={value}" for name, value in options.items()], capsys)
    assert status == 0
    # Two videos do not show all of AVA's actions; nothing else is wrong with them.
    assert "class_without_examples, 52 classes" in text
    assert "Found 1 warning." in text
    assert "48 rows, 28 boxes on 14 keyframes" in text


@pytest.mark.parametrize(
    "given",
    [("annotations",), ("val_annotations",), ("label_map",), ("videos",), ("annotations", "videos"),
     ("annotations", "label_map")],
)  # fmt: skip
def test_any_subset_will_do(toy, capsys, given):
    left_out = {"annotations", "val_annotations", "label_map", "videos"} - set(given)
    status, text, _ = _run(_options(toy, **dict.fromkeys(left_out)), capsys)
    assert status == 0
    assert "Nothing wrong was found" in text
    assert "not checked: " in text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"annotations": "none.csv"}, "--annotations 'none.csv': there is no such file"),
        ({"videos": "none"}, "--videos 'none' is not a folder"),
        ({"num_frames": 0}, "--num_frames must be at least 1, not 0"),
        ({"fps": -1}, "--fps must be 0.001 to 1000 frames per second, not -1"),
        ({"short_side": -1}, "--short_side must be at least 0 pixels"),
        ({"sample_keyframes": -1}, "--sample_keyframes must be at least 0"),
        ({"contact_sheet": "sheet.jpg"}, "'sheet.jpg' must end in .png"),
        ({"contact_sheet": "none/sheet.png"}, "there is no such folder"),
        ({"contact_sheet": "s.png", "videos": None}, "--contact_sheet needs --videos"),
        ({"contact_sheet": "s.png", "contact_sheet_keyframes": 0}, "at least 1, not 0"),
    ],
)
def test_wrong_use_ends_with_status_2(toy, capsys, change, message):
    status, text, said = _run(_options(toy, **change), capsys)
    assert (status, text) == (2, "")
    assert message in said


def test_no_option_and_stray_arguments(capsys):
    status, _, said = _run([], capsys)
    assert status == 2
    assert "nothing to look at: give --annotations" in said
    status, _, said = _run(["train.csv"], capsys)
    assert status == 2
    assert "unexpected arguments: train.csv" in said


@pytest.mark.parametrize("option", ["--anotations=x", "--fps=fast"])
def test_unknown_options_end_with_status_2_without_tensorflow(option):
    program = [sys.executable, "-X", "importtime", "-m", "object_detection_ext.tools.doctor"]
    end = subprocess.run([*program, option], capture_output=True, text=True, check=False)
    assert end.returncode == 2
    assert option.partition("=")[0].strip("-") in end.stderr
    assert "tensorflow" not in end.stderr


def test_text_is_short_and_counts_in_the_singular():
    finding = Finding("c", WARNING, "f.csv", "m", "a", count=1, unit="classes", rows=(3,))
    assert list(report_lib._finding_lines(finding))[0] == "warning  c, 1 class: f.csv:3"
    finding = Finding("c", WARNING, "f.csv", "m", "a", count=12_345, rows=(1, 2, 3, 4, 5))
    assert list(report_lib._finding_lines(finding))[0] == (
        "warning  c, 12,345 rows: f.csv:1,2,3,4,5,..."
    )
    assert report_lib._bytes(1_234_567) == "1.23 MB"
