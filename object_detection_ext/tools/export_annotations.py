# SPDX-License-Identifier: Apache-2.0
r"""Turns detections into annotations of a tool in which people correct them.

    python -m object_detection_ext.tools.export_annotations --to cvat found/detections.csv \
        --videos VIDEOS --label_map label_map.pbtxt --output to_correct

--output then has VIDEO.xml for each video, to upload as CVAT 1.1, and cvat_labels.json, which is
pasted under "Raw" when the task is made. `tools.import_annotations --from cvat` reads what CVAT
exports afterwards.

Ends with 0, with 1 if the disk is full or broken, with 2 if something cannot be used; nothing is
written then.
"""

import dataclasses
from collections.abc import Sequence

from absl import app, flags

from object_detection_ext import command_line, listing, rates
from object_detection_ext.ava import box_range, label_maps, time_offsets, timestamps
from object_detection_ext.importers import cvat_export, model, video_facts, writing

_FORMS = ("cvat",)


@dataclasses.dataclass(frozen=True)
class Options:
    """What to export and how; see the flags."""

    inputs: tuple[str, ...]
    output: str
    videos: str
    label_map: str
    score_threshold: float = 0.3
    overwrite: bool = False
    box_tolerance: float | None = box_range.BOX_TOLERANCE
    frames_fps: float | None = None
    time_offset_seconds: str | None = None


def run(options: Options) -> list[str]:
    """Exports, and returns what to say of it, line by line.

    Raises:
        errors.InputError: if something cannot be used; nothing is written then.
    """
    if len(options.inputs) != 1:
        raise model.ImportFault(f"Give one CSV of detections, not {len(options.inputs)}.")
    if not 0 <= options.score_threshold <= 1:
        raise model.ImportFault(f"--score_threshold is {options.score_threshold:g}, not 0 to 1.")
    label_map = label_maps.read_label_map(options.label_map)
    if options.frames_fps is not None:
        rates.check(rates.fps_faults("--frames_fps", options.frames_fps), model.ImportFault)
    library = video_facts.Library(options.videos, options.frames_fps)
    offsets = time_offsets.read(options.time_offset_seconds)
    detections, notes = cvat_export.read_detections(options.inputs[0], options.box_tolerance)
    texts, lines = {}, [f"note: {note}" for note in notes]
    offsets.check(detections)
    for video_id, moments in detections.items():
        offset = offsets.of(video_id)
        moments = [(timestamps.rounded(seconds - offset), rows) for seconds, rows in moments]
        facts = library.facts(video_id)
        done = cvat_export.export(facts, moments, label_map, options.score_threshold)
        name = f"{video_id.replace('/', '_')}.xml"
        if name in texts:
            raise model.ImportFault(f"two videos would be written to {name}; export one by one.")
        texts[name] = done.text
        lines.append(
            f"{name}: {listing.counted(done.num_keyframes, 'keyframe')}, "
            f"{listing.counted(done.num_tracks, 'person', 'people')}, "
            f"{listing.counted(done.num_boxes, 'box', 'boxes')} (score at least "
            f"{options.score_threshold:g})"
        )
        if done.num_merged:
            lines.append(
                f"note: {name}: moments on a frame that has another, left out: {done.num_merged}"
            )
    texts["cvat_labels.json"] = cvat_export.labels_text(list(label_map.values()))
    paths = writing.write_all(options.output, texts, options.overwrite)
    return [*lines, f"Written: {', '.join(paths)}"]


def define_flags(values: flags.FlagValues) -> None:
    """Defines the tool's options."""
    flags.DEFINE_enum("to", None, _FORMS, "Form to write.", required=True, flag_values=values)
    for name, text in (
        ("output", "Folder for the files."),
        ("videos", "Folder with the videos, whose frames are counted."),
        ("label_map", "Label map (pbtxt) of the detections' action ids."),
    ):
        flags.DEFINE_string(name, None, text, required=True, flag_values=values)
    flags.DEFINE_float("score_threshold", Options.score_threshold, "Lowest score of an action.",
                       flag_values=values)  # fmt: skip
    flags.DEFINE_string("box_tolerance", f"{Options.box_tolerance:g}",
                        f"{box_range.TOLERANCE_HELP.capitalize()}.",
                        flag_values=values)  # fmt: skip
    flags.DEFINE_float("frames_fps", None, "Frames per second of --videos that are folders of "
                       "numbered frames.", flag_values=values)  # fmt: skip
    flags.DEFINE_string("time_offset_seconds", None,
                        "What times of the detections are ahead of times in the videos: seconds, "
                        "or a CSV of video_id,seconds.", flag_values=values)  # fmt: skip
    flags.DEFINE_boolean("overwrite", Options.overwrite,
                         "Replace files in --output that have another content.",
                         flag_values=values)  # fmt: skip


def main(argv: Sequence[str], values: flags.FlagValues = flags.FLAGS) -> None:
    """Reads the flags and exports."""
    names = {field.name for field in dataclasses.fields(Options)} - {"inputs"}
    with command_line.ending():
        given = {name: values[name].value for name in names}
        given["box_tolerance"] = box_range.read_tolerance(given["box_tolerance"])
        print("\n".join(run(Options(tuple(argv[1:]), **given))), flush=True)


if __name__ == "__main__":
    define_flags(flags.FLAGS)
    app.run(main)
