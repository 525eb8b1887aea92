# SPDX-License-Identifier: Apache-2.0
"""The command lines of import and export: what they print, and how they end."""

import os
import pickle
import subprocess
import sys

import pytest
from absl import flags

from object_detection_ext.tools import export_annotations, import_annotations
from tests import full_disk
from tests.command_lines import ends
from tests.importers import made_files


def _run(tool, *arguments):
    values = flags.FlagValues()
    tool.define_flags(values)
    words = ["tool", *map(str, arguments)]
    tool.main(values(words), values)


@pytest.fixture
def project(tmp_path):
    made_files.video(tmp_path / "videos" / "street.mp4")
    made_files.cvat(tmp_path / "street.xml")
    return tmp_path


def _arguments(project, *more):
    return ("--from=cvat", project / "street.xml", f"--videos={project}/videos",
            f"--output={project}/out", *more)  # fmt: skip


def test_an_import_ends_with_0_and_says_what_it_wrote(project, capsys):
    _run(import_annotations, *_arguments(project, "--every=0.5", "--attributes=waves,pose"))
    said = capsys.readouterr().out
    assert "note: keyframes left out by --every 0.5: 4\n" in said
    assert said.endswith(f"Written: {project}/out/annotations.csv, {project}/out/label_map.pbtxt\n")


def test_wrong_input_ends_with_2(project, capsys):
    (project / "street.xml").write_text("<annotations>")
    with ends(capsys, 2, r"^error: .*street.xml: line 1: not XML"):
        _run(import_annotations, *_arguments(project))
    with ends(capsys, 2, "^error: Give at least one annotation file"):
        _run(import_annotations, "--from=cvat", f"--output={project}/out")
    with pytest.raises(flags.IllegalFlagValueError, match="cvat|via"):
        _run(import_annotations, "--from=vatic", f"--output={project}/out")
    assert not (project / "out").exists()


def test_a_pickle_that_runs_something_ends_with_2_and_runs_nothing(tmp_path, capsys):
    class Runs:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    (tmp_path / "pyannot.pkl").write_bytes(pickle.dumps({"Biking/v": Runs()}))
    with ends(capsys, 2, r"pyannot.pkl: refused: the name posix.mkdir, which is not data"):
        _run(import_annotations, "--from=ucf101_24", tmp_path / "pyannot.pkl",
             f"--output={tmp_path}/out", "--fps=25")  # fmt: skip
    assert not (tmp_path / "ran").exists()


def test_names_that_a_terminal_would_obey_are_escaped(project, capsys):
    made_files.cvat(project / "street.xml", replace=[
        ('label="person"', 'label="per\u202eson&#x85;"'), ("<source>", "<source>\u202e"),
    ])  # fmt: skip
    with ends(capsys, 2, r"label 'per\\u202eson\\x85' is not declared"):
        _run(import_annotations, *_arguments(project))
    made_files.cvat(project / "street.xml", replace=[("street.mp4", "st\u202ereet.mp4")])
    with ends(capsys, 2, r"no video 'st\\u202ereet.mp4'"):
        _run(import_annotations, *_arguments(project))


def test_a_full_disk(project, capsys):
    with full_disk.small_disk(project / "out", 200_000) as disk:
        _run(import_annotations, *_arguments(project))
        before = (disk / "annotations.csv").read_text()
        full_disk.fill(disk)
        with ends(capsys, 1, "^error: .*No space left on device"):
            _run(import_annotations, *_arguments(project, "--overwrite", "--no_action=idle",
                                                 "--empty_keyframes"))  # fmt: skip
        assert (disk / "annotations.csv").read_text() == before


def test_an_export_and_its_import(project, capsys):
    (project / "labels.pbtxt").write_text("item { id: 3 name: 'stand' }")
    (project / "found.csv").write_text("street,0001,0.1,0.1,0.3,0.9,3,0.9\n")
    _run(export_annotations, "--to=cvat", project / "found.csv", f"--videos={project}/videos",
         f"--label_map={project}/labels.pbtxt", f"--output={project}/cvat")  # fmt: skip
    assert "street.xml: 1 keyframes, 1 people, 1 boxes" in capsys.readouterr().out
    _run(import_annotations, "--from=cvat", project / "cvat" / "street.xml", "--fps=25",
         f"--label_map={project}/labels.pbtxt", f"--output={project}/out")  # fmt: skip
    row = (project / "out" / "annotations.csv").read_text()
    assert row == "street,0001,0.100000,0.100000,0.300000,0.900000,3,0\n"
    with ends(capsys, 2, "Give one CSV of detections, not 0"):
        _run(export_annotations, "--to=cvat", f"--videos={project}/videos",
             f"--label_map={project}/labels.pbtxt", f"--output={project}/cvat")  # fmt: skip


def test_importing_does_without_tensorflow():
    code = (
        "import sys\n"
        "from object_detection_ext.tools import import_annotations\n"
        "print('tensorflow' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
