# SPDX-License-Identifier: Apache-2.0
"""Checks of the videos against the annotations that name them. Times are in seconds."""

import concurrent.futures
import os
from collections.abc import Iterator

import numpy as np

from object_detection_ext import progress as progress_lib
from object_detection_ext.ava import timestamps
from object_detection_ext.data import video_info, video_reader
from object_detection_ext.data.video_times import LENGTH_TOLERANCE
from object_detection_ext.doctor import findings, keyframe_choice
from object_detection_ext.doctor.examination import Examination, VideoProbe
from object_detection_ext.doctor.findings import ERROR, WARNING, Finding

# 29.97 and 30 frames per second are the same.
_FPS_TOLERANCE = 0.01


def _of_videos(split, found: dict[str, str], code: str, what: str, advice: str) -> Finding:
    """One finding for the videos of a split; `found` says about each id what is wrong."""
    numbers = {video_id: index for index, video_id in enumerate(split.video_ids)}
    mask = np.isin(split.video, [numbers[video_id] for video_id in found])
    return Finding(
        code, ERROR, split.path,
        f"{what} ({int(mask.sum()):,} rows): {findings.in_words(list(found.values()))}", advice,
        count=len(found), unit="videos", rows=split.rows_of(mask),
        value=next(iter(found)), items=tuple(found.values()),
    )  # fmt: skip


def missing_videos(exam: Examination) -> Iterator[Finding]:
    """Video ids that no file answers to."""
    for split in exam.splits.values():
        missing = {i: i for i in split.video_ids if not exam.videos.probes[i].exists}
        if not missing:
            continue
        advice = f"name each video after its id, in {exam.videos.folder} or its folders"
        if exam.videos.unnamed:
            names = [os.path.basename(path) for path in exam.videos.unnamed]
            advice += f"; nobody names {findings.in_words(names)} there"
        yield _of_videos(split, missing, "video_missing", "no video file for the ids", advice)


def unreadable_videos(exam: Examination) -> Iterator[Finding]:
    """Files that are no videos: empty, cut off, sound alone."""
    for split in exam.splits.values():
        unreadable = {}
        for video_id in split.video_ids:
            probe = exam.videos.probes[video_id]
            if probe.problems and not probe.readable:
                unreadable[video_id] = probe.problems[0].rstrip(".")
        if unreadable:
            advice = "copy or encode these files again, or take their rows out"
            yield _of_videos(
                split, unreadable, "video_unreadable", "videos that cannot be read", advice
            )


def ambiguous_videos(exam: Examination) -> Iterator[Finding]:
    """Ids that more than one readable file answers to."""
    for split in exam.splits.values():
        found = {}
        for video_id in split.video_ids:
            paths = [info.path for info in exam.videos.probes[video_id].readable]
            if len(paths) > 1:
                found[video_id] = f"{video_id} ({' and '.join(paths)})"
        if found:
            advice = "keep one file for each id"
            yield _of_videos(
                split, found, "video_ambiguous", "more than one file for the ids", advice
            )


def unnamed_videos(exam: Examination) -> Iterator[Finding]:
    """Videos that no row names."""
    unnamed = exam.videos.unnamed
    if unnamed and len(exam.splits) == 2:
        names = [os.path.relpath(path, exam.videos.folder) for path in unnamed]
        yield Finding(
            "video_unnamed", WARNING, exam.videos.folder,
            f"videos that no row names: {findings.in_words(names)}",
            "annotate them, or leave them there: they are not used",
            count=len(unnamed), unit="videos", value=names[0], items=tuple(names),
        )  # fmt: skip


def truncated_videos(exam: Examination) -> Iterator[Finding]:
    """Videos that end before their header says so."""
    for split in exam.splits.values():
        found = {}
        for video_id in split.video_ids:
            probe = exam.videos.probes[video_id]
            info, end = probe.info, probe.end
            if end and info.duration and end < info.duration - LENGTH_TOLERANCE:
                found[video_id] = f"{info.path} ends at {end:.1f} s of {info.duration:.1f} s"
        if found:
            advice = "copy these files again: what follows is lost to the conversion"
            yield _of_videos(split, found, "video_truncated", "videos that are cut off", advice)


# --- Frames ---------------------------------------------------------------------------------------


def low_frame_rates(exam: Examination) -> Iterator[Finding]:
    """Videos with fewer frames per second than the clips, whose frames would be repeated."""
    for split in exam.splits.values():
        slow = {}
        for video_id in split.video_ids:
            info = exam.info(video_id)
            if info and info.fps and info.fps < exam.clip.fps * (1 - _FPS_TOLERANCE):
                slow[video_id] = info.fps
        if not slow:
            continue
        listed = tuple(f"{video_id} ({fps:g})" for video_id, fps in slow.items())
        lowest = min(slow.values())
        yield Finding(
            "video_fps_low", WARNING, split.path,
            f"videos with fewer than the clips' {exam.clip.fps:g} frames per second, so that "
            f"frames are repeated: {findings.in_words(listed)}",
            f"convert with --fps {lowest:g} (the lowest) or less, the same for all splits",
            count=len(slow), unit="videos", value=f"{lowest:g}", items=listed,
        )  # fmt: skip


def undecodable_keyframes(exam: Examination) -> Iterator[Finding]:
    """Videos of which a sample of keyframes cannot be decoded."""
    for split in exam.splits.values():
        sample = [
            (video_id, exam.videos.probes[video_id], times)
            for video_id, times in keyframe_choice.of_each_video(
                split, exam.sample_keyframes, exam.seconds_in_videos(split)
            )
            if exam.info(video_id)
        ]
        progress = progress_lib.Progress(
            f"decoding ({split.split})", len(sample), "videos", exam.report, report_end=False
        )
        bad = {}
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            problems = pool.map(lambda item: _decoding_problem(*item[1:]), sample)
            for done, ((video_id, *_), problem) in enumerate(zip(sample, problems, strict=True)):
                if problem:
                    bad[video_id] = problem
                progress.update(done + 1)
        if bad:
            advice = "copy or encode these videos again, or take their rows out"
            yield _of_videos(
                split, bad, "video_damaged", "keyframes that cannot be decoded", advice
            )


def _decoding_problem(probe: VideoProbe, times: list[float]) -> str:
    """Returns what is wrong with the frames at these times, ascending; empty if nothing is."""
    info, length = probe.info, probe.length
    reader = video_reader.ClipReader(info, num_frames=1, fps=1.0, transform=lambda _: None)
    try:
        for clip in reader.clips(times):
            if clip.problem and not clip.outside:
                return f"{info.path}: {clip.problem}"
            # What is clearly outside the video is told elsewhere.
            inside = length is None or clip.keyframe_time <= length + LENGTH_TOLERANCE
            if clip.outside and clip.keyframe_time >= 0 and inside:
                return f"{info.path}: {clip.problem}"
    except video_info.VideoError as error:
        return str(error).rstrip(".")
    if reader.stats.damaged:
        time = timestamps.format_timestamp(times[0])
        return f"{info.path}: {reader.stats.damaged} damaged frames near timestamps from {time} on"
    return ""
