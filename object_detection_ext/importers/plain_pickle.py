# SPDX-License-Identifier: Apache-2.0
"""Pickles that hold nothing but containers, numbers, strings and NumPy arrays.

A pickle is a program: it names functions and calls them. Here the few names that such data needs
are known, and any other ends the reading before anything of it is imported or called.
"""

import collections
import io
import pickle
from typing import Any

import numpy as np
from numpy._core import multiarray

from object_detection_ext import printable
from object_detection_ext.importers import model

_CONTAINERS = {
    "dict": dict, "list": list, "set": set, "frozenset": frozenset, "tuple": tuple,
    "int": int, "float": float, "complex": complex, "bool": bool, "long": int,
}  # fmt: skip


def _encode(text: str, encoding: str = "latin1") -> bytes:
    """`codecs.encode` for what pickles use it for: bytes, written as text.

    Other encodings include decompression, which can fill any memory.
    """
    if encoding not in ("latin1", "latin-1", "iso-8859-1"):
        raise pickle.UnpicklingError(f"an encoding {encoding!r}, which is not data")
    return text.encode("latin1")


def _default_dict(factory: Any = None, *content: Any) -> collections.defaultdict:
    if factory is not None and factory not in _CONTAINERS.values():
        raise pickle.UnpicklingError("a default that is not a plain container")
    return collections.defaultdict(factory, *content)


def _no_bytes() -> bytes:
    """What Python 3 writes for empty bytes where the protocol has none."""
    return b""


_ALLOWED: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("collections", "defaultdict"): _default_dict,
    ("_codecs", "encode"): _encode,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
}
for _module in ("builtins", "__builtin__"):
    _ALLOWED |= {(_module, name): kind for name, kind in _CONTAINERS.items()}
    _ALLOWED[_module, "bytes"] = _no_bytes
for _module in ("numpy.core.multiarray", "numpy._core.multiarray"):
    _ALLOWED[_module, "_reconstruct"] = multiarray._reconstruct
    _ALLOWED[_module, "scalar"] = multiarray.scalar
for _module in ("numpy.core.numeric", "numpy._core.numeric"):
    _ALLOWED[_module, "_frombuffer"] = np._core.numeric._frombuffer


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(
                f"the name {printable.in_one_line(f'{module}.{name}')}, which is not data"
            ) from None


def read(path: str) -> Any:
    """Reads a pickle of Python 2 or 3 without executing anything in it.

    Args:
        path: the file. Text of Python 2 is taken as Latin-1, as NumPy's own pickles need it.

    Raises:
        model.ImportFault: if it holds anything but containers, numbers, strings and arrays, or is
            not a whole pickle.
    """
    content = model.read_bytes(path)
    try:
        return _PlainUnpickler(io.BytesIO(content), encoding="latin1").load()
    except pickle.UnpicklingError as error:
        raise model.ImportFault(
            f"{path}: refused: {error}. Only plain containers, numbers, strings and NumPy arrays "
            "are read; nothing in the file was executed."
        ) from error
    except Exception as error:  # a damaged pickle can end in any of Python's errors
        raise model.ImportFault(
            f"{path}: not a whole pickle of plain containers and NumPy arrays: "
            f"{type(error).__name__}: {printable.in_one_line(error)}."
        ) from error
