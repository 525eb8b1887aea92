# SPDX-License-Identifier: Apache-2.0
"""The tf.data pipeline of clips; takes the place of the stock `dataset_builder.build`.

The stock one reduces each SequenceExample to single frames. This one uses the stock reader (file
sharding, interleaving, shuffling, repeating) and the stock transformation (augmentation, resizing,
padding) and puts the clip decoder between them. Clips that cannot be decoded are skipped with a
counted warning.
"""

import tensorflow as tf
from object_detection.builders import dataset_builder
from object_detection.core import standard_fields as fields
from object_detection.protos import input_reader_pb2

from object_detection_ext.data import clip_decoder, clip_packing, record_files

# Records that are expanded into clips side by side, so that a batch does not hold neighbouring
# keyframes of one long record only.
_RECORDS_INTERLEAVED = 16

# After so many broken clips without a whole one between them, reading is an error.
_MOST_BROKEN_IN_A_ROW = 200

_READ_BUFFER_BYTES = 8 * 1024 * 1024


def build(
    input_reader: input_reader_pb2.InputReader,
    num_frames: int,
    batch_size: int | None = None,
    transform_input_data_fn=None,
    input_context: tf.distribute.InputContext | None = None,
) -> tf.data.Dataset:
    """Builds the dataset of clips for the stock train and eval loops.

    Args:
        input_reader: `train_input_reader` or an `eval_input_reader` of a pipeline.config.
        num_frames: T.
        batch_size: global batch size, or None for single clips.
        transform_input_data_fn: the stock function from decoded tensors to (features, labels).
        input_context: the replica's share of files and batch, given by tf.distribute.

    Returns:
        A dataset of (features, labels) as the stock builder gives it. `original_image`, which only
        pictures use, holds the keyframe, [H, W, 3].

    Raises:
        RecordFileError: if there is nothing to read.
        ValueError: if the reader's kind or its label map is missing.
    """
    if input_reader.WhichOneof("input_reader") != "tf_record_input_reader":
        raise ValueError("Clips are read from TFRecords: set tf_record_input_reader.")
    if not input_reader.label_map_path:
        raise ValueError("label_map_path is missing from the input reader.")
    patterns = list(input_reader.tf_record_input_reader.input_path)
    record_files.check_record_files(patterns)
    decoder = clip_decoder.ClipDecoder(input_reader.label_map_path, num_frames)
    dataset = _read_records(patterns, input_reader, input_context)
    dataset = _decode_clips(dataset, decoder, shuffle=input_reader.shuffle)
    if transform_input_data_fn is not None:
        dataset = dataset.map(transform_input_data_fn, tf.data.AUTOTUNE)
        dataset = dataset.map(_keep_middle_of_original, tf.data.AUTOTUNE)
    if batch_size:
        if input_context is not None:
            batch_size = input_context.get_per_replica_batch_size(batch_size)
        dataset = dataset.batch(batch_size, drop_remainder=input_reader.drop_remainder)
    return dataset.prefetch(input_reader.num_prefetch_batches)


def _read_records(patterns, input_reader, input_context) -> tf.data.Dataset:
    """Records as the stock reader orders them: (file name, number in the file, bytes)."""

    def read_file(path):
        # A truncated file ends with an error; what was whole before it stays.
        records = tf.data.TFRecordDataset(path, buffer_size=_READ_BUFFER_BYTES)
        records = records.ignore_errors(log_warning=True)
        return records.enumerate().map(lambda number, record: (path, number, record))

    dataset = dataset_builder.read_dataset(
        read_file,
        patterns,
        input_reader,
        filename_shard_fn=dataset_builder.shard_function_for_context(input_context),
    )
    if input_reader.sample_1_of_n_examples > 1:
        dataset = dataset.shard(input_reader.sample_1_of_n_examples, 0)
    return dataset


def _decode_clips(dataset, decoder: clip_decoder.ClipDecoder, shuffle: bool) -> tf.data.Dataset:
    """From records to decoded clips; skips what is broken and says so with a running count."""

    def keyframes_of(path, number, record):
        return decoder.keyframes(record).map(lambda keyframe: (path, number, keyframe))

    def decode_or_mark(path, number, keyframe):
        # A broken clip ends `decoded` without an element, and the mark behind it is taken.
        decoded = tf.data.Dataset.from_tensors(keyframe).map(decoder.decode_frames)
        decoded = decoded.map(lambda clip: (True, path, number, clip))
        mark = tf.data.Dataset.from_tensors((False, path, number, decoder.without_frames(keyframe)))
        return decoded.ignore_errors(log_warning=True).concatenate(mark).take(1)

    dataset = dataset.interleave(
        keyframes_of,
        cycle_length=_RECORDS_INTERLEAVED if shuffle else 1,
        num_parallel_calls=tf.data.AUTOTUNE if shuffle else None,
    )
    # Bytes that are no SequenceExample at all fail in keyframes_of.
    dataset = dataset.ignore_errors(log_warning=True)
    # One element each: the order stays.
    dataset = dataset.interleave(decode_or_mark, num_parallel_calls=tf.data.AUTOTUNE)
    zero = tf.constant(0, tf.int64)
    dataset = dataset.scan((zero, zero), _count_broken)
    dataset = dataset.filter(lambda whole, clip: whole)
    return dataset.map(lambda whole, clip: clip)


def _count_broken(state, element):
    """Warns of a broken clip; gives up when nothing but broken ones come."""
    skipped, in_a_row = state
    whole, path, number, clip = element
    skipped = tf.where(whole, skipped, skipped + 1)
    in_a_row = tf.where(whole, tf.constant(0, tf.int64), in_a_row + 1)

    def warn():
        text = tf.strings.format(
            "WARNING: clip skipped: a frame of {} (record {} of {}) cannot be decoded, or its "
            "frames differ in size. Clips skipped so far: {}",
            (clip[fields.InputDataFields.source_id], number, path, skipped),
        )
        tf.print(text)
        # The dataset repeats: with nothing whole in it, it would never end.
        tf.debugging.Assert(in_a_row < _MOST_BROKEN_IN_A_ROW, ["Only broken clips come.", text])
        return skipped

    with tf.control_dependencies([tf.cond(whole, lambda: skipped, warn)]):
        return (skipped, tf.identity(in_a_row)), (whole, clip)


def _keep_middle_of_original(features: dict, labels: dict):
    """Pictures show the keyframe; the whole clip in `original_image` would be carried in vain."""
    key = fields.InputDataFields.original_image
    if key in features:
        features = {**features, key: clip_packing.middle_frames(features[key])}
    return features, labels
