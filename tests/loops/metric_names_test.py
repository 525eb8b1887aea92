# SPDX-License-Identifier: Apache-2.0
"""The metric that chooses: its name, its direction, what is known of it early."""

import pytest

from object_detection_ext import errors, registration
from object_detection_ext.loops import metric_names
from object_detection_ext.loops.metric_names import Metric
from tests import tiny_pipeline

registration.register()

_AVA = "AvaDetectionBoxes_Precision/mAP@0.5IOU"
_PASCAL = "PascalBoxes_Precision/mAP@0.5IOU"
_COCO = "DetectionBoxes_Precision/mAP"


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ([_PASCAL, "Loss/total_loss", _AVA], _AVA),
        ([_AVA.replace("0.5", "0.3"), _AVA], _AVA.replace("0.5", "0.3")),
        (["DetectionBoxes_Precision/mAP (small)", _COCO, f"{_COCO}@.50IOU"], _COCO),
        (["AvaDetectionBoxes_PerformanceByGroup/mAP@0.5IOU/POSE", "Loss/total_loss"], None),
    ],
)
def test_the_mean_ap_of_an_evaluation(names, expected):
    metrics = dict.fromkeys(names, 0.5)
    for metric in (Metric(), Metric("mAP")):
        assert metric.find(metrics) == expected


def test_direction():
    assert Metric().goal_of(_AVA) == "max"
    assert Metric().goal_of("Loss/RPNLoss/objectness_loss") == "min"
    assert Metric(goal="min").goal_of(_AVA) == "min"
    with pytest.raises(errors.InputError, match="must be max or min"):
        Metric(goal="down")


def test_what_is_shown():
    metrics = {_AVA: 0.6514, "Loss/total_loss": 1.25}
    assert Metric().shown(metrics) == "mAP@0.5IOU 0.651"
    assert Metric(_AVA).shown(metrics) == "mAP@0.5IOU 0.651"
    assert Metric("Loss/total_loss").shown(metrics) == "mAP@0.5IOU 0.651, Loss/total_loss 1.250"
    assert Metric().shown({"Loss/total_loss": 1.25}) == "no mAP"


def test_scalars_are_known_before_an_evaluation(tmp_path):
    types = tmp_path / "types.pbtxt"
    types.write_text('label { name: "stand" label_id: 1 label_type: POSE }')
    pipeline = tiny_pipeline.make_pipeline(
        f"""[object_detection_ext.protos.video_action_transformer] {{
          evaluation {{ iou_threshold: 0.5 iou_threshold: 0.75 label_types_path: '{types}' }} }}
        """,
        label_map=tiny_pipeline.write_label_map(tmp_path / "labels.pbtxt"),
    )
    by_class = "PerformanceByCategory/AP@0.5IOU"
    expected = {
        _AVA,
        _PASCAL,
        _AVA.replace("0.5", "0.75"),
        "AvaDetectionBoxes_PerformanceByGroup/mAP@0.5IOU/POSE",
        "AvaDetectionBoxes_Localization/AP@0.75IOU",
        "Loss/total_loss",
        *(f"AvaDetectionBoxes_{by_class}/{name}" for name in tiny_pipeline.ACTIONS.values()),
        *(f"PascalBoxes_{by_class}/{name}" for name in tiny_pipeline.ACTIONS.values()),
    }
    assert expected <= metric_names.possible_scalars(pipeline)
    # COCO's have no class in their names.
    del pipeline.eval_config.metrics_set[:]
    pipeline.eval_config.metrics_set.append("coco_detection_metrics")
    assert _COCO in metric_names.possible_scalars(pipeline)
    # Those that want masks cannot be asked.
    pipeline.eval_config.metrics_set.append("coco_mask_metrics")
    assert metric_names.possible_scalars(pipeline) is None


def test_an_unknown_name_lists_what_there_is():
    Metric().check([])
    Metric(_AVA).check([_AVA])
    with pytest.raises(errors.InputError, match="'map' is not a .*It has:\n  a\n  b"):
        Metric("map").check(["b", "a"])
