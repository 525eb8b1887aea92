# SPDX-License-Identifier: Apache-2.0
r"""Time and memory of the AVA evaluation, and how they grow with the number of frames.

    python benchmarks/evaluation_speed.py files --output DIR [--frames 57000] \
        [--flags=--localization]
    python benchmarks/evaluation_speed.py loop [--frames 2000]

`files` writes ground truth with 3 people a frame, of 1 to 3 actions each, and 50 detections a frame
near these people, and runs the command line on an eighth, a quarter, a half and all of the frames,
each as a process of its own. Per run: seconds by the clock and of CPU, start and reading included,
and the largest resident size.

`loop` gives the eval loop's evaluator frames with 3 people and 300 detections, and prints
milliseconds and bytes a frame: what the evaluator says it keeps, and what Python allocated for it.
"""

import argparse
import os
import pathlib
import subprocess
import sys
import time
import tracemalloc

import numpy as np

_LABEL_MAP = pathlib.Path(__file__).resolve().parents[1] / "label_maps" / "ava_60.pbtxt"
_PEOPLE, _DETECTIONS = 3, 50
_FRAMES_PER_VIDEO = 897  # of AVA, one a second
_CHUNK = 4096


def _people(rng: np.random.Generator, count: int) -> np.ndarray:
    """Boxes [count, people, 4], x1, y1, x2, y2, normalized."""
    low = rng.uniform(0, 0.6, (count, _PEOPLE, 2))
    return np.concatenate([low, low + rng.uniform(0.2, 0.4, low.shape)], axis=-1)


def _write_frames(gt_file, found_file, rng, start: int, count: int) -> None:
    people = _people(rng, count)
    near = np.arange(_DETECTIONS) % _PEOPLE
    boxes = np.clip(people[:, near] + rng.normal(0, 0.02, (count, _DETECTIONS, 4)), 0, 1)
    scores = rng.random((count, _DETECTIONS))
    actions = rng.integers(1, 81, (count, _DETECTIONS))
    num_actions = rng.integers(1, 4, (count, _PEOPLE))
    for index in range(count):
        number = start + index
        frame = f"video{number // _FRAMES_PER_VIDEO:03d},{902 + number % _FRAMES_PER_VIDEO:04d}"
        for person, box in enumerate(people[index]):
            corners = ",".join(f"{value:.3f}" for value in box)
            for action in actions[index, person::_PEOPLE][: num_actions[index, person]]:
                gt_file.write(f"{frame},{corners},{action},{person}\n")
        rows = zip(boxes[index], actions[index], scores[index], strict=True)
        for box, action, score in rows:
            corners = ",".join(f"{value:.3f}" for value in box)
            found_file.write(f"{frame},{corners},{action},{score:.6f}\n")


def make_files(folder: pathlib.Path, frames: int) -> tuple[pathlib.Path, pathlib.Path]:
    """Writes ground truth and detections, unless they are there; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = folder / f"ground_truth_{frames}.csv", folder / f"detections_{frames}.csv"
    if not all(path.exists() for path in paths):
        rng = np.random.default_rng(0)
        with open(paths[0], "w") as gt_file, open(paths[1], "w") as found_file:
            for start in range(0, frames, _CHUNK):
                _write_frames(gt_file, found_file, rng, start, min(_CHUNK, frames - start))
    return paths


def run(command: list[str]) -> tuple[float, float, float, str]:
    """Runs a command; returns seconds by the clock and of CPU, MiB, and its last line."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    printed = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    if status:
        raise SystemExit(f"{' '.join(command)} ended with status {status}")
    last = printed.strip().splitlines()[-1]
    return seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, last


def files(arguments: argparse.Namespace) -> None:
    """Prints a line per run."""
    for part in (8, 4, 2, 1):
        frames = arguments.frames // part
        ground_truth, detections = make_files(arguments.output, frames)
        command = [sys.executable, "-m", "object_detection_ext.evaluation.ava_ap"]
        command += ["-l", str(_LABEL_MAP), "-g", str(ground_truth), "-d", str(detections)]
        seconds, cpu, mebibytes, last = run([*command, *arguments.flags])
        print(
            f"{frames:>7,} frames: {seconds:6.1f} s, {cpu:6.1f} CPU s, "
            f"{1000 * cpu / frames:5.3f} CPU ms a frame, {mebibytes:6.0f} MiB; {last}",
            flush=True,
        )


def _clips(count: int) -> list[tuple[dict, dict]]:
    """Ground truth and detections of frames, as the eval loop has them."""
    rng, rows, clips = np.random.default_rng(0), 300, []
    for _ in range(count):
        people = _people(rng, 1)[0][:, [1, 0, 3, 2]].astype(np.float32)
        # 100 boxes with 3 actions each.
        boxes = people[np.arange(rows // 3) % _PEOPLE] + rng.normal(0, 0.02, (rows // 3, 4))
        ground_truth = {
            "groundtruth_boxes": np.repeat(people, 2, axis=0),
            "groundtruth_classes": rng.integers(1, 81, 2 * _PEOPLE),
        }
        detections = {
            "detection_boxes": np.repeat(boxes, 3, axis=0).astype(np.float32),
            "detection_classes": rng.integers(1, 81, rows),
            "detection_scores": rng.random(rows).astype(np.float32),
        }
        clips.append((ground_truth, detections))
    return clips


def loop(arguments: argparse.Namespace) -> None:
    """Prints time and memory of the evaluator per frame."""
    from object_detection_ext.evaluation.ava_evaluator import AvaDetectionEvaluator

    categories = [{"id": class_id, "name": f"action {class_id}"} for class_id in range(1, 81)]
    evaluator, clips = AvaDetectionEvaluator(categories), _clips(100)

    def add_all() -> float:
        start = time.process_time()
        for index in range(arguments.frames):
            ground_truth, detections = clips[index % len(clips)]
            evaluator.add_single_ground_truth_image_info(index, ground_truth)
            evaluator.add_single_detected_image_info(index, detections)
        return time.process_time() - start

    seconds = add_all()
    kept, start = evaluator.num_bytes, time.process_time()
    evaluator.evaluate()
    scoring = time.process_time() - start
    evaluator.clear()
    tracemalloc.start()  # slows everything, so that it does not see what is timed
    add_all()
    grown = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    print(
        f"{arguments.frames:,} frames of 300 detections: "
        f"{1000 * seconds / arguments.frames:.2f} CPU ms a frame, evaluate() {scoring:.2f} CPU s; "
        f"{kept / arguments.frames:.0f} bytes a frame kept, "
        f"{grown / arguments.frames:.0f} allocated"
    )


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    kinds = parser.add_subparsers(required=True)
    of_files = kinds.add_parser("files")
    of_files.add_argument("--output", type=pathlib.Path, required=True, help="folder for files")
    of_files.add_argument("--frames", type=int, default=57_000)
    of_files.add_argument("--flags", nargs="*", default=[], help="for the command line")
    of_files.set_defaults(run=files)
    of_loop = kinds.add_parser("loop")
    of_loop.add_argument("--frames", type=int, default=2_000)
    of_loop.set_defaults(run=loop)
    arguments = parser.parse_args()
    arguments.run(arguments)


if __name__ == "__main__":
    main()
