# SPDX-License-Identifier: Apache-2.0
"""Which detections the report shows."""

import pytest

from object_detection_ext.evaluation import error_split
from object_detection_ext.report import examples
from tests.evaluation.ava_rows import RUN, SIT, TALK, ava_rows, ground_truth_rows, match

LEFT, RIGHT = (0.0, 0.0, 1.0, 0.4), (0.0, 0.5, 1.0, 0.9)


def test_surest_right_and_wrong_detections_of_different_videos_first():
    truth = [(video, s, LEFT, SIT) for video in "abc" for s in range(4)]
    found = [("a", s, LEFT, SIT, 0.9 - 0.01 * s) for s in range(4)]
    found += [("b", 0, LEFT, SIT, 0.5), ("c", 0, LEFT, SIT, 0.4), ("b", 1, LEFT, SIT, 0.3)]
    found += [("c", 2, RIGHT, SIT, 0.2), ("c", 3, RIGHT, SIT, 0.8)]
    ((name, right, wrong),) = examples.choose(match(ground_truth_rows(truth), ava_rows(found)), 3)
    assert name == "sit"
    assert [(e.video, e.score) for e in right] == [("a", 0.9), ("b", 0.5), ("c", 0.4)]
    # One video alone has wrong ones: the second is shown all the same.
    assert [(e.video, e.seconds, e.score) for e in wrong] == [("c", 3, 0.8), ("c", 2, 0.2)]
    assert {e.kind for e in right} == {error_split.RIGHT}
    assert {e.kind for e in wrong} == {error_split.BACKGROUND}


def test_an_example_knows_the_whole_frame():
    truth = [("a", 1, LEFT, SIT), ("a", 1, LEFT, TALK), ("a", 1, RIGHT, TALK), ("b", 1, LEFT, RUN)]
    found = [("a", 1, (0.0, 0.0, 1.0, 0.3), RUN, 0.75), ("b", 1, RIGHT, SIT, 0.5)]
    chosen = examples.choose(match(ground_truth_rows(truth), ava_rows(found)), 3)
    (_, _, (sit,)), (_, _, (run,)) = chosen
    assert (run.video, run.seconds, run.name, run.score) == ("a", 1, "run", 0.75)
    assert run.box == (0.0, 0.0, 1.0, 0.3)
    assert run.kind == error_split.MISCLASSIFIED
    assert run.iou == pytest.approx(0.75)
    assert run.actions == ("sit", "talk")
    assert run.people == ((LEFT, ("sit", "talk")), (RIGHT, ("talk",)))
    assert (sit.kind, sit.iou, sit.actions) == (error_split.BACKGROUND, 0.0, ())


def test_classes_without_detections_are_left_out():
    assert examples.choose(match(ground_truth_rows([("a", 1, LEFT, SIT)]), ava_rows([])), 3) == []
