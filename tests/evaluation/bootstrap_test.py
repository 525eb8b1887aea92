# SPDX-License-Identifier: Apache-2.0
"""Intervals: against the evaluator run on videos that are really repeated, and by hand."""

import dataclasses

import numpy as np
import pytest

from object_detection_ext.ava import tables
from object_detection_ext.errors import InputError
from object_detection_ext.evaluation import ava_ap, bootstrap
from tests.evaluation.ava_rows import (
    CATEGORIES,
    SIT,
    ava_rows,
    ground_truth_rows,
    match,
    random_case,
)

BOX = (0.0, 0.0, 1.0, 0.4)
ELSEWHERE = (0.0, 0.5, 1.0, 0.9)


def _repeated(rows: tables.AvaRows, weights: dict[str, int]) -> tables.AvaRows:
    """Rows in which each video occurs under `weights[video]` names."""
    frames, parts = [], []
    for copy in range(max(weights.values())):
        for index, (video, second) in enumerate(rows.frames):
            if copy < weights[video]:
                own = rows.rows[rows.rows.frame == index]
                parts.append(dataclasses.replace(own, frame=np.full(len(own), len(frames))))
                frames.append((f"{video} copy {copy}", second))
    merged = tables.concatenate(parts)
    return tables.AvaRows(rows.name, frames, merged, np.arange(len(merged)), len(merged))


def _class_values(matched, weights):
    gt_video = matched.video_of_frame[matched.selection.ground_truth.frame]
    return [
        bootstrap.weighted_average_precision(
            entry.matches.right,
            matched.video_of_frame[entry.matches.detections.frame],
            np.bincount(gt_video[entry.gt_rows], minlength=len(matched.videos)),
            weights,
        )
        for entry in matched.classes
    ]


@pytest.mark.parametrize("seed", range(8))
def test_weights_give_what_the_evaluator_gives_on_repeated_videos(seed):
    rng = np.random.default_rng(seed)
    truth, found = random_case(rng)
    # Copies of a detection have one score, and their order decides nothing; that of different
    # detections with equal scores would.
    scores = rng.permutation(len(found.rows)) / len(found.rows)
    found = dataclasses.replace(found, rows=dataclasses.replace(found.rows, scores=scores))
    matched = match(truth, found)
    weights = bootstrap.draw_weights(len(matched.videos), 5, seed)
    assert weights.sum(axis=1).tolist() == [len(matched.videos)] * 5
    values = _class_values(matched, weights)
    for index, row in enumerate(weights):
        times = dict(zip(matched.videos, row.astype(int).tolist(), strict=True))
        expected = ava_ap.evaluate(_repeated(truth, times), _repeated(found, times), CATEGORIES)
        for value, result in zip(values, expected.classes, strict=True):
            if result.average_precision is None:
                assert np.isnan(value[index])
            else:
                assert value[index] == pytest.approx(result.average_precision, abs=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_the_identity_resample_is_the_evaluation_itself(seed):
    matched = match(*random_case(np.random.default_rng(seed)))
    values = _class_values(matched, np.ones((1, len(matched.videos))))
    for entry, value in zip(matched.classes, values, strict=True):
        assert value[0] == pytest.approx(entry.average_precision, abs=1e-12)


def test_intervals_by_hand():
    # Video a is always right (AP 1), b never (AP 0). Of two draws, two of a give 1, two of b give
    # 0, and one of each gives 1/2, twice as often.
    truth = ground_truth_rows([("a", 1, BOX, SIT), ("b", 1, BOX, SIT)])
    found = ava_rows([("a", 1, BOX, SIT, 0.9), ("b", 1, ELSEWHERE, SIT, 0.5)])
    made = bootstrap.bootstrap(match(truth, found), 4000, seed=3)
    sit = made.classes[SIT]
    assert (sit.low, sit.high, sit.resamples) == (0.0, 1.0, 4000)
    assert sit.mean == pytest.approx(0.5, abs=0.02)
    assert sit.deviation == pytest.approx(np.sqrt(1 / 8), abs=0.01)
    assert made.mean_average_precision == sit
    assert [made.classes[i] for i in (5, 9)] == [None, None]
    assert (made.videos, made.resamples, made.seed) == (2, 4000, 3)


def test_a_resample_without_ground_truth_of_a_class_gives_it_no_value():
    truth = ground_truth_rows([("a", 1, BOX, SIT), ("b", 1, BOX, 5)])
    made = bootstrap.bootstrap(match(truth, ava_rows([("a", 1, BOX, SIT, 0.9)])), 4000)
    # a is in three of four resamples.
    assert made.classes[SIT].resamples == pytest.approx(3000, abs=100)
    assert (made.classes[SIT].low, made.classes[SIT].high) == (1.0, 1.0)
    # The means are 1 (a, a), 0 (b, b), 1/2 otherwise.
    assert made.mean_average_precision.resamples == 4000
    assert made.mean_average_precision.deviation == pytest.approx(np.sqrt(1 / 8), abs=0.01)


def test_a_seed_gives_the_same_intervals_and_another_others():
    matched = match(*random_case(np.random.default_rng(1)))
    first, again, other = (bootstrap.bootstrap(matched, 50, seed) for seed in (1, 1, 2))
    assert first == again
    assert first.mean_average_precision != other.mean_average_precision


def test_what_cannot_be_drawn_is_an_error():
    one_video = match(ground_truth_rows([("a", 1, BOX, SIT)]), ava_rows([]))
    with pytest.raises(InputError, match="at least 2 videos .* has 1"):
        bootstrap.bootstrap(one_video, 10)
    with pytest.raises(InputError, match="resamples is 1"):
        bootstrap.bootstrap(one_video, 1)
