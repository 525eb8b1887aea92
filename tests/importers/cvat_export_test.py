# SPDX-License-Identifier: Apache-2.0
"""Detections as CVAT's XML, read back by the importer."""

import json

import numpy as np
import pytest
from absl import flags
from PIL import Image

from object_detection_ext import errors
from object_detection_ext.importers import cvat, importing, model
from object_detection_ext.tools import export_annotations
from tests.importers import made_files

_LABELS = "item { id: 2 name: 'stand' } item { id: 5 name: 'a \"wave\" & <more>' }"
# Ann walks from left to right and waves at last; Bob is seen at 0 s and at 0.8 s.
_DETECTIONS = """street,0000,0.1000,0.1000,0.3000,0.9000,2,0.9000
street,0000,0.7000,0.1000,0.9000,0.9000,2,0.6000
street,0000,0.7000,0.1000,0.9000,0.9000,5,0.2000
street,0.4,0.1400,0.1000,0.3400,0.9000,2,0.8000
street,0.8,0.1800,0.1000,0.3800,0.9000,5,0.7000
street,0.8,0.1800,0.1000,0.3800,0.9000,2,0.7000
street,0.8,0.7000,0.1000,0.9000,0.9000,2,0.5000
"""


@pytest.fixture
def files(tmp_path):
    made_files.video(tmp_path / "videos" / "street.mp4")
    (tmp_path / "labels.pbtxt").write_text(_LABELS)
    (tmp_path / "detections.csv").write_text(_DETECTIONS)
    return tmp_path


def _export(files, **options):
    return export_annotations.run(
        export_annotations.Options(
            (str(files / "detections.csv"),), str(files / "cvat"), str(files / "videos"),
            str(files / "labels.pbtxt"), overwrite=True, **options,
        )
    )  # fmt: skip


def test_the_importer_reads_the_detections_back(files):
    said = _export(files)
    assert said[0] == "street.xml: 3 keyframes, 2 people, 5 boxes (score at least 0.3)"
    importing.run(importing.Options(
        "cvat", (str(files / "cvat" / "street.xml"),), str(files / "back"),
        videos=str(files / "videos"), label_map=str(files / "labels.pbtxt"), every=0.4,
    ))  # fmt: skip
    expected = [
        line.split(",") for line in _DETECTIONS.splitlines() if float(line.split(",")[-1]) > 0.3
    ]
    found = [line.split(",") for line in (files / "back/annotations.csv").read_text().splitlines()]
    assert sorted(r[:2] + r[6:7] for r in found) == sorted(r[:2] + r[6:7] for r in expected)
    boxes = {tuple(r[:2] + r[6:7]) + (r[2][:3],): np.array(r[2:6], float) for r in found}
    for row in expected:
        near = boxes[(*row[:2], row[6], f"{float(row[2]):.6f}"[:3])]
        # CVAT has hundredths of a pixel.
        np.testing.assert_allclose(near, np.array(row[2:6], float), atol=0.01 / 48)


def test_a_person_who_is_not_seen_pauses(files):
    _export(files)
    source = cvat.read(str(files / "cvat" / "street.xml"), model.ReadOptions())
    ann = {mark.frame: mark for mark in source.videos[0].marks if mark.person == "0"}
    bob = [mark.frame for mark in source.videos[0].marks if mark.person == "1"]
    assert sorted(ann) == list(range(21))  # from 0 s to 0.8 s, evenly in between
    assert ann[7].box[0] == pytest.approx(6.4 + 7 / 10 * 2.56, abs=0.01)
    assert ann[19].actions == ("stand",) and ann[20].actions == ("stand", 'a "wave" & <more>')
    assert bob == [0, 20]  # not at 0.4 s


def test_the_label_of_the_task(files):
    _export(files)
    (label,) = json.loads((files / "cvat" / "cvat_labels.json").read_text())
    assert label["name"] == "person"
    assert [a["name"] for a in label["attributes"]] == ["stand", 'a "wave" & <more>']
    assert {(a["input_type"], a["mutable"]) for a in label["attributes"]} == {("checkbox", True)}


def test_the_threshold(files):
    assert _export(files, score_threshold=0.1)[0].startswith("street.xml: 3 keyframes, 2 people, 5")
    text = (files / "cvat" / "street.xml").read_text()
    assert text.count(">true</attribute>") == 12  # half of them at the ends of tracks
    assert _export(files, score_threshold=0.75)[0].startswith(
        "street.xml: 3 keyframes, 1 person, 2"
    )


@pytest.mark.parametrize(
    ("detections", "message"),
    [
        ("street,0003,0.1,0.1,0.3,0.9,2,0.9\n", "a detection is at 3 s; the last frame at 1.960 s"),
        ("street,0001,0.1,0.1,0.3,0.9,3,0.9\n", "action_id 3 is not in the label map"),
        ("yard,0001,0.1,0.1,0.3,0.9,2,0.9\n", "no video 'yard'"),
        ("street,0001,0.1,0.1,0.3,0.9,2,7\n", "the last column has 7; detections have scores"),
        ("", "there are no detections"),
    ],
)
def test_what_cannot_be_exported(files, detections, message):
    (files / "detections.csv").write_text(detections)
    with pytest.raises(errors.InputError, match=message):
        _export(files)
    assert not (files / "cvat").exists()


def test_boxes_far_outside_are_an_error_or_cut_off(files):
    (files / "detections.csv").write_text("street,0000,-0.25,0.1,0.3,0.9,2,0.9\n")
    with pytest.raises(errors.InputError, match="detections.csv:1: x1 is -0.25; .*in .0, 1"):
        _export(files)
    assert not (files / "cvat").exists()
    _export(files, box_tolerance=None)
    assert 'xtl="0.00"' in (files / "cvat" / "street.xml").read_text()


@pytest.mark.parametrize(("text", "value"), [("none", None), ("0.2", 0.2)])
def test_the_tolerance_of_the_command_line(monkeypatch, capsys, text, value):
    values = flags.FlagValues()
    export_annotations.define_flags(values)
    given = {"to": "cvat", "output": "o", "videos": "v", "label_map": "l", "box_tolerance": text}
    values(["export_annotations", *(f"--{name}={each}" for name, each in given.items())])
    monkeypatch.setattr(export_annotations, "run", lambda options: [str(options.box_tolerance)])
    export_annotations.main(["export_annotations", "d.csv"], values)
    assert capsys.readouterr().out == f"{value}\n"


def test_boxes_without_an_area_are_counted(files):
    (files / "detections.csv").write_text(_DETECTIONS + "street,0.8,0.4,0.1,0.2,0.9,2,0.9\n")
    said = _export(files)
    assert "note: 1 box with x1 >= x2 or y1 >= y2, left out (first: line 8)" in said
    assert "street.xml: 3 keyframes, 2 people, 5 boxes (score at least 0.3)" in said


def test_detections_in_the_time_of_the_film(files):
    """As `detect_video --keyframes --time_offset_seconds` writes them."""
    _export(files)
    expected = (files / "cvat" / "street.xml").read_text()
    lines = [line.split(",") for line in _DETECTIONS.splitlines()]
    moved = [",".join([v, f"{float(time) + 900:.1f}", *rest]) for v, time, *rest in lines]
    (files / "detections.csv").write_text("\n".join(moved))
    with pytest.raises(errors.InputError, match="a detection is at 900 s"):
        _export(files)
    _export(files, time_offset_seconds="900")
    assert (files / "cvat" / "street.xml").read_text() == expected


def test_folders_of_numbered_frames(files):
    folder = files / "frames" / "street"
    folder.mkdir(parents=True)
    for number in range(50):
        Image.new("RGB", (made_files.WIDTH, made_files.HEIGHT)).save(folder / f"{number:05d}.png")
    options = export_annotations.Options(
        (str(files / "detections.csv"),), str(files / "cvat"), str(files / "frames"),
        str(files / "labels.pbtxt"), frames_fps=25.0,
    )  # fmt: skip
    said = export_annotations.run(options)
    assert said[0] == "street.xml: 3 keyframes, 2 people, 5 boxes (score at least 0.3)"
