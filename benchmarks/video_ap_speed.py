# SPDX-License-Identifier: Apache-2.0
r"""Time and memory of linking and evaluating action tubes, and how they grow with the videos.

    python benchmarks/video_ap_speed.py --output DIR [--videos 1000] [--keyframes 100] \
        [--flags=--protocol=multisports]

Writes ground truth of 80 classes with 3 people a video, who each do something for a part of it, and
detections: at every keyframe 10 rows of each person, two of them of the right action, and 5 of
nobody. Runs the command line on an eighth, a quarter, a half and all of the videos, each as a
process of its own. Per run: seconds by the clock and of CPU, start and reading included, and the
largest resident size.
"""

import argparse
import pathlib
import resource
import subprocess
import sys
import time

import numpy as np

_LABEL_MAP = pathlib.Path(__file__).resolve().parents[1] / "label_maps" / "ava_80.pbtxt"
_PEOPLE, _ROWS_OF_PERSON, _ROWS_OF_NOBODY, _CLASSES = 3, 10, 5, 80


def _walk(rng: np.random.Generator, keyframes: int) -> np.ndarray:
    """Boxes [keyframes, 4] of somebody who moves, x1, y1, x2, y2, normalized."""
    low = rng.uniform(0.1, 0.5, 2) + np.cumsum(rng.normal(0, 0.004, (keyframes, 2)), axis=0)
    size = rng.uniform(0.15, 0.3, 2)
    return np.clip(np.concatenate([low, low + size], axis=1), 0, 1)


def _write_video(gt_file, found_file, rng, video: str, keyframes: int) -> None:
    truth: list[list[str]] = [[] for _ in range(keyframes)]
    rows: list[list[str]] = [[] for _ in range(keyframes)]
    for person in range(_PEOPLE):
        boxes, action = _walk(rng, keyframes), rng.integers(1, _CLASSES + 1)
        start = rng.integers(0, keyframes // 2)
        stop = rng.integers(start + keyframes // 4, keyframes + 1)
        others = rng.integers(1, _CLASSES + 1, _ROWS_OF_PERSON - 2)
        for keyframe in range(keyframes):
            corners = ",".join(f"{value:.4f}" for value in boxes[keyframe])
            does = start <= keyframe < stop
            if does:
                truth[keyframe].append(f"{corners},{action},{person}")
            near = np.clip(boxes[keyframe] + rng.normal(0, 0.01, (_ROWS_OF_PERSON, 4)), 0, 1)
            for place, box in enumerate(near):
                corners = ",".join(f"{value:.4f}" for value in box)
                of_action = place < 2
                score = rng.uniform(0.4, 1.0) if of_action and does else rng.uniform(0.0, 0.5)
                class_id = action if of_action else others[place - 2]
                rows[keyframe].append(f"{corners},{class_id},{score:.6f}")
    for keyframe in range(keyframes):
        name = f"{video},{keyframe * 0.04:.2f}"
        gt_file.writelines(f"{name},{row}\n" for row in truth[keyframe])
        if not truth[keyframe]:
            gt_file.write(f"{name}\n")
        for _ in range(_ROWS_OF_NOBODY):
            low = rng.uniform(0, 0.6, 2)
            corners = ",".join(f"{value:.4f}" for value in (*low, *(low + 0.3)))
            action = rng.integers(1, _CLASSES + 1)
            rows[keyframe].append(f"{corners},{action},{rng.uniform(0, 0.5):.6f}")
        found_file.writelines(f"{name},{row}\n" for row in rows[keyframe])


def make_files(
    folder: pathlib.Path, videos: int, keyframes: int
) -> tuple[pathlib.Path, pathlib.Path]:
    """Writes ground truth and detections, unless they are there; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = folder / f"truth_{videos}.csv", folder / f"found_{videos}.csv"
    if not all(path.exists() for path in paths):
        rng = np.random.default_rng(0)
        with open(paths[0], "w") as gt_file, open(paths[1], "w") as found_file:
            for video in range(videos):
                _write_video(gt_file, found_file, rng, f"video{video:05d}", keyframes)
    return paths


def run(command: list[str]) -> tuple[float, float, float, str]:
    """Runs a command; returns seconds by the clock and of CPU, MiB, and its last line.

    The MiB are those of the largest process up to now, so that runs must grow.
    """
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    printed = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return seconds, cpu, after.ru_maxrss / 1024, printed.strip().splitlines()[-1]


def main() -> None:
    """The command line: prints a line per run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=pathlib.Path, required=True, help="folder for files")
    parser.add_argument("--videos", type=int, default=1000)
    parser.add_argument("--keyframes", type=int, default=100, help="of each video")
    parser.add_argument("--flags", nargs="*", default=[], help="for the command line")
    arguments = parser.parse_args()
    for part in (8, 4, 2, 1):
        videos = arguments.videos // part
        ground_truth, found = make_files(arguments.output, videos, arguments.keyframes)
        command = [sys.executable, "-m", "object_detection_ext.evaluation.video_ap"]
        command += ["-l", str(_LABEL_MAP), "-g", str(ground_truth), "-d", str(found)]
        seconds, cpu, mebibytes, last = run([*command, *arguments.flags])
        print(
            f"{videos:>6,} videos: {seconds:6.1f} s, {cpu:6.1f} CPU s, {mebibytes:6.0f} MiB; "
            f"{last}",
            flush=True,
        )


if __name__ == "__main__":
    main()
