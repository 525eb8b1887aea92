# SPDX-License-Identifier: Apache-2.0
"""AVA frame AP against the stock PascalDetectionEvaluator and against cases computed by hand."""

import collections
import csv
import heapq
import json
import subprocess
import sys

import numpy as np
import pytest

from object_detection_ext import compat  # noqa: F401  (must come before object_detection)
from object_detection_ext.ava import tables
from object_detection_ext.evaluation import ava_ap
from tests.evaluation.tie_breaking import distinct_scores

from object_detection.core import standard_fields  # isort: skip
from object_detection.utils import metrics as stock_metrics  # isort: skip
from object_detection.utils import object_detection_evaluation  # isort: skip

CLASS_IDS = (1, 3, 4, 7, 12)  # not contiguous; rows of the tests also use 2, 5, 12, 99
CATEGORIES = [{"id": class_id, "name": f"action {class_id}"} for class_id in CLASS_IDS]
LABEL_MAP = "".join(f'item {{\n  name: "action {i}"\n  id: {i}\n}}\n' for i in CLASS_IDS)


# ------------------------------------------------------------------------------------------------
# The oracle: the stock evaluator, fed in the way that the ActivityNet program feeds it.


def _frame_key(video, timestamp):
    return f"{video},{int(timestamp):04d}"


def _program_rows(path, capacity):
    """({key: rows (score, class, y1, x1, y2, x2), highest score first}, all keys)."""
    heaps, keys = {}, set()
    with open(path, newline="") as file:
        for row in csv.reader(file):
            key = _frame_key(row[0], row[1])
            keys.add(key)
            if len(row) == 2 or int(row[6]) not in CLASS_IDS:
                continue
            x1, y1, x2, y2 = (float(text) for text in row[2:6])
            score = float(row[7]) if len(row) == 8 else 1.0
            entry = (score, int(row[6]), y1, x1, y2, x2)
            heap = heaps.setdefault(key, [])
            if capacity < 1 or len(heap) < capacity:
                heapq.heappush(heap, entry)
            elif score > heap[0][0]:
                heapq.heapreplace(heap, entry)
    return {key: sorted(heap, key=lambda row: -row[0]) for key, heap in heaps.items()}, keys


def _without_equals(rows, path):
    """Rows as `_program_rows` has them, by the rule of docs/evaluation.md instead of by score.

    What the heap has kept stays, with scores that all differ: equal ones in the order of the file.
    """
    left = {key: collections.Counter(entries) for key, entries in rows.items()}
    by_file = {key: [] for key in rows}
    with open(path, newline="") as file:
        for row in csv.reader(file):
            if len(row) == 2 or int(row[6]) not in CLASS_IDS:
                continue
            x1, y1, x2, y2 = (float(text) for text in row[2:6])
            entry = (float(row[7]) if len(row) == 8 else 1.0, int(row[6]), y1, x1, y2, x2)
            key = _frame_key(row[0], row[1])
            if left[key][entry]:
                left[key][entry] -= 1
                by_file[key].append(entry)
    # Scores that the program drops must stay what they are.
    flat = [entry for entries in by_file.values() for entry in entries if entry[0] > -10]
    scores = iter(distinct_scores([entry[0] for entry in flat]))
    return {
        key: sorted(
            ((next(scores) if e[0] > -10 else e[0], *e[1:]) for e in entries), key=lambda e: -e[0]
        )
        for key, entries in by_file.items()
    }


def _program(ground_truth, detections, excluded=None, *, break_ties):
    """(mAP, AP by class id) of the stock evaluator; `break_ties` as docs/evaluation.md says."""
    evaluator = object_detection_evaluation.PascalDetectionEvaluator(CATEGORIES)
    excluded_keys = set()
    if excluded:
        with open(excluded, newline="") as file:
            excluded_keys = {_frame_key(*row) for row in csv.reader(file)}
    fields, results = standard_fields.InputDataFields, standard_fields.DetectionResultFields
    rows, listed = _program_rows(ground_truth, 0)
    for key, entries in rows.items():
        if key not in excluded_keys:
            evaluator.add_single_ground_truth_image_info(
                key,
                {
                    fields.groundtruth_boxes: np.array([e[2:] for e in entries], float),
                    fields.groundtruth_classes: np.array([e[1] for e in entries], int),
                    fields.groundtruth_difficult: np.zeros(len(entries), bool),
                },
            )
    rows, _ = _program_rows(detections, 50)
    if break_ties:
        rows = _without_equals(rows, detections)
    for key, entries in rows.items():
        if key in listed and key not in excluded_keys:
            evaluator.add_single_detected_image_info(
                key,
                {
                    results.detection_boxes: np.array([e[2:] for e in entries], float),
                    results.detection_classes: np.array([e[1] for e in entries], int),
                    results.detection_scores: np.array([e[0] for e in entries], float),
                },
            )
    with np.errstate(all="ignore"):
        found = evaluator.evaluate()
    by_class = {
        c["id"]: found[f"PascalBoxes_PerformanceByCategory/AP@0.5IOU/{c['name']}"]
        for c in CATEGORIES
    }
    return found["PascalBoxes_Precision/mAP@0.5IOU"], by_class


def _assert_as_program(result, expected):
    mean, by_class = expected
    for class_id, value in by_class.items():
        ours = result.average_precision[class_id]
        if np.isnan(value):
            assert ours is None
        else:
            assert ours == pytest.approx(value, abs=1e-12)
    assert result.mean_average_precision == pytest.approx(mean, abs=1e-12)


# ------------------------------------------------------------------------------------------------
# Random files


def _random_box(rng, grid):
    """A valid box on a grid of `grid` cells, so that boxes and overlaps are often equal."""
    y1, x1 = rng.integers(0, grid, 2)
    y2, x2 = rng.integers(y1 + 1, grid + 1), rng.integers(x1 + 1, grid + 1)
    return [v / grid for v in (x1, y1, x2, y2)]


def _frames(rng, count):
    return [(f"video{rng.integers(3)}", int(rng.integers(900, 1800))) for _ in range(count)]


def _random_ground_truth(rng, frames, grid):
    rows, person_column = [], rng.random() < 0.5
    for video, seconds in frames:
        if rng.random() < 0.2:
            rows.append([video, f"{seconds:04d}"])
        for _ in range(rng.integers(0, 7)):
            class_id = rng.choice([1, 3, 3, 3, 5, 7, 7, 99])  # 4 and 12 have no ground truth
            row = [video, f"{seconds:04d}", *_random_box(rng, grid), class_id]
            rows.append([*row, rng.integers(4)] if person_column else row)
    rng.shuffle(rows)
    return rows


def _random_detections(rng, frames, boxes, grid, equal_scores):
    rows = []
    for video, seconds in frames:
        for _ in range(rng.choice([0, 1, 5, 40, 90])):
            box = boxes[rng.integers(len(boxes))] if rng.random() < 0.5 else _random_box(rng, grid)
            box = list(box)
            if rng.random() < 0.05:
                box[2] = box[0]
            elif rng.random() < 0.05:
                box[1], box[3] = box[3], box[1]
            elif rng.random() < 0.05:
                box = [value * 1.5 - 0.2 for value in box]
            score = rng.choice([rng.integers(0, 5) / 4, rng.random(), -10.0, -9.5, 1e-9])
            if not equal_scores:
                score = rng.choice([rng.random(), -10.0 - rng.random()])
            class_id = rng.choice([1, 2, 3, 3, 4, 5, 7, 12, 99])
            time = rng.choice([f"{seconds:04d}", str(seconds)])
            rows.append([video, time, *box, class_id, score])
    if rng.random() < 0.8:
        rng.shuffle(rows)
    return rows


def _write(path, rows):
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([[str(value) for value in row] for row in rows])
    return str(path)


class _RandomFiles:
    """Paths of random files, the rows of the detections, and our result."""

    def __init__(self, folder, seed, equal_scores):
        rng = np.random.default_rng(seed)
        grid = int(rng.choice([2, 3, 4, 16]))
        frames = _frames(rng, int(rng.integers(1, 30)))
        ground_truth = _random_ground_truth(rng, frames, grid)
        ground_truth.append([*frames[0], *_random_box(rng, grid), 3])
        boxes = [row[2:6] for row in ground_truth if len(row) > 2]
        self.rows = _random_detections(rng, frames + _frames(rng, 5), boxes, grid, equal_scores)
        excluded = frames[2:4] if seed % 2 and len(frames) > 3 else None
        self.paths = [
            _write(folder / "g.csv", ground_truth),
            _write(folder / "d.csv", self.rows),
            _write(folder / "e.csv", excluded) if excluded else None,
        ]
        (folder / "l.pbtxt").write_text(LABEL_MAP)
        # Some detections are far outside the frame; the program does not mind.
        self.result = ava_ap.evaluate_files(
            str(folder / "l.pbtxt"), *self.paths, box_tolerance=None
        )


@pytest.mark.parametrize("seed", range(20))
def test_random_files_without_equal_scores_agree_with_the_program(tmp_path, seed):
    """Equal boxes and overlaps there are. Nothing but equal scores is decided by a sort."""
    files = _RandomFiles(tmp_path, seed, equal_scores=False)
    _assert_as_program(files.result, _program(*files.paths, break_ties=False))
    assert not files.result.tie_span.is_wide
    assert "equal scores:" not in ava_ap.format_result(files.result)


@pytest.mark.parametrize("seed", range(40))
def test_random_files_with_many_equals_agree_with_the_program_told_their_order(tmp_path, seed):
    files = _RandomFiles(tmp_path, seed, equal_scores=True)
    _assert_as_program(files.result, _program(*files.paths, break_ties=True))
    _assert_counts_add_up(files.result, files.rows)


@pytest.mark.parametrize("is_left_first", [True, False])
def test_of_two_boxes_with_equal_overlap_a_detection_meets_the_one_the_program_takes(
    tmp_path, is_left_first
):
    """Its heap has the left half first, wherever it stands in the file; the detection is both."""
    halves = [["v", 902, 0, 0, 0.5, 1, 1], ["v", 902, 0.5, 0, 1, 1, 1]]
    ground_truth = halves if is_left_first else halves[::-1]
    detections = [["v", 902, 0, 0, 1, 1, 1, 0.9], ["v", 902, 0, 0, 0.5, 1, 1, 0.8]]
    paths = [_write(tmp_path / "g.csv", ground_truth), _write(tmp_path / "d.csv", detections)]
    result = ava_ap.evaluate(*map(tables.read_csv, paths), CATEGORIES)
    assert result.average_precision[1] == 0.5
    _assert_as_program(result, _program(*paths, break_ties=False))


def _sort_at_random(rng):
    """An `np.argsort` that is as free with equals as that of a CPU nobody has seen yet."""

    def argsort(values, *_, **__):
        values = np.asarray(values)
        return np.lexsort((rng.random(len(values)), values))

    return argsort


@pytest.mark.parametrize("seed", range(12))
def test_no_order_of_equals_takes_the_program_out_of_the_span(tmp_path, seed, monkeypatch):
    files = _RandomFiles(tmp_path, seed, equal_scores=True)
    spans = {entry.id: entry.tie_span for entry in files.result.classes}
    monkeypatch.setattr(np, "argsort", _sort_at_random(np.random.default_rng(seed)))
    for _ in range(3):
        mean, by_class = _program(*files.paths, break_ties=False)
        for class_id, value in by_class.items():
            if spans[class_id] is None:
                assert np.isnan(value)
            else:
                assert spans[class_id].worst - 1e-12 <= value <= spans[class_id].best + 1e-12
        span = files.result.tie_span
        assert span.worst - 1e-12 <= mean <= span.best + 1e-12


def _assert_counts_add_up(result, detections):
    counts = result.counts
    assert len(detections) == (
        counts.detection_rows_used
        + counts.detection_rows_not_in_label_map
        + counts.detection_rows_on_unlisted_frames
        + counts.detection_rows_on_excluded_frames
        + counts.detection_rows_dropped_by_cap
        + counts.detection_rows_with_invalid_box
        + counts.detection_rows_on_frames_without_boxes
        + counts.detection_rows_with_score_up_to_floor
    )
    assert sum(entry.detections for entry in result.classes) == counts.detection_rows_used
    assert sum(entry.ground_truth for entry in result.classes) == counts.ground_truth_rows


@pytest.mark.parametrize("count", [1, 2, 7, 500])
def test_average_precision_is_the_stock_one(count):
    rng = np.random.default_rng(count)
    labels = rng.random(count) < 0.3
    scores = np.linspace(1, 0, count)
    num_ground_truth = int(labels.sum()) + 2
    precision, recall = stock_metrics.compute_precision_recall(scores, labels, num_ground_truth)
    expected = stock_metrics.compute_average_precision(precision, recall)
    assert ava_ap.average_precision(labels, num_ground_truth) == pytest.approx(expected, abs=1e-14)


# ------------------------------------------------------------------------------------------------
# Cases by hand


def _evaluate(tmp_path, ground_truth, detections, **options):
    return ava_ap.evaluate(
        tables.read_csv(_write(tmp_path / "g.csv", ground_truth)),
        tables.read_csv(_write(tmp_path / "d.csv", detections), box_tolerance=None),
        CATEGORIES,
        **options,
    )


LEFT, RIGHT = (0.0, 0.0, 0.4, 1.0), (0.6, 0.0, 1.0, 1.0)


def test_average_precision_by_hand(tmp_path):
    ground_truth = [["v", "0902", *LEFT, 1], ["v", "0903", *RIGHT, 1], ["v", "0903", *LEFT, 3]]
    detections = [
        ["v", "902", *LEFT, 1, 0.9],  # right
        ["v", "902", *LEFT, 1, 0.8],  # the same box again: wrong
        ["v", "903", *RIGHT, 1, 0.7],  # right
        ["v", "904", *RIGHT, 1, 0.95],  # the ground truth does not list 904
        ["v", "903", *RIGHT, 4, 0.95],  # class 4 has no ground truth
    ]
    result = _evaluate(tmp_path, ground_truth, detections)
    # Class 1: recall 1/2 at precision 1, then 1 at precision 2/3.
    assert result.average_precision[1] == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    assert result.average_precision[3] == 0.0
    assert result.mean_average_precision == pytest.approx((5 / 6) / 2)
    assert result.classes_without_ground_truth == (4, 7, 12)
    assert result.counts.frames == 2
    assert result.counts.frames_with_ground_truth == 2
    assert result.counts.detection_rows_used == 4
    assert result.counts.detection_rows_on_unlisted_frames == 1


def test_overlap_of_just_one_half_counts_and_less_does_not(tmp_path):
    ground_truth = [["v", "1", 0, 0, 1, 1, 1], ["v", "2", 0, 0, 1, 1, 1]]
    just = _evaluate(tmp_path, ground_truth, [["v", "1", 0, 0, 0.5, 1, 1, 0.5]])
    less = _evaluate(tmp_path, ground_truth, [["v", "1", 0, 0, 0.4999, 1, 1, 0.5]])
    assert (just.average_precision[1], less.average_precision[1]) == (0.5, 0.0)


def test_a_listed_frame_without_boxes_makes_its_detections_wrong(tmp_path):
    ground_truth, detections = [["v", "1", *LEFT, 1]], [["v", "1", *LEFT, 1, 0.5]]
    wrong = ["v", "2", *LEFT, 1, 0.9]
    assert _evaluate(tmp_path, ground_truth, [*detections, wrong]).average_precision[1] == 1.0
    listed = _evaluate(tmp_path, [*ground_truth, ["v", "2"]], [*detections, wrong])
    assert listed.average_precision[1] == 0.5
    assert (listed.counts.frames, listed.counts.frames_with_ground_truth) == (2, 1)


def test_only_fifty_rows_of_a_frame_count_and_unknown_classes_take_no_place(tmp_path):
    ground_truth = [["v", "1", *LEFT, 1]]
    right = ["v", "1", *LEFT, 1, 0.1]
    higher = [["v", "1", *RIGHT, 3, 0.5]] * 49
    unknown = [["v", "1", *RIGHT, 99, 0.9]] * 200
    kept = _evaluate(tmp_path, ground_truth, [*unknown, right, *higher])
    assert kept.average_precision[1] == 1.0
    assert kept.counts.detection_rows_not_in_label_map == 200
    assert kept.counts.detection_rows_dropped_by_cap == 0
    dropped = _evaluate(tmp_path, ground_truth, [right, *higher, higher[0]])
    assert dropped.average_precision[1] == 0.0
    assert dropped.counts.detection_rows_dropped_by_cap == 1
    no_cap = _evaluate(tmp_path, ground_truth, [right, *higher, higher[0]], max_rows_per_frame=0)
    assert no_cap.average_precision[1] == 1.0


def test_excluded_frames_count_nowhere(tmp_path):
    ground_truth = [["v", "0001", *LEFT, 1], ["v", "0002", *LEFT, 1]]
    detections = [["v", "1", *LEFT, 1, 0.5]]
    result = _evaluate(tmp_path, ground_truth, detections, excluded=frozenset({("v", 2)}))
    assert result.mean_average_precision == 1.0
    assert result.counts.frames_excluded == result.counts.ground_truth_rows_excluded == 1


def test_timestamps_that_are_not_whole_seconds_are_frames_of_their_own(tmp_path):
    ground_truth = [["v", "1.0", *LEFT, 1], ["v", "1.5", *RIGHT, 1]]
    detections = [["v", "0001", *LEFT, 1, 0.5], ["v", "1.500", *RIGHT, 1, 0.5]]
    result = _evaluate(tmp_path, ground_truth, detections)
    assert result.counts.frames == 2
    assert result.mean_average_precision == 1.0


# ------------------------------------------------------------------------------------------------
# Bad input


def test_no_detections_give_zero_and_a_warning(tmp_path):
    result = _evaluate(tmp_path, [["v", "1", *LEFT, 1]], [])
    assert result.mean_average_precision == 0.0
    assert any("no detections" in warning for warning in result.warnings)


def test_no_class_with_ground_truth_is_said_and_never_nan(tmp_path):
    result = _evaluate(tmp_path, [["v", "1", *LEFT, 99]], [["v", "1", *LEFT, 1, 0.5]])
    assert result.mean_average_precision is None
    assert set(result.average_precision.values()) == {None}
    assert any(ava_ap.NO_GROUND_TRUTH in warning for warning in result.warnings)
    assert "none, no class has ground truth" in ava_ap.format_result(result)
    with pytest.raises(ValueError, match="g.csv: the ground truth is empty"):
        _evaluate(tmp_path, [], [["v", "1", *LEFT, 1, 0.5]])


def test_a_reversed_ground_truth_box_is_an_error_and_a_flat_one_a_warning(tmp_path):
    good = ["v", "1", *LEFT, 1]
    with pytest.raises(ValueError, match=r"g\.csv, line 2: box x1=0\.5, y1=0, x2=0\.4, y2=1"):
        _evaluate(tmp_path, [good, ["v", "1", 0.5, 0, 0.4, 1, 1]], [])
    result = _evaluate(tmp_path, [good, ["v", "1", 0.4, 0, 0.4, 1, 1]], [[*good, 0.5]])
    assert result.average_precision[1] == 0.5
    assert any("no area" in w and "line 2" in w for w in result.warnings)


def test_accepted_but_odd_input_is_warned_of(tmp_path):
    good = ["v", "1", *LEFT, 1]
    pixels = ["v", "1", 0, 0, 640, 480, 1, 0.9]
    logit = ["v", "1", *LEFT, 1, -12.5]
    flat = ["v", "1", 0.1, 0, 0.1, 1, 1, 0.5]
    unknown = ["v", "1", *LEFT, 99, 0.5]
    text = " | ".join(_evaluate(tmp_path, [good], [pixels, logit, flat, unknown, good]).warnings)
    for part in ("look like pixels", "score <= -10", "x1 >= x2", "not in the label map"):
        assert part in text
    assert "1 of 5 rows has no score" in text
    other = _evaluate(tmp_path, [good], [["w", "77", *LEFT, 1, 0.5]])
    assert any("'w' at 77 s" in warning for warning in other.warnings)


@pytest.mark.parametrize(
    ("iou_threshold", "max_rows", "categories", "message"),
    [
        (0.0, 50, CATEGORIES, "iou_threshold is 0.0"),
        (1.1, 50, CATEGORIES, "iou_threshold is 1.1"),
        (0.5, -1, CATEGORIES, "max_rows_per_frame is -1"),
        (0.5, 50, [], "no classes"),
        (0.5, 50, [{"id": 0, "name": "a"}], "must be 1 or more"),
        (0.5, 50, CATEGORIES + CATEGORIES[:1], r"repeats \[1\]"),
    ],
)
def test_rules_out_of_range_are_errors(tmp_path, iou_threshold, max_rows, categories, message):
    rows = tables.read_csv(_write(tmp_path / "g.csv", [["v", "1", *LEFT, 1]]))
    with pytest.raises(ValueError, match=message):
        ava_ap.evaluate(rows, rows, categories, iou_threshold, max_rows)


# ------------------------------------------------------------------------------------------------
# Command line


def _arguments(tmp_path, ground_truth, detections):
    (tmp_path / "l.pbtxt").write_text(LABEL_MAP)
    return [
        f"--labelmap={tmp_path / 'l.pbtxt'}",
        f"--groundtruth={_write(tmp_path / 'g.csv', ground_truth)}",
        f"--detections={_write(tmp_path / 'd.csv', detections)}",
    ]


def test_command_prints_json_only_and_does_not_need_tensorflow(tmp_path):
    arguments = _arguments(tmp_path, [["v", "1", *LEFT, 1]], [["v", "1", *LEFT, 1, 0.5]])
    code = (
        "import runpy, sys\n"
        "sys.modules['tensorflow'] = None\n"
        f"sys.argv = ['ava_ap', '--json'] + {arguments!r}\n"
        "runpy.run_module('object_detection_ext.evaluation.ava_ap', run_name='__main__')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    result = json.loads(done.stdout)
    assert result["mAP"] == 1.0
    assert result["per_class"]["action 1"] == 1.0
    assert result["per_class"]["action 3"] is None
    assert result["counts"]["detection_rows_used"] == 1


def test_command_prints_rules_table_and_map(tmp_path, capsys):
    arguments = _arguments(tmp_path, [["v", "1", *LEFT, 1]], [["v", "1", *LEFT, 1, 0.5]])
    assert ava_ap.main(arguments) == 0
    printed = capsys.readouterr().out
    for part in ("at most the 50", "action 12", "mAP@0.5IOU: 1.000000 over 1 of 5 classes"):
        assert part in printed


def test_command_names_the_fault_and_fails(tmp_path, capsys):
    arguments = _arguments(tmp_path, [["v", "1", *LEFT, 1]], [["v", "1", *LEFT, 1, "nan"]])
    assert ava_ap.main([*arguments, "--json"]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "d.csv:1: score is 'nan'" in printed.err
    assert ava_ap.main([*arguments[:2], "--detections=none.csv"]) == 2
    assert "none.csv" in capsys.readouterr().err


def test_command_without_ground_truth_prints_null_and_fails(tmp_path, capsys):
    arguments = _arguments(tmp_path, [["v", "1"]], [["v", "1", *LEFT, 1, 0.5]])
    assert ava_ap.main([*arguments, "--json"]) == 1
    printed = capsys.readouterr()
    assert json.loads(printed.out)["mAP"] is None
    assert ava_ap.NO_GROUND_TRUTH in printed.err


def test_groups_are_means_over_their_classes_with_ground_truth(tmp_path, capsys):
    """Of three groups one has two classes with ground truth, one has one of two, one has none."""
    types = {1: "POSE", 3: "POSE", 4: "OBJECT", 7: "OBJECT", 12: "PERSON", 99: "OTHER"}
    (tmp_path / "t.pbtxt").write_text(
        "".join(f'label {{ name: "" label_id: {i} label_type: {t} }}\n' for i, t in types.items())
    )
    ground_truth = [["v", "1", *LEFT, class_id] for class_id in (1, 3, 7)]
    detections = [["v", "1", *LEFT, 1, 0.5], ["v", "1", *RIGHT, 7, 0.9], ["v", "1", *LEFT, 7, 0.5]]
    arguments = _arguments(tmp_path, ground_truth, detections)
    flags = [f"--label_types={tmp_path / 't.pbtxt'}"]
    assert ava_ap.main([*arguments, *flags, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["per_group"] == {
        "POSE": 0.5,
        "OBJECT": 0.5,
        "PERSON": None,
    }
    ava_ap.main([*arguments, *flags])
    printed = capsys.readouterr().out
    assert "POSE mAP@0.5IOU: 0.500000 over 2 of 2 classes" in printed
    assert "OBJECT mAP@0.5IOU: 0.500000 over 1 of 2 classes" in printed
    assert "PERSON mAP@0.5IOU: - over 0 of 1 class" in printed
    # The label map of the arguments has no types: no groups; as --label_types, an error.
    ava_ap.main(arguments)
    assert "POSE" not in capsys.readouterr().out
    assert ava_ap.main([*arguments, f"--label_types={tmp_path / 'l.pbtxt'}"]) == 2
    assert "l.pbtxt: no class has a label_type" in capsys.readouterr().err
