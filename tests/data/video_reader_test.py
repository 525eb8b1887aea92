# SPDX-License-Identifier: Apache-2.0
"""Clips must hold exactly the frames nearest to their times, whatever the file is like.

The videos carry each frame's number as a pattern of black and white squares, which survives lossy
encoding, and the expected frames are found by brute force over the known times.
"""

import fractions

import av
import numpy as np
import pytest
from av import stream as av_stream
from PIL import Image, ImageOps

from object_detection_ext.data import (
    time_line,
    timed_pictures,
    upright,
    video_decoder,
    video_info,
    video_probe,
    video_reader,
)
from tests import numbered_videos


def _expected(frame_times, keyframe_time, num_frames, fps):
    wanted = keyframe_time + (np.arange(num_frames) - num_frames // 2) / fps
    # The earlier of two frames that are equally near: argmin gives the first.
    return [int(np.argmin(np.round(np.abs(frame_times - w), 6))) for w in wanted]


def _check(path, frame_times, keyframes, num_frames, fps):
    reader = video_reader.ClipReader(path, num_frames=num_frames, fps=fps)
    clips = list(reader.clips(keyframes))
    assert [clip.keyframe_time for clip in clips] == list(keyframes)
    for clip in clips:
        assert clip.problem is None
        expected = _expected(frame_times, clip.keyframe_time, num_frames, fps)
        assert [numbered_videos.read_number(frame) for frame in clip.frames] == expected
        np.testing.assert_allclose(clip.frame_times, frame_times[expected], atol=2e-5)
        # The keyframe stands at T // 2 and is the frame nearest to the annotation's time.
        nearest = int(np.argmin(np.round(np.abs(frame_times - clip.keyframe_time), 6)))
        assert numbered_videos.read_number(clip.frames[num_frames // 2]) == nearest
    return reader


@pytest.mark.parametrize("rate", ["24000/1001", "25", "30", "30000/1001", "10"])
@pytest.mark.parametrize(("num_frames", "fps"), [(16, 25.0), (9, 7.5), (64, 25.0)])
def test_frames_are_nearest_to_their_times_at_constant_rates(tmp_path, rate, num_frames, fps):
    rate = fractions.Fraction(rate)
    times = [float(i / rate) for i in range(int(6 * rate))]
    stored = numbered_videos.write(tmp_path / "v.mp4", times)
    _check(tmp_path / "v.mp4", stored, [0.0, 1.0, 2.0, 3.01, 3.7, 5.9], num_frames, fps)


def test_variable_frame_rate(tmp_path):
    rng = np.random.default_rng(1)
    # Some frames follow each other within 10 ms, some stand for up to half a second.
    times = np.cumsum(rng.choice([0.01, 0.03, 0.04, 0.2, 0.5], 120)) - 0.01
    times -= times[0]
    stored = numbered_videos.write(tmp_path / "v.mkv", times, time_base=fractions.Fraction(1, 1000))
    keyframes = sorted(float(t) for t in rng.uniform(0, stored[-1], 15).round(3))
    _check(tmp_path / "v.mkv", stored, keyframes, 16, 25.0)


@pytest.mark.parametrize("name", ["v.ts", "v.mkv", "v.mp4"])
def test_time_counts_from_the_first_picture_whatever_its_timestamp(tmp_path, name):
    times = [i / 25 for i in range(100)]
    stored = numbered_videos.write(tmp_path / name, times, offset=7.32)
    _check(tmp_path / name, stored, [0.0, 1.0, 2.0, 3.6], 8, 12.5)


@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
def test_pictures_out_of_order_in_a_file_without_presentation_times(tmp_path, codec):
    # AVI has no presentation times: what FFmpeg makes up runs backwards, or begins a frame late.
    times, base = [i / 25 for i in range(60)], fractions.Fraction(1, 25)
    stored = numbered_videos.write(tmp_path / "v.avi", times, codec=codec, time_base=base)
    reader = _check(tmp_path / "v.avi", stored, [0.0, 0.4, 1.0, 1.52, 2.36], 16, 25.0)
    assert (reader.stats.decoded, reader.stats.damaged) == (60, 0)
    assert reader.stats.end == pytest.approx(2.4)
    info = video_probe.probe(tmp_path / "v.avi")
    assert video_probe.extent(info).end == pytest.approx(2.4)


@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
def test_long_gaps_of_a_file_without_presentation_times(tmp_path, codec):
    times, base = [i / 10 for i in range(400)], fractions.Fraction(1, 10)
    stored = numbered_videos.write(tmp_path / "v.avi", times, codec=codec, time_base=base)
    reader = _check(tmp_path / "v.avi", stored, [12.0, 25.3, 39.0], 8, 10.0)
    assert reader.stats.seeks == 0


def test_raw_stream_without_timestamps_has_its_own_frame_rate(tmp_path):
    # FFmpeg says 25 frames per second of any such file; its pictures say 30.
    path, base = tmp_path / "v.h264", fractions.Fraction(1, 30)
    stored = numbered_videos.write(path, [i / 30 for i in range(60)], time_base=base)
    with av.open(str(path)) as container:
        assert all(packet.pts is None for packet in container.demux(video=0))
    reader = _check(path, stored, [0.0, 0.5, 1.0, 1.9], 16, 25.0)
    assert reader.stats.end == pytest.approx(2.0)
    info = video_probe.probe(path)
    assert (info.fps, info.duration) == (30.0, None)
    assert video_probe.extent(info).end == pytest.approx(2.0)


@pytest.mark.parametrize(("name", "parts"), [("v.ts", 3), ("v.mkv", 2)])
def test_timestamps_that_start_over_go_on_after_what_came_before(tmp_path, name, parts):
    path = tmp_path / name
    numbered_videos.write(path, [i / 25 for i in range(50)])
    # As a camera writes that begins anew: the times start over in the middle of the file.
    path.write_bytes(parts * path.read_bytes())
    reader = video_reader.ClipReader(path, num_frames=1, fps=25)
    times = [0.0, 1.92, 2.0, 3.0, 3.6, 2 * parts - 0.04]
    clips = list(reader.clips(times))
    assert [clip.problem for clip in clips] == [None] * 6
    numbers = [numbered_videos.read_number(clip.frames[0]) for clip in clips]
    assert numbers == [round(25 * time) % 50 for time in times]
    np.testing.assert_allclose([clip.frame_times[0] for clip in clips], times, atol=0.01)
    # In a transport stream the last packet before a joint is marked: its counter does not go on.
    assert reader.stats.damaged == (parts - 1 if name == "v.ts" else 0)
    assert (reader.stats.decoded, reader.stats.restarts) == (50 * parts, parts - 1)
    assert reader.stats.end == pytest.approx(2.0 * parts, abs=0.01)
    extent = video_probe.extent(video_probe.probe(path))
    assert (extent.end, extent.restarts) == (pytest.approx(2.0 * parts, abs=0.01), parts - 1)
    (clip,) = video_reader.ClipReader(path, num_frames=1, fps=25).clips([2 * parts + 0.5])
    assert "is beyond the video's end" in clip.problem


@pytest.mark.parametrize("name", ["v.ts", "v.mkv"])
def test_jumps_in_a_file_whose_timestamps_start_over_give_the_same_frames(tmp_path, name):
    path = tmp_path / name
    numbered_videos.write(path, [i / 10 for i in range(300)], gop=10)
    path.write_bytes(2 * path.read_bytes())
    times = [1.0, 20.0, 31.0, 45.0, 59.0]
    clips = list(video_reader.ClipReader(path, num_frames=1, fps=10).clips(times))
    numbers = [numbered_videos.read_number(clip.frames[0]) for clip in clips]
    assert numbers == [round(10 * time) % 300 for time in times]


def test_one_timestamp_that_goes_back_is_a_fault_of_its_frame_alone():
    line = time_line.TimeLine(period=0.04)
    times = [0.0, 1.0, 2.0, 0.5, 3.0, 4.0]
    assert [shift for shift, _ in line.joined((t, t) for t in times)] == [0.0] * 6
    assert line.restarts == 0


def test_times_that_start_over_twice_and_frames_without_one():
    line = time_line.TimeLine(period=0.5)
    times = [0.0, 1.0, 2.0, None, 0.0, 1.0, 2.0, -7.0, -6.5, -6.0]
    shifts = [shift for shift, _ in line.joined((t, t) for t in times)]
    joined = [t + s for t, s in zip(times, shifts, strict=True) if t is not None]
    # After a second's interval the next part begins as late as frames are apart on average.
    assert joined == pytest.approx([0, 1, 2, 2.5, 3.5, 4.5, 5, 5.5, 6])
    assert line.restarts == 2


def _write_from_within_a_group(path, seconds) -> np.ndarray:
    """Writes a transport stream that begins this long before its first whole picture."""
    stored = numbered_videos.write(path, [i / 25 for i in range(150)], gop=50)
    with av.open(str(path)) as container:
        start = container.streams.video[0].start_time
        first = next(
            p.pos for p in container.demux(video=0)
            if (p.pts - start) * p.time_base >= 2 - seconds
        )  # fmt: skip
    path.write_bytes(path.read_bytes()[first // 188 * 188 :])
    return stored


def test_keyframes_before_the_first_whole_picture_are_told(tmp_path):
    _write_from_within_a_group(tmp_path / "v.ts", 0.8)
    reader = video_reader.ClipReader(tmp_path / "v.ts", num_frames=8, fps=25)
    clips = list(reader.clips([0.0, 0.4, 0.8, 0.96]))
    start = reader.stats.start
    assert 0.6 < start < 0.88
    assert [clip.problem is None for clip in clips] == [False, False, True, True]
    assert not any(clip.outside for clip in clips)
    assert f"before the first frame that can be decoded, {start:.3f} s" in clips[1].problem
    # A clip's frames before the first one are repeated, as in any video.
    numbers = [numbered_videos.read_number(frame) for frame in clips[3].frames]
    assert numbers[0] == 50 and numbers == sorted(numbers)


@pytest.mark.parametrize("gop", [10, 50, 100000])
def test_jumping_over_long_gaps_gives_the_same_frames(tmp_path, gop):
    times = [i / 10 for i in range(900)]
    stored = numbered_videos.write(tmp_path / "v.mp4", times, gop=gop)
    reader = _check(tmp_path / "v.mp4", stored, [15.0, 16.0, 41.3, 88.0], 8, 10.0)
    if gop == 10:
        assert reader.stats.seeks == 3
        assert reader.stats.decoded < 250
    else:
        assert reader.stats.decoded <= 900


def test_overlapping_clips_decode_and_transform_each_frame_once(tmp_path):
    stored = numbered_videos.write(tmp_path / "v.mp4", [i / 25 for i in range(100)])
    numbers = []

    def transform(frame):
        numbers.append(numbered_videos.read_number(frame))
        return numbers[-1]

    reader = video_reader.ClipReader(tmp_path / "v.mp4", num_frames=64, fps=25, transform=transform)
    clips = list(reader.clips([1.0, 1.2, 1.4, 2.0]))
    assert len(numbers) == len(set(numbers))
    assert reader.stats.decoded <= 100
    for clip in clips:
        assert list(clip.frames) == _expected(stored, clip.keyframe_time, 64, 25)


def test_keyframes_outside_the_video_are_told(tmp_path):
    numbered_videos.write(tmp_path / "v.mp4", [i / 25 for i in range(50)])
    reader = video_reader.ClipReader(tmp_path / "v.mp4", num_frames=8, fps=25)
    clips = list(reader.clips([-1.0, 0.0, 1.99, 2.0, 2.2, 900.0]))
    assert [clip.problem is None for clip in clips] == [False, True, True, True, False, False]
    assert [clip.outside for clip in clips] == [True, False, False, False, True, True]
    assert "before the start" in clips[0].problem
    assert "beyond the video's end, 2.000 s" in clips[-1].problem


def test_odd_sizes(tmp_path):
    numbered_videos.write(
        tmp_path / "v.avi",
        [i / 30 for i in range(30)],
        codec="mjpeg",
        shape=(51, 77),
        time_base=fractions.Fraction(1, 30),
    )
    reader = video_reader.ClipReader(tmp_path / "v.avi", num_frames=4, fps=30)
    (clip,) = reader.clips([0.5])
    assert [frame.shape for frame in clip.frames] == [(51, 77, 3)] * 4
    assert [numbered_videos.read_number(frame) for frame in clip.frames] == [13, 14, 15, 16]


def _write_with_matrix(path, corners) -> None:
    """Writes frames with a display matrix: what becomes of (1, 0) and (0, 1), in x and y."""
    (a, b), (c, d) = corners
    matrix = [a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "15"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.set_display_matrix(matrix)
        for number in range(10):
            pixels = numbered_videos.draw_number(0x9A3 + number)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, "rgb24")))
        container.mux(stream.encode(None))


# As the EXIF standard numbers what is done with a picture, and where x and y of a pixel go.
_ORIENTATIONS = {
    1: ((1, 0), (0, 1)),
    2: ((-1, 0), (0, 1)),
    3: ((-1, 0), (0, -1)),
    4: ((1, 0), (0, -1)),
    5: ((0, 1), (1, 0)),
    6: ((0, 1), (-1, 0)),
    7: ((0, -1), (-1, 0)),
    8: ((0, -1), (1, 0)),
}


@pytest.mark.parametrize("orientation", _ORIENTATIONS)
@pytest.mark.parametrize("name", ["v.mp4", "v.mov"])
def test_frames_are_turned_and_mirrored_as_players_show_them(tmp_path, orientation, name):
    path = tmp_path / name
    _write_with_matrix(path, _ORIENTATIONS[orientation])
    (clip,) = video_reader.ClipReader(path, num_frames=1, fps=25).clips([0.2])
    # Pillow knows the same eight, by what is done with the picture.
    picture = Image.fromarray(numbered_videos.draw_number(0x9A3 + 5))
    picture.getexif()[0x0112] = orientation
    expected = np.asarray(ImageOps.exif_transpose(picture))
    assert clip.frames[0].shape == expected.shape
    assert np.mean(np.abs(clip.frames[0].astype(int) - expected)) < 20


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("turns", range(4))
def test_all_that_pyav_writes_is_shown_as_it_says(tmp_path, turns, mirrored):
    path = tmp_path / "v.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "15"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.set_display_rotation(90 * turns, hflip=mirrored)
        picture = av.VideoFrame.from_ndarray(numbered_videos.draw_number(0x9A3), "rgb24")
        container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    (clip,) = video_reader.ClipReader(path, num_frames=1, fps=25).clips([0.0])
    # Its documentation: turned counter-clockwise, then mirrored.
    expected = np.rot90(numbered_videos.draw_number(0x9A3), turns)
    expected = expected[:, ::-1] if mirrored else expected
    assert clip.frames[0].shape == expected.shape
    assert np.mean(np.abs(clip.frames[0].astype(int) - expected)) < 20


def test_orientation_of_a_turn_by_no_right_angle_is_the_nearest():
    def turned(degrees):
        radians = np.deg2rad(degrees)
        a, b = np.cos(radians), np.sin(radians)
        values = np.array([a, b, 0, -b, a, 0, 0, 0, 1]) * 65536
        return upright.orientation_of(values.astype(np.int32))

    assert [turned(d) for d in (10, 80, 185, 260)] == [turned(d) for d in (0, 90, 180, 270)]
    assert len({turned(d) for d in (0, 90, 180, 270)}) == 4


def test_pictures_without_a_time_base(tmp_path, monkeypatch):
    # Some of FFmpeg's decoders leave it out; the stream has it.
    stored = numbered_videos.write(tmp_path / "v.mkv", [i / 25 for i in range(50)])

    decode = video_decoder.FileFrames._decode

    def without_time_base(self, packets):
        for picture, damaged in decode(self, packets):
            assert picture.duration
            yield _Proxy(picture, time_base=None), damaged

    monkeypatch.setattr(video_decoder.FileFrames, "_decode", without_time_base)
    source = video_decoder.FileFrames(tmp_path / "v.mkv", timed_pictures.DecodeStats())
    times = [source.next().time for _ in range(50)]
    np.testing.assert_allclose(times, stored, atol=1e-3)
    assert source.next() is None
    source.close()


def _packet_spans(path):
    with av.open(str(path)) as container:
        return [(p.pos, p.size, float(p.pts * p.time_base)) for p in container.demux(video=0)
                if p.pts is not None]  # fmt: skip


def test_damage_in_the_middle_loses_only_what_is_damaged(tmp_path):
    # Every frame of this file stands for itself, so damage to one cannot smear into others.
    path = tmp_path / "v.avi"
    numbered_videos.write(
        path, [i / 25 for i in range(100)], codec="mjpeg", time_base=fractions.Fraction(1, 25)
    )
    data = bytearray(path.read_bytes())
    for pos, size, seconds in _packet_spans(path):
        if 1.0 <= seconds < 2.0:
            data[pos + 16 : pos + size - 16] = bytes(size - 32)
    path.write_bytes(data)
    reader = video_reader.ClipReader(path, num_frames=4, fps=25)
    clips = list(reader.clips([0.5, 1.5, 3.0]))
    assert reader.stats.damaged >= 20
    assert [numbered_videos.read_number(frame) for frame in clips[0].frames] == [10, 11, 12, 13]
    assert "damaged around timestamp 1.5" in clips[1].problem
    assert [numbered_videos.read_number(frame) for frame in clips[2].frames] == [73, 74, 75, 76]


def test_packets_lost_from_a_transport_stream(tmp_path):
    path = tmp_path / "v.ts"
    stored = numbered_videos.write(path, [i / 25 for i in range(200)], gop=25)
    data, packet = path.read_bytes(), 188
    middle = len(data) // packet // 2 * packet
    path.write_bytes(data[:middle] + data[middle + 6 * packet :])
    reader = video_reader.ClipReader(path, num_frames=4, fps=25)
    first, last = reader.clips([1.0, 6.0])
    assert reader.stats.damaged >= 1
    assert reader.stats.decoded < 200
    for clip in (first, last):
        expected = _expected(stored, clip.keyframe_time, 4, 25)
        assert [numbered_videos.read_number(frame) for frame in clip.frames] == expected


class _Proxy:
    """Passes everything on to another object but what it is given."""

    def __init__(self, target, **replaced):
        self.__dict__.update(target=target, **replaced)

    def __getattr__(self, name):
        return getattr(self.target, name)


def test_frames_that_the_decoder_calls_corrupt_are_left_out(tmp_path, monkeypatch):
    stored = numbered_videos.write(tmp_path / "v.mp4", [i / 25 for i in range(50)])
    real_open = video_probe.open_file

    def open_with_flags(path):
        container = real_open(path)
        stream, flagged = container.streams.video[0], range(10, 30)

        def decode(packet):
            for frame in stream.decode(packet):
                corrupt = round(float(frame.time) * 25) in flagged
                yield _Proxy(frame, is_corrupt=True) if corrupt else frame

        streams = _Proxy(container.streams, video=[_Proxy(stream, decode=decode)])
        return _Proxy(container, streams=streams, demux=lambda _: container.demux(stream))

    monkeypatch.setattr(video_probe, "open_file", open_with_flags)
    reader = video_reader.ClipReader(tmp_path / "v.mp4", num_frames=4, fps=25)
    before, inside, after = reader.clips([0.2, 0.8, 1.6])
    assert reader.stats.damaged == 20
    assert "damaged around" in inside.problem
    for clip in (before, after):
        expected = _expected(stored, clip.keyframe_time, 4, 25)
        assert [numbered_videos.read_number(frame) for frame in clip.frames] == expected


@pytest.mark.parametrize("error", [-30.0, 4.0, 1000.0])
def test_a_file_that_cannot_be_searched_gives_the_same_frames(tmp_path, monkeypatch, error):
    # The search lands far too early, after the wanted time, or nowhere.
    stored = numbered_videos.write(tmp_path / "v.mp4", [i / 10 for i in range(900)], gop=10)
    real_open = video_probe.open_file

    def open_with_bad_seek(path):
        container = real_open(path)

        def seek(offset, stream):
            container.seek(max(0, offset + round(error / stream.time_base)), stream=stream)

        return _Proxy(container, seek=seek)

    monkeypatch.setattr(video_probe, "open_file", open_with_bad_seek)
    _check(tmp_path / "v.mp4", stored, [15.0, 41.3, 88.0], 8, 10.0)


@pytest.mark.parametrize(
    ("name", "options"),
    [("v.mkv", {}), ("v.mp4", {"movflags": "faststart"}), ("v.avi", {})],
)
def test_truncated_file_gives_what_is_whole(tmp_path, name, options):
    path, base = tmp_path / name, fractions.Fraction(1, 25)
    numbered_videos.write(
        path, [i / 25 for i in range(200)], time_base=base, container_options=options
    )
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    reader = video_reader.ClipReader(path, num_frames=4, fps=25)
    whole, lost, never = reader.clips([0.4, 3.8, 8.5])
    assert [numbered_videos.read_number(frame) for frame in whole.frames] == [8, 9, 10, 11]
    assert "beyond the video's end" in lost.problem
    assert "damaged or cut off, its header says " in lost.problem
    # Only what the whole video would not have either was wrongly asked for.
    assert (lost.outside, never.outside) == (False, True)
    end = video_probe.extent(video_probe.probe(path)).end
    # The last packets may be of pictures that need others, which are lost.
    assert end == pytest.approx(reader.stats.end, abs=0.3)


def test_damage_at_the_end_is_not_the_end(tmp_path):
    path, base = tmp_path / "v.avi", fractions.Fraction(1, 25)
    numbered_videos.write(path, [i / 25 for i in range(50)], codec="mjpeg", time_base=base)
    data = bytearray(path.read_bytes())
    for pos, size, seconds in _packet_spans(path):
        if seconds >= 1.7:
            data[pos + 16 : pos + size - 16] = bytes(size - 32)
    path.write_bytes(data)
    lost, never = video_reader.ClipReader(path, num_frames=4, fps=25).clips([1.9, 2.1])
    assert (lost.outside, never.outside) == (False, True)
    assert "damaged or cut off" in lost.problem


@pytest.mark.parametrize("has_tag", [True, False])
def test_length_is_that_of_the_picture_where_the_sound_is_longer(tmp_path, has_tag):
    path = tmp_path / "v.mkv"
    numbered_videos.write(path, [i / 25 for i in range(50)], sound_seconds=4.0)
    if not has_tag:
        # Then only the last packets tell; not all programs write how long each track is.
        path.write_bytes(path.read_bytes().replace(b"DURATION", b"DURATIXX"))
    with av.open(str(path)) as container:
        assert container.duration / av.time_base > 3.9
    info = video_probe.probe(path)
    assert info.duration == pytest.approx(2.0, abs=0.01)
    assert video_probe.extent(info).end == pytest.approx(2.0, abs=0.01)
    last, behind = video_reader.ClipReader(path, num_frames=4, fps=25).clips([1.96, 3.0])
    assert last.problem is None and behind.outside
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    cut = video_probe.probe(path)
    assert video_probe.extent(cut).end < 1.5
    # All that the header of a file without the tag says is how long the longest track was.
    assert cut.duration == pytest.approx(2.0 if has_tag else 4.0, abs=0.3)


def test_end_of_a_video_whose_header_does_not_say_it(tmp_path, monkeypatch):
    path = tmp_path / "v.mkv"
    # As browsers record.
    numbered_videos.write(path, [i / 25 for i in range(90)], container_options={"live": "1"})
    info = video_probe.probe(path)
    assert info.duration is None
    monkeypatch.delattr(video_decoder, "FileFrames")  # nothing is decoded
    assert video_probe.extent(info).end == pytest.approx(3.6)


def test_cover_pictures_are_no_videos(tmp_path):
    cover = np.zeros((32, 32, 3), np.uint8)
    with av.open(str(tmp_path / "song.m4a"), "w", format="mp4") as container:
        sound = container.add_stream("aac", rate=8000, layout="mono")
        picture = container.add_stream("mjpeg", rate=1)
        picture.width, picture.height, picture.pix_fmt = 32, 32, "yuvj420p"
        picture.disposition = av_stream.Disposition.attached_pic
        container.mux(picture.encode(av.VideoFrame.from_ndarray(cover, "rgb24")))
        container.mux(picture.encode(None))
        numbered_videos.write_silence(container, sound, 1.0)
    with pytest.raises(video_info.VideoError, match="no video stream, only a cover picture"):
        video_probe.probe(tmp_path / "song.m4a")


def test_unusable_files_name_the_file_and_the_reason(tmp_path):
    def error(path):
        with pytest.raises(video_info.VideoError) as caught:
            list(video_reader.ClipReader(path, num_frames=4, fps=25).clips([1.0]))
        assert str(path) in str(caught.value)
        with pytest.raises(video_info.VideoError):
            video_probe.probe(path)
        return str(caught.value)

    assert "no such video" in error(tmp_path / "none.mp4")
    assert "is a folder, not a video" in error(tmp_path)
    (tmp_path / "empty.mp4").write_bytes(b"")
    assert "is empty" in error(tmp_path / "empty.mp4")
    (tmp_path / "text.mp4").write_text("not a video\n" * 50)
    assert "cannot be read as a video" in error(tmp_path / "text.mp4")
    with av.open(str(tmp_path / "sound.wav"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.int16), "s16", "mono")
        sound.rate = 8000
        container.mux(stream.encode(sound))
        container.mux(stream.encode(None))
    assert "no video stream, only audio" in error(tmp_path / "sound.wav")
    numbered_videos.write(tmp_path / "cut.mp4", [i / 25 for i in range(50)])
    whole = (tmp_path / "cut.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    assert "cannot be read as a video" in error(tmp_path / "cut.mp4")


def test_probe(tmp_path):
    numbered_videos.write(tmp_path / "v.mp4", [i / 25 for i in range(50)])
    info = video_probe.probe(tmp_path / "v.mp4")
    assert (info.height, info.width, info.codec) == (48, 64, "h264")
    assert info.duration == pytest.approx(2.0, abs=0.05)


def test_resampled_frames(tmp_path):
    stored = numbered_videos.write(tmp_path / "v.mp4", [i / 30 for i in range(60)])
    result = [
        (t, numbered_videos.read_number(f))
        for t, f in video_reader.resampled_frames(tmp_path / "v.mp4", 25.0)
    ]
    assert [t for t, _ in result] == pytest.approx([i / 25 for i in range(50)])
    assert [n for _, n in result] == [_expected(stored, i / 25, 1, 25.0)[0] for i in range(50)]


def test_wrong_arguments(tmp_path):
    with pytest.raises(ValueError, match="num_frames must be at least 1"):
        video_reader.ClipReader("v.mp4", num_frames=0, fps=25)
    with pytest.raises(ValueError, match="fps must be more than 0"):
        video_reader.ClipReader("v.mp4", num_frames=4, fps=0)
    with pytest.raises(ValueError, match="must ascend"):
        list(video_reader.ClipReader("v.mp4", num_frames=4, fps=25).clips([2.0, 1.0]))
