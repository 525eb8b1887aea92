# SPDX-License-Identifier: Apache-2.0
"""How sure AP is: intervals from resampling videos.

Frames of a video resemble each other, so whole videos are drawn, with replacement, as many as there
are. A video that is drawn twice counts twice. Nothing is matched again: what a detection meets lies
in its own frame, so a resample only weights rows.

Shape legend: B resamples, V videos, D detections of a class, S right detections among them.
"""

from dataclasses import dataclass

import numpy as np

from object_detection_ext.ava.tables import Report
from object_detection_ext.errors import InputError
from object_detection_ext.evaluation.matching import Matching
from object_detection_ext.progress import Progress

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Interval:
    """The middle 95 % of the values in the resamples.

    Attributes:
      low, high: the percentiles 2.5 and 97.5.
      mean: of the values. Where a class is in few videos it lies above the AP itself, since a
        resample repeats them or lacks the class; so does the interval, which is not corrected.
      deviation: the standard deviation.
      resamples: how many had ground truth; the others give no value.
    """

    low: float
    high: float
    mean: float
    deviation: float
    resamples: int


@dataclass(frozen=True)
class Bootstrap:
    """Intervals of mAP and of each class's AP.

    Attributes:
      resamples, videos, seed: how they were made.
      mean_average_precision: None if no class has ground truth.
      classes: by class id; None for a class without ground truth.
    """

    resamples: int
    videos: int
    seed: int
    mean_average_precision: Interval | None
    classes: dict[int, Interval | None]


def draw_weights(num_videos: int, resamples: int, seed: int) -> np.ndarray:
    """How often each video is in each resample: float64 [B, V], rows sum to V."""
    rng = np.random.default_rng(seed)
    share = np.full(num_videos, 1.0 / num_videos)
    return rng.multinomial(num_videos, share, size=resamples).astype(np.float64)


def weighted_average_precision(
    right: np.ndarray, video: np.ndarray, num_ground_truth: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    """AP of one class in every resample.

    As precision only rises at right detections, these alone decide: D is walked through once for
    each resample to sum the weights between them, and all else is done on S.

    Args:
      right: bool [D], highest score first.
      video: int64 [D], the video of each detection.
      num_ground_truth: int [V], ground-truth rows of the class in each video.
      weights: float64 [B, V], how often a video counts.

    Returns:
      float64 [B]; NaN where the resample has no ground truth.
    """
    total = weights @ num_ground_truth
    values = np.where(total > 0, 0.0, np.nan)
    places = np.flatnonzero(right)
    if not len(places):
        return values
    # Detections between two right ones, with the second of them, are a segment.
    video = video[: places[-1] + 1]
    starts = np.concatenate([[0], places[:-1] + 1])
    right_video = video[places]
    for index in np.flatnonzero(total > 0):
        weight = weights[index]
        seen = np.cumsum(np.add.reduceat(weight[video], starts))
        own = weight[right_video]
        # Where nothing is seen yet nothing is right either.
        precision = np.cumsum(own) / np.maximum(seen, 1.0)
        # A right detection with weight 0 is not in the resample and lifts nothing: precision there
        # is at most that at the right detection before it.
        envelope = np.maximum.accumulate(precision[::-1])[::-1]
        values[index] = np.sum(own * envelope) / total[index]
    return values


def _interval(values: np.ndarray) -> Interval | None:
    known = values[~np.isnan(values)]
    if not len(known):
        return None
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(known, [tail, 100 - tail])
    mean, deviation = float(np.mean(known)), float(np.std(known))
    return Interval(float(low), float(high), mean, deviation, len(known))


def bootstrap(
    matching: Matching, resamples: int, seed: int = 0, report: Report | None = None
) -> Bootstrap:
    """Resamples the videos of an evaluation.

    Args:
      matching: from `matching.match_all`.
      resamples: B, at least 2.
      seed: the same one gives the same intervals.
      report: called with lines of progress when this takes long.

    Raises:
      InputError: for fewer than 2 resamples or fewer than 2 videos.
    """
    num_videos = len(matching.videos)
    if resamples < 2:
        raise InputError(f"The number of resamples is {resamples}, but must be at least 2.")
    if num_videos < 2:
        raise InputError(
            f"Intervals need at least 2 videos to draw from; the ground truth has {num_videos}."
        )
    weights = draw_weights(num_videos, resamples, seed)
    gt_video = matching.video_of_frame[matching.selection.ground_truth.frame]
    progress = Progress("bootstrap", len(matching.classes), "classes", report, report_end=False)
    values = np.full((len(matching.classes), resamples), np.nan)
    for place, entry in enumerate(matching.classes):
        values[place] = weighted_average_precision(
            entry.matches.right,
            matching.video_of_frame[entry.matches.detections.frame],
            np.bincount(gt_video[entry.gt_rows], minlength=num_videos),
            weights,
        )
        progress.update(place + 1)
    known = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        means = np.where(known, values, 0.0).sum(axis=0) / known.sum(axis=0)
    intervals = (_interval(row) for row in values)
    return Bootstrap(
        resamples,
        num_videos,
        seed,
        _interval(means),
        dict(zip((entry.id for entry in matching.classes), intervals, strict=True)),
    )
