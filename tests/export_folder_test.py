# SPDX-License-Identifier: Apache-2.0
"""An export replaces an earlier one as a whole, or leaves it as it was."""

import inspect
import os
import pathlib
import signal
import subprocess
import sys

import pytest
import tensorflow as tf

from object_detection_ext import errors, export_folder, files
from tests import full_disk

_PARTS = ("pipeline.config", "checkpoint/ckpt-0.index", "saved_model/saved_model.pb")


def _write(folder: str, text: str) -> None:
    for part in _PARTS:
        path = pathlib.Path(folder, part)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def _contents(folder: pathlib.Path) -> set[str]:
    return {(folder / part).read_text() for part in _PARTS}


def _all_names(folder: pathlib.Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def _export(place, text: str) -> None:
    with export_folder.replaced(str(place)) as folder:
        assert os.listdir(folder) == []
        _write(folder, text)


@pytest.fixture(params=["own folder", "with other files", "working directory", "no exchange"])
def place(request, tmp_path, monkeypatch):
    """An export that is there, in each kind of folder."""
    folder = tmp_path / "exported"
    _export(folder, "old")
    if request.param == "with other files":
        (folder / "notes.txt").write_text("mine")
    if request.param == "working directory":
        monkeypatch.chdir(folder)
        return pathlib.Path(".")
    if request.param == "no exchange":
        monkeypatch.setattr(files, "exchanged", lambda *_: False)
    return folder


def test_new_export_takes_the_place_of_the_old_one(place, tmp_path):
    inside = _all_names(place)
    _export(place, "new")
    assert _contents(place) == {"new"}
    assert _all_names(place) == inside
    assert os.listdir(tmp_path) == ["exported"]


def test_failed_export_leaves_the_old_one(place, tmp_path):
    inside = _all_names(place)
    with pytest.raises(RuntimeError, match="a bug"):
        with export_folder.replaced(str(place)) as folder:
            _write(folder, "new")
            raise RuntimeError("a bug")
    assert _contents(place) == {"old"}
    assert _all_names(place) == inside
    assert os.listdir(tmp_path) == ["exported"]


def test_first_export_makes_its_folders(tmp_path):
    _export(tmp_path / "a" / "b", "new")
    assert _contents(tmp_path / "a" / "b") == {"new"}
    assert os.listdir(tmp_path / "a") == ["b"]


def test_link_stays_one(tmp_path):
    _export(tmp_path / "v1", "old")
    (tmp_path / "current").symlink_to("v1")
    _export(tmp_path / "current", "new")
    assert (tmp_path / "current").is_symlink()
    assert _contents(tmp_path / "v1") == {"new"}


def test_file_in_the_way_is_told(tmp_path):
    (tmp_path / "exported").write_text("a file")
    with pytest.raises(errors.InputError, match="exported' is a file"):
        _export(tmp_path / "exported", "new")


def test_file_system_of_tensorflow(tmp_path):
    place = f"file://{tmp_path}/exported"
    for text in ("old", "new"):
        with export_folder.replaced(place) as folder:
            _write(folder.removeprefix("file://"), text)
        assert _contents(tmp_path / "exported") == {text}
    assert sorted(os.listdir(tmp_path / "exported")) == [
        "checkpoint", "pipeline.config", "saved_model"
    ]  # fmt: skip


_KILLED = """
import os, signal, sys
from object_detection_ext import export_folder, files
where, place = sys.argv[1:]
def die(*_): os.kill(os.getpid(), signal.SIGKILL)
def dies_after(call):
    def both(*args):
        call(*args)
        die()
    return both
if where == "before the exchange": files.exchanged = die
if where == "after the exchange": files.exchanged = dies_after(files.exchanged)
if where.startswith("no exchange"):
    files.exchanged = lambda *_: False
    replace, count = os.replace, [0]
    def dies(*args):
        replace(*args)
        count[0] += 1
        if count[0] == int(where[-1]): die()
    os.replace = dies
with export_folder.replaced(place) as folder:
    _write(folder, "half")
    if where == "while writing": die()
    _write(folder, "new")
"""


@pytest.mark.parametrize(
    ("where", "left"),
    [
        ("while writing", {"old"}),
        ("before the exchange", {"old"}),
        ("after the exchange", {"new"}),
        ("no exchange 1", set()),
        ("no exchange 2", {"new"}),
    ],
)
def test_killed_export_leaves_one_of_the_two(tmp_path, where, left):
    place = tmp_path / "exported"
    _export(place, "old")
    code = f"import pathlib\n_PARTS = {_PARTS!r}\n{inspect.getsource(_write)}\n{_KILLED}"
    done = subprocess.run([sys.executable, "-c", code, where, str(place)], timeout=120)
    assert done.returncode == -signal.SIGKILL
    if left:
        assert _contents(place) == left
    # Without exchange there is a moment without either; the next call gives the old one back.
    with pytest.raises(RuntimeError):
        with export_folder.replaced(str(place)):
            assert _contents(place) == (left or {"old"})
            raise RuntimeError
    _export(place, "newer")
    assert _contents(place) == {"newer"}
    assert os.listdir(tmp_path) == ["exported"]


def _save(folder: str, num_values: int) -> None:
    """What the stock exporter does at the end, with a model of some numbers."""
    module = tf.Module()
    module.values = tf.Variable(tf.random.uniform([num_values]))
    checkpoint = tf.train.Checkpoint(model=module)
    manager = tf.train.CheckpointManager(checkpoint, f"{folder}/checkpoint", max_to_keep=1)
    manager.save(checkpoint_number=0)
    tf.saved_model.save(module, f"{folder}/saved_model")


def _loads(place, num_values: int) -> bool:
    loaded = tf.saved_model.load(f"{place}/saved_model")
    newest = tf.train.latest_checkpoint(f"{place}/checkpoint")
    (shape,) = [shape for name, shape in tf.train.list_variables(newest) if "values" in name]
    return loaded.values.shape == [num_values] and shape == [num_values]


@pytest.mark.parametrize("room", [0, 5_000, 60_000, 130_000])
def test_full_disk_is_one_line_and_leaves_the_old_model(tmp_path, room):
    with full_disk.small_disk(tmp_path / "disk", 2_000_000) as disk:
        place = disk / "exported"
        with export_folder.replaced(str(place)) as folder:
            _save(folder, 5)
        full_disk.fill(disk, left=room)
        with pytest.raises(errors.OutsideError, match="exported: .* No space left on d") as caught:
            with export_folder.replaced(str(place)) as folder:
                _save(folder, 30_000)  # 120 kB in each of checkpoint and SavedModel
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 300
        assert _loads(place, 5)
        assert sorted(os.listdir(disk)) == ["exported", "filling"]


def test_limit_of_the_process_is_told_too(tmp_path):
    """As a full disk, where none can be mounted."""
    code = f"""
import resource, signal, sys
sys.argv = ["", {str(tmp_path / "exported")!r}]
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
from object_detection_ext import command_line, export_folder
with command_line.ending():
    with export_folder.replaced(sys.argv[1]) as folder:
        with open(folder + "/pipeline.config", "wb") as file:
            file.write(bytes(5000))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert "File too large" in done.stderr
    assert not os.listdir(tmp_path)


def test_folder_of_a_training_is_refused_and_left_as_it_is(tmp_path):
    state = tmp_path / "model" / "checkpoint"
    state.parent.mkdir()
    state.write_text("model_checkpoint_path: 'ckpt-3'")
    with (
        pytest.raises(errors.InputError, match="is the folder of a training"),
        export_folder.replaced(str(state.parent)),
    ):
        pytest.fail("exported")
    assert state.read_text() == "model_checkpoint_path: 'ckpt-3'"
    assert [path.name for path in state.parent.iterdir()] == ["checkpoint"]
