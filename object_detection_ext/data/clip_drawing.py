# SPDX-License-Identifier: Apache-2.0
"""Augmentation drawn before the frames are decoded.

`Drawing.draw` lets the stock transformation do everything but pixels: draws, boxes, labels. Its
result tells the part of the frames that is wanted; `Drawing.decode` makes the pixels of it.

Shapes: T frames, H W pixels as encoded, h w pixels as the model gets them.
"""

from typing import NamedTuple

import tensorflow as tf
from object_detection.core import standard_fields as fields
from object_detection.protos import image_resizer_pb2
from object_detection.utils import config_util, shape_utils

from object_detection_ext.data import (
    clip_augmentation,
    clip_decoder,
    clip_packing,
    clip_resizing,
    clip_window,
    picture_size,
    stock_transform,
)

_Fields = fields.InputDataFields


class Drawn(NamedTuple):
    """A clip whose augmentation is drawn.

    `features` and `labels` are the stock ones without pictures; `encoded` are the T frames, `size`
    (int32 [2]) their height and width, `window` the part of them that is wanted.
    """

    features: dict[str, tf.Tensor]
    labels: dict[str, tf.Tensor]
    encoded: tf.Tensor
    size: tf.Tensor
    window: clip_window.Window


class Drawing:
    """The stock transformation in two halves, where it only crops, flips and changes colours."""

    def __init__(
        self,
        num_frames: int,
        transform: stock_transform.StockTransform,
        max_frame_pixels: int = picture_size.MAX_PIXELS,
    ):
        """Creates the two halves.

        Args:
            num_frames: T.
            transform: of the stock input function.
            max_frame_pixels: frames of more pixels are refused before they are decoded.
        """
        self._num_frames = num_frames
        self._max_frame_pixels = max_frame_pixels
        self._transform = transform
        self._steps = transform.steps
        self._resizer = transform.build_resizer()
        self._overshoots = _overshoots(transform.image_resizer)
        size = config_util.get_spatial_image_size(transform.image_resizer)
        self._height, self._width = (None if side == -1 else side for side in size)
        # Evaluation keeps the stock resizer, which an exported model has too.
        self.resizes_bytes = (
            transform.is_training
            and not self._steps.on_colours
            and _is_plain_bilinear(transform.image_resizer)
        )

    def draw(self, keyframe: dict[str, tf.Tensor], size: tf.Tensor) -> Drawn:
        """Runs the stock transformation without pixels.

        Args:
            keyframe: as `ClipDecoder.keyframes` gives it.
            size: int32 [2], H and W.
        """
        tensors = dict(keyframe)
        encoded = tensors.pop(clip_decoder.ENCODED_FRAMES)
        tensors[_Fields.image] = clip_window.coordinate_picture(size)
        windows = []

        def preprocess(pictures):
            # In the place of model.preprocess: what comes here is augmented and not yet resized.
            windows.append(clip_window.read_window(pictures[0]))
            return shape_utils.resize_images_and_return_shapes(pictures, self._resizer)

        features, labels = self._transform.rewired(self._steps.others, preprocess)(tensors)
        features = dict(features)
        del features[_Fields.image]
        shape = features[_Fields.true_image_shape]
        features[_Fields.true_image_shape] = tf.concat([shape[:2], [3 * self._num_frames]], axis=0)
        (window,) = windows
        if self.resizes_bytes:
            labels = self._with_moved_boxes(labels, window)
        return Drawn(features, labels, encoded, size, window)

    def _with_moved_boxes(self, labels: dict, window: clip_window.Window) -> dict:
        boxes = clip_resizing.moved_boxes(
            labels[_Fields.groundtruth_boxes],
            labels[_Fields.num_groundtruth_boxes],
            window.box[2:],
            self._height,
            self._width,
        )
        return {**labels, _Fields.groundtruth_boxes: boxes}

    def decode(self, drawn: Drawn) -> tuple[dict, dict]:
        """(features, labels) with pictures: the clip under `image`.

        It is stacked, uint8 [T h, w, 3], or, if colours are still to be changed (see `finish`),
        the part of each frame that is wanted, uint8 [T, H', W', 3].

        Raises:
            tf.errors.InvalidArgumentError: if a frame cannot be decoded, or frames differ in size.
        """
        pictures = {_Fields.image: self._decode_clip(drawn)}
        if _Fields.original_image in drawn.features:
            middle = drawn.encoded[clip_packing.middle_frame_index(self._num_frames)]
            whole = clip_decoder.decode_whole(middle, drawn.size)
            # Cut off, not rounded: as the stock code does it.
            pictures[_Fields.original_image] = tf.cast(self._resized(whole), tf.uint8)
        return {**drawn.features, **pictures}, drawn.labels

    def without_pictures(self, drawn: Drawn) -> tuple[dict, dict]:
        """What `decode` gives, with pictures of no pixels: stands for a clip that is broken."""
        nothing = tf.zeros([0, 0, 3], tf.uint8)
        frames = nothing[tf.newaxis] if self._steps.on_colours else nothing
        pictures = {_Fields.image: frames}
        if _Fields.original_image in drawn.features:
            pictures[_Fields.original_image] = nothing
        return {**drawn.features, **pictures}, drawn.labels

    def finish(self, features: dict, labels: dict) -> tuple[dict, dict]:
        """Changes the colours of what `decode` gave, where the pipeline does.

        Colours are drawn here, not in `decode`, which stays parallel with a seed that way (see
        `random_draws`).

        Returns:
            (features, labels) with the stacked clip, uint8 [T h, w, 3], and the shapes of pictures
            known as far as the resizer has them.
        """
        if self._steps.on_colours:
            features = {**features, _Fields.image: self._coloured(features[_Fields.image])}
        rows = None if self._height is None else self._num_frames * self._height
        shapes = {
            _Fields.image: [rows, self._width, 3],
            _Fields.original_image: [self._height, self._width, 3],
        }
        return {
            key: tf.ensure_shape(value, shapes[key]) if key in shapes else value
            for key, value in features.items()
        }, labels

    def _decode_clip(self, drawn: Drawn) -> tf.Tensor:
        """The clip as `decode` gives it."""
        window = drawn.window
        parts = clip_decoder.decode_parts(
            drawn.encoded, drawn.size, window, self._num_frames, self._max_frame_pixels
        )
        if self.resizes_bytes:
            return clip_resizing.stacked_clip(parts, window, self._height, self._width)
        pictures = tf.stack(
            [clip_decoder.cut_out(picture, parts.offset, window) for picture in parts.pictures]
        )
        if self._steps.on_colours:
            return pictures
        return clip_packing.stack_frames(self._map(self._finished, pictures))

    def _coloured(self, pictures: tf.Tensor) -> tf.Tensor:
        """From uint8 [T, H', W', 3] to the stacked clip, with other colours."""
        pictures = clip_augmentation.change_colours(
            tf.cast(pictures, tf.float32), self._steps.on_colours
        )
        return clip_packing.stack_frames(self._map(self._finished, pictures))

    def _map(self, function, elements: tf.Tensor) -> tf.Tensor:
        # One by one: parallelism is over clips, and one frame is there as floats at a time.
        return tf.map_fn(
            function,
            elements,
            fn_output_signature=tf.TensorSpec([self._height, self._width, 3], tf.uint8),
            parallel_iterations=1,
        )

    def _resized(self, picture: tf.Tensor) -> tf.Tensor:
        # The resizer is twice as fast on floats.
        return self._resizer(tf.cast(picture, tf.float32))[0]

    def _finished(self, part: tf.Tensor) -> tf.Tensor:
        """A frame's part, any type in [0, 255], as the model gets it: uint8 [h, w, 3]."""
        resized = self._resized(part) + 0.5
        if self._overshoots:
            resized = tf.clip_by_value(resized, 0.0, 255.0)
        return tf.cast(resized, tf.uint8)


def _overshoots(resizer: image_resizer_pb2.ImageResizer) -> bool:
    """Whether resizing can leave [0, 255]."""
    options = getattr(resizer, resizer.WhichOneof("image_resizer_oneof"))
    return getattr(options, "resize_method", None) == image_resizer_pb2.BICUBIC


def _is_plain_bilinear(resizer: image_resizer_pb2.ImageResizer) -> bool:
    """Whether it is what `clip_resizing` does."""
    options = resizer.fixed_shape_resizer
    return (
        resizer.WhichOneof("image_resizer_oneof") == "fixed_shape_resizer"
        and options.resize_method == image_resizer_pb2.BILINEAR
        and not options.convert_to_grayscale
    )
