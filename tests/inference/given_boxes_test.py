# SPDX-License-Identifier: Apache-2.0
"""Files of people's boxes."""

import numpy as np
import pytest

from object_detection_ext.ava import faults
from object_detection_ext.inference.given_boxes import BoxTable


def _table(tmp_path, text):
    path = tmp_path / "boxes.csv"
    path.write_text(text)
    return BoxTable(path)


def test_annotations_and_detections_will_do(tmp_path):
    table = _table(
        tmp_path,
        "v,0902,0.1,0.2,0.3,0.8,12,7\nv,902,0.1,0.2,0.3,0.8,80,7\nv,902.0,0.4,0.2,0.5,0.8,,0.9\n"
        "v,0901\nw,3,0,0,1,1\n",
    )
    assert table.times("v") == [901.0, 902.0] and table.times("w") == [3.0]
    np.testing.assert_allclose(
        table.boxes("v", 902.0), [[0.2, 0.1, 0.8, 0.3], [0.2, 0.4, 0.8, 0.5]], atol=1e-6
    )
    assert table.boxes("v", 901.0).shape == (0, 4)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("v,1,0.1,0.2,0.3\n", r"boxes.csv:1: 5 columns; it must be video_id,timestamp,x1,y1,x2,y2"),
        ("v,1,0,0,1,1\nv,2,10,20,50,80\n", r"boxes.csv:2: x1 is 10; .*must be in \[0, 1\]"),
        ("v,1,0.5,0,0.4,1\n", "x1 must be less than x2"),
        ("v,one,0.5,0,0.6,1\n", "boxes.csv:1: timestamp is 'one'; it must be a number"),
        ("wer,wann,links,oben,rechts,unten\nv,1,0,0,1,1\n", "the first row names columns"),
        ("", "has no rows; each row is video_id,timestamp,x1,y1,x2,y2"),
    ],
)
def test_files_that_are_none(tmp_path, text, message):
    with pytest.raises(faults.AnnotationError, match=message):
        _table(tmp_path, text)
