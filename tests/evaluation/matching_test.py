# SPDX-License-Identifier: Apache-2.0
"""What detections meet: on a case made by hand, and against the evaluator."""

import numpy as np
import pytest

from object_detection_ext.evaluation import ava_ap, matching, protocols
from tests.evaluation.ava_rows import (
    CATEGORIES,
    RUN,
    SIT,
    TALK,
    ava_rows,
    ground_truth_rows,
    match,
    random_case,
)  # fmt: skip

LEFT, RIGHT = (0.0, 0.0, 1.0, 0.4), (0.0, 0.5, 1.0, 0.9)


def test_people_are_distinct_boxes_of_a_frame():
    truth = ground_truth_rows(
        [
            ("a", 1, LEFT, SIT),
            ("a", 1, LEFT, TALK),
            ("a", 1, RIGHT, TALK),
            ("a", 2, LEFT, SIT),
            ("a", 2, LEFT, 77),  # not in the label map
        ]
    )
    people = match(truth, ava_rows([])).people
    assert people.frame.tolist() == [0, 0, 1]
    np.testing.assert_array_equal(people.boxes, [LEFT, RIGHT, LEFT])
    assert people.actions.tolist() == [[1, 1, 0], [0, 1, 0], [1, 0, 0]]


def test_what_each_detection_meets_highest_score_first():
    truth = ground_truth_rows([("a", 1, LEFT, SIT), ("a", 1, RIGHT, TALK)], [("a", 3)])
    found = ava_rows(
        [
            ("a", 1, (0.0, 0.0, 1.0, 0.3), SIT, 0.3),  # most of the left person
            ("a", 1, RIGHT, SIT, 0.9),
            ("a", 3, LEFT, SIT, 0.5),  # nobody is in this frame
        ]
    )
    matched = match(truth, found)
    sit, talk, run = matched.classes
    assert sit.matches.detections.scores.tolist() == [0.9, 0.5, 0.3]
    assert sit.matches.closest.tolist() == [0, -1, 0]
    assert sit.matches.iou == pytest.approx([0, 0, 0.75])
    assert sit.matches.right.tolist() == [False, False, True]
    assert sit.person.tolist() == [1, -1, 0]
    assert sit.person_iou == pytest.approx([1, 0, 0.75])
    assert sit.average_precision == pytest.approx(1 / 3)
    assert talk.average_precision == 0.0
    assert run.average_precision is None
    assert matched.mean_average_precision == pytest.approx(1 / 6)


def test_videos_without_a_frame_that_counts_are_none():
    truth = ground_truth_rows([("a", 1, LEFT, SIT), ("b", 1, LEFT, SIT), ("b", 2, LEFT, SIT)])
    excluded = frozenset([("a", 1), ("b", 2)])
    matched = match(truth, ava_rows([]), excluded=excluded)
    assert matched.counted.tolist() == [False, True, False]
    assert matched.videos == ["b"]
    assert matched.video_of_frame.tolist() == [-1, 0, 0]


def test_a_class_without_a_name_is_called_by_its_id():
    rows = ava_ap.select(ground_truth_rows([("a", 1, LEFT, RUN)]), ava_rows([]), CATEGORIES)
    assert matching.match_all(rows, [{"id": RUN, "name": ""}]).classes[0].name == "class 9"


@pytest.mark.parametrize("protocol", protocols.PROTOCOLS.values(), ids=lambda p: p.name)
@pytest.mark.parametrize("seed", range(8))
def test_ap_is_the_evaluators_also_with_equal_scores_and_boxes(seed, protocol):
    truth, found = random_case(np.random.default_rng(seed))
    # The last video's frames are the detections' alone, which matters to the protocols.
    truth = ground_truth_rows(
        [
            (*truth.frames[frame], box, class_id)
            for frame, box, class_id in zip(
                truth.rows.frame, truth.rows.boxes, truth.rows.classes, strict=True
            )
            if truth.frames[frame][0] != "v3"
        ],
        [frame for frame in truth.frames if frame[0] != "v3"],
    )
    for threshold in (0.3, 0.5, 0.75):
        expected = ava_ap.evaluate(truth, found, CATEGORIES, threshold, protocol=protocol)
        matched = match(truth, found, threshold, protocol=protocol)
        assert matched.counted.sum() == expected.counts.frames
        assert ("v3" in matched.videos) == (protocol.frames == "all")
        assert matched.mean_average_precision == expected.mean_average_precision
        for entry, result in zip(matched.classes, expected.classes, strict=True):
            assert entry.average_precision == result.average_precision
            assert len(entry.gt_rows) == result.ground_truth
            assert entry.matches.right.sum() == result.true_positives
