# SPDX-License-Identifier: Apache-2.0
"""Tests of what holds the demo's commands together; `make demo` runs the commands themselves."""

import math

import pytest
from google.protobuf import text_format
from object_detection.protos import pipeline_pb2

from object_detection_ext.loops import best, metric_names
from object_detection_ext.protos import video_action_transformer_pb2  # noqa: F401
from object_detection_ext.tools import demo


@pytest.fixture
def output(tmp_path):
    (tmp_path / "logs").mkdir()
    demo.write_config(tmp_path, 7)
    return tmp_path


def test_config_has_the_paths_and_steps_of_the_run(output):
    pipeline = pipeline_pb2.TrainEvalPipelineConfig()
    text_format.Merge((output / "pipeline.config").read_text(), pipeline)
    assert pipeline.train_config.num_steps == 7
    rate = pipeline.train_config.optimizer.adam_optimizer.learning_rate
    assert rate.cosine_decay_learning_rate.total_steps == 7
    assert rate.cosine_decay_learning_rate.warmup_steps == 3
    for reader, split in ((pipeline.train_input_reader, "train"),) + tuple(
        (reader, "eval") for reader in pipeline.eval_input_reader
    ):
        assert reader.label_map_path == str(output / "data" / "label_map.pbtxt")
        (path,) = reader.tf_record_input_reader.input_path
        assert path == str(output / "data" / f"{split}.record-?????-of-?????")


def test_stages_are_commands_that_hand_on_their_results(output):
    stages = {stage.name: dict(stage.options) for stage in demo.stages(output, 3, 7)}
    assert list(stages) == [
        "toy videos",
        "records",
        "doctor",
        "training and evaluation",
        "export",
        "annotated video",
        "detection on all held-out videos",
        "attention",
        "report",
    ]
    assert stages["toy videos"]["seed"] == 3
    assert stages["records"]["annotations"] == output / "data" / "{split}.csv"
    assert stages["doctor"]["annotations"] == output / "data" / "train.csv"
    training = stages["training and evaluation"]
    assert training["train_and_evaluate"] is True
    # What is evaluated is a checkpoint.
    assert training["eval_every_n"] % training["checkpoint_every_n"] == 0
    assert stages["export"]["trained_checkpoint_dir"] == training["model_dir"] / "best"
    assert training["pipeline_config_path"] == output / "pipeline.config"
    found = stages["detection on all held-out videos"]["output"]
    assert stages["report"]["detections"] == found / "detections.csv"
    assert stages["report"]["attention"] == stages["attention"]["output"]


def _stage(again=False):
    # A module that does nothing and needs no TensorFlow: as quick as a command can be.
    return demo.Stage("nothing", 1, "errors", (), again=again)


def test_a_finished_stage_is_not_run_again_until_the_config_changes(output, capsys):
    demo.run_stage(_stage(), output, "[1/1]")
    assert "$ python -m object_detection_ext.errors" in capsys.readouterr().out
    demo.run_stage(_stage(), output, "[1/1]")
    assert "finished by an earlier run" in capsys.readouterr().out
    demo.run_stage(_stage(again=True), output, "[1/1]")
    assert "done in" in capsys.readouterr().out
    demo.write_config(output, 8)
    demo.run_stage(_stage(), output, "[1/1]")
    assert "done in" in capsys.readouterr().out


def test_a_failed_stage_shows_the_end_of_its_log_and_is_run_again(output, capsys):
    stage = demo.Stage(
        "records",
        1,
        "tools.create_ava_records",
        (
            ("annotations", output / "none.csv"),
            ("videos", output),
            ("label_map", output / "none.pbtxt"),
            ("output", output / "x.record@1"),
        ),
    )
    for _ in range(2):
        with pytest.raises(demo.StageFailed, match=r"(?s)status 1.*records\.log.*none\.pbtxt"):
            demo.run_stage(stage, output, "[1/1]")
        assert "$ python" in capsys.readouterr().out


def test_metrics_are_those_of_the_exported_checkpoint(tmp_path):
    category = "AvaDetectionBoxes_PerformanceByCategory/AP@0.5IOU"
    scalars = {
        "AvaDetectionBoxes_Precision/mAP@0.5IOU": 0.707563,
        f"{category}/crouch/kneel": 0.9,
        f"{category}/never there": math.nan,
        "AvaDetectionBoxes_Localization/AP@0.5IOU": 0.8,
        "Loss/total_loss": 3.25,
    }
    (tmp_path / "ckpt-2.index").touch()
    (tmp_path / "ckpt-2.data-00000-of-00001").touch()
    metric = metric_names.Metric("AvaDetectionBoxes_Precision/mAP@0.5IOU")
    kept = best.BestCheckpoint(str(tmp_path / "model"), metric, ["eval.record"])
    kept.offer(str(tmp_path / "ckpt-2"), 250, scalars)
    assert demo.read_metrics(tmp_path / "model" / "best" / "best.json") == {
        "mAP@0.5IOU": 0.707563,
        "AP@0.5IOU/crouch/kneel": 0.9,
        "AP@0.5IOU/never there": None,
        "Localization/AP@0.5IOU": 0.8,
    }


def test_the_video_with_most_actions_is_shown_once_it_is_there(output):
    stages = {stage.name: stage for stage in demo.stages(output, 3, 7)}
    (output / "data").mkdir()
    rows = ["a,1,0,0,1,1,1,0", "b,1,0,0,1,1,1,0", "b,1,0,0,1,1,2,0", "c,1,0,0,1,1,2,0"]
    (output / "data" / "eval.csv").write_text("\n".join(rows) + "\n")
    assert stages["annotated video"].command[-1] == str(output / "data" / "videos" / "b.mp4")
    assert f"--video={output / 'data' / 'videos' / 'b.mp4'}" in stages["attention"].command


def test_a_folder_belongs_to_one_seed(output):
    demo._check_seed(output, 1)
    demo._check_seed(output, 1)
    with pytest.raises(demo.StageFailed, match="holds a demo of seed 1"):
        demo._check_seed(output, 2)
