# SPDX-License-Identifier: Apache-2.0
r"""Trains or evaluates a model: register, then the stock main with the stock flags.

python -m object_detection_ext.model_main_tf2 \
        --pipeline_config_path=F --model_dir=DIR [--checkpoint_dir=DIR] ...

Flags more than the stock main has are defined below; `--config_override`, as the stock exporter has
it, is one of them:
        --config_override="train_config { num_steps: 100 }"
and so is `--config_override_path`, which takes the same from files (see pipeline_overrides.py):
        --config_override_path=pipeline_configs/overrides/gpu_bf16.config
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

from object_detection_ext import errors, pipeline_overrides  # noqa: E402
from object_detection_ext.loops import stopping, train  # noqa: E402
from object_detection_ext.messages import say  # noqa: E402

OVERRIDE = flags.DEFINE_string(
    "config_override", None, "Text proto that is merged into the pipeline.config."
)
pipeline_overrides.define_flag()
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
_TRAIN_AND_EVALUATE = flags.DEFINE_bool(
    "train_and_evaluate",
    False,
    "Training pauses for an evaluation every --eval_every_n steps, in one process and on one "
    "device.",
)
_EVAL_EVERY_N = flags.DEFINE_integer(
    "eval_every_n",
    None,
    "Steps between the evaluations of --train_and_evaluate; by default --checkpoint_every_n.",
    lower_bound=1,
)
_STOP_AFTER = flags.DEFINE_integer(
    "stop_after_evals_without_gain",
    None,
    "So many evaluations in a row without a new best end --train_and_evaluate; by default none.",
    lower_bound=1,
)
_BEST_METRIC = flags.DEFINE_string(
    "best_metric",
    None,
    "The scalar of the evaluation by which the checkpoint in model_dir/best is chosen; by default "
    "the one by which it was chosen before, else the mAP.",
)
_BEST_METRIC_GOAL = flags.DEFINE_enum(
    "best_metric_goal",
    None,
    ["max", "min"],
    "Whether high or low values of --best_metric are good; by default losses low, all else high.",
)


def set_seed(seed: int) -> None:
    """Makes what follows in this process repeatable."""
    tf.keras.utils.set_random_seed(seed)
    tf.config.experimental.enable_op_determinism()


def _check_flags() -> None:
    """Refuses flags that do not go together.

    Raises:
        errors.InputError: naming them.
    """
    if _TRAIN_AND_EVALUATE.value:
        if flags.FLAGS.checkpoint_dir:
            raise errors.InputError(
                "--train_and_evaluate trains, --checkpoint_dir evaluates only: give one of them."
            )
        if flags.FLAGS.use_tpu or flags.FLAGS.num_workers > 1:
            raise errors.InputError(
                "--train_and_evaluate is for one process on one machine: with --use_tpu or "
                "--num_workers, evaluate in a process of its own (--checkpoint_dir)."
            )
        return
    for flag in (_EVAL_EVERY_N, _STOP_AFTER):
        if flag.value is not None:
            raise errors.InputError(
                f"--{flag.name} is for --train_and_evaluate, which is not given."
            )
    if not flags.FLAGS.checkpoint_dir and (_BEST_METRIC.value or _BEST_METRIC_GOAL.value):
        raise errors.InputError(
            "--best_metric and --best_metric_goal are for evaluations: --train_and_evaluate or "
            "--checkpoint_dir is missing."
        )


def main(argv) -> None:
    """Sets what our flags say, then runs the stock main."""
    _check_flags()
    if _SEED.value is not None:
        set_seed(_SEED.value)
    of_best = {"best_metric": _BEST_METRIC.value, "best_metric_goal": _BEST_METRIC_GOAL.value}
    model_lib_v2.eval_continuously = functools.partial(model_lib_v2.eval_continuously, **of_best)
    model_lib_v2.train_loop = functools.partial(
        model_lib_v2.train_loop,
        checkpoint_max_to_keep=_MAX_TO_KEEP.value,
        keep_checkpoint_every_n_hours=_KEEP_EVERY_N_HOURS.value,
        on_nan=_ON_NAN.value,
        find_explosions=_FIND_EXPLOSIONS.value,
        train_and_evaluate=_TRAIN_AND_EVALUATE.value,
        eval_every_n=_EVAL_EVERY_N.value,
        stop_after_evals_without_gain=_STOP_AFTER.value,
        eval_options={
            "sample_1_of_n_eval_examples": flags.FLAGS.sample_1_of_n_eval_examples,
            "sample_1_of_n_eval_on_train_examples": (
                flags.FLAGS.sample_1_of_n_eval_on_train_examples
            ),
        },
        **of_best,
    )
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
