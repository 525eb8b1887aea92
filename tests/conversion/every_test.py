# SPDX-License-Identifier: Apache-2.0
"""--every: one keyframe per so many seconds of densely annotated videos is converted."""

import pytest

from object_detection_ext.conversion import manifest as manifest_lib
from object_detection_ext.conversion import options as options_lib
from tests import toy_records

_BOX = "0.1,0.1,0.5,0.9"


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """Toy videos of 2.4 s, in which somebody has a box on every frame."""
    folder = toy_records.make_toy(tmp_path_factory.mktemp("toy"))
    lines = [f"train_000{v},{k / 25:.2f},{_BOX},1,7\n" for v in (0, 1) for k in range(60)]
    (folder / "train.csv").write_text("".join(lines))
    return folder


def _moments(prefix):
    return sorted(toy_records.read(prefix))


def test_one_keyframe_a_second_is_kept_and_the_others_are_counted(toy, tmp_path, capsys):
    manifest = toy_records.convert(toy_records.options(toy, tmp_path / "r", every=1.0))
    assert _moments(tmp_path / "r") == [
        f"train_000{v},{time}" for v in (0, 1) for time in ("0000", "0001", "0002")
    ]
    assert manifest["totals"]["keyframes"] == 120
    assert manifest["totals"]["keyframes_thinned"] == 114
    assert manifest["skipped_keyframes"] == []
    assert manifest["options"]["every"] == 1.0
    said = capsys.readouterr().out
    assert f"note: {toy / 'train.csv'}: --every 1 leaves out 114 of 120 keyframes" in said
    printed = manifest_lib.summary(toy_records.options(toy, tmp_path / "r", every=1.0), manifest)
    assert "Left out: 114 keyframes, by --every 1." in printed


def test_by_default_all_are_kept(toy, tmp_path):
    manifest = toy_records.convert(toy_records.options(toy, tmp_path / "r"))
    assert manifest["totals"]["keyframes_kept"] == 120
    assert "keyframes_thinned" not in manifest["totals"]


def test_excluded_keyframes_are_left_out_before(toy, tmp_path):
    excluded = tmp_path / "e.csv"
    excluded.write_text("train_0000,0\ntrain_0000,1\n")
    toy_records.convert(
        toy_records.options(toy, tmp_path / "r", every=1.0, excluded_timestamps=str(excluded))
    )
    own = [name for name in _moments(tmp_path / "r") if name.startswith("train_0000")]
    assert own == ["train_0000,0.04", "train_0000,1.04", "train_0000,2.04"]


def test_the_same_command_again_is_finished_and_another_every_is_another_conversion(
    toy, tmp_path, capsys
):
    first = toy_records.convert(toy_records.options(toy, tmp_path / "r", every=1.0))
    capsys.readouterr()
    assert toy_records.convert(toy_records.options(toy, tmp_path / "r", every=1.0)) == first
    assert "finished by an earlier run" in capsys.readouterr().out
    with pytest.raises(options_lib.ConversionError, match="overwrite"):
        toy_records.convert(toy_records.options(toy, tmp_path / "r", every=0.5))


def test_a_manifest_that_is_written_anew_counts_them_again(toy, tmp_path):
    path = tmp_path / "train.csv"
    text = (toy / "train.csv").read_text()
    path.write_text(text)
    options = toy_records.options(toy, tmp_path / "r", every=1.0, annotations=path)
    toy_records.convert(options)
    # Two more keyframes, which --every leaves out too.
    path.write_text(text + f"train_0001,0.41,{_BOX},1,7\ntrain_0001,0.43,{_BOX},1,7\n")
    manifest = toy_records.convert(options)
    assert manifest["totals"]["keyframes"] == 122
    assert manifest["totals"]["keyframes_thinned"] == 116


@pytest.mark.parametrize("every", [-1.0, 1e-9, float("nan"), float("inf")])
def test_a_number_of_seconds_out_of_range_is_an_error(toy, tmp_path, every):
    with pytest.raises(
        options_lib.ConversionError, match="--every must be 0, for all keyframes, or at least"
    ):
        toy_records.convert(toy_records.options(toy, tmp_path / "r", every=every))
