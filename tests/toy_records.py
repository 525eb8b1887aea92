# SPDX-License-Identifier: Apache-2.0
"""Small toy videos, their conversion, and the records read back without our decoder."""

import pathlib

import numpy as np
import tensorflow as tf

from object_detection_ext.conversion import convert as convert_lib
from object_detection_ext.conversion import options as options_lib
from object_detection_ext.data import clip_features
from object_detection_ext.tools import make_toy_dataset


def make_toy(folder: pathlib.Path, num_train: int = 2) -> pathlib.Path:
    """Makes toy videos of 2.4 s with keyframes at 1 and 2 s; returns the folder."""
    make_toy_dataset.make_dataset(
        folder, num_train=num_train, num_eval=0, seed=1, width=128, height=96, seconds=2.4,
        workers=1,
    )  # fmt: skip
    return folder


def options(toy, prefix, **changes) -> options_lib.Options:
    """Two shards, 8 frames at 12.5 fps, of the toy videos or what `changes` say."""
    values = {
        "output": f"{prefix}@2",
        "annotations": str(toy / "train.csv"),
        "videos": str(toy / "videos"),
        "label_map": str(toy / "label_map.pbtxt"),
        "num_frames": 8,
        "fps": 12.5,
        **{key: str(v) if isinstance(v, pathlib.Path) else v for key, v in changes.items()},
    }
    return options_lib.Options(**values)


def convert(options):
    """Converts in this process, with one worker; returns the manifest."""
    (manifest,) = convert_lib.convert([options], workers=1)
    return manifest


def read(prefix, shards=2) -> dict[str, dict]:
    """Reads records by the source ids of their keyframes: their fields, shard, keyframe's index."""
    context = {
        clip_features.MEDIA_ID: tf.io.FixedLenFeature([], tf.string),
        clip_features.IMAGE_HEIGHT: tf.io.FixedLenFeature([], tf.int64),
        clip_features.IMAGE_WIDTH: tf.io.FixedLenFeature([], tf.int64),
    }
    sequence = {
        clip_features.IMAGE_ENCODED: tf.io.FixedLenSequenceFeature([], tf.string),
        clip_features.IMAGE_TIMESTAMP: tf.io.FixedLenSequenceFeature([], tf.int64),
        clip_features.IMAGE_SOURCE_ID: tf.io.FixedLenSequenceFeature([], tf.string),
        clip_features.IS_ANNOTATED: tf.io.FixedLenSequenceFeature([], tf.int64),
        clip_features.LABEL_STRING: tf.io.RaggedFeature(tf.string),
    }
    for key in (clip_features.BOX_YMIN, clip_features.BOX_XMIN,
                clip_features.BOX_YMAX, clip_features.BOX_XMAX):  # fmt: skip
        sequence[key] = tf.io.RaggedFeature(tf.float32)
    result = {}
    for shard in range(shards):
        path = f"{prefix}-{shard:05d}-of-{shards:05d}"
        for data in tf.data.TFRecordDataset(path):
            parsed = tf.io.parse_single_sequence_example(data, context, sequence)
            fields = {key: value.numpy() for part in parsed[:2] for key, value in part.items()
                      if not isinstance(value, tf.RaggedTensor)}  # fmt: skip
            fields |= {key: value.to_list() for key, value in parsed[1].items()
                       if isinstance(value, tf.RaggedTensor)}  # fmt: skip
            fields["shard"] = shard
            for index in np.flatnonzero(fields[clip_features.IS_ANNOTATED]):
                name = fields[clip_features.IMAGE_SOURCE_ID][index].decode()
                assert name not in result
                result[name] = {**fields, "keyframe": int(index)}
    return result
