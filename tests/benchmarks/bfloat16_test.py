# SPDX-License-Identifier: Apache-2.0
"""The benchmark of bfloat16 compares what it says, and keeps what is finished."""

import json
import pathlib

import numpy as np
import pytest

from benchmarks import bfloat16
from object_detection_ext import precision, registration
from object_detection_ext.inference import results
from object_detection_ext.tools import demo

registration.register()

_CONFIGS = pathlib.Path(__file__).resolve().parents[2] / "pipeline_configs"
_SMALLER = """
model { faster_rcnn {
  image_resizer { fixed_shape_resizer { height: 64 width: 64 } }
} }
[object_detection_ext.protos.video_action_transformer] { clip { num_frames: 8 } }
"""


@pytest.mark.parametrize("name", ["ava_i3d_tx_lowres_r64", "ava_r3d50_non_local_tx_lowres_gt_r64"])
def test_one_checkpoint_detects_about_the_same_in_both_precisions(name):
    pipeline = bfloat16.reduced_pipeline(_CONFIGS / f"{name}.config", _SMALLER)
    found = bfloat16.compare(pipeline)
    assert found.overlaps.shape == (4,) and found.scores.shape == (4 * 81,)
    assert 0.98 < found.overlaps.min() < 1
    assert 0 < np.median(found.scores) < 0.02 and found.scores.max() < 0.1


def test_differences_of_tables_without_boxes():
    assert bfloat16.Differences(np.array([]), np.array([]), 3).row("a") == "| a | 0 | 3 | | | | |"
    row = bfloat16.Differences(np.array([0.9, 1.0, 0.98]), np.array([0.0, 0.25])).row("b")
    assert row == "| b | 3 | 0 | 0.9800 | 0.9000 | 0.1250 | 0.2500 |"


def _keyframe(*people) -> results.Keyframe:
    persons = [results.Person(np.float32(box), scores, {}) for box, scores in people]
    return results.Keyframe("v", 0.0, tuple(persons))


def test_people_are_compared_with_their_nearest_counterpart():
    full = _keyframe(
        ([0, 0, 0.5, 0.5], {1: 0.9, 2: 0.2}), ([0.5, 0.5, 1, 1], {1: 0.5}), ([0, 0, 1, 1], {1: 0.1})
    )
    low = _keyframe(([0, 0, 0.5, 0.4], {1: 0.8, 2: 0.9}))
    found = bfloat16.between([full], [low], 0.3)
    assert found.overlaps == pytest.approx([0.8])
    assert found.scores == pytest.approx([0.1])  # what is below the threshold does not count
    assert found.lost == 1


def test_toy_data_is_trained_in_both_precisions_once(tmp_path, monkeypatch, capsys):
    ran = []

    def run_stage(stage, output, title):
        ran.append(stage.command)
        options = dict(stage.options)
        if "model_dir" in options:
            best = options["model_dir"] / "best"
            best.mkdir(parents=True)
            value = 0.25 if "BFLOAT16" in options["config_override"] else 0.5
            metrics = {"AvaDetectionBoxes_Precision/mAP@0.5IOU": value}
            (best / "best.json").write_text(json.dumps({"scalars": metrics}))

    monkeypatch.setattr(demo, "run_stage", run_stage)
    for _ in range(2):
        bfloat16.main(["toy", "--output", str(tmp_path), "--seeds", "0", "3", "--num_steps", "7"])
        table = capsys.readouterr().out
        assert "| 3 | 0.500 | 0.250 | -0.250 |\n| mean | 0.500 | 0.250 | -0.250 |" in table
    # Data, records and two trainings of each seed, and nothing the second time.
    assert len(ran) == 8
    trainings = [" ".join(command) for command in ran if "model_main_tf2" in command[2]]
    assert len(trainings) == 4
    for training, name in zip(trainings, 2 * precision.NAMES, strict=True):
        assert f"compute {{ precision: {name.upper()} }}" in training
        assert training.count("--model_dir=") == 1 and f"/{name} " in training + " "
    assert "--seed=0" in trainings[0] and "--seed=3" in trainings[3]
