# SPDX-License-Identifier: Apache-2.0
"""What an exported model takes as its input.

Shapes: T frames, H W pixels, N detections, K classes.
"""

import functools
from collections.abc import Callable

import tensorflow as tf
from object_detection import exporter_lib_v2
from object_detection.protos import pipeline_pb2

from object_detection_ext import errors, pipeline_check
from object_detection_ext import options as options_lib
from object_detection_ext.data import clip_packing

CLIP_TENSOR = "clip_tensor"


class DetectionFromClipModule(exporter_lib_v2.DetectionInferenceModule):
    """Takes a clip, uint8 [1, T, H, W, 3] of any H and W; returns the stock detections.

    `detection_boxes` [1, N, 4] are normalized [ymin, xmin, ymax, xmax];
    `detection_classes` are ids of the label map.
    """

    def __init__(self, detection_model, use_side_inputs=False, zipped_side_inputs=None):
        super().__init__(detection_model, use_side_inputs, zipped_side_inputs)
        num_frames = detection_model.feature_extractor.num_frames
        signature = tf.TensorSpec([1, num_frames, None, None, 3], tf.uint8, name="input_tensor")

        def detect(input_tensor):
            images, true_shapes = self._preprocess_input(input_tensor, clip_packing.pack_clip)
            return self._run_inference_on_images(images, true_shapes)

        self.__call__ = tf.function(detect, input_signature=[signature])


MODULES = {CLIP_TENSOR: DetectionFromClipModule}


def wrap_export(stock_export: Callable) -> Callable:
    """Surrounds `exporter_lib_v2.export_inference_graph`; same arguments."""

    @functools.wraps(stock_export)
    def export_inference_graph(
        input_type,
        pipeline_config: pipeline_pb2.TrainEvalPipelineConfig,
        trained_checkpoint_dir: str,
        output_directory: str,
        *args,
        **kwargs,
    ):
        pipeline_check.check(pipeline_config, "pipeline.config")
        is_video = pipeline_check.is_video_pipeline(pipeline_config)
        if is_video != (input_type in MODULES):
            raise errors.InputError(
                f"input_type '{input_type}' does not fit this model: models of clips take "
                f"{' or '.join(MODULES)}, models of images the stock input types."
            )
        if tf.train.latest_checkpoint(trained_checkpoint_dir) is None:
            raise errors.InputError(f"There is no checkpoint in '{trained_checkpoint_dir}'.")
        pipeline = pipeline_pb2.TrainEvalPipelineConfig()
        pipeline.CopyFrom(pipeline_config)
        if is_video:
            options_lib.attach_to_pipeline(pipeline)
        stock_export(
            input_type, pipeline, trained_checkpoint_dir, output_directory, *args, **kwargs
        )

    return export_inference_graph
