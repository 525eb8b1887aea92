# SPDX-License-Identifier: Apache-2.0
"""The files of an import: CSVs of rows or of people's boxes, and the label map."""

import io
import os
from collections.abc import Iterable, Mapping, Sequence

from object_detection_ext import files
from object_detection_ext.ava import writer
from object_detection_ext.importers import label_ids, model

# Of a corner; a hundredth of a pixel of any video.
_DECIMALS = 6


def annotations_text(videos: Iterable[tuple[str, Sequence[label_ids.Row]]]) -> str:
    """Rows `video_id,timestamp,x1,y1,x2,y2,action_id[,person_id]`, or of the first two columns."""
    text = io.StringIO()
    rows = writer.RowWriter(text, _DECIMALS)
    for video_id, of_video in videos:
        for row in of_video:
            if row.box is None:
                rows.nobody(video_id, row.seconds)
            else:
                rows.annotation(video_id, row.seconds, row.box, row.action_id, row.person)
    return text.getvalue()


def person_boxes_text(boxes: Mapping[tuple[str, float], Sequence[Sequence[float]]]) -> str:
    """Rows `video_id,timestamp,x1,y1,x2,y2`, or of two columns where there is nobody."""
    text = io.StringIO()
    rows = writer.RowWriter(text, _DECIMALS)
    for (video, seconds), corners in sorted(boxes.items()):
        for x1, y1, x2, y2 in corners:
            rows.person_box(video, seconds, (y1, x1, y2, x2))
        if not corners:
            rows.nobody(video, seconds)
    return text.getvalue()


def write_all(folder: str, texts: Mapping[str, str], overwrite: bool) -> list[str]:
    """Writes files into a folder, which is made; returns their paths.

    Args:
        folder: for the files.
        texts: by file name.
        overwrite: whether files with another content are replaced: annotations may have been
            corrected by hand, and a label map have been trained with.

    Raises:
        model.ImportFault: if there is such a file and it must not be replaced.
    """
    paths = {name: os.path.normpath(os.path.join(folder, name)) for name in texts}
    for name, path in paths.items():
        if not overwrite and os.path.exists(path) and _content(path) != texts[name].encode():
            raise model.ImportFault(
                f"{path} is there already, with another content; nothing was written. Give "
                "--overwrite, another --output, or (for the same action ids as before) --label_map."
            )
    os.makedirs(folder, exist_ok=True)
    for name, path in paths.items():
        files.write_text(path, texts[name])
    return list(paths.values())


def _content(path: str) -> bytes:
    if os.path.isdir(path):
        raise model.ImportFault(f"{path} is a folder; a file is to be written there.")
    with open(path, "rb") as file:
        return file.read()
