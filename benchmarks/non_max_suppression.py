# SPDX-License-Identifier: Apache-2.0
r"""Non-maximum suppression of the stock API, each way that it can be done, with and without XLA.

    python benchmarks/non_max_suppression.py [--turns 5] [--calls 3] [--json FILE]

Boxes are random, as many as the paper's models have: the region proposals of a clip (7,500 anchors
of a 400x400 frame, 300 are kept) and the detections of a clip (300 proposals, one box for all
classes). In turns, as other programs share the machine; the table has medians.

`hard` is NonMaxSuppressionV5, whose only kernel is on the host, so that on a GPU boxes go to the
host and come back. `padded` is NonMaxSuppressionV4, which XLA can compile. `partitioned` is made of
plain operations in tiles of 512 boxes.
"""

import functools
import itertools
import json
import statistics
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from object_detection_ext import compat  # noqa: F401 (before any object_detection module)

# isort: split
import numpy as np
import tensorflow as tf
from absl import app, flags
from object_detection.core import post_processing

from object_detection_ext import files

_TURNS = flags.DEFINE_integer("turns", 5, "Turns of each way.", 1)
_CALLS = flags.DEFINE_integer("calls", 3, "Calls in a turn.", 1)
_JSON = flags.DEFINE_string("json", None, "Also write the figures to this file.")

WAYS = {
    "hard": {"use_static_shapes": False},
    "padded": {"use_static_shapes": True, "use_partitioned_nms": False},
    "partitioned": {"use_static_shapes": True, "use_partitioned_nms": True},
}


class Task(NamedTuple):
    """Sizes of a suppression, its thresholds, and the ways in which XLA is tried."""

    boxes: int
    classes: int
    kept_per_class: int
    kept: int
    iou: float
    score: float
    compiled: tuple[str, ...] = ("padded", "partitioned")


TASKS = {
    "proposals": Task(7500, 1, 300, 300, 0.7, 0.0),
    # XLA compiles each class separately: minutes for 80.
    "detections of 80 classes": Task(300, 80, 20, 300, 0.5, 0.01, compiled=()),
    "detections of 4 classes": Task(300, 4, 20, 300, 0.5, 0.01),
}


def random_boxes(task: Task, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Boxes around a few people, as detectors find them, and their scores.

    Returns:
        Boxes [1, N, 1, 4] in pixels of a 400x400 frame, and scores [1, N, K] in (0, 1).
    """
    rng = np.random.default_rng(seed)
    people = rng.uniform(60, 340, (12, 2)), rng.uniform(40, 160, (12, 2))
    which = rng.integers(0, 12, task.boxes)
    centres = people[0][which] + rng.normal(0, 15, (task.boxes, 2))
    sizes = people[1][which] * rng.uniform(0.6, 1.5, (task.boxes, 2))
    boxes = np.concatenate([centres - sizes / 2, centres + sizes / 2], axis=1)
    scores = rng.beta(0.5, 3.0, (task.boxes, task.classes))
    return np.float32(boxes)[np.newaxis, :, np.newaxis], np.float32(scores)[np.newaxis]


def suppression(task: Task, way: str, *, xla: bool) -> Callable:
    """A function from boxes and scores to the stock function's results."""
    function = functools.partial(
        post_processing.batch_multiclass_non_max_suppression,
        score_thresh=task.score,
        iou_thresh=task.iou,
        max_size_per_class=task.kept_per_class,
        max_total_size=task.kept,
        clip_window=tf.constant([0.0, 0.0, 400.0, 400.0]),
        **WAYS[way],
    )
    return tf.function(
        lambda boxes, scores: function(boxes, scores), jit_compile=xla, autograph=False
    )


def agreement(results: Sequence, reference: Sequence) -> float:
    """The part of the reference's boxes that are in the results, with class and score.

    Args:
        results: of the stock function, for one clip: boxes, scores, classes, ..., number of boxes.
        reference: the same of another way.
    """

    def rows(given) -> set[tuple]:
        boxes, scores, classes, number = given[0][0], given[1][0], given[2][0], int(given[-1][0])
        parts = np.concatenate([boxes, scores[:, np.newaxis], classes[:, np.newaxis]], axis=1)
        return {tuple(row) for row in np.round(parts[:number], 3)}

    wanted = rows(reference)
    return len(wanted & rows(results)) / max(len(wanted), 1)


def measure(task: Task) -> dict[str, dict[str, float]]:
    """Milliseconds of a call, and agreement with `hard`, of each way."""
    arguments = tuple(map(tf.constant, random_boxes(task)))
    functions, results = {}, {}
    for way, xla in itertools.product(WAYS, (False, True)):
        if xla and way not in task.compiled:
            continue
        name = f"{way}, XLA" if xla else way
        functions[name] = suppression(task, way, xla=xla)
        given = functions[name](*arguments)
        results[name] = [part if part is None else part.numpy() for part in given]
    times = {name: [] for name in functions}
    for _ in range(_TURNS.value):
        for name, function in functions.items():
            start = time.perf_counter()
            for _ in range(_CALLS.value):
                function(*arguments)[0].numpy()
            times[name].append((time.perf_counter() - start) / _CALLS.value)
    return {
        name: {
            "milliseconds": 1e3 * statistics.median(times[name]),
            "agreement": agreement(results[name], results["hard"]),
        }
        for name in functions
    }


def main(argv: Sequence[str]) -> None:
    """Measures each task and prints its table."""
    if len(argv) > 1:
        raise app.UsageError(f"Unexpected arguments: {argv[1:]}")
    figures = {}
    for name, task in TASKS.items():
        figures[name] = rows = measure(task)
        print(f"{name}: {task}")
        for way, row in rows.items():
            ratio = row["milliseconds"] / rows["hard"]["milliseconds"]
            print(
                f"  {way:18} {row['milliseconds']:9.2f} ms  {ratio:6.2f} x hard  "
                f"{100 * row['agreement']:6.2f}% of its boxes",
                flush=True,
            )
    if _JSON.value:
        files.write_text(_JSON.value, json.dumps(figures, indent=2))


if __name__ == "__main__":
    app.run(main)
