# SPDX-License-Identifier: Apache-2.0
"""What a model in training is given: middle frames with people and actions of the ground truth.

Shapes: B clips, H W pixels, G rows of a clip, K classes. Boxes are [ymin, xmin, ymax, xmax],
normalized by the frame with its padding.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf

from object_detection_ext.visualization import panels
from object_detection_ext.visualization import people as people_lib


def draw(
    frames: tf.Tensor,
    boxes: Sequence[tf.Tensor],
    classes: Sequence[tf.Tensor],
    action_names: Mapping[int, str],
) -> tf.Tensor:
    """Draws frames, in a graph too. Not for XLA: it runs in Python.

    Args:
        frames: uint8 [B, H, W, 3].
        boxes: B times float [G, 4]; rows without an area are padding.
        classes: B times float [G, K], k-hot; column k is the id k + 1 of the label map.
        action_names: by id of the label map.

    Returns:
        uint8 [B, H', W', 3].
    """

    def draw_numpy(frames, *rows):
        pictures = [
            _draw_clip(frame, of_boxes, of_classes, action_names)
            for frame, of_boxes, of_classes in zip(
                frames, rows[: len(frames)], rows[len(frames) :], strict=True
            )
        ]
        return panels.stack_pictures(pictures)

    picture = tf.numpy_function(draw_numpy, [frames, *boxes, *classes], tf.uint8)
    return tf.ensure_shape(picture, [len(boxes), None, panels.PANEL_WIDTH, 3])


def _draw_clip(frame, boxes, classes, action_names) -> np.ndarray:
    rows, columns = np.nonzero(classes > 0)
    people = people_lib.group_annotations(boxes[rows], columns + 1)
    return panels.draw_panels(
        [
            panels.Panel(
                "keyframe, ground truth",
                frame,
                panels.number_annotated(people, action_names),
                "nobody is annotated",
            )
        ]
    )
