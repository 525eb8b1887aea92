# SPDX-License-Identifier: Apache-2.0
"""The whole way, small: toy videos to a report, in about ten minutes on two CPU cores.

    python -m object_detection_ext.tools.demo [--output demo_output] [--seed 0]

Each stage is a command that users run themselves; it is printed before it runs. A stage that was
finished by an earlier run with the same options is not run again, and an interrupted training goes
on from its last checkpoint.
"""

import dataclasses
import json
import pathlib
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence

from absl import app, flags

from object_detection_ext import files
from object_detection_ext.ava import tables
from object_detection_ext.progress import format_seconds

_CONFIG = pathlib.Path(__file__).parents[2] / "pipeline_configs" / "demo_toy_tx.config"

# Frames a second of the clips: 16 frames are 1.3 seconds, a wave and a half.
_FPS = 12.5
_NUM_FRAMES = 16
# Each evaluation in between costs about half a minute.
_EVALUATE_EVERY = 250
_WARMUP_STEPS = 50

# Lines of our own tools; the rest, mostly TensorFlow's, is in the log files.
_PROGRESS = re.compile(
    r"^(toy data|records|training|evaluating|evaluation|detection|video|Converted"
    r"|WARNING: .*skipped|Found|Nothing|eval_\d+:|attention|visualize|report|error|warning"
    r"|estimate)\b"
)
_METRIC = re.compile(r"AvaDetectionBoxes_(?:Precision/|PerformanceByCategory/)?(\S.*@0\.5IOU.*)$")


class StageFailed(RuntimeError):
    """A command of the demo ended with an error."""


@dataclasses.dataclass(frozen=True)
class Stage:
    """A command, and about how long it takes on two cores.

    What is known only when earlier stages are done is a function that tells it.
    """

    name: str
    seconds: float
    module: str
    options: tuple[tuple[str, object], ...]
    again: bool = False  # runs even if it was finished before: it looks itself what is left
    arguments: tuple[object, ...] = ()

    @property
    def command(self) -> list[str]:
        """As a user would type it."""
        options = [f"--{name}={_known(value)}" for name, value in self.options]
        arguments = [str(_known(value)) for value in self.arguments]
        return ["python", "-m", f"object_detection_ext.{self.module}", *options, *arguments]


def _known(value: object) -> object:
    return value() if callable(value) else value


def stages(output: pathlib.Path, seed: int, num_steps: int) -> Iterator[Stage]:
    """The demo's commands in their order; those after the training need its results only."""
    data, model, exported = output / "data", output / "model", output / "exported"
    config = output / "pipeline.config"
    yield Stage("toy videos", 60, "tools.make_toy_dataset", (("output", data), ("seed", seed)))
    yield Stage(
        "records",
        30,
        "tools.create_ava_records",
        (
            ("splits", "train,eval"),
            ("annotations", data / "{split}.csv"),
            ("videos", data / "videos"),
            ("label_map", data / "label_map.pbtxt"),
            ("output", data / "{split}.record@4"),
            ("num_frames", _NUM_FRAMES),
            ("fps", _FPS),
            ("overwrite", True),
        ),
    )
    yield Stage(
        "doctor",
        20,
        "tools.doctor",
        (
            ("annotations", data / "train.csv"),
            ("val_annotations", data / "eval.csv"),
            ("videos", data / "videos"),
            ("pipeline_config_path", config),
            ("contact_sheet", output / "contact_sheet.png"),
        ),
    )
    main = (("pipeline_config_path", config), ("model_dir", model))
    yield Stage(
        "training and evaluation",
        75 + 0.25 * num_steps + 30 * -(-num_steps // _EVALUATE_EVERY),
        "model_main_tf2",
        (
            *main,
            ("checkpoint_every_n", _EVALUATE_EVERY),
            ("train_and_evaluate", True),
            ("eval_every_n", _EVALUATE_EVERY),
        ),
        again=True,
    )
    yield Stage(
        "export",
        50,
        "exporter_main_v2",
        (
            ("input_type", "clip_tensor"),
            ("pipeline_config_path", config),
            ("trained_checkpoint_dir", model / "best"),
            ("output_directory", exported),
        ),
    )
    yield from _stages_with_the_model(output)


def _stages_with_the_model(output: pathlib.Path) -> Iterator[Stage]:
    """What the exported model is used for."""
    data, found = output / "data", output / "detections"
    model = ("saved_model", output / "exported" / "saved_model")

    def shown():
        return data / "videos" / f"{_liveliest_video(data / 'eval.csv')}.mp4"

    yield Stage(
        "annotated video",
        25,
        "tools.detect_video",
        (model, ("output", output / "annotated"), ("every", 0.5), ("tracks", True)),
        arguments=(shown,),
    )
    yield Stage(
        "detection on all held-out videos",
        30,
        "tools.detect_video",
        (model, ("output", found), ("score_threshold", 0.01), ("batch_size", 4), ("video", False)),
        arguments=(data / "videos" / "eval_*.mp4",),
    )
    yield Stage(
        "attention",
        40,
        "tools.visualize",
        (model, ("video", shown), ("output", output / "attention"), ("max_people", 2)),
    )
    yield Stage(
        "report",
        20,
        "tools.report",
        (
            ("groundtruth", data / "eval.csv"),
            ("detections", found / "detections.csv"),
            ("labelmap", data / "label_map.pbtxt"),
            ("train_annotations", data / "train.csv"),
            ("videos", data / "videos"),
            ("attention", output / "attention"),
            ("pipeline_config_path", output / "pipeline.config"),
            ("bootstrap", 1000),
            ("title", "The demo on its held-out videos"),
            ("output", output / "report.html"),
        ),
    )


def _liveliest_video(annotations: pathlib.Path) -> str:
    actions: dict[str, set[int]] = {}
    table = tables.read_ground_truth(annotations)
    for frame, action in zip(table.rows.frame, table.rows.classes, strict=True):
        actions.setdefault(table.frames[frame][0], set()).add(int(action))
    return max(sorted(actions), key=lambda video: len(actions[video]))


def run_stage(stage: Stage, output: pathlib.Path, title: str) -> pathlib.Path:
    """Runs a stage unless it is finished.

    Returns:
        Its log.

    Raises:
        StageFailed: with the log's end.
    """
    log = output / "logs" / f"{stage.name.replace(' ', '_')}.log"
    stamp = log.with_suffix(".done")
    command = shlex.join(stage.command)
    made_by = f"{command}\n{(output / 'pipeline.config').read_text()}"
    if not stage.again and stamp.exists() and stamp.read_text() == made_by:
        print(f"\n{title} {stage.name}: finished by an earlier run", flush=True)
        return log
    print(f"\n{title} {stage.name}, about {format_seconds(stage.seconds)}\n$ {command}", flush=True)
    stamp.unlink(missing_ok=True)
    start = time.monotonic()
    with files.journal(log, anew=True) as file:
        process = subprocess.Popen(
            [sys.executable, "-u", *stage.command[1:]],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        for line in process.stdout:
            file.write(line)
            file.flush()
            if _PROGRESS.match(line):
                print("  " + line.rstrip(), flush=True)
        status = process.wait()
    if status:
        end = "".join(log.read_text().splitlines(keepends=True)[-30:])
        raise StageFailed(f"{stage.name} ended with status {status}. The end of {log}:\n{end}")
    files.write_text(stamp, made_by)
    print(f"  {stage.name}: done in {format_seconds(time.monotonic() - start)}", flush=True)
    return log


def write_config(output: pathlib.Path, num_steps: int) -> None:
    """The demo's pipeline.config with this run's paths and number of steps."""
    text = _CONFIG.read_text().replace("PATH/", f"{output / 'data'}/")
    text = re.sub(r"\b(num_steps|total_steps): \d+", rf"\1: {num_steps}", text)
    # A short run must not end while it warms up.
    warmup = min(_WARMUP_STEPS, num_steps // 2)
    text = re.sub(r"\bwarmup_steps: \d+", f"warmup_steps: {warmup}", text)
    files.write_text(output / "pipeline.config", text)


def read_metrics(best: pathlib.Path) -> dict[str, float | None]:
    """The AVA metrics of the checkpoint that is exported; None for classes without ground truth.

    Args:
        best: the `best.json` beside it.
    """
    scalars = json.loads(best.read_text())["scalars"]
    matches = {_METRIC.match(name): value for name, value in scalars.items()}
    return {match.group(1): value for match, value in matches.items() if match}


def run(output: pathlib.Path, seed: int, num_steps: int) -> dict[str, float | None]:
    """Runs the demo.

    Returns:
        The metrics on the held-out videos.

    Raises:
        StageFailed: if a stage fails.
    """
    (output / "logs").mkdir(parents=True, exist_ok=True)
    _check_seed(output, seed)
    write_config(output, num_steps)
    plan = list(stages(output, seed, num_steps))
    left = sum(stage.seconds for stage in plan)
    print(f"Demo: toy videos to a report, about {format_seconds(left)} on two cores.")
    for number, stage in enumerate(plan, start=1):
        run_stage(stage, output, f"[{number}/{len(plan)}, {format_seconds(left)} left]")
        left -= stage.seconds
    metrics = read_metrics(output / "model" / "best" / "best.json")
    files.write_text(output / "metrics.json", json.dumps(metrics, indent=2) + "\n")
    _print_results(output, metrics)
    return metrics


def _check_seed(output: pathlib.Path, seed: int) -> None:
    """A model trained on one seed's videos must not be shown on another's."""
    record = output / "seed.txt"
    if record.exists() and record.read_text().strip() != str(seed):
        raise StageFailed(
            f"{output} holds a demo of seed {record.read_text().strip()}; give --output another "
            f"folder for seed {seed}."
        )
    files.write_text(record, f"{seed}\n")


def _print_results(output: pathlib.Path, metrics: dict[str, float | None]) -> None:
    print("\nFrame-AP at IoU 0.5 on held-out toy videos (ActivityNet's rules):")
    for name, value in metrics.items():
        print(f"  {'none ' if value is None else format(value, '.3f')}  {name}")
    print("\nResults:")
    for what, place in (
        ("keyframes with their ground truth", output / "contact_sheet.png"),
        ("report, for a browser", output / "report.html"),
        ("annotated video and picture", output / "annotated"),
        ("what people attend to", output / "attention"),
        ("detections on the held-out videos", output / "detections" / "detections.csv"),
        ("metrics", output / "metrics.json"),
        ("SavedModel", output / "exported" / "saved_model"),
        ("checkpoints, and the best of them, which was exported", output / "model"),
        ("logs of each command", output / "logs"),
    ):
        print(f"  {what}: {place}")
    print(f"  TensorBoard: tensorboard --logdir {output / 'model'}", flush=True)


def main(argv: Sequence[str]) -> None:
    """Reads the flags and runs the demo."""
    del argv
    values = flags.FLAGS
    try:
        run(pathlib.Path(values.output), values.seed, values.num_steps)
    except StageFailed as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    flags.DEFINE_string("output", "demo_output", "Folder for everything that the demo makes.")
    flags.DEFINE_integer("seed", 0, "Of the toy videos.")
    flags.DEFINE_integer("num_steps", 1000, "Training steps.")
    app.run(main)
