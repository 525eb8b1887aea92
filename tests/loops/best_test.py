# SPDX-License-Identifier: Apache-2.0
"""The best checkpoint: what is kept, what survives, what a kill in between leaves."""

import dataclasses
import json
import pathlib

import numpy as np
import pytest
import tensorflow as tf

from object_detection_ext import errors
from object_detection_ext import files as file_systems
from object_detection_ext.checkpoints import files, holding
from object_detection_ext.loops import best as best_lib
from object_detection_ext.loops.metric_names import Metric

_MEAN_AP = "AvaDetectionBoxes_Precision/mAP@0.5IOU"
_RECORDS = ("val-?",)


def save(model_dir: pathlib.Path, step: int, max_to_keep: int = 5) -> str:
    """A checkpoint whose one weight is its step; returns its prefix."""
    checkpoint = tf.train.Checkpoint(
        step=tf.Variable(step, dtype=tf.int64), model=tf.train.Checkpoint(w=tf.Variable(1.0 * step))
    )
    manager = tf.train.CheckpointManager(checkpoint, str(model_dir), max_to_keep=max_to_keep)
    return manager.save(checkpoint_number=step)


def _weight(prefix: str) -> float:
    return float(tf.train.load_variable(prefix, "model/w/.ATTRIBUTES/VARIABLE_VALUE"))


def _open(model_dir, metric=None, evaluated_on=_RECORDS) -> best_lib.BestCheckpoint:
    return best_lib.BestCheckpoint(str(model_dir), metric or Metric(), evaluated_on)


def _offer(best, model_dir, step: int, value: float, **more) -> str:
    return best.offer(save(model_dir, step), step, {_MEAN_AP: value, **more})


def _kept(model_dir) -> tuple[int, dict]:
    """The step of what any reader of the folder finds, and best.json."""
    folder = model_dir / "best"
    prefix = tf.train.latest_checkpoint(str(folder))
    assert files.read(prefix).non_finite == ()
    assert files.step_of(prefix) == _weight(prefix)
    return files.step_of(prefix), json.loads((folder / "best.json").read_text())


def test_the_best_is_kept_and_ties_keep_the_earlier(tmp_path):
    (tmp_path / "pipeline.config").write_text("model { }")
    best, said, kept = _open(tmp_path), [], []
    for step, value in ((1, 0.2), (2, 0.5), (3, 0.4), (4, 0.5), (5, float("nan")), (6, 0.6)):
        said.append(_offer(best, tmp_path, step, value))
        kept.append(_kept(tmp_path)[0])
    assert kept == [1, 2, 2, 2, 2, 6]
    folder = tmp_path / "best"
    assert said[0] == f"mAP@0.5IOU 0.200 (best so far, kept in {folder})"
    assert said[2] == "mAP@0.5IOU 0.400 (best so far: mAP@0.5IOU 0.500 at step 2, 1 evaluation ago)"
    assert said[3].endswith("at step 2, 2 evaluations ago)")
    assert "nan (what is not a number is never the best; best so far: mAP@0.5IOU 0.5" in said[4]
    assert sorted(path.name for path in folder.iterdir()) == [
        "best.json",
        "checkpoint",
        "ckpt-6.data-00000-of-00001",
        "ckpt-6.index",
        "pipeline.config",
    ]
    assert (folder / "pipeline.config").read_text() == "model { }"
    record = _kept(tmp_path)[1]
    assert (record["metric"], record["goal"]) == (_MEAN_AP, "max")
    assert (record["value"], record["step"], record["checkpoint"]) == (0.6, 6, "ckpt-6")
    assert "/" not in (folder / "checkpoint").read_text()  # the folder can be moved


def test_training_goes_on_from_the_folder(tmp_path):
    best = _open(tmp_path)
    _offer(best, tmp_path, 3, 0.5)
    step = tf.Variable(0, dtype=tf.int64)
    checkpoint = tf.train.Checkpoint(step=step)
    manager = tf.train.CheckpointManager(checkpoint, str(tmp_path / "best"), max_to_keep=2)
    checkpoint.restore(manager.latest_checkpoint)
    assert int(step) == 3
    manager.save()
    # What was trained there is neither hidden nor removed by the next look.
    before = tf.train.latest_checkpoint(str(tmp_path / "best"))
    _open(tmp_path)
    assert tf.train.latest_checkpoint(str(tmp_path / "best")) == before


def test_a_loss_goes_down_and_a_goal_turns_it_round(tmp_path):
    for name, metric, expected in (
        ("down", Metric("Loss/total_loss"), 3),
        ("up", Metric("Loss/total_loss", "max"), 1),
        ("mAP down", Metric("mAP", "min"), 2),
    ):
        best = _open(tmp_path / name, metric)
        for step, value, loss in ((1, 0.2, 3.0), (2, 0.1, 2.0), (3, 0.2, 1.0)):
            said = _offer(best, tmp_path / name, step, value, **{"Loss/total_loss": loss})
        assert _kept(tmp_path / name)[0] == expected, name
        assert said.startswith("mAP@0.5IOU 0.200")
        assert ("Loss/total_loss 1.000" in said) == (name != "mAP down")


def test_best_and_count_survive_restarts(tmp_path):
    _offer(_open(tmp_path), tmp_path, 1, 0.5)
    for step in (2, 3):
        _offer(_open(tmp_path), tmp_path, step, 0.4)
    # The same checkpoint again is not one more.
    _offer(_open(tmp_path), tmp_path, 3, 0.4)
    best = _open(tmp_path)
    assert best.record.evaluations_without_gain == 2
    assert best.record.last_evaluated_step == 3
    assert best.describe() == "mAP@0.5IOU 0.500 at step 1"
    _offer(best, tmp_path, 4, 0.45)
    assert _kept(tmp_path)[0] == 1
    _offer(best, tmp_path, 5, 0.55)
    assert best.record.evaluations_without_gain == 0


def test_the_best_evaluated_again_stays_the_best(tmp_path):
    best = _open(tmp_path)
    _offer(best, tmp_path, 1, 0.5)
    prefix = tf.train.latest_checkpoint(str(tmp_path / "best"))
    assert "best so far, kept" in best.offer(prefix, 1, {_MEAN_AP: 0.5000001})
    assert _kept(tmp_path)[0] == 1 and best.record.evaluations_without_gain == 0


def test_numbers_that_are_none_are_never_the_best(tmp_path):
    best = _open(tmp_path)
    assert "none is kept yet" in _offer(best, tmp_path, 1, float("nan"))
    assert "none is kept yet" in _offer(best, tmp_path, 2, float("inf"))
    assert tf.train.latest_checkpoint(str(tmp_path / "best")) is None
    best = _open(tmp_path)
    assert best.record.evaluations_without_gain == 2
    _offer(best, tmp_path, 3, 0.0)
    assert _kept(tmp_path)[0] == 3


def test_without_a_mean_ap_nothing_is_kept(tmp_path):
    said = _open(tmp_path).offer(save(tmp_path, 1), 1, {"Loss/total_loss": 1.0})
    assert said.startswith("no mAP") and "--best_metric" in said
    assert not (tmp_path / "best").exists()


def test_another_metric_needs_another_folder(tmp_path):
    _offer(_open(tmp_path), tmp_path, 1, 0.5)
    _open(tmp_path, Metric("mAP"))
    _open(tmp_path, Metric(_MEAN_AP, "max"))
    for metric in (Metric("Loss/total_loss"), Metric(None, "min")):
        with pytest.raises(errors.InputError, match=r"best' was chosen by .*mAP@0.5IOU, max"):
            _open(tmp_path, metric)
    other = tmp_path / "other"
    best = _open(other, Metric("Loss/total_loss"))
    best.offer(save(other, 1), 1, {"Loss/total_loss": 2.0})
    best = _open(other)  # the kept one's metric is meant
    best.offer(save(other, 2), 2, {"Loss/total_loss": 1.0, _MEAN_AP: 0.0})
    assert _kept(other)[0] == 2


def test_figures_of_other_records_change_nothing(tmp_path, capsys):
    _offer(_open(tmp_path), tmp_path, 1, 0.5)
    before = _files(tmp_path / "best")
    best = _open(tmp_path, evaluated_on=("test-?",))
    assert "'test-?': what is kept stays" in capsys.readouterr().err
    assert "chosen on other records" in _offer(best, tmp_path, 2, 0.9)
    assert _files(tmp_path / "best") == before


def _files(folder: pathlib.Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_checkpoint_of_the_same_name_does_not_overwrite_the_best(tmp_path):
    """Training was begun anew in the same folder: its numbers begin anew too."""
    _offer(_open(tmp_path), tmp_path, 5, 0.5)
    best = _open(tmp_path)
    prefix = save(tmp_path, 6)
    holding.link(prefix, str(tmp_path / "ckpt-5-of-new"))
    renamed = tmp_path / "new" / "ckpt-5"
    renamed.parent.mkdir()
    holding.link(prefix, str(renamed))
    best.offer(str(renamed), 6, {_MEAN_AP: 0.7})
    step, record = _kept(tmp_path)
    assert (step, record["checkpoint"]) == (6, "ckpt-6")


class _Killed(BaseException):
    """Stands for SIGKILL."""


def test_at_every_moment_there_is_the_old_best_or_the_new_one(tmp_path, monkeypatch):
    """Killed before each operation on a file; then looked at, as readers and as the next run do."""
    operations = ("rename", "remove", "makedirs", "GFile")
    for number in range(100):
        folder = tmp_path / str(number)
        best = _open(folder)
        _offer(best, folder, 1, 0.5)
        prefix = save(folder, 2)
        count = 0

        def counting(operation, allowed=number):
            def counted(*args, **kwargs):
                nonlocal count
                count += 1
                if count > allowed:
                    raise _Killed
                return operation(*args, **kwargs)

            return counted

        with monkeypatch.context() as patch:
            for name in operations:
                patch.setattr(tf.io.gfile, name, counting(getattr(tf.io.gfile, name)))
            patch.setattr(holding.os, "link", counting(holding.os.link))
            rename = staticmethod(counting(file_systems.LocalFiles.rename))
            patch.setattr(file_systems.LocalFiles, "rename", rename)
            try:
                best.offer(prefix, 2, {_MEAN_AP: 0.6})
                was_killed = False
            except _Killed:
                was_killed = True
        read = files.newest_whole(str(folder / "best"), lambda text: pytest.fail(text))
        assert files.step_of(read.prefix) in (1, 2)
        # The next run has one or the other, all of it, and nothing else.
        best = _open(folder)
        step, record = _kept(folder)
        assert record["step"] == step and record["value"] == {1: 0.5, 2: 0.6}[step]
        _offer(best, folder, 3, 0.7)
        assert _kept(folder)[0] == 3
        left = {path.name for path in (folder / "best").glob("ckpt*")}
        assert left == {"ckpt-3.index", "ckpt-3.data-00000-of-00001"}
        if not was_killed:
            break
    assert 8 < number < 99


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        "{}",
        '{"evaluated_on": [], "to_remove": [], "value": "high"}',
        '{"evaluated_on": [], "to_remove": [], "value": 1.0}',
        '{"evaluated_on": 5, "to_remove": []}',
    ],
)
def test_a_damaged_record_is_reported_and_replaced(tmp_path, capsys, text):
    _offer(_open(tmp_path), tmp_path, 1, 0.5)
    (tmp_path / "best" / "best.json").write_text(text)
    best = _open(tmp_path)
    assert "best.json' does not count, so the next evaluation is the best" in (
        capsys.readouterr().err
    )
    _offer(best, tmp_path, 2, 0.1)
    assert _kept(tmp_path)[0] == 2


def test_a_damaged_best_checkpoint_is_reported_and_replaced(tmp_path, capsys):
    _offer(_open(tmp_path), tmp_path, 1, 0.5)
    (tmp_path / "best" / "ckpt-1.data-00000-of-00001").write_bytes(b"cut")
    best = _open(tmp_path)
    assert "ckpt-1" in capsys.readouterr().err
    _offer(best, tmp_path, 2, 0.1)
    assert _kept(tmp_path)[0] == 2


def test_record_as_text(tmp_path):
    record = best_lib.Record(
        ("a", "b"), "m", "max", np.float64(0.5).item(), 3, "ckpt-3", {"m": 0.5, "n": None}, 1, 4, ()
    )
    assert best_lib.Record.from_json(record.to_json()) == record
    assert set(json.loads(record.to_json())) == {f.name for f in dataclasses.fields(record)}
