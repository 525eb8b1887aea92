# SPDX-License-Identifier: Apache-2.0
"""A pipeline and records as small as they can be: 4 frames of 64x64 pixels, 3 actions.

Records are written by the stock `seq_example_util`, JPEGs by Pillow.

Shapes: T frames, H W pixels, K classes.
"""

import collections
import io
import pathlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from google.protobuf import text_format
from object_detection.builders import model_builder
from object_detection.dataset_tools import seq_example_util
from object_detection.protos import pipeline_pb2
from object_detection.utils import config_util
from PIL import Image

NUM_FRAMES = 4
SIZE = 64
NUM_CLASSES = 3
ACTIONS = {1: "stand", 2: "walk", 3: "watch (a person)"}
# A person and an action: [ymin, xmin, ymax, xmax], normalized, and the action's name.
Row = tuple[Sequence[float], str]

CONFIG = """
model {
  faster_rcnn {
    num_classes: 3
    image_resizer { fixed_shape_resizer { height: 64 width: 64 } }
    feature_extractor {
      type: 'faster_rcnn_i3d_keras'
      first_stage_features_stride: 16
      batch_norm_trainable: true
      conv_hyperparams {
        regularizer { l2_regularizer { weight: 1e-5 } }
        initializer { variance_scaling_initializer { factor: 2.0 mode: FAN_IN } }
      }
    }
    first_stage_anchor_generator {
      grid_anchor_generator {
        height: 32 width: 32 height_stride: 16 width_stride: 16
        scales: [0.5, 1.0] aspect_ratios: [0.5, 1.0]
      }
    }
    first_stage_box_predictor_depth: 16
    first_stage_box_predictor_conv_hyperparams {
      op: CONV
      regularizer { l2_regularizer { weight: 1e-5 } }
      initializer { truncated_normal_initializer { stddev: 0.01 } }
    }
    first_stage_minibatch_size: 16
    first_stage_nms_score_threshold: 0.0
    first_stage_nms_iou_threshold: 0.7
    first_stage_max_proposals: 6
    first_stage_localization_loss_weight: 2.0
    first_stage_objectness_loss_weight: 1.0
    initial_crop_size: 14
    maxpool_kernel_size: 2
    maxpool_stride: 2
    second_stage_box_predictor {
      mask_rcnn_box_predictor {
        share_box_across_classes: true
        fc_hyperparams {
          op: FC
          regularizer { l2_regularizer { weight: 1e-5 } }
          initializer { variance_scaling_initializer { factor: 1.0 uniform: true mode: FAN_AVG } }
        }
      }
    }
    second_stage_batch_size: 6
    second_stage_balance_fraction: 0.5
    second_stage_post_processing {
      batch_non_max_suppression {
        score_threshold: 0.0 iou_threshold: 0.5
        max_detections_per_class: 5 max_total_detections: 7
      }
      score_converter: SIGMOID
    }
    second_stage_classification_loss { weighted_sigmoid { } }
    second_stage_localization_loss_weight: 2.0
    second_stage_classification_loss_weight: 1.0
    clip_anchors_to_image: true
  }
}
[object_detection_ext.protos.video_action_transformer] {
  clip { num_frames: 4 }
  trunk { depth_multiplier: 0.1 batch_norm_momentum: 0.9 }
  tx_head { num_heads: 2 num_layers: 1 feature_size: 16 ffn_size: 16 query_channels: 8 }
}
train_config {
  batch_size: 2
  num_steps: 4
  merge_multiple_label_boxes: true
  optimizer {
    momentum_optimizer {
      learning_rate { constant_learning_rate { learning_rate: 0.001 } }
      momentum_optimizer_value: 0.9
    }
    use_moving_average: false
  }
  gradient_clipping_by_norm: 10.0
  data_augmentation_options { random_horizontal_flip { } }
}
train_input_reader {
  shuffle: true
  shuffle_buffer_size: 16
}
eval_config {
  metrics_set: 'ava_detection_metrics'
  metrics_set: 'pascal_voc_detection_metrics'
  batch_size: 1
  num_visualizations: 2
  min_score_threshold: 0.0
}
eval_input_reader {
  shuffle: false
  num_epochs: 1
  max_number_of_boxes: 10
}
"""

# The first 3 convolutions of the trunk, 8, 8 and 19 channels: half as many steps as frames, and a
# cell every 8 pixels.
SHORT_TRUNK = """
model { faster_rcnn {
  feature_extractor { first_stage_features_stride: 8 }
  first_stage_anchor_generator { grid_anchor_generator { height_stride: 8 width_stride: 8 } }
} }
[object_detection_ext.protos.video_action_transformer] {
  trunk { final_endpoint: 'MaxPool3d_3a_3x3' }
}
"""


def parse(text: str) -> pipeline_pb2.TrainEvalPipelineConfig:
    """A pipeline from its text."""
    return text_format.Parse(text, pipeline_pb2.TrainEvalPipelineConfig())


def make_pipeline(
    override: str = "",
    *,
    label_map: pathlib.Path | str | None = None,
    train: pathlib.Path | str | None = None,
    evaluation: pathlib.Path | str | None = None,
) -> pipeline_pb2.TrainEvalPipelineConfig:
    """The tiny pipeline.

    Args:
        override: text that is merged into it (repeated fields are added to).
        label_map: path, for both readers.
        train: pattern of the training records.
        evaluation: pattern of the evaluation records.
    """
    pipeline = parse(CONFIG)
    readers = ((pipeline.train_input_reader, train), (pipeline.eval_input_reader[0], evaluation))
    for reader, pattern in readers:
        if label_map is not None:
            reader.label_map_path = str(label_map)
        if pattern is not None:
            reader.tf_record_input_reader.input_path.append(str(pattern))
    return text_format.Merge(override, pipeline)


def write_pipeline(path: pathlib.Path, override: str = "", **paths) -> pathlib.Path:
    """Writes the tiny pipeline as text; see `make_pipeline`."""
    path.write_text(text_format.MessageToString(make_pipeline(override, **paths)))
    return path


def write_label_map(path: pathlib.Path, actions: Mapping[int, str] = ACTIONS) -> pathlib.Path:
    """Writes a label map."""
    items = [f"item {{ id: {number} name: '{name}' }}\n" for number, name in actions.items()]
    path.write_text("".join(items))
    return path


def build_model(pipeline: pipeline_pb2.TrainEvalPipelineConfig, *, is_training: bool):
    """The pipeline's model as the stock loops build it. Needs `register()`."""
    configs = config_util.create_configs_from_pipeline_proto(pipeline)
    return model_builder.build(configs["model"], is_training=is_training)


def encode_jpeg(pixels: np.ndarray) -> bytes:
    """An uint8 picture [H, W, 3] as JPEG, close to lossless."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=100, subsampling=0)
    return buffer.getvalue()


def encode_png(pixels: np.ndarray) -> bytes:
    """An uint8 picture [H, W, 3] as PNG: without loss, so that results can be compared."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def gray_frames(num_frames: int, *, step: int = 10, size: int = SIZE) -> list[bytes]:
    """JPEGs of one gray level each: frame k is `step * k`, so a level tells its frame."""
    return [
        encode_jpeg(np.full((size, size, 3), step * index, np.uint8)) for index in range(num_frames)
    ]


def make_record(
    frames: Sequence[bytes],
    people: Mapping[int, Sequence[Row]],
    *,
    video_id: str = "video",
    size: int = SIZE,
) -> bytes:
    """A serialized stock SequenceExample.

    Args:
        frames: JPEGs (or what pretends to be).
        people: rows of each annotated frame; a frame that is listed without rows is annotated too.
        video_id: frame k is called 'video_id,k'.
        size: height and width that the record says.
    """
    rows = [list(people.get(index, ())) for index in range(len(frames))]
    return seq_example_util.make_sequence_example(
        dataset_name="test",
        video_id=video_id,
        encoded_images=list(frames),
        image_height=size,
        image_width=size,
        image_format="jpeg",
        image_source_ids=[f"{video_id},{index}" for index in range(len(frames))],
        timestamps=list(range(len(frames))),
        is_annotated=[int(index in people) for index in range(len(frames))],
        bboxes=[[list(box) for box, _ in of_frame] for of_frame in rows],
        label_strings=[[name.encode() for _, name in of_frame] for of_frame in rows],
        use_strs_for_source_id=True,
    ).SerializeToString()


def write_records(path: pathlib.Path, records: Sequence[bytes]) -> pathlib.Path:
    """Writes a TFRecord file."""
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in records:
            writer.write(record)
    return path


class Events(NamedTuple):
    """What an event folder holds, by tag: (step, value) each."""

    scalars: dict[str, list[tuple[int, float]]]
    pictures: dict[str, list[tuple[int, np.ndarray]]]  # values uint8 [H, W, C]


def read_events(folder: pathlib.Path) -> Events:
    """Reads the event files that TensorBoard would."""
    events = Events(collections.defaultdict(list), collections.defaultdict(list))
    for path in sorted(folder.glob("events*")):
        for record in tf.data.TFRecordDataset(str(path)):
            event = tf.compat.v1.Event.FromString(record.numpy())
            for value in event.summary.value:
                kind = value.metadata.plugin_data.plugin_name
                if kind == "scalars":
                    number = float(tf.make_ndarray(value.tensor))
                    events.scalars[value.tag].append((event.step, number))
                elif kind == "images":
                    # Width, height, then the PNGs.
                    for png in value.tensor.string_val[2:]:
                        picture = tf.io.decode_png(png).numpy()
                        events.pictures[value.tag].append((event.step, picture))
    return events
