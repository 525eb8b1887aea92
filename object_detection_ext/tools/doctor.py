# SPDX-License-Identifier: Apache-2.0
r"""Finds what is wrong with annotations, label map, videos, records and pipeline.config.

    python -m object_detection_ext.tools.doctor --annotations train.csv --val_annotations val.csv \
        --label_map label_map.pbtxt --videos DIR --pipeline_config_path my.config \
        --contact_sheet sheet.png

Any of the options may be left out; the report then says what could not be checked. The
contact sheet shows keyframes with their boxes and actions, for a person to look at.

    python -m object_detection_ext.tools.doctor --system

looks at the machine and the installation instead: versions, devices, oneDNN, CPU, memory, disk,
ffmpeg's libraries.

The exit status is 0 if nothing is wrong or there are warnings only, 1 with errors, and 2 if the
command line is wrong. `--json` prints the same for machines.
"""

import dataclasses
import functools
import os
import sys
from collections.abc import Sequence

from absl import app, flags

from object_detection_ext import command_line, errors, messages
from object_detection_ext.doctor import system

try:
    from object_detection_ext.conversion import jpeg
    from object_detection_ext.conversion.options import Options as Converter
    from object_detection_ext.doctor import contact_sheet, estimates, gathering
    from object_detection_ext.doctor.examination import ClipOptions, Examination
    from object_detection_ext.doctor.gathering import Inputs
except ImportError as error:
    if __name__ != "__main__":
        raise
    # Data cannot be looked at; the installation can.
    command_line.print_error(f"a library that the doctor needs is broken: {error}")
    system.run("--json" in sys.argv)
    sys.exit(1)

_DEFAULT_CLIP = ClipOptions(Converter.num_frames, Converter.fps, Converter.short_side)


def _check_sheet(path: str | None, count: int, inputs: Inputs) -> None:
    if path is None:
        return
    problems = []
    if not path.lower().endswith(".png"):
        problems.append(f"--contact_sheet {path!r} must end in .png")
    if not os.path.isdir(os.path.dirname(os.path.abspath(path))):
        problems.append(f"--contact_sheet {path!r}: there is no such folder")
    if inputs.videos is None or (inputs.annotations or inputs.val_annotations) is None:
        problems.append("--contact_sheet needs --videos and --annotations or --val_annotations")
    if count < 1:
        problems.append(f"--contact_sheet_keyframes must be at least 1, not {count}")
    if problems:
        raise errors.InputError("; ".join(problems) + ".")


def examine(inputs: Inputs, sheet: str | None = None, sheet_keyframes: int = 12):
    """Looks at everything that is given.

    Args:
      inputs: what to look at.
      sheet: where to write the contact sheet; None for none.
      sheet_keyframes: how many keyframes to show there.

    Returns:
      A `doctor.report.Report`.

    Raises:
      InputError: if the inputs cannot be meant so.
    """
    inputs.check()
    _check_sheet(sheet, sheet_keyframes, inputs)
    # Here, so that wrong options are told before TensorFlow is imported.
    from object_detection_ext.doctor import checks, report

    exam, found = gathering.gather(inputs, _DEFAULT_CLIP, messages.say)
    messages.say("checking")
    found += checks.run(exam)
    measured, shown = {}, None
    if exam.videos is not None and exam.splits:
        measured = estimates.estimate(exam, functools.partial(_make_encoder, exam))
        if sheet is not None:
            count = contact_sheet.write(sheet, exam, sheet_keyframes)
            shown = (sheet, count) if count else None
    return report.Report(
        clip=exam.clip,
        label_map=exam.label_map or {},
        splits=report.summarize(exam),
        findings=found,
        not_checked=checks.not_checked(exam),
        estimates=measured,
        contact_sheet=shown,
    )


def _make_encoder(exam: Examination) -> estimates.Encoder:
    return jpeg.JpegEncoder(exam.clip.short_side, Converter.jpeg_quality)


def define_flags(values: flags.FlagValues) -> None:
    """Defines the tool's options."""
    string = functools.partial(flags.DEFINE_string, default=None, flag_values=values)
    integer = functools.partial(flags.DEFINE_integer, default=None, flag_values=values)
    string("annotations", help="AVA-style CSV of the training.")
    string("val_annotations", help="AVA-style CSV of the validation.")
    string("label_map", help="Label map (pbtxt); default: that of the pipeline.config.")
    string("videos", help="Folder with the videos, named by id.")
    string("pipeline_config_path", help="The pipeline.config; its records are looked at too.")
    string("excluded_timestamps", help="CSV of validation keyframes that are not evaluated.")
    integer("num_frames", help="T; default: of the pipeline.config, else of create_ava_records.")
    flags.DEFINE_float(
        "fps",
        None,
        "Frames per second of the clips; default: of the pipeline.config or its records, else of "
        "create_ava_records.",
        flag_values=values,
    )
    integer("short_side", help="Of the records' frames; default: of create_ava_records.")
    flags.DEFINE_float(
        "box_tolerance",
        Inputs.box_tolerance,
        "How far outside of [0, 1] a box may reach to be cut off, as create_ava_records does.",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "sample_keyframes",
        Inputs.sample_keyframes,
        "Keyframes to decode of each video, to see that they can be.",
        flag_values=values,
    )
    flags.DEFINE_float(
        "every",
        None,
        "Seconds from one keyframe to the next that the converter's --every is to keep.",
        flag_values=values,
    )
    flags.DEFINE_float(
        "frames_fps",
        Inputs.frames_fps,
        "Frames per second of videos that are folders of numbered frames (ID/000001.jpg); 0: only "
        "files are videos.",
        flag_values=values,
    )
    string(
        "time_offset_seconds",
        help="What annotation times are ahead of times in the video files, as with films cut to "
        "AVA's minutes 15 to 30 (900): seconds, or a CSV of video_id,seconds.",
    )
    string("contact_sheet", help="PNG to write: keyframes with their boxes and actions.")
    flags.DEFINE_integer(
        "contact_sheet_keyframes", 12, "Keyframes on the contact sheet.", flag_values=values
    )
    flags.DEFINE_bool("json", False, "Print JSON.", flag_values=values)
    flags.DEFINE_bool(
        "system", False, "Look at the machine and the installation instead.", flag_values=values
    )


def _check_system_alone(values: flags.FlagValues) -> None:
    names = ("contact_sheet", *(field.name for field in dataclasses.fields(Inputs)))
    given = [f"--{name}" for name in names if values[name].present]
    if given:
        raise errors.InputError(f"--system looks at no data: leave out {', '.join(given)}.")


def main(argv: Sequence[str], values: flags.FlagValues = flags.FLAGS) -> None:
    options = {field.name: values[field.name].value for field in dataclasses.fields(Inputs)}
    with command_line.ending():
        if len(argv) > 1:
            raise errors.InputError(f"unexpected arguments: {' '.join(argv[1:])}")
        if values.system:
            _check_system_alone(values)
            sys.exit(system.run(values.json))
        result = examine(Inputs(**options), values.contact_sheet, values.contact_sheet_keyframes)
        from object_detection_ext.doctor import findings, report

        print(report.to_json(result) if values.json else report.to_text(result))
        if result.count(findings.ERROR):
            sys.exit(1)


def parse_flags(argv: Sequence[str]) -> list[str]:
    """Parses the command line; a wrong option ends with status 2, as 1 says that data is wrong."""
    try:
        return flags.FLAGS(argv)
    except flags.Error as error:
        command_line.print_error(error)
        sys.exit(2)


if __name__ == "__main__":
    define_flags(flags.FLAGS)
    app.run(main, flags_parser=parse_flags)
