# SPDX-License-Identifier: Apache-2.0
"""The description that travels with an exported model."""

import dataclasses
import json

import pytest

from object_detection_ext import errors, input_types

_DESCRIPTION = input_types.ClipDescription("clip_tensor", 64, 12.5, 2, 300, (400, 711), 400)
_VALUES = json.loads(_DESCRIPTION.to_json())


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"fps": None, "frame_size": None, "short_side": None},
        {"fps": 25},
        {"precision": "bfloat16"},
    ],
)
def test_description_comes_back_from_its_text(changes):
    description = dataclasses.replace(_DESCRIPTION, **changes)
    assert input_types.ClipDescription.from_json(description.to_json()) == description


def test_fields_of_other_versions_are_no_matter():
    values = {**_VALUES, "something_new": {"a": 1}}
    del values["short_side"], values["frame_size"], values["precision"]
    expected = dataclasses.replace(_DESCRIPTION, short_side=None, frame_size=None)
    assert expected.precision == "float32"  # there was no other
    assert input_types.ClipDescription.from_json(json.dumps(values)) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{}", "there is no input_type"),
        ('{"input_type": "clip_tensor"}', "there is no num_frames"),
        ("[]", "it must be an object, not list"),
        ("no json", "Expecting value"),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_what_is_no_description_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        input_types.ClipDescription.from_json(text)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("input_type", 3, "input_type must be one of clip_tensor, .*, not 3"),
        ("input_type", "image_tensor", 'input_type must be one of .*, not "image_tensor"'),
        ("num_frames", "64", 'num_frames must be a whole number, 1 to 10000, not "64"'),
        ("num_frames", True, "num_frames must be a whole number, .*, not true"),
        ("num_frames", None, "num_frames must be a whole number, .*, not null"),
        ("num_frames", 0, "num_frames must be .*, not 0"),
        ("num_frames", -4, "num_frames must be .*, not -4"),
        ("num_frames", 10**9, "num_frames must be .*, not 1000000000"),
        ("num_frames", float("inf"), "Infinity is not a number of JSON"),
        ("fps", "25", 'fps must be a number, more than 0 and at most 1000, or null, not "25"'),
        ("fps", False, "fps must be .*, not false"),
        ("fps", 0, "fps must be .*, not 0"),
        ("fps", -25.0, "fps must be .*, not -25.0"),
        ("fps", 1e300, "fps must be .*, not 1e.300"),
        ("fps", float("nan"), "NaN is not a number of JSON"),
        ("record_stride", 1.5, "record_stride must be a whole number, .*, not 1.5"),
        ("record_stride", 0, "record_stride must be .*, not 0"),
        ("max_boxes", [], r"max_boxes must be a whole number, .*, not \[\]"),
        ("max_boxes", 0, "max_boxes must be .*, not 0"),
        ("frame_size", 400, r"frame_size must be \[h, w\], two whole numbers .*null, not 400"),
        ("frame_size", [400], r"frame_size must be .*, not \[400\]"),
        ("frame_size", [400, 7.5], r"frame_size must be .*, not \[400, 7.5\]"),
        ("frame_size", [-1, -1], r"frame_size must be .*, not \[-1, -1\]"),
        ("frame_size", [0, 400], r"frame_size must be .*, not \[0, 400\]"),
        ("frame_size", list(range(9999)), r"frame_size must be .{,200} \.\.\.$"),
        ("short_side", 0.5, "short_side must be a whole number, .*, or null, not 0.5"),
        ("short_side", 0, "short_side must be .*, not 0"),
        ("precision", "half", 'precision must be one of float32, bfloat16, not "half"'),
        ("precision", ["float32"], "precision must be .*, not ."),
        ("precision", None, "precision must be .*, not null"),
    ],
)
def test_values_of_another_kind_are_told(field, value, message):
    with pytest.raises(ValueError, match=message):
        input_types.ClipDescription.from_json(json.dumps({**_VALUES, field: value}))


# The second form is read as a bucket's file is, by TensorFlow.
@pytest.mark.parametrize("scheme", ["", "file://"])
def test_description_of_a_saved_model(tmp_path, scheme):
    path = f"{scheme}{tmp_path}"
    assert input_types.ClipDescription.of_saved_model(path) is None
    (tmp_path / "assets").mkdir()
    file = tmp_path / "assets" / "clip.json"
    file.write_text(_DESCRIPTION.to_json())
    assert input_types.ClipDescription.of_saved_model(path) == _DESCRIPTION
    file.write_text(json.dumps({**_VALUES, "fps": "?"}))
    with pytest.raises(errors.InputError, match='clip.json: not a clip .*fps .* not "."; export'):
        input_types.ClipDescription.of_saved_model(path)
    file.unlink()
    file.mkdir()
    with pytest.raises(errors.InputError, match="clip.json: cannot be read"):
        input_types.ClipDescription.of_saved_model(path)
