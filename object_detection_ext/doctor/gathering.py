# SPDX-License-Identifier: Apache-2.0
"""Reads everything that was given; what cannot be read is a finding, not an end."""

import dataclasses
import functools
import os
from collections.abc import Callable

from object_detection_ext import errors, rates
from object_detection_ext.ava import box_range, faults, label_maps, tables, time_offsets
from object_detection_ext.doctor import annotation_checks, annotation_rows, video_probing
from object_detection_ext.doctor.examination import ClipOptions, Examination
from object_detection_ext.doctor.findings import ERROR, WARNING, Finding

Report = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class Inputs:
    """What to look at; None where it is not given. `fps` and `short_side` as in `ClipOptions`."""

    annotations: str | None = None
    val_annotations: str | None = None
    label_map: str | None = None
    videos: str | None = None
    pipeline_config_path: str | None = None
    excluded_timestamps: str | None = None
    num_frames: int | None = None
    fps: float | None = None
    short_side: int | None = None
    box_tolerance: float = box_range.BOX_TOLERANCE
    sample_keyframes: int = 0
    every: float | None = None
    frames_fps: float = 0.0
    time_offset_seconds: str | None = None

    def check(self) -> None:
        """Raises InputError that lists every option that is wrong by itself."""
        problems = []
        files = {
            "annotations": self.annotations,
            "val_annotations": self.val_annotations,
            "label_map": self.label_map,
            "pipeline_config_path": self.pipeline_config_path,
            "excluded_timestamps": self.excluded_timestamps,
        }
        for name, path in files.items():
            if path is not None and not os.path.isfile(path):
                problems.append(f"--{name} {path!r}: there is no such file")
        if self.videos is not None and not os.path.isdir(self.videos):
            problems.append(f"--videos {self.videos!r} is not a folder")
        if not any((*files.values(), self.videos)):
            problems.append(
                "nothing to look at: give --annotations, --videos or others (see --help)"
            )
        if self.num_frames is not None and self.num_frames < 1:
            problems.append(f"--num_frames must be at least 1, not {self.num_frames}")
        if self.fps is not None:
            problems += rates.fps_faults("--fps", self.fps)
        if self.short_side is not None and self.short_side < 0:
            problems.append(f"--short_side must be at least 0 pixels, not {self.short_side}")
        problems += rates.fps_faults("--frames_fps", self.frames_fps, rates.NO_FOLDERS)
        if not 0.0 <= self.box_tolerance < 1.0:
            problems.append(
                f"--box_tolerance must be at least 0 and less than 1, not {self.box_tolerance:g}"
            )
        if self.sample_keyframes < 0:
            problems.append(f"--sample_keyframes must be at least 0, not {self.sample_keyframes}")
        if self.every is not None:
            problems += rates.spacing_faults("--every", self.every, rates.ALL_KEYFRAMES)
        if problems:
            raise errors.InputError("; ".join(problems) + ".")


def gather(
    inputs: Inputs, default_clip: ClipOptions, report: Report | None
) -> tuple[Examination, list[Finding]]:
    """Reads the inputs.

    Args:
      inputs: checked.
      default_clip: for what neither the inputs nor the config nor its records say.
      report: takes lines of progress.

    Returns:
      What was read, and a finding for each thing that could not be.

    Raises:
      InputError: if the time offsets cannot be read, or a video has none.
    """
    exam = Examination(
        default_clip,
        report=report,
        sample_keyframes=inputs.sample_keyframes,
        every=inputs.every,
    )
    found: list[Finding] = []
    for split, path in (("train", inputs.annotations), ("val", inputs.val_annotations)):
        if path is not None:
            if report:
                report(f"reading {path}")
            read = functools.partial(annotation_rows.read, split, path, inputs.box_tolerance)
            rows = _or_finding(found, path, read)
            if rows is not None:
                exam.splits[split] = rows
    if inputs.excluded_timestamps is not None:
        path, notes = inputs.excluded_timestamps, faults.Notes()
        read = functools.partial(tables.read_excluded_timestamps, path, notes)
        frames = _or_finding(found, path, read)
        exam.excluded = None if frames is None else (path, frames)
        found += [annotation_checks.finding_of(note, path) for note in notes.all()]
    if inputs.pipeline_config_path is not None:
        _read_pipeline(exam, found, inputs.pipeline_config_path)
    exam.label_map_path = inputs.label_map or _label_map_of(exam)
    if exam.label_map_path is not None:
        path = exam.label_map_path
        read = functools.partial(label_maps.read_label_map, path)
        exam.label_map = _or_finding(found, path, read)
        if exam.label_map is not None:
            found += _label_map_findings(path)
    exam.clip = _clip_options(inputs, exam, default_clip)
    ids = sorted({i for split in exam.splits.values() for i in split.video_ids})
    exam.offsets = time_offsets.read(inputs.time_offset_seconds)
    exam.offsets.check(ids)
    if inputs.videos is not None:
        exam.videos = video_probing.probe_videos(inputs.videos, ids, report, inputs.frames_fps)
    return exam, found


def _label_map_findings(path: str) -> list[Finding]:
    """What the converter takes of a label map, but the stock API that trains does not."""
    return [
        Finding(
            "label_map_form", WARNING, path, note,
            "the records can be made with it, but the stock API, which trains, does not read it so",
            unit="files",
        )
        for note in label_maps.read(path).notes
    ]  # fmt: skip


def _or_finding(found: list[Finding], path: str, read: Callable):
    """Returns what `read` returns, or None and adds a finding."""
    try:
        return read()
    except (ValueError, OSError) as error:
        message = str(error).removeprefix(f"{path}: ").rstrip(".")
        advice = "the other checks go on without this file: repair it and look again"
        found.append(Finding("unreadable_file", ERROR, path, message, advice, unit="files"))
        return None


def _read_pipeline(exam: Examination, found: list[Finding], path: str) -> None:
    # Here, so that wrong options are told before TensorFlow is imported.
    from object_detection_ext import registration
    from object_detection_ext.doctor import pipeline_checks, split_records

    exam.pipeline_path = path
    read = functools.partial(registration.parse_pipeline, path)
    exam.pipeline = _or_finding(found, path, read)
    if exam.pipeline is None:
        return
    records = {}
    for split, reader in pipeline_checks.readers(exam.pipeline).items():
        patterns = reader.tf_record_input_reader.input_path
        if patterns:
            records[split] = split_records.SplitRecords(
                split, patterns, exam.report, pipeline_checks.max_frame_pixels(exam.pipeline)
            )
    exam.records = records


def _label_map_of(exam: Examination) -> str | None:
    """The config's label map, where there is such a file."""
    if exam.pipeline is None:
        return None
    path = exam.pipeline.train_input_reader.label_map_path
    return path if os.path.isfile(path) else None


def _clip_options(inputs: Inputs, exam: Examination, default: ClipOptions) -> ClipOptions:
    """An option that is given wins, then the config, then what its records say."""
    num_frames = fps = None
    if exam.pipeline is not None:
        from object_detection_ext.doctor import pipeline_checks

        num_frames, fps = pipeline_checks.clip_options(exam.pipeline)
        rates = [records.fps for records in exam.records.values() if records.fps]
        fps = fps or (round(rates[0], 3) if rates else None)
    return ClipOptions(
        inputs.num_frames or num_frames or default.num_frames,
        inputs.fps or fps or default.fps,
        default.short_side if inputs.short_side is None else inputs.short_side,
    )
