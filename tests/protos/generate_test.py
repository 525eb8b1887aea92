# SPDX-License-Identifier: Apache-2.0
"""The committed *_pb2.py are compiled from the .proto sources beside them."""

import pathlib
import subprocess
import sys

import pytest
from google.protobuf import descriptor_pool

from object_detection_ext import compat  # noqa: F401
from protos import generate

SOURCES = sorted(generate.SOURCE_DIR.glob("*.proto"))
PROTOC = generate.ROOT / ".venv-protoc" / "bin" / "python"


def test_there_are_sources() -> None:
    assert [source.name for source in SOURCES] == ["video_action_transformer.proto"]


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.name)
def test_compiled_module_is_from_this_source(source: pathlib.Path) -> None:
    last_line = generate.output_path(source).read_text("utf-8").rstrip().splitlines()[-1]
    assert last_line == generate.source_hash(source), f"{source.name} changed: run `make protos`"


@pytest.mark.skipif(not PROTOC.exists(), reason="no compiler: `make protos` installs one")
def test_compiling_again_gives_the_committed_module(tmp_path: pathlib.Path) -> None:
    command = [str(PROTOC), "-m", "grpc_tools.protoc"]
    for module in generate.compile_protos(command, tmp_path):
        committed = (generate.OUTPUT_DIR / module.name).read_text("utf-8")
        compiled = module.read_text("utf-8").rstrip()
        assert committed.startswith(compiled)
        rest = committed.removeprefix(compiled).strip()
        assert rest.startswith(generate.HASH_MARK) and "\n" not in rest


def test_stock_descriptors_are_complete_and_in_order() -> None:
    pool = descriptor_pool.DescriptorPool()
    files = generate.stock_descriptors().file
    for file in files:
        # A pool refuses a file whose imports it does not have yet.
        pool.AddSerializedFile(file.SerializeToString())
        pool.FindFileByName(file.name)
    assert len(files) > 20
    pipeline = pool.FindMessageTypeByName("object_detection.protos.TrainEvalPipelineConfig")
    assert pipeline.fields_by_name["model"].message_type.name == "DetectionModel"


@pytest.fixture
def refusing_compiler(tmp_path: pathlib.Path) -> str:
    compiler = tmp_path / "protoc"
    compiler.write_text("#!/bin/sh\necho 'x.proto:3:1: Expected top-level statement' >&2\nexit 1\n")
    compiler.chmod(0o755)
    return str(compiler)


def test_a_refused_source_shows_what_the_compiler_said(refusing_compiler, tmp_path) -> None:
    with pytest.raises(RuntimeError, match="x.proto:3:1: Expected"):
        generate.compile_protos([refusing_compiler], tmp_path)


def test_the_command_reaches_the_compiler(refusing_compiler) -> None:
    """In a process of its own, where nothing has prepared the stock modules."""
    command = [sys.executable, generate.__file__, "--protoc", refusing_compiler]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "x.proto:3:1: Expected" in done.stderr and "Traceback" not in done.stderr
