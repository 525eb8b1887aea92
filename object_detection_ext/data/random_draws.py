# SPDX-License-Identifier: Apache-2.0
"""Random draws of the input pipeline that a seed repeats (`model_main_tf2 --seed`).

Op determinism makes TensorFlow's random operations repeat themselves, and calls functions that hold
one for one element after the other. What it leaves to us:

- Functions that read and decode hold no random operation, which would take them out of parallel
  work: they draw from a seed (`uniform`) that a small function before them has drawn
  (`with_seeds`). With a global seed TensorFlow calls them one after the other all the same, as
  our NumPy functions are stateful to it.
- The random operations of a dataset's function are counted from 0, so those of two functions would
  draw the same numbers: a clip that is flipped would also be the brighter one. `own_stream` gives a
  function numbers of its own.
- The stock crops call an operation that takes no part in the global seed, and that op determinism
  therefore refuses; `registration` replaces it by `sample_distorted_bounding_box`.

Without a seed nothing here costs time or changes a draw's distribution.
"""

import functools
import zlib
from collections.abc import Callable

import tensorflow as tf
from tensorflow.python.framework import config, random_seed

# Seeds of `tf.random.stateless_*`: two numbers.
_SEED_SIZE = 2


def own_stream(name: str, function: Callable) -> Callable:
    """Gives the random operations of a dataset's function numbers of their own.

    Args:
        name: of the stream; no other function of the pipeline may have it.
        function: is given to `tf.data.Dataset.map`, directly.

    Returns:
        The same function; other than before only under op determinism.
    """

    @functools.wraps(function)
    def seeded(*args):
        seed = tf.compat.v1.get_default_graph().seed
        if config.is_op_determinism_enabled() and seed is not None:
            own = zlib.crc32(f"{seed} {name}".encode()) & 0x7FFFFFFF
            tf.compat.v1.set_random_seed(own)  # of the function's graph alone
        return function(*args)

    return seeded


def with_seeds(dataset: tf.data.Dataset, name: str) -> tf.data.Dataset:
    """Adds a drawn seed, int64 [2], to each element, as its last component.

    Args:
        dataset: of tuples.
        name: as in `own_stream`.
    """

    def with_seed(*element):
        seed = tf.random.uniform([_SEED_SIZE], minval=0, maxval=tf.int64.max, dtype=tf.int64)
        return *element, seed

    return dataset.map(own_stream(name, with_seed))


def fold_in(seed: tf.Tensor, number: tf.Tensor | int) -> tf.Tensor:
    """A part's own seed, int64 [2].

    Args:
        seed: int64 [2], of the whole.
        number: of the part, not below 0.
    """
    return tf.random.experimental.stateless_fold_in(seed, number)


def uniform(seed: tf.Tensor, number: int, least: int, most: int) -> tf.Tensor:
    """Draws an int64 scalar from `least` to `most`, ends included.

    Args:
        seed: int64 [2].
        number: that no other draw from the same seed has.
        least: the smallest result.
        most: the greatest result.
    """
    return tf.random.stateless_uniform([], fold_in(seed, number), least, most + 1, tf.int64)


def sample_distorted_bounding_box(stock: Callable) -> Callable:
    """Lets `tf.compat.v1.image.sample_distorted_bounding_box` take part in the global seed.

    Args:
        stock: the function. Called without a seed of its own it raises under op determinism.

    Returns:
        A function of the same arguments, other than the stock one only where that raises.
    """

    @functools.wraps(stock)
    def seeded(image_size, bounding_boxes, seed=None, seed2=None, *args, **kwargs):
        if not seed and not seed2 and config.is_op_determinism_enabled():
            seed, seed2 = random_seed.get_seed(None)
        return stock(image_size, bounding_boxes, seed, seed2, *args, **kwargs)

    return seeded
