# SPDX-License-Identifier: Apache-2.0
"""What an answer must be before anything is done with it: a server may send whatever it likes.

Shapes: B clips, N detections of a clip.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from object_detection_ext import input_types, listing, printable
from object_detection_ext.serving.inputs import ServingError, TensorInfo

# More dimensions than any output or input of a model has.
MAX_RANK = 16
# A float32 holds whole numbers up to this one; ids of classes are far below.
_MAX_ID = 2**24
# Boxes are clipped to the frame by the model, with the error of its arithmetic.
_TOLERANCE = 1e-3
_MAX_NAME = 200
SIZE_HINT = "max_answer_bytes of the client, --max_answer_mb on the command line"

_BOXES, _SCORES, _CLASSES, _COUNT = input_types.DETECTIONS


def shown(text: object) -> str:
    """What a server says, as it can be printed: in one line, and its beginning only."""
    line = printable.in_one_line(text)
    return f"{line[:_MAX_NAME]} ..." if len(line) > _MAX_NAME else line


def missing_outputs(found: Mapping, wanted: Sequence[str]) -> None:
    """Raises ServingError if a wanted output is not there."""
    missing = [name for name in wanted if name not in found]
    if missing:
        raise ServingError(
            f"the model does not return {', '.join(missing)}, only "
            f"{shown(', '.join(sorted(map(str, found))) or 'nothing')}."
        )


def checked(outputs: Mapping[str, np.ndarray], num_clips: int) -> dict[str, np.ndarray]:
    """Outputs as float32, after a look at each and at those that belong together.

    Args:
        outputs: arrays of numbers by name.
        num_clips: B, as it was asked for.

    Raises:
        ServingError: if one does not have B in front or holds what is not a finite number; if
            detections differ in N, `num_detections` is not in [0, N], or one of the first so many
            has a score or a corner outside of [0, 1], a box of negative size, or a class that is
            not a whole number from 1 on.
    """
    arrays = {name: _as_floats(name, value, num_clips) for name, value in outputs.items()}
    _check_shapes(arrays)
    counts = arrays.get(_COUNT)
    num_boxes = next((arrays[n].shape[1] for n in (_BOXES, _SCORES, _CLASSES) if n in arrays), None)
    if counts is not None:
        most = _MAX_ID if num_boxes is None else num_boxes
        _require(
            _COUNT,
            (counts >= 0) & (counts == np.floor(counts)) & (counts <= most),
            counts,
            "whole numbers from 0 on, not more than there are boxes",
        )
    for clip in range(num_clips):
        count = num_boxes if counts is None else int(counts[clip])
        _check_detections({name: array[clip][:count] for name, array in arrays.items()
                           if name in (_BOXES, _SCORES, _CLASSES)})  # fmt: skip
    return arrays


def _as_floats(name: str, value: np.ndarray, num_clips: int) -> np.ndarray:
    if value.dtype.kind not in "iuf":
        raise ServingError(f"{shown(name)} must hold numbers, not {value.dtype}.")
    if value.ndim < 1 or value.shape[0] != num_clips:
        raise ServingError(
            f"{shown(name)} has the shape {list(value.shape)}, but "
            f"{listing.counted(num_clips, 'clip')} {listing.verb(num_clips, 'was', 'were')} sent: "
            f"it must be [{num_clips}, ...]."
        )
    with np.errstate(over="ignore"):  # what becomes infinite is refused
        array = value.astype(np.float32)
    if not np.isfinite(array).all():
        raise ServingError(f"{shown(name)} has values that are not finite numbers.")
    return array


def _check_shapes(arrays: Mapping[str, np.ndarray]) -> None:
    """Raises ServingError unless the detections have their ranks and one N."""
    sizes = {}
    for name, rank in ((_BOXES, 3), (_SCORES, 2), (_CLASSES, 2), (_COUNT, 1)):
        if name not in arrays:
            continue
        shape = arrays[name].shape
        if len(shape) != rank or (name == _BOXES and shape[2] != 4):
            wanted = {3: "[B, N, 4]", 2: "[B, N]", 1: "[B]"}[rank]
            raise ServingError(f"{name} has the shape {list(shape)}, but must be {wanted}.")
        if rank > 1:
            sizes[name] = shape[1]
    if len(set(sizes.values())) > 1:
        found = ", ".join(f"{size} {name}" for name, size in sizes.items())
        raise ServingError(f"the answer has {found} of each clip; they must be as many.")


def _check_detections(clip: Mapping[str, np.ndarray]) -> None:
    """Raises ServingError if the detections of a clip, without padding, cannot be."""
    if _SCORES in clip:
        scores = clip[_SCORES]
        _require(_SCORES, (scores >= 0) & (scores <= 1 + _TOLERANCE), scores, "in [0, 1]")
    if _CLASSES in clip:
        classes = clip[_CLASSES]
        is_id = (classes >= 1) & (classes < _MAX_ID) & (classes == np.floor(classes))
        _require(_CLASSES, is_id, classes, "ids of a label map, whole numbers from 1 on")
    if _BOXES in clip:
        boxes = clip[_BOXES]
        inside = ((boxes >= -_TOLERANCE) & (boxes <= 1 + _TOLERANCE)).all(axis=1)
        ordered = (boxes[:, 2:] >= boxes[:, :2] - _TOLERANCE).all(axis=1)
        wanted = "[ymin, xmin, ymax, xmax], normalized to [0, 1]"
        _require(_BOXES, inside & ordered, boxes, wanted)


def _require(name: str, is_right: np.ndarray, values: np.ndarray, wanted: str) -> None:
    if not is_right.all():
        value = values[~is_right][0].tolist()
        raise ServingError(f"{name} must be {wanted}; the answer has {value}.")


def tensor_info(name: str, dtype: object, sizes: Sequence[int]) -> TensorInfo:
    """An input of a signature as a server reports it.

    Args:
        name: of the input.
        dtype: as protos name it.
        sizes: of its dimensions; -1 for open ones.

    Raises:
        ServingError: if it cannot be one.
    """
    if not isinstance(dtype, str) or not dtype.startswith("DT_") or len(dtype) > _MAX_NAME:
        raise ServingError(f"the input {shown(name)} has the type {shown(dtype)}.")
    if len(sizes) > MAX_RANK:
        raise ServingError(f"the input {shown(name)} has {len(sizes)} dimensions.")
    # The frames of a clip are among them; a client that believed in a billion would read so many.
    wrong = [size for size in sizes if size != -1 and not 1 <= size <= input_types.MAX_FRAMES]
    if wrong:
        raise ServingError(
            f"the input {shown(name)} has a dimension of {shown(wrong[0])}; it must be 1 to "
            f"{input_types.MAX_FRAMES}, or -1 where it is open."
        )
    return TensorInfo(dtype, tuple(None if size < 0 else size for size in sizes))
