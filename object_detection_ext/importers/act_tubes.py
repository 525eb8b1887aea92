# SPDX-License-Identifier: Apache-2.0
"""MultiSports' `multisports_GT.pkl`, and all other files in the form of ACT's ground truth.

A dictionary of `labels` (names, in order), `gttubes` (by video, by label from 0: arrays of frame
from 1, x1, y1, x2, y2 in pixels), `nframes` and `resolution` (height, width) by video, and
`train_videos` and `test_videos`, lists with one list of videos for each split. UCF101v2-GT.pkl and
JHMDB-GT.pkl are in this form.

Sources: github.com/MCG-NJU/MultiSports, and the README of ACT (vkalogeiton/caffe, act-detector).
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from object_detection_ext.importers import model, plain_pickle

_KEYS = ("labels", "gttubes", "nframes", "resolution")


def read(path: str, options: model.ReadOptions) -> model.Source:
    """Reads a file; nothing in it is executed.

    Raises:
        model.ImportFault: if it holds anything but data, or something is not in its form, with
            the video.
    """
    return source_of(plain_pickle.read(path), path, options)


def is_of_this_form(content: Any) -> bool:
    """Whether it has this form's dictionary keys."""
    return isinstance(content, dict) and "gttubes" in content


def source_of(content: Any, path: str, _: model.ReadOptions) -> model.Source:
    """As `read`, of what was read already."""
    where = f"{path}: file"
    labels, tubes, num_frames, sizes = (item(content, key, object, where) for key in _KEYS)
    if not isinstance(labels, list | tuple) or not all(isinstance(n, str) for n in labels):
        raise model.ImportFault(f"{path}: 'labels' must be a list of names.")
    source = model.Source(splits=_splits(content, path))
    source.add_labels(labels)
    if not isinstance(tubes, dict):
        raise model.ImportFault(f"{path}: 'gttubes' must be a dictionary by video.")
    for name in sorted(tubes, key=str):
        place = f"{path}: video '{name}'"
        size = array(item(sizes, name, object, f"{path}: 'resolution'"), 2, f"{place}: resolution")
        height, width = size.reshape(-1, 2)[0].tolist()
        count = whole(item(num_frames, name, object, f"{path}: 'nframes'"), f"{place}: nframes")
        video = model.SourceVideo(str(name), path, model.PIXELS, int(width), int(height), count)
        _add_tubes(video, tubes[name], labels, place)
        source.videos.append(video)
    return source


def _add_tubes(video: model.SourceVideo, by_label: Any, labels, place: str) -> None:
    if not isinstance(by_label, dict):
        raise model.ImportFault(f"{place}: its tubes must be a dictionary by label.")
    person = 0
    for label, tubes in by_label.items():
        index = whole(label, f"{place}: label")
        if index >= len(labels):
            raise model.ImportFault(f"{place}: label {index}; there are {len(labels)} (from 0).")
        if not isinstance(tubes, list | tuple):
            raise model.ImportFault(f"{place}: the tubes of a label must be a list.")
        for tube in tubes:
            for row in array(tube, 5, f"{place}, tube of '{labels[index]}'").tolist():
                frame = whole(row[0], f"{place}: frame")
                where = f"video '{video.name}', frame {frame}"
                video.marks.append(model.Mark(tuple(row[1:]), (labels[index],), where,
                                              frame=frame - 1, person=person))  # fmt: skip
            person += 1


def _splits(content: Mapping, path: str) -> dict[int, tuple[frozenset[str], frozenset[str]]]:
    both = [content.get(key) or [] for key in ("train_videos", "test_videos")]
    is_list = all(isinstance(lists, list | tuple) for lists in both)
    if (
        not is_list
        or len(both[0]) != len(both[1])
        or not all(isinstance(names, list | tuple) for lists in both for names in lists)
    ):
        raise model.ImportFault(
            f"{path}: 'train_videos' and 'test_videos' must be lists, with a list for each split."
        )
    return {
        number: (frozenset(map(str, train)), frozenset(map(str, test)))
        for number, (train, test) in enumerate(zip(*both, strict=True), start=1)
    }


def item(node: Any, key: Any, kind: type | tuple[type, ...], where: str) -> Any:
    """An entry of a dictionary of a pickle.

    Raises:
        model.ImportFault: if it is missing or of another kind.
    """
    if not isinstance(node, dict):
        raise model.ImportFault(f"{where}: it is {type(node).__name__}; it must be a dictionary.")
    if key not in node:
        raise model.ImportFault(f"{where}: '{key}' is missing.")
    if not isinstance(node[key], kind):
        raise model.ImportFault(f"{where}: '{key}' is {type(node[key]).__name__}.")
    return node[key]


def whole(value: Any, where: str) -> int:
    """A whole number that is not negative, of Python or NumPy.

    Raises:
        model.ImportFault: if it is not one.
    """
    try:
        number = float(np.asarray(value).item())
        is_whole = number == int(number) and 0 <= number <= model.MAX_FRAMES
    except (TypeError, ValueError, OverflowError):
        is_whole = False
    if not is_whole:
        raise model.ImportFault(f"{where} is {str(value)[:40]!r}; it must be a whole number.")
    return int(number)


def array(value: Any, columns: int, where: str) -> np.ndarray:
    """Finite numbers [N, columns], float64.

    Raises:
        model.ImportFault: if they are not.
    """
    try:
        numbers = np.asarray(value, np.float64)
    except (TypeError, ValueError):
        numbers = np.empty(0)
    if numbers.ndim == 1 and len(numbers) == columns:
        numbers = numbers[None]
    if numbers.ndim != 2 or numbers.shape[1] != columns or not np.isfinite(numbers).all():
        raise model.ImportFault(f"{where}: it must be rows of {columns} finite numbers.")
    return numbers
