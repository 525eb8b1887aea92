# SPDX-License-Identifier: Apache-2.0
"""Fields without effect: each is named, against what the stock code and ours read."""

import pathlib
import re

import object_detection
import pytest
from google.protobuf import text_format
from object_detection.protos import eval_pb2, faster_rcnn_pb2, input_reader_pb2, train_pb2

from object_detection_ext import registration, unused_fields
from tests import tiny_pipeline

_ROOT = pathlib.Path(__file__).resolve().parent.parent
_STOCK = pathlib.Path(next(iter(object_detection.__path__)))
_PACKAGE = _ROOT / "object_detection_ext"
# The stock code that runs here: its TF2 loops, inputs, metrics, builders and meta-architectures.
_STOCK_FILES = [
    *(_STOCK / name for name in ("model_lib_v2.py", "inputs.py", "eval_util.py")),
    _STOCK / "utils/config_util.py",
    *(p for p in (_STOCK / "builders").glob("*.py") if "_test" not in p.name),
]
_COMPUTE = "[object_detection_ext.protos.video_action_transformer] { compute"
_TABLE = [
    *unused_fields.TRAINING_FIELDS,
    *unused_fields.EVALUATION_FIELDS,
    *unused_fields.MODEL_FIELDS,
]


def _pipeline(text: str):
    pipeline = tiny_pipeline.make_pipeline()
    pipeline.eval_config.metrics_set[:] = ["ava_detection_metrics"]
    text_format.Merge(text, pipeline)
    return pipeline


def _find(text: str, **options) -> list[str]:
    return unused_fields.find(_pipeline(text), **{"trains": True, "evaluates": True, **options})


def test_own_pipelines_have_none():
    for path in (_ROOT / "pipeline_configs").glob("*.config"):
        text = path.read_text()
        # Their label maps are at places that the user fills in.
        pipeline = registration.pipeline_pb2.TrainEvalPipelineConfig()
        text_format.Merge(text, pipeline)
        assert unused_fields.find(pipeline, trains=True, evaluates=True) == [], path
    assert _find("") == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            f"train_config {{ use_bfloat16: true }} {_COMPUTE} {{ precision: FLOAT32 }} }}",
            "train_config.use_bfloat16: true: object_detection_ext.protos.video_action_transformer."
            "compute.precision says otherwise, and decides: FLOAT32",
        ),
        (
            f"train_config {{ use_bfloat16: false }} {_COMPUTE} {{ precision: BFLOAT16 }} }}",
            "train_config.use_bfloat16: false: object_detection_ext.protos.video_action_transformer"
            ".compute.precision says otherwise, and decides: BFLOAT16",
        ),
        (
            "train_config { freeze_variables: ['first'] freeze_variables: ['second'] }",
            "train_config.freeze_variables: only the TF1 loops",
        ),
        (
            "train_config { max_number_of_boxes: 200 }",
            "train_config.max_number_of_boxes: 200: set it in train_input_reader",
        ),
        ("train_config { bias_grad_multiplier: 2 }", "train_config.bias_grad_multiplier: 2: only"),
        (
            "train_config { keep_checkpoint_every_n_hours: 2.5 }",
            "keep_checkpoint_every_n_hours: 2.5: only the TF1 loops of the stock API read it; the "
            "flag --keep",
        ),
        ("train_input_reader { num_epochs: 20 }", "train_input_reader.num_epochs: 20: training"),
        (
            "train_input_reader { num_additional_channels: 1 }",
            "train_input_reader.num_additional_channels: 1: the reader of clips does not use it",
        ),
        ("eval_config { num_examples: 5000 }", "eval_config.num_examples: 5000: every record"),
        ("eval_config { save_graph: true }", "eval_config.save_graph: true: only the TF1 loops"),
        (
            "eval_config { visualization_export_dir: 'a' }",
            "visualization_export_dir: 'a': pictures",
        ),
        ("eval_config { recall_lower_bound: 0.5 }", "recall_lower_bound: 0.5: 'ava_detection_"),
        ("eval_config { parameterized_metric { } }", "eval_config.parameterized_metric: 'ava"),
        ("eval_input_reader { }", "eval_input_reader[1]: only the first eval_input_reader is"),
        (
            "model { faster_rcnn { second_stage_mask_prediction_loss_weight: 4 } }",
            "second_stage_mask_prediction_loss_weight: 4: masks are not predicted here",
        ),
    ],
)
def test_each_is_named_with_its_value_and_why(text, expected):
    (found,) = _find(text)
    assert expected in found


@pytest.mark.parametrize(
    "text",
    [
        "train_config { use_bfloat16: false }",
        "train_config { use_bfloat16: true }",
        f"{_COMPUTE} {{ precision: BFLOAT16 }} }}",
        f"train_config {{ use_bfloat16: true }} {_COMPUTE} {{ precision: BFLOAT16 }} }}",
        f"train_config {{ use_bfloat16: false }} {_COMPUTE} {{ precision: FLOAT32 }} }}",
        "train_config { sync_replicas: true startup_delay_steps: 0 replicas_to_aggregate: 1 }",
        "eval_config { max_evals: 0 save_graph: false visualize_groundtruth_boxes: true }",
        "train_input_reader { input_type: TF_SEQUENCE_EXAMPLE max_number_of_boxes: 30 }",
        "train_input_reader { num_additional_channels: 0 }",
        "train_config { fine_tune_checkpoint: 'a/ckpt-1' }",
    ],
)
def test_what_is_asked_for_and_done_anyway_is_no_fault(text):
    assert _find(text) == []


def test_what_depends_on_the_work():
    bfloat16 = f"train_config {{ use_bfloat16: true }} {_COMPUTE} {{ precision: FLOAT32 }} }}"
    # It acts on the export too.
    assert len(_find(bfloat16, trains=False, evaluates=False)) == 1
    resumed = "train_config { fine_tune_checkpoint: 'a/ckpt-1' }"
    (text,) = _find(resumed, resumed_from="model/ckpt-5")
    assert "'a/ckpt-1': training resumes from model/ckpt-5" in text
    assert _find("", resumed_from="model/ckpt-5") == []
    assert _find("train_config { summarize_gradients: true }", trains=False) == []
    assert _find("eval_config { num_examples: 5 }", evaluates=False) == []
    # Other metrics have these options.
    assert (
        _find("eval_config { metrics_set: 'coco_detection_metrics' recall_lower_bound: 0.5 }") == []
    )


# ------------------------------------------------------------------------------------------------
# Against the code that would read them


def _reads(name: str, files) -> list[str]:
    return [str(path) for path in files if re.search(rf"\.{name}\b", path.read_text())]


@pytest.mark.parametrize("field", _TABLE, ids=lambda field: field.path)
def test_nothing_that_runs_here_reads_a_field_of_the_table(field):
    messages = {
        "train_config": train_pb2.TrainConfig,
        "eval_config": eval_pb2.EvalConfig,
        "train_input_reader": input_reader_pb2.InputReader,
        "faster_rcnn": faster_rcnn_pb2.FasterRcnn,
    }
    *_, parent, name = field.path.split(".")
    assert name in messages[parent].DESCRIPTOR.fields_by_name
    if field.path in _READ_ELSEWHERE:
        return
    assert not _reads(name, _STOCK_FILES)
    ours = [path for path in _PACKAGE.rglob("*.py") if path.name != "unused_fields.py"]
    assert not [path for path in ours if f"config.{name}" in path.read_text()]


# Read, but of another message (the boxes of an input reader), or to no end: the training input is
# repeated whatever it says; masks have no head here.
_READ_ELSEWHERE = {
    "train_config.max_number_of_boxes",
    "train_input_reader.num_epochs",
    "model.faster_rcnn.second_stage_mask_prediction_loss_weight",
    "model.faster_rcnn.resize_masks",
}


def test_the_stock_code_pads_boxes_by_the_reader_and_repeats_the_training_input():
    source = (_STOCK / "inputs.py").read_text()
    assert not re.search(r"train_config\.max_number_of_boxes", source)
    assert re.search(r"train_input_config\.max_number_of_boxes", source)
    assert "train_input = train_input.repeat()" in (_STOCK / "model_lib_v2.py").read_text()


def test_every_field_of_a_reader_that_the_readers_code_reads_is_known():
    """What `clip_dataset` and the stock functions that it calls take from an input reader."""
    files = [_PACKAGE / "data/clip_dataset.py", _STOCK / "builders/dataset_builder.py"]
    fields = input_reader_pb2.InputReader.DESCRIPTOR.fields_by_name
    assert unused_fields.READER_FIELDS <= set(fields)
    ours = {name for name in fields if _reads(name, files[:1])}
    # `read_dataset` and what it calls are the first half of the stock file.
    stock = files[1].read_text().partition("\ndef build(")[0]
    ours |= {name for name in fields if re.search(rf"\bconfig\.{name}\b", stock)}
    assert ours - {"name"} <= unused_fields.READER_FIELDS
