# SPDX-License-Identifier: Apache-2.0
"""What surrounds the stock eval loop, with a fake loop: its checkpoints, its results, its end."""

import logging
import pathlib
import threading
import time

import pytest
import tensorflow as tf
from object_detection import model_lib_v2

from object_detection_ext import errors, registration
from object_detection_ext.checkpoints import files
from object_detection_ext.loops import best as best_lib
from object_detection_ext.loops import evaluate, stopping
from tests import tiny_pipeline
from tests.loops import best_test

registration.register()

_MEAN_AP = "AvaDetectionBoxes_Precision/mAP@0.5IOU"
_LOGGER = logging.getLogger("tensorflow")
save = best_test.save


class StockEval:
    """Stands for the stock eval loop: asks for checkpoints as it does, ends as it does.

    Attributes:
        calls: keyword arguments of each call.
        steps: of the checkpoints that it evaluated.
    """

    def __init__(self, values, num_steps: int = 1000, during=lambda step: None):
        """Takes the mAP of each evaluation, and what happens in the middle of one."""
        self.calls, self.steps = [], []
        self._values, self._num_steps, self._during = iter(values), num_steps, during

    def __call__(self, **kwargs):
        self.calls.append(kwargs)
        for prefix in model_lib_v2.tf.train.checkpoints_iterator(
            kwargs["checkpoint_dir"],
            timeout=kwargs["timeout"],
            min_interval_secs=kwargs["wait_interval"],
        ):
            step = files.step_of(prefix)
            self._during(step)
            assert files.read(prefix).non_finite == ()  # it is still there
            self.steps.append(step)
            model_lib_v2.eager_eval_loop(
                "model", "configs", "input", global_step=tf.Variable(step, dtype=tf.int64)
            )
            if step == self._num_steps:
                _LOGGER.info("Exiting evaluation at step %d", step)
                return

    def eager_eval_loop(self, detection_model, configs, eval_dataset, *, global_step=None):
        """Stands for `model_lib_v2.eager_eval_loop`."""
        assert (detection_model, configs, eval_dataset) == ("model", "configs", "input")
        assert _LOGGER.level == logging.INFO
        return {_MEAN_AP: next(self._values), "Loss/total_loss": tf.constant(1.0)}


@pytest.fixture
def evaluated(tmp_path, monkeypatch):
    """Runs the wrapped loop on fakes; a checkpoint without 'model/w' has no weights."""
    (tmp_path / "model").mkdir()
    label_map = tiny_pipeline.write_label_map(tmp_path / "labels.pbtxt")
    pipeline = tiny_pipeline.make_pipeline(label_map=label_map, evaluation="val-?")

    def check_checkpoint(given, contents, source):
        assert given is pipeline and source == "a.config"
        if "model/other/.ATTRIBUTES/VARIABLE_VALUE" in contents.shapes:
            raise errors.InputError(f"{contents.prefix} is of another model")

    def run(stock_eval, checkpoint_dir=tmp_path / "model", **kwargs):
        monkeypatch.setattr(model_lib_v2, "eager_eval_loop", stock_eval.eager_eval_loop)
        wrapped = evaluate.wrap_eval_continuously(
            stock_eval,
            read_pipeline=lambda path, override: pipeline,
            check_checkpoint=check_checkpoint,
            has_weights=lambda contents: any(key.startswith("model/") for key in contents.shapes),
        )
        wrapped(
            "a.config",
            **{
                "model_dir": str(tmp_path / "model"),
                "checkpoint_dir": str(checkpoint_dir),
                "wait_interval": 300,
                "timeout": 0,
                **kwargs,
            },
        )

    return run


def _lines(capsys, start="evaluation: step") -> list[str]:
    return [line for line in capsys.readouterr().err.splitlines() if line.startswith(start)]


def test_the_newest_is_evaluated_and_the_result_is_one_line(evaluated, tmp_path, capsys):
    save(tmp_path / "model", 100)
    save(tmp_path / "model", 200)
    stock = StockEval([0.651])
    before = (_LOGGER.level, list(_LOGGER.filters), model_lib_v2.tf.train.checkpoints_iterator)
    evaluated(stock, config_override="o", train_steps=7, use_tpu=False)
    assert stock.steps == [200]
    folder = tmp_path / "model" / "best"
    *_, result, end = capsys.readouterr().err.splitlines()
    assert result == f"evaluation: step 200: mAP@0.5IOU 0.651 (best so far, kept in {folder})"
    assert end == (
        "evaluation: done: 1 checkpoint evaluated, and no new one came within 0 s "
        f"(--eval_timeout); best so far: mAP@0.5IOU 0.651 at step 200, kept in {folder}"
    )
    assert files.step_of_newest(str(folder)) == 200
    (call,) = stock.calls
    assert (call["config_override"], call["train_steps"], call["use_tpu"]) == ("o", 7, False)
    after = (_LOGGER.level, list(_LOGGER.filters), model_lib_v2.tf.train.checkpoints_iterator)
    assert after == before
    assert not list((tmp_path / "model").glob("best.evaluating*"))


def test_the_result_of_the_last_step_is_the_last_line(evaluated, tmp_path, capsys):
    save(tmp_path / "model", 1000)
    stock = StockEval([0.5])
    evaluated(stock, timeout=3600)
    assert capsys.readouterr().err.splitlines()[-1].startswith("evaluation: step 1000: mAP@0.5IOU")


def test_checkpoints_are_evaluated_as_they_come(evaluated, tmp_path, capsys):
    model_dir = tmp_path / "model"
    save(model_dir, 1)
    evaluating = threading.Event()

    def train():
        evaluating.wait()
        time.sleep(1.0)
        save(model_dir, 2)

    thread = threading.Thread(target=train)
    thread.start()
    stock = StockEval([0.5, 0.4], num_steps=2, during=lambda step: evaluating.set())
    evaluated(stock, wait_interval=0, timeout=60)
    thread.join()
    assert stock.steps == [1, 2]
    said = _lines(capsys)
    assert len(said) == 2 and "best so far: mAP@0.5IOU 0.500 at step 1, 1 evaluation" in said[1]


def test_training_may_delete_what_is_being_evaluated(evaluated, tmp_path):
    model_dir = tmp_path / "model"
    save(model_dir, 1, max_to_keep=1)

    def train(step):
        if step == 1:
            save(model_dir, 2, max_to_keep=1)
            assert not (model_dir / "ckpt-1.index").exists()

    evaluated(
        stock := StockEval([0.5, 0.4], num_steps=2, during=train), timeout=10, wait_interval=0
    )
    assert stock.steps == [1, 2]
    assert files.step_of_newest(str(model_dir / "best")) == 1


def test_a_folder_that_is_not_there_is_an_error_at_once(evaluated, tmp_path):
    start = time.monotonic()
    with pytest.raises(errors.InputError, match="no checkpoint '.*/modle'"):
        evaluated(StockEval([]), checkpoint_dir=tmp_path / "modle", timeout=3600)
    assert time.monotonic() - start < 10


@pytest.mark.parametrize("step_0", [False, True])
def test_a_folder_that_stays_empty_ends_with_a_status_of_its_own(evaluated, tmp_path, step_0):
    if step_0:
        # The stock train loop's first checkpoint is saved before there are any weights.
        checkpoint = tf.train.Checkpoint(step=tf.Variable(0, dtype=tf.int64))
        tf.train.CheckpointManager(checkpoint, str(tmp_path / "model"), max_to_keep=1).save()
    start = time.monotonic()
    stock = StockEval([])
    with pytest.raises(errors.NothingDoneError, match=r"within 2 s \(--eval_timeout\): nothing"):
        evaluated(stock, timeout=2)
    assert 2 <= time.monotonic() - start < 6
    assert stock.calls == []
    assert errors.NothingDoneError.exit_status == 3


def test_a_prefix_is_evaluated_alone(evaluated, tmp_path, capsys):
    for step in (1, 2, 3):
        save(tmp_path / "model", step)
    stock = StockEval([0.5])
    evaluated(stock, checkpoint_dir=tmp_path / "model" / "ckpt-2", timeout=3600)
    assert stock.steps == [2]
    assert capsys.readouterr().err.splitlines()[-1].startswith("evaluation: step 2: ")


def test_the_best_is_evaluated_and_stays(evaluated, tmp_path):
    save(tmp_path / "model", 1)
    evaluated(StockEval([0.5]))
    stock = StockEval([0.5])
    evaluated(stock, checkpoint_dir=tmp_path / "model" / "best")
    assert stock.steps == [1]
    assert best_lib.read_record(str(tmp_path / "model")).evaluations_without_gain == 0
    assert files.step_of_newest(str(tmp_path / "model" / "best")) == 1


def test_a_damaged_newest_is_passed_over_once(evaluated, tmp_path, capsys):
    model_dir = tmp_path / "model"
    save(model_dir, 1)
    save(model_dir, 2)
    (model_dir / "ckpt-2.data-00000-of-00001").write_bytes(b"cut")
    evaluated(stock := StockEval([0.5]), timeout=3)
    assert stock.steps == [1]
    said = [line for line in capsys.readouterr().err.splitlines() if "WARNING" in line]
    assert len(said) == 2 and "ckpt-2.data-00000-of-00001 is cut off or damaged" in said[0]


def test_nothing_but_damaged_ones_is_an_error(evaluated, tmp_path):
    save(tmp_path / "model", 1)
    (tmp_path / "model" / "ckpt-1.index").write_bytes(b"")
    stock = StockEval([])
    with pytest.raises(files.DamagedError, match="ckpt-1.index is cut off"):
        evaluated(stock, timeout=1)
    assert stock.calls == []


def test_one_that_becomes_whole_is_evaluated(evaluated, tmp_path):
    """Copied from another machine while somebody looks."""
    save(tmp_path / "model", 1)
    data = tmp_path / "model" / "ckpt-1.data-00000-of-00001"
    whole = data.read_bytes()
    data.write_bytes(whole[:5])
    copying = threading.Timer(1.5, lambda: data.write_bytes(whole))
    copying.start()
    evaluated(stock := StockEval([0.5], num_steps=1), timeout=30)
    assert stock.steps == [1]


def test_what_is_not_to_be_evaluated_ends_before_anything_is_built(evaluated, tmp_path):
    checkpoint = tf.train.Checkpoint(
        step=tf.Variable(1, dtype=tf.int64), model=tf.train.Checkpoint(other=tf.Variable(1.0))
    )
    folder = tmp_path / "other"
    tf.train.CheckpointManager(checkpoint, str(folder), max_to_keep=1).save()
    stock = StockEval([])
    with pytest.raises(errors.InputError, match="is of another model"):
        evaluated(stock, checkpoint_dir=folder)
    checkpoint.model.other.assign(float("nan"))
    checkpoint.save(str(folder / "nan"))
    with pytest.raises(errors.InputError, match="NaN or infinite"):
        evaluated(stock, checkpoint_dir=folder / "nan-2")
    assert stock.calls == []


def test_an_unknown_metric_is_an_error_before_anything_is_built(evaluated, tmp_path):
    stock = StockEval([])
    with pytest.raises(errors.InputError) as raised:
        evaluated(stock, best_metric="mAP@0.5", timeout=3600)
    assert "'mAP@0.5' is not a scalar of this evaluation" in str(raised.value)
    for name in (_MEAN_AP, "Loss/total_loss", "PerformanceByCategory/AP@0.5IOU/walk"):
        assert name in str(raised.value)
    with pytest.raises(errors.InputError, match="must be max or min"):
        evaluated(stock, best_metric_goal="up")
    assert stock.calls == []


def test_a_metric_that_the_records_do_not_give_is_an_error(evaluated, tmp_path):
    save(tmp_path / "model", 1)
    name = "AvaDetectionBoxes_PerformanceByCategory/AP@0.5IOU/walk"
    with pytest.raises(errors.InputError, match=f"(?s){name}.*It has:\n  {_MEAN_AP}"):
        evaluated(StockEval([0.5]), best_metric=name)
    assert not (tmp_path / "model" / "best").exists()


def test_an_evaluation_that_fails_is_not_a_result(evaluated, tmp_path, capsys):
    save(tmp_path / "model", 1)

    def fail(step):
        raise KeyError("a defect")

    iterator = model_lib_v2.tf.train.checkpoints_iterator
    with pytest.raises(KeyError):
        evaluated(StockEval([0.5], during=fail))
    assert _lines(capsys) == []
    assert [path.name for path in (tmp_path / "model").glob("best*")] == []
    assert model_lib_v2.tf.train.checkpoints_iterator is iterator


def test_a_full_disk_is_reported(evaluated, tmp_path, monkeypatch):
    save(tmp_path / "model", 1)

    def full(*args, **kwargs):
        raise tf.errors.ResourceExhaustedError(None, None, "No space left on device")

    monkeypatch.setattr(best_lib.BestCheckpoint, "_replace", full)
    with pytest.raises(
        errors.ReportedError, match="step 1 was evaluated, but .*No space"
    ) as raised:
        evaluated(StockEval([0.5]))
    assert raised.value.exit_status == 1


class _Ended(BaseException):
    """Stands for the end of the process."""


@pytest.mark.parametrize("when", ["waiting", "evaluating"])
def test_a_signal_ends_at_once_and_leaves_nothing(evaluated, tmp_path, monkeypatch, when):
    listener = stopping.Listener()
    monkeypatch.setattr(stopping, "_active", listener)
    ended, has_ended = [], threading.Event()

    def end_process(*args):
        ended.append(args)
        has_ended.set()

    monkeypatch.setattr(listener, "end_process", end_process)

    def signal(step=None):
        assert bool(list((tmp_path / "model").glob("best.evaluating*"))) == (step is not None)
        listener.hear(15)
        has_ended.wait()
        raise _Ended

    if when == "evaluating":
        save(tmp_path / "model", 1)
    else:
        monkeypatch.setattr(evaluate.time, "sleep", lambda seconds: signal())
    with pytest.raises(_Ended):
        evaluated(StockEval([0.5], during=signal), timeout=60)
    ((number, text),) = ended
    assert number == 15 and text.count("\n") == 0
    assert text.startswith("SIGTERM: evaluation of '") and "best is as it was" in text
    assert [path.name for path in (tmp_path / "model").glob("best*")] == []


def test_what_killed_evaluations_held_is_removed(evaluated, tmp_path, monkeypatch):
    save(tmp_path / "model", 1)
    host = evaluate.holding.socket.gethostname()
    killed = tmp_path / "model" / f"best.evaluating-{host}-99999999"
    running = tmp_path / "model" / f"best.evaluating-{host}-1"
    elsewhere = tmp_path / "model" / "best.evaluating-another.host-99999999"
    for folder in (killed, running, elsewhere):
        folder.mkdir()
        pathlib.Path(folder / "ckpt-1.index").touch()
    evaluated(StockEval([0.5]))
    assert (killed.exists(), running.exists(), elsewhere.exists()) == (False, True, True)
