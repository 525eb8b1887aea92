# SPDX-License-Identifier: Apache-2.0
"""What surrounds the stock loops: signs of life, a last checkpoint, an end to waiting.

The stock loops do the work unchanged. Of themselves they log every 100 steps only, run whole
hundreds of steps, save nothing at the last step unless it is due, and, when evaluating, sleep 300
seconds before they look whether to stop.
"""

import contextlib
import functools
import logging
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator

import tensorflow as tf
from object_detection import model_lib_v2

from object_detection_ext import errors
from object_detection_ext.progress import format_seconds

# Steps in one call of the stock loop's tf.function; it logs and writes scalars after each call. One
# step a call traces the step once, more trace it twice, and a trace takes half a minute; many steps
# a call keep the event files of long runs small.
_LONG_RUN_STEPS = 20_000
_STEPS_PER_CALL_OF_LONG_RUN = 10
# On TPU each call is a round trip to the host: the stock number.
_STEPS_PER_CALL_ON_TPU = model_lib_v2.NUM_STEPS_PER_ITERATION

_HEARTBEAT_SECONDS = 15.0
_REPORT_SECONDS = 5.0

_STEP_PATTERN = re.compile(r"^Step (\d+) per-step time ([\d.]+)s")
_LOSS_PATTERN = re.compile(r"'Loss/total_loss': (?:np\.float32\()?([-+.\deE]+|nan|inf)")


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
        done = checkpointed_step(model_dir)
        if done >= total:
            _say(f"training: {model_dir} is at step {done} of {total} already; nothing to do")
        for end, every, chunk in plan_segments(done, total, checkpoint_every_n, per_call):
            with _progress_of_training(done, total, chunk):
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


def wrap_eval_continuously(stock_eval: Callable) -> Callable:
    """Surrounds `model_lib_v2.eval_continuously`; same arguments."""

    @functools.wraps(stock_eval)
    def eval_continuously(*args, wait_interval=180, timeout=3600, **kwargs):
        # The stock loop sleeps wait_interval before it starts to count the timeout.
        with _heartbeat("evaluating, or waiting for the next checkpoint"), _info_logs():
            return stock_eval(
                *args, wait_interval=min(wait_interval, timeout), timeout=timeout, **kwargs
            )

    return eval_continuously


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


def checkpointed_step(model_dir: str) -> int:
    """The step of the newest checkpoint in a model directory; 0 if there is none."""
    checkpoint = tf.train.latest_checkpoint(model_dir)
    if checkpoint is None:
        return 0
    return int(tf.train.load_variable(checkpoint, "step/.ATTRIBUTES/VARIABLE_VALUE"))


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


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


@contextlib.contextmanager
def _heartbeat(what: str):
    """Says every few seconds that something is still under way; gives a function to stop it."""
    start, stopped = time.monotonic(), threading.Event()

    def beat():
        while not stopped.wait(_HEARTBEAT_SECONDS):
            _say(f"{what} ... {format_seconds(time.monotonic() - start)}")

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield stopped.set
    finally:
        stopped.set()
        thread.join()


@contextlib.contextmanager
def _info_logs():
    """Lets the stock loops' own messages through, each once."""
    logger = logging.getLogger("tensorflow")
    level, propagate = logger.level, logger.propagate
    logger.setLevel(logging.INFO)
    # TensorFlow's logger has a handler of its own and hands on to absl's, which prints it again.
    logger.propagate = not logger.handlers
    try:
        yield logger
    finally:
        logger.setLevel(level)
        logger.propagate = propagate


@contextlib.contextmanager
def _progress_of_training(done: int, total: int, log_every: int):
    """Turns the stock loop's log messages into progress with the time left."""
    stock_log_every = model_lib_v2.LOG_EVERY
    model_lib_v2.LOG_EVERY = log_every
    what = "training: building the graph and running the first step"
    _say(f"training: from step {done} to {total}")
    try:
        with _heartbeat(what) as stop_heartbeat, _info_logs() as logger:
            reporter = _StepReporter(done, total, stop_heartbeat)
            logger.addHandler(reporter)
            logger.addFilter(reporter.is_not_a_step)
            try:
                yield
            finally:
                logger.removeFilter(reporter.is_not_a_step)
                logger.removeHandler(reporter)
    finally:
        model_lib_v2.LOG_EVERY = stock_log_every


class _StepReporter(logging.Handler):
    """Reads step and loss from the stock loop's messages and says how long the rest takes."""

    def __init__(self, done: int, total: int, on_first_step: Callable[[], None]):
        super().__init__()
        self._total = total
        self._on_first_step = on_first_step
        self._first: tuple[int, float] | None = None
        self._start_step = done
        self._step, self._last_report = done, 0.0

    def is_not_a_step(self, record: logging.LogRecord) -> bool:
        """A filter that takes the stock step messages out of the log, as they are reported here."""
        message = record.getMessage()
        if not (_STEP_PATTERN.match(message) or _LOSS_PATTERN.search(message)):
            return True
        self.emit(record)
        return False

    def emit(self, record: logging.LogRecord) -> None:
        """Takes a message; every few seconds prints a line."""
        message = record.getMessage()
        if match := _STEP_PATTERN.match(message):
            self._step = int(match.group(1))
            self._on_first_step()
        elif match := _LOSS_PATTERN.search(message):
            self._report(float(match.group(1)))

    def _report(self, loss: float) -> None:
        now = time.monotonic()
        if self._first is None:
            # The first steps hold the compilation: no measure of what comes.
            self._first = (self._step, now)
            _say(f"training: step {self._step} of {self._total}, loss {loss:.3f}")
            return
        if now - self._last_report < _REPORT_SECONDS and self._step < self._total:
            return
        self._last_report = now
        seconds = (now - self._first[1]) / max(1, self._step - self._first[0])
        left = format_seconds(seconds * (self._total - self._step))
        _say(
            f"training: step {self._step} of {self._total}, loss {loss:.3f}, "
            f"{seconds:.2f} s a step, {left} left"
        )
