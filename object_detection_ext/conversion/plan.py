# SPDX-License-Identifier: Apache-2.0
"""Which keyframes share a record, and which videos a shard: all that is decided before decoding.

A unit is the smallest piece of work: some videos, and the shards that nobody else writes. What a
unit gives depends on nothing but its plan, so shards are the same bytes with any number of workers,
and a finished unit need not be done again.

Shapes: T frames of a clip.
"""

import dataclasses
import hashlib
import heapq
import json
from collections.abc import Iterator, Mapping, Sequence

import av
import numpy as np
import PIL

from object_detection_ext.ava import annotations
from object_detection_ext.conversion import options as options_lib
from object_detection_ext.data import video_info, video_windows

# Raise it when the same input would give other records than before.
_FORMAT = 1
# A keyframe is on the grid of a record's frames if it is so near to one, in frames.
_GRID_TOLERANCE = 1e-3
# Neither protobuf nor TensorFlow parses a message of 2 GiB; the rest is for what is no frame.
_MAX_RECORD_BYTES = 2**31 - 2**24
# A JPEG's bytes per pixel by its quality, of photographed scenes: for estimates only.
_QUALITIES, _BYTES_PER_PIXEL = (1, 50, 75, 92, 100), (0.01, 0.07, 0.1, 0.2, 0.6)
# Seconds within which keyframes of a record save nearly all that sharing frames can save.
_ENOUGH_SECONDS = 15


@dataclasses.dataclass(frozen=True)
class RecordPlan:
    """A record: its frames' times and, by index among these, its keyframes."""

    window: video_windows.Window
    keyframes: Mapping[int, annotations.Keyframe]


def plan_records(
    keyframes: Sequence[annotations.Keyframe],
    num_frames: int,
    fps: float,
    seconds_per_record: float = 0.0,
    offset: float = 0.0,
) -> list[RecordPlan]:
    """Deals a video's keyframes to records, in order of the records' first frames.

    The clips of a record's keyframes overlap or follow each other, all their frames lie on one grid
    of times 1 / fps apart, and the last keyframe comes at most `seconds_per_record` after the
    first. So frame k of every clip stays the one nearest to its own time, and nothing is stored
    twice within a record.

    Args:
      keyframes: of one video, ascending in time.
      num_frames: T.
      fps: frames per second.
      seconds_per_record: 0 gives each keyframe a record of its own.
      offset: seconds that the keyframes' timestamps are ahead of the windows' times.
    """
    records: list[dict[int, annotations.Keyframe]] = []  # by steps after the first keyframe
    growing: list[dict[int, annotations.Keyframe]] = []
    for keyframe in keyframes:
        growing = [
            record
            for record in growing
            if keyframe.timestamp - record[0].timestamp <= seconds_per_record
        ]
        for record in growing:
            exact = (keyframe.timestamp - record[0].timestamp) * fps
            steps, last = round(exact), next(reversed(record))
            if abs(exact - steps) <= _GRID_TOLERANCE and steps - last <= num_frames:
                record[steps] = keyframe
                break
        else:
            records.append({0: keyframe})
            growing.append(records[-1])
    return [_record_plan(record, num_frames, fps, offset) for record in records]


def _record_plan(
    record: dict[int, annotations.Keyframe], num_frames: int, fps: float, offset: float
):
    middle = num_frames // 2
    steps = np.arange(max(record) + num_frames) - middle
    times = record[0].timestamp - offset + steps / fps
    by_index = {step + middle: keyframe for step, keyframe in record.items()}
    return RecordPlan(video_windows.Window(times, tuple(by_index)), by_index)


@dataclasses.dataclass(frozen=True)
class VideoJob:
    """A video with its annotated keyframes, ascending in time.

    `stamp` changes when the file does; keyframes are `offset` seconds ahead of times in the video.
    """

    info: video_info.VideoInfo
    name: str  # path below the folder of videos
    stamp: str
    keyframes: tuple[annotations.Keyframe, ...]
    offset: float = 0.0

    @property
    def video_id(self) -> str:
        """As the annotations have it."""
        return self.keyframes[0].video_id


@dataclasses.dataclass(frozen=True)
class Unit:
    """Videos, and the shards (counted from 0) that their records are dealt to in turn."""

    index: int
    videos: tuple[VideoJob, ...]
    shards: tuple[int, ...]
    fingerprint: str

    @property
    def num_keyframes(self) -> int:
        """Of all its videos."""
        return sum(len(video.keyframes) for video in self.videos)


def plan_units(
    videos: Sequence[VideoJob], options: options_lib.Options, label_map: Mapping[int, str]
) -> list[Unit]:
    """Deals videos to as many units as there are shards, or videos if these are fewer.

    Units get about as many keyframes each, in an order of videos that does not depend on names
    alone; the same input gives the same units.
    """
    count = min(len(videos), options.num_shards)
    heap = [(0, index) for index in range(count)]
    dealt: list[list[VideoJob]] = [[] for _ in range(count)]
    for video in sorted(videos, key=lambda v: (-len(v.keyframes), v.video_id)):
        load, index = heapq.heappop(heap)
        dealt[index].append(video)
        heapq.heappush(heap, (load + len(video.keyframes), index))
    units = []
    for index, of_unit in enumerate(dealt):
        shards = tuple(range(index, options.num_shards, count))
        in_order = tuple(sorted(of_unit, key=lambda v: v.video_id))
        fingerprint = _fingerprint(in_order, shards, options, label_map)
        units.append(Unit(index, in_order, shards, fingerprint))
    return units


def _fingerprint(videos, shards, options: options_lib.Options, label_map) -> str:
    """Changes with everything that the unit's bytes depend on."""
    digest = hashlib.sha256()
    for part in _fingerprint_parts(videos, shards, options, label_map):
        digest.update(json.dumps(part).encode() + b"\n")
    return digest.hexdigest()


def _fingerprint_parts(videos, shards, options, label_map) -> Iterator[list]:
    yield [_FORMAT, av.__version__, PIL.__version__, list(shards), options.num_shards]
    yield [options.num_frames, options.fps, options.short_side, options.jpeg_quality]
    yield [options.seconds_per_record, options.strict]
    for video in videos:
        yield [video.video_id, video.name, video.stamp]
        if video.offset or video.info.frames_fps:
            yield [video.offset, video.info.frames_fps]
        for keyframe in video.keyframes:
            rows = [
                [*region.box, label_map[region.action_id], region.person_id]
                for region in keyframe.regions
            ]
            yield [keyframe.timestamp, rows]


# --- Sizes ----------------------------------------------------------------------------------------


def check_record_sizes(videos: Sequence[VideoJob], options: options_lib.Options) -> None:
    """Estimates the largest record of each video; a worker holds it in memory.

    Raises:
      ConversionError: if it could not be read.
    """
    bytes_per_pixel = np.interp(options.jpeg_quality, _QUALITIES, _BYTES_PER_PIXEL)
    for video in videos:
        pixels = video.info.height * video.info.width
        short_side = min(video.info.height, video.info.width)
        if 0 < options.short_side < short_side:
            pixels *= (options.short_side / short_side) ** 2
        frames = _longest_record(video, options)
        check_record_size(video, options, frames, round(frames * pixels * bytes_per_pixel))


def _longest_record(video: VideoJob, options: options_lib.Options) -> int:
    if not options.seconds_per_record:
        return options.num_frames
    records = plan_records(
        video.keyframes, options.num_frames, options.fps, options.seconds_per_record
    )
    return max(len(record.window.times) for record in records)


def check_record_size(
    video: VideoJob, options: options_lib.Options, num_frames: int, num_bytes: int
) -> None:
    """Raises ConversionError if a record of so many frames and bytes could not be read."""
    if num_bytes <= _MAX_RECORD_BYTES:
        return
    seconds = (num_frames * _MAX_RECORD_BYTES / num_bytes - options.num_frames) / options.fps
    if options.seconds_per_record and seconds >= 1:
        option = f"--seconds_per_record {options.seconds_per_record:g}"
        advice = f"At most {int(seconds)} fit, and {_ENOUGH_SECONDS} save nearly as much"
    else:
        option = f"--num_frames {options.num_frames}"
        advice = "Give fewer, or a smaller --short_side"
    raise options_lib.ConversionError(
        f"{option}: a record of {video.video_id} ({video.info.path}) would hold {num_frames:,} "
        f"frames of about {num_bytes / num_frames / 1e3:.0f} kB, {num_bytes / 2**30:.1f} GiB "
        f"together, and records of 2 GiB cannot be read. {advice}."
    )
