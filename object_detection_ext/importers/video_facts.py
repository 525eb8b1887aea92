# SPDX-License-Identifier: Apache-2.0
"""What the videos themselves say: size as shown, and the time of every frame."""

import collections
import dataclasses
import os
from collections.abc import Iterator

import numpy as np

from object_detection_ext.ava import video_ids
from object_detection_ext.data import frame_times, video_files, video_reader
from object_detection_ext.data.video_info import VideoInfo
from object_detection_ext.data.video_windows import Window
from object_detection_ext.importers import model


@dataclasses.dataclass(frozen=True)
class Facts:
    """What is known of a video; without the file no more than its id.

    Attributes:
        video_id: as in the CSV.
        path: of the file.
        size: (width, height) in pixels as shown.
        times: float64, ascending, the seconds at which each frame is shown.
    """

    video_id: str
    path: str | None = None
    size: tuple[int, int] | None = None
    times: np.ndarray | None = None


class NoSuchVideo(model.ImportFault):
    """There is no file of a video that the annotations name."""


def without_extension(name: str) -> str:
    """A video's name without the extension of a video; other dots stay."""
    stem, extension = os.path.splitext(name)
    return stem if extension.lower() in video_files.EXTENSIONS else name


class Library:
    """The videos below a folder, found by the names that annotation files give them."""

    def __init__(self, folder: str, frames_fps: float | None = None):
        """Looks at the names of all files below.

        Args:
            folder: of the videos.
            frames_fps: frames per second of folders of numbered frames; None where these are not
                videos.

        Raises:
            model.ImportFault: if there is no such folder.
        """
        if not os.path.isdir(folder):
            raise model.ImportFault(f"--videos: {folder}: there is no such folder.")
        self._folder = folder
        self._index = video_files.VideoIndex(folder, frames_fps)

    def facts(self, name: str) -> Facts:
        """Reads the header, the packets' times and the first frame of a video.

        Raises:
            NoSuchVideo: if there is none of this name.
            VideoError: if it cannot be read, or there are several.
        """
        key = next((k for k in _keys(name) if self._index.candidates(k)), None)
        if key is None:
            raise NoSuchVideo(f"{self._folder}: no video '{name}' in it or its folders.")
        info = video_files.find_video(key, self._index)
        times = frame_times.frame_times(info)
        return Facts(self._video_id(info.path), info.path, _shown_size(info), times)

    def _video_id(self, path: str) -> str:
        """The file's name without its extension, or its path below the folder if two have it."""
        below = without_extension(os.path.relpath(path, self._folder))
        name = os.path.basename(below)
        return video_ids.same_id(name if len(self._index.candidates(name)) == 1 else below)


def _keys(name: str) -> Iterator[str]:
    """What a video of this name may be called in the folder, the most exact first."""
    name = name.replace("\\", "/").lstrip("/")
    for whole in (name, os.path.basename(name)):
        yield whole
        yield without_extension(whole)


def _shown_size(info: VideoInfo) -> tuple[int, int]:
    """(width, height) of the first frame as players show it."""
    reader = video_reader.FrameReader(info, threads=1)
    for _ in reader.windows([Window(np.zeros(1), (0,))]):
        pass
    height, width = reader.shape
    return width, height


def ids_without_files(videos: list[model.SourceVideo]) -> list[Facts]:
    """Facts of videos without files: an id each, of the name or, if two share it, the path.

    Raises:
        model.ImportFault: if one has no name.
    """
    shown = [video_ids.same_id(video.name).replace("\\", "/").strip("/") for video in videos]
    paths = [without_extension(name) for name in shown]
    names = [os.path.basename(path) for path in paths]
    counts = collections.Counter(names)
    ids = [n if counts[n] == 1 else p for n, p in zip(names, paths, strict=True)]
    for video, video_id in zip(videos, ids, strict=True):
        if not video_id:
            raise model.ImportFault(f"{video.file}: a video has no name.")
    return [Facts(video_id) for video_id in ids]
