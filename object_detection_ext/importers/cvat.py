# SPDX-License-Identifier: Apache-2.0
"""CVAT's XML 1.1: "CVAT for video" (tracks), and "CVAT for images" of video tasks.

A track has a `<box>` on each frame where it is (`keyframe="0"` where CVAT interpolated it), in
pixels, and one with `outside="1"` where it ends. Frames are numbers of the video, from 0, also in
tasks with a start frame or a frame step. A file or its zip may hold a task, a job or a project.
Where no interpolated box is in the file, those between two keyframes are interpolated here.

Sources: docs.cvat.ai, "XML annotation format" and "CVAT" among the formats; frame numbers:
`cvat/apps/dataset_manager/bindings.py` of cvat-ai/cvat, which adds the start frame and multiplies
with the step on export.
"""

import dataclasses
import itertools
import math
import zipfile

from object_detection_ext import printable
from object_detection_ext.importers import actions, model, xml_elements
from object_detection_ext.importers.xml_elements import Element

_KINDS = {"checkbox": actions.CHECKBOX, "select": actions.CHOICE, "radio": actions.CHOICE}
_OTHER_SHAPES = frozenset("polygon polyline points cuboid ellipse mask skeleton".split())


@dataclasses.dataclass(slots=True)
class _Task:
    """A task or job: its video, and which of its frames were annotated."""

    video: model.SourceVideo
    frames: range | None
    deleted: frozenset[int]


@dataclasses.dataclass(slots=True)
class _Box:
    frame: int
    outside: bool
    mark: model.Mark


def read(path: str, options: model.ReadOptions) -> model.Source:
    """Reads an XML file, or all XML files of a zip.

    Actions are ticked checkboxes and chosen values of select and radio attributes; in a project
    without any, the labels.

    Raises:
        model.ImportFault: if something is not as CVAT writes it, with the line.
    """
    source = model.Source()
    if not zipfile.is_zipfile(path):
        model.read_bytes(path)  # says what is wrong with it
        with open(path, "rb") as file:
            _File(path, options, source).read(file)
        return source
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if _is_annotation(name)]
            if not names:
                raise model.ImportFault(f"{path}: there is no .xml in it; export as CVAT 1.1.")
            for name in sorted(names):
                with archive.open(name) as file:
                    _File(f"{path}/{name}", options, source).read(file)
    except (zipfile.BadZipFile, RuntimeError, NotImplementedError, OSError, EOFError) as error:
        raise model.ImportFault(f"{path}: the zip cannot be read: {error}.") from error
    return source


class _File:
    """One XML file on its way into a source."""

    def __init__(self, name: str, options: model.ReadOptions, source: model.Source):
        self._name, self._options, self._source = name, options, source
        self._tasks: dict[str, _Task] = {}
        self._declared: dict[str, dict[str, actions.Attribute]] = {}
        self._defaults: dict[tuple[str, str], str] = {}
        self._names: actions.ActionNames | None = None
        self._labels_are_actions = False
        self._num_tracks = 0

    def read(self, file) -> None:
        """Adds the file to the source."""
        sparse: list[tuple[_Task, list[_Box]]] = []
        is_exhaustive = False
        for element in xml_elements.top_elements(file, self._name, "annotations"):
            if element.tag == "version" and not element.text.strip().startswith("1."):
                raise self._fault(element, f"version {element.text.strip()!r}; it must be 1.1")
            if element.tag == "meta":
                self._read_meta(element)
            elif element.tag in ("track", "image") and self._names is None:
                raise self._fault(element, f"<{element.tag}> comes before <meta>, which is missing")
            elif element.tag == "track":
                task, boxes, is_dense = self._read_track(element)
                is_exhaustive = is_exhaustive or is_dense
                sparse.append((task, boxes))
            elif element.tag == "image":
                self._read_image(element)
        if self._names is None:
            raise model.ImportFault(f"{self._name}: there is no <meta>; export as CVAT 1.1.")
        for task, boxes in sparse:
            self._add_track(task, boxes, is_exhaustive)
        self._finish()

    def _fault(self, element: Element, what: str) -> model.ImportFault:
        return model.ImportFault(
            f"{self._name}: line {element.line}: {printable.in_one_line(what)}."
        )

    def _note(self, text: str, count: int = 1) -> None:
        self._source.notes[text] += count

    # --- What the file says about itself ----------------------------------------------------------

    def _read_meta(self, meta: Element) -> None:
        scope = next(
            (c for tag in ("project", "task", "job") if (c := meta.child(tag)) is not None), None
        )
        if scope is None:
            raise self._fault(meta, "<meta> has no <task>, <job> or <project>")
        self._read_labels(scope)
        holder = scope.child("tasks") if scope.tag == "project" else None
        for task in holder.all("task") if holder else [scope]:
            self._tasks[task.text_of("id") or ""] = self._task(task, meta)
        if not self._tasks:
            raise self._fault(scope, "the project has no <task>")
        self._source.videos += [task.video for task in self._tasks.values()]

    def _read_labels(self, scope: Element) -> None:
        labels = scope.child("labels")
        for label in labels.all("label") if labels else []:
            name = label.text_of("name")
            if name is None:
                raise self._fault(label, "a <label> has no <name>")
            found = label.child("attributes")
            self._declared[name] = dict(
                self._attribute(name, each) for each in (found.all("attribute") if found else [])
            )
        if not self._declared:
            raise self._fault(scope, f"the <{scope.tag}> declares no <label>")
        every = [each for declared in self._declared.values() for each in declared.values()]
        self._names = actions.ActionNames(every, self._options.attributes, self._name)
        self._labels_are_actions = not self._names.used
        if self._labels_are_actions:
            self._source.add_labels(self._declared)
        else:
            self._source.add_labels(self._names.names)
        for name in self._names.unused:
            self._note(f"attribute '{name}' was not taken for an action (--attributes chooses)", 0)

    def _attribute(self, label: str, element: Element) -> tuple[str, actions.Attribute]:
        name = element.text_of("name")
        if name is None:
            raise self._fault(element, "an <attribute> has no <name>")
        kind = _KINDS.get(element.text_of("input_type") or "", actions.FREE)
        values = [value.strip() for value in (element.text_of("values") or "").split("\n")]
        options = tuple(value for value in values if value) if kind == actions.CHOICE else ()
        default = element.text_of("default_value")
        if default is not None:
            self._defaults[label, name] = default
        return name, actions.Attribute(name, kind, options)

    def _task(self, task: Element, meta: Element) -> _Task:
        video = model.SourceVideo("", self._name)
        for holder in (task, meta):
            video.name = video.name or holder.text_of("source") or ""
            size = holder.child("original_size")
            if size is not None and video.width is None:
                video.width, video.height = (
                    self._whole(size, side, size.text_of(side)) for side in ("width", "height")
                )
                if min(video.width, video.height) < 1:
                    raise self._fault(size, f"the size is {video.width}x{video.height} pixels")
        if not video.name:
            video.name = task.text_of("name") or ""
            if not video.name:
                raise self._fault(task, f"the <{task.tag}> names no video (<source>)")
            self._note("tasks without <source>: their name was taken for the video's")
        frames = self._frames(task)
        if frames is not None:
            video.listed = frames
            if task.tag != "job":  # which is a part of its task
                video.num_frames = frames[-1] + 1
            # A step leaves out what comes after its last frame.
            video.count_may_be_less = frames.step > 1
        deleted = task.child("deleted_frames")
        numbers = deleted.all("frame") if deleted else []
        return _Task(video, frames, frozenset(self._whole(n, "frame", n.text) for n in numbers))

    def _frames(self, task: Element) -> range | None:
        """The numbers of the task's frames in its video."""
        size, stop = task.text_of("size"), task.text_of("stop_frame")
        start = self._whole(task, "start_frame", task.text_of("start_frame") or "0")
        filtered = (task.text_of("frame_filter") or "").replace(" ", "")
        step = self._whole(task, "frame_filter", filtered.removeprefix("step=") or "1")
        if step < 1:
            raise self._fault(task, f"<frame_filter> is {filtered!r}; it must be step=N")
        if size is not None:
            count = self._whole(task, "size", size)
            frames = range(start, start + count * step, step)
        elif stop is not None:
            frames = range(start, self._whole(task, "stop_frame", stop) + 1, step)
        else:
            return None
        return frames if len(frames) else None

    def _whole(self, element: Element, what: str, text: str | None) -> int:
        try:
            number = int((text or "").strip())
        except ValueError:
            number = -1
        if not 0 <= number <= model.MAX_FRAMES:
            shown = "missing" if text is None else repr(text)
            raise self._fault(
                element,
                f"'{what}' of <{element.tag}> is {shown}; it must be a whole number, "
                f"{model.MAX_FRAMES:,} at most",
            )
        return number

    # --- Boxes ------------------------------------------------------------------------------------

    def _read_track(self, track: Element) -> tuple[_Task, list[_Box], bool]:
        """Returns the track's task and boxes, and whether CVAT interpolated any of them."""
        label = self._label(track)
        task = self._task_of(track)
        person = track.attributes.get("id", self._num_tracks)
        self._num_tracks += 1
        boxes: dict[int, _Box] = {}
        is_dense = False
        values: dict[str, str] = {}
        for shape in track.children:
            if shape.tag != "box":
                self._leave_out(shape)
                continue
            frame = self._whole(shape, "frame", shape.attributes.get("frame"))
            is_dense = is_dense or shape.attributes.get("keyframe") == "0"
            if self._is_left_out(shape, label):
                continue
            values = self._values(shape, label, values)
            box = _Box(frame, self._is_set(shape, "outside"),
                       self._mark(shape, label, values, frame, person))  # fmt: skip
            if frame in boxes:
                self._note("boxes that stand twice on a frame of a track: the last one was taken")
            boxes[frame] = box
        return task, [boxes[frame] for frame in sorted(boxes)], is_dense

    def _read_image(self, image: Element) -> None:
        task = self._task_of(image)
        name = image.attributes.get("name", "")
        digits = name.rpartition("/")[2].partition(".")[0].removeprefix("frame_")
        if "frame_" not in name or not digits.isdecimal():
            raise self._fault(
                image,
                f"image {name!r} is not a frame of a video (frame_000012); of videos, export as "
                "CVAT for video 1.1",
            )
        for shape in image.children:
            if shape.tag == "box":
                label = self._label(shape)
                if self._is_left_out(shape, label):
                    continue
                values = self._values(shape, label, {})
                mark = self._mark(shape, label, values, int(digits), None)
                task.video.marks.append(mark)
            else:
                self._leave_out(shape)

    def _leave_out(self, shape: Element) -> None:
        if shape.tag in _OTHER_SHAPES or shape.tag == "tag":
            self._note(f"<{shape.tag}> elements, which are not boxes, were left out")

    def _is_left_out(self, shape: Element, label: str) -> bool:
        """Whether a box is of no person: its label has no action, and others have; counted."""
        if self._labels_are_actions or set(self._declared[label]) & set(self._names.used):
            return False
        if not self._is_set(shape, "outside"):
            what = f"boxes of label '{label}', which has no attribute for actions"
            self._note(f"{what}, were left out")
        return True

    def _label(self, element: Element) -> str:
        label = element.attributes.get("label")
        if label is None:
            raise self._fault(element, f"<{element.tag}> has no attribute 'label'")
        if label not in self._declared:
            raise self._fault(
                element,
                f"label {label!r} is not declared in <meta>; there are: "
                + ", ".join(self._declared),
            )
        return label

    def _task_of(self, element: Element) -> _Task:
        task_id = element.attributes.get("task_id")
        if task_id in self._tasks:
            return self._tasks[task_id]
        if task_id is None and len(self._tasks) == 1:
            return next(iter(self._tasks.values()))
        raise self._fault(
            element, f"task_id is {task_id!r}; the project's are {', '.join(self._tasks)}"
        )

    def _is_set(self, shape: Element, name: str) -> bool:
        value = shape.attributes.get(name, "0")
        if value not in ("0", "1"):
            raise self._fault(shape, f"'{name}' is {value!r}; it must be 0 or 1")
        return value == "1"

    def _values(self, shape: Element, label: str, before: dict[str, str]) -> dict[str, str]:
        """The values of the label's attributes; those that are missing keep their last one."""
        declared, values = self._declared[label], {}
        for attribute in shape.all("attribute"):
            name = attribute.attributes.get("name")
            if name is None:
                raise self._fault(attribute, "<attribute> has no 'name'")
            if name not in declared:
                raise self._fault(
                    attribute, f"attribute {name!r} is not declared for label {label!r} in <meta>"
                )
            values[name] = attribute.text.strip()
        for name in declared:
            if name not in values and name in self._names.used:
                known = before.get(name, self._defaults.get((label, name)))
                if known is None:
                    raise self._fault(shape, f"<box> has no attribute {name!r}, nor a default")
                values[name] = known
                self._note(f"boxes without attribute '{name}': its last or default value was taken")
        return values

    def _mark(
        self, shape: Element, label: str, values: dict[str, str], frame: int, person
    ) -> model.Mark:
        corners = [self._number(shape, side) for side in ("xtl", "ytl", "xbr", "ybr")]
        rotation = self._number(shape, "rotation") if "rotation" in shape.attributes else 0.0
        if rotation % 360:
            corners = _upright(corners, rotation)
            self._note("rotated boxes: the upright box around each was taken")
        names: list[str] = [label] if self._labels_are_actions else []
        for name, value in values.items():
            try:
                action = self._names.of(name, value)
            except model.ImportFault as fault:
                raise self._fault(shape, str(fault)) from fault
            if action is not None:
                names.append(action)
        return model.Mark(tuple(corners), tuple(names), shape.line, frame=frame, person=person)

    def _number(self, shape: Element, side: str) -> float:
        text = shape.attributes.get(side)
        if text is None:
            raise self._fault(shape, f"<box> has no attribute '{side}'")
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise self._fault(shape, f"'{side}' is {text!r}; it must be a number of pixels")
        return number

    def _add_track(self, task: _Task, boxes: list[_Box], is_exhaustive: bool) -> None:
        """Adds the boxes of a track, and those between its keyframes where CVAT wrote none."""
        step = task.frames.step if task.frames else 1
        for box, after in itertools.pairwise([*boxes, None]):
            if box.outside:
                continue
            if box.frame not in task.deleted:
                task.video.marks.append(box.mark)
            if after is None:
                if task.frames and box.frame < task.frames[-1] and not is_exhaustive:
                    self._note("tracks that end without outside: they end with their last box")
            elif not is_exhaustive:
                self._interpolate(task, box, after, step)

    def _interpolate(self, task: _Task, box: _Box, after: _Box, step: int) -> None:
        for frame in range(box.frame + step, after.frame, step):
            if frame not in task.deleted:
                part = (frame - box.frame) / (after.frame - box.frame)
                pairs = zip(box.mark.box, after.mark.box, strict=True)
                between = tuple(a + part * (b - a) for a, b in pairs)
                mark = dataclasses.replace(box.mark, box=between, frame=frame)
                task.video.marks.append(mark)
                self._note("boxes interpolated between keyframes")

    def _finish(self) -> None:
        for task in self._tasks.values():
            if task.frames is not None and task.deleted:
                task.video.listed = [f for f in task.frames if f not in task.deleted]
                self._note("deleted frames were left out", len(task.deleted))


def _is_annotation(name: str) -> bool:
    """Whether a file of a zip is XML, and none of those that macOS adds to what it packs."""
    path = name.lower().split("/")
    return path[-1].endswith(".xml") and not path[-1].startswith("._") and path[0] != "__macosx"


def _upright(corners: list[float], degrees: float) -> list[float]:
    """The upright box around one that is rotated clockwise around its centre, in pixels."""
    x1, y1, x2, y2 = corners
    turn = math.radians(degrees)
    cos, sin = abs(math.cos(turn)), abs(math.sin(turn))
    half_width = ((x2 - x1) * cos + (y2 - y1) * sin) / 2
    half_height = ((x2 - x1) * sin + (y2 - y1) * cos) / 2
    x, y = (x1 + x2) / 2, (y1 + y2) / 2
    return [x - half_width, y - half_height, x + half_width, y + half_height]
