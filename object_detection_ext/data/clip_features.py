# SPDX-License-Identifier: Apache-2.0
"""The record of one clip: the stock SequenceExample schema, written by the stock writer.

Every record has T frames, of which the one at T // 2 is annotated. The people of that frame stand
there with one box per (person, action), as the stock AVA converter writes them.

Shapes: T frames of a clip, G ground-truth rows (one per box and action).
"""

from collections.abc import Sequence

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


def make_clip_example(
    keyframe: annotations.Keyframe,
    label_map: dict[int, str],
    *,
    encoded_frames: Sequence[bytes],
    frame_times: Sequence[float],
    height: int,
    width: int,
) -> tf.train.SequenceExample:
    """Builds the record of a keyframe.

    Args:
      keyframe: its people; none is fine.
      label_map: names by action id; has every action of the keyframe.
      encoded_frames: T JPEGs; the keyframe is at T // 2.
      frame_times: their T presentation times, in seconds from the start of the video.
      height: of the frames as encoded, in pixels.
      width: of the frames as encoded, in pixels.

    Returns:
      A SequenceExample with timestamps in microseconds. The annotated frame's source id is that of
      the keyframe's annotation; the others tell their own times.
    """
    num_frames = len(encoded_frames)
    middle = num_frames // 2
    boxes: list[list] = [[] for _ in range(num_frames)]
    labels: list[list] = [[] for _ in range(num_frames)]
    boxes[middle] = [list(region.box) for region in keyframe.regions]
    labels[middle] = [label_map[region.action_id].encode() for region in keyframe.regions]
    source_ids = [source_id(keyframe.video_id, round(float(t), 6)) for t in frame_times]
    source_ids[middle] = source_id(keyframe.video_id, keyframe.timestamp)
    return seq_example_util.make_sequence_example(
        dataset_name=DATASET_NAME,
        video_id=keyframe.video_id,
        encoded_images=list(encoded_frames),
        image_height=height,
        image_width=width,
        image_format="jpeg",
        image_source_ids=source_ids,
        timestamps=np.round(np.asarray(frame_times) * _MICROSECONDS).astype(np.int64),
        is_annotated=np.eye(num_frames, dtype=np.int64)[middle],
        bboxes=boxes,
        label_strings=labels,
        use_strs_for_source_id=True,
    )
