# SPDX-License-Identifier: Apache-2.0
"""The commands of docs/your_own_data.md: each parses, and those of imports run as they stand."""

import importlib
import pathlib
import re
import shlex
import zipfile

import pytest
from absl import flags

from object_detection_ext.tools import export_annotations, import_annotations
from tests.importers import made_files

_PAGE = (pathlib.Path(__file__).parents[2] / "docs" / "your_own_data.md").read_text("utf-8")
_MODULE = "object_detection_ext."
# Their flags are the stock API's, which are defined when it is imported.
_STOCK_FLAGS = {"object_detection_ext.model_main_tf2", "object_detection_ext.exporter_main_v2"}


def _blocks() -> list[list[str]]:
    """The lines of each indented block, without the indentation."""
    blocks, inside = [], False
    for line in _PAGE.splitlines():
        if line.startswith("    "):
            blocks += [] if inside else [[]]
            blocks[-1].append(line[4:])
        inside = line.startswith("    ")
    return blocks


def _commands() -> list[list[str]]:
    """The words of each command that calls a module of the package."""
    text = "\n".join("\n".join(block) for block in _blocks())
    text = text.replace("\\\n", " ")
    found = re.findall(r"^python -m (object_detection_ext\.[\w.]+(?:'[^']*'|[^'\n])*)$", text, re.M)
    inline = re.findall(r"`python -m (object_detection_ext\.[^`]+)`", _PAGE)
    return [shlex.split(command) for command in (*found, *inline)]


def _flags(module: str) -> flags.FlagValues:
    values = flags.FlagValues()
    importlib.import_module(module).define_flags(values)
    return values


def test_the_page_has_commands():
    modules = {command[0] for command in _commands()}
    assert len(_commands()) >= 15
    assert {f"{_MODULE}tools.{name}" for name in (
        "import_annotations", "export_annotations", "doctor", "create_ava_records", "detect_video",
        "report", "make_toy_dataset")} <= modules  # fmt: skip


@pytest.mark.parametrize("command", _commands(), ids=" ".join)
def test_every_command_parses(command):
    module, *arguments = command
    if module in _STOCK_FLAGS:
        assert importlib.util.find_spec(module) is not None
        assert all(argument.startswith("--") for argument in arguments)
        return
    _flags(module)([module, *arguments])


@pytest.mark.parametrize("flag", sorted(set(re.findall(r"`(--[a-z_]+)", _PAGE.split("## 2.")[0]))))
def test_every_flag_of_the_first_chapter_is_one(flag):
    names = set(_flags(f"{_MODULE}tools.import_annotations"))
    names |= set(_flags(f"{_MODULE}tools.detect_video")) | {"system"}
    assert flag.lstrip("-") in names


def _block_after(command: list[str]) -> list[str]:
    """The block that shows what a command prints."""
    wanted = " ".join(command)
    for block, following in zip(_blocks(), _blocks()[1:], strict=False):
        text = " ".join("\n".join(block).replace("\\\n", " ").split())
        if text == f"python -m {wanted}":
            return following
    raise AssertionError(f"no block {wanted}")


def _form(lines) -> list[str]:
    """Lines without numbers and classes; lines of classes alone are left out."""
    lines = [line for line in lines if not line.startswith("  ")]
    return [
        re.sub(
            r"(keyframe|video|N box|N action)(es|s)?", r"\1", re.sub(r"\d[\d,]*", "N", line)
        ).replace("N person", "N people")
        for line in lines
    ]


def _run(tool, command: list[str], capsys) -> list[str]:
    values = _flags(command[0])
    tool.main(values(command), values)
    return capsys.readouterr().out.splitlines()


def _command(tool: str, *words: str) -> list[str]:
    (found,) = [c for c in _commands() if c[0].endswith(tool) and set(words) <= set(c)]
    return found


def _project(folder: pathlib.Path) -> None:
    """Small files under the names of the page."""
    for name, video in (("vtest.zip", "vtest.avi"), ("court.zip", "test_video_structuralize.mp4")):
        made_files.cvat(folder / "annotations.xml", replace=[("street.mp4", video)])
        with zipfile.ZipFile(folder / name, "w") as archive:
            archive.write(folder / "annotations.xml", "annotations.xml")
        (folder / "annotations.xml").unlink()
    for name in ("vtest.mp4", "test_video_structuralize.mp4", "demo.mp4"):
        made_files.video(folder / "videos" / name)
    project = made_files.via_project([(1.0, [2, 16, 12, 32, 24], {"2": "0,2", "3": "Ann"})],
                                     file_name="demo.mp4")  # fmt: skip
    project["file"]["2"] = project["file"]["1"] | {"fid": "2", "fname": "vtest.mp4"}
    project["view"]["2"] = {"fid_list": ["2"]}
    project["metadata"]["2_x"] = project["metadata"]["1_00000000"] | {"vid": "2"}
    made_files.as_json(folder / "people.json", project)


def test_the_commands_from_cvat_and_via_run_and_print_what_the_page_says(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    _project(tmp_path)
    for words in (("cvat",), ("via",)):
        command = _command("import_annotations", *words)
        said = _run(import_annotations, command, capsys)
        # The made tasks have a text attribute, those of the page none.
        said = [line for line in said if not line.startswith("note: attribute ")]
        assert _form(said) == _form(_block_after(command))
    (tmp_path / "found").mkdir()
    row = "vtest,0001,0.1,0.1,0.3,0.9,1,0.9\n"
    (tmp_path / "found" / "detections.csv").write_text(row)
    command = _command("export_annotations")
    said = _run(export_annotations, command, capsys)
    assert [line.replace("score at least 0.3", "") for line in _form(said)] == [
        line.replace("score at least 0.3", "") for line in _form(_block_after(command))
    ]


def test_the_error_of_the_page(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    _project(tmp_path)
    (shown,) = [block[0] for block in _blocks() if block[0].startswith("error: court.zip")]
    text = made_files.CVAT_TRACKS.replace('label="person"', 'label="persn"')
    made_files.cvat(tmp_path / "annotations.xml", text)
    with zipfile.ZipFile(tmp_path / "court.zip", "w") as archive:
        archive.write(tmp_path / "annotations.xml", "annotations.xml")
    command = _command("import_annotations", "cvat")
    with pytest.raises(SystemExit) as ended:
        _run(import_annotations, command, capsys)
    assert ended.value.code == 2
    (reported,) = [t for t in capsys.readouterr().err.splitlines() if t.startswith("error")]
    assert _form([reported]) == _form([shown])


def test_the_label_of_the_page_is_one_of_cvat():
    import json

    (block,) = [block for block in _blocks() if block[0].startswith('[{"name": "person"')]
    (label,) = json.loads("\n".join(block))
    assert [attribute["input_type"] for attribute in label["attributes"]] == ["checkbox"] * 2
