# SPDX-License-Identifier: Apache-2.0
"""The scalar of an evaluation by which checkpoints are compared: its name, its direction."""

import dataclasses
import re
from collections.abc import Iterable, Mapping

import numpy as np
from object_detection import eval_util
from object_detection.core import standard_fields
from object_detection.protos import pipeline_pb2
from object_detection.utils import config_util, label_map_util

from object_detection_ext import errors

GOALS = ("max", "min")
_Input = standard_fields.InputDataFields
_Detection = standard_fields.DetectionResultFields
# What the evaluators call it: 'AvaDetectionBoxes_Precision/mAP@0.5IOU' comes first; COCO has no
# threshold in the name.
_MEAN_AP = re.compile(r"_Precision/(mAP(@[\d.]+IOU)?)$")
_AVA = "AvaDetectionBoxes_"
_LOSSES = (
    "Loss/RPNLoss/localization_loss",
    "Loss/RPNLoss/objectness_loss",
    "Loss/BoxClassifierLoss/localization_loss",
    "Loss/BoxClassifierLoss/classification_loss",
    "Loss/regularization_loss",
    "Loss/total_loss",
)


@dataclasses.dataclass(frozen=True)
class Metric:
    """What the user asks for.

    Attributes:
        name: of a scalar; None or 'mAP': the mean AP, AVA's if it is evaluated.
        goal: 'max', 'min', or None: losses go down, all else goes up.
    """

    name: str | None = None
    goal: str | None = None

    def __post_init__(self):
        if self.goal is not None and self.goal not in GOALS:
            raise errors.InputError(
                f"--best_metric_goal is '{self.goal}'; it must be {' or '.join(GOALS)}."
            )

    @property
    def is_mean_ap(self) -> bool:
        """Whether it is the mean AP without its full name."""
        return self.name in (None, "mAP")

    def find(self, metrics: Mapping[str, float]) -> str | None:
        """The full name of the scalar; None if the mean AP is meant and there is none.

        Raises:
            errors.InputError: if a scalar was named that is not there, listing those that are.
        """
        if self.is_mean_ap:
            return mean_ap_of(metrics)
        self.check(metrics)
        return self.name

    def check(self, names: Iterable[str]) -> None:
        """Refuses a name that is not among the scalars; the mean AP need not be.

        Raises:
            errors.InputError: listing the scalars that there are.
        """
        if self.is_mean_ap or self.name in names:
            return
        listed = "".join(f"\n  {name}" for name in sorted(names))
        raise errors.InputError(
            f"--best_metric='{self.name}' is not a scalar of this evaluation. It has:{listed}"
        )

    def goal_of(self, full_name: str) -> str:
        """'max' or 'min'."""
        return self.goal or ("min" if full_name.startswith("Loss/") else "max")

    def shown(self, metrics: Mapping[str, float]) -> str:
        """The mean AP and, if another scalar chooses, that one: 'mAP@0.5IOU 0.651'."""
        names = [mean_ap_of(metrics)]
        if not self.is_mean_ap and self.name != names[0]:
            names.append(self.name)
        shown = [f"{label(name)} {metrics[name]:.3f}" for name in names if name in metrics]
        return ", ".join(shown) or "no mAP"


def label(full_name: str) -> str:
    """A scalar's name as a line shows it: 'mAP@0.5IOU' for a mean AP, others in full."""
    match = _MEAN_AP.search(full_name)
    return match.group(1) if match else full_name


def mean_ap_of(metrics: Iterable[str]) -> str | None:
    """The full name of the mean AP: AVA's if it is there, of the first threshold."""
    names = [name for name in metrics if _MEAN_AP.search(name)]
    return next((name for name in names if name.startswith(_AVA)), names[0] if names else None)


def possible_scalars(pipeline: pipeline_pb2.TrainEvalPipelineConfig) -> frozenset[str] | None:
    """The scalars that an evaluation may have, before anything is built.

    Each evaluator is asked what it says of one frame on which every class is annotated once; of
    classes without annotations in the records there will be less.

    Args:
        pipeline: of one of our models.

    Returns:
        Full names; None if an evaluator cannot say so early.
    """
    try:
        # Our options travel with the messages that this gives.
        configs = config_util.create_configs_from_pipeline_proto(pipeline)
        eval_config = configs["eval_config"]
        label_map = configs["eval_input_configs"][0].label_map_path
        categories = list(label_map_util.create_category_index_from_labelmap(label_map).values())
        options = eval_util.evaluator_options_from_eval_config(eval_config)
        names = set(_LOSSES)
        for evaluator in eval_util.get_evaluators(eval_config, categories, options):
            names.update(map(str, _scalars_of(evaluator, [item["id"] for item in categories])))
    except (LookupError, TypeError, ValueError, OSError):
        return None
    return frozenset(names)


def _scalars_of(evaluator, class_ids: list[int]) -> dict[str, float]:
    boxes = np.tile(np.array([[0.0, 0.0, 1.0, 1.0]], np.float32), [len(class_ids), 1])
    classes = np.array(class_ids, np.int32)
    evaluator.add_single_ground_truth_image_info(
        "frame", {_Input.groundtruth_boxes: boxes, _Input.groundtruth_classes: classes}
    )
    evaluator.add_single_detected_image_info(
        "frame",
        {
            _Detection.detection_boxes: boxes,
            _Detection.detection_classes: classes,
            _Detection.detection_scores: np.ones(len(class_ids), np.float32),
        },
    )
    return evaluator.evaluate()
