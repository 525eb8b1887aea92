# SPDX-License-Identifier: Apache-2.0
"""Repeat factors and expected shares, computed by hand."""

import collections
import math

import pytest

from object_detection_ext.data import class_balance, record_labels

_IDS = {"stand": 1, "walk": 2, "wave": 4, "jump": 3}
# 100 keyframes: stand in 96, walk in 16, wave in 4, jump in none; 4 without an action of the map.
_KEYFRAMES = record_labels.KeyframeActions(
    collections.Counter(
        {("stand", "stand"): 80, ("stand", "walk"): 12, ("stand", "walk", "wave"): 4, ("fly",): 4}
    )
)


def test_factors_are_those_of_the_paper():
    factors = class_balance.repeat_factors(_KEYFRAMES, _IDS, threshold=0.36, max_repeats=10)
    # sqrt(0.36 / 0.96) < 1; sqrt(0.36 / 0.16) = 1.5; sqrt(0.36 / 0.04) = 3.
    assert factors.by_action == pytest.approx({"stand": 1.0, "walk": 1.5, "wave": 3.0, "jump": 1.0})
    assert factors.by_id(_IDS).tolist() == pytest.approx([1.0, 1.0, 1.5, 1.0, 3.0])


def test_expected_shares_follow_from_the_rarest_action_of_each_keyframe():
    factors = class_balance.repeat_factors(_KEYFRAMES, _IDS, threshold=0.36, max_repeats=10)
    assert factors.rows == {"stand": 176, "walk": 16, "wave": 4, "jump": 0}
    assert factors.shares == pytest.approx(
        {"stand": 176 / 196, "walk": 16 / 196, "wave": 4 / 196, "jump": 0}
    )
    # 80 keyframes once, 12 of them 1.5 times, 4 of them 3 times, 4 once.
    stand, walk, wave = 2 * 80 + 12 * 1.5 + 4 * 3, 12 * 1.5 + 4 * 3, 4 * 3
    total = stand + walk + wave
    assert factors.expected_shares == pytest.approx(
        {"stand": stand / total, "walk": walk / total, "wave": wave / total, "jump": 0}
    )
    assert factors.mean_repeats == pytest.approx((80 + 18 + 12 + 4) / 100)


def test_no_factor_is_above_the_limit_and_none_below_one():
    factors = class_balance.repeat_factors(_KEYFRAMES, _IDS, threshold=1.0, max_repeats=3.0)
    assert factors.by_action == pytest.approx(
        {"stand": math.sqrt(1 / 0.96), "walk": 2.5, "wave": 3.0, "jump": 1.0}
    )


def test_table_has_all_of_few_actions_and_the_ends_of_many():
    factors = class_balance.repeat_factors(_KEYFRAMES, _IDS, threshold=0.36, max_repeats=10)
    head, columns, *rows = factors.table().splitlines()
    assert "1.14 times as many clips" in head
    assert columns.split() == ["action", "rows", "share", "expected", "factor"]
    assert [row.split()[0] for row in rows] == ["jump", "wave", "walk", "stand"]
    assert rows[1].split() == ["wave", "4", "2.04%", "5.17%", "3.00"]

    ids = {f"action {number:02d}": number for number in range(1, 21)}
    counts = collections.Counter({(name,): number for name, number in ids.items()})
    many = class_balance.repeat_factors(
        record_labels.KeyframeActions(counts), ids, threshold=0.01, max_repeats=2
    )
    lines = many.table().splitlines()[2:]
    assert len(lines) == 16 and lines[10] == "  ... and 5 more"
    assert lines[0].startswith("  action 01") and lines[-1].startswith("  action 20")
