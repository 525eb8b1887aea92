# SPDX-License-Identifier: Apache-2.0
"""Everything about a split that can be seen before the first decode."""

import concurrent.futures
import dataclasses
import os
from collections.abc import Mapping, Sequence

import numpy as np

from object_detection_ext import files
from object_detection_ext import progress as progress_lib
from object_detection_ext.ava import (
    annotations,
    faults,
    label_maps,
    tables,
    time_offsets,
    timestamps,
)
from object_detection_ext.ava.exclusion import Exclusion
from object_detection_ext.conversion import manifest as manifest_lib
from object_detection_ext.conversion import options as options_lib
from object_detection_ext.conversion import plan, skips
from object_detection_ext.conversion import staging as staging_lib
from object_detection_ext.data import keyframe_thinning, video_files, video_info

_PROBE_THREADS = 16


@dataclasses.dataclass(frozen=True)
class Split:
    """A split, looked through and planned."""

    options: options_lib.Options
    label_map: Mapping[int, str]
    labels: annotations.Annotations
    skips: Sequence[skips.Skip]
    units: Sequence[plan.Unit]
    staging: staging_lib.Staging
    num_thinned: int = 0  # keyframes that --every leaves out

    @property
    def fingerprint(self) -> str:
        """Changes with everything that the records depend on."""
        return manifest_lib.fingerprint(self.units)

    @property
    def videos(self) -> Sequence[plan.VideoJob]:
        """Those that can be converted."""
        return [video for unit in self.units for video in unit.videos]


def look_and_plan(options: options_lib.Options) -> Split:
    """Reads and checks all that can be checked without decoding, and plans the units.

    Raises:
      ConversionError: if no video can be used, a video has several ids, a record would be too large
        to be read, or under --strict if a video cannot be used.
      InputError: if the time offsets cannot be read, or a video has none.
      faults.AnnotationError: if the annotations or the label map have errors.
    """
    label_map = label_maps.read_label_map(options.label_map)
    labels = annotations.read_annotations(
        options.annotations,
        label_map,
        skip_unknown_labels=options.skip_unknown_labels,
        box_tolerance=options.box_tolerance,
    )
    by_video, skipped, excluded = _usable_keyframes(options, labels)
    num_thinned = _thin(options, by_video)
    notes = (*(f"{options.annotations}: {note}" for note in labels.notes), *excluded)
    for note in notes:
        print(f"note: {note}", flush=True)
    offsets = time_offsets.read(options.time_offset_seconds)
    offsets.check(by_video)
    jobs, missing = _find_videos(options, by_video, offsets)
    skipped += missing
    _raise_if_strict(options, skipped)
    _check_ids(options, jobs)
    plan.check_record_sizes(jobs, options)
    units = plan.plan_units(jobs, options, label_map)
    staging = staging_lib.Staging(options)
    split = Split(options, label_map, labels, skipped, units, staging, num_thinned)
    if not units:
        raise nothing_converted(options, skipped)
    return split


def nothing_converted(
    options: options_lib.Options, skipped: Sequence[skips.Skip]
) -> options_lib.ConversionError:
    """The error of a split of which everything was left out, with why."""
    lines = skips.listing(options.annotations, skipped)
    return options_lib.ConversionError(
        "\n".join([f"No keyframe of {options.annotations} could be converted:", *lines])
    )


def _raise_if_strict(options: options_lib.Options, skipped: Sequence[skips.Skip]) -> None:
    found = skips.surprises(skipped)
    if options.strict and found:
        lines = skips.listing(options.annotations, found)
        raise options_lib.ConversionError(
            "\n".join([f"--strict: {len(found)} keyframes cannot be converted:", *lines])
        )


def _usable_keyframes(options: options_lib.Options, labels: annotations.Annotations):
    """Leaves out what was asked to be left out: (keyframes by video, skips, notes)."""
    excluded, notes = frozenset(), []
    if options.excluded_timestamps:
        excluded, notes = _excluded(options.excluded_timestamps, labels)
    by_video, skipped = {}, []
    for video_id, keyframes in labels.by_video().items():
        kept = []
        for keyframe in keyframes:
            if (video_id, keyframe.timestamp) in excluded:
                reason = f"in {options.excluded_timestamps}"
                skipped += skips.skips_of([keyframe], skips.EXCLUDED, reason)
            elif keyframe.num_skipped and not keyframe.regions:
                # It is not free of people: its people do what the label map does not have.
                reason = "no action of it is in the label map"
                skipped += skips.skips_of([keyframe], skips.UNKNOWN_LABELS, reason)
            else:
                kept.append(keyframe)
        if kept:
            by_video[video_id] = kept
    return by_video, skipped, notes


def _thin(options: options_lib.Options, by_video: dict[str, list]) -> int:
    """Keeps one keyframe per `--every` seconds of each video; returns how many are left out."""
    if not options.every:
        return 0
    before = sum(map(len, by_video.values()))
    for video_id, keyframes in by_video.items():
        times = (keyframe.timestamp for keyframe in keyframes)
        kept = set(keyframe_thinning.kept_times(times, options.every))
        by_video[video_id] = [k for k in keyframes if k.timestamp in kept]
    left_out = before - sum(map(len, by_video.values()))
    print(
        f"note: {options.annotations}: --every {options.every:g} leaves out {left_out:,} of "
        f"{before:,} keyframes",
        flush=True,
    )
    return left_out


def _excluded(path: str, labels: annotations.Annotations) -> tuple[frozenset, list[str]]:
    """The keyframes that a list of excluded timestamps means, and what is to be said of it."""
    notes = faults.Notes()
    moments = tables.read_excluded_timestamps(path, notes)
    keyframes = [timestamps.frame(k.video_id, k.timestamp) for k in labels.keyframes]
    exclusion = Exclusion(moments, keyframes)
    lines = list(notes.messages(path))
    if exclusion.message():
        lines.append(f"{path}: {exclusion.message()}")
    return exclusion.left_out, lines


def _find_videos(
    options: options_lib.Options, by_video: Mapping[str, list], offsets: time_offsets.TimeOffsets
):
    """Looks for each video and reads its header: (jobs, skips)."""
    index = video_files.VideoIndex(options.videos, options.frames_fps or None)
    progress = progress_lib.Progress("videos", len(by_video), "headers read", report_end=False)

    def find(video_id):
        try:
            return video_files.find_video(video_id, index)
        except video_info.VideoError as error:
            return error

    jobs, skipped = [], []
    with concurrent.futures.ThreadPoolExecutor(_PROBE_THREADS) as pool:
        for done, (video_id, found) in enumerate(
            zip(by_video, pool.map(find, by_video), strict=True), start=1
        ):
            progress.update(done)
            keyframes = by_video[video_id]
            if isinstance(found, video_info.VideoError):
                kind = skips.UNREADABLE if index.candidates(video_id) else skips.MISSING
                skipped += skips.skips_of(keyframes, kind, str(found))
                continue
            offset = offsets.of(video_id)
            if options.strict:
                skipped += _outside_by_header(found, keyframes, offset)
            name = os.path.relpath(found.path, options.videos)
            stamp = video_files.stamp(found)
            jobs.append(plan.VideoJob(found, name, stamp, tuple(keyframes), offset))
    return jobs, skipped


def _outside_by_header(info: video_info.VideoInfo, keyframes, offset: float) -> list[skips.Skip]:
    """What is clearly outside: the header's duration is not exact, decoding decides the rest."""
    limit = np.inf if info.duration is None else info.duration + 1.0
    length = "" if info.duration is None else f", which is {info.duration:g} s long"
    found = []
    for keyframe in keyframes:
        time = keyframe.timestamp - offset
        if not 0 <= time <= limit:
            reason = f"timestamp {time:g} s is outside the video{length}"
            reason += skips.annotated_as(keyframe.timestamp, offset)
            found += skips.skips_of([keyframe], skips.OUTSIDE, reason)
    return found


def _check_ids(options: options_lib.Options, jobs: Sequence[plan.VideoJob]) -> None:
    """Raises ConversionError if several ids, such as v1 and v1.mp4, name one file."""
    by_file: dict[str, list[plan.VideoJob]] = {}
    for job in jobs:
        by_file.setdefault(files.real_path(job.info.path), []).append(job)
    lines = []
    for path, same in sorted(by_file.items()):
        if len(same) > 1:
            ids = [f"{job.video_id} (row {min(k.row for k in job.keyframes)})" for job in same]
            lines.append(f"  {path}: {', '.join(ids)}")
    if lines:
        raise options_lib.ConversionError(
            "\n".join(
                [
                    f"{options.annotations}: several ids for one video file. Write one of them in "
                    "all its rows: who is marked under one id would be background under another:",
                    *lines,
                ]
            )
        )
