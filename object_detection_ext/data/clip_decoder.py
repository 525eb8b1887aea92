# SPDX-License-Identifier: Apache-2.0
"""From stock SequenceExamples to clips.

A record is a stretch of video as `object_detection.dataset_tools.seq_example_util` writes it: any
number of frames, of which any number is annotated. Each annotated frame (keyframe) gives one clip:
T frames around it, the first and last frame repeated where the record ends. Only the JPEGs of that
clip are decoded, and of these only the part that is wanted.

Shapes: N frames of a record, T frames of a clip, H W pixels, h w pixels of a part, G ground-truth
rows (one per box and action).
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from object_detection.core import standard_fields as fields
from object_detection.data_decoders import tf_sequence_example_decoder

from object_detection_ext.data import clip_features, clip_packing, clip_window, random_draws

ENCODED_FRAMES = "clip_encoded_frames"

_Fields = fields.InputDataFields

# Pixels around the part of a JPEG that are decoded with it.
_MARGIN = 2

_JPEG_START = b"\xff\xd8\xff"


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


class ClipDecoder:
    """Decodes records into clips with the keyframe's boxes and actions."""

    def __init__(
        self,
        label_map_path: str,
        num_frames: int,
        choice: FrameChoice = NEIGHBOURS,
        repeat_factors: Sequence[float] | None = None,
    ):
        """Creates the decoder.

        Args:
            label_map_path: label map whose names the records' `region/label/string` hold. Rows
                with another name are dropped (as with AVA's 60-class map on 80-class records).
            num_frames: T.
            choice: which frames around the keyframe these are.
            repeat_factors: by action id, how often a keyframe with the action is wanted in the
                mean, at least 1 (see `class_balance`); None: every keyframe once.
        """
        self._stock = tf_sequence_example_decoder.TfSequenceExampleDecoder(label_map_path)
        self.num_frames = num_frames
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
        known = tf.where(classes > 0)[:, 0]

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
            tf.errors.InvalidArgumentError: if a frame cannot be decoded, or frames differ in size.
        """
        tensors = dict(keyframe)
        clip = tf.map_fn(
            lambda frame: tf.io.decode_jpeg(frame, channels=3),
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


def frame_size(encoded: tf.Tensor) -> tf.Tensor:
    """Height and width of an encoded frame, int32 [2].

    Raises:
        tf.errors.InvalidArgumentError: if it is none.
    """
    return tf.cond(
        _is_jpeg(encoded),
        lambda: tf.io.extract_jpeg_shape(encoded)[:2],
        lambda: tf.shape(tf.io.decode_jpeg(encoded, channels=3))[:2],
    )


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
    frame = tf.io.decode_jpeg(encoded, channels=3)
    _check_sizes(tf.shape(frame)[tf.newaxis, :2], size)
    return frame


class Parts(NamedTuple):
    """T decoded pictures, each uint8 [h, w, 3], that hold a window, and its corner in them."""

    pictures: list[tf.Tensor]
    offset: tf.Tensor


def decode_parts(
    encoded: tf.Tensor, size: tf.Tensor, window: clip_window.Window, num_frames: int
) -> Parts:
    """Decodes what a window needs of the frames of a clip.

    Args:
        encoded: string [T]: JPEGs, or what else `tf.io.decode_jpeg` takes.
        size: int32 [2], height and width that whole frames must have.
        window: the part; its flips are not done.
        num_frames: T.

    Raises:
        tf.errors.InvalidArgumentError: if one cannot be decoded, or has another size.
    """
    corner, extent = window.box[:2], window.box[2:]
    frames = tf.unstack(encoded, num_frames)
    # A JPEG's colours are interpolated from coarser ones around: the part's border needs them.
    first = tf.maximum(corner - _MARGIN, 0)
    end = tf.minimum(corner + extent + _MARGIN, size)

    def from_jpegs():
        _check_sizes(tf.stack([tf.io.extract_jpeg_shape(frame)[:2] for frame in frames]), size)
        box = tf.concat([first, end - first], axis=0)
        parts = [tf.io.decode_and_crop_jpeg(frame, box, channels=3) for frame in frames]
        return Parts(parts, corner - first)

    def from_others():
        return Parts([decode_whole(frame, size) for frame in frames], corner)

    return tf.cond(tf.reduce_all(_is_jpeg(encoded)), from_jpegs, from_others)


def cut_out(picture: tf.Tensor, offset: tf.Tensor, window: clip_window.Window) -> tf.Tensor:
    """The window itself out of one of the decoded pictures, flipped: uint8 [h, w, 3]."""
    extent = tf.concat([window.box[2:], [3]], axis=0)
    return clip_window.flip(tf.slice(picture, tf.pad(offset, [[0, 1]]), extent), window)


def _check_sizes(sizes: tf.Tensor, expected: tf.Tensor) -> None:
    """`sizes` is int32 [n, 2]."""
    tf.debugging.assert_equal(sizes, expected[tf.newaxis], "Frames of a record differ in size.")


def _is_jpeg(encoded: tf.Tensor) -> tf.Tensor:
    return tf.equal(tf.strings.substr(encoded, 0, len(_JPEG_START)), _JPEG_START)
