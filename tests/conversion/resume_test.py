# SPDX-License-Identifier: Apache-2.0
"""Whatever stops a conversion, nothing wrong is left, nothing finished is lost, and it is told."""

import fcntl
import os
import pathlib
import resource
import signal
import subprocess
import sys
import time

import pytest
import tensorflow as tf

from object_detection_ext import files
from object_detection_ext.conversion import convert as convert_lib
from object_detection_ext.conversion import options as options_lib
from object_detection_ext.conversion import staging, unit
from object_detection_ext.data import record_writer
from tests import toy_records

ConversionError = options_lib.ConversionError
_ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    return toy_records.make_toy(tmp_path_factory.mktemp("toy"), num_train=6)


def _options(toy, prefix, **changes):
    return toy_records.options(toy, prefix, output=f"{prefix}@6", **changes)


def _files(folder, prefix="a-"):
    return {p.name: p.read_bytes() for p in sorted(folder.glob(f"{prefix}*")) if p.is_file()}


def _shards(folder):
    return {name: data for name, data in _files(folder).items() if "-of-" in name}


@pytest.fixture(scope="module")
def reference(toy, tmp_path_factory):
    """The shards as one undisturbed run with one worker makes them."""
    folder = tmp_path_factory.mktemp("reference")
    toy_records.convert(_options(toy, folder / "a"))
    return _shards(folder)


@pytest.fixture
def converted_units(monkeypatch):
    """The numbers of the units that were converted in this process."""
    numbers = []
    stock = unit.convert

    def convert(job, todo):
        numbers.append(todo.index)
        stock(job, todo)

    monkeypatch.setattr(unit, "convert", convert)
    return numbers


def test_several_workers_write_the_same_bytes(toy, reference, tmp_path):
    assert len(reference) == 6 and all(reference.values())
    convert_lib.convert([_options(toy, tmp_path / "a")], workers=3)
    assert _shards(tmp_path) == reference
    assert not (tmp_path / "a.incomplete").exists()


def test_what_is_finished_is_not_done_again(toy, reference, tmp_path, converted_units, capsys):
    options = _options(toy, tmp_path / "a")
    toy_records.convert(options)
    assert sorted(converted_units) == list(range(6))
    before = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    again = toy_records.convert(options)
    assert len(converted_units) == 6
    assert "finished by an earlier run" in capsys.readouterr().out
    assert {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before
    assert again["totals"]["keyframes_kept"] == 12


def test_records_of_another_conversion_are_replaced_only_when_asked(toy, tmp_path):
    toy_records.convert(_options(toy, tmp_path / "a"))
    before = _files(tmp_path)
    with pytest.raises(ConversionError, match=r"num_frames was 8 and is 4.*--overwrite"):
        toy_records.convert(_options(toy, tmp_path / "a", num_frames=4))
    assert _files(tmp_path) == before
    # A shard that is not whole makes a finished conversion unfinished.
    shard = tmp_path / "a-00003-of-00006"
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(ConversionError, match=r"a-00000-of-00006 and 6 more files are there"):
        toy_records.convert(_options(toy, tmp_path / "a"))
    toy_records.convert(_options(toy, tmp_path / "a", overwrite=True))
    assert _shards(tmp_path) == {n: d for n, d in before.items() if "-of-" in n}


def test_a_changed_video_is_converted_anew(toy, tmp_path):
    options = _options(toy, tmp_path / "a")
    toy_records.convert(options)
    os.utime(toy / "videos" / "train_0002.mp4", ns=(1, 1))
    with pytest.raises(ConversionError, match="the videos or the program changed since"):
        toy_records.convert(options)


@pytest.mark.parametrize("fails_at", [0, 3])
def test_goes_on_after_a_unit_failed(toy, reference, tmp_path, monkeypatch, converted_units,
                                     fails_at):  # fmt: skip
    options = _options(toy, tmp_path / "a")
    stock = unit._Converter._convert_video

    def fail(self, video, write, dealt):
        if len(converted_units) == fails_at + 1:
            write(0, b"half a shard")
            raise OSError(28, "No space left on device")
        return stock(self, video, write, dealt)

    monkeypatch.setattr(unit._Converter, "_convert_video", fail)
    with pytest.raises(ConversionError) as caught:
        toy_records.convert(options)
    assert "While converting train_000" in str(caught.value)
    assert "No space left" in str(caught.value)
    # The others were told, and did not begin.
    finished = [p.name for p in (tmp_path / "a.incomplete").glob("a-*-of-*")]
    assert len(finished) == fails_at and not any("written" in name for name in finished)
    assert not _files(tmp_path)
    monkeypatch.undo()
    toy_records.convert(options)
    assert _shards(tmp_path) == reference


def test_a_full_disk(toy, reference, tmp_path):
    options = _options(toy, tmp_path / "a")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    # The largest shard does not fit; others do.
    largest = max(len(data) for data in reference.values())
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest - 1, limits[1]))
    try:
        with pytest.raises(ConversionError, match=r"While converting train_000\d: .*too large"):
            toy_records.convert(options)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not _files(tmp_path)
    assert not list((tmp_path / "a.incomplete").glob("*written*"))
    toy_records.convert(options)
    assert _shards(tmp_path) == reference


def test_publishing_goes_on_where_it_was_stopped(toy, reference, tmp_path, monkeypatch,
                                                 converted_units):  # fmt: skip
    options = _options(toy, tmp_path / "a")
    stock = files.LocalFiles.rename

    def rename(source, target):
        if target.endswith("a-00002-of-00006") and "incomplete" not in target:
            raise KeyboardInterrupt
        stock(source, target)

    monkeypatch.setattr(files.LocalFiles, "rename", staticmethod(rename))
    with pytest.raises(KeyboardInterrupt):
        toy_records.convert(options)
    assert sorted(_files(tmp_path)) == ["a-00000-of-00006", "a-00001-of-00006"]
    monkeypatch.setattr(files.LocalFiles, "rename", staticmethod(stock))
    toy_records.convert(_options(toy, tmp_path / "a", overwrite=True))
    assert len(converted_units) == 6 and _shards(tmp_path) == reference


def test_two_runs_at_once(toy, tmp_path):
    options = _options(toy, tmp_path / "a")
    place = staging.Staging(options)
    with place.opened():
        with open(tmp_path / "a.incomplete" / "lock") as file, pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with pytest.raises(ConversionError, match="Another conversion is writing"):
            toy_records.convert(options)
    toy_records.convert(options)


# --- Killed processes -----------------------------------------------------------------------------


def _start(toy, folder):
    # Frames much larger than the videos': so much work that a part is done when others are not.
    command = [
        sys.executable, "-m", "object_detection_ext.tools.create_ava_records",
        f"--annotations={toy / 'train.csv'}", f"--videos={toy / 'videos'}",
        f"--label_map={toy / 'label_map.pbtxt'}", f"--output={folder / 'a'}@6",
        "--short_side=720", "--num_frames=32", "--workers=2",
    ]  # fmt: skip
    return subprocess.Popen(command, cwd=_ROOT, text=True, stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT)  # fmt: skip


def _workers(process) -> list[int]:
    """Process ids of the workers."""
    found = []
    for folder in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            command = (folder / "cmdline").read_bytes()
        except OSError:
            continue
        if parent == process.pid and b"conversion.worker" in command:
            found.append(int(folder.name))
    return found


def _wait(condition, seconds=120):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def _is_running(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in pathlib.Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


@pytest.mark.parametrize(
    ("victim", "signal_number", "exit_code", "said"),
    [
        ("worker", signal.SIGKILL, 1, "error: Worker subprocess exited with return code -9"),
        pytest.param("main", signal.SIGKILL, -signal.SIGKILL, None, marks=pytest.mark.slow),
        pytest.param(
            "main",
            signal.SIGINT,
            130,
            "error: Interrupted. Finished parts are kept",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_killed_processes(toy, tmp_path, victim, signal_number, exit_code, said):
    process = _start(toy, tmp_path)
    place = tmp_path / "a.incomplete"
    _wait(lambda: list(place.glob("unit-*.json")) or process.poll() is not None)
    workers = _workers(process)
    assert len(workers) == 2
    os.kill(workers[0] if victim == "worker" else process.pid, signal_number)
    output = process.communicate(timeout=60)[0]
    assert process.returncode == exit_code, output
    if said is not None:
        assert said in output and "the same command goes on" in output
    # Nobody goes on in the background, and only whole shards have their staged names.
    _wait(lambda: not any(map(_is_running, workers)), 20)
    assert not _files(tmp_path)
    done = sorted(p.name for p in place.glob("unit-*.json"))
    assert 1 <= len(done) < 6

    again = _start(toy, tmp_path)
    output = again.communicate(timeout=120)[0]
    assert again.returncode == 0, output
    assert f"{len(done)} of 6 parts finished by an earlier run" in output
    assert len(_shards(tmp_path)) == 6 and not place.exists()
    for path in tmp_path.glob("a-*-of-*"):
        for record in tf.data.TFRecordDataset(str(path)):  # checks every checksum
            tf.train.SequenceExample.FromString(record.numpy())


def test_a_shard_shorter_than_what_was_written_is_not_taken(toy, tmp_path, monkeypatch):
    stock = record_writer.RecordWriter.write

    def write(self, record):  # to a disk that says yes and loses a byte
        stock(self, record[:-1])
        self.num_bytes += 1

    monkeypatch.setattr(record_writer.RecordWriter, "write", write)
    with pytest.raises(ConversionError, match=r"a-0000\d-of-00006.* bytes in place of"):
        toy_records.convert(_options(toy, tmp_path / "a"))
    assert not _files(tmp_path) and not list((tmp_path / "a.incomplete").glob("a-*"))
