# SPDX-License-Identifier: Apache-2.0
r"""Sends a video's clips to a model behind TF Serving and writes what comes back.

    python -m object_detection_ext.tools.serving_client --server localhost:8500 --model_name vat \
        --saved_model exported/saved_model --video street.mp4 --output DIR

or `--rest http://localhost:8501` in the place of `--server`. DIR then holds `street_detections.csv`
in AVA's form (video_id,timestamp,x1,y1,x2,y2,action_id,score), which `evaluation.ava_ap` reads; for
evaluation use a low --score_threshold such as 0.01. docs/serving.md has the server's side.

Shapes: B clips of a request, T frames of a clip, N detections of a clip (one per box and action).
"""

import dataclasses
import os
import warnings
from collections.abc import Collection, Iterator, Sequence

import numpy as np
from absl import app, flags

from object_detection_ext import command_line, errors, input_types
from object_detection_ext import progress as progress_lib
from object_detection_ext.ava import label_maps
from object_detection_ext.ava import writer as ava_writer
from object_detection_ext.data import video_info, video_probe, video_reader
from object_detection_ext.inference import sources
from object_detection_ext.serving import client as client_lib
from object_detection_ext.serving import inputs as inputs_lib

_DEFAULT_FPS = 25.0


@dataclasses.dataclass(frozen=True)
class Options:
    """What to send where.

    Attributes:
      video: the file.
      output: folder for the CSV.
      server: HOST:PORT of gRPC; empty for REST.
      rest: http://HOST:PORT or https://HOST:PORT; empty for gRPC.
      tls: whether gRPC is encrypted.
      ca_certificate: PEM file of the authority that signed the server's certificate; empty for
        those that gRPC, or this machine for https, trusts.
      model_name: as the server knows it.
      saved_model: the folder that is served, for its assets; may be empty.
      label_map: whose ids are kept; empty for that of the SavedModel, or all ids.
      every: seconds from one keyframe to the next.
      batch_size: B.
      score_threshold: lowest score of a row.
      fps: of the clips; 0 for that of the SavedModel, or 25.
      num_frames: T, where neither server nor SavedModel tell; 0 otherwise.
      short_side: frames with a longer one are shrunk to it, in pixels; 0 keeps.
      timeout: of a request with its answer, in seconds.
      max_answer_mb: of an answer, in MB; a longer one is refused.
    """

    video: str
    output: str
    server: str = ""
    rest: str = ""
    tls: bool = False
    ca_certificate: str = ""
    model_name: str = "vat"
    saved_model: str = ""
    label_map: str = ""
    every: float = 1.0
    batch_size: int = 1
    score_threshold: float = 0.3
    fps: float = 0.0
    num_frames: int = 0
    short_side: int = 400
    timeout: float = client_lib.DEFAULT_TIMEOUT
    max_answer_mb: int = client_lib.DEFAULT_MAX_ANSWER_BYTES // 2**20

    def check(self) -> video_info.VideoInfo:
        """Checks all that can be checked here and returns what the video is.

        Raises:
          errors.InputError: if an option is out of range or a file is missing.
          video_info.VideoError: if the video is missing or unreadable.
        """
        problems = [*self._address_problems(), *self._number_problems()]
        if not self.model_name:
            problems.append("--model_name must not be empty")
        if self.saved_model and not os.path.isfile(
            input_types.asset(self.saved_model, input_types.CLIP_ASSET)
        ):
            problems.append(
                f"--saved_model {self.saved_model!r} has no assets/{input_types.CLIP_ASSET}; give "
                "the folder saved_model that object_detection_ext.exporter_main_v2 wrote"
            )
        if self.label_map and not os.path.isfile(self.label_map):
            problems.append(f"--label_map {self.label_map!r}: there is no such file")
        if problems:
            raise errors.InputError("; ".join(problems) + ".")
        return video_probe.probe(self.video)

    def _address_problems(self) -> Iterator[str]:
        if bool(self.server) == bool(self.rest):
            yield (
                "give either --server HOST:PORT (gRPC, by default port 8500) or "
                "--rest http://HOST:PORT (by default 8501)"
            )
        if "://" in self.server or (self.server and ":" not in self.server):
            yield f"--server must be HOST:PORT such as localhost:8500, not {self.server!r}"
        if self.rest and not self.rest.startswith(("http://", "https://")):
            yield f"--rest must begin with http:// or https://, not {self.rest!r}"
        if self.tls and self.rest:
            yield "--tls is for --server; with --rest the address says it, https://HOST:PORT"
        if self.ca_certificate and not (self.tls or self.rest.startswith("https://")):
            yield "--ca_certificate is for --tls, and for --rest https://HOST:PORT"

    def _number_problems(self) -> Iterator[str]:
        if not 0 < self.every < np.inf:
            yield f"--every must be more than 0 seconds, not {self.every:g}"
        if self.batch_size < 1:
            yield f"--batch_size must be at least 1, not {self.batch_size}"
        if not 0 <= self.score_threshold <= 1:
            yield f"--score_threshold must be in [0, 1], not {self.score_threshold:g}"
        if not 0 <= self.fps <= 1000:
            yield f"--fps must be more than 0 and at most 1000, not {self.fps:g}"
        if self.num_frames < 0:
            yield f"--num_frames must be at least 0, not {self.num_frames}"
        if self.short_side < 0:
            yield f"--short_side must be at least 0 pixels, not {self.short_side}"
        if not 0 < self.timeout < np.inf:
            yield f"--timeout must be more than 0 seconds, not {self.timeout:g}"
        if not 1 <= self.max_answer_mb < 2048:
            yield f"--max_answer_mb must be 1 to 2047, not {self.max_answer_mb}"


@dataclasses.dataclass(frozen=True)
class ClipPlan:
    """What is cut out of the video for each keyframe: so many frames at so many a second."""

    input_type: str
    num_frames: int
    fps: float


def plan(options: Options, model: inputs_lib.ModelInput) -> ClipPlan:
    """Puts together what the server, the SavedModel's assets and the options say.

    Raises:
      errors.InputError: if they contradict each other, or leave open what is needed.
    """
    if model.input_type == input_types.CLIP_AND_BOXES:
        raise errors.InputError(
            f"'{options.model_name}' classifies boxes that it is given (input "
            f"'{input_types.BOXES}'), and there are none here. Serve a model with proposals of its "
            f"own, exported with --input_type={input_types.ENCODED_CLIP}."
        )
    description = None
    if options.saved_model:
        description = input_types.ClipDescription.of_saved_model(options.saved_model)
    if model.input_type == input_types.TF_SEQUENCE_EXAMPLE and description is None:
        raise errors.InputError(
            f"'{options.model_name}' takes SequenceExamples and hides how many frames it takes out "
            "of them; give the SavedModel that is served as --saved_model."
        )
    lengths = {"the server": model.num_frames, "--num_frames": options.num_frames}
    stride, fps = 1, options.fps
    if description is not None:
        lengths["--saved_model"] = description.num_frames
        stride, fps = description.record_stride, fps or description.fps
    if not fps:
        fps = _DEFAULT_FPS
        print(f"Clips at {fps:g} frames a second; if others are right, give --fps.", flush=True)
    length = _agreed(lengths)
    frames, faster = inputs_lib.frames_of_clip(model.input_type, length, stride)
    return ClipPlan(model.input_type, frames, fps * faster)


def _agreed(lengths: dict[str, int | None]) -> int:
    known = {source: length for source, length in lengths.items() if length}
    if not known:
        raise errors.InputError(
            "the model leaves the length of its clips open; give it as --num_frames."
        )
    if len(set(known.values())) > 1:
        said = ", ".join(f"{length} by {source}" for source, length in known.items())
        raise errors.InputError(f"frames of a clip: {said}. They must be the same.")
    return next(iter(known.values()))


def action_ids(options: Options) -> Collection[int] | None:
    """The ids of the label map, which may leave some of the model's out; None for all."""
    path = options.label_map
    if not path and options.saved_model:
        path = input_types.asset(options.saved_model, input_types.LABEL_MAP_ASSET)
        path = path if os.path.isfile(path) else ""
    return label_maps.read_label_map(path) if path else None


def rows(
    video_id: str,
    seconds: float,
    detections: dict[str, np.ndarray],
    *,
    score_threshold: float,
    known_ids: Collection[int] | None,
) -> list[tuple]:
    """Returns the rows of a clip by descending score, as `ava.writer.RowWriter.detection` has them.

    Args:
      video_id: the video's.
      seconds: the keyframe's time.
      detections: `detection_boxes` [N, 4], normalized [ymin, xmin, ymax, xmax], and so on, without
        the batch.
      score_threshold: rows below are left out.
      known_ids: rows with other ids are left out; None for none.
    """
    count = int(detections["num_detections"])
    boxes = np.clip(detections["detection_boxes"][:count], 0.0, 1.0)
    scores = detections["detection_scores"][:count]
    ids = detections["detection_classes"][:count].astype(int)
    # A box of no area after clipping stands outside the frame.
    kept = (scores >= score_threshold) & np.all(boxes[:, 2:] > boxes[:, :2], axis=1)
    if known_ids is not None:
        kept &= np.isin(ids, list(known_ids))
    return [
        (video_id, seconds, boxes[index], ids[index], scores[index])
        for index in np.argsort(-scores, kind="stable")
        if kept[index]
    ]


def detect(
    client: client_lib.Client, options: Options, wanted: ClipPlan, times: Sequence[float]
) -> Iterator[tuple[float, dict[str, np.ndarray]]]:
    """Yields (seconds, detections without the batch) of every keyframe inside the video."""
    reader = video_reader.ClipReader(
        options.video,
        num_frames=wanted.num_frames,
        fps=wanted.fps,
        transform=inputs_lib.frame_encoder(wanted.input_type, options.short_side),
    )
    waiting: list[video_reader.Clip] = []
    progress = progress_lib.Progress("detection", len(times), "keyframes")
    for done, clip in enumerate(reader.clips(times), start=1):
        if not clip.problem:
            waiting.append(clip)
        elif not clip.outside:
            print(f"detection: left out: {clip.problem}", flush=True)
        if len(waiting) == options.batch_size or (waiting and done == len(times)):
            yield from _answers(client, wanted.input_type, waiting)
            waiting = []
        progress.update(done)


def _answers(client: client_lib.Client, input_type: str, clips: Sequence[video_reader.Clip]):
    answer = client.predict(inputs_lib.batch(input_type, [clip.frames for clip in clips]))
    for index, clip in enumerate(clips):
        yield clip.keyframe_time, {name: value[index] for name, value in answer.items()}


def _connect(options: Options) -> client_lib.Client:
    common = {
        "timeout": options.timeout,
        "ca_certificate": options.ca_certificate or None,
        "max_answer_bytes": options.max_answer_mb * 2**20,
    }
    if options.server:
        return client_lib.GrpcClient(options.server, options.model_name, tls=options.tls, **common)
    return client_lib.RestClient(options.rest, options.model_name, **common)


def run(options: Options) -> str:
    """Sends the video and writes the CSV; returns its path.

    Raises:
      errors.InputError: if an option is not usable, or does not fit the model.
      ServingError: if the server or its model is not usable.
      faults.AnnotationError: if the label map is not readable.
      video_info.VideoError: if the video is not readable.
    """
    info, known_ids = options.check(), action_ids(options)
    path = os.path.join(options.output, f"{_video_id(options)}_detections.csv")
    client = _connect(options)
    try:
        wanted = plan(options, inputs_lib.model_input(client.signature_inputs()))
        found = detect(client, options, wanted, sources.keyframe_times(info, options.every))
        os.makedirs(options.output, exist_ok=True)
        num_rows, num_keyframes = _write(path, options, found, known_ids)
    finally:
        client.close()
    print(
        f"{num_rows} rows on {num_keyframes} keyframes (score at least "
        f"{options.score_threshold:g}): {path}"
    )
    return path


def _video_id(options: Options) -> str:
    return os.path.splitext(os.path.basename(options.video))[0]


def _write(path: str, options: Options, found, known_ids) -> tuple[int, int]:
    """Writes what `detect` yields as it comes; returns the numbers of rows and of keyframes."""
    num_keyframes = 0
    with ava_writer.writing(path) as writer:
        for seconds, detections in found:
            of_keyframe = rows(
                _video_id(options), seconds, detections,
                score_threshold=options.score_threshold, known_ids=known_ids,
            )  # fmt: skip
            for row in of_keyframe:
                writer.detection(*row)
            num_keyframes += 1
        if not num_keyframes:
            raise errors.InputError(f"{options.video}: no clip of the video could be read.")
    return writer.num_rows, num_keyframes


def define_flags(values: flags.FlagValues) -> None:
    """Defines the tool's options."""
    texts = {
        "video": "The video file.",
        "output": "Folder for the CSV.",
        "server": "HOST:PORT of TF Serving's gRPC, by default port 8500.",
        "rest": "http://HOST:PORT (or https://) of TF Serving's REST API, by default port 8501.",
        "tls": "Encrypt gRPC, and have the server prove who it is; REST's https:// does the same.",
        "ca_certificate": "PEM file of the authority that signed the server's certificate, if it "
        "is not one that is trusted anyway.",
        "model_name": "What the server calls the model.",
        "saved_model": "The SavedModel that is served, for the clip.json and the label map in it.",
        "label_map": "Rows with ids that this label map (pbtxt) does not have are left out; by "
        "default that of --saved_model, else all are kept.",
        "every": "Seconds from one keyframe to the next.",
        "batch_size": "Clips of a request.",
        "score_threshold": "Lowest score of a row.",
        "fps": "Frames per second of the clips; 0: that of --saved_model, else 25.",
        "num_frames": "Frames of a clip, if neither server nor --saved_model tells.",
        "short_side": "Frames with a longer short side, in pixels, are shrunk to it; 0 keeps.",
        "timeout": "Seconds that a request with its answer may take.",
        "max_answer_mb": "Longer answers, in MB, are refused.",
    }
    define = {
        str: flags.DEFINE_string, int: flags.DEFINE_integer, float: flags.DEFINE_float,
        bool: flags.DEFINE_boolean,
    }  # fmt: skip
    for field in dataclasses.fields(Options):
        required = field.default is dataclasses.MISSING
        default = None if required else field.default
        define[field.type](
            field.name, default, texts[field.name], required=required, flag_values=values
        )


def main(argv: Sequence[str], values: flags.FlagValues = flags.FLAGS) -> None:
    if len(argv) > 1:
        raise app.UsageError(f"Unexpected arguments: {argv[1:]}")
    options = {field.name: values[field.name].value for field in dataclasses.fields(Options)}
    with command_line.ending():
        run(Options(**options))


def _quiet() -> None:
    """Protos bring TensorFlow, which has much to say and takes a GPU that nothing here needs."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    warnings.simplefilter("ignore")


if __name__ == "__main__":
    _quiet()
    define_flags(flags.FLAGS)
    app.run(main)
