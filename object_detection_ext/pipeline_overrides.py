# SPDX-License-Identifier: Apache-2.0
"""What is merged into a pipeline.config: files of `--config_override_path`, `--config_override`.

Each is text of a `TrainEvalPipelineConfig`. The order is: the pipeline.config, the files in the
order of the command line, then `--config_override`. Of two values the later one holds; entries of
repeated fields are added to those that are there; of the members of a oneof, such as the heads, the
later one takes the place of the earlier one with all its fields. What each changes is printed.
"""

import dataclasses
import io
from collections.abc import Callable, Iterator, Sequence

from absl import flags
from google.protobuf import message as protobuf_message
from google.protobuf import text_format
from object_detection.protos import pipeline_pb2

from object_detection_ext import listing, messages, pipeline_text, printable
from object_detection_ext.pipeline_check import PipelineError

FLAG = "config_override_path"
TEXT_SOURCE = "override of the pipeline.config"
_WHAT = "override file"
# Editors on Windows write it.
_BYTE_ORDER_MARK = "\ufeff"
_MAX_SHOWN = 30
_MAX_VALUE = 80


@dataclasses.dataclass(frozen=True)
class _Source:
    """One text that is merged: where it comes from, for messages, and what it says."""

    name: str
    text: str


def define_flag(values: flags.FlagValues = flags.FLAGS) -> flags.FlagHolder[list[str]]:
    """Defines `--config_override_path`, for each program that has `--config_override`."""
    return flags.DEFINE_multi_string(
        FLAG,
        [],
        "File with text proto that is merged into the pipeline.config, before --config_override. "
        "Given several times, the files are merged in that order.",
        flag_values=values,
    )


def combined(
    pipeline_path: str,
    override_paths: Sequence[str],
    override: str | None,
    say: Callable[[str], None] = messages.say,
) -> str | None:
    """One override of all; prints what each changes.

    Args:
        pipeline_path: of the pipeline.config.
        override_paths: of the files, in their order.
        override: text proto, merged last.
        say: prints a line.

    Returns:
        What stock functions take as `config_override`; None if there is nothing.

    Raises:
        PipelineError: a file is missing, is not text, does not parse, names what does not exist or
            says something twice; with file, line and column. Or the pipeline.config does.
    """
    sources = [_read(path) for path in override_paths]
    if override:
        sources.append(_Source(TEXT_SOURCE, override))
    if not sources:
        return None
    pipeline = pipeline_pb2.TrainEvalPipelineConfig()
    pipeline_text.merge(pipeline_path, pipeline_text.read(pipeline_path), pipeline)
    for source in sources:
        before = pipeline_pb2.TrainEvalPipelineConfig()
        before.CopyFrom(pipeline)
        pipeline_text.merge(source.name, source.text, pipeline)
        for line in changes(source.name, pipeline_path, before, pipeline):
            say(line)
    return "\n".join(source.text for source in sources)


def _read(path: str) -> _Source:
    try:
        text = pipeline_text.read(path, _WHAT).removeprefix(_BYTE_ORDER_MARK)
    except PipelineError as error:
        if "," in path:
            raise PipelineError(f"{error} (Several files: give --{FLAG} once for each.)") from error
        raise
    # In itself a file says each thing once: two heads in one file are a mistake.
    pipeline_text.parse(path, text)
    return _Source(path, text)


def changes(
    source: str,
    pipeline_path: str,
    before: pipeline_pb2.TrainEvalPipelineConfig,
    after: pipeline_pb2.TrainEvalPipelineConfig,
) -> list[str]:
    """What a merge has changed, in lines: each field with its old and its new value, counted.

    Args:
        source: what was merged.
        pipeline_path: what it was merged into.
        before: the pipeline without it.
        after: the pipeline with it.
    """
    old, new = _flattened(before), _flattened(after)
    fields = [*_changed(old, new)]
    dropped = [*_dropped(old, new)]
    if not fields and not dropped:
        return [f"override: {source} changes nothing in {pipeline_path}"]
    count = listing.counted(len(fields), "field")
    lines = [f"override: {source} changes {count} of {pipeline_path}:"]
    lines += listing.in_lines(fields, _MAX_SHOWN)
    lines += [f"warning: {source}: {text}" for text in dropped]
    return [printable.in_one_line(line) for line in lines]


@dataclasses.dataclass(frozen=True)
class _Node:
    """What stands at the path of a field: one value, the entries of a list, or a message.

    `values` are texts; a message has none, as its fields have paths of their own. `default` is the
    text of a single value's default. `oneof` is the path of the oneof that the field belongs to.
    """

    values: tuple[str, ...]
    is_list: bool = False
    is_message: bool = False
    default: str = ""
    oneof: str = ""


def _flattened(message: protobuf_message.Message, prefix: str = "") -> dict[str, _Node]:
    """Every field that is set, by its path."""
    nodes = {}
    for field, value in message.ListFields():
        path = prefix + (f"[{field.full_name}]" if field.is_extension else field.name)
        oneof = f"{prefix}{field.containing_oneof.name}" if field.containing_oneof else ""
        if field.label == field.LABEL_REPEATED:
            entries = value.items() if hasattr(value, "items") else value
            nodes[path] = _Node(tuple(_text(field, entry) for entry in entries), is_list=True)
        elif field.cpp_type == field.CPPTYPE_MESSAGE:
            nodes[path] = _Node((), is_message=True, oneof=oneof)
            nodes |= _flattened(value, f"{path}.")
        else:
            default = _text(field, field.default_value)
            nodes[path] = _Node((_text(field, value),), default=default, oneof=oneof)
    return nodes


def _text(field, value) -> str:
    """A value as a pipeline.config has it, cut where it is long."""
    if isinstance(value, tuple):  # of a map: key and value
        return ": ".join(map(str, value))
    stream = io.StringIO()
    text_format.PrintFieldValue(field, value, stream, as_utf8=True, as_one_line=True)
    text = stream.getvalue().strip()
    return text if len(text) <= _MAX_VALUE else f"{text[:_MAX_VALUE]} ..."


def _changed(old: dict[str, _Node], new: dict[str, _Node]) -> Iterator[str]:
    """Fields that have another value, or that are new, with both values."""
    for path, node in new.items():
        before = old.get(path)
        if before == node:
            continue
        if node.is_message:
            is_empty = not any(other.startswith(f"{path}.") for other in new)
            if is_empty:
                yield f"{path}: not set -> {{ }}"
        elif node.is_list:
            entries = () if before is None else before.values
            added = node.values[len(entries) :]
            yield f"{path}: {len(entries)} before, {len(added)} added: {listing.in_line(added, 3)}"
        else:
            was = before.values[0] if before else f"not set (default {node.default})"
            yield f"{path}: {was} -> {node.values[0]}"


def _dropped(old: dict[str, _Node], new: dict[str, _Node]) -> Iterator[str]:
    """Members of a oneof that another member has replaced, with what they said."""
    for path, node in old.items():
        takers = [other for other, candidate in new.items() if candidate.oneof == node.oneof]
        if not node.oneof or path in new or not takers:
            continue
        said = [
            f"{other.removeprefix(path + '.')}: {', '.join(inner.values)}"
            for other, inner in old.items()
            if other.startswith(f"{path}.") and not inner.is_message
        ]
        lost = (
            f"; {listing.counted(len(said), 'field')} dropped: {listing.in_line(said)}"
            if said
            else ""
        )
        yield f"{takers[0]} takes the place of {path}{lost}"
