# SPDX-License-Identifier: Apache-2.0
"""The forms of results."""

import numpy as np
import pytest

from object_detection_ext import errors
from object_detection_ext.ava import tables
from object_detection_ext.inference import results

_NAMES = {1: "stand", 3: "hand wave"}


def _person(box, scores, track=None):
    return results.Person(np.array(box), scores, _NAMES, track)


_KEYFRAMES = [
    results.Keyframe(
        "street",
        1.5,
        (
            _person([0.2, 0.3, 0.8, 0.6], {3: 0.75, 1: 0.5}, 4),
            _person([0.1, 0.7, 0.5, 0.95], {1: 0.25}),
        ),
    ),
    results.Keyframe("street", 2.0, ()),
]


def test_keyframe_in_short():
    first, empty = _KEYFRAMES
    assert first.boxes.tolist() == [[0.2, 0.3, 0.8, 0.6], [0.1, 0.7, 0.5, 0.95]]
    assert first.actions == [{"hand wave": 0.75, "stand": 0.5}, {"stand": 0.25}]
    assert empty.boxes.shape == (0, 4) and empty.actions == []


def test_csv_is_what_the_evaluator_reads(tmp_path):
    assert results.write_ava_csv(tmp_path / "d.csv", _KEYFRAMES) == 3
    assert (tmp_path / "d.csv").read_text().splitlines()[0] == (
        "street,1.5,0.3000,0.2000,0.6000,0.8000,3,0.7500"
    )
    read = tables.read_csv(str(tmp_path / "d.csv"))
    assert read.frames == [("street", 1.5)]
    np.testing.assert_allclose(read.rows.boxes[2], [0.1, 0.7, 0.5, 0.95])
    assert read.rows.classes.tolist() == [3, 1, 1]
    assert read.rows.scores.tolist() == [0.75, 0.5, 0.25]
    assert not (tmp_path / "d.csv.incomplete").exists()


def test_data_frame():
    frame = results.to_dataframe(_KEYFRAMES)
    assert list(frame["action"]) == ["hand wave", "stand", "stand"]
    assert list(frame["person"]) == [0, 0, 1]
    assert frame["track"][0] == 4 and frame["track"].isna().tolist() == [False, False, True]
    assert frame["xmax"].tolist() == [0.6, 0.6, 0.95]
    empty = results.to_dataframe(_KEYFRAMES[1:])
    assert len(empty) == 0 and list(empty) == list(frame)


def test_lines_of_json_come_back():
    for keyframe in _KEYFRAMES:
        line = results.to_json(keyframe)
        assert "\n" not in line
        again = results.from_json(line)
        assert results.to_json(again) == line
        assert again.actions == keyframe.actions
        np.testing.assert_array_equal(again.boxes, keyframe.boxes)


@pytest.mark.parametrize(
    "line",
    ["", "{}", "[]", '{"video": "v", "time": 1, "people": [{}]}', "[" * 100_000, '{"video": NaN}'],
)
def test_other_lines_are_refused(line):
    with pytest.raises(errors.InputError, match="Not a keyframe's line"):
        results.from_json(line)


def test_clearest_keyframe():
    def keyframe(*scores):
        box = [0.0, 0.0, 1.0, 1.0]
        return results.Keyframe("v", 0.0, tuple(_person(box, {1: score}) for score in scores))

    assert results.clearest([keyframe(0.9), keyframe(0.6, 0.7), keyframe()]) == 1
    assert results.clearest([keyframe(), keyframe(), keyframe()]) == 1


def test_map_of_attention_stands_for_all_of_it_and_comes_back():
    attention = np.zeros([2, 2, 4, 3, 5])
    attention[-1, 0, 2, 1, 4] = 1.0  # the last layer's first head, in the middle cell in time
    attention[-1, 1] = 1 / 60
    box = np.array([0.1, 0.2, 0.3, 0.4])
    people = (results.Person(box, {1: 0.9}, {1: "stand"}, attention=attention),) * 2
    short = results.with_attention_map(results.Keyframe("v", 1.0, people))
    assert [person.attention for person in short.people] == [None, None]
    expected = np.full([3, 5], 0.5)  # half of uniform, from the second head
    expected[1, 4] = 30.5
    np.testing.assert_allclose(short.attention_map, expected, atol=1e-3)
    again = results.from_json(results.to_json(short))
    np.testing.assert_array_equal(again.attention_map, short.attention_map)
    assert results.with_attention_map(short) is short
