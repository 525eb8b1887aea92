# SPDX-License-Identifier: Apache-2.0
"""The forms that can be imported. A new one is a module with `read`, and a line here."""

from collections.abc import Callable, Mapping

from object_detection_ext.importers import (
    act_tubes,
    coco,
    cvat,
    jhmdb,
    label_studio,
    model,
    ucf101_24,
    via,
)

# From the path of a file or folder, as the user gave it.
Importer = Callable[[str, model.ReadOptions], model.Source]

IMPORTERS: Mapping[str, Importer] = {
    "cvat": cvat.read,
    "via": via.read,
    "label_studio": label_studio.read,
    "coco": coco.read,
    "ucf101_24": ucf101_24.read,
    "jhmdb": jhmdb.read,
    "multisports": act_tubes.read,
}


def read_all(form: str, paths, options: model.ReadOptions) -> model.Source:
    """Reads files of one form into one source.

    Args:
        form: a key of `IMPORTERS`.
        paths: of the files.
        options: for the importer.

    Raises:
        model.ImportFault: if one cannot be used.
    """
    whole = model.Source()
    for path in paths:
        found = IMPORTERS[form](path, options)
        whole.videos += found.videos
        whole.add_labels(found.labels)
        for text, count in found.notes.items():
            whole.notes[text] += count
        splits = dict(whole.splits)
        for number, (train, val) in found.splits.items():
            before = splits.get(number, (frozenset(), frozenset()))
            splits[number] = before[0] | train, before[1] | val
        whole.splits = splits
    return whole
