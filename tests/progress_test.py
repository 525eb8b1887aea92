# SPDX-License-Identifier: Apache-2.0
"""Tests of the progress lines."""

import pytest

from object_detection_ext import progress


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-3, "0 s"),
        (0.4, "0 s"),
        (42.4, "42 s"),
        (59.6, "1 min 00 s"),
        (200, "3 min 20 s"),
        (3599.7, "1 h 00 min"),
        (7500, "2 h 05 min"),
        (360_000, "100 h 00 min"),
    ],
)
def test_seconds_as_people_say_them(seconds, text):
    assert progress.format_seconds(seconds) == text


def _clock(monkeypatch, times):
    ticks = iter(times)
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(ticks))


def test_time_left_follows_the_rate(monkeypatch):
    _clock(monkeypatch, [0.0, 1.0, 10.0, 11.0, 20.0])
    said = []
    lines = progress.Progress("records", 100, "keyframes", said.append)
    lines.update(5)  # too early to say
    lines.update(25, "video 1/4")  # 25 in 10 s: 75 take 30 s
    lines.update(26)  # too soon after the last line
    lines.update(100)
    assert said == [
        "records: 25/100 keyframes, 2.5 per s, 30 s left, video 1/4",
        "records: 100/100 keyframes, 5.0 per s, 0 s left",
    ]


def test_slow_work_is_told_by_the_piece(monkeypatch):
    _clock(monkeypatch, [0.0, 50.0])
    said = []
    progress.Progress("detection", 10, "keyframes", said.append).update(2)
    assert said == ["detection: 2/10 keyframes, 25 s each, 3 min 20 s left"]


def test_short_work_can_be_silent(monkeypatch):
    _clock(monkeypatch, [0.0, 1.0])
    said = []
    progress.Progress("reading", 3, "MB", said.append, report_end=False).update(3)
    assert not said


def test_nothing_done_yet_and_the_end_told_once(monkeypatch):
    _clock(monkeypatch, [0.0, 4.0, 8.0, 9.0])
    said = []
    lines = progress.Progress("records", 3, "keyframes", said.append)
    lines.update(0)
    lines.update(3)
    lines.update(3)
    assert said == [
        "records: 0/3 keyframes, starting",
        "records: 3/3 keyframes, 0.4 per s, 0 s left",
    ]
