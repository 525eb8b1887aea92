# SPDX-License-Identifier: Apache-2.0
r"""I3D to Mixed_4f with and without XLA: forward, and forward with the gradients of all weights.

    python benchmarks/compiled_trunk.py [--frames 16 --size 112] [--turns 3]

In turns, as other programs share the machine; the table has medians, and the time until the first
result, most of which XLA compiles.

Shapes: T frames, H W pixels.
"""

import statistics
import time
from collections.abc import Callable, Sequence

from object_detection_ext import compat  # noqa: F401 (before any object_detection module)

# isort: split
import tensorflow as tf
from absl import app, flags

from object_detection_ext.trunks import i3d

_FRAMES = flags.DEFINE_integer("frames", 16, "T.", 1)
_SIZE = flags.DEFINE_integer("size", 112, "H and W.", 32)
_TURNS = flags.DEFINE_integer("turns", 3, "Turns of each.", 1)


def functions(trunk: tf.keras.Model) -> dict[str, Callable]:
    """What is measured, by name; each takes clips [1, T, H, W, 3] and gives one number."""

    def forward(clips):
        return tf.reduce_sum(trunk(clips, training=False))

    def training(clips):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(trunk(clips, training=True))
        gradients = tape.gradient(loss, trunk.trainable_variables)
        return tf.add_n([tf.reduce_sum(gradient) for gradient in gradients])

    return {
        f"{name}{', XLA' * xla}": tf.function(function, jit_compile=xla, autograph=False)
        for name, function in (("forward", forward), ("with gradients", training))
        for xla in (False, True)
    }


def main(argv: Sequence[str]) -> None:
    """Measures in turns and prints a table."""
    if len(argv) > 1:
        raise app.UsageError(f"Unexpected arguments: {argv[1:]}")
    clips = tf.random.stateless_uniform([1, _FRAMES.value, _SIZE.value, _SIZE.value, 3], [0, 1])
    trunk = i3d.TRUNK.build(final_endpoint="Mixed_4f", train_batch_norm=False)
    trunk(clips)
    measured = functions(trunk)
    first, times = {}, {name: [] for name in measured}
    for name, function in measured.items():
        start = time.perf_counter()
        function(clips).numpy()
        first[name] = time.perf_counter() - start
    for _ in range(_TURNS.value):
        for name, function in measured.items():
            start = time.perf_counter()
            function(clips).numpy()
            times[name].append(time.perf_counter() - start)
    print(f"I3D to Mixed_4f, 1 clip of {_FRAMES.value}x{_SIZE.value}x{_SIZE.value}")
    for name in measured:
        seconds = statistics.median(times[name])
        ratio = seconds / statistics.median(times[name.removesuffix(", XLA")])
        print(f"  {name:20} {seconds:7.3f} s  {ratio:5.2f} x  first result {first[name]:6.1f} s")


if __name__ == "__main__":
    app.run(main)
