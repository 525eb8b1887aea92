# SPDX-License-Identifier: Apache-2.0
"""Detections as CVAT XML 1.1 ("CVAT for video"), to upload as annotations that people correct.

A person is a track of the label `person` with a checkbox for each action. CVAT moves the box evenly
from one detection to the next, and keeps the actions of the one before. A task takes the file if it
has the same label: `labels_text` is what its "Raw" constructor takes.

Source: docs.cvat.ai, "XML annotation format" and "Create annotation task" (raw labels).
"""

import collections
import dataclasses
import io
import json
from collections.abc import Mapping, Sequence
from xml.sax import saxutils

import numpy as np

from object_detection_ext import listing
from object_detection_ext.ava import box_range, tables
from object_detection_ext.importers import model, video_facts
from object_detection_ext.inference import results, tracks
from object_detection_ext.visualization import people

LABEL = "person"


@dataclasses.dataclass(frozen=True)
class Seen:
    """A person of a track on a frame: `box` is x1, y1, x2, y2 in pixels."""

    frame: int
    box: tuple[float, float, float, float]
    actions: frozenset[str]


@dataclasses.dataclass(frozen=True)
class Export:
    """What is written of a video: the text of its XML, and what is in it.

    `num_merged` counts moments that lie within a frame of another, which counts.
    """

    text: str
    num_keyframes: int
    num_tracks: int
    num_boxes: int
    num_merged: int


Moments = list[tuple[float, tables.LabelledBoxes]]


def read_detections(
    path: str, box_tolerance: float | None = box_range.BOX_TOLERANCE
) -> tuple[dict[str, Moments], Sequence[str]]:
    """Reads a CSV of detections.

    Args:
        path: of the CSV.
        box_tolerance: as of `tables.read_csv`.

    Returns:
        By video id, (seconds, rows) of each moment, ascending, boxes normalized; and what was
        changed in reading, in words.

    Raises:
        errors.InputError: if it cannot be read, or its last column is not scores.
    """
    found = tables.read_csv(path, box_tolerance=box_tolerance)
    scores = found.rows.scores
    if len(scores) and not (0 <= scores.min() and scores.max() <= 1):
        raise model.ImportFault(
            f"{path}: the last column has {scores.max():g}; detections have scores in [0, 1] there."
        )
    order = np.argsort(found.rows.frame, kind="stable")
    ends = np.searchsorted(found.rows.frame[order], np.arange(len(found.frames) + 1))
    videos = collections.defaultdict(list)
    for number, (video_id, seconds) in enumerate(found.frames):
        rows = found.rows[order[ends[number] : ends[number + 1]]]
        videos[video_id].append((float(seconds), rows))
    if not videos:
        raise model.ImportFault(f"{path}: there are no detections in it.")
    by_time = {i: sorted(videos[i], key=lambda moment: moment[0]) for i in videos}
    notes = [str(note) for note in found.notes]
    flat = np.flatnonzero((found.rows.boxes[:, 2:] <= found.rows.boxes[:, :2]).any(axis=1))
    if len(flat):
        notes.append(
            f"{listing.counted(len(flat), 'box', 'boxes')} with x1 >= x2 or y1 >= y2, left out "
            f"(first: line {found.lines[flat[0]]})"
        )
    return by_time, notes


def export(
    facts: video_facts.Facts,
    moments: Sequence[tuple[float, tables.LabelledBoxes]],
    label_map: Mapping[int, str],
    score_threshold: float,
) -> Export:
    """Makes the XML of a video.

    Args:
        facts: of the video, with its file.
        moments: (seconds, rows) of each moment, ascending, as `read_detections` gives them.
        label_map: names by action id; actions that it does not have are an error.
        score_threshold: actions with less are left out.

    Raises:
        model.ImportFault: if a moment is not in the video, or an action not in the label map.
    """
    keyframes = [
        (_frame(facts, seconds), _keyframe(facts, seconds, rows, label_map, score_threshold))
        for seconds, rows in moments
    ]
    tracker = tracks.Tracker()
    seen: dict[int, list[Seen]] = collections.defaultdict(list)
    visited = []
    for frame, keyframe in keyframes:
        if visited and frame == visited[-1]:
            continue
        visited.append(frame)
        for person in tracker(keyframe).people:
            ymin, xmin, ymax, xmax = (float(side) for side in person.box)
            width, height = facts.size
            box = (xmin * width, ymin * height, xmax * width, ymax * height)
            seen[person.track].append(Seen(frame, box, frozenset(person.actions)))
    text = _xml(facts, seen, visited, list(label_map.values()))
    num_boxes = sum(map(len, seen.values()))
    return Export(text, len(visited), len(seen), num_boxes, len(keyframes) - len(visited))


def _frame(facts: video_facts.Facts, seconds: float) -> int:
    """The number of the frame nearest to a moment."""
    times = facts.times
    if not -1e-6 <= seconds <= times[-1] + 1.0:
        raise model.ImportFault(
            f"{facts.path}: a detection is at {seconds:g} s; the last frame at {times[-1]:.3f} s."
        )
    return int(np.argmin(np.abs(times - seconds)))


def _keyframe(facts, seconds, rows, label_map, score_threshold) -> results.Keyframe:
    unknown = sorted(set(rows.classes.tolist()) - set(label_map))
    if unknown:
        raise model.ImportFault(
            f"{facts.video_id} at {seconds:g} s: action_id {unknown[0]} is not in the label map."
        )
    found = people.group_people(
        rows.boxes, rows.scores, rows.classes, action_ids=label_map, score_threshold=score_threshold
    )
    persons = (results.Person(person.box, person.scores, label_map) for person in found)
    return results.Keyframe(facts.video_id, seconds, tuple(persons))


def _xml(facts, seen: Mapping[int, list[Seen]], visited: list[int], names: list[str]) -> str:
    stream = io.StringIO()
    xml = saxutils.XMLGenerator(stream, "utf-8", short_empty_elements=True)
    xml.startDocument()
    xml.startElement("annotations", {})
    _leaf(xml, "version", "1.1")
    _meta(xml, facts, names)
    following = dict(zip(visited, [*visited[1:], None], strict=True))
    for number in sorted(seen):
        xml.startElement("track", {"id": str(number - 1), "label": LABEL, "source": "auto"})
        for frame, box, outside in _boxes(seen[number], following, len(facts.times)):
            _box(xml, frame, box, outside, names)
        xml.endElement("track")
        xml.characters("\n")
    xml.endElement("annotations")
    xml.endDocument()
    return stream.getvalue()


def _boxes(track: list[Seen], following: Mapping[int, int | None], num_frames: int):
    """Yields (frame, box, whether it ends here) of a track, which pauses where it is not seen."""
    frames = {each.frame for each in track}
    for each in track:
        yield each.frame, each, False
        after = following[each.frame]
        end = each.frame + 1
        # Up to the next keyframe the box is interpolated, if the person is seen there.
        if after not in frames and end < num_frames:
            yield end, each, True


def _meta(xml, facts: video_facts.Facts, names: list[str]) -> None:
    width, height = facts.size
    xml.startElement("meta", {})
    xml.startElement("task", {})
    _leaf(xml, "name", facts.video_id)
    _leaf(xml, "size", str(len(facts.times)))
    _leaf(xml, "mode", "interpolation")
    _leaf(xml, "start_frame", "0")
    _leaf(xml, "stop_frame", str(len(facts.times) - 1))
    xml.startElement("labels", {})
    xml.startElement("label", {})
    _leaf(xml, "name", LABEL)
    xml.startElement("attributes", {})
    for name in names:
        xml.startElement("attribute", {})
        for tag, text in (("name", name), ("mutable", "True"), ("input_type", "checkbox"),
                          ("default_value", "false"), ("values", "false")):  # fmt: skip
            _leaf(xml, tag, text)
        xml.endElement("attribute")
    for tag in ("attributes", "label", "labels"):
        xml.endElement(tag)
    xml.startElement("original_size", {})
    _leaf(xml, "width", str(width))
    _leaf(xml, "height", str(height))
    xml.endElement("original_size")
    _leaf(xml, "source", facts.path.replace("\\", "/").rpartition("/")[2])
    xml.endElement("task")
    xml.endElement("meta")
    xml.characters("\n")


def _leaf(xml, tag: str, text: str) -> None:
    xml.startElement(tag, {})
    xml.characters(text)
    xml.endElement(tag)


def _box(xml, frame: int, seen: Seen, outside: bool, names: list[str]) -> None:
    sides = dict(zip(("xtl", "ytl", "xbr", "ybr"), (f"{s:.2f}" for s in seen.box), strict=True))
    xml.startElement("box", {"frame": str(frame), "outside": str(int(outside)), "occluded": "0",
                             "keyframe": "1", **sides, "z_order": "0"})  # fmt: skip
    for name in names:
        xml.startElement("attribute", {"name": name})
        xml.characters("true" if name in seen.actions else "false")
        xml.endElement("attribute")
    xml.endElement("box")
    xml.characters("\n")


def labels_text(names: Sequence[str]) -> str:
    """The label of a task, as CVAT's "Raw" constructor takes it."""
    attributes = [
        {"name": name, "mutable": True, "input_type": "checkbox", "default_value": "false",
         "values": ["false"]}
        for name in names
    ]  # fmt: skip
    return json.dumps([{"name": LABEL, "attributes": attributes}], indent=2, ensure_ascii=False)
