# SPDX-License-Identifier: Apache-2.0
r"""Latency, clips a second and peak memory of each export; speed and deviation of the shared trunk.

    python benchmarks/inference_speed.py signatures --pipeline_config_path C [--checkpoint_dir D] \
        --output DIR [--height 400 --width 711] [--batches 1,4] [--calls 5]
    python benchmarks/inference_speed.py shared_trunk --saved_model S --video V [--every 1.0] \
        [--clips_per_stretch 8,16]

`signatures` exports every input type (without --checkpoint_dir with random weights, which cost the
same) and calls each in a process of its own. `shared_trunk` runs a video clip by clip and with each
number of clips that share, in turns.

Shapes: B clips, T frames, H W pixels.
"""

import itertools
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence

from object_detection_ext import compat  # noqa: F401 (before any object_detection module)

# isort: split
import cv2
import numpy as np
from absl import app, flags
from object_detection.utils import np_box_ops

_CONFIG = flags.DEFINE_string("pipeline_config_path", None, "signatures: whose model.")
_OVERRIDE = flags.DEFINE_string("config_override", "", "signatures: merged into the config.")
_OVERRIDE_PATHS = flags.DEFINE_multi_string(
    "config_override_path", [], "signatures: files of such text, merged before it."
)
_CHECKPOINT = flags.DEFINE_string("checkpoint_dir", None, "signatures: of a training.")
_OUTPUT = flags.DEFINE_string("output", None, "signatures: folder for the exports.")
_HEIGHT = flags.DEFINE_integer("height", 400, "signatures: of the frames, in pixels.", 8)
_WIDTH = flags.DEFINE_integer("width", 711, "signatures: of the frames, in pixels.", 8)
_BATCHES = flags.DEFINE_list("batches", ["1", "4"], "signatures: clips in a call.")
_CALLS = flags.DEFINE_integer("calls", 5, "signatures: that count, behind one that does not.", 1)
_TYPES = flags.DEFINE_list("input_types", [], "signatures: only these.")
_MODEL = flags.DEFINE_string("saved_model", None, "shared_trunk: an export of clip_tensor.")
_VIDEO = flags.DEFINE_string("video", None, "shared_trunk: a video file.")
_LABELS = flags.DEFINE_string("label_map", None, "shared_trunk: if the model holds none.")
_EVERY = flags.DEFINE_float("every", 1.0, "shared_trunk: seconds between keyframes.")
_TURNS = flags.DEFINE_integer("turns", 3, "shared_trunk: of each way.", 1)
_STRETCHES = flags.DEFINE_list("clips_per_stretch", ["8"], "shared_trunk: clips that share.")


def export_all(folder: str) -> dict[str, str]:
    """Exports every input type that is not there yet; the SavedModels by input type."""
    import tensorflow as tf
    from google.protobuf import text_format
    from object_detection import exporter_lib_v2
    from object_detection.builders import model_builder
    from object_detection.protos import pipeline_pb2
    from object_detection.utils import config_util

    from object_detection_ext import exporting, pipeline_overrides, registration

    registration.register()
    types = _TYPES.value or list(exporting.MODULES)
    paths = {name: os.path.join(folder, name, "saved_model") for name in types}
    missing = [name for name, path in paths.items() if not os.path.isdir(path)]
    if not missing:
        return paths
    with open(_CONFIG.value, encoding="utf-8") as file:  # not checked: its data are not needed
        pipeline = text_format.Parse(file.read(), pipeline_pb2.TrainEvalPipelineConfig())
    override = pipeline_overrides.combined(_CONFIG.value, _OVERRIDE_PATHS.value, _OVERRIDE.value)
    text_format.Merge(override or "", pipeline)
    for reader in (pipeline.train_input_reader, *pipeline.eval_input_reader):
        reader.ClearField("label_map_path")
        reader.ClearField("tf_record_input_reader")
    checkpoint = _CHECKPOINT.value
    if checkpoint is None:
        checkpoint = os.path.join(folder, "random")
        configs = config_util.create_configs_from_pipeline_proto(pipeline)
        model = model_builder.build(configs["model"], is_training=False)
        exporting.MODULES["clip_tensor"](model).__call__.get_concrete_function()
        tf.train.Checkpoint(model=model).save(os.path.join(checkpoint, "ckpt"))
    for name in missing:
        exporter_lib_v2.export_inference_graph(
            name, pipeline, checkpoint, os.path.join(folder, name)
        )
    return paths


def inputs_of(name: str, num_frames: int, batch: int) -> dict[str, np.ndarray]:
    """The inputs of a call: frames of noise that is smooth, as pictures are."""
    from object_detection_ext.ava import annotations
    from object_detection_ext.data import clip_features

    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, [num_frames, _HEIGHT.value // 8, _WIDTH.value // 8, 3], np.uint8)
    frames = np.stack([cv2.resize(f, (_WIDTH.value, _HEIGHT.value)) for f in small])
    jpegs = [cv2.imencode(".jpg", f, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes() for f in frames]
    if name in ("clip_tensor", "clip_and_boxes"):
        inputs = {"input_tensor": np.stack([frames] * batch)}
        if name == "clip_and_boxes":
            inputs["boxes"] = np.tile(np.float32([[[0.1, 0.1, 0.9, 0.5]]]), [batch, 1, 1])
        return inputs
    if name == "encoded_clip":
        return {"input_tensor": np.array([jpegs] * batch, object)}
    record = clip_features.serialized_example(
        {num_frames // 2: annotations.Keyframe("clip", 10.0, 1, [])},
        {},
        encoded_frames=jpegs,
        frame_times=[10.0 + (i - num_frames // 2) / 25.0 for i in range(num_frames)],
        height=_HEIGHT.value,
        width=_WIDTH.value,
    )
    return {"input_tensor": np.array([record] * batch, object)}


def call_one(path: str, name: str, num_frames: int, batch: int) -> dict[str, float]:
    """Loads a SavedModel and calls it; times in seconds, memory in GiB."""
    import tensorflow as tf

    start = time.perf_counter()
    model = tf.saved_model.load(path)
    detect = model.signatures["serving_default"]
    loaded = time.perf_counter()
    inputs = {key: tf.constant(value) for key, value in inputs_of(name, num_frames, batch).items()}
    first = time.perf_counter()
    detect(**inputs)
    seconds = []
    first = time.perf_counter() - first
    for _ in range(_CALLS.value):
        before = time.perf_counter()
        detect(**inputs)
        seconds.append(time.perf_counter() - before)
    return {
        "load": loaded - start,
        "first": first,
        "latency": statistics.median(seconds),
        "clips_per_s": batch / statistics.median(seconds),
        "peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    }


def measure_signatures() -> None:
    """Prints a table of all exports, each call in its own process."""
    from object_detection_ext.inference import model as model_lib

    paths = export_all(_OUTPUT.value)
    print(f"frames {_HEIGHT.value}x{_WIDTH.value}, {len(os.sched_getaffinity(0))} cores")
    print("| input type | clips in a call | load, s | call, s | clips/s | peak, GiB |")
    print("|---|---|---|---|---|---|")
    for name, path in paths.items():
        with open(os.path.join(path, "assets", "clip.json"), encoding="utf-8") as file:
            num_frames = json.load(file)["num_frames"]
        model_lib.check_saved_model(path)
        for batch in map(int, _BATCHES.value):
            found = called_alone("one", path, name, str(num_frames), str(batch))
            print(
                f"| {name} | {batch} | {found['load']:.1f} | {found['latency']:.3f} | "
                f"{found['clips_per_s']:.2f} | {found['peak_gib']:.2f} |",
                flush=True,
            )


def run_way(clips: int, path: str) -> dict[str, float]:
    """Runs the video, `clips` sharing the trunk (1: clip by clip); writes keyframes to a file."""
    from object_detection_ext.inference import model as model_lib
    from object_detection_ext.inference import results
    from object_detection_ext.inference.detector import ActionDetector

    model = model_lib.load_saved_model(_MODEL.value, label_map=_LABELS.value)
    options = {"share_trunk": True, "clips_per_stretch": clips} if clips > 1 else {}
    detector = ActionDetector(model, score_threshold=0.0, **options)
    next(iter(detector(_VIDEO.value, _EVERY.value)))  # builds and loads what the rest finds
    start, cpu_start = time.perf_counter(), time.process_time()
    keyframes = list(detector(_VIDEO.value, _EVERY.value))
    clock, cpu = time.perf_counter() - start, time.process_time() - cpu_start
    with open(path, "w", encoding="utf-8") as file:
        file.writelines(results.to_json(keyframe) + "\n" for keyframe in keyframes)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {"clock": clock / len(keyframes), "cpu": cpu / len(keyframes), "peak": peak}


def measure_shared_trunk() -> None:
    """Runs a video in all ways, each in its own process; prints times, memory, deviations."""
    from object_detection_ext.inference import results

    ways = [1, *map(int, _STRETCHES.value)]
    measured: dict[int, list[dict[str, float]]] = {clips: [] for clips in ways}
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for _, clips in itertools.product(range(_TURNS.value), ways):
            path = os.path.join(folder, f"{clips}.jsonl")
            measured[clips].append(called_alone("way", str(clips), path))
            with open(path, encoding="utf-8") as file:
                found[clips] = [results.from_json(line) for line in file]
    print("| clips that share | s a keyframe | CPU s | times as fast | by CPU | peak, GiB |")
    print("|---|---|---|---|---|---|")
    for clips in ways:
        medians = {key: statistics.median(turn[key] for turn in measured[clips])
                   for key in ("clock", "cpu", "peak")}  # fmt: skip
        faster = {
            key: ", ".join(
                f"{a[key] / b[key]:.2f}" for a, b in zip(measured[1], measured[clips], strict=True)
            )
            for key in ("clock", "cpu")
        }
        print(
            f"| {clips} | {medians['clock']:.3f} | {medians['cpu']:.3f} | {faster['clock']} | "
            f"{faster['cpu']} | {medians['peak']:.2f} |"
        )
    for clips in ways[1:]:
        print(f"{clips} clips share:")
        print_deviations(found[1], found[clips])


def called_alone(*arguments: str) -> dict[str, float]:
    """Calls this program with other arguments and the same flags; what its last line holds."""
    given = [flag for flag in flags.FLAGS.get_key_flags_for_module(sys.argv[0]) if flag.present]
    command = [sys.executable, __file__, *arguments, *(flag.serialize() for flag in given)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.strip().splitlines()[-1])


def print_deviations(exact: Sequence, shared: Sequence, threshold: float = 0.3) -> None:
    """How the surest people of each keyframe differ: box IoU and score of the surest action."""
    overlaps, scores, lost = [], [], 0
    for a, b in zip(exact, shared, strict=True):
        for person in (person for person in a.people if person.score >= threshold):
            row = np_box_ops.iou(person.box[np.newaxis], b.boxes)[0] if b.people else np.zeros(1)
            if row.max() < 0.5:
                lost += 1
                continue
            other = b.people[int(row.argmax())]
            overlaps.append(float(row.max()))
            action = next(iter(person.scores))
            scores.append(abs(person.scores[action] - other.scores.get(action, 0.0)))
    total = len(overlaps) + lost
    print(f"people with a score of at least {threshold}: {total}; without a counterpart: {lost}")
    if overlaps:
        print(f"IoU of the boxes: median {np.median(overlaps):.3f}, least {np.min(overlaps):.3f}")
        print(f"score of the surest action: median off by {np.median(scores):.3f}, at most "
              f"{np.max(scores):.3f}")  # fmt: skip


def main(argv: Sequence[str]) -> None:
    """Measures what the first argument names."""
    if len(argv) == 6 and argv[1] == "one":
        print(json.dumps(call_one(argv[2], argv[3], int(argv[4]), int(argv[5]))))
    elif len(argv) == 4 and argv[1] == "way":
        print(json.dumps(run_way(int(argv[2]), argv[3])))
    elif argv[1:] == ["signatures"]:
        measure_signatures()
    elif argv[1:] == ["shared_trunk"]:
        measure_shared_trunk()
    else:
        raise app.UsageError("Say what to measure: signatures or shared_trunk.")


if __name__ == "__main__":
    app.run(main)
