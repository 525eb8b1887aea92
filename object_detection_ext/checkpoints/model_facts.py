# SPDX-License-Identifier: Apache-2.0
"""What the variables of a model say about the options that it was built with."""

import re
from collections.abc import Iterator, Mapping

Shapes = Mapping[str, tuple[int, ...]]
_TRUNK = "model/_feature_extractor_for_proposal_features/trunk/stages/_units/"
_RPN = "model/_first_stage_box_predictor"
_PREDICTOR = "model/_mask_rcnn_box_predictor/"
_HEAD = f"{_PREDICTOR}action_head/"
_BOX_SIZE = 4
_TX_UNIT = re.compile(r"units/(\d+)/(\d+)/")
# Whose channels depend on the depth multiplier alone.
_MEASURED_LAYERS = ("Conv3d_2c_3x3", "res2.Sblock_0/shortcut")
# The stage in the name of an I3D layer: "3b" of "Mixed_3b", "1a" of "Conv3d_1a_7x7".
_I3D_STAGE = re.compile(r"_(\d[a-z])")


def of(shapes: Shapes) -> dict[str, str]:
    """The options that can be read off a model's variables, most telling first.

    Args:
        shapes: of the variables, by name.
    """
    return dict(_facts(shapes))


def _facts(shapes: Shapes) -> Iterator[tuple[str, str]]:
    yield from _trunk_facts(shapes)
    yield from _head_facts(shapes)
    yield from _predictor_facts(shapes)


def _trunk_facts(shapes: Shapes) -> Iterator[tuple[str, str]]:
    trunk = {name.removeprefix(_TRUNK): s for name, s in shapes.items() if name.startswith(_TRUNK)}
    if not trunk:
        return
    yield "feature_extractor.type", _trunk_kind(trunk)
    stages = {re.split(r"\.S|/", name)[0] for name in trunk}
    yield "last layer of the trunk with weights", max(stages, key=_order)
    for layer in _MEASURED_LAYERS:
        if f"{layer}/w" in trunk:
            yield f"trunk.depth_multiplier (channels of {layer})", str(trunk[f"{layer}/w"][-1])


def _trunk_kind(trunk: Shapes) -> str:
    if "conv1/w" in trunk:
        non_local = any("non_local" in name for name in trunk)
        return "faster_rcnn_r3d50_non_local_keras" if non_local else "faster_rcnn_r3d50_keras"
    is_s3dg = any("temporal" in name or "self_gating" in name for name in trunk)
    return "faster_rcnn_s3dg_keras" if is_s3dg else "faster_rcnn_i3d_keras"


def _order(stage: str) -> str:
    match = _I3D_STAGE.search(stage)
    return match[1] if match else stage


def _head_facts(shapes: Shapes) -> Iterator[tuple[str, str]]:
    head = {name.removeprefix(_HEAD): s for name, s in shapes.items() if name.startswith(_HEAD)}
    both = any(name.startswith("tx_head/") for name in head)
    units = {name.removeprefix("tx_head/"): s for name, s in head.items()}
    matches = [match for name in units if (match := _TX_UNIT.match(name))]
    yield "head", "tx_i3d_head" if both else "tx_head" if matches else "i3d_head"
    if not matches:
        return
    yield "tx_head.num_layers", str(1 + max(int(match[1]) for match in matches))
    yield "tx_head.num_heads", str(1 + max(int(match[2]) for match in matches))
    for option, name in (
        ("tx_head.feature_size", "units/0/0/key_projection/kernel"),
        ("tx_head.ffn_size", "units/0/0/ffn_hidden/kernel"),
        ("tx_head.query_channels", "query_preprocessor/reduce/kernel"),
        ("tx_head.location_embedding.embedding_size", "location_embedding/space_output/kernel"),
    ):
        if name in units:
            yield option, str(units[name][-1])
    high_res = any(name.startswith("query_preprocessor/") for name in units)
    yield "tx_head.query_preprocessor", "HIGH_RES" if high_res else "LOW_RES"
    located = any(name.startswith("location_embedding/") for name in units)
    yield "tx_head.location_embedding.enabled", "true" if located else "false"


def _predictor_facts(shapes: Shapes) -> Iterator[tuple[str, str]]:
    classes = shapes.get(f"{_PREDICTOR}_class_head/_class_predictor_layers/1/bias")
    boxes = shapes.get(f"{_PREDICTOR}_box_head/_box_encoder_layers/1/bias")
    if classes:
        yield "num_classes", str(classes[0] - 1)  # the background is one more
    if boxes:
        shared = boxes[0] == _BOX_SIZE
        yield "share_box_across_classes", "true" if shared else "false"
    anchors = shapes.get(f"{_RPN}/_prediction_heads/box_encodings/0/_box_encoder_layers/0/bias")
    if anchors:
        yield "anchors of a cell (scales x aspect ratios)", str(anchors[0] // _BOX_SIZE)
    depth = shapes.get(f"{_RPN}_first_conv/layer_with_weights-0/bias")
    if depth:
        yield "first_stage_box_predictor_depth", str(depth[0])
