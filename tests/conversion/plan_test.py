# SPDX-License-Identifier: Apache-2.0
"""Which keyframes share a record, and which videos a unit."""

import numpy as np
import pytest

from object_detection_ext.ava import annotations
from object_detection_ext.conversion import options as options_lib
from object_detection_ext.conversion import plan
from object_detection_ext.data import video_info


def _keyframes(times, video_id="v"):
    return [annotations.Keyframe(video_id, float(t), i + 1) for i, t in enumerate(times)]


def _clips(records, num_frames):
    """Each keyframe's time and the times of its clip's frames, as the decoder cuts them out."""
    for record in records:
        for index, keyframe in record.keyframes.items():
            first = index - num_frames // 2
            yield keyframe.timestamp, record.window.times[first : first + num_frames]


@pytest.mark.parametrize("seconds_per_record", [0.0, 2.5, 100.0])
@pytest.mark.parametrize(("num_frames", "fps"), [(64, 25.0), (5, 12.5), (16, 30000 / 1001)])
def test_every_keyframe_once_and_its_frames_at_their_times(num_frames, fps, seconds_per_record):
    rng = np.random.default_rng(0)
    times = np.unique(np.round(np.concatenate([np.arange(20), rng.uniform(0, 20, 20)]), 3))
    records = plan.plan_records(_keyframes(times), num_frames, fps, seconds_per_record)
    clips = dict(_clips(records, num_frames))
    assert sorted(clips) == sorted(times)
    offsets = (np.arange(num_frames) - num_frames // 2) / fps
    for time, frames in clips.items():
        np.testing.assert_allclose(frames, time + offsets, atol=1.1e-3 / fps)
    starts = [record.window.times[0] for record in records]
    assert starts == sorted(starts)
    for record in records:
        assert record.window.keyframes == tuple(record.keyframes)
        inside = [keyframe.timestamp for keyframe in record.keyframes.values()]
        assert max(inside) - min(inside) <= seconds_per_record


def test_clips_that_overlap_are_stored_once():
    times = range(900, 931)
    apart = plan.plan_records(_keyframes(times), 64, 25.0)
    assert [len(record.window.times) for record in apart] == [64] * 31
    together = plan.plan_records(_keyframes(times), 64, 25.0, seconds_per_record=15.0)
    # 16 keyframes, 15 s apart at most; the last frames are those of the last clip.
    assert [len(record.keyframes) for record in together] == [16, 15]
    assert [len(record.window.times) for record in together] == [15 * 25 + 64, 14 * 25 + 64]


def test_a_gap_between_clips_ends_a_record():
    # Clips of 0.64 s: those of 1.0 and 1.64 meet, that of 2.32 leaves a frame out.
    records = plan.plan_records(_keyframes([1.0, 1.64, 2.32]), 16, 25.0, 60.0)
    assert [len(record.keyframes) for record in records] == [2, 1]
    assert len(records[0].window.times) == 32


def test_keyframes_between_the_frames_of_a_record_get_another():
    # 12.5 fps: whole seconds are 12.5 frames apart, so each second one is on the same grid.
    records = plan.plan_records(_keyframes(range(6)), 32, 12.5, 60.0)
    assert [[k.timestamp for k in record.keyframes.values()] for record in records] == [
        [0.0, 2.0, 4.0],
        [1.0, 3.0, 5.0],
    ]


def _job(video_id, count, stamp="1"):
    info = video_info.VideoInfo(f"/videos/{video_id}.mp4", 48, 64, 25.0, 100.0, "h264")
    keyframes = tuple(_keyframes(range(count), video_id))
    return plan.VideoJob(info, f"{video_id}.mp4", stamp, keyframes)


def _options(**changes):
    values = {"annotations": "a", "videos": "v", "label_map": "l", "output": "o@4", **changes}
    return options_lib.Options(**values)


def test_units_share_the_work_and_every_shard_has_one_writer():
    counts = [9, 1, 1, 1, 5, 4, 3, 3, 2, 7]
    jobs = [_job(f"v{i}", count) for i, count in enumerate(counts)]
    units = plan.plan_units(jobs, _options(), {})
    assert [unit.num_keyframes for unit in units] == [9, 9, 9, 9]
    assert sorted(v.video_id for unit in units for v in unit.videos) == sorted(
        job.video_id for job in jobs
    )
    assert [unit.shards for unit in units] == [(0,), (1,), (2,), (3,)]
    # Whatever order the folder is listed in.
    assert plan.plan_units(jobs[::-1], _options(), {}) == units


def test_fewer_videos_than_shards():
    units = plan.plan_units([_job("a", 3), _job("b", 2)], _options(output="o@5"), {})
    assert [unit.shards for unit in units] == [(0, 2, 4), (1, 3)]
    assert plan.plan_units([], _options(), {}) == []


@pytest.mark.parametrize(
    "changed",
    [{"num_frames": 32}, {"fps": 24.0}, {"short_side": 100}, {"jpeg_quality": 91},
     {"seconds_per_record": 5.0}, {"output": "o@1"}],
)  # fmt: skip
def test_fingerprint_changes_with_what_the_bytes_depend_on(changed):
    jobs = [_job("a", 3)]
    (unit, *_) = plan.plan_units(jobs, _options(output="o@2"), {1: "stand"})
    (other, *_) = plan.plan_units(jobs, _options(**{"output": "o@2", **changed}), {1: "stand"})
    assert unit.fingerprint != other.fingerprint
    (same, *_) = plan.plan_units(jobs, _options(output="elsewhere@2"), {1: "stand"})
    assert unit.fingerprint == same.fingerprint


def test_fingerprint_changes_with_the_input():
    def fingerprint(job, label_map):
        return plan.plan_units([job], _options(), label_map)[0].fingerprint

    job = _job("a", 2)
    region = annotations.Region((0.1, 0.2, 0.3, 0.4), 1, None, 1)
    job.keyframes[1].regions.append(region)
    before = fingerprint(job, {1: "stand"})
    assert fingerprint(job, {1: "sit"}) != before
    other = _job("a", 2, stamp="2")
    other.keyframes[1].regions.append(region)
    assert fingerprint(other, {1: "stand"}) != before
    moved = _job("a", 2)
    moved.keyframes[0].regions.append(region)
    assert fingerprint(moved, {1: "stand"}) != before


def test_size_of_a_record_is_estimated_by_the_header():
    info = video_info.VideoInfo("/videos/a.mp4", 1080, 1920, 25.0, 3600.0, "h264")
    video = plan.VideoJob(info, "a.mp4", "1", tuple(_keyframes(range(900), "a")))
    plan.check_record_sizes([video], _options(seconds_per_record=60.0))
    plan.check_record_sizes([video], _options(seconds_per_record=900.0, short_side=400))
    with pytest.raises(options_lib.ConversionError) as caught:
        plan.check_record_sizes([video], _options(seconds_per_record=900.0))
    message = str(caught.value)
    assert message.startswith("--seconds_per_record 900: a record of a (/videos/a.mp4) would hold ")
    # 899 s and a clip; 1920 x 1080 pixels of 0.2 bytes.
    assert "22,539 frames of about 415 kB, 8.7 GiB together" in message
    seconds = int(message.partition("At most ")[2].partition(" fit")[0])
    plan.check_record_sizes([video], _options(seconds_per_record=float(seconds)))
    with pytest.raises(options_lib.ConversionError):
        plan.check_record_sizes([video], _options(seconds_per_record=seconds + 2.0))
    with pytest.raises(options_lib.ConversionError, match="--num_frames 6000: .*Give fewer"):
        plan.check_record_sizes([video], _options(num_frames=6000))
