# SPDX-License-Identifier: Apache-2.0
"""Surrounds the stock train loop: progress, exact last step, checkpoints, divergence, signals.

Of itself the stock loop logs every 100 steps only, runs whole hundreds of steps, saves nothing at
the last step unless it is due, and trains on when the loss is not a number.
"""

import contextlib
import dataclasses
import functools
from collections.abc import Callable

import tensorflow as tf
from object_detection import model_lib_v2
from object_detection.protos import pipeline_pb2

from object_detection_ext import errors, static_shapes
from object_detection_ext.checkpoints import files, matching, model_variables
from object_detection_ext.loops import (
    batch_clips,
    compiled_step,
    guard,
    restoring,
    session,
    stopping,
)
from object_detection_ext.messages import say

# Steps in one call of the stock loop's tf.function; it logs and writes scalars after each call. One
# step a call traces the step once, more trace it twice, and a trace takes half a minute; many steps
# a call keep the event files of long runs small.
_LONG_RUN_STEPS = 20_000
_STEPS_PER_CALL_OF_LONG_RUN = 10
# On TPU each call is a round trip to the host: the stock number.
_STEPS_PER_CALL_ON_TPU = model_lib_v2.NUM_STEPS_PER_ITERATION

STOP, RESTORE = "stop", "restore"
_SEARCH_SECONDS = 60.0
_MAX_CLIPS = 20


class DivergedError(errors.ReportedError):
    """Training diverged; the message has step, losses, clips and the last good checkpoint."""

    exit_status = 4


def wrap_train_loop(
    stock_train_loop: Callable,
    *,
    read_pipeline: Callable,
    is_video_pipeline: Callable,
    check_checkpoint: Callable,
) -> Callable:
    """Surrounds `model_lib_v2.train_loop`; its arguments, by keyword after `use_tpu`, and more.

    Args:
        stock_train_loop: the stock function.
        read_pipeline: from a pipeline.config's path and its override to the pipeline.
        is_video_pipeline: from a pipeline to whether it is one of ours.
        check_checkpoint: takes a pipeline and its path; raises if training cannot start from its
            `fine_tune_checkpoint`. Not called when training resumes.
    """

    @functools.wraps(stock_train_loop)
    def train_loop(
        pipeline_config_path,
        model_dir,
        config_override=None,
        train_steps=None,
        use_tpu=False,
        *,
        checkpoint_every_n=1000,
        checkpoint_max_to_keep=7,
        record_summaries=True,
        keep_checkpoint_every_n_hours: float | None = None,
        on_nan: str = STOP,
        find_explosions: bool = True,
        on_checkpoint: session.OnCheckpoint | None = None,
        evaluate_every_n: int | None = None,
        **kwargs,
    ):
        """Trains as the stock loop does; see there for the arguments that are not listed here.

        Args:
            pipeline_config_path: as in the stock loop.
            model_dir: as in the stock loop.
            config_override: as in the stock loop.
            train_steps: as in the stock loop.
            use_tpu: as in the stock loop.
            checkpoint_every_n: a checkpoint is written at each multiple, and at the last step.
            checkpoint_max_to_keep: as in the stock loop; 0 or None: all.
            record_summaries: as in the stock loop.
            keep_checkpoint_every_n_hours: a checkpoint of each such period is kept for ever.
            on_nan: STOP, or RESTORE to go back once to the last good checkpoint with half the
                learning rate.
            find_explosions: whether a finite loss can be a divergence; see guard.py.
            on_checkpoint: called in the main thread with prefix and step of each checkpoint that is
                due for an evaluation. May raise `stopping.StopTraining`. Its time is not counted.
            evaluate_every_n: which those are, besides the last one: multiples of this.
            **kwargs: as in the stock loop.

        Raises:
            DivergedError: if training diverged.
            stopping.Interrupted: after a signal, in a program that listens to them.
            manager.SaveError: if a checkpoint could not be written.
            errors.InputError: for wrong inputs.
        """
        pipeline = read_pipeline(pipeline_config_path, config_override)
        is_video = is_video_pipeline(pipeline)
        total = train_steps or _num_steps(pipeline, pipeline_config_path)
        is_compiled = is_video and static_shapes.is_wanted(pipeline)
        if is_video and (use_tpu or is_compiled or not record_summaries):
            # The pictures are drawn in Python, which a TPU and a compiled step cannot call.
            config_override = _without_pictures(config_override)
        if is_compiled:
            compiled_step.announce(use_tpu=use_tpu)
        _check_start(pipeline, pipeline_config_path, model_dir, check_checkpoint)
        strategy = tf.distribute.get_strategy()
        plan = session.Plan(
            done=files.step_of_newest(model_dir),
            total=total,
            max_steps_per_call=_max_steps_per_call(total, use_tpu),
            checkpoint_every_n=max(1, checkpoint_every_n),
            evaluate_every_n=evaluate_every_n,
            on_checkpoint=on_checkpoint,
            keep_every_n_hours=keep_checkpoint_every_n_hours,
            batch_size=pipeline.train_config.batch_size,
            num_replicas=strategy.num_replicas_in_sync,
            find_explosions=find_explosions,
            reports_steps=not use_tpu,
            can_save_alone=not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy),
        )
        if plan.done >= total:
            say(f"training: {model_dir} is at step {plan.done} of {total} already; nothing to do")
            return
        run = functools.partial(
            stock_train_loop,
            pipeline_config_path=pipeline_config_path,
            model_dir=model_dir,
            config_override=config_override,
            train_steps=total,
            use_tpu=use_tpu,
            checkpoint_max_to_keep=checkpoint_max_to_keep or None,
            # The stock picture is of the model's input, and a clip has too many channels for it;
            # the model writes its own.
            record_summaries=record_summaries and not is_video,
            **kwargs,
        )
        try:
            with compiled_step.installed() if is_compiled else contextlib.nullcontext():
                _train(run, plan, pipeline, model_dir, on_nan)
        except stopping.StopTraining as stop:
            say(f"training: ended: {stop}")

    return train_loop


def _check_start(
    pipeline: pipeline_pb2.TrainEvalPipelineConfig,
    path: str,
    model_dir: str,
    check_checkpoint: Callable,
) -> None:
    """Checks the checkpoint that training starts or resumes from."""
    # Not what the `checkpoint` file says: where that is cut off, or names what is gone, training
    # would start again and overwrite what is there.
    newest = files.newest_whole(model_dir, say)
    if newest is None:
        check_checkpoint(pipeline, path)
    else:
        _check_resumed(pipeline, path, model_dir, newest)


def _check_resumed(
    pipeline: pipeline_pb2.TrainEvalPipelineConfig,
    path: str,
    model_dir: str,
    contents: files.Contents,
) -> None:
    """Has the stock loop resume from this checkpoint, if it belongs to the model."""
    # At step 0 the model has no variables yet, but where moving averages are kept.
    if files.step_of(contents.prefix) > 0 or model_variables.of_contents(contents):
        files.check_finite(contents)
        matching.check(pipeline, contents, path)
    files.make_newest(model_dir, contents.prefix, say)


def _train(
    run: Callable,
    plan: session.Plan,
    pipeline: pipeline_pb2.TrainEvalPipelineConfig,
    model_dir: str,
    on_nan: str,
) -> None:
    """Runs the stock loop; once more from the last good checkpoint if that is wanted.

    Raises:
        DivergedError: if training diverged and does not go back, or not a second time.
    """
    has_gone_back = restoring.was_restored(model_dir)
    if has_gone_back:
        say(
            "training: the learning rate is half of the config's, since this training diverged once"
        )
    try:
        _run(run, plan, is_halved=has_gone_back)
        return
    except guard.Diverged as error:
        diverged = error
    good = restoring.last_good(model_dir, diverged.last_healthy)
    text = _describe(diverged, good, pipeline, model_dir)
    if on_nan != RESTORE or has_gone_back or good is None:
        again = " It had gone back once already." if on_nan == RESTORE and has_gone_back else ""
        raise DivergedError(text + again) from diverged
    step = files.step_of(good)
    say(f"training: {text}")
    say(f"training: back to '{good}' (step {step}), with half the learning rate")
    files.make_newest(model_dir, good, say)
    # After that: a run that is killed in between has not gone back yet, and may.
    restoring.note(model_dir, diverged.step.number, step)
    try:
        _run(run, dataclasses.replace(plan, done=step), is_halved=True)
    except guard.Diverged as error:
        good = restoring.last_good(model_dir, error.last_healthy)
        raise DivergedError(
            f"{_describe(error, good, pipeline, model_dir)} It had gone back once already."
        ) from error


def _run(run: Callable, plan: session.Plan, *, is_halved: bool) -> None:
    with contextlib.ExitStack() as stack:
        if is_halved:
            stack.enter_context(restoring.halved_learning_rate())
        stack.enter_context(session.Session(plan).around_stock_loop())
        # The session decides after every call what is saved.
        per_call = plan.steps_per_call
        run(num_steps_per_iteration=per_call, checkpoint_every_n=per_call)


def _describe(
    diverged: guard.Diverged,
    good: str | None,
    pipeline: pipeline_pb2.TrainEvalPipelineConfig,
    model_dir: str,
) -> str:
    """All that is known of a divergence, in lines."""
    step = diverged.step
    losses = ", ".join(
        f"{name.removeprefix('Loss/')} {value:.6g}" for name, value in sorted(step.losses.items())
    )
    lines = [
        f"Training has diverged at step {step.number}: {diverged.reason}.",
        f"Loss terms of that step: {losses or 'not known'}.",
        f"Clips of that batch: {_clips(step, pipeline)}.",
    ]
    if good is None:
        lines.append(f"No checkpoint in '{model_dir}' is known to be good.")
    else:
        lines.append(f"Last good checkpoint: '{good}' (step {files.step_of(good)}).")
    if doubtful := restoring.suspects(model_dir, good, diverged.last_healthy):
        lines.append(
            f"Written when training may have diverged already: {', '.join(doubtful)}. To resume "
            "from the last good one, remove them."
        )
    lines.append(
        "What helps: a lower learning rate, a warm-up, train_config.gradient_clipping_by_norm; or "
        "the annotations of these clips are wrong. --on_nan=restore goes back by itself, once."
    )
    return "\n".join(lines)


def _clips(step: guard.Step, pipeline: pipeline_pb2.TrainEvalPipelineConfig) -> str:
    if not step.hashes:
        return "not known"
    reader = pipeline.train_input_reader.tf_record_input_reader
    say("training: searching the record files for the clips of that batch")
    places = batch_clips.find(step.hashes, reader.input_path, _SEARCH_SECONDS)
    names = [str(place) for place in places[:_MAX_CLIPS]]
    missing = len(set(step.hashes)) - len(names)
    if missing > 0:
        names.append(f"{missing} more" if names else f"{missing}, not found in the record files")
    return ", ".join(names)


def _num_steps(pipeline, path: str) -> int:
    if not pipeline.train_config.num_steps:
        raise errors.InputError(
            f"{path}: the number of training steps is missing: set train_config.num_steps or "
            "--num_train_steps."
        )
    return pipeline.train_config.num_steps


def _max_steps_per_call(total: int, use_tpu: bool) -> int:
    if use_tpu:
        return _STEPS_PER_CALL_ON_TPU
    return 1 if total <= _LONG_RUN_STEPS else _STEPS_PER_CALL_OF_LONG_RUN


def _without_pictures(config_override: str | None) -> str:
    override = (
        "[object_detection_ext.protos.video_action_transformer] "
        "{ summaries { training_picture_every_n_steps: 0 } }"
    )
    return f"{config_override or ''}\n{override}"
