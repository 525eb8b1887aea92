# SPDX-License-Identifier: Apache-2.0
"""Detections at the keyframes of the ground truth: which keyframe each row is at, if any.

Shapes: N rows of the detections, F frames.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from object_detection_ext import listing
from object_detection_ext.ava.tables import AvaRows
from object_detection_ext.ava.timestamps import Frame
from object_detection_ext.evaluation.moments import VideoMoments
from object_detection_ext.evaluation.protocols import Frames
from object_detection_ext.evaluation.selection import Selection


@dataclass
class PlaceCounts:
    """What became of keyframes, and of detections that are at none.

    Attributes:
        videos: that the ground truth lists.
        keyframes_with_ground_truth_and_no_detections: keyframes with a box in the ground truth, at
            which the detections have no row of any class.
        detection_rows_of_unknown_videos: of videos that the ground truth does not list; left out.
        detection_rows_between_keyframes: at times that are no keyframe of the ground truth's
            spacing; left out.
    """

    videos: int = 0
    keyframes_with_ground_truth_and_no_detections: int = 0
    detection_rows_of_unknown_videos: int = 0
    detection_rows_between_keyframes: int = 0


@dataclass(frozen=True)
class Placed:
    """Detections whose frames are keyframes of the ground truth, or would be.

    Attributes:
        rows: without those that are at no keyframe.
        counts: what became of the others.
        warnings: for people.
    """

    rows: AvaRows
    counts: PlaceCounts
    warnings: tuple[str, ...]


def place(
    ground_truth: AvaRows,
    detections: AvaRows,
    moments: Mapping[str, VideoMoments],
    frames: Frames,
) -> Placed:
    """Gives detections the frames of the ground truth.

    Times of the two files are the same keyframe if they differ by the rounding of a text file.

    Args:
        ground_truth: whose keyframes count.
        detections: N rows.
        moments: of the ground truth, from `moments.number_moments`.
        frames: whether detections at keyframes that the ground truth does not list count.
    """
    is_known, exists, is_listed, seconds = _find(detections.frames, moments)
    placed = [
        (video, time) for (video, _), time in zip(detections.frames, seconds.tolist(), strict=True)
    ]
    numbers: dict[Frame, int] = {}
    number = np.array(
        [
            numbers.setdefault(frame, len(numbers)) if there else -1
            for frame, there in zip(placed, exists.tolist(), strict=True)
        ],
        np.int64,
    )
    frame = detections.rows.frame
    keep = exists[frame]
    rows = detections.rows[keep]
    kept = dataclasses.replace(
        detections,
        frames=list(numbers),
        rows=dataclasses.replace(rows, frame=number[rows.frame]),
        lines=detections.lines[keep],
        has_score=detections.has_score[keep],
    )
    counts = PlaceCounts(
        len(moments),
        len(_missed(ground_truth, numbers)),
        int((~is_known[frame]).sum()),
        int((is_known & ~exists)[frame].sum()),
    )
    warnings = _Warnings(detections)
    warnings.warn_of_unknown_videos(~is_known[frame])
    warnings.warn_of_rows_between(is_known[frame] & ~exists[frame])
    warnings.warn_of_unlisted(exists[frame] & ~is_listed[frame], frames)
    return Placed(kept, counts, tuple(warnings.lines))


def _find(
    frames: list[Frame], moments: Mapping[str, VideoMoments]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Where F frames are: bool [F] known video, keyframe, listed keyframe; float64 [F] its time."""
    seconds = np.array([time for _, time in frames], np.float64)
    by_video: dict[str, list[int]] = {}
    for number, (video, _) in enumerate(frames):
        by_video.setdefault(video, []).append(number)
    is_known, exists, is_listed = (np.zeros(len(frames), bool) for _ in range(3))
    for video, numbers in by_video.items():
        if video in moments:
            found = moments[video].place(seconds[numbers])
            is_known[numbers], exists[numbers] = True, found.exists
            is_listed[numbers], seconds[numbers] = found.is_listed, found.seconds
    return is_known, exists, is_listed, seconds


def _missed(ground_truth: AvaRows, found: Mapping[Frame, int]) -> list[Frame]:
    """Keyframes of the ground truth with a box, that the detections do not list."""
    with_boxes = np.unique(ground_truth.rows.frame).tolist()
    return [
        ground_truth.frames[number]
        for number in with_boxes
        if ground_truth.frames[number] not in found
    ]


class _Warnings:
    """Lines about detections that are not where the ground truth is."""

    def __init__(self, detections: AvaRows):
        self.lines: list[str] = []
        self._detections = detections

    def _first(self, rows: np.ndarray) -> str:
        row = np.flatnonzero(rows)[0]
        video, seconds = self._detections.frames[self._detections.rows.frame[row]]
        return f"first: line {self._detections.lines[row]}, {video!r} at {seconds:g} s"

    def _warn(self, rows: np.ndarray, what: str) -> None:
        number = int(rows.sum())
        if number:
            self.lines.append(
                f"{self._detections.name}: {listing.part(number, len(rows), 'row')} "
                f"{listing.verb(number, 'is', 'are')} {what} ({self._first(rows)})"
            )

    def warn_of_unknown_videos(self, rows: np.ndarray) -> None:
        self._warn(rows, "of videos that the ground truth does not list; left out")

    def warn_of_rows_between(self, rows: np.ndarray) -> None:
        self._warn(
            rows,
            "at times between the keyframes that the ground truth has at its spacing; left out",
        )

    def warn_of_unlisted(self, rows: np.ndarray, frames: Frames) -> None:
        what = "ignored" if frames == "listed" else "they are false positives"
        self._warn(rows, f"at keyframes that the ground truth does not list; {what}")


def numbers(rows: Selection, moments: Mapping[str, VideoMoments]) -> tuple[np.ndarray, np.ndarray]:
    """Which video and which keyframe each of the F frames of a selection is, int64 [F] both.

    Args:
        rows: of the ground truth and of detections from `place`.
        moments: of the ground truth.
    """
    videos = {video: number for number, video in enumerate(moments)}
    video = np.array([videos[name] for name, _ in rows.frames], np.int64)
    seconds = np.array([time for _, time in rows.frames], np.float64)
    moment = np.zeros(len(seconds), np.int64)
    order = np.argsort(video, kind="stable")
    for own in np.split(order, np.flatnonzero(np.diff(video[order])) + 1):
        if len(own):
            name = rows.frames[own[0]][0]
            moment[own] = moments[name].place(seconds[own]).numbers
    return video, moment
