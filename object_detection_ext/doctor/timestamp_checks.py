# SPDX-License-Identifier: Apache-2.0
"""Checks of the annotations' timestamps against the videos. Times are in seconds.

Shapes: F keyframes of a split, V videos.
"""

from collections.abc import Iterator

import numpy as np

from object_detection_ext import listing
from object_detection_ext.ava import timestamps
from object_detection_ext.ava.timestamps import SAME_MOMENT
from object_detection_ext.data.video_times import LENGTH_TOLERANCE
from object_detection_ext.doctor import annotation_rows, findings
from object_detection_ext.doctor.examination import Examination
from object_detection_ext.doctor.findings import ERROR, WARNING, Finding

# Timestamps are taken for another unit where most are outside and in that unit as many inside.
_MOSTLY = 0.5
_NEARLY_ALL = 0.95
# AVA annotates minutes 15 to 30 of films.
_AVA_START = 900.0
# Less after the end is rounding.
_AT_END = 1e-5
# Of fewer keyframes, or of a step of a second, a video's timestamps say nothing of their unit.
_MIN_KEYFRAMES, _MIN_STEP = 5, 2


def _lengths(split: annotation_rows.SplitRows, exam: Examination) -> np.ndarray:
    """Returns how much there is of each video, float64 [V], NaN where it is unknown."""
    return np.array([exam.length(video_id) or np.nan for video_id in split.video_ids])


def outside_timestamps(exam: Examination) -> Iterator[Finding]:
    """Keyframes before the start or after the end of their video."""
    for split in exam.splits.values():
        frames = split.keyframes
        if not len(frames):
            continue
        length, in_video = _lengths(split, exam)[frames.video], exam.seconds_in_videos(split)
        outside = (in_video < 0) | (in_video > length + LENGTH_TOLERANCE)
        yield from _at_end(split, (in_video > length + _AT_END) & ~outside, in_video - length)
        if not outside.any():
            continue
        index = int(np.flatnonzero(outside)[np.argmin(frames.row[outside])])
        video_id, seconds = split.video_ids[frames.video[index]], float(frames.seconds[index])
        ends = "" if np.isnan(length[index]) else f", which is {length[index]:.2f} s long"
        advice = "timestamps are seconds from the start of the video"
        if exam.offsets:
            advice += f" plus the time offset, {exam.offsets.of(video_id):g}"
        unit = _other_unit(split, exam, outside, length)
        rows = np.sort(frames.row[outside])
        yield Finding(
            "timestamp_outside", ERROR, split.path,
            f"{listing.part(int(outside.sum()), len(frames), 'keyframe')} "
            f"{listing.verb(int(outside.sum()), 'is', 'are')} outside the video: "
            f"the first is {seconds:g} s of {video_id}{ends}",
            f"{advice}{'; ' * bool(unit)}{unit}",
            count=int(outside.sum()), unit="keyframes",
            rows=tuple(rows[: findings.MAX_ROWS].tolist()), value=f"{seconds:g}",
        )  # fmt: skip


def _at_end(
    split: annotation_rows.SplitRows, near: np.ndarray, behind: np.ndarray
) -> Iterator[Finding]:
    """Keyframes so little after the end that they may have been rounded up.

    Args:
      split: the rows.
      near: bool [F], which they are.
      behind: float64 [F], how long each keyframe is after the end.
    """
    if not near.any():
        return
    frames, count = split.keyframes, int(near.sum())
    rows = np.sort(frames.row[near])
    index = int(np.flatnonzero(near)[np.argmin(frames.row[near])])
    yield Finding(
        "timestamp_at_end", WARNING, split.path,
        f"{listing.part(count, len(frames), 'keyframe')} {listing.verb(count, 'is', 'are')} after "
        f"the end of the video: the first by {behind[index]:.3f} s, {frames.seconds[index]:g} s of "
        f"{split.video_ids[frames.video[index]]}",
        "the converter leaves out what is after the last frame, counted",
        count=count, unit="keyframes", rows=tuple(rows[: findings.MAX_ROWS].tolist()),
        value=f"{frames.seconds[index]:g}",
    )  # fmt: skip


def nearly_equal(exam: Examination) -> Iterator[Finding]:
    """Keyframes of a video that are one moment, written with more decimals and with fewer."""
    for split in exam.splits.values():
        frames = split.keyframes
        apart = np.diff(frames.seconds)
        near = (frames.video[1:] == frames.video[:-1]) & (apart < SAME_MOMENT - 1e-9)
        if not near.any():
            continue
        index, count = int(np.flatnonzero(near)[0]), int(near.sum())
        one, other = frames.seconds[index : index + 2].tolist()
        rows = np.sort(frames.row[1:][near])
        yield Finding(
            "keyframes_nearly_equal", WARNING, split.path,
            f"{listing.counted(count, 'keyframe')} of a video {listing.verb(count, 'is', 'are')} "
            f"less than a millisecond after another one: {timestamps.format_timestamp(one)} and "
            f"{timestamps.format_timestamp(other)} s of {split.video_ids[frames.video[index]]}",
            "write one moment in one way: each becomes a clip of its own, and the people of one "
            "are background in the other",
            count=count, unit="keyframes", rows=tuple(rows[: findings.MAX_ROWS].tolist()),
            value=timestamps.format_timestamp(other),
        )  # fmt: skip


def _other_unit(split, exam: Examination, outside: np.ndarray, length: np.ndarray) -> str:
    """Returns what the timestamps look like, if they are no seconds; empty if they look like none.

    Args:
      split: the rows.
      exam: has the frame rates.
      outside: bool [F], keyframes outside their video.
      length: float64 [F], of each keyframe's video.
    """
    known = ~np.isnan(length)
    if outside[known].sum() <= _MOSTLY * known.sum():
        return ""
    seconds, length = exam.seconds_in_videos(split)[known], length[known]
    infos = [exam.info(video_id) for video_id in split.video_ids]
    fps = np.array([(info.fps if info else None) or np.nan for info in infos])
    fps = fps[split.keyframes.video[known]]
    of_a_film = (
        f"these look like seconds of a film of which the videos are the part from {_AVA_START:g} s "
        f"on (as in AVA): give --time_offset_seconds {_AVA_START:g}"
    )
    candidates = {
        of_a_film: seconds - _AVA_START,
        "these look like frame numbers: divide by the frames per second": seconds / fps,
        "these look like milliseconds: divide by 1000": seconds / 1000.0,
    }
    for text, converted in candidates.items():
        inside = (converted >= 0) & (converted <= length + LENGTH_TOLERANCE)
        if inside.mean() >= _NEARLY_ALL:
            return text
    return ""


def frame_numbers(exam: Examination) -> Iterator[Finding]:
    """Timestamps inside the videos that look like frame numbers, by their distribution.

    Whoever annotates each fifth second does so until the end of a video. Each fifth frame of its
    beginning has the same numbers, but stops long before.
    """
    for split in exam.splits.values():
        steps, judged = {}, 0
        starts = np.searchsorted(split.keyframes.video, np.arange(len(split.video_ids) + 1))
        for index, video_id in enumerate(split.video_ids):
            seconds = split.keyframes.seconds[starts[index] : starts[index + 1]]
            length = exam.length(video_id)
            if length is None or len(seconds) < _MIN_KEYFRAMES:
                continue
            judged += 1
            step = _step(seconds)
            inside = seconds[0] >= 0 and seconds[-1] <= length
            if step >= _MIN_STEP and inside and seconds[-1] + step < length - LENGTH_TOLERANCE:
                steps[video_id] = step
        if steps and len(steps) > _MOSTLY * judged:
            yield _of_frame_numbers(split, exam, steps)


def _step(seconds: np.ndarray) -> int:
    """Returns the largest number that all differences are multiples of; 0 for parts of seconds.

    Args:
      seconds: of a video's keyframes, ascending.
    """
    if (seconds != np.round(seconds)).any():
        return 0
    return int(np.gcd.reduce(np.diff(seconds).astype(np.int64)))


def _of_frame_numbers(
    split: annotation_rows.SplitRows, exam: Examination, steps: dict[str, int]
) -> Finding:
    video_id = next(iter(steps))
    index = split.video_ids.index(video_id)
    seconds = split.keyframes.seconds[split.keyframes.video == index]
    info, first, last = exam.info(video_id), seconds[0], seconds[-1]
    as_frames = ""
    if info and info.fps:
        as_frames = (
            f", as frame numbers at {info.fps:.4g} frames per second the part from "
            f"{first / info.fps:.2f} to {last / info.fps:.2f} s"
        )
    rows = split.rows_of(np.array([i in steps for i in split.video_ids], bool)[split.video])
    return Finding(
        "timestamps_like_frame_numbers", WARNING, split.path,
        f"timestamps may be frame numbers: all are whole numbers, {steps[video_id]} apart, and "
        f"stop long before the video's end: as seconds, those of {video_id} are the part from "
        f"{first:g} to {last:g} of {exam.length(video_id):.1f} s{as_frames}",
        "if they are frame numbers, divide them by the frames per second; if somebody annotated "
        f"every {steps[video_id]} s of the beginning, all is right (--contact_sheet shows it)",
        count=len(steps), unit="videos", rows=rows, value=f"{first:g}",
        items=tuple(f"{video_id} (every {step})" for video_id, step in steps.items()),
    )  # fmt: skip
