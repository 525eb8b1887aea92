# SPDX-License-Identifier: Apache-2.0
"""Which values of attributes are actions."""

import pytest

from object_detection_ext.importers import actions, model
from object_detection_ext.importers.actions import CHECKBOX, CHOICE, FREE, Attribute


def _names(*attributes, chosen=()):
    return actions.ActionNames(attributes, chosen, "a.xml")


def test_checkboxes_choices_and_free_text():
    names = _names(
        Attribute("waves", CHECKBOX),
        Attribute("pose", CHOICE, ("__undefined__", "stand", "sit")),
        Attribute("age", FREE),
    )
    assert names.names == ["waves", "stand", "sit"] and names.unused == ["age"]
    assert names.of("waves", "true") == "waves" and names.of("waves", "false") is None
    assert names.of("pose", "sit") == "sit" and names.of("pose", "__undefined__") is None
    assert names.of("age", "7") is None
    with pytest.raises(model.ImportFault, match="'pose' is 'fly', not one of: .*stand, sit"):
        names.of("pose", "fly")


def test_a_choice_of_yes_and_no_is_a_checkbox():
    names = _names(
        Attribute("talks", CHOICE, ("No", "Yes")), Attribute("eats", CHOICE, ("yes", "no"))
    )
    assert names.names == ["talks", "eats"]
    assert names.of("talks", "Yes") == "talks" and names.of("eats", "no") is None


def test_a_value_of_two_attributes_says_of_which():
    names = _names(
        Attribute("left", CHOICE, ("up", "down")), Attribute("right", CHOICE, ("up",)),
        Attribute("down", CHECKBOX),
    )  # fmt: skip
    assert names.names == ["left: up", "left: down", "right: up", "down"]
    assert names.of("right", "up") == "right: up" and names.of("down", "true") == "down"


def test_an_attribute_of_several_labels_has_all_options():
    names = _names(Attribute("pose", CHOICE, ("stand",)), Attribute("pose", CHOICE, ("sit",)))
    assert names.names == ["stand", "sit"]
    # Text with one label and a list with another: not a list.
    assert _names(Attribute("pose", CHOICE, ("stand",)), Attribute("pose", FREE)).names == []


def test_chosen_attributes_alone():
    attributes = Attribute("waves", CHECKBOX), Attribute("age", FREE)
    names = _names(*attributes, chosen=("age",))
    assert names.of("age", "old") == "old" and names.of("waves", "true") is None
