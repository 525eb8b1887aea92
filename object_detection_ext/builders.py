# SPDX-License-Identifier: Apache-2.0
"""From options to built objects. The only reader of our options."""

import contextlib
import functools
import types
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import tensorflow as tf
from object_detection.builders import hyperparams_builder, model_builder
from object_detection.protos import box_predictor_pb2, eval_pb2, faster_rcnn_pb2
from object_detection.utils import label_map_util

from object_detection_ext import compilation, errors, messages, precision, static_shapes
from object_detection_ext import options as options_lib
from object_detection_ext.ava import faults, label_maps, tables, timestamps
from object_detection_ext.data import (
    class_balance,
    clip_dataset,
    clip_decoder,
    record_files,
    record_labels,
    stock_transform,
)
from object_detection_ext.detection import class_weights as class_weights_lib
from object_detection_ext.detection import video_feature_extractor, video_meta_arch
from object_detection_ext.evaluation import frame_ap
from object_detection_ext.heads import (
    combined_head,
    i3d_head,
    location_embedding,
    query_preprocessors,
    tx_head,
)
from object_detection_ext.protos import video_action_transformer_pb2 as vat_pb2
from object_detection_ext.trunks import i3d, pretrained, r3d50, s3dg
from object_detection_ext.trunks.trunk import Trunk

_stock_faster_rcnn_builder = model_builder._build_faster_rcnn_model


# `feature_extractor.type` to the trunk.
TRUNKS: dict[str, Trunk] = {
    "faster_rcnn_i3d_keras": i3d.TRUNK,
    "faster_rcnn_r3d50_keras": r3d50.TRUNK,
    "faster_rcnn_r3d50_non_local_keras": r3d50.NON_LOCAL_TRUNK,
    "faster_rcnn_s3dg_keras": s3dg.TRUNK,
}

# Heads that take over the layers behind the trunk's endpoint.
HEADS_WITH_TAIL = frozenset({"i3d_head", "tx_i3d_head"})


def head_kind(options: vat_pb2.VideoActionTransformer) -> str:
    """Which of the options' heads it is; the Tx head if they name none."""
    return options.WhichOneof("head") or "tx_head"


def final_endpoint(trunk: Trunk, options: vat_pb2.Trunk) -> str:
    """Where the trunk ends."""
    return options.final_endpoint or trunk.default_endpoint


def build_faster_rcnn(
    config: faster_rcnn_pb2.FasterRcnn, is_training: bool, add_summaries: bool
) -> tf.Module:
    """Takes the place of the stock builder of `model.faster_rcnn`.

    Feature extractors that are not ours go to the stock builder untouched. For ours, the stock
    builder does its work too; it only finds our classes where it looks for its own.

    Args:
        config: carries our options inside (see options.py); without them, defaults.
        is_training: as in the stock builder.
        add_summaries: as in the stock builder.
    """
    if config.feature_extractor.type not in TRUNKS:
        return _stock_faster_rcnn_builder(config, is_training, add_summaries)
    options = options_lib.carried_by(config) or vat_pb2.VideoActionTransformer()
    _check_device(options)
    # An evaluation compiles its trunk, whose sizes are fixed as it is.
    if options.compute.xla and (is_training or config.use_static_shapes_for_eval):
        config = _with_static_shapes(config)
    tail = _build_tail(options, config.feature_extractor)
    weights = _class_weights(config, options.class_weights) if is_training else None
    meta_arch = functools.partial(
        _build_meta_arch,
        class_weights=weights,
        action_head=_build_head(options, config.second_stage_box_predictor, tail),
        proposals_from_groundtruth=options.proposals.source == vat_pb2.Proposals.GROUND_TRUTH,
        output_attention=options.outputs.attention,
        output_key_embeddings=options.outputs.key_embeddings,
        picture_every_n_steps=options.summaries.training_picture_every_n_steps,
        picture_label_map_path=options_lib.training_label_map_path(config),
    )
    # A private copy of the stock function: nobody else's names change.
    namespace = dict(_stock_faster_rcnn_builder.__globals__)
    namespace["faster_rcnn_meta_arch"] = types.SimpleNamespace(FasterRCNNMetaArch=meta_arch)
    namespace["_build_faster_rcnn_keras_feature_extractor"] = functools.partial(
        _build_feature_extractor, options, tail
    )
    build = types.FunctionType(_stock_faster_rcnn_builder.__code__, namespace)
    with _keras_policy("float32"):
        return build(config, is_training, add_summaries)


def _is_bfloat16(options: vat_pb2.VideoActionTransformer) -> bool:
    return options.compute.precision == vat_pb2.Compute.BFLOAT16


def _precision_of(
    options: vat_pb2.VideoActionTransformer,
) -> contextlib.AbstractContextManager[None]:
    """Keras layers that are made while this lasts compute in the options' precision."""
    return _keras_policy("mixed_bfloat16" if _is_bfloat16(options) else "float32")


@contextlib.contextmanager
def _keras_policy(name: str) -> Iterator[None]:
    """Keras layers that are made while this lasts have this policy, whatever the program's is."""
    before = tf.keras.mixed_precision.global_policy()
    tf.keras.mixed_precision.set_global_policy(name)
    try:
        yield
    finally:
        tf.keras.mixed_precision.set_global_policy(before)


def _with_static_shapes(config: faster_rcnn_pb2.FasterRcnn) -> faster_rcnn_pb2.FasterRcnn:
    """The config with what compiled steps need; says what that was."""
    config, names = static_shapes.applied(config)
    if names:
        _say_once(f"{static_shapes.OPTION} sets in model.faster_rcnn: {', '.join(names)}")
    return config


def _check_device(options: vat_pb2.VideoActionTransformer) -> None:
    """Warns if it is slow in the options' precision. Raises InputError if it cannot compile."""
    if isinstance(tf.distribute.get_strategy(), tf.distribute.TPUStrategy):
        return
    if _is_bfloat16(options):
        precision.warn_if_slow(tf, messages.say)
    if options.compute.xla:
        compilation.check()


def _build_meta_arch(
    *, class_weights: np.ndarray | None, second_stage_classification_loss, **kwargs
) -> video_meta_arch.VideoActionTransformerMetaArch:
    """The model; `class_weights`, float [K + 1], are those of its second stage's loss."""
    loss = second_stage_classification_loss
    if class_weights is not None:
        loss = class_weights_lib.ClassWeightedLoss(loss, class_weights)
    return video_meta_arch.VideoActionTransformerMetaArch(
        second_stage_classification_loss=loss, **kwargs
    )


def _class_weights(
    config: faster_rcnn_pb2.FasterRcnn, options: vat_pb2.ClassWeights
) -> np.ndarray | None:
    """The weights of background and actions, float32 [K + 1]; None without any.

    Raises:
        InputError: if the label map or the training records that they need are not there.
    """
    if not (options.HasField("inverse_frequency") or options.weight):
        return None
    ids = _action_ids(options_lib.training_label_map_path(config))
    weights, rows = dict.fromkeys(ids, 1.0), None
    if options.HasField("inverse_frequency"):
        patterns = options_lib.training_record_patterns(config)
        keyframes = _count_keyframes(record_files.check_record_files(patterns), ids)
        rows = keyframes.rows_by_action(ids)
        weights = class_weights_lib.inverse_frequency(
            rows, options.inverse_frequency.power, options.inverse_frequency.max_weight
        )
    weights |= {named.name: named.weight for named in options.weight}
    _say_once(class_weights_lib.describe(weights, rows))
    by_id = np.ones(config.num_classes + 1, np.float32)
    for name, weight in weights.items():
        by_id[ids[name]] = weight
    return by_id


def _action_ids(label_map_path: str) -> dict[str, int]:
    if not label_map_path:
        raise errors.InputError(
            "class_weights and class_balance need the names of the actions: set "
            "train_input_reader.label_map_path."
        )
    return label_map_util.get_label_map_dict(label_map_path)


def _count_keyframes(paths: Sequence[str], ids: Mapping[str, int]) -> record_labels.KeyframeActions:
    """The keyframes of the training records.

    Raises:
        InputError: if none has an action of the label map.
    """
    keyframes = record_labels.count_keyframes(paths, messages.say)
    if not any(keyframes.rows_by_action(ids).values()):
        raise errors.InputError(
            f"{paths[0]}{' and the other training records' if len(paths) > 1 else ''}: no keyframe "
            "has an action of the label map, so class_weights and class_balance have nothing to "
            f"count. The label map has: {', '.join(list(ids)[:10])}."
        )
    return keyframes


def _repeat_factors(
    paths: Sequence[str], *, label_map_path: str, options: vat_pb2.ClassBalance
) -> np.ndarray:
    """The factors of actions by id, float32 [greatest id + 1], of the training records."""
    ids = _action_ids(label_map_path)
    factors = class_balance.repeat_factors(
        _count_keyframes(paths, ids), ids, options.threshold, options.max_repeats
    )
    _say_once(factors.table())
    return factors.by_id(ids)


@functools.cache  # models and datasets are built anew for each part of a training
def _say_once(text: str) -> None:
    messages.say(text)


def _build_feature_extractor(
    options: vat_pb2.VideoActionTransformer,
    tail: tf.keras.layers.Layer | None,
    config: faster_rcnn_pb2.FasterRcnnFeatureExtractor,
    is_training: bool,
    inplace_batchnorm_update: bool = False,
) -> video_feature_extractor.VideoFeatureExtractor:
    if inplace_batchnorm_update:
        raise ValueError("inplace_batchnorm_update is not supported in TF2.")
    return video_feature_extractor.VideoFeatureExtractor(
        is_training,
        config.first_stage_features_stride,
        config.batch_norm_trainable,
        build_trunk=functools.partial(_build_trunk, options, config),
        tail=tail,
        num_frames=options.clip.num_frames,
        compiles=options.compute.xla and not is_training,
    )


def _build_trunk(
    options: vat_pb2.VideoActionTransformer, config: faster_rcnn_pb2.FasterRcnnFeatureExtractor
) -> tf.keras.Model:
    trunk = TRUNKS[config.type]
    with _precision_of(options):
        return trunk.build(
            final_endpoint=final_endpoint(trunk, options.trunk),
            **_trunk_kwargs(options.trunk, config),
        )


def _build_tail(
    options: vat_pb2.VideoActionTransformer, config: faster_rcnn_pb2.FasterRcnnFeatureExtractor
) -> tf.keras.layers.Layer | None:
    """The layers behind the trunk's endpoint, for heads that take them over."""
    if head_kind(options) not in HEADS_WITH_TAIL:
        return None
    trunk = TRUNKS[config.type]
    with _precision_of(options):
        return trunk.build_tail(
            endpoint=final_endpoint(trunk, options.trunk), **_trunk_kwargs(options.trunk, config)
        )


def pretrained_variables(config: faster_rcnn_pb2.FasterRcnn) -> pretrained.PretrainedVariables:
    """Fresh variables of what a pretrained checkpoint must hold for this model."""
    options = options_lib.carried_by(config) or vat_pb2.VideoActionTransformer()
    tail = _build_tail(options, config.feature_extractor)
    return pretrained.PretrainedVariables(
        _build_trunk(options, config.feature_extractor), *([] if tail is None else [tail])
    )


def _trunk_kwargs(
    options: vat_pb2.Trunk, config: faster_rcnn_pb2.FasterRcnnFeatureExtractor
) -> dict:
    kwargs = _layer_kwargs(config.conv_hyperparams) if config.HasField("conv_hyperparams") else {}
    return {
        "depth_multiplier": options.depth_multiplier,
        "train_batch_norm": config.batch_norm_trainable,
        "batch_norm_momentum": options.batch_norm_momentum,
        **kwargs,
    }


def _build_head(
    options: vat_pb2.VideoActionTransformer,
    predictor: box_predictor_pb2.BoxPredictor,
    tail: tf.keras.layers.Layer | None,
) -> tf.keras.layers.Layer:
    """The action head; its linear layers follow `fc_hyperparams`."""
    with _precision_of(options):
        return _build_head_layers(options, predictor, tail)


def _build_head_layers(options, predictor, tail) -> tf.keras.layers.Layer:
    layer_kwargs = _layer_kwargs(predictor.mask_rcnn_box_predictor.fc_hyperparams)
    kind = head_kind(options)
    if kind == "i3d_head":
        return i3d_head.I3DHead(tail=tail)
    if kind == "tx_i3d_head":
        return combined_head.TxI3DHead(
            tx_head=_build_tx_head(options.tx_i3d_head.tx_head, layer_kwargs),
            i3d_head=i3d_head.I3DHead(tail=tail),
        )
    return _build_tx_head(options.tx_head, layer_kwargs)


def _build_tx_head(head: vat_pb2.TxHead, layer_kwargs: dict) -> tx_head.TxHead:
    if head.query_preprocessor == vat_pb2.TxHead.LOW_RES:
        query_preprocessor = query_preprocessors.LowResQueryPreprocessor()
    else:
        query_preprocessor = query_preprocessors.HighResQueryPreprocessor(
            reduced_channels=head.query_channels, **layer_kwargs
        )
    embedding = None
    if head.location_embedding.enabled:
        embedding = location_embedding.LocationEmbedding(
            embedding_size=head.location_embedding.embedding_size, **layer_kwargs
        )
    return tx_head.TxHead(
        num_layers=head.num_layers,
        num_heads=head.num_heads,
        feature_size=head.feature_size,
        ffn_size=head.ffn_size,
        dropout_rate=head.dropout_rate,
        query_preprocessor=query_preprocessor,
        location_embedding=embedding,
        **layer_kwargs,
    )


def _layer_kwargs(hyperparams) -> dict:
    """Initializer and regularizer of a stock Hyperparams message."""
    params = hyperparams_builder.KerasLayerHyperparams(hyperparams).params()
    return {key: params[key] for key in ("kernel_initializer", "kernel_regularizer")}


def build_dataset(
    input_reader,
    batch_size=None,
    transform_input_data_fn=None,
    input_context=None,
    reduce_to_frame_fn=None,
    *,
    stock_build: Callable,
) -> tf.data.Dataset:
    """Takes the place of the stock `dataset_builder.build`; other readers go to `stock_build`."""
    options = options_lib.carried_by(input_reader)
    if options is None:
        return stock_build(
            input_reader,
            batch_size=batch_size,
            transform_input_data_fn=transform_input_data_fn,
            input_context=input_context,
            reduce_to_frame_fn=reduce_to_frame_fn,
        )
    transform = stock_transform.open_transform(transform_input_data_fn)
    if transform is not None and not _is_stock_preprocess(transform.preprocess):
        transform = None
    is_training = transform is not None and transform.is_training
    balance = None
    if is_training and options.HasField("class_balance"):
        balance = functools.partial(
            _repeat_factors,
            label_map_path=input_reader.label_map_path,
            options=options.class_balance,
        )
    return clip_dataset.build(
        input_reader,
        num_frames=options.clip.num_frames,
        batch_size=batch_size,
        transform=transform or transform_input_data_fn,
        input_context=input_context,
        choice=frame_choice(options.clip, is_training),
        fps=options.clip.fps if options.clip.HasField("fps") else None,
        excluded=frozenset() if is_training else _excluded_frames(options.evaluation),
        balance=balance,
        max_frame_pixels=options.clip.max_frame_pixels,
        drops_unknown_labels=options.clip.drop_unknown_labels,
    )


def _excluded_frames(evaluation: vat_pb2.Evaluation) -> frozenset[timestamps.Frame]:
    path = evaluation.excluded_timestamps_path
    if not path:
        return frozenset()
    notes = faults.Notes()
    excluded = tables.read_excluded_timestamps(path, notes)
    for line in notes.messages(path):
        messages.say(f"note: {line}")
    return excluded


def evaluator_options(config: eval_pb2.EvalConfig) -> dict:
    """Keywords of `AvaDetectionEvaluator`.

    Args:
        config: carries our options inside; without them, the evaluator's defaults hold.

    Raises:
        InputError: for an unreadable file of label types.
    """
    options = options_lib.carried_by(config)
    if options is None:
        return {}
    evaluation = options.evaluation
    path = evaluation.label_types_path
    return {
        "protocol": vat_pb2.Evaluation.Protocol.Name(evaluation.protocol).lower(),
        "iou_thresholds": iou_thresholds(evaluation),
        "label_types": label_maps.read_label_types(path) if path else None,
        "boxes_given": options.proposals.source == vat_pb2.Proposals.GROUND_TRUTH,
    }


def iou_thresholds(evaluation: vat_pb2.Evaluation) -> tuple[float, ...]:
    """The thresholds at which actions are evaluated."""
    return tuple(evaluation.iou_threshold) or (frame_ap.DEFAULT_IOU_THRESHOLD,)


def _is_stock_preprocess(preprocess: Callable) -> bool:
    """Whether it only resizes, as the config says, and scales colours for our trunks."""
    method = video_meta_arch.VideoActionTransformerMetaArch.preprocess
    return getattr(preprocess, "__func__", None) is method


def frame_choice(clip: vat_pb2.Clip, is_training: bool) -> clip_decoder.FrameChoice:
    """Which frames make a clip. Evaluation draws nothing: its clips are always the same."""
    stride = clip.frame_stride
    if not is_training:
        return clip_decoder.FrameChoice(stride, stride)
    return clip_decoder.FrameChoice(
        clip.min_frame_stride if clip.HasField("min_frame_stride") else stride,
        clip.max_frame_stride if clip.HasField("max_frame_stride") else stride,
        clip.temporal_jitter_frames,
    )
