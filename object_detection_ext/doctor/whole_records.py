# SPDX-License-Identifier: Apache-2.0
"""What is wrong inside records, each of which is read as a whole.

Shapes: N frames of a record, T frames of a clip, H W pixels.
"""

import dataclasses

import numpy as np
import tensorflow as tf
from google.protobuf import message as protobuf_message

from object_detection_ext.data import clip_features, picture_size, record_contents

# Boxes are written with 32 bits.
_BOX_TOLERANCE = 1e-6


@dataclasses.dataclass
class RecordFaults:
    """The faults of a split's records, one text each, with the file and the record's number.

    Attributes:
      max_frame_pixels: that a frame may have.
      unreadable: not SequenceExamples of clips.
      lists: lists that should be of one length differ.
      keyframes: annotated frames that cannot be decoded.
      pixels: frames with more than `max_frame_pixels`.
      sizes: frames of another size than the rest of their record, or without one.
      boxes: not finite, outside the frame, or without an area.
      without_keyframe: records without an annotated frame.
      with_keyframe: numbers of records with an annotated frame, by file.
      labels: number of rows of each label, with the file of the first.
    """

    max_frame_pixels: int = picture_size.MAX_PIXELS
    unreadable: list[str] = dataclasses.field(default_factory=list)
    lists: list[str] = dataclasses.field(default_factory=list)
    keyframes: list[str] = dataclasses.field(default_factory=list)
    pixels: list[str] = dataclasses.field(default_factory=list)
    sizes: list[str] = dataclasses.field(default_factory=list)
    boxes: list[str] = dataclasses.field(default_factory=list)
    without_keyframe: list[str] = dataclasses.field(default_factory=list)
    with_keyframe: dict[str, int] = dataclasses.field(default_factory=dict)
    labels: dict[str, tuple[int, str]] = dataclasses.field(default_factory=dict)

    def look(self, path: str, number: int, record: bytes) -> None:
        """Looks at one record.

        Args:
          path: of its file.
          number: of the record in the file, from 0.
          record: serialized.
        """
        where = f"{path}, record {number}"
        try:
            example = tf.train.SequenceExample.FromString(record)
            contents = record_contents.examine(example, has_pictures=True)
        except record_contents.ListLengthError as error:
            self.lists.append(f"{where}: {error}")
            return
        except (record_contents.NotAClipError, protobuf_message.DecodeError) as error:
            self.unreadable.append(f"{where}: no SequenceExample of frames ({error})")
            return
        self.with_keyframe[path] = self.with_keyframe.get(path, 0) + bool(contents.keyframes)
        if not contents.keyframes:
            self.without_keyframe.append(where)
        for label, count in contents.labels.items():
            before, first = self.labels.get(label, (0, path))
            self.labels[label] = before + count, first
        self._look_at_pictures(where, example, contents)
        self._look_at_boxes(where, example, contents)

    def _look_at_pictures(self, where: str, example, contents) -> None:
        steps = example.feature_lists.feature_list[clip_features.IMAGE_ENCODED].feature
        frames = [step.bytes_list.value[0] for step in steps]
        sizes = _header_sizes(frames)
        too_large = [
            i for i, size in enumerate(sizes) if size and _pixels(size) > self.max_frame_pixels
        ]
        for index in too_large:
            height, width = sizes[index]
            self.pixels.append(f"{where}, frame {index}: {height} x {width} pixels")
        for index in contents.keyframes:
            if index not in too_large and not _is_decodable(frames[index]):
                self.keyframes.append(f"{where}, frame {index}")
        others = [
            index
            for index, size in enumerate(sizes)
            if size != contents.size and index not in too_large
            and not (size is None and index in contents.keyframes)
        ]  # fmt: skip
        if others:
            size = sizes[others[0]]
            size_there = "of no size" if size is None else f"{size[0]} x {size[1]} pixels"
            self.sizes.append(
                f"{where}: {len(others)} of {len(sizes)} frames are not {contents.size[0]} x "
                f"{contents.size[1]} pixels as its header says (frame {others[0]} is {size_there})"
            )

    def _look_at_boxes(self, where: str, example, contents) -> None:
        lists = example.feature_lists.feature_list
        if clip_features.BOX_YMIN not in lists:
            return
        for keyframe in contents.keyframes:
            ymin, xmin, ymax, xmax = (
                np.array(lists[name].feature[keyframe].float_list.value)
                for name in record_contents.BOX_SIDES
            )
            boxes = np.stack([ymin, xmin, ymax, xmax], axis=1)
            for row, box in enumerate(boxes):
                problem = _problem_of_box(box)
                if problem:
                    numbers = ", ".join(f"{side:.4g}" for side in box)
                    self.boxes.append(
                        f"{where}, frame {keyframe}, row {row}: [{numbers}] {problem}"
                    )


def _problem_of_box(box: np.ndarray) -> str | None:
    """What is wrong with a box, normalized [ymin, xmin, ymax, xmax]."""
    if not np.isfinite(box).all():
        return "is not finite"
    if box.min() < -_BOX_TOLERANCE or box.max() > 1.0 + _BOX_TOLERANCE:
        return "leaves the frame"
    if not (box[0] < box[2] and box[1] < box[3]):
        return "has no area"
    return None


def _pixels(size: tuple[int, int]) -> int:
    return size[0] * size[1]


@tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
def _sizes_of_whole(frames: tf.Tensor) -> tf.Tensor:
    return tf.map_fn(
        picture_size.header_size, frames, fn_output_signature=tf.TensorSpec([2], tf.int32)
    )


def _header_sizes(frames: list[bytes]) -> list[tuple[int, int] | None]:
    """Height and width of each frame by its header; None where there is none."""
    try:
        sizes = _sizes_of_whole(tf.constant(frames, tf.string))
        return [(int(height), int(width)) for height, width in sizes.numpy()]
    except tf.errors.InvalidArgumentError:
        # One of them is broken, and each costs the others theirs.
        return [_header_sizes([frame])[0] if len(frames) > 1 else None for frame in frames]


def _is_decodable(encoded: bytes) -> bool:
    try:
        tf.io.decode_jpeg(encoded, channels=3)
    except tf.errors.InvalidArgumentError:
        return False
    return True
