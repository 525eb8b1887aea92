# SPDX-License-Identifier: Apache-2.0
r"""Finds people and their actions in videos with an exported model.

    python -m object_detection_ext.tools.detect_video --saved_model exported/saved_model \
        street.mp4 'phone/*.mov' archive/ --output DIR

Inputs are video files, patterns, folders (all videos below them), or the number of a camera. For
each video DIR then holds

    NAME.jsonl             a line of JSON for each keyframe
    NAME_detections.csv    AVA-style rows, which evaluation.ava_ap reads; for evaluation use a low
                           --score_threshold such as 0.01
    NAME_detections.mp4    the annotated video
    NAME_detections.png    the keyframe with the clearest detections

and detections.csv the rows of all of them. A video that cannot be read does not stop the others. A
run that was stopped goes on where it was. Of a camera there are lines of JSON and the CSV, named by
the time of the start, until it ends or Ctrl-C.

Ends with 0; with 1 if videos could not be used, or the disk is full; with 2 if nothing could be
used; with 130 after Ctrl-C.
"""

import dataclasses
import json
import math
import os
import sys
import time
import traceback
from collections.abc import Iterator, Sequence

from absl import app, flags

from object_detection_ext import command_line, errors, json_text, printable, progress
from object_detection_ext import files as file_systems
from object_detection_ext.inference import annotated_video, results, shared_trunk, sources, tracks
from object_detection_ext.inference import model as model_lib
from object_detection_ext.inference.detector import ActionDetector
from object_detection_ext.inference.results import Keyframe


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
    short_side: int | None = None
    batch_size: int = 1
    share_trunk: bool = False
    clips_per_stretch: int = shared_trunk.DEFAULT_CLIPS_PER_STRETCH
    tracks: bool = False
    attention: bool = False
    video: bool = True

    def check(self) -> None:
        """Raises errors.InputError for what can be told wrong without TensorFlow."""
        if not self.inputs:
            raise errors.InputError("Give at least one video, pattern, folder or camera number.")
        if not 0 < self.every < float("inf"):
            raise errors.InputError(f"--every must be more than 0 seconds, not {self.every:g}.")
        model_lib.check_saved_model(self.saved_model)
        if self.person_boxes is not None and not os.path.isfile(self.person_boxes):
            raise errors.InputError(f"--person_boxes: {self.person_boxes}: there is no such file.")

    def detector(self) -> ActionDetector:
        """The detector of these options."""
        return ActionDetector(
            self.saved_model,
            score_threshold=self.score_threshold,
            label_map=self.label_map,
            person_boxes=self.person_boxes,
            fps=self.fps,
            num_frames=self.num_frames,
            short_side=self.short_side,
            batch_size=self.batch_size,
            share_trunk=self.share_trunk,
            clips_per_stretch=self.clips_per_stretch,
            keep_attention=self.attention,
        )


class VideoResults:
    """The files of one video: what is finished, and where an interrupted run goes on."""

    def __init__(self, options: Options, path: str, name: str, video_id: str):
        """Looks at what an earlier run left.

        Args:
          options: of this run; files of a run with others are not used.
          path: the video.
          name: what the files of its results are called.
          video_id: what it is called in them.
        """
        base = os.path.join(options.output, name)
        self.path, self.name, self.video_id = path, name, video_id
        self.lines, self.unfinished = f"{base}.jsonl", f"{base}.jsonl.incomplete"
        self.csv, self.mp4 = f"{base}_detections.csv", f"{base}_detections.mp4"
        self.picture, self._settings_file = f"{base}_detections.png", f"{base}.settings.json"
        self._wants_video = options.video
        self._settings = _settings(options, path)

    @property
    def finished(self) -> bool:
        """Whether an earlier run with the same options finished this video."""
        return self.detected and (not self._wants_video or os.path.exists(self.mp4))

    @property
    def detected(self) -> bool:
        """Whether all keyframes are there; only the annotated video may be missing."""
        is_whole = os.path.exists(self.lines) and os.path.exists(self.csv)
        return is_whole and self._same_settings()

    def begin(self) -> list[Keyframe]:
        """Makes ready to detect and returns the keyframes that are there already.

        A line that was being written when the run was stopped is cut off.

        Raises:
          errors.InputError: if the files are another video's.
        """
        if not self._same_settings():
            self._check_same_video()
            for path in (self.csv, self.lines, self.unfinished, self.mp4, self.picture):
                if os.path.exists(path):
                    os.remove(path)
            file_systems.write_text(
                self._settings_file, json.dumps(self._settings, indent=2) + "\n"
            )
        if self.detected:
            with open(self.lines, encoding="utf-8") as file:
                return [results.from_json(line) for line in file]
        keyframes = _readable_keyframes(self.unfinished)
        file_systems.write_text(self.unfinished, _lines(keyframes))
        return keyframes

    def recorded(self, keyframes: Iterator[Keyframe]) -> Iterator[Keyframe]:
        """Passes keyframes on, each written down before the next is asked for."""
        with file_systems.journal(self.unfinished) as file:
            for keyframe in keyframes:
                file.write(results.to_json(keyframe) + "\n")
                file.flush()
                yield keyframe

    def finish(self, keyframes: Sequence[Keyframe]) -> int:
        """Writes the results and returns the number of rows.

        The annotated video comes last: whatever happens to it, what was detected is there.
        """
        rows = results.write_ava_csv(self.csv, keyframes)
        if not self.detected:
            file_systems.write_text(self.lines, _lines(keyframes))
            os.remove(self.unfinished)
        if self._wants_video:
            annotated_video.write(self.path, self.mp4, keyframes, self.picture)
        return rows

    def _earlier_settings(self) -> dict:
        try:
            with open(self._settings_file, encoding="utf-8") as file:
                settings = json_text.parsed(file.read())
        except (OSError, ValueError):
            return {}
        return settings if isinstance(settings, dict) else {}

    def _same_settings(self) -> bool:
        # Not by path: a file that was moved is the same.
        return {**self._earlier_settings(), "video_path": ""} == {
            **self._settings,
            "video_path": "",
        }

    def _check_same_video(self) -> None:
        """Results of another video of this name, which is still there, are not thrown away."""
        earlier = self._earlier_settings().get("video_path")
        path = self._settings["video_path"]
        if earlier and earlier != path and os.path.exists(earlier):
            raise errors.InputError(
                f"{path}: {self.lines} and the files beside it are the results of {earlier}; give "
                "another --output, or both videos at once."
            )


def _lines(keyframes: Sequence[Keyframe]) -> str:
    return "".join(results.to_json(keyframe) + "\n" for keyframe in keyframes)


def _readable_keyframes(path: str) -> list[Keyframe]:
    """The keyframes of a file of lines that may be missing, cut off or damaged, up to there."""
    keyframes = []
    if os.path.exists(path):
        with open(path, encoding="utf-8", errors="replace") as file:
            for line in file:
                try:
                    keyframes.append(results.from_json(line))
                except errors.InputError:
                    break
    return keyframes


def _settings(options: Options, path: str) -> dict:
    """What decides the results: the options, and which files they were."""
    values = dataclasses.asdict(options)
    for name in ("inputs", "output", "batch_size", "saved_model", "video"):
        del values[name]
    files = {
        "model": os.path.join(options.saved_model, "saved_model.pb"),
        "weights": os.path.join(options.saved_model, "variables", "variables.index"),
        "label_map": options.label_map,
        "person_boxes": options.person_boxes,
        "video": path,
    }
    for name in ("label_map", "person_boxes"):
        del values[name]
    stamps = {
        f"{name}_file": file_systems.system_of(file).stamp(file)
        for name, file in files.items()
        if file and os.path.exists(file)
    }
    return {**values, **stamps, "video_path": os.path.realpath(path)}


def detect_video(detector: ActionDetector, options: Options, files: VideoResults) -> str:
    """Detects in one video, writes its results, and returns what to say of it.

    Raises:
      errors.InputError: if the video cannot be read.
    """
    _check_name(files.path)
    times = detector.keyframe_times(files.path, options.every, files.video_id)
    keyframes = files.begin()
    if not files.detected:
        _detect_rest(detector, options, files, times, keyframes)
        if not keyframes:
            raise errors.InputError(f"{files.path}: no clip of the video could be read.")
        if options.tracks:
            keyframes = list(map(tracks.Tracker(), keyframes))
    rows = files.finish(keyframes)
    people = sum(len(keyframe.people) for keyframe in keyframes)
    return (
        f"{files.name}: {people} people with {rows} actions on {len(keyframes)} keyframes "
        f"(score at least {options.score_threshold:g})"
    )


def _detect_rest(
    detector: ActionDetector,
    options: Options,
    files: VideoResults,
    times: Sequence[float],
    keyframes: list[Keyframe],
) -> None:
    """Adds the keyframes that are not there yet."""
    start = math.nextafter(keyframes[-1].time, math.inf) if keyframes else 0.0
    if keyframes:
        print(f"detection: {files.name}: going on after {start:.1f} s", flush=True)
    before = len(keyframes)
    told = progress.Progress("detection", sum(time >= start for time in times), "keyframes")
    found = detector(files.path, options.every, name=files.video_id, start_seconds=start)
    # Only what will be drawn is kept of attention: hours of it would not fit into memory.
    for keyframe in files.recorded(map(results.with_attention_map, found)):
        keyframes.append(keyframe)
        told.update(len(keyframes) - before, files.name)


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
    if all(each.isdecimal() and not os.path.exists(each) for each in options.inputs):
        return _watch(options)
    paths = sources.find_videos(options.inputs, excluded=options.output)
    os.makedirs(options.output, exist_ok=True)
    files = [
        VideoResults(options, *each)
        for each in zip(paths, sources.names_of(paths), sources.ids_of(paths), strict=True)
    ]
    waiting = [each for each in files if not each.finished]
    if len(waiting) < len(files):
        print(f"detection: {len(files) - len(waiting)} videos were finished by an earlier run")
    failures = _detect_all(options, waiting) if waiting else []
    _write_together(os.path.join(options.output, "detections.csv"), files)
    print(f"Results: {options.output}", flush=True)
    if failures:
        print(
            f"error: {len(failures)} of {len(waiting)} videos could not be used:\n  "
            + "\n  ".join(failures),
            file=sys.stderr,
        )
    return len(failures)


def _detect_all(options: Options, waiting: Sequence[VideoResults]) -> list[str]:
    """Detects in these videos and returns what is wrong with those that could not be used.

    Raises:
      OSError: if the disk is full or broken; the videos that are left would fail as well.
    """
    detector = options.detector()
    told, failures = progress.Progress("detection", len(waiting), "videos"), []
    for number, each in enumerate(waiting, start=1):
        try:
            print(detect_video(detector, options, each), flush=True)
        except Exception as error:  # whatever one video does, the others are done
            if file_systems.is_of_the_disk(error):
                raise
            failures.append(_fault(each, error))
            print(f"error: {failures[-1]}", file=sys.stderr, flush=True)
        if len(waiting) > 1:
            told.update(number)
    return failures


def _fault(files: VideoResults, error: Exception) -> str:
    """What is wrong with a video, in words."""
    if isinstance(error, errors.InputError):
        return str(error)
    traceback.print_exception(error)
    return f"{files.path}: {type(error).__name__}: {error}"


def _write_together(path: str, files: Sequence[VideoResults]) -> None:
    """Puts the rows of all videos that were done into one file."""
    texts = []
    for each in files:
        if each.detected:
            with open(each.csv, encoding="utf-8") as file:
                texts.append(file.read())
    file_systems.write_text(path, "".join(texts))


def _watch(options: Options) -> int:
    """Tells what a camera sees until it ends or the user stops it; writes lines of JSON and CSV."""
    if len(options.inputs) > 1:
        raise errors.InputError("One camera at a time; give a single number.")
    for name in ("share_trunk", "person_boxes", "attention"):
        if getattr(options, name):
            raise errors.InputError(f"--{name} is for video files, not for cameras.")
    detector = options.detector()
    os.makedirs(options.output, exist_ok=True)
    # Each run has files of its own: what was seen once cannot be seen again.
    name = f"camera_{options.inputs[0]}_{time.strftime('%Y%m%d_%H%M%S')}"
    path = os.path.join(options.output, f"{name}.jsonl")
    found = detector(int(options.inputs[0]), options.every, name=name)
    tracker = tracks.Tracker() if options.tracks else lambda keyframe: keyframe
    try:
        for keyframe in map(tracker, found):
            with file_systems.journal(path) as file:
                file.write(results.to_json(keyframe) + "\n")
            print(_told(keyframe), flush=True)
    except KeyboardInterrupt:
        pass
    csv = os.path.join(options.output, f"{name}_detections.csv")
    results.write_ava_csv(csv, _readable_keyframes(path))
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
        (number, "every", Options.every, "Seconds from one keyframe to the next; not used with "
         "--person_boxes.", {}),
        (number, "score_threshold", Options.score_threshold, "Lowest score of an action.", {}),
        (number, "fps", None, "Frames per second of the clips; by default the model's own.", {}),
        (whole, "num_frames", None, "Frames of a clip, if the model does not tell.", {}),
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
            print("stopped; the same command goes on from here", file=sys.stderr)
            sys.exit(130)
        sys.exit(1 if failures else 0)


if __name__ == "__main__":
    define_flags(flags.FLAGS)
    app.run(main)
