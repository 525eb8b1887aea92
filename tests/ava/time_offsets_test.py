# SPDX-License-Identifier: Apache-2.0
"""What annotation times are ahead of the times in a file."""

import unicodedata

import pytest

from object_detection_ext import errors
from object_detection_ext.ava import time_offsets


@pytest.mark.parametrize(
    ("text", "seconds"), [(None, 0.0), ("", 0.0), ("900", 900.0), ("-1.5", -1.5)]
)
def test_one_offset_for_all(text, seconds):
    offsets = time_offsets.read(text)
    assert offsets.of("v") == offsets.of("w") == seconds
    assert bool(offsets) == (seconds != 0.0)
    offsets.check(["v", "w"])


def test_offsets_by_video(tmp_path):
    path = tmp_path / "offsets.csv"
    decomposed = unicodedata.normalize("NFD", "café")
    path.write_text(f"\ufeffvideo_id,seconds\nv,900\n\n-w,-2.5\n{decomposed},0\nv,900\n")
    offsets = time_offsets.read(str(path))
    assert [offsets.of(name) for name in ("v", "-w", "café")] == [900.0, -2.5, 0.0]
    assert offsets
    with pytest.raises(errors.InputError, match="no row for 2 videos: x, y; give each its offset"):
        offsets.check(["v", "y", "x"])


@pytest.mark.parametrize(
    "text",
    [
        "video_id,offset\nv,900\n",
        "seconds,video_id\n900,v\n",
        "Video ID;Time offset\nv;900\n",
        "video,time_offset_seconds\nv,900\n",
        "v;900,0\nw;1,5\n",
    ],
)
def test_header_rows(tmp_path, text):
    path = tmp_path / "offsets.csv"
    path.write_text(text)
    assert time_offsets.read(str(path)).of("v") == 900.0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,lead\nv,900\n", "the columns are video_id,seconds: name them so"),
        ("v,900\nv,901\n", "offsets.csv:2: v is 901 s here and 900 s before"),
        ("v,900\nw\n", "offsets.csv:2: 1 column"),
        ("v,900\nw,nan\n", "offsets.csv:2: timestamp is 'nan'"),
        ("v,900,x\n", "offsets.csv:1: 3 columns"),
        (",900\n", "offsets.csv:1: video_id is empty"),
        ("", "the file has no rows"),
        ('v,900\n"w,1\n', "offsets.csv:2: quotation marks"),
    ],
)
def test_files_that_are_wrong(tmp_path, text, message):
    path = tmp_path / "offsets.csv"
    path.write_text(text)
    with pytest.raises(errors.InputError) as caught:
        time_offsets.read(str(path))
    assert message in str(caught.value)


@pytest.mark.parametrize("text", ["15min", "inf", "nan", "1e12", "offsets.csv"])
def test_neither_a_number_nor_a_file(text):
    with pytest.raises(errors.InputError, match="neither a number of seconds nor a CSV file"):
        time_offsets.read(text)
