# SPDX-License-Identifier: Apache-2.0
"""Checks for videos that can be read, but not in only one way. Times are in seconds."""

from collections.abc import Callable, Iterator

from object_detection_ext.data import video_info
from object_detection_ext.doctor import findings
from object_detection_ext.doctor.examination import Examination, VideoProbe
from object_detection_ext.doctor.findings import WARNING, Finding

# Encoders of sound need a little of it before the first picture; nobody sees or hears that.
_LEAST_SOUND_LEAD = 0.2


def timestamps_start_over(exam: Examination) -> Iterator[Finding]:
    """Videos that were put together, so that their timestamps start over."""
    yield from _of_videos(
        exam,
        lambda probe: str(probe.restarts) if probe.restarts else "",
        "video_timestamps_start_over",
        "videos whose timestamps start over (how often)",
        "each part is taken to follow the one before; if the annotations count otherwise, write "
        "the file anew with one line of time (ffmpeg -i OLD NEW.mp4)",
    )


def sound_first(exam: Examination) -> Iterator[Finding]:
    """Videos whose sound begins before their picture: players count from the sound."""
    yield from _of_videos(
        exam,
        lambda probe: f"{_lead(probe):.2f} s" if _lead(probe) >= _LEAST_SOUND_LEAD else "",
        "video_sound_first",
        "videos whose sound begins before their picture",
        "timestamps count from the first picture, but a player's clock from the first sound; if "
        "these videos were annotated by a player's clock, give --time_offset_seconds a CSV with "
        "these numbers",
    )


def _lead(probe: VideoProbe) -> float:
    return probe.info.sound_lead if probe.info else 0.0


def high_dynamic_range(exam: Examination) -> Iterator[Finding]:
    """Videos in HDR, which are not tone-mapped."""
    yield from _of_videos(
        exam,
        lambda probe: probe.info.hdr if probe.info else "",
        "video_hdr",
        "HDR videos",
        video_info.HDR_CONSEQUENCE,
    )


def unread_parts(exam: Examination) -> Iterator[Finding]:
    """Files that hold several films, of which only the first is read."""
    yield from _of_videos(
        exam,
        lambda probe: (
            str(probe.info.unread_parts) if probe.info and probe.info.unread_parts else ""
        ),
        "video_parts_unread",
        "videos of which parts are not read (how many)",
        video_info.UNREAD_CONSEQUENCE,
    )


def _of_videos(
    exam: Examination, oddity: Callable[[VideoProbe], str], code: str, what: str, advice: str
) -> Iterator[Finding]:
    """Yields a warning for each split with the videos of which `oddity` says anything."""
    for split in exam.splits.values():
        oddities = {i: oddity(exam.videos.probes[i]) for i in split.video_ids}
        items = tuple(f"{video_id} ({text})" for video_id, text in oddities.items() if text)
        if items:
            yield Finding(
                code, WARNING, split.path, f"{what}: {findings.in_words(items)}", advice,
                count=len(items), unit="videos",
                value=next(i for i, text in oddities.items() if text), items=items,
            )  # fmt: skip
