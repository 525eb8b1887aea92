# SPDX-License-Identifier: Apache-2.0
"""What a training starts from, as a short table by part of the model."""

import collections
from collections.abc import Iterator, Sequence

from object_detection_ext import listing
from object_detection_ext.checkpoints import class_names, start_plan

_COLUMNS = ("restored", "in part", "new", "not used")
_MAX_LAYERS = 4


def text(
    plan: start_plan.Plan,
    path: str,
    kind: str,
    model: class_names.ClassNames | None = None,
    checkpoint: class_names.ClassNames | None = None,
) -> str:
    """The table, and sentences about classes and new layers.

    Args:
        plan: what is taken over.
        path: of the checkpoint.
        kind: the `fine_tune_checkpoint_type`.
        model: names of the model's classes; None with 'classification'.
        checkpoint: those of the checkpoint's.
    """
    lines = [
        f"Training starts from {path!r} (fine_tune_checkpoint_type '{kind}'). Variables:",
        *_table(plan),
    ]
    if model is not None and checkpoint is not None:
        lines += _classes(plan, kind, model, checkpoint)
    if kind == start_plan.DETECTION:
        lines += _new_layers(plan)
    return "\n".join(lines)


def _table(plan: start_plan.Plan) -> Iterator[str]:
    counts: dict[str, collections.Counter] = collections.defaultdict(collections.Counter)
    for name in plan.wanted:
        column = "restored" if name in plan.copies else "new"
        counts[start_plan.part_of(name)]["in part" if plan.is_partial(name) else column] += 1
    used = {copy.stored for copy in plan.copies.values()}
    for name in plan.stored:
        if name not in used:
            counts[start_plan.part_of(name)]["not used"] += 1
    rows = [("part", *_COLUMNS)]
    for part in start_plan.PART_NAMES:
        if part in counts:
            rows.append((part, *(str(counts[part][column]) for column in _COLUMNS)))
    total = sum(counts.values(), collections.Counter())
    rows.append(("all", *(str(total[column]) for column in _COLUMNS)))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for first, *numbers in rows:
        cells = (number.rjust(width) for number, width in zip(numbers, widths[1:], strict=True))
        yield f"  {first.ljust(widths[0])}  " + "  ".join(cells)


def _classes(
    plan: start_plan.Plan,
    kind: str,
    model: class_names.ClassNames,
    checkpoint: class_names.ClassNames,
) -> Iterator[str]:
    matched = plan.matched
    if matched is None:
        yield _unknown_classes(kind, model, checkpoint)
        return
    why = [
        reason
        for name, reason in plan.reasons.items()
        if start_plan.part_of(name) == start_plan.CLASS_LAYER
    ]
    if why and matched.pairs:
        yield f"Classes: none is taken over, as the class layer starts new: {why[0]}."
        return
    counts = [f"{len(matched.pairs)} taken over"]
    counts += [f"{len(names)} {what}{_named(names)}" for what, names in _differing(matched)]
    yield f"Classes by name: {', '.join(counts)}."
    yield f"  In the checkpoint: {checkpoint.source!r}. In this training: {model.source!r}."
    dropped = {_plain(name): name for name in matched.dropped}
    close = [f"{n!r} and {dropped[_plain(n)]!r}" for n in matched.new if _plain(n) in dropped]
    if close:
        close_names = listing.in_line(close)
        yield f"  Names that are almost the same count as different: {close_names}."


def _differing(matched: class_names.ClassMatch) -> tuple[tuple[str, Sequence[str]], ...]:
    return ("new", matched.new), ("dropped", matched.dropped)


def _unknown_classes(
    kind: str, model: class_names.ClassNames, checkpoint: class_names.ClassNames
) -> str:
    if kind == start_plan.FULL:
        done = "Classes: all taken over by their ids, not by name"
    else:
        done = "Classes: none is taken over, all start new"
    if checkpoint.unknown:
        return (
            f"{done}: the names in the checkpoint are not known: {checkpoint.unknown}. To match "
            f"classes by name, put the label map that it was trained with beside it, as "
            f"{class_names.KEPT_LABEL_MAP}."
        )
    return f"{done}: the names in this training are not known: {model.unknown}."


def _plain(name: str) -> str:
    """A name without case and spaces."""
    return "".join(name.casefold().split())


def _new_layers(plan: start_plan.Plan) -> Iterator[str]:
    """The layers that start new, and why, by part."""
    layers: dict[tuple[str, str], dict[str, None]] = collections.defaultdict(dict)
    for name, reason in plan.reasons.items():
        layers[start_plan.part_of(name), reason][_layer(name)] = None
    for part in start_plan.PART_NAMES:
        for (of_part, reason), names in layers.items():
            if of_part != part:
                continue
            if part in (start_plan.BOX_LAYER, start_plan.CLASS_LAYER):
                yield f"New: the {part} ({reason})."
            else:
                yield f"New in the {part}: {listing.in_line(list(names), _MAX_LAYERS)} ({reason})."


def _layer(name: str) -> str:
    """A layer's name without the part of the model, such as `units/1/0/query_projection`."""
    layer = name.rpartition("/")[0]
    for start in ("/_units/", "/action_head/", "/_prediction_heads/", "model/"):
        if start in layer:
            return layer.partition(start)[2].replace(".S", "/")
    return layer


def _named(names: Sequence[str]) -> str:
    return f" ({listing.in_line([repr(name) for name in names])})" if names else ""
