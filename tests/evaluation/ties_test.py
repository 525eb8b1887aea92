# SPDX-License-Identifier: Apache-2.0
"""Equal scores: one order on every CPU, and how far another order would move the figures."""

import csv
import itertools
import json
import os
import subprocess
import sys

import numpy as np
import pytest
from numpy._core import _multiarray_umath

from object_detection_ext.ava import tables
from object_detection_ext.evaluation import ava_ap, breakdowns, frame_ap, protocols

CLASS_IDS = (1, 3, 7)
CATEGORIES = [{"id": class_id, "name": f"action {class_id}"} for class_id in CLASS_IDS]
LABEL_MAP = "".join(f'item {{ name: "action {i}" id: {i} }}\n' for i in CLASS_IDS)
LEFT, RIGHT = (0.0, 0.0, 0.4, 1.0), (0.6, 0.0, 1.0, 1.0)


def _write(path, rows):
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows(rows)
    return str(path)


def _rows(tmp_path, ground_truth, detections):
    return (
        tables.read_csv(_write(tmp_path / "g.csv", ground_truth)),
        tables.read_csv(_write(tmp_path / "d.csv", detections)),
    )


# ------------------------------------------------------------------------------------------------
# One order on every CPU


@pytest.fixture(scope="module")
def files_with_ties(tmp_path_factory):
    """Arguments of the command line: 60 frames with 80 rows each, of 20 scores."""
    folder = tmp_path_factory.mktemp("ties")
    rng = np.random.default_rng(0)
    ground_truth, detections = [], []
    for second in range(902, 962):
        for _ in range(5):
            low = rng.integers(0, 4, 2) / 8
            box = [*low, *(low + rng.integers(2, 5, 2) / 8)]
            ground_truth.append(["v", second, *box, rng.choice(CLASS_IDS)])
        for _ in range(80):
            box = ground_truth[-1 - rng.integers(5)][2:6]
            box = np.clip(np.array(box) + rng.integers(-1, 2, 4) / 16, 0, 1).round(4)
            detections.append(["v", second, *box, rng.choice(CLASS_IDS), rng.integers(20) / 20])
    (folder / "l.pbtxt").write_text(LABEL_MAP)
    return [
        *("-l", str(folder / "l.pbtxt")),
        *("-g", _write(folder / "g.csv", ground_truth)),
        *("-d", _write(folder / "d.csv", detections)),
        *("--iou_threshold", "0.3,0.5", "--localization", "--json"),
    ]


# What NumPy would choose by this CPU.
CPU_FEATURES = [
    name
    for name in _multiarray_umath.__cpu_dispatch__
    if _multiarray_umath.__cpu_features__.get(name)
]
# Prints how NumPy's default sort leaves equals, then what the command line prints.
_PROGRAM = """
import sys
import numpy as np
from object_detection_ext.evaluation import ava_ap, breakdowns
print(np.argsort(np.arange(3000) % 7).tolist())
for name in ("activitynet", "pyslowfast", "mmaction2"):
    assert ava_ap.main([*sys.argv[1:], "--protocol", name]) == 0
"""


def _evaluate_on_cpu(arguments, disabled):
    environment = {**os.environ, "NPY_DISABLE_CPU_FEATURES": " ".join(disabled)}
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, *arguments],
        capture_output=True, text=True, env=environment, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.split("\n", 1)


def test_every_digit_is_the_same_on_a_cpu_without_this_ones_features(files_with_ties):
    """Real processes, as NumPy chooses its sorts when it is imported."""
    with_all, figures = _evaluate_on_cpu(files_with_ties, [])
    without, plain_figures = _evaluate_on_cpu(files_with_ties, CPU_FEATURES)
    if not {"AVX2", "AVX512_SKX"} & set(CPU_FEATURES):
        pytest.skip("this CPU has none of the features that NumPy sorts differently with")
    assert with_all != without  # or nothing is tested
    assert figures == plain_figures
    assert figures.count('"mAP"') == 6


# ------------------------------------------------------------------------------------------------
# The order


# By hand: precision where recall is 1/2 and 1. Right ones alone: 1 and 1.
@pytest.mark.parametrize("protocol", protocols.PROTOCOLS.values(), ids=lambda p: p.name)
def test_equals_come_by_frame_and_then_as_in_the_file(tmp_path, protocol):
    ground_truth = [["v", 1, *LEFT, 1], ["v", 2, *LEFT, 1]]
    one, two = ["v", 1, *LEFT, 1, 0.5], ["v", 2, *LEFT, 1, 0.5]
    wrong_one, wrong_two = ["v", 1, *RIGHT, 1, 0.5], ["v", 2, *RIGHT, 1, 0.5]

    def ap(*detections):
        rows = _rows(tmp_path, ground_truth, detections)
        return ava_ap.evaluate(*rows, CATEGORIES, protocol=protocol).average_precision[1]

    assert ap(one, wrong_one, two, wrong_two) == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    # Rows of a frame stay together; the frame that appears first comes first.
    assert ap(one, two, wrong_one, wrong_two) == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    assert ap(two, wrong_one, one, wrong_two) == pytest.approx(0.5 * 1 + 0.5 * 2 / 4)
    assert ap(wrong_one, one, wrong_two, two) == pytest.approx(0.5)


@pytest.mark.parametrize("protocol", protocols.PROTOCOLS.values(), ids=lambda p: p.name)
def test_the_first_of_equals_claims_the_box(tmp_path, protocol):
    """The wrong one is 2/3 of the box; both overlap it enough."""
    short = (0.0, 0.0, 0.4, 2 / 3)
    ground_truth = [["v", 1, *LEFT, 1]]
    detections = [["v", 1, *short, 1, 0.5], ["v", 1, *LEFT, 1, 0.5]]
    for rows in (detections, detections[::-1]):
        selected = ava_ap.select(
            *_rows(tmp_path, ground_truth, rows), CATEGORIES, protocol=protocol
        )
        matches = ava_ap.match_class(selected.ground_truth, selected.detections, 0.5)
        assert matches.right.tolist() == [True, False]
        x1, y1, x2, y2 = rows[0][2:6]
        np.testing.assert_allclose(matches.detections.boxes[0], [y1, x1, y2, x2])


# ------------------------------------------------------------------------------------------------
# The span


def _curve(labels, num_ground_truth):
    """AP of PASCAL VOC 2010, written plainly: at each true positive the best precision from it."""
    precision = [sum(labels[: place + 1]) / (place + 1) for place in range(len(labels))]
    places = [place for place, label in enumerate(labels) if label]
    return sum(max(precision[place:]) for place in places) / num_ground_truth


def _all_figures(scores, boxes, num_ground_truth):
    """AP with every order in which equals may claim boxes, times every order on the curve."""
    rows = range(len(scores))
    orders = [
        order
        for order in itertools.permutations(rows)
        if all(scores[a] >= scores[b] for a, b in itertools.pairwise(order))
    ]
    labellings = set()
    for order in orders:
        taken, right = set(), [False] * len(scores)
        for row in order:
            right[row] = boxes[row] is not None and boxes[row] not in taken
            taken.add(boxes[row])
        labellings.add(tuple(right))
    return [
        _curve([right[row] for row in order], num_ground_truth)
        for right in labellings
        for order in orders
    ]


@pytest.mark.parametrize("seed", range(12))
def test_the_span_is_that_of_all_orders(seed):
    """Six detections of two or three scores; each claims one of three boxes, or none."""
    rng = np.random.default_rng(seed)
    scores = np.sort(rng.integers(0, 2 + seed % 2, 6))[::-1] / 4
    boxes = [None if box == 3 else int(box) for box in rng.integers(0, 4, 6)]
    boxes[0] = 0
    figures = _all_figures(scores.tolist(), boxes, num_ground_truth=4)

    claimed = np.array([-1 if box is None else box for box in boxes])
    right = frame_ap.first_claims(claimed, np.where(claimed < 0, 0.0, 1.0), 0.5)
    span = frame_ap.tie_span(scores, right, 4)

    assert span.worst == pytest.approx(min(figures), abs=1e-12)
    assert span.best == pytest.approx(max(figures), abs=1e-12)


def test_the_printed_figure_has_its_span(tmp_path, capsys):
    """Class 1 is 1 or 1/2 by the order of its two, class 3 is 1 in any case: mAP 0.75 to 1."""
    ground_truth = [["v", 1, *LEFT, 1], ["v", 1, *LEFT, 3]]
    detections = [["v", 1, *LEFT, 1, 0.5], ["v", 1, *RIGHT, 1, 0.5], ["v", 1, *LEFT, 3, 0.5]]
    (tmp_path / "l.pbtxt").write_text(LABEL_MAP)
    arguments = [
        *("-l", str(tmp_path / "l.pbtxt")),
        *("-g", _write(tmp_path / "g.csv", ground_truth)),
        *("-d", _write(tmp_path / "d.csv", detections)),
    ]
    assert ava_ap.main([*arguments, "--localization"]) == 0
    printed = capsys.readouterr().out
    assert (
        "mAP@0.5IOU: 1.000000 over 2 of 3 classes; equal scores: 0.750000 to 1.000000, by their "
        "order"
    ) in printed
    assert "1 right); equal scores: 0.500000 to 1.000000, by their order" in printed
    (of_class,) = (line for line in printed.splitlines() if "  action 1 " in line)
    assert of_class.endswith("  0.500000 to 1.000000")
    ava_ap.main([*arguments, "--json"])
    document = json.loads(capsys.readouterr().out)
    assert document["mAP_of_equals"] == {"worst": 0.75, "best": 1.0}
    assert document["classes"][0]["tie_span"] == {"worst": 0.5, "best": 1.0}
    assert document["classes"][2]["tie_span"] is None
    breakdowns.main(arguments)
    assert "equal scores: mAP@0.5IOU is 0.750000 to 1.000000" in capsys.readouterr().out


def test_nothing_is_said_of_equals_that_do_not_matter(tmp_path, capsys):
    """Two right ones of one score, and a wrong one alone with its own."""
    ground_truth = [["v", 1, *LEFT, 1], ["v", 1, *RIGHT, 1]]
    detections = [["v", 1, *LEFT, 1, 0.5], ["v", 1, *RIGHT, 1, 0.5], ["v", 1, *RIGHT, 1, 0.4]]
    (tmp_path / "l.pbtxt").write_text(LABEL_MAP)
    arguments = [
        *("-l", str(tmp_path / "l.pbtxt")),
        *("-g", _write(tmp_path / "g.csv", ground_truth)),
        *("-d", _write(tmp_path / "d.csv", detections)),
    ]
    assert ava_ap.main(arguments) == 0
    breakdowns.main(arguments)
    printed = capsys.readouterr().out
    assert "equal scores:" not in printed
    assert "by the order of equals" not in printed
