# SPDX-License-Identifier: Apache-2.0
"""AP in bins: a case computed by hand, and that one bin is the whole."""

import numpy as np
import pytest

from object_detection_ext.evaluation import subsets
from tests.evaluation.ava_rows import (
    RUN,
    SIT,
    TALK,
    ava_rows,
    ground_truth_rows,
    match,
    random_case,
)

# Areas 0.01, 0.04, 0.16 and 0.25 of the frame.
TINY, SMALL = (0.0, 0.0, 0.1, 0.1), (0.0, 0.2, 0.2, 0.4)
LARGE, HUGE = (0.0, 0.5, 0.4, 0.9), (0.5, 0.5, 1.0, 1.0)


@pytest.fixture
def matched():
    truth = ground_truth_rows(
        [
            ("a", 1, TINY, SIT),
            ("a", 1, SMALL, SIT),
            ("a", 1, LARGE, SIT),
            ("a", 2, HUGE, SIT),
            ("a", 2, HUGE, TALK),
        ],
        frames=[("a", 3)],
    )
    found = ava_rows(
        [
            ("a", 1, LARGE, SIT, 0.9),  # right, of the large
            ("a", 1, (0.5, 0.0, 0.6, 0.1), SIT, 0.8),  # meets nobody; as large as TINY
            ("a", 1, TINY, SIT, 0.7),  # right, of the small
            # Right by an IoU of 0.125 / 0.25; its own size would put it among the small.
            ("a", 2, (0.5, 0.5, 0.75, 1.0), SIT, 0.6),
            ("a", 1, (0.0, 0.5, 0.4, 0.8), SIT, 0.5),  # the second on LARGE
            ("a", 3, (0.5, 0.5, 1.0, 1.0), SIT, 0.4),  # meets nobody; as large as HUGE
        ]
    )
    return match(truth, found)


def test_areas_by_hand(matched):
    small, large = subsets.by_area(matched, 2)
    assert (small.low, small.high, large.high) == (0.0, pytest.approx(0.16), None)
    assert (small.people, large.people) == (2, 2)
    assert (small.ground_truth, large.ground_truth) == (2, 3)
    assert (small.detections, large.detections) == (2, 4)
    # Small: wrong, right; the second person is missed: 1/2 * 1/2.
    assert small.average_precision == {SIT: pytest.approx(0.25), TALK: None, RUN: None}
    assert small.mean_average_precision == pytest.approx(0.25)
    # Large: right, right, wrong, wrong, and both people are found. TALK is never found.
    assert large.average_precision == {SIT: pytest.approx(1.0), TALK: 0.0, RUN: None}
    assert large.mean_average_precision == pytest.approx(0.5)
    assert (small.num_classes, large.num_classes) == (1, 2)
    assert (small.label, large.label) == ("0 to 16 %", "16 % or more")


def test_numbers_of_people_by_hand(matched):
    nobody, one, three = subsets.by_number_of_people(matched)
    assert [entry.label for entry in (nobody, one, three)] == ["0", "1", "3"]
    assert [entry.people for entry in (nobody, one, three)] == [0, 1, 3]
    assert [entry.detections for entry in (nobody, one, three)] == [1, 1, 4]
    assert nobody.mean_average_precision is None
    assert one.average_precision == {SIT: 1.0, TALK: 0.0, RUN: None}
    # Right, wrong, right, wrong of three people: 1/3 * (1 + 2/3).
    assert three.average_precision[SIT] == pytest.approx(5 / 9)


def test_excluded_frames_are_in_no_bin():
    truth = ground_truth_rows([("a", 1, TINY, SIT)], frames=[("a", 3)])
    bins = subsets.by_number_of_people(match(truth, ava_rows([]), excluded=frozenset([("a", 3)])))
    assert [entry.label for entry in bins] == ["1"]


def test_many_people_are_one_bin():
    boxes = [(0.0, 0.1 * i, 0.5, 0.1 * i + 0.05) for i in range(8)]
    truth = [("a", 1, box, SIT) for box in boxes] + [("a", 2, box, SIT) for box in boxes[:6]]
    (last,) = subsets.by_number_of_people(match(ground_truth_rows(truth), ava_rows([])))
    assert (last.label, last.people) == ("6 or more", 14)


def test_edges_make_bins_of_equal_counts_and_never_part_equal_values():
    values = np.random.default_rng(0).permutation(100) / 7.0
    edges = subsets.equal_size_edges(values, 4)
    assert np.bincount(np.searchsorted(edges, values, side="right")).tolist() == [25] * 4
    edges = subsets.equal_size_edges(np.array([1.0, 1.0, 1.0, 2.0]), 4)
    assert edges.tolist() == [2.0]
    assert subsets.equal_size_edges(np.array([1.0, 1.0]), 2).tolist() == []
    assert subsets.equal_size_edges(np.zeros(0), 3).tolist() == []


@pytest.mark.parametrize("seed", range(10))
def test_one_bin_is_the_whole_and_bins_share_out_everything(seed):
    matched = match(*random_case(np.random.default_rng(seed)))
    (whole,) = subsets.by_area(matched, 1)
    assert whole.label == "any size"
    assert whole.mean_average_precision == matched.mean_average_precision
    for entry in matched.classes:
        assert whole.average_precision[entry.id] == entry.average_precision
    total = sum(len(entry.matches.detections) for entry in matched.classes)
    for bins in (subsets.by_area(matched, 3), subsets.by_number_of_people(matched)):
        assert sum(entry.detections for entry in bins) == total
        assert sum(entry.people for entry in bins) == len(matched.people.frame)
        assert sum(e.ground_truth for e in bins) == len(matched.selection.ground_truth)


def test_no_bins_are_an_error(matched):
    with pytest.raises(ValueError, match="must be at least 1"):
        subsets.by_area(matched, 0)
