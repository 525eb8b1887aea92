# SPDX-License-Identifier: Apache-2.0
"""Pickles: data of Python 2 and 3 is read; what names anything else is refused and never run."""

import base64
import collections
import os
import pickle
import subprocess
import zlib

import numpy as np
import pytest

from object_detection_ext.importers import model, plain_pickle

# Python 2.7's cPickle.dumps({'a': numpy.arange(6, dtype='int16').reshape(2, 3), 'n': 3L}, 2), with
# NumPy 1.16: arrays are reconstructed from text in Latin-1, and names are bytes.
_PYTHON_2 = (
    b"\x80\x02}q\x01(U\x01acnumpy.core.multiarray\n_reconstruct\nq\x02cnumpy\nndarray\nq\x03K\x00"
    b"\x85q\x04U\x01bq\x05\x87q\x06Rq\x07(K\x01K\x02K\x03\x86q\x08cnumpy\ndtype\nq\tU\x02i2q\nK\x00"
    b"K\x01\x87q\x0bRq\x0c(K\x03U\x01<q\rNNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tq\x0eb\x89U\x0c"
    b"\x00\x00\x01\x00\x02\x00\x03\x00\x04\x00\x05\x00q\x0ftq\x10bU\x01n\x8a\x01\x03u."
)


def _write(path, content, protocol=2):
    (path / "data.pkl").write_bytes(pickle.dumps(content, protocol))
    return str(path / "data.pkl")


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_containers_numbers_and_arrays(tmp_path, protocol):
    content = {
        "list": [1, 2.5, True, None, "straße", b"raw", {3, 4}, (5,)],
        "array": np.arange(6, dtype=np.float32).reshape(2, 3),
        "scalar": np.int64(7),
        "texts": np.array(["a", "bc"]),
        "mixed": np.array([{"x": 1}, None], object),
        "ordered": collections.OrderedDict(a=1),
        "default": collections.defaultdict(list, {"k": [1]}),
    }
    found = plain_pickle.read(_write(tmp_path, content, protocol))
    assert found["list"] == content["list"] and found["scalar"] == 7
    np.testing.assert_array_equal(found["array"], content["array"])
    assert found["array"].dtype == np.float32
    assert found["mixed"].tolist() == [{"x": 1}, None]
    assert found["default"]["new"] == [] and found["ordered"] == {"a": 1}
    assert found["texts"].tolist() == ["a", "bc"]


def test_a_pickle_of_python_2(tmp_path):
    (tmp_path / "data.pkl").write_bytes(_PYTHON_2)
    found = plain_pickle.read(str(tmp_path / "data.pkl"))
    assert found["n"] == 3
    np.testing.assert_array_equal(found["a"], np.arange(6).reshape(2, 3))


class _Runs:
    """What runs when an ordinary reader loads it."""

    def __init__(self, function, *arguments):
        self._reduced = function, arguments

    def __reduce__(self):
        return self._reduced


@pytest.mark.parametrize("protocol", [0, 2, 5])
@pytest.mark.parametrize(
    "function",
    [os.system, os.mkdir, subprocess.call, eval, exec, getattr, __import__, open, zlib.decompress,
     base64.b64decode, np.load, np.fromfile, np.ndarray.tofile],
)  # fmt: skip
def test_functions_are_refused_and_not_run(tmp_path, monkeypatch, function, protocol):
    monkeypatch.chdir(tmp_path)
    arguments = ("mkdir ran",) if function is os.system else ("ran",)
    path = _write(tmp_path, {"v": [_Runs(function, *arguments)]}, protocol)
    with pytest.raises(model.ImportFault, match=r"data.pkl: refused: the name .*not data.*nothing"):
        plain_pickle.read(path)
    assert os.listdir(tmp_path) == ["data.pkl"]


class _Thing:
    pass


def test_classes_are_refused(tmp_path):
    with pytest.raises(model.ImportFault, match=r"the name tests.importers.*_Thing, which is not"):
        plain_pickle.read(_write(tmp_path, [_Thing()]))


def test_names_that_reach_through_allowed_modules_are_refused(tmp_path):
    # Protocol 4 can name `numpy` + `core.multiarray._reconstruct`, or any attribute's attribute.
    for module, name in (("collections", "abc.sys.modules"), ("numpy", "load"), ("numpy", "os"),
                         ("builtins", "dict.__class__"), ("_codecs", "decode")):  # fmt: skip
        code = b"\x80\x04\x8c" + bytes([len(module)]) + module.encode()
        code += b"\x8c" + bytes([len(name)]) + name.encode() + b"\x93."
        (tmp_path / "data.pkl").write_bytes(code)
        with pytest.raises(model.ImportFault, match="refused: the name"):
            plain_pickle.read(str(tmp_path / "data.pkl"))


def test_decompression_by_way_of_an_encoding_is_refused(tmp_path):
    import _codecs

    path = _write(tmp_path, _Runs(_codecs.encode, "x" * 10, "zlib"))
    with pytest.raises(model.ImportFault, match="refused: an encoding 'zlib'"):
        plain_pickle.read(path)


def test_a_default_that_runs_something_is_refused(tmp_path):
    content = _Runs(collections.defaultdict, print)
    with pytest.raises(model.ImportFault, match=r"refused: the name builtins.print|__builtin__"):
        plain_pickle.read(_write(tmp_path, content))


@pytest.mark.parametrize("content", [b"", b"\x80", b"not a pickle", _PYTHON_2[:100], b"\x80\x02."])
def test_what_is_not_a_whole_pickle_is_refused(tmp_path, content):
    path = tmp_path / "data.pkl"
    path.write_bytes(content)
    with pytest.raises(model.ImportFault, match="data.pkl: "):
        plain_pickle.read(str(path))


def test_persistent_ids_are_refused(tmp_path):
    (tmp_path / "data.pkl").write_bytes(b"Pname\n.")
    with pytest.raises(model.ImportFault, match="refused"):
        plain_pickle.read(str(tmp_path / "data.pkl"))
