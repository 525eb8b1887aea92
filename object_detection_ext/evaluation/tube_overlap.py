# SPDX-License-Identifier: Apache-2.0
"""Spatio-temporal IoU of tubes, and what tubes suppress each other.

Shapes: T tubes, R boxes, P pairs.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from object_detection_ext.evaluation.frame_ap import paired_iou
from object_detection_ext.evaluation.tube_protocols import TimeOverlap
from object_detection_ext.evaluation.tubes import Tubes

# Pairs of boxes that are looked at together; they take some hundred bytes each.
_CHUNK_PAIRS = 2_000_000


@dataclass(frozen=True)
class Overlaps:
    """P pairs of tubes of one video and class that have a keyframe in common.

    Attributes:
        tube: int64 [P], of the first tubes; ascending.
        other: int64 [P], of the second tubes; ascending where `tube` is the same.
        iou: float64 [P], in [0, 1].
    """

    tube: np.ndarray
    other: np.ndarray
    iou: np.ndarray


def overlaps(tubes: Tubes, others: Tubes, time_overlap: TimeOverlap) -> Overlaps:
    """Spatio-temporal IoU of all pairs of tubes of one video and class.

    "moments": the sum of the boxes' IoUs at the keyframes that both have, divided by the number of
    keyframes that either has; so it is their mean times the share of common keyframes, as the ACT
    program has it. "duration": the mean is multiplied with the ratio of times from the first to the
    last keyframe instead, as the MultiSports program has it.

    Args:
        tubes: T tubes.
        others: with the same numbers of videos and keyframes.
        time_overlap: how long tubes overlap in time.
    """
    parts = [
        (tube, other, total, common) for tube, other, total, common in _summed_pairs(tubes, others)
    ]
    if not parts:
        none = np.zeros(0, np.int64)
        return Overlaps(none, none, np.zeros(0))
    tube, other, total, common = (np.concatenate(column) for column in zip(*parts, strict=True))
    mean = total / common
    if time_overlap == "moments":
        both = tubes.lengths[tube] + others.lengths[other] - common
        return Overlaps(tube, other, mean * common / both)
    first, last = tubes.first[tube], tubes.last[tube]
    other_first, other_last = others.first[other], others.last[other]
    shared = np.minimum(last, other_last) - np.maximum(first, other_first)
    whole = np.maximum(last, other_last) - np.minimum(first, other_first)
    return Overlaps(tube, other, mean * shared / np.maximum(whole, 1))


def _summed_pairs(tubes: Tubes, others: Tubes) -> Iterator[tuple[np.ndarray, ...]]:
    """Yields (tube, other, sum of the IoUs of boxes, number of common keyframes) of pairs."""
    if not len(tubes) or not len(others):
        return
    key, other_key = _keys(tubes, others)
    by_key = np.argsort(other_key, kind="stable")
    sorted_key = other_key[by_key]
    low = np.searchsorted(sorted_key, key, side="left")
    count = np.searchsorted(sorted_key, key, side="right") - low
    tube_of_box, other_of_box = tubes.tube_of_box, others.tube_of_box
    for box in _chunks(tubes.starts, count):
        size = count[box]
        pair_box = np.repeat(box, size)
        place = np.arange(len(pair_box)) - np.repeat(np.cumsum(size) - size, size)
        pair_other = by_key[low[pair_box] + place]
        iou = np.nan_to_num(paired_iou(tubes.boxes[pair_box], others.boxes[pair_other]))
        pair = tube_of_box[pair_box] * len(others) + other_of_box[pair_other]
        pairs, index = np.unique(pair, return_inverse=True)
        yield (
            pairs // len(others),
            pairs % len(others),
            np.bincount(index, iou, minlength=len(pairs)),
            np.bincount(index, minlength=len(pairs)),
        )


def _keys(tubes: Tubes, others: Tubes) -> tuple[np.ndarray, np.ndarray]:
    """Numbers that are equal where video, class and keyframe are, int64 [R] of both."""
    moment = np.concatenate([tubes.moment, others.moment])
    moment = moment - moment.min()
    classes = np.unique(np.concatenate([tubes.classes, others.classes]), return_inverse=True)[1]
    video = np.concatenate([tubes.video, others.video])
    group = video * (classes.max() + 1) + classes
    of_box = np.concatenate(
        [
            np.repeat(group[: len(tubes)], tubes.lengths),
            np.repeat(group[len(tubes) :], others.lengths),
        ]
    )
    key = of_box * (moment.max() + 1) + moment
    return key[: len(tubes.moment)], key[len(tubes.moment) :]


def _chunks(starts: np.ndarray, pairs: np.ndarray) -> Iterator[np.ndarray]:
    """Yields the boxes of whole tubes, that have about `_CHUNK_PAIRS` pairs together."""
    of_tube = np.add.reduceat(pairs, starts[:-1])
    chunk = (np.cumsum(of_tube) - of_tube) // _CHUNK_PAIRS
    cuts = np.flatnonzero(np.diff(chunk)) + 1
    for first, stop in zip([0, *cuts], [*cuts, len(of_tube)], strict=True):
        yield np.arange(starts[first], starts[stop])


def suppress(tubes: Tubes, max_iou: float, time_overlap: TimeOverlap) -> np.ndarray:
    """Which tubes are left when those that overlap a higher-scored one too much are taken away.

    Tubes take turns by score, equal scores in their order; what was taken away takes nothing away.

    Args:
        tubes: T tubes.
        max_iou: two tubes of a video and class that overlap by more than this do not both stay.
        time_overlap: how long tubes overlap in time.

    Returns:
        bool [T].
    """
    found = overlaps(tubes, tubes, time_overlap)
    rank = np.empty(len(tubes), np.int64)
    rank[np.argsort(-tubes.scores, kind="stable")] = np.arange(len(tubes))
    close = (found.iou > max_iou) & (rank[found.tube] < rank[found.other])
    tube, other = found.tube[close], found.other[close]
    order = np.argsort(rank[tube], kind="stable")
    kept = np.ones(len(tubes), bool)
    for stays, goes in zip(tube[order].tolist(), other[order].tolist(), strict=True):
        if kept[stays]:
            kept[goes] = False
    return kept
