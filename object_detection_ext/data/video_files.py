# SPDX-License-Identifier: Apache-2.0
"""Videos of a folder by their id, as annotations name them."""

import os
from collections.abc import Iterator, Mapping

from object_detection_ext import files
from object_detection_ext.data import video_reader

# Files with these extensions are videos that somebody meant. (Whether a file can be read is another
# matter: FFmpeg also takes text and pictures for videos.)
EXTENSIONS = frozenset(
    ".3gp .asf .avi .flv .gif .m2ts .m4v .mkv .mov .mp4 .mpeg .mpg .mts .ogv .ts .vob .webm "
    ".wmv".split()
)


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
    for root, names in files.system_of(folder).walk(folder):
        below = os.path.relpath(root, folder)
        if below == "." or not any(part.startswith(".") for part in below.split(os.sep)):
            yield root, names


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
