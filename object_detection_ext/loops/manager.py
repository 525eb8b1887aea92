# SPDX-License-Identifier: Apache-2.0
"""The checkpoint manager that the stock train loop gets: what happens between its calls.

The loop asks its manager to save after every call of its step function. The manager asks back
whether a checkpoint is due.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator

import tensorflow as tf
from object_detection import model_lib_v2

from object_detection_ext import errors, files


class SaveError(errors.ReportedError):
    """A checkpoint could not be written."""


class Manager(tf.train.CheckpointManager):
    """A stock manager whose `save` leaves the decision to somebody else."""

    def __init__(self, *args, after_call: Callable[["Manager"], None], **kwargs):
        """Takes what to do when the stock loop wants to save; it may call `write`."""
        super().__init__(*args, **kwargs)
        self._after_call = after_call
        self._strategy = tf.distribute.get_strategy()
        self.written: str | None = None
        self.written_step: int | None = None

    @property
    def step(self) -> int:
        """Steps done."""
        with self._strategy.scope():
            return int(self.checkpoint.step.value())

    def save(self, *args, **kwargs) -> None:
        """What the stock loop calls: at step 0, and after each call of its step function."""
        del args, kwargs
        self._after_call(self)

    def write(self) -> str:
        """Writes a checkpoint; from any thread.

        Raises:
            SaveError: if it could not be written. The older ones are then as they were.
        """
        with self._strategy.scope():
            number = int(self.checkpoint.save_counter.value()) + 1
            try:
                self.written = super().save()
            except (tf.errors.OpError, OSError) as error:
                raise self._failed(f"{self._prefix}-{number}", error) from error
        self.written_step = self.step
        return self.written

    def _failed(self, prefix: str, error: Exception) -> SaveError:
        remove_unfinished(self.directory, prefix)
        newest = self._newest_listed()
        return SaveError(
            f"The checkpoint of step {self.step}, {prefix}, could not be written: "
            f"{describe(error)}. "
            + (f"The newest whole one is '{newest}'. " if newest else "There is none before it. ")
            + "Make room there, or give another --model_dir, and run the same command to resume."
        )

    def _newest_listed(self) -> str | None:
        state = tf.train.get_checkpoint_state(self.directory)
        return state.model_checkpoint_path if state else None


def remove_unfinished(folder: str, prefix: str) -> None:
    """Removes what writing a checkpoint left that did not come to its end."""
    state = tf.train.get_checkpoint_state(folder)
    if state and prefix in state.all_model_checkpoint_paths:
        return  # listed, so it was whole
    with contextlib.suppress(tf.errors.OpError):
        for pattern in (f"{prefix}.index", f"{prefix}.index.*", f"{prefix}.data-*"):
            for path in tf.io.gfile.glob(pattern):
                tf.io.gfile.remove(path)
        if tf.io.gfile.exists(f"{prefix}_temp"):
            tf.io.gfile.rmtree(f"{prefix}_temp")
        for path in tf.io.gfile.glob(f"{folder}/checkpoint.tmp*"):
            tf.io.gfile.remove(path)


def describe(error: Exception) -> str:
    """One line of an error of writing: without the op that failed and its Python traceback."""
    if files.is_of_the_disk(error):
        return files.words_of_the_disk(str(error))
    lines = str(getattr(error, "message", error)).strip().splitlines()
    return lines[0] if lines else type(error).__name__


@contextlib.contextmanager
def installed(
    after_call: Callable[[Manager], None], keep_every_n_hours: float | None
) -> Iterator[None]:
    """Gives the stock train loop managers of ours while this lasts.

    Args:
        after_call: see `Manager`.
        keep_every_n_hours: a checkpoint of each such period is kept for ever; None: of none.
    """
    module = model_lib_v2.tf.compat.v2.train
    stock = module.CheckpointManager
    module.CheckpointManager = functools.partial(
        Manager, after_call=after_call, keep_checkpoint_every_n_hours=keep_every_n_hours
    )
    try:
        yield
    finally:
        module.CheckpointManager = stock
