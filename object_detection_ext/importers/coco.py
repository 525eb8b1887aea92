# SPDX-License-Identifier: Apache-2.0
"""COCO's JSON for videos: images with `video_id` and `frame_id`, boxes in pixels.

`images` have `id`, `file_name`, `width`, `height`, `video_id` and `frame_id` (from 0, as in
MMTracking's COCO for videos; `--first_frame 1` where it begins at 1); `videos` have `id` and
`name`; `annotations` have `image_id`, `category_id`, `bbox` [x, y, width, height], and may have
`track_id` or `instance_id`, and `attributes` (as CVAT and Datumaro write them).

Sources: cocodataset.org, "Data format"; MMTracking's page on customized datasets; the pages of
CVAT and Datumaro on COCO.
"""

import json
import os
from collections.abc import Mapping

from object_detection_ext.importers import actions, json_fields, model

_FRAME_FIELDS = ("frame_id", "frame_index")
_TRACK_FIELDS = ("track_id", "instance_id", "tracking_id")
# How programs write that something is ticked, or is not.
_TICKS = {
    **dict.fromkeys(("true", "yes", "1"), "true"), **dict.fromkeys(("false", "no", "0"), "false"),
    "": "",
}  # fmt: skip


def read(path: str, options: model.ReadOptions) -> model.Source:
    """Reads a file.

    Actions are the categories. With `options.attributes` they are those attributes instead: a true
    one's name, a text, or each text of a list. One whose values are all true or false, yes or no,
    or 0 or 1, is ticked.

    Raises:
        model.ImportFault: if something is not as COCO has it, with the id.
    """
    return _Dataset(path, options).source()


class _Dataset:
    def __init__(self, path: str, options: model.ReadOptions):
        self._path, self._options = path, options
        self._root = json_fields.read(path)
        self._result = model.Source()
        self._videos: dict[object, model.SourceVideo] = {}
        self._frames: dict[int, tuple[model.SourceVideo, int]] = {}
        self._names: actions.ActionNames | None = None

    def _list(self, name: str, default=()) -> list:
        where = f"{self._path}: file"
        if default is None:
            return json_fields.field(self._root, name, list, where)
        return json_fields.field(self._root, name, list, where, list(default))

    def source(self) -> model.Source:
        """Reads videos, images, categories and annotations."""
        for video in self._list("videos"):
            self._add_video(video)
        for image in self._list("images", None):
            self._add_image(image)
        categories, annotations = self._categories(), self._list("annotations", None)
        if self._options.attributes:
            self._names = self._action_names(annotations)
        else:
            self._result.add_labels(categories.values())
        for annotation in annotations:
            self._add_annotation(annotation, categories)
        self._result.videos += self._videos.values()
        return self._result

    def _add_video(self, node) -> None:
        where = f"{self._path}: video {node.get('id') if isinstance(node, dict) else node}"
        number = json_fields.field(node, "id", int, where)
        name = node.get("name") or node.get("file_name")
        if not isinstance(name, str):
            raise model.ImportFault(f"{where}: 'name' is missing; it must be a text.")
        if number in self._videos:
            raise model.ImportFault(f"{where}: this id stands twice.")
        video = self._videos[number] = model.SourceVideo(name, self._path, listed=[])
        video.width = json_fields.field(node, "width", int, where, None)
        video.height = json_fields.field(node, "height", int, where, None)

    def _add_image(self, node) -> None:
        where = f"{self._path}: image {node.get('id') if isinstance(node, dict) else node}"
        number = json_fields.field(node, "id", int, where)
        if number in self._frames:
            raise model.ImportFault(f"{where}: this id stands twice.")
        frame = next((f for f in _FRAME_FIELDS if node.get(f) is not None), None)
        if frame is None:
            raise model.ImportFault(
                f"{where}: 'frame_id' is missing; it must be the frame's number in its video."
            )
        index = json_fields.field(node, frame, int, where) - self._options.first_frame
        if not 0 <= index <= model.MAX_FRAMES:
            raise model.ImportFault(
                f"{where}: '{frame}' is {node[frame]}, before --first_frame "
                f"{self._options.first_frame} or over {model.MAX_FRAMES:,}."
            )
        video = self._video_of(node, where)
        for side in ("width", "height"):
            self._check_side(video, side, json_fields.field(node, side, int, where, None), where)
        video.listed.append(index)
        self._frames[number] = (video, index)

    def _video_of(self, image: dict, where: str) -> model.SourceVideo:
        """The image's video: that of its `video_id`, else the folder of its file."""
        if image.get("video_id") is not None:
            number = json_fields.field(image, "video_id", int, where)
            if number not in self._videos:
                raise model.ImportFault(f"{where}: 'videos' has no video_id {number}.")
            return self._videos[number]
        folder = os.path.dirname(json_fields.field(image, "file_name", str, where))
        if not folder:
            raise model.ImportFault(
                f"{where}: it has no 'video_id', and 'file_name' has no folder that names a video."
            )
        default = model.SourceVideo(folder, self._path, listed=[])
        return self._videos.setdefault(folder, default)

    def _check_side(self, video: model.SourceVideo, side: str, value: int | None, where) -> None:
        known = getattr(video, side)
        if value is not None and known is not None and value != known:
            raise model.ImportFault(
                f"{where}: '{side}' is {value}, but {known} of video '{video.name}'."
            )
        if value is not None:
            setattr(video, side, value)

    def _categories(self) -> dict[int, str]:
        names = {}
        for node in self._list("categories", None):
            where = f"{self._path}: category {node.get('id') if isinstance(node, dict) else node}"
            number = json_fields.field(node, "id", int, where)
            if number in names:
                raise model.ImportFault(f"{where}: this id stands twice.")
            names[number] = json_fields.field(node, "name", str, where)
        return names

    def _add_annotation(self, node, categories: Mapping[int, str]) -> None:
        place = f"annotation {node.get('id') if isinstance(node, dict) else node}"
        where = f"{self._path}: {place}"
        if isinstance(node, dict) and "bboxes" in node:
            raise model.ImportFault(
                f"{where}: it has a list of boxes ('bboxes', as YouTube-VIS has it); here each "
                "annotation is of one image."
            )
        image = json_fields.field(node, "image_id", int, where)
        if image not in self._frames:
            raise model.ImportFault(f"{where}: 'images' has no image_id {image}.")
        category = json_fields.field(node, "category_id", int, where)
        if category not in categories:
            raise model.ImportFault(f"{where}: 'categories' has no category_id {category}.")
        if json_fields.field(node, "iscrowd", int, where, 0):
            self._result.notes["annotations of crowds (iscrowd) were left out"] += 1
            return
        x, y, width, height = json_fields.numbers(node, "bbox", 4, where)
        video, frame = self._frames[image]
        attributes = json_fields.field(node, "attributes", dict, where, {})
        holders = (node, attributes)
        person = next((h[f] for h in holders for f in _TRACK_FIELDS if h.get(f) is not None), None)
        names = (categories[category],)
        if self._names is not None:
            names = self._attribute_actions(attributes)
            self._result.add_labels(names)
        if isinstance(person, list | dict):
            person = json.dumps(person)
        video.marks.append(model.Mark((x, y, x + width, y + height), names, place, frame=frame,
                                      person=person))  # fmt: skip

    def _action_names(self, annotations: list) -> actions.ActionNames:
        """Names of actions, from all values that the wanted attributes have."""
        values: dict[str, list] = {}
        for node in annotations:
            own = node.get("attributes") if isinstance(node, dict) else None
            for name in self._options.attributes if isinstance(own, dict) else ():
                if name in own:
                    values.setdefault(name, []).extend(_values(own[name]))
        missing = set(self._options.attributes) - values.keys()
        if missing:
            raise model.ImportFault(
                f"{self._path}: no annotation has the attribute {', '.join(sorted(missing))} "
                "(--attributes)."
            )
        return actions.ActionNames(
            [_attribute(name, values[name]) for name in self._options.attributes],
            self._options.attributes,
            self._path,
        )

    def _attribute_actions(self, attributes: dict) -> tuple[str, ...]:
        found: dict[str, None] = {}
        for name, attribute in self._names.used.items():
            for value in _values(attributes.get(name)):
                text = _tick(value) if attribute.is_ticked else _chosen(name, value)
                action = self._names.of(name, text or "")
                if action is not None:
                    found[action] = None
        return tuple(found)


def _values(value) -> list:
    return value if isinstance(value, list) else [value]


def _tick(value) -> str | None:
    """`true`, `false`, or empty, of a value of an attribute that is ticked; else None."""
    return _TICKS.get(str("" if value is None else value).lower())


def _chosen(name: str, value) -> str:
    """A value of an attribute that has texts: where it is only ticked, the attribute's name."""
    if isinstance(value, bool) or value is None:
        return name if value else ""
    return str(value)


def _attribute(name: str, values: list) -> actions.Attribute:
    if None not in map(_tick, values):
        return actions.Attribute(name, actions.CHECKBOX)
    options = dict.fromkeys(_chosen(name, value) for value in values)
    return actions.Attribute(name, actions.CHOICE, tuple(options))
