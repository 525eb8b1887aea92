# SPDX-License-Identifier: Apache-2.0
"""The names of clips as numbers, so that they reach the evaluation loop's pictures.

The stock input functions hand on a hash of a clip's name, or, with `include_source_id`, the string,
which a TPU cannot take and the evaluation loop drops. Labels it keeps.

Shapes: B clips.
"""

import numpy as np
import tensorflow as tf

# Among the labels of evaluation: uint8 [64], UTF-8, filled up with zeros.
KEY = "clip_name"
_LENGTH = 64


def encode(name: tf.Tensor) -> tf.Tensor:
    """The first 64 bytes of a name, a string [], as uint8 [64]."""
    return tf.io.decode_raw(name, tf.uint8, fixed_length=_LENGTH)


def decode(names: np.ndarray) -> list[str]:
    """Texts for people from names uint8 [B, 64].

    'video,0902' becomes 'video at 902 s'; a name of another form stays as it is.
    """
    return [_readable(bytes(name).rstrip(b"\0").decode(errors="replace")) for name in names]


def _readable(name: str) -> str:
    video_id, _, seconds = name.rpartition(",")
    try:
        return f"{video_id} at {float(seconds):.10g} s" if video_id else name
    except ValueError:
        return name
