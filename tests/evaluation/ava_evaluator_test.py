# SPDX-License-Identifier: Apache-2.0
"""The evaluator of the stock loop against the stock Pascal evaluator and the command line."""

import logging
import tracemalloc

import numpy as np
import pytest

from object_detection_ext import (
    compat,  # noqa: F401  (must come before object_detection)
    errors,
)
from object_detection_ext.ava import tables
from object_detection_ext.evaluation import ava_ap, frame_ap, protocols
from object_detection_ext.evaluation.ava_evaluator import AvaDetectionEvaluator
from tests.evaluation.tie_breaking import distinct_scores

import tensorflow as tf  # isort: skip
from object_detection import eval_util, model_lib_v2  # isort: skip
from object_detection.core import standard_fields  # isort: skip
from object_detection.protos import eval_pb2  # isort: skip
from object_detection.utils import object_detection_evaluation  # isort: skip

CLASS_IDS = (1, 3, 7)
CATEGORIES = [{"id": class_id, "name": f"action {class_id}"} for class_id in CLASS_IDS]
MAP_KEY = "AvaDetectionBoxes_Precision/mAP@0.5IOU"
CLASS_KEY = "AvaDetectionBoxes_PerformanceByCategory/AP@0.5IOU/action {}"


def _random_boxes(rng, count):
    low = rng.integers(0, 3, (count, 2))
    high = low + rng.integers(1, 3, (count, 2))
    return (np.concatenate([low, high], axis=1) / 4).astype(np.float32)


def _random_frame(rng, max_detections=80):
    """Ground truth and detections of one frame as float32, with many equal boxes and scores."""
    num_gt, num_found = int(rng.integers(0, 6)), int(rng.integers(0, max_detections))
    ground_truth = {
        "groundtruth_boxes": _random_boxes(rng, num_gt),
        "groundtruth_classes": rng.choice([1, 3, 5], num_gt),
    }
    detections = {
        "detection_boxes": _random_boxes(rng, num_found),
        "detection_classes": rng.choice([1, 2, 3, 7], num_found),
        "detection_scores": (rng.integers(0, 9, num_found) / 8).astype(np.float32),
    }
    return ground_truth, detections


def _random_frames(seed, count=12):
    rng = np.random.default_rng(seed)
    frames = [_random_frame(rng) for _ in range(count)]
    frames[0][0]["groundtruth_boxes"] = np.array([[0, 0, 1, 1]], np.float32)
    frames[0][0]["groundtruth_classes"] = np.array([1])
    return frames


def _add(evaluator, frames, ids=None):
    for index, (ground_truth, detections) in enumerate(frames):
        image_id = index if ids is None else ids[index]
        evaluator.add_single_ground_truth_image_info(image_id, ground_truth)
        evaluator.add_single_detected_image_info(image_id, detections)
    return evaluator


def _of_actions(metrics):
    """Without localization, which the stock evaluator does not have."""
    return {name: value for name, value in metrics.items() if "Localization" not in name}


def _kept_detections(frames):
    """For each frame (boxes, classes, scores) of the 50 rows that count, scores all different."""
    kept = []
    for _, detections in frames:
        known = np.isin(detections["detection_classes"], CLASS_IDS)
        kept.append(
            ava_ap.order_frame_rows(
                detections["detection_boxes"][known].astype(float),
                detections["detection_classes"][known],
                detections["detection_scores"][known].astype(float),
                50,
            )
        )
    scores = distinct_scores(np.concatenate([scores for _, _, scores in kept]).tolist())
    stops = np.cumsum([len(scores) for _, _, scores in kept])[:-1]
    return [(*row[:2], own) for row, own in zip(kept, np.split(scores, stops), strict=True)]


def _stock(frames):
    """The stock evaluator's metrics, fed float64, known classes and 50 rows in the AVA order."""
    stock = object_detection_evaluation.PascalDetectionEvaluator(CATEGORIES)
    found = _kept_detections(frames)
    for index, (ground_truth, _) in enumerate(frames):
        known = np.isin(ground_truth["groundtruth_classes"], CLASS_IDS)
        boxes, classes, _ = frame_ap.order_frame_ground_truth(
            ground_truth["groundtruth_boxes"][known].astype(float),
            ground_truth["groundtruth_classes"][known],
            np.ones(known.sum()),
        )
        stock.add_single_ground_truth_image_info(
            index,
            {
                "groundtruth_boxes": boxes,
                "groundtruth_classes": classes,
                "groundtruth_difficult": np.zeros(len(boxes), bool),
            },
        )
        names = ("detection_boxes", "detection_classes", "detection_scores")
        stock.add_single_detected_image_info(index, dict(zip(names, found[index], strict=True)))
    return {
        key.replace("PascalBoxes", "AvaDetectionBoxes"): value
        for key, value in stock.evaluate().items()
        if not np.isnan(value)
    }


def _csv_core(frames, tmp_path, **options):
    """The result of the command line's core on the same frames, written to files."""
    with (
        open(tmp_path / "g.csv", "w") as ground_truth_file,
        open(tmp_path / "d.csv", "w") as detections_file,
    ):
        for index, (ground_truth, detections) in enumerate(frames):
            ground_truth_file.write(f"video,{index}\n")
            fields = zip(*ground_truth.values(), strict=True)
            for (ymin, xmin, ymax, xmax), class_id in fields:
                ground_truth_file.write(f"video,{index},{xmin},{ymin},{xmax},{ymax},{class_id}\n")
            fields = zip(*detections.values(), strict=True)
            for (ymin, xmin, ymax, xmax), class_id, score in fields:
                detections_file.write(
                    f"video,{index},{xmin},{ymin},{xmax},{ymax},{class_id},{score}\n"
                )
    return ava_ap.evaluate(
        tables.read_csv(str(tmp_path / "g.csv")),
        tables.read_csv(str(tmp_path / "d.csv")),
        CATEGORIES,
        **options,
    )


@pytest.mark.parametrize("seed", range(8))
def test_agrees_with_the_stock_evaluator_and_with_the_command_line(tmp_path, seed):
    frames = _random_frames(seed)
    metrics = _of_actions(_add(AvaDetectionEvaluator(CATEGORIES), frames).evaluate())
    assert metrics == pytest.approx(_stock(frames), abs=1e-12)
    result = _csv_core(frames, tmp_path)
    assert metrics[MAP_KEY] == result.mean_average_precision
    for class_id, value in result.average_precision.items():
        assert metrics.get(CLASS_KEY.format(class_id)) == value


def _pad(rows, count):
    """Pads to `count` rows of zeros, and of class 1, as the stock argmax makes of no class."""
    return np.stack(
        [np.concatenate([r, np.zeros((count - len(r), *r.shape[1:]), r.dtype)]) for r in rows]
    )


def _batched_inputs(frames):
    """Arguments of `model_lib_v2.prepare_eval_dict` as the stock loop has them, padded."""
    gts, found = [list(part) for part in zip(*frames, strict=True)]
    one_hot = _pad([np.eye(9, dtype=np.float32)[g["groundtruth_classes"] - 1] for g in gts], 8)
    ground_truth = {
        "groundtruth_boxes": tf.constant(_pad([g["groundtruth_boxes"] for g in gts], 8)),
        "groundtruth_classes": tf.constant(one_hot),
        "num_groundtruth_boxes": tf.constant([len(g["groundtruth_boxes"]) for g in gts]),
    }
    detections = {name: _pad([d[name] for d in found], 100) for name in found[0]}
    detections["detection_classes"] = detections["detection_classes"].astype(np.float32) - 1
    detections["detection_classes"][detections["detection_classes"] < 0] = 0
    detections = {name: tf.constant(value) for name, value in detections.items()}
    detections["num_detections"] = tf.constant([float(len(d["detection_boxes"])) for d in found])
    count = len(frames)
    features = {
        "image": tf.zeros([count, 40, 80, 3]),
        "original_image": tf.zeros([count, 40, 80, 3], tf.uint8),
        "original_image_spatial_shape": tf.constant([[40, 80]] * count),
        "true_image_shape": tf.constant([[40, 80, 3]] * count),
        "hash": tf.constant([77] * count),
    }
    return detections, ground_truth, features


def test_eval_dict_of_the_stock_loop(monkeypatch):
    monkeypatch.setitem(
        eval_util.EVAL_METRICS_CLASS_DICT, "ava_detection_metrics", AvaDetectionEvaluator
    )
    config = eval_pb2.EvalConfig(metrics_set=["ava_detection_metrics"])
    options = eval_util.evaluator_options_from_eval_config(config)
    (evaluator,) = eval_util.get_evaluators(config, CATEGORIES, options)
    frames = _random_frames(3)
    for start in range(0, len(frames), 4):
        inputs = _batched_inputs(frames[start : start + 4])
        eval_dict, class_agnostic = model_lib_v2.prepare_eval_dict(*inputs)
        assert not class_agnostic
        evaluator.add_eval_dict(eval_dict)
    metrics = _of_actions(evaluator.evaluate())
    assert metrics == pytest.approx(_stock(frames), abs=1e-12)
    assert 0 < metrics[MAP_KEY] < 1
    assert all(type(value) is float for value in metrics.values())
    evaluator.clear()
    assert evaluator.evaluate() == {}


def test_eval_dict_of_a_single_example_and_of_one_that_is_not_annotated():
    ground_truth, detections = _random_frames(0)[0]
    eval_dict = {name: tf.constant(value) for name, value in {**ground_truth, **detections}.items()}
    eval_dict[standard_fields.InputDataFields.key] = tf.constant(5)
    evaluator = AvaDetectionEvaluator(CATEGORIES)
    evaluator.add_eval_dict(eval_dict)
    expected = _stock([(ground_truth, detections)])
    assert _of_actions(evaluator.evaluate()) == pytest.approx(expected, abs=1e-12)
    evaluator.add_eval_dict({**eval_dict, "is_annotated": tf.constant(False)})
    assert _of_actions(evaluator.evaluate()) == pytest.approx(expected, abs=1e-12)


def test_frames_with_equal_ids_are_all_counted():
    frames = _random_frames(1)
    apart = _add(AvaDetectionEvaluator(CATEGORIES), frames).evaluate()
    assert _add(AvaDetectionEvaluator(CATEGORIES), frames, [9] * len(frames)).evaluate() == apart
    # The same when all ground truth comes first.
    evaluator = AvaDetectionEvaluator(CATEGORIES)
    for ground_truth, _ in frames:
        evaluator.add_single_ground_truth_image_info(np.int32(9), ground_truth)
    for _, detections in frames:
        evaluator.add_single_detected_image_info(9, detections)
    assert evaluator.evaluate() == apart


def test_detections_of_unlisted_frames_and_nan_scores_are_ignored_and_said(caplog):
    frames = _random_frames(2)
    expected = _add(AvaDetectionEvaluator(CATEGORIES), frames).evaluate()
    ground_truth, detections = frames[0]
    frames[0] = (
        ground_truth,
        {
            "detection_boxes": np.append(detections["detection_boxes"], [[0, 0, 1, 1]], axis=0),
            "detection_classes": np.append(detections["detection_classes"], 1),
            "detection_scores": np.append(detections["detection_scores"], np.nan),
        },
    )
    evaluator = _add(AvaDetectionEvaluator(CATEGORIES), frames)
    evaluator.add_single_detected_image_info(99, detections)
    with caplog.at_level(logging.WARNING):
        assert evaluator.evaluate() == expected
    assert "1 detection with a NaN score, ignored" in caplog.text
    count = len(detections["detection_boxes"])
    assert f"{count} detections on images without ground truth added first: ignored" in caplog.text


def test_only_fifty_detections_of_a_frame_are_kept():
    box = np.array([[0, 0, 1, 1]], np.float32)
    evaluator = AvaDetectionEvaluator(CATEGORIES)
    evaluator.add_single_ground_truth_image_info(
        0, {"groundtruth_boxes": box, "groundtruth_classes": np.array([1])}
    )
    evaluator.add_single_detected_image_info(
        0,
        {
            "detection_boxes": np.concatenate([box, np.tile(box / 4, (50, 1))]),
            "detection_classes": np.ones(51, int),
            "detection_scores": np.linspace(0, 1, 51, dtype=np.float32),
        },
    )
    assert _of_actions(evaluator.evaluate()) == {MAP_KEY: 0.0, CLASS_KEY.format(1): 0.0}


def test_no_ground_truth_gives_no_metric_and_a_warning(caplog):
    evaluator = AvaDetectionEvaluator(CATEGORIES)
    _, detections = _random_frames(0)[1]
    empty = {"groundtruth_boxes": np.zeros((0, 4)), "groundtruth_classes": np.zeros(0, int)}
    _add(evaluator, [(empty, detections)])
    with caplog.at_level(logging.WARNING):
        assert evaluator.evaluate() == {}
    assert ava_ap.NO_GROUND_TRUTH in caplog.text


def test_bad_arguments_are_errors():
    with pytest.raises(ValueError, match="iou_threshold is 2"):
        AvaDetectionEvaluator(CATEGORIES, iou_thresholds=(2,))
    with pytest.raises(ValueError, match="Class names must differ"):
        AvaDetectionEvaluator([{"id": 1, "name": "a"}, {"id": 2, "name": "a"}])
    evaluator = AvaDetectionEvaluator(CATEGORIES)
    reversed_box = np.array([[0.5, 0, 0.4, 1]], np.float32)
    with pytest.raises(ValueError, match="image 7: ground-truth box"):
        evaluator.add_single_ground_truth_image_info(
            7, {"groundtruth_boxes": reversed_box, "groundtruth_classes": np.array([1])}
        )
    huge = np.array([[0.5, 0, 0.6, 1e30]], np.float32)
    with pytest.raises(errors.InputError, match=r"image 9: ground-truth box \[.* beyond 1,000,000"):
        evaluator.add_single_ground_truth_image_info(
            9, {"groundtruth_boxes": huge, "groundtruth_classes": np.array([1])}
        )
    with pytest.raises(ValueError, match="image 8: these must be of one length"):
        evaluator.add_single_ground_truth_image_info(
            8, {"groundtruth_boxes": reversed_box, "groundtruth_classes": np.array([1, 1])}
        )


LABEL_TYPES = {1: "POSE", 3: "POSE", 7: "OBJECT"}
LOCALIZATION_KEY = "AvaDetectionBoxes_Localization/AP@{}IOU"


@pytest.mark.parametrize("protocol", protocols.PROTOCOLS)
def test_every_protocol_and_metric_agrees_with_the_command_line(tmp_path, protocol):
    frames = _random_frames(5)
    nobody = {"groundtruth_boxes": np.zeros((0, 4)), "groundtruth_classes": np.zeros(0, int)}
    frames[3] = (nobody, frames[3][1])
    evaluator = AvaDetectionEvaluator(
        CATEGORIES, iou_thresholds=(0.5, 0.75), protocol=protocol, label_types=LABEL_TYPES
    )
    metrics = _add(evaluator, frames).evaluate()
    for threshold in (0.5, 0.75):
        result = _csv_core(
            frames,
            tmp_path,
            iou_threshold=threshold,
            protocol=protocols.by_name(protocol),
            label_types=LABEL_TYPES,
            localization=True,
        )
        assert metrics[f"AvaDetectionBoxes_Precision/mAP@{threshold}IOU"] == (
            result.mean_average_precision
        )
        (pose, _) = result.groups
        key = f"AvaDetectionBoxes_PerformanceByGroup/mAP@{threshold}IOU/POSE"
        assert metrics[key] == pose.average_precision
        (located,) = (entry for entry in result.localization if entry.iou_threshold == threshold)
        assert metrics[LOCALIZATION_KEY.format(threshold)] == located.average_precision
        assert 0 < located.average_precision < 1
    # Class 7 has no ground truth, and so its group has no figure.
    assert not any("OBJECT" in name for name in metrics)


@pytest.mark.parametrize(
    ("protocol", "expected"), [("activitynet", 1.0), ("pyslowfast", 0.5), ("mmaction2", 1.0)]
)
def test_detections_of_an_image_that_was_not_added(protocol, expected, caplog):
    box = np.array([[0, 0, 1, 1]], np.float32)
    found = {
        "detection_boxes": box,
        "detection_classes": np.array([1]),
        "detection_scores": np.array([0.5]),
    }
    evaluator = AvaDetectionEvaluator(CATEGORIES, protocol=protocol)
    labelled = {"groundtruth_boxes": box, "groundtruth_classes": np.array([1])}
    _add(evaluator, [(labelled, found)])
    evaluator.add_single_detected_image_info(9, {**found, "detection_scores": np.array([0.9])})
    with caplog.at_level(logging.INFO, "tensorflow"):
        metrics = evaluator.evaluate()
    assert metrics[MAP_KEY] == metrics[LOCALIZATION_KEY.format(0.5)] == expected
    assert f"protocol {protocol}" in caplog.text
    frames = "2 frames" if protocol == "pyslowfast" else "1 frame"
    assert f"{frames} counted, 0 skipped; 2 classes without ground truth" in caplog.text


def test_mmaction2_ignores_frames_without_a_box(caplog):
    box = np.array([[0, 0, 1, 1]], np.float32)
    found = {
        "detection_boxes": box,
        "detection_classes": np.array([1]),
        "detection_scores": np.array([0.9]),
    }
    labelled = {"groundtruth_boxes": box, "groundtruth_classes": np.array([1])}
    nobody = {"groundtruth_boxes": np.zeros((0, 4)), "groundtruth_classes": np.zeros(0, int)}
    higher = {**found, "detection_scores": np.array([0.95])}
    frames = [(labelled, found), (nobody, higher)]
    counted = _add(AvaDetectionEvaluator(CATEGORIES), frames).evaluate()
    assert counted[MAP_KEY] == 0.5
    evaluator = _add(AvaDetectionEvaluator(CATEGORIES, protocol="mmaction2"), frames)
    with caplog.at_level(logging.INFO, "tensorflow"):
        assert evaluator.evaluate()[MAP_KEY] == 1.0
    assert "1 frame counted, 1 skipped" in caplog.text


def test_the_log_has_the_span_of_equal_scores_where_it_matters(caplog):
    """A right and a wrong detection of one score: the AP is 1 or 1/2."""
    box = np.array([[0, 0, 1, 1]], np.float32)
    labelled = {"groundtruth_boxes": box, "groundtruth_classes": np.array([1])}
    nobody = {"groundtruth_boxes": np.zeros((0, 4)), "groundtruth_classes": np.zeros(0, int)}

    def log_of(second_score):
        evaluator = AvaDetectionEvaluator(CATEGORIES, iou_thresholds=(0.5, 0.75))
        found = {"detection_boxes": box, "detection_classes": np.array([1])}
        first, second = ({**found, "detection_scores": np.array([s])} for s in (0.5, second_score))
        _add(evaluator, [(labelled, first), (nobody, second)])
        caplog.clear()
        with caplog.at_level(logging.INFO, "tensorflow"):
            assert evaluator.evaluate()[MAP_KEY] == 1.0
        return caplog.text

    for what in ("mAP@0.5IOU", "mAP@0.75IOU", "person AP@0.5IOU"):
        line = f"AVA {what}: 1.000000; equal scores: 0.500000 to 1.000000, by their order"
        assert line in log_of(0.5)
    assert "equal scores:" not in log_of(0.4)


def test_what_is_remembered_is_a_few_bytes_of_each_detection_that_counts():
    rng = np.random.default_rng(0)
    evaluator = AvaDetectionEvaluator(CATEGORIES)
    rows = 300  # the most that a stock detector gives, each another box
    ymin = rng.random((rows, 1)) / 2
    boxes = np.concatenate([ymin, ymin, ymin + 0.4, ymin + 0.4], axis=1).astype(np.float32)

    def add(count):
        for index in range(count):
            ground_truth = {
                "groundtruth_boxes": boxes[:3],
                "groundtruth_classes": np.array([1, 3, 7]),
            }
            detections = {
                "detection_boxes": boxes,
                "detection_classes": rng.choice([1, 3, 7], rows),
                "detection_scores": rng.random(rows).astype(np.float32),
            }
            evaluator.add_single_ground_truth_image_info(index, ground_truth)
            evaluator.add_single_detected_image_info(index, detections)

    add(10)
    per_frame = evaluator.num_bytes / 10
    assert per_frame <= 13 * (50 + rows)  # actions that count, and at most as many people as rows
    tracemalloc.start()
    add(40)
    grown = tracemalloc.get_traced_memory()[0] / 40
    tracemalloc.stop()
    # Nothing but these columns grows; Python's arrays grow by an eighth more than they need.
    assert grown < 1.5 * per_frame


def test_bad_options_are_errors():
    with pytest.raises(ValueError, match="no protocol 'coco'"):
        AvaDetectionEvaluator(CATEGORIES, protocol="coco")
    with pytest.raises(ValueError, match="There are 9 IoU thresholds, but must be 1 to 8"):
        AvaDetectionEvaluator(CATEGORIES, iou_thresholds=np.linspace(0.1, 0.9, 9))
    with pytest.raises(ValueError, match="max_rows_per_frame is -1"):
        AvaDetectionEvaluator(CATEGORIES, max_rows_per_frame=-1)


def test_given_boxes_and_odd_detections_are_said(caplog):
    frames = _random_frames(2)
    detections = frames[0][1]
    detections["detection_scores"] = detections["detection_scores"] * 3
    detections["detection_boxes"][0] = np.nan
    detections["detection_classes"][0] = 1
    evaluator = _add(AvaDetectionEvaluator(CATEGORIES, boxes_given=True), frames)
    with caplog.at_level(logging.INFO, "tensorflow"):
        evaluator.evaluate()
    assert "given the ground truth's boxes" in caplog.text
    known = np.isin(detections["detection_classes"], CLASS_IDS)
    outside = int((known & (detections["detection_scores"] > 1)).sum())
    assert f"{outside} detections with a score outside [0, 1]" in caplog.text
    assert "1 detection with a NaN in the box" in caplog.text
