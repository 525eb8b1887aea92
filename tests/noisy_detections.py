# SPDX-License-Identifier: Apache-2.0
"""Detections of an imagined system, made from ground truth: some right, some wrong in each way."""

import csv
import pathlib

import numpy as np


def write_noisy_detections(ground_truth: pathlib.Path, path: pathlib.Path, seed: int = 0) -> None:
    """Writes a CSV in AVA's form, with scores.

    Of the ground truth's rows most are found, a little off; some have another action, some stand
    beside the person, some are found twice, and there are some where nobody is.
    """
    rng = np.random.default_rng(seed)
    with ground_truth.open(newline="") as file:
        rows = [row for row in csv.reader(file) if len(row) > 2]
    ids = sorted({int(row[6]) for row in rows})
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        for row in rows:
            for corners, action, score in _found(rng, [float(v) for v in row[2:6]], ids, row[6]):
                numbers = [f"{value:.4f}" for value in np.clip(corners, 0, 1)]
                writer.writerow([*row[:2], *numbers, action, f"{np.clip(score, 0, 1):.4f}"])


def _found(rng, corners, ids, action):
    """Yields (corners x1, y1, x2, y2, action id, score)."""
    corners = np.array(corners)
    width, height = corners[2:] - corners[:2]
    jitter = rng.normal(0, 0.04, 4) * [width, height, width, height]
    if rng.random() < 0.8:
        yield corners + jitter, action, rng.normal(0.7, 0.2)
    if rng.random() < 0.12:
        yield corners + 0.5 * jitter, action, rng.normal(0.5, 0.2)
    if rng.random() < 0.35:
        yield corners + jitter, rng.choice(ids), rng.normal(0.45, 0.2)
    if rng.random() < 0.15:
        yield corners + 0.5 * np.array([width, 0, width, 0]), action, rng.normal(0.5, 0.2)
    if rng.random() < 0.15:
        box = np.sort(rng.random((2, 2)), axis=0).reshape(-1)
        yield box + [0, 0, 0.02, 0.02], rng.choice(ids), rng.normal(0.3, 0.15)
