# SPDX-License-Identifier: Apache-2.0
"""The stock sampling of a fixed number of anchors and proposals, on whole numbers throughout.

The stock code moves indices and boxes through matrix products of floats. GPUs compute these in TF32
by default, TPUs in bfloat16: whole numbers above 2048, or above 256, are then rounded, another
anchor is sampled than the one that was chosen, and boxes move. What is here gives the same on every
device, and what the stock code gives in float32.

Shapes: N boxes, S samples.
"""

import tensorflow as tf
from object_detection.core import balanced_positive_negative_sampler, box_list, box_list_ops


class ExactSampler(balanced_positive_negative_sampler.BalancedPositiveNegativeSampler):
    """The stock sampler with `is_static`, without rounding."""

    def __init__(self, stock: balanced_positive_negative_sampler.BalancedPositiveNegativeSampler):
        """Takes over the options of a stock sampler."""
        super().__init__(stock._positive_fraction, stock._is_static)

    def _get_values_from_start_and_end(
        self, input_tensor, num_start_samples, num_end_samples, total_num_samples
    ):
        """The first and the last entries of a list.

        Args:
            input_tensor: int32 [N].
            num_start_samples: number of entries from the start.
            num_end_samples: number of entries from the end.
            total_num_samples: S, the sum of both, a Python integer.

        Returns:
            int32 [S]; zeros at the end where N is less than S.
        """
        length = tf.shape(input_tensor)[0]
        places = tf.range(length)
        is_taken = (places < num_start_samples) | (places >= length - num_end_samples)
        targets = tf.cumsum(tf.cast(is_taken, tf.int32)) - 1
        # One more segment than there are samples, for all that is not taken.
        segments = tf.where(is_taken, tf.minimum(targets, total_num_samples), total_num_samples)
        sums = tf.math.unsorted_segment_sum(input_tensor, segments, total_num_samples + 1)
        return sums[:total_num_samples]


def boolean_mask(
    boxes: box_list.BoxList,
    indicator: tf.Tensor,
    use_static_shapes: bool = False,
    indicator_sum: int | None = None,
) -> box_list.BoxList:
    """As `box_list_ops.boolean_mask`, without rounding where shapes are static.

    Args:
        boxes: of N boxes.
        indicator: bool [N].
        use_static_shapes: whether the result has a fixed number of boxes.
        indicator_sum: that number, S; at most N.

    Returns:
        The boxes that are indicated; with static shapes followed by copies of the first box of all.
    """
    if not use_static_shapes:
        return box_list_ops.boolean_mask(boxes, indicator)
    # Of equal values the first come first.
    _, places = tf.math.top_k(tf.cast(indicator, tf.int32), indicator_sum)
    count = tf.reduce_sum(tf.cast(indicator, tf.int32))
    places = tf.where(tf.range(indicator_sum) < count, places, 0)
    return box_list_ops.gather(boxes, places)
