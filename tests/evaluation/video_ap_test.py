# SPDX-License-Identifier: Apache-2.0
"""Video-AP and frame-AP of tubes: plain loops, hand-computed cases, and what is said of input."""

import dataclasses
import json

import numpy as np
import pytest

from object_detection_ext.evaluation import tube_protocols, video_ap
from object_detection_ext.evaluation.tube_protocols import TUBE_PROTOCOLS, Linking
from tests.evaluation import plain_tubes
from tests.evaluation.ava_rows import CATEGORIES, RUN, SIT, TALK

LABEL_MAP = "".join(f'item {{ name: "{c["name"]}" id: {c["id"]} }}\n' for c in CATEGORIES)
BOX = (0.1, 0.1, 0.9, 0.5)  # [ymin, xmin, ymax, xmax]


def _write(tmp_path, truth, found, listed=(), spacing=1.0):
    """Files of entries (video, keyframe, box, class, person or score); their paths."""

    def row(video, keyframe, box, class_id, last):
        ymin, xmin, ymax, xmax = box
        return f"{video},{keyframe * spacing:g},{xmin},{ymin},{xmax},{ymax},{class_id},{last}\n"

    paths = [str(tmp_path / name) for name in ("l.pbtxt", "g.csv", "d.csv")]
    empty = "".join(f"{video},{keyframe * spacing:g}\n" for video, keyframe in listed)
    texts = (LABEL_MAP, empty + "".join(row(*e) for e in truth), "".join(row(*e) for e in found))
    for path, text in zip(paths, texts, strict=True):
        with open(path, "w") as file:
            file.write(text)
    return paths


def _evaluate(tmp_path, truth, found, listed=(), protocol="general", spacing=1.0, **changes):
    changed = tube_protocols.changed(protocol, **changes)
    paths = _write(tmp_path, truth, found, listed, spacing)
    return video_ap.evaluate_files(*paths, protocol=changed)


def _at(result, threshold, class_id=SIT):
    classes = result.video[threshold].classes
    return next(entry for entry in classes if entry.id == class_id)


# --- Plain loops ----------------------------------------------------------------------------------


def _random_box(rng):
    low = rng.integers(0, 20, 2) / 40
    return np.concatenate([low, low + rng.integers(12, 20, 2) / 40])


def _moved(rng, box):
    moved = np.clip(box + rng.integers(-1, 2, 4) / 40, 0, 1)
    return moved if (moved[2:] > moved[:2]).all() else box


def _walk(rng, box, keyframes, miss):
    """Boxes that move a little, some keyframes missing."""
    for keyframe in keyframes:
        box = _moved(rng, box)
        if rng.random() >= miss:
            yield keyframe, box


def _random_case(rng, videos=3, keyframes=12):
    """(truth, found, listed) with gaps, equal scores, people who overlap, empty videos.

    Of RUN there is ground truth in one case of two only.
    """
    truth, found = [], []
    listed = [(f"v{v}", k) for v in range(videos + 1) for k in range(keyframes)]
    classes = [SIT, TALK, RUN] if rng.random() < 0.5 else [SIT, TALK]
    for video in (f"v{v}" for v in range(videos)):  # the last one is empty
        for person in range(rng.integers(0, 4)):
            start = rng.integers(0, keyframes - 3)
            span = range(start, rng.integers(start + 1, keyframes))
            class_id = rng.choice(classes)
            for keyframe, box in _walk(rng, _random_box(rng), span, miss=0.15):
                truth.append((video, keyframe, tuple(box), class_id, person))
                for _ in range(rng.choice([0, 1, 1, 1, 2])):
                    guess = class_id if rng.random() < 0.8 else rng.choice([SIT, TALK, RUN])
                    score = rng.integers(0, 6) / 5
                    found.append((video, keyframe, tuple(_moved(rng, box)), guess, score))
    for video, keyframe in listed:
        if rng.random() < 0.2:
            box, class_id = tuple(_random_box(rng)), rng.choice([SIT, TALK, RUN])
            found.append((video, keyframe, box, class_id, rng.random()))
    found.sort(key=lambda entry: entry[:2])
    return truth, found, listed


_LINKINGS = {
    "default": Linking(),
    "no gaps": Linking(min_iou=0.5, max_gap=0),
    "suppressed boxes": Linking(box_nms_iou=0.5, max_boxes=2, min_keyframes=3),
    "suppressed tubes": Linking(min_iou=0.2, max_gap=3, tube_nms_iou=0.3, min_score=0.3),
}


@pytest.mark.parametrize("linking", _LINKINGS.values(), ids=_LINKINGS)
@pytest.mark.parametrize("name", TUBE_PROTOCOLS)
def test_it_agrees_with_plain_loops(tmp_path, name, linking):
    # Equal scores of boxes follow the file; those of tubes video, class and first keyframe.
    protocol = dataclasses.replace(
        tube_protocols.by_name(name),
        linking=linking,
        video_ious=tube_protocols.parse_thresholds("0.2,0.5,0.75,0.5:0.95"),
    )
    rng, compared, right = np.random.default_rng(3), 0, 0
    for _ in range(10):
        truth, found, listed = _random_case(rng)
        if not truth:
            continue
        paths = _write(tmp_path, truth, found, listed, spacing=rng.choice([1.0, 0.04, 0.5]))
        result = video_ap.evaluate_files(*paths, protocol=protocol)
        for place, entry in enumerate(result.frame_classes):
            wanted = plain_tubes.frame_ap(truth, found, entry.id, protocol)
            assert entry.average_precision == pytest.approx(wanted, abs=1e-9)
            for threshold, video_result in result.video.items():
                wanted = plain_tubes.video_ap(truth, found, entry.id, threshold, protocol)
                own = video_result.classes[place]
                assert own.average_precision == pytest.approx(wanted, abs=1e-9)
                compared += 1
                right += own.true_positives
    assert compared > 150
    assert right > 100  # not all of them zero
