# SPDX-License-Identifier: Apache-2.0
"""Keeps the best checkpoint by a metric of the evaluation, in `model_dir/best`.

The folder is an ordinary checkpoint folder with `best.json` in addition. Readers find the old best
there or the new one at every moment: the new one's files come under a name of their own, then
`best.json` and the `checkpoint` file are replaced one after the other, then the old one's files go.
`best.json` says which one counts, and which files are to go: after a kill, the next run finishes.
"""

import dataclasses
import json
import math
import os
import re
import time
from collections.abc import Mapping, Sequence

import tensorflow as tf
from google.protobuf import text_format

from object_detection_ext import errors
from object_detection_ext import files as file_systems
from object_detection_ext.checkpoints import class_names, files, holding
from object_detection_ext.loops.metric_names import Metric, label
from object_detection_ext.messages import say

FOLDER = "best"
RECORD = "best.json"
_STATE = "checkpoint"
# What says which model it is, and what its classes are called.
_BESIDE = ("pipeline.config", class_names.KEPT_LABEL_MAP)
_NUMBER = re.compile(r"\d+$")


@dataclasses.dataclass(frozen=True)
class Record:
    """What `best.json` says.

    Attributes:
        evaluated_on: the evaluation's record files, as the pipeline.config names them.
        metric: full name of the scalar; None before the first evaluation that has it.
        goal: 'max' or 'min'.
        value: of the metric; None if no evaluation had a number.
        step: of the best checkpoint; None if there is none.
        checkpoint: name of its files in the folder, such as 'ckpt-5'; None if there is none.
        scalars: all scalars of the best checkpoint's evaluation by name; None for what is not a
            finite number.
        evaluations_without_gain: number of evaluations since the best.
        last_evaluated_step: of the newest evaluation, whatever its result.
        to_remove: names of checkpoints in the folder that do not count: not yet, or no more.
    """

    evaluated_on: tuple[str, ...]
    metric: str | None = None
    goal: str | None = None
    value: float | None = None
    step: int | None = None
    checkpoint: str | None = None
    scalars: Mapping[str, float | None] = dataclasses.field(default_factory=dict)
    evaluations_without_gain: int = 0
    last_evaluated_step: int | None = None
    to_remove: tuple[str, ...] = ()

    @classmethod
    def from_json(cls, text: str) -> "Record":
        """Reads what `to_json` wrote.

        Raises:
            ValueError: if the text is not that of a record.
        """
        loaded = json.loads(text)
        try:
            tuples = {name: tuple(loaded[name]) for name in ("evaluated_on", "to_remove")}
            record = cls(**{**loaded, **tuples})
        except (KeyError, TypeError) as error:
            raise ValueError(f"not a record of the best checkpoint: {error}") from error
        of_best = (record.metric, record.goal, record.value, record.step, record.checkpoint)
        if record.value is not None and None in of_best:
            raise ValueError("it has a value, but not all that belongs to it")
        if not isinstance(record.value, float | int | None):
            raise ValueError(f"its value is {record.value!r}, which is not a number")
        return record

    def to_json(self) -> str:
        """As text."""
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"


def read_record(model_dir: str) -> Record | None:
    """What is known of a model directory's best checkpoint; None if nothing is, or nothing legible.

    Args:
        model_dir: the folder above `best`.
    """
    path = os.path.join(model_dir, FOLDER, RECORD)
    if not tf.io.gfile.exists(path):
        return None
    try:
        with tf.io.gfile.GFile(path) as file:
            record = Record.from_json(file.read())
        if record.checkpoint is not None:
            files.read(os.path.join(model_dir, FOLDER, record.checkpoint))
    except (ValueError, tf.errors.OpError) as error:
        say(f"WARNING: '{path}' does not count, so the next evaluation is the best: {error}")
        return None
    return record


class BestCheckpoint:
    """The best checkpoint of a model directory so far; survives restarts."""

    def __init__(self, model_dir: str, metric: Metric, evaluated_on: Sequence[str]):
        """Reads what is kept, and finishes what a killed run began.

        Args:
            model_dir: the best is kept in its folder `best`.
            metric: by which; without a name it is the one by which the kept one was chosen.
            evaluated_on: record files of the evaluation; figures of others are not comparable.

        Raises:
            errors.InputError: if another metric or direction chose what is kept.
        """
        self.folder = os.path.join(model_dir, FOLDER)
        self._model_dir = model_dir
        self._metric = metric
        self._record = Record(tuple(evaluated_on))
        self._is_comparable = True
        kept = read_record(model_dir)
        if kept is None:
            return
        self._finish(kept)
        self._is_comparable = kept.evaluated_on == self._record.evaluated_on
        if self._is_comparable:
            self._adopt(kept)
            return
        say(
            f"WARNING: '{self.folder}' was chosen on {_listing(kept.evaluated_on)}, and this "
            f"evaluation is on {_listing(evaluated_on)}: what is kept stays as it is. To choose "
            "anew, remove or rename that folder."
        )

    @property
    def record(self) -> Record:
        """What is known of the best so far."""
        return self._record

    def describe(self) -> str | None:
        """The best so far: 'mAP@0.5IOU 0.651 at step 400'; None if there is none."""
        kept = self._record
        if kept.value is None:
            return None
        return f"{label(kept.metric)} {kept.value:.3f} at step {kept.step}"

    def _adopt(self, kept: Record) -> None:
        """Goes on from a record, if it is of the metric that is asked for."""
        self._record = kept
        if kept.metric is None:
            return
        wanted = self._metric
        if wanted.name is None:
            self._metric = Metric(kept.metric, wanted.goal or kept.goal)
        same = self._metric.name == kept.metric or (
            self._metric.is_mean_ap and label(kept.metric) != kept.metric
        )
        if not same or self._metric.goal_of(kept.metric) != kept.goal:
            raise errors.InputError(
                f"'{self.folder}' was chosen by {kept.metric}, {kept.goal}; --best_metric and "
                "--best_metric_goal ask for something else: leave them out, or remove or rename "
                "that folder to choose anew."
            )

    def offer(self, checkpoint: str, step: int, metrics: Mapping[str, float]) -> str:
        """Keeps a checkpoint if it is the best so far.

        Args:
            checkpoint: prefix.
            step: its training step.
            metrics: all scalars of its evaluation by name.

        Returns:
            What the evaluation found, for a line: 'mAP@0.5IOU 0.651 (best so far, kept in ...)'.

        Raises:
            errors.InputError: if the metric is not among the scalars.
        """
        name = self._metric.find(metrics)
        shown = self._metric.shown(metrics)
        if not self._is_comparable:
            return f"{shown} ({self.folder} was chosen on other records and is left as it is)"
        if name is None:
            return f"{shown} (so none is kept as the best; --best_metric can name another scalar)"
        value, goal = float(metrics[name]), self._metric.goal_of(name)
        # After going back from a divergence, a step may be another model than before.
        if step == self._record.step and value == self._record.value:
            self._write(dataclasses.replace(self._record, last_evaluated_step=step))
        elif _is_better(value, self._record.value, goal):
            self._keep(checkpoint, step, name, metrics)
        else:
            return f"{shown} ({self._without_gain(step, name, value)})"
        return f"{shown} (best so far, kept in {self.folder})"

    def _keep(self, checkpoint: str, step: int, metric: str, metrics: Mapping[str, float]) -> None:
        tf.io.gfile.makedirs(self.folder)
        old = self._record
        name = _free_name(os.path.basename(checkpoint), tf.io.gfile.listdir(self.folder))
        # Whoever is killed while the files come has said that they do not count.
        self._write(dataclasses.replace(old, to_remove=(*old.to_remove, name)))
        holding.link(checkpoint, os.path.join(self.folder, name))
        for beside in _BESIDE:
            path = os.path.join(self._model_dir, beside)
            if tf.io.gfile.exists(path):
                with tf.io.gfile.GFile(path) as file:
                    self._replace(beside, file.read())
        new = Record(
            evaluated_on=old.evaluated_on,
            metric=metric,
            goal=self._metric.goal_of(metric),
            value=float(metrics[metric]),
            step=step,
            checkpoint=name,
            scalars=_as_json(metrics),
            last_evaluated_step=step,
            to_remove=(*old.to_remove, *([old.checkpoint] if old.checkpoint else [])),
        )
        self._write(new)
        self._point_to(name)
        self._finish(new)

    def _without_gain(self, step: int, metric: str, value: float) -> str:
        """Counts an evaluation, and says why it changes nothing."""
        kept = self._record
        count = kept.evaluations_without_gain + (step != kept.last_evaluated_step)
        new = {"evaluations_without_gain": count, "last_evaluated_step": step}
        self._write(
            dataclasses.replace(kept, metric=metric, goal=self._metric.goal_of(metric), **new)
        )
        never = "" if math.isfinite(value) else "what is not a number is never the best; "
        if kept.value is None:
            return f"{never}none is kept yet"
        evaluations = "1 evaluation" if count == 1 else f"{count} evaluations"
        return f"{never}best so far: {self.describe()}, {evaluations} ago"

    def _finish(self, record: Record) -> None:
        """Makes the folder what the record says: the `checkpoint` file, no files that do not count.

        Args:
            record: as `best.json` has it.
        """
        if record.checkpoint is not None:
            # Where nothing was interrupted, somebody may have trained in the folder since then.
            if record.to_remove or not _has_state(self.folder):
                self._point_to(record.checkpoint)
        for name in record.to_remove:
            holding.remove(os.path.join(self.folder, name))
        if record.to_remove:
            self._write(dataclasses.replace(record, to_remove=()))

    def _point_to(self, name: str) -> None:
        is_local = "://" not in self.folder
        now = time.time()
        state = tf.compat.v1.train.generate_checkpoint_state_proto(
            os.path.abspath(self.folder) if is_local else self.folder, name, [name], [now], now
        )
        self._replace(_STATE, text_format.MessageToString(state))

    def _write(self, record: Record) -> None:
        tf.io.gfile.makedirs(self.folder)
        self._replace(RECORD, record.to_json())
        self._record = record

    def _replace(self, name: str, text: str) -> None:
        """Writes a file beside its place and renames it."""
        file_systems.write_text(os.path.join(self.folder, name), text)


def _has_state(folder: str) -> bool:
    """Whether a folder has a `checkpoint` file that can be read."""
    try:
        return tf.train.get_checkpoint_state(folder) is not None
    except (tf.errors.OpError, ValueError):
        return False


def _is_better(value: float, kept: float | None, goal: str) -> bool:
    """Whether a value is better than the one that is kept; an equal one is not."""
    if not math.isfinite(value):
        return False
    if kept is None:
        return True
    return value > kept if goal == "max" else value < kept


def _listing(paths: Sequence[str]) -> str:
    return ", ".join(f"'{path}'" for path in paths) or "no records"


def _free_name(name: str, taken: Sequence[str]) -> str:
    """The name, or the first of the same kind with a higher number that no file has."""
    while any(other.startswith(f"{name}.") for other in taken):
        match = _NUMBER.search(name)
        name = f"{name[: match.start()]}{int(match[0]) + 1}" if match else f"{name}-1"
    return name


def _as_json(metrics: Mapping[str, float]) -> dict[str, float | None]:
    """Scalars as JSON can say them: it has no NaN."""
    values = {name: float(value) for name, value in metrics.items()}
    return {name: value if math.isfinite(value) else None for name, value in values.items()}
