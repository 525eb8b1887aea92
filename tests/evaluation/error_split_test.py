# SPDX-License-Identifier: Apache-2.0
"""Kinds of errors and confusions, on cases made by hand."""

import numpy as np
import pytest

from object_detection_ext.evaluation import error_split
from tests.evaluation.ava_rows import (
    RUN,
    SIT,
    TALK,
    ava_rows,
    ground_truth_rows,
    match,
    random_case,
)

LEFT, RIGHT = (0.0, 0.0, 1.0, 0.4), (0.0, 0.5, 1.0, 0.9)


def _kinds(truth, found):
    matched = match(ground_truth_rows(truth), ava_rows(found))
    kinds = error_split.kinds_of(matched.classes[0], 0.5)
    return [error_split.KINDS[kind] for kind in kinds]


def test_one_detection_of_each_kind():
    truth = [("a", 1, LEFT, SIT), ("a", 1, RIGHT, TALK), ("b", 1, LEFT, SIT)]
    found = [
        ("a", 1, LEFT, SIT, 0.9),
        ("a", 1, (0.0, 0.0, 1.0, 0.3), SIT, 0.8),  # IoU 0.75 with the person found already
        ("a", 1, RIGHT, SIT, 0.7),  # who talks
        ("a", 1, (0.0, 0.0, 0.3, 0.4), SIT, 0.6),  # IoU 0.3
        ("a", 1, (0.0, 0.0, 0.05, 0.4), SIT, 0.5),  # IoU 0.05
        ("a", 1, (0.0, 0.5, 0.3, 0.9), SIT, 0.4),  # IoU 0.3 with a person who talks only
        ("c", 1, LEFT, SIT, 0.3),  # a frame that the ground truth does not list: not counted
    ]
    assert _kinds(truth, found) == [
        error_split.RIGHT,
        error_split.DUPLICATE,
        error_split.MISCLASSIFIED,
        error_split.BADLY_LOCALIZED,
        error_split.BACKGROUND,
        error_split.BACKGROUND,
    ]


def test_the_first_kind_that_fits_counts():
    # IoU 2/3 with the talking person, 1/7 with the sitting one.
    truth = [("a", 1, (0.0, 0.0, 1.0, 0.4), SIT), ("a", 1, (0.0, 0.3, 1.0, 0.9), TALK)]
    assert _kinds(truth, [("a", 1, (0.0, 0.3, 1.0, 0.7), SIT, 0.9)]) == [error_split.MISCLASSIFIED]
    # The bounds themselves: 0.5 is enough, 0.1 is bad localization.
    truth = [("a", 1, (0.0, 0.0, 1.0, 1.0), SIT)]
    found = [("a", 1, (0.0, 0.0, 0.5, 1.0), SIT, 0.9), ("a", 1, (0.0, 0.0, 0.1, 1.0), SIT, 0.8)]
    assert _kinds(truth, found) == [error_split.RIGHT, error_split.BADLY_LOCALIZED]


def test_the_split_of_a_class_and_of_its_first_detections():
    truth = [("a", 1, LEFT, SIT), ("a", 1, RIGHT, TALK), ("b", 1, LEFT, SIT)]
    found = [("a", 1, RIGHT, SIT, 0.9), ("a", 1, LEFT, SIT, 0.8), ("b", 1, LEFT, SIT, 0.7)]
    sit, talk, run = error_split.split_errors(match(ground_truth_rows(truth), ava_rows(found)))
    assert sit.all == error_split.KindCounts(2, 0, 1, 0, 0, missed=0)
    assert sit.first == error_split.KindCounts(1, 0, 1, 0, 0, missed=1)
    assert talk.all == talk.first == error_split.KindCounts(0, 0, 0, 0, 0, missed=1)
    assert run.ground_truth == run.all.detections == run.all.missed == 0
    whole = error_split.total(entry.all for entry in (sit, talk, run))
    assert whole == error_split.KindCounts(2, 0, 1, 0, 0, missed=1)


@pytest.mark.parametrize("seed", range(10))
def test_every_detection_is_of_one_kind_and_every_box_is_found_or_missed(seed):
    matched = match(*random_case(np.random.default_rng(seed)))
    for entry, errors in zip(matched.classes, error_split.split_errors(matched), strict=True):
        assert errors.all.detections == len(entry.matches.detections)
        assert errors.all.right == entry.matches.right.sum()
        assert errors.all.right + errors.all.missed == errors.ground_truth
        assert errors.first.detections == min(errors.ground_truth, errors.all.detections)


def test_confusion_by_hand():
    truth = [
        ("a", 1, LEFT, SIT), ("a", 1, LEFT, TALK), ("a", 1, RIGHT, TALK),
        ("b", 1, LEFT, RUN), ("b", 1, RIGHT, RUN), ("b", 2, LEFT, RUN),
    ]  # fmt: skip
    found = [
        ("a", 1, LEFT, SIT, 0.9),  # right
        ("a", 1, LEFT, RUN, 0.9),  # a person who sits and talks, taken to run
        ("a", 1, LEFT, RUN, 0.8),  # the same person again: one person
        ("b", 1, LEFT, RUN, 0.7),  # right
        ("b", 1, RIGHT, RUN, 0.1),  # the fourth of three: not predicted
        ("b", 1, (0.0, 0.0, 0.2, 0.4), TALK, 0.9),  # on nobody
        ("b", 1, RIGHT, TALK, 0.8),
    ]
    confusion = error_split.confuse(match(ground_truth_rows(truth), ava_rows(found)))
    assert confusion.ids == (SIT, TALK, RUN)
    assert confusion.doing.tolist() == [1, 2, 3]
    assert confusion.people.tolist() == [[1, 0, 1], [0, 0, 1], [0, 1, 1]]
    assert confusion.shares == pytest.approx(np.array([[1, 0, 1], [0, 0, 0.5], [0, 1 / 3, 1 / 3]]))
    assert confusion.most_frequent(2) == [(0, 2, 1, 1.0), (1, 2, 1, 0.5)]
    assert len(confusion.most_frequent(10)) == 3


def test_a_class_that_nobody_does_has_no_shares():
    confusion = error_split.confuse(match(ground_truth_rows([("a", 1, LEFT, SIT)]), ava_rows([])))
    assert np.isnan(confusion.shares[1:]).all()
    assert confusion.shares[0].tolist() == [0, 0, 0]
