# SPDX-License-Identifier: Apache-2.0
"""The text of a pipeline.config and of what is merged into it: read, parsed, its errors explained.

Errors name the file, line and column, show the line, and suggest the nearest name that exists.
"""

import difflib
import os
import re
from collections.abc import Iterable

import tensorflow as tf
from google.protobuf import text_format
from object_detection.protos import pipeline_pb2

from object_detection_ext import files, printable
from object_detection_ext.pipeline_check import PipelineError

_POOL = pipeline_pb2.TrainEvalPipelineConfig.DESCRIPTOR.file.pool
_MAX_LINE = 100

# Messages of the text format's parser.
_NO_FIELD = re.compile(r'Message type "(?P<type>[^"]+)" has no field named "(?P<name>[^"]+)"')
_NO_EXTENSION = re.compile(r'Extension "(?P<name>[^"]+)" not registered')
_NO_VALUE = re.compile(
    r'Enum type "(?P<type>[^"]+)" has no value (named|with number) (?P<name>\S+)\.$'
)


def read(path: str, what: str = "pipeline.config") -> str:
    """Reads a text file.

    Args:
        path: local, or what TensorFlow can read.
        what: the file is, for messages.

    Raises:
        PipelineError: there is no such file, or it is not text in UTF-8.
    """
    if not files.exists(path):
        raise PipelineError(f"There is no {what} at '{path}'.{_beside(path)}")
    if tf.io.gfile.isdir(path):
        raise PipelineError(f"{path}: a folder, but the {what} must be a file.")
    try:
        with tf.io.gfile.GFile(path, "r") as file:
            text = file.read()
    except (UnicodeDecodeError, tf.errors.OpError) as error:
        raise PipelineError(f"{path}: not a readable text file: {error}") from error
    if "\0" in text:
        raise PipelineError(f"{path}: not a text file: it has zero bytes.")
    return text


def _beside(path: str) -> str:
    """A file of a similar name in the same folder, as a sentence."""
    folder, name = os.path.split(path)
    if not files.is_local(path) or not os.path.isdir(folder or "."):
        return ""
    close = difflib.get_close_matches(name, os.listdir(folder or "."), n=1)
    return f" Did you mean '{os.path.join(folder, close[0])}'?" if close else ""


def merge(
    source: str, text: str, pipeline: pipeline_pb2.TrainEvalPipelineConfig
) -> pipeline_pb2.TrainEvalPipelineConfig:
    """Merges a text into a pipeline: of two values the later one holds, lists get longer.

    Args:
        source: path of the text's file, or what else it is called in messages.
        text: of a pipeline, or a part of one.
        pipeline: is changed.

    Raises:
        PipelineError: with source, line and column.
    """
    try:
        return text_format.Merge(text, pipeline)
    except text_format.ParseError as error:
        raise PipelineError(describe_parse_error(source, text, error)) from error


def parse(source: str, text: str) -> pipeline_pb2.TrainEvalPipelineConfig:
    """The pipeline, or the part of one, that a text is; what it says twice is an error.

    Args:
        source: as in `merge`.
        text: as in `merge`.

    Raises:
        PipelineError: with source, line and column.
    """
    try:
        return text_format.Parse(text, pipeline_pb2.TrainEvalPipelineConfig())
    except text_format.ParseError as error:
        raise PipelineError(describe_parse_error(source, text, error)) from error


def describe_parse_error(source: str, text: str, error: text_format.ParseError) -> str:
    """An error of the text format's parser for people.

    Args:
        source: path of the text's file, or what else it is called.
        text: that was parsed.
        error: knows line and column only.

    Returns:
        Source, line and column, what is wrong, the nearest name that exists, and the line.
    """
    number, column = error.GetLine(), error.GetColumn()
    line = "".join(text.split("\n")[number - 1 : number]) if number else ""
    where = source if number is None else f"{source}:{number}:{column}"
    message = str(error).removeprefix(f"{number}:{column} : ").removeprefix(f"'{line}': ")
    words = printable.in_one_line(_in_words(message))
    shown = f"\n    {printable.in_one_line(line.strip()[:_MAX_LINE])}" if line.strip() else ""
    return (
        f"{where}: {words}{shown}\n(Our options are described in "
        "protos/video_action_transformer.proto, the stock ones in object_detection/protos.)"
    )


def _in_words(message: str) -> str:
    """The parser's message; where a name is unknown, with the nearest one."""
    if match := _NO_FIELD.search(message):
        known = _names_of_fields(match["type"])
        what = f"{_short(match['type'])} has no field '{match['name']}'."
        return what + _nearest(match["name"], known)
    if match := _NO_EXTENSION.search(message):
        known = _names_of_extensions(pipeline_pb2.TrainEvalPipelineConfig.DESCRIPTOR.full_name)
        what = f"there is no extension [{match['name']}]."
        return what + _nearest(f"[{match['name']}]", known, always=True)
    if match := _NO_VALUE.search(message):
        known = _POOL.FindEnumTypeByName(match["type"]).values_by_name
        what = f"{_short(match['type'])} has no value {match['name']}."
        return what + _nearest(match["name"], known, always=True)
    return message


def _short(full_name: str) -> str:
    return full_name.rpartition(".")[2]


def _names_of_fields(message_type: str) -> list[str]:
    fields = list(_POOL.FindMessageTypeByName(message_type).fields_by_name)
    return fields + _names_of_extensions(message_type)


def _names_of_extensions(message_type: str) -> list[str]:
    message = _POOL.FindMessageTypeByName(message_type)
    return [f"[{extension.full_name}]" for extension in _POOL.FindAllExtensions(message)]


def _nearest(name: str, known: Iterable[str], *, always: bool = False) -> str:
    """Names that one may have meant, as a sentence; all that there are, if `always` and none is."""
    by_short = {_short(entry.strip("[]")).lower(): entry for entry in known}
    short = _short(name.strip("[]")).lower()
    close = difflib.get_close_matches(short, by_short, n=3)
    if close:
        return f" Did you mean {' or '.join(by_short[each] for each in close)}?"
    return f" There are: {', '.join(by_short.values())}." if always else ""
