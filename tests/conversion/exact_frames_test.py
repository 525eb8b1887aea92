# SPDX-License-Identifier: Apache-2.0
"""Videos with the time drawn into each frame prove which frames the records hold.

From video file to what the training pipeline decodes: frame k of each clip is the video's frame
nearest to keyframe + (k - T // 2) / fps.
"""

import fractions

import numpy as np
import pytest
import tensorflow as tf

from object_detection_ext.data import clip_decoder, clip_packing
from tests import numbered_videos, toy_records

_KEYFRAMES = (0.0, 1.0, 2.0, 2.36, 3.5)
_NUM_FRAMES, _FPS = 16, 25.0


def _variable_times():
    gaps = np.random.default_rng(3).choice([0.011, 0.033, 0.05, 0.12], 200)
    times = np.cumsum(gaps) - gaps[0]
    return [float(t) for t in times[times < 4.0]]


def _times(rate):
    if rate == "variable":
        return _variable_times()
    rate = fractions.Fraction(rate)
    return [float(i / rate) for i in range(int(4 * rate))]


def _convert(tmp_path, times, video="v.mkv", codec="libx264", time_base="1/1000", **changes):
    (tmp_path / "videos").mkdir()
    stored = numbered_videos.write(
        tmp_path / "videos" / video,
        times,
        codec=codec,
        time_base=fractions.Fraction(time_base),
        value=lambda number, seconds: round(1000 * seconds),
    )
    rows = "".join(f"v,{t},0.1,0.1,0.5,0.9,1,0\n" for t in _KEYFRAMES)
    (tmp_path / "a.csv").write_text(rows)
    (tmp_path / "l.pbtxt").write_text("item { id: 1 name: 'stand' }\n")
    options = toy_records.options(
        tmp_path, tmp_path / "r", annotations=tmp_path / "a.csv", label_map=tmp_path / "l.pbtxt",
        num_frames=_NUM_FRAMES, fps=_FPS, **changes,
    )  # fmt: skip
    toy_records.convert(options)
    return stored


def _clips(tmp_path) -> dict[float, np.ndarray]:
    """Clips by their keyframe's time, [T, H, W, 3], as the training pipeline decodes them."""
    decoder = clip_decoder.ClipDecoder(str(tmp_path / "l.pbtxt"), _NUM_FRAMES)
    clips = {}
    for record in tf.data.TFRecordDataset([str(p) for p in tmp_path.glob("r-*-of-*")]):
        for keyframe in decoder.keyframes(record):
            clip = decoder.decode_frames(keyframe)
            name = clip["source_id"].numpy().decode()
            packed = clip["image"].numpy()[None]
            clips[float(name.split(",")[1])] = clip_packing.unpack_clips(packed, _NUM_FRAMES)[0]
    return {time: clip.numpy() for time, clip in clips.items()}


@pytest.mark.parametrize("seconds_per_record", [0.0, 10.0])
@pytest.mark.parametrize("rate", ["24000/1001", "25", "30000/1001", "30", "60", "variable"])
def test_each_frame_is_the_nearest_to_its_time(tmp_path, rate, seconds_per_record):
    stored = _convert(tmp_path, _times(rate), seconds_per_record=seconds_per_record)
    _check_clips(_clips(tmp_path), stored)


@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
def test_files_that_store_no_presentation_times(tmp_path, codec):
    stored = _convert(tmp_path, _times("30"), video="v.avi", codec=codec, time_base="1/30")
    _check_clips(_clips(tmp_path), stored)


def _check_clips(clips, stored):
    assert sorted(clips) == list(_KEYFRAMES)
    for keyframe, clip in clips.items():
        for k, frame in enumerate(clip):
            drawn = numbered_videos.read_number(frame) / 1000
            wanted = keyframe + (k - _NUM_FRAMES // 2) / _FPS
            nearest = np.min(np.abs(stored - wanted))
            # The file keeps milliseconds, and a drawn time is rounded to them.
            assert abs(drawn - wanted) <= nearest + 1.1e-3
            assert np.min(np.abs(stored - drawn)) <= 1.1e-3


def test_segments_store_less_than_clips(tmp_path):
    for name, seconds in (("apart", 0.0), ("together", 10.0)):
        (tmp_path / name).mkdir()
        _convert(tmp_path / name, _times("25"), seconds_per_record=seconds)
    apart = toy_records.read(tmp_path / "apart" / "r")
    together = toy_records.read(tmp_path / "together" / "r")
    assert apart.keys() == together.keys()
    # 2 and 2.36 s share frames; the other clips do not meet.
    assert [len(f["image/encoded"]) for _, f in sorted(apart.items())] == [16] * 5
    lengths = {name: len(fields["image/encoded"]) for name, fields in together.items()}
    assert lengths == {"v,0000": 16, "v,0001": 16, "v,0002": 25, "v,2.36": 25, "v,3.5": 16}
    assert together["v,0002"]["keyframe"] == 8 and together["v,2.36"]["keyframe"] == 17
