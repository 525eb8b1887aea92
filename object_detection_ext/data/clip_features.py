# SPDX-License-Identifier: Apache-2.0
"""The record of a stretch of video: the stock SequenceExample schema.

Every record has N frames, of which any number is annotated (keyframes). The people of a keyframe
stand there with one box per (person, action), as the stock AVA converter writes them.

Records are what `object_detection.dataset_tools.seq_example_util` makes (the tests compare), but
serialized here: those messages come with TensorFlow, whose import would cost each of the
converter's processes seconds and 600 MB.

Shapes: N frames of a record, G ground-truth rows (one per box and action).
"""

import struct
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from object_detection_ext.ava import annotations, timestamps

DATASET_NAME = "AVA"

# Context features.
DATASET = "example/dataset_name"
MEDIA_ID = "clip/media_id"
NUM_FRAMES = "clip/frames"
START_TIMESTAMP = "clip/start/timestamp"
END_TIMESTAMP = "clip/end/timestamp"
IMAGE_CHANNELS = "image/channels"
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


def serialized_example(
    keyframes: Mapping[int, annotations.Keyframe],
    label_map: Mapping[int, str],
    *,
    encoded_frames: Sequence[bytes],
    frame_times: Sequence[float],
    height: int,
    width: int,
) -> bytes:
    """Builds a record, a serialized SequenceExample; the same input gives the same bytes.

    Args:
      keyframes: of one video, by the index of their frame; at least one. Nobody on it is fine.
      label_map: names by action id; has every action of the keyframes.
      encoded_frames: N JPEGs.
      frame_times: their N presentation times, in seconds from the start of the video.
      height: of the frames as encoded, in pixels.
      width: of the frames as encoded, in pixels.

    Returns:
      The record, with timestamps in microseconds. A keyframe's source id is that of its annotation;
      the other frames tell their own times.
    """
    num_frames = len(encoded_frames)
    (video_id,) = {keyframe.video_id for keyframe in keyframes.values()}
    stamps = np.round(np.asarray(frame_times) * _MICROSECONDS).astype(np.int64).tolist()
    source_ids = [timestamps.frame_name(video_id, t) for t in frame_times]
    rows: list[Sequence[annotations.Region]] = [()] * num_frames
    for index, keyframe in keyframes.items():
        source_ids[index] = timestamps.frame_name(video_id, keyframe.timestamp)
        rows[index] = keyframe.regions
    context = {
        DATASET: _bytes([DATASET_NAME.encode()]),
        START_TIMESTAMP: _int64s([stamps[0]]),
        END_TIMESTAMP: _int64s([stamps[-1]]),
        NUM_FRAMES: _int64s([num_frames]),
        IMAGE_CHANNELS: _int64s([3]),
        IMAGE_FORMAT: _bytes([b"jpeg"]),
        IMAGE_HEIGHT: _int64s([height]),
        IMAGE_WIDTH: _int64s([width]),
        MEDIA_ID: _bytes([video_id.encode()]),
    }
    frames = {
        IMAGE_ENCODED: [_bytes([frame]) for frame in encoded_frames],
        IMAGE_TIMESTAMP: [_int64s([stamp]) for stamp in stamps],
        IMAGE_SOURCE_ID: [_bytes([name.encode()]) for name in source_ids],
        IS_ANNOTATED: [_int64s([int(index in keyframes)]) for index in range(num_frames)],
        LABEL_STRING: [_bytes([label_map[r.action_id].encode() for r in of]) for of in rows],
    }
    for side, name in enumerate((BOX_YMIN, BOX_XMIN, BOX_YMAX, BOX_XMAX)):
        frames[name] = [_floats([region.box[side] for region in of]) for of in rows]
    lists = {name: b"".join(_part(1, feature) for feature in of) for name, of in frames.items()}
    return _part(1, _map(context)) + _part(2, _map(lists))


# --- Protobuf's wire format (https://protobuf.dev/programming-guides/encoding) --------------------
# A message is a row of parts: number and type of the field, length, content. Feature lists nest as
# SequenceExample.feature_lists > FeatureLists.feature_list > FeatureList.feature > Feature.


def _varint(value: int) -> bytes:
    """A number of 64 bits, seven to a byte; negative ones as two's complement."""
    value &= (1 << 64) - 1
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def _part(number: int, content: bytes) -> bytes:
    """A field of the type 'length and content' (2): messages, bytes, packed numbers."""
    return b"".join((_varint(number << 3 | 2), _varint(len(content)), content))


def _map(entries: Mapping[str, bytes]) -> bytes:
    """Field 1, a map from text to messages, sorted."""
    return b"".join(
        _part(1, _part(1, key.encode()) + _part(2, entries[key])) for key in sorted(entries)
    )


def _feature(number: int, values: bytes) -> bytes:
    """A Feature with one of its three lists; without any if there are no values."""
    return _part(number, values) if values else b""


def _bytes(values: Iterable[bytes]) -> bytes:
    return _feature(1, b"".join(_part(1, value) for value in values))


def _floats(values: Sequence[float]) -> bytes:
    return _feature(2, _part(1, struct.pack(f"<{len(values)}f", *values)) if values else b"")


def _int64s(values: Iterable[int]) -> bytes:
    return _feature(3, _part(1, b"".join(_varint(value) for value in values)))
