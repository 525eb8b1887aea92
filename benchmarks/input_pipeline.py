# SPDX-License-Identifier: Apache-2.0
r"""Clips per second of the input pipeline against bare decoding of the same JPEGs.

    python benchmarks/input_pipeline.py

makes records of synthetic frames (or of those of --video), and reads them in turns: through the
stock `inputs.train_input` with a pipeline.config, as the training loop does (decode, flip, crop,
resize, batch), and with nothing but `tf.io.decode_jpeg` of every frame, in parallel. Other work on
the machine slows both, so the ratio tells more than the rates. Each turn starts a new iterator:
what one has prefetched, the other does not pay for.

Shapes: T frames of a clip, H W pixels.
"""

import io
import os
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence

from object_detection_ext import compat  # noqa: F401 (before any object_detection module)

# isort: split
import numpy as np
import tensorflow as tf
from absl import app, flags
from google.protobuf import text_format
from object_detection import inputs
from object_detection.builders import model_builder
from object_detection.protos import pipeline_pb2
from object_detection.utils import config_util
from PIL import Image

from object_detection_ext import options as options_lib
from object_detection_ext import pipeline_overrides, registration
from object_detection_ext.ava import annotations
from object_detection_ext.data import clip_features

_ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_CONFIG = os.path.join(_ROOT, "pipeline_configs", "ava_i3d_tx_highres_r300.config")
_LABEL_MAP = "item { name: 'stand' id: 12 }\nitem { name: 'talk to' id: 79 }\n"
_BOXES = ((0.1, 0.1, 0.9, 0.4), (0.2, 0.5, 1.0, 0.8))

_PIPELINE = flags.DEFINE_string("pipeline_config_path", _CONFIG, "Whose input pipeline.")
_OVERRIDE = flags.DEFINE_string("config_override", "", "Text proto, merged into it.")
_OVERRIDE_PATHS = pipeline_overrides.define_flag()
_VIDEO = flags.DEFINE_string("video", None, "Take the frames of this video, scaled to the height.")
_SPECTRUM = flags.DEFINE_float(
    "spectrum", 1.2, "Synthetic frames: amplitudes fall as frequency to minus this; 1 is sharp."
)
_HEIGHT = flags.DEFINE_integer("height", 400, "Of the frames, in pixels.", 8)
_WIDTH = flags.DEFINE_integer("width", 711, "Of synthetic frames, in pixels.", 8)
_QUALITY = flags.DEFINE_integer("jpeg_quality", 92, "Of the frames; create_ava_records' is 92.", 1)
_RECORDS = flags.DEFINE_integer("records", 4, "Clips to write; they are read again and again.", 1)
_BATCH = flags.DEFINE_integer("batch_size", 4, "Clips in a batch.", 1)
_BATCHES = flags.DEFINE_integer("batches", 6, "Batches in a turn, after two that do not count.", 1)
_TURNS = flags.DEFINE_integer("turns", 5, "Turns of each.", 1)


def synthetic_frames(count: int, seed: int) -> Iterator[np.ndarray]:
    """Frames uint8 [H, W, 3] of a texture that moves, with a spectrum like a photograph's."""
    height, width = _HEIGHT.value, _WIDTH.value
    rng = np.random.default_rng(seed)
    y, x = np.meshgrid(np.fft.fftfreq(height), np.fft.fftfreq(width), indexing="ij")
    falloff = np.maximum(np.hypot(y, x), 1.0 / max(height, width)) ** -_SPECTRUM.value
    noise = np.fft.fft2(rng.normal(size=(3, height, width)))
    texture = np.real(np.fft.ifft2(noise * falloff)).transpose(1, 2, 0)
    texture = 128.0 + 50.0 * texture / texture.std()
    for index in range(count):
        frame = np.roll(texture, (index, 2 * index), axis=(0, 1))
        yield np.clip(frame, 0, 255).astype(np.uint8)


def video_frames(path: str, count: int) -> Iterator[np.ndarray]:
    """The first frames of a video, uint8 [H, W, 3], scaled to the height; from the start again."""
    import av  # only this needs it

    done = 0
    while done < count:
        with av.open(path) as container:
            for frame in container.decode(video=0):
                width = round(frame.width * _HEIGHT.value / frame.height)
                yield np.asarray(frame.to_image().resize((width, _HEIGHT.value)))
                done += 1
                if done == count:
                    return


def write_records(path: str, num_frames: int) -> list[bytes]:
    """Writes clips of two people; returns all of their JPEGs."""
    jpegs = []
    with tf.io.TFRecordWriter(path) as writer:
        for record in range(_RECORDS.value):
            encoded = []
            frames = (
                video_frames(_VIDEO.value, num_frames)
                if _VIDEO.value
                else synthetic_frames(num_frames, record)
            )
            for frame in frames:
                buffer = io.BytesIO()
                Image.fromarray(frame).save(buffer, "JPEG", quality=_QUALITY.value)
                encoded.append(buffer.getvalue())
            regions = [annotations.Region(box, 12 + 67 * i, i, i) for i, box in enumerate(_BOXES)]
            example = clip_features.serialized_example(
                {num_frames // 2: annotations.Keyframe(f"clip{record}", 10.0, 1, regions)},
                {12: "stand", 79: "talk to"},
                encoded_frames=encoded,
                frame_times=[10.0 + (i - num_frames // 2) / 25.0 for i in range(num_frames)],
                height=frame.shape[0],
                width=frame.shape[1],
            )
            writer.write(example)
            jpegs.extend(encoded)
    return jpegs


def read_pipeline(folder: str) -> pipeline_pb2.TrainEvalPipelineConfig:
    """The pipeline.config with the override; its training records are yet to be written."""
    label_map = os.path.join(folder, "label_map.pbtxt")
    with open(label_map, "w", encoding="utf-8") as file:
        file.write(_LABEL_MAP)
    with open(_PIPELINE.value, encoding="utf-8") as file:
        pipeline = text_format.Parse(file.read(), pipeline_pb2.TrainEvalPipelineConfig())
    override = pipeline_overrides.combined(_PIPELINE.value, _OVERRIDE_PATHS.value, _OVERRIDE.value)
    text_format.Merge(override or "", pipeline)
    pipeline.train_config.batch_size = _BATCH.value
    reader = pipeline.train_input_reader
    reader.label_map_path = label_map
    reader.shuffle_buffer_size = _RECORDS.value
    reader.tf_record_input_reader.input_path[:] = [os.path.join(folder, "train.record")]
    return pipeline


def stock_training_input(pipeline: pipeline_pb2.TrainEvalPipelineConfig) -> tf.data.Dataset:
    """Batches, as `model_lib_v2.train_loop` gets them."""
    configs = config_util.create_configs_from_pipeline_proto(pipeline)
    model = model_builder.build(configs["model"], is_training=True)
    return inputs.train_input(
        configs["train_config"], configs["train_input_config"], configs["model"], model=model
    )


def bare_decoding(jpegs: Sequence[bytes]) -> tf.data.Dataset:
    """Decoded frames, nothing else."""
    return (
        tf.data.Dataset.from_tensor_slices(list(jpegs))
        .repeat()
        .map(lambda jpeg: tf.io.decode_jpeg(jpeg, channels=3), tf.data.AUTOTUNE)
        .prefetch(tf.data.AUTOTUNE)
    )


def seconds_of(dataset: tf.data.Dataset, skipped: int, counted: int) -> tuple[float, float]:
    """Time to take elements from a new iterator, behind some that do not count: (clock, CPU)."""
    iterator = iter(dataset)
    for _ in range(skipped):
        next(iterator)
    start, cpu_start = time.perf_counter(), time.process_time()
    for _ in range(counted):
        next(iterator)
    return time.perf_counter() - start, time.process_time() - cpu_start


def measure(dataset: tf.data.Dataset, jpegs: Sequence[bytes], num_frames: int) -> None:
    """Reads in turns and prints rates and ratios."""
    bare = bare_decoding(jpegs)
    clips = _BATCH.value * _BATCHES.value
    rates: list[tuple[float, float]] = []
    cpu: list[tuple[float, float]] = []
    for turn in range(_TURNS.value):
        ours, ours_cpu = seconds_of(dataset, 2, _BATCHES.value)
        frames, frames_cpu = seconds_of(bare, 2 * num_frames, clips * num_frames)
        rates.append((clips / ours, clips / frames))
        cpu.append((1e3 * ours_cpu / clips, 1e3 * frames_cpu / clips))
        print(
            f"turn {turn + 1}: input pipeline {rates[-1][0]:6.2f} clips/s "
            f"({cpu[-1][0]:4.0f} CPU ms a clip), bare decode_jpeg {rates[-1][1]:6.2f} clips/s "
            f"({cpu[-1][1]:4.0f} CPU ms a clip), "
            f"ratio {rates[-1][0] / rates[-1][1]:.3f}",
            flush=True,
        )
    for what, pairs in (("clips/s", rates), ("CPU ms a clip", cpu)):
        ours, bare_ones = (statistics.median(column) for column in zip(*pairs, strict=True))
        print(f"medians, {what}: input pipeline {ours:.2f}, bare decode_jpeg {bare_ones:.2f}")
    ratio = statistics.median(ours / bare_one for ours, bare_one in rates)
    print(f"ratio (median of {_TURNS.value} turns): {ratio:.3f}")


def main(argv: Sequence[str]) -> None:
    """Writes records, measures, prints."""
    if len(argv) > 1:
        raise app.UsageError(f"Unexpected arguments: {argv[1:]}")
    registration.register()
    with tempfile.TemporaryDirectory() as folder:
        pipeline = read_pipeline(folder)
        num_frames = pipeline.Extensions[options_lib.EXTENSION].clip.num_frames
        (path,) = pipeline.train_input_reader.tf_record_input_reader.input_path
        jpegs = write_records(path, num_frames)
        height, width, _ = tf.io.decode_jpeg(jpegs[0]).shape
        print(
            f"{len(os.sched_getaffinity(0))} cores, TensorFlow {tf.__version__}; {_RECORDS.value} "
            f"clips of {num_frames} frames, {height}x{width}, "
            f"{statistics.fmean(map(len, jpegs)) / 1024:.0f} KiB each",
            flush=True,
        )
        dataset = stock_training_input(pipeline)
        print(f"image: {dataset.element_spec[0]['image']}")
        measure(dataset, jpegs, num_frames)


if __name__ == "__main__":
    app.run(main)
