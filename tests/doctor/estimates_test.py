# SPDX-License-Identifier: Apache-2.0
"""The estimate against what a conversion makes of the same data."""

import functools
import pathlib

import numpy as np
import pytest

from object_detection_ext.conversion import convert as convert_lib
from object_detection_ext.conversion import options as options_lib
from object_detection_ext.doctor import estimates, examination
from object_detection_ext.tools import doctor
from object_detection_ext.visualization import drawing
from tests.doctor import small_data
from tests.doctor.small_data import BOX, write_csv


def _estimate(exam):
    return estimates.estimate(exam, functools.partial(doctor._make_encoder, exam))


def test_bytes_and_frames_are_those_of_the_conversion(data):
    exam, _ = data.look(num_frames=8, short_side=96)
    estimate = _estimate(exam)["train"]
    prefix = f"{data.folder}/train"
    options = options_lib.Options(
        annotations=data.train,
        videos=str(data.videos),
        label_map=data.label_map,
        output=f"{prefix}@1",
        num_frames=8,
        short_side=96,
    )
    (report,) = convert_lib.convert([options], workers=1)
    assert estimate.clips == report["totals"]["keyframes_kept"] == 6
    written = pathlib.Path(f"{prefix}-00000-of-00001").stat().st_size
    # Boxes, labels and names stand beside the frames.
    assert 0.85 * written < estimate.total_bytes < written
    decoded = sum(video["decoded_frames"] for video in report["videos"].values())
    assert estimate.decoded_frames == pytest.approx(decoded, rel=0.1)
    assert estimate.total_seconds > 0
    assert estimate.record_bytes == pytest.approx(8 * estimate.frame_bytes)


def test_gaps_between_keyframes_are_jumped_over(data):
    drawing.write_video(data.path("a"), small_data.frames(25 * 60), 25)
    lines = [f"a,{t},{BOX},1,0" for t in (30, 31, 50)]
    exam, _ = data.look(annotations=write_csv(data.folder / "train.csv", lines), num_frames=25)
    # Two clips of a second in a row, one later; a second on the way to each of the two places.
    assert _estimate(exam)["train"].decoded_frames == pytest.approx(25 * 5, abs=3)


def test_keyframes_outside_and_videos_that_are_missing_give_no_clips(data):
    data.path("b").unlink()
    lines = [*small_data.TRAIN, f"a,77,{BOX},1,0", f"a,-1,{BOX},1,0"]
    exam, _ = data.look(annotations=write_csv(data.folder / "train.csv", lines))
    assert _estimate(exam)["train"].clips == 3


def test_nothing_to_measure(data):
    for name in "ab":
        data.path(name).unlink()
    exam, _ = data.look()
    assert _estimate(exam)["train"] == estimates.Estimate(0, 0)
    assert _estimate(exam)["val"].sampled_frames > 0


def test_no_keyframes_read_nothing():
    clip = examination.ClipOptions(8, 25.0, 0)
    exam = examination.Examination(clip)
    assert estimates._seconds_read(np.zeros(0), exam, 10.0) == (0.0, 0.0)
