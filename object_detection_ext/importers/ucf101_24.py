# SPDX-License-Identifier: Apache-2.0
"""UCF101-24: the corrected annotations (`pyannot.pkl`), or those in ACT's form (`UCF101v2-GT.pkl`).

`pyannot.pkl` has for each video (`Basketball/v_Basketball_g01_c01`) `numf`, `label` and
`annotations`: tubes with `label`, `sf` and `ef` (frames from 0, `ef` not included) and `boxes`
[ef - sf, 4] of x, y, width, height in pixels of 320x240. A class is called as its folder.

Source: github.com/gurkirt/corrected-UCF101-Annots, and its reader in
realtime-action-detection's `data/ucf24.py`.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from object_detection_ext import listing
from object_detection_ext.importers import act_tubes, model, plain_pickle

_SIZE = (320, 240)


def read(path: str, options: model.ReadOptions) -> model.Source:
    """Reads a file; nothing in it is executed.

    Raises:
        model.ImportFault: if it holds anything but data, or something is not in its form, with
            the video.
    """
    content = plain_pickle.read(path)
    if act_tubes.is_of_this_form(content):
        return act_tubes.source_of(content, path, options)
    if not isinstance(content, dict) or not content:
        raise model.ImportFault(f"{path}: it is {type(content).__name__}; it must be a dictionary.")
    source, names = model.Source(), {}
    for key in sorted(content, key=str):
        video = _video(str(key), content[key], path, names)
        source.videos.append(video)
    source.add_labels(names[label] for label in sorted(names))
    return source


def _video(key: str, node: Any, path: str, names: dict[int, str]) -> model.SourceVideo:
    where = f"{path}: video '{key}'"
    tubes = act_tubes.item(node, "annotations", (list, tuple), where)
    num_frames = act_tubes.whole(act_tubes.item(node, "numf", object, where), f"{where}: 'numf'")
    width, height = _SIZE
    video = model.SourceVideo(key, path, width=width, height=height, num_frames=num_frames)
    for number, tube in enumerate(tubes):
        _add_tube(video, tube, number, where, names)
    return video


def _add_tube(video: model.SourceVideo, tube: Mapping, number: int, where: str, names) -> None:
    place = f"video '{video.name}', tube {number}"
    here = f"{where}, tube {number}"
    first, end, label = (
        act_tubes.whole(act_tubes.item(tube, name, object, here), f"{here}: '{name}'")
        for name in ("sf", "ef", "label")
    )
    folder = video.name.rpartition("/")[0].rpartition("/")[2]
    if not folder:
        raise model.ImportFault(f"{where}: it has no folder, which names its class.")
    if names.setdefault(label, folder) != folder:
        raise model.ImportFault(
            f"{here}: label {label} is '{folder}', but was '{names[label]}' before."
        )
    boxes = act_tubes.array(act_tubes.item(tube, "boxes", object, here), 4, f"{here}: 'boxes'")
    if len(boxes) != end - first:
        raise model.ImportFault(
            f"{here}: {listing.counted(len(boxes), 'box', 'boxes')} for frames {first} to {end} "
            f"(sf, ef); there must be {end - first}."
        )
    corners = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)
    for frame, box in enumerate(corners.tolist(), start=first):
        video.marks.append(model.Mark(tuple(box), (folder,), place, frame=frame, person=number))
