# SPDX-License-Identifier: Apache-2.0
"""Projects of the VGG Image Annotator 3 (the video annotator), the tool that AVA was made with.

A region of a video frame is a metadata entry: `vid` names the view (and by it the file), `z` has
one moment in seconds, `xy` the shape's number and its coordinates in pixels of the video, `av` a
value for each attribute id. Ticked options are ids with commas between them, chosen ones an id.
Attributes of regions of video frames have the anchor FILE1_Z1_XY1.

Sources: `src/js/_via_metadata.js` (shapes) and `_via_attribute.js` (anchors, types of input) of
github.com/ox-vgg/via, and the commented project that VGG gives as an example for making projects
by program.
"""

from object_detection_ext import listing
from object_detection_ext.importers import actions, json_fields, model

_ANCHOR = "FILE1_Z1_XY1"
_TEXT, _CHECKBOX, _RADIO, _SELECT, _IMAGE = 1, 2, 3, 4, 5
_VIDEO_FILE = 4
_RECTANGLE, _POLYGON, _EXTREME_RECTANGLE = 2, 7, 8


def read(path: str, options: model.ReadOptions) -> model.Source:
    """Reads a project.

    Actions are the ticked and chosen options of the attributes of regions; text counts with
    `options.attributes` only. VIA does not keep the size of videos.

    Raises:
        model.ImportFault: if something is not as VIA writes it, with the entry.
    """
    return _Project(path, options).source()


class _Project:
    def __init__(self, path: str, options: model.ReadOptions):
        self._path, self._options = path, options
        self._root = json_fields.read(path)
        if "_via_img_metadata" in self._root:
            raise model.ImportFault(
                f"{path}: a project of VIA 2, which is for images; videos are annotated with VIA 3."
            )
        self._result = model.Source()
        self._attributes = self._node("attribute")
        self._types: dict[str, int] = {}
        self._names = self._action_names()
        self._videos: dict[str, model.SourceVideo] = {}

    def _node(self, name: str) -> dict:
        return json_fields.field(self._root, name, dict, f"{self._path}: project")

    def source(self) -> model.Source:
        """Reads the regions."""
        self._result.add_labels(self._names.names)
        for name in self._names.unused:
            if name != self._options.person_attribute:
                self._note(f"attribute '{name}' was not taken for an action (--attributes)", 0)
        for entry, region in self._node("metadata").items():
            self._add(f"metadata '{entry}'", region)
        self._result.videos += self._videos.values()
        return self._result

    def _note(self, text: str, count: int = 1) -> None:
        self._result.notes[text] += count

    def _action_names(self) -> actions.ActionNames:
        found = []
        for attribute_id, node in self._attributes.items():
            where = f"{self._path}: attribute '{attribute_id}'"
            if json_fields.field(node, "anchor_id", str, where, "") != _ANCHOR:
                continue
            kind = self._types[attribute_id] = json_fields.field(node, "type", int, where)
            name = json_fields.field(node, "aname", str, where)
            options = tuple(map(str, json_fields.field(node, "options", dict, where, {}).values()))
            is_person = name == self._options.person_attribute
            if kind in (_CHECKBOX, _RADIO, _SELECT, _IMAGE) and not is_person:
                # A single box that can be ticked has one option, which is the action's name.
                found.append(actions.Attribute(name, actions.CHOICE, options))
            else:
                found.append(actions.Attribute(name, actions.FREE))
        names = [each.name for each in found]
        wanted = self._options.person_attribute
        if wanted is not None and wanted not in names:
            raise model.ImportFault(
                f"{self._path}: there is no attribute {wanted!r} of regions (--person_attribute); "
                f"there are: {', '.join(names) or 'none'}."
            )
        return actions.ActionNames(found, self._options.attributes, self._path)

    def _add(self, place: str, region) -> None:
        where = f"{self._path}: {place}"
        moments = json_fields.field(region, "z", list, where, [])
        shape = json_fields.field(region, "xy", list, where, [])
        if not shape:
            self._note(
                "entries without a region (of a segment of time, or of a file) were left out"
            )
            return
        video = self._video(json_fields.field(region, "vid", str, where), where)
        if video is None:
            return
        box = self._box(shape, where)
        if box is None:
            self._note("regions that are neither rectangles nor polygons were left out")
            return
        if len(moments) != 1:
            raise model.ImportFault(
                f"{where}: 'z' has {listing.counted(len(moments), 'moment')}; a region of a "
                "video frame has one."
            )
        (seconds,) = json_fields.numbers(region, "z", 1, where)
        names, person = self._values(json_fields.field(region, "av", dict, where, {}), where)
        video.marks.append(model.Mark(box, names, place, seconds=seconds, person=person))

    def _video(self, view: str, where: str) -> model.SourceVideo | None:
        """The video of a view; None if it shows a picture or sound."""
        if view not in self._videos:
            shown = json_fields.field(self._node("view"), view, dict, f"{where}: view '{view}'")
            files = json_fields.field(shown, "fid_list", list, f"{where}: view '{view}'")
            if len(files) != 1:
                raise model.ImportFault(
                    f"{where}: view '{view}' shows {listing.counted(len(files), 'file')}; only "
                    "views of one are read."
                )
            place = f"{where}: file '{files[0]}'"
            file = json_fields.field(self._node("file"), str(files[0]), dict, place)
            if json_fields.field(file, "type", int, place, _VIDEO_FILE) != _VIDEO_FILE:
                self._note("regions of files that are not videos were left out")
                return None
            name = json_fields.field(file, "fname", str, place)
            self._videos[view] = model.SourceVideo(name, self._path)
        return self._videos[view]

    def _box(self, shape: list, where: str) -> tuple[float, float, float, float] | None:
        """The corners in pixels; None if the shape has no box."""
        values = json_fields.numbers({"xy": shape}, "xy", len(shape), where)
        kind, coordinates = int(values[0]), values[1:]
        if kind == _RECTANGLE:
            if len(coordinates) != 4:
                raise model.ImportFault(f"{where}: 'xy' is {shape}; a rectangle is 2,x,y,w,h.")
            x, y, width, height = coordinates
            return x, y, x + width, y + height
        if kind in (_POLYGON, _EXTREME_RECTANGLE) and len(coordinates) >= 4:
            self._note("polygons: the box around each was taken")
            xs, ys = coordinates[::2], coordinates[1::2]
            return min(xs), min(ys), max(xs), max(ys)
        return None

    def _values(self, values: dict, where: str) -> tuple[tuple[str, ...], str | None]:
        """(actions, person) of a region's attribute values."""
        names: dict[str, None] = {}
        person = None
        for attribute_id, value in values.items():
            if attribute_id not in self._attributes:
                known = ", ".join(self._attributes)
                raise model.ImportFault(
                    f"{where}: 'av' has attribute '{attribute_id}'; the project's are {known}."
                )
            if attribute_id not in self._types:
                continue
            attribute = self._attributes[attribute_id]
            text = "" if value is None else str(value)
            if attribute["aname"] == self._options.person_attribute:
                person = text or None
            else:
                names |= dict.fromkeys(self._actions(attribute_id, attribute, text, where))
        return tuple(names), person

    def _actions(self, attribute_id: str, attribute: dict, text: str, where: str) -> list[str]:
        name, found = attribute["aname"], []
        if name not in self._names.used:
            return found
        kind = self._types[attribute_id]
        parts = text.split(",") if kind == _CHECKBOX else [text]
        for part in (part.strip() for part in parts):
            if not part:
                continue
            options = attribute.get("options") or {}
            if kind != _TEXT and part not in options:
                raise model.ImportFault(
                    f"{where}: attribute '{name}' is '{part}'; its options are the ids "
                    f"{', '.join(options) or '(none)'}."
                )
            action = self._names.of(name, part if kind == _TEXT else str(options[part]))
            if action is not None:
                found.append(action)
        return found
