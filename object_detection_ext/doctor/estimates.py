# SPDX-License-Identifier: Apache-2.0
"""What a conversion of these annotations and videos gives and costs, measured on a sample.

Times are in seconds of processor time, all threads together.
"""

import dataclasses
import statistics
import time
from collections.abc import Callable, Iterator

import numpy as np

from object_detection_ext.data import video_info, video_reader
from object_detection_ext.doctor import annotation_rows, dense_keyframes, keyframe_choice
from object_detection_ext.doctor.examination import Examination

# Videos that are sampled of each split, and frames of each.
_SAMPLE_VIDEOS = 4
_SAMPLE_FRAMES = 24
# `video_reader` decodes through shorter gaps between clips and jumps over longer ones, to a second
# before the next clip.
_DECODED_GAP, _SEEK_MARGIN = 8.0, 1.0

Encoder = Callable[[np.ndarray], bytes]


@dataclasses.dataclass(frozen=True)
class Estimate:
    """Of one split.

    Attributes:
      clips: keyframes that can be converted, as far as the headers tell.
      sampled_frames: how many frames the means are of; 0 if no video could be sampled, then the
        others are None.
      frame_bytes: an encoded frame.
      record_bytes: a record of T frames.
      total_bytes: all records.
      decoded_frames: frames of the videos that the conversion decodes.
      decode_seconds: to decode one frame.
      encode_seconds: to resize and encode one.
      total_seconds: the conversion.
    """

    clips: int
    sampled_frames: int
    frame_bytes: float | None = None
    record_bytes: float | None = None
    total_bytes: float | None = None
    decoded_frames: int | None = None
    decode_seconds: float | None = None
    encode_seconds: float | None = None
    total_seconds: float | None = None


class _TimedEncoder:
    """Encodes and adds up how long that takes and how many bytes come out."""

    def __init__(self, encode: Encoder):
        self._encode = encode
        self.seconds, self.sizes = 0.0, []

    def __call__(self, frame: np.ndarray) -> bytes:
        start = time.process_time()
        encoded = self._encode(frame)
        self.seconds += time.process_time() - start
        self.sizes.append(len(encoded))
        return encoded


def estimate(exam: Examination, make_encoder: Callable[[], Encoder]) -> dict[str, Estimate]:
    """Estimates each split.

    Args:
      exam: has the annotations and the videos.
      make_encoder: gives the converter's encoder of frames, with its size and quality.
    """
    return {name: _of_split(split, exam, make_encoder) for name, split in exam.splits.items()}


def _of_split(split: annotation_rows.SplitRows, exam: Examination, make_encoder) -> Estimate:
    clips, decoded, encoded = _work(split, exam)
    samples = list(_samples(split, exam, make_encoder))
    frames = sum(len(sizes) for sizes, _, _ in samples)
    if not frames:
        return Estimate(clips, 0)
    # Videos differ more than frames of one: each counts the same.
    size = statistics.fmean(statistics.fmean(sizes) for sizes, _, _ in samples)
    decode = statistics.fmean(seconds for _, seconds, _ in samples)
    encode = statistics.fmean(seconds for _, _, seconds in samples)
    record = size * exam.clip.num_frames
    return Estimate(
        clips=clips,
        sampled_frames=frames,
        frame_bytes=size,
        record_bytes=record,
        total_bytes=record * clips,
        decoded_frames=decoded,
        decode_seconds=decode,
        encode_seconds=encode,
        total_seconds=decode * decoded + encode * encoded,
    )


def _work(split: annotation_rows.SplitRows, exam: Examination) -> tuple[int, int, int]:
    """Returns clips, frames that are decoded for them, and frames that are encoded."""
    clips = decoded = encoded = 0
    frames, in_video = split.keyframes, exam.seconds_in_videos(split)
    kept = dense_keyframes.kept(split, exam.every, exam.is_excluded(split))
    starts = np.searchsorted(frames.video, np.arange(len(split.video_ids) + 1))
    for index, video_id in enumerate(split.video_ids):
        info = exam.info(video_id)
        if info is None:
            continue
        length = exam.length(video_id) or np.inf
        own = slice(starts[index], starts[index + 1])
        seconds = in_video[own][kept[own]]
        seconds = seconds[(seconds >= 0) & (seconds <= length)]
        covered, passed = _seconds_read(seconds, exam, length)
        rate = info.fps or exam.clip.fps
        clips += len(seconds)
        decoded += round((covered + passed) * rate)
        encoded += round(covered * min(rate, exam.clip.fps))
    return clips, decoded, encoded


def _seconds_read(seconds: np.ndarray, exam: Examination, length: float) -> tuple[float, float]:
    """Returns the seconds of a video that clips cover, and those decoded on the way to them.

    Args:
      seconds: [F], of the video's keyframes, ascending.
      exam: has T and the frame rate of the clips.
      length: of the video, in seconds.
    """
    before = (exam.clip.num_frames // 2) / exam.clip.fps
    low = np.maximum(seconds - before, 0.0)
    high = np.minimum(seconds - before + exam.clip.num_frames / exam.clip.fps, length)
    read_before = np.concatenate([[0.0], high[:-1]])
    gaps = np.maximum(low - read_before, 0.0)[: len(seconds)]
    passed = np.where(gaps > _DECODED_GAP, _SEEK_MARGIN, gaps)
    covered = high - np.maximum(low, read_before[: len(seconds)])
    return float(covered.sum()), float(passed.sum())


def _samples(split, exam: Examination, make_encoder) -> Iterator[tuple[list[int], float, float]]:
    """Yields (bytes of each frame, seconds to decode one, seconds to encode one) of some videos."""
    usable = [video_id for video_id in split.video_ids if exam.info(video_id)]
    step = max(1, len(usable) // _SAMPLE_VIDEOS)
    chosen = set(usable[step // 2 :: step][:_SAMPLE_VIDEOS])
    for video_id, times in keyframe_choice.of_each_video(split, 3, exam.seconds_in_videos(split)):
        if video_id not in chosen:
            continue
        info, encoder = exam.info(video_id), _TimedEncoder(make_encoder())
        reader = video_reader.ClipReader(
            info,
            num_frames=min(_SAMPLE_FRAMES, exam.clip.num_frames),
            fps=exam.clip.fps,
            transform=encoder,
        )
        start = time.process_time()
        try:
            clips = reader.clips(times[len(times) // 2 :][:1])
            usable_clip = any(not clip.problem for clip in clips)
        except video_info.VideoError:
            continue
        decoding = time.process_time() - start - encoder.seconds
        if usable_clip and encoder.sizes:
            count = len(encoder.sizes)
            yield encoder.sizes, decoding / reader.stats.decoded, encoder.seconds / count
