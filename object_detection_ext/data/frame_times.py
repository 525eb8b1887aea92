# SPDX-License-Identifier: Apache-2.0
"""When each frame of a video is shown, from its packets: nothing is decoded.

Annotation tools count frames; an hour of video has some 100,000, whose times are in its packets.
"""

import av
import numpy as np

from object_detection_ext.data import frame_folders, video_probe, video_times
from object_detection_ext.data.video_info import VideoError, VideoInfo

# Decoding times that go back by more than this many seconds start over.
_STARTS_OVER = 0.5


def frame_times(info: VideoInfo) -> np.ndarray:
    """Reads the time of every frame of a video, in seconds from its first one.

    Args:
        info: of the video file, or of the folder of numbered frames.

    Returns:
        Float64 [N], ascending; N is the number of frames that a player shows one by one.

    Raises:
        VideoError: if the file cannot be read, has no frame, or has timestamps that
            start over, so that it is not clear which frame has which number.
    """
    path = info.path
    if info.frames_fps is not None:
        return np.arange(len(frame_folders.frame_names(path))) / info.frames_fps
    try:
        with video_probe.open_file(path) as container:
            stream = video_times.video_stream(container)
            rate = video_times.frame_rate(container, stream) or 25.0
            stamps = [
                (packet.pts, packet.dts)
                for packet in container.demux(stream)
                if packet.size and not packet.is_discard and not packet.is_corrupt
            ]
            # AVI has no time of showing; FFmpeg makes one up, which may run backwards.
            has_pts = container.format.name != "avi"
            unit = float(stream.time_base)
    except (av.FFmpegError, OSError) as error:
        raise VideoError(f"{path}: cannot be read as a video: {error}.") from error
    if not stamps:
        raise VideoError(f"{path}: no frame of the video can be read.")
    return _seconds(path, stamps, has_pts, unit, rate)


def _seconds(path: str, stamps, has_pts: bool, unit: float, rate: float) -> np.ndarray:
    shown, decoded = zip(*stamps, strict=True)
    _check_order(path, decoded, unit)
    chosen = shown if has_pts and None not in shown else decoded
    if None in chosen:
        # Without timestamps (a raw stream), frame follows on frame.
        return np.arange(len(stamps)) / rate
    times = np.sort(np.array(chosen, np.float64)) * unit
    return times - times[0]


def _check_order(path: str, decoded, unit: float) -> None:
    known = np.array([stamp for stamp in decoded if stamp is not None], np.float64) * unit
    if len(known) > 1 and np.diff(known).min() < -_STARTS_OVER:
        raise VideoError(
            f"{path}: its timestamps start over on the way, so frames cannot be counted; write it "
            "anew first, such as with ffmpeg -i IN -c copy OUT."
        )
