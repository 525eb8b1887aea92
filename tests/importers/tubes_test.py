# SPDX-License-Identifier: Apache-2.0
"""UCF101-24, MultiSports and J-HMDB in the forms of their files, and what must be refused."""

import pickle

import numpy as np
import pytest
from scipy import io as scipy_io

from object_detection_ext.importers import act_tubes, jhmdb, model, ucf101_24
from tests.importers import made_files

_OPTIONS = model.ReadOptions()


def _pickled(path, content, name="data.pkl"):
    (path / name).write_bytes(pickle.dumps(content, 2))
    return str(path / name)


def test_pyannot(tmp_path):
    content = made_files.pyannot() | {
        "Basketball/v_Basketball_g01_c02": {"numf": np.int64(5), "label": 0, "annotations": []}
    }
    content["Basketball/v_Basketball_g01_c02"]["annotations"] = [
        {"sf": np.int64(0), "ef": 1, "label": np.uint8(0), "boxes": np.array([[1, 2, 3, 4]])}
    ]
    source = ucf101_24.read(_pickled(tmp_path, content), _OPTIONS)
    assert source.labels == ["Basketball", "Biking"]
    basketball, biking = source.videos
    assert (biking.name, biking.width, biking.height, biking.num_frames) == (
        "Biking/v_Biking_g01_c01", 320, 240, 10)  # fmt: skip
    assert [(mark.frame, mark.box) for mark in biking.marks] == [
        (2, (32, 24, 96, 72)), (3, (35, 24, 99, 72))]  # fmt: skip
    assert biking.marks[0].actions == ("Biking",) and biking.marks[0].person == 0
    assert basketball.marks[0].box == (1, 2, 4, 6)


def _pyannot(**changes):
    content = made_files.pyannot()
    content["Biking/v_Biking_g01_c01"]["annotations"][0] |= changes
    return content


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (_pyannot(ef=5), "tube 0: 2 boxes for frames 2 to 5 .*must be 3"),
        (_pyannot(boxes=[[1, 2, 3]]), "tube 0: 'boxes': it must be rows of 4 finite numbers"),
        (_pyannot(sf=-1), "tube 0: 'sf' is '-1'; it must be a whole number"),
        (_pyannot(boxes=[[1, 2, 3, np.nan]] * 2), "it must be rows of 4 finite numbers"),
        ({"v_Biking_g01_c01": made_files.pyannot()["Biking/v_Biking_g01_c01"]}, "has no folder"),
        ({"Biking/v": {"numf": 3}}, "'annotations' is missing"),
        ({"Biking/v": {"annotations": [], "numf": "x"}}, "'numf' is 'x'; it must be a whole"),
        ([1], "it is list; it must be a dictionary"),
        ({}, "it must be a dictionary"),
        (made_files.pyannot() | {"Diving/v": made_files.pyannot()["Biking/v_Biking_g01_c01"]},
         "label 2 is 'Diving', but was 'Biking' before"),
    ],
)  # fmt: skip
def test_what_is_not_as_pyannot_is_refused(tmp_path, content, message):
    with pytest.raises(model.ImportFault, match=message):
        ucf101_24.read(_pickled(tmp_path, content), _OPTIONS)


@pytest.mark.parametrize("read", [act_tubes.read, ucf101_24.read, jhmdb.read])
def test_the_form_of_act(tmp_path, read):
    source = read(_pickled(tmp_path, made_files.act_tubes()), _OPTIONS)
    assert source.labels == ["football shoot", "football pass"]
    first, second = source.videos
    assert (first.name, first.width, first.height, first.num_frames) == (
        "football/v_a_c001",
        64,
        48,
        10,
    )
    # Frames are counted from 1 in these files.
    assert [(m.frame, m.box) for m in first.marks] == [(2, (16, 12, 32, 36)), (3, (20, 12, 36, 36))]
    assert first.marks[0].actions == ("football pass",)
    assert sorted({mark.person for mark in second.marks}) == [0, 1]
    assert source.splits == {
        1: (frozenset(["football/v_a_c001"]), frozenset(["football/v_b_c001"]))
    }


def _act(**changes):
    return made_files.act_tubes() | changes


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (_act(labels=["only one"]), "video 'football/v_a_c001': label 1; there are 1"),
        (_act(labels=7), "'labels' must be a list of names"),
        (_act(nframes={}), "'nframes': 'football/v_a_c001' is missing"),
        (_act(resolution={"football/v_a_c001": (48, 64, 3)}), "resolution: it must be rows of 2"),
        (_act(gttubes=[1]), "'gttubes' must be a dictionary by video"),
        (_act(gttubes={"football/v_a_c001": {0: [[1, 2, 3]]}}), "it must be rows of 5 finite"),
        (_act(gttubes={"football/v_a_c001": [1]}), "its tubes must be a dictionary by label"),
        (_act(test_videos=[7]), "must be lists, with a list for each split"),
        (_act(test_videos=[]), "must be lists, with a list for each split"),
        ({"labels": []}, "'gttubes' is missing"),
    ],
)
def test_what_is_not_in_the_form_of_act_is_refused(tmp_path, content, message):
    with pytest.raises(model.ImportFault, match=message):
        act_tubes.read(_pickled(tmp_path, content), _OPTIONS)


def _masks(path, masks, label="wave", name="a_wave_1"):
    folder = path / "puppet_mask" / label / name
    folder.mkdir(parents=True)
    scipy_io.savemat(folder / "puppet_mask.mat", {"part_mask": masks})
    return folder / "puppet_mask.mat"


def test_masks_of_jhmdb(tmp_path):
    masks = np.zeros((240, 320, 3), np.uint8)
    masks[24:48, 32:64, 0] = 1
    masks[100, 200, 1] = 1
    _masks(tmp_path, masks)
    _masks(tmp_path, masks[:, :, :1], "run", "b_run_1")
    source = jhmdb.read(str(tmp_path / "puppet_mask"), _OPTIONS)
    assert source.labels == ["run", "wave"]
    run, wave = source.videos
    assert (wave.name, wave.width, wave.height, wave.num_frames) == ("a_wave_1", 320, 240, 3)
    assert wave.count_may_be_less
    # From the left side of the first pixel to the right side of the last.
    assert [(m.frame, m.box) for m in wave.marks] == [
        (0, (32, 24, 64, 48)),
        (1, (200, 100, 201, 101)),
    ]
    assert wave.marks[0].actions == ("wave",) and wave.marks[0].person == 0
    assert source.notes["frames with an empty mask were left out"] == 1
    assert len(run.marks) == 1


def test_what_is_no_mask_is_refused(tmp_path):
    with pytest.raises(model.ImportFault, match="no CLASS/VIDEO/puppet_mask.mat in it"):
        jhmdb.read(str(tmp_path), _OPTIONS)
    path = _masks(tmp_path, np.zeros((2, 3, 4, 5)))
    with pytest.raises(model.ImportFault, match=r"'part_mask' is float64 \[2, 3, 4, 5\]; it must"):
        jhmdb.read(str(path), _OPTIONS)
    scipy_io.savemat(path, {"other": np.zeros(3)})
    with pytest.raises(model.ImportFault, match="it has no 'part_mask'"):
        jhmdb.read(str(path), _OPTIONS)
    for content in (b"MATLAB 5.0 MAT-file, but no more", bytes(range(256)) * 4):
        path.write_bytes(content)
        with pytest.raises(model.ImportFault, match="puppet_mask.mat: not a MATLAB file"):
            jhmdb.read(str(path), _OPTIONS)
