# SPDX-License-Identifier: Apache-2.0
"""What `register()` changes in the stock API, and how the programs end on wrong input."""

import os
import pathlib
import platform
import runpy
import subprocess
import sys
import types

import numpy as np
import pytest
import tensorflow as tf
from absl import flags
from object_detection import eval_util, exporter_lib_v2, inputs, model_lib, model_lib_v2
from object_detection.builders import model_builder
from object_detection.utils import config_util

from object_detection_ext import devices, errors, registration
from object_detection_ext.evaluation import ava_evaluator, protocols
from object_detection_ext.protos import video_action_transformer_pb2 as vat_pb2
from tests import tiny_pipeline

registration.register()

_ROOT = pathlib.Path(__file__).resolve().parent.parent


def _stock_state() -> list:
    """Everything of the stock API that registration touches."""
    return [
        dict(model_builder.META_ARCH_BUILDER_MAP),
        dict(model_builder.FASTER_RCNN_KERAS_FEATURE_EXTRACTOR_CLASS_MAP),
        dict(inputs.INPUT_BUILDER_UTIL_MAP),
        dict(eval_util.EVAL_METRICS_CLASS_DICT),
        dict(model_lib.MODEL_BUILD_UTIL_MAP),
        dict(exporter_lib_v2.DETECTION_MODULE_MAP),
        config_util.create_configs_from_pipeline_proto,
        config_util.create_pipeline_proto_from_configs,
        config_util.get_configs_from_pipeline_file,
        model_lib_v2.load_fine_tune_checkpoint,
        model_lib_v2.train_loop,
        model_lib_v2.eager_eval_loop,
        model_lib_v2.eval_continuously,
        exporter_lib_v2.export_inference_graph,
    ]


def test_registering_twice_changes_nothing():
    before = _stock_state()
    registration.register()
    assert _stock_state() == before


def test_our_names_are_known_to_the_stock_api():
    assert "faster_rcnn_i3d_keras" in model_builder.FASTER_RCNN_KERAS_FEATURE_EXTRACTOR_CLASS_MAP
    assert "clip_tensor" in exporter_lib_v2.DETECTION_MODULE_MAP
    config = tiny_pipeline.make_pipeline().eval_config
    evaluators = eval_util.get_evaluators(config, [{"id": 1, "name": "stand"}])
    assert isinstance(evaluators[0], ava_evaluator.AvaDetectionEvaluator)


def test_evaluators_follow_the_options_of_their_pipeline(tmp_path):
    types = tmp_path / "types.pbtxt"
    types.write_text('label { name: "stand" label_id: 1 label_type: POSE }')
    pipeline = tiny_pipeline.make_pipeline(
        f"""[object_detection_ext.protos.video_action_transformer] {{
          evaluation {{
            protocol: MMACTION2 iou_threshold: 0.3 iou_threshold: 0.75
            label_types_path: '{types}'
          }}
        }}"""
    )
    config = config_util.create_configs_from_pipeline_proto(pipeline)["eval_config"]
    options = eval_util.evaluator_options_from_eval_config(config)
    evaluator, _ = eval_util.get_evaluators(config, [{"id": 1, "name": "stand"}], options)
    box = np.array([[0, 0, 1, 1]], np.float32)
    nobody = np.zeros((0, 4), np.float32)
    for image_id, boxes in enumerate([box, nobody]):
        evaluator.add_single_ground_truth_image_info(
            image_id, {"groundtruth_boxes": boxes, "groundtruth_classes": np.ones(len(boxes))}
        )
        found = {
            "detection_boxes": box / 2 if image_id == 0 else box,
            "detection_classes": np.ones(1),
            "detection_scores": np.float32([0.5]),
        }
        evaluator.add_single_detected_image_info(image_id, found)
    metrics = evaluator.evaluate()
    prefix = "AvaDetectionBoxes_"
    # The detection covers a quarter; that on the frame without a box is ignored.
    assert metrics[f"{prefix}Precision/mAP@0.3IOU"] == 0.0
    assert metrics[f"{prefix}PerformanceByGroup/mAP@0.75IOU/POSE"] == 0.0
    assert f"{prefix}Precision/mAP@0.5IOU" not in metrics


def test_options_protocols_are_those_that_there_are():
    names = [name.lower() for name in vat_pb2.Evaluation.Protocol.keys()]
    assert names == list(protocols.PROTOCOLS)


def test_stock_options_of_metrics_stay():
    config = tiny_pipeline.make_pipeline().eval_config
    del config.metrics_set[:]
    config.metrics_set.append("coco_detection_metrics")
    config.include_metrics_per_category = True
    options = eval_util.evaluator_options_from_eval_config(config)
    assert options["coco_detection_metrics"]["include_metrics_per_category"]
    assert registration.AVA_METRICS not in options


def test_stock_names_stay():
    stock = model_builder.FASTER_RCNN_KERAS_FEATURE_EXTRACTOR_CLASS_MAP
    assert "faster_rcnn_resnet50_keras" in stock
    assert {"image_tensor", "tf_example"} <= exporter_lib_v2.DETECTION_MODULE_MAP.keys()
    assert "coco_detection_metrics" in eval_util.EVAL_METRICS_CLASS_DICT
    assert {"ssd", "center_net"} <= model_builder.META_ARCH_BUILDER_MAP.keys()


@pytest.fixture
def run(monkeypatch):
    """`registration.run` with given flags, without parsing the test's own command line."""

    def run_with(stock_main, override=None, **values) -> None:
        given = flags.FlagValues()
        for name, value in values.items():
            flags.DEFINE_string(name, value, "", flag_values=given)
        given.mark_as_parsed()
        monkeypatch.setattr(registration, "flags", types.SimpleNamespace(FLAGS=given))
        monkeypatch.setattr(registration, "app", types.SimpleNamespace(run=lambda main: main([])))
        registration.run(stock_main, override)

    return run_with


def test_program_hands_over_to_the_stock_main(run, tmp_path):
    path = tiny_pipeline.write_pipeline(tmp_path / "pipeline.config")
    called = []
    run(called.append, pipeline_config_path=str(path), model_dir="somewhere")
    assert called == [[]]


@pytest.mark.parametrize("missing", ["pipeline_config_path", "model_dir"])
def test_missing_flag_is_named(run, tmp_path, capsys, missing):
    path = tiny_pipeline.write_pipeline(tmp_path / "pipeline.config")
    values = {"pipeline_config_path": str(path), "model_dir": str(tmp_path), missing: None}
    with pytest.raises(SystemExit) as ended:
        run(lambda argv: pytest.fail("the stock main was reached"), **values)
    assert ended.value.code == 2
    assert capsys.readouterr().err == f"error: The flag --{missing} is missing.\n"


def test_override_of_the_exporter_is_read_too(run, tmp_path, capsys):
    path = tiny_pipeline.write_pipeline(tmp_path / "pipeline.config")
    with pytest.raises(SystemExit) as ended:
        run(
            lambda argv: pytest.fail("the stock main was reached"),
            pipeline_config_path=str(path),
            config_override="model { faster_rcnn { number_of_stages: 3 } }",
        )
    assert ended.value.code == 2
    assert "number_of_stages: 3" in capsys.readouterr().err


def test_override_reaches_the_loops_of_a_main_that_has_none(run, tmp_path, monkeypatch):
    path = tiny_pipeline.write_pipeline(tmp_path / "pipeline.config")
    got = {}
    for name in ("train_loop", "eval_continuously"):
        monkeypatch.setattr(
            model_lib_v2, name, lambda name=name, **kwargs: got.update({name: kwargs})
        )
    override = types.SimpleNamespace(value="train_config { num_steps: 3 }")

    def stock_main(argv):
        model_lib_v2.train_loop(model_dir="a")
        model_lib_v2.eval_continuously(model_dir="b")

    run(stock_main, override, pipeline_config_path=str(path), model_dir="somewhere")
    assert got == {
        "train_loop": {"model_dir": "a", "config_override": override.value},
        "eval_continuously": {"model_dir": "b", "config_override": override.value},
    }


def test_devices_and_fields_without_effect_are_said_before_the_stock_main(run, tmp_path, capsys):
    path = tiny_pipeline.write_pipeline(
        tmp_path / "pipeline.config",
        "train_config { use_bfloat16: true fine_tune_checkpoint: 'published/ckpt-1' } "
        "[object_detection_ext.protos.video_action_transformer] { "
        "compute { precision: FLOAT32 } } "
        "eval_config { num_examples: 50 }",
    )
    model_dir = tmp_path / "model"
    checkpoint = tf.train.Checkpoint(step=tf.Variable(7))
    tf.train.CheckpointManager(checkpoint, model_dir, max_to_keep=1).save()

    def said(**values):
        devices._printed.clear()
        run(
            lambda argv: print("the stock main", file=sys.stderr),
            pipeline_config_path=str(path),
            **values,
        )
        first, *lines, last = capsys.readouterr().err.splitlines()
        assert first.startswith("devices: ")
        assert last == "the stock main"
        assert all(line.startswith(f"warning: {path}: no effect: ") for line in lines)
        return " ".join(lines)

    training = said(model_dir=str(model_dir))
    assert "train_config.use_bfloat16: true" in training
    assert f"training resumes from {model_dir / 'ckpt-1'}" in training
    assert "eval_config.num_examples: 50" in training
    evaluation = said(model_dir=str(model_dir), checkpoint_dir=str(model_dir))
    assert "eval_config.num_examples: 50" in evaluation
    assert "fine_tune_checkpoint" not in evaluation
    export = said(trained_checkpoint_dir=str(model_dir))
    assert "train_config.use_bfloat16: true" in evaluation and "decides: FLOAT32" in export
    assert "eval_config" not in export
    assert "fine_tune_checkpoint" not in said(model_dir=str(tmp_path / "new"))


def test_seed_is_refused_where_steps_are_compiled(run, tmp_path, capsys):
    """XLA ignores seeds: training would not be repeatable, and nobody would know."""
    xla = "[object_detection_ext.protos.video_action_transformer] { compute { xla: true } }"
    compiled = str(tiny_pipeline.write_pipeline(tmp_path / "compiled.config", xla))
    with pytest.raises(SystemExit) as ended:
        run(
            lambda argv: pytest.fail("the stock main was reached"),
            pipeline_config_path=compiled,
            model_dir="m",
            seed="0",
        )
    assert ended.value.code == 2
    assert "--seed cannot make this training repeatable" in capsys.readouterr().err
    called = []
    plain = str(tiny_pipeline.write_pipeline(tmp_path / "plain.config"))
    run(called.append, pipeline_config_path=plain, model_dir="m", seed="0")
    run(called.append, pipeline_config_path=compiled, model_dir="m")
    evaluated = {"checkpoint_dir": str(tmp_path), "seed": "0"}
    run(called.append, pipeline_config_path=compiled, model_dir="m", **evaluated)
    assert called == [[]] * 3


@pytest.mark.parametrize("name", ["train_loop", "eval_continuously"])
def test_a_loop_that_a_notebook_calls_sets_the_devices_up_first(name, monkeypatch):
    works = []

    def announce(work, **_):
        works.append(work)
        raise KeyboardInterrupt  # before anything is read

    monkeypatch.setattr(devices, "announce", announce)
    with pytest.raises(KeyboardInterrupt):
        getattr(model_lib_v2, name)(pipeline_config_path="none", model_dir="none")
    assert works == [{"train_loop": "training", "eval_continuously": "evaluation"}[name]]


def test_wrong_input_inside_the_stock_main_ends_with_a_message(run, tmp_path, capsys):
    path = tiny_pipeline.write_pipeline(tmp_path / "pipeline.config")

    def stock_main(argv):
        raise errors.InputError("row 7 is wrong")

    with pytest.raises(SystemExit) as ended:
        run(stock_main, pipeline_config_path=str(path))
    assert ended.value.code == 2
    assert capsys.readouterr().err == "error: row 7 is wrong\n"


def test_defects_keep_their_traceback(run, tmp_path):
    path = tiny_pipeline.write_pipeline(tmp_path / "pipeline.config")

    def stock_main(argv):
        raise KeyError("a bug")

    with pytest.raises(KeyError, match="a bug"):
        run(stock_main, pipeline_config_path=str(path))


def test_tensorflow_before_the_package_and_without_keras_2_is_explained():
    environment = {k: v for k, v in os.environ.items() if k != "TF_USE_LEGACY_KERAS"}
    # An empty module stands for TensorFlow: only its presence matters, and importing takes long.
    program = (
        "import sys, types; sys.modules['tensorflow'] = types.ModuleType('tensorflow');"
        "import object_detection_ext"
    )
    result = subprocess.run(
        [sys.executable, "-c", program],
        cwd=_ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError: tensorflow was imported before object_detection_ext")
    assert "TF_USE_LEGACY_KERAS=1" in last
    # With the switch, the order does not matter.
    subprocess.run(
        [sys.executable, "-c", program],
        cwd=_ROOT,
        env={**environment, "TF_USE_LEGACY_KERAS": "1"},
        check=True,
    )


@pytest.mark.parametrize(("given", "wanted"), [(None, "1"), ("0", "0")])
def test_onednn_is_on_unless_the_user_says_otherwise(monkeypatch, given, wanted):
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.delenv("TF_ENABLE_ONEDNN_OPTS", raising=False)
    if given is not None:
        monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", given)
    runpy.run_module("object_detection_ext.__init__")
    assert os.environ["TF_ENABLE_ONEDNN_OPTS"] == wanted


def test_command_line_names_file_and_field_and_builds_nothing(tmp_path):
    path = tiny_pipeline.write_pipeline(
        tmp_path / "wrong.config", "model { faster_rcnn { number_of_stages: 3 } }"
    )
    model_dir = tmp_path / "model"
    result = subprocess.run(
        [
            sys.executable,
            "-m",
            "object_detection_ext.model_main_tf2",
            f"--pipeline_config_path={path}",
            f"--model_dir={model_dir}",
        ],
        cwd=_ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 2, result.stderr
    assert f"error: {path}:\n" in result.stderr
    assert "model.faster_rcnn.number_of_stages: 3; this model has 2." in result.stderr
    assert "Traceback" not in result.stderr
    assert not model_dir.exists()
