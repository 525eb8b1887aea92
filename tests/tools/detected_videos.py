# SPDX-License-Identifier: Apache-2.0
"""Videos and a model for tests of detect_video, and what they ask of it."""

import csv
import pathlib

from object_detection_ext.tools import detect_video
from tests.inference import fake_models


def write(folder: pathlib.Path) -> pathlib.Path:
    """Writes a model, and videos/clip.mp4 (60 frames) and videos/other.mp4 (30); returns folder."""
    description = {"fps": fake_models.FPS, "frame_size": [48, 64]}
    fake_models.save(fake_models.Detector(), folder / "model", description)
    (folder / "videos").mkdir()
    fake_models.write_video(folder / "videos" / "clip.mp4")
    fake_models.write_video(folder / "videos" / "other.mp4", 30)
    return folder


def options(files: pathlib.Path, output, *inputs: str, **changes) -> detect_video.Options:
    """Options to detect in inputs, by default in clip.mp4, with the model."""
    inputs = inputs or (str(files / "videos" / "clip.mp4"),)
    return detect_video.Options(inputs, str(output), str(files / "model"), **changes)


def rows(path) -> list[list[str]]:
    """The rows of a CSV."""
    with open(path, newline="") as file:
        return list(csv.reader(file))
