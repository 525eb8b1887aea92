# SPDX-License-Identifier: Apache-2.0
"""Action tubes: boxes of one class, one per keyframe, as arrays of many tubes.

Shapes: T tubes, R boxes of all tubes, N rows that tubes are made of.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Tubes:
    """T tubes, ordered by video, class and first keyframe; without gaps.

    Attributes:
        video: int64 [T], the number of its video.
        classes: int64 [T], ids of the label map.
        scores: float64 [T], the mean of its boxes' scores.
        starts: int64 [T + 1], where its boxes start; the last one is R.
        moment: int64 [R], the number of each box's keyframe; 1 more than that of the box before.
        boxes: float64 [R, 4], [ymin, xmin, ymax, xmax], normalized.
        box_scores: float64 [R], interpolated where the box is.
        is_found: bool [R], false for interpolated boxes.
    """

    video: np.ndarray
    classes: np.ndarray
    scores: np.ndarray
    starts: np.ndarray
    moment: np.ndarray
    boxes: np.ndarray
    box_scores: np.ndarray
    is_found: np.ndarray

    def __len__(self) -> int:
        return len(self.video)

    @property
    def lengths(self) -> np.ndarray:
        """Number of keyframes of each tube, int64 [T]."""
        return np.diff(self.starts)

    @property
    def first(self) -> np.ndarray:
        """Number of the first keyframe of each tube, int64 [T]."""
        return self.moment[self.starts[:-1]]

    @property
    def last(self) -> np.ndarray:
        """Number of the last keyframe of each tube, int64 [T]."""
        return self.moment[self.starts[1:] - 1]

    @property
    def tube_of_box(self) -> np.ndarray:
        """Which tube each box belongs to, int64 [R]."""
        return np.repeat(np.arange(len(self)), self.lengths)

    def only(self, chosen: np.ndarray) -> "Tubes":
        """The tubes where `chosen`, bool [T], is true."""
        kept = np.repeat(chosen, self.lengths)
        return Tubes(
            self.video[chosen],
            self.classes[chosen],
            self.scores[chosen],
            np.concatenate([[0], np.cumsum(self.lengths[chosen])]),
            self.moment[kept],
            self.boxes[kept],
            self.box_scores[kept],
            self.is_found[kept],
        )


def make_tubes(
    tube: np.ndarray,
    video: np.ndarray,
    classes: np.ndarray,
    moment: np.ndarray,
    boxes: np.ndarray,
    scores: np.ndarray,
    is_found: np.ndarray | None = None,
) -> Tubes:
    """Puts rows together to tubes; boxes and scores of missing keyframes are interpolated.

    Args:
        tube: int [N], which tube a row belongs to; any numbers.
        video: int [N], the same for all rows of a tube.
        classes: int [N], the same for all rows of a tube.
        moment: int [N], numbers of keyframes, different ones for the rows of a tube.
        boxes: float [N, 4].
        scores: float [N].
        is_found: bool [N], false for boxes that were interpolated before; None: all are found.

    Returns:
        Tubes of the rows; one that has no found box is left out.
    """
    found = np.ones(len(tube), bool) if is_found is None else is_found
    order = np.lexsort((moment, tube))
    tube, moment, found = tube[order], moment[order], found[order]
    is_first = np.ones(len(tube), bool)
    is_first[1:] = tube[1:] != tube[:-1]
    first = np.flatnonzero(is_first)
    # Each row, but for the last one of a tube, stands for the keyframes up to the next row.
    repeats = np.ones(len(tube), np.int64)
    repeats[:-1] = np.where(is_first[1:], 1, np.diff(moment))
    row = np.repeat(np.arange(len(tube)), repeats)
    past = np.arange(len(row)) - np.repeat(np.cumsum(repeats) - repeats, repeats)
    share = (past / repeats[row])[:, np.newaxis]
    values = np.column_stack([boxes[order], scores[order]])
    following = np.minimum(row + 1, len(tube) - 1)
    values = np.where(share > 0, values[row] * (1 - share) + values[following] * share, values[row])
    filled_found = found[row] & (past == 0)
    starts = np.append((np.cumsum(repeats) - repeats)[first], len(row))
    return _ordered(
        video[order][first], classes[order][first], starts, moment[row] + past, values, filled_found
    )


def _ordered(video, classes, starts, moment, values, found) -> Tubes:
    """The tubes with a found box, by video, class and first keyframe; equals in the order given."""
    lengths = np.diff(starts)
    tube = np.repeat(np.arange(len(lengths)), lengths)
    num_found = np.bincount(tube[found], minlength=len(lengths))
    sums = np.bincount(tube[found], values[found, 4], minlength=len(lengths))
    order = np.lexsort((moment[starts[:-1]], classes, video))
    order = order[num_found[order] > 0]
    boxes = _ranges(starts[:-1][order], lengths[order])
    return Tubes(
        video[order],
        classes[order],
        sums[order] / num_found[order],
        np.concatenate([[0], np.cumsum(lengths[order])]),
        moment[boxes],
        values[boxes, :4],
        values[boxes, 4],
        found[boxes],
    )


def _ranges(start: np.ndarray, size: np.ndarray) -> np.ndarray:
    """start[0], start[0] + 1, ..., size[0] of them, then start[1], ..."""
    total = np.cumsum(size)
    return np.arange(total[-1] if len(total) else 0) + np.repeat(start - (total - size), size)
