# SPDX-License-Identifier: Apache-2.0
"""Which checkpoints there are, whether they are whole, and which one a user means."""

import os
import pathlib

import numpy as np
import pytest
import tensorflow as tf

from object_detection_ext import errors
from object_detection_ext.checkpoints import files


def _save_checkpoint(folder, step: int) -> None:
    checkpoint = tf.train.Checkpoint(step=tf.Variable(step, dtype=tf.int64))
    tf.train.CheckpointManager(checkpoint, str(folder), max_to_keep=2).save()


def _train(folder: pathlib.Path, count: int = 3, max_to_keep: int = 7, value=1.0):
    """Writes ckpt-1 to ckpt-`count` as the stock train loop does; gives the objects it saves."""
    saved = tf.train.Checkpoint(
        step=tf.Variable(0, dtype=tf.int64),
        model=tf.train.Checkpoint(weight=tf.Variable(tf.fill([100], value))),
    )
    manager = tf.train.CheckpointManager(saved, str(folder), max_to_keep=max_to_keep)
    for step in range(1, count + 1):
        saved.step.assign(10 * step)
        manager.save()
    return saved


def _cut(path: pathlib.Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _empty(path: pathlib.Path) -> None:
    path.write_bytes(b"")


def _flip_a_bit(path: pathlib.Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


_DATA, _INDEX = "ckpt-3.data-00000-of-00001", "ckpt-3.index"
_DAMAGES = {
    "data cut": (_cut, _DATA),
    "data empty": (_empty, _DATA),
    "data missing": (pathlib.Path.unlink, _DATA),
    "data changed": (_flip_a_bit, _DATA),
    "index cut": (_cut, _INDEX),
    "index empty": (_empty, _INDEX),
    "index missing": (pathlib.Path.unlink, _INDEX),
}


@pytest.mark.parametrize("damage", _DAMAGES)
def test_damaged_newest_is_named_and_passed_over(tmp_path, damage):
    _train(tmp_path)
    spoil, name = _DAMAGES[damage]
    spoil(tmp_path / name)
    said = []
    contents = files.newest_whole(str(tmp_path), said.append)
    assert contents.prefix == str(tmp_path / "ckpt-2")
    assert files.step_of(contents.prefix) == 20
    assert len(said) == 2
    assert said[0].startswith("WARNING")
    assert f"'{tmp_path}/ckpt-3'" in said[0] and f"{tmp_path}/{name} is" in said[0]
    assert f"'{tmp_path}/ckpt-2'" in said[1]


def test_missing_part_of_several_is_named(tmp_path):
    _train(tmp_path)
    (tmp_path / _DATA).rename(tmp_path / "ckpt-3.data-00001-of-00002")
    with pytest.raises(files.DamagedError, match="ckpt-3.data-00000-of-00002 is missing"):
        files.read(str(tmp_path / "ckpt-3"))


def test_whole_newest_is_taken_without_a_word(tmp_path):
    _train(tmp_path)
    said = []
    contents = files.newest_whole(str(tmp_path), said.append)
    assert (contents.prefix, said) == (str(tmp_path / "ckpt-3"), [])
    assert contents.shapes["model/weight/.ATTRIBUTES/VARIABLE_VALUE"] == (100,)
    assert contents.non_finite == ()
    assert files.newest_whole(str(tmp_path / "nothing"), said.append) is None


def test_if_all_are_damaged_none_is_taken(tmp_path):
    _train(tmp_path, 2)
    for path in tmp_path.glob("*.data*"):
        _cut(path)
    with pytest.raises(
        files.DamagedError, match="None of the 2 checkpoints.*\n.*ckpt-2.*\n.*ckpt-1"
    ):
        files.newest_whole(str(tmp_path), print)


@pytest.mark.parametrize("left", ["", 'model_checkpoint_path: "ck', "all_model_checkp"])
def test_cut_state_file_is_named_and_numbers_count(tmp_path, left):
    _train(tmp_path, 11, max_to_keep=20)
    (tmp_path / "checkpoint").write_text(left)
    said = []
    contents = files.newest_whole(str(tmp_path), said.append)
    assert contents.prefix == str(tmp_path / "ckpt-11")
    assert len(said) == 1 and f"'{tmp_path}/checkpoint'" in said[0]


def test_state_file_names_files_that_are_gone(tmp_path):
    _train(tmp_path)
    for number in (2, 3):
        for path in tmp_path.glob(f"ckpt-{number}.*"):
            path.unlink()
    said = []
    assert files.newest_whole(str(tmp_path), said.append).prefix == str(tmp_path / "ckpt-1")
    assert [
        f"ckpt-{n}.index is missing" in text for n, text in zip((3, 2), said, strict=False)
    ] == [
        True,
        True,
    ]


def test_without_state_file_the_highest_number_is_the_newest(tmp_path):
    _train(tmp_path, 10, max_to_keep=20)
    (tmp_path / "checkpoint").unlink()
    assert files.newest_whole(str(tmp_path), print).prefix == str(tmp_path / "ckpt-10")


def test_without_state_file_a_half_written_one_is_still_named(tmp_path):
    _train(tmp_path)
    (tmp_path / "checkpoint").unlink()
    (tmp_path / _INDEX).unlink()
    said = []
    assert files.newest_whole(str(tmp_path), said.append).prefix == str(tmp_path / "ckpt-2")
    assert f"{tmp_path}/{_INDEX} is missing" in said[0]


def test_what_the_state_file_calls_the_newest_is_the_newest(tmp_path):
    """Users edit the file to go back."""
    _train(tmp_path)
    (tmp_path / "checkpoint").write_text('model_checkpoint_path: "ckpt-2"\n')
    assert files.newest_whole(str(tmp_path), print).prefix == tf.train.latest_checkpoint(tmp_path)


def test_published_weights_in_the_folder_are_not_training(tmp_path):
    tf.train.Checkpoint(weight=tf.Variable(1.0)).write(str(tmp_path / "i3d.ckpt"))
    tf.train.Checkpoint(weight=tf.Variable(1.0)).write(str(tmp_path / "resnet-50"))
    assert files.newest_whole(str(tmp_path), print) is None


def test_checkpoint_that_is_deleted_meanwhile_is_not_called_damaged(tmp_path, monkeypatch):
    """A training in the same folder makes room while an evaluation reads."""
    saved = _train(tmp_path, 3, max_to_keep=1)
    read, said = files.read, []

    def read_slowly(prefix):
        if prefix.endswith("ckpt-3"):
            tf.train.CheckpointManager(saved, str(tmp_path), max_to_keep=1).save()
        return read(prefix)

    monkeypatch.setattr(files, "read", read_slowly)
    assert files.newest_whole(str(tmp_path), said.append).prefix == str(tmp_path / "ckpt-4")
    assert said == []


@pytest.mark.parametrize("folder", ["model", "model/best", "a model.dir"])
@pytest.mark.parametrize("suffix", ["", "/", "/checkpoint", "/ckpt-3", f"/{_INDEX}", f"/{_DATA}"])
def test_folder_prefix_or_file_lead_to_the_checkpoint(tmp_path, folder, suffix):
    _train(tmp_path / folder)
    contents = files.resolve(f"{tmp_path / folder}{suffix}", print)
    assert os.path.normpath(contents.prefix) == str(tmp_path / folder / "ckpt-3")


def test_path_that_tensorflow_cannot_read_is_named(tmp_path):
    _train(tmp_path / "model")
    (tmp_path / "model").rename(tmp_path / "model[1]")
    with pytest.raises(files.DamagedError, match=r"model\[1\]/ckpt-3.*: TensorFlow takes"):
        files.newest_whole(str(tmp_path / "model[1]"), print)


def test_prefix_of_an_older_one_is_taken_as_it_is(tmp_path, monkeypatch):
    _train(tmp_path / "model")
    assert files.resolve(str(tmp_path / "model/ckpt-1"), print).prefix.endswith("/ckpt-1")
    monkeypatch.chdir(tmp_path / "model")
    assert files.resolve("ckpt-2", print).prefix == "ckpt-2"
    assert files.resolve(".", print).prefix == "./ckpt-3"


@pytest.mark.parametrize("name", [_DATA, _INDEX])
def test_damaged_checkpoint_that_is_asked_for_is_an_error(tmp_path, name):
    """Nobody who names one wants another."""
    _train(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(
        files.DamagedError, match=f"'{tmp_path}/ckpt-3' is .*: .*/{name} is missing"
    ):
        files.resolve(str(tmp_path / "ckpt-3"), print)


def _refusal(path) -> str:
    with pytest.raises(errors.InputError) as info:
        files.resolve(str(path), print)
    return str(info.value)


def test_refusals_say_what_is_there(tmp_path):
    _train(tmp_path / "model")
    assert "The checkpoints of" in _refusal(tmp_path / "model/ckpt-7")
    assert "ckpt-1, ckpt-2, ckpt-3" in _refusal(tmp_path / "model/ckpt-7")
    assert "There is no folder and no checkpoint" in _refusal(tmp_path / "a/b/ckpt-7")
    assert f"There is one in '{tmp_path}/model': give that" in _refusal(tmp_path)
    (tmp_path / "empty").mkdir()
    assert _refusal(tmp_path / "empty").endswith("It holds nothing.")
    (tmp_path / "empty/my.config").write_text("")
    assert _refusal(tmp_path / "empty").endswith("It holds my.config.")
    assert "is not a checkpoint: give its prefix" in _refusal(tmp_path / "empty/my.config")
    (tmp_path / "empty/saved_model.pb").write_text("")
    assert "exported SavedModel" in _refusal(tmp_path / "empty")


def test_place_that_cannot_be_reached_is_one_line():
    message = _refusal("nosuchscheme://bucket/model")
    assert "'nosuchscheme://bucket/model' cannot be read" in message and "\n" not in message


def test_slots_of_optimizers_are_told_apart():
    key = f"model/weight/.OPTIMIZER_SLOT/optimizer/momentum{files.VALUE_SUFFIX}"
    assert files.readable_name(key) == "model/weight (optimizer/momentum)"
    assert files.readable_name(f"model/weight{files.VALUE_SUFFIX}") == "model/weight"


def test_published_weights_are_taken_by_their_prefix_alone(tmp_path):
    tf.train.Checkpoint(weight=tf.Variable(1.0)).write(str(tmp_path / "i3d.ckpt"))
    assert f"give its own prefix: {tmp_path}/i3d.ckpt." in _refusal(tmp_path)
    assert files.resolve(str(tmp_path / "i3d.ckpt"), print).prefix == str(tmp_path / "i3d.ckpt")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
def test_values_that_are_not_finite_are_refused(tmp_path, value, dtype):
    weight = tf.constant([1.0, value], dtype)
    saved = tf.train.Checkpoint(
        good=tf.Variable(1.0), bad=tf.Variable(weight), step=tf.Variable(7), name=tf.Variable("x")
    )
    contents = files.read(saved.write(str(tmp_path / "ckpt-7")))
    with pytest.raises(errors.InputError) as info:
        files.check_finite(contents)
    assert f"'{tmp_path}/ckpt-7'" in str(info.value)
    assert "1 of its 4 variables has NaN or infinite values: bad." in str(info.value)
    assert info.value.exit_status == 2


def test_refusal_of_not_finite_values_names_few_and_the_last_good_checkpoint(tmp_path):
    step, model = tf.Variable(0, dtype=tf.int64), tf.Module()
    manager = tf.train.CheckpointManager(
        tf.train.Checkpoint(step=step, model=model), str(tmp_path), max_to_keep=7
    )
    manager.save()  # of step 0: without weights, so no good one
    model.weights = [tf.Variable(1.0) for _ in range(12)]
    good = manager.save()
    for weight in model.weights:
        weight.assign(np.nan)
    contents = files.read(manager.save())
    with pytest.raises(
        errors.InputError, match="12 of its 14 .*: model/weights/0, .* and 2 more"
    ) as info:
        files.check_finite(contents)
    assert str(info.value).endswith(f"without such values is '{good}'.")
    for path in tmp_path.glob("ckpt-2.*"):
        path.unlink()
    with pytest.raises(errors.InputError, match="No checkpoint beside it is without such values"):
        files.check_finite(contents)


def _resumed(folder: pathlib.Path, max_to_keep: int = 7):
    """As the stock train loop resumes: (the step, the manager)."""
    saved = tf.train.Checkpoint(
        step=tf.Variable(0, dtype=tf.int64),
        model=tf.train.Checkpoint(weight=tf.Variable(tf.zeros([100]))),
    )
    manager = tf.train.CheckpointManager(saved, str(folder), max_to_keep=max_to_keep)
    saved.restore(tf.train.latest_checkpoint(str(folder)))
    return int(saved.step), manager


def _all_but_state(folder: pathlib.Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "checkpoint"}


@pytest.mark.parametrize("state", ["whole", "cut", "missing"])
def test_stock_train_loop_resumes_from_the_whole_one(tmp_path, state):
    _train(tmp_path)
    _cut(tmp_path / _DATA)
    if state == "cut":
        _empty(tmp_path / "checkpoint")
    if state == "missing":
        (tmp_path / "checkpoint").unlink()
    before, said = _all_but_state(tmp_path), []
    files.make_newest(str(tmp_path), str(tmp_path / "ckpt-2"), said.append)
    assert _all_but_state(tmp_path) == before  # the damaged one is still there
    assert len(said) == 1 and f"'{tmp_path}/ckpt-2'" in said[0]
    step, manager = _resumed(tmp_path)
    assert step == 20
    assert manager.save() == str(tmp_path / "ckpt-3")
    assert files.newest_whole(str(tmp_path), print).prefix == str(tmp_path / "ckpt-3")


def test_state_file_that_is_right_stays(tmp_path):
    _train(tmp_path)
    before, said = (tmp_path / "checkpoint").read_text(), []
    files.make_newest(str(tmp_path), str(tmp_path / "ckpt-3"), said.append)
    assert ((tmp_path / "checkpoint").read_text(), said) == (before, [])


def test_older_ones_still_make_room_and_kept_ones_stay(tmp_path):
    """ckpt-1 left the list, as one that `keep_checkpoint_every_n_hours` kept; ckpt-2 did not."""
    _train(tmp_path, 4, max_to_keep=3)
    tf.train.Checkpoint(step=tf.Variable(10)).write(str(tmp_path / "ckpt-1"))
    _cut(tmp_path / "ckpt-4.data-00000-of-00001")
    files.make_newest(str(tmp_path), str(tmp_path / "ckpt-3"), print)
    _, manager = _resumed(tmp_path, max_to_keep=2)
    assert manager.checkpoints == [str(tmp_path / "ckpt-2"), str(tmp_path / "ckpt-3")]
    manager.save()
    assert sorted(path.name for path in tmp_path.glob("*.index")) == [
        "ckpt-1.index",
        "ckpt-3.index",
        "ckpt-4.index",
    ]


def test_stock_exporter_finds_the_checkpoint_in_its_own_folder(tmp_path, monkeypatch):
    _train(tmp_path / "model")
    before = sorted(path.name for path in (tmp_path / "model").iterdir())
    monkeypatch.chdir(tmp_path)
    with files.folder_of("model/ckpt-2") as folder:
        manager = tf.train.CheckpointManager(tf.train.Checkpoint(), folder, max_to_keep=1)
        assert manager.latest_checkpoint == str(tmp_path / "model/ckpt-2")
        assert tf.train.latest_checkpoint(folder) == manager.latest_checkpoint
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == before
    assert not os.path.exists(folder)


def test_step_of_newest_is_that_of_the_newest(tmp_path):
    assert files.step_of_newest(str(tmp_path / "nothing")) == 0
    assert files.step_of_newest(str(tmp_path)) == 0
    _save_checkpoint(tmp_path, 7)
    assert files.step_of_newest(str(tmp_path)) == 7
    _save_checkpoint(tmp_path, 19)
    assert files.step_of_newest(str(tmp_path)) == 19
