# SPDX-License-Identifier: Apache-2.0
r"""Memory and time of the I3D head's tubes, forward and backward, with and without recomputation.

    python benchmarks/tube_pooling.py --proposals 300

pools tubes out of a full-size feature map [1, 16, 25, 25, 832] as the I3D head does: once keeping
the crops, once as in training, where `pool_tubes` pools again for the gradients. Each has a process
of its own, since a process's peak memory never falls.
"""

import multiprocessing
import resource
import statistics
import time

from absl import app, flags

_PROPOSALS = flags.DEFINE_integer("proposals", 300, "Tubes, R.", 1)
_REPEATS = flags.DEFINE_integer("repeats", 3, "Timed runs; the median is printed.", 1)
_SHAPE = (1, 16, 25, 25, 832)
_GIB = 2**20  # of ru_maxrss, which Linux counts in KiB


def measure(proposals: int, repeats: int, recompute: bool) -> tuple[float, float]:
    """(median seconds of forward and backward, GiB that they add to the process's peak)."""
    from object_detection_ext import compat  # noqa: F401 (before any object_detection module)

    # isort: split
    import tensorflow as tf
    from object_detection.utils import ops

    from object_detection_ext.heads import roi_pooling

    features = tf.random.uniform(_SHAPE)
    corners = tf.random.uniform([1, proposals, 2], 0, 0.5)
    boxes = tf.concat([corners, corners + 0.3], axis=-1)

    def roi_pool(feature_map):
        crops = ops.native_crop_and_resize(feature_map, boxes, [14, 14])
        return tf.nn.max_pool2d(tf.reshape(crops, [-1, 14, 14, _SHAPE[-1]]), 2, 2, "VALID")

    @tf.function
    def step(features):
        with tf.GradientTape() as tape:
            tape.watch(features)
            tubes = roi_pooling.pool_tubes(features, roi_pool, training=recompute)
            loss = tf.reduce_sum(tubes**2)
        return tape.gradient(loss, features)

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds = []
    for _ in range(repeats + 1):
        start = time.monotonic()
        step(features).numpy()
        seconds.append(time.monotonic() - start)
    added = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return statistics.median(seconds[1:]), added / _GIB


def main(argv):
    """Prints both."""
    if len(argv) > 1:
        raise app.UsageError(f"Unexpected arguments: {argv[1:]}")
    context = multiprocessing.get_context("spawn")
    for recompute in (False, True):
        with context.Pool(1) as pool:
            seconds, gib = pool.apply(measure, (_PROPOSALS.value, _REPEATS.value, recompute))
        what = "pooled again for the gradients" if recompute else "crops kept"
        print(f"{_PROPOSALS.value} tubes, {what}: {seconds:.1f} s, {gib:.2f} GiB", flush=True)


if __name__ == "__main__":
    app.run(main)
