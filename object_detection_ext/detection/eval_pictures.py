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
import tensorflow as tf
from object_detection.core import standard_fields
from PIL import Image

from object_detection_ext.data import clip_names
from object_detection_ext.detection import video_meta_arch
from object_detection_ext.visualization import attention_panels, panels
from object_detection_ext.visualization import people as people_lib

_Input = standard_fields.InputDataFields
_Detection = standard_fields.DetectionResultFields
# The surest people of a clip whose attention is shown.
_MOST_WITH_ATTENTION = 3
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
    def eager_eval_loop(
        detection_model,
        configs,
        eval_dataset,
        use_tpu=False,
        postprocess_on_cpu=False,
        global_step=None,
    ):
        arguments = detection_model, configs, eval_dataset, use_tpu, postprocess_on_cpu, global_step
        if not isinstance(detection_model, video_meta_arch.VideoActionTransformerMetaArch):
            return stock_loop(*arguments)
        names = dict(stock_loop.__globals__)
        pictures = EvalPictures(
            names["prepare_eval_dict"],
            to_clips=detection_model.to_clips,
            num_batches=configs["eval_config"].num_visualizations,
            step=global_step,
        )
        names["prepare_eval_dict"] = pictures.prepare_eval_dict
        names["vutils"] = types.SimpleNamespace(
            draw_side_by_side_evaluation_image=pictures.draw_side_by_side
        )
        names["tf"] = _TensorFlowThatReportsErrors(names["tf"])
        return types.FunctionType(stock_loop.__code__, names)(*arguments)

    return eager_eval_loop


class _TensorFlowThatReportsErrors:
    """The `tf` of the stock loop, in which an error of a batch ends the evaluation.

    The stock loop takes any error for the end of a replica's examples, logs it and computes its
    metrics from the batches before: out of memory at the second batch gives the mAP of one.
    """

    def __init__(self, stock_tf: types.ModuleType):
        self._stock_tf = stock_tf
        self.logging = types.SimpleNamespace(info=self._info)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stock_tf, name)

    def _info(self, message: str, *arguments: Any) -> None:
        is_one_replica = tf.distribute.get_strategy().num_replicas_in_sync == 1
        if is_one_replica and message.startswith("Encountered"):
            raise  # the error that the stock loop is handling
        self._stock_tf.logging.info(message, *arguments)


@dataclasses.dataclass(frozen=True)
class _Extras:
    """What the stock loop drops of a batch on its way to the drawing.

    `images` are clips as the model gets them, `attention` [B, N, L, M, t, h, w] or None.
    """

    number: int
    titles: list[str]
    images: tf.Tensor
    attention: tf.Tensor | None


class EvalPictures:
    """Draws the first batches of one evaluation. Holds what one batch needs, until it is drawn."""

    def __init__(
        self,
        stock_prepare: Callable,
        *,
        to_clips: Callable[[tf.Tensor], tf.Tensor],
        num_batches: int,
        step: tf.Tensor | tf.Variable | int | None,
    ):
        """Creates the drawing.

        Args:
            stock_prepare: `model_lib_v2.prepare_eval_dict`.
            to_clips: from what the model is given to clips [B, T, H, W, 3] in [-1, 1].
            num_batches: how many batches the loop will ask to draw.
            step: of the summaries.
        """
        self._stock_prepare = stock_prepare
        self._to_clips = to_clips
        self._num_batches = num_batches
        self._step = step
        self._num_prepared = 0
        self._extras: _Extras | None = None

    def prepare_eval_dict(self, detections, groundtruth, features) -> tuple[dict, bool]:
        """As the stock function; keeps what the drawing wants of the batch, if it will be drawn."""
        groundtruth = dict(groundtruth)
        names = groundtruth.pop(clip_names.KEY, None)
        images, number = features[_Input.image], self._num_prepared
        self._num_prepared += 1
        self._extras = None
        if number < self._num_batches:
            titles = [""] * len(images) if names is None else clip_names.decode(names.numpy())
            attention = detections.get(video_meta_arch.DETECTION_ATTENTION)
            self._extras = _Extras(number, titles, images, attention)
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

        Writes a summary of its own, 'eval_attention_<batch>_<clip>', if there is attention.

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
        for index, title in enumerate(extras.titles):
            clip = EvaluatedClip.of_batch(eval_dict, index, use_normalized_coordinates)
            people = clip.numbered_people(
                action_names, most_people=max_boxes_to_draw, threshold=min_score_thresh
            )
            if extras.attention is not None:
                self._write_attention(extras, index, clip, people[:_MOST_WITH_ATTENTION])
            picture = clip.draw(action_names, people, title=title, threshold=min_score_thresh)
            pictures.append(picture[np.newaxis])
        return pictures

    def _write_attention(self, extras: _Extras, index: int, clip: "EvaluatedClip", people) -> None:
        """Pictures of the surest people's attention, one below the other in TensorBoard."""
        if not people:
            return
        frames = (self._to_clips(extras.images[index : index + 1])[0] + 1.0) / 2.0
        frames = tf.image.convert_image_dtype(frames, tf.uint8, saturate=True).numpy()
        shown = clip.true_frames(frames)
        pictures = [
            attention_panels.draw(
                shown,
                extras.attention[index, person.row, -1].numpy(),
                numbered,
                extent=clip.extent(frames),
                title=extras.titles[index],
            )
            for person, numbered in people
        ]
        tf.summary.image(
            f"eval_attention_{extras.number}_{index}",
            panels.stack_pictures(pictures),
            self._step,
            max_outputs=len(pictures),
        )


@dataclasses.dataclass(frozen=True)
class EvaluatedClip:
    """What is known of an evaluated clip, without padding.

    The middle frame uint8 [H, W, 3] as the resizer gave it; `true_shape`, its height and width
    without the resizer's padding; `aspect`, width / height in the record. Annotated boxes [G, 4]
    and classes [G], detected boxes [N, 4], scores [N] and classes [N]. Boxes are normalized by the
    frame without padding, classes are ids of the label map.
    """

    frame: np.ndarray
    true_shape: tuple[int, int]
    aspect: float
    true_boxes: np.ndarray
    true_classes: np.ndarray
    boxes: np.ndarray
    scores: np.ndarray
    classes: np.ndarray

    @classmethod
    def of_batch(
        cls, eval_dict: Mapping[str, Any], index: int, boxes_are_normalized: bool
    ) -> "EvaluatedClip":
        """One clip of an eval dict (see `eval_util.result_dict_for_batched_example`)."""
        height, width = np.asarray(eval_dict[_Input.original_image_spatial_shape][index])
        true_boxes, true_classes = _rows(
            eval_dict, index, _ROWS_OF_TRUTH, _Input.num_groundtruth_boxes
        )
        boxes, scores, classes = _rows(eval_dict, index, _ROWS_FOUND, _Detection.num_detections)
        scale = 1.0 if boxes_are_normalized else np.array([height, width, height, width], float)
        return cls(
            np.asarray(eval_dict[_Input.original_image][index]),
            tuple(map(int, np.asarray(eval_dict[_Input.true_image_shape][index])[:2])),
            float(width / height),
            true_boxes / scale,
            true_classes,
            boxes / scale,
            scores,
            classes,
        )

    def true_frames(self, frames: np.ndarray) -> np.ndarray:
        """Frames uint8 [T, H, W, 3] without padding, a panel wide, in the record's aspect."""
        height, width = self.true_shape
        size = (panels.PANEL_WIDTH, max(1, round(panels.PANEL_WIDTH / self.aspect)))
        return np.stack(
            [
                np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.BICUBIC))
                for frame in frames[:, :height, :width]
            ]
        )

    def extent(self, frames: np.ndarray) -> tuple[float, float]:
        """The part of the height and width of frames [T, H, W, 3] that is no padding, in 0..1."""
        return self.true_shape[0] / frames.shape[1], self.true_shape[1] / frames.shape[2]

    @functools.cached_property
    def truth(self) -> list[people_lib.Person]:
        """The annotated people, from left to right."""
        return people_lib.group_annotations(self.true_boxes, self.true_classes)

    def numbered_people(
        self, action_names: Mapping[int, str], *, most_people: int | None, threshold: float
    ) -> list[tuple[people_lib.Person, panels.NumberedPerson]]:
        """Detected people, the surest first, with the numbers by which pictures know them.

        Who overlaps an annotated person has that one's number, and a mark on each action: whether
        it is among the annotated ones. The others have numbers behind those.

        Args:
            action_names: by id of the label map.
            most_people: people beyond these are left out; None: all stay.
            threshold: lowest score of an action that is shown.
        """
        found = people_lib.group_people(
            self.boxes,
            self.scores,
            self.classes,
            action_ids=action_names,
            score_threshold=threshold,
        )[:most_people]
        people, next_number = [], len(self.truth) + 1
        for person, match in zip(found, people_lib.match(self.truth, found), strict=True):
            right_ones = {} if match is None else self.truth[match].scores
            number = next_number if match is None else match + 1
            next_number += match is None
            actions = [
                panels.Action(panels.action_name(action_names, action), score, action in right_ones)
                for action, score in sorted(person.scores.items(), key=lambda item: -item[1])
            ]
            people.append((person, panels.NumberedPerson(person.box, number, actions)))
        return people

    def draw(
        self,
        action_names: Mapping[int, str],
        people: list[tuple[people_lib.Person, panels.NumberedPerson]],
        *,
        title: str,
        threshold: float,
    ) -> np.ndarray:
        """The ground truth at the left, the detections at the right, uint8 [H', W', 3].

        Args:
            action_names: by id of the label map.
            people: as `numbered_people` gives them.
            title: the line above.
            threshold: the lowest score, for the heading.
        """
        (frame,) = self.true_frames(self.frame[np.newaxis])
        left = panels.Panel(
            "ground truth",
            frame,
            panels.number_annotated(self.truth, action_names),
            "nobody is annotated",
        )
        right = panels.Panel(
            f"detections, score from {threshold:.2f}",
            frame,
            sorted((numbered for _, numbered in people), key=lambda person: person.number),
            "nobody is detected",
        )
        return panels.draw_panels([left, right], title)


def _rows(eval_dict, index: int, names, count_name: str) -> list[np.ndarray]:
    count = eval_dict.get(count_name)
    count = None if count is None else int(count[index])
    return [np.asarray(eval_dict[name][index])[:count] for name in names]
