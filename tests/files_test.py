# SPDX-License-Identifier: Apache-2.0
"""Both file systems do the same."""

import os

import pytest

from object_detection_ext import files


def test_walking_goes_into_links_but_not_in_circles(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "up").symlink_to(tmp_path / "a")
    (tmp_path / "linked").symlink_to(tmp_path / "a" / "b")
    elsewhere = tmp_path.parent / f"{tmp_path.name}_elsewhere"
    (elsewhere / "c").mkdir(parents=True)
    (elsewhere / "c" / "back").symlink_to(tmp_path)
    (tmp_path / "a" / "out").symlink_to(elsewhere)
    walked = [os.path.relpath(root, tmp_path) for root, _ in files.LocalFiles.walk(str(tmp_path))]
    assert walked == [".", "a", "a/b", "a/out", "a/out/c"]


def test_folders_that_all_link_to_each_other_are_walked_once_each(tmp_path):
    # Paths without a folder twice: 9! of them, and more.
    folders = [tmp_path / f"f{number}" for number in range(9)]
    for folder in folders:
        folder.mkdir()
        (folder / "file").touch()
    for folder in folders:
        for other in folders:
            (folder / f"to_{other.name}").symlink_to(other)
    walked = list(files.LocalFiles.walk(str(tmp_path)))
    assert [root for root, _ in walked] == [str(tmp_path), *map(str, folders)]
    assert all("file" in names for root, names in walked[1:])


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_one_behaviour(tmp_path, scheme):
    folder = f"{scheme}{tmp_path}/a/b"
    system = files.system_of(folder)
    assert files.is_local(folder) == (not scheme)
    system.makedirs(folder)
    system.makedirs(folder)
    for name, content in (("x", "eins"), ("y", "zwölf")):
        with system.open(f"{folder}/{name}", "w") as file:
            file.write(content)
    assert sorted(system.listdir(folder)) == ["x", "y"]
    assert system.size(f"{folder}/y") == 6  # bytes of UTF-8
    before = system.stamp(f"{folder}/y")
    system.rename(f"{folder}/x", f"{folder}/y")
    assert system.stamp(f"{folder}/y") != before
    with system.open(f"{folder}/y", "rb") as file:
        assert file.read() == b"eins"
    walked = [
        (str(root).rstrip("/"), list(names)) for root, names in system.walk(f"{scheme}{tmp_path}")
    ]
    assert walked[-1] == (folder, ["y"])
    with pytest.raises(files.errors()):
        system.remove(f"{folder}/none")
    system.remove(f"{folder}/y")
    assert not system.exists(f"{folder}/y")
    system.rmtree(f"{scheme}{tmp_path}/a")
    assert not os.path.exists(tmp_path / "a")


def test_real_path_follows_links_on_local_disks_only(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "file")
    assert files.real_path(f"{tmp_path}/link") == f"{tmp_path}/file"
    assert files.real_path("gs://bucket/a//b") == "gs://bucket/a//b"
