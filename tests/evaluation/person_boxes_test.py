# SPDX-License-Identifier: Apache-2.0
"""People out of rows of actions, and their AP."""

import numpy as np
import pytest

from object_detection_ext.ava import tables
from object_detection_ext.ava.tables import LabelledBoxes
from object_detection_ext.evaluation import ava_ap, person_boxes, protocols

CATEGORIES = [{"id": 1, "name": "stand"}, {"id": 2, "name": "talk"}]
A, B = [0.1, 0.1, 0.5, 0.9], [0.5, 0.1, 0.9, 0.9]  # y1, x1, y2, x2; nothing in common


def _rows(rows):
    """From (frame, box, class, score)."""
    frame, boxes, classes, scores = zip(*rows, strict=True) if rows else ((), (), (), ())
    return LabelledBoxes(
        np.array(frame, np.int64),
        np.array(boxes, np.float64).reshape(-1, 4),
        np.array(classes, np.int64),
        np.array(scores, np.float64),
    )


def test_ground_truth_rows_of_equal_boxes_are_one_person_in_the_order_of_the_rows():
    rows = _rows([(1, B, 1, 1), (0, A, 2, 1), (1, B, 7, 1), (1, A, 1, 1), (0, A, 1, 1)])
    people = person_boxes.distinct_people(rows)
    assert people.frame.tolist() == [1, 0, 1]
    assert people.boxes.tolist() == [B, A, A]
    assert people.classes.tolist() == [1, 1, 1]
    assert len(person_boxes.distinct_people(_rows([]))) == 0


def test_a_person_has_the_box_and_the_score_of_the_surest_action():
    rounded = [0.1005, 0.1, 0.5, 0.9]
    rows = _rows([(0, A, 1, 0.3), (0, rounded, 2, 0.8), (0, B, 1, 0.5), (1, A, 1, 0.2)])
    people = person_boxes.group_detections(rows)
    assert people.frame.tolist() == [0, 0, 1]
    assert people.boxes.tolist() == [rounded, B, A]
    assert people.scores.tolist() == [0.8, 0.5, 0.2]
    assert set(people.classes) == {1}
    assert len(person_boxes.group_detections(_rows([]))) == 0


def _greedy(rows, merge_iou):
    """The definition, row by row."""
    people = []
    for index in np.lexsort((-rows.scores, rows.frame)):
        joins = False
        for person in people:
            if rows.frame[person] == rows.frame[index]:
                (y1, x1), (y2, x2) = rows.boxes[index, :2], rows.boxes[index, 2:]
                (v1, u1), (v2, u2) = rows.boxes[person, :2], rows.boxes[person, 2:]
                overlap = max(0, min(y2, v2) - max(y1, v1)) * max(0, min(x2, u2) - max(x1, u1))
                union = (y2 - y1) * (x2 - x1) + (v2 - v1) * (u2 - u1) - overlap
                joins |= overlap / union >= merge_iou
        if not joins:
            people.append(index)
    return people


@pytest.mark.parametrize("chunk_rows", [1, 7, 20_000])
@pytest.mark.parametrize("merge_iou", [0.3, 0.9])
def test_random_rows_group_as_the_definition_says(monkeypatch, merge_iou, chunk_rows):
    monkeypatch.setattr(person_boxes, "_CHUNK_ROWS", chunk_rows)
    rng = np.random.default_rng(4)
    low = rng.integers(0, 4, (200, 2))
    boxes = np.concatenate([low, low + rng.integers(1, 4, (200, 2))], axis=1) / 8
    rows = LabelledBoxes(
        np.sort(rng.integers(0, 12, 200)),
        boxes.astype(np.float64),
        rng.integers(1, 5, 200),
        rng.integers(0, 20, 200) / 20,  # equals
    )
    people = person_boxes.group_detections(rows, merge_iou)
    expected = _greedy(rows, merge_iou)
    assert 12 < len(expected) < 200
    np.testing.assert_array_equal(people.boxes, rows.boxes[expected])
    np.testing.assert_array_equal(people.scores, rows.scores[expected])
    np.testing.assert_array_equal(people.frame, rows.frame[expected])


def _read(tmp_path, name, text):
    path = tmp_path / name
    path.write_text(text)
    return tables.read_csv(str(path))


def _evaluate(tmp_path, ground_truth, detections, **options):
    return ava_ap.evaluate(
        _read(tmp_path, "g.csv", ground_truth),
        _read(tmp_path, "d.csv", detections),
        CATEGORIES,
        localization=True,
        **options,
    )


PERSON_A, PERSON_B = "0.1,0.1,0.4,0.9", "0.6,0.1,0.9,0.9"


def test_person_ap_by_hand(tmp_path):
    """Three people, one in a class of no label map. Wrong actions and second actions do not matter.

    Highest first: A at 1 (right), B at 1 with IoU 0.625 (right at 0.5 only), somebody at 2 (wrong).
    """
    ground_truth = f"v,1,{PERSON_A},1\nv,1,{PERSON_A},2\nv,1,{PERSON_B},1\nv,2,{PERSON_B},9\n"
    detections = (
        f"v,1,{PERSON_A},2,0.9\nv,1,{PERSON_A},1,0.2\n"
        "v,1,0.6,0.1,0.9,0.6,2,0.7\n"
        f"v,2,{PERSON_A},1,0.5\n"
        f"v,3,{PERSON_A},1,0.99\n"
    )
    result = _evaluate(tmp_path, ground_truth, detections)
    half, three_quarters = result.localization
    assert (half.iou_threshold, three_quarters.iou_threshold) == (0.5, 0.75)
    assert (half.ground_truth, half.detections, half.true_positives) == (3, 3, 2)
    assert half.average_precision == pytest.approx(2 / 3)
    assert three_quarters.true_positives == 1
    assert three_quarters.average_precision == pytest.approx(1 / 3)
    # Where detections on unlisted frames count, the surest one is wrong: 1/2 and 2/3.
    result = _evaluate(tmp_path, ground_truth, detections, protocol=protocols.PYSLOWFAST)
    assert result.localization[0].average_precision == pytest.approx(2 / 3 * 2 / 3)
    excluded = frozenset({("v", 1)})
    result = _evaluate(tmp_path, ground_truth, detections, excluded=excluded)
    assert (result.localization[0].ground_truth, result.localization[0].average_precision) == (1, 0)


def test_nobody_in_the_ground_truth_is_no_ap(tmp_path):
    result = _evaluate(tmp_path, "v,1\n", f"v,1,{PERSON_A},1,0.5\n")
    assert [entry.average_precision for entry in result.localization] == [None, None]
    assert "person AP@0.5IOU: - (0 people" in ava_ap.format_result(result)


def test_the_cap_on_rows_does_not_hold_for_people(tmp_path):
    many = f"v,1,{PERSON_A},1,0.9\n" * 60
    result = _evaluate(tmp_path, f"v,1,{PERSON_B},1\n", many + f"v,1,{PERSON_B},1,0.5\n")
    assert result.counts.detection_rows_dropped_by_cap == 11
    assert result.mean_average_precision == 0.0
    assert result.localization[0].average_precision == 0.5  # second of two


def test_given_boxes_are_recognized_also_rounded_and_said(tmp_path):
    ground_truth = "v,1,0.1004,0.1,0.4,0.9,1\nv,2,0.6,0.1,0.9,0.9,2\n"
    given = "v,1,0.1,0.1,0.4,0.9,1,0.9\nv,1,0.1,0.1,0.4,0.9,2,0.8\nv,2,0.6,0.1,0.9,0.9,1,0.7\n"
    result = _evaluate(tmp_path, ground_truth, given)
    assert result.boxes_given
    assert "boxes were given" in ava_ap.format_result(result)
    # Classification: class 1 is found once, first; class 2 is said of the wrong person.
    assert result.average_precision == {1: 1.0, 2: 0.0}
    assert not _evaluate(tmp_path, ground_truth, given + "v,2,0.61,0.1,0.9,0.9,1,0.1\n").boxes_given
    assert not _evaluate(
        tmp_path, ground_truth + "v,3\n", given + "v,3,0,0,1,1,1,0.1\n"
    ).boxes_given
    assert not _evaluate(tmp_path, ground_truth, "").boxes_given
