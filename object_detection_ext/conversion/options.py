# SPDX-License-Identifier: Apache-2.0
"""What to convert and how."""

import dataclasses
import os
import re
from collections.abc import Sequence

from object_detection_ext import errors, files, rates
from object_detection_ext.ava import box_range

_SHARD_PATTERN = re.compile(r"(?P<prefix>.+)@(?P<count>\d+)")
_SPLIT = "{split}"
_PER_SPLIT = ("annotations", "output", "excluded_timestamps")


class ConversionError(errors.InputError):
    """The conversion cannot be done as asked; the message says why and what would be right."""


@dataclasses.dataclass(frozen=True)
class Options:
    """One split: its files and what its records are like.

    Attributes:
      annotations: AVA-style CSV.
      videos: folder of the videos; local, or what TensorFlow can list (`gs://...`).
      label_map: names of the action ids.
      output: PREFIX@N for N shards.
      num_frames: of a record with one keyframe, T.
      fps: frames per second of the records.
      short_side: what larger frames are shrunk to before they are stored, in pixels; 0 keeps the
        video's size.
      jpeg_quality: 1 to 100.
      seconds_per_record: keyframes within so many seconds share a record where their clips overlap;
        0 gives each a record of its own.
      excluded_timestamps: CSV of keyframes to leave out; may be empty.
      strict: whether leaving anything out is an error.
      box_tolerance: how far outside of [0, 1] a box may reach to be cut off, as a part of the
        frame.
      skip_unknown_labels: whether rows whose action the label map does not have are left out.
      overwrite: whether records of another conversion may be replaced.
      every: seconds from one keyframe that is kept to the next, of densely annotated videos; 0
        keeps all.
      frames_fps: frames per second of folders of numbered frames; 0 where these are not videos.
      time_offset_seconds: what annotation times are ahead of times in the videos: seconds, or the
        path of a CSV of video_id,seconds; may be empty.
    """

    annotations: str
    videos: str
    label_map: str
    output: str
    num_frames: int = 64
    fps: float = 25.0
    short_side: int = 0
    jpeg_quality: int = 92
    seconds_per_record: float = 0.0
    excluded_timestamps: str = ""
    box_tolerance: float = box_range.BOX_TOLERANCE
    strict: bool = False
    skip_unknown_labels: bool = False
    overwrite: bool = False
    every: float = 0.0
    frames_fps: float = 0.0
    time_offset_seconds: str = ""

    def check(self) -> None:
        """Raises ConversionError that lists every option out of its range."""
        problems = []
        match = _SHARD_PATTERN.fullmatch(self.output)
        if match is None or not 1 <= int(match["count"]) <= 99999:
            problems.append(
                f"--output {self.output!r} must be PREFIX@N with N shards from 1 to 99999, such as "
                "records/train@8"
            )
        if self.num_frames < 1:
            problems.append(f"--num_frames must be at least 1, not {self.num_frames}")
        problems += rates.fps_faults("--fps", self.fps)
        problems += rates.fps_faults("--frames_fps", self.frames_fps, rates.NO_FOLDERS)
        if self.short_side < 0:
            problems.append(f"--short_side must be at least 0 pixels, not {self.short_side}")
        if not 1 <= self.jpeg_quality <= 100:
            problems.append(f"--jpeg_quality must be 1 to 100, not {self.jpeg_quality}")
        if not 0 <= self.seconds_per_record <= 3600:
            problems.append(
                f"--seconds_per_record must be 0 to 3600, not {self.seconds_per_record:g}"
            )
        if not 0.0 <= self.box_tolerance < 1.0:
            problems.append(
                f"--box_tolerance must be at least 0 and less than 1, not {self.box_tolerance:g}"
            )
        if files.is_local(self.videos) and not os.path.isdir(self.videos):
            problems.append(f"--videos {self.videos!r} is not a folder")
        problems += rates.spacing_faults("--every", self.every, rates.ALL_KEYFRAMES)
        problems += [
            f"--{name} {value!r} names a split, but --splits is missing"
            for name, value in self._per_split().items()
            if _SPLIT in value
        ]
        if problems:
            raise ConversionError("; ".join(problems) + ".")

    def _per_split(self) -> dict[str, str]:
        return {name: getattr(self, name) for name in _PER_SPLIT}

    def for_splits(self, splits: Sequence[str]) -> "list[Options]":
        """Returns the options of each split, its name in the place of `{split}`; self without any.

        Raises:
          ConversionError: if two splits would read or write the same file.
        """
        if not splits:
            return [self]
        missing = [f"--{n}" for n in ("annotations", "output") if _SPLIT not in getattr(self, n)]
        if missing:
            raise ConversionError(
                f"With --splits, {_SPLIT} must stand in {' and '.join(missing)}, such as "
                f"--annotations 'ava_{_SPLIT}_v2.2.csv' --output 'records/{_SPLIT}@32'."
            )
        if len(set(splits)) < len(splits) or not all(splits):
            raise ConversionError(f"--splits {','.join(splits)}: each name once, none empty.")
        return [
            dataclasses.replace(
                self, **{n: v.replace(_SPLIT, split) for n, v in self._per_split().items()}
            )
            for split in splits
        ]

    @property
    def prefix(self) -> str:
        """What the names of all files written begin with."""
        return _SHARD_PATTERN.fullmatch(self.output)["prefix"]

    @property
    def num_shards(self) -> int:
        """The N of `--output P@N`."""
        return int(_SHARD_PATTERN.fullmatch(self.output)["count"])

    @property
    def shard_pattern(self) -> str:
        """The shards as `input_path` of a pipeline.config names them."""
        return f"{self.prefix}-?????-of-{self.num_shards:05d}"

    def shard_path(self, index: int) -> str:
        """The final name of a shard, counted from 0."""
        return f"{self.prefix}-{index:05d}-of-{self.num_shards:05d}"
