# SPDX-License-Identifier: Apache-2.0
r"""Converts videos and an AVA-style CSV to sharded TFRecords of clips, on all cores.

    python -m object_detection_ext.tools.create_ava_records --annotations train.csv \
        --videos DIR --label_map label_map.pbtxt --output records/train@8 --num_frames 64 --fps 25

Frames are taken by presentation time and resampled to the given rate, in the stock SequenceExample
schema (`data/clip_features.py`). Everything about the input that can be checked without decoding is
checked first. What is left out on the way (a missing video, a timestamp beyond the end) is counted
and told, or an error under --strict.

The shards get their names `P-00000-of-0000N` when all of them are complete; until then they stand
in `P.incomplete/`, and a run that was stopped goes on from them. `P-manifest.json` says what was
made. The same input and options give the same bytes, with any number of workers.

The exit status is 0 if all that was asked for is in the records, 1 with an error, 130 if the user
interrupts, and 3 if the records are whole but keyframes were left out that nobody asked to leave
out: a video is missing, unreadable, shorter than its annotations, or damaged there. When such a
video was repaired or came, the same command converts again.

Several splits at once, as AVA is published:

    ... --splits train,val --annotations 'ava_{split}_v2.2.csv' --output 'records/{split}@32' \
        --excluded_timestamps 'ava_{split}_excluded_timestamps_v2.2.csv'

On a cluster, with whatever else Apache Beam's runner takes; videos and output must be where all
machines reach them by the same paths:

    ... --runner=FlinkRunner --flink_master=HOST:8081
"""

import dataclasses
import logging
import os
import sys
import warnings
from collections.abc import Mapping, Sequence

from absl import app, flags

from object_detection_ext import command_line, listing, printable
from object_detection_ext.conversion import convert as convert_lib
from object_detection_ext.conversion import manifest, skips
from object_detection_ext.conversion.options import Options

EXIT_LEFT_OUT = 3


def define_flags(values: flags.FlagValues) -> None:
    """Defines the tool's options."""
    strings = {
        "annotations": "AVA-style CSV: video_id,timestamp,x1,y1,x2,y2,action_id,person_id; "
        "seconds from the start of the video; no header.",
        "videos": "Folder with the videos, named by id, in it or its folders.",
        "label_map": "Label map (pbtxt) of the action ids.",
        "output": "PREFIX@N for N shards.",
    }
    for name, text in strings.items():
        flags.DEFINE_string(name, None, text, required=True, flag_values=values)
    numbers = {
        "num_frames": "Frames around each keyframe.",
        "fps": "Frames per second of the records, whatever the videos' are.",
        "short_side": "Shrink larger frames to this short side in pixels; 0 keeps.",
        "jpeg_quality": "Of the stored frames, 1 to 100.",
        "seconds_per_record": "Keyframes within so many seconds share a record where their clips "
        "overlap, which stores the frames once; 0 gives each keyframe its own.",
        "frames_fps": "Frames per second of videos that are folders of numbered frames "
        "(ID/000001.jpg); 0: only files are videos.",
        "box_tolerance": "How far outside of [0, 1] a box may reach to be cut off, as a part of "
        "the frame; more is an error.",
        "every": "Keep one keyframe per so many seconds of densely annotated videos; 0 keeps all.",
    }
    for name, text in numbers.items():
        default = getattr(Options, name)
        define = flags.DEFINE_integer if isinstance(default, int) else flags.DEFINE_float
        define(name, default, text, flag_values=values)
    flags.DEFINE_string(
        "excluded_timestamps",
        Options.excluded_timestamps,
        "CSV of keyframes to leave out: video_id,timestamp.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "time_offset_seconds",
        Options.time_offset_seconds,
        "What annotation times are ahead of times in the video files, as with films cut to AVA's "
        "minutes 15 to 30 (900): seconds, or a CSV of video_id,seconds.",
        flag_values=values,
    )
    switches = {
        "strict": "Leave nothing out: errors instead.",
        "skip_unknown_labels": "Leave out rows whose action id the label map does not have, "
        "instead of an error.",
        "overwrite": "Replace records of another conversion when the new ones are whole.",
    }
    for name, text in switches.items():
        flags.DEFINE_bool(name, getattr(Options, name), text, flag_values=values)
    flags.DEFINE_list(
        "splits",
        [],
        "Names that take the place of {split} in --annotations, --output and "
        "--excluded_timestamps, one after the other.",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "workers", 0, "Processes on this machine; 0: one for each CPU.", flag_values=values
    )


def parse_flags(argv: Sequence[str], values: flags.FlagValues = flags.FLAGS) -> list[str]:
    """Parses the tool's flags; what it does not know is Beam's, if a --runner is given.

    Returns:
      The program's name and Beam's arguments.

    Raises:
      SystemExit: if a flag is unknown, missing or has no such value; the message says which.
    """
    names = {argument.split("=")[0].lstrip("-") for argument in argv[1:]}
    for_beam = "runner" in names
    try:
        rest = values(list(argv), known_only=for_beam)
    except flags.Error as error:
        told = printable.in_lines(str(error))
        raise SystemExit(f"error: {told}\n--help tells all options.") from error
    if len(rest) > 1 and not for_beam:
        told = printable.in_one_line(" ".join(rest[1:]))
        raise SystemExit(f"error: unexpected arguments: {told}")
    return rest


def main(argv: Sequence[str], values: flags.FlagValues = flags.FLAGS) -> None:
    options = Options(**{f.name: values[f.name].value for f in dataclasses.fields(Options)})
    with command_line.ending(wrong_input=command_line.FAILED):
        splits = options.for_splits(values.splits)
        manifests = convert_lib.convert(
            splits, workers=values.workers, beam_arguments=argv[1:], command=sys.argv
        )
        _print_summary(splits, manifests)


def _print_summary(splits: Sequence[Options], manifests: Sequence[Mapping]) -> None:
    """Prints what was written; ends with status 3 if keyframes were left out."""
    for of_split, written in zip(splits, manifests, strict=True):
        print(manifest.summary(of_split, written))
    left_out = sum(len(skips.surprises(manifest.skipped_of(written))) for written in manifests)
    if left_out:
        print(
            f"warning: {listing.counted(left_out, 'keyframe')} left out of the records (see "
            "above), "
            f"so the exit status is {EXIT_LEFT_OUT}. When the videos are repaired, the same "
            "command converts again.",
            file=sys.stderr,
            flush=True,
        )
        sys.exit(EXIT_LEFT_OUT)


def _quiet_main(argv: Sequence[str]) -> None:
    """`main` without the many words of Beam, TensorFlow and their friends.

    Its settings are the whole process's, so that they are not for those who call `main`.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"  # nothing here computes on one
    warnings.simplefilter("ignore")
    logging.getLogger().setLevel(logging.ERROR)
    # When a worker dies, it shows its channel's stack; the tool itself says what happened.
    logging.getLogger("apache_beam.runners.worker.data_plane").setLevel(logging.CRITICAL)
    main(argv)


if __name__ == "__main__":
    define_flags(flags.FLAGS)
    app.run(_quiet_main, flags_parser=parse_flags)
