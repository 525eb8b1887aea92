# SPDX-License-Identifier: Apache-2.0
"""People's boxes of PySlowFast and MMAction2: box CSVs of AVA, and proposals.

A row of a box CSV is `video,second,x1,y1,x2,y2,label,score`, normalized; the label is empty where a
box has none, and a box with several labels has a row for each. Proposals are a pickle: by
`video,second` rows of x1, y1, x2, y2, score.

Sources: `slowfast/datasets/ava_helper.py` of facebookresearch/SlowFast (columns; boxes below
DETECTION_SCORE_THRESH are passed over) and its DATASET.md; MMAction2's page on AVA's proposals.
"""

import dataclasses
import math
from collections.abc import Iterator, Sequence

import numpy as np

from object_detection_ext import listing, printable
from object_detection_ext.ava import columns, csv_text, faults, timestamps
from object_detection_ext.importers import model, plain_pickle

_COLUMNS = "video,second,x1,y1,x2,y2,label,score"
# Corners of detectors stick out by rounding; more than this is not normalized.
_TOLERANCE = 0.01


@dataclasses.dataclass(slots=True)
class PersonBoxes:
    """People's boxes of moments of videos.

    Attributes:
        boxes: by (video, seconds), (x1, y1, x2, y2) normalized, each once; an empty list where
            none is certain enough.
        num_read: boxes in the file, each once.
        num_below: of these, those below the threshold.
        num_cut: of these, those of which a side was cut off at the frame.
        notes: what was unusual about the file.
    """

    boxes: dict[tuple[str, float], list[tuple[float, ...]]]
    num_read: int = 0
    num_below: int = 0
    num_cut: int = 0
    notes: tuple[faults.Note, ...] = ()


def read_boxes(path: str, score_threshold: float) -> PersonBoxes:
    """Reads a box CSV, or proposals (`.pkl`).

    Args:
        path: the file.
        score_threshold: boxes below it are left out; their moments stay.

    Raises:
        model.ImportFault: if the file is not of this form, or has no scores, with the rows.
    """
    if not 0 <= score_threshold <= 1:
        raise model.ImportFault(f"--score_threshold is {score_threshold:g}; it must be in [0, 1].")
    notes = faults.Notes()
    is_pickle = path.endswith((".pkl", ".pickle"))
    rows = list(_proposals(path) if is_pickle else _csv_rows(path, notes))
    if not rows:
        raise model.ImportFault(f"{path}: it has no rows; each is {_COLUMNS}.")
    found = PersonBoxes({}, notes=tuple(notes.all()))
    seen: set[tuple] = set()
    for video, seconds, box, score in rows:
        kept = found.boxes.setdefault((video, seconds), [])
        if box is None or (video, seconds, box) in seen:
            continue
        seen.add((video, seconds, box))
        found.num_read += 1
        if score < score_threshold:
            found.num_below += 1
            continue
        cut = tuple(min(max(side, 0.0), 1.0) for side in box)
        found.num_cut += cut != box
        kept.append(cut)
    return found


def _csv_rows(path: str, notes: faults.Notes) -> Iterator[tuple]:
    """Yields (video, seconds, box, score); box is None in a row of two columns."""
    layout = csv_text.layout(path, columns.DETECTIONS)
    bad, rows = [], []
    for row in csv_text.rows(path, layout, notes):
        try:
            rows.append(_row(row.fields))
        except ValueError as error:
            bad.append(f"{path}:{row.line}: {printable.in_one_line(error)}")
    model.raise_faults(bad, f"{path}: bad rows, each must be {_COLUMNS}")
    _check_scores(path, [row[3] for row in rows if row[2] is not None])
    return iter(rows)


def _row(fields: Sequence[str] | None) -> tuple:
    """(video, seconds, box, score) of a row.

    Raises:
        ValueError: if it is not one, with the reason.
    """
    if fields is None:
        raise ValueError("quotation marks that do not pair")
    if not fields[0]:
        raise ValueError("the video is empty")
    if len(fields) < 2:
        raise ValueError("1 column")
    if len(fields) == 2 or not any(fields[2:]):
        return fields[0], _seconds(fields[1]), None, 0.0
    if len(fields) == 7 or (len(fields) == 8 and not fields[7]):
        raise ValueError("there is no score in column 8, so no threshold can be applied")
    if len(fields) != 8:
        raise ValueError(listing.counted(len(fields), "column"))
    names = ("x1", "y1", "x2", "y2")
    box = tuple(_number(fields[2 + i], name) for i, name in enumerate(names))
    _check_box(box)
    return fields[0], _seconds(fields[1]), box, _number(fields[7], "score")


def _seconds(text: str) -> float:
    try:
        return timestamps.parse(text)
    except ValueError as error:
        raise ValueError(f"second is {text!r}; {error}") from None


def _number(text: str, name: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"{name} is {text!r}; it must be a number")
    return value


def _check_box(box: Sequence[float]) -> None:
    if min(box) < -_TOLERANCE or max(box) > 1 + _TOLERANCE:
        raise ValueError(f"box {', '.join(map(str, box))}: it must be normalized to [0, 1]")
    if box[0] >= box[2] or box[1] >= box[3]:
        raise ValueError(f"box {', '.join(map(str, box))}: x1 must be less than x2, y1 than y2")


def _check_scores(path: str, scores: Sequence[float]) -> None:
    """Raises model.ImportFault for a last column that is not scores, as in AVA's ground truth."""
    outside = [score for score in scores if not 0 <= score <= 1]
    if not outside:
        return
    if all(score == int(score) for score in scores):
        raise model.ImportFault(
            f"{path}: the last column has whole numbers such as {outside[0]:g}: person ids, as in "
            "AVA's annotations, not scores. All boxes of such a file count: give it to "
            "--person_boxes as it is."
        )
    raise model.ImportFault(f"{path}: a score is {outside[0]:g}; scores are in [0, 1].")


def _proposals(path: str) -> Iterator[tuple]:
    content = plain_pickle.read(path)
    if not isinstance(content, dict):
        raise model.ImportFault(f"{path}: it must be a dictionary by 'video,second'.")
    bad, rows = [], []
    for key, value in content.items():
        try:
            moment = timestamps.read_frame(str(key))
            boxes = np.asarray(value, np.float64).reshape(-1, 5)
            rows.append((*moment, None, 0.0))
            for *box, score in boxes.tolist():
                _check_box(box)
                if not 0 <= score <= 1:
                    raise ValueError(f"score {score:g}; it must be in [0, 1]")
                rows.append((*moment, tuple(box), score))
        except (ValueError, TypeError) as error:
            bad.append(f"'{printable.in_one_line(key)}': {printable.in_one_line(error)}")
    model.raise_faults(bad, f"{path}: bad proposals, each must be rows of x1, y1, x2, y2, score")
    return iter(rows)
