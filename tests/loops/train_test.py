# SPDX-License-Identifier: Apache-2.0
"""What surrounds the stock loops: the plan of segments, progress, resuming; with fake loops."""

import itertools
import logging

import pytest
import tensorflow as tf
from object_detection import model_lib_v2
from object_detection.protos import pipeline_pb2

from object_detection_ext import errors
from object_detection_ext.loops import train, train_progress

_LOGGER = logging.getLogger("tensorflow")


def _stock_run(step: int, train_steps: int, every: int, per_call: int):
    """What the stock train loop does with these numbers: its last step, the steps it saves."""
    saved, last_saved = [], step
    for _ in range(step, train_steps, per_call):
        step += per_call
        if step - last_saved >= every:
            saved.append(step)
            last_saved = step
    return step, saved


@pytest.mark.parametrize(
    ("done", "total", "every", "limit", "expected"),
    [
        (0, 1000, 1000, 1, [(1000, 1000, 1)]),
        (0, 2000, 1000, 10, [(2000, 1000, 10)]),
        (0, 600, 1000, 1, [(600, 600, 1)]),  # every > total
        (0, 4, 3, 1, [(3, 3, 1), (4, 1, 1)]),
        (2, 4, 3, 1, [(4, 2, 1)]),  # resumed
        (3, 1000, 100, 10, [(903, 100, 10), (1000, 97, 1)]),  # 97 is a prime
        (0, 500_000, 1000, 100, [(500_000, 1000, 100)]),
        (0, 10, 7, 10, [(7, 7, 7), (10, 3, 3)]),
        (0, 12, 6, 4, [(12, 6, 3)]),  # 4 does not divide 6
        (0, 1, 1000, 100, [(1, 1, 1)]),
        (5, 5, 10, 10, []),
        (9, 5, 10, 10, []),
        (0, 3, 0, 10, [(3, 1, 1)]),
    ],
)
def test_plan_of_segments(done, total, every, limit, expected):
    assert list(train.plan_segments(done, total, every, limit)) == expected


@pytest.mark.parametrize("limit", [1, 7, 10, 100])
def test_stock_loop_ends_at_the_total_and_saves_it(limit):
    cases = itertools.product((0, 1, 50, 96), (1, 2, 97, 100, 256, 1009), (1, 3, 10, 97, 1000))
    for done, total, every in cases:
        step, saved = done, []
        for end, segment_every, per_call in train.plan_segments(done, total, every, limit):
            assert 1 <= per_call <= limit
            step, saved_now = _stock_run(step, end, segment_every, per_call)
            assert step == end, (done, total, every)
            saved += saved_now
        if done < total:
            regular = range(done + every, total + 1, every)
            assert (step, saved) == (total, sorted({*regular, total})), (done, total, every)
        else:
            assert (step, saved) == (done, []), (done, total, every)


def _save_checkpoint(folder, step: int) -> None:
    checkpoint = tf.train.Checkpoint(step=tf.Variable(step, dtype=tf.int64))
    tf.train.CheckpointManager(checkpoint, str(folder), max_to_keep=2).save()


class _FakeLoop:
    """Stands for the stock train loop: notes its arguments and logs as the stock loop does."""

    def __init__(self, first_step: int = 0):
        self.calls = []
        self.log_every = []
        self._step = first_step

    def __call__(self, **kwargs):
        self.calls.append(kwargs)
        self.log_every.append(model_lib_v2.LOG_EVERY)
        while self._step < kwargs["train_steps"]:
            self._step += kwargs["num_steps_per_iteration"]
            _LOGGER.info(f"Step {self._step} per-step time 0.100s")
            _LOGGER.info(
                "{'Loss/BoxClassifierLoss/classification_loss': 0.5,\n"
                f" 'Loss/total_loss': np.float32({self._step / 2}),\n 'learning_rate': 0.1}}"
            )
        _LOGGER.info("another message")


def _wrapped(loop, *, is_video: bool = True, steps: int = 5, check_checkpoint=lambda *args: None):
    pipeline = pipeline_pb2.TrainEvalPipelineConfig()
    pipeline.train_config.num_steps = steps
    return train.wrap_train_loop(
        loop,
        read_pipeline=lambda path, override: pipeline,
        is_video_pipeline=lambda of_pipeline: is_video and of_pipeline is pipeline,
        check_checkpoint=check_checkpoint,
    )


def test_wrapped_loop_runs_the_plan(tmp_path):
    loop = _FakeLoop()
    _wrapped(loop, steps=7)(
        "a.config", str(tmp_path), checkpoint_every_n=3, checkpoint_max_to_keep=2
    )
    keys = ("train_steps", "checkpoint_every_n", "num_steps_per_iteration")
    assert [tuple(call[key] for key in keys) for call in loop.calls] == [(6, 3, 1), (7, 1, 1)]
    for call in loop.calls:
        assert call["pipeline_config_path"] == "a.config"
        assert call["model_dir"] == str(tmp_path)
        assert call["checkpoint_max_to_keep"] == 2  # others are passed on


def test_wrapped_loop_resumes_at_the_checkpoint_and_stops_at_the_total(tmp_path, capsys):
    _save_checkpoint(tmp_path, 4)
    loop = _FakeLoop(first_step=4)
    _wrapped(loop, steps=5)("a.config", str(tmp_path), checkpoint_every_n=2)
    assert [call["train_steps"] for call in loop.calls] == [5]
    assert "from step 4 to 5" in capsys.readouterr().err
    _wrapped(loop, steps=4)("a.config", str(tmp_path))
    assert len(loop.calls) == 1
    assert f"{tmp_path} is at step 4 of 4 already" in capsys.readouterr().err


def test_start_of_a_training_is_checked_its_continuation_is_not(tmp_path):
    checked = []

    def check_checkpoint(pipeline, path):
        checked.append(path)
        raise errors.InputError("wrong weights")

    loop = _FakeLoop()
    train_loop = _wrapped(loop, check_checkpoint=check_checkpoint)
    with pytest.raises(errors.InputError, match="wrong weights"):
        train_loop("a.config", str(tmp_path))
    assert (checked, loop.calls) == (["a.config"], [])
    _save_checkpoint(tmp_path, 4)
    train_loop("a.config", str(tmp_path))
    assert len(checked) == len(loop.calls) == 1


def test_number_of_steps_comes_from_the_caller_before_the_config(tmp_path):
    loop = _FakeLoop()
    _wrapped(loop, steps=5)("a.config", str(tmp_path), train_steps=2)
    assert [call["train_steps"] for call in loop.calls] == [2]
    with pytest.raises(errors.InputError, match=r"a.config: .*train_config.num_steps"):
        _wrapped(loop, steps=0)("a.config", str(tmp_path))


def test_long_runs_make_several_steps_a_call(tmp_path):
    loop = _FakeLoop()
    _wrapped(loop, steps=20_010)("a.config", str(tmp_path), checkpoint_every_n=10_005)
    assert [call["num_steps_per_iteration"] for call in loop.calls] == [5]
    loop = _FakeLoop()
    _wrapped(loop, steps=200)("a.config", str(tmp_path), use_tpu=True, checkpoint_every_n=200)
    assert loop.calls[0]["num_steps_per_iteration"] == 100
    assert loop.calls[0]["use_tpu"] is True


def test_pictures_follow_record_summaries(tmp_path):
    """The stock picture fails on clips, so the stock loop draws for stock models only."""
    for is_video, wanted in ((True, True), (True, False), (False, True), (False, False)):
        loop = _FakeLoop()
        _wrapped(loop, is_video=is_video, steps=1)(
            "a.config", str(tmp_path), config_override="old", record_summaries=wanted
        )
        (call,) = loop.calls
        assert call["record_summaries"] == (wanted and not is_video)
        no_pictures = "training_picture_every_n_steps: 0" in call["config_override"]
        assert no_pictures == (is_video and not wanted)
        assert call["config_override"].startswith("old")


def test_there_are_no_pictures_on_tpu(tmp_path):
    loop = _FakeLoop()
    _wrapped(loop, is_video=True, steps=1)("a.config", str(tmp_path), use_tpu=True)
    (call,) = loop.calls
    assert "training_picture_every_n_steps: 0" in call["config_override"]
    assert call["use_tpu"] is True


def test_progress_has_step_loss_and_time_left(tmp_path, capsys, monkeypatch):
    clock = iter(range(0, 1000, 10))  # every look at the clock is 10 s later
    monkeypatch.setattr(train_progress.time, "monotonic", lambda: float(next(clock)))
    _wrapped(_FakeLoop(), steps=5)("a.config", str(tmp_path))
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("training")]
    assert lines[0] == "training: from step 0 to 5"
    assert lines[1] == "training: step 1 of 5, loss 0.500"
    assert lines[2] == "training: step 2 of 5, loss 1.000, 10.00 s a step, 30 s left"
    assert lines[-1] == "training: step 5 of 5, loss 2.500, 10.00 s a step, 0 s left"


def test_progress_is_not_printed_for_every_step_but_for_the_last(tmp_path, capsys):
    _wrapped(_FakeLoop(), steps=300)("a.config", str(tmp_path))
    lines = [line for line in capsys.readouterr().err.splitlines() if " of 300" in line]
    assert 2 <= len(lines) < 100
    assert "step 300 of 300" in lines[-1]


def test_stock_state_is_given_back_also_after_an_error(tmp_path, caplog):
    before = (model_lib_v2.LOG_EVERY, _LOGGER.level, list(_LOGGER.handlers), list(_LOGGER.filters))
    loop = _FakeLoop()
    _wrapped(loop, steps=2)("a.config", str(tmp_path))
    assert loop.log_every == [1]

    def broken(**kwargs):
        raise KeyError("stock defect")

    with pytest.raises(KeyError):
        _wrapped(broken, steps=2)("a.config", str(tmp_path))
    after = (model_lib_v2.LOG_EVERY, _LOGGER.level, list(_LOGGER.handlers), list(_LOGGER.filters))
    assert after == before


def test_loss_that_is_not_a_number_is_shown(capsys):
    reporter = train_progress._StepReporter(0, 1, lambda: None)
    for text in ("Step 1 per-step time 0.1s", "{'Loss/total_loss': nan}"):
        record = logging.LogRecord("tensorflow", logging.INFO, "", 0, text, (), None)
        assert reporter.is_not_a_step(record) is False
    assert "step 1 of 1, loss nan" in capsys.readouterr().err
    other = logging.LogRecord("tensorflow", logging.INFO, "", 0, "Saving", (), None)
    assert reporter.is_not_a_step(other) is True
