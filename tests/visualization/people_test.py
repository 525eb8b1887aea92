# SPDX-License-Identifier: Apache-2.0
"""Rows of a frame become people; who is who between annotations and detections."""

import numpy as np
import pytest

from object_detection_ext.visualization import people

_BOX = [0.1, 0.1, 0.5, 0.5]
_NEARLY = [0.1, 0.11, 0.5, 0.5]
_FAR = [0.5, 0.6, 0.7, 0.9]


def test_iou():
    unit = np.array([0, 0, 1, 1.0])
    assert people.iou(unit, unit) == 1
    assert people.iou(unit, np.array([0, 0.5, 1, 1.5])) == pytest.approx(1 / 3)
    assert people.iou(unit, np.array([2, 2, 3, 3.0])) == 0


def test_grouping_does_not_depend_on_the_order_of_detections():
    boxes = np.array([_BOX, _NEARLY, _FAR, _BOX, [0.5, 1.1, 0.7, 1.3]])
    scores, classes = np.array([0.6, 0.8, 0.5, 0.4, 0.9]), np.array([1, 3, 1, 3, 1])
    for order in (range(5), [4, 3, 2, 1, 0], [2, 0, 4, 1, 3]):
        order = list(order)
        found = people.group_people(
            boxes[order], scores[order], classes[order], action_ids=[1, 3], score_threshold=0.3
        )
        # The box outside the frame is nobody; the lower score of an action that is there is not
        # shown a second time.
        assert [person.scores for person in found] == [{3: 0.8, 1: 0.6}, {1: 0.5}]
        np.testing.assert_allclose(found[0].box, _NEARLY)
        assert [order[person.row] for person in found] == [1, 2]


def test_annotations_of_equal_boxes_are_one_person_and_padding_is_nobody():
    boxes = np.array([_FAR, _BOX, _NEARLY, _BOX, [0.0, 0, 0, 0]])
    found = people.group_annotations(boxes, np.array([1, 2, 2, 7, 1]))
    # From left to right, not in the rows' order.
    assert [person.scores for person in found] == [{2: 1, 7: 1}, {2: 1}, {1: 1}]
    assert people.group_annotations(np.zeros([0, 4]), np.zeros([0])) == []


def _person(box) -> people.Person:
    return people.Person(np.array(box), {1: 0.5})


def test_the_surest_detection_takes_the_annotated_person():
    truth = [_person(_FAR), _person(_BOX)]
    found = [_person(_NEARLY), _person(_BOX), _person(_FAR), _person([0.5, 0.6, 0.7, 0.7])]
    assert people.match(truth, found) == [1, None, 0, None]
    assert people.match([], found[:1]) == [None]
    # An IoU of exactly one half counts.
    half = [_person([0.0, 0.0, 0.5, 1.0])]
    assert people.match([_person([0.0, 0.0, 1.0, 1.0])], half) == [0]
