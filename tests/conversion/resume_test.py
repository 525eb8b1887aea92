# SPDX-License-Identifier: Apache-2.0
"""Whatever stops a conversion: it is reported, nothing wrong is left, nothing finished is lost."""

import dataclasses
import errno
import fcntl
import json
import os
import pathlib
import re
import resource
import signal
import subprocess
import sys
import time

import pytest
import tensorflow as tf
from absl import flags

from object_detection_ext import files
from object_detection_ext.conversion import convert as convert_lib
from object_detection_ext.conversion import options as options_lib
from object_detection_ext.conversion import staging, unit
from object_detection_ext.data import record_writer
from object_detection_ext.tools import create_ava_records
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


def test_manifest_alone_is_written_anew_when_only_rows_changed(toy, tmp_path, capsys,
                                                               converted_units):  # fmt: skip
    rows = (toy / "train.csv").read_text()
    path = tmp_path / "train.csv"
    path.write_text(f"gone,1\ngone,2\n{rows}train_0000,99\n")
    options = _options(toy, tmp_path / "a", annotations=path)
    before = toy_records.convert(options)
    assert [skip["row"] for skip in before["skipped_keyframes"]][:2] == [1, 2]
    last = before["skipped_keyframes"][-1]
    records, converted = _shards(tmp_path), len(converted_units)
    # Told otherwise than by rows, nothing is left of it.
    path.write_text(f"{rows}train_0000,99\n")
    capsys.readouterr()
    after = toy_records.convert(options)
    said = capsys.readouterr().out
    assert "finished by an earlier run" in said and "a-manifest.json: written anew" in said
    assert after["skipped_keyframes"] == [{**last, "row": last["row"] - 2}]
    assert "gone" not in after["videos"] and after["totals"]["keyframes"] == 13
    assert after == json.loads((tmp_path / "a-manifest.json").read_text())
    assert (len(converted_units), _shards(tmp_path)) == (converted, records)
    # As if it had been so from the beginning.
    fresh = toy_records.convert(_options(toy, tmp_path / "b", annotations=path))
    for name in ("totals", "rows_by_class", "videos", "skipped_keyframes", "account"):
        assert after[name] == fresh[name]
    # A class more, that nobody does.
    labels = tmp_path / "labels.pbtxt"
    more = "item { id: 99 name: 'dance' }"
    labels.write_text((toy / "label_map.pbtxt").read_text() + more)
    with_class = toy_records.convert(
        _options(toy, tmp_path / "a", annotations=path, label_map=labels)
    )
    assert with_class["rows_by_class"] == {**after["rows_by_class"], "dance": 0}
    assert "written anew" in capsys.readouterr().out
    toy_records.convert(_options(toy, tmp_path / "a", annotations=path, label_map=labels))
    assert "written anew" not in capsys.readouterr().out
    assert not list(tmp_path.glob("*being-written*")) and not list(tmp_path.glob("a.incomplete"))


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
    # The others were reported, and did not begin.
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
        with pytest.raises(
            ConversionError, match=r"While converting train_000\d \(.*\): .*too large"
        ):
            toy_records.convert(options)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not _files(tmp_path)
    assert not list((tmp_path / "a.incomplete").glob("*written*"))
    toy_records.convert(options)
    assert _shards(tmp_path) == reference


class _FullDisk:
    """A file on a disk that takes names, but not a byte."""

    def __init__(self, path):
        self._file = open(path, "wb")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self._file.close()

    def write(self, data):
        if data:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("takes", [".problem", ".progress"])
def test_a_disk_without_a_byte_left(toy, reference, tmp_path, monkeypatch, capsys, takes):
    stock = files.LocalFiles.open

    def open_file(path, mode):
        taken = "w" not in mode or takes in path or path.endswith(".progress")
        return stock(path, mode) if taken else _FullDisk(path)

    monkeypatch.setattr(files.LocalFiles, "open", staticmethod(open_file))
    arguments = [f"--annotations={toy / 'train.csv'}", f"--videos={toy / 'videos'}",
                 f"--label_map={toy / 'label_map.pbtxt'}", f"--output={tmp_path / 'a'}@6",
                 "--num_frames=8", "--fps=12.5", "--workers=1"]  # fmt: skip
    values = flags.FlagValues()
    create_ava_records.define_flags(values)
    with pytest.raises(SystemExit) as caught:
        create_ava_records.main(create_ava_records.parse_flags(["_", *arguments], values), values)
    assert caught.value.code == 1
    message = capsys.readouterr().err
    assert re.search(
        r"(?m)^error: .*While converting train_000\d \(.*mp4\): .*No space left", message
    )
    assert "Finished parts are kept" in message
    assert not _files(tmp_path)
    monkeypatch.undo()
    toy_records.convert(_options(toy, tmp_path / "a"))
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
    # Another conversion does not take what is there for its own.
    with pytest.raises(ConversionError, match="2 more files|1 more files"):
        toy_records.convert(_options(toy, tmp_path / "a", num_frames=4))
    toy_records.convert(options)
    assert len(converted_units) == 6 and _shards(tmp_path) == reference
    assert not (tmp_path / "a.incomplete").exists()


def test_overwriting_removes_shards_of_another_number(toy, tmp_path):
    toy_records.convert(_options(toy, tmp_path / "a"))
    (tmp_path / "a-b-00000-of-00006").write_bytes(b"of another prefix")
    fewer = {"output": f"{tmp_path / 'a'}@2"}
    with pytest.raises(ConversionError, match=r"output was .*@6' and is .*@2'.*--overwrite"):
        toy_records.convert(toy_records.options(toy, tmp_path / "a", **fewer))
    toy_records.convert(toy_records.options(toy, tmp_path / "a", overwrite=True, **fewer))
    assert sorted(_files(tmp_path)) == [
        "a-00000-of-00002", "a-00001-of-00002", "a-b-00000-of-00006", "a-manifest.json",
    ]  # fmt: skip


@pytest.mark.parametrize("shards", [6, 2])
def test_stopped_overwriting_leaves_no_records_under_another_manifest(
    toy, tmp_path, monkeypatch, converted_units, shards
):
    toy_records.convert(_options(toy, tmp_path / "a"))
    old = _shards(tmp_path)
    options = toy_records.options(
        toy, tmp_path / "a", output=f"{tmp_path / 'a'}@{shards}", num_frames=4, overwrite=True
    )
    steps = []
    for name in ("rename", "remove"):
        stock = getattr(files.LocalFiles, name)

        def step(*paths, stock=stock):
            # Whenever the process is killed: new and old never stand together.
            there = _files(tmp_path)
            kinds = {name in old and there[name] == old[name] for name in there if "-of-" in name}
            assert len(kinds) < 2 and ("a-manifest.json" not in there or len(there) == 7)
            if not any("incomplete" in path for path in paths[-1:]):
                steps.append(paths)
                if len(steps) == 9:
                    raise KeyboardInterrupt
            stock(*paths)

        monkeypatch.setattr(files.LocalFiles, name, staticmethod(step))
    with pytest.raises(KeyboardInterrupt):
        toy_records.convert(options)
    monkeypatch.undo()
    converted = len(converted_units)
    toy_records.convert(dataclasses.replace(options, overwrite=False))
    assert len(_shards(tmp_path)) == shards and len(_files(tmp_path)) == shards + 1
    toy_records.convert(
        toy_records.options(toy, tmp_path / "b", output=f"{tmp_path / 'b'}@{shards}", num_frames=4)
    )
    assert list(_shards(tmp_path).values()) == list(_files(tmp_path, "b-0").values())
    assert converted == 6 + shards


def test_two_runs_at_once(toy, tmp_path):
    options = _options(toy, tmp_path / "a")
    place = staging.Staging(options)
    with place.opened():
        with open(tmp_path / "a.incomplete" / "lock") as file, pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with pytest.raises(ConversionError, match="Another conversion is writing"):
            toy_records.convert(options)
    toy_records.convert(options)


@pytest.mark.slow
def test_folders_of_a_network_are_looked_into_rarely(toy, tmp_path, monkeypatch):
    looks = {"": 0, "file://": 0}
    stock_look, stock_convert = staging.Staging.finished_units, unit.convert

    def look(self):
        looks["" if self.is_local else "file://"] += 1
        return stock_look(self)

    def convert(job, todo):
        time.sleep(0.5)
        stock_convert(job, todo)

    monkeypatch.setattr(staging.Staging, "finished_units", look)
    monkeypatch.setattr(unit, "convert", convert)
    for scheme in looks:
        prefix = f"{scheme}{tmp_path}/r"
        toy_records.convert(_options(toy, prefix, num_frames=4))
        for path in tmp_path.glob("r-*"):
            path.unlink()
    # Of 3 seconds and more: at the beginning, for what is left there, and at the end.
    assert looks[""] > 5 and looks["file://"] <= 3


# --- Killed processes -----------------------------------------------------------------------------


# So much work that a part is done when others are not.
_LARGE = {"num_frames": 32, "fps": 25.0, "short_side": 720}


def _start(toy, folder):
    command = [
        sys.executable, "-m", "object_detection_ext.tools.create_ava_records",
        f"--annotations={toy / 'train.csv'}", f"--videos={toy / 'videos'}",
        f"--label_map={toy / 'label_map.pbtxt'}", f"--output={folder / 'a'}@6", "--workers=2",
        *(f"--{name}={value}" for name, value in _LARGE.items()),
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


def _stop_at_work(place: staging.Staging, workers: list[int]) -> list[staging.AtWork]:
    """Stops the workers, at least one of which converts a video; returns who is at what."""
    found = []

    def stopped():
        for number in (signal.SIGCONT, signal.SIGSTOP):
            for worker in workers:
                os.kill(worker, number)
        found[:] = [who for who in place.at_work() if who.process in workers]
        return found

    _wait(stopped)
    return found


@pytest.mark.parametrize(
    ("victim", "signal_number", "exit_code", "said"),
    [
        ("worker", signal.SIGSEGV, 1, "error: Worker subprocess exited with return code -11"),
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
    fallen, *_ = _stop_at_work(staging.Staging(_options(toy, tmp_path / "a")), workers)
    os.kill(fallen.process if victim == "worker" else process.pid, signal_number)
    if victim == "main":
        process.wait(timeout=60)
        time.sleep(1.1)  # so that they see it as soon as they go on
    for worker in workers:
        os.kill(worker, signal.SIGCONT)
    output = process.communicate(timeout=60)[0]
    assert process.returncode == exit_code, output
    if said is not None:
        assert said in output and "the same command goes on" in output
    if victim == "worker":
        assert f"{said} while it converted {fallen.video}. -9 or 137: killed" in output
    # Nobody goes on in the background, and only whole shards have their staged names.
    _wait(lambda: not any(map(_is_running, workers)), 20)
    assert not _files(tmp_path)
    done = sorted(p.name for p in place.glob("unit-*.json"))
    assert 1 <= len(done) < 6

    again = _start(toy, tmp_path)
    output = again.communicate(timeout=120)[0]
    assert again.returncode == 0, output
    assert f"{len(done)} of 6 parts finished by an earlier run" in output
    if victim == "worker":
        assert "an earlier run was stopped while it converted train_000" in output
    assert not place.exists()
    # The same bytes as those of a run that nobody disturbed.
    toy_records.convert(_options(toy, tmp_path / "b", **_LARGE))
    assert list(_shards(tmp_path).values()) == list(_files(tmp_path, "b-0").values())
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
