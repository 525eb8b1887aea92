# SPDX-License-Identifier: Apache-2.0
"""The examples of README and docs/inference.md, run as they stand."""

import pathlib
import re

import pytest

from tests.inference import fake_models

_ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with what the examples name."""
    (tmp_path / "exported").mkdir()
    fake_models.save(
        fake_models.Detector(),
        tmp_path / "exported" / "saved_model",
        {"fps": fake_models.FPS, "frame_size": [48, 64]},
    )
    fake_models.write_video(tmp_path / "street.mp4")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _blocks(document: str, first_line: str) -> str:
    """The indented block of a document that begins with this line."""
    text = (_ROOT / document).read_text()
    (block,) = re.findall(rf"(?m)^    {re.escape(first_line)}\n(?:(?:    .*)?\n)*", text)
    return re.sub("(?m)^    ", "", block)


@pytest.mark.parametrize("document", ["README.md", "docs/inference.md"])
def test_three_lines(folder, capsys, document):
    exec(_blocks(document, "import object_detection_ext"), {})
    reported = capsys.readouterr().out
    assert reported.startswith("0.0 [] []\n1.0 [[0.2")
    assert "'stand': 0.31" in reported and "\n2.0 [[0.2" in reported


def test_other_forms(folder):
    from object_detection_ext import ActionDetector

    names = {"detector": ActionDetector("exported/saved_model", score_threshold=0.2)}
    exec(_blocks("docs/inference.md", "from object_detection_ext.inference import results"), names)
    assert len(names["table"]) == 5 and len(names["lines"]) == 3
    assert len((folder / "detections.csv").read_text().splitlines()) == 5
    assert (folder / "annotated.mp4").stat().st_size > 1000
