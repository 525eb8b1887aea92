# SPDX-License-Identifier: Apache-2.0
"""Folders of frames, films cut to a part, HDR, timestamps that start over: the records of these."""

import io

import numpy as np
import pytest
from PIL import Image

from object_detection_ext import errors
from object_detection_ext.conversion import manifest as manifest_lib
from object_detection_ext.conversion import options as options_lib
from object_detection_ext.data import clip_features
from tests import numbered_videos, toy_records


def _options(folder, rows, **changes):
    (folder / "videos").mkdir(exist_ok=True)
    (folder / "a.csv").write_text("".join(f"{row},0.1,0.1,0.5,0.9,1,0\n" for row in rows))
    (folder / "l.pbtxt").write_text("item { id: 1 name: 'stand' }\n")
    return toy_records.options(
        folder, folder / "r", annotations=folder / "a.csv", label_map=folder / "l.pbtxt",
        num_frames=4, fps=10.0, **changes,
    )  # fmt: skip


def _numbers(folder) -> dict[str, list[int]]:
    """The numbers that each record's frames show, by the name of its keyframe."""
    return {
        name: [
            numbered_videos.read_number(np.asarray(Image.open(io.BytesIO(jpeg))))
            for jpeg in fields[clip_features.IMAGE_ENCODED]
        ]
        for name, fields in toy_records.read(folder / "r").items()
    }


def test_folders_of_frames_beside_files(tmp_path):
    numbered_videos.write_frames(tmp_path / "videos" / "v", 30, "v_{:06d}.jpg")
    numbered_videos.write(tmp_path / "videos" / "w.mp4", [i / 10 for i in range(30)])
    options = _options(tmp_path, ["v,1", "v,2.5", "w,1"], frames_fps=10.0)
    manifest = toy_records.convert(options)
    assert _numbers(tmp_path) == {
        "v,0001": [8, 9, 10, 11],
        "v,2.5": [23, 24, 25, 26],
        "w,0001": [8, 9, 10, 11],
    }
    video = manifest["videos"]["v"]
    assert (video["codec"], video["fps"], video["size"]) == ("numbered frames", 10.0, [48, 64])


def test_folder_of_frames_with_a_gap_is_left_out_and_told(tmp_path):
    numbered_videos.write_frames(tmp_path / "videos" / "v", 30, "{:05d}.jpg")
    numbered_videos.write(tmp_path / "videos" / "w.mp4", [i / 10 for i in range(30)])
    (tmp_path / "videos" / "v" / "00012.jpg").unlink()
    options = _options(tmp_path, ["v,2.5", "w,1"], frames_fps=10.0)
    manifest = toy_records.convert(options)
    (skip,) = manifest["skipped_keyframes"]
    assert skip["kind"] == "unreadable video"
    assert "frame 12 is missing: 00011.jpg is followed by 00013.jpg" in skip["reason"]


def test_folder_of_frames_without_a_rate(tmp_path):
    numbered_videos.write_frames(tmp_path / "videos" / "v", 30, "{:05d}.jpg")
    with pytest.raises(options_lib.ConversionError, match="is a folder, .* give --frames_fps"):
        toy_records.convert(_options(tmp_path, ["v,1"]))
    for frames_fps in (-1.0, 1e-9, 1e9, float("nan")):
        with pytest.raises(
            options_lib.ConversionError, match="--frames_fps must be 0, where no fo"
        ):
            toy_records.convert(_options(tmp_path, ["v,1"], frames_fps=frames_fps))


@pytest.mark.parametrize("seconds_per_record", [0.0, 10.0])
@pytest.mark.parametrize("by_video", [False, True])
def test_part_of_a_film(tmp_path, seconds_per_record, by_video):
    (tmp_path / "videos").mkdir()
    numbered_videos.write(tmp_path / "videos" / "v.mp4", [i / 10 for i in range(30)])
    offset = "900"
    if by_video:
        offset = str(tmp_path / "offsets.csv")
        (tmp_path / "offsets.csv").write_text("v,900\nother,0\n")
    options = _options(
        tmp_path, ["v,901", "v,902.5", "v,899", "v,910"],
        time_offset_seconds=offset, seconds_per_record=seconds_per_record,
    )  # fmt: skip
    manifest = toy_records.convert(options)
    records = toy_records.read(tmp_path / "r")
    assert _numbers(tmp_path) == {"v,0901": [8, 9, 10, 11], "v,902.5": [23, 24, 25, 26]}
    # Frames and keyframes are on one line of time, that of the annotations.
    stamps = records["v,0901"][clip_features.IMAGE_TIMESTAMP]
    assert np.ravel(stamps).tolist() == [900_800_000, 900_900_000, 901_000_000, 901_100_000]
    skipped = {skip["timestamp"]: skip["reason"] for skip in manifest["skipped_keyframes"]}
    assert set(skipped) == {899.0, 910.0}
    assert (
        "timestamp 10 s is beyond the video's end, 3.000 s (annotated as 0910 s, time offset "
        "900 s)" in skipped[910.0]
    )


def test_strict_counts_with_the_offset_too(tmp_path):
    (tmp_path / "videos").mkdir()
    numbered_videos.write(tmp_path / "videos" / "v.mp4", [i / 10 for i in range(30)])
    rows = ["v,901", "v,902.5"]
    toy_records.convert(_options(tmp_path, rows, time_offset_seconds="900", strict=True))
    with pytest.raises(options_lib.ConversionError, match=r"annotated as 0901 s, time offset 800"):
        toy_records.convert(
            _options(tmp_path, rows, time_offset_seconds="800", strict=True, overwrite=True)
        )


def test_video_without_an_offset_is_an_error_before_anything_else(tmp_path):
    (tmp_path / "offsets.csv").write_text("other,0\n")
    offset = str(tmp_path / "offsets.csv")
    with pytest.raises(errors.InputError, match=r"offsets.csv: no row for 1 video: v;"):
        toy_records.convert(_options(tmp_path, ["v,901"], time_offset_seconds=offset))


def test_another_offset_makes_other_records(tmp_path):
    (tmp_path / "videos").mkdir()
    numbered_videos.write(tmp_path / "videos" / "v.mp4", [i / 10 for i in range(30)])
    toy_records.convert(_options(tmp_path, ["v,901"], time_offset_seconds="900"))
    changed = _options(tmp_path, ["v,901"], time_offset_seconds="899.5")
    with pytest.raises(options_lib.ConversionError, match="time_offset_seconds was '900' and is"):
        toy_records.convert(changed)


def test_mp4_files_in_one_are_told(tmp_path):
    (tmp_path / "videos").mkdir()
    for name, options in (("v", {}), ("w", {}), ("x", {"movflags": "frag_keyframe+empty_moov"})):
        path = tmp_path / "videos" / f"{name}.mp4"
        numbered_videos.write(path, [i / 10 for i in range(20)], container_options=options)
    path = tmp_path / "videos" / "v.mp4"
    path.write_bytes(3 * path.read_bytes())
    options = _options(tmp_path, ["v,1", "w,1", "x,1"])
    manifest = toy_records.convert(options)
    assert [manifest["videos"][name]["unread_parts"] for name in "vwx"] == [2, 0, 0]
    assert "Left out of 1 video: v (2) MP4 files that were written one after the other" in (
        manifest_lib.summary(options, manifest)
    )


def test_frames_that_change_their_size_are_told(tmp_path):
    (tmp_path / "videos").mkdir()
    parts = []
    for shape in ((48, 64), (96, 64), (96, 64)):
        numbered_videos.write(tmp_path / "part.ts", [i / 10 for i in range(20)], shape=shape)
        parts.append((tmp_path / "part.ts").read_bytes())
    (tmp_path / "videos" / "v.ts").write_bytes(b"".join(parts))
    numbered_videos.write(tmp_path / "videos" / "w.mp4", [i / 10 for i in range(20)])
    options = _options(tmp_path, ["v,1", "v,3.5", "v,5", "w,1"])
    manifest = toy_records.convert(options)
    assert _numbers(tmp_path)["v,3.5"] == [13, 14, 15, 16]
    assert manifest["videos"]["v"]["size"] == [48, 64]
    assert "Frames change their size in 1 video: v (1). All were stretched" in (
        manifest_lib.summary(options, manifest)
    )


def test_timestamps_that_start_over_and_hdr_are_told(tmp_path):
    (tmp_path / "videos").mkdir()
    for name, transfer in (("v.ts", None), ("pq.mp4", 16), ("hlg.mp4", 18), ("sdr.mp4", 1)):
        path = tmp_path / "videos" / name
        numbered_videos.write(path, [i / 10 for i in range(20)], transfer=transfer)
    path = tmp_path / "videos" / "v.ts"
    path.write_bytes(2 * path.read_bytes())
    options = _options(tmp_path, ["v,1", "v,3.5", "pq,1", "hlg,1", "sdr,1"])
    manifest = toy_records.convert(options)
    assert manifest["totals"]["keyframes_kept"] == 5
    assert _numbers(tmp_path)["v,3.5"] == [13, 14, 15, 16]
    said = manifest_lib.summary(options, manifest)
    assert "Timestamps start over in 1 video: v (1). Each part was taken to follow" in said
    assert "HDR: 2 videos, hlg (HLG), pq (PQ): colours are used as stored" in said
