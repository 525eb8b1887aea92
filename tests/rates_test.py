# SPDX-License-Identifier: Apache-2.0
"""Which times between keyframes and which frame rates mean something."""

import math

import pytest

from object_detection_ext import errors, rates


@pytest.mark.parametrize("value", [0.0, -1.0, 1e-9, 0.00099, math.inf, math.nan])
def test_what_is_no_spacing(value):
    (fault,) = rates.spacing_faults("--every", value)
    assert fault == f"--every must be at least 0.001 seconds, not {value:g}"
    with pytest.raises(errors.InputError, match=r"--every must be .*\.$"):
        rates.check([fault])


@pytest.mark.parametrize("value", [0.0, -1.0, 1e-9, 1001.0, math.inf, math.nan])
def test_what_is_no_rate(value):
    (fault,) = rates.fps_faults("--fps", value)
    assert fault == f"--fps must be 0.001 to 1000 frames per second, not {value:g}"


def test_what_is_one():
    for seconds in (0.001, 1 / 60, 1.0, 3600.0):
        assert rates.spacing_faults("--every", seconds) == []
    for fps in (0.001, 1 / 60, 29.97, 1000):
        assert rates.fps_faults("--fps", fps) == []
    rates.check([])


def test_zero_where_it_means_something():
    assert rates.spacing_faults("--every", 0.0, rates.ALL_KEYFRAMES) == []
    assert rates.fps_faults("--frames_fps", 0.0, rates.NO_FOLDERS) == []
    (fault,) = rates.spacing_faults("--every", 1e-9, rates.ALL_KEYFRAMES)
    assert fault == "--every must be 0, for all keyframes, or at least 0.001 seconds, not 1e-09"
