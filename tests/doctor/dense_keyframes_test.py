# SPDX-License-Identifier: Apache-2.0
"""Dense keyframes are found, and --every is counted as the converter counts it."""

import functools

import pytest

from object_detection_ext.conversion import convert as convert_lib
from object_detection_ext.conversion import options as options_lib
from object_detection_ext.doctor import estimates
from object_detection_ext.errors import InputError
from object_detection_ext.tools import doctor
from tests.doctor.small_data import BOX, the_only, write_csv


def _tracks(data, seconds=2.0, rate=50):
    lines = [
        f"{video},{k / rate:.2f},{BOX},1,0" for video in "ab" for k in range(round(seconds * rate))
    ]
    return write_csv(data.folder / "train.csv", lines)


def test_a_track_on_every_frame_is_a_warning_with_what_to_do(data):
    finding = the_only(data.findings(annotations=_tracks(data)), "dense_keyframes")
    assert (finding.code, finding.severity, finding.count) == ("dense_keyframes", "warning", 200)
    assert "keyframes are 0.02 s apart (median of 200)" in finding.message
    assert "--every 1.0, here and of the converter, keeps 6" in finding.advice


def test_with_every_it_says_what_is_left_out(data):
    found = data.findings(annotations=_tracks(data), val_annotations=None, every=1.0)
    finding = the_only(found, "keyframes_thinned")
    assert finding.message == "--every 1 leaves out 194 of 200 keyframes"
    assert (finding.count, finding.rows) == (194, (2,))
    # One a second already: nothing is left out, and nothing is said.
    found = data.findings(annotations=_tracks(data, rate=1), val_annotations=None, every=1.0)
    assert "keyframes_thinned" not in [finding.code for finding in found]


def test_the_estimate_is_of_what_the_converter_converts(data):
    path = _tracks(data)
    exam, _ = data.look(annotations=path, every=0.5, num_frames=8)
    estimate = estimates.estimate(exam, functools.partial(doctor._make_encoder, exam))["train"]
    options = options_lib.Options(
        annotations=path,
        videos=str(data.videos),
        label_map=data.label_map,
        output=f"{data.folder}/train@1",
        num_frames=8,
        every=0.5,
    )
    (manifest,) = convert_lib.convert([options], workers=1)
    assert estimate.clips == manifest["totals"]["keyframes_kept"] == 10
    assert manifest["totals"]["keyframes_thinned"] == 190


def test_excluded_keyframes_are_left_out_before(data):
    """In the order of the converter, so that both count the same and keep the same."""
    path = _tracks(data, rate=5)
    excluded = write_csv(data.folder / "excluded.csv", ["a,1.00", "a,0.6", "b,0000"])
    found = data.findings(
        annotations=path, val_annotations=None, every=1.0, excluded_timestamps=excluded
    )
    finding = the_only(found, "keyframes_thinned")
    options = options_lib.Options(
        annotations=path,
        videos=str(data.videos),
        label_map=data.label_map,
        output=f"{data.folder}/train@1",
        num_frames=4,
        every=1.0,
        excluded_timestamps=excluded,
    )
    (manifest,) = convert_lib.convert([options], workers=1)
    assert finding.count == manifest["totals"]["keyframes_thinned"] == 11
    assert finding.message == "--every 1 leaves out 11 of 17 keyframes"


@pytest.mark.parametrize("every", [-1.0, 1e-9, float("nan"), float("inf")])
def test_a_number_of_seconds_out_of_range_is_an_error(data, every):
    with pytest.raises(
        InputError, match="--every must be 0, for all keyframes, or at least 0.001 seconds"
    ):
        data.look(every=every)
