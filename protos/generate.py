# SPDX-License-Identifier: Apache-2.0
"""Compiles protos/*.proto into object_detection_ext/protos/*_pb2.py; `make protos` runs it.

The API's distribution has its compiled modules but not its .proto sources, so the compiler gets
their descriptors instead: a FileDescriptorSet written from the installed `*_pb2` modules.

    python protos/generate.py --protoc python -m grpc_tools.protoc

The compiler is protoc 21 (grpcio-tools 1.51.3): what later ones write runs only on their own
release of protobuf and later ones, this on all that TensorFlow takes.
"""

import argparse
import hashlib
import importlib
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Sequence

from google.protobuf import descriptor_pb2

import object_detection_ext  # noqa: F401  (the stock modules cannot be imported without it)

ROOT = pathlib.Path(__file__).resolve().parent.parent
SOURCE_DIR = ROOT / "protos"
OUTPUT_DIR = ROOT / "object_detection_ext" / "protos"
# The name under which the compiler, and so the generated module, knows SOURCE_DIR.
IMPORT_PREFIX = "object_detection_ext/protos"
HASH_MARK = "# sha256 of the source: "
# The message that ours extends; it imports every other file of the stock schema that it needs.
STOCK_ENTRY = "object_detection.protos.pipeline_pb2"


def source_hash(proto: pathlib.Path) -> str:
    """The line that ties a generated module to its source."""
    return HASH_MARK + hashlib.sha256(proto.read_bytes()).hexdigest()


def output_path(proto: pathlib.Path) -> pathlib.Path:
    """Where the module compiled from `proto` belongs."""
    return OUTPUT_DIR / f"{proto.stem}_pb2.py"


def stock_descriptors() -> descriptor_pb2.FileDescriptorSet:
    """The stock schema's files, each after the files that it imports."""
    files = {}

    def add(file) -> None:
        if file.name in files:
            return
        for dependency in file.dependencies:
            add(dependency)
        message = descriptor_pb2.FileDescriptorProto()
        file.CopyToProto(message)
        files[file.name] = message

    add(importlib.import_module(STOCK_ENTRY).DESCRIPTOR)
    return descriptor_pb2.FileDescriptorSet(file=files.values())


def compile_protos(protoc: Sequence[str], output_root: pathlib.Path) -> list[pathlib.Path]:
    """Runs the compiler on every source; returns the files it wrote, below `output_root`.

    Args:
      protoc: the compiler's command line, such as ["protoc"].
      output_root: folder that gets `object_detection_ext/protos/*_pb2.py`.

    Raises:
      RuntimeError: the compiler refused a source; the message is the compiler's.
    """
    sources = sorted(SOURCE_DIR.glob("*.proto"))
    if not sources:
        raise RuntimeError(f"{SOURCE_DIR} has no .proto file")
    with tempfile.TemporaryDirectory() as folder:
        stock = pathlib.Path(folder) / "stock.binpb"
        stock.write_bytes(stock_descriptors().SerializeToString())
        command = [
            *protoc,
            f"--descriptor_set_in={stock}",
            f"--proto_path={IMPORT_PREFIX}={SOURCE_DIR}",
            f"--python_out={output_root}",
            *(f"{IMPORT_PREFIX}/{source.name}" for source in sources),
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(protoc)} failed:\n{done.stderr.strip()}")
    return [output_root / IMPORT_PREFIX / f"{source.stem}_pb2.py" for source in sources]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--protoc",
        nargs=argparse.REMAINDER,
        required=True,
        help="the compiler's command line; takes the rest of the arguments",
    )
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        try:
            modules = compile_protos(arguments.protoc, pathlib.Path(folder))
        except RuntimeError as error:
            print(error, file=sys.stderr)
            return 1
        for module in modules:
            source = SOURCE_DIR / f"{module.stem.removesuffix('_pb2')}.proto"
            text = module.read_text(encoding="utf-8")
            target = output_path(source)
            target.write_text(f"{text.rstrip()}\n{source_hash(source)}\n", encoding="utf-8")
            print(f"wrote {target.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
