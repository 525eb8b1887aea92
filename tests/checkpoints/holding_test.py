# SPDX-License-Identifier: Apache-2.0
"""Second names of checkpoints: links, copies, what is let go when."""

import os

import pytest

from object_detection_ext.checkpoints import files, holding
from tests.loops import best_test


def test_a_held_checkpoint_outlives_its_first_name_and_takes_no_room(tmp_path):
    prefix = best_test.save(tmp_path / "model", 1)
    with holding.Holder(str(tmp_path / "model" / "best")) as holder:
        second = holder.hold(prefix)
        assert os.path.samefile(f"{prefix}.index", f"{second}.index")
        holding.remove(prefix)
        assert list((tmp_path / "model").glob("ckpt-1.*")) == []
        assert files.step_of(second) == 1
    assert list((tmp_path / "model").glob("best*")) == []


def test_where_there_are_no_links_there_are_copies(tmp_path, monkeypatch):
    def refuse(source, target):
        raise OSError("Invalid cross-device link")

    monkeypatch.setattr(holding.os, "link", refuse)
    prefix = best_test.save(tmp_path, 1)
    holding.link(prefix, str(tmp_path / "second"))
    assert not os.path.samefile(f"{prefix}.index", tmp_path / "second.index")
    assert files.read(str(tmp_path / "second")).shapes == files.read(prefix).shapes


def test_the_one_before_is_held_too_and_no_more(tmp_path):
    with holding.Holder(str(tmp_path / "best")) as holder:
        held = [holder.hold(best_test.save(tmp_path, step)) for step in (1, 2, 3)]
        assert [os.path.exists(f"{prefix}.index") for prefix in held] == [False, True, True]


def test_two_of_one_name_are_two(tmp_path):
    first = best_test.save(tmp_path / "a", 5)
    other = best_test.save(tmp_path / "b", 6)
    renamed = tmp_path / "c" / "ckpt-5"
    renamed.parent.mkdir()
    holding.link(other, str(renamed))
    with holding.Holder(str(tmp_path / "best")) as holder:
        assert [files.step_of(holder.hold(p)) for p in (first, str(renamed))] == [5, 6]
    assert files.step_of(first) == 5


@pytest.mark.parametrize("missing", ["index", "data-00000-of-00001"])
def test_one_that_is_gone_cannot_be_held(tmp_path, missing):
    prefix = best_test.save(tmp_path, 1)
    os.remove(f"{prefix}.{missing}")
    with (
        holding.Holder(str(tmp_path / "best")) as holder,
        pytest.raises(FileNotFoundError),
    ):
        holder.hold(prefix)


def test_names_are_not_patterns(tmp_path):
    folder = tmp_path / "run [1]*"
    prefix = best_test.save(folder, 1)
    best_test.save(folder, 11)
    holding.link(prefix, str(tmp_path / "second"))
    assert files.step_of(str(tmp_path / "second")) == 1
    holding.remove(prefix)
    assert sorted(path.name for path in folder.iterdir()) == [
        "checkpoint",
        "ckpt-11.data-00000-of-00001",
        "ckpt-11.index",
    ]
