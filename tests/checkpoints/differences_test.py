# SPDX-License-Identifier: Apache-2.0
"""The differences between the variables of a model and of a checkpoint."""

from object_detection_ext.checkpoints import differences


def test_each_kind_of_difference_is_listed():
    found = differences.between(
        {"a": (1,), "b": (2,), "d": (4,)}, {"b": (3,), "c": (4,), "d": (4,)}
    )
    assert (found.missing, found.reshaped, found.left_over) == (("a",), ("b",), ("c",))
    assert list(found.lines()) == [
        "1 variable of the model is missing in the checkpoint:",
        "  a [1]",
        "1 variable has another shape:",
        "  b: [2] in the model, [3] in the checkpoint",
        "1 variable of the checkpoint is not in the model:",
        "  c [4]",
    ]


def test_equal_variables_do_not_differ():
    same = {"a": (1, 2), "b": ()}
    found = differences.between(same, {"a": [1, 2], "b": []})
    assert not found and not list(found.lines()) and not found.options()


def test_long_lists_are_cut():
    found = differences.between({f"v{number:02}": (1,) for number in range(21)}, {})
    lines = list(found.lines())
    assert lines[0].startswith("21 variables of the model are missing")
    assert lines[-2:] == ["  v19 [1]", "  ... and 1 more"]
