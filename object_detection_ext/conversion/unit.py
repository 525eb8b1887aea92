# SPDX-License-Identifier: Apache-2.0
"""Converts one unit: decodes its videos, one after the other, and writes its shards.

Runs in a worker process, which may be on another machine.
"""

import bisect
import collections
import dataclasses
import os
import time
import traceback
from collections.abc import Callable, Mapping

from object_detection_ext import errors, files, listing
from object_detection_ext.conversion import jpeg, plan, skips, staging
from object_detection_ext.conversion import options as options_lib
from object_detection_ext.data import clip_features, video_info, video_reader, video_windows

# How often a worker looks around and tells how far it is; over a network that costs more.
_TICK_SECONDS, _REMOTE_TICK_SECONDS = 1.0, 30.0
# One thread, whatever the machine: each worker has a core, and what FFmpeg makes of damaged frames
# does not depend on the number of threads.
_DECODER_THREADS = 1


class Stopped(Exception):
    """Another worker failed; this one gave up its unit."""


@dataclasses.dataclass(frozen=True)
class Job:
    """What all units of a split share."""

    options: options_lib.Options
    label_map: Mapping[int, str]


def convert(job: Job, unit: plan.Unit) -> None:
    """Converts a unit, unless another worker has failed.

    The shards and the unit's result are staged if nothing goes wrong; else a problem is, in words.

    Raises:
      ConversionError: with the problem, if even that cannot be written.
    """
    place = staging.Staging(job.options)
    converter = _Converter(job, unit, place)
    try:
        converter.run()
    except Stopped:
        pass
    except Exception as error:
        problem = _in_words(error, converter.video, place)
        try:
            place.write_problem(unit.index, problem)
        except files.errors() as second:
            # A full disk does not take even this; the runner carries it to the user.
            raise options_lib.ConversionError(problem) from second


def _in_words(error: Exception, video: plan.VideoJob | None, place: staging.Staging) -> str:
    """What went wrong, and with which video."""
    if isinstance(error, errors.InputError):
        return str(error)
    where = f"While converting {_name(video)}: " if video else ""
    if isinstance(error, files.errors()):
        return f"{where}{error}"
    # Nothing that was foreseen.
    traceback.print_exception(error)
    log_path = place.log_path
    details = f" (details: {log_path})" if log_path and os.path.exists(log_path) else ""
    return f"{where}{type(error).__name__}: {error}{details}"


def _name(video: plan.VideoJob) -> str:
    return f"{video.video_id} ({video.info.path})"


class _Converter:
    """Converts video after video of a unit and counts what it made."""

    def __init__(self, job: Job, unit: plan.Unit, place: staging.Staging):
        self._options, self._label_map = job.options, job.label_map
        self._unit, self._place = unit, place
        self._skips: list[skips.Skip] = []
        self._totals = dict.fromkeys(
            ("records", "keyframes_kept", "keyframes_without_people", "boxes", "rows", "frames"), 0
        )
        self._rows_by_class: dict[str, int] = {}
        self._videos: dict[str, dict] = {}
        self._records = [0] * len(unit.shards)
        self._passed_before, self._last_tick = 0, 0.0  # keyframes of videos that are done
        self.video: plan.VideoJob | None = None  # that is being converted

    def run(self) -> None:
        """Writes the shards, then the result."""
        dealt = 0
        with self._place.shard_writers(self._unit.shards) as write:
            for video in self._unit.videos:
                # Records go to the shards in turn, neighbours to different ones.
                self.video = video
                # Should the decoder crash, this process has no other moment to say at what.
                self._tell_progress(video, 0)
                dealt = self._convert_video(video, write, dealt)
        sizes = self._place.shard_sizes(self._unit.shards)
        self._place.write_result(
            self._unit.index,
            {
                "fingerprint": self._unit.fingerprint,
                "shards": {
                    name: {"records": count, "bytes": size}
                    for (name, size), count in zip(sizes.items(), self._records, strict=True)
                },
                "totals": self._totals,
                "rows_by_class": self._rows_by_class,
                "skips": [dataclasses.asdict(skip) for skip in self._skips],
                "videos": self._videos,
            },
        )

    def _tick(self, video: plan.VideoJob, reader: video_reader.FrameReader) -> None:
        interval = _TICK_SECONDS if self._place.is_local else _REMOTE_TICK_SECONDS
        if time.monotonic() - self._last_tick < interval:
            return
        self._last_tick = time.monotonic()
        if self._place.stopped():
            raise Stopped
        now = (reader.stats.end or 0.0) + video.offset
        passed = bisect.bisect(video.keyframes, now, key=lambda k: k.timestamp)
        self._tell_progress(video, passed)

    def _tell_progress(self, video: plan.VideoJob, passed: int) -> None:
        self._place.write_progress(self._unit.index, self._passed_before + passed, _name(video))

    def _convert_video(self, video: plan.VideoJob, write: Callable, dealt: int) -> int:
        options = self._options
        encoder = jpeg.JpegEncoder(options.short_side, options.jpeg_quality)

        def encode(frame):
            self._tick(video, reader)
            return encoder(frame)

        reader = video_reader.FrameReader(video.info, transform=encode, threads=_DECODER_THREADS)
        planned = plan.plan_records(
            video.keyframes,
            options.num_frames,
            options.fps,
            options.seconds_per_record,
            video.offset,
        )
        kept_before, left = self._totals["keyframes_kept"], collections.deque(planned)
        try:
            for found in reader.windows([record.window for record in planned]):
                example = self._record(left.popleft(), found, video, encoder)
                if example is not None:
                    shard = dealt % len(self._unit.shards)
                    write(shard, example)
                    self._records[shard] += 1
                    self._totals["records"] += 1
                # Places are given before skips: one damaged video does not move all later records.
                dealt += 1
        except video_info.VideoError as error:
            self._leave_out(
                [k for record in left for k in record.keyframes.values()],
                skips.UNREADABLE,
                str(error),
            )
        self._passed_before += len(video.keyframes)
        self._check_damage(video, reader.stats.damaged)
        kept = self._totals["keyframes_kept"] - kept_before
        self._videos[video.video_id] = _video_entry(video, reader, kept)
        return dealt

    def _check_damage(self, video: plan.VideoJob, damaged: int) -> None:
        if self._options.strict and damaged:
            raise options_lib.ConversionError(
                f"--strict: {video.info.path}: {listing.counted(damaged, 'frame')} cannot be "
                "decoded. Repair or "
                "re-encode the video, or leave --strict out to convert what is whole."
            )

    def _leave_out(self, keyframes, kind: str, reason: str) -> None:
        self._skips += skips.skips_of(keyframes, kind, reason)
        if self._options.strict and keyframes:
            lines = skips.listing(self._options.annotations, self._skips)
            raise options_lib.ConversionError(
                f"--strict: {listing.counted(len(keyframes), 'keyframe')} cannot be converted:\n"
                + "\n".join(lines)
            )

    def _record(self, planned: plan.RecordPlan, found, video, encoder) -> bytes | None:
        for index, problem in found.problems.items():
            kind = skips.OUTSIDE if problem.outside else skips.DAMAGED
            keyframe = planned.keyframes[index]
            reason = f"{video.info.path}: {problem.text}"
            reason += skips.annotated_as(keyframe.timestamp, video.offset)
            self._leave_out([keyframe], kind, reason)
        usable = {i: k for i, k in planned.keyframes.items() if i not in found.problems}
        if not usable:
            return None
        frames, frame_times, usable = _cut(found, usable, self._options.num_frames)
        size = sum(map(len, frames))
        plan.check_record_size(video, self._options, len(frames), size)
        height, width = encoder.size
        example = clip_features.serialized_example(
            usable,
            self._label_map,
            encoded_frames=frames,
            # As the keyframes' timestamps, so that a record is of one line of time.
            frame_times=frame_times + video.offset,
            height=height,
            width=width,
        )
        for keyframe in usable.values():
            self._count(keyframe)
        self._totals["frames"] += len(frames)
        return example

    def _count(self, keyframe) -> None:
        totals = self._totals
        totals["keyframes_kept"] += 1
        totals["keyframes_without_people"] += not keyframe.regions
        totals["boxes"] += len({(region.box, region.person_id) for region in keyframe.regions})
        totals["rows"] += len(keyframe.regions)
        for region in keyframe.regions:
            name = self._label_map[region.action_id]
            self._rows_by_class[name] = self._rows_by_class.get(name, 0) + 1


def _cut(found: video_windows.WindowFrames, usable: Mapping, num_frames: int):
    """Takes away the frames at a record's ends that no usable keyframe's clip has."""
    before = num_frames // 2
    first = min(usable) - before
    last = max(usable) + num_frames - before  # one behind
    by_index = {index - first: keyframe for index, keyframe in usable.items()}
    return found.frames[first:last], found.frame_times[first:last], by_index


def _video_entry(video: plan.VideoJob, reader: video_reader.FrameReader, kept: int) -> dict:
    info = video.info
    return {
        "path": info.path,
        "stamp": video.stamp,
        "fps": info.fps,
        "duration": info.duration,
        "size": list(reader.shape or (info.height, info.width)),
        "codec": info.codec,
        "decoded_frames": reader.stats.decoded,
        "damaged_frames": reader.stats.damaged,
        "timestamp_restarts": reader.stats.restarts,
        "size_changes": reader.stats.size_changes,
        "hdr": info.hdr,
        "unread_parts": info.unread_parts,
        "time_offset": video.offset,
        "keyframes": len(video.keyframes),
        "keyframes_kept": kept,
    }
