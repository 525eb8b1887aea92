# SPDX-License-Identifier: Apache-2.0
r"""Finds people and their actions in a video with an exported model.

    python -m object_detection_ext.tools.detect_video --saved_model exported/saved_model \
        --video V.mp4 --label_map label_map.pbtxt --output DIR

DIR then holds the annotated video, a picture of the keyframe with the clearest detections, and the
detections as an AVA-style CSV (video_id,timestamp,x1,y1,x2,y2,action_id,score), which
`evaluation.ava_ap` reads; for evaluation use a low --score_threshold such as 0.01.

Shapes: T frames of a clip, H W pixels, N detections of a clip (one per box and action).
"""

import collections
import csv
import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from absl import app, flags
from PIL import Image

from object_detection_ext import errors
from object_detection_ext import progress as progress_lib
from object_detection_ext.data import annotations, video_reader
from object_detection_ext.visualization import drawing

# Rows of one person differ little: the box is refined once for all actions. Rows of two people
# overlap less, as multi-class suppression leaves them.
_SAME_PERSON_IOU = 0.7
_INPUT = "input_tensor"
_OUTPUTS = ("detection_boxes", "detection_scores", "detection_classes", "num_detections")


class DetectionError(errors.InputError):
    """The detection cannot be done as asked; the message says why and what would be right."""


@dataclasses.dataclass(frozen=True)
class Options:
    """What to detect and how; `every` is in seconds, `short_side` in pixels (0 keeps the size)."""

    saved_model: str
    video: str
    label_map: str
    output: str
    every: float = 1.0
    score_threshold: float = 0.3
    fps: float = 25.0
    num_frames: int = 0
    short_side: int = 0

    def check(self) -> video_reader.VideoInfo:
        """Checks all that can be checked without TensorFlow and returns what the video is.

        Raises:
          DetectionError: if an option is out of range or the model is missing.
          video_reader.VideoError: if the video is missing or unreadable.
        """
        problems = self.problems()
        if problems:
            raise DetectionError("; ".join(problems) + ".")
        return video_reader.probe(self.video)

    def problems(self) -> list[str]:
        """Returns what is wrong with the options, the video aside."""
        problems = []
        if not os.path.isfile(os.path.join(self.saved_model, "saved_model.pb")):
            problems.append(
                f"--saved_model {self.saved_model!r} holds no saved_model.pb; give the folder "
                "saved_model that exporter_main_v2 wrote"
            )
        if not os.path.isfile(self.label_map):
            problems.append(f"--label_map {self.label_map!r}: there is no such file")
        if not 0 < self.every < np.inf:
            problems.append(f"--every must be more than 0 seconds, not {self.every:g}")
        if not 0 <= self.score_threshold <= 1:
            problems.append(f"--score_threshold must be in [0, 1], not {self.score_threshold:g}")
        if not 0 < self.fps <= 1000:
            problems.append(f"--fps must be more than 0 and at most 1000, not {self.fps:g}")
        if self.num_frames < 0:
            problems.append(f"--num_frames must be at least 0, not {self.num_frames}")
        if self.short_side < 0:
            problems.append(f"--short_side must be at least 0 pixels, not {self.short_side}")
        return problems


class ClipModel:
    """An exported model that takes one clip at a time."""

    def __init__(self, path: str, num_frames: int = 0):
        """Loads a SavedModel.

        Args:
          path: its folder.
          num_frames: T, needed only where the model's signature leaves it open.

        Raises:
          DetectionError: if it cannot be loaded, does not take clips, or T is unknown or differs.
        """
        import tensorflow as tf

        try:
            self._model = tf.saved_model.load(path)
        except (OSError, ValueError, tf.errors.OpError) as error:
            raise DetectionError(f"{path}: cannot be loaded as a SavedModel: {error}") from error
        self._tf = tf
        self._call = self._model.signatures.get("serving_default")
        inputs = {} if self._call is None else self._call.structured_input_signature[1]
        spec = inputs.get(_INPUT)
        if "boxes" in inputs:
            raise DetectionError(
                f"{path}: this model classifies boxes that it is given (input 'boxes'), and there "
                "are none here. Export a model with proposals of its own with "
                "--input_type=clip_tensor."
            )
        if spec is None or spec.dtype != tf.uint8 or spec.shape.rank != 5 or len(inputs) != 1:
            raise DetectionError(
                f"{path}: the default signature must take {_INPUT} uint8 [1, T, H, W, 3], not "
                f"{dict(inputs) or 'nothing'}. Export the model with "
                "object_detection_ext.exporter_main_v2."
            )
        self.outputs = frozenset(self._call.structured_outputs)
        missing = [key for key in _OUTPUTS if key not in self.outputs]
        if missing:
            raise DetectionError(f"{path}: the model does not return {', '.join(missing)}.")
        self.num_frames = self._clip_length(path, spec.shape[1], num_frames)

    def _clip_length(self, path: str, exported: int | None, asked: int) -> int:
        if exported is None and not asked:
            raise DetectionError(f"{path}: the signature leaves T open; give it as --num_frames.")
        if exported is not None and asked not in (0, exported):
            raise DetectionError(
                f"{path}: takes clips of {exported} frames, but --num_frames is {asked}; leave "
                "the option out."
            )
        return exported or asked

    def __call__(self, clip: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns (boxes [N, 4], scores [N], 1-based classes [N]) of a uint8 clip [T, H, W, 3].

        Boxes are [ymin, xmin, ymax, xmax], normalized.
        """
        result = self.run(clip)
        return result["detection_boxes"], result["detection_scores"], result["detection_classes"]

    def run(self, clip: np.ndarray, more: Sequence[str] = ()) -> dict[str, np.ndarray]:
        """Returns boxes, scores and classes by the signature's names, as when it is called.

        Args:
          clip: uint8 [T, H, W, 3].
          more: names of further outputs (see `outputs`), to be returned without the batch's axis.
        """
        result = self._call(**{_INPUT: self._tf.constant(clip[None])})
        count = int(result["num_detections"][0])
        return {
            "detection_boxes": result["detection_boxes"][0, :count].numpy(),
            "detection_scores": result["detection_scores"][0, :count].numpy(),
            "detection_classes": result["detection_classes"][0, :count].numpy().astype(int),
            **{name: result[name][0].numpy() for name in more},
        }


@dataclasses.dataclass
class Person:
    """A detected person: box [ymin, xmin, ymax, xmax], normalized, and scores by action id.

    `detection` is the number of the best detection, whose box it is, in the model's output.
    """

    box: np.ndarray
    scores: dict[int, float]
    detection: int = 0


def iou(a: Sequence[float], b: Sequence[float]) -> float:
    """Returns the intersection over union of two boxes [ymin, xmin, ymax, xmax]."""
    sides = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    inner = float(np.prod(np.maximum(sides, 0.0)))
    areas = sum(float((box[2] - box[0]) * (box[3] - box[1])) for box in (a, b))
    return inner / max(areas - inner, 1e-12)


def group_people(
    boxes: np.ndarray,
    scores: np.ndarray,
    classes: np.ndarray,
    *,
    action_ids: Sequence[int],
    score_threshold: float,
) -> list[Person]:
    """Groups detections, one per (box, action), into people with several actions.

    Args:
      boxes: [N, 4], [ymin, xmin, ymax, xmax], normalized.
      scores: [N], 0..1.
      classes: [N] action ids.
      action_ids: the known ones; the others are left out (ids that the label map skips).
      score_threshold: detections below it are left out.

    Returns:
      The people, the surest first. A person's box is that of the best detection; detections that
      overlap it by an IoU over 0.7 are the person's other actions.
    """
    people: list[Person] = []
    for index in np.argsort(-np.asarray(scores), kind="stable"):
        action, score = int(classes[index]), float(scores[index])
        if score < score_threshold or action not in action_ids:
            continue
        overlaps = [iou(person.box, boxes[index]) for person in people]
        best = int(np.argmax(overlaps)) if overlaps else 0
        if not overlaps or overlaps[best] <= _SAME_PERSON_IOU:
            box = np.clip(boxes[index], 0.0, 1.0)
            # A box of no area after clipping stands outside the frame: nobody to show.
            if np.all(box[2:] > box[:2]):
                people.append(Person(box, {action: score}, int(index)))
        else:
            people[best].scores.setdefault(action, score)
    return people


@dataclasses.dataclass(frozen=True)
class KeyframeResult:
    """The people at a time in seconds, and that frame, uint8 [H, W, 3]."""

    seconds: float
    people: list[Person]


def _resized(frame: np.ndarray, short_side: int) -> np.ndarray:
    if not short_side:
        return frame
    picture = Image.fromarray(frame)
    scale = short_side / min(picture.size)
    size = tuple(max(1, round(side * scale)) for side in picture.size)
    return np.asarray(picture.resize(size, Image.Resampling.BILINEAR, reducing_gap=3.0))


def keyframe_times(info: video_reader.VideoInfo, every: float) -> list[float]:
    """Returns 0, `every`, 2 `every`, ... seconds up to the end of the video."""
    duration = info.duration
    if not duration:
        # The header does not tell: one pass over the video does.
        seconds = (time for time, _ in video_reader.resampled_frames(info.path, 25.0))
        duration = collections.deque(seconds, maxlen=1).pop()
    return [index * every for index in range(max(1, int(np.ceil(duration / every - 1e-6))))]


def read_clips(
    options: Options, times: Sequence[float], num_frames: int, task: str = "detection"
) -> Iterator[tuple[float, np.ndarray]]:
    """Yields (seconds, clip uint8 [T, H, W, 3]) for every keyframe that is inside the video.

    Says how far it is, and which clips are left out because of damage.

    Args:
      options: the video, its `fps` and `short_side`.
      times: of the keyframes, in seconds, ascending.
      num_frames: T.
      task: what the clips are for, the first word of what is said.

    Raises:
      DetectionError: if no clip at all can be read.
    """
    reader = video_reader.ClipReader(
        options.video,
        num_frames=num_frames,
        fps=options.fps,
        transform=lambda frame: _resized(frame, options.short_side),
    )
    progress, is_readable = progress_lib.Progress(task, len(times), "keyframes"), False
    for done, clip in enumerate(reader.clips(times), start=1):
        if not clip.problem:
            is_readable = True
            yield clip.keyframe_time, np.stack(clip.frames)
        elif not clip.outside:
            print(f"{task}: left out: {clip.problem}", flush=True)
        progress.update(done)
    if not is_readable:
        raise DetectionError(f"{options.video}: no clip of the video could be read.")


def detect(model, options: Options, info, label_map: Mapping[int, str]) -> list[KeyframeResult]:
    """Runs the model on a clip around every keyframe; one result per keyframe inside the video."""
    times = keyframe_times(info, options.every)
    results = []
    for seconds, clip in read_clips(options, times, model.num_frames):
        boxes, scores, classes = model(clip)
        people = group_people(
            boxes, scores, classes,
            action_ids=list(label_map), score_threshold=options.score_threshold,
        )  # fmt: skip
        results.append(KeyframeResult(seconds, people))
    return results


def clearest(results: Sequence[KeyframeResult]) -> int:
    """Returns the index of the result whose people have the highest scores in sum.

    The one nearest to the middle wins between equals, so that an empty video gives its middle.
    """
    middle = (len(results) - 1) / 2
    sums = [sum(max(p.scores.values()) for p in result.people) for result in results]
    return max(range(len(results)), key=lambda i: (round(sums[i], 6), -abs(i - middle)))


def _drawn(people: Sequence[Person], label_map: Mapping[int, str]) -> list[drawing.DetectedPerson]:
    drawn = []
    for person in sorted(people, key=lambda p: float(p.box[1])):
        actions = sorted(person.scores.items(), key=lambda item: -item[1])
        names = tuple((label_map[action], score) for action, score in actions)
        drawn.append(drawing.DetectedPerson(tuple(person.box), names))
    return drawn


def write_video(path: str, picture_path: str, options: Options, info, results, label_map) -> None:
    """Writes the video with each frame showing the nearest keyframe's people, and the picture."""
    fps = min(info.fps or 25.0, 60.0)
    times = np.array([result.seconds for result in results])
    drawn = [_drawn(result.people, label_map) for result in results]
    best = clearest(results)
    progress = progress_lib.Progress("video", info.duration or float(times[-1]), "s of video")

    def frames():
        best_distance = np.inf
        for seconds, frame in video_reader.resampled_frames(options.video, fps):
            nearest = int(np.argmin(np.abs(times - seconds)))
            shown = drawing.draw_people(frame, drawn[nearest], caption=f"{seconds:.1f} s")
            distance = abs(times[best] - seconds)
            if distance < best_distance:
                best_distance = distance
                Image.fromarray(shown).save(picture_path)
            progress.update(seconds)
            yield shown

    drawing.write_video(path, frames(), fps)


def write_detections(path: str, video_id: str, results: Sequence[KeyframeResult]) -> int:
    """Writes the AVA-style CSV and returns the number of its rows."""
    count = 0
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        for result in results:
            timestamp = annotations.format_timestamp(round(result.seconds, 6))
            for person in result.people:
                ymin, xmin, ymax, xmax = (f"{v:.4f}" for v in person.box)
                for action, score in sorted(person.scores.items()):
                    row = [video_id, timestamp, xmin, ymin, xmax, ymax, action, f"{score:.4f}"]
                    writer.writerow(row)
                    count += 1
    return count


def run(options: Options) -> dict[str, str]:
    """Detects and writes everything; returns the paths of `video`, `picture` and `detections`.

    Raises:
      DetectionError: if an option, the model or what it returns is not usable.
      annotations.AnnotationError: if the label map is not readable.
      video_reader.VideoError: if the video is not readable.
    """
    info = options.check()
    label_map = annotations.read_label_map(options.label_map)
    model = ClipModel(options.saved_model, options.num_frames)
    results = detect(model, options, info, label_map)
    os.makedirs(options.output, exist_ok=True)
    video_id = os.path.splitext(os.path.basename(options.video))[0]
    base = os.path.join(options.output, video_id)
    paths = {
        "video": f"{base}_detections.mp4",
        "picture": f"{base}_detections.png",
        "detections": f"{base}_detections.csv",
    }
    rows = write_detections(paths["detections"], video_id, results)
    write_video(paths["video"], paths["picture"], options, info, results, label_map)
    people = sum(len(result.people) for result in results)
    print(
        f"{people} people with {rows} actions on {len(results)} keyframes (score at least "
        f"{options.score_threshold:g}).\nVideo: {paths['video']}\nPicture: {paths['picture']}\n"
        f"Detections: {paths['detections']}"
    )
    return paths


def define_flags(values: flags.FlagValues) -> None:
    """Defines the tool's options."""
    flags.DEFINE_string(
        "saved_model", None, "Folder with the saved_model.pb.", required=True, flag_values=values
    )
    flags.DEFINE_string("video", None, "The video file.", required=True, flag_values=values)
    flags.DEFINE_string(
        "label_map", None, "Label map (pbtxt) of the training.", required=True, flag_values=values
    )
    flags.DEFINE_string(
        "output", None, "Folder for the results.", required=True, flag_values=values
    )
    flags.DEFINE_float(
        "every", Options.every, "Seconds from one keyframe to the next.", flag_values=values
    )
    flags.DEFINE_float(
        "score_threshold", Options.score_threshold, "Lowest score of an action.", flag_values=values
    )
    flags.DEFINE_float(
        "fps",
        Options.fps,
        "Frames per second of the clips: the --fps of the training records.",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "num_frames",
        Options.num_frames,
        "Frames of a clip, if the model does not tell.",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "short_side",
        Options.short_side,
        "The --short_side of the training records; 0 keeps.",
        flag_values=values,
    )


def main(argv: Sequence[str], values: flags.FlagValues = flags.FLAGS) -> None:
    if len(argv) > 1:
        raise app.UsageError(f"Unexpected arguments: {argv[1:]}")
    options = {field.name: values[field.name].value for field in dataclasses.fields(Options)}
    try:
        run(Options(**options))
    except (errors.InputError, OSError) as error:
        raise SystemExit(f"error: {error}") from error


if __name__ == "__main__":
    define_flags(flags.FLAGS)
    app.run(main)
