# SPDX-License-Identifier: Apache-2.0
"""Rows put together to tubes: order, gaps, scores."""

import numpy as np

from object_detection_ext.evaluation import tubes


def _make(entries):
    """Tubes of (tube, video, class, keyframe, first coordinate, score[, found])."""
    columns = list(zip(*entries, strict=True))
    boxes = np.array([[x, 0.0, 1.0, 1.0] for x in columns[4]])
    found = np.array(columns[6], bool) if len(columns) > 6 else None
    return tubes.make_tubes(
        *(np.array(column, np.int64) for column in columns[:4]),
        boxes,
        np.array(columns[5], float),
        found,
    )


def test_gaps_are_interpolated_and_do_not_count_in_the_score():
    made = _make([(7, 0, 1, 4, 0.4, 0.5), (7, 0, 1, 0, 0.0, 0.9), (7, 0, 1, 1, 0.1, 0.7)])
    assert made.moment.tolist() == [0, 1, 2, 3, 4]
    np.testing.assert_allclose(made.boxes[:, 0], [0, 0.1, 0.2, 0.3, 0.4])
    np.testing.assert_allclose(made.box_scores, [0.9, 0.7, 0.7 - 0.2 / 3, 0.7 - 0.4 / 3, 0.5])
    assert made.is_found.tolist() == [True, True, False, False, True]
    np.testing.assert_allclose(made.scores, [0.7])


def test_tubes_are_ordered_by_video_class_and_first_keyframe():
    made = _make(
        [
            (0, 1, 1, 0, 0.0, 0.5),
            (1, 0, 9, 5, 0.0, 0.5),
            (2, 0, 9, 2, 0.0, 0.5),
            (2, 0, 9, 3, 0.0, 0.5),
            (3, 0, 2, 8, 0.0, 0.5),
        ]
    )
    assert made.video.tolist() == [0, 0, 0, 1]
    assert made.classes.tolist() == [2, 9, 9, 1]
    assert (made.first.tolist(), made.last.tolist()) == ([8, 2, 5, 0], [8, 3, 5, 0])
    assert made.lengths.tolist() == [1, 2, 1, 1]


def test_choosing_tubes_takes_their_boxes_along():
    made = _make([(0, 0, 1, 0, 0.1, 1), (1, 0, 1, 1, 0.2, 1), (1, 0, 1, 2, 0.3, 1)])
    chosen = made.only(np.array([False, True]))
    assert (chosen.starts.tolist(), chosen.moment.tolist()) == ([0, 2], [1, 2])
    assert chosen.boxes[:, 0].tolist() == [0.2, 0.3]


def test_a_tube_of_interpolated_boxes_alone_is_none():
    made = _make([(0, 0, 1, 0, 0.1, 1, False), (1, 0, 1, 1, 0.2, 1, True)])
    assert made.moment.tolist() == [1]


def test_no_rows_are_no_tubes():
    none = np.zeros(0, np.int64)
    made = tubes.make_tubes(none, none, none, none, np.zeros((0, 4)), np.zeros(0))
    assert len(made) == len(made.moment) == len(made.first) == 0
    assert made.starts.tolist() == [0]
