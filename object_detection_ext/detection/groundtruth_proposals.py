# SPDX-License-Identifier: Apache-2.0
"""Given boxes in the place of the region proposal network's (section 4.2).

Shapes: B clips, G given rows of a clip, R proposals per clip.
"""

import tensorflow as tf


def distinct_boxes(
    boxes: tf.Tensor, weights: tf.Tensor | None, max_boxes: int
) -> tuple[tf.Tensor, tf.Tensor]:
    """The people of a clip, once each, in the order of the rows.

    Ground truth has a row for each person and action wherever the stock input has not merged them,
    and rows of padding.

    Args:
        boxes: float [G, 4], any frame of coordinates; boxes without an area are padding.
        weights: float [G]; rows of weight 0 are padding. None: all ones.
        max_boxes: R; distinct boxes beyond it are cut off.

    Returns:
        float [R, 4], zeros behind the last person; and the number of people, int32 scalar.
    """
    ymin, xmin, ymax, xmax = tf.unstack(boxes, axis=1)
    is_person = (ymax > ymin) & (xmax > xmin)
    if weights is not None:
        is_person &= weights > 0
    rows = tf.range(tf.shape(boxes)[0])
    equal = tf.reduce_all(tf.equal(boxes[:, tf.newaxis], boxes[tf.newaxis]), axis=-1)  # [G, G]
    is_earlier = rows[tf.newaxis] < rows[:, tf.newaxis]
    repeats = tf.reduce_any(equal & is_earlier & is_person[tf.newaxis], axis=1)  # [G]
    keep = is_person & ~repeats
    # Sorting in place of selecting: XLA wants sizes that do not depend on the values.
    order = tf.argsort(tf.cast(keep, tf.int32), direction="DESCENDING", stable=True)
    kept = tf.gather(tf.where(keep[:, tf.newaxis], boxes, 0.0), order)[:max_boxes]
    kept = tf.pad(kept, [[0, max_boxes - tf.shape(kept)[0]], [0, 0]])
    kept.set_shape([max_boxes, 4])
    return kept, tf.minimum(tf.reduce_sum(tf.cast(keep, tf.int32)), max_boxes)


def padded_boxes(boxes: tf.Tensor, max_boxes: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Boxes that the caller of a model gives, as proposals.

    Args:
        boxes: float [B, G, 4], normalized; boxes without an area at the end are padding.
        max_boxes: R.

    Returns:
        float [B, R, 4], zeros behind the last box; and their number, int32 [B].

    Raises:
        tf.errors.InvalidArgumentError: for more boxes than R.
    """
    given = tf.shape(boxes)[1]
    check = tf.debugging.assert_less_equal(
        given, max_boxes, "More boxes than first_stage_max_proposals of the pipeline.config."
    )
    with tf.control_dependencies([check] if check is not None else []):
        padded = tf.pad(boxes, [[0, 0], [0, max_boxes - given], [0, 0]])
    padded.set_shape([boxes.shape[0], max_boxes, 4])
    has_area = (padded[..., 2] > padded[..., 0]) & (padded[..., 3] > padded[..., 1])
    return padded, tf.reduce_max(tf.where(has_area, tf.range(1, max_boxes + 1), 0), axis=1)


def to_padded_image(
    boxes: tf.Tensor, true_image_shapes: tf.Tensor, image_shape: tf.Tensor
) -> tf.Tensor:
    """Boxes [B, R, 4], from normalized by the true image to normalized by the padded one.

    Args:
        boxes: float [B, R, 4].
        true_image_shapes: int32 [B, 3], height and width in pixels before padding first.
        image_shape: int32 [4], of the batch: [B, H, W, channels].
    """
    scale = tf.cast(true_image_shapes[:, :2], tf.float32) / tf.cast(image_shape[1:3], tf.float32)
    return boxes * tf.concat([scale, scale], axis=1)[:, tf.newaxis]
