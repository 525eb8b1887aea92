# SPDX-License-Identifier: Apache-2.0
"""Detections beside the ground truth's moments are said to be so, with what to do."""

import json

import pytest

from object_detection_ext.evaluation import ava_ap, breakdowns

_BOX = "0.1,0.1,0.5,0.9"


def _write(folder, name, rows):
    path = folder / name
    path.write_text("".join(f"{row}\n" for row in rows))
    return str(path)


def _labels(folder):
    path = folder / "l.pbtxt"
    path.write_text("item { id: 1 name: 'stand' }\n")
    return str(path)


def _truth(*moments):
    return [f"{video},{time},{_BOX},1,0" for video, time in moments]


def _found(*moments):
    return [f"{video},{time},{_BOX},1,0.9" for video, time in moments]


def _evaluate(folder, truth, found, **options):
    return ava_ap.evaluate_files(
        _labels(folder), _write(folder, "gt.csv", truth), _write(folder, "d.csv", found), **options
    )


def _warnings(folder, truth, found, **options):
    return [
        warning
        for warning in _evaluate(folder, truth, found, **options).warnings
        if "ground-truth moments" in warning or "videos of the ground truth" in warning
    ]


def test_moments_that_were_moved_are_counted_and_named(tmp_path):
    # Two thirds of the moments are a third of a second late.
    truth = _truth(*(("v", time) for time in range(900, 909)))
    late = [("v", time if time % 3 == 0 else time + 0.335) for time in range(900, 909)]
    result = _evaluate(tmp_path, truth, _found(*late))
    assert result.mean_average_precision < 0.5
    (warning,) = [w for w in result.warnings if "ground-truth moments" in w]
    assert "d.csv: 6 of 9 ground-truth moments have no detection, and 6 detected moments" in warning
    assert "'v' at 901.335 s beside 'v' at 0901 s" in warning
    assert f"detect_video --keyframes {tmp_path}/gt.csv" in warning


def test_nothing_is_said_where_every_moment_is_met(tmp_path):
    truth = _truth(("v", 1), ("w", 2))
    # More than the ground truth has, and the third decimal of a frame's time.
    found = _found(("v", 1), ("w", "2.0004"), ("v", 1.5), ("x", 7))
    assert _warnings(tmp_path, truth, found) == []


def test_moments_at_which_nobody_was_found(tmp_path):
    truth = _truth(("v", 1), ("v", 2))
    (warning,) = _warnings(tmp_path, truth, _found(("v", 1)))
    assert "1 of 2 ground-truth moments has no detection (such as 'v' at 0002 s)" in warning
    assert "--score_threshold 0.01" in warning


def test_moments_without_people_and_excluded_ones_are_not_missed(tmp_path):
    truth = [*_truth(("v", 1), ("v", 3)), "v,2"]
    excluded = _write(tmp_path, "x.csv", ["v,3"])
    found = _found(("v", 1))
    assert _warnings(tmp_path, truth, found, excluded_timestamps=excluded) == []


def test_videos_that_were_not_detected_are_told_apart(tmp_path):
    truth = _truth(("v", 1), ("w", 1), ("w", 2), ("x", 1))
    (warning,) = _warnings(tmp_path, truth, _found(("v", 1)))
    assert "2 of 3 videos of the ground truth have no detection at all (such as 'w'), 3 mom" in (
        warning
    )


def test_report_and_breakdowns_say_it_too(tmp_path):
    truth, found = _truth(("v", 1), ("v", 2)), _found(("v", 1), ("v", 2.3))
    result = breakdowns.break_down_files(
        _labels(tmp_path), _write(tmp_path, "gt.csv", truth), _write(tmp_path, "d.csv", found)
    )
    assert any("1 of 2 ground-truth moments has no detection" in w for w in result.warnings)


@pytest.mark.parametrize("by_video", [False, True])
def test_detections_in_the_time_of_files_cut_from_films(tmp_path, by_video, capsys):
    truth = _truth(("v", 901), ("v", 902.5))
    found = _found(("v", 1), ("v", "2.500000"))
    offset = _write(tmp_path, "offsets.csv", ["v,900"]) if by_video else "900"
    result = _evaluate(tmp_path, truth, found, time_offset_seconds=offset)
    assert result.mean_average_precision == 1.0
    assert _evaluate(tmp_path, truth, found).mean_average_precision == 0.0
    arguments = ["-l", str(tmp_path / "l.pbtxt"), "-g", str(tmp_path / "gt.csv"),
                 "-d", str(tmp_path / "d.csv"), "--json"]  # fmt: skip
    assert ava_ap.main([*arguments, "--time_offset_seconds", offset]) == 0
    assert json.loads(capsys.readouterr().out)["mAP"] == 1.0
    assert ava_ap.main([*arguments, "--time_offset_seconds", "15min"]) == 2
    assert "neither a number of seconds nor a CSV file" in capsys.readouterr().err


def test_ids_that_look_the_same_are_the_same(tmp_path):
    truth = _truth(("caf\u00e9", 1))
    result = _evaluate(tmp_path, truth, _found(("cafe\u0301", 1)))
    assert result.mean_average_precision == 1.0
