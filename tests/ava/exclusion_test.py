# SPDX-License-Identifier: Apache-2.0
"""Excluded timestamps meet the keyframe that they mean, however it is written, or are reported."""

import json

import numpy as np
import pytest

from object_detection_ext.ava import tables
from object_detection_ext.ava.exclusion import Exclusion
from object_detection_ext.conversion import look, skips
from object_detection_ext.conversion.options import Options
from object_detection_ext.evaluation import ava_ap, input_files
from tests.doctor.small_data import write_csv

BOX = "0.1,0.1,0.4,0.9"
LABEL_MAP = 'item { name: "stand" id: 1 }\n'
GROUND_TRUTH = [f"v,1.041667,{BOX},1", f"v,2,{BOX},1", f"w,1.041667,{BOX},1"]
DETECTIONS = [f"v,1.0417,{BOX},1,0.9", f"v,1.042,{BOX},1,0.8", f"v,0002,{BOX},1,0.7"]


def test_moments_that_meet_nothing_are_told_with_the_nearest_keyframe():
    frames = [("v", 1.041667), ("v", 2), ("w", 5)]
    met = Exclusion([("v", 1.042), ("v", 2)], frames)
    assert met.left_out == {("v", 1.041667), ("v", 2)}
    assert met.message() is None
    missed = Exclusion([("v", 1.05), ("v", 2), ("x", 7)], frames)
    assert missed.left_out == {("v", 2)} and missed.unmet == [("v", 1.05), ("x", 7)]
    assert missed.message() == (
        "2 of 3 excluded timestamps meet no keyframe and exclude nothing (such as 'v' at 1.05 s: "
        "the nearest keyframe is at 1.041667 s)"
    )
    assert "the video has no keyframe" in Exclusion([("x", 7)], frames).message()
    assert Exclusion([], frames).message() is None


def _evaluate(tmp_path, capsys, excluded=(), ground_truth=GROUND_TRUTH, detections=DETECTIONS):
    (tmp_path / "l.pbtxt").write_text(LABEL_MAP)
    arguments = [
        f"--labelmap={tmp_path / 'l.pbtxt'}",
        f"--groundtruth={write_csv(tmp_path / 'g.csv', ground_truth)}",
        f"--detections={write_csv(tmp_path / 'd.csv', detections)}",
        f"--excluded_timestamps={write_csv(tmp_path / 'e.csv', excluded)}",
    ]
    assert ava_ap.main([*arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("text", ["1.041667", "1.042", "1.0417", "1.0416666667", "00:00:01.0417"])
def test_a_keyframe_between_milliseconds_is_excluded_however_it_is_written(tmp_path, capsys, text):
    result = _evaluate(tmp_path, capsys, [f"v,{text}"])
    counts = result["counts"]
    assert (counts["frames"], counts["ground_truth_rows"]) == (2, 2)
    # Both rows of detections are on it, though they write it otherwise.
    assert counts["detection_rows_on_excluded_frames"] == 2
    assert not any("excluded timestamps" in warning for warning in result["warnings"])


def test_an_excluded_moment_that_meets_nothing_is_a_warning(tmp_path, capsys):
    result = _evaluate(tmp_path, capsys, ["v,1.05", "v,2"])
    assert result["counts"]["ground_truth_rows"] == 2
    (warning,) = [text for text in result["warnings"] if "excluded timestamps" in text]
    assert warning.startswith("1 of 2 excluded timestamps meet no keyframe")


def test_how_the_list_is_written_is_told_by_the_evaluator_too(tmp_path, capsys):
    write_csv(tmp_path / "g.csv", GROUND_TRUTH)
    path = write_csv(tmp_path / "e.csv", ["v;1,041667", "v;2,0"])
    read = input_files.read(
        str(tmp_path / "g.csv"), write_csv(tmp_path / "d.csv", DETECTIONS), path
    )
    assert read.excluded == {("v", 1.041667), ("v", 2)}
    reported = capsys.readouterr().err
    assert f"note: {path}: 2 rows with decimal commas (first: line 1, 1,041667)\n" in reported
    assert f"note: {path}: semicolons stand between the columns" in reported


def test_detections_meet_ground_truth_to_the_millisecond(tmp_path, capsys):
    """As one frame, of which the highest-scored row is right and the other one is not."""
    counts = _evaluate(tmp_path, capsys)["counts"]
    assert counts["detection_rows_used"] == 3 and counts["frames_unlisted"] == 0
    apart = [*DETECTIONS, f"v,1.05,{BOX},1,0.9"]
    counts = _evaluate(tmp_path, capsys, detections=apart)["counts"]
    assert counts["detection_rows_on_unlisted_frames"] == 1


def test_two_spellings_of_a_frame_share_its_cap():
    """Of 30 and 30 rows of one frame the 50 with the highest scores count."""
    ground_truth = tables.AvaRows("g", [("v", 1.041667)], _rows(0, 1), *_of_rows(1))
    parts = [_rows(0, 30, 0.5), _rows(1, 30, 0.9)]
    found = tables.AvaRows(
        "d", [("v", 1.0417), ("v", 1.042)], tables.concatenate(parts), *_of_rows(60)
    )
    result = ava_ap.evaluate(ground_truth, found, [{"id": 1, "name": "stand"}])
    assert result.counts.detection_rows_used == 50
    assert result.counts.detection_rows_dropped_by_cap == 10
    assert result.mean_average_precision == 1.0


def _rows(frame: int, count: int, score: float = 1.0) -> tables.LabelledBoxes:
    return tables.LabelledBoxes(
        np.full(count, frame), np.tile([0.1, 0.1, 0.9, 0.4], (count, 1)), np.ones(count, np.int64),
        np.full(count, score),
    )  # fmt: skip


def _of_rows(count: int):
    return np.arange(1, count + 1), np.ones(count, bool)


def test_the_converter_leaves_out_what_is_meant_and_tells_what_is_not(tmp_path, capsys):
    (tmp_path / "videos").mkdir()
    (tmp_path / "l.pbtxt").write_text(LABEL_MAP)
    options = Options(
        write_csv(tmp_path / "g.csv", GROUND_TRUTH), str(tmp_path / "videos"),
        str(tmp_path / "l.pbtxt"), f"{tmp_path / 'r'}@1",
        excluded_timestamps=write_csv(tmp_path / "e.csv", ["v,1.042", "v,1.5"]),
    )  # fmt: skip
    labels = look.annotations.read_annotations(options.annotations, {1: "stand"})
    by_video, skipped, notes = look._usable_keyframes(options, labels)
    assert [k.timestamp for k in by_video["v"]] == [2.0]
    assert [(skip.timestamp, skip.kind) for skip in skipped] == [(1.041667, skips.EXCLUDED)]
    (note,) = notes
    assert note.startswith(f"{options.excluded_timestamps}: 1 of 2 excluded timestamps meet no")
    with pytest.raises(ValueError, match="No keyframe of"):  # there are no videos
        look.look_and_plan(options)
    assert f"note: {note}" in capsys.readouterr().out


def test_the_converter_tells_what_it_changes(tmp_path, capsys):
    (tmp_path / "videos").mkdir()
    (tmp_path / "l.pbtxt").write_text(LABEL_MAP)
    text = f"video,time,x1,y1,x2,y2,label\nv,1.0,{BOX},1.0\nw,2,-0.001,0,1,1,1\n"
    (tmp_path / "g.csv").write_text(text)
    options = Options(
        str(tmp_path / "g.csv"), str(tmp_path / "videos"), str(tmp_path / "l.pbtxt"),
        f"{tmp_path / 'r'}@1",
    )  # fmt: skip
    with pytest.raises(ValueError, match="No keyframe of"):
        look.look_and_plan(options)
    reported = capsys.readouterr().out.splitlines()
    assert [line.split(": ", 2)[2][:24] for line in reported if line.startswith("note: ")] == [
        "1 row with a box up to 0", "line 1 names the columns", "1 row with whole numbers",
    ]  # fmt: skip
