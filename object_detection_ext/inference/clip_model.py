# SPDX-License-Identifier: Apache-2.0
"""A trained model that takes clips, wherever it comes from.

Shapes: B clips, T frames, H W pixels, G given boxes of a clip, R the most that the model takes at
once, N detections (one per box and action), L layers and M heads of Tx units, t h w cells of the
feature map, D size of a key.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from object_detection_ext import errors, input_types, listing

ATTENTION = "detection_attention"
KEY_EMBEDDINGS = "key_embeddings"


class ClipModel:
    """Finds people and actions in batches of clips.

    Attributes:
      name: where the model is from, for messages.
      num_frames: T.
      fps: of a clip's frames.
      frame_size: (H, W) that frames are resized to inside the model; None if it depends on them.
      short_side: of a frame inside the model, in pixels, where the model keeps the aspect ratio.
      label_map: action names by id.
      outputs: the names of all that the model returns.
      takes_batches: whether B may be more than 1.
      takes_boxes: whether the people's boxes are given, in place of proposals of its own.
      precision: that trunk and head compute in, one of `precision.NAMES`; None if it is not known.
    """

    def __init__(
        self,
        call: Callable,
        *,
        name: str,
        num_frames: int,
        fps: float,
        frame_size: tuple[int, int] | None,
        short_side: int | None = None,
        label_map: Mapping[int, str],
        outputs: Iterable[str],
        takes_batches: bool,
        takes_boxes: bool = False,
        max_boxes: int | None = None,
        features: Callable | None = None,
        detect_in_features: Callable | None = None,
        precision: str | None = None,
    ):
        """Takes the parts; see `model.load_saved_model` and `model.load_checkpoint`.

        Args:
          call: from uint8 [B, T, H, W, 3], and with `takes_boxes` also float32 [B, G, 4], to the
            stock detections, a dictionary of tensors.
          name: where the model is from, for messages.
          num_frames: T.
          fps: of a clip's frames.
          frame_size: (H, W) inside the model, if it is fixed.
          short_side: of a frame inside the model, where the model keeps the aspect ratio.
          label_map: action names by id.
          outputs: the names of all that it returns.
          takes_batches: whether B may be more than 1.
          takes_boxes: whether the people's boxes are given.
          max_boxes: R; None: any number.
          features: see `shared_trunk`; None if the model does not have it.
          detect_in_features: the same.
          precision: see the class.
        """
        self._call = call
        self.name, self.num_frames, self.fps = name, num_frames, fps
        self.frame_size, self.short_side = frame_size, short_side
        self.label_map = dict(label_map)
        self.outputs, self.takes_batches = frozenset(outputs), takes_batches
        self.takes_boxes, self._max_boxes = takes_boxes, max_boxes
        self.features, self.detect_in_features = features, detect_in_features
        self.precision = precision

    def __call__(
        self, clips: np.ndarray, boxes: Sequence[np.ndarray] | None = None
    ) -> list[dict[str, np.ndarray]]:
        """Detections of each clip.

        Args:
          clips: uint8 [B, T, H, W, 3].
          boxes: for a model that takes them, float [G, 4] of the people in each clip's middle
            frame, normalized [ymin, xmin, ymax, xmax], any G for each clip; boxes without an area
            are padding. If there are more than R, the clip is looked at more than once.

        Returns:
          For each clip `detection_boxes` [N, 4] (normalized [ymin, xmin, ymax, xmax]),
          `detection_scores` [N], `detection_classes` int [N] (ids of the label map) and, if the
          model has them, `detection_attention` [N, L, M, t, h, w] and `key_embeddings`
          [L, M, t, h, w, D].

        Raises:
          errors.InputError: for clips or boxes of another shape or type, for a model that takes
            boxes without them, and for boxes to one that takes none.
        """
        if clips.dtype != np.uint8 or clips.ndim != 5 or clips.shape[4] != 3:
            raise errors.InputError(
                f"Clips must be uint8 [B, T, H, W, 3], not {clips.dtype} {list(clips.shape)}."
            )
        if clips.shape[1] != self.num_frames:
            raise errors.InputError(
                f"{self.name} takes clips of {self.num_frames} frames, not of {clips.shape[1]}."
            )
        if self.takes_boxes != (boxes is not None):
            raise errors.InputError(
                f"{self.name}: this model "
                + ("needs the people's boxes." if self.takes_boxes else "takes no boxes.")
            )
        if boxes is not None:
            return self._detect_given(clips, [_checked_boxes(each) for each in boxes])
        if self.takes_batches:
            return unbatched(self._call(clips))
        return [found for clip in clips for found in unbatched(self._call(clip[np.newaxis]))]

    def _detect_given(
        self, clips: np.ndarray, boxes: Sequence[np.ndarray]
    ) -> list[dict[str, np.ndarray]]:
        """What `__call__` gives, R boxes at a time; clips without boxes cost nothing."""
        if len(boxes) != len(clips):
            given = listing.counted(len(clips), "clip")
            raise errors.InputError(f"{given}, but boxes of {len(boxes)}.")
        at_once = self._max_boxes or max(1, *map(len, boxes))
        looks = [
            (index, each[start : start + at_once])
            for index, each in enumerate(boxes)
            for start in range(0, len(each), at_once)
        ]
        batch = len(clips) if self.takes_batches else 1
        found: list[list[dict[str, np.ndarray]]] = [[] for _ in clips]
        for first in range(0, len(looks), batch):
            indices, parts = zip(*looks[first : first + batch], strict=True)
            size = max(map(len, parts))
            padded = np.stack([np.pad(part, [(0, size - len(part)), (0, 0)]) for part in parts])
            detections = unbatched(self._call(clips[list(indices)], padded))
            for index, each in zip(indices, detections, strict=True):
                found[index].append(each)
        return [_joined(parts) for parts in found]


def _checked_boxes(boxes: np.ndarray) -> np.ndarray:
    """Float32 [G, 4] with an area. Raises errors.InputError for anything else."""
    boxes = np.asarray(boxes, np.float32)
    if not boxes.size:
        return np.zeros([0, 4], np.float32)
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise errors.InputError(f"A clip's boxes must be [G, 4], not {list(boxes.shape)}.")
    if not ((boxes >= 0) & (boxes <= 1)).all():  # also for what is no number
        row = boxes[~((boxes >= 0) & (boxes <= 1)).all(axis=1)][0]
        raise errors.InputError(
            f"Boxes are [ymin, xmin, ymax, xmax], normalized to [0, 1], not {row.tolist()}."
        )
    return boxes[(boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])]


def _joined(parts: Sequence[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """The detections of one clip out of several looks at it; none if there was none."""
    if not parts:
        return {
            "detection_boxes": np.zeros([0, 4], np.float32),
            "detection_scores": np.zeros([0], np.float32),
            "detection_classes": np.zeros([0], int),
        }
    joined = {
        name: np.concatenate([part[name] for part in parts])
        for name in parts[0]
        if name != KEY_EMBEDDINGS
    }
    if KEY_EMBEDDINGS in parts[0]:  # those of the clip, whatever the boxes
        joined[KEY_EMBEDDINGS] = parts[0][KEY_EMBEDDINGS]
    return joined


def unbatched(detections: Mapping) -> list[dict[str, np.ndarray]]:
    """The detections of each clip out of those of a batch, without padding."""
    counts = np.asarray(detections["num_detections"]).astype(int)
    names = [name for name in (*input_types.DETECTIONS[:3], ATTENTION) if name in detections]
    arrays = {name: np.asarray(detections[name]) for name in names}
    found = []
    for index, count in enumerate(counts):
        clip = {name: array[index, :count] for name, array in arrays.items()}
        clip["detection_classes"] = clip["detection_classes"].astype(int)
        if KEY_EMBEDDINGS in detections:
            clip[KEY_EMBEDDINGS] = np.asarray(detections[KEY_EMBEDDINGS][index])
        found.append(clip)
    return found
