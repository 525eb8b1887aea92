# SPDX-License-Identifier: Apache-2.0
r"""The converter's speed and memory, against decoding, resizing and encoding in a bare loop.

    python benchmarks/converter.py speed --output DIR [--videos 8] [--seconds 25] [--rounds 3]
    python benchmarks/converter.py memory --output DIR

`speed` makes videos of 1280x720 at 25 fps, with a keyframe each second, so that each frame of a
video is wanted and belongs to two or three clips. In each round it runs, one after the other and
each as a process of its own: the bare loop (PyAV, Pillow; one thread), the converter with one
worker, and with two. All figures are of whole processes, start included: frames of the videos per
second by the clock, and CPU seconds; at the end the medians over the rounds, with the least and the
most, and of ratios the median of the rounds' own.

`memory` runs the converter with one worker and with two on 10 and 100 videos of 4 s, and on one of
30 s and one of 15 min, and gives the largest resident size that any process of it reached.
"""

import argparse
import io
import pathlib
import resource
import statistics
import subprocess
import sys
import threading
import time

import av
import numpy as np
from PIL import Image

_FPS, _QUALITY, _SHORT_SIDE = 25, 92, 400
_LABEL_MAP = "item { id: 1 name: 'stand' }\n"


def make_video(path: pathlib.Path, seconds: float, size: tuple[int, int], seed: int) -> None:
    """Writes a textured picture that moves, H.264, (width, height) in pixels."""
    width, height = size
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 255, (height // 6 + 60, width // 6 + 60, 3), dtype=np.uint8)
    canvas = Image.fromarray(coarse).resize((width + 320, height + 320), Image.Resampling.BICUBIC)
    pixels = np.asarray(canvas)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=_FPS)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.options = {"preset": "ultrafast", "crf": "23"}
        for number in range(int(seconds * _FPS)):
            x = 2 * number % 300
            part = np.ascontiguousarray(pixels[x // 2 : x // 2 + height, x : x + width])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(part, "rgb24")))
        container.mux(stream.encode(None))


def make_data(
    output: pathlib.Path, num_videos: int, seconds: int, size: tuple[int, int]
) -> pathlib.Path:
    """Makes videos with a keyframe each second, unless they are there; returns their folder."""
    folder = output / f"{num_videos}_videos_of_{seconds}_s_{size[0]}x{size[1]}"
    if (folder / "annotations.csv").exists():
        return folder
    (folder / "videos").mkdir(parents=True, exist_ok=True)
    rows = []
    for number in range(num_videos):
        make_video(folder / "videos" / f"v{number:03d}.mp4", seconds, size, number)
        rows += [f"v{number:03d},{t},0.2,0.1,0.5,0.9,1,0\n" for t in range(1, int(seconds))]
    (folder / "label_map.pbtxt").write_text(_LABEL_MAP)
    (folder / "annotations.csv").write_text("".join(rows))
    return folder


def bare_loop(folder: pathlib.Path) -> None:
    """Decodes, resizes and encodes each frame of each video once."""
    for path in sorted((folder / "videos").iterdir()):
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            stream.thread_count = 1
            for frame in container.decode(stream):
                picture = Image.fromarray(frame.to_ndarray(format="rgb24"))
                scale = _SHORT_SIDE / min(picture.size)
                size = tuple(round(side * scale) for side in picture.size)
                picture = picture.resize(size, Image.Resampling.BILINEAR, reducing_gap=3.0)
                picture.save(io.BytesIO(), "JPEG", quality=_QUALITY)


def converter_command(folder: pathlib.Path, workers: int, output: pathlib.Path) -> list[str]:
    """The command that a user would type."""
    return [
        sys.executable, "-m", "object_detection_ext.tools.create_ava_records",
        f"--annotations={folder / 'annotations.csv'}", f"--videos={folder / 'videos'}",
        f"--label_map={folder / 'label_map.pbtxt'}", f"--output={output}@8",
        f"--short_side={_SHORT_SIDE}", f"--jpeg_quality={_QUALITY}", f"--workers={workers}",
    ]  # fmt: skip


def run(command: list[str]) -> tuple[float, float]:
    """Runs a command to its end; returns its seconds by the clock and of CPU, children included."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    after, seconds = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter() - start
    return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _remove_records(output: pathlib.Path) -> None:
    for path in output.parent.glob(f"{output.name}-*"):
        path.unlink()


def speed(arguments: argparse.Namespace) -> None:
    """Prints a line per run, then what the rounds give together."""
    folder = make_data(arguments.output, arguments.videos, arguments.seconds, (1280, 720))
    frames = arguments.videos * arguments.seconds * _FPS
    output = folder / "records"
    ways = {
        "bare": [sys.executable, __file__, "bare", "--output", str(folder)],
        "1 worker": converter_command(folder, 1, output),
        "2 workers": converter_command(folder, 2, output),
    }
    wall: dict[str, list[float]] = {way: [] for way in ways}
    cpu: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(arguments.rounds):
        for way, command in ways.items():
            _remove_records(output)
            seconds, cpu_seconds = run(command)
            wall[way].append(seconds)
            cpu[way].append(cpu_seconds)
            print(
                f"{way:9s} {frames / seconds:7.1f} frames/s, {seconds:6.1f} s, "
                f"{1000 * cpu_seconds / frames:5.2f} CPU ms per frame",
                flush=True,
            )
    print_medians(frames, wall, cpu)


def print_medians(frames: int, wall: dict[str, list[float]], cpu: dict[str, list[float]]) -> None:
    """Prints what the rounds give together.

    Args:
        frames: of all videos.
        wall: seconds by the clock of each round, by way.
        cpu: CPU seconds likewise.
    """
    print(f"Of {len(wall['bare'])} rounds, median (least to most):")
    for way in wall:
        print(
            f"{way:9s} frames/s {_spread([frames / each for each in wall[way]], 1)}, "
            f"seconds {_spread(wall[way], 1)}, "
            f"CPU ms per frame {_spread([1000 * each / frames for each in cpu[way]], 2)}"
        )

    def ratio(seconds, way, to, cores=1):
        pairs = zip(seconds[to], seconds[way], strict=True)
        return _spread([before / now / cores for before, now in pairs], 3)

    print(f"frames/s, 1 worker : bare           {ratio(wall, '1 worker', 'bare')}")
    print(f"frames/s per core, 2 workers : bare {ratio(wall, '2 workers', 'bare', cores=2)}")
    print(f"frames/s, 2 workers : 1 worker      {ratio(wall, '2 workers', '1 worker')}")
    print(f"frames per CPU s, 1 worker : bare   {ratio(cpu, '1 worker', 'bare')}")
    print(f"frames per CPU s, 2 workers : bare  {ratio(cpu, '2 workers', 'bare')}")


def _spread(values: list[float], digits: int) -> str:
    """Median, least and most."""
    each = (statistics.median(values), min(values), max(values))
    return "{} ({} to {})".format(*(f"{value:.{digits}f}" for value in each))


def _resident(pid: int) -> int:
    """Resident bytes of the largest process in a tree, as the system says now."""
    largest = 0
    try:
        fields = pathlib.Path(f"/proc/{pid}/statm").read_text().split()
        largest = int(fields[1]) * resource.getpagesize()
        for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                largest = max(largest, _resident(int(child)))
    except (OSError, IndexError):
        pass
    return largest


def peak_memory(command: list[str]) -> float:
    """Largest resident size of any process of a command, in MiB, looked at every 20 ms."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    peak, done = 0, threading.Event()

    def look():
        nonlocal peak
        while not done.wait(0.02):
            peak = max(peak, _resident(process.pid))

    thread = threading.Thread(target=look)
    thread.start()
    if process.wait():
        raise RuntimeError(f"status {process.returncode}: {command}")
    done.set()
    thread.join()
    return peak / 2**20


def memory(arguments: argparse.Namespace) -> None:
    """Prints a line per input."""
    for name, videos, seconds in (
        ("10 videos of 4 s", 10, 4), ("100 videos of 4 s", 100, 4),
        ("a video of 30 s", 1, 30), ("a video of 15 min", 1, 900),
    ):  # fmt: skip
        folder = make_data(arguments.output, videos, seconds, (640, 360))
        for workers in (1, 2):
            output = folder / "records"
            _remove_records(output)
            peak = peak_memory(converter_command(folder, workers, output))
            size = sum(p.stat().st_size for p in folder.glob("records-*-of-*")) / 2**20
            print(f"{name}, --workers={workers}: {peak:.0f} MiB; {size:.0f} MiB of records",
                  flush=True)  # fmt: skip
        _remove_records(output)


def main() -> None:
    """Runs what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("what", choices=("speed", "memory", "bare"))
    parser.add_argument("--output", type=pathlib.Path, required=True)
    parser.add_argument("--videos", type=int, default=8)
    parser.add_argument("--seconds", type=int, default=25)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    if arguments.what == "bare":
        bare_loop(arguments.output)
    else:
        {"speed": speed, "memory": memory}[arguments.what](arguments)


if __name__ == "__main__":
    main()
