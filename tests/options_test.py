# SPDX-License-Identifier: Apache-2.0
"""Our options ride inside stock messages, through all that the stock code does to these."""

import copy

import pytest
from google.protobuf import text_format
from object_detection.protos import faster_rcnn_pb2, pipeline_pb2
from object_detection.utils import config_util

from object_detection_ext import options, registration
from object_detection_ext.protos import video_action_transformer_pb2 as vat_pb2
from tests import tiny_pipeline

registration.register()


def _options(num_frames: int = 7) -> vat_pb2.VideoActionTransformer:
    return vat_pb2.VideoActionTransformer(
        clip=vat_pb2.Clip(num_frames=num_frames),
        tx_head=vat_pb2.TxHead(num_heads=5, query_preprocessor=vat_pb2.TxHead.LOW_RES),
    )


@pytest.fixture
def message() -> faster_rcnn_pb2.FasterRcnn:
    message = faster_rcnn_pb2.FasterRcnn(num_classes=4)
    options.attach(message, _options())
    return message


def _copied(message):
    copied = type(message)()
    copied.CopyFrom(message)
    return copied


def _merged(message):
    merged = type(message)(initial_crop_size=3)
    merged.MergeFrom(message)
    return merged


def _edited(message):
    message.num_classes = 80
    message.feature_extractor.type = "other"
    return message


@pytest.mark.parametrize(
    "handling",
    [
        _copied,
        _merged,
        _edited,
        copy.deepcopy,
        lambda message: type(message).FromString(message.SerializeToString()),
    ],
    ids=["CopyFrom", "MergeFrom", "edit", "deepcopy", "serialize"],
)
def test_options_survive(message, handling):
    assert options.carried_by(handling(message)) == _options()


def test_stock_fields_do_not_change_and_nothing_is_carried_by_default(message):
    assert message.num_classes == 4
    assert options.carried_by(faster_rcnn_pb2.FasterRcnn(num_classes=4)) is None


def test_options_with_all_defaults_are_carried_too():
    message = faster_rcnn_pb2.FasterRcnn()
    options.attach(message, vat_pb2.VideoActionTransformer())
    carried = options.carried_by(message)
    assert carried is not None
    assert (carried.clip.num_frames, carried.tx_head.num_heads) == (64, 2)


def test_attaching_again_replaces(message):
    # Merging would keep num_heads.
    options.attach(message, vat_pb2.VideoActionTransformer(clip=vat_pb2.Clip(num_frames=9)))
    carried = options.carried_by(message)
    assert carried.clip.num_frames == 9
    assert not carried.HasField("tx_head")


def test_two_messages_keep_their_own(message):
    other = faster_rcnn_pb2.FasterRcnn()
    options.attach(other, _options(11))
    assert options.carried_by(message).clip.num_frames == 7
    assert options.carried_by(other).clip.num_frames == 11


def test_pipeline_gives_its_options_to_model_readers_and_eval_config():
    pipeline = tiny_pipeline.make_pipeline("eval_input_reader { name: 'second' }")
    options.attach_to_pipeline(pipeline)
    expected = pipeline.Extensions[options.EXTENSION]
    assert expected.clip.num_frames == tiny_pipeline.NUM_FRAMES
    carriers = [
        pipeline.model.faster_rcnn,
        pipeline.train_input_reader,
        *pipeline.eval_input_reader,
        pipeline.eval_config,
    ]
    assert [options.carried_by(carrier) == expected for carrier in carriers] == [True] * 5


def test_stock_functions_split_and_join_without_loss():
    pipeline = tiny_pipeline.make_pipeline(label_map="map.pbtxt", train="train.record")
    before = pipeline.SerializeToString()
    configs = config_util.create_configs_from_pipeline_proto(pipeline)
    assert pipeline.SerializeToString() == before, "the caller's message was changed"
    # What the stock loops do in between.
    configs = config_util.merge_external_params_with_configs(
        configs, None, kwargs_dict={"train_steps": 9}
    )
    joined = config_util.create_pipeline_proto_from_configs(configs)
    pipeline.train_config.num_steps = 9
    assert text_format.MessageToString(joined) == text_format.MessageToString(pipeline)


def test_saved_pipeline_shows_the_extension_and_reads_back(tmp_path):
    pipeline = tiny_pipeline.make_pipeline()
    configs = config_util.create_configs_from_pipeline_proto(pipeline)
    config_util.save_pipeline_config(
        config_util.create_pipeline_proto_from_configs(configs), str(tmp_path)
    )
    text = (tmp_path / "pipeline.config").read_text()
    assert "[object_detection_ext.protos.video_action_transformer]" in text
    assert "num_frames: 4" in text
    assert "77001" not in text  # the envelope's number
    again = config_util.get_configs_from_pipeline_file(str(tmp_path / "pipeline.config"))
    assert options.carried_by(again["model"].faster_rcnn) == pipeline.Extensions[options.EXTENSION]


@pytest.mark.parametrize("kind", ["ssd", "faster_rcnn"])
def test_stock_pipelines_pass_untouched(kind):
    pipeline = pipeline_pb2.TrainEvalPipelineConfig()
    if kind == "ssd":
        pipeline.model.ssd.num_classes = 2
    else:
        pipeline.model.faster_rcnn.feature_extractor.type = "faster_rcnn_resnet50_keras"
    pipeline.train_input_reader.label_map_path = "map.pbtxt"
    pipeline.eval_input_reader.add().label_map_path = "map.pbtxt"
    pipeline.train_config.batch_size = 1
    pipeline.eval_config.batch_size = 1
    configs = config_util.create_configs_from_pipeline_proto(pipeline)
    assert configs["model"].SerializeToString() == pipeline.model.SerializeToString()
    assert configs["train_input_config"] == pipeline.train_input_reader
    joined = config_util.create_pipeline_proto_from_configs(configs)
    assert joined.SerializeToString() == pipeline.SerializeToString()
