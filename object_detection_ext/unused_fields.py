# SPDX-License-Identifier: Apache-2.0
"""Fields of a pipeline.config that are set and have no effect: each is named, none is silent.

The stock messages are older than the stock TF2 loops, which read a part of their fields only, and
clips have no use for some of the rest.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any

from object_detection_ext import options as options_lib
from object_detection_ext import precision
from object_detection_ext.evaluation import ava_evaluator

_MIRRORED = "all replicas take every step together"
_STOCK_TF1 = "only the TF1 loops of the stock API read it"
_EVAL_PICTURES = "evaluation pictures have labels, scores and the ground truth beside them"
_INPUT = "the input pipeline is a tf.data.Dataset, without queues"
_NO_MASKS = "masks are not predicted here"


@dataclasses.dataclass(frozen=True)
class _Unused:
    """A field that nothing reads: why, and values with which that is what was asked for.

    The field's default is one of these values unless `also_default` is set.
    """

    path: str
    why: str
    harmless: tuple = ()
    also_default: bool = False


TRAINING_FIELDS = (
    _Unused(
        "train_config.freeze_variables",
        f"{_STOCK_TF1}: every variable is trained (feature_extractor.batch_norm_trainable: false "
        "keeps the trunk's batch statistics)",
    ),
    _Unused("train_config.update_trainable_variables", f"{_STOCK_TF1}: every variable is trained"),
    _Unused("train_config.bias_grad_multiplier", _STOCK_TF1),
    _Unused("train_config.summarize_gradients", _STOCK_TF1),
    _Unused(
        "train_config.keep_checkpoint_every_n_hours",
        f"{_STOCK_TF1}; the flag --keep_checkpoint_every_n_hours does it",
    ),
    _Unused(
        "train_config.max_number_of_boxes",
        "set it in train_input_reader, where it is read (ground truth beyond it is cut off)",
    ),
    _Unused("train_config.sync_replicas", _MIRRORED, (True,)),
    _Unused("train_config.replicas_to_aggregate", _MIRRORED),
    _Unused("train_config.startup_delay_steps", _MIRRORED, (0.0,)),
    _Unused("train_config.batch_queue_capacity", _INPUT),
    _Unused("train_config.num_batch_queue_threads", _INPUT),
    _Unused("train_config.prefetch_queue_capacity", _INPUT),
    _Unused(
        "train_input_reader.num_epochs", "training ends at num_steps, however often it has seen all"
    ),
)
EVALUATION_FIELDS = (
    _Unused(
        "eval_config.num_examples",
        "every record is evaluated (--sample_1_of_n_eval_examples takes fewer)",
        also_default=True,
    ),
    _Unused("eval_config.max_evals", "every checkpoint that comes within --eval_timeout is"),
    _Unused("eval_config.eval_interval_secs", "a checkpoint is evaluated when it comes"),
    _Unused("eval_config.save_graph", _STOCK_TF1),
    _Unused("eval_config.eval_master", _STOCK_TF1),
    _Unused("eval_config.ignore_groundtruth", "metrics need the ground truth"),
    _Unused("eval_config.use_dummy_loss_in_eval", _STOCK_TF1),
    _Unused("eval_config.eval_instance_masks", _NO_MASKS),
    _Unused(
        "eval_config.visualization_export_dir",
        "pictures go to TensorBoard; report and visualize write files",
    ),
    _Unused("eval_config.keep_image_id_for_visualization_export", "pictures go to TensorBoard"),
    _Unused("eval_config.skip_scores", _EVAL_PICTURES),
    _Unused("eval_config.skip_labels", _EVAL_PICTURES),
    _Unused("eval_config.visualize_groundtruth_boxes", _EVAL_PICTURES, (True,)),
    _Unused("eval_config.groundtruth_box_visualization_color", _EVAL_PICTURES),
)
# Of other metrics than ours.
_OTHER_METRICS = tuple(
    _Unused(f"eval_config.{name}", f"'{ava_evaluator.METRICS_SET}' has no such option")
    for name in (
        "all_metrics_per_category",
        "super_categories",
        "recall_lower_bound",
        "recall_upper_bound",
        "skip_predictions_for_unlabeled_class",
        "parameterized_metric",
        "export_path",
    )
)
MODEL_FIELDS = (
    _Unused("model.faster_rcnn.second_stage_mask_prediction_loss_weight", _NO_MASKS),
    _Unused("model.faster_rcnn.resize_masks", _NO_MASKS),
)
# What `clip_dataset` and the stock code around it read of an input reader.
READER_FIELDS = frozenset(
    {
        "drop_remainder",
        "filenames_shuffle_buffer_size",
        "include_source_id",
        "input_type",  # always SequenceExamples
        "label_map_path",
        "max_number_of_boxes",
        "name",
        "num_epochs",
        "num_prefetch_batches",
        "num_readers",
        "read_block_length",
        "sample_1_of_n_examples",
        "sample_from_datasets_weights",
        "shuffle",
        "shuffle_buffer_size",
        "tf_record_input_reader",
    }
)


def find(
    pipeline: Any,
    *,
    trains: bool,
    evaluates: bool,
    resumed_from: str | None = None,
) -> list[str]:
    """What is set and has no effect, one text each: the field, its value, why.

    Args:
        pipeline: a `TrainEvalPipelineConfig` of a model of clips.
        trains: whether this is about a training.
        evaluates: whether this is about an evaluation, or a training that will be evaluated.
        resumed_from: the checkpoint of `model_dir` that training resumes from, if there is one.
    """
    fields = list(MODEL_FIELDS)
    texts = []
    if trains:
        fields += TRAINING_FIELDS
        texts += _of_reader("train_input_reader", pipeline.train_input_reader)
        texts += _of_resumed_training(pipeline, resumed_from)
    if evaluates:
        fields += EVALUATION_FIELDS
        if set(pipeline.eval_config.metrics_set) == {ava_evaluator.METRICS_SET}:
            fields += _OTHER_METRICS
        texts += _of_eval_readers(pipeline)
    texts += _of_precision(pipeline)
    found = (_of_field(pipeline, field) for field in fields)
    return [text for text in found if text] + texts


def _of_field(pipeline, field: _Unused) -> str | None:
    message, (*parents, name) = pipeline, field.path.split(".")
    for parent in parents:
        if not message.HasField(parent):
            return None
        message = getattr(message, parent)
    value = getattr(message, name)
    descriptor = message.DESCRIPTOR.fields_by_name[name]
    if descriptor.label == descriptor.LABEL_REPEATED:
        return f"{field.path}: {field.why}" if len(value) else None
    if not message.HasField(name) or value in field.harmless:
        return None
    if value == descriptor.default_value and not field.also_default:
        return None
    return f"{field.path}: {_text(descriptor, value)}: {field.why}"


def _text(descriptor, value) -> str:
    if descriptor.cpp_type == descriptor.CPPTYPE_MESSAGE:
        return "{ ... }"
    if descriptor.cpp_type == descriptor.CPPTYPE_BOOL:
        return str(value).lower()
    if descriptor.cpp_type == descriptor.CPPTYPE_ENUM:
        return descriptor.enum_type.values_by_number[value].name
    return f"{value:g}" if isinstance(value, float) else repr(value)


def _of_reader(path: str, reader) -> Iterator[str]:
    for descriptor, value in reader.ListFields():
        if descriptor.is_extension or descriptor.name in READER_FIELDS:
            continue
        is_list = descriptor.label == descriptor.LABEL_REPEATED
        if is_list or value != descriptor.default_value:
            shown = "" if is_list else f" {_text(descriptor, value)}:"
            yield f"{path}.{descriptor.name}:{shown} the reader of clips does not use it"


def _of_eval_readers(pipeline) -> Iterator[str]:
    for index, reader in enumerate(pipeline.eval_input_reader):
        path = "eval_input_reader" + (f"[{index}]" if len(pipeline.eval_input_reader) > 1 else "")
        if index:
            yield f"{path}: only the first eval_input_reader is evaluated"
        else:
            yield from _of_reader(path, reader)


def _of_precision(pipeline) -> Iterator[str]:
    """The stock field where ours says otherwise: ours decides, whatever the work and the device."""
    decides = options_lib.precision_name(pipeline)
    stock = pipeline.train_config
    if stock.HasField("use_bfloat16") and stock.use_bfloat16 != (decides == precision.BFLOAT16):
        yield (
            f"train_config.use_bfloat16: {str(stock.use_bfloat16).lower()}: "
            f"{options_lib.EXTENSION.full_name}.compute.precision says otherwise, and decides: "
            f"{decides.upper()}"
        )


def _of_resumed_training(pipeline, resumed_from: str | None) -> Iterator[str]:
    given = pipeline.train_config.fine_tune_checkpoint
    if given and resumed_from:
        yield (
            f"train_config.fine_tune_checkpoint: '{given}': training resumes from {resumed_from}; "
            "another --model_dir starts from the given checkpoint"
        )
