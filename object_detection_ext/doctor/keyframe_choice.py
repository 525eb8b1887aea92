# SPDX-License-Identifier: Apache-2.0
"""Which keyframes are looked at where not all can be. The same rows give the same choice.

Shapes: N rows of a split, F keyframes, V videos.
"""

from collections.abc import Container, Iterator, Mapping

import numpy as np

from object_detection_ext.doctor.annotation_rows import NO_NUMBER, SplitRows


def of_each_video(
    split: SplitRows, count: int, seconds: np.ndarray | None = None
) -> Iterator[tuple[str, list[float]]]:
    """Yields each video id with up to `count` of its keyframes' times in seconds, ascending.

    They are spread over the video, the last one among them: the end is what a damaged copy lacks.

    Args:
      split: the rows.
      count: how many.
      seconds: float64 [F], when the keyframes are; None for the times of the annotations.
    """
    seconds = split.keyframes.seconds if seconds is None else seconds
    frames = split.keyframes
    starts = np.searchsorted(frames.video, np.arange(len(split.video_ids) + 1))
    for index, video_id in enumerate(split.video_ids):
        times = seconds[starts[index] : starts[index + 1]]
        wanted = np.linspace(len(times) - 1, 0, min(count, len(times))).round().astype(int)
        yield video_id, times[np.unique(wanted)].tolist()


def over_videos_and_classes(
    split: SplitRows, count: int, usable: Container[str] | Mapping[str, object]
) -> list[int]:
    """Returns up to `count` keyframes with boxes, as `split.keyframes` counts them.

    Each is the one with the classes that were shown least, in a video that was shown least.

    Args:
      split: the rows.
      count: how many.
      usable: the video ids that can be shown.
    """
    ids, action, counts = np.unique(split.action, return_inverse=True, return_counts=True)
    shown_class = np.zeros(len(ids))
    # Rare classes come first, while all their videos are still to be shown.
    weight_of_class = np.where(ids == NO_NUMBER, 0.0, 1.0 + 1.0 / counts)
    can_show = np.array([video_id in usable for video_id in split.video_ids], bool)
    rows = np.flatnonzero(split.has_box & can_show[split.video]) if len(split.row) else []
    if not len(rows):
        return []
    frames, action = split.keyframes, action[rows]
    # A row of each (keyframe, class): a class counts once, however many people do it.
    pairs = np.unique(np.column_stack([frames.of_row[rows], action]), axis=0)
    frame, action = pairs[:, 0], pairs[:, 1]
    shown_video = np.zeros(len(split.video_ids))
    # Between equals chance decides, always the same way, rather than the file's order.
    tie = np.random.default_rng(0).random(len(frames)) * 1e-6
    free, chosen = np.zeros(len(frames), bool), []
    free[frame] = True
    while free.any() and len(chosen) < count:
        novelty = weight_of_class[action] / (1.0 + shown_class[action]) ** 2
        score = np.bincount(frame, novelty, minlength=len(frames)) + tie
        score /= (1.0 + shown_video[frames.video]) ** 2
        best = int(np.argmax(np.where(free, score, -1.0)))
        chosen.append(best)
        free[best] = False
        shown_video[frames.video[best]] += 1
        shown_class[action[frame == best]] += 1
    return sorted(chosen)
