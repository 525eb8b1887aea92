# SPDX-License-Identifier: Apache-2.0
"""What surrounds the stock train loop: the plan, arguments, resuming; with fake loops."""

import itertools
import logging
import types

import pytest
import tensorflow as tf
from object_detection import model_lib_v2
from object_detection.protos import pipeline_pb2

from object_detection_ext import errors, pipeline_check, registration
from object_detection_ext.checkpoints import matching
from object_detection_ext.loops import session, step_clock, train
from tests import tiny_pipeline
from tests.checkpoints import trained

registration.register()

_LOGGER = logging.getLogger("tensorflow")


def _plan(done, total, every, limit, evaluate_every_n=None, on_checkpoint=None):
    return session.Plan(
        done=done,
        total=total,
        max_steps_per_call=limit,
        checkpoint_every_n=every,
        evaluate_every_n=evaluate_every_n,
        on_checkpoint=on_checkpoint,
        keep_every_n_hours=None,
        batch_size=2,
    )


@pytest.mark.parametrize(
    ("done", "total", "every", "limit", "expected"),
    [
        (0, 1000, 1000, 1, 1),
        (0, 2000, 1000, 10, 10),
        (0, 600, 1000, 10, 10),  # every > total
        (0, 4, 3, 10, 1),
        (3, 1000, 100, 10, 1),
        (90, 1000, 100, 10, 10),  # resumed
        (0, 500_000, 1000, 100, 100),
        (0, 12, 6, 4, 3),  # 4 does not divide 6
        (0, 1, 1000, 100, 1),
    ],
)
def test_steps_of_a_call(done, total, every, limit, expected):
    assert _plan(done, total, every, limit).steps_per_call == expected


@pytest.mark.parametrize("limit", [1, 7, 10, 100])
def test_calls_end_at_all_steps_at_which_something_is_due(limit):
    cases = itertools.product(
        (0, 1, 50, 96), (1, 2, 97, 100, 256, 1009), (1, 3, 10, 97, 1000), (None, 4, 25, 100)
    )
    for done, total, every, evaluate_every_n in cases:
        if done >= total:
            continue
        plan = _plan(done, total, every, limit, evaluate_every_n, lambda prefix, step: None)
        per_call = plan.steps_per_call
        assert 1 <= per_call <= limit
        # What the stock train loop does with this number.
        ends = [step + per_call for step in range(done, total, per_call)]
        assert ends[-1] == total
        evaluated = {
            s for s in range(done + 1, total) if evaluate_every_n and not s % evaluate_every_n
        }
        evaluated |= {total}
        saved = {s for s in range(done + 1, total) if s % every == 0} | evaluated
        assert {step for step in ends if plan.is_evaluated(step)} == evaluated
        assert {step for step in ends if plan.is_saved(step)} == saved


def test_no_step_is_waited_for_after_the_last_one():
    """The stock loop takes seconds to end; they are no slow step."""
    of_run = types.SimpleNamespace(
        step=0,
        latest_checkpoint="ckpt-1",
        checkpoint=tf.train.Checkpoint(),
        write=lambda: "ckpt-2",
        written_step=None,
    )
    running = session.Session(_plan(done=0, total=2, every=2, limit=1))
    waits_for = []
    for step in range(3):
        of_run.step = step
        running._after_call(of_run)
        waits_for.append(running.clock.waits_for)
    assert waits_for == [step_clock.INPUT, step_clock.INPUT, None]


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


def test_wrapped_loop_passes_its_arguments_on(tmp_path):
    loop = _FakeLoop()
    _wrapped(loop, steps=7)(
        "a.config", str(tmp_path), checkpoint_every_n=3, checkpoint_max_to_keep=2
    )
    (call,) = loop.calls
    assert call["train_steps"] == 7
    assert call["num_steps_per_iteration"] == 1
    # The stock loop is to ask after every call.
    assert call["checkpoint_every_n"] == 1
    assert call["pipeline_config_path"] == "a.config"
    assert call["model_dir"] == str(tmp_path)
    assert call["checkpoint_max_to_keep"] == 2


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


def test_checkpoint_of_another_model_does_not_resume(tmp_path):
    """Or the other network would become the newest checkpoint of the same folder."""
    trained.write(tiny_pipeline.make_pipeline(tiny_pipeline.SHORT_TRUNK), tmp_path)
    options = "[object_detection_ext.protos.video_action_transformer] { tx_head { num_layers: 5 } }"
    other = tiny_pipeline.make_pipeline(tiny_pipeline.SHORT_TRUNK + options)
    loop = _FakeLoop(first_step=1)
    train_loop = train.wrap_train_loop(
        loop,
        read_pipeline=lambda path, override: other,
        is_video_pipeline=pipeline_check.is_video_pipeline,
        check_checkpoint=pytest.fail,
    )
    with pytest.raises(matching.MismatchError, match="num_layers: 1 in the checkpoint, 5 in a.con"):
        train_loop("a.config", str(tmp_path), train_steps=5)
    assert loop.calls == []


def test_checkpoint_with_numbers_that_are_not_finite_does_not_resume(tmp_path):
    weight = tf.Variable([1.0, float("nan")])
    checkpoint = tf.train.Checkpoint(
        step=tf.Variable(4, dtype=tf.int64), model=tf.train.Checkpoint(weight=weight)
    )
    tf.train.CheckpointManager(checkpoint, str(tmp_path), max_to_keep=2).save()
    loop = _FakeLoop(first_step=4)
    with pytest.raises(errors.InputError, match="1 of its 3 .*: model/weight"):
        _wrapped(loop)("a.config", str(tmp_path))
    assert loop.calls == []


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


def _stock_names() -> tuple:
    return (
        model_lib_v2.LOG_EVERY,
        model_lib_v2.eager_train_step,
        model_lib_v2.time,
        tf.train.CheckpointManager,
        model_lib_v2.tf.compat.v2.train.CheckpointManager,
        dict(model_lib_v2.MODEL_BUILD_UTIL_MAP),
    )


def test_stock_state_is_given_back_also_after_an_error(tmp_path, caplog):
    before = (_stock_names(), _LOGGER.level, list(_LOGGER.handlers), list(_LOGGER.filters))
    loop = _FakeLoop()
    _wrapped(loop, steps=2)("a.config", str(tmp_path))
    assert loop.log_every == [1]

    def broken(**kwargs):
        raise KeyError("stock defect")

    with pytest.raises(KeyError):
        _wrapped(broken, steps=2)("a.config", str(tmp_path))
    after = (_stock_names(), _LOGGER.level, list(_LOGGER.handlers), list(_LOGGER.filters))
    assert after == before
