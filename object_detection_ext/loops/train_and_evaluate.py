# SPDX-License-Identifier: Apache-2.0
"""Training that pauses for evaluations: one process, one device.

The stock eval loop runs in one thread of its own from the first evaluation to the last, so that its
model and its input are built once; it and training take turns. A thread has its own distribution
strategy, summary writer and Keras learning phase: what the eval loop sets there, training does not
see.
"""

import functools
import queue
import threading
from collections.abc import Callable, Iterator
from concurrent import futures

import tensorflow as tf
from object_detection.protos import pipeline_pb2

from object_detection_ext.checkpoints import files, holding
from object_detection_ext.loops import best as best_lib
from object_detection_ext.loops import evaluate, stopping
from object_detection_ext.messages import say

_SECONDS_TO_END = 30.0


def wrap_train_loop(
    train_loop: Callable,
    *,
    stock_eval: Callable,
    read_pipeline: Callable,
    check_checkpoint: Callable,
    has_weights: Callable[[files.Contents], bool],
    check_input: Callable[[pipeline_pb2.TrainEvalPipelineConfig, str], None],
) -> Callable:
    """Lets a train loop evaluate too; same arguments and a few more.

    Args:
        train_loop: see `train.wrap_train_loop`.
        stock_eval: `model_lib_v2.eval_continuously`, the stock one.
        read_pipeline: see there.
        check_checkpoint: see `evaluate.wrap_eval_continuously`.
        has_weights: see there.
        check_input: takes a pipeline and its path; raises if it cannot be evaluated on its data.
    """

    @functools.wraps(train_loop)
    def train_and_evaluate_loop(
        pipeline_config_path,
        model_dir,
        config_override=None,
        train_steps=None,
        *args,
        train_and_evaluate=False,
        eval_every_n=None,
        stop_after_evals_without_gain=None,
        best_metric=None,
        best_metric_goal=None,
        eval_options=None,
        **kwargs,
    ):
        arguments = (pipeline_config_path, model_dir, config_override, train_steps, *args)
        if not train_and_evaluate:
            return train_loop(*arguments, **kwargs)
        every = eval_every_n or kwargs.get("checkpoint_every_n", 1000)
        pipeline = read_pipeline(pipeline_config_path, config_override)
        # In a thread, as evaluation will be: it has the strategy of evaluation, not of training.
        with futures.ThreadPoolExecutor(1) as thread:
            thread.submit(check_input, pipeline, pipeline_config_path).result()
        best = evaluate.open_best(pipeline, model_dir, best_metric, best_metric_goal)
        paused = PausedEvaluation(
            functools.partial(
                stock_eval,
                pipeline_config_path=pipeline_config_path,
                config_override=config_override,
                train_steps=train_steps,
                model_dir=model_dir,
                checkpoint_dir=model_dir,
                **(eval_options or {}),
            ),
            best,
            stop_after_evals_without_gain,
        )
        try:
            total = train_steps or pipeline.train_config.num_steps
            if (due := _left_unevaluated(model_dir, best, every, total, has_weights)) is not None:
                check_checkpoint(pipeline, due, pipeline_config_path)
                paused(due.prefix, files.step_of(due.prefix))
            paused.check_gain()
            train_loop(*arguments, on_checkpoint=paused, evaluate_every_n=every, **kwargs)
        except stopping.StopTraining as stop:
            say(f"training: {model_dir} has ended already: {stop}")
        finally:
            paused.close()

    return train_and_evaluate_loop


def _left_unevaluated(
    model_dir: str,
    best: best_lib.BestCheckpoint,
    every: int,
    total: int,
    has_weights: Callable[[files.Contents], bool],
) -> files.Contents | None:
    """The checkpoint that an earlier run saved and was ended before it was evaluated, if any."""
    contents = files.newest_whole(model_dir, lambda text: None)
    if contents is None or contents.non_finite or not has_weights(contents):
        return None  # training says what there is to say
    step = files.step_of(contents.prefix)
    is_due = step % every == 0 or step >= total
    return contents if is_due and step != best.record.last_evaluated_step else None


class PausedEvaluation:
    """Evaluates a checkpoint while training waits; to be called after a checkpoint."""

    def __init__(
        self,
        stock_eval: Callable,
        best: best_lib.BestCheckpoint,
        stop_after_evals_without_gain: int | None,
    ):
        """Evaluates nothing yet.

        Args:
            stock_eval: `model_lib_v2.eval_continuously`, with all but its waiting given.
            best: is offered each evaluated checkpoint.
            stop_after_evals_without_gain: so many in a row end training; None: never.
        """
        self._stock_eval = stock_eval
        self._best = best
        self._stop_after = stop_after_evals_without_gain
        self._requests: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def __call__(self, prefix: str, step: int) -> None:
        """Evaluates a checkpoint, and waits for the result.

        Args:
            prefix: the checkpoint.
            step: its training step.

        Raises:
            stopping.StopTraining: if it was the last of so many evaluations without gain.
        """
        # The process may be ended from here on, and what training has logged is to stay.
        tf.summary.flush()
        with evaluate.ended_by_signals(
            f"evaluation of step {step}",
            self._best.folder,
            f"The checkpoint is saved; it is evaluated first when training is resumed, by: "
            f"{stopping.command()}",
        ):
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._evaluate, daemon=True)
                self._thread.start()
            self._requests.put(prefix)
            error = self._answers.get()
        if error is not None:
            raise error
        self.check_gain()

    def check_gain(self) -> None:
        """Ends training if there were too many evaluations without gain; they outlive restarts.

        Raises:
            stopping.StopTraining: saying so.
        """
        count = self._best.record.evaluations_without_gain
        if self._stop_after is not None and count >= self._stop_after:
            evaluations = "1 evaluation" if count == 1 else f"{count} evaluations in a row"
            raise stopping.StopTraining(
                f"{evaluations} without gain (--stop_after_evals_without_gain="
                f"{self._stop_after}); best: {self._best.describe() or 'none'}, kept in "
                f"{self._best.folder}"
            )

    def close(self) -> None:
        """Ends the thread."""
        if self._thread is not None:
            self._requests.put(None)
            # Long only if an evaluation was interrupted from outside.
            self._thread.join(_SECONDS_TO_END)

    def _evaluate(self) -> None:
        evaluation = evaluate.Evaluation(self._best, on_result=lambda: self._answers.put(None))
        try:
            evaluation.run(self._stock_eval, self._requested())
        except BaseException as error:  # raised where training waits
            self._answers.put(error)

    def _requested(self) -> Iterator[str]:
        with holding.Holder(self._best.folder) as holder:
            for prefix in iter(self._requests.get, None):
                yield holder.hold(prefix)
