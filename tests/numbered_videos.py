# SPDX-License-Identifier: Apache-2.0
"""Videos whose frames say who they are: 12 bits as squares, which survive lossy encoding."""

import fractions

import av
import numpy as np
from PIL import Image

_BITS = 12
_CELL = 16
# With pictures that are stored in another order than they are shown in, where the codec can.
_OPTIONS = {
    "libx264": {"preset": "ultrafast", "crf": "15", "bf": "2", "sc_threshold": "0"},
    "mpeg4": {"bf": "2", "b": "2000000"},
    "mjpeg": {},
}


def draw_number(number: int) -> np.ndarray:
    """Draws a number as 12 squares in 3 rows of 4, uint8 [48, 64, 3]."""
    bits = [(number >> i) & 1 for i in range(_BITS)]
    cells = np.array(bits, np.uint8).reshape(3, 4) * 255
    return np.repeat(np.kron(cells, np.ones((_CELL, _CELL), np.uint8))[..., None], 3, 2)


def read_number(frame: np.ndarray) -> int:
    """Reads the number back from any size with 3 x 4 squares."""
    height, width = frame.shape[:2]
    rows = (np.arange(3) + 0.5) * height / 3
    columns = (np.arange(4) + 0.5) * width / 4
    bits = frame[rows.astype(int)][:, columns.astype(int), 0].reshape(-1) > 127
    return int(sum(int(bit) << i for i, bit in enumerate(bits)))


def write(
    path,
    times,
    *,
    time_base=fractions.Fraction(1, 90000),
    gop=12,
    codec="libx264",
    offset=0.0,
    shape=None,
    value=lambda number, seconds: number,
    sound_seconds=0.0,
    container_options=None,
    transfer=None,
    sound_start=0.0,
) -> np.ndarray:
    """Writes numbered frames at the given times in seconds; returns the times as stored.

    `value` tells what a frame says; by default its number. `sound_seconds` is how much silence a
    second track has, from `sound_start` on; 0 writes none. `container_options` are the muxer's,
    `transfer` the number of the transfer characteristics (16 and 18 are PQ and HLG).
    """
    stored = []
    with av.open(str(path), "w", options=container_options or {}) as container:
        stream = container.add_stream(codec, rate=30)
        stream.width, stream.height = (64, 48) if shape is None else shape[::-1]
        stream.pix_fmt = "yuv420p" if codec != "mjpeg" else "yuvj420p"
        stream.codec_context.time_base = time_base
        stream.codec_context.gop_size = gop
        stream.options = _OPTIONS[codec]
        if transfer is not None:
            stream.codec_context.color_trc = transfer
        sound = container.add_stream("aac", rate=8000, layout="mono") if sound_seconds else None
        for number, seconds in enumerate(times):
            pixels = draw_number(value(number, seconds))
            if shape is not None:
                pixels = pixels[np.arange(shape[0]) * 48 // shape[0]]
                pixels = pixels[:, np.arange(shape[1]) * 64 // shape[1]]
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), "rgb24")
            picture.pts = round((seconds + offset) / time_base)
            picture.time_base = time_base
            stored.append(float(round(seconds / time_base) * time_base))
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
        if sound is not None:
            write_silence(container, sound, sound_seconds, sound_start)
    return np.array(stored)


def write_frames(folder, count, pattern, *, first=1, shape=(48, 64)) -> None:
    """Writes numbered frames as pictures, called as `pattern` makes of a number from `first` on."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        picture = Image.fromarray(draw_number(number)).resize(shape[::-1], Image.Resampling.NEAREST)
        picture.save(folder / pattern.format(first + number))


def write_silence(container, stream, seconds, first=0.0) -> None:
    """Writes this much of a sound stream, from `first` seconds on."""
    for start in range(0, round(seconds * stream.rate), 1024):
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        silence.sample_rate = stream.rate
        silence.pts = start + round(first * stream.rate)
        silence.time_base = fractions.Fraction(1, stream.rate)
        container.mux(stream.encode(silence))
    container.mux(stream.encode(None))
