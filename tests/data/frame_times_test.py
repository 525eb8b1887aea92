# SPDX-License-Identifier: Apache-2.0
"""Times of frames from packets, against those of the decoder."""

import fractions

import av
import numpy as np
import pytest
from PIL import Image

from object_detection_ext.data import frame_times, video_probe, video_reader
from object_detection_ext.data.video_info import VideoError
from object_detection_ext.data.video_windows import Window
from tests import numbered_videos


def _times(path):
    return frame_times.frame_times(video_probe.probe(path))


def _decoded(path):
    """Every frame's time as the reader of clips has it."""
    grid = np.arange(0, _times(path)[-1] + 1e-9, 0.002)
    reader = video_reader.FrameReader(path)
    (found,) = reader.windows([Window(grid, (0,))])
    return np.unique(found.frame_times)


@pytest.mark.parametrize(("name", "codec"), [("v.mp4", "libx264"), ("v.mkv", "libx264"),
                                             ("v.avi", "mpeg4"), ("v.ts", "libx264"),
                                             ("v.mov", "mjpeg")])  # fmt: skip
def test_as_the_decoder_has_them(tmp_path, name, codec):
    times = np.arange(30) / 25
    base = (
        fractions.Fraction(1, 25) if name.endswith(("avi", "mov")) else fractions.Fraction(1, 90000)
    )
    numbered_videos.write(tmp_path / name, times, codec=codec, time_base=base)
    found = _times(tmp_path / name)
    assert len(found) == 30
    np.testing.assert_allclose(found, times, atol=1e-3)
    np.testing.assert_allclose(found, _decoded(tmp_path / name), atol=1e-6)


def test_variable_rates_and_a_late_start(tmp_path):
    times = np.cumsum([0.0, 0.04, 0.1, 0.02, 0.5, 0.03, 0.03])
    stored = numbered_videos.write(tmp_path / "v.mp4", times, offset=3.0)
    found = _times(tmp_path / "v.mp4")
    np.testing.assert_allclose(found, stored - stored[0], atol=1e-9)


def test_a_raw_stream_has_its_average_rate(tmp_path):
    numbered_videos.write(
        tmp_path / "v.mp4", np.arange(10) / 30, time_base=fractions.Fraction(1, 30)
    )
    with av.open(str(tmp_path / "v.mp4")) as source:
        stream = source.streams.video[0]
        with av.open(str(tmp_path / "v.h264"), "w", format="h264") as target:
            copy = target.add_stream_from_template(stream)
            for packet in source.demux(stream):
                if packet.dts is not None:
                    packet.stream = copy
                    target.mux(packet)
    assert len(_times(tmp_path / "v.h264")) == 10


def test_what_is_no_video_is_refused(tmp_path):
    (tmp_path / "v.mp4").write_bytes(b"no video at all" * 100)
    with pytest.raises(VideoError, match="v.mp4: cannot be read as a video"):
        _times(tmp_path / "v.mp4")


def test_timestamps_that_start_over_are_refused(tmp_path):
    numbered_videos.write(tmp_path / "a.ts", np.arange(50) / 25)
    (tmp_path / "v.ts").write_bytes((tmp_path / "a.ts").read_bytes() * 2)
    with pytest.raises(VideoError, match="v.ts: its timestamps start over"):
        _times(tmp_path / "v.ts")


def test_real_videos(shared_dir):
    paths = [p for p in sorted((shared_dir / "media").iterdir()) if p.suffix in (".mp4", ".gif")]
    for path in paths:
        found = _times(path)
        np.testing.assert_allclose(found, _decoded(path), atol=1e-6, err_msg=path.name)


def test_folders_of_frames(tmp_path):
    for number in range(1, 6):
        picture = Image.fromarray(numbered_videos.draw_number(number))
        picture.save(tmp_path / f"v_{number:05d}.png")
    found = frame_times.frame_times(video_probe.probe(tmp_path, 10.0))
    np.testing.assert_allclose(found, [0, 0.1, 0.2, 0.3, 0.4])
