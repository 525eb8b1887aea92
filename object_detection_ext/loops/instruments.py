# SPDX-License-Identifier: Apache-2.0
"""Makes the stock training step report: batch arrived, step done, its losses, its clips.

The reports leave the graph as calls of Python functions: several steps run in one call of the stock
loop's function, and the loop itself sees the losses of the last one only.

Shapes: B clips of a replica, L loss terms.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Protocol

import numpy as np
import tensorflow as tf
from object_detection import inputs, model_lib_v2


class Receiver(Protocol):
    """Takes the reports, in TensorFlow's threads."""

    def arrive(self, replica: int) -> None:
        """A batch has arrived; the step begins when this returns."""

    def finish_step(
        self, replica: int, step: int, losses: dict[str, float], weights: float, hashes: np.ndarray
    ) -> None:
        """A step is done.

        Args:
            replica: 0, 1, ...
            step: steps done, with this one.
            losses: this replica's part of each term; the sum over replicas is the loss.
            weights: root mean square of the trainable variables after the step.
            hashes: int [B], of the clips' names as the stock inputs make them.
        """


@contextlib.contextmanager
def installed(receiver: Receiver) -> Iterator[None]:
    """Has the stock train loop's steps report while this lasts."""
    stock_step = model_lib_v2.eager_train_step
    model_lib_v2.eager_train_step = _reporting(stock_step, receiver)
    try:
        yield
    finally:
        model_lib_v2.eager_train_step = stock_step


def _reporting(stock_step: Callable, receiver: Receiver) -> Callable:
    @functools.wraps(stock_step)
    def eager_train_step(
        detection_model,
        features,
        labels,
        unpad_groundtruth_tensors,
        optimizer,
        training_step,
        **kwargs,
    ):
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        hashes = features[inputs.HASH_KEY]

        def arrive(replica, hashes):
            receiver.arrive(int(replica))
            return np.int32(0)

        arrived = tf.numpy_function(arrive, [replica, hashes], tf.int32)
        with tf.control_dependencies([arrived]):
            features, labels = tf.nest.map_structure(tf.identity, (features, labels))
        losses = stock_step(
            detection_model,
            features,
            labels,
            unpad_groundtruth_tensors,
            optimizer,
            training_step=training_step,
            **kwargs,
        )
        names = sorted(losses)

        def finish_step(replica, step, values, weights, hashes):
            terms = dict(zip(names, values.tolist(), strict=True))
            receiver.finish_step(int(replica), int(step) + 1, terms, float(weights), hashes)
            return np.int32(0)

        values = tf.stack([tf.cast(losses[name], tf.float32) for name in names])
        weights = _root_mean_square(detection_model.trainable_variables)
        step = tf.convert_to_tensor(training_step)
        tf.numpy_function(finish_step, [replica, step, values, weights, hashes], tf.int32)
        return losses

    return eager_train_step


def _root_mean_square(variables) -> tf.Tensor:
    """Of all elements, float32; one kernel for each variable."""
    squares = [tf.cast(tf.nn.l2_loss(tf.convert_to_tensor(v)), tf.float32) for v in variables]
    count = sum(v.shape.num_elements() for v in variables)
    return tf.sqrt(2.0 * tf.add_n(squares) / max(count, 1))
