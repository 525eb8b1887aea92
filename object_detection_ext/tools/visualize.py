# SPDX-License-Identifier: Apache-2.0
r"""Shows what the model attended to for each person, and how its keys tell places apart (Figure 4).

    python -m object_detection_ext.tools.visualize --saved_model exported/saved_model \
        --video V.mp4 --output DIR

For each detected person of each keyframe, DIR then holds a filmstrip and a film of the last
layer's attention (the heads' mean, then each head), and for each keyframe the same of the keys'
principal components. Numbers are in a JSON file beside them. Weights and keys are outputs of the
exported model, so they are those that the detections were made with:

    python -m object_detection_ext.exporter_main_v2 ... --config_override \
      '[object_detection_ext.protos.video_action_transformer] {
         outputs { attention: true key_embeddings: true } }'

With --records in place of --video, clips and ground truth come from TFRecords.

Shapes: T frames of a clip, H W pixels, N detections, L layers and M heads of Tx units, t h w cells
of the feature map, D size of a key.
"""

import dataclasses
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from absl import app, flags
from PIL import Image

from object_detection_ext import command_line, errors, files, input_types, listing, progress, rates
from object_detection_ext.ava import timestamps
from object_detection_ext.data import video_info, video_probe, video_reader
from object_detection_ext.inference import clip_model, sources
from object_detection_ext.inference import model as model_lib
from object_detection_ext.visualization import attention, drawing, embeddings
from object_detection_ext.visualization import people as people_lib

_ATTENTION, _KEYS = clip_model.ATTENTION, clip_model.KEY_EMBEDDINGS
_OPTION_OF = {_ATTENTION: "attention", _KEYS: "key_embeddings"}
# Of films of records that do not tell their frame rate.
_DEFAULT_FPS = 25.0
# A detected person is one of the ground truth if their boxes overlap like this.
_MATCHING_IOU = 0.5
_RECORDS_LOOKED_AT = 4
# With SAME padding and sizes that the stride divides, what a cell of stride s sees has its centre
# on the last of the cell's s pixels; with equal padding at both ends, on the first.
_SIDE_OF_PADDING = {
    "faster_rcnn_i3d_keras": 1,
    "faster_rcnn_s3dg_keras": 1,
    "faster_rcnn_r3d50_keras": -1,
    "faster_rcnn_r3d50_non_local_keras": -1,
}


class VisualizationError(errors.InputError):
    """The pictures cannot be made as asked; the message says why and what would be right."""


@dataclasses.dataclass(frozen=True)
class Options:
    """What to show and where to write; `every` in seconds, `short_side` in pixels.

    None: the flag was not given. Exactly one of `video` and `records` is.
    """

    saved_model: str
    output: str
    label_map: str | None = None
    video: str | None = None
    records: str | None = None
    every: float | None = None
    score_threshold: float = 0.3
    max_people: int = 5
    max_keyframes: int = 20
    fps: float | None = None
    num_frames: int | None = None
    short_side: int | None = None

    def check(self) -> video_info.VideoInfo | None:
        """Checks all that can be checked without TensorFlow; returns what the video is, if any.

        Raises:
          VisualizationError: if an option is out of range, contradicts another, or the model is
            missing.
          video_info.VideoError: if the video is missing or unreadable.
        """
        model_lib.check_saved_model(self.saved_model)
        problems = []
        if (self.video is None) == (self.records is None):
            problems.append("give either --video or --records")
        for name in ("every", "fps", "short_side"):
            if self.records is not None and getattr(self, name) is not None:
                problems.append(f"--{name} is for --video: records have their frames already")
        for name in ("max_people", "max_keyframes"):
            if getattr(self, name) < 1:
                problems.append(f"--{name} must be at least 1, not {getattr(self, name)}")
        if self.every is not None:
            problems += rates.spacing_faults("--every", self.every)
        if self.fps is not None:
            problems += rates.fps_faults("--fps", self.fps)
        if not 0 <= self.score_threshold <= 1:
            problems.append(f"--score_threshold must be in [0, 1], not {self.score_threshold:g}")
        if self.short_side is not None and self.short_side < 0:
            problems.append(f"--short_side must be at least 0 pixels, not {self.short_side}")
        if problems:
            raise VisualizationError("; ".join(problems) + ".")
        return None if self.video is None else video_probe.probe(self.video)


@dataclasses.dataclass(frozen=True)
class Clip:
    """A clip around a keyframe: frames uint8 [T, H, W, 3] at `fps` (None: unknown).

    `truth` are the people of the ground truth, empty for videos.
    """

    video_id: str
    seconds: float
    frames: np.ndarray
    fps: float | None
    truth: tuple[drawing.DetectedPerson, ...] = ()

    @property
    def name(self) -> str:
        """What its files begin with."""
        time = timestamps.format_timestamp(self.seconds)
        return f"{self.video_id.replace(os.sep, '_')}_{time}"


# --- The model and what was exported with it ------------------------------------------------------


def load_model(options: Options) -> clip_model.ClipModel:
    """Loads the model and checks that it has something to show.

    Raises:
      VisualizationError: if it has neither attention nor keys; the message says how to export them.
      model_lib.ModelError: if it cannot be loaded or does not take clips.
    """
    model = model_lib.load_saved_model(
        options.saved_model,
        label_map=options.label_map,
        fps=options.fps,
        num_frames=options.num_frames,
    )
    if model.takes_boxes:
        raise VisualizationError(
            f"{options.saved_model} classifies boxes that it is given, and there are none here; "
            "export a model with proposals of its own with --input_type=clip_tensor."
        )
    missing = [name for name in _OPTION_OF if name not in model.outputs]
    if len(missing) == len(_OPTION_OF):
        raise VisualizationError(
            f"{options.saved_model}: the model returns neither {_ATTENTION} nor {_KEYS}, so there "
            f"is nothing to show. {how_to_export(options.saved_model, exported_pipeline(options))}"
        )
    for name in missing:
        # The command asks for both, to end with one model that has all.
        print(
            f"visualize: the model has no output {name}: those pictures are left out. "
            f"{how_to_export(options.saved_model, exported_pipeline(options))}",
            flush=True,
        )
    return model


def exported_pipeline(options: Options):
    """The pipeline.config that the exporter wrote beside the model; None if it is not there.

    Raises:
      VisualizationError: if it cannot be parsed.
    """
    from google.protobuf import text_format
    from object_detection.protos import pipeline_pb2

    # Makes our part of the file known to the parser.
    from object_detection_ext.protos import video_action_transformer_pb2  # noqa: F401

    path = os.path.join(_export_folder(options.saved_model), "pipeline.config")
    if not os.path.isfile(path):
        return None
    with open(path, encoding="utf-8") as file:
        try:
            return text_format.Parse(file.read(), pipeline_pb2.TrainEvalPipelineConfig())
        except text_format.ParseError as error:
            raise VisualizationError(f"{path}: is no pipeline.config: {error}") from error


def _options_in(pipeline):
    from object_detection_ext.options import EXTENSION

    return pipeline.Extensions[EXTENSION]


def _export_folder(saved_model: str) -> str:
    return os.path.dirname(os.path.abspath(saved_model))


def how_to_export(saved_model: str, pipeline) -> str:
    """Says how to export a model again so that it returns what is shown here.

    Args:
      saved_model: its folder.
      pipeline: the pipeline.config beside it, or None.
    """
    if pipeline is not None and _options_in(pipeline).WhichOneof("head") == "i3d_head":
        return (
            "Its head is i3d_head, which has no attention: train a model with tx_head or "
            "tx_i3d_head."
        )
    folder = _export_folder(saved_model)
    checkpoint = os.path.join(folder, "checkpoint")
    config = "PIPELINE_CONFIG" if pipeline is None else os.path.join(folder, "pipeline.config")
    wanted = " ".join(f"{name}: true" for name in _OPTION_OF.values())
    return (
        "Export it again, to another folder, with these outputs:\n"
        "  python -m object_detection_ext.exporter_main_v2 --input_type=clip_tensor \\\n"
        f"    --pipeline_config_path={config} \\\n"
        f"    --trained_checkpoint_dir={checkpoint if os.path.isdir(checkpoint) else 'MODEL_DIR'}"
        f" \\\n    --output_directory={folder}_with_attention \\\n"
        "    --config_override='[object_detection_ext.protos.video_action_transformer] "
        f"{{ outputs {{ {wanted} }} }}'"
    )


def placement(pipeline, frames_shape: Sequence[int], cells: Sequence[int]) -> attention.Placement:
    """Returns where the cells of a model's feature map lie in a clip.

    Args:
      pipeline: the exported pipeline.config; None: cells divide the frame evenly.
      frames_shape: T, H and W of the clip, in frames and pixels.
      cells: t, h and w of the feature map.
    """
    if pipeline is None or not pipeline.model.faster_rcnn.HasField("image_resizer"):
        return attention.EVEN
    import tensorflow as tf
    from object_detection.builders import image_resizer_builder

    num_frames, height, width = frames_shape
    resize = image_resizer_builder.build(pipeline.model.faster_rcnn.image_resizer)
    padded, used = resize(tf.zeros([height, width, 3]))[:2]
    side = _SIDE_OF_PADDING.get(pipeline.model.faster_rcnn.feature_extractor.type, 0)
    sizes = (num_frames, *padded.shape[:2])
    shift = tuple(side * _centre_shift(size, n) for size, n in zip(sizes, cells, strict=True))
    extent = (float(used[0] / padded.shape[0]), float(used[1] / padded.shape[1]))
    return attention.Placement(extent, shift)


def _centre_shift(size: int, cells: int) -> float:
    """How far off a cell's middle its first or last frame or pixel is, in cells; 0 if not whole."""
    stride, rest = divmod(size, cells)
    return 0.0 if rest else (stride - 1) / (2 * stride)


# --- Where clips come from ------------------------------------------------------------------------


def video_clips(options: Options, info, model: clip_model.ClipModel) -> Iterator[Clip]:
    """Yields the clips of a video, one around every keyframe; damaged ones are left out."""
    times = sources.keyframe_times(info, 1.0 if options.every is None else options.every)
    chosen = times[: options.max_keyframes]
    print(f"visualize: clips of {model.num_frames} frames at {model.fps:g} per second")
    if len(chosen) < len(times):
        print(
            f"visualize: the first {len(chosen)} of {listing.counted(len(times), 'keyframe')} "
            "(--max_keyframes)"
        )
    (name,) = sources.names_of([options.video])
    reader = video_reader.ClipReader(
        options.video,
        num_frames=model.num_frames,
        fps=model.fps,
        transform=lambda frame: sources.shrunk(
            frame, options.short_side, model.frame_size, model.short_side
        ),
    )
    told = progress.Progress("visualize", len(chosen), "keyframes")
    for number, clip in enumerate(reader.clips(chosen), start=1):
        if not clip.problem:
            yield Clip(name, clip.keyframe_time, np.stack(clip.frames), model.fps)
        elif not clip.outside:
            print(f"visualize: left out: {clip.problem}", flush=True)
        told.update(number)


def record_clips(options: Options, model: clip_model.ClipModel, pipeline) -> Iterator[Clip]:
    """Yields the first clips of TFRecords, with their ground truth.

    Raises:
      record_files.RecordFileError: if there is no usable record.
    """
    from object_detection.protos import input_reader_pb2

    from object_detection_ext.data import clip_dataset, clip_decoder, record_files

    stride = 1 if pipeline is None else _options_in(pipeline).clip.frame_stride
    paths = record_files.check_record_files([options.records])
    fps = record_files.look_at_records(paths, _RECORDS_LOOKED_AT).fps
    label_map = options.label_map or input_types.asset(
        options.saved_model, input_types.LABEL_MAP_ASSET
    )
    reader = input_reader_pb2.InputReader(label_map_path=label_map, shuffle=False, num_epochs=1)
    reader.tf_record_input_reader.input_path.append(options.records)
    choice = clip_decoder.FrameChoice(min_stride=stride, max_stride=stride)
    dataset = clip_dataset.build(reader, model.num_frames, choice=choice, drops_unknown_labels=True)
    for number, fields in enumerate(dataset.take(options.max_keyframes), start=1):
        print(f"visualize: keyframe {number} of at most {options.max_keyframes}", flush=True)
        yield _record_clip(fields, model.label_map, None if fps is None else fps / stride)


def _record_clip(fields, label_map: Mapping[int, str], fps: float | None) -> Clip:
    packed = fields["image"].numpy()  # [H, W, 3 T]
    frames = packed.reshape(*packed.shape[:2], -1, 3).transpose(2, 0, 1, 3)
    video_id, seconds = timestamps.read_frame(fields["source_id"].numpy().decode())
    people: dict[tuple, list[tuple[str, None]]] = {}
    rows = zip(
        fields["groundtruth_boxes"].numpy().tolist(),
        fields["groundtruth_classes"].numpy().tolist(),
        strict=True,
    )
    for box, action in rows:
        people.setdefault(tuple(box), []).append((label_map[action], None))
    truth = tuple(drawing.DetectedPerson(box, tuple(names)) for box, names in people.items())
    return Clip(video_id, float(seconds), np.ascontiguousarray(frames), fps, truth)


# --- Pictures -------------------------------------------------------------------------------------


def show_clip(
    clip: Clip, model: clip_model.ClipModel, options: Options, pipeline
) -> dict[str, Any]:
    """Runs the model on a clip, writes its pictures, and returns its part of the summary."""
    shown = [name for name in _OPTION_OF if name in model.outputs]
    (found,) = model(clip.frames[np.newaxis])
    grid = found[_KEYS].shape[2:5] if _KEYS in shown else found[_ATTENTION].shape[3:]
    placed = placement(pipeline, clip.frames.shape[:3], grid)
    people = people_lib.group_people(
        found["detection_boxes"],
        found["detection_scores"],
        found["detection_classes"],
        action_ids=model.label_map,
        score_threshold=options.score_threshold,
    )[: options.max_people]
    base = os.path.join(options.output, clip.name)
    summary = {
        "video": clip.video_id,
        "seconds": clip.seconds,
        "fps": clip.fps,
        "num_frames": len(clip.frames),
        "best_score": round(float(found["detection_scores"].max(initial=0.0)), 4),
        "groundtruth": [_as_json(person) for person in clip.truth],
        "people": [],
    }
    drawn = [_drawn(person, model.label_map) for person in people]
    for number, (person, picture) in enumerate(zip(people, drawn, strict=True), start=1):
        part = {"person": number, **_as_json(picture)}
        if _ATTENTION in shown:
            title = f"{_title(clip)}, person {number} of {len(people)}: " + _caption(picture, clip)
            weights = found[_ATTENTION][person.row, -1]  # [M, t, h, w]
            files = f"{base}_person{number}_attention"
            part.update(_show_attention(files, clip, weights, picture, title, placed))
        summary["people"].append(part)
    if _KEYS in shown:
        keys = found[_KEYS][-1]  # [M, t, h, w, D]
        summary["embeddings"] = _show_embeddings(f"{base}_embeddings", clip, keys, drawn, placed)
    return summary


def _show_attention(
    base: str, clip: Clip, weights: np.ndarray, person, title: str, placed
) -> dict[str, Any]:
    drawn = (clip.frames, weights, person.box, person.actions)
    kwargs = {"fps": clip.fps, "title": title, "truth": clip.truth, "placement": placed}
    files = _write(base, attention.filmstrip(*drawn, **kwargs), attention.film(*drawn, **kwargs),
                   clip.fps)  # fmt: skip
    maps = {
        label: attention.summarize(of_head, len(clip.frames), placed)
        for label, of_head in attention.mean_and_heads(weights)
    }
    return {"files": files, "attention": maps}


def _show_embeddings(base: str, clip: Clip, keys: np.ndarray, people, placed) -> dict[str, Any]:
    kwargs = {
        "fps": clip.fps,
        "title": f"{_title(clip)}: key embeddings of the last layer",
        "people": people,
        "placement": placed,
    }
    files = _write(base, embeddings.filmstrip(clip.frames, keys, **kwargs),
                   embeddings.film(clip.frames, keys, **kwargs), clip.fps)  # fmt: skip
    variance = [
        [round(float(part), 4) for part in embeddings.principal_components(head).variance]
        for head in keys
    ]
    return {"files": files, "variance_of_components": variance}


def _write(base: str, strip: np.ndarray, film: Iterator[np.ndarray], fps) -> list[str]:
    """Writes filmstrip and film; returns the names of the files."""
    paths = [f"{base}.png", f"{base}.mp4"]
    with files.replaced_when_complete(paths[0], "wb") as file:
        Image.fromarray(strip).save(file, "PNG", optimize=True)
    drawing.write_video(paths[1], film, fps or _DEFAULT_FPS)
    return [os.path.basename(path) for path in paths]


def _drawn(person: people_lib.Person, label_map: Mapping[int, str]) -> drawing.DetectedPerson:
    actions = sorted(person.scores.items(), key=lambda item: -item[1])
    names = tuple((label_map[action], score) for action, score in actions)
    return drawing.DetectedPerson(tuple(person.box), names)


def _title(clip: Clip) -> str:
    return f"{clip.video_id} at {clip.seconds:g} s"


def _caption(person: drawing.DetectedPerson, clip: Clip) -> str:
    """A person's actions, and those of the ground truth where it has this person."""
    text = attention.described(person.actions)
    if not clip.truth:
        return text
    overlaps = [people_lib.iou(np.array(person.box), np.array(t.box)) for t in clip.truth]
    best = int(np.argmax(overlaps))
    if overlaps[best] < _MATCHING_IOU:
        return f"{text} (not in the ground truth, white)"
    return f"{text} (ground truth, white: {attention.described(clip.truth[best].actions)})"


def _as_json(person: drawing.DetectedPerson) -> dict[str, Any]:
    return {
        "box": [round(float(v), 4) for v in person.box],
        "actions": {n: None if s is None else round(float(s), 4) for n, s in person.actions},
    }


def run(options: Options) -> str:
    """Makes all pictures and the summary; returns the summary's path.

    Raises:
      VisualizationError, model_lib.ModelError: if an option or the model is not usable.
      faults.AnnotationError: if the label map is not readable.
      video_info.VideoError, record_files.RecordFileError: if video or records are not readable.
    """
    info = options.check()
    if options.records is not None:
        from object_detection_ext.data import record_files

        record_files.check_record_files([options.records])
    model = load_model(options)
    pipeline = exported_pipeline(options)
    if options.video is not None:
        clips = video_clips(options, info, model)
        (stem,) = sources.names_of([options.video])
    else:
        clips = record_clips(options, model, pipeline)
        stem = "records"
    os.makedirs(options.output, exist_ok=True)
    parts = [show_clip(clip, model, options, pipeline) for clip in clips]
    path = os.path.join(options.output, f"{stem}_attention.json")
    numbers = {"saved_model": options.saved_model, "clips": parts}
    files.write_text(path, json.dumps(numbers, indent=1))
    _report(options, parts, path)
    return path


def _report(options: Options, parts: Sequence[dict], path: str) -> None:
    people = sum(len(part["people"]) for part in parts)
    print(
        f"{listing.counted(people, 'person', 'people')} on "
        f"{listing.counted(len(parts), 'keyframe')} (score at least "
        f"{options.score_threshold:g}).\nPictures and films: {options.output}\nNumbers: {path}"
    )
    if not people and parts:
        best = max(part["best_score"] for part in parts)
        print(f"The best score of all was {best:g}: --score_threshold should be lower.")


def define_flags(values: flags.FlagValues) -> None:
    """Defines the tool's options."""
    for name, text in (
        ("saved_model", "Folder with the saved_model.pb."),
        ("output", "Folder for the results."),
    ):
        flags.DEFINE_string(name, None, text, required=True, flag_values=values)
    flags.DEFINE_string(
        "label_map", None, "Label map (pbtxt); by default the model's own.", flag_values=values
    )
    flags.DEFINE_string("video", None, "The video file.", flag_values=values)
    flags.DEFINE_string(
        "records", None, "TFRecord file or glob pattern, instead of a video.", flag_values=values
    )
    flags.DEFINE_float(
        "every",
        Options.every,
        "Seconds from one keyframe of the video to the next; 1 if not given.",
        flag_values=values,
    )
    flags.DEFINE_float(
        "score_threshold", Options.score_threshold, "Lowest score of an action.", flag_values=values
    )
    flags.DEFINE_integer(
        "max_people", Options.max_people, "Of a keyframe, the surest first.", flag_values=values
    )
    flags.DEFINE_integer(
        "max_keyframes", Options.max_keyframes, "The first so many.", flag_values=values
    )
    flags.DEFINE_float(
        "fps",
        Options.fps,
        "Frames per second of a video's clips; by default the model's own.",
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
        "Pixels that larger frames of a video are shrunk to first; 0 keeps them.",
        flag_values=values,
    )


def main(argv: Sequence[str], values: flags.FlagValues = flags.FLAGS) -> None:
    if len(argv) > 1:
        raise app.UsageError(f"Unexpected arguments: {argv[1:]}")
    options = {field.name: values[field.name].value for field in dataclasses.fields(Options)}
    with command_line.ending():
        run(Options(**options))


if __name__ == "__main__":
    define_flags(flags.FLAGS)
    app.run(main)
