# SPDX-License-Identifier: Apache-2.0
"""A data set without a fault, small enough to write for each test: three videos of 64x48 pixels.

Each video shows one red person on grey, 16 x 36 pixels, for two seconds at 25 frames per second.
"""

import fractions
import pathlib
from collections.abc import Callable, Sequence

import av
import numpy as np

from object_detection_ext.doctor import checks, examination, gathering
from object_detection_ext.doctor.findings import Finding
from object_detection_ext.visualization import drawing
from tests import tiny_pipeline

HEIGHT, WIDTH, FPS, SECONDS = 48, 64, 25, 2
# x1,y1,x2,y2
BOX = "0.25,0.125,0.5,0.875"
RED, GREY = (220, 20, 20), (128, 128, 128)
CLIP = examination.ClipOptions(num_frames=8, fps=25.0, short_side=0)


def rows(*video_ids: str) -> list[str]:
    """Rows of all three classes on three keyframes of each video: 12 boxes for two videos."""
    result = []
    for video_id in video_ids:
        for time in ("0000", "0.6", "0001"):
            result += [f"{video_id},{time},{BOX},{action},0" for action in tiny_pipeline.ACTIONS]
            result.append(f"{video_id},{time},0.6,0.2,0.8,0.9,1,1")
    return result


TRAIN, VAL = rows("a", "b"), rows("c")


def frames(count: int = FPS * SECONDS) -> list[np.ndarray]:
    """What a video shows: `count` frames, uint8 [48, 64, 3]."""
    frame = np.full((HEIGHT, WIDTH, 3), GREY, np.uint8)
    frame[6:42, 16:32] = RED
    return [frame] * count


def write_csv(path: pathlib.Path, lines: Sequence[str]) -> str:
    """Writes lines and returns the path."""
    path.write_text("".join(f"{line}\n" for line in lines))
    return str(path)


class SmallData:
    """The data set in a folder; its parts are replaced by tests."""

    def __init__(self, folder: pathlib.Path, videos: bool = True):
        self.folder = folder
        self.train = write_csv(folder / "train.csv", TRAIN)
        self.val = write_csv(folder / "val.csv", VAL)
        self.label_map = str(tiny_pipeline.write_label_map(folder / "labels.pbtxt"))
        self.videos = folder / "videos"
        self.videos.mkdir()
        if videos:
            drawing.write_video(self.videos / "a.mp4", frames(), FPS)
            for name in "bc":
                self.path(name).write_bytes(self.path("a").read_bytes())

    def path(self, name: str) -> pathlib.Path:
        """A video's file."""
        return self.videos / f"{name}.mp4"

    def inputs(self, **changes) -> gathering.Inputs:
        """All of the data set, with other options."""
        values = {
            "annotations": self.train,
            "val_annotations": self.val,
            "label_map": self.label_map,
            "videos": str(self.videos),
            **changes,
        }
        return gathering.Inputs(**values)

    def look(
        self, report: Callable[[str], None] | None = None, **changes
    ) -> tuple[examination.Examination, list[Finding]]:
        """Reads everything and runs all checks; `report` takes lines of progress."""
        inputs = self.inputs(**changes)
        inputs.check()
        exam, found = gathering.gather(inputs, CLIP, report)
        return exam, found + checks.run(exam)

    def findings(self, **changes) -> list[Finding]:
        """What all checks find."""
        return self.look(**changes)[1]


def the_only(found: Sequence[Finding], code: str | None = None) -> Finding:
    """The only finding (with this code, where others are there for good reason too)."""
    chosen = [finding for finding in found if code in (None, finding.code)]
    assert len(chosen) == 1, "\n".join(str(finding) for finding in found)
    return chosen[0]


def write_sound(path: pathlib.Path) -> None:
    """Writes an MP4 file of one second of silence without a picture."""
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=16000, layout="mono")
        for start in range(0, 16000, 1024):
            silence = av.AudioFrame.from_ndarray(
                np.zeros((1, 1024), np.float32), format="fltp", layout="mono"
            )
            silence.sample_rate, silence.pts = 16000, start
            silence.time_base = fractions.Fraction(1, 16000)
            container.mux(stream.encode(silence))
        container.mux(stream.encode(None))


def write_index_first(source: pathlib.Path, target: pathlib.Path) -> None:
    """Copies an MP4 file so that its index stands before its frames."""
    with (
        av.open(str(source)) as whole,
        av.open(str(target), "w", options={"movflags": "faststart"}) as copy,
    ):
        stream = whole.streams.video[0]
        new = copy.add_stream_from_template(stream)
        for packet in whole.demux(stream):
            if packet.dts is not None:
                packet.stream = new
                copy.mux(packet)
