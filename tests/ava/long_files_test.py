# SPDX-License-Identifier: Apache-2.0
"""The fast reader of long files gives what the careful one gives, to the bit, or nothing."""

import codecs
import sys

import numpy as np
import pytest

from object_detection_ext.ava import faults, long_files, tables
from object_detection_ext.ava.columns import ANNOTATIONS, DETECTIONS

_ROW = "v1,0902,0.1,0.2,0.3,0.4,1,7\n"


def _file(tmp_path, content) -> str:
    path = tmp_path / "rows.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


def _both(monkeypatch, path, **options):
    """What the careful reader gives, and what the fast one gives (None: it leaves it to the other).

    Errors are given as texts.
    """
    found = []
    for size in (1 << 62, 0):
        monkeypatch.setattr(tables, "_LONG_FILE", size)
        try:
            found.append(tables.read_csv(path, **options))
        except faults.AnnotationError as error:
            found.append(str(error))
    kind, tolerance = options.get("kind", DETECTIONS), options.get("box_tolerance", 0.01)
    return *found, long_files.read(path, kind, tolerance)


def _assert_equal(one, other):
    if isinstance(one, str) or isinstance(other, str):
        assert one == other
        return
    assert one.frames == other.frames and one.notes == other.notes
    assert [type(seconds) for _, seconds in one.frames] == [type(s) for _, s in other.frames]
    for name in ("frame", "boxes", "classes", "scores"):
        a, b = getattr(one.rows, name), getattr(other.rows, name)
        assert a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes(), name
    np.testing.assert_array_equal(one.lines, other.lines)
    np.testing.assert_array_equal(one.has_score, other.has_score)


def _random_rows(seed: int, count: int = 400) -> list[str]:
    rng = np.random.default_rng(seed)
    spellings = ("{:04d}", "{}", "{}.0", "{}.500", "{}.041666667")
    rows = []
    for _ in range(count):
        second = spellings[rng.integers(len(spellings))].format(int(rng.integers(900, 905)))
        corners = ",".join(repr(float(value)) for value in rng.random(4))
        score = repr(float(rng.random()))
        rows.append(f"v{rng.integers(4)},{second},{corners},{rng.integers(1, 81)},{score}\n")
    return rows


@pytest.mark.parametrize("seed", range(4))
def test_random_detections_are_the_same_to_the_bit(tmp_path, monkeypatch, seed):
    careful, quick, read = _both(monkeypatch, _file(tmp_path, "".join(_random_rows(seed))))
    _assert_equal(careful, quick)
    assert read is not None


_HEADER = "score,video_id,timestamp,x1,y1,x2,y2,action_id,note\n"

# What the fast reader takes itself.
TAKEN = {
    "plain": _ROW * 3,
    "seven columns": _ROW.replace(",7\n", "\n") * 3,
    "byte order mark": codecs.BOM_UTF8 + _ROW.encode() * 3,
    "CRLF": _ROW.replace("\n", "\r\n") * 3,
    "semicolons": _ROW.replace(",", ";") * 3,
    "tabs": _ROW.replace(",", "\t") * 3,
    "header row": "video_id,timestamp,x1,y1,x2,y2,action_id,score\n" + _ROW * 3,
    "header row with a mark": codecs.BOM_UTF8
    + b"video_id,timestamp,x1,y1,x2,y2,action_id,score\n" + _ROW.encode(),
    "header row in another order": _HEADER + "0.5,v1,0902,0.1,0.2,0.3,0.4,1,abc\n" * 3,
    "a line for Excel": "sep=;\n" + _ROW.replace(",", ";"),
    "spaces": _ROW.replace(",", " , "),
    "two spellings of a moment": _ROW + _ROW.replace("0902", "902.0") + _ROW.replace("0902", "902"),
    "two spellings of a video": _ROW + _ROW.replace("v1", " v1 "),
    "frames in turn": (_ROW + _ROW.replace("0902", "0903")) * 3,
    "boxes to be cut off": _ROW + "v1,0902,-0.004,0.2,1.0000001,0.4,1,7\n" * 2,
    "negative zero": "v1,0902,-0.0,-0.0,0.3,1.001,1,7\n" * 2,
    "boxes of no area": "v1,0902,0.5,0.2,0.4,0.2,1,7\n",
    "many digits": "v1,0902,0.12345678901234567890,1e-3,0.3e0,.4,1,1e-320\n",
    "a plus sign": _ROW.replace("0.1", "+0.1"),
    "letters of other alphabets": _ROW.replace("v1", "vidéo 走"),
}  # fmt: skip

# What it leaves to the careful one.
LEFT = {
    "quotation marks": _ROW.replace("v1", '"v1"'),
    "a lost quotation mark": _ROW + '"' + _ROW,
    "no line end": _ROW + _ROW.rstrip("\n"),
    "blank lines": _ROW + "\n" + _ROW,
    "CR": _ROW.replace("\n", "\r") * 3,
    "a CR and a blank line": _ROW + "\n" + _ROW.replace("\n", "\r") + _ROW,
    "UTF-16": (_ROW * 3).encode("utf-16"),
    "a frame without boxes": _ROW + "v1,0903\n",
    "rows of two lengths": _ROW + _ROW.replace(",7\n", "\n"),
    "trailing commas": _ROW.replace("\n", ",\n"),
    "classes as fractions": _ROW.replace(",1,7", ",1.0,7"),
    "classes that are none": _ROW.replace(",1,7", ",0x1,7"),
    "grouped digits": _ROW.replace("0.1", "0.1_0"),
    "nan for a corner": _ROW.replace("0.1", "nan"),
    "nan for a score": _ROW.replace(",7\n", ",nan\n"),
    "an infinite score": _ROW.replace(",7\n", ",inf\n"),
    "an empty score": _ROW + _ROW.replace(",7\n", ",\n"),
    "an empty video": _ROW + _ROW.replace("v1", ""),
    "boxes far outside": _ROW + "v1,0902,-0.3,0.2,1.2,0.4,1,7\nv1,0902,-0.001,0,1,1,1,7\n",
    "a huge corner": _ROW + _ROW.replace("0.1", "1e155"),
    "hours": _ROW.replace("0902", "00:15:02"),
    "times that are none": _ROW + _ROW.replace("0902", "soon"),
    "control characters": _ROW + _ROW.replace("v1", "v\x1b1"),
    "no text": _ROW.encode() + b"\xff" + _ROW.encode(),
    "a repeated header": _HEADER + "0.5,v1,0902,0.1,0.2,0.3,0.4,1,abc\n" + _HEADER,
    "nothing": "",
    "a header row alone": "video_id,timestamp,x1,y1,x2,y2,action_id,score\n",
    "NUL": _ROW + _ROW.replace("v1", "v\0"),
    "unknown names": "a,b,c,d,e,f,g,h\n" + _ROW,
}


@pytest.mark.parametrize("form", [*TAKEN, *LEFT])
def test_both_readers_agree(tmp_path, monkeypatch, form):
    path = _file(tmp_path, (TAKEN | LEFT)[form])
    careful, quick, read = _both(monkeypatch, path)
    _assert_equal(careful, quick)
    assert (read is not None) == (form in TAKEN)
    _assert_equal(*_both(monkeypatch, path, kind=ANNOTATIONS)[:2])
    _assert_equal(*_both(monkeypatch, path, box_tolerance=None)[:2])
    _assert_equal(*_both(monkeypatch, path, box_tolerance=0.4)[:2])


@pytest.mark.parametrize("eighth", ["7", "-1", "Ann", "7.0", "0.5", "", "nan", "9" * 18, "9" * 19])
def test_people_of_the_ground_truth(tmp_path, monkeypatch, eighth):
    path = _file(tmp_path, _ROW + _ROW.replace(",7\n", f",{eighth}\n"))
    careful, quick, read = _both(monkeypatch, path, kind=ANNOTATIONS)
    _assert_equal(careful, quick)
    assert (read is not None) == (eighth in ("7", "-1", "9" * 18))


@pytest.mark.parametrize("kind", [ANNOTATIONS, DETECTIONS], ids=["ground truth", "detections"])
def test_a_box_far_outside_is_an_error_of_the_careful_reader(tmp_path, monkeypatch, kind):
    path = _file(tmp_path, _ROW + _ROW.replace("0.1", "-0.5"))
    careful, quick, read = _both(monkeypatch, path, kind=kind)
    assert read is None and quick == careful and ":2: x1 is -0.5" in careful


def test_a_short_file_does_not_need_pyarrow(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert len(tables.read_csv(_file(tmp_path, _ROW)).rows) == 1
    assert long_files.read(_file(tmp_path, _ROW), DETECTIONS, 0.01) is None
