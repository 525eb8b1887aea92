# SPDX-License-Identifier: Apache-2.0
"""Videos that are not what they should be, next to a good one."""

import os

import av
import numpy as np
import pytest
from absl import flags

from object_detection_ext.conversion import manifest as manifest_lib
from object_detection_ext.conversion import options as options_lib
from object_detection_ext.tools import create_ava_records
from tests import numbered_videos, toy_records


def _truncated(path):
    numbered_videos.write(path, [i / 25 for i in range(75)])
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _ends_early(path):
    """A Matroska file that says 4 s and has the first of them."""
    numbered_videos.write(path, [i / 25 for i in range(100)])
    with av.open(str(path)) as container:
        end = next(p.pos for p in container.demux(video=0) if p.pts and p.pts * p.time_base > 1.2)
    path.write_bytes(path.read_bytes()[:end])


def _sound_only(path):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.float32), "fltp", "mono")
        sound.sample_rate = 8000
        container.mux(stream.encode(sound))
        container.mux(stream.encode(None))


_BAD = [
    ("bad.mp4", _truncated, "unreadable video", "cannot be read as a video"),
    ("bad.mp4", lambda path: path.write_bytes(b""), "unreadable video", "is empty"),
    ("bad.mp4", _sound_only, "unreadable video", "no video stream, only audio"),
    ("bad.mkv", _ends_early, "video damaged there", "2 s is beyond the video's end"),
    ("other.mp4", _truncated, "missing video", "no video file bad.*"),
]


def _with_a_good_video(folder, name, make):
    (folder / "videos").mkdir()
    numbered_videos.write(folder / "videos" / "good.mp4", [i / 25 for i in range(75)])
    make(folder / "videos" / name)
    rows = ["good,1", "good,2", "bad,2,0.1,0.1,0.5,0.9,1,0", "bad,2,0.1,0.1,0.5,0.9,1,1"]
    (folder / "a.csv").write_text("\n".join(rows) + "\n")
    (folder / "l.pbtxt").write_text("item { id: 1 name: 'stand' }\n")


@pytest.mark.parametrize(("name", "make", "kind", "reason"), _BAD)
def test_bad_video_is_told_and_the_rest_converted(tmp_path, name, make, kind, reason):
    _with_a_good_video(tmp_path, name, make)
    options = toy_records.options(
        tmp_path, tmp_path / "r", annotations=tmp_path / "a.csv", label_map=tmp_path / "l.pbtxt"
    )
    manifest = toy_records.convert(options)
    assert manifest["skipped_keyframes_by_reason"] == {kind: 1}
    (skip,) = manifest["skipped_keyframes"]
    assert skip["row"] == 3 and reason in skip["reason"]
    assert f"{tmp_path}/a.csv:3: bad: " in manifest_lib.summary(options, manifest)
    assert set(toy_records.read(tmp_path / "r")) == {"good,0001", "good,0002"}
    strict = toy_records.options(
        tmp_path, tmp_path / "s", annotations=tmp_path / "a.csv", label_map=tmp_path / "l.pbtxt",
        strict=True,
    )  # fmt: skip
    with pytest.raises(
        options_lib.ConversionError, match=f"(?s)--strict.*a.csv:3: bad: .*{reason}"
    ):
        toy_records.convert(strict)
    assert not list(tmp_path.glob("s-*"))


def _status(folder, *more) -> int:
    """Runs the command line in this process; returns its exit status."""
    values = flags.FlagValues()
    create_ava_records.define_flags(values)
    arguments = [f"--annotations={folder / 'a.csv'}", f"--videos={folder / 'videos'}",
                 f"--label_map={folder / 'l.pbtxt'}", f"--output={folder / 'r'}@2",
                 "--num_frames=8", "--fps=12.5", "--workers=1", *more]  # fmt: skip
    try:
        rest = create_ava_records.parse_flags(["create_ava_records", *arguments], values)
        create_ava_records.main(rest, values)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1
    return 0


@pytest.mark.parametrize(("name", "make", "kind", "reason"), _BAD)
def test_exit_status_tells_what_is_left_out_until_it_is_repaired(
    tmp_path, capsys, name, make, kind, reason
):
    _with_a_good_video(tmp_path, name, make)
    assert _status(tmp_path, "--strict") == 1
    assert not list(tmp_path.glob("r-*"))
    for _ in range(2):  # the second run finds the records finished
        assert _status(tmp_path) == 3
        output = capsys.readouterr()
        assert f"Left out: 1 keyframe, {kind}." in output.out and reason in output.out
        assert "warning: 1 keyframe left out of the records" in output.err
        assert set(toy_records.read(tmp_path / "r")) == {"good,0001", "good,0002"}
    # The same command, with a whole video in the place of the bad one.
    (tmp_path / "videos" / name).unlink()
    numbered_videos.write(tmp_path / "videos" / "bad.mp4", [i / 25 for i in range(75)])
    assert _status(tmp_path) == 0
    output = capsys.readouterr()
    assert "converting again, with videos that an earlier run left out: bad" in output.out
    assert "Converted 3 of 3 keyframes" in output.out and "warning" not in output.err
    assert set(toy_records.read(tmp_path / "r")) == {"good,0001", "good,0002", "bad,0002"}


def test_what_else_changed_beside_a_repaired_video_needs_overwrite(tmp_path):
    _with_a_good_video(tmp_path, "bad.mp4", _truncated)
    assert _status(tmp_path) == 3
    before = (tmp_path / "r-00000-of-00002").read_bytes()
    numbered_videos.write(tmp_path / "videos" / "bad.mp4", [i / 25 for i in range(75)])
    os.utime(tmp_path / "videos" / "good.mp4", ns=(1, 1))
    assert _status(tmp_path) == 1
    assert (tmp_path / "r-00000-of-00002").read_bytes() == before
    assert _status(tmp_path, "--overwrite") == 0


def test_what_was_asked_to_be_left_out_is_no_surprise(tmp_path):
    _with_a_good_video(tmp_path, "bad.mp4", _truncated)
    (tmp_path / "e.csv").write_text("bad,2\n")
    assert _status(tmp_path, f"--excluded_timestamps={tmp_path / 'e.csv'}") == 0


def test_a_segment_leaves_out_keyframes_behind_the_end(tmp_path):
    (tmp_path / "videos").mkdir()
    numbered_videos.write(tmp_path / "videos" / "v.mp4", [i / 25 for i in range(50)])
    (tmp_path / "a.csv").write_text("v,-0.04\nv,0\nv,0.32\nv,1.6\nv,1.92\nv,2.24\n")
    (tmp_path / "l.pbtxt").write_text("item { id: 1 name: 'stand' }\n")
    options = toy_records.options(
        tmp_path, tmp_path / "r", annotations=tmp_path / "a.csv", label_map=tmp_path / "l.pbtxt",
        fps=25.0, seconds_per_record=10.0,
    )  # fmt: skip
    manifest = toy_records.convert(options)
    assert manifest["skipped_keyframes_by_reason"] == {"timestamp outside the video": 2}
    records = toy_records.read(tmp_path / "r")
    assert set(records) == {"v,0000", "v,0.32", "v,1.6", "v,1.92"}
    # 0 and 0.32 s: 8 steps and a clip; -0.04 s is on their grid, and its frame is cut off.
    assert len(records["v,0000"]["image/encoded"]) == 16
    assert (records["v,0000"]["keyframe"], records["v,0.32"]["keyframe"]) == (4, 12)
    assert len(records["v,1.6"]["image/encoded"]) == 16


def test_paths_with_a_scheme(tmp_path):
    (tmp_path / "videos" / "below").mkdir(parents=True)
    (tmp_path / "videos" / ".trash").mkdir()
    for name in ("below/v.mp4", ".trash/v.mp4"):
        numbered_videos.write(tmp_path / "videos" / name, [i / 25 for i in range(50)])
    (tmp_path / "a.csv").write_text("v,1,0.1,0.1,0.5,0.9,1,0\n")
    (tmp_path / "l.pbtxt").write_text("item { id: 1 name: 'stand' }\n")
    common = {"annotations": tmp_path / "a.csv", "label_map": tmp_path / "l.pbtxt"}
    toy_records.convert(toy_records.options(tmp_path, tmp_path / "r", **common))
    elsewhere = toy_records.options(
        tmp_path, f"file://{tmp_path}/s", videos=f"file://{tmp_path}/videos", **common
    )
    manifest = toy_records.convert(elsewhere)
    assert manifest["videos"]["v"]["path"] == f"file://{tmp_path}/videos/below/v.mp4"
    for shard in ("-00000-of-00002", "-00001-of-00002"):
        local = (tmp_path / f"r{shard}").read_bytes()
        assert local == (tmp_path / f"s{shard}").read_bytes()
    assert not list(tmp_path.glob("*.incomplete"))
