# SPDX-License-Identifier: Apache-2.0
"""Data sets' own annotation files, imported and evaluated as tubes."""

import pickle

import pytest

from object_detection_ext.evaluation import video_ap
from object_detection_ext.importers import importing
from tests.importers import made_files


def _import(tmp_path, form, content):
    path = tmp_path / f"{form}.pkl"
    path.write_bytes(pickle.dumps(content))
    importing.run(
        importing.Options(form=form, inputs=(str(path),), output=str(tmp_path / "out"), fps=25.0)
    )
    return tmp_path / "out"


@pytest.mark.parametrize(
    ("form", "content", "tubes"),
    [("ucf101_24", made_files.pyannot(), 1), ("multisports", made_files.act_tubes(), 3)],
)
def test_ground_truth_that_is_its_own_detections_is_found(tmp_path, capsys, form, content, tubes):
    folder = _import(tmp_path, form, content)
    rows = [line for path in sorted(folder.glob("*.csv")) for line in path.read_text().split()]
    (tmp_path / "g.csv").write_text("\n".join(rows) + "\n")
    found = [",".join([*row.split(",")[:7], "0.9"]) for row in rows]
    (tmp_path / "d.csv").write_text("\n".join(found) + "\n")
    capsys.readouterr()
    arguments = ["-l", str(folder / "label_map.pbtxt"), "--protocol", form, "--min_keyframes", "1"]
    arguments += ["-g", str(tmp_path / "g.csv"), "-d", str(tmp_path / "d.csv")]
    assert video_ap.main(arguments) == 0
    printed = capsys.readouterr().out
    assert f"{tubes}  ground truth tubes" in printed
    assert "video-mAP@0.5IOU: 1.000000" in printed
    assert "frame-mAP@0.5IOU: 1.000000" in printed
