# SPDX-License-Identifier: Apache-2.0
r"""What bfloat16 changes: the trunk's time, the detections of one checkpoint, the toy data's mAP.

    python benchmarks/bfloat16.py trunk [--frames 16 --size 112 --depth 1.0 --turns 5] [--gradients]
    python benchmarks/bfloat16.py detections [pipeline_configs/ava_*.config]
    python benchmarks/bfloat16.py trained --pipeline_config C --checkpoint M VIDEO ...
    python benchmarks/bfloat16.py toy --output DIR --seeds 0 1 2 [--num_steps 1000]

`trunk` times I3D in both precisions, in turns. `detections` makes each model at a reduced size with
random weights, and compares what one checkpoint detects in both precisions in given boxes.
`trained` does that with a checkpoint of yours, on videos, with the model's own proposals. `toy`
trains the demo's model on toy data of each seed in both precisions, from the same weights; what is
finished is kept in DIR and not done again.

Shapes: B clips, T frames, H W pixels, R given boxes, K classes.
"""

import argparse
import dataclasses
import json
import pathlib
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence

from object_detection_ext import compat  # noqa: F401 (before any object_detection module)

# isort: split
import cv2
import numpy as np
from object_detection.utils import np_box_ops

from object_detection_ext import files, precision, progress
from object_detection_ext.tools import demo

_ROOT = pathlib.Path(__file__).resolve().parent.parent
_EXTENSION = "[object_detection_ext.protos.video_action_transformer]"
_FRAMES, _SIZE = 16, 96
_REDUCED = f"""
model {{ faster_rcnn {{
  image_resizer {{ fixed_shape_resizer {{ height: {_SIZE} width: {_SIZE} }} }}
  first_stage_max_proposals: 8 second_stage_batch_size: 8
}} }}
{_EXTENSION} {{
  clip {{ num_frames: {_FRAMES} }} trunk {{ depth_multiplier: 0.25 }}
  summaries {{ training_picture_every_n_steps: 0 }}
}}
"""
# Normalized [ymin, xmin, ymax, xmax].
_BOXES = np.float32(
    [[0.1, 0.1, 0.7, 0.5], [0.3, 0.5, 0.9, 0.9], [0.0, 0.0, 1.0, 1.0], [0.4, 0.2, 0.8, 0.4]]
)
_COUNTERPART_IOU = 0.5
# Of batch norm: with it, the sums of residual branches keep their size.
_GAMMA = 0.7


@dataclasses.dataclass(frozen=True)
class Differences:
    """Between float32 and bfloat16.

    Attributes:
        overlaps: float [N], IoU of each box with its counterpart.
        scores: float [M], absolute differences of scores.
        lost: how many boxes have no counterpart.
    """

    overlaps: np.ndarray
    scores: np.ndarray
    lost: int = 0

    def row(self, name: str) -> str:
        """A row of the table."""
        if not len(self.overlaps):
            return f"| {name} | 0 | {self.lost} | | | | |"
        return (
            f"| {name} | {len(self.overlaps)} | {self.lost} | {np.median(self.overlaps):.4f} | "
            f"{self.overlaps.min():.4f} | {np.median(self.scores):.4f} | {self.scores.max():.4f} |"
        )


_HEADING = (
    "| | boxes | without counterpart | IoU, median | least | score off by, median | most |\n"
    "|---|---|---|---|---|---|---|"
)


# --- The trunk's time ----------------------------------------------------------------------------


def trunk_steps(
    frames: int, size: int, depth: float
) -> dict[str, tuple[Callable[[], None], Callable[[], None]]]:
    """(features, features and gradients) of I3D to Mixed_4f, by precision."""
    import tensorflow as tf

    from object_detection_ext.trunks import i3d

    clip = tf.random.stateless_uniform([1, frames, size, size, 3], [0, 1], -1.0, 1.0)
    steps = {}
    for name in precision.NAMES:
        policy = "mixed_bfloat16" if name == precision.BFLOAT16 else name
        tf.keras.mixed_precision.set_global_policy(policy)
        trunk = i3d.TRUNK.build(final_endpoint=i3d.TRUNK.default_endpoint, depth_multiplier=depth)
        tf.keras.mixed_precision.set_global_policy("float32")
        steps[name] = _steps_of(tf, trunk, clip)
    return steps


def _steps_of(tf, trunk, clip) -> tuple[Callable[[], None], Callable[[], None]]:
    @tf.function
    def forward():
        return tf.reduce_sum(tf.cast(trunk(clip, training=False), tf.float32))

    @tf.function
    def both():
        with tf.GradientTape() as tape:
            total = tf.reduce_sum(tf.cast(trunk(clip, training=True), tf.float32))
        gradients = tape.gradient(total, trunk.trainable_variables)
        return tf.add_n([tf.reduce_sum(gradient) for gradient in gradients])

    return (lambda: forward().numpy()), (lambda: both().numpy())


def measure_trunk(frames: int, size: int, depth: float, turns: int, gradients: bool) -> None:
    """Prints the seconds in both precisions and their ratio, by request with gradients too."""
    steps = trunk_steps(frames, size, depth)
    print(f"I3D to Mixed_4f, depth multiplier {depth:g}, one clip of {frames}x{size}x{size}")
    print("| | float32, s | bfloat16, s | bfloat16 : float32 | each turn |")
    print("|---|---|---|---|---|")
    for number, what in enumerate(("features", "features and gradients")[: 1 + gradients]):
        for pair in steps.values():
            pair[number]()  # builds the graph
        seconds = {name: [] for name in steps}
        for _ in range(turns):
            for name, pair in steps.items():
                start = time.perf_counter()
                pair[number]()
                seconds[name].append(time.perf_counter() - start)
        print(f"| {what} | {_ratios(seconds)} |", flush=True)


def _ratios(seconds: dict[str, list[float]]) -> str:
    full, low = (seconds[name] for name in precision.NAMES)
    ratios = [b / a for a, b in zip(full, low, strict=True)]
    return (
        f"{statistics.median(full):.3f} | {statistics.median(low):.3f} | "
        f"{statistics.median(ratios):.2f} | {', '.join(f'{ratio:.2f}' for ratio in ratios)}"
    )


# --- Detections of random weights ----------------------------------------------------------------


def reduced_pipeline(path: pathlib.Path, override: str = ""):
    """A pipeline.config at a size that takes seconds; its data are not needed."""
    from google.protobuf import text_format
    from object_detection.protos import pipeline_pb2

    pipeline = text_format.Parse(path.read_text("utf-8"), pipeline_pb2.TrainEvalPipelineConfig())
    text_format.Merge(_REDUCED + override, pipeline)
    for reader in (pipeline.train_input_reader, *pipeline.eval_input_reader):
        reader.ClearField("label_map_path")
    options = pipeline.Extensions[_vat_pb2().video_action_transformer]
    options.ClearField("class_weights")
    return pipeline


def _vat_pb2():
    from object_detection_ext.protos import video_action_transformer_pb2

    return video_action_transformer_pb2


def _model(pipeline, name: str):
    from object_detection.builders import model_builder
    from object_detection.protos import pipeline_pb2
    from object_detection.utils import config_util

    from object_detection_ext import options

    changed = pipeline_pb2.TrainEvalPipelineConfig()
    changed.CopyFrom(pipeline)
    options.set_precision(changed, name)
    configs = config_util.create_configs_from_pipeline_proto(changed)
    return model_builder.build(configs["model"], is_training=False)


def moving_clip(model, size: int) -> np.ndarray:
    """A packed clip with detail of every size, as pictures have, that moves.

    Args:
        model: says how many frames a clip has.
        size: H and W in pixels.

    Returns:
        float32 [1, H, W, 3 T], pixels 0 to 255.
    """
    rng = np.random.default_rng(0)
    still = sum(
        cv2.resize(rng.normal(0, 1, [cells, cells, 3]), (size, size))
        for cells in (3, 6, 12, 24, 48)
    )
    still = 127.5 + 127.5 * np.clip(still / (2.5 * still.std()), -1, 1)
    frames = [
        np.roll(still, (number, 2 * number), axis=(0, 1))
        for number in range(model.feature_extractor.num_frames)
    ]
    return np.concatenate(frames, axis=-1)[np.newaxis].astype(np.float32)


def write_random_checkpoint(pipeline, folder: str) -> str:
    """A checkpoint of random weights that keep the features' size from layer to layer."""
    import tensorflow as tf

    model = _model(pipeline, precision.FLOAT32)
    size = pipeline.model.faster_rcnn.image_resizer.fixed_shape_resizer.height
    images, shapes = model.preprocess(tf.constant(moving_clip(model, size)))
    model.predict(images, shapes, proposal_boxes=tf.constant(_BOXES[np.newaxis]))
    rng = np.random.default_rng(0)
    for variable in model.variables:
        variable.assign(_random_value(rng, variable.name, variable.shape))
    return tf.train.Checkpoint(model=model).save(f"{folder}/ckpt")


def _random_value(rng: np.random.Generator, name: str, shape: Sequence[int]) -> np.ndarray:
    if "moving_variance" in name:
        return np.ones(shape)
    if "gamma" in name:
        return np.full(shape, _GAMMA if "batch_norm" in name else 1.0)
    if any(word in name for word in ("moving_mean", "beta", "bias")):
        return np.zeros(shape)
    # Boxes are refined by little.
    gain = 0.03 if "BoxEncoding" in name else 2.0
    return rng.normal(0, np.sqrt(gain / np.prod(shape[:-1])), shape)


def detect(pipeline, checkpoint: str, name: str) -> dict[str, np.ndarray]:
    """What a checkpoint detects in given boxes, computed in this precision.

    Returns:
        `boxes` [R, 4] or [R K, 4], normalized, and `scores` [R, K + 1], before suppression.
    """
    import tensorflow as tf

    model = _model(pipeline, name)
    size = pipeline.model.faster_rcnn.image_resizer.fixed_shape_resizer.height
    images, shapes = model.preprocess(tf.constant(moving_clip(model, size)))
    boxes = tf.constant(_BOXES[np.newaxis])
    status = tf.train.Checkpoint(model=model).restore(checkpoint)
    predictions = model.predict(images, shapes, proposal_boxes=boxes)
    status.assert_existing_objects_matched()
    found = model.postprocess(predictions, shapes)
    used = len(_BOXES)  # the others are padding
    scores = found["raw_detection_scores"][0].numpy()
    raw_boxes = found["raw_detection_boxes"][0].numpy()
    per_box = len(raw_boxes) // len(scores)
    return {"boxes": raw_boxes[: used * per_box], "scores": scores[:used]}


def compare(pipeline) -> Differences:
    """Detections of one random checkpoint in both precisions."""
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = write_random_checkpoint(pipeline, folder)
        full, low = (detect(pipeline, checkpoint, name) for name in precision.NAMES)
    overlaps = np.diag(np_box_ops.iou(full["boxes"], low["boxes"]))
    return Differences(overlaps, np.abs(full["scores"] - low["scores"]).ravel())


def measure_detections(paths: Sequence[pathlib.Path]) -> None:
    """Prints a row for each config."""
    from object_detection_ext import registration

    registration.register()
    print(f"{_FRAMES} frames of {_SIZE}x{_SIZE}, a quarter of the channels, random weights")
    print(_HEADING)
    for path in paths:
        print(compare(reduced_pipeline(path)).row(path.stem), flush=True)


# --- Detections of a trained checkpoint ----------------------------------------------------------


def measure_trained(config: str, checkpoint: str, videos: Sequence[str], every: float) -> None:
    """Prints how a checkpoint's detections in videos differ between the precisions."""
    from object_detection_ext.inference.detector import ActionDetector

    found = {}
    for name in precision.NAMES:
        detector = ActionDetector.from_checkpoint(
            config, checkpoint, precision=name, score_threshold=0.01
        )
        found[name] = []
        shown = progress.Progress(f"in {name}", len(videos), "videos", _say)
        for number, video in enumerate(videos, start=1):
            found[name] += detector(video, every)
            shown.update(number)
    print(_HEADING)
    for threshold in (0.3, 0.05):
        title = f"people with a score of at least {threshold:g}"
        print(between(*found.values(), threshold).row(title))


def between(full: Sequence, low: Sequence, threshold: float) -> Differences:
    """How the people of keyframes in float32 differ from those in bfloat16.

    Args:
        full: keyframes (`results.Keyframe`) in float32.
        low: the same in bfloat16.
        threshold: only people with such a score in float32 count.
    """
    overlaps, scores, lost = [], [], 0
    for ours, theirs in zip(full, low, strict=True):
        for person in (person for person in ours.people if person.score >= threshold):
            row = np.zeros(1)
            if theirs.people:
                row = np_box_ops.iou(person.box[np.newaxis], theirs.boxes)[0]
            if row.max() < _COUNTERPART_IOU:
                lost += 1
                continue
            other = theirs.people[int(row.argmax())]
            overlaps.append(row.max())
            scores += [
                abs(score - other.scores.get(action, 0.0))
                for action, score in person.scores.items()
                if score >= threshold
            ]
    return Differences(np.array(overlaps), np.array(scores), lost)


# --- The toy data's mAP --------------------------------------------------------------------------


def toy_stages(output: pathlib.Path, seed: int, num_steps: int) -> Iterator[tuple[str, demo.Stage]]:
    """(precision or nothing, command): the data once, then a training in each precision."""
    videos, records, _, training, *_ = demo.stages(output, seed, num_steps)
    yield "", videos
    yield "", records
    for name in precision.NAMES:
        options = dict(training.options) | {
            "model_dir": output / name,
            # The same first weights, and the same order of the clips.
            "seed": seed,
            "config_override": f"{_EXTENSION} {{ compute {{ precision: {name.upper()} }} }}",
        }
        yield (
            name,
            dataclasses.replace(
                training, name=f"training in {name}", options=tuple(options.items())
            ),
        )


def measure_toy(output: pathlib.Path, seeds: Sequence[int], num_steps: int) -> None:
    """Trains what is not there yet; prints the mAP of each seed in both precisions."""
    output.mkdir(parents=True, exist_ok=True)
    kept = output / f"results_{num_steps}_steps.json"
    results = json.loads(kept.read_text("utf-8")) if kept.exists() else {}
    shown = progress.Progress("toy data", len(seeds) * len(precision.NAMES), "trainings", _say)
    for done, seed in enumerate(seeds):
        missing = [name for name in precision.NAMES if f"{seed} {name}" not in results]
        for name, metrics in _trained(output, seed, num_steps, missing):
            results[f"{seed} {name}"] = metrics
            files.write_text(kept, json.dumps(results, indent=2) + "\n")
        shown.update(len(precision.NAMES) * (done + 1))
    print(toy_table(results, seeds, num_steps))


def _trained(
    output: pathlib.Path, seed: int, num_steps: int, names: Sequence[str]
) -> Iterator[tuple[str, dict[str, float | None]]]:
    """(precision, metrics) of each of these, when it is trained."""
    if not names:
        return
    folder = output / f"seed_{seed}_{num_steps}_steps"
    (folder / "logs").mkdir(parents=True, exist_ok=True)
    demo.write_config(folder, num_steps)
    for name, stage in toy_stages(folder, seed, num_steps):
        if name in ("", *names):
            demo.run_stage(stage, folder, f"seed {seed}:")
        if name in names:
            yield name, demo.read_metrics(folder / name / "best" / "best.json")


def toy_table(results: dict[str, dict], seeds: Sequence[int], num_steps: int) -> str:
    """The best mAP of each seed by precision, as a table."""
    lines = [
        f"Toy data, {num_steps} steps, best mAP at IoU 0.5 on the held-out videos",
        "| seed | float32 | bfloat16 | bfloat16 - float32 |",
        "|---|---|---|---|",
    ]
    pairs = []
    for seed in seeds:
        pairs.append([results[f"{seed} {name}"]["mAP@0.5IOU"] for name in precision.NAMES])
        full, low = pairs[-1]
        lines.append(f"| {seed} | {full:.3f} | {low:.3f} | {low - full:+.3f} |")
    full, low = np.mean(pairs, axis=0)
    lines.append(f"| mean | {full:.3f} | {low:.3f} | {low - full:+.3f} |")
    return "\n".join(lines)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parts = parser.add_subparsers(dest="what", required=True)
    trunk = parts.add_parser("trunk", help="the trunk's time")
    trunk.add_argument("--frames", type=int, default=16)
    trunk.add_argument("--size", type=int, default=112, help="of the frames, in pixels")
    trunk.add_argument("--depth", type=float, default=1.0, help="depth multiplier")
    trunk.add_argument("--turns", type=int, default=5)
    trunk.add_argument("--gradients", action="store_true", help="time them too")
    random = parts.add_parser("detections", help="random weights, every model of pipeline_configs")
    random.add_argument("configs", nargs="*", type=pathlib.Path, help="by default all")
    trained = parts.add_parser("trained", help="a checkpoint of yours, on videos")
    trained.add_argument("--pipeline_config", required=True)
    trained.add_argument("--checkpoint", required=True)
    trained.add_argument("--every", type=float, default=1.0, help="seconds between keyframes")
    trained.add_argument("videos", nargs="+")
    toy = parts.add_parser("toy", help="the toy data's mAP")
    toy.add_argument("--output", type=pathlib.Path, required=True, help="folder; kept")
    toy.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    toy.add_argument("--num_steps", type=int, default=1000)
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Measures what the first argument names."""
    given = _parser().parse_args(argv)
    if given.what == "trunk":
        measure_trunk(given.frames, given.size, given.depth, given.turns, given.gradients)
    elif given.what == "detections":
        measure_detections(given.configs or sorted((_ROOT / "pipeline_configs").glob("*.config")))
    elif given.what == "trained":
        measure_trained(given.pipeline_config, given.checkpoint, given.videos, given.every)
    else:
        measure_toy(given.output, given.seeds, given.num_steps)


if __name__ == "__main__":
    main()
