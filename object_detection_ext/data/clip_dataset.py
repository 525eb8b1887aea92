# SPDX-License-Identifier: Apache-2.0
"""The tf.data pipeline of clips; takes the place of the stock `dataset_builder.build`.

The stock one reduces each SequenceExample to single frames. This one uses the stock reader (file
sharding, interleaving, shuffling, repeating) and the stock transformation (augmentation, resizing,
label code) and puts the clip decoder between them, in one of two orders. Where augmentation only
crops, flips and changes colours, it is first drawn without pixels (see clip_window.py); then each
frame is decoded for its part, resized, and stays uint8. Otherwise clips are decoded whole, packed
along the channels, and go through the stock transformation as float images of 3 T channels.

Clips that cannot be decoded are skipped with a counted warning. So are, with a warning for each,
records whose checksum is wrong; in files that are not local, what follows is lost with them.

Shapes: T frames, H W pixels as encoded, h w pixels as the model gets them.
"""

import functools
import logging
import os
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import tensorflow as tf
from object_detection.builders import dataset_builder
from object_detection.core import standard_fields as fields
from object_detection.protos import input_reader_pb2

from object_detection_ext.ava.timestamps import Frame
from object_detection_ext.data import (
    clip_augmentation,
    clip_decoder,
    clip_drawing,
    clip_packing,
    input_check,
    keyframe_exclusion,
    picture_size,
    random_draws,
    record_files,
    stock_transform,
)

_Fields = fields.InputDataFields
# The stock loops' own logger, whose messages they let through.
_log = logging.getLogger("tensorflow")

# Records that are expanded into clips side by side, so that a batch does not hold neighbouring
# keyframes of one long record only.
_RECORDS_INTERLEAVED = 16

# Keyframes that copies of one keyframe are spread over; each is a clip's JPEGs.
_KEYFRAMES_SHUFFLED = 64

# After so many broken clips without a whole one between them, reading is an error.
_MOST_BROKEN_IN_A_ROW = 200

# Records whose frame rate and number of frames are looked at; each is a clip's worth of reading.
_RECORDS_LOOKED_AT = 4

_READ_BUFFER_BYTES = 8 * 1024 * 1024


def build(
    input_reader: input_reader_pb2.InputReader,
    num_frames: int,
    batch_size: int | None = None,
    transform: stock_transform.StockTransform | Callable | None = None,
    input_context: tf.distribute.InputContext | None = None,
    choice: clip_decoder.FrameChoice = clip_decoder.NEIGHBOURS,
    fps: float | None = None,
    excluded: frozenset[Frame] = frozenset(),
    balance: Callable[[Sequence[str]], Sequence[float]] | None = None,
    max_frame_pixels: int = picture_size.MAX_PIXELS,
    drops_unknown_labels: bool = False,
) -> tf.data.Dataset:
    """Builds the dataset of clips for the stock train and eval loops.

    Args:
        input_reader: `train_input_reader` or an `eval_input_reader` of a pipeline.config.
        num_frames: T.
        batch_size: global batch size, or None for single clips.
        transform: from decoded tensors, with the packed clip, to (features, labels). None: the
            decoded tensors themselves.
        input_context: the replica's share of files and batch, given by tf.distribute.
        choice: which frames make a clip.
        fps: frames per second that the records must have; None: any.
        excluded: keyframes to leave out, (video id, seconds), as records name them:
            `video_id,timestamp`. With any, a record that names a keyframe otherwise is an error.
        balance: from the record files to the repeat factors of actions by id (see
            `class_balance`); None: each keyframe once in a pass.
        max_frame_pixels: a frame of more pixels costs its clip, as one that cannot be decoded does.
        drops_unknown_labels: whether rows with labels that the label map does not have are dropped.
            Otherwise they are an error where they are found before reading begins, and reported
            where they are met later.

    Returns:
        A dataset of (features, labels) as the stock builder gives it, with two differences if
        `transform` is a stock one. `image` is uint8, stacked [T h, w, 3], if augmentation allows
        that; else packed and preprocessed, float32 [h, w, 3 T]. `original_image`, which only
        pictures use, holds the clip's middle frame, [h, w, 3].

    Raises:
        RecordFileError: if there is nothing to read, its frame rate is another, or for any other
            fault that `input_check` finds.
        ValueError: if the reader's kind or its label map is missing.
    """
    if input_reader.WhichOneof("input_reader") != "tf_record_input_reader":
        raise ValueError("Clips are read from TFRecords: set tf_record_input_reader.")
    if not input_reader.label_map_path:
        raise ValueError("label_map_path is missing from the input reader.")
    patterns = list(input_reader.tf_record_input_reader.input_path)
    paths = record_files.check_record_files(patterns)
    is_stock = isinstance(transform, stock_transform.StockTransform)
    checked = input_check.check(
        input_check.Reader(
            input_reader,
            paths,
            input_check.Batch.of(batch_size, input_context),
            transform if is_stock else None,
            drops_unknown_labels,
        )
    )
    look = record_files.look_at_records(paths, _RECORDS_LOOKED_AT)
    record_files.check_frame_rate(look, fps)
    record_files.warn_of_repeated_frames(look, *choice.reach(num_frames))
    decoder = clip_decoder.ClipDecoder(
        input_reader.label_map_path,
        num_frames,
        choice,
        max_frame_pixels=max_frame_pixels,
        reports_unknown_labels=not checked.saw_all_records,
        repeat_factors=None if balance is None else balance(paths),
    )
    dataset = _read_records(patterns, _Rescue(paths), input_reader, input_context)
    dataset = _keyframes(dataset, decoder, shuffle=input_reader.shuffle)
    if excluded:
        dataset = keyframe_exclusion.without(dataset, excluded)
    if balance is not None:
        # The copies of a keyframe come one after the other.
        dataset = dataset.shuffle(_KEYFRAMES_SHUFFLED)
    if is_stock:
        build_clips = _draw_then_decode if transform.steps.only_crop_and_flip else _decode_then_draw
        dataset = build_clips(dataset, decoder, transform)
    else:
        dataset = _whole_clips(dataset, decoder)
        if transform is not None:
            dataset = dataset.map(transform, tf.data.AUTOTUNE)
    if checked.picture_size is not None:
        dataset = dataset.map(functools.partial(_checked_size, num_frames, checked.picture_size))
    if batch_size:
        if input_context is not None:
            batch_size = input_context.get_per_replica_batch_size(batch_size)
        is_evaluation = is_stock and not transform.is_training
        dataset = dataset.batch(
            batch_size, drop_remainder=_drops_remainder(input_reader, is_evaluation)
        )
    return dataset.prefetch(input_reader.num_prefetch_batches)


def _drops_remainder(input_reader: input_reader_pb2.InputReader, is_evaluation: bool) -> bool:
    """Whether the clips at the end that do not fill a batch are left out.

    The stock default leaves them out. That loses nothing in training, which reads on, but an
    evaluation would be of fewer clips than there are: it must be asked for, as a TPU may need it.
    """
    if is_evaluation and not input_reader.HasField("drop_remainder"):
        return False
    return input_reader.drop_remainder


def _checked_size(num_frames: int, size: tuple[int, int], features: dict, labels: dict):
    """The same clip, if its frames have the size that all of a batch must have."""
    image = features[_Fields.image]
    rows = tf.shape(image)[0] // (num_frames if image.dtype == tf.uint8 else 1)
    actual = tf.stack([rows, tf.shape(image)[1]])
    fits = tf.debugging.Assert(
        tf.reduce_all(tf.equal(actual, size)),
        [
            "model.faster_rcnn.image_resizer: the clips of a batch must have one shape, but the "
            f"first records' frames are {size[0]} x {size[1]} pixels after resizing, and",
            "another record's are",
            actual,
            "Set pad_to_max_dimension: true in keep_aspect_ratio_resizer, or fixed_shape_resizer, "
            "or a batch_size of 1.",
        ],
    )
    with tf.control_dependencies([fits]):
        return {**features, _Fields.image: tf.identity(image)}, labels


def _read_records(patterns, rescue: "_Rescue", input_reader, input_context) -> tf.data.Dataset:
    """Records as the stock reader orders them: (file name, number in the file, bytes)."""

    def read_file(path):
        path = tf.ensure_shape(tf.numpy_function(_existing, [path], tf.string), [])
        # An error, of a checksum or at the end of a truncated file, ends the file.
        records = tf.data.TFRecordDataset(path, buffer_size=_READ_BUFFER_BYTES)
        records = records.ignore_errors(log_warning=True)
        # How many are then missing is known from the records' lengths; elsewhere than on local
        # disks, one mark asks whether the file is at its end. An empty record is none.
        count = tf.ensure_shape(tf.numpy_function(_count_records, [path], tf.int64), [])
        missing = tf.data.Dataset.from_tensors(b"").repeat(tf.abs(count))
        records = records.concatenate(missing).take(count)

        def rescued(number, record, position):
            record = tf.cond(
                tf.equal(record, b""),
                lambda: tf.numpy_function(rescue.read, [path, number, position], tf.string),
                lambda: record,
            )
            return path, number, tf.ensure_shape(record, [])

        records = records.scan(tf.constant(0, tf.int64), _add_position).enumerate()
        records = records.map(lambda number, record: rescued(number, *record))
        return records.filter(lambda path, number, record: tf.not_equal(record, b""))

    dataset = dataset_builder.read_dataset(
        read_file,
        patterns,
        input_reader,
        filename_shard_fn=dataset_builder.shard_function_for_context(input_context),
    )
    if input_reader.sample_1_of_n_examples > 1:
        dataset = dataset.shard(input_reader.sample_1_of_n_examples, 0)
    return dataset


def _add_position(position: tf.Tensor, record: tf.Tensor):
    """A step of `scan`: gives (record, where it begins in its file if those before are whole)."""
    size = tf.strings.length(record) + record_files.FRAME_BYTES
    return position + tf.cast(size, tf.int64), (record, position)


def _count_records(path: bytes) -> np.int64:
    """Whole records of a local file; -1 for any other, where counting would be slow."""
    path = path.decode()
    count = len(record_files.find_records(path).positions) if os.path.isfile(path) else -1
    return np.int64(count)


class _Rescue:
    """Reads records behind one that TensorFlow stopped at; tells of each damaged one once."""

    def __init__(self, paths: Iterable[str]):
        """Counts the records of all files, if all are local."""
        counts = [_count_records(path.encode()) for path in paths]
        self._total = None if -1 in counts else sum(counts)
        self._told: set[tuple[bytes, int]] = set()

    def read(self, path: bytes, number: np.int64, position: np.int64) -> bytes:
        """Returns a record by its number in the file, nothing if it is damaged or not local.

        Args:
            path: of the file.
            number: of the record.
            position: where the records end that TensorFlow read.
        """
        name, record = path.decode(), None
        if _count_records(path) >= 0:
            start = record_files.find_records(name).positions[number]
            record = record_files.read_record(name, start)
            rest = "the records behind it are read"
        elif position >= tf.io.gfile.stat(name).length:
            return b""
        else:
            rest = "what follows in this file is left out"
        if record is None and (path, number) not in self._told:
            self._told.add((path, number))
            _log.warning(
                "record skipped: record %d of %s is damaged (its checksum is another); %s. Copy "
                "the file again, or convert again.",
                number,
                name,
                rest,
            )
        if len(self._told) == self._total:
            # The dataset repeats: with nothing whole in it, it would never end.
            raise record_files.RecordFileError(
                f"Not one record is whole: all {self._total} are damaged, the last one told in "
                f"{name}. Copy the files again, or convert again."
            )
        return record or b""


def _existing(path: bytes) -> bytes:
    """The path. TensorFlow would try to open a file that is gone for ever."""
    record_files.check_exists(path.decode())
    return path


def _keyframes(dataset, decoder: clip_decoder.ClipDecoder, shuffle: bool) -> tf.data.Dataset:
    """From records to keyframes with their encoded frames: ((file, record, name), keyframe)."""

    def keyframes_of(path, number, record, seed=None):
        return decoder.keyframes(record, seed).map(
            lambda keyframe: ((path, number, keyframe[_Fields.source_id]), keyframe)
        )

    def whole_keyframes_of(*element):
        # Bytes that are no SequenceExample at all fail in keyframes_of. Errors of reading, which
        # would come again and again, are not for this to ignore.
        one = tf.data.Dataset.from_tensors(element)
        return one.flat_map(keyframes_of).ignore_errors(log_warning=True)

    if decoder.draws:
        dataset = random_draws.with_seeds(dataset, "keyframes")
    return dataset.interleave(
        whole_keyframes_of,
        cycle_length=_RECORDS_INTERLEAVED if shuffle else 1,
        num_parallel_calls=tf.data.AUTOTUNE if shuffle else None,
    )


def _whole_clips(dataset, decoder: clip_decoder.ClipDecoder) -> tf.data.Dataset:
    """From keyframes to decoded tensors, with the whole frames packed under `image`."""
    return _skip_broken(_attempt(dataset, decoder.decode_frames, decoder.without_frames))


def _decode_then_draw(
    dataset, decoder: clip_decoder.ClipDecoder, transform: stock_transform.StockTransform
) -> tf.data.Dataset:
    """From keyframes to (features, labels), whatever the augmentation does to pictures.

    Colours are changed first, in whole frames.
    """
    steps = transform.steps
    rewired = transform.rewired(steps.others)

    def draw(clip):
        if steps.on_colours:
            frames = clip_packing.unpack_clips(clip[_Fields.image][tf.newaxis], decoder.num_frames)
            frames = clip_augmentation.change_colours(
                tf.cast(frames[0], tf.float32), steps.on_colours
            )
            clip = {**clip, _Fields.image: clip_packing.pack_clip(frames)}
        features, labels = rewired(clip)
        if _Fields.original_image in features:
            middle = clip_packing.middle_frames(features[_Fields.original_image])
            features = {**features, _Fields.original_image: middle}
        return features, labels

    draw = random_draws.own_stream("augmentation", draw)
    return _whole_clips(dataset, decoder).map(draw, tf.data.AUTOTUNE)


def _draw_then_decode(
    dataset, decoder: clip_decoder.ClipDecoder, transform: stock_transform.StockTransform
) -> tf.data.Dataset:
    """From keyframes to (features, labels), where augmentation only crops, flips and colours.

    Colours are changed last, in the part that was cut out.
    """
    drawing = clip_drawing.Drawing(decoder.num_frames, transform, decoder.max_frame_pixels)

    def size_of(keyframe):
        middle = clip_packing.middle_frame_index(decoder.num_frames)
        return clip_decoder.frame_size(
            keyframe[clip_decoder.ENCODED_FRAMES][middle], decoder.max_frame_pixels
        )

    # A keyframe whose frame has no size goes on, for it is decoding that says so.
    dataset = _attempt(
        dataset,
        lambda keyframe: (keyframe, size_of(keyframe)),
        lambda keyframe: (keyframe, tf.constant([1, 1])),
        log_errors=False,
    )

    def draw(whole, name, sized):
        return name, drawing.draw(*sized)

    draw = random_draws.own_stream("augmentation", draw)
    dataset = dataset.map(draw, tf.data.AUTOTUNE)
    dataset = _skip_broken(_attempt(dataset, drawing.decode, drawing.without_pictures))
    finish = random_draws.own_stream("colours", drawing.finish)
    return dataset.map(finish, tf.data.AUTOTUNE)


def _attempt(
    dataset, function: Callable, stand_in: Callable, log_errors: bool = True
) -> tf.data.Dataset:
    """Applies a function that may fail, in parallel; the order stays.

    Args:
        dataset: of (name, clip).
        function: from a clip to any tensors.
        stand_in: from a clip to what stands for it where the function fails: the same tensors, of
            any size.
        log_errors: whether the function's errors are logged.

    Returns:
        A dataset of (whether the function succeeded, name, tensors).
    """

    def attempt(name, clip):
        # A broken clip ends `done` without an element, and the mark behind it is taken.
        done = tf.data.Dataset.from_tensors((clip,)).map(lambda clip: (True, name, function(clip)))
        mark = tf.data.Dataset.from_tensors((False, name, stand_in(clip)))
        return done.ignore_errors(log_warning=log_errors).concatenate(mark).take(1)

    # One element each: the order stays.
    return dataset.interleave(attempt, num_parallel_calls=tf.data.AUTOTUNE)


def _skip_broken(dataset) -> tf.data.Dataset:
    """From (whole, name, tensors) to the tensors; leaves out what is not whole, and says so."""
    zero = tf.constant(0, tf.int64)
    dataset = dataset.scan((zero, zero), _count_broken)
    dataset = dataset.filter(lambda whole, tensors: whole)
    return dataset.map(lambda whole, tensors: tensors)


def _count_broken(state, element):
    """Warns of a broken clip; gives up when nothing but broken ones come."""
    skipped, in_a_row = state
    whole, (path, number, name), tensors = element
    skipped = tf.where(whole, skipped, skipped + 1)
    in_a_row = tf.where(whole, tf.constant(0, tf.int64), in_a_row + 1)

    def warn():
        text = tf.strings.format(
            "WARNING: clip skipped: a frame of {} (record {} of {}) cannot be decoded, has more "
            "pixels than clip { max_frame_pixels }, or its frames differ in size. Clips skipped "
            "so far: {}",
            (name, number, path, skipped),
        )
        tf.print(text)
        # The dataset repeats: with nothing whole in it, it would never end.
        tf.debugging.Assert(in_a_row < _MOST_BROKEN_IN_A_ROW, ["Only broken clips come.", text])
        return skipped

    with tf.control_dependencies([tf.cond(whole, lambda: skipped, warn)]):
        return (skipped, tf.identity(in_a_row)), (whole, tensors)
