# SPDX-License-Identifier: Apache-2.0
"""Videos of a folder by their id, as annotations name them."""

import os
from collections.abc import Iterator, Mapping

from object_detection_ext.data import video_reader


def index_videos(folder: str | os.PathLike) -> dict[str, list[str]]:
    """Returns the files below a folder by video id, with any extension, hidden ones left out.

    A file answers to its name and to its path below the folder, with and without its extension.
    """
    found: dict[str, list[str]] = {}
    for root, names in _walk(os.fspath(folder)):
        for name in sorted(n for n in names if not n.startswith(".")):
            path = os.path.join(root, name)
            below = os.path.relpath(path, folder)
            for key in {name, os.path.splitext(name)[0], below, os.path.splitext(below)[0]}:
                found.setdefault(key, []).append(path)
    return found


def _walk(folder: str) -> Iterator[tuple[str, list[str]]]:
    """Yields (folder, names of its files) of a folder and all below; hidden folders left out."""
    if "://" not in folder:
        for root, folders, names in os.walk(folder, followlinks=True):
            folders[:] = sorted(f for f in folders if not f.startswith("."))
            yield root, names
        return
    import tensorflow as tf  # here, so that local folders need not wait for it

    for root, _, names in tf.io.gfile.walk(folder):
        if not any(part.startswith(".") for part in os.path.relpath(root, folder).split(os.sep)[:]
                   if part != "."):  # fmt: skip
            yield root, names


def stamp(path: str) -> str:
    """Returns what changes when the file does: its size and its time of modification."""
    if "://" not in path:
        status = os.stat(path)
        return f"{status.st_size} {status.st_mtime_ns}"
    import tensorflow as tf

    status = tf.io.gfile.stat(path)
    return f"{status.length} {status.mtime_nsec}"


def find_video(
    video_id: str, index: Mapping[str, list[str]], folder: str
) -> video_reader.VideoInfo:
    """Returns the VideoInfo of the one readable video with this id.

    Raises:
      video_reader.VideoError: if there is none, or more than one.
    """
    candidates = index.get(video_id, [])
    if not candidates:
        raise video_reader.VideoError(
            f"{folder}: no file {video_id}.* in it or its folders; name the video after its id"
        )
    readable, problems = [], []
    for path in candidates:
        try:
            readable.append(video_reader.probe(path))
        except video_reader.VideoError as error:
            problems.append(error)
    if not readable:
        raise problems[0]
    if len(readable) > 1:
        paths = ", ".join(info.path for info in readable)
        raise video_reader.VideoError(f"more than one video has this id, keep one: {paths}")
    return readable[0]
