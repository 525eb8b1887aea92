# SPDX-License-Identifier: Apache-2.0
"""The rules by which programs turn the same two CSV files into an AVA mAP.

The programs differ in which frames count, how many rows of a frame count, and in what order rows
claim a ground-truth box. All else they share: the PASCAL VOC curve, the overlap, the mean over
classes with ground truth. docs/evaluation.md has the table and an example on which they differ.
"""

from dataclasses import dataclass
from typing import Literal

from object_detection_ext import errors

# Which frames count:
# "listed": those of the ground truth's file, also ones that it lists without a box.
# "labelled": those of the ground truth's file that have a row with a box, of whatever class.
# "all": those of either file.
Frames = Literal["listed", "labelled", "all"]

# The order in which the rows of a frame claim ground-truth boxes:
# "heap": highest score first; equals as in the file. Which of them a cap keeps, and which of two
#   ground-truth boxes an equal overlap meets, is as a heap of row tuples leaves them. (The program
#   then uses a sort whose order of equals depends on the CPU; that part is not kept.)
# "score": highest score first; equals as in the file.
# "file": as in the file, whatever the scores.
RowOrder = Literal["heap", "score", "file"]

_FRAMES_TEXT = {
    "listed": "frames that the ground truth does not list, and excluded ones, are ignored",
    "labelled": "frames without a ground-truth box, and excluded ones, are ignored",
    "all": "detections on frames without a ground-truth box are wrong; excluded frames are ignored",
}
_ORDER_TEXT = {
    "heap": "the rows of a frame claim boxes by score, equal scores in the order of the file",
    "score": "the rows of a frame claim boxes by score, equal scores in the order of the file",
    "file": "the rows of a frame claim boxes in the order of the file, whatever their scores",
}


@dataclass(frozen=True)
class Protocol:
    """The rules of one program.

    Attributes:
      name: as users write it.
      program: whose rules these are.
      frames: which frames count.
      row_order: the order in which the rows of a frame claim ground-truth boxes.
      max_rows_per_frame: how many rows of a frame count, the highest-scored ones; 0 for all.
      score_floor: rows with a score up to this one are no detections; None for no floor.
    """

    name: str
    program: str
    frames: Frames
    row_order: RowOrder
    max_rows_per_frame: int = 0
    score_floor: float | None = None

    def rules(self, iou_threshold: float) -> tuple[str, ...]:
        """The rules, one per line, for reports."""
        cap = (
            f"at most the {self.max_rows_per_frame} highest-scored rows of a frame count"
            if self.max_rows_per_frame
            else "all rows of a frame count"
        )
        floor = "" if self.score_floor is None else f", and scores <= {self.score_floor:g},"
        return (
            f"protocol {self.name}: {self.program}",
            f"frame AP at IoU >= {iou_threshold:g}, PASCAL VOC precision curve",
            f"only classes in the label map; of these, {cap}",
            _FRAMES_TEXT[self.frames],
            _ORDER_TEXT[self.row_order],
            "a detection meets the ground-truth box it overlaps most; the first one to do so is "
            "right",
            "on the precision-recall curve equal scores keep their order: by frame as the frames "
            "first appear, then as in the file",
            f"boxes with x1 >= x2 or y1 >= y2{floor} are no detections",
            "mAP: mean over the classes that have ground truth",
        )


# The score floor is that of the stock non-maximum suppression, which removes nothing else here.
# The other two programs left it out of their copies of the evaluator.
ACTIVITYNET = Protocol(
    "activitynet",
    "the ActivityNet AVA program (get_ava_performance.py)",
    frames="listed",
    row_order="heap",
    max_rows_per_frame=50,
    score_floor=-10.0,
)
PYSLOWFAST = Protocol(
    "pyslowfast", "PySlowFast (ava_eval_helper.py)", frames="all", row_order="file"
)
# Its function that compares two files would count detections on unlabelled frames as wrong, too;
# but its data set has no other frames than those that its annotation file has rows for.
MMACTION2 = Protocol(
    "mmaction2", "MMAction2 (AVADataset, ava_utils.py)", frames="labelled", row_order="score"
)

PROTOCOLS: dict[str, Protocol] = {
    protocol.name: protocol for protocol in (ACTIVITYNET, PYSLOWFAST, MMACTION2)
}


def by_name(name: str) -> Protocol:
    """The protocol of that name.

    Raises:
      InputError: if there is none.
    """
    if name not in PROTOCOLS:
        raise errors.InputError(f"There is no protocol {name!r}; there are: {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]


def check_iou_threshold(iou_threshold: float) -> None:
    """Raises InputError unless it is in (0, 1]."""
    if not 0.0 < iou_threshold <= 1.0:
        raise errors.InputError(f"iou_threshold is {iou_threshold}, but must be in (0, 1].")


def check_max_rows(max_rows_per_frame: int) -> None:
    """Raises InputError for a negative number."""
    if max_rows_per_frame < 0:
        raise errors.InputError(
            f"max_rows_per_frame is {max_rows_per_frame}, but must be 0 or more."
        )
