# SPDX-License-Identifier: Apache-2.0
"""AVA's two label settings: trained on 80 actions, evaluated on the 60 of them that are frequent.

Shapes: G ground-truth rows, D detections of a clip.
"""

import collections
import pathlib

import numpy as np
import pytest
import tensorflow as tf
from object_detection import eval_util
from object_detection.core import standard_fields
from object_detection.protos import eval_pb2
from object_detection.utils import label_map_util

from object_detection_ext import registration
from object_detection_ext.ava import label_maps
from object_detection_ext.data import clip_decoder
from object_detection_ext.evaluation import ava_evaluator
from tests import tiny_pipeline

registration.register()

_FOLDER = pathlib.Path(__file__).resolve().parent.parent / "label_maps"
_AVA_80 = _FOLDER / "ava_80.pbtxt"
_AVA_80_TYPES = _FOLDER / "ava_80_types.pbtxt"
_AVA_60 = _FOLDER / "ava_60.pbtxt"

_Input = standard_fields.InputDataFields
_Detection = standard_fields.DetectionResultFields

# Those that have fewer than 25 validation examples.
_RARE = {
    2: "crawl",
    16: "brush teeth",
    18: "catch (an object)",
    19: "chop",
    21: "clink glass",
    23: "cook",
    25: "dig",
    31: "exit",
    32: "extract",
    33: "fishing",
    35: "kick (an object)",
    39: "paint",
    40: "play board game",
    42: "play with pets",
    44: "press",
    50: "row boat",
    53: "shovel",
    55: "stir",
    71: "kick (a person)",
    75: "play with kids",
}
_STAND, _CRAWL, _WATCH = 12, 2, 80
_PERSON = [0.1, 0.2, 0.8, 0.5]
_CHILD = [0.5, 0.6, 0.9, 0.9]


def _actions(path: pathlib.Path) -> dict[int, str]:
    """From id to name, as the stock code reads a label map."""
    return {item.id: item.name for item in label_map_util.load_labelmap(str(path)).item}


def test_80_actions_have_the_ids_1_to_80():
    assert sorted(_actions(_AVA_80)) == list(range(1, 81))
    assert label_map_util.get_max_label_map_index(label_map_util.load_labelmap(str(_AVA_80))) == 80
    assert len(label_map_util.get_label_map_dict(str(_AVA_80))) == 80  # names do not repeat


def test_60_actions_are_among_the_80_under_their_ids():
    sixty, eighty = _actions(_AVA_60), _actions(_AVA_80)
    assert len(sixty) == 60
    assert sixty.items() <= eighty.items()
    assert dict(eighty.items() - sixty.items()) == _RARE


def test_60_actions_are_the_public_lists(shared_dir):
    assert _actions(_AVA_60) == _actions(shared_dir / "reference/ava_action_list_v2.1_60.pbtxt")


def test_types_are_of_the_80_actions_in_the_numbers_of_the_release():
    labels = label_maps.read_categories(str(_AVA_80_TYPES))
    assert {label["id"]: label["name"] for label in labels} == _actions(_AVA_80)
    types = label_maps.read_label_types(str(_AVA_80_TYPES))
    assert collections.Counter(types.values()) == {
        "PERSON_MOVEMENT": 14,
        "OBJECT_MANIPULATION": 49,
        "PERSON_INTERACTION": 17,
    }
    assert [types[i] for i in (_STAND, _WATCH)] == ["PERSON_MOVEMENT", "PERSON_INTERACTION"]
    # The names say what they are about.
    for class_id, name in _actions(_AVA_80).items():
        if "(an object)" in name and "person" not in name:
            assert types[class_id] == "OBJECT_MANIPULATION", name
        if "a person" in name or "another person" in name:
            assert types[class_id] == "PERSON_INTERACTION", name


def _decoded(label_map: pathlib.Path) -> dict[str, np.ndarray]:
    """The keyframe of a record with two people, who stand and crawl, and watch and crawl."""
    names = _actions(_AVA_80)
    rows = [
        (_PERSON, names[_STAND]),
        (_PERSON, names[_CRAWL]),
        (_CHILD, names[_CRAWL]),
        (_CHILD, names[_WATCH]),
    ]
    record = tiny_pipeline.make_record(tiny_pipeline.gray_frames(2), {1: rows})
    decoder = clip_decoder.ClipDecoder(str(label_map), num_frames=2)
    (clip,) = (decoder.decode_frames(clip) for clip in decoder.keyframes(tf.constant(record)))
    return {key: value.numpy() for key, value in clip.items()}


@pytest.mark.parametrize(
    ("label_map", "expected"),
    [
        (_AVA_80, [(_STAND, _PERSON), (_CRAWL, _PERSON), (_CRAWL, _CHILD), (_WATCH, _CHILD)]),
        (_AVA_60, [(_STAND, _PERSON), (_WATCH, _CHILD)]),
    ],
    ids=["80", "60"],
)
def test_rows_of_actions_that_the_map_lacks_are_not_decoded(label_map, expected):
    clip = _decoded(label_map)
    assert clip[_Input.groundtruth_classes].tolist() == [action for action, _ in expected]
    np.testing.assert_allclose(clip[_Input.groundtruth_boxes], [box for _, box in expected])
    assert clip[_Input.num_groundtruth_boxes] == len(expected)


def _evaluate(label_map: pathlib.Path, detections: list[tuple[int, list[float], float]]) -> dict:
    """Metrics of one clip, as the stock loop makes them from a pipeline.config's reader.

    Args:
        label_map: of the eval reader.
        detections: action, box [ymin, xmin, ymax, xmax] (normalized) and score of each.
    """
    categories = list(label_map_util.create_category_index_from_labelmap(str(label_map)).values())
    config = eval_pb2.EvalConfig(metrics_set=[registration.AVA_METRICS])
    (evaluator,) = eval_util.get_evaluators(config, categories)
    assert isinstance(evaluator, ava_evaluator.AvaDetectionEvaluator)
    clip = _decoded(label_map)
    actions, boxes, scores = zip(*detections, strict=True)
    evaluator.add_eval_dict(
        {
            _Input.key: np.array(["video,1"]),
            _Input.groundtruth_boxes: clip[_Input.groundtruth_boxes][np.newaxis],
            _Input.groundtruth_classes: clip[_Input.groundtruth_classes][np.newaxis],
            _Detection.detection_boxes: np.array([boxes], np.float32),
            _Detection.detection_classes: np.array([actions]),
            _Detection.detection_scores: np.array([scores], np.float32),
        }
    )
    return evaluator.evaluate()


_PREFIX = "AvaDetectionBoxes_"
_MAP = f"{_PREFIX}Precision/mAP@0.5IOU"
_AP = f"{_PREFIX}PerformanceByCategory/AP@0.5IOU/"


def test_a_model_of_80_classes_is_measured_on_the_60():
    """What it says of the other 20 changes nothing, though it says it first and most."""
    right = [(_STAND, _PERSON, 0.6), (_WATCH, _CHILD, 0.5)]
    # More than the 50 detections of a frame that count.
    of_the_rare = [(action, _PERSON, 0.9) for action in _RARE for _ in range(4)]
    metrics = _evaluate(_AVA_60, of_the_rare + right)
    assert metrics == _evaluate(_AVA_60, right)
    actions = {name: value for name, value in metrics.items() if "Localization" not in name}
    assert actions == {_MAP: 1.0, f"{_AP}stand": 1.0, f"{_AP}watch (a person)": 1.0}


def test_all_80_count_with_the_map_of_80():
    metrics = _evaluate(_AVA_80, [(_STAND, _PERSON, 0.6), (_CRAWL, _PERSON, 0.5)])
    # One of the two who crawl was found, and nobody who watches.
    assert metrics[f"{_AP}stand"] == 1.0
    assert metrics[f"{_AP}crawl"] == 0.5
    assert metrics[f"{_AP}watch (a person)"] == 0.0
    assert metrics[_MAP] == pytest.approx(0.5)
