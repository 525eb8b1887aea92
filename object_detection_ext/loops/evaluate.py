# SPDX-License-Identifier: Apache-2.0
"""Surrounds the stock eval loop: which checkpoints it gets, what comes of their metrics.

Of itself the stock loop takes whatever TensorFlow calls the newest checkpoint, restores what fits,
and builds everything before it looks whether there is one.
"""

import contextlib
import functools
import itertools
import logging
import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator

import tensorflow as tf
from object_detection import model_lib_v2
from object_detection.protos import pipeline_pb2

from object_detection_ext import errors
from object_detection_ext.checkpoints import files, holding
from object_detection_ext.loops import best as best_lib
from object_detection_ext.loops import metric_names, stopping
from object_detection_ext.messages import heartbeat, info_logs, say
from object_detection_ext.progress import format_seconds

_SECONDS_BETWEEN_LOOKS = 1.0
# What the stock loop says at its end, after the line with the result.
_STOCK_ENDS = ("Exiting evaluation at step",)


def wrap_eval_continuously(
    stock_eval: Callable,
    *,
    read_pipeline: Callable,
    check_checkpoint: Callable,
    has_weights: Callable[[files.Contents], bool],
) -> Callable:
    """Surrounds `model_lib_v2.eval_continuously`; same arguments, by name, and a few more.

    Args:
        stock_eval: the stock function.
        read_pipeline: from a pipeline.config's path and its override to the pipeline.
        check_checkpoint: takes a pipeline, a checkpoint's contents and the pipeline's path; raises
            if they do not belong together.
        has_weights: whether a checkpoint has weights; that of step 0 has none.
    """

    @functools.wraps(stock_eval)
    def eval_continuously(
        pipeline_config_path,
        config_override=None,
        train_steps=None,
        *,
        model_dir=None,
        checkpoint_dir=None,
        wait_interval=180,
        timeout=3600,
        best_metric=None,
        best_metric_goal=None,
        **kwargs,
    ):
        pipeline = read_pipeline(pipeline_config_path, config_override)

        def accept(contents: files.Contents) -> None:
            files.check_finite(contents)
            check_checkpoint(pipeline, contents, pipeline_config_path)

        best_folder = os.path.join(model_dir, best_lib.FOLDER)
        with ended_by_signals(f"evaluation of '{checkpoint_dir}'", best_folder):
            best = open_best(pipeline, model_dir, best_metric, best_metric_goal)
            if tf.io.gfile.isdir(checkpoint_dir):
                source = _new_checkpoints(
                    checkpoint_dir, accept, has_weights, wait_interval, timeout
                )
            else:
                source = _named_checkpoint(checkpoint_dir, accept)
            evaluation = Evaluation(best)
            evaluation.run(
                stock_eval,
                holding_each(source, best.folder),
                pipeline_config_path=pipeline_config_path,
                config_override=config_override,
                train_steps=train_steps,
                model_dir=model_dir,
                checkpoint_dir=checkpoint_dir,
                **kwargs,
            )
            if evaluation.source_ended and tf.io.gfile.isdir(checkpoint_dir):
                say(_ended(evaluation.num_done, timeout, best))

    return eval_continuously


def open_best(
    pipeline: pipeline_pb2.TrainEvalPipelineConfig,
    model_dir: str,
    name: str | None,
    goal: str | None,
) -> best_lib.BestCheckpoint:
    """The best checkpoint of a model directory so far.

    Args:
        pipeline: whose evaluation chooses it.
        model_dir: where it is kept.
        name: of the scalar that chooses; None: the one that has chosen so far, else the mean AP.
        goal: 'max', 'min', or None, see `metric_names.Metric`.

    Raises:
        errors.InputError: if the evaluation cannot have that scalar, or another one has chosen.
    """
    metric = metric_names.Metric(name, goal)
    if not metric.is_mean_ap:
        possible = metric_names.possible_scalars(pipeline)
        if possible is not None:
            metric.check(possible)
    reader = pipeline.eval_input_reader[0] if pipeline.eval_input_reader else None
    paths = reader.tf_record_input_reader.input_path if reader else ()
    best = best_lib.BestCheckpoint(model_dir, metric, tuple(paths))
    if best.describe():
        say(f"evaluation: best so far: {best.describe()}, kept in {best.folder}")
    return best


class Evaluation:
    """A run of the stock eval loop on checkpoints that come one by one.

    Attributes:
        num_done: number of checkpoints that are evaluated.
        source_ended: whether there was no further checkpoint; else the loop ended at the last step.
    """

    def __init__(self, best: best_lib.BestCheckpoint, on_result: Callable[[], None] = lambda: None):
        """Evaluates nothing yet.

        Args:
            best: is offered each evaluated checkpoint.
            on_result: called after each evaluation, when all of it is written.
        """
        self.num_done = 0
        self.source_ended = False
        self._best = best
        self._on_result = on_result
        self._prefix: str | None = None
        # Step and metrics of an evaluation that is done.
        self._result: tuple[int, dict[str, float]] | None = None

    def run(self, stock_eval: Callable, source: Iterator[str], **kwargs) -> None:
        """Evaluates what comes. The first checkpoint is there before anything is built.

        Args:
            stock_eval: `model_lib_v2.eval_continuously`.
            source: prefixes; each is there until the next is asked for.
            **kwargs: the stock function's.
        """
        with contextlib.closing(source):
            first = next(source, None)
            if first is None:
                raise errors.NothingDoneError(
                    "The checkpoint was deleted before it could be evaluated."
                )
            with _substituted(self._checkpoints(first, source), self._noting):
                # Neither waits: what is substituted does.
                stock_eval(wait_interval=0, timeout=0, **kwargs)
            self._finish()

    def _checkpoints(self, first: str, source: Iterator[str]) -> Iterator[str]:
        for prefix in itertools.chain([first], source):
            self._prefix = prefix
            with heartbeat("evaluation: under way"), info_logs(), _without_stock_ends():
                yield prefix
            self._finish()
        self.source_ended = True

    def _noting(self, stock_loop: Callable) -> Callable:
        """The stock function for one evaluation, with its result noted."""

        @functools.wraps(stock_loop)
        def eager_eval_loop(*args, global_step=None, **kwargs):
            metrics = stock_loop(*args, global_step=global_step, **kwargs)
            plain = {name: float(value) for name, value in metrics.items()}
            self._result = int(global_step.numpy()), plain
            return metrics

        return eager_eval_loop

    def _finish(self) -> None:
        """Offers an evaluated checkpoint as the best; its event file is written by now."""
        if self._result is None:
            return
        (step, metrics), self._result = self._result, None
        try:
            text = self._best.offer(self._prefix, step, metrics)
        except (OSError, tf.errors.OpError) as error:
            raise errors.ReportedError(
                f"The checkpoint of step {step} was evaluated, but cannot be kept in "
                f"'{self._best.folder}': {error}"
            ) from error
        say(f"evaluation: step {step}: {text}")
        self.num_done += 1
        self._on_result()


@contextlib.contextmanager
def _substituted(checkpoints: Iterator[str], noting: Callable) -> Iterator[None]:
    """Has the stock loop take its checkpoints from here and its results noted."""
    train = model_lib_v2.tf.train
    stock_iterator, stock_loop = train.checkpoints_iterator, model_lib_v2.eager_eval_loop
    train.checkpoints_iterator = lambda *args, **kwargs: checkpoints
    model_lib_v2.eager_eval_loop = noting(stock_loop)
    try:
        with contextlib.closing(checkpoints):
            yield
    finally:
        train.checkpoints_iterator = stock_iterator
        model_lib_v2.eager_eval_loop = stock_loop


@contextlib.contextmanager
def _without_stock_ends() -> Iterator[None]:
    logger = logging.getLogger("tensorflow")

    def is_of_use(record: logging.LogRecord) -> bool:
        return not str(record.msg).startswith(_STOCK_ENDS)

    logger.addFilter(is_of_use)
    try:
        yield
    finally:
        logger.removeFilter(is_of_use)


def holding_each(source: Iterable[str], best_folder: str) -> Iterator[str]:
    """The same checkpoints under names that stay while each is evaluated.

    One that training has deleted in the meantime is left out.
    """
    with holding.Holder(best_folder) as holder:
        for prefix in source:
            try:
                second = holder.hold(prefix)
            except FileNotFoundError:
                continue
            yield second


def _named_checkpoint(path: str, accept: Callable[[files.Contents], None]) -> Iterator[str]:
    contents = files.resolve(path, say)
    accept(contents)
    yield contents.prefix


def _new_checkpoints(
    folder: str,
    accept: Callable[[files.Contents], None],
    has_weights: Callable[[files.Contents], bool],
    interval: float,
    timeout: float,
) -> Iterator[str]:
    """The newest whole checkpoint of a folder, then the newest after each evaluation.

    Args:
        folder: of checkpoints.
        accept: raises if a checkpoint is not to be evaluated.
        has_weights: whether a checkpoint has any; others are as if they were not there.
        interval: seconds from one to the next, at least; never more than `timeout`.
        timeout: seconds to wait for another one.

    Raises:
        errors.NothingDoneError: if none came at all.
        files.DamagedError: if there are, but none is whole.
    """
    newest = _Newest(folder, has_weights)
    interval = min(interval, timeout)
    started, deadline = -interval, time.monotonic() + timeout
    count, is_waiting = 0, False
    while True:
        if time.monotonic() >= started + interval and (contents := newest.look()) is not None:
            accept(contents)
            started, is_waiting, count = time.monotonic(), False, count + 1
            yield contents.prefix
            deadline = time.monotonic() + timeout
            continue
        if time.monotonic() >= deadline:
            break
        if not is_waiting:
            say(f"evaluation: waiting for a checkpoint in '{folder}', {_for(timeout)} at most")
            is_waiting = True
        time.sleep(min(_SECONDS_BETWEEN_LOOKS, max(0.0, deadline - time.monotonic())))
    if count == 0:
        raise newest.damage or errors.NothingDoneError(
            f"No checkpoint with weights came to '{folder}' within {_for(timeout)} "
            "(--eval_timeout): nothing was evaluated."
        )


class _Newest:
    """Looks for a folder's newest whole checkpoint; reads only what is new.

    Attributes:
        damage: why there was none at the last look, though there are checkpoints.
    """

    def __init__(self, folder: str, has_weights: Callable[[files.Contents], bool]):
        self.damage: files.DamagedError | None = None
        self._folder = folder
        self._has_weights = has_weights
        self._seen: object = None
        self._taken: tuple[str, int] | None = None
        self._said: set[str] = set()

    def look(self) -> files.Contents | None:
        """The newest one that is whole, has weights and was not taken before."""
        seen = self._stamp()
        if seen == self._seen:
            return None
        self._seen, self.damage = seen, None
        try:
            contents = files.newest_whole(self._folder, self._say_once)
        except files.DamagedError as error:
            self.damage = error
            self._say_once(f"WARNING: {error}")
            return None
        if contents is None or not self._has_weights(contents):
            return None
        # A training that has gone back writes other checkpoints under the names of earlier ones.
        taken = (contents.prefix, _modified(contents.prefix))
        if taken == self._taken:
            return None
        self._taken = taken
        return contents

    def _stamp(self):
        """Changes whenever the newest checkpoint does, or the list of them."""
        listed = files.listed(self._folder)
        parts = []
        for path in sorted(tf.io.gfile.glob(f"{listed[0]}.*")) if listed else []:
            with contextlib.suppress(tf.errors.NotFoundError):
                status = tf.io.gfile.stat(path)
                parts.append((path, status.length, status.mtime_nsec))
        return listed, parts

    def _say_once(self, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            say(text)


def _for(seconds: float) -> str:
    return format_seconds(seconds)


def _ended(count: int, timeout: float, best: best_lib.BestCheckpoint) -> str:
    checkpoints = "1 checkpoint" if count == 1 else f"{count} checkpoints"
    text = (
        f"evaluation: done: {checkpoints} evaluated, and no new one came within "
        f"{_for(timeout)} (--eval_timeout)"
    )
    described = best.describe()
    return f"{text}; best so far: {described}, kept in {best.folder}" if described else text


@contextlib.contextmanager
def ended_by_signals(what: str, best_folder: str, hint: str = "") -> Iterator[None]:
    """Ends the process at a signal, wherever the main thread is: there is nothing to save.

    Args:
        what: is ended.
        best_folder: of the best checkpoint.
        hint: more of the line that is printed.
    """
    listener = stopping.active()
    if listener is None:
        yield
        return

    def end(number: int) -> None:
        holding.remove_own(best_folder)
        text = f"{what} ended before its result; {best_folder} is as it was. {hint}".rstrip()
        listener.end_process(number, f"{signal.Signals(number).name}: {text}")

    with listener.handler(end):
        yield


def _modified(prefix: str) -> int:
    """When a checkpoint was written, in ns; 0 if it is gone."""
    try:
        return tf.io.gfile.stat(f"{prefix}.index").mtime_nsec
    except tf.errors.NotFoundError:
        return 0
