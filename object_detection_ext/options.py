# SPDX-License-Identifier: Apache-2.0
"""How our options travel from pipeline.config to the builders.

They are written as an extension of `TrainEvalPipelineConfig`. The stock code takes a pipeline
apart and hands single messages to its builders, without the extension. So the options ride along
inside those messages, as a field that these do not know and therefore keep (`OptionsEnvelope`).
Nothing is kept globally: two models with other options live in one process.
"""

from collections.abc import Iterable

from google.protobuf import message as protobuf_message
from object_detection.protos import pipeline_pb2

from object_detection_ext.protos import video_action_transformer_pb2 as vat_pb2

EXTENSION = vat_pb2.video_action_transformer


def attach(
    message: protobuf_message.Message,
    options: vat_pb2.VideoActionTransformer,
    training_label_map_path: str | None = None,
    training_record_patterns: Iterable[str] = (),
) -> None:
    """Puts the options, and what else is given, inside a stock message.

    They replace those that it carried.
    """
    stripped = type(message)()
    stripped.CopyFrom(message)
    stripped.DiscardUnknownFields()
    envelope = vat_pb2.OptionsEnvelope(
        options=options,
        training_label_map_path=training_label_map_path,
        training_record_pattern=training_record_patterns,
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


def training_record_patterns(message: protobuf_message.Message) -> list[str]:
    """The patterns of the training records inside a stock message."""
    envelope = vat_pb2.OptionsEnvelope.FromString(message.SerializeToString())
    return list(envelope.training_record_pattern)


def attach_to_pipeline(pipeline: pipeline_pb2.TrainEvalPipelineConfig) -> None:
    """Puts a pipeline's options inside its model, its input readers and its eval_config.

    A stock `use_bfloat16` becomes an option of ours.

    Args:
        pipeline: of a video model; it is changed.
    """
    options = pipeline.Extensions[EXTENSION]
    if precision(pipeline) == vat_pb2.Compute.BFLOAT16:
        options.compute.precision = vat_pb2.Compute.BFLOAT16
    # The stock loops would set it for all of the process, on TPU: for the region proposal network
    # too, and against our own field.
    pipeline.train_config.ClearField("use_bfloat16")
    training = pipeline.train_input_reader
    attach(
        pipeline.model.faster_rcnn,
        options,
        training.label_map_path or None,
        training.tf_record_input_reader.input_path,
    )
    attach(pipeline.train_input_reader, options)
    attach(pipeline.eval_config, options)
    for reader in pipeline.eval_input_reader:
        attach(reader, options)


def precision(pipeline: pipeline_pb2.TrainEvalPipelineConfig) -> int:
    """The `Compute.Precision` of a pipeline; the stock `use_bfloat16` decides where ours is unset.

    The stock loops read that field on TPU only, and the model builder does not see it.

    Args:
        pipeline: with our options as its extension.
    """
    compute = pipeline.Extensions[EXTENSION].compute
    if compute.HasField("precision"):
        return compute.precision
    wanted = pipeline.train_config.use_bfloat16
    return vat_pb2.Compute.BFLOAT16 if wanted else vat_pb2.Compute.FLOAT32


def set_precision(pipeline: pipeline_pb2.TrainEvalPipelineConfig, name: str) -> None:
    """Sets the precision of a pipeline, whatever its fields say.

    Args:
        pipeline: is changed.
        name: one of `precision.NAMES`.
    """
    compute = pipeline.Extensions[EXTENSION].compute
    compute.precision = vat_pb2.Compute.Precision.Value(name.upper())
    pipeline.train_config.ClearField("use_bfloat16")


def precision_name(pipeline: pipeline_pb2.TrainEvalPipelineConfig) -> str:
    """The precision of a pipeline, one of `precision.NAMES`; see `precision`."""
    return vat_pb2.Compute.Precision.Name(precision(pipeline)).lower()


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
        if options.compute.HasField("precision"):
            # The stock loops have set it to false.
            is_low = options.compute.precision == vat_pb2.Compute.BFLOAT16
            pipeline.train_config.use_bfloat16 = is_low
    return pipeline
