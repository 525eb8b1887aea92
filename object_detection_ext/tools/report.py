# SPDX-License-Identifier: Apache-2.0
r"""Writes one HTML file about an evaluation, which needs no network and no other file.

    python -m object_detection_ext.tools.report --groundtruth G.csv --detections D.csv \
        --labelmap L.pbtxt --output report.html [--train_annotations T.csv] [--videos DIR] \
        [--attention DIR] [--pipeline_config_path C] [--bootstrap 1000] [--tubes general]

It has the figures with the rules they were computed by, the breakdowns of
`evaluation.breakdowns` as plots and tables, each class's surest right and wrong detections with
pictures from the videos, pictures of attention, the pipeline.config and the model summary, with
--tubes also video-AP of action tubes. All but the first three files and the output may be left out.
"""

import dataclasses
import os
from collections.abc import Sequence

from absl import app, flags

from object_detection_ext import command_line, errors, files, rates
from object_detection_ext.ava import box_range, time_offsets
from object_detection_ext.evaluation import breakdowns, protocols, tube_protocols, video_ap
from object_detection_ext.report import examples, page, pictures, sections, tube_section

_MOST_ATTENTION_PICTURES = 40
_FILES = (
    "groundtruth",
    "detections",
    "labelmap",
    "train_annotations",
    "excluded_timestamps",
    "pipeline_config_path",
)


@dataclasses.dataclass(frozen=True)
class Options:
    """What to report on; files and folders, empty for none."""

    groundtruth: str
    detections: str
    labelmap: str
    output: str
    train_annotations: str = ""
    excluded_timestamps: str = ""
    videos: str = ""
    attention: str = ""
    pipeline_config_path: str = ""
    title: str = "Action detection report"
    protocol: str = protocols.ACTIVITYNET.name
    bootstrap: int = 0
    seed: int = 0
    examples: int = 3
    tubes: str = ""
    box_tolerance: float | None = box_range.BOX_TOLERANCE
    frames_fps: float = 0.0
    time_offset_seconds: str = ""

    def check(self) -> None:
        """Raises InputError for numbers out of range, and files and folders that are none."""
        if self.examples < 0:
            raise errors.InputError(f"--examples must be at least 0, not {self.examples}.")
        if self.box_tolerance is not None:
            box_range.check_tolerance(self.box_tolerance)
        rates.check(rates.fps_faults("--frames_fps", self.frames_fps, rates.NO_FOLDERS))
        time_offsets.read(self.time_offset_seconds)
        for name in ("videos", "attention"):
            folder = getattr(self, name)
            if folder and not os.path.isdir(folder):
                raise errors.InputError(f"--{name} {folder!r}: there is no such folder.")
        for name in _FILES:
            path = getattr(self, name)
            if path and not os.path.isfile(path):
                raise errors.InputError(f"--{name} {path!r}: there is no such file.")


def make(options: Options) -> str:
    """The report as HTML.

    Raises:
      ValueError: for unusable options or files; the message says which and why.
      OSError: where a file cannot be opened.
    """
    options.check()
    tubes = _tubes(options)
    result = breakdowns.break_down_files(
        options.labelmap,
        options.groundtruth,
        options.detections,
        train_annotations=options.train_annotations or None,
        excluded_timestamps=options.excluded_timestamps or None,
        protocol=protocols.by_name(options.protocol),
        resamples=options.bootstrap,
        seed=options.seed,
        box_tolerance=options.box_tolerance,
        report=_say,
    )
    parts = [
        sections.classes(result),
        sections.bins(result),
        sections.errors(result),
        sections.confusion(result),
        *([tube_section.tubes(tubes)] if tubes else []),
        *_example_sections(result, options),
        *_attention_section(options),
        *_model_section(options),
        sections.rules(result),
    ]
    # Both evaluations look at the same files; what they say alike is said once.
    warnings = dict.fromkeys((*result.warnings, *(tubes.warnings if tubes else ())))
    top = [sections.tiles(result), sections.warnings(tuple(warnings))]
    return page.render(options.title, _sources(options), top, parts)


def _tubes(options: Options) -> video_ap.TubeResult | None:
    if not options.tubes:
        return None
    return video_ap.evaluate_files(
        options.labelmap,
        options.groundtruth,
        options.detections,
        options.excluded_timestamps or None,
        _say,
        protocol=tube_protocols.by_name(options.tubes),
        box_tolerance=options.box_tolerance,
    )


def _say(line: str) -> None:
    print(line, flush=True)


def _sources(options: Options) -> list[tuple[str, str]]:
    named = (
        ("Ground truth", options.groundtruth),
        ("detections", options.detections),
        ("label map", options.labelmap),
        ("training annotations", options.train_annotations),
        ("excluded timestamps", options.excluded_timestamps),
        ("videos", options.videos),
    )
    return [(what, path) for what, path in named if path]


def _example_sections(result: breakdowns.Breakdowns, options: Options) -> list[sections.Section]:
    if not options.examples:
        return []
    chosen = examples.choose(result.matching, options.examples)
    made = None
    if options.videos:
        wanted = [example for _, right, wrong in chosen for example in (*right, *wrong)]
        offsets = time_offsets.read(options.time_offset_seconds)
        offsets.check(example.video for example in wanted)
        made = pictures.cut(wanted, options.videos, _say, options.frames_fps, offsets)
        for note in made.notes:
            _say(f"warning: {note}")
    return [sections.top_predictions(chosen, made), sections.confident_errors(chosen, made)]


def _attention_section(options: Options) -> list[sections.Section]:
    if not options.attention:
        return []
    found, notes = pictures.read_folder(options.attention, _MOST_ATTENTION_PICTURES)
    for note in notes:
        _say(f"warning: {note}")
    return [sections.attention(found, notes)]


def _model_section(options: Options) -> list[sections.Section]:
    path = options.pipeline_config_path
    if not path:
        return []
    _say(f"report: building the graph of {path}, for its summary")
    # TensorFlow takes seconds to start, and only this section needs it.
    from object_detection_ext.tools import model_summary

    with open(path, encoding="utf-8") as file:
        config = file.read()
    try:
        summary = model_summary.to_text(model_summary.summarize(path))
    except errors.InputError as error:
        summary = f"There is no summary of the model. {error}"
        _say(f"warning: {summary}")
    return [sections.model(path, config, summary)]


def run(options: Options) -> None:
    """Writes the report. Raises what `make` raises."""
    text = make(options)
    folder = os.path.dirname(options.output)
    if folder:
        os.makedirs(folder, exist_ok=True)
    files.write_text(options.output, text)
    _say(f"report: {options.output}, {len(text.encode()) / 1e6:.1f} MB; any browser opens it")


def define_flags(values: flags.FlagValues) -> None:
    """Defines the tool's options."""
    texts = {
        "groundtruth": "Ground truth (CSV in AVA's form).",
        "detections": "Detections (CSV in AVA's form, with scores).",
        "labelmap": "Label map (pbtxt).",
        "output": "The HTML file to write.",
        "train_annotations": "Training annotations (CSV); classes are sorted by their counts.",
        "excluded_timestamps": "Frames to leave out (CSV of video_id,timestamp).",
        "videos": "Folder of the videos, named by their ids, for pictures.",
        "attention": "Folder of PNGs that tools.visualize wrote.",
        "pipeline_config_path": "The model's pipeline.config.",
        "title": "Title of the page.",
        "time_offset_seconds": "What the ground truth's times are ahead of times in the video "
        "files, as with films cut to AVA's minutes 15 to 30 (900): seconds, or a CSV of "
        "video_id,seconds. For pictures; the detections have the ground truth's times, as "
        "detect_video --keyframes writes them.",
    }
    defaults = {field.name: field.default for field in dataclasses.fields(Options)}
    for name, text in texts.items():
        required = defaults[name] is dataclasses.MISSING
        flags.DEFINE_string(
            name, None if required else defaults[name], text, required=required, flag_values=values
        )
    flags.DEFINE_enum(
        "protocol", Options.protocol, list(protocols.PROTOCOLS), "Whose rules.", flag_values=values
    )
    flags.DEFINE_enum(
        "tubes",
        Options.tubes,
        ["", *tube_protocols.TUBE_PROTOCOLS],
        "Link detections to tubes and evaluate them by these rules; the ground truth needs person "
        "ids. By default there are no tubes.",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "bootstrap", Options.bootstrap, "Resamples for intervals; 0: none.", flag_values=values
    )
    flags.DEFINE_integer("seed", Options.seed, "Of the bootstrap.", flag_values=values)
    flags.DEFINE_string(
        "box_tolerance",
        f"{Options.box_tolerance:g}",
        f"{box_range.TOLERANCE_HELP.capitalize()}.",
        flag_values=values,
    )
    flags.DEFINE_float(
        "frames_fps",
        Options.frames_fps,
        "Frames per second of videos that are folders of numbered frames (ID/000001.jpg); 0: only "
        "files are videos.",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "examples", Options.examples, "Right and wrong ones of each class.", flag_values=values
    )


def main(argv: Sequence[str], values: flags.FlagValues = flags.FLAGS) -> None:
    if len(argv) > 1:
        raise app.UsageError(f"Unexpected arguments: {argv[1:]}")
    options = {field.name: values[field.name].value for field in dataclasses.fields(Options)}
    with command_line.ending(ValueError):
        options["box_tolerance"] = box_range.read_tolerance(options["box_tolerance"])
        run(Options(**options))


if __name__ == "__main__":
    define_flags(flags.FLAGS)
    app.run(main)
