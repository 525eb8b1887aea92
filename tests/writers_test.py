# SPDX-License-Identifier: Apache-2.0
"""Results are written beside their place: a full disk or a crash leaves the earlier one whole."""

import ast
import os
import pathlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from object_detection_ext import files
from object_detection_ext.inference import results
from object_detection_ext.serving import warmup
from object_detection_ext.visualization import drawing
from tests import full_disk

_PACKAGE = pathlib.Path(__file__).resolve().parent.parent / "object_detection_ext"

# What may write under a name that it is given, and why.
_EXCEPTIONS = {
    ("conversion/jpeg.py", "save"): "writes to memory",
    ("report/pictures.py", "save"): "writes to memory",
    ("conversion/staging.py", "open"): "the lock has no content; how far a unit is, is never a "
    "result, and what is half-written counts as nothing",
    ("data/record_writer.py", "open"): "is given a temporary name by conversion/staging.py",
    ("visualization/drawing.py", "open"): "PyAV writes to the name of files.replaced_path",
    ("serving/warmup.py", "TFRecordWriter"): "writes to the name of files.replaced_path",
    ("doctor/contact_sheet.py", "save"): "writes to a file of files.replaced_when_complete",
    ("inference/annotated_video.py", "save"): "writes to a file of files.replaced_when_complete",
    ("tools/visualize.py", "save"): "writes to a file of files.replaced_when_complete",
    ("trunks/pretrained.py", "replace"): "moves what it wrote to a folder of its own beside",
    ("tools/convert_i3d_checkpoint.py", "save"): "is trunks/pretrained.py's",
    ("tools/inflate_resnet50.py", "save"): "is trunks/pretrained.py's",
    ("exporting.py", "copy"): "the label map, to a temporary folder",
    ("checkpoints/files.py", "open"): "writes to a temporary folder",
    ("checkpoints/holding.py", "copy"): "second names, which count when their index is there",
    ("checkpoints/holding.py", "copyfile"): "second names, which count when their index is there",
    ("loops/manager.py", "save"): "TensorFlow's, which renames the index when the data is whole",
}
# Calls by these names write, whatever they belong to.
_WRITERS = frozenset(
    "write_text write_bytes save savefig imwrite imsave savez savez_compressed tofile dump "
    "TFRecordWriter VideoWriter to_csv to_json_file to_excel save_weights".split()
)
_MOVERS = frozenset(["replace", "rename", "copy", "copyfile", "copy2", "copytree", "move"])
_MODULES_THAT_MOVE = frozenset(["os", "shutil", "gfile"])
_READING = frozenset(["r", "rb", "rt"])


def _writing_calls(tree: ast.AST):
    """The names of calls that may write a file."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        function = node.func
        name = getattr(function, "id", None) or getattr(function, "attr", "")
        owner = getattr(getattr(function, "value", None), "id", None)
        owner = owner or getattr(getattr(function, "value", None), "attr", None)
        if name in ("open", "GFile", "fdopen") and _may_write(node, name, owner):
            yield name, node.lineno
        if name in _WRITERS and owner != "files" and owner != "file_systems":
            yield name, node.lineno
        if name in _MOVERS and owner in _MODULES_THAT_MOVE:
            yield name, node.lineno


def _may_write(call: ast.Call, name: str, owner: str | None) -> bool:
    """Whether a call of `open` has a mode that is not known to read; without a mode all read."""
    given = {keyword.arg: keyword.value for keyword in call.keywords}
    # `open(path, mode)`, `system.open(path, mode)`, but `path.open(mode)`.
    modes = [value for value in (given.get("mode"), *call.args[:2]) if value is not None]
    for value in modes:
        if isinstance(value, ast.Constant) and isinstance(value.value, str):
            if set(value.value) <= set("rwaxbt+") and value.value not in _READING:
                return True
        elif isinstance(value, ast.Name | ast.Attribute) and value is not call.args[0]:
            return True
    return False


def test_nothing_writes_under_a_final_name():
    found = {}
    for path in sorted(_PACKAGE.rglob("*.py")):
        name = path.relative_to(_PACKAGE).as_posix()
        if name == "files.py" or name.startswith("protos/"):
            continue
        for call, line in _writing_calls(ast.parse(path.read_text())):
            found.setdefault((name, call), []).append(line)
    new = {place: lines for place, lines in found.items() if place not in _EXCEPTIONS}
    assert not new, f"write with files.replaced_when_complete, or say why not: {new}"
    assert not set(_EXCEPTIONS) - set(found), "exceptions that nothing needs"


@pytest.mark.parametrize(
    "code",
    [
        "open(path, 'w')",
        "open(path, mode='ab')",
        "open('report.html', 'x')",
        "system.open(path, 'wb')",
        "path.open('w')",
        "open(path, mode)",
        "tf.io.gfile.GFile(path, 'w')",
        "path.write_text(text)",
        "json.dump(what, file)",
        "image.save(path)",
        "os.replace(a, b)",
        "tf.io.gfile.copy(a, b)",
    ],
)
def test_each_way_to_write_is_seen(code):
    assert list(_writing_calls(ast.parse(code)))


@pytest.mark.parametrize(
    "code", ["open(path)", "open(path, 'rb')", "path.open()", "text.replace()"]
)
def test_reading_is_no_writing(code):
    assert not list(_writing_calls(ast.parse(code)))


def _keyframes(count: int):
    person = results.Person(np.array([0.1, 0.2, 0.3, 0.4]), {1: 0.5}, {1: "walk"})
    return [results.Keyframe("v" * 50, float(second), (person,)) for second in range(count)]


def _noise(count: int):
    random = np.random.default_rng(0)
    for _ in range(count):
        yield random.integers(0, 256, [160, 160, 3], np.uint8)


def _write_png(path: str) -> None:
    with files.replaced_when_complete(path, "wb") as file:
        Image.fromarray(next(_noise(1))).save(file, "PNG")


# Each writes some 100 kB or more.
_WRITE = {
    "text": lambda path: files.write_text(path, "x" * 200_000),
    "table": lambda path: results.write_ava_csv(path, _keyframes(2000)),
    "picture": _write_png,
    "video": lambda path: drawing.write_video(path, _noise(40), 25.0),
}


@pytest.mark.parametrize("what", list(_WRITE))
@pytest.mark.parametrize("room", [0, 20_000, 60_000])
def test_full_disk_leaves_the_old_result(tmp_path, what, room):
    with full_disk.small_disk(tmp_path / "disk", 1_000_000) as disk:
        (disk / "result").write_text("old")
        full_disk.fill(disk, left=room)
        with pytest.raises(OSError) as caught:
            _WRITE[what](str(disk / "result"))
        assert files.is_of_the_disk(caught.value)
        assert (disk / "result").read_text() == "old"
        assert sorted(os.listdir(disk)) == ["filling", "result"]


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_file_is_replaced_when_it_is_complete(tmp_path, scheme):
    path = f"{scheme}{tmp_path}/a.txt"
    for text in ("old", "zwölf"):
        with files.replaced_when_complete(path) as file:
            file.write(text)
            assert (tmp_path / "a.txt").exists() == (text != "old")
        assert (tmp_path / "a.txt").read_text() == text
    with pytest.raises(RuntimeError):
        with files.replaced_when_complete(path) as file:
            file.write("half")
            raise RuntimeError
    assert (tmp_path / "a.txt").read_text() == "zwölf"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_error_of_writing_is_seen_at_the_end(tmp_path, monkeypatch):
    """Some file systems tell only then that they are full."""

    def full(_):
        raise OSError(28, os.strerror(28))

    (tmp_path / "a.txt").write_text("old")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        files.write_text(tmp_path / "a.txt", "new")
    assert (tmp_path / "a.txt").read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_warmup_requests_are_written_beside(tmp_path, monkeypatch):
    made = []
    writer = tf.io.TFRecordWriter
    monkeypatch.setattr(tf.io, "TFRecordWriter", lambda path: made.append(path) or writer(path))
    of_clip = {"num_frames": 2, "record_stride": 1, "frame_size": (8, 8)}
    assert warmup.write(str(tmp_path), "clip_tensor", **of_clip)
    assert made == [str(tmp_path / warmup.FILE) + files.INCOMPLETE]
    assert (tmp_path / warmup.FILE).stat().st_size and not os.path.exists(made[0])
