# SPDX-License-Identifier: Apache-2.0
"""Videos of a folder by their id, as annotations name them: files, and folders of frames."""

import collections
import os
from collections.abc import Iterable, Iterator

from object_detection_ext import files
from object_detection_ext.ava import video_ids
from object_detection_ext.data import frame_folders, video_probe
from object_detection_ext.data.video_info import VideoError, VideoInfo

# Files with these extensions are videos that somebody meant. (Whether a file can be read is another
# matter: FFmpeg also takes text and pictures for videos.)
EXTENSIONS = frozenset(
    ".3gp .asf .avi .flv .gif .m2ts .m4v .mkv .mov .mp4 .mpeg .mpg .mts .ogv .ts .vob .webm "
    ".wmv".split()
)
# Pictures are none, though FFmpeg reads them: phones and cameras put one beside each video.
_PICTURE_EXTENSIONS = frozenset(".avif .bmp .heic .heif .jpeg .jpg .png .tif .tiff .webp".split())


def is_video_name(name: str) -> bool:
    """Whether somebody meant a file to be a video, by its extension."""
    return _extension(name) in EXTENSIONS and not name.startswith(".")


def _extension(name: str) -> str:
    return os.path.splitext(name)[1].lower()


class VideoIndex:
    """What is below a folder, by video id.

    A file answers to its name and to its path below the folder, with and without its extension; a
    folder of numbered frames to its name and its path. Hidden files and folders are left out.
    """

    def __init__(self, folder: str | os.PathLike, frames_fps: float | None = None):
        """Looks at a folder and all below it.

        Args:
            folder: of the videos.
            frames_fps: frames per second of folders of numbered frames; None where these are not
                videos.
        """
        self.folder, self.frames_fps = os.fspath(folder), frames_fps
        self._paths: dict[str, list[str]] = collections.defaultdict(list)
        self._folders: set[str] = set()
        known: set[tuple[str, str]] = set()
        for path, is_folder in found(self.folder):
            below = os.path.relpath(path, self.folder)
            keys = {os.path.basename(path), below}
            if is_folder:
                self._folders.add(path)
            else:
                keys |= {os.path.splitext(key)[0] for key in keys}
            # Of links to one file under one id the first is kept.
            file = files.real_path(path)
            for key in map(video_ids.same_id, keys):
                if (key, file) not in known:
                    known.add((key, file))
                    self._paths[key].append(path)

    def candidates(self, video_id: str) -> list[str]:
        """Returns the paths that may be a video: those with the extension of one before others."""
        paths = self._paths.get(video_ids.same_id(video_id), [])
        folders = [path for path in paths if path in self._folders]
        videos = [path for path in paths if path not in folders and is_video_name(path)]
        others = [path for path in paths if path not in folders and not is_video_name(path)]
        if self.frames_fps is None:
            return videos or others or folders
        return videos + folders or others

    def videos(self) -> list[str]:
        """Returns the paths of all that somebody meant to be a video, sorted."""
        paths = {path for same in self._paths.values() for path in same}
        return sorted(
            path
            for path in paths
            if (is_video_name(path) and path not in self._folders)
            or (self.frames_fps is not None and path in self._folders)
        )


def found(folder: str) -> Iterator[tuple[str, bool]]:
    """Yields (path, whether it is a folder of frames) of what may be videos below a folder.

    A folder of frames has numbered pictures and no video. Pictures by themselves are left out, and
    so is what is hidden.
    """
    for root, names in files.system_of(folder).walk(folder):
        below = os.path.relpath(root, folder)
        if below != "." and any(part.startswith(".") for part in below.split(os.sep)):
            continue
        if below != "." and is_frame_folder(names):
            yield root, True
        for name in sorted(names):
            if not name.startswith(".") and _extension(name) not in _PICTURE_EXTENSIONS:
                yield os.path.join(root, name), False


def is_frame_folder(names: Iterable[str]) -> bool:
    """Whether files of these names are numbered frames; thumbnails beside videos are not."""
    names = list(names)
    return not any(map(is_video_name, names)) and frame_folders.has_numbered_pictures(names)


def find_video(video_id: str, index: VideoIndex) -> VideoInfo:
    """Returns the VideoInfo of the one readable video with this id.

    Raises:
      VideoError: if there is none, or more than one.
    """
    paths = index.candidates(video_id)
    if not paths:
        what = "no video file" if index.frames_fps is None else "no video file or folder of frames"
        raise VideoError(
            f"{index.folder}: {what} {video_id}.* in it or its folders; name the video after its id"
        )
    readable, problems = [], []
    for path in paths:
        try:
            readable.append(video_probe.probe(path, index.frames_fps))
        except VideoError as error:
            problems.append(error)
    if not readable:
        raise problems[0]
    if len(readable) > 1:
        paths = ", ".join(info.path for info in readable)
        raise VideoError(f"more than one video has this id, keep one: {paths}")
    return readable[0]


def stamp(info: VideoInfo) -> str:
    """Returns what changes when a video's file or frames do."""
    if info.frames_fps is not None:
        return frame_folders.stamp(info.path)
    return files.system_of(info.path).stamp(info.path)
