# SPDX-License-Identifier: Apache-2.0
r"""Turns annotations of other tools and data sets into the CSVs and the label map of this package.

    python -m object_detection_ext.tools.import_annotations --from cvat street.zip \
        --videos VIDEOS --output my_project --every 1.0 --val_fraction 0.2

--output then has annotations.csv, or train.csv and val.csv, and label_map.pbtxt (unless --label_map
gives the ids). What was changed or left out is printed with its number. The forms (--from):

    cvat          CVAT XML 1.1 or its zip: tracks; checkboxes, selects and radios are actions
    via           VGG Image Annotator 3, project JSON; needs --videos
    label_studio  JSON export with VideoRectangle; choices, else labels, are actions
    coco          COCO JSON with video_id and frame_id; categories are actions
    ucf101_24     pyannot.pkl or UCF101v2-GT.pkl; nothing in a pickle is executed
    jhmdb         the folder puppet_mask, or JHMDB-GT.pkl
    multisports   multisports_GT.pkl
    slowfast      people's boxes with scores, CSV or .pkl; writes person_boxes.csv

With --videos, sizes, numbers of frames and the time of each frame are those of the videos, and a
video that does not match its annotation is an error.

Ends with 0, with 1 if the disk is full or broken, with 2 if something cannot be used; nothing is
written then.
"""

import dataclasses
from collections.abc import Sequence

from absl import app, flags

from object_detection_ext import command_line
from object_detection_ext.importers import importing, registry
from object_detection_ext.importers.importing import Options

_FORM = "from"


def define_flags(values: flags.FlagValues) -> None:
    """Defines the tool's options."""
    forms = [*registry.IMPORTERS, importing.PERSON_BOXES]
    flags.DEFINE_enum(_FORM, None, forms, "Form of the annotations.", required=True,
                      flag_values=values)  # fmt: skip
    string, number, whole, switch, names = (
        flags.DEFINE_string, flags.DEFINE_float, flags.DEFINE_integer, flags.DEFINE_boolean,
        flags.DEFINE_list,
    )  # fmt: skip
    for define, name, text in (
        (string, "output", "Folder for the CSVs and the label map."),
        (string, "videos", "Folder with the videos, which say their sizes, frames and times."),
        (string, "label_map", "Label map (pbtxt) with the ids to use; by default a new one."),
        (switch, "skip_unknown_labels", "Leave out actions that --label_map does not have, "
         "counted, instead of an error."),
        (number, "every", "Keep one keyframe in so many seconds; by default all."),
        (switch, "empty_keyframes", "Write frames that were looked through and have nobody on them "
         "as keyframes without people."),
        (names, "attributes", "Attributes that hold actions (Label Studio: from_name); by default "
         "all that are ticked or chosen from a list."),
        (string, "person_attribute", "Of VIA, the attribute that says who a person is."),
        (string, "no_action", "Action of people for whom none is marked; by default they are left "
         "out, counted."),
        (number, "fps", "Frames per second, without --videos and where the annotations do not "
         "say."),
        (number, "frames_fps", "Frames per second of --videos that are folders of numbered "
         "frames."),
        (whole, "first_frame", "Of COCO, the number of a video's first frame."),
        (number, "box_tolerance", "How far boxes may stick out of the frame, as a fraction of it, "
         "to be cut off instead of an error."),
        (switch, "allow_frame_count_mismatch", "Videos may have another number of "
         "frames than their annotations say; what is annotated must be in them."),
        (switch, "skip_missing_videos", "Leave out videos that are missing or cannot be read, "
         "counted."),
        (number, "val_fraction", "Part of the videos that goes to val.csv."),
        (names, "val_videos", "Videos that go to val.csv: ids, or files with one on each line."),
        (whole, "split", "Number of the annotation file's own split to use, from 1."),
        (number, "score_threshold", "Of --from slowfast: the least score of a box."),
        (switch, "overwrite", "Replace files in --output that have another content."),
    ):  # fmt: skip
        field = next(field for field in dataclasses.fields(Options) if field.name == name)
        is_required = field.default is dataclasses.MISSING
        default = None if is_required else field.default
        default = list(default) if isinstance(default, tuple) else default
        define(name, default, text, required=is_required, flag_values=values)


def main(argv: Sequence[str], values: flags.FlagValues = flags.FLAGS) -> None:
    """Reads the flags and imports."""
    given = {}
    for field in dataclasses.fields(Options):
        if field.name not in ("form", "inputs"):
            value = values[field.name].value
            given[field.name] = tuple(value) if isinstance(value, list) else value
    with command_line.ending():
        options = Options(values[_FORM].value, tuple(argv[1:]), **given)
        print("\n".join(importing.run(options)), flush=True)


if __name__ == "__main__":
    define_flags(flags.FLAGS)
    app.run(main)
