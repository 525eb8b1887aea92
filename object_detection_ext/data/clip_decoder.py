# SPDX-License-Identifier: Apache-2.0
"""From stock SequenceExamples to clips.

A record is a stretch of video as `object_detection.dataset_tools.seq_example_util` writes it: any
number of frames, of which any number is annotated. Each annotated frame (keyframe) gives one clip:
T frames around it, the first and last frame repeated where the record ends. Only the JPEGs of that
clip are decoded, and of these only the part that is wanted.

Shapes: N frames of a record, T frames of a clip, H W pixels, h w pixels of a part, G ground-truth
rows (one per box and action).
"""

import collections
import dataclasses
import logging
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from object_detection.core import standard_fields as fields
from object_detection.data_decoders import tf_sequence_example_decoder
from tf_slim import tfexample_decoder as slim_example_decoder

from object_detection_ext.data import (
    clip_features,
    clip_packing,
    clip_window,
    picture_size,
    random_draws,
)

ENCODED_FRAMES = "clip_encoded_frames"

_Fields = fields.InputDataFields
# The stock loops' own logger, whose messages they let through.
_log = logging.getLogger("tensorflow")

# Pixels around the part of a JPEG that are decoded with it.
_MARGIN = 2


@dataclasses.dataclass(frozen=True)
class FrameChoice:
    """Which frames of a record make a clip, drawn once per clip; all in frames of the record.

    Frame k of the clip is frame `keyframe + jitter + (k - T // 2) * stride`, with the stride drawn
    from `min_stride` to `max_stride` and the jitter from `-max_jitter` to `max_jitter`.
    """

    min_stride: int = 1
    max_stride: int = 1
    max_jitter: int = 0

    @property
    def is_drawn(self) -> bool:
        """Whether clips of the same keyframe can differ."""
        return self.min_stride < self.max_stride or self.max_jitter > 0

    def reach(self, num_frames: int) -> tuple[int, int]:
        """The most frames that a clip of T takes before and behind its keyframe."""
        middle = clip_packing.middle_frame_index(num_frames)
        return (
            middle * self.max_stride + self.max_jitter,
            (num_frames - 1 - middle) * self.max_stride + self.max_jitter,
        )


NEIGHBOURS = FrameChoice()


class _StockDecoder(tf_sequence_example_decoder.TfSequenceExampleDecoder):
    """The stock decoder, which also gives the labels' names."""

    def __init__(self, label_map_path: str):
        super().__init__(label_map_path)
        name = clip_features.LABEL_STRING
        self._items_to_handlers[name] = slim_example_decoder.Tensor(name, default_value="")


class DroppedLabels:
    """Counts the rows that are dropped for their label, and warns at 1, 10, 100, ... of them."""

    def __init__(self, label_map_path: str):
        """Takes the label map, for the warning."""
        self._label_map_path = label_map_path
        self._counts: collections.Counter = collections.Counter()
        self._next = 1

    def reported(self, is_known: tf.Tensor, names: tf.Tensor) -> tf.Tensor:
        """Hands on `is_known`, bool [G]; names, string [G], of other rows are counted first."""

        def count():
            return tf.numpy_function(self.count, [tf.boolean_mask(names, ~is_known)], tf.int64)

        total = tf.cond(tf.reduce_all(is_known), lambda: tf.constant(0, tf.int64), count)
        with tf.control_dependencies([total]):
            return tf.identity(is_known)

    def count(self, names: np.ndarray) -> np.int64:
        """Adds labels, bytes each; returns how many there were so far."""
        self._counts.update(name.decode("utf-8", "backslashreplace") for name in names)
        total = self._counts.total()
        if total >= self._next:
            while self._next <= total:
                self._next *= 10
            texts = [f"{name!r} ({count:,})" for name, count in self._counts.most_common(5)]
            _log.warning(
                "label rows dropped so far: %s. '%s' does not have their labels (with their "
                "rows): %s%s",
                f"{total:,}",
                self._label_map_path,
                ", ".join(texts),
                ", ..." if len(self._counts) > len(texts) else "",
            )
        return np.int64(total)


class ClipDecoder:
    """Decodes records into clips with the keyframe's boxes and actions."""

    def __init__(
        self,
        label_map_path: str,
        num_frames: int,
        choice: FrameChoice = NEIGHBOURS,
        repeat_factors: Sequence[float] | None = None,
        max_frame_pixels: int = picture_size.MAX_PIXELS,
        reports_unknown_labels: bool = False,
    ):
        """Creates the decoder.

        Args:
            label_map_path: label map whose names the records' `region/label/string` hold. Rows
                with another name are dropped (as with AVA's 60-class map on 80-class records).
            num_frames: T.
            choice: which frames around the keyframe these are.
            repeat_factors: by action id, how often a keyframe with the action is wanted in the
                mean, at least 1 (see `class_balance`); None: every keyframe once.
            max_frame_pixels: frames of more pixels are refused before they are decoded.
            reports_unknown_labels: whether a counted warning names the labels of dropped rows.
        """
        self._stock = _StockDecoder(label_map_path)
        self._dropped = DroppedLabels(label_map_path) if reports_unknown_labels else None
        self.num_frames = num_frames
        self.max_frame_pixels = max_frame_pixels
        self._choice = choice
        self._repeat_factors = (
            None if repeat_factors is None else np.asarray(repeat_factors, np.float32)
        )

    @property
    def draws(self) -> bool:
        """Whether `keyframes` needs a seed."""
        return self._choice.is_drawn or self._repeat_factors is not None

    def keyframes(self, record: tf.Tensor, seed: tf.Tensor | None = None) -> tf.data.Dataset:
        """A dataset with one element per keyframe of a serialized SequenceExample.

        Keyframes that are wanted more often come several times, each time with another choice of
        frames.

        Args:
            record: string scalar.
            seed: int64 [2], from which the choice of frames and the number of repeats are drawn;
                needed if the decoder `draws`.

        Elements hold the clip's T frames still encoded, under `ENCODED_FRAMES`, and the keyframe's
        fields as `decode_frames` passes them on.
        """
        sequence = self._stock.decode(record)
        keyframes = tf.where(sequence[_Fields.is_annotated])[:, 0]
        dataset = tf.data.Dataset.from_tensor_slices(keyframes)
        if self._repeat_factors is not None:
            dataset = dataset.flat_map(lambda keyframe: self._copies(sequence, keyframe, seed))
            return dataset.map(lambda *copy: self._keyframe_fields(sequence, *copy))

        def once(keyframe):
            own_seed = None if seed is None else random_draws.fold_in(seed, keyframe)
            return self._keyframe_fields(sequence, keyframe, own_seed)

        return dataset.map(once)

    def _copies(self, sequence: dict, keyframe: tf.Tensor, seed: tf.Tensor) -> tf.data.Dataset:
        """(keyframe, a seed of its own), as often as the keyframe is wanted."""
        seed = random_draws.fold_in(seed, keyframe)
        classes = self._classes(sequence, keyframe)
        factors = tf.gather(self._repeat_factors, tf.boolean_mask(classes, classes > 0))
        up = tf.random.stateless_uniform([], seed)
        count = tf.floor(tf.reduce_max(tf.concat([[1.0], factors], axis=0)) + up)
        return tf.data.Dataset.range(tf.cast(count, tf.int64)).map(
            lambda copy: (keyframe, random_draws.fold_in(seed, copy))
        )

    def _classes(self, sequence: dict, keyframe: tf.Tensor) -> tf.Tensor:
        """The ids of a keyframe's rows; the stock decoder gives -1 to unknown names."""
        num_rows = sequence[_Fields.num_groundtruth_boxes][keyframe]
        return sequence[_Fields.groundtruth_classes][keyframe][:num_rows]

    def _keyframe_fields(self, sequence: dict, keyframe: tf.Tensor, seed) -> dict:
        classes = self._classes(sequence, keyframe)
        num_rows = tf.size(classes)
        is_known = classes > 0
        if self._dropped is not None:
            names = sequence[clip_features.LABEL_STRING][keyframe][:num_rows]
            is_known = self._dropped.reported(is_known, names)
        known = tf.where(is_known)[:, 0]

        def rows(key):
            return tf.gather(sequence[key][keyframe][:num_rows], known)

        return {
            ENCODED_FRAMES: self._clip_frames(sequence[_Fields.image], keyframe, seed),
            _Fields.source_id: sequence[_Fields.source_id][keyframe],
            _Fields.original_image_spatial_shape: sequence[_Fields.original_image_spatial_shape],
            _Fields.groundtruth_boxes: tf.reshape(rows(_Fields.groundtruth_boxes), [-1, 4]),
            _Fields.groundtruth_classes: tf.gather(classes, known),
            _Fields.groundtruth_weights: rows(_Fields.groundtruth_weights),
            _Fields.num_groundtruth_boxes: tf.size(known, out_type=tf.int32),
        }

    def _clip_frames(self, encoded: tf.Tensor, keyframe: tf.Tensor, seed) -> tf.Tensor:
        """The T of N encoded frames around a keyframe, edge frames repeated: [T] strings."""
        offsets = tf.range(self.num_frames, dtype=tf.int64)
        offsets -= clip_packing.middle_frame_index(self.num_frames)
        choice = self._choice
        if choice.min_stride == choice.max_stride:
            offsets *= choice.max_stride
        else:
            offsets *= random_draws.uniform(seed, 0, choice.min_stride, choice.max_stride)
        if choice.max_jitter:
            offsets += random_draws.uniform(seed, 1, -choice.max_jitter, choice.max_jitter)
        last = tf.size(encoded, out_type=tf.int64) - 1
        return tf.ensure_shape(
            tf.gather(encoded, tf.clip_by_value(keyframe + offsets, 0, last)), [self.num_frames]
        )

    def decode_frames(self, keyframe: dict) -> dict:
        """Replaces a keyframe's encoded frames by the packed clip, uint8 [H, W, 3 T].

        Raises:
            tf.errors.InvalidArgumentError: if a frame cannot be decoded or has too many pixels, or
                frames differ in size.
        """
        tensors = dict(keyframe)
        clip = tf.map_fn(
            lambda frame: _decoded(frame, self.max_frame_pixels),
            tensors.pop(ENCODED_FRAMES),
            fn_output_signature=tf.TensorSpec([None, None, 3], tf.uint8),
            parallel_iterations=self.num_frames,
        )  # [T, H, W, 3]
        tensors[_Fields.image] = clip_packing.pack_clip(
            tf.ensure_shape(clip, [self.num_frames, None, None, 3])
        )
        return tensors

    def without_frames(self, keyframe: dict) -> dict:
        """What `decode_frames` gives, with a clip of no pixels: stands for one that is broken."""
        tensors = dict(keyframe)
        del tensors[ENCODED_FRAMES]
        return {**tensors, _Fields.image: tf.zeros([0, 0, 3 * self.num_frames], tf.uint8)}


def frames_around_keyframe(record: tf.Tensor, num_frames: int, stride: int = 1) -> tf.Tensor:
    """The encoded clip around the first annotated frame, or the middle one if none is annotated.

    Needs no label map; for exported models.

    Args:
        record: string scalar, a serialized SequenceExample.
        num_frames: T.
        stride: frames of the record from one frame of the clip to the next.

    Returns:
        string [T]; edge frames are repeated.

    Raises:
        tf.errors.InvalidArgumentError: if it is no SequenceExample, or has no frames.
    """
    _, lists = tf.io.parse_single_sequence_example(
        record,
        sequence_features={
            clip_features.IMAGE_ENCODED: tf.io.FixedLenSequenceFeature([], tf.string),
            clip_features.IS_ANNOTATED: tf.io.FixedLenSequenceFeature(
                [], tf.int64, allow_missing=True
            ),
        },
    )
    encoded = lists[clip_features.IMAGE_ENCODED]
    count = tf.size(encoded, out_type=tf.int64)
    tf.debugging.assert_positive(count, "The SequenceExample has no frames (image/encoded).")
    annotated = tf.where(lists[clip_features.IS_ANNOTATED])[:, 0]
    keyframe = tf.concat([annotated, [count // 2]], axis=0)[0]
    offsets = tf.range(num_frames, dtype=tf.int64) - clip_packing.middle_frame_index(num_frames)
    frames = tf.gather(encoded, tf.clip_by_value(keyframe + offsets * stride, 0, count - 1))
    return tf.ensure_shape(frames, [num_frames])


def frame_size(encoded: tf.Tensor, max_pixels: int = picture_size.MAX_PIXELS) -> tf.Tensor:
    """Height and width of an encoded frame, int32 [2]; it is not decoded.

    Raises:
        tf.errors.InvalidArgumentError: if it is not a picture, or has more than `max_pixels`.
    """
    size = picture_size.header_size(encoded)
    with _checked(size, max_pixels):
        return tf.identity(size)


def _checked(sizes: tf.Tensor, max_pixels: int):
    """A context whose operations run after the check."""
    return tf.control_dependencies([picture_size.check_pixels(sizes, max_pixels)])


def _decoded(encoded: tf.Tensor, max_pixels: int) -> tf.Tensor:
    """A frame, uint8 [H, W, 3], unless it has more than `max_pixels`."""
    with _checked(picture_size.header_size(encoded), max_pixels):
        return tf.io.decode_jpeg(encoded, channels=3)


def decode_whole(encoded: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    """Decodes a frame.

    Args:
        encoded: string scalar: a JPEG, or what else `tf.io.decode_jpeg` takes.
        size: int32 [2], height and width that it must have.

    Returns:
        uint8 [H, W, 3].

    Raises:
        tf.errors.InvalidArgumentError: if it cannot be decoded, or has another size.
    """
    sizes = picture_size.header_size(encoded)[tf.newaxis]
    with tf.control_dependencies([_check_sizes(sizes, size)]):
        return tf.io.decode_jpeg(encoded, channels=3)


class Parts(NamedTuple):
    """T decoded pictures, each uint8 [h, w, 3], that hold a window, and its corner in them."""

    pictures: list[tf.Tensor]
    offset: tf.Tensor


def decode_parts(
    encoded: tf.Tensor,
    size: tf.Tensor,
    window: clip_window.Window,
    num_frames: int,
    max_frame_pixels: int = picture_size.MAX_PIXELS,
) -> Parts:
    """Decodes what a window needs of the frames of a clip.

    Args:
        encoded: string [T]: JPEGs, or what else `tf.io.decode_jpeg` takes.
        size: int32 [2], height and width that whole frames must have.
        window: the part; its flips are not done.
        num_frames: T.
        max_frame_pixels: that whole frames may have.

    Raises:
        tf.errors.InvalidArgumentError: if one cannot be decoded, has too many pixels, or another
            size.
    """
    corner, extent = window.box[:2], window.box[2:]
    frames = tf.unstack(encoded, num_frames)
    # A JPEG's colours are interpolated from coarser ones around: the part's border needs them.
    first = tf.maximum(corner - _MARGIN, 0)
    end = tf.minimum(corner + extent + _MARGIN, size)

    def checks(size_of):
        sizes = tf.stack([size_of(frame) for frame in frames])
        return picture_size.check_pixels(sizes, max_frame_pixels), _check_sizes(sizes, size)

    def from_jpegs():
        with tf.control_dependencies(checks(lambda frame: tf.io.extract_jpeg_shape(frame)[:2])):
            box = tf.concat([first, end - first], axis=0)
            parts = [tf.io.decode_and_crop_jpeg(frame, box, channels=3) for frame in frames]
            return Parts(parts, corner - first)

    def from_others():
        with tf.control_dependencies(checks(picture_size.header_size)):
            return Parts([tf.io.decode_jpeg(frame, channels=3) for frame in frames], corner)

    return tf.cond(tf.reduce_all(picture_size.is_jpeg(encoded)), from_jpegs, from_others)


def cut_out(picture: tf.Tensor, offset: tf.Tensor, window: clip_window.Window) -> tf.Tensor:
    """The window itself out of one of the decoded pictures, flipped: uint8 [h, w, 3]."""
    extent = tf.concat([window.box[2:], [3]], axis=0)
    return clip_window.flip(tf.slice(picture, tf.pad(offset, [[0, 1]]), extent), window)


def _check_sizes(sizes: tf.Tensor, expected: tf.Tensor) -> tf.Operation | None:
    """`sizes` is int32 [n, 2]."""
    return tf.debugging.assert_equal(
        sizes, expected[tf.newaxis], "Frames of a record differ in size."
    )
