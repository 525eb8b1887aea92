# SPDX-License-Identifier: Apache-2.0
"""The stock API's messages, made from the descriptors in its generated modules."""

import importlib
import importlib.util
import pathlib
import sys

import pytest
from google.protobuf import descriptor_pb2, text_format
from google.protobuf.internal import api_implementation

from object_detection_ext import stock_protos

_FOLDER = pathlib.Path(importlib.util.find_spec("object_detection").origin).parent / "protos"
_MODULES = sorted(path.stem for path in _FOLDER.glob("*_pb2.py"))


def test_protobuf_works_in_c():
    assert api_implementation.Type() == "upb"


@pytest.mark.parametrize("name", _MODULES)
def test_every_module_has_what_its_source_defines(name):
    module = importlib.import_module(f"object_detection.protos.{name}")
    source = (_FOLDER / f"{name}.py").read_text()
    described = descriptor_pb2.FileDescriptorProto()
    module.DESCRIPTOR.CopyToProto(described)
    for message in described.message_type:
        # The old way of saying it: NAME = _reflection.GeneratedProtocolMessageType('NAME', ...
        assert f"{message.name} = _reflection.GeneratedProtocolMessageType(" in source
        made = getattr(module, message.name)
        assert made.__module__ == module.__name__
        assert made.DESCRIPTOR is module.DESCRIPTOR.message_types_by_name[message.name]
        assert [field.name for field in message.field] == [f.name for f in made.DESCRIPTOR.fields]
    assert len(described.message_type) == source.count("= _reflection.GeneratedProtocolMessageType")


def test_messages_extensions_enums_and_defaults():
    from object_detection.protos import calibration_pb2, pipeline_pb2, preprocessor_pb2

    pipeline = text_format.Parse(
        "model { faster_rcnn { num_classes: 3 second_stage_post_processing { "
        "score_converter: SIGMOID } } } train_config { batch_size: 2 }",
        pipeline_pb2.TrainEvalPipelineConfig(),
    )
    faster_rcnn = pipeline.model.faster_rcnn
    assert faster_rcnn.num_classes == 3
    assert faster_rcnn.first_stage_max_proposals == 300  # a default of the schema
    assert faster_rcnn.second_stage_post_processing.score_converter == 1  # SIGMOID
    assert pipeline_pb2.TrainEvalPipelineConfig.FromString(pipeline.SerializeToString()) == pipeline
    assert preprocessor_pb2.ResizeImage.Method.Name(2) == "BICUBIC"
    assert set(calibration_pb2.DESCRIPTOR.enum_types_by_name) == {"TrainingDataType"}


def _imported(folder, monkeypatch, text):
    """Imports a module `object_detection.protos.extra_pb2` with this text."""
    (folder / "extra_pb2.py").write_text(text)
    import object_detection.protos as package

    monkeypatch.setattr(package, "__path__", [str(folder)])
    monkeypatch.delitem(sys.modules, "object_detection.protos.extra_pb2", raising=False)
    return importlib.import_module("object_detection.protos.extra_pb2")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1", "extra_pb2.py: no serialized_pb in it"),
        ("D = f(serialized_pb=b'not one')", "extra_pb2.py: .*"),
    ],
)
def test_modules_that_protoc_did_not_write(tmp_path, monkeypatch, text, message):
    with pytest.raises(ImportError, match=message):
        _imported(tmp_path, monkeypatch, text)


def test_other_modules_are_left_to_python(tmp_path):
    finder = stock_protos._Finder()
    assert finder.find_spec("object_detection.core", [str(tmp_path)]) is None
    assert finder.find_spec("object_detection.protos.none_pb2", [str(tmp_path)]) is None
    count = len(sys.meta_path)
    stock_protos.install()
    assert len(sys.meta_path) == count
