# SPDX-License-Identifier: Apache-2.0
"""What the stock evaluation loop writes of the first clips: people, actions and attention.

The stock loop calls `visualization_utils.draw_side_by_side_evaluation_image` for the first
`eval_config.num_visualizations` batches and writes what it returns. It draws a box per row and a
label per box, with a text that TensorBoard shrinks until nobody can read it. Here the loop finds
another drawing where it looks for that one, for our models only.

Shapes: B clips, T frames, H W pixels, G ground-truth rows, N detections (a row is a box and an
action), L layers and M heads of Tx units, t h w cells of the feature map. Boxes are
[ymin, xmin, ymax, xmax].
"""

import dataclasses
import functools
import types
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from object_detection.core import standard_fields
from PIL import Image

from object_detection_ext.data import clip_names
from object_detection_ext.detection import video_meta_arch
from object_detection_ext.visualization import panels
from object_detection_ext.visualization import people as people_lib

_Input = standard_fields.InputDataFields
_Detection = standard_fields.DetectionResultFields
_ROWS_OF_TRUTH = (_Input.groundtruth_boxes, _Input.groundtruth_classes)
_ROWS_FOUND = (
    _Detection.detection_boxes,
    _Detection.detection_scores,
    _Detection.detection_classes,
)


def wrap_eager_eval_loop(stock_loop: Callable) -> Callable:
    """Surrounds `model_lib_v2.eager_eval_loop`; same arguments. Stock models are evaluated as ever.

    Args:
        stock_loop: the stock function. Ours is a copy that finds other functions under two names.
    """

    @functools.wraps(stock_loop)
    def eager_eval_loop(detection_model, configs, *args, **kwargs):
        if not isinstance(detection_model, video_meta_arch.VideoActionTransformerMetaArch):
            return stock_loop(detection_model, configs, *args, **kwargs)
        names = dict(stock_loop.__globals__)
        pictures = EvalPictures(
            names["prepare_eval_dict"], num_batches=configs["eval_config"].num_visualizations
        )
        names["prepare_eval_dict"] = pictures.prepare_eval_dict
        names["vutils"] = types.SimpleNamespace(
            draw_side_by_side_evaluation_image=pictures.draw_side_by_side
        )
        loop = types.FunctionType(
            stock_loop.__code__, names, stock_loop.__name__, stock_loop.__defaults__
        )
        return loop(detection_model, configs, *args, **kwargs)

    return eager_eval_loop


@dataclasses.dataclass(frozen=True)
class _Extras:
    """What the stock loop drops of a batch on its way to the drawing."""

    names: list[str]


class EvalPictures:
    """Draws the first batches of one evaluation. Holds what one batch needs, until it is drawn."""

    def __init__(self, stock_prepare: Callable, *, num_batches: int):
        """Creates the drawing.

        Args:
            stock_prepare: `model_lib_v2.prepare_eval_dict`.
            num_batches: how many batches the loop will ask to draw.
        """
        self._stock_prepare = stock_prepare
        self._num_batches = num_batches
        self._num_prepared = 0
        self._extras: _Extras | None = None

    def prepare_eval_dict(self, detections, groundtruth, features) -> tuple[dict, bool]:
        """As the stock function; keeps what the drawing wants of the batch, if it will be drawn."""
        groundtruth = dict(groundtruth)
        names = groundtruth.pop(clip_names.KEY, None)
        batch_size = features[_Input.image].shape[0]
        self._extras = None
        if self._num_prepared < self._num_batches:
            texts = [""] * batch_size if names is None else clip_names.decode(names.numpy())
            self._extras = _Extras(texts)
        self._num_prepared += 1
        return self._stock_prepare(detections, groundtruth, features)

    def draw_side_by_side(
        self,
        eval_dict: Mapping[str, Any],
        category_index: Mapping[int, Mapping[str, Any]],
        max_boxes_to_draw: int | None,
        min_score_thresh: float,
        use_normalized_coordinates: bool,
        **_: Any,
    ) -> list[np.ndarray]:
        """Takes the place of the stock drawing of the same arguments.

        Args:
            eval_dict: a batch, as `prepare_eval_dict` gives it.
            category_index: the label map, {'name': ...} by id.
            max_boxes_to_draw: most detected people; None: all.
            min_score_thresh: lowest score of an action that is shown.
            use_normalized_coordinates: whether boxes are normalized, not in pixels of
                `original_image_spatial_shape`.
            **_: what is of use for keypoints only.

        Returns:
            For each clip a picture uint8 [1, H', W', 3], the ground truth at the left.
        """
        extras, self._extras = self._extras, None
        action_names = {number: item["name"] for number, item in category_index.items()}
        pictures = []
        for index, title in enumerate(extras.names):
            clip = EvaluatedClip.of_batch(eval_dict, index, use_normalized_coordinates)
            picture = clip.draw(
                action_names, title=title, most_people=max_boxes_to_draw, threshold=min_score_thresh
            )
            pictures.append(picture[np.newaxis])
        return pictures


@dataclasses.dataclass(frozen=True)
class EvaluatedClip:
    """What is known of an evaluated clip, without padding.

    The middle frame uint8 [H, W, 3], annotated boxes [G, 4] and classes [G], detected boxes [N, 4],
    scores [N] and classes [N]. Boxes are normalized, classes are ids of the label map.
    """

    frame: np.ndarray
    true_boxes: np.ndarray
    true_classes: np.ndarray
    boxes: np.ndarray
    scores: np.ndarray
    classes: np.ndarray

    @classmethod
    def of_batch(
        cls, eval_dict: Mapping[str, Any], index: int, boxes_are_normalized: bool
    ) -> "EvaluatedClip":
        """One clip of an eval dict (see `eval_util.result_dict_for_batched_example`), unpadded."""
        height, width = np.asarray(eval_dict[_Input.original_image_spatial_shape][index])
        true_boxes, true_classes = _rows(
            eval_dict, index, _ROWS_OF_TRUTH, _Input.num_groundtruth_boxes
        )
        boxes, scores, classes = _rows(eval_dict, index, _ROWS_FOUND, _Detection.num_detections)
        scale = 1.0 if boxes_are_normalized else np.array([height, width, height, width], float)
        return cls(
            _true_frame(
                np.asarray(eval_dict[_Input.original_image][index]),
                np.asarray(eval_dict[_Input.true_image_shape][index]),
                width / height,
            ),
            true_boxes / scale,
            true_classes,
            boxes / scale,
            scores,
            classes,
        )

    def draw(
        self,
        action_names: Mapping[int, str],
        *,
        title: str,
        most_people: int | None,
        threshold: float,
    ) -> np.ndarray:
        """The ground truth at the left, the detections at the right, uint8 [H', W', 3].

        A detected person that overlaps an annotated one has that one's number and colour, and a
        mark on each action: whether it is among the annotated ones.

        Args:
            action_names: by id of the label map.
            title: the line above.
            most_people: detected people beyond these are left out, the surest stay; None: all.
            threshold: lowest score of an action that is shown.
        """
        truth = people_lib.group_annotations(self.true_boxes, self.true_classes)
        found = self.detected_people(action_names, most_people=most_people, threshold=threshold)
        left = panels.Panel(
            "ground truth",
            self.frame,
            annotated_people(truth, action_names),
            "nobody is annotated",
        )
        right = panels.Panel(
            f"detections, score from {threshold:.2f}",
            self.frame,
            _numbered_detections(truth, found, action_names),
            "nobody is detected",
        )
        return panels.draw_panels([left, right], title)

    def detected_people(
        self, action_names: Mapping[int, str], *, most_people: int | None, threshold: float
    ) -> list[people_lib.Person]:
        """The surest people whose best action has at least that score."""
        return people_lib.group_people(
            self.boxes,
            self.scores,
            self.classes,
            action_ids=action_names,
            score_threshold=threshold,
        )[:most_people]


def annotated_people(
    truth: list[people_lib.Person], action_names: Mapping[int, str]
) -> list[panels.NumberedPerson]:
    """Annotated people, numbered in their order. An id without a name shows as a number."""
    return [
        panels.NumberedPerson(
            person.box, number, [panels.Action(_name(action_names, a)) for a in person.scores]
        )
        for number, person in enumerate(truth, start=1)
    ]


def _numbered_detections(truth, found, action_names) -> list[panels.NumberedPerson]:
    """Detected people in the order of their numbers, best actions first."""
    people, next_number = [], len(truth) + 1
    for person, match in zip(found, people_lib.match(truth, found), strict=True):
        right_ones = {} if match is None else truth[match].scores
        number = next_number if match is None else match + 1
        next_number += match is None
        actions = [
            panels.Action(_name(action_names, action), score, action in right_ones)
            for action, score in sorted(person.scores.items(), key=lambda item: -item[1])
        ]
        people.append(panels.NumberedPerson(person.box, number, actions))
    return sorted(people, key=lambda person: person.number)


def _name(action_names: Mapping[int, str], action: int) -> str:
    return action_names.get(action, f"action {action}")


def _rows(eval_dict, index: int, names, count_name: str) -> list[np.ndarray]:
    count = eval_dict.get(count_name)
    count = None if count is None else int(count[index])
    return [np.asarray(eval_dict[name][index])[:count] for name in names]


def _true_frame(frame: np.ndarray, true_shape: np.ndarray, aspect: float) -> np.ndarray:
    """The frame without the resizer's padding, in the shape that it had before resizing.

    Args:
        frame: uint8 [H, W, 3], padded at the bottom and at the right.
        true_shape: its height and width without padding, in pixels.
        aspect: width / height of the frame in the record.
    """
    frame = frame[: true_shape[0], : true_shape[1]]
    width = panels.PANEL_WIDTH
    size = (width, max(1, round(width / aspect)))
    return np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.BICUBIC))
