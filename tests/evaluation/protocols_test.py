# SPDX-License-Identifier: Apache-2.0
"""The protocols against a plain reading of the programs, and against the example in the docs."""

import collections
import pathlib
import re

import numpy as np
import pytest

from object_detection_ext import compat, errors  # noqa: F401  (before object_detection)
from object_detection_ext.ava import tables
from object_detection_ext.evaluation import ava_ap, protocols
from tests.evaluation.tie_breaking import distinct_scores

from object_detection.utils import metrics as stock_metrics  # isort: skip
from object_detection.utils import np_box_ops  # isort: skip

DOCS = pathlib.Path(__file__).resolve().parents[2] / "docs" / "evaluation.md"
CLASS_IDS = (1, 3, 7)
CATEGORIES = [{"id": class_id, "name": f"action {class_id}"} for class_id in CLASS_IDS]


# ------------------------------------------------------------------------------------------------
# The oracle: loops over rows, with the stock overlap and the stock curve.


def _read_rows(rows):
    """{(video, seconds): rows (box, class, score)} of the classes in the map, in file order."""
    frames = collections.defaultdict(list)
    for video, seconds, *rest in rows:
        if rest and rest[4] in CLASS_IDS:
            x1, y1, x2, y2, class_id, *score = rest
            frames[video, seconds].append(((y1, x1, y2, x2), class_id, score[0] if score else 1.0))
    return frames


def _claims(gt_boxes, boxes):
    """Which boxes are right, one after the other."""
    taken, right = set(), []
    for box in boxes:
        overlap = np_box_ops.iou(np.array([box]), np.array(gt_boxes))[0] if gt_boxes else [0.0]
        best = int(np.argmax(overlap))
        right.append(overlap[best] >= 0.5 and best not in taken)
        if right[-1]:
            taken.add(best)
    return right


def _oracle(ground_truth, detections, excluded, *, by_score, only_labelled):
    gt, found = _read_rows(ground_truth), _read_rows(detections)
    labelled = {row[:2] for row in map(tuple, ground_truth) if len(row) > 2}
    result, by_any_order = {}, {}
    for class_id in CLASS_IDS:
        scores, labels, count = [], [], 0
        for frame, rows in gt.items():
            count += frame not in excluded and sum(row[1] == class_id for row in rows)
        for frame, rows in found.items():
            if frame in excluded or (only_labelled and frame not in labelled):
                continue
            rows = sorted(rows, key=lambda row: -row[2]) if by_score else rows
            rows = [r for r in rows if r[0][0] < r[0][2] and r[0][1] < r[0][3]]
            own = [row for row in rows if row[1] == class_id]
            gt_rows = gt.get(frame, [])
            gt_rows = sorted(gt_rows, key=lambda row: -row[2]) if by_score else gt_rows
            gt_boxes = [row[0] for row in gt_rows if row[1] == class_id]
            labels += _claims(gt_boxes, [row[0] for row in own])
            scores += [row[2] for row in own]
        # The stock function sorts equals in any order; given an order, it keeps it.
        for scores_of, ap_of in ((distinct_scores, result), (np.array, by_any_order)):
            curve = stock_metrics.compute_precision_recall(
                scores_of(scores).astype(float), np.array(labels, bool), count
            )
            ap_of[class_id] = stock_metrics.compute_average_precision(*curve)
    return result, by_any_order


def _random_rows(rng, frames, most, scored):
    rows = []
    for video, seconds in frames:
        for _ in range(rng.integers(0, most)):
            y1, x1 = rng.integers(0, 3, 2)
            y2, x2 = y1 + rng.integers(0 if scored else 1, 3), x1 + rng.integers(1, 3)
            box = [value / 4 for value in (x1, y1, x2, y2)]
            score = [float(rng.choice([rng.integers(0, 5) / 4, rng.random(), -11.0]))]
            class_id = int(rng.choice([1, 3, 5, 7]))
            rows.append([video, seconds, *box, class_id, *(score if scored else [])])
        if not scored and rng.random() < 0.3:
            rows.append([video, seconds])
    return [rows[index] for index in rng.permutation(len(rows))]


def _write(path, rows):
    path.write_text("".join(",".join(map(str, row)) + "\n" for row in rows))
    return tables.read_csv(str(path))


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize(
    ("protocol", "rules"),
    [
        (protocols.PYSLOWFAST, {"by_score": False, "only_labelled": False}),
        (protocols.MMACTION2, {"by_score": True, "only_labelled": True}),
    ],
    ids=["pyslowfast", "mmaction2"],
)
def test_random_files_with_many_equals_agree_with_a_plain_reading(tmp_path, seed, protocol, rules):
    rng = np.random.default_rng(seed)
    frames = [(f"v{rng.integers(3)}", int(rng.integers(900, 960))) for _ in range(14)]
    frames = list(dict.fromkeys(frames))
    ground_truth = _random_rows(rng, frames[:10], 6, scored=False)
    detections = _random_rows(rng, frames[1:], 70, scored=True)
    excluded = frozenset(frames[4:6] + frames[-1:])

    result = ava_ap.evaluate(
        _write(tmp_path / "g.csv", ground_truth),
        _write(tmp_path / "d.csv", detections),
        CATEGORIES,
        excluded=excluded,
        protocol=protocol,
    )

    expected, by_any_order = _oracle(ground_truth, detections, excluded, **rules)
    assert any(0 < value < 1 for value in expected.values())
    for class_id, value in expected.items():
        ours = result.average_precision[class_id]
        assert ours is None if np.isnan(value) else ours == pytest.approx(value, abs=1e-12)
    for entry in result.classes:
        if entry.tie_span is not None:
            value = by_any_order[entry.id]
            assert entry.tie_span.worst - 1e-12 <= value <= entry.tie_span.best + 1e-12
    _assert_counts_add_up(result, ground_truth, detections)


def _assert_counts_add_up(result, ground_truth, detections):
    counts = result.counts
    rows = [value for name, value in vars(counts).items() if name.startswith("detection_rows")]
    assert sum(rows) == len(detections)
    frames = {tuple(row[:2]) for row in ground_truth + detections}
    assert counts.frames + counts.frames_skipped == len(frames)


# ------------------------------------------------------------------------------------------------
# The worked example


def _docs_block(name):
    """The fenced block of docs/evaluation.md that follows `name`."""
    found = re.search(rf"`{re.escape(name)}`:\n\n```\w*\n(.*?)```", DOCS.read_text(), re.S)
    assert found, name
    return found[1]


@pytest.fixture
def example(tmp_path):
    """Paths of the example's files, copied out of the docs."""
    for name in ("label_map.pbtxt", "ground_truth.csv", "detections.csv"):
        (tmp_path / name).write_text(_docs_block(name))
    return [str(tmp_path / n) for n in ("label_map.pbtxt", "ground_truth.csv", "detections.csv")]


# By hand, in docs/evaluation.md.
@pytest.mark.parametrize(
    ("name", "expected", "frames", "skipped"),
    [("activitynet", 2 / 3, 3, 1), ("pyslowfast", 2 / 5, 4, 0), ("mmaction2", 1.0, 2, 2)],
)
def test_the_docs_example(example, name, expected, frames, skipped):
    result = ava_ap.evaluate_files(*example, protocol=protocols.by_name(name))
    assert result.mean_average_precision == pytest.approx(expected, abs=1e-12)
    assert (result.counts.frames, result.counts.frames_skipped) == (frames, skipped)
    row = re.search(rf"^\| `{name}` \|.*\| ([\d.]+) \|$", DOCS.read_text(), re.M)
    assert float(row[1]) == pytest.approx(expected, abs=5e-5)


def test_the_docs_example_on_the_command_line(example, capsys):
    labelmap, ground_truth, detections = example
    arguments = ["-l", labelmap, "-g", ground_truth, "-d", detections]
    flags = ["--protocol", "pyslowfast", "--localization", "--iou_threshold", "0.5,0.75"]
    assert ava_ap.main([*arguments, *flags]) == 0
    printed = capsys.readouterr().out
    assert "protocol pyslowfast: PySlowFast" in printed
    quoted = _docs_block("--protocol pyslowfast --localization")
    for line in quoted.strip().splitlines():
        assert line in printed


def test_the_docs_example_of_equal_scores(example, tmp_path, capsys):
    labelmap, ground_truth, _ = example
    detections = tmp_path / "tied_detections.csv"
    detections.write_text(_docs_block(detections.name))
    assert ava_ap.main(["-l", labelmap, "-g", ground_truth, "-d", str(detections)]) == 0
    assert _docs_block("--protocol activitynet").strip() in capsys.readouterr().out


# ------------------------------------------------------------------------------------------------
# By hand


def _evaluate(tmp_path, ground_truth, detections, **options):
    return ava_ap.evaluate(
        _write(tmp_path / "g.csv", ground_truth),
        _write(tmp_path / "d.csv", detections),
        CATEGORIES,
        **options,
    )


BOX = [0.0, 0.0, 0.5, 1.0]
OTHER = [0.5, 0.0, 1.0, 1.0]


@pytest.mark.parametrize(
    ("name", "expected"), [("activitynet", 0.0), ("pyslowfast", 1.0), ("mmaction2", 1.0)]
)
def test_only_activitynet_caps_the_rows_of_a_frame(tmp_path, name, expected):
    higher = [["v", 1, *OTHER, 3, 0.9]] * 50
    result = _evaluate(
        tmp_path,
        [["v", 1, *BOX, 1]],
        [["v", 1, *BOX, 1, 0.1], *higher],
        protocol=protocols.by_name(name),
    )
    assert result.average_precision[1] == expected
    assert result.counts.detection_rows_dropped_by_cap == (1 if name == "activitynet" else 0)


@pytest.mark.parametrize(
    ("name", "frames", "skipped"),
    [("activitynet", 2, 2), ("pyslowfast", 3, 1), ("mmaction2", 1, 3)],
)
def test_frames_counted_and_skipped(tmp_path, name, frames, skipped):
    """One labelled, one listed, one of the detections alone, one excluded."""
    result = _evaluate(
        tmp_path,
        [["v", 1, *BOX, 99], ["v", 2], ["v", 4, *BOX, 1]],
        [["v", seconds, *BOX, 1, 0.5] for seconds in (1, 2, 3, 4)],
        excluded=frozenset({("v", 4)}),
        protocol=protocols.by_name(name),
    )
    assert (result.counts.frames, result.counts.frames_skipped) == (frames, skipped)
    assert result.counts.detection_rows_on_excluded_frames == 1
    assert result.counts.detection_rows_used == frames


def test_each_protocol_says_its_rules():
    texts = ["\n".join(p.rules(0.75)) for p in protocols.PROTOCOLS.values()]
    assert all("IoU >= 0.75" in text for text in texts)
    assert len(set(texts)) == 3
    with pytest.raises(errors.InputError, match="no protocol 'coco'; there are: activitynet, "):
        protocols.by_name("coco")
