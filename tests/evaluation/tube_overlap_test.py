# SPDX-License-Identifier: Apache-2.0
"""Spatio-temporal IoU: all pairs at once, compared with plain loops and by hand."""

import numpy as np
import pytest

from object_detection_ext.evaluation import tube_overlap, tubes
from tests.evaluation import plain_tubes


def _tubes(rng, count):
    """Random tubes of two videos and two classes, without gaps."""
    rows = []
    for tube in range(count):
        video, class_id = rng.integers(0, 2), rng.integers(5, 7)
        start, length = rng.integers(-3, 6), rng.integers(1, 7)
        low = rng.integers(0, 6, 2) / 10
        for keyframe in range(start, start + length):
            box = [*low, *(low + rng.integers(2, 5, 2) / 10)]
            rows.append((tube, video, class_id, keyframe, box, rng.random()))
    columns = list(zip(*rows, strict=True))
    return tubes.make_tubes(
        *(np.array(column, np.int64) for column in columns[:4]),
        np.array(columns[4]),
        np.array(columns[5]),
    )


def _as_dictionaries(made):
    return [
        (
            (made.video[t], made.classes[t]),
            {int(made.moment[r]): made.boxes[r] for r in range(made.starts[t], made.starts[t + 1])},
        )
        for t in range(len(made))
    ]


@pytest.mark.parametrize("time_overlap", ["moments", "duration"])
@pytest.mark.parametrize("chunk", [1, 7, 2_000_000])
def test_all_pairs_are_those_of_a_plain_loop(monkeypatch, time_overlap, chunk):
    monkeypatch.setattr(tube_overlap, "_CHUNK_PAIRS", chunk)
    rng = np.random.default_rng(0)
    first, second = _tubes(rng, 80), _tubes(rng, 60)
    found = tube_overlap.overlaps(first, second, time_overlap)
    pairs = list(zip(found.tube.tolist(), found.other.tolist(), strict=True))
    assert pairs == sorted(set(pairs))
    given = dict(zip(pairs, found.iou.tolist(), strict=True))
    met = 0
    for t, (group, tube) in enumerate(_as_dictionaries(first)):
        for o, (other_group, other) in enumerate(_as_dictionaries(second)):
            wanted = 0.0
            if group == other_group:
                wanted = plain_tubes.tube_iou(tube, other, time_overlap)
            assert given.get((t, o), 0.0) == pytest.approx(wanted, abs=1e-12)
            met += wanted > 0
    assert met > 50


def test_boxes_without_an_area_overlap_nothing():
    none = np.array([0])
    flat = tubes.make_tubes(none, none, none, none, np.zeros((1, 4)), np.ones(1))
    assert tube_overlap.overlaps(flat, flat, "moments").iou.tolist() == [0]


def test_what_was_suppressed_suppresses_nothing():
    # Each overlaps the next by IoU 2/3, the first and the third by 1/3.
    boxes = np.array([[0, x, 1, x + 0.5] for x in (0.0, 0.1, 0.2)])
    number, same = np.arange(3), np.zeros(3, np.int64)
    made = tubes.make_tubes(number, same, same, same, boxes, np.array([0.9, 0.8, 0.7]))
    assert tube_overlap.suppress(made, 0.5, "moments").tolist() == [True, False, True]
    assert tube_overlap.suppress(made, 0.3, "moments").tolist() == [True, False, False]
    assert tube_overlap.suppress(made, 0.7, "moments").tolist() == [True, True, True]
    # Equal scores keep their order; tubes of other classes do not meet.
    made = tubes.make_tubes(number, same, same, same, boxes, np.ones(3))
    assert tube_overlap.suppress(made, 0.5, "moments").tolist() == [True, False, True]
    made = tubes.make_tubes(number, same, number, same, boxes, np.ones(3))
    assert tube_overlap.suppress(made, 0.0, "moments").tolist() == [True, True, True]
