# SPDX-License-Identifier: Apache-2.0
"""Opens videos and reads what their headers and packets say; nothing is decoded.

Time is in seconds from the start of the video's picture.
"""

import dataclasses
import os

import av

from object_detection_ext import files
from object_detection_ext.data import frame_folders, mp4_boxes, video_times
from object_detection_ext.data.video_info import VideoError, VideoInfo

# As ITU-T H.273 numbers the transfer characteristics of high dynamic range.
_HDR = {16: "PQ", 18: "HLG"}


def probe(path: str | os.PathLike, frames_fps: float | None = None) -> VideoInfo:
    """Reads a video's header, or the names and sizes of a folder's numbered frames.

    Args:
        path: the file, or the folder.
        frames_fps: frames per second of folders of numbered frames; None where these are not
            videos.

    Raises:
        VideoError: if it is missing or unreadable, or has no video.
    """
    path = os.fspath(path)
    if frames_fps is not None and files.system_of(path).isdir(path):
        return frame_folders.probe(path, frames_fps)
    with open_file(path) as container:
        stream = video_times.video_stream(container)
        return VideoInfo(
            path,
            stream.height,
            stream.width,
            video_times.frame_rate(container, stream),
            video_times.header_length(container, stream),
            stream.codec_context.name,
            hdr=_HDR.get(int(stream.codec_context.color_trc or 0), ""),
            sound_lead=video_times.sound_lead(container, stream),
            unread_parts=mp4_boxes.unread_parts(path) if "mp4" in container.format.name else 0,
        )


def known(video: str | os.PathLike | VideoInfo) -> VideoInfo:
    """What is known of a video: as given, or probed. Raises VideoError as `probe`."""
    return video if isinstance(video, VideoInfo) else probe(video)


@dataclasses.dataclass(frozen=True)
class Extent:
    """How much of a video there is.

    Attributes:
        end: when the last frame that is in the file ends, in seconds; None if it has none.
        restarts: how often the timestamps start over, as far as it was read.
    """

    end: float | None
    restarts: int = 0


def extent(info: VideoInfo) -> Extent:
    """Returns how much of a video there is.

    Reads packets and decodes nothing: the last ones where the header's length is right, else all.

    Raises:
        VideoError: if the file is missing or unreadable.
    """
    if info.frames_fps is not None:
        return Extent(info.duration)
    for tail_of in (info.duration, None) if info.duration else (None,):
        with open_file(info.path) as container:
            stream = video_times.video_stream(container)
            end, restarts = video_times.last_picture_end(container, stream, tail_of)
        if end is not None:
            return Extent(end, restarts)
    return Extent(None)


def open_file(path: str | os.PathLike):
    """Opens a video file, which has a video stream that can be decoded.

    Raises:
        VideoError: if it is missing or unreadable, or has no video stream.
    """
    path = os.fspath(path)
    source = _source(path)
    try:
        container = av.open(source)
    except (av.FFmpegError, OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise VideoError(f"{path}: cannot be read as a video: {reason}.") from error
    stream = video_times.video_stream(container)
    if stream is None:
        names = {"video": "a cover picture"}
        kinds = sorted({names.get(other.type, other.type) for other in container.streams})
        container.close()
        raise VideoError(f"{path}: has no video stream, only {', '.join(kinds) or 'no streams'}.")
    if stream.codec_context is None:
        container.close()
        raise VideoError(f"{path}: its video codec is not supported by the installed PyAV.")
    return container


def _source(path: str):
    """What PyAV opens: a local path, absolute, or any other file as TensorFlow opens it.

    Raises:
        VideoError: if there is no such file, or it is empty.
    """
    system = files.system_of(path)
    if system.isdir(path):
        more = ""
        if frame_folders.has_numbered_pictures(system.listdir(path)):
            more = "; if its pictures are the frames of one, give --frames_fps"
        raise VideoError(f"{path} is a folder, not a video file{more}.")
    if not system.exists(path):
        raise VideoError(f"{path}: there is no such video file.")
    if system.size(path) == 0:
        raise VideoError(f"{path}: the video file is empty.")
    # FFmpeg takes what comes before a colon for a protocol, unless a slash is before it.
    return os.path.abspath(path) if files.is_local(path) else system.open(path, "rb")
