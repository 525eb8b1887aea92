# SPDX-License-Identifier: Apache-2.0
r"""Time and memory of training and evaluation steps at full size, through the real entry point.

    python benchmarks/full_size_step.py --output DIR

runs `object_detection_ext.model_main_tf2` twice with the full-size pipeline.config, once to train a
few steps and once to evaluate the checkpoint, each in its own process, and prints seconds per step
and peak memory. CPU seconds (over all cores) tell the cost where other work delays the steps.
Without --records it makes clips of noise with two boxes each: the time of a step does not depend on
what is to be seen. DIR keeps config, logs, records, checkpoint and result.json; it must be new or
empty.

Shapes: T frames of a clip, H W pixels.
"""

import dataclasses
import io
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence

from object_detection_ext import compat  # noqa: F401 (before any object_detection module)

# isort: split
import numpy as np
import tensorflow as tf
from absl import app, flags
from google.protobuf import text_format
from object_detection.protos import pipeline_pb2
from PIL import Image

from object_detection_ext import options as options_lib
from object_detection_ext.ava import annotations
from object_detection_ext.data import clip_features

_ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_CONFIG = os.path.join(_ROOT, "pipeline_configs", "ava_i3d_tx_highres_r300.config")
_LABEL_MAP = "item { name: 'stand' id: 12 }\nitem { name: 'talk to' id: 79 }\n"
# AVA's videos have about this size when their short side is 256 pixels.
_HEIGHT, _WIDTH = 256, 340
_BOXES = ((0.1, 0.1, 0.9, 0.4), (0.2, 0.5, 1.0, 0.8))
_GIB = 2**30

_OUTPUT = flags.DEFINE_string("output", None, "Empty folder for what is written.", required=True)
_PIPELINE = flags.DEFINE_string("pipeline_config_path", _CONFIG, "The model.")
_RECORDS = flags.DEFINE_string("records", None, "Pattern of records to use; needs --label_map.")
_LABELS = flags.DEFINE_string("label_map", None, "Label map of --records.")
_STEPS = flags.DEFINE_integer("steps", 2, "Training steps; the first builds the graph.", 2)
_BATCH = flags.DEFINE_integer("batch_size", 1, "Clips per training step.", 1)
_EVAL_CLIPS = flags.DEFINE_integer("eval_clips", 2, "Clips to evaluate, one per step.", 1)


@dataclasses.dataclass(frozen=True)
class Run:
    """What a process said and took.

    `lines` holds (seconds since the start, CPU seconds used, text); memory is in bytes.
    """

    lines: tuple[tuple[float, float, str], ...]
    seconds: float
    peak_bytes: int

    def when(self, pattern: str) -> np.ndarray:
        """(seconds, CPU seconds) of the first line that matches; RuntimeError if none does."""
        for seconds, cpu_seconds, line in self.lines:
            if re.search(pattern, line):
                return np.array([seconds, cpu_seconds])
        raise RuntimeError(f"the run did not print {pattern!r}; see its log")


def cpu_seconds(pid: int) -> float:
    """CPU time that all threads of a running process have used."""
    with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
        # The name, in parentheses, may hold spaces. utime and stime are fields 14 and 15.
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def synthetic_record(num_frames: int, seed: int) -> bytes:
    """A serialized record of T frames of noise, 256x340, with two people on the middle one."""
    rng = np.random.default_rng(seed)
    frames = []
    for _ in range(num_frames):
        # Coarse noise: JPEGs of the size that real frames have.
        coarse = rng.integers(0, 256, (_HEIGHT // 8, _WIDTH // 8, 3), dtype=np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(coarse).resize((_WIDTH, _HEIGHT)).save(buffer, "JPEG", quality=92)
        frames.append(buffer.getvalue())
    regions = [annotations.Region(box, 12 + 67 * i, i, i + 1) for i, box in enumerate(_BOXES)]
    return clip_features.serialized_example(
        {num_frames // 2: annotations.Keyframe(f"noise{seed}", 1.0, 1, regions)},
        {12: "stand", 79: "talk to"},
        encoded_frames=frames,
        frame_times=[1.0 + (i - num_frames // 2) / 25.0 for i in range(num_frames)],
        height=_HEIGHT,
        width=_WIDTH,
    )


def write_records(folder: str, num_frames: int) -> tuple[str, str, str]:
    """Writes records to train and to evaluate; returns their paths and the label map's."""
    wanted = max(_BATCH.value, _EVAL_CLIPS.value)
    if _RECORDS.value:
        files = sorted(tf.io.gfile.glob(_RECORDS.value))
        if not files or not _LABELS.value:
            raise app.UsageError("--records must match files and needs --label_map")
        records = list(tf.data.TFRecordDataset(files).take(wanted).as_numpy_iterator())
        label_map = os.path.abspath(_LABELS.value)
    else:
        records = [synthetic_record(num_frames, seed) for seed in range(wanted)]
        label_map = os.path.join(folder, "label_map.pbtxt")
        with open(label_map, "w", encoding="utf-8") as file:
            file.write(_LABEL_MAP)
    paths = []
    for name, count in (("train", wanted), ("eval", _EVAL_CLIPS.value)):
        paths.append(os.path.join(folder, f"{name}.record"))
        with tf.io.TFRecordWriter(paths[-1]) as writer:
            for record in records[:count]:
                writer.write(record)
    return paths[0], paths[1], label_map


def prepare(folder: str) -> str:
    """Writes records and a pipeline.config that reads them; returns the config's path."""
    with open(_PIPELINE.value, encoding="utf-8") as file:
        pipeline = text_format.Parse(file.read(), pipeline_pb2.TrainEvalPipelineConfig())
    num_frames = pipeline.Extensions[options_lib.EXTENSION].clip.num_frames
    train, evaluation, label_map = write_records(folder, num_frames)
    for reader, path in (
        (pipeline.train_input_reader, train),
        (pipeline.eval_input_reader[0], evaluation),
    ):
        reader.label_map_path = label_map
        reader.tf_record_input_reader.input_path[:] = [path]
    pipeline.train_config.batch_size = _BATCH.value
    # The time of a step does not depend on the weights either.
    pipeline.train_config.ClearField("fine_tune_checkpoint")
    config = os.path.join(folder, "pipeline.config")
    with open(config, "w", encoding="utf-8") as file:
        file.write(text_format.MessageToString(pipeline))
    return config


def run_model_main(log_path: str, *arguments: str) -> Run:
    """Runs `model_main_tf2` to its end; what it prints goes to a log and, in short, to stderr."""
    command = [sys.executable, "-u", "-m", "object_detection_ext.model_main_tf2", *arguments]
    path = os.pathsep.join(filter(None, [_ROOT, os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": path}
    start, lines = time.monotonic(), []
    with open(log_path, "w", encoding="utf-8") as log:
        process = subprocess.Popen(
            command,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        for line in process.stdout:
            elapsed = time.monotonic() - start
            lines.append((elapsed, cpu_seconds(process.pid), line.rstrip()))
            log.write(line)
            if line.startswith(("training:", "evaluating")):
                print(line.rstrip(), file=sys.stderr, flush=True)
    # Popen.wait does not tell what the process took.
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"error: model_main_tf2 ended with {process.returncode}; see {log_path}")
    # Linux counts ru_maxrss in KiB.
    return Run(tuple(lines), time.monotonic() - start, usage.ru_maxrss * 1024)


def measure(folder: str) -> dict[str, float]:
    """Trains and evaluates; returns what it took, in seconds and bytes."""
    config = prepare(folder)
    common = (f"--pipeline_config_path={config}", f"--model_dir={os.path.join(folder, 'model')}")
    steps = _STEPS.value
    train = run_model_main(
        os.path.join(folder, "train.log"),
        *common,
        f"--num_train_steps={steps}",
        f"--checkpoint_every_n={steps}",
    )
    evaluate = run_model_main(
        os.path.join(folder, "eval.log"),
        *common,
        f"--checkpoint_dir={os.path.join(folder, 'model')}",
        "--eval_timeout=1",
    )
    first = train.when(r"^training: step 1 of ")
    last = train.when(rf"^training: step {steps} of ")
    per_step = (last - first) / (steps - 1)
    first_clip = evaluate.when(r"Finished eval step 0")
    result = {
        "batch_size": _BATCH.value,
        "train_seconds_to_first_step": first[0],
        "train_seconds_per_step": per_step[0],
        "train_cpu_seconds_per_step": per_step[1],
        "train_seconds": train.seconds,
        "train_peak_bytes": train.peak_bytes,
        "eval_seconds_to_first_clip": first_clip[0],
        "eval_seconds": evaluate.seconds,
        "eval_peak_bytes": evaluate.peak_bytes,
    }
    if _EVAL_CLIPS.value > 1:
        # Includes the metrics, which are little beside the clips.
        rest = evaluate.when(r"Eval metrics at step") - first_clip
        result["eval_seconds_per_clip"] = rest[0] / (_EVAL_CLIPS.value - 1)
        result["eval_cpu_seconds_per_clip"] = rest[1] / (_EVAL_CLIPS.value - 1)
    return result


def machine() -> str:
    """The processor's name, the cores that this process may use, the memory."""
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        names = re.findall(r"^model name\s*:\s*(.*)$", file.read(), re.MULTILINE)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / _GIB
    cores = len(os.sched_getaffinity(0))
    return f"{names[0] if names else 'unknown processor'}, {cores} cores, {memory:.0f} GiB"


def summary(result: dict[str, float]) -> str:
    """The result for people."""
    lines = [
        f"machine: {machine()}; TensorFlow {tf.__version__}, "
        f"{len(tf.config.list_physical_devices('GPU'))} GPUs",
        f"training, batch {result['batch_size']}: {result['train_seconds_per_step']:.1f} s "
        f"({result['train_cpu_seconds_per_step']:.1f} CPU s) a step after "
        f"{result['train_seconds_to_first_step']:.0f} s to the first one; peak memory "
        f"{result['train_peak_bytes'] / _GIB:.1f} GiB; {result['train_seconds']:.0f} s in all",
        f"evaluation: first clip after {result['eval_seconds_to_first_clip']:.0f} s; peak memory "
        f"{result['eval_peak_bytes'] / _GIB:.1f} GiB; {result['eval_seconds']:.0f} s in all",
    ]
    if "eval_seconds_per_clip" in result:
        lines[-1] += (
            f"; {result['eval_seconds_per_clip']:.1f} s "
            f"({result['eval_cpu_seconds_per_clip']:.1f} CPU s) a clip after the first"
        )
    return "\n".join(lines)


def main(argv: Sequence[str]) -> None:
    """Measures, prints the summary and writes result.json."""
    if len(argv) > 1:
        raise app.UsageError(f"Unexpected arguments: {argv[1:]}")
    folder = os.path.abspath(_OUTPUT.value)
    os.makedirs(folder, exist_ok=True)
    if os.listdir(folder):
        raise app.UsageError(f"--output {folder} is not empty: an old checkpoint would be resumed")
    result = measure(folder)
    with open(os.path.join(folder, "result.json"), "w", encoding="utf-8") as file:
        json.dump(result, file, indent=1)
    print(summary(result))


if __name__ == "__main__":
    app.run(main)
