# SPDX-License-Identifier: Apache-2.0
"""How our options travel from pipeline.config to the builders.

They are written as an extension of `TrainEvalPipelineConfig`. The stock code takes a pipeline
apart and hands single messages to its builders, without the extension. So the options ride along
inside those messages, as a field that these do not know and therefore keep (`OptionsEnvelope`).
Nothing is kept globally: two models with other options live in one process.
"""

from google.protobuf import message as protobuf_message
from object_detection.protos import pipeline_pb2

from object_detection_ext.protos import video_action_transformer_pb2 as vat_pb2

EXTENSION = vat_pb2.video_action_transformer


def attach(
    message: protobuf_message.Message,
    options: vat_pb2.VideoActionTransformer,
    training_label_map_path: str | None = None,
) -> None:
    """Puts the options, and the path if there is one, inside a stock message.

    They replace those that it carried.
    """
    stripped = type(message)()
    stripped.CopyFrom(message)
    stripped.DiscardUnknownFields()
    envelope = vat_pb2.OptionsEnvelope(
        options=options, training_label_map_path=training_label_map_path
    )
    message.CopyFrom(stripped)
    message.MergeFromString(envelope.SerializeToString())


def carried_by(message: protobuf_message.Message) -> vat_pb2.VideoActionTransformer | None:
    """The options inside a stock message; None if it carries none."""
    envelope = vat_pb2.OptionsEnvelope.FromString(message.SerializeToString())
    return envelope.options if envelope.HasField("options") else None


def training_label_map_path(message: protobuf_message.Message) -> str:
    """The path inside a stock message; empty if it carries none."""
    envelope = vat_pb2.OptionsEnvelope.FromString(message.SerializeToString())
    return envelope.training_label_map_path


def attach_to_pipeline(pipeline: pipeline_pb2.TrainEvalPipelineConfig) -> None:
    """Puts a pipeline's options inside its model, its input readers and its eval_config.

    Only video models get them: other pipelines stay as they are.
    """
    options = pipeline.Extensions[EXTENSION]
    label_map_path = pipeline.train_input_reader.label_map_path
    attach(pipeline.model.faster_rcnn, options, label_map_path or None)
    attach(pipeline.train_input_reader, options)
    attach(pipeline.eval_config, options)
    for reader in pipeline.eval_input_reader:
        attach(reader, options)


def restore_extension(
    pipeline: pipeline_pb2.TrainEvalPipelineConfig,
) -> pipeline_pb2.TrainEvalPipelineConfig:
    """Writes the options that a pipeline's model carries back as the pipeline's extension.

    Returns:
        The same pipeline, as its author would write it: nothing hidden inside its messages.
    """
    if pipeline.model.WhichOneof("model") != "faster_rcnn":
        return pipeline
    options = carried_by(pipeline.model.faster_rcnn)
    if options is not None:
        pipeline.DiscardUnknownFields()
        pipeline.Extensions[EXTENSION].CopyFrom(options)
    return pipeline
