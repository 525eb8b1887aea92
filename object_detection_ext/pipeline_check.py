# SPDX-License-Identifier: Apache-2.0
"""Looks a pipeline.config through before anything expensive starts.

Each check names the field, its value, and what would be right. Only pipelines with one of our
trunks are checked; stock pipelines are the stock code's matter, but for the names of feature
extractors, where the stock message does not tell what exists.
"""

import contextlib
import difflib
import math
import os
from collections.abc import Callable, Iterator

from object_detection.builders import model_builder
from object_detection.protos import pipeline_pb2, post_processing_pb2
from object_detection.utils import label_map_util

from object_detection_ext import builders, errors, files, listing, static_shapes
from object_detection_ext import options as options_lib
from object_detection_ext.ava import label_maps, tables
from object_detection_ext.data import clip_augmentation
from object_detection_ext.evaluation import ava_evaluator, match_log
from object_detection_ext.protos import video_action_transformer_pb2 as vat_pb2

_EXTENSION_NAME = "[object_detection_ext.protos.video_action_transformer]"

# Augmentations that take the channels for red, green and blue, and why they are not done frame by
# frame. (Those on colours are, see data/clip_augmentation.py.)
_REFUSED_STEPS = {
    "autoaugment_image": "its policies draw for one image",
    "random_black_patches": "its patches have 3 channels",
    "random_jpeg_quality": "it writes one JPEG",
    "subtract_channel_mean": "it takes 3 channels, and the trunk scales colours itself",
}


_NO_SOFTMAX = (
    "a person's scores would sum to 1, as if one action excluded the others, but a person does "
    "several at once (section 3.4)"
)


class PipelineError(errors.InputError):
    """A pipeline.config that cannot work; the message lists every fault that was found."""


def is_video_pipeline(pipeline: pipeline_pb2.TrainEvalPipelineConfig) -> bool:
    """Whether the pipeline's model has one of our trunks."""
    return (
        pipeline.model.WhichOneof("model") == "faster_rcnn"
        and pipeline.model.faster_rcnn.feature_extractor.type in builders.TRUNKS
    )


def check(pipeline: pipeline_pb2.TrainEvalPipelineConfig, source: str) -> None:
    """Checks a pipeline.

    Args:
        pipeline: parsed, with our options as its extension.
        source: where it comes from, for the message.

    Raises:
        PipelineError: with all faults.
    """
    faults = find_faults(pipeline)
    if faults:
        raise PipelineError(f"{source}:\n" + "\n".join(f"  - {fault}" for fault in faults))


def find_faults(pipeline: pipeline_pb2.TrainEvalPipelineConfig) -> list[str]:
    """Returns all faults of a pipeline, one text each: the field, its value, what is right."""
    faults = list(_feature_extractor_faults(pipeline))
    if not faults and is_video_pipeline(pipeline):
        options = pipeline.Extensions[options_lib.EXTENSION]
        for faults_of in (
            _option_faults,
            _trunk_faults,
            _head_faults,
            _model_faults,
            _rare_action_faults,
            _resizer_faults,
            _augmentation_faults,
            _label_map_faults,
            _averages_faults,
            _evaluation_faults,
            _compiled_step_faults,
        ):
            faults.extend(faults_of(pipeline, options))
    return faults


def _feature_extractor_faults(pipeline) -> Iterator[str]:
    if pipeline.model.WhichOneof("model") != "faster_rcnn":
        if pipeline.HasExtension(options_lib.EXTENSION):
            yield f"{_EXTENSION_NAME} belongs to a model of kind faster_rcnn."
        return
    kind = pipeline.model.faster_rcnn.feature_extractor.type
    stock = model_builder.FASTER_RCNN_KERAS_FEATURE_EXTRACTOR_CLASS_MAP
    known = sorted({*builders.TRUNKS, *stock})
    if kind not in known:
        close = difflib.get_close_matches(kind, known, n=3)
        hint = f"Did you mean {' or '.join(close)}?" if close else f"There are: {', '.join(known)}."
        yield f"model.faster_rcnn.feature_extractor.type: '{kind}' does not exist. {hint}"
    elif pipeline.HasExtension(options_lib.EXTENSION) and kind not in builders.TRUNKS:
        yield (
            f"{_EXTENSION_NAME} has no effect on feature_extractor.type '{kind}'; it goes with "
            f"{', '.join(sorted(builders.TRUNKS))}."
        )


def _option_faults(pipeline, options: vat_pb2.VideoActionTransformer) -> Iterator[str]:
    if options.clip.num_frames < 1:
        yield f"{_EXTENSION_NAME}.clip.num_frames: {options.clip.num_frames}; at least 1."
    yield from _clip_faults(options.clip)
    if not options.trunk.depth_multiplier > 0.0:
        yield (
            f"{_EXTENSION_NAME}.trunk.depth_multiplier: {options.trunk.depth_multiplier:g}; it "
            "must be greater than 0."
        )
    if not 0.0 <= options.trunk.batch_norm_momentum < 1.0:
        yield (
            f"{_EXTENSION_NAME}.trunk.batch_norm_momentum: "
            f"{options.trunk.batch_norm_momentum:g}; it must be in [0, 1)."
        )


def _clip_faults(clip: vat_pb2.Clip) -> Iterator[str]:
    if clip.HasField("fps") and not 0.0 < clip.fps < math.inf:
        yield (
            f"{_EXTENSION_NAME}.clip.fps: {clip.fps:g}; frames per second, greater than 0. Take "
            "the field out if it is not known."
        )
    if clip.max_frame_pixels < 1:
        yield (
            f"{_EXTENSION_NAME}.clip.max_frame_pixels: {clip.max_frame_pixels}; at least 1. Take "
            "the field out for the default."
        )
    for field in ("frame_stride", "min_frame_stride", "max_frame_stride"):
        if getattr(clip, field) < 1 and (field == "frame_stride" or clip.HasField(field)):
            yield (
                f"{_EXTENSION_NAME}.clip.{field}: {getattr(clip, field)}; at least 1, which takes "
                "every frame of the record."
            )
    choice = builders.frame_choice(clip, is_training=True)
    if choice.min_stride > choice.max_stride:
        yield (
            f"{_EXTENSION_NAME}.clip.min_frame_stride: {choice.min_stride} is more than "
            f"max_frame_stride, {choice.max_stride}. (What is not set is frame_stride, "
            f"{clip.frame_stride}.)"
        )


def _trunk_faults(pipeline, options: vat_pb2.VideoActionTransformer) -> Iterator[str]:
    kind = pipeline.model.faster_rcnn.feature_extractor.type
    trunk = builders.TRUNKS[kind]
    endpoint = builders.final_endpoint(trunk, options.trunk)
    if endpoint not in trunk.endpoints:
        yield (
            f"{_EXTENSION_NAME}.trunk.final_endpoint: '{endpoint}' does not exist in '{kind}'. "
            f"There are: {', '.join(trunk.endpoints)}."
        )
        return
    yield from _stride_faults(pipeline.model.faster_rcnn, endpoint, trunk.strides(endpoint)[1])
    head = builders.head_kind(options)
    if head not in builders.HEADS_WITH_TAIL or endpoint in trunk.endpoints_with_tail():
        return
    if trunk.endpoints_with_tail():
        yield (
            f"{_EXTENSION_NAME}.trunk.final_endpoint: '{endpoint}' is the last layer of '{kind}', "
            f"but {head} needs layers behind it. It can be: "
            f"{', '.join(trunk.endpoints_with_tail())}."
        )
    else:
        yield (
            f"{_EXTENSION_NAME}.{head}: feature_extractor.type '{kind}' has no layers for it. Set "
            "tx_head, or one of these types: "
            + ", ".join(sorted(k for k, t in builders.TRUNKS.items() if t.endpoints_with_tail()))
            + "."
        )


def _stride_faults(model, endpoint: str, stride: int) -> Iterator[str]:
    anchors = model.first_stage_anchor_generator.grid_anchor_generator
    strides = {
        "feature_extractor.first_stage_features_stride": (
            model.feature_extractor.first_stage_features_stride
        ),
        "first_stage_anchor_generator.grid_anchor_generator.height_stride": anchors.height_stride,
        "first_stage_anchor_generator.grid_anchor_generator.width_stride": anchors.width_stride,
    }
    for field, value in strides.items():
        if value != stride:
            yield (
                f"model.faster_rcnn.{field}: {value}; the trunk's {endpoint} has a cell every "
                f"{stride} pixels."
            )


def _head_faults(pipeline, options: vat_pb2.VideoActionTransformer) -> Iterator[str]:
    kind = builders.head_kind(options)
    if kind == "i3d_head":
        for output in ("attention", "key_embeddings"):
            if getattr(options.outputs, output):
                yield (
                    f"{_EXTENSION_NAME}.outputs.{output}: i3d_head has no attention. Set false, or "
                    "tx_head or tx_i3d_head."
                )
        return
    is_combined = kind == "tx_i3d_head"
    head = options.tx_i3d_head.tx_head if is_combined else options.tx_head
    where = f"{_EXTENSION_NAME}.{'tx_i3d_head.' if is_combined else ''}tx_head"
    yield from _tx_head_faults(head, where)


def _tx_head_faults(head: vat_pb2.TxHead, where: str) -> Iterator[str]:
    at_least_one = {
        "num_heads": head.num_heads,
        "num_layers": head.num_layers,
        "feature_size": head.feature_size,
        "ffn_size": head.ffn_size,
        "query_channels": head.query_channels,
        "location_embedding.embedding_size": head.location_embedding.embedding_size,
    }
    for field, value in at_least_one.items():
        if value < 1:
            yield f"{where}.{field}: {value}; it must be at least 1."
    if not 0.0 <= head.dropout_rate < 1.0:
        yield f"{where}.dropout_rate: {head.dropout_rate:g}; it must be in [0, 1)."
    if head.query_preprocessor == vat_pb2.TxHead.LOW_RES and head.HasField("query_channels"):
        yield (
            f"{where}.query_channels: the LOW_RES query preprocessor has no such layer. Take the "
            "field out, or set query_preprocessor: HIGH_RES."
        )
    embedding = head.location_embedding
    if not embedding.enabled and embedding.HasField("embedding_size"):
        yield (
            f"{where}.location_embedding.embedding_size: the location embedding is not enabled. "
            "Take the field out, or set enabled: true."
        )


def _model_faults(pipeline, options: vat_pb2.VideoActionTransformer) -> Iterator[str]:
    model = pipeline.model.faster_rcnn
    where = "model.faster_rcnn"
    if model.number_of_stages != 2:
        yield f"{where}.number_of_stages: {model.number_of_stages}; this model has 2."
    if model.HasField("context_config"):
        yield f"{where}.context_config: it makes another model, Context R-CNN. Take it out."
    predictor = model.second_stage_box_predictor
    if predictor.WhichOneof("box_predictor_oneof") != "mask_rcnn_box_predictor":
        yield f"{where}.second_stage_box_predictor: set mask_rcnn_box_predictor {{ }}."
    elif (
        predictor.mask_rcnn_box_predictor.predict_instance_masks
        or predictor.mask_rcnn_box_predictor.predict_keypoints
    ):
        yield f"{where}.second_stage_box_predictor: masks and keypoints are not predicted here."
    yield from _loss_faults(model, f"{where}.second_stage_classification_loss")
    converter = model.second_stage_post_processing.score_converter
    if converter != post_processing_pb2.PostProcessing.SIGMOID:
        yield (
            f"{where}.second_stage_post_processing.score_converter: set SIGMOID, as the classes "
            "do not exclude each other."
        )


def _loss_faults(model, where: str) -> Iterator[str]:
    loss = model.second_stage_classification_loss
    kind = loss.WhichOneof("classification_loss")
    right = "set weighted_sigmoid { } or weighted_sigmoid_focal { }"
    if kind is None:
        yield f"{where}: {right}. Without it, the stock code takes softmax: {_NO_SOFTMAX}."
    elif kind in ("weighted_softmax", "weighted_logits_softmax"):
        yield f"{where}.{kind}: {right}. Softmax is refused: {_NO_SOFTMAX}."
    elif kind not in ("weighted_sigmoid", "weighted_sigmoid_focal"):
        yield (
            f"{where}.{kind}: {right}. The stock second stage does not have this loss and takes "
            f"softmax in its place: {_NO_SOFTMAX}."
        )
    if kind == "weighted_sigmoid_focal":
        yield from _focal_faults(loss.weighted_sigmoid_focal, f"{where}.{kind}")
        if model.HasField("hard_example_miner"):
            yield (
                f"{where}.{kind}: it weighs proposals by how hard they are, and so does "
                "model.faster_rcnn.hard_example_miner. Take one of them out."
            )


def _focal_faults(focal, where: str) -> Iterator[str]:
    if not 0.0 <= focal.gamma < math.inf:
        yield f"{where}.gamma: {focal.gamma:g}; at least 0, which is weighted_sigmoid."
    if focal.HasField("alpha") and not 0.0 < focal.alpha < 1.0:
        yield (
            f"{where}.alpha: {focal.alpha:g}; between 0 and 1, without the ends: it is the factor "
            "on actions that a person does, and 1 - alpha on all others. Take the field out for no "
            "factors."
        )


def _rare_action_faults(pipeline, options: vat_pb2.VideoActionTransformer) -> Iterator[str]:
    training = pipeline.train_input_reader
    if options.HasField("class_balance"):
        where, balance = f"{_EXTENSION_NAME}.class_balance", options.class_balance
        if not 0.0 < balance.threshold <= 1.0:
            yield (
                f"{where}.threshold: {balance.threshold:g}; a part of all keyframes, greater than "
                "0 and at most 1."
            )
        if not 1.0 <= balance.max_repeats < math.inf:
            yield f"{where}.max_repeats: {balance.max_repeats:g}; at least 1, where all are equal."
        if not training.shuffle:
            yield (
                f"{where}: a keyframe's repeats come one after the other. Set "
                "train_input_reader.shuffle: true."
            )
    weights = options.class_weights
    where = f"{_EXTENSION_NAME}.class_weights"
    if options.HasField("class_weights") and not (
        weights.HasField("inverse_frequency") or weights.weight
    ):
        yield f"{where}: it says nothing. Set inverse_frequency {{ }} or weight {{ name weight }}."
    frequency = weights.inverse_frequency
    if not 0.0 <= frequency.power < math.inf:
        yield (
            f"{where}.inverse_frequency.power: {frequency.power:g}; at least 0, where all weigh "
            "the same. 1 makes up for the number of rows in full."
        )
    if not 1.0 <= frequency.max_weight < math.inf:
        yield (
            f"{where}.inverse_frequency.max_weight: {frequency.max_weight:g}; at least 1, the mean "
            "weight."
        )
    yield from _named_weight_faults(weights.weight, where, training.label_map_path)


def _named_weight_faults(named, where: str, label_map_path: str) -> Iterator[str]:
    known = None
    if named and label_map_path and files.exists(label_map_path):
        # What is wrong with the file itself is reported elsewhere.
        with contextlib.suppress(Exception):
            known = set(label_map_util.get_label_map_dict(label_map_path))
    seen = set()
    for index, entry in enumerate(named):
        field = f"{where}.weight[{index}]"
        if known is not None and entry.name not in known:
            close = " or ".join(map(repr, difflib.get_close_matches(entry.name, known, n=3)))
            hint = f" Did you mean {close}?" if close else ""
            yield f"{field}.name: '{entry.name}' is not in '{label_map_path}'.{hint}"
        if entry.name in seen:
            yield f"{field}.name: '{entry.name}' has a weight already."
        seen.add(entry.name)
        if not entry.HasField("weight") or not 0.0 <= entry.weight < math.inf:
            given = f"{entry.weight:g}" if entry.HasField("weight") else "missing"
            yield f"{field}.weight: {given}; a number, at least 0. 1 changes nothing."


def _augmentation_faults(pipeline, options) -> Iterator[str]:
    for index, step in enumerate(pipeline.train_config.data_augmentation_options):
        kind = clip_augmentation.kind_of(step)
        where = f"train_config.data_augmentation_options[{index}].{kind}"
        if kind in _REFUSED_STEPS:
            yield (
                f"{where}: it cannot be done to a clip of "
                f"{listing.counted(options.clip.num_frames, 'frame')}: "
                f"{_REFUSED_STEPS[kind]}. Take it out. Flips, crops and scales work on clips, and "
                f"{', '.join(sorted(clip_augmentation.ON_COLOURS))}."
            )
        elif kind is not None and getattr(getattr(step, kind), "pad_color", None):
            yield (
                f"{where}.pad_color: clips are padded with each frame's mean colour. Take the "
                "field out."
            )


def _resizer_faults(pipeline, options) -> Iterator[str]:
    resizer = pipeline.model.faster_rcnn.image_resizer
    kind = resizer.WhichOneof("image_resizer_oneof")
    if kind is not None and getattr(getattr(resizer, kind), "convert_to_grayscale", False):
        yield (
            f"model.faster_rcnn.image_resizer.{kind}.convert_to_grayscale: the trunks take three "
            "colours. Set false; data_augmentation_options { rgb_to_gray { } } trains on gray "
            "clips of three equal colours."
        )


def _label_map_faults(pipeline, options) -> Iterator[str]:
    num_classes = pipeline.model.faster_rcnn.num_classes
    readers = {"train_input_reader": pipeline.train_input_reader}
    for index, reader in enumerate(pipeline.eval_input_reader):
        readers[f"eval_input_reader[{index}]"] = reader
    for name, reader in readers.items():
        # An exporter needs no data: only what is named is checked.
        if reader.label_map_path:
            yield from _faults_of_label_map(f"{name}.label_map_path", reader, num_classes)


def _faults_of_label_map(field: str, reader, num_classes: int) -> Iterator[str]:
    path = reader.label_map_path
    if not files.exists(path):
        yield f"{field}: there is no file '{path}' (from {os.getcwd()})."
        return
    try:
        items = label_map_util.load_labelmap(path).item
    except Exception as error:  # the parser's and the validator's errors have no common base
        yield f"{field}: '{path}' is not a label map: {error}{_stock_hint(path)}"
        return
    nameless = [item.id for item in items if not item.name]
    if nameless:
        yield (
            f"{field}: '{path}' gives the id {nameless[0]} no name ({len(nameless)} such items). "
            "Records are decoded by names, not by display names: write name: in its place."
        )
    is_background = [item.id == 0 and item.name == "background" for item in items]
    items = [item for item, without in zip(items, is_background, strict=True) if not without]
    if not items:
        yield f"{field}: '{path}' has no class."
    outside = [item for item in items if not 1 <= item.id <= num_classes]
    for item in outside[:10]:
        yield (
            f"{field}: '{path}' gives '{item.name}' the id {item.id}, but "
            f"model.faster_rcnn.num_classes is {num_classes}: ids run from 1 to num_classes."
        )


def _stock_hint(path: str) -> str:
    """What else can be said of a label map that the stock API does not read."""
    try:
        notes = label_maps.read(path).notes
    except errors.InputError:
        return ""
    return "".join(f" The stock API does not read it: {note}." for note in notes)


def _averages_faults(pipeline, options: vat_pb2.VideoActionTransformer) -> Iterator[str]:
    del options
    optimizer = pipeline.train_config.optimizer
    if pipeline.eval_config.use_moving_averages and not optimizer.use_moving_average:
        yield (
            "eval_config.use_moving_averages: true, but train_config.optimizer.use_moving_average "
            "is false, so that training keeps no averages to evaluate. Set both alike."
        )


def _evaluation_faults(pipeline, options: vat_pb2.VideoActionTransformer) -> Iterator[str]:
    where, evaluation = f"{_EXTENSION_NAME}.evaluation", options.evaluation
    if not options.HasField("evaluation"):
        return
    if ava_evaluator.METRICS_SET not in pipeline.eval_config.metrics_set:
        yield (
            f"{where}: it has no effect without eval_config.metrics_set: "
            f"'{ava_evaluator.METRICS_SET}'."
        )
    thresholds = list(evaluation.iou_threshold)
    for value in thresholds:
        if not 0.0 < value <= 1.0:
            yield f"{where}.iou_threshold: {value:g}; an overlap, greater than 0 and at most 1."
    if len(set(thresholds)) < len(thresholds) or len(thresholds) > match_log.MOST_THRESHOLDS:
        yield (
            f"{where}.iou_threshold: {thresholds}; at most {match_log.MOST_THRESHOLDS}, each once."
        )
    readers = {
        "excluded_timestamps_path": tables.read_excluded_timestamps,
        "label_types_path": label_maps.read_label_types,
    }
    for field, read in readers.items():
        path = getattr(evaluation, field)
        # An exporter needs no data: as with label maps, only what is named is checked.
        if path:
            yield from _faults_of_file(f"{where}.{field}", path, read)


def _compiled_step_faults(pipeline, options: vat_pb2.VideoActionTransformer) -> Iterator[str]:
    del options
    yield from static_shapes.faults(pipeline)


def _faults_of_file(field: str, path: str, read: Callable) -> Iterator[str]:
    if not os.path.exists(path):
        yield f"{field}: there is no file '{path}' (from {os.getcwd()})."
        return
    try:
        read(path)
    except (errors.InputError, OSError) as error:
        yield f"{field}: {error}"
