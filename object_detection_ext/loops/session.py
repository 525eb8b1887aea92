# SPDX-License-Identifier: Apache-2.0
"""One run of the stock train loop: what is done between its calls, and on a signal."""

import contextlib
import dataclasses
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
import tensorflow as tf

from object_detection_ext import errors, files, listing
from object_detection_ext.loops import (
    guard,
    instruments,
    manager,
    step_clock,
    stopping,
    train_progress,
)
from object_detection_ext.messages import heartbeat, say

# After a signal no batch reaches the model any more. So long after the last step's end, nothing
# changes the variables.
_SETTLED_SECONDS = 1.0
_LOOK_SECONDS = 0.05

OnCheckpoint = Callable[[str, int], None]


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a run is to do.

    Attributes:
        done: steps done before.
        total: steps at the end.
        max_steps_per_call: limit of `steps_per_call`.
        checkpoint_every_n: steps between checkpoints.
        evaluate_every_n: steps between calls of `on_checkpoint`; None: at the end only.
        on_checkpoint: called with prefix and step after the checkpoints that are due for it.
        keep_every_n_hours: a checkpoint of each such period is kept for ever; None: of none.
        batch_size: clips of a step.
        num_replicas: that share a batch.
        find_explosions: whether a finite loss can end training.
        reports_steps: whether the step can call Python: on TPU it cannot.
        can_save_alone: whether this process may write a checkpoint when others do not.
    """

    done: int
    total: int
    max_steps_per_call: int
    checkpoint_every_n: int
    evaluate_every_n: int | None
    on_checkpoint: OnCheckpoint | None
    keep_every_n_hours: float | None
    batch_size: int
    num_replicas: int = 1
    find_explosions: bool = True
    reports_steps: bool = True
    can_save_alone: bool = True

    @property
    def steps_per_call(self) -> int:
        """Steps of one call of the stock loop's step function.

        The loop ends exactly at the total, and every step at which something is due ends a call.
        """
        multiple = math.gcd(
            self.done, self.total, self.checkpoint_every_n, self.evaluate_every_n or 0
        )
        numbers = range(min(multiple, self.max_steps_per_call), 0, -1)
        return next(number for number in numbers if multiple % number == 0)

    def is_evaluated(self, step: int) -> bool:
        """Whether the checkpoint of a step is due for `on_checkpoint`."""
        if self.on_checkpoint is None:
            return False
        every = self.evaluate_every_n
        return step == self.total or bool(every and step > 0 and step % every == 0)

    def is_saved(self, step: int) -> bool:
        """Whether a checkpoint is due at a step."""
        regular = step % self.checkpoint_every_n == 0
        return regular or step == self.total or self.is_evaluated(step)


class Session:
    """What surrounds one run of the stock train loop."""

    def __init__(self, plan: Plan):
        """Takes what to do."""
        self._plan = plan
        self.guard = guard.Guard(plan.done, plan.num_replicas, plan.find_explosions)
        self.clock = step_clock.StepClock()
        self._time = train_progress.StoppedClock()
        self._progress = train_progress.Progress(plan.done, plan.total, plan.batch_size, self._time)
        self._manager: manager.Manager | None = None
        self._log = train_progress.StockLog()
        self._save_is_due = self._evaluation_is_due = self._is_evaluating = False
        # After the last step everything is saved; the stock loop takes seconds to end.
        self._is_over = False
        self._stop_heartbeat: Callable[[], None] = lambda: None
        # Who has it decides what is saved: the main thread between calls, or who handles a signal.
        self._decision = threading.Lock()

    @contextlib.contextmanager
    def around_stock_loop(self) -> Iterator[None]:
        """Everything that is other than stock while the stock loop runs.

        Raises:
            guard.Diverged: if the training has diverged.
            stopping.Interrupted: after a signal.
            stopping.StopTraining: if `on_checkpoint` ended training.
            manager.SaveError: if something could not be written.
        """
        listener = stopping.active()
        watch = step_clock.SlowStepWatch(self.clock, say)
        with contextlib.ExitStack() as stack:
            enter = stack.enter_context
            enter(manager.installed(self._after_call, self._plan.keep_every_n_hours))
            enter(self._time.installed())
            if self._plan.reports_steps:
                enter(instruments.installed(self))
                enter(watch.watching())
            if listener is not None:
                enter(listener.handler(self._on_signal))
            self._log = enter(train_progress.stock_log(self._plan.steps_per_call))
            what = "training: building the graph and running the first step"
            self._stop_heartbeat = enter(heartbeat(what))
            try:
                yield
            except tf.errors.OpError as error:
                # The stock loop's event files are on the same disk.
                if not files.is_of_the_disk(error):
                    raise
                raise manager.SaveError(
                    f"Training cannot write its files: {manager.describe(error)}. "
                    f"{self._newest()} Make room there and run the same command to resume."
                ) from error

    def arrive(self, replica: int) -> None:
        """A batch has arrived; from a thread of TensorFlow."""
        self.clock.arrive(replica)

    def finish_step(
        self, replica: int, step: int, losses: dict[str, float], weights: float, hashes: np.ndarray
    ) -> None:
        """A step is done; from a thread of TensorFlow."""
        self.clock.finish_step(replica)
        self.guard.add(guard.Step(step, losses, weights, tuple(int(h) for h in hashes)))

    def _after_call(self, of_run: manager.Manager) -> None:
        """What the stock loop's call of `save` does: once at step 0, then after each call."""
        self._manager, step = of_run, of_run.step
        if step > self._plan.done:
            with self._decision:
                self._after_steps(step, self.clock.end_call())
        elif of_run.latest_checkpoint is None:
            self._save(step)
        self._is_over = step >= self._plan.total
        if not self._is_over:
            self.clock.begin_call()

    def _after_steps(self, step: int, times: step_clock.CallTimes | None) -> None:
        self._stop_heartbeat()
        if not self._plan.reports_steps and self._log.loss is not None:
            self.guard.add(guard.Step(step, {guard.TOTAL: self._log.loss}))
        try:
            self.guard.check()
            if step >= self._plan.total:
                self.guard.check_end()
        finally:
            last = self.guard.last
            loss = self._log.loss if last is None else last.losses[guard.TOTAL]
            # What steps do not report, such as the wait for input, is not known.
            self._progress.update(step, loss, times if self._plan.reports_steps else None)
        is_signalled = self._received() is not None
        self._save_is_due |= self._plan.is_saved(step) or is_signalled
        self._evaluation_is_due |= self._plan.is_evaluated(step)
        must = step >= self._plan.total or (is_signalled and not self.guard.has_exploded)
        # One batch may give a huge loss: the checkpoint then waits for the next steps' losses.
        if self._save_is_due and (self.guard.is_healthy or must):
            self._save(step)
        if self._received() is not None:
            raise stopping.Interrupted(self._received(), self._resume(self._received()))

    def _save(self, step: int) -> None:
        self._check_variables(step)
        prefix = self._manager.write()
        self._save_is_due = False
        if not self._evaluation_is_due:
            return
        # Before the look at the signal: one that comes after it ends the evaluation.
        self._is_evaluating = True
        try:
            if self._received() is None:
                self._evaluation_is_due = False
                with self._time.pause():
                    self._plan.on_checkpoint(prefix, step)
        finally:
            self._is_evaluating = False

    def _check_variables(self, step: int) -> None:
        bad = guard.non_finite_variables(self._manager.checkpoint)
        if not bad:
            return
        names = listing.in_line(bad)
        if step == self._plan.done:
            raise errors.InputError(
                f"Not all variables that training starts from are finite: {names}. "
                "Give another train_config.fine_tune_checkpoint."
            )
        last = self.guard.last or guard.Step(step, {})
        reason = f"{len(bad)} variable{'s are' if len(bad) > 1 else ' is'} not finite: {names}"
        raise guard.Diverged(reason, last, self.guard.last_healthy)

    def _received(self) -> int | None:
        """The signal that ends training; None before."""
        listener = stopping.active()
        return None if listener is None else listener.received

    def _on_signal(self, number: int) -> None:
        """Handles the first signal, in a thread of its own."""
        listener = stopping.active()
        has_nothing_to_save = self._is_evaluating or self._is_over or not self.clock.has_begun
        if has_nothing_to_save or not self._plan.can_save_alone:
            listener.end_process(number, self._resume(number))
        name = signal.Signals(number).name
        say(f"training: {name}: this step ends, and a checkpoint is written; again: at once")
        with self.clock.closed():
            # The main thread decides where a call ends now. It does not while it waits for input,
            # or where more steps of the same call would follow.
            while True:
                time.sleep(_LOOK_SECONDS)
                with self._decision:
                    if self._waits_for_input():
                        self._save_between_calls()
                        listener.end_process(number, self._resume(number))

    def _waits_for_input(self) -> bool:
        # Without reports nobody knows what the step waits for.
        waits = self._plan.reports_steps and self.clock.waits_for == step_clock.INPUT
        return waits and self.clock.elapsed() > _SETTLED_SECONDS

    def _save_between_calls(self) -> None:
        of_run = self._manager
        try:
            self.guard.check()
            if of_run is None or of_run.written_step == of_run.step or self.guard.has_exploded:
                return
            self._check_variables(of_run.step)
            of_run.write()
        except (errors.ReportedError, guard.Diverged) as error:
            say(f"training: no checkpoint is written: {error}")

    def _newest(self) -> str:
        if self._manager is None or self._manager.latest_checkpoint is None:
            return "No checkpoint was written."
        return f"The newest checkpoint is '{self._manager.latest_checkpoint}'."

    def _resume(self, number: int) -> str:
        """A line that says where training ended, and what to run to resume."""
        name = signal.Signals(number).name
        of_run = self._manager
        if of_run is None or not self.clock.has_begun:
            return stopping.before_first_step(number)
        saved = f"{self._newest()[:-1]}"
        if of_run.written_step is not None:
            saved += f" (step {of_run.written_step})"
        return f"{name}: training ended. {saved}. To resume: {stopping.command()}"
