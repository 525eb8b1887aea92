# SPDX-License-Identifier: Apache-2.0
r"""Converts videos and an AVA-style CSV to sharded TFRecords of clips.

    python -m object_detection_ext.tools.create_ava_records --annotations train.csv \
        --videos DIR --label_map label_map.pbtxt --output records/train@8 --num_frames 64 --fps 25

One record per annotated keyframe: T frames around it, taken by presentation time and resampled to
the given rate, in the stock SequenceExample schema (`data/clip_features.py`). Everything about the
input that can be checked without decoding is checked first. What is left out on the way (a missing
video, a timestamp beyond the end) is counted and told, or an error under --strict.

The shards get their names `P-00000-of-0000N` when all of them are complete; `P-report.json` holds
the counts. The same input and options give the same bytes.
"""

import collections
import contextlib
import dataclasses
import io
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from absl import app, flags
from PIL import Image

from object_detection_ext import errors
from object_detection_ext import progress as progress_lib
from object_detection_ext.data import annotations, video_files, video_reader

_MAX_LISTED = 20
_MISSING, _UNREADABLE = "missing video", "unreadable video"
_OUTSIDE, _DAMAGED = "timestamp outside the video", "video damaged there"
_UNKNOWN_LABELS = "unknown labels only"
_SHARD_PATTERN = re.compile(r"(?P<prefix>.+)@(?P<count>\d+)")


class ConversionError(errors.InputError):
    """The conversion cannot be done as asked; the message says why and what would be right."""


@dataclasses.dataclass(frozen=True)
class Options:
    """What to convert and how. `short_side` is in pixels, 0 keeps the video's size."""

    annotations: str
    videos: str
    label_map: str
    output: str
    num_frames: int = 64
    fps: float = 25.0
    short_side: int = 0
    jpeg_quality: int = 92
    strict: bool = False
    skip_unknown_labels: bool = False

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
        if not 0 < self.fps <= 1000:
            problems.append(f"--fps must be more than 0 and at most 1000, not {self.fps:g}")
        if self.short_side < 0:
            problems.append(f"--short_side must be at least 0 pixels, not {self.short_side}")
        if not 1 <= self.jpeg_quality <= 100:
            problems.append(f"--jpeg_quality must be 1 to 100, not {self.jpeg_quality}")
        if not os.path.isdir(self.videos):
            problems.append(f"--videos {self.videos!r} is not a folder")
        if problems:
            raise ConversionError("; ".join(problems) + ".")

    @property
    def prefix(self) -> str:
        """What the names of all files written begin with."""
        return _SHARD_PATTERN.fullmatch(self.output)["prefix"]

    @property
    def num_shards(self) -> int:
        """The N of `--output P@N`."""
        return int(_SHARD_PATTERN.fullmatch(self.output)["count"])

    def shard_path(self, index: int) -> str:
        """The final name of a shard, counted from 0."""
        return f"{self.prefix}-{index:05d}-of-{self.num_shards:05d}"


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


class _Skips:
    """Collects what is left out, which is an error under --strict."""

    def __init__(self, path: str, strict: bool):
        self.found: list[Skip] = []
        self._path, self._strict = path, strict

    def add(self, keyframes: Sequence[annotations.Keyframe], kind: str, reason: str) -> None:
        self.found += [Skip(k.row, k.video_id, k.timestamp, kind, reason) for k in keyframes]

    def raise_if_strict(self) -> None:
        # --skip_unknown_labels asked for those: they are no surprise.
        found = [skip for skip in self.found if skip.kind != _UNKNOWN_LABELS]
        if self._strict and found:
            raise ConversionError(
                f"--strict: {len(found)} keyframes cannot be converted:\n" + self.listing(found)
            )

    def listing(self, found: Sequence[Skip] | None = None) -> str:
        """Returns one line per video and reason, the first 20."""
        return "\n".join(list_skips(self._path, self.found if found is None else found))

    def counts(self) -> dict[str, int]:
        return dict(sorted(collections.Counter(skip.kind for skip in self.found).items()))


def list_skips(path: str, skips: Sequence[Skip]) -> list[str]:
    """Returns one line per video and reason, with the first row in the annotations; the first 20.

    Args:
      path: the annotations.
      skips: what was left out.
    """
    groups: dict[tuple, list[Skip]] = {}
    for skip in skips:
        groups.setdefault((skip.video_id, skip.reason), []).append(skip)
    lines = []
    for (video_id, reason), same in list(groups.items())[:_MAX_LISTED]:
        more = f" (and {len(same) - 1} more keyframes)" if len(same) > 1 else ""
        lines.append(f"  {path}:{same[0].row}: {video_id}: {reason}{more}")
    if len(groups) > _MAX_LISTED:
        lines.append(f"  ... and {len(groups) - _MAX_LISTED} more")
    return lines


# --- Before the first decode ----------------------------------------------------------------------


def _find_videos(options: Options, by_video, skips: _Skips) -> dict[str, video_reader.VideoInfo]:
    index = video_files.index_videos(options.videos)
    infos = {}
    for video_id, keyframes in by_video.items():
        try:
            infos[video_id] = video_files.find_video(video_id, index, options.videos)
        except video_reader.VideoError as error:
            kind = _UNREADABLE if video_id in index else _MISSING
            skips.add(keyframes, kind, str(error))
            continue
        # The header's duration is not exact: only what is clearly outside is told here already;
        # decoding decides about the rest.
        if options.strict:
            duration = infos[video_id].duration
            limit = np.inf if duration is None else duration + 1.0
            for keyframe in keyframes:
                if not 0 <= keyframe.timestamp <= limit:
                    length = "" if duration is None else f", which is {duration:g} s long"
                    reason = f"timestamp {keyframe.timestamp:g} s is outside the video{length}"
                    skips.add([keyframe], _OUTSIDE, reason)
    skips.raise_if_strict()
    return infos


# --- Conversion -----------------------------------------------------------------------------------


class _JpegEncoder:
    """Frames to JPEG bytes, resized to a short side in pixels if one is given."""

    def __init__(self, short_side: int, quality: int):
        self._short_side, self._quality = short_side, quality
        self.size: tuple[int, int] | None = None

    def __call__(self, frame: np.ndarray) -> bytes:
        picture = Image.fromarray(frame)
        if self._short_side:
            scale = self._short_side / min(picture.size)
            size = tuple(max(1, round(side * scale)) for side in picture.size)
            # Reducing in two steps costs a fraction of one antialiased step and looks the same.
            picture = picture.resize(size, Image.Resampling.BILINEAR, reducing_gap=3.0)
        self.size = picture.size[::-1]
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=self._quality)
        return buffer.getvalue()


@contextlib.contextmanager
def _shard_writers(options: Options):
    """Opens all shards under temporary names; they get their own when the body succeeds."""
    import tensorflow as tf

    os.makedirs(os.path.dirname(os.path.abspath(options.prefix)), exist_ok=True)
    final = [options.shard_path(i) for i in range(options.num_shards)]
    temporary = [f"{path}.incomplete" for path in final]
    complete = False
    try:
        with contextlib.ExitStack() as stack:
            yield [stack.enter_context(tf.io.TFRecordWriter(path)) for path in temporary]
        complete = True
    finally:
        for source, target in zip(temporary, final, strict=True):
            if complete:
                os.replace(source, target)
            elif os.path.exists(source):
                os.remove(source)


def _usable_keyframes(labels: annotations.Annotations, skips: _Skips):
    """Leaves out keyframes whose every row had an unknown label: they are not free of people."""
    by_video = {}
    for video_id, keyframes in labels.by_video().items():
        kept = [k for k in keyframes if k.regions or not k.num_skipped]
        lost = [k for k in keyframes if not k.regions and k.num_skipped]
        skips.add(lost, _UNKNOWN_LABELS, "no action of it is in the label map")
        if kept:
            by_video[video_id] = kept
    return by_video


class _Converter:
    """Converts video after video and counts what it made."""

    def __init__(self, options: Options, label_map: Mapping[int, str], skips: _Skips):
        self._options, self._label_map, self._skips = options, label_map, skips
        self.rows_by_class = dict.fromkeys(label_map.values(), 0)
        self.num_keyframes = self.num_empty = self.num_boxes = 0
        self.videos: dict[str, dict] = {}

    def convert(self, info: video_reader.VideoInfo, keyframes) -> Iterator[bytes | None]:
        """Yields the serialized record of each keyframe in order, None for one left out."""
        encoder = _JpegEncoder(self._options.short_side, self._options.jpeg_quality)
        reader = video_reader.ClipReader(
            info.path, num_frames=self._options.num_frames, fps=self._options.fps, transform=encoder
        )
        remaining = collections.deque(keyframes)
        kept_before = self.num_keyframes
        try:
            for clip in reader.clips([k.timestamp for k in keyframes]):
                yield self._record(remaining.popleft(), clip, info, encoder)
        except video_reader.VideoError as error:
            self._leave_out(remaining, _UNREADABLE, str(error))
            for _ in remaining:
                yield None
        if self._options.strict and reader.stats.damaged:
            raise ConversionError(
                f"--strict: {info.path}: {reader.stats.damaged} frames cannot be decoded. Repair "
                "or re-encode the video, or leave --strict out to convert what is whole."
            )
        self.videos[keyframes[0].video_id] = {
            "path": info.path,
            "fps": info.fps,
            "duration": info.duration,
            "size": list(reader.shape or (info.height, info.width)),
            "codec": info.codec,
            "decoded_frames": reader.stats.decoded,
            "damaged_frames": reader.stats.damaged,
            "keyframes": len(keyframes),
            "keyframes_kept": self.num_keyframes - kept_before,
        }

    def _leave_out(self, keyframes, kind: str, reason: str) -> None:
        self._skips.add(keyframes, kind, reason)
        self._skips.raise_if_strict()

    def _record(self, keyframe, clip, info, encoder) -> bytes | None:
        from object_detection_ext.data import clip_features

        if clip.problem:
            kind = _OUTSIDE if clip.outside else _DAMAGED
            self._leave_out([keyframe], kind, f"{info.path}: {clip.problem}")
            return None
        height, width = encoder.size
        example = clip_features.make_clip_example(
            keyframe,
            self._label_map,
            encoded_frames=clip.frames,
            frame_times=clip.frame_times,
            height=height,
            width=width,
        )
        self.num_keyframes += 1
        self.num_empty += not keyframe.regions
        self.num_boxes += len({(region.box, region.person_id) for region in keyframe.regions})
        for region in keyframe.regions:
            self.rows_by_class[self._label_map[region.action_id]] += 1
        return example.SerializeToString(deterministic=True)


def _report(options: Options, labels, converter: _Converter, skips: _Skips) -> dict:
    return {
        "options": dataclasses.asdict(options),
        "totals": {
            "keyframes": len(labels.keyframes),
            "keyframes_kept": converter.num_keyframes,
            "keyframes_without_people": converter.num_empty,
            "boxes": converter.num_boxes,
            "rows": sum(converter.rows_by_class.values()),
        },
        "rows_by_class": converter.rows_by_class,
        "skipped_keyframes_by_reason": skips.counts(),
        "skipped_rows_by_unknown_action_id": {
            str(action_id): count for action_id, count in sorted(labels.skipped_labels.items())
        },
        "skipped_keyframes": [dataclasses.asdict(skip) for skip in skips.found],
        "videos": converter.videos,
    }


def _write_report(path: str, report: dict) -> None:
    temporary = f"{path}.incomplete"
    with open(temporary, "w", encoding="utf-8") as file:
        json.dump(report, file, indent=1)
        file.write("\n")
    os.replace(temporary, path)


def convert(options: Options) -> dict:
    """Converts the data set and writes shards and report.

    Returns:
      The report, as written to `P-report.json`.

    Raises:
      ConversionError: if an option is out of range, nothing could be converted, or under --strict
        anything had to be left out.
      annotations.AnnotationError: if the annotations or the label map have errors.
    """
    options.check()
    label_map = annotations.read_label_map(options.label_map)
    labels = annotations.read_annotations(
        options.annotations, label_map, skip_unknown_labels=options.skip_unknown_labels
    )
    skips = _Skips(options.annotations, options.strict)
    by_video = _usable_keyframes(labels, skips)
    infos = _find_videos(options, by_video, skips)
    converter = _Converter(options, label_map, skips)
    total = sum(len(by_video[video_id]) for video_id in infos)
    progress = progress_lib.Progress("records", total, "keyframes")
    planned = 0
    with _shard_writers(options) as writers:
        for number, (video_id, info) in enumerate(infos.items(), start=1):
            for record in converter.convert(info, by_video[video_id]):
                # Neighbours go to different shards. Places are given before skips, so that one
                # damaged video does not move the records of all others.
                if record is not None:
                    writers[planned % len(writers)].write(record)
                planned += 1
                progress.update(planned, f"video {number}/{len(infos)} {video_id}")
        if not converter.num_keyframes:
            raise ConversionError(
                f"No keyframe of {options.annotations} could be converted:\n{skips.listing()}"
            )
    report = _report(options, labels, converter, skips)
    _write_report(f"{options.prefix}-report.json", report)
    return report


def summary(options: Options, report: dict) -> str:
    """Returns what the user reads at the end: counts, what was left out, what comes next."""
    totals = report["totals"]
    lines = [
        f"Converted {totals['keyframes_kept']} of {totals['keyframes']} keyframes with "
        f"{totals['boxes']} boxes and {totals['rows']} action labels, from "
        f"{len(report['videos'])} videos."
    ]
    for kind, count in report["skipped_keyframes_by_reason"].items():
        lines.append(f"Left out: {count} keyframes, {kind}.")
    lines += list_skips(options.annotations, [Skip(**skip) for skip in report["skipped_keyframes"]])
    damaged = [name for name, video in report["videos"].items() if video["damaged_frames"]]
    if damaged:
        more = " and more" if len(damaged) > _MAX_LISTED else ""
        lines.append(
            f"Damaged parts were left out of {len(damaged)} videos; clips near them may show it: "
            f"{', '.join(damaged[:_MAX_LISTED])}{more}."
        )
    if report["skipped_rows_by_unknown_action_id"]:
        ids = report["skipped_rows_by_unknown_action_id"]
        counts = ", ".join(f"{i} ({count} rows)" for i, count in ids.items())
        lines.append(f"Left out rows with action ids that the label map does not have: {counts}.")
    lines += [
        f"Records: {options.prefix}-?????-of-{options.num_shards:05d} (each keyframe and what was "
        f"left out: {options.prefix}-report.json).",
        "Use them in pipeline.config with",
        f'  label_map_path: "{options.label_map}"',
        "  tf_record_input_reader { input_path: "
        f'"{options.prefix}-?????-of-{options.num_shards:05d}" }}',
    ]
    return "\n".join(lines)


def define_flags(values: flags.FlagValues) -> None:
    """Defines the tool's options."""
    flags.DEFINE_string(
        "annotations",
        None,
        "AVA-style CSV: video_id,timestamp,x1,y1,x2,y2,action_id,person_id; "
        "seconds from the start of the video; no header.",
        required=True,
        flag_values=values,
    )
    flags.DEFINE_string(
        "videos", None, "Folder with the videos, named by id.", required=True, flag_values=values
    )
    flags.DEFINE_string(
        "label_map", None, "Label map (pbtxt) of the action ids.", required=True, flag_values=values
    )
    flags.DEFINE_string("output", None, "PREFIX@N for N shards.", required=True, flag_values=values)
    flags.DEFINE_integer("num_frames", Options.num_frames, "Frames of a clip.", flag_values=values)
    flags.DEFINE_float("fps", Options.fps, "Frames per second of the clips.", flag_values=values)
    flags.DEFINE_integer(
        "short_side",
        Options.short_side,
        "Resize frames to this short side in pixels; 0 keeps.",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "jpeg_quality", Options.jpeg_quality, "Of the stored frames, 1 to 100.", flag_values=values
    )
    flags.DEFINE_bool(
        "strict", Options.strict, "Leave nothing out: errors instead.", flag_values=values
    )
    flags.DEFINE_bool(
        "skip_unknown_labels",
        Options.skip_unknown_labels,
        "Leave out rows whose action id the label map does not have, instead of an error.",
        flag_values=values,
    )


def main(argv: Sequence[str], values: flags.FlagValues = flags.FLAGS) -> None:
    if len(argv) > 1:
        raise app.UsageError(f"Unexpected arguments: {argv[1:]}")
    fields = dataclasses.fields(Options)
    options = Options(**{field.name: values[field.name].value for field in fields})
    try:
        report = convert(options)
    except (errors.InputError, OSError) as error:
        raise SystemExit(f"error: {error}") from error
    print(summary(options, report))


if __name__ == "__main__":
    define_flags(flags.FLAGS)
    app.run(main)
