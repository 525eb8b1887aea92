# SPDX-License-Identifier: Apache-2.0
"""Training that pauses for evaluations, with fake loops: turns, early stop, restarts, signals."""

import functools
import pathlib
import threading

import pytest
import tensorflow as tf
from object_detection import model_lib_v2

from object_detection_ext import errors, registration
from object_detection_ext.checkpoints import files
from object_detection_ext.loops import best as best_lib
from object_detection_ext.loops import stopping, train_and_evaluate
from tests import tiny_pipeline
from tests.loops import best_test, evaluate_test

registration.register()


class _Trainer:
    """Stands for `train.wrap_train_loop`'s loop: saves, calls back, ends when it must.

    Attributes:
        steps: whose checkpoints it saved.
        calls: keyword arguments of each call.
    """

    def __init__(self):
        self.steps, self.calls, self.stopped = [], [], None

    def __call__(
        self,
        pipeline_config_path,
        model_dir,
        config_override,
        train_steps,
        *,
        checkpoint_every_n=10,
        **kwargs,
    ):
        assert (pipeline_config_path, config_override) == ("a.config", "o")
        self.calls.append(kwargs)
        start = files.step_of_newest(model_dir)
        try:
            for step in range(start + 10, train_steps + 1, checkpoint_every_n):
                prefix = best_test.save(pathlib.Path(model_dir), step, max_to_keep=2)
                self.steps.append(step)
                if step % kwargs["evaluate_every_n"] == 0 or step == train_steps:
                    kwargs["on_checkpoint"](prefix, step)
        except stopping.StopTraining as stop:
            self.stopped = str(stop)


@pytest.fixture
def trained(tmp_path, monkeypatch):
    """Runs the wrapped loop on fakes in `tmp_path / 'model'`."""
    pipeline = tiny_pipeline.make_pipeline(evaluation="val-?")

    def run(
        stock_eval,
        trainer,
        *,
        train_steps=50,
        check=lambda *args: None,
        check_input=lambda *args: None,
        **kwargs,
    ):
        monkeypatch.setattr(model_lib_v2, "eager_eval_loop", stock_eval.eager_eval_loop)
        loop = train_and_evaluate.wrap_train_loop(
            trainer,
            stock_eval=stock_eval,
            read_pipeline=lambda path, override: pipeline,
            check_checkpoint=check,
            has_weights=lambda contents: True,
            check_input=check_input,
        )
        loop(
            "a.config",
            str(tmp_path / "model"),
            "o",
            train_steps,
            **{"train_and_evaluate": True, "checkpoint_every_n": 10, **kwargs},
        )

    return run


def test_training_and_evaluation_take_turns(trained, tmp_path, capsys):
    threads, trainer = set(), _Trainer()

    def during(step):
        threads.add(threading.current_thread())
        assert trainer.steps[-1] == step  # training waits

    stock = evaluate_test.StockEval([0.1, 0.3, 0.2], num_steps=50, during=during)
    trained(stock, trainer, eval_every_n=20, eval_options={"sample_1_of_n_eval_examples": 3})
    assert trainer.steps == [10, 20, 30, 40, 50]
    assert stock.steps == [20, 40, 50]
    # One thread, one call: model and input are built once.
    assert len(threads) == len(stock.calls) == 1
    assert threading.current_thread() not in threads
    (call,) = stock.calls
    assert call["sample_1_of_n_eval_examples"] == 3
    assert (call["config_override"], call["train_steps"]) == ("o", 50)
    assert files.step_of_newest(str(tmp_path / "model" / "best")) == 40
    said = [line for line in capsys.readouterr().err.splitlines() if "evaluation: step" in line]
    assert [line.split(" (")[0] for line in said] == [
        "evaluation: step 20: mAP@0.5IOU 0.100",
        "evaluation: step 40: mAP@0.5IOU 0.300",
        "evaluation: step 50: mAP@0.5IOU 0.200",
    ]
    assert not any(thread.is_alive() for thread in threads)


def test_by_default_every_checkpoint_is_evaluated(trained):
    trained(stock := evaluate_test.StockEval([0.1, 0.2], num_steps=20), _Trainer(), train_steps=20)
    assert stock.steps == [10, 20]


def test_data_that_cannot_be_evaluated_is_an_error_before_training(trained):
    seen = []

    def check_input(pipeline, path):
        # As evaluation will be: outside of the strategy of training.
        seen.append((path, tf.distribute.has_strategy()))
        raise errors.InputError("no such label")

    trainer = _Trainer()
    with (
        tf.distribute.MirroredStrategy(["CPU:0"]).scope(),
        pytest.raises(errors.InputError, match="no such label"),
    ):
        trained(evaluate_test.StockEval({}), trainer, check_input=check_input)
    assert (seen, trainer.calls) == ([("a.config", False)], [])


def test_without_the_flag_nothing_is_evaluated(tmp_path):
    def train_loop(*args, **kwargs):
        assert (args, kwargs) == (("a.config", "m", None, None), {"checkpoint_every_n": 3})
        return "done"

    loop = train_and_evaluate.wrap_train_loop(
        train_loop,
        stock_eval=None,
        read_pipeline=None,
        check_checkpoint=None,
        has_weights=None,
        check_input=None,
    )
    assert loop("a.config", "m", checkpoint_every_n=3) == "done"


def test_evaluations_without_gain_end_training_across_restarts(trained, tmp_path, capsys):
    options = {"stop_after_evals_without_gain": 2}
    first = _Trainer()
    trained(evaluate_test.StockEval([0.5, 0.4], num_steps=20), first, train_steps=20, **options)
    assert first.stopped is None
    second = _Trainer()
    trained(evaluate_test.StockEval([0.5], num_steps=50), second, **options)
    assert second.steps == [30]
    assert second.stopped == (
        "2 evaluations in a row without gain (--stop_after_evals_without_gain=2); best: "
        f"mAP@0.5IOU 0.500 at step 10, kept in {tmp_path / 'model' / 'best'}"
    )
    third = _Trainer()
    trained(evaluate_test.StockEval([]), third, **options)
    assert third.calls == []
    assert "has ended already: 2 evaluations in a row without gain" in capsys.readouterr().err
    # Without the limit training resumes.
    fourth = _Trainer()
    trained(evaluate_test.StockEval([0.6, 0.1], num_steps=50), fourth)
    assert fourth.steps == [40, 50] and fourth.stopped is None


def test_what_a_killed_run_did_not_evaluate_is_evaluated_first(trained, tmp_path):
    model_dir = tmp_path / "model"
    best_test.save(model_dir, 10)
    trainer = _Trainer()
    stock = evaluate_test.StockEval(
        [0.5, 0.4], num_steps=20, during=lambda step: trained_steps.append(list(trainer.steps))
    )
    trained_steps: list = []
    trained(stock, trainer, train_steps=20)
    assert stock.steps == [10, 20] and trained_steps[0] == []
    # All is evaluated now; and one that is not due is left alone.
    trained(stock := evaluate_test.StockEval([], num_steps=20), _Trainer(), train_steps=20)
    best_test.save(model_dir, 25)
    trained(stock, _Trainer(), train_steps=26)
    assert stock.steps == []


def test_a_checkpoint_of_another_model_is_refused_before_its_evaluation(trained, tmp_path):
    best_test.save(tmp_path / "model", 10)

    def check(pipeline, contents, source):
        raise errors.InputError(f"{contents.prefix} is not of this model")

    stock = evaluate_test.StockEval([])
    with pytest.raises(errors.InputError, match="ckpt-10 is not of this model"):
        trained(stock, _Trainer(), check=check)
    assert stock.calls == []


def test_an_error_of_the_evaluation_is_raised_where_training_waits(trained):
    def fail(step):
        raise errors.InputError("the evaluation's records are damaged")

    trainer = _Trainer()
    with pytest.raises(errors.InputError, match="records are damaged"):
        trained(evaluate_test.StockEval([0.5], during=fail), trainer)
    assert trainer.steps == [10]


def test_what_the_evaluation_sets_for_its_thread_training_does_not_see(trained):
    """The stock eval loop sets Keras' learning phase, which a later trace of the step would see."""
    tf.keras.backend.set_learning_phase(True)
    seen = []

    def during(step):
        tf.keras.backend.set_learning_phase(False)
        seen.append(tf.distribute.get_strategy())

    strategy = tf.distribute.OneDeviceStrategy("cpu:0")
    with strategy.scope():
        trained(
            evaluate_test.StockEval([0.5], num_steps=10, during=during), _Trainer(), train_steps=10
        )
        assert tf.distribute.get_strategy() is strategy
    assert tf.keras.backend.learning_phase() == 1
    assert seen[0] is not strategy


def test_scalars_of_training_are_flushed_before_a_pause(trained, tmp_path):
    writer = tf.summary.create_file_writer(str(tmp_path / "train"))
    found = []

    def during(step):
        found.append(tiny_pipeline.read_events(tmp_path / "train").scalars["loss"])

    class Trainer(_Trainer):
        def __call__(self, *args, **kwargs):
            with writer.as_default():
                tf.summary.scalar("loss", 1.5, step=3)
                super().__call__(*args, **kwargs)

    trained(evaluate_test.StockEval([0.5], num_steps=10, during=during), Trainer(), train_steps=10)
    assert found == [[(3, 1.5)]]


def test_a_signal_ends_the_pause_at_once(trained, tmp_path, monkeypatch):
    listener, ended, has_ended = stopping.Listener(), [], threading.Event()

    def end_process(*args):
        ended.append(args)
        has_ended.set()

    monkeypatch.setattr(stopping, "_active", listener)
    monkeypatch.setattr(listener, "end_process", end_process)
    model_dir = tmp_path / "model"

    def during(step):
        if step == 20:
            listener.hear(2)
            has_ended.wait()
            assert list(model_dir.glob("best.evaluating*")) == []
            raise KeyError("the process has ended")

    with pytest.raises(KeyError):
        trained(evaluate_test.StockEval([0.5, 0.6], during=during), _Trainer())
    ((number, text),) = ended
    assert number == 2
    assert text.startswith("SIGINT: evaluation of step 20 ended before its result")
    assert "evaluated first when training is resumed" in text
    assert best_lib.read_record(str(model_dir)).step == 10


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        ({"best_metric": "mAP@0.5IOU"}, "not a scalar"),
        ({"best_metric": "Loss/total_loss"}, None),
    ],
)
def test_the_metric_is_checked_before_training(trained, metrics, message, monkeypatch, tmp_path):
    label_map = tiny_pipeline.write_label_map(tmp_path / "labels.pbtxt")
    pipeline = tiny_pipeline.make_pipeline(evaluation="val-?", label_map=label_map)
    monkeypatch.setattr(train_and_evaluate.evaluate, "open_best", _opening(pipeline))
    trainer = _Trainer()
    stock = evaluate_test.StockEval([0.5], num_steps=10)
    if message is None:
        trained(stock, trainer, train_steps=10, **metrics)
        assert best_lib.read_record(str(tmp_path / "model")).metric == "Loss/total_loss"
        return
    with pytest.raises(errors.InputError, match=message):
        trained(stock, trainer, train_steps=10, **metrics)
    assert trainer.calls == []


def _opening(pipeline):
    real = train_and_evaluate.evaluate.open_best

    @functools.wraps(real)
    def open_best(_, *args):
        return real(pipeline, *args)

    return open_best
