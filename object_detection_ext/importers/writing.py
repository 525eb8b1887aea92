# SPDX-License-Identifier: Apache-2.0
"""The files of an import: CSVs of rows or of people's boxes, and the label map."""

import csv
import io
import os
from collections.abc import Iterable, Mapping, Sequence

from google.protobuf import text_encoding

from object_detection_ext import files
from object_detection_ext.ava import timestamps
from object_detection_ext.importers import label_ids, model

# Of a corner; a thousandth of a pixel of any video.
_DECIMALS = 6


def annotations_text(videos: Iterable[tuple[str, Sequence[label_ids.Row]]]) -> str:
    """Rows `video_id,timestamp,x1,y1,x2,y2,action_id[,person_id]`, or of the first two columns."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    for video_id, rows in videos:
        for row in rows:
            fields = [video_id, timestamps.format_timestamp(row.seconds)]
            if row.box is not None:
                ymin, xmin, ymax, xmax = row.box
                fields += [_corner(side) for side in (xmin, ymin, xmax, ymax)]
                fields += [row.action_id] + ([] if row.person is None else [row.person])
            writer.writerow(fields)
    return text.getvalue()


def person_boxes_text(boxes: Mapping[tuple[str, float], Sequence[Sequence[float]]]) -> str:
    """Rows `video_id,timestamp,x1,y1,x2,y2`, or of two columns where there is nobody."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    for (video, seconds), corners in sorted(boxes.items()):
        moment = [video, timestamps.format_timestamp(seconds)]
        writer.writerows([*moment, *map(_corner, box)] for box in corners)
        if not corners:
            writer.writerow(moment)
    return text.getvalue()


def _corner(side: float) -> str:
    return f"{side:.{_DECIMALS}f}"


def label_map_text(label_map: Mapping[int, str]) -> str:
    """A label map in the stock API's text format."""
    items = (
        f'item {{ id: {number} name: "{text_encoding.CEscape(name.encode(), as_utf8=True)}" }}\n'
        for number, name in label_map.items()
    )
    return "".join(items)


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
