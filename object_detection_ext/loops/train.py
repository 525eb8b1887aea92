# SPDX-License-Identifier: Apache-2.0
"""Surrounds the stock train loop: progress, exact last step, a last checkpoint.

Of itself the stock loop logs every 100 steps only, runs whole hundreds of steps and saves nothing
at the last step unless it is due.
"""

import functools
from collections.abc import Callable, Iterator

import tensorflow as tf
from object_detection import model_lib_v2

from object_detection_ext import errors
from object_detection_ext.checkpoints import files
from object_detection_ext.loops.messages import say
from object_detection_ext.loops.train_progress import progress_of_training

# Steps in one call of the stock loop's tf.function; it logs and writes scalars after each call. One
# step a call traces the step once, more trace it twice, and a trace takes half a minute; many steps
# a call keep the event files of long runs small.
_LONG_RUN_STEPS = 20_000
_STEPS_PER_CALL_OF_LONG_RUN = 10
# On TPU each call is a round trip to the host: the stock number.
_STEPS_PER_CALL_ON_TPU = model_lib_v2.NUM_STEPS_PER_ITERATION


def wrap_train_loop(
    stock_train_loop: Callable,
    *,
    read_pipeline: Callable,
    is_video_pipeline: Callable,
    check_checkpoint: Callable,
) -> Callable:
    """Surrounds `model_lib_v2.train_loop`; same arguments.

    Args:
        stock_train_loop: the stock function.
        read_pipeline: from a pipeline.config's path and its override to the pipeline.
        is_video_pipeline: from a pipeline to whether it is one of ours.
        check_checkpoint: takes a pipeline and its path; raises if training cannot start from its
            `fine_tune_checkpoint`. Not called when training goes on.
    """

    @functools.wraps(stock_train_loop)
    def train_loop(
        pipeline_config_path,
        model_dir,
        config_override=None,
        train_steps=None,
        use_tpu=False,
        checkpoint_every_n=1000,
        record_summaries=True,
        **kwargs,
    ):
        pipeline = read_pipeline(pipeline_config_path, config_override)
        is_video = is_video_pipeline(pipeline)
        total = train_steps or _num_steps(pipeline, pipeline_config_path)
        if is_video and (use_tpu or not record_summaries):
            # The pictures are drawn in Python, which a TPU cannot call.
            config_override = _without_pictures(config_override)
        per_call = _steps_per_call(total, use_tpu)
        if tf.train.latest_checkpoint(model_dir) is None:
            check_checkpoint(pipeline, pipeline_config_path)
        done = files.step_of_newest(model_dir)
        if done >= total:
            say(f"training: {model_dir} is at step {done} of {total} already; nothing to do")
        for end, every, chunk in plan_segments(done, total, checkpoint_every_n, per_call):
            with progress_of_training(done, total, chunk):
                stock_train_loop(
                    pipeline_config_path=pipeline_config_path,
                    model_dir=model_dir,
                    config_override=config_override,
                    train_steps=end,
                    use_tpu=use_tpu,
                    checkpoint_every_n=every,
                    # The stock picture is of the model's input, and a clip has too many channels
                    # for it; the model writes its own.
                    record_summaries=record_summaries and not is_video,
                    **{"num_steps_per_iteration": chunk, **kwargs},
                )
            done = end

    return train_loop


def _num_steps(pipeline, path: str) -> int:
    if not pipeline.train_config.num_steps:
        raise errors.InputError(
            f"{path}: the number of training steps is missing: set train_config.num_steps or "
            "--num_train_steps."
        )
    return pipeline.train_config.num_steps


def _steps_per_call(total: int, use_tpu: bool) -> int:
    if use_tpu:
        return _STEPS_PER_CALL_ON_TPU
    return 1 if total <= _LONG_RUN_STEPS else _STEPS_PER_CALL_OF_LONG_RUN


def plan_segments(
    done: int, total: int, checkpoint_every_n: int, max_steps_per_call: int
) -> Iterator[tuple[int, int, int]]:
    """Divides training so that the stock loop stops and saves exactly at the last step.

    The stock loop runs `steps per call` steps at a time and saves when at least
    `checkpoint_every_n` have passed since the last save.

    Args:
        done: steps already done.
        total: steps at the end.
        checkpoint_every_n: steps between checkpoints that the user wants.
        max_steps_per_call: most steps in one call.

    Yields:
        For each run of the stock loop: its last step, its steps between checkpoints, its steps per
        call. The second run, if any, is the rest behind the last regular checkpoint.
    """
    every = max(1, checkpoint_every_n)
    regular = (total - done) // every * every
    if regular > 0:
        yield done + regular, every, _largest_divisor(every, max_steps_per_call)
    rest = total - done - max(regular, 0)
    if rest > 0:
        yield total, rest, _largest_divisor(rest, max_steps_per_call)


def _largest_divisor(number: int, limit: int) -> int:
    return next(d for d in range(min(number, limit), 0, -1) if number % d == 0)


def _without_pictures(config_override: str | None) -> str:
    override = (
        "[object_detection_ext.protos.video_action_transformer] "
        "{ summaries { training_picture_every_n_steps: 0 } }"
    )
    return f"{config_override or ''}\n{override}"
