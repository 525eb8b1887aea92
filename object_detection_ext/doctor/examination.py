# SPDX-License-Identifier: Apache-2.0
"""What was read of a data set and its pipeline, for the checks to look at together."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from object_detection_ext.ava import time_offsets
from object_detection_ext.ava.exclusion import Exclusion
from object_detection_ext.data import video_info
from object_detection_ext.doctor import annotation_rows


@dataclasses.dataclass(frozen=True)
class ClipOptions:
    """What records are made with: T frames, frames per second, short side in pixels (0 keeps)."""

    num_frames: int
    fps: float
    short_side: int


@dataclasses.dataclass(frozen=True)
class VideoProbe:
    """The files that answer to a video id: readable ones, and why others are not.

    `end` is when the last frame that is in the file stops being shown, in seconds, by its packets;
    None if unknown. `restarts` counts where its timestamps start over. Both are those of the only
    readable file.
    """

    readable: tuple[video_info.VideoInfo, ...] = ()
    problems: tuple[str, ...] = ()
    end: float | None = None
    restarts: int = 0

    @property
    def exists(self) -> bool:
        """Whether any file answers to the id."""
        return bool(self.readable or self.problems)

    @property
    def info(self) -> video_info.VideoInfo | None:
        """The video, if exactly one file is readable."""
        return self.readable[0] if len(self.readable) == 1 else None

    @property
    def length(self) -> float | None:
        """How much of the video there is, in seconds, None if unknown.

        The header is only asked where the packets do not tell: a file may be cut off, and some
        headers are a group of pictures short.
        """
        return self.end or (self.info.duration if self.info else None)


@dataclasses.dataclass(frozen=True)
class Videos:
    """The folder of videos: what answers to each annotated id, and videos that nobody names."""

    folder: str
    probes: Mapping[str, VideoProbe]
    unnamed: tuple[str, ...]


@dataclasses.dataclass
class Examination:
    """Everything that could be read; None where an option was not given or cannot be read.

    Attributes:
      splits: the annotations by split, "train" and "val".
      label_map_path: the label map's file.
      label_map: names by action id.
      videos: the probed videos.
      pipeline_path: the pipeline.config's file.
      pipeline: its message, as far as it could be parsed.
      records: the record files that the pipeline.config names, by split.
      clip: what records are made with.
      excluded: the file that lists keyframes to leave out, and these, (video id, seconds).
      report: takes lines of progress.
      sample_keyframes: how many keyframes of each video are decoded to see that they can be.
      every: seconds from one keyframe that the conversion keeps to the next; None keeps all.
      offsets: what annotation times are ahead of times in the videos.
    """

    clip: ClipOptions
    splits: dict[str, annotation_rows.SplitRows] = dataclasses.field(default_factory=dict)
    label_map_path: str | None = None
    label_map: dict[int, str] | None = None
    videos: Videos | None = None
    pipeline_path: str | None = None
    pipeline: Any = None
    records: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    excluded: tuple[str, frozenset] | None = None
    report: Callable[[str], None] | None = None
    sample_keyframes: int = 0
    every: float | None = None
    offsets: time_offsets.TimeOffsets = dataclasses.field(default_factory=time_offsets.TimeOffsets)

    @property
    def given(self) -> set[str]:
        """What there is to look at: names that the table of checks asks for."""
        parts = {
            "annotations": bool(self.splits),
            "label_map": self.label_map is not None,
            "videos": self.videos is not None,
            "pipeline": self.pipeline is not None,
            "excluded": self.excluded is not None,
            "samples": self.sample_keyframes > 0,
            **dict.fromkeys(self.splits, True),
            "records": bool(self.records),
            "both records": len(self.records) == 2,
        }
        return {name for name, present in parts.items() if present}

    def info(self, video_id: str) -> video_info.VideoInfo | None:
        """The video of an id, if exactly one file of this id is readable."""
        probe = self.videos.probes.get(video_id) if self.videos else None
        return probe.info if probe else None

    def seconds_in_videos(self, split: annotation_rows.SplitRows) -> np.ndarray:
        """When a split's keyframes are in their videos, float64 [F], in seconds."""
        offsets = np.array([self.offsets.of(video_id) for video_id in split.video_ids])
        if not len(offsets):
            return split.keyframes.seconds
        return split.keyframes.seconds - offsets[split.keyframes.video]

    def is_excluded(self, split: annotation_rows.SplitRows) -> np.ndarray:
        """Which of a split's keyframes the list of excluded timestamps leaves out, bool [F]."""
        if self.excluded is None:
            return np.zeros(len(split.keyframes), bool)
        frames = split.frames()
        left_out = Exclusion(self.excluded[1], frames).left_out
        return np.array([frame in left_out for frame in frames], bool)

    def length(self, video_id: str) -> float | None:
        """How much there is of the video of an id, in seconds; None if unknown."""
        probe = self.videos.probes.get(video_id) if self.videos else None
        return probe.length if probe else None
