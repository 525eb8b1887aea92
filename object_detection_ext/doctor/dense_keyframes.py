# SPDX-License-Identifier: Apache-2.0
"""Keyframes on every frame of a video, and what `--every` keeps of them.

Shapes: F keyframes of a split, V videos.
"""

from collections.abc import Iterator

import numpy as np

from object_detection_ext import listing
from object_detection_ext.data import keyframe_thinning
from object_detection_ext.doctor.annotation_rows import SplitRows
from object_detection_ext.doctor.examination import Examination
from object_detection_ext.doctor.findings import WARNING, Finding

# Keyframes nearer than this, in the median, hardly differ.
_DENSE_SECONDS = 0.2
# A few of them cost nothing.
_MIN_KEYFRAMES = 100


def kept(
    split: SplitRows, every: float | None, is_excluded: np.ndarray | None = None
) -> np.ndarray:
    """Which of the split's keyframes a conversion with `--every` keeps, bool [F].

    Args:
        split: the annotations.
        every: seconds; None or 0 keeps all.
        is_excluded: bool [F], keyframes that are left out before; None for none.
    """
    frames = split.keyframes
    there = np.ones(len(frames), bool) if is_excluded is None else ~is_excluded
    if not every:
        return there
    chosen = np.zeros(len(frames), bool)
    starts = np.searchsorted(frames.video, np.arange(len(split.video_ids) + 1))
    for first, stop in zip(starts[:-1], starts[1:], strict=True):
        seconds = frames.seconds[first:stop]
        left = seconds[there[first:stop]].tolist()
        chosen[first:stop] = np.isin(seconds, keyframe_thinning.kept_times(left, every))
    return chosen


def dense_keyframes(exam: Examination) -> Iterator[Finding]:
    """Says what `--every` leaves out, or that it might leave out much."""
    for split in exam.splits.values():
        if exam.every:
            yield from _left_out(split, exam)
        else:
            yield from _dense(split)


def _left_out(split: SplitRows, exam: Examination) -> Iterator[Finding]:
    every, is_excluded = exam.every, exam.is_excluded(split)
    chosen = kept(split, every, is_excluded) | is_excluded
    count, total = int((~chosen).sum()), int((~is_excluded).sum())
    if count:
        yield Finding(
            "keyframes_thinned", WARNING, split.path,
            f"--every {every:g} leaves out {listing.part(count, total, 'keyframe')}",
            "the converter with the same --every keeps the others", count=count, unit="keyframes",
            rows=tuple(np.sort(split.keyframes.row[~chosen])[:1].tolist()), value=f"{every:g}",
        )  # fmt: skip


def _dense(split: SplitRows) -> Iterator[Finding]:
    frames = split.keyframes
    apart = np.diff(frames.seconds)[frames.video[1:] == frames.video[:-1]]
    if len(apart) < _MIN_KEYFRAMES or np.median(apart) >= _DENSE_SECONDS:
        return
    typical, left = float(np.median(apart)), int(kept(split, 1.0).sum())
    yield Finding(
        "dense_keyframes", WARNING, split.path,
        f"keyframes are {typical:.3g} s apart (median of {len(frames):,}): neighbours hardly "
        "differ, and each becomes a clip",
        f"--every 1.0, here and of the converter, keeps {left:,}; for action tubes keep all",
        count=len(frames), unit="keyframes", value=f"{typical:.3g}",
    )  # fmt: skip
