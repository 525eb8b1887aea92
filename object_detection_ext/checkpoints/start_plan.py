# SPDX-License-Identifier: Apache-2.0
"""What a model takes over from a checkpoint when its training starts, from names and shapes alone.

Variables go by their names (see `model_variables`). The last layers have a column for each class:
K + 1 of the class layer, the background first; 4 K of a class-specific box layer, without
background. A class's columns are taken over by its name.

Shapes: K classes, F features of a person.
"""

import collections
import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence

from object_detection_ext import errors, listing
from object_detection_ext.checkpoints import class_names, differences

CLASSIFICATION, DETECTION, FULL = "classification", "detection", "full"

Shapes = differences.Shapes

TRUNK, TX_HEAD, I3D_HEAD = "trunk", "Tx head", "I3D head"
BOX_LAYER, CLASS_LAYER = "box layer", "class layer"
_PARTS = (
    (TRUNK, re.compile(r"model/_feature_extractor_for_proposal_features/")),
    ("RPN", re.compile(r"model/_first_stage_")),
    (I3D_HEAD, re.compile(r"model/_mask_rcnn_box_predictor/action_head/(i3d_head/)?tail/")),
    (TX_HEAD, re.compile(r"model/_mask_rcnn_box_predictor/action_head/")),
    (BOX_LAYER, re.compile(r"model/_mask_rcnn_box_predictor/_box_head/")),
    (CLASS_LAYER, re.compile(r"model/_mask_rcnn_box_predictor/_class_head/")),
    ("other", re.compile(r"")),
)
PART_NAMES = tuple(part for part, _ in _PARTS)
# The same layer under two heads, or at either side of the trunk's end.
_ALIASES = (
    (re.compile(r"/action_head/(tx_head|i3d_head)/"), "/action_head/"),
    (re.compile(r"^model/_feature_extractor_for_proposal_features/trunk/stages/_units/"), "stage/"),
    (re.compile(r"^model/_mask_rcnn_box_predictor/action_head/tail/_units/"), "stage/"),
)
_LAST_LAYERS = (BOX_LAYER, CLASS_LAYER)
_BOX_SIZE = 4
_MAX_OPTIONS = 3
_NOT_THERE = "not in the checkpoint"
_NO_CLASS = "the checkpoint has no class of the same name"
_NAMES_UNKNOWN = "the names of the classes are not known"


@dataclasses.dataclass(frozen=True)
class Copy:
    """Where a variable's numbers come from.

    Attributes:
        stored: name in the checkpoint.
        columns: (column in the model, column in the checkpoint) of the last axis; None: all of the
            variable, in place.
    """

    stored: str
    columns: tuple[tuple[int, int], ...] | None = None


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is taken over from a checkpoint.

    Attributes:
        wanted: the model's variables.
        stored: the checkpoint's.
        copies: by the model's name; what is not in it starts new.
        reasons: why variables start new, by the model's name; not with 'classification'.
        matched: which classes are the same, if the names of both are known.
    """

    wanted: Shapes
    stored: Shapes
    copies: Mapping[str, Copy]
    reasons: Mapping[str, str]
    matched: class_names.ClassMatch | None = None

    def is_partial(self, name: str) -> bool:
        """Whether only some columns of a variable are taken over."""
        copy = self.copies.get(name)
        columns = copy.columns if copy else None
        return columns is not None and len(columns) < self.wanted[name][-1]


def part_of(name: str) -> str:
    """The part of the model that a variable belongs to."""
    return next(part for part, pattern in _PARTS if pattern.match(name))


def num_classes(shapes: Shapes) -> int | None:
    """K of a model of these variables; None if it has no class layer."""
    biases = [s for name, s in shapes.items() if part_of(name) == CLASS_LAYER and len(s) == 1]
    return biases[0][0] - 1 if len(biases) == 1 else None


def of_trunk(wanted: Shapes) -> Plan:
    """All of the trunk and its tail, for 'classification': the checkpoint was seen to fit.

    Args:
        wanted: the model's variables.
    """
    stored = {name: s for name, s in wanted.items() if part_of(name) in (TRUNK, I3D_HEAD)}
    return Plan(wanted, stored, {name: Copy(name) for name in stored}, {})


def of_everything(
    wanted: Shapes,
    stored: Shapes,
    model: class_names.ClassNames,
    checkpoint: class_names.ClassNames,
) -> Plan:
    """Everything, for 'full'; classes by name, or by id if their names are not known.

    Raises:
        errors.InputError: the variables are not those of the model, with their shapes.
    """
    _check_equal(wanted, stored)
    copies = {name: Copy(name) for name in wanted}
    if checkpoint.unknown or model.unknown:
        return Plan(wanted, stored, copies, {})
    matched = class_names.match(model, checkpoint)
    reasons: dict[str, str] = {}
    for layer in _layers(wanted):
        found = {name: name for name in layer}
        if _has_classes(layer, found, wanted, stored):
            taken = _class_columns(layer, found, matched)
            reasons |= dict.fromkeys((name for name in layer if name not in taken), _NO_CLASS)
            copies = {name: copy for name, copy in copies.items() if name not in layer} | taken
    return Plan(wanted, stored, copies, reasons, matched)


def of_what_fits(
    wanted: Shapes,
    stored: Shapes,
    model: class_names.ClassNames,
    checkpoint: class_names.ClassNames,
) -> Plan:
    """What fits, for 'detection'.

    A layer is taken over as a whole or not at all: the bias of a new kernel means nothing. The
    last layers are taken over by the names of their classes, and only if they get the features of
    the same kind of head.

    Raises:
        errors.InputError: the trunk is of another network.
    """
    by_alias = {_alias(name): name for name in stored}
    sources = {name: by_alias[_alias(name)] for name in wanted if _alias(name) in by_alias}
    _check_trunk(wanted, stored, sources)
    known = not (checkpoint.unknown or model.unknown)
    matched = class_names.match(model, checkpoint) if known else None
    copies: dict[str, Copy] = {}
    reasons: dict[str, str] = {}
    for layer in _layers(wanted):
        found = {name: sources[name] for name in layer if name in sources}
        why = _why_not(layer, found, wanted, stored)
        if why is None and _has_classes(layer, found, wanted, stored):
            taken = _class_columns(layer, found, matched) if matched else {}
            why = _NO_CLASS if matched else _NAMES_UNKNOWN
        elif why is None:
            taken = {name: Copy(found[name]) for name in layer}
        else:
            taken = {}
        copies |= taken
        reasons |= dict.fromkeys((name for name in layer if name not in taken), why)
    return Plan(wanted, stored, copies, reasons, matched)


def _alias(name: str) -> str:
    """One name for a layer that stands in several places, see `_ALIASES`."""
    for pattern, alias in _ALIASES:
        name = pattern.sub(alias, name)
    return name


def _layers(names: Iterable[str]) -> list[list[str]]:
    """The variables of each layer: kernel and bias, or those of a batch norm."""
    layers = collections.defaultdict(list)
    for name in sorted(names):
        layers[name.rpartition("/")[0]].append(name)
    return list(layers.values())


def _has_classes(
    layer: Sequence[str], found: Mapping[str, str], wanted: Shapes, stored: Shapes
) -> bool:
    """Whether a layer has columns for classes, here or in the checkpoint."""
    part = part_of(layer[0])
    if part == BOX_LAYER:
        return {wanted[n][-1] for n in layer} | {stored[n][-1] for n in found.values()} != {
            _BOX_SIZE
        }
    return part == CLASS_LAYER


def _class_columns(
    layer: Sequence[str],
    found: Mapping[str, str],
    matched: class_names.ClassMatch,
) -> dict[str, Copy]:
    """Copies of the columns of the classes that a checkpoint has too; none if there are none."""
    if not matched.pairs:
        return {}
    if part_of(layer[0]) == CLASS_LAYER:
        columns = [(0, 0), *matched.pairs]  # background, then each class at its id
    else:
        columns = [
            (_BOX_SIZE * (new - 1) + number, _BOX_SIZE * (old - 1) + number)
            for new, old in matched.pairs
            for number in range(_BOX_SIZE)
        ]
    return {name: Copy(found[name], tuple(columns)) for name in layer}


def _why_not(
    layer: Sequence[str], found: Mapping[str, str], wanted: Shapes, stored: Shapes
) -> str | None:
    """Why a layer is not taken over; None if it is, or if its classes decide."""
    if len(found) < len(layer):
        return _NOT_THERE
    part = part_of(layer[0])
    if part in _LAST_LAYERS and feature_kind(part, wanted) != feature_kind(part, stored):
        return (
            f"it gets the features of the {feature_kind(part, wanted)}, in the checkpoint those "
            f"of the {feature_kind(part, stored)}"
        )
    has_classes = _has_classes(layer, found, wanted, stored)
    for name, source in found.items():
        new, old = wanted[name], stored[source]
        if has_classes:
            same = new[:-1] == old[:-1] and _is_of_classes(part, new, wanted, old, stored)
        else:
            same = new == old
        if not same:
            return f"{name.rpartition('/')[2]} {list(old)} in the checkpoint, {list(new)} here"
    return None


def _is_of_classes(part: str, new, wanted: Shapes, old, stored: Shapes) -> bool:
    """Whether both variables have their columns for each class."""
    if part == CLASS_LAYER:
        return True
    return all(
        shape[-1] == _BOX_SIZE * (num_classes(model) or 0)
        for shape, model in ((new, wanted), (old, stored))
    )


def feature_kind(last_layer: str, shapes: Shapes) -> str:
    """The head whose features one of the last layers gets (Table 3 of the paper)."""
    parts = {part_of(name) for name in shapes}
    first, second = (TX_HEAD, I3D_HEAD) if last_layer == CLASS_LAYER else (I3D_HEAD, TX_HEAD)
    return first if first in parts else second


def _check_trunk(wanted: Shapes, stored: Shapes, sources: Mapping[str, str]) -> None:
    trunk = {name: shape for name, shape in wanted.items() if part_of(name) == TRUNK}
    found = {name: stored[sources[name]] for name in trunk if name in sources}
    differing = differences.between(trunk, found)
    if differing.reshaped or (trunk and not found):
        raise errors.InputError(
            "its trunk is of another network, and all else depends on it: see "
            "feature_extractor.type, trunk.depth_multiplier and trunk.final_endpoint.\n"
            + "\n".join(differing.lines())
        )


def _check_equal(wanted: Shapes, stored: Shapes) -> None:
    differing = differences.between(wanted, stored)
    if not differing:
        return
    options = [f"{name} is {new} here and {old} in it" for name, old, new in differing.options()]
    causes = f" ({listing.in_line(options, _MAX_OPTIONS)})" if options else ""
    lines = "\n".join(differing.lines())
    raise errors.InputError(
        f"it is of another model{causes}, but fine_tune_checkpoint_type '{FULL}' takes over "
        f"everything. Set '{DETECTION}' to take over what fits.\n{lines}"
    )
