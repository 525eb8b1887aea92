# SPDX-License-Identifier: Apache-2.0
"""Videos of a folder by their id, as annotations name them."""

import os
from collections.abc import Iterable, Iterator, Mapping

from object_detection_ext import files
from object_detection_ext.data import video_info, video_probe

# Files with these extensions are videos that somebody meant. (Whether a file can be read is another
# matter: FFmpeg also takes text and pictures for videos.)
EXTENSIONS = frozenset(
    ".3gp .asf .avi .flv .gif .m2ts .m4v .mkv .mov .mp4 .mpeg .mpg .mts .ogv .ts .vob .webm "
    ".wmv".split()
)
_PICTURE_EXTENSIONS = frozenset(".avif .bmp .heic .heif .jpeg .jpg .png .tif .tiff .webp".split())


def index_videos(folder: str | os.PathLike) -> dict[str, list[str]]:
    """Returns the files below a folder by video id, with any extension, hidden ones left out.

    A file answers to its name and to its path below the folder, with and without its extension. Of
    links to one file under one id the first is kept.
    """
    found: dict[str, list[str]] = {}
    known: set[tuple[str, str]] = set()
    for root, names in _walk(os.fspath(folder)):
        for name in sorted(n for n in names if not n.startswith(".")):
            path = os.path.join(root, name)
            below = os.path.relpath(path, folder)
            file = same_file(path)
            for key in {name, os.path.splitext(name)[0], below, os.path.splitext(below)[0]}:
                if (key, file) not in known:
                    known.add((key, file))
                    found.setdefault(key, []).append(path)
    return found


def same_file(path: str) -> str:
    """Returns what is equal for all links to one file."""
    return os.path.realpath(path) if files.is_local(path) else path


def candidates(paths: Iterable[str]) -> list[str]:
    """Returns those files that may be the video, of all that answer to an id.

    Pictures are none, though FFmpeg reads them: phones and cameras put one beside each video.
    Files with the extension of a video go before all others.
    """
    extensions = {path: os.path.splitext(path)[1].lower() for path in paths}
    videos = [path for path in extensions if extensions[path] in EXTENSIONS]
    return videos or [path for path in extensions if extensions[path] not in _PICTURE_EXTENSIONS]


def _walk(folder: str) -> Iterator[tuple[str, list[str]]]:
    """Yields (folder, names of its files) of a folder and all below; hidden folders left out."""
    for root, names in files.system_of(folder).walk(folder):
        below = os.path.relpath(root, folder)
        if below == "." or not any(part.startswith(".") for part in below.split(os.sep)):
            yield root, names


def find_video(video_id: str, index: Mapping[str, list[str]], folder: str) -> video_info.VideoInfo:
    """Returns the VideoInfo of the one readable video with this id.

    Raises:
      video_info.VideoError: if there is none, or more than one.
    """
    paths = candidates(index.get(video_id, []))
    if not paths:
        raise video_info.VideoError(
            f"{folder}: no video file {video_id}.* in it or its folders; name the video after its "
            "id"
        )
    readable, problems = [], []
    for path in paths:
        try:
            readable.append(video_probe.probe(path))
        except video_info.VideoError as error:
            problems.append(error)
    if not readable:
        raise problems[0]
    if len(readable) > 1:
        paths = ", ".join(info.path for info in readable)
        raise video_info.VideoError(f"more than one video has this id, keep one: {paths}")
    return readable[0]
