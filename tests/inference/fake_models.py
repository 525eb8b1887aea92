# SPDX-License-Identifier: Apache-2.0
"""Tiny SavedModels that read their answer off the clip's pixels, and videos for them.

Shapes: T frames of a clip, H W pixels, N detections.
"""

import pathlib

import numpy as np
import tensorflow as tf

from object_detection_ext import input_types
from object_detection_ext.visualization import drawing

LABELS = {1: "stand", 3: "hand wave"}
BOX = [0.2, 0.3, 0.8, 0.6]
NEARLY = [0.21, 0.3, 0.8, 0.61]  # the same person
FAR = [0.1, 0.7, 0.5, 0.95]
NUM_FRAMES = 4
FPS = 20.0
# Frame i of the video has this brightness times i.
STEP = 4


class Detector(tf.Module):
    """Scores follow the brightness of the middle frame, so that the right clip must come in."""

    def __init__(self, batch: int | None = None, attention: bool = False):
        super().__init__()
        self._attention = attention
        spec = tf.TensorSpec([batch, NUM_FRAMES, None, None, 3], tf.uint8)
        self.detect = tf.function(self._detect, input_signature=[spec])

    def _detect(self, input_tensor):
        score = tf.reduce_mean(tf.cast(input_tensor[:, 2], tf.float32), axis=[1, 2, 3]) / 255.0
        one = tf.ones_like(score)
        scores = tf.stack([score, 0.9 * score, 0.5 * score, 0.1 * one, 0.95 * one], axis=1)
        boxes = tf.constant([[BOX, NEARLY, FAR, FAR, BOX]])
        count = tf.size(score)
        detections = {
            "detection_boxes": tf.tile(boxes, [count, 1, 1]),
            "detection_scores": scores,
            # The label map does not have 2.
            "detection_classes": tf.tile([[1.0, 3.0, 1.0, 3.0, 2.0]], [count, 1]),
            "detection_multiclass_scores": tf.zeros([count, 5, 4]),
            "num_detections": 5.0 * one,
        }
        if self._attention:
            # [B, N, L, M, t, h, w]: all of row 0 in a corner of the second cell in time, the others
            # uniform.
            corner = tf.one_hot([[[4]]], 8) * tf.ones([count, 1, 1, 1])
            uniform = tf.ones([count, 4, 1, 8]) / 8.0
            weights = tf.concat([corner, uniform], axis=1)
            detections["detection_attention"] = tf.reshape(weights, [count, 5, 1, 1, 2, 2, 2])
        return detections


class ImageModel(tf.Module):
    @tf.function(input_signature=[tf.TensorSpec([1, None, None, 3], tf.uint8)])
    def detect(self, input_tensor):
        return {"detection_boxes": tf.cast(input_tensor, tf.float32)}


class BoxModel(tf.Module):
    """Gives back the boxes it is given; the score is the brightness of the middle frame."""

    def __init__(self, batch: int | None = None, attention: bool = False):
        super().__init__()
        self._attention = attention
        clips = tf.TensorSpec([batch, NUM_FRAMES, None, None, 3], tf.uint8, name="input_tensor")
        boxes = tf.TensorSpec([batch, None, 4], tf.float32, name="boxes")
        self.detect = tf.function(self._detect, input_signature=[clips, boxes])

    def _detect(self, input_tensor, boxes):
        brightness = tf.reduce_mean(tf.cast(input_tensor[:, 2], tf.float32), axis=[1, 2, 3])
        has_area = tf.cast(boxes[..., 2] > boxes[..., 0], tf.float32)
        detections = {
            "detection_boxes": boxes,
            "detection_scores": has_area * brightness[:, tf.newaxis] / 255.0,
            "detection_classes": tf.ones_like(has_area),
            "num_detections": tf.reduce_sum(has_area, axis=1),
        }
        if self._attention:
            shape = tf.concat([tf.shape(has_area), [1, 1, 2, 2, 2]], axis=0)
            detections["detection_attention"] = tf.fill(shape, 1 / 8)
            detections["key_embeddings"] = tf.zeros([tf.shape(boxes)[0], 1, 1, 2, 2, 2, 3])
        return detections


class OpenLengthModel(tf.Module):
    @tf.function(input_signature=[tf.TensorSpec([1, None, None, None, 3], tf.uint8)])
    def detect(self, input_tensor):
        count = tf.cast(tf.shape(input_tensor)[1:2], tf.float32)
        return {
            "detection_boxes": tf.constant([[BOX]]),
            "detection_scores": count[None] / 10.0,
            "detection_classes": tf.constant([[1.0]]),
            "num_detections": tf.constant([1.0]),
        }


def save(module: tf.Module, folder: pathlib.Path, description: dict | None = None) -> str:
    """Writes a SavedModel, with assets as the exporter's if there is a description."""
    tf.saved_model.save(module, str(folder), signatures={"serving_default": module.detect})
    if description is not None:
        (folder / "assets").mkdir(exist_ok=True)
        kind = "clip_and_boxes" if isinstance(module, BoxModel) else "clip_tensor"
        values = {"input_type": kind, "num_frames": NUM_FRAMES, "fps": None,
                  "record_stride": 1, "max_boxes": 5, **description}  # fmt: skip
        text = input_types.ClipDescription(**values).to_json()
        (folder / "assets" / "clip.json").write_text(text)
        write_label_map(folder / "assets" / "label_map.pbtxt")
    return str(folder)


def write_label_map(path: pathlib.Path) -> str:
    """Writes LABELS."""
    path.write_text("".join(f"item {{ name: '{name}' id: {i} }}\n" for i, name in LABELS.items()))
    return str(path)


def frames(count: int = 60, height: int = 48, width: int = 64) -> list[np.ndarray]:
    """Gray frames that get brighter: i times STEP."""
    return [np.full((height, width, 3), STEP * i, np.uint8) for i in range(count)]


def write_video(path: pathlib.Path, count: int = 60) -> str:
    """Writes `frames` at FPS."""
    drawing.write_video(path, iter(frames(count)), FPS)
    return str(path)
