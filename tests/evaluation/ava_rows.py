# SPDX-License-Identifier: Apache-2.0
"""AVA rows from tuples, and random ones; boxes are [ymin, xmin, ymax, xmax], normalized."""

import numpy as np

from object_detection_ext.ava import tables
from object_detection_ext.evaluation import ava_ap, matching

CATEGORIES = [{"id": 2, "name": "sit"}, {"id": 5, "name": "talk"}, {"id": 9, "name": "run"}]
SIT, TALK, RUN = 2, 5, 9


def ava_rows(entries, frames=()) -> tables.AvaRows:
    """Entries are (video, seconds, box, class id, score); `frames` are listed without boxes."""
    listed = list(dict.fromkeys([*frames, *((e[0], e[1]) for e in entries)]))
    number = {frame: index for index, frame in enumerate(listed)}
    rows = tables.LabelledBoxes(
        np.array([number[e[0], e[1]] for e in entries], np.int64),
        np.array([e[2] for e in entries], np.float64).reshape(-1, 4),
        np.array([e[3] for e in entries], np.int64),
        np.array([e[4] for e in entries], np.float64),
    )
    return tables.AvaRows("rows", listed, rows, np.arange(len(rows)) + 1, len(rows))


def ground_truth_rows(entries, frames=()) -> tables.AvaRows:
    """As `ava_rows`, of entries without scores."""
    return ava_rows([(*entry, 1.0) for entry in entries], frames)


def match(ground_truth, detections, iou_threshold=0.5, **options) -> matching.Matching:
    """`match_all` of what `ava_ap.select` leaves with these options."""
    rows = ava_ap.select(ground_truth, detections, CATEGORIES, **options)
    return matching.match_all(rows, CATEGORIES, iou_threshold)


def random_case(rng, videos=4, seconds=3):
    """(ground truth, detections) with equal boxes, equal scores and overlaps on both sides of 0.5.

    Boxes lie on a coarse grid; of the class RUN there is ground truth in one video alone.
    """
    frames = [(f"v{v}", s) for v in range(videos) for s in range(seconds)]
    truth, found = [], []
    for video, second in frames:
        for _ in range(rng.integers(0, 4)):
            box = _random_box(rng)
            classes = [SIT, TALK, RUN] if video == "v0" else [SIT, TALK]
            for class_id in rng.choice(classes, rng.integers(1, 3), replace=False):
                truth.append((video, second, box, class_id))
            for _ in range(rng.integers(0, 3)):
                near = np.clip(box + rng.integers(-1, 2, 4) / 20, 0, 1)
                if (near[2:] > near[:2]).all():
                    score = rng.integers(0, 10) / 9
                    found.append((video, second, near, rng.choice([SIT, TALK, RUN]), score))
        found.append((video, second, _random_box(rng), rng.choice([SIT, TALK, RUN]), rng.random()))
    return ground_truth_rows(truth, frames), ava_rows(found)


def _random_box(rng):
    low = rng.integers(0, 12, 2) / 20
    return np.concatenate([low, low + rng.integers(2, 9, 2) / 20])
