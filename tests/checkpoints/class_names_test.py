# SPDX-License-Identifier: Apache-2.0
"""Whose names the classes of a checkpoint have, and which are classes of the model."""

import pathlib

import pytest

from object_detection_ext import errors, registration
from object_detection_ext.checkpoints import class_names
from tests import tiny_pipeline

registration.register()


def _names(*names: str) -> class_names.ClassNames:
    return class_names.ClassNames(len(names), "a file", dict(enumerate(names, start=1)))


def test_classes_are_matched_by_name():
    matched = class_names.match(_names("walk", "jump", "stand"), _names("stand", "walk", "sit"))
    assert matched.pairs == ((1, 2), (3, 1))
    assert (matched.new, matched.dropped) == (("jump",), ("sit",))


def test_case_and_spaces_count():
    matched = class_names.match(_names("Stand", "run "), _names("stand", "run"))
    assert matched.pairs == () and matched.dropped == ("stand", "run")


def test_classes_without_a_name_are_matched_in_the_same_label_map_only():
    """AVA's label map of 60 classes has ids up to 80."""
    old = class_names.ClassNames(4, "old", {1: "a", 3: "b"})
    same = class_names.ClassNames(4, "new", {1: "a", 3: "b"})
    assert class_names.match(same, old).pairs == ((1, 1), (2, 2), (3, 3), (4, 4))
    other = class_names.ClassNames(4, "new", {1: "a", 3: "b", 4: "c"})
    assert class_names.match(other, old).pairs == ((1, 1), (3, 3))
    larger = class_names.ClassNames(5, "new", {1: "a", 3: "b"})
    assert class_names.match(larger, old).pairs == ((1, 1), (3, 3))


def _write(path: pathlib.Path, first: str) -> pathlib.Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return tiny_pipeline.write_label_map(path, {1: first, 2: "b"})


def _first_name(prefix: pathlib.Path) -> str:
    found = class_names.of_checkpoint(str(prefix), 2)
    assert not found.unknown, found.unknown
    return found.by_id[1]


def test_copy_that_the_training_kept_comes_first(tmp_path):
    """The pipeline.config's label map may have changed since."""
    named = _write(tmp_path / "label_map.pbtxt", "trained with")
    model_dir = tmp_path / "model"
    pipeline = tiny_pipeline.make_pipeline(label_map=named)
    class_names.keep(pipeline, str(model_dir))
    tiny_pipeline.write_pipeline(model_dir / "pipeline.config", label_map=named)
    _write(named, "changed")
    assert _first_name(model_dir / "ckpt-3") == "trained with"
    assert _first_name(model_dir / "best" / "ckpt-3") == "trained with"
    class_names.keep(pipeline, str(model_dir))
    assert _first_name(model_dir / "ckpt-3") == "changed"
    assert sorted(path.name for path in model_dir.iterdir()) == [
        "pipeline.config",
        "training_label_map.pbtxt",
    ]


def test_export_has_its_own(tmp_path):
    _write(tmp_path / "export/saved_model/assets/label_map.pbtxt", "exported")
    named = _write(tmp_path / "label_map.pbtxt", "changed")
    tiny_pipeline.write_pipeline(tmp_path / "export/pipeline.config", label_map=named)
    assert _first_name(tmp_path / "export/checkpoint/ckpt-0") == "exported"


def test_pipeline_config_beside_the_checkpoint_names_one(tmp_path, monkeypatch):
    named = _write(tmp_path / "label_map.pbtxt", "named")
    config = tiny_pipeline.write_pipeline(tmp_path / "pipeline.config", label_map=named)
    assert _first_name(tmp_path / "ckpt-0") == "named"
    assert _first_name(tmp_path / "checkpoint/ckpt-0") == "named"
    tiny_pipeline.write_pipeline(config, label_map="label_map.pbtxt")
    assert _first_name(tmp_path / "ckpt-0") == "named"
    monkeypatch.chdir(tmp_path)
    assert _first_name(pathlib.Path("ckpt-0")) == "named"


def test_folder_above_is_another_models(tmp_path):
    _write(tmp_path / "training_label_map.pbtxt", "another's")
    found = class_names.of_checkpoint(str(tmp_path / "model/ckpt-0"), 2)
    assert "training_label_map.pbtxt" in found.unknown and f"{tmp_path / 'model'}" in found.unknown


@pytest.mark.parametrize("text", ["", "model {", "\udcff", None])
def test_pipeline_config_that_names_none(tmp_path, text):
    if text is not None:
        (tmp_path / "pipeline.config").write_bytes(text.encode(errors="surrogateescape"))
    assert class_names.of_checkpoint(str(tmp_path / "ckpt-0"), 2).unknown


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("item {", "is not a label map"),
        ("item { id: 1 name: 'a' } item { id: 3 name: 'b' }", "has the id 3 and the model 2 class"),
        ("item { id: 1 name: 'a' } item { id: 2 name: 'a' }", "has the name 'a' more than once"),
        ("item { id: 1 name: 'a' } item { id: 1 name: 'b' }", "has the id 1 more than once"),
    ],
)
def test_label_map_that_cannot_be_the_models(tmp_path, text, reason):
    (tmp_path / "training_label_map.pbtxt").write_text(text)
    assert reason in class_names.of_checkpoint(str(tmp_path / "ckpt-0"), 2).unknown


def test_background_and_classes_without_a_name(tmp_path):
    path = tmp_path / "map.pbtxt"
    path.write_text("item { id: 0 name: 'background' } item { id: 1 } item { id: 2 name: 'a' }")
    assert class_names.of_training(str(path), 2).by_id == {2: "a"}
    assert "label_map_path is not set" in class_names.of_training("", 2).unknown


def test_training_without_a_label_map_keeps_none(tmp_path):
    class_names.keep(tiny_pipeline.make_pipeline(), str(tmp_path / "model"))
    assert not (tmp_path / "model").exists()


def test_training_that_resumes_must_have_its_classes_still(tmp_path):
    label_map = _write(tmp_path / "map.pbtxt", "a")
    model_dir = str(tmp_path / "model")
    class_names.check_kept(str(label_map), model_dir, 3)  # an earlier version kept none
    class_names.keep(tiny_pipeline.make_pipeline(label_map=label_map), model_dir)
    class_names.check_kept(str(label_map), model_dir, 3)
    tiny_pipeline.write_label_map(label_map, {1: "b", 2: "a", 3: "c"})
    with pytest.raises(errors.InputError) as caught:
        class_names.check_kept(str(label_map), model_dir, 3)
    assert "1 is 'b' and was 'a', 2 is 'a' and was 'b', 3 is 'c' and was ''." in str(caught.value)
    assert "docs/fine_tuning.md" in str(caught.value)
    class_names.check_kept("", model_dir, 3)
