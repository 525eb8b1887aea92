# SPDX-License-Identifier: Apache-2.0
"""What is known of a video before it is decoded, and the error of one that cannot be used."""

import dataclasses

from object_detection_ext import errors


class VideoError(errors.InputError):
    """A video that cannot be used; the message names the file and says why."""


@dataclasses.dataclass(frozen=True)
class VideoInfo:
    """What a file, or a folder of numbered frames, says about its video.

    Attributes:
        path: of the file or the folder.
        height: in pixels as stored: only decoding shows whether players turn the picture.
        width: likewise.
        fps: frames per second on average; None if unknown.
        duration: seconds of the picture, whatever those of the sound; None if unknown.
        codec: FFmpeg's name of it, or `FRAMES`.
        frames_fps: of a folder of numbered frames, frames per second; None for a file.
        hdr: "PQ" or "HLG" if the pictures are high dynamic range, else empty.
        unread_parts: how many films follow in the file that nothing reads; see `mp4_boxes`.
        sound_lead: seconds that the sound begins before the picture; 0 if it does not.
    """

    path: str
    height: int
    width: int
    fps: float | None
    duration: float | None
    codec: str
    frames_fps: float | None = None
    hdr: str = ""
    sound_lead: float = 0.0
    unread_parts: int = 0

    def __fspath__(self) -> str:
        """The path."""
        return self.path


FRAMES = "numbered frames"

# Added to the name of a video in warnings of all tools.
HDR_CONSEQUENCE = (
    "colours are used as stored, without tone mapping, so pictures look flatter than in a "
    "player; use videos of one kind for training and detection, or convert to SDR first"
)

# Likewise of a video with `unread_parts`.
UNREAD_CONSEQUENCE = (
    "MP4 files that were written one after the other into one file; only the first is read, here "
    "and by players: join them with FFmpeg's concat demuxer instead"
)
