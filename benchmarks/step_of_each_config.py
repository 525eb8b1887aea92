# SPDX-License-Identifier: Apache-2.0
r"""Time and memory of a training step and an evaluation step of several pipeline.configs.

    python benchmarks/step_of_each_config.py pipeline_configs/ava_*.config --output costs.json

builds each model at its full size and runs it on one clip of noise with two people: loss, gradients
and optimizer update as in training, as one graph; prediction and postprocessing as in evaluation,
op by op. Building the graph is left out of the time, and so is the input pipeline;
`full_size_step.py` measures with both. Training and evaluation have a process of their own each,
since a process's peak memory never falls.

With --figures the results go into pipeline_configs/figures.json too, from which
pipeline_configs/generate.py writes the configs' headers.
"""

import json
import multiprocessing
import os
import pathlib
import resource
import statistics
import sys
import time
from collections.abc import Callable, Sequence

from absl import app, flags

_OUTPUT = flags.DEFINE_string("output", None, "JSON file for the results; kept and added to.")
_FIGURES = flags.DEFINE_bool("figures", False, "Write them into pipeline_configs/figures.json.")
_REPEATS = flags.DEFINE_integer("repeats", 3, "Timed steps; the median is kept.", 1)
_ROOT = pathlib.Path(__file__).resolve().parent.parent
_KIB_PER_GIB = 2**20  # ru_maxrss is in KiB on Linux
_PEOPLE = ([0.1, 0.1, 0.9, 0.4], [0.2, 0.5, 1.0, 0.8])


def _prepare(path: str, is_training: bool):
    """(a function that runs one step, the pipeline)."""
    from object_detection_ext import registration

    # isort: split
    import tensorflow as tf
    from object_detection.builders import model_builder
    from object_detection.utils import config_util

    registration.register()
    pipeline = config_util.get_configs_from_pipeline_file(path)
    model = model_builder.build(pipeline["model"], is_training=is_training)
    size = pipeline["model"].faster_rcnn.image_resizer.fixed_shape_resizer
    channels = 3 * model.feature_extractor.num_frames
    noise = tf.random.stateless_uniform([1, size.height, size.width, channels], [0, 1], 0, 255)
    images, shapes = model.preprocess(noise)

    def provide_groundtruth():
        model.provide_groundtruth(
            groundtruth_boxes_list=[tf.constant(_PEOPLE)],
            groundtruth_classes_list=[tf.eye(2, model.num_classes)],
            groundtruth_weights_list=[tf.ones(2)],
        )

    def evaluate():
        provide_groundtruth()
        return model.postprocess(model.predict(images, shapes), shapes)

    return (
        _training_step(model, images, shapes, provide_groundtruth, pipeline["train_config"])
        if is_training
        else evaluate
    )


def _training_step(model, images, shapes, provide_groundtruth: Callable, train_config) -> Callable:
    import tensorflow as tf
    from object_detection.builders import optimizer_builder

    optimizer, _ = optimizer_builder.build(train_config.optimizer)
    provide_groundtruth()
    model.predict(images, shapes)
    # Both made here, so that the graph is built once: it is built again where it makes variables.
    optimizer._create_all_weights(model.trainable_variables)

    @tf.function
    def train():
        provide_groundtruth()
        with tf.GradientTape() as tape:
            losses = model.loss(model.predict(images, shapes), shapes)
            total = tf.add_n([*losses.values(), *model.regularization_losses()])
        gradients = tape.gradient(total, model.trainable_variables)
        clipped, _ = tf.clip_by_global_norm(gradients, train_config.gradient_clipping_by_norm)
        optimizer.apply_gradients(zip(clipped, model.trainable_variables, strict=True))
        return total

    return lambda: train().numpy()


def measure(path: str, is_training: bool, repeats: int) -> dict[str, float]:
    """Seconds by the clock, CPU seconds and the process's peak GiB of one step."""
    step = _prepare(path, is_training)
    clock, cpu = [], []
    for _ in range(repeats + 1):
        start, cpu_start = time.monotonic(), time.process_time()
        step()
        clock.append(time.monotonic() - start)
        cpu.append(time.process_time() - cpu_start)
    return {
        # The first one builds the graph or makes the variables.
        "seconds": round(statistics.median(clock[1:]), 2),
        "cpu_seconds": round(statistics.median(cpu[1:]), 2),
        "gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / _KIB_PER_GIB, 2),
    }


def _write_figures(costs: dict[str, dict]) -> None:
    path = _ROOT / "pipeline_configs" / "figures.json"
    figures = json.loads(path.read_text(encoding="utf-8"))
    how = (
        "one clip, float32, 2 CPU cores, without input pipeline; benchmarks/step_of_each_config.py"
    )
    for name, steps in costs.items():
        for step, cost in steps.items():
            figures.setdefault(name, {})[step] = {
                "seconds": cost["seconds"],
                "gib": cost["gib"],
                "how": how,
            }
    path.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


def main(argv: Sequence[str]) -> None:
    """Measures every config that is not in --output yet."""
    if len(argv) < 2:
        raise app.UsageError("Name one or more pipeline.configs.")
    output = pathlib.Path(_OUTPUT.value) if _OUTPUT.value else None
    costs = json.loads(output.read_text("utf-8")) if output and output.exists() else {}
    context = multiprocessing.get_context("spawn")
    for number, path in enumerate(argv[1:], 1):
        name = pathlib.Path(path).stem
        if name in costs:
            continue
        costs[name] = {}
        for step, is_training in (("training_step", True), ("evaluation_step", False)):
            # maxtasksperchild: a new process, and so a new peak, each time.
            with context.Pool(1, maxtasksperchild=1) as pool:
                cost = pool.apply(measure, (os.path.abspath(path), is_training, _REPEATS.value))
            costs[name][step] = cost
            print(f"{number} of {len(argv) - 1}: {name}, {step}: {cost}", file=sys.stderr)
        if output:
            output.write_text(json.dumps(costs, indent=2) + "\n", encoding="utf-8")
    if _FIGURES.value:
        _write_figures(costs)


if __name__ == "__main__":
    app.run(main)
