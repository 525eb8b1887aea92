# SPDX-License-Identifier: Apache-2.0
"""The whole import: read, check against the videos, number the actions, split, write."""

import collections
import dataclasses
from collections.abc import Mapping, Sequence

from object_detection_ext import listing, printable, progress, rates
from object_detection_ext.ava import label_maps, writer
from object_detection_ext.data.video_info import VideoError
from object_detection_ext.importers import (
    label_ids,
    model,
    placing,
    registry,
    slowfast,
    splitting,
    video_facts,
    writing,
)

PERSON_BOXES = "slowfast"
# Forms that an option is for; of the others it would have no effect.
_ONLY_FOR = {
    "attributes": ("cvat", "via", "label_studio", "coco"),
    "person_attribute": ("via",),
    "first_frame": ("coco",),
    "score_threshold": (PERSON_BOXES,),
    "split": ("multisports", "ucf101_24", "jhmdb"),
}
_NOT_FOR_BOXES = (
    "videos", "label_map", "skip_unknown_labels", "every", "empty_keyframes", "no_action", "fps",
    "frames_fps", "allow_frame_count_mismatch", "skip_missing_videos", "val_fraction", "val_videos",
)  # fmt: skip
_MAX_CLASSES = 30
_MAX_IDS = 5


@dataclasses.dataclass(frozen=True)
class Options:
    """What to import and how; see the flags of `tools.import_annotations`."""

    form: str
    inputs: tuple[str, ...]
    output: str
    videos: str | None = None
    label_map: str | None = None
    skip_unknown_labels: bool = False
    every: float | None = None
    empty_keyframes: bool = False
    attributes: tuple[str, ...] = ()
    person_attribute: str | None = None
    no_action: str | None = None
    fps: float | None = None
    frames_fps: float | None = None
    first_frame: int = 0
    box_tolerance: float = placing.Rules.box_tolerance
    allow_frame_count_mismatch: bool = False
    skip_missing_videos: bool = False
    val_fraction: float | None = None
    val_videos: tuple[str, ...] = ()
    split: int | None = None
    score_threshold: float = 0.8
    overwrite: bool = False

    def check(self) -> None:
        """Raises errors.InputError for options that are wrong whatever the files hold."""
        forms = (*registry.IMPORTERS, PERSON_BOXES)
        if self.form not in forms:
            raise model.ImportFault(
                f"--from is '{self.form}'; it must be one of {', '.join(forms)}."
            )
        if not self.inputs:
            raise model.ImportFault("Give at least one annotation file.")
        defaults = {field.name: field.default for field in dataclasses.fields(self)}
        for name, of_forms in _ONLY_FOR.items():
            if self.form not in of_forms and getattr(self, name) != defaults[name]:
                raise model.ImportFault(f"--{name} is for --from {', '.join(of_forms)} only.")
        if self.form == PERSON_BOXES:
            for name in _NOT_FOR_BOXES:
                if getattr(self, name) != defaults[name]:
                    raise model.ImportFault(f"--{name} has no meaning with --from {PERSON_BOXES}.")
        if sum(map(bool, (self.val_fraction, self.val_videos, self.split))) > 1:
            raise model.ImportFault("Give one of --val_fraction, --val_videos and --split.")
        if self.frames_fps is not None:
            rates.check(rates.fps_faults("--frames_fps", self.frames_fps), model.ImportFault)
        for flag in ("skip_missing_videos", "allow_frame_count_mismatch", "frames_fps"):
            if getattr(self, flag) and not self.videos:
                raise model.ImportFault(f"--{flag} needs --videos.")
        if self.skip_unknown_labels and not self.label_map:
            raise model.ImportFault("--skip_unknown_labels needs --label_map.")
        self.rules.check()

    @property
    def rules(self) -> placing.Rules:
        """How marks become keyframes."""
        return placing.Rules(
            self.every, self.empty_keyframes, self.box_tolerance, self.fps,
            self.allow_frame_count_mismatch, self.no_action,
        )  # fmt: skip


def run(options: Options) -> list[str]:
    """Imports, and returns what to say of it, line by line.

    Raises:
        errors.InputError: if something cannot be used, or does not fit; nothing is written then.
    """
    options.check()
    if options.form == PERSON_BOXES:
        return _import_boxes(options)
    given = label_maps.read_label_map(options.label_map) if options.label_map else None
    read = model.ReadOptions(options.attributes, options.person_attribute, options.first_frame)
    source = registry.read_all(options.form, options.inputs, read)
    videos = _placed(source, options)
    if options.no_action is not None:
        source.add_labels([options.no_action])
    if given is None:
        label_map = label_ids.new_label_map(source.labels)
    else:
        label_map = given
        if not options.skip_unknown_labels:
            label_ids.check_known(videos, label_map, options.label_map)
    rows = {
        video.video_id: label_ids.rows_of(video, label_map, source.notes)
        for video in sorted(videos, key=lambda video: video.video_id)
    }
    if not any(rows.values()):
        raise model.ImportFault(
            f"{', '.join(options.inputs)}: nothing in it is a person with an action.\n"
            + "\n".join(_notes(source.notes))
        )
    parts = _parts(videos, source, options)
    _check_parts(rows, parts, source)
    texts = {
        f"{name}.csv": writing.annotations_text((i, rows[i]) for i in rows if i in ids)
        for name, ids in parts.items()
    }
    if given is None:
        texts["label_map.pbtxt"] = writer.label_map_text(label_map)
    paths = writing.write_all(options.output, texts, options.overwrite)
    return [
        *_notes(source.notes),
        *_summary(rows, parts, label_map),
        f"Written: {', '.join(paths)}",
    ]


def _placed(source: model.Source, options: Options) -> list[placing.PlacedVideo]:
    """The videos with their keyframes, those of one file together."""
    placer = placing.Placer(options.rules, source.notes)
    facts = _facts(source, options)
    videos: dict[str, placing.PlacedVideo] = {}
    for video, known in zip(source.videos, facts, strict=True):
        if known is None:
            continue
        placed = placer.place(video, known)
        whole = videos.setdefault(placed.video_id, placed)
        if whole is not placed:
            _join(whole, placed, video, source.notes)
    if not videos:
        raise model.ImportFault(f"{', '.join(options.inputs)}: no video in it.")
    return list(videos.values())


def _join(whole, part, video: model.SourceVideo, notes: collections.Counter[str]) -> None:
    """Adds a second task of a video; people of two tasks are not the same."""
    for time, people in part.keyframes.items():
        if whole.keyframes.get(time) and people:
            raise model.ImportFault(
                f"{video.file}: '{video.name}' is annotated twice at {time:g} s (by two tasks or "
                "files): import only one of them."
            )
        own = [
            dataclasses.replace(
                p, person=None if p.person is None else (video.file, id(part), p.person)
            )
            for p in people
        ]
        whole.keyframes.setdefault(time, []).extend(own)
    notes["tasks of a video that has others were joined"] += 1


def _facts(source: model.Source, options: Options) -> list[video_facts.Facts | None]:
    """What is known of each video; None for one that is missing and may be."""
    if options.videos is None:
        return list(video_facts.ids_without_files(source.videos))
    library = video_facts.Library(options.videos, options.frames_fps)
    found: list[video_facts.Facts | None] = []
    faults = []
    shown = progress.Progress("videos", len(source.videos), "videos")
    for number, video in enumerate(source.videos, start=1):
        try:
            found.append(library.facts(video.name))
        except (video_facts.NoSuchVideo, VideoError) as error:
            found.append(None)
            faults.append(str(error))
        shown.update(number)
    if options.skip_missing_videos:
        source.notes["videos that are missing or cannot be read were left out"] += len(faults)
        if len(faults) == len(found):
            faults.append("all videos are missing or cannot be read")
        else:
            faults.clear()
    model.raise_faults(faults, "videos of the annotations (--skip_missing_videos leaves them out)")
    return found


def _parts(videos, source: model.Source, options: Options) -> dict[str, set[str]]:
    """Ids of videos by the name of their CSV."""
    ids = [video.video_id for video in videos]
    if options.split is not None:
        train, val = splitting.by_source(videos, source.splits, options.split)
        source.notes["videos that the split does not have were left out"] += len(
            set(ids) - train - val
        )
        return {splitting.TRAIN: train, splitting.VAL: val}
    if options.val_fraction is not None:
        val = splitting.by_fraction(ids, options.val_fraction)
    elif options.val_videos:
        val = splitting.by_names(videos, options.val_videos)
    else:
        return {"annotations": set(ids)}
    return {splitting.TRAIN: set(ids) - val, splitting.VAL: val}


def _check_parts(rows, parts: Mapping[str, set[str]], source: model.Source) -> None:
    """Raises model.ImportFault for a part without a row, which no tool reads."""
    for name, ids in parts.items():
        if not any(rows[video_id] for video_id in ids):
            raise model.ImportFault(
                f"{name}.csv would have no row: nobody in "
                f"{listing.in_line(sorted(ids), _MAX_IDS)} does an action.\n"
                + "\n".join(_notes(source.notes))
            )


def _notes(notes: Mapping[str, int]) -> list[str]:
    """What was changed or left out; what was noted without a number is said without one."""
    lines = []
    for text, count in notes.items():
        if count:
            lines.append(f"note: {printable.in_one_line(text)}: {count:,}")
        elif text.startswith("attribute "):
            lines.append(f"note: {printable.in_one_line(text)}")
    return lines


def _summary(
    rows: Mapping[str, Sequence[label_ids.Row]],
    parts: Mapping[str, set[str]],
    label_map: Mapping[int, str],
) -> list[str]:
    lines = []
    for name, ids in parts.items():
        own = [row for video_id in rows if video_id in ids for row in rows[video_id]]
        moments = sum(len({row.seconds for row in rows[i]}) for i in rows if i in ids)
        empty = sum(row.box is None for row in own)
        people = sum(len({(r.seconds, r.person, r.box) for r in rows[i] if r.box}) for i in rows
                     if i in ids)  # fmt: skip
        lines.append(
            f"{name}.csv: {listing.counted(len(ids), 'video')}, "
            f"{listing.counted(moments, 'keyframe')} ({empty:,} without people), "
            f"{listing.counted(people, 'box', 'boxes')}, "
            f"{listing.counted(len(own) - empty, 'action')}"
        )
        counts = collections.Counter(row.action_id for row in own if row.box is not None)
        each = [f"{label} {counts[number]:,}" for number, label in label_map.items()]
        lines.append(f"  {listing.in_line(each, _MAX_CLASSES)}")
    return lines


def _import_boxes(options: Options) -> list[str]:
    """Imports people's boxes; each file is a CSV of its own name."""
    if len(options.inputs) != 1:
        raise model.ImportFault(f"--from {PERSON_BOXES} takes one file, not {len(options.inputs)}.")
    found = slowfast.read_boxes(options.inputs[0], options.score_threshold)
    text = writing.person_boxes_text(found.boxes)
    paths = writing.write_all(options.output, {"person_boxes.csv": text}, options.overwrite)
    kept = found.num_read - found.num_below
    empty = sum(not boxes for boxes in found.boxes.values())
    lines = [
        f"person_boxes.csv: {listing.counted(len({video for video, _ in found.boxes}), 'video')}, "
        f"{listing.counted(len(found.boxes), 'keyframe')} ({empty:,} without people), "
        f"{listing.counted(kept, 'box', 'boxes')}",
        f"note: boxes with a score below {options.score_threshold:g} were left out: "
        f"{found.num_below:,} of {found.num_read:,}",
    ]
    lines += [f"note: {printable.in_one_line(note)}" for note in found.notes]
    if found.num_cut:
        lines.append(f"note: boxes were cut off at the edge of the frame: {found.num_cut:,}")
    return [*lines, f"Written: {', '.join(paths)}"]
