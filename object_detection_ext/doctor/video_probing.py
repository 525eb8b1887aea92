# SPDX-License-Identifier: Apache-2.0
"""The headers of all videos, and whether the files are as long as these say.

Decodes nothing. Of a whole file it reads a few kilobytes, but all of a file whose header does not
say how long it is or that is cut off. Times are in seconds from the start of the video's picture.
"""

import concurrent.futures
from collections.abc import Callable, Iterable

from object_detection_ext import files
from object_detection_ext import progress as progress_lib
from object_detection_ext.data import video_files, video_info, video_probe, video_reader
from object_detection_ext.doctor.examination import VideoProbe, Videos

# Probing waits for the disk, not for the processor.
_THREADS = 16


def probe_videos(
    folder: str,
    video_ids: Iterable[str],
    report: Callable[[str], None] | None = None,
    frames_fps: float = 0.0,
) -> Videos:
    """Finds and probes the videos of all ids.

    Args:
      folder: with the videos, also below it.
      video_ids: as the annotations name them.
      report: takes lines of progress.
      frames_fps: frames per second of folders of numbered frames; 0 where these are not videos.
    """
    index = video_files.VideoIndex(folder, frames_fps or None)
    ids = sorted(set(video_ids))
    progress = progress_lib.Progress("videos", len(ids), "probed", report, report_end=False)
    probes = {}
    with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
        results = pool.map(lambda video_id: _probe(index, video_id), ids)
        for video_id, probe in zip(ids, results, strict=True):
            probes[video_id] = probe
            progress.update(len(probes))
    return Videos(folder, probes, _unnamed(index, ids))


def _unnamed(index: video_files.VideoIndex, ids: Iterable[str]) -> tuple[str, ...]:
    named = {files.real_path(path) for video_id in ids for path in index.candidates(video_id)}
    return tuple(path for path in index.videos() if files.real_path(path) not in named)


def _probe(index: video_files.VideoIndex, video_id: str) -> VideoProbe:
    readable, problems = [], []
    for path in index.candidates(video_id):
        try:
            readable.append(video_probe.probe(path, index.frames_fps))
        except video_info.VideoError as error:
            problems.append(str(error))
    extent = video_probe.Extent(None)
    if len(readable) == 1:
        extent = video_probe.extent(readable[0])
    return VideoProbe(tuple(readable), tuple(problems), extent.end, extent.restarts)


def shown_size(info: video_info.VideoInfo) -> tuple[int, int]:
    """Returns (height, width) in pixels as shown, by decoding the first frame.

    Of a video that a phone took upright the header alone tells the size before it is turned.
    """
    reader = video_reader.ClipReader(info, num_frames=1, fps=1.0, transform=lambda _: None)
    try:
        next(reader.clips([0.0]), None)
    except video_info.VideoError:
        pass
    return reader.shape or (info.height, info.width)
