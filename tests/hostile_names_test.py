# SPDX-License-Identifier: Apache-2.0
r"""No tool passes on what a terminal would obey: in ids, class names and names of files.

Each is run with names that erase the screen, set the window's title, forge a line of its own, and
write from right to left.
"""

import os
import subprocess
import sys

import pytest
from absl import flags
from absl import logging as absl_logging

from object_detection_ext import command_line, printable
from object_detection_ext.ava import faults, label_maps
from object_detection_ext.evaluation import ava_ap, breakdowns
from object_detection_ext.report import markup
from object_detection_ext.tools import (
    convert_i3d_checkpoint,
    create_ava_records,
    detect_video,
    doctor,
    inflate_resnet50,
    make_toy_dataset,
    model_summary,
    report,
    serving_client,
    visualize,
)

_NAME = "a\x1b[2J\x1b]0;owned\x07\nerror: forged\r\x9b31m\u202eb\udcff\u2028c"
_SHOWN = r"a\x1b[2J\x1b]0;owned\x07\nerror: forged\r\x9b31m\u202eb\udcff\u2028c"
# What a file system takes and what is UTF-8.
_FILE = _NAME.replace("\udcff", "")
_LABELS = 'item { name: "walk" id: 1 }'


def _is_harmless(text: str) -> bool:
    is_forged = any(line.startswith("error: forged") for line in text.splitlines())
    return printable.in_lines(text) == text and not is_forged


def test_what_a_terminal_would_obey_is_escaped():
    assert printable.in_one_line(_NAME) == _SHOWN
    assert printable.in_lines("a\n\tb\x1b") == "a\n\tb\\x1b"
    for text in ("straße", "行動", "שלום", "e\u0301 👩‍👧", "a b~"):
        assert printable.in_one_line(text) == text


def test_all_that_is_printed_and_logged_is_escaped(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["tool", f"--output=/tmp/{_FILE}/x"])
    with pytest.raises(SystemExit) as ended:
        with command_line.ending():
            print(f"to /tmp/{_FILE}/x", "\x1b[1m", flush=True)
            sys.stderr.writelines([_NAME.replace("\n", "")])
            absl_logging.error("%s", "logged \x1b[2J")
            raise FileNotFoundError(2, "no", f"/tmp/{_FILE}/x")
    assert ended.value.code == 2
    out, err = capsys.readouterr()
    assert _is_harmless(out) and _is_harmless(err)
    assert r"a\x1b[2J" in out and r"\nerror: forged" in out and "error: [Errno 2]" in err


def test_traceback_of_a_bug_is_escaped():
    code = (
        "from object_detection_ext import command_line\n"
        "with command_line.ending():\n"
        "    raise RuntimeError('\\x1b[2J and \\x07')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and r"RuntimeError: \x1b[2J and \x07" in done.stderr
    assert _is_harmless(done.stderr)


# Tools of absl's flags, with options in which {} is a hostile path.
_TOOLS = {
    create_ava_records: ["--annotations={}", "--videos=.", "--label_map={}", "--output={}@1"],
    detect_video: ["--saved_model={}", "--output={}", "{}"],
    doctor: ["--annotations={}", "--label_map={}"],
    model_summary: ["--pipeline_config_path={}"],
    report: ["--groundtruth={}", "--detections={}", "--labelmap={}", "--output={}"],
    serving_client: ["--video={}", "--output={}", "--server=localhost:1"],
    visualize: ["--saved_model={}", "--output={}", "--video={}"],
    convert_i3d_checkpoint: ["--input={}", "--output={}"],
    inflate_resnet50: ["--input={}", "--output={}"],
    make_toy_dataset: ["--output={}/below", "--num_train=1", "--num_eval=0"],
}


@pytest.mark.parametrize("tool", list(_TOOLS), ids=lambda tool: tool.__name__.split(".")[-1])
def test_names_of_files_are_escaped_by_each_tool(tool, tmp_path, capfd, monkeypatch):
    path = str(tmp_path / _FILE)
    if tool is make_toy_dataset:
        (tmp_path / _FILE).write_text("a file where a folder must be")
    arguments = [tool.__name__, *(each.format(path) for each in _TOOLS[tool])]
    monkeypatch.setattr(sys, "argv", arguments)
    values = flags.FlagValues()
    tool.define_flags(values)
    with pytest.raises(SystemExit) as ended:
        tool.main(values(arguments), values)
    assert ended.value.code in (1, 2)
    out, err = capfd.readouterr()
    assert _is_harmless(out) and _is_harmless(err)
    assert err.startswith("error: ") or "\nerror: " in err
    assert r"a\x1b[2J" in err


@pytest.mark.parametrize("tool", [ava_ap, breakdowns])
def test_names_of_files_are_escaped_by_the_evaluation(tool, tmp_path, capsys, monkeypatch):
    path = str(tmp_path / _FILE)
    arguments = ["-l", path, "-g", path, "-d", path]
    monkeypatch.setattr(sys, "argv", ["tool", *arguments])
    assert tool.main(arguments) == 2
    assert _is_harmless(capsys.readouterr().err)


@pytest.fixture
def files(tmp_path):
    """A CSV whose id, and a label map whose name, is hostile; and good ones."""
    row = '"{}",0001,0.1,0.1,0.5,0.5,1'
    (tmp_path / "bad.csv").write_text(row.format(_FILE) + "\n", encoding="utf-8", newline="")
    (tmp_path / "good.csv").write_text(row.format("v") + "\n")
    (tmp_path / "good.pbtxt").write_text(_LABELS)
    written = "a\\033[2J\\nerror: forged\\r\u202e"  # as protos write it
    (tmp_path / "bad.pbtxt").write_text(_LABELS.replace("walk", written), encoding="utf-8")
    (tmp_path / "bad_evaluation.pbtxt").write_text(
        _LABELS.replace("walk", "\x1b[2J"), encoding="utf-8"
    )
    return tmp_path


@pytest.mark.parametrize("tool", [ava_ap, breakdowns])
@pytest.mark.parametrize("which", ["groundtruth", "detections", "labelmap"])
def test_ids_and_classes_are_escaped_by_the_evaluation(tool, which, files, capsys):
    paths = {"labelmap": "good.pbtxt", "groundtruth": "good.csv", "detections": "good.csv"}
    paths[which] = "bad_evaluation.pbtxt" if which == "labelmap" else "bad.csv"
    assert tool.main([f"--{name}={files / path}" for name, path in paths.items()]) == 2
    err = capsys.readouterr().err
    assert _is_harmless(err) and "control characters" in err and r"\x1b[2J" in err


def test_ids_are_escaped_by_the_doctor(files, capsys):
    arguments = [f"--annotations={files / 'bad.csv'}", f"--label_map={files / 'good.pbtxt'}"]
    for more in ([], ["--json"]):
        values = flags.FlagValues()
        doctor.define_flags(values)
        with pytest.raises(SystemExit) as ended:
            doctor.main(values(["doctor", *arguments, *more]), values)
        assert ended.value.code == 1
        out, err = capsys.readouterr()
        assert _is_harmless(out) and _is_harmless(err)
        assert "control_characters" in out


def test_ids_are_escaped_by_the_converter(files, capsys):
    (files / "videos").mkdir()
    arguments = ["c", f"--annotations={files / 'bad.csv'}", f"--label_map={files / 'good.pbtxt'}",
                 f"--videos={files / 'videos'}", f"--output={files / 'r'}@1"]  # fmt: skip
    values = flags.FlagValues()
    create_ava_records.define_flags(values)
    with pytest.raises(SystemExit):
        create_ava_records.main(values(arguments), values)
    err = capsys.readouterr().err
    assert _is_harmless(err) and "control characters" in err


def test_classes_are_refused_by_both_readers(files):
    with pytest.raises(faults.AnnotationError, match="name .* of id 1 has control") as caught:
        label_maps.read_label_map(files / "bad.pbtxt")
    assert printable.in_one_line(caught.value) == str(caught.value)
    with pytest.raises(ValueError, match="name .* has control"):
        label_maps.read_categories(str(files / "bad_evaluation.pbtxt"))


def test_video_with_such_a_name_is_named_and_left_out(tmp_path):
    path = os.fspath(tmp_path / _FILE)
    with pytest.raises(ValueError, match="has control characters; rename") as caught:
        detect_video._check_name(path)
    assert printable.in_one_line(caught.value) == str(caught.value)


def test_in_html_they_are_text():
    page = markup.element("p", f"<script>{_FILE}", title=f'">{_FILE}')
    assert page.startswith('<p title="&quot;&gt;a') and "<script>" not in page
