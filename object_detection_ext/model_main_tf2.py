# SPDX-License-Identifier: Apache-2.0
r"""Trains or evaluates a model: register, then the stock main with the stock flags.

python -m object_detection_ext.model_main_tf2 \
        --pipeline_config_path=F --model_dir=DIR [--checkpoint_dir=DIR] ...

Flags more than the stock main has are defined below; `--config_override`, as the stock exporter has
it, is one of them:
        --config_override="train_config { num_steps: 100 }"
"""

import functools
import os
import sys

from absl import flags

from object_detection_ext import registration

registration.register()

import tensorflow as tf  # noqa: E402
from object_detection import model_lib_v2  # noqa: E402
from object_detection import model_main_tf2 as stock_main  # noqa: E402

from object_detection_ext.loops import stopping, train  # noqa: E402
from object_detection_ext.loops.messages import say  # noqa: E402

OVERRIDE = flags.DEFINE_string(
    "config_override", None, "Text proto that is merged into the pipeline.config."
)
_SEED = flags.DEFINE_integer(
    "seed",
    None,
    "Makes training repeatable: sets every seed, and has TensorFlow choose deterministic kernels, "
    "which are slower.",
    lower_bound=0,
    upper_bound=2**32 - 1,
)
_MAX_TO_KEEP = flags.DEFINE_integer(
    "checkpoint_max_to_keep", 7, "How many checkpoints are kept; 0: all.", lower_bound=0
)
_KEEP_EVERY_N_HOURS = flags.DEFINE_float(
    "keep_checkpoint_every_n_hours",
    None,
    "Of each such period one checkpoint is kept for ever, besides the newest ones.",
    lower_bound=0.0,
)
_ON_NAN = flags.DEFINE_enum(
    "on_nan",
    train.STOP,
    [train.STOP, train.RESTORE],
    "When training has diverged: 'stop' ends it with exit status 4; 'restore' goes back once to "
    "the last good checkpoint, with half the learning rate.",
)
_FIND_EXPLOSIONS = flags.DEFINE_bool(
    "find_explosions",
    True,
    "Whether a loss that is finite, but far above that of the start, counts as diverged.",
)


def set_seed(seed: int) -> None:
    """Makes what follows in this process repeatable."""
    tf.keras.utils.set_random_seed(seed)
    tf.config.experimental.enable_op_determinism()


def main(argv) -> None:
    """Sets what our flags say, then runs the stock main."""
    if _SEED.value is not None:
        set_seed(_SEED.value)
    model_lib_v2.train_loop = functools.partial(
        model_lib_v2.train_loop,
        checkpoint_max_to_keep=_MAX_TO_KEEP.value,
        keep_checkpoint_every_n_hours=_KEEP_EVERY_N_HOURS.value,
        on_nan=_ON_NAN.value,
        find_explosions=_FIND_EXPLOSIONS.value,
    )
    if flags.FLAGS.checkpoint_dir:
        stock_main.main(argv)
        return
    with stopping.listening():
        try:
            stock_main.main(argv)
        except stopping.Interrupted as interrupted:
            say(str(interrupted))
            sys.stdout.flush()
            # Input pipelines may be blocked: they are not waited for.
            os._exit(interrupted.exit_status)


if __name__ == "__main__":
    registration.run(main, OVERRIDE)
