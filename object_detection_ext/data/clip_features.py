# SPDX-License-Identifier: Apache-2.0
"""The record of a stretch of video: the stock SequenceExample schema, written by the stock writer.

Every record has N frames, of which any number is annotated (keyframes). The people of a keyframe
stand there with one box per (person, action), as the stock AVA converter writes them.

Shapes: N frames of a record, G ground-truth rows (one per box and action).
"""

from collections.abc import Mapping, Sequence

from object_detection_ext import compat  # noqa: F401 (before any object_detection module)

# isort: split
import numpy as np
import tensorflow as tf
from object_detection.dataset_tools import seq_example_util

from object_detection_ext.data import annotations

DATASET_NAME = "AVA"

# Context features.
MEDIA_ID = "clip/media_id"
NUM_FRAMES = "clip/frames"
IMAGE_FORMAT = "image/format"
IMAGE_HEIGHT = "image/height"
IMAGE_WIDTH = "image/width"

# Feature lists, one entry per frame.
IMAGE_ENCODED = "image/encoded"
IMAGE_TIMESTAMP = "image/timestamp"
IMAGE_SOURCE_ID = "image/source_id"
IS_ANNOTATED = "region/is_annotated"
LABEL_STRING = "region/label/string"
BOX_YMIN = "region/bbox/ymin"
BOX_XMIN = "region/bbox/xmin"
BOX_YMAX = "region/bbox/ymax"
BOX_XMAX = "region/bbox/xmax"

_MICROSECONDS = 1_000_000


def source_id(video_id: str, seconds: float) -> str:
    """Returns the name of a frame, `video_id,timestamp`, as AVA's CSV rows begin."""
    return f"{video_id},{annotations.format_timestamp(seconds)}"


def make_example(
    keyframes: Mapping[int, annotations.Keyframe],
    label_map: Mapping[int, str],
    *,
    encoded_frames: Sequence[bytes],
    frame_times: Sequence[float],
    height: int,
    width: int,
) -> tf.train.SequenceExample:
    """Builds a record.

    Args:
      keyframes: of one video, by the index of their frame; at least one. Nobody on it is fine.
      label_map: names by action id; has every action of the keyframes.
      encoded_frames: N JPEGs.
      frame_times: their N presentation times, in seconds from the start of the video.
      height: of the frames as encoded, in pixels.
      width: of the frames as encoded, in pixels.

    Returns:
      A SequenceExample with timestamps in microseconds. A keyframe's source id is that of its
      annotation; the other frames tell their own times.
    """
    num_frames = len(encoded_frames)
    (video_id,) = {keyframe.video_id for keyframe in keyframes.values()}
    boxes: list[list] = [[] for _ in range(num_frames)]
    labels: list[list] = [[] for _ in range(num_frames)]
    source_ids = [source_id(video_id, round(float(t), 6)) for t in frame_times]
    for index, keyframe in keyframes.items():
        boxes[index] = [list(region.box) for region in keyframe.regions]
        labels[index] = [label_map[region.action_id].encode() for region in keyframe.regions]
        source_ids[index] = source_id(video_id, keyframe.timestamp)
    return seq_example_util.make_sequence_example(
        dataset_name=DATASET_NAME,
        video_id=video_id,
        encoded_images=list(encoded_frames),
        image_height=height,
        image_width=width,
        image_format="jpeg",
        image_source_ids=source_ids,
        timestamps=np.round(np.asarray(frame_times) * _MICROSECONDS).astype(np.int64),
        is_annotated=[int(index in keyframes) for index in range(num_frames)],
        bboxes=boxes,
        label_strings=labels,
        use_strs_for_source_id=True,
    )
