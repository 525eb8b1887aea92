# SPDX-License-Identifier: Apache-2.0
"""A picture of keyframes with the annotated boxes and actions on them, for a person to look at.

Boxes are drawn as the file has them, cut off at the frame's edge, so that shifted, swapped or
pixel boxes are seen at once. Frames are uint8 [H, W, 3] RGB.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from object_detection_ext import files
from object_detection_ext.ava import timestamps
from object_detection_ext.data import video_info, video_reader
from object_detection_ext.doctor import annotation_rows, keyframe_choice
from object_detection_ext.doctor.examination import Examination
from object_detection_ext.visualization import drawing

# Of the picture of a keyframe, in pixels; frames keep their aspect inside.
_TILE_WIDTH, _TILE_HEIGHT = 640, 400
_MIN_WIDTH = 400
_GAP, _FONT_SIZE, _COLUMNS = 12, 17, 3
_PAPER, _INK, _RED = (250, 250, 250), (20, 20, 20), (200, 0, 0)
_HEADING = "Does each box hold one person, who does what it says?"


@dataclasses.dataclass(frozen=True)
class Tile:
    """A keyframe to show.

    `people` are drawn; `faults` say about boxes what the picture cannot show, such as numbers
    outside [0, 1].
    """

    split: annotation_rows.SplitRows
    video_id: str
    seconds: float
    people: tuple[drawing.DetectedPerson, ...]
    rows: tuple[int, ...]
    faults: tuple[str, ...]

    @property
    def caption(self) -> str:
        """Where the keyframe comes from."""
        time = timestamps.format_timestamp(self.seconds)
        return f"{self.split.split}: {self.video_id}, {time} s, {_lines(self.rows)}"


def _lines(rows: Sequence[int]) -> str:
    if len(rows) == 1:
        return f"row {rows[0]}"
    if rows[-1] - rows[0] == len(rows) - 1:
        return f"rows {rows[0]}-{rows[-1]}"
    return f"rows {rows[0]}, ... {rows[-1]}"


def write(path: str, exam: Examination, count: int) -> int:
    """Draws up to `count` keyframes of all splits to a PNG and returns how many.

    A keyframe whose frame cannot be decoded is shown grey, with the reason. No file is written
    where no keyframe can be shown.
    """
    tiles = list(choose(exam, count))
    if tiles:
        sheet = draw(list(_pictures(exam, tiles)))
        with files.replaced_when_complete(path, "wb") as file:
            Image.fromarray(sheet).save(file, "PNG")
    return len(tiles)


# --- Which keyframes, with which people -----------------------------------------------------------


def choose(exam: Examination, count: int) -> Iterator[Tile]:
    """Yields the keyframes to show, spread over splits, videos and classes."""
    usable = {video_id for video_id, probe in exam.videos.probes.items() if probe.info}
    splits = list(exam.splits.values())
    for index, split in enumerate(splits):
        share = count // len(splits) + (index < count % len(splits))
        for keyframe in keyframe_choice.over_videos_and_classes(split, share, usable):
            yield _tile(split, keyframe, exam.label_map or {})


def _tile(split, keyframe: int, label_map: Mapping[int, str]) -> Tile:
    frames = split.keyframes
    where = np.flatnonzero((frames.of_row == keyframe) & split.has_box)
    people: dict[tuple, list[str]] = {}
    for index in where.tolist():
        key = (*split.corners[index].tolist(), int(split.person[index]))
        action = int(split.action[index])
        known = action != annotation_rows.NO_NUMBER
        name = label_map.get(action, f"action {action}" if known else "no action")
        people.setdefault(key, []).append(name)
    drawn, faults = [], []
    for (*corners, _), names in people.items():
        x1, y1, x2, y2 = corners
        box = (min(y1, y2), min(x1, x2), max(y1, y2), max(x1, x2))
        drawn.append(drawing.DetectedPerson(box, tuple((name, None) for name in names)))
        if not (0 <= box[0] and 0 <= box[1] and box[2] <= 1 and box[3] <= 1):
            faults.append(f"outside [0, 1]: {_text(corners)}")
        elif not (x1 < x2 and y1 < y2):
            faults.append(f"corners in the wrong order: {_text(corners)}")
    video_id = split.video_ids[frames.video[keyframe]]
    rows = tuple(split.row[where].tolist())
    return Tile(split, video_id, float(frames.seconds[keyframe]), tuple(drawn), rows, tuple(faults))


def _text(corners: Sequence[float]) -> str:
    return ",".join(f"{value:g}" for value in corners)


# --- Pictures -------------------------------------------------------------------------------------


def _pictures(exam: Examination, tiles: Sequence[Tile]) -> Iterator[tuple[Tile, np.ndarray]]:
    """Yields each tile with its frame, boxes drawn. Each video is passed over once a split."""
    groups: dict[tuple[str, str], list[Tile]] = {}
    for tile in tiles:
        groups.setdefault((tile.split.split, tile.video_id), []).append(tile)
    for (_, video_id), same in groups.items():
        same.sort(key=lambda tile: tile.seconds)
        offset = exam.offsets.of(video_id)
        reader = video_reader.ClipReader(
            exam.info(video_id), num_frames=1, fps=1.0, transform=_fitted
        )
        done = 0
        try:
            clips = reader.clips([tile.seconds - offset for tile in same])
            for tile, clip in zip(same, clips, strict=False):
                frame = _notice(clip.problem) if clip.problem else _drawn(tile, clip.frames[0])
                done += 1
                yield tile, frame
        except video_info.VideoError as error:
            for tile in same[done:]:
                yield tile, _notice(str(error))


def _fitted(frame: np.ndarray) -> np.ndarray:
    """Resizes a frame to the tile, in its own aspect."""
    height, width = frame.shape[:2]
    scale = min(_TILE_WIDTH / width, _TILE_HEIGHT / height)
    size = (max(2, round(width * scale)), max(2, round(height * scale)))
    return np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.BICUBIC))


def _drawn(tile: Tile, frame: np.ndarray) -> np.ndarray:
    return drawing.draw_people(frame, tile.people, min_short_side=1)


def _notice(text: str) -> np.ndarray:
    picture = Image.new("RGB", (_TILE_WIDTH, _TILE_HEIGHT), (120, 120, 120))
    font = ImageFont.load_default(size=_FONT_SIZE)
    lines = _wrapped(text, font, _TILE_WIDTH - 2 * _GAP)
    ImageDraw.Draw(picture).multiline_text((_GAP, _GAP), "\n".join(lines), (255, 255, 255), font)
    return np.asarray(picture)


def _wrapped(text: str, font, width: int) -> list[str]:
    """Breaks a text into lines of at most `width` pixels, anywhere: video ids have no spaces."""
    lines = [""]
    for character in text:
        if font.getlength(lines[-1] + character) > width:
            lines.append("")
        lines[-1] += character
    return lines


def draw(pictures: Sequence[tuple[Tile, np.ndarray]]) -> np.ndarray:
    """Lays the pictures out with their captions: uint8 [H, W, 3] RGB."""
    font = ImageFont.load_default(size=_FONT_SIZE)
    step = sum(font.getmetrics()) + 2
    width = max(_MIN_WIDTH, *(picture.shape[1] for _, picture in pictures))
    captions = []
    for tile, _ in pictures:
        lines = [(line, _INK) for line in _wrapped(tile.caption, font, width)]
        if tile.faults:
            more = f" (and {len(tile.faults) - 1} more)" if len(tile.faults) > 1 else ""
            fault = f"{tile.faults[0]}{more}"
            lines += [(line, _RED) for line in _wrapped(fault, font, width)]
        captions.append(lines)
    columns = min(_COLUMNS, len(pictures))
    y, places, rows = 2 * _GAP + step, [], range(0, len(pictures), columns)
    for start in rows:
        row = range(start, min(start + columns, len(pictures)))
        places += [(_GAP + (i - start) * (width + _GAP), y) for i in row]
        y += max(pictures[i][1].shape[0] + step * len(captions[i]) for i in row) + 4 + _GAP
    sheet = Image.new("RGB", (_GAP + columns * (width + _GAP), y), _PAPER)
    canvas = ImageDraw.Draw(sheet)
    canvas.text((_GAP, _GAP), _HEADING, _INK, font)
    for (x, y), (_, picture), lines in zip(places, pictures, captions, strict=True):
        sheet.paste(Image.fromarray(picture), (x, y))
        for number, (line, color) in enumerate(lines):
            canvas.text((x, y + picture.shape[0] + 4 + number * step), line, color, font)
    return np.asarray(sheet)
