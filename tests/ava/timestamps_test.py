# SPDX-License-Identifier: Apache-2.0
"""Timestamps: every form that is read, one rounding, and which moments are the same."""

import pytest

from object_detection_ext.ava import timestamps


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("902", 902.0), ("0902", 902.0), ("902.0", 902.0), ("901.5", 901.5), ("9.02e2", 902.0),
        ("00:15:02.5", 902.5), ("1:00:00", 3600.0), ("00:00:00.04", 0.04),
        ("1.0416666667", 1.041667), ("-1", -1.0),
    ],
)  # fmt: skip
def test_forms(text, seconds):
    assert timestamps.parse(text) == seconds


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("15:02", "hours, minutes and seconds such as 00:15:02.5"),
        ("00:75:02", "must be a number of seconds"),
        ("9_02", "must be a number of seconds"),
        ("soon", "must be a number of seconds"),
        ("", "must be a number of seconds"),
        ("nan", "must be a number of seconds"),
        ("inf", "must be a number of seconds"),
        ("1e12", "less than 1,000,000,000"),
    ],
)
def test_what_cannot_be_read_in_one_way_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        timestamps.parse(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (902.0, "0902"), (0.0, "0000"), (1.5, "1.5"), (12345.25, "12345.25"), (25 / 24, "1.041667"),
        (901.99999999, "0902"),
    ],
)  # fmt: skip
def test_format_timestamp(seconds, text):
    assert timestamps.format_timestamp(seconds) == text
    assert timestamps.parse(text) == timestamps.rounded(seconds)


@pytest.mark.parametrize("frame", [("v", 902), ("a,b", 1.041667), ("-x", 0)])
def test_names_of_frames_go_both_ways(frame):
    assert timestamps.read_frame(timestamps.frame_name(*frame)) == frame


@pytest.mark.parametrize("name", ["902", ",902", "v,soon"])
def test_a_name_of_another_form(name):
    with pytest.raises(ValueError, match="must be|form"):
        timestamps.read_frame(name)


def test_three_decimals_and_six_are_one_moment():
    moments = timestamps.Moments([("v", 1.041667), ("v", 1.083333), ("v", 2)])
    for seconds in (1.042, 1.0417, 1.041667, 1.041):
        assert moments.met_by(("v", seconds)) == ("v", 1.041667)
    assert moments.met_by(("v", 2)) == ("v", 2)
    for frame in (("v", 1.04), ("v", 1.05), ("v", 1), ("w", 2), ("v", 2.001)):
        assert moments.met_by(frame) is None
    assert moments.nearest(("v", 1.05)) == ("v", 1.041667)
    assert moments.nearest(("w", 1)) is None


def test_the_same_microsecond_wins_over_a_near_one():
    moments = timestamps.Moments([("v", 1.0415), ("v", 1.042), ("v", 1.0424)])
    assert moments.met_by(("v", 1.042)) == ("v", 1.042)
    assert moments.met_by(("v", 1.0416)) == ("v", 1.0415)
