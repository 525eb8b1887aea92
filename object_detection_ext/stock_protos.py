# SPDX-License-Identifier: Apache-2.0
"""The stock API's protocol buffers on today's protobuf.

`object_detection/protos/*_pb2.py` were written by a protoc of 2021, in a form that protobuf 4 and
later refuse to run. But each of them holds what it describes in serialized form, and of that
`_Loader` makes the same messages, as the modules of today's protoc do. So protobuf can be one that
does its work in C; 3.20, the last that runs those files, is pure Python on Python 3.11: exporting a
model took three times as long with it, loading one five times (docs/benchmarks.md).

The package's `__init__` installs it, so that it is there before any module of the stock API.
"""

import ast
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
from types import ModuleType

from google.protobuf import descriptor_pool
from google.protobuf.internal import builder

_PACKAGE = "object_detection.protos"


class _Loader(importlib.abc.Loader):
    """Makes a module of messages from the descriptor that its source holds."""

    def __init__(self, path: str):
        self._path = path

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> None:
        """The usual module."""

    def exec_module(self, module: ModuleType) -> None:
        """Fills the module; the modules that it imports come first, as in its source."""
        with open(self._path, encoding="utf-8") as file:
            tree = ast.parse(file.read(), self._path)
        for node in tree.body:
            if isinstance(node, ast.ImportFrom) and node.module == _PACKAGE:
                for name in node.names:
                    importlib.import_module(f"{_PACKAGE}.{name.name}")
        names = vars(module)
        try:
            names["DESCRIPTOR"] = descriptor_pool.Default().AddSerializedFile(_serialized(tree))
        except (ImportError, TypeError) as error:
            raise ImportError(f"{self._path}: {error}", name=module.__name__) from error
        builder.BuildMessageAndEnumDescriptors(names["DESCRIPTOR"], names)
        builder.BuildTopDescriptorsAndMessages(names["DESCRIPTOR"], module.__name__, names)


def _serialized(tree: ast.Module) -> bytes:
    """The serialized FileDescriptorProto in a generated module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.keyword) and node.arg == "serialized_pb":
            if isinstance(node.value, ast.Constant) and isinstance(node.value.value, bytes):
                return node.value.value
    raise ImportError("no serialized_pb in it, so protoc did not write it")


class _Finder(importlib.abc.MetaPathFinder):
    """Finds `object_detection.protos.*_pb2`; leaves all other modules to the other finders."""

    def find_spec(self, fullname: str, path, target=None):
        """The spec with our loader, for a generated module of the stock API."""
        del target
        if not (fullname.startswith(f"{_PACKAGE}.") and fullname.endswith("_pb2")):
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path)
        if spec is None:
            return None
        return importlib.util.spec_from_loader(fullname, _Loader(spec.origin), origin=spec.origin)


def install() -> None:
    """Lets the stock API's protocol buffers be imported; once is enough."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())
