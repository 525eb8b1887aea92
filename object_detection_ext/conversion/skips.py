# SPDX-License-Identifier: Apache-2.0
"""Keyframes that are left out, and how that is told."""

import collections
import dataclasses
from collections.abc import Iterable, Sequence

from object_detection_ext import listing as lists
from object_detection_ext.ava import annotations, timestamps

MISSING, UNREADABLE = "missing video", "unreadable video"
OUTSIDE, DAMAGED = "timestamp outside the video", "video damaged there"
# These were asked for: no surprise, so no error under --strict.
UNKNOWN_LABELS, EXCLUDED = "unknown labels only", "excluded timestamp"
_ASKED_FOR = (UNKNOWN_LABELS, EXCLUDED)

_MAX_LISTED = 20


@dataclasses.dataclass(frozen=True)
class Skip:
    """A keyframe that was left out, where it stands in the annotations, and why.

    `kind` groups skips for counting.
    """

    row: int
    video_id: str
    timestamp: float
    kind: str
    reason: str


def skips_of(keyframes: Iterable[annotations.Keyframe], kind: str, reason: str) -> list[Skip]:
    """Returns a skip for each keyframe."""
    return [Skip(k.row, k.video_id, k.timestamp, kind, reason) for k in keyframes]


def annotated_as(timestamp: float, offset: float) -> str:
    """Returns what to say after a time in a video that annotations have otherwise; else nothing."""
    if not offset:
        return ""
    time = timestamps.format_timestamp(timestamp)
    return f" (annotated as {time} s, time offset {offset:g} s)"


def surprises(skips: Iterable[Skip]) -> list[Skip]:
    """Returns those that nobody asked for."""
    return [skip for skip in skips if skip.kind not in _ASKED_FOR]


def counts(skips: Iterable[Skip]) -> dict[str, int]:
    """Returns how many there are of each kind."""
    return dict(sorted(collections.Counter(skip.kind for skip in skips).items()))


def listing(path: str, skips: Sequence[Skip]) -> list[str]:
    """Returns one line per video and reason, with the first row in the annotations; the first 20.

    Args:
        path: the annotations.
        skips: what was left out.
    """
    groups: dict[tuple, list[Skip]] = {}
    for skip in skips:
        groups.setdefault((skip.video_id, skip.reason), []).append(skip)
    lines = []
    for (video_id, reason), same in groups.items():
        more = f" (and {lists.counted(len(same) - 1, 'more keyframe')})" if len(same) > 1 else ""
        lines.append(f"{path}:{same[0].row}: {video_id}: {reason}{more}")
    return lists.in_lines(lines, _MAX_LISTED)
