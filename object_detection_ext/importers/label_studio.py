# SPDX-License-Identifier: Apache-2.0
"""Label Studio's JSON export of videos with `VideoRectangle`.

A result of type `videorectangle` is a person: `sequence` has keyframes with `frame` (from 1), the
box in percent of the frame (`x`, `y`, `width`, `height`, `rotation` clockwise in degrees around the
upper left corner) and `enabled`. A box moves evenly from one keyframe to the next. A keyframe that
is not enabled is the last frame of a stretch; where the last keyframe is enabled, the box stays
until the video's end. Label Studio counts frames at the rate that its project has (24 a second
by default), whatever the video's: `framesCount` and `duration` give it.

Sources: labelstud.io, the tags Video and VideoRectangle; the `isInLifespan` tests of
HumanSignal/label-studio's editor for what `enabled` means; its issues 2539 and 3315.
"""

import itertools
import os
import re
import urllib.parse
from collections.abc import Container

from object_detection_ext import listing
from object_detection_ext.data import video_files
from object_detection_ext.importers import json_fields, model

# Where a region's actions may be: in results of these kinds, which share the region's id.
_CHOICES = ("choices", "taxonomy")
_LABELS = ("labels", "videolabels", "rectanglelabels")
# Between two regions; it has neither an id nor a value.
_RELATION = "relation"
_TRACK = "videorectangle"
_MAX_LISTED = 5
# What uploads get before their name.
_UPLOAD = re.compile(r"^[0-9a-f]{8}-(?=.)")

_USUAL_RATES = (24, 25, 30, 60, 50, 15, 12, 10, 20, 5, 1, *(n / 1.001 for n in (24, 30, 60)))


def read(path: str, options: model.ReadOptions) -> model.Source:
    """Reads an export (JSON, with or without interpolated frames).

    Actions are the choices made for a person's region; without any in the file, its labels.

    Raises:
        model.ImportFault: if something is not as Label Studio writes it, with task and result.
    """
    return _Export(path, options).source()


class _Export:
    def __init__(self, path: str, options: model.ReadOptions):
        self._path, self._options = path, options
        root = json_fields.read(path, (list, dict))
        self._tasks = root if isinstance(root, list) else [root]
        self._result = model.Source()
        self._has_choices = False
        self._videos: dict[str, model.SourceVideo] = {}

    def _note(self, text: str, count: int = 1) -> None:
        self._result.notes[text] += count

    def source(self) -> model.Source:
        """Reads all tasks."""
        chosen = []
        for number, task in enumerate(self._tasks, start=1):
            if not isinstance(task, dict):
                raise model.ImportFault(f"{self._path}: task {number} is not an object.")
            where = f"{self._path}: task {task.get('id', number)}"
            results = self._results(task, where)
            if results is not None:
                chosen.append((task, where, results))
        self._has_choices = any(
            self._said(result, _CHOICES, where) for _, where, rs in chosen for result in rs
        )
        if self._options.attributes:
            self._check_attributes([result for _, _, results in chosen for result in results])
        for task, where, results in chosen:
            self._add_task(task, where, results)
        self._result.videos += self._videos.values()
        return self._result

    def _results(self, task: dict, where: str) -> list | None:
        """The results of the annotation that counts; None if the task has none."""
        found = _objects(json_fields.field(task, "annotations", list, where, []), where)
        alive = [each for each in found if not each.get("was_cancelled")]
        if not alive:
            self._note("tasks without an annotation were left out")
            return None
        if len(alive) > 1:
            self._note("tasks with several annotations: the ground truth or newest one was taken")
        best = max(alive, key=lambda a: (bool(a.get("ground_truth")), str(a.get("updated_at", ""))))
        where = f"{where}: annotation {best.get('id')}"
        found = _objects(json_fields.field(best, "result", list, where), where)
        kept = [each for each in found if each.get("type") != _RELATION]
        self._note("relations between regions were left out", len(found) - len(kept))
        return kept

    def _check_attributes(self, results: list) -> None:
        there = sorted({str(result.get("from_name")) for result in results})
        for name in self._options.attributes:
            if name not in there:
                raise model.ImportFault(
                    f"{self._path}: no result is from_name {name!r} (--attributes); there are: "
                    f"{', '.join(there)}."
                )

    def _said(self, result, kinds: tuple[str, ...], where: str) -> list[str]:
        """Names that a result gives to its region."""
        value = json_fields.field(result, "value", dict, f"{where}: result '{result.get('id')}'")
        if self._options.attributes and result.get("from_name") not in self._options.attributes:
            return []
        names = []
        for kind in kinds:
            said = value.get(kind) or []
            for each in said if isinstance(said, list) else [said]:
                # A taxonomy gives the way to a leaf.
                names.append(str(each[-1]) if isinstance(each, list) and each else str(each))
        return names

    def _add_task(self, task: dict, where: str, results: list) -> None:
        video = self._video(task, where)
        regions: dict[str, list] = {}
        for result in results:
            regions.setdefault(str(result.get("id")), []).append(result)
        shown = {str(r.get("to_name")) for r in results if r.get("type") == _TRACK}
        if len(shown) > 1:
            raise model.ImportFault(
                f"{where}: its regions are of several videos (to_name is "
                f"{listing.in_line(sorted(shown), _MAX_LISTED)}); a task must have one."
            )
        for region_id, parts in regions.items():
            place = f"{where}: result '{region_id}'"
            track = next((p for p in parts if p.get("type") == _TRACK), None)
            if track is None:
                self._note("results that are not video rectangles were left out")
                continue
            kinds = _CHOICES if self._has_choices else _LABELS
            if self._options.attributes:
                kinds = _CHOICES + _LABELS
            said = dict.fromkeys(n for part in parts for n in self._said(part, kinds, where))
            self._result.add_labels(said)
            value = json_fields.field(track, "value", dict, place)
            self._add_length(video, value, place)
            self._add_track(video, value, tuple(said), region_id, place)

    def _video(self, task: dict, where: str) -> model.SourceVideo:
        data = json_fields.field(task, "data", dict, where)
        address = data.get("video")
        if not isinstance(address, str):
            texts = [value for value in data.values() if isinstance(value, str)]
            addresses = [text for text in texts if _has_extension(text, video_files.EXTENSIONS)]
            count = len(set(addresses))
            if count > 1:
                raise model.ImportFault(
                    f"{where}: 'data' names {listing.counted(count, 'video')}: "
                    f"{listing.in_line([*map(_file_name, addresses)], _MAX_LISTED)}; a task must "
                    "have one, called 'video'."
                )
            address = next((text for text in addresses or texts if _has_extension(text)), None)
        if address is None:
            raise model.ImportFault(f"{where}: 'data' names no video.")
        name = _file_name(address)
        return self._videos.setdefault(name, model.SourceVideo(name, self._path, model.PERCENT))

    def _add_length(self, video: model.SourceVideo, value: dict, place: str) -> None:
        count = json_fields.field(value, "framesCount", int, place)
        duration = json_fields.field(value, "duration", float, place)
        if not 1 <= count <= model.MAX_FRAMES or duration <= 0:
            raise model.ImportFault(
                f"{place}: framesCount is {count} and duration {duration:g}; both must be over 0, "
                f"and framesCount {model.MAX_FRAMES:,} at most."
            )
        if video.num_frames is None:
            # Label Studio rounds the number of frames up to a whole one.
            video.num_frames, video.rate = count, _likely_rate(count, duration)
            video.listed = range(count)
        elif video.num_frames != count:
            raise model.ImportFault(
                f"{place}: framesCount is {count}, but {video.num_frames} before; was the frame "
                "rate of the project changed?"
            )

    def _add_track(
        self, video: model.SourceVideo, value: dict, names: tuple[str, ...], person: str, place: str
    ) -> None:
        keyframes = []
        for keyframe in json_fields.field(value, "sequence", list, place):
            frame = json_fields.field(keyframe, "frame", int, place)
            if not 1 <= frame <= video.num_frames:
                raise model.ImportFault(
                    f"{place}: frame {frame}; frames are 1 to framesCount, {video.num_frames}."
                )
            here = f"{place}, frame {frame}"
            enabled = json_fields.field(keyframe, "enabled", bool, here, True)
            if not enabled and keyframe.get("x") is None:
                box, turn = None, 0.0
            else:
                sides = (json_fields.field(keyframe, s, float, here)
                         for s in ("x", "y", "width", "height"))  # fmt: skip
                x, y, width, height = sides
                box = (x, y, x + width, y + height)
                turn = json_fields.field(keyframe, "rotation", float, here, 0.0)
            keyframes.append((frame - 1, enabled, box, turn))
        keyframes.sort(key=lambda each: each[0])
        region = person
        for now, after in itertools.pairwise([*keyframes, None]):
            frame, enabled, box, turn = now
            if box is None:
                continue
            where = f"result '{region}', frame {frame + 1}"
            video.marks.append(model.Mark(box, names, where, frame, None, person, turn))
            if enabled:
                self._fill(video, now, after, names, person)

    def _fill(self, video: model.SourceVideo, now, after, names, person: str) -> None:
        """Adds the boxes up to the next keyframe, or to the end of the video."""
        frame, _, box, turn = now
        end = after[0] if after is not None else video.num_frames
        if after is None and end > frame + 1:
            self._note("tracks without an end: they last to the end of the video")
        to = after[2] if after is not None and after[2] is not None else box
        to_turn = after[3] if after is not None and after[2] is not None else turn
        for between in range(frame + 1, end):
            part = (between - frame) / (end - frame)
            moved = tuple(a + part * (b - a) for a, b in zip(box, to, strict=True))
            where = f"result '{person}', frame {between + 1}"
            turned = turn + part * (to_turn - turn)
            video.marks.append(model.Mark(moved, names, where, between, None, person, turned))
            self._note("boxes interpolated between keyframes")


def _file_name(address: str) -> str:
    """The name of a video's file, from its address."""
    query = urllib.parse.urlsplit(address)
    # Files of a local storage are `/data/local-files/?d=folder/street.mp4`.
    inside = urllib.parse.parse_qs(query.query).get("d", [query.path])[0]
    name = os.path.basename(urllib.parse.unquote(inside))
    return _UPLOAD.sub("", name) if "/upload/" in address else name


def _has_extension(address: str, of: Container[str] | None = None) -> bool:
    extension = os.path.splitext(_file_name(address))[1].lower()
    return bool(extension) if of is None else extension in of


def _objects(nodes: list, where: str) -> list[dict]:
    """The nodes, all of which must be objects."""
    for node in nodes:
        if not isinstance(node, dict):
            raise model.ImportFault(f"{where}: a list has {str(node)[:40]!r}, not an object.")
    return nodes


def _likely_rate(count: int, duration: float) -> float:
    """Frames per second of which a duration has so many, rounded up: the usual one that fits best.

    If none does, the quotient.
    """
    left = {rate: count - duration * rate for rate in _USUAL_RATES}
    fitting = [rate for rate in left if -0.01 < left[rate] < 1]
    return float(min(fitting, key=left.get)) if fitting else count / duration
