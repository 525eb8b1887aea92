# SPDX-License-Identifier: Apache-2.0
"""Cutting tubes in time: the best labelling, compared with all there are."""

import itertools

import numpy as np
import pytest

from object_detection_ext.evaluation import tube_trimming, tubes


def _tubes(scores_of_tubes, is_found=None):
    rows = [(t, k, s) for t, scores in enumerate(scores_of_tubes) for k, s in enumerate(scores)]
    tube, keyframe, scores = (np.array(column) for column in zip(*rows, strict=True))
    same = np.zeros(len(rows), np.int64)
    boxes = np.tile([0.0, 0.0, 1.0, 1.0], (len(rows), 1))
    return tubes.make_tubes(tube, tube, same, keyframe, boxes, scores.astype(float), is_found)


def _value(scores, labels, penalty):
    total = sum(s if label else 1 - s for s, label in zip(scores, labels, strict=True))
    return total - penalty * sum(a != b for a, b in itertools.pairwise(labels))


@pytest.mark.parametrize("penalty", [0, 0.1, 0.4, 1, 3])
def test_no_other_labels_are_better(penalty):
    rng = np.random.default_rng(1)
    scores = [rng.random(rng.integers(1, 9)) for _ in range(30)]
    made = _tubes(scores)
    labels = np.split(tube_trimming.label(made, penalty), made.starts[1:-1])
    for own, of_tube in zip(labels, scores, strict=True):
        best = max(
            _value(of_tube, other, penalty)
            for other in itertools.product([False, True], repeat=len(of_tube))
        )
        assert _value(of_tube, own.tolist(), penalty) == pytest.approx(best)


def test_a_short_dip_does_not_cut_and_a_long_one_does():
    short, long = [0.9] * 5 + [0.1] + [0.9] * 5, [0.9] * 5 + [0.1] * 5 + [0.9] * 5
    trimmed = tube_trimming.trim(_tubes([short, long]), 1.0)
    assert trimmed.video.tolist() == [0, 1, 1]
    assert trimmed.lengths.tolist() == [11, 5, 5]
    assert (trimmed.first.tolist(), trimmed.last.tolist()) == ([0, 0, 10], [10, 4, 14])
    np.testing.assert_allclose(trimmed.scores, [(10 * 0.9 + 0.1) / 11, 0.9, 0.9])


def test_a_tube_of_background_is_gone():
    assert len(tube_trimming.trim(_tubes([[0.1, 0.2, 0.1]]), 1.0)) == 0


def test_without_a_penalty_each_box_decides_for_itself():
    trimmed = tube_trimming.trim(_tubes([[0.9, 0.2, 0.8, 0.3]]), 0.0)
    assert trimmed.first.tolist() == [0, 2]


def test_no_tubes():
    made = _tubes([[0.5]]).only(np.array([False]))
    assert len(tube_trimming.trim(made, 1.0)) == 0
