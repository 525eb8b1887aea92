# SPDX-License-Identifier: Apache-2.0
r"""Finds people and their actions in videos with an exported model.

    python -m object_detection_ext.tools.detect_video --saved_model exported/saved_model \
        street.mp4 'phone/*.mov' archive/ --output DIR

Inputs are video files, patterns, folders (all videos below them), the number of a camera, or the
address of a stream (rtsp://..., http://..., udp://...). For each video DIR then holds

    NAME.jsonl             a line of JSON for each keyframe
    NAME_detections.csv    AVA-style rows, which evaluation.ava_ap reads; for evaluation use a low
                           --score_threshold such as 0.01, and --keyframes GROUND_TRUTH.csv
    NAME_detections.mp4    the annotated video
    NAME_detections.png    the keyframe with the clearest detections

and detections.csv the rows of all of them. A video that cannot be read does not stop the others. A
run that was stopped resumes where it was. For a camera or a stream there are lines of JSON and the
CSV, named by the time of the start, until it ends or Ctrl-C; a stream whose connection is lost is
connected again. Names that begin with a dash come after --.

Ends with 0; with 1 if videos could not be used, a stream was lost, or the disk is full; with 2 if
nothing could be used; with 130 after Ctrl-C.
"""

import dataclasses
import math
import os
import sys
import time
import traceback
from collections.abc import Sequence

from absl import app, flags

from object_detection_ext import command_line, errors, listing, printable, progress, rates
from object_detection_ext import files as file_systems
from object_detection_ext.ava import box_range, time_offsets, writer
from object_detection_ext.data import video_info, video_probe
from object_detection_ext.inference import (
    given_boxes,
    network_stream,
    result_files,
    results,
    shared_trunk,
    sources,
    tracks,
)
from object_detection_ext.inference import model as model_lib
from object_detection_ext.inference.detector import ActionDetector
from object_detection_ext.inference.result_files import VideoResults
from object_detection_ext.inference.results import Keyframe
from object_detection_ext.inference.wanted_keyframes import WantedKeyframes

_FOR_VIDEOS = ("share_trunk", "person_boxes", "keyframes", "frames_fps", "attention")


@dataclasses.dataclass(frozen=True)
class Options:
    """What to detect and how; `every` is in seconds. The others are those of ActionDetector."""

    inputs: tuple[str, ...]
    output: str
    saved_model: str
    label_map: str | None = None
    person_boxes: str | None = None
    every: float = 1.0
    score_threshold: float = 0.3
    fps: float | None = None
    num_frames: int | None = None
    precision: str | None = None
    short_side: int | None = None
    batch_size: int = 1
    share_trunk: bool = False
    clips_per_stretch: int = shared_trunk.DEFAULT_CLIPS_PER_STRETCH
    tracks: bool = False
    attention: bool = False
    video: bool = True
    keyframes: str | None = None
    time_offset_seconds: str | None = None
    frames_fps: float = 0.0
    box_tolerance: float = box_range.BOX_TOLERANCE

    def check(self) -> None:
        """Raises errors.InputError for what can be told wrong without TensorFlow."""
        if not self.inputs:
            raise errors.InputError(
                "Give at least one video, pattern, folder, camera number or stream."
            )
        rates.check(
            [
                *rates.spacing_faults("--every", self.every),
                *rates.fps_faults("--frames_fps", self.frames_fps, rates.NO_FOLDERS),
            ]
        )
        box_range.check_tolerance(self.box_tolerance)
        model_lib.check_saved_model(self.saved_model)
        if self.precision is not None:
            model_lib.check_precision(self.saved_model, self.precision)
        for name in ("person_boxes", "keyframes"):
            path = getattr(self, name)
            if path is not None and not os.path.isfile(path):
                raise errors.InputError(f"--{name}: {path}: there is no such file.")
        if self.keyframes and self.person_boxes:
            raise errors.InputError(
                "--keyframes and --person_boxes exclude each other: with boxes of a file, its "
                "keyframes are those of the videos."
            )
        if self.time_offset_seconds and not self.keyframes:
            raise errors.InputError(
                "--time_offset_seconds is for --keyframes. Without it timestamps count from the "
                "start of each file; the evaluator's --time_offset_seconds moves them."
            )

    def detector(self) -> ActionDetector:
        """The detector of these options."""
        boxes = self.person_boxes
        if boxes is not None:
            boxes = given_boxes.BoxTable(boxes, self.box_tolerance)
        return ActionDetector(
            self.saved_model,
            score_threshold=self.score_threshold,
            label_map=self.label_map,
            person_boxes=boxes,
            fps=self.fps,
            num_frames=self.num_frames,
            precision=self.precision,
            short_side=self.short_side,
            batch_size=self.batch_size,
            share_trunk=self.share_trunk,
            clips_per_stretch=self.clips_per_stretch,
            keep_attention=self.attention,
        )


def _settings(options: Options, path: str, video_id: str, offset: float) -> dict:
    """What decides the results: the options, and which files they were."""
    values = dataclasses.asdict(options)
    for name in ("inputs", "output", "batch_size", "saved_model", "video"):
        del values[name]
    # The model's precision is a part of the model.
    for name in ("label_map", "person_boxes", "keyframes", "time_offset_seconds", "precision"):
        del values[name]
    if not options.frames_fps:
        del values["frames_fps"]
    if not options.person_boxes:
        del values["box_tolerance"]
    if options.keyframes:
        values |= {"video_id": video_id, "time_offset": offset}
    paths = {
        "model": os.path.join(options.saved_model, "saved_model.pb"),
        "weights": os.path.join(options.saved_model, "variables", "variables.index"),
        "label_map": options.label_map,
        "person_boxes": options.person_boxes,
        "keyframes": options.keyframes,
        "video": path,
    }
    return {**values, **result_files.stamps(paths)}


def detect_video(
    detector: ActionDetector,
    options: Options,
    files: VideoResults,
    wanted: WantedKeyframes | None = None,
) -> str:
    """Detects in one video, writes its results, and returns what to say of it.

    Raises:
      errors.InputError: if the video cannot be read.
    """
    _check_name(files.path)
    video = video_probe.probe(files.path, options.frames_fps or None)
    times = None if wanted is None else wanted.times(files.video_id)
    keyframes = files.begin()
    if not files.detected:
        _detect_rest(detector, options, files, video, times, keyframes)
        if not keyframes:
            raise errors.InputError(f"{files.path}: no clip of the video could be read.")
        if options.tracks:
            keyframes = list(map(tracks.Tracker(), keyframes))
    rows = files.finish(video, keyframes)
    people = sum(len(keyframe.people) for keyframe in keyframes)
    return (
        f"{files.name}: {listing.counted(people, 'person', 'people')} with "
        f"{listing.counted(rows, 'action')} on {listing.counted(len(keyframes), 'keyframe')} "
        f"(score at least {options.score_threshold:g})"
    )


def _detect_rest(
    detector: ActionDetector,
    options: Options,
    files: VideoResults,
    video: video_info.VideoInfo,
    times: Sequence[float] | None,
    keyframes: list[Keyframe],
) -> None:
    """Adds the keyframes that are not there yet; `times` are those that were asked for."""
    start = math.nextafter(keyframes[-1].time, math.inf) if keyframes else -math.inf
    if keyframes:
        print(f"detection: {files.name}: going on after {start:.1f} s", flush=True)
    before = len(keyframes)
    all_times = times or detector.keyframe_times(video, options.every, files.video_id)
    shown = progress.Progress("detection", sum(time >= start for time in all_times), "keyframes")
    found = detector(video, options.every, name=files.video_id, start_seconds=start, times=times)
    # Only what will be drawn is kept of attention: hours of it would not fit into memory.
    for keyframe in files.recorded(map(results.with_attention_map, found)):
        keyframes.append(keyframe)
        shown.update(len(keyframes) - before, files.name)


def _check_name(path: str) -> None:
    """Raises errors.InputError for a name that no file of results could hold."""
    try:
        path.encode("utf-8")
    except UnicodeEncodeError:
        raise errors.InputError(
            f"{ascii(path)}: the name is not in UTF-8; rename the file."
        ) from None
    if printable.in_one_line(path) != path:
        raise errors.InputError(
            f"{printable.in_one_line(path)}: the name has control characters; rename the file."
        )


def run(options: Options) -> int:
    """Detects in all inputs and returns how many could not be used.

    Raises:
      errors.InputError: if an option or the model cannot be used, or an input gives no video.
    """
    options.check()
    if _are_cameras(options.inputs):
        return _watch(options)
    wanted = None
    if options.keyframes is not None:
        offsets = time_offsets.read(options.time_offset_seconds)
        wanted = WantedKeyframes(options.keyframes, offsets)
    files = _files(options, wanted)
    os.makedirs(options.output, exist_ok=True)
    waiting = [each for each in files if not each.finished]
    if len(waiting) < len(files):
        done = listing.counted(len(files) - len(waiting), "video")
        print(f"detection: {done} finished by an earlier run")
    failures = _detect_all(options, waiting, wanted) if waiting else []
    _write_together(os.path.join(options.output, "detections.csv"), files)
    print(f"Results: {options.output}", flush=True)
    if failures:
        print(
            f"error: {listing.part(len(failures), len(waiting), 'video')} could not be used:\n  "
            + "\n  ".join(failures),
            file=sys.stderr,
        )
    return len(failures)


def _files(options: Options, wanted: WantedKeyframes | None) -> list[VideoResults]:
    """The files of the results of all videos."""
    paths = sources.find_videos(options.inputs, options.output, options.frames_fps)
    ids = dict(zip(paths, sources.ids_of(paths), strict=True))
    names = dict(zip(paths, sources.names_of(paths), strict=True))
    if wanted is not None:
        ids = wanted.chosen(paths)
    found = []
    for path, video_id in ids.items():
        offset = wanted.offsets.of(video_id) if wanted is not None else 0.0
        settings = _settings(options, path, video_id, offset)
        found.append(
            VideoResults(
                options.output, path, names[path], video_id, settings, options.video, offset
            )
        )
    return found


def _detect_all(
    options: Options, waiting: Sequence[VideoResults], wanted: WantedKeyframes | None
) -> list[str]:
    """Detects in these videos and returns what is wrong with those that could not be used.

    Raises:
      OSError: if the disk is full or broken; the videos that are left would fail as well.
    """
    detector = options.detector()
    shown, failures = progress.Progress("detection", len(waiting), "videos"), []
    for number, each in enumerate(waiting, start=1):
        try:
            print(detect_video(detector, options, each, wanted), flush=True)
        except Exception as error:  # whatever one video does, the others are done
            if file_systems.is_of_the_disk(error):
                raise
            failures.append(_fault(each, error))
            print(f"error: {failures[-1]}", file=sys.stderr, flush=True)
        if len(waiting) > 1:
            shown.update(number)
    return failures


def _fault(files: VideoResults, error: Exception) -> str:
    """What is wrong with a video, in words."""
    if isinstance(error, errors.InputError):
        return str(error)
    traceback.print_exception(error)
    return f"{files.path}: {type(error).__name__}: {error}"


def _write_together(path: str, files: Sequence[VideoResults]) -> None:
    """Puts the rows of all videos that were done into one file."""
    writer.join(path, [each.csv for each in files if each.detected])


def _are_cameras(inputs: Sequence[str]) -> bool:
    """Whether all are numbers of cameras, or any is the address of a stream."""
    return any(map(network_stream.is_address, inputs)) or all(
        each.isdecimal() and not os.path.exists(each) for each in inputs
    )


def _watch(options: Options) -> int:
    """Reports what a camera or a stream shows until it ends or the user stops it.

    Writes lines of JSON and CSV.

    Raises:
      errors.OutsideError: if a stream is lost; what was seen is written.
    """
    if len(options.inputs) > 1:
        raise errors.InputError("One camera at a time, or one stream; give a single one.")
    for name in _FOR_VIDEOS:
        if getattr(options, name):
            raise errors.InputError(f"--{name} is for video files, not for cameras or streams.")
    (source,) = options.inputs
    is_stream = network_stream.is_address(source)
    detector = options.detector()
    # Each run has files of its own: what was seen once cannot be seen again.
    begins = network_stream.name_of(source) if is_stream else f"camera_{source}"
    name = f"{begins}_{time.strftime('%Y%m%d_%H%M%S')}"
    found = detector(source if is_stream else int(source), options.every, name=name)
    os.makedirs(options.output, exist_ok=True)
    path = os.path.join(options.output, f"{name}.jsonl")
    tracker = tracks.Tracker() if options.tracks else lambda keyframe: keyframe
    try:
        for keyframe in map(tracker, found):
            with file_systems.journal(path) as file:
                file.write(results.to_json(keyframe) + "\n")
            print(_told(keyframe), flush=True)
    except KeyboardInterrupt:
        pass
    finally:
        csv = os.path.join(options.output, f"{name}_detections.csv")
        results.write_ava_csv(csv, result_files.readable_keyframes(path))
        print(f"Results: {path}, {csv}", flush=True)
    return 0


def _told(keyframe: Keyframe) -> str:
    people = "; ".join(
        ", ".join(f"{name} {score:.2f}" for name, score in person.actions.items())
        for person in keyframe.people
    )
    return f"{keyframe.time:8.1f} s  {people or 'nobody'}"


def define_flags(values: flags.FlagValues) -> None:
    """Defines the tool's options."""
    string, number, whole, switch = (
        flags.DEFINE_string, flags.DEFINE_float, flags.DEFINE_integer, flags.DEFINE_boolean
    )  # fmt: skip
    for define, name, default, text, more in (
        (string, "saved_model", None, "Folder with the saved_model.pb.", {"required": True}),
        (string, "output", None, "Folder for the results.", {"required": True}),
        (string, "label_map", None, "Label map (pbtxt); by default the model's own.", {}),
        (string, "person_boxes", None, "CSV of people's boxes, video_id,timestamp,x1,y1,x2,y2, for "
         "a model of clip_and_boxes; its keyframes are those of the videos.", {}),
        (number, "box_tolerance", Options.box_tolerance, "How far boxes of --person_boxes may "
         "stick out of the frame, as a fraction of it, to be cut off; more is an error.", {}),
        (string, "keyframes", None, "CSV of the moments to detect at, video_id,timestamp and "
         "whatever follows: for evaluation, that of the ground truth. Videos that it does not list "
         "are left out.", {}),
        (string, "time_offset_seconds", None, "What the times of --keyframes are ahead of times in "
         "the video files, as with films cut to AVA's minutes 15 to 30 (900): seconds, or a CSV of "
         "video_id,seconds. The CSVs of results have the times of --keyframes.", {}),
        (number, "frames_fps", Options.frames_fps, "Frames per second of videos that are folders "
         "of numbered frames (ID/000001.jpg); 0: only files are videos.", {}),
        (number, "every", Options.every, "Seconds from one keyframe to the next; not used with "
         "--keyframes and --person_boxes.", {}),
        (number, "score_threshold", Options.score_threshold, "Lowest score of an action.", {}),
        (number, "fps", None, "Frames per second of the clips; by default the model's own.", {}),
        (whole, "num_frames", None, "Frames of a clip, if the model does not tell.", {}),
        (string, "precision", None, "float32 or bfloat16: refuse a model that was exported in the "
         "other one, which cannot be changed here.", {}),
        (whole, "short_side", None, "Pixels that larger frames are shrunk to first, as with the "
         "--short_side of the training records; 0 keeps them.", {}),
        (whole, "batch_size", Options.batch_size, "Clips detected at once.", {}),
        (switch, "share_trunk", False, "Share the trunk's work between neighbouring clips: faster, "
         "nearly the same results.", {}),
        (whole, "clips_per_stretch", Options.clips_per_stretch, "With --share_trunk, clips that "
         "share: more are faster, and take more memory.", {}),
        (switch, "tracks", False, "Give each person a number over the keyframes.", {}),
        (switch, "attention", False, "Show in the annotated video what people attend to.", {}),
        (switch, "video", True, "Write the annotated video and the picture.", {}),
    ):  # fmt: skip
        define(name, default, text, flag_values=values, **more)


def main(argv: Sequence[str], values: flags.FlagValues = flags.FLAGS) -> None:
    """Reads the flags and runs; the module's docstring tells the exit status."""
    names = {field.name for field in dataclasses.fields(Options)} - {"inputs"}
    with command_line.ending():
        try:
            failures = run(Options(tuple(argv[1:]), **{name: values[name].value for name in names}))
        except KeyboardInterrupt:
            print("Interrupted. Run the same command again to resume.", file=sys.stderr)
            sys.exit(130)
        sys.exit(1 if failures else 0)


def parse_flags(argv: Sequence[str], values: flags.FlagValues = flags.FLAGS) -> list[str]:
    """Parses the command line; says of files whose names begin with a dash how to give them."""
    try:
        return values(argv)
    except flags.Error as error:
        dashed = [each for each in argv[1:] if each.startswith("-") and os.path.exists(each)]
        hint = ""
        if dashed:
            hint = f" {dashed[0]} begins with a dash: write ./{dashed[0]}, or -- before it."
        command_line.print_error(f"{error}.{hint}")
        sys.exit(2)


if __name__ == "__main__":
    define_flags(flags.FLAGS)
    app.run(main, flags_parser=parse_flags)
