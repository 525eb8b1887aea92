# SPDX-License-Identifier: Apache-2.0
"""The command line of the converter."""

import json
import logging
import os
import re

import pytest
from absl import flags

from object_detection_ext.data import clip_features
from object_detection_ext.tools import create_ava_records
from tests import command_lines, toy_records


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    return toy_records.make_toy(tmp_path_factory.mktemp("toy"))


def _run(*arguments):
    values = flags.FlagValues()
    create_ava_records.define_flags(values)
    rest = create_ava_records.parse_flags(["create_ava_records", *arguments], values)
    create_ava_records.main(rest, values)


@pytest.fixture(autouse=True)
def same_process():
    """Nothing of the process may change: the next test, or a notebook, is in it too."""

    def settings():
        return logging.getLogger().level, os.environ.get("CUDA_VISIBLE_DEVICES")

    before = settings()
    yield
    assert settings() == before


def test_command_line(toy, tmp_path, capsys):
    common = [f"--annotations={toy / 'train.csv'}", f"--videos={toy / 'videos'}",
              f"--label_map={toy / 'label_map.pbtxt'}", f"--output={tmp_path / 'a'}@1",
              "--workers=1"]  # fmt: skip
    with command_lines.ends(capsys, 1, "^error: --fps must be"):
        _run(*common, "--fps=-1")
    _run(*common, "--fps=12.5", "--num_frames=4", "--short_side=48", "--strict")
    output = capsys.readouterr().out
    assert re.search(r"records: 4/4 keyframes, [\d.]+ per s, 0 s left", output)
    assert "Converted 4 of 4 keyframes" in output and "tf_record_input_reader" in output
    options = json.loads((tmp_path / "a-manifest.json").read_text())["options"]
    assert (options["fps"], options["num_frames"], options["short_side"]) == (12.5, 4, 48)
    assert options["strict"] is True and options["jpeg_quality"] == 92
    (fields, *_) = toy_records.read(tmp_path / "a", shards=1).values()
    assert len(fields[clip_features.IMAGE_ENCODED]) == 4


def test_splits_and_excluded_timestamps(toy, tmp_path, capsys):
    # The files of AVA as they are published: 8 columns, keyframes to leave out, no header.
    rows = (toy / "train.csv").read_text().splitlines()
    by_video = {name: [row for row in rows if row.startswith(name)] for name in
                ("train_0000", "train_0001")}  # fmt: skip
    for split, name in (("train", "train_0000"), ("val", "train_0001")):
        (tmp_path / f"ava_{split}_v2.2.csv").write_text("\n".join(by_video[name]) + "\n")
        (tmp_path / f"{split}_excluded.csv").write_text(f"{name},0002\n")
    common = [f"--videos={toy / 'videos'}", f"--label_map={toy / 'label_map.pbtxt'}",
              f"--annotations={tmp_path}/ava_{{split}}_v2.2.csv", "--workers=1", "--num_frames=4",
              f"--excluded_timestamps={tmp_path}/{{split}}_excluded.csv", "--strict"]  # fmt: skip
    with command_lines.ends(capsys, 1, "names a split, but --splits is missing"):
        _run(*common, f"--output={tmp_path}/rec@1")
    with command_lines.ends(capsys, 1, r"\{split\} must stand in --output"):
        _run(*common, f"--output={tmp_path}/rec@1", "--splits=train,val")
    _run(*common, f"--output={tmp_path}/{{split}}@1", "--splits=train,val")
    assert set(toy_records.read(tmp_path / "train", shards=1)) == {"train_0000,0001"}
    assert set(toy_records.read(tmp_path / "val", shards=1)) == {"train_0001,0001"}
    assert capsys.readouterr().out.count("Left out: 1 keyframes, excluded timestamp.") == 2


def test_arguments_of_beam(toy, tmp_path, capsys):
    common = [f"--annotations={toy / 'train.csv'}", f"--videos={toy / 'videos'}",
              f"--label_map={toy / 'label_map.pbtxt'}", f"--output={tmp_path / 'a'}@1",
              "--num_frames=4"]  # fmt: skip
    # Without a runner nothing is Beam's: a slip of the pen is reported, with what is near.
    with pytest.raises(SystemExit, match="^error: Unknown.*num_frame'.*Did you mean: num_frames"):
        _run(*common, "--num_frame=8")
    # Also if it is in one of those that must be there.
    with pytest.raises(
        SystemExit, match="^error: Unknown.*'anotations'. Did you mean: annotations"
    ):
        _run("--anotations=a.csv", *common[1:])
    with pytest.raises(SystemExit, match="^error: unexpected arguments: train.csv"):
        _run(*common, "train.csv")
    _run(*common, "--runner=FnApiRunner", "--direct_running_mode=multi_threading",
         "--direct_num_workers=2")  # fmt: skip
    assert len(toy_records.read(tmp_path / "a", shards=1)) == 4
    assert "Converted 4 of 4 keyframes" in capsys.readouterr().out
