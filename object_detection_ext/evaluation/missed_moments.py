# SPDX-License-Identifier: Apache-2.0
"""Moments of the ground truth at which nothing was detected, and what to do about them.

Detections count only at exactly the moments of the ground truth. A detector that looked a third of
a second later loses two thirds of its mAP, and nothing else would say why.

Shapes: F frames of a file.
"""

from collections.abc import Sequence

import numpy as np

from object_detection_ext.ava import timestamps
from object_detection_ext.ava.timestamps import Frame


def warnings(
    ground_truth: str,
    listed: Sequence[Frame],
    wanted: np.ndarray,
    detections: str,
    found: Sequence[Frame],
    target: np.ndarray,
    unlisted: np.ndarray,
) -> list[str]:
    """What is to be said of moments without detections; nothing if there are none.

    Args:
        ground_truth: the file.
        listed: its F frames.
        wanted: bool [F], frames that count and have people.
        detections: the file.
        found: its F frames.
        target: int64 [F], which of `listed` each of `found` is; others are negative or too large.
        unlisted: bool [F], which of `found` are not in the ground truth.
    """
    is_met = np.zeros(len(listed), bool)
    is_met[target[(target >= 0) & (target < len(listed))]] = True
    missed = np.flatnonzero(wanted & ~is_met)
    if not len(missed) or not found:
        return []
    seen = {video_id for video_id, _ in found}
    unseen = [index for index in missed.tolist() if listed[index][0] not in seen]
    others = [index for index in missed.tolist() if listed[index][0] in seen]
    messages = []
    if unseen:
        messages.append(_of_videos(detections, [listed[index] for index in unseen], listed, wanted))
    if others:
        beside = [found[index] for index in np.flatnonzero(unlisted).tolist()]
        messages.append(
            _of_moments(
                ground_truth, detections, [listed[i] for i in others], beside, int(wanted.sum())
            )
        )
    return messages


def _of_videos(
    detections: str, missed: Sequence[Frame], listed: Sequence[Frame], wanted: np.ndarray
) -> str:
    videos = sorted({video_id for video_id, _ in missed})
    all_videos = {listed[index][0] for index in np.flatnonzero(wanted).tolist()}
    return (
        f"{detections}: {len(videos):,} of {len(all_videos):,} videos of the ground truth have no "
        f"detection at all (such as '{videos[0]}'), {len(missed):,} moments; were they detected, "
        "and under these ids?"
    )


def _of_moments(
    ground_truth: str,
    detections: str,
    missed: Sequence[Frame],
    beside: Sequence[Frame],
    num_wanted: int,
) -> str:
    text = f"{detections}: {len(missed):,} of {num_wanted:,} ground-truth moments have no detection"
    advice = (
        f"detect at exactly the ground truth's moments: detect_video --keyframes {ground_truth} "
        "--score_threshold 0.01"
    )
    near = _nearest(missed, beside)
    if near is None:
        return f"{text} (such as {_named(missed[0])}); {advice}"
    (moment, other), count = near
    return (
        f"{text}, and {count:,} detected moments of these videos are none of the ground truth's "
        f"({_named(other)} beside {_named(moment)}); {advice}"
    )


def _nearest(missed: Sequence[Frame], beside: Sequence[Frame]):
    """((missed moment, detected one nearest to it), number of detected ones); None without any."""
    videos = {video_id for video_id, _ in missed}
    beside = [frame for frame in beside if frame[0] in videos]
    if not beside:
        return None
    moments = timestamps.Moments(beside)
    pairs = [(moment, moments.nearest(moment)) for moment in missed]
    pairs = [(moment, other) for moment, other in pairs if other is not None]
    return min(pairs, key=lambda pair: abs(pair[0][1] - pair[1][1])), len(beside)


def _named(frame: Frame) -> str:
    return f"'{frame[0]}' at {timestamps.format_timestamp(frame[1])} s"
