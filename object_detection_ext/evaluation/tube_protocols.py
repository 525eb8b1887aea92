# SPDX-License-Identifier: Apache-2.0
"""The rules by which data sets with action tubes are evaluated, and how detections are linked.

The rules of the figures (`TubeProtocol`) belong to a data set; linking (`Linking`) belongs to the
system, since these data sets evaluate tubes that a system hands in. A protocol therefore only has
the linking that its programs come with as a default, and every value of it can be changed.

Sources: `jhmdb` and `ucf101_24` are the rules of the programs of the ACT detector (Kalogeiton et
al., ICCV 2017; act-detector-scripts/ACT.py), which MOC (src/ACT.py) and MMAction kept;
`multisports` those of the data set's own program (Li et al., ICCV 2021; evaluate.py), which
MMAction2 kept.
"""

import dataclasses
from dataclasses import dataclass
from typing import Literal

from object_detection_ext import errors
from object_detection_ext.evaluation import protocols
from object_detection_ext.evaluation.protocols import Frames

# Which ground truth a detection may claim:
# "closest": only the one that it overlaps most. If that is taken, the detection is a false positive
#   (PASCAL VOC).
# "remaining": of those that no higher-scored detection has taken, the one that it overlaps most.
Matching = Literal["closest", "remaining"]

# The area under the precision-recall curve:
# "envelope": precision made monotonic, steps (PASCAL VOC 2010).
# "trapezoid": precision as it is, straight lines between the points, from precision 1 at recall 0.
Curve = Literal["envelope", "trapezoid"]

# How long tubes overlap in time:
# "moments": the number of keyframes that both have, of those that either has.
# "duration": the same from the first to the last keyframe, so that a tube of one keyframe has no
#   length, and overlaps nothing.
TimeOverlap = Literal["moments", "duration"]

_MATCHING_TEXT = {
    "closest": "a detection claims the ground truth that it overlaps most; if a higher-scored one "
    "has it, the detection is a false positive",
    "remaining": "a detection claims, of the ground truth that no higher-scored one has, what it "
    "overlaps most",
}
_CURVE_TEXT = {
    "envelope": "AP: area under the precision-recall curve, precision made monotonic (PASCAL VOC "
    "2010)",
    "trapezoid": "AP: area under the precision-recall curve as it is, straight lines between its "
    "points, from precision 1 at recall 0",
}
_TIME_TEXT = {
    "moments": "IoU of tubes: sum of the IoUs of their boxes at the keyframes that both have, "
    "divided by the number of keyframes that either has",
    "duration": "IoU of tubes: mean IoU of their boxes at the keyframes that both have, times the "
    "time from the first to the last of these, divided by the time from the first to the last "
    "keyframe of either; a tube of one keyframe has no duration and meets nothing",
}
_FRAMES_TEXT = {
    "listed": "keyframes that the ground truth does not list are ignored",
    "all": "detections at keyframes that the ground truth does not list are false positives",
}


@dataclass(frozen=True)
class Linking:
    """How the boxes of one class become tubes.

    Attributes:
        min_iou: least IoU of a box with the last box of the tube that it continues, in (0, 1].
        max_gap: for how many keyframes a tube may have no box and still continue; the boxes between
            are interpolated.
        box_nms_iou: of two boxes of a class and keyframe that overlap by this or more, the
            lower-scored one is left out first; 0 for none.
        max_boxes: how many boxes of a class and keyframe are linked, the highest-scored ones; 0 for
            all.
        min_keyframes: tubes that last fewer keyframes are left out.
        min_score: tubes with a lower mean score are left out.
        tube_nms_iou: of two tubes of a class that overlap by more than this, the lower-scored one
            is left out; 0 for none.
        trim_penalty: what each change between action and background costs when tubes are cut in
            time (`tube_trimming`); None for no cutting.
    """

    min_iou: float = 0.3
    max_gap: int = 2
    box_nms_iou: float = 0.0
    max_boxes: int = 0
    min_keyframes: int = 1
    min_score: float = 0.0
    tube_nms_iou: float = 0.0
    trim_penalty: float | None = None

    def check(self) -> None:
        """Raises InputError that lists every number out of range."""
        problems = []
        if not 0.0 < self.min_iou <= 1.0:
            problems.append(f"link_iou is {self.min_iou}, but must be in (0, 1]")
        for name in ("box_nms_iou", "tube_nms_iou"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                problems.append(f"{name} is {getattr(self, name)}, but must be in [0, 1]")
        for name, least in (("max_gap", 0), ("max_boxes", 0), ("min_keyframes", 1)):
            if getattr(self, name) < least:
                problems.append(f"{name} is {getattr(self, name)}, but must be {least} or more")
        if not abs(self.min_score) < float("inf"):
            problems.append(f"min_tube_score is {self.min_score}, but must be a finite number")
        if self.trim_penalty is not None and not 0.0 <= self.trim_penalty < float("inf"):
            problems.append(f"trim is {self.trim_penalty}, but must be a number of 0 or more")
        if problems:
            raise errors.InputError("; ".join(problems) + ".")

    def rules(self) -> tuple[str, ...]:
        """What is done, one line each, for reports."""
        lines = [
            "detections of a class are linked keyframe by keyframe: tubes take turns by mean "
            f"score, and each takes the highest-scored box left that overlaps its last one by IoU "
            f">= {self.min_iou:g}; boxes that are left over start tubes",
            f"a tube ends after more than {self.max_gap} keyframes without a box; boxes between "
            "are interpolated, in the ground truth too; a tube's score is the mean of its boxes'",
        ]
        if self.box_nms_iou:
            lines.append(
                f"before, boxes of a class and keyframe that a higher-scored one overlaps by IoU "
                f">= {self.box_nms_iou:g} are left out"
            )
        if self.max_boxes:
            lines.append(f"at most {self.max_boxes} boxes of a class and keyframe are linked")
        if self.trim_penalty is not None:
            lines.append(
                "tubes are cut where background is likelier than the action (Saha et al. 2016), "
                f"each change at a cost of {self.trim_penalty:g}"
            )
        if self.min_keyframes > 1 or self.min_score > 0:
            lines.append(
                f"tubes of fewer than {self.min_keyframes} keyframes, or with a score below "
                f"{self.min_score:g}, are left out"
            )
        if self.tube_nms_iou:
            lines.append(
                "tubes of a class that a higher-scored one overlaps by IoU > "
                f"{self.tube_nms_iou:g} are left out"
            )
        return tuple(lines)


@dataclass(frozen=True)
class Thresholds:
    """One IoU threshold, or several whose mAPs are averaged.

    Attributes:
        name: as users write it, "0.5" or "0.5:0.95".
        values: each in (0, 1].
    """

    name: str
    values: tuple[float, ...]

    @classmethod
    def parse(cls, text: str) -> "Thresholds":
        """From "0.5", "0.5:0.95" (in steps of 0.05) or "0.1:0.9:0.1".

        Raises:
            InputError: for anything else, or a threshold outside (0, 1].
        """
        try:
            parts = [float(part) for part in text.split(":")]
            low, high, step = {1: (*parts, *parts, 1.0), 2: (*parts, 0.05), 3: parts}[len(parts)]
        except (ValueError, KeyError, TypeError):
            raise errors.InputError(
                f"IoU threshold {text!r}: write 0.5, 0.5:0.95 (steps of 0.05) or 0.1:0.9:0.1."
            ) from None
        if not step > 0 or not low <= high:
            raise errors.InputError(
                f"IoU thresholds {text!r}: the first must not be above the last, and the step "
                "must be more than 0."
            )
        for value in (low, high):
            protocols.check_iou_threshold(value)
        # Up to a step of the last one: 0.5 + 9 * 0.05 is not quite 0.95.
        count = int((high - low) / step + 1e-6) + 1
        return cls(text, tuple(round(low + index * step, 10) for index in range(count)))


@dataclass(frozen=True)
class TubeProtocol:
    """The rules of a data set.

    Attributes:
        name: as users write it.
        program: whose rules these are.
        frames: which keyframes count, "all" or "listed".
        matching: which ground truth a detection may claim, box or tube.
        curve: the area under the precision-recall curve.
        time_overlap: how long tubes overlap in time.
        frame_iou: IoU threshold of frame-AP.
        video_ious: IoU thresholds of video-AP.
        linking: that of the programs.
    """

    name: str
    program: str
    frames: Frames
    matching: Matching
    curve: Curve
    time_overlap: TimeOverlap
    video_ious: tuple[Thresholds, ...]
    frame_iou: float = 0.5
    linking: Linking = dataclasses.field(default_factory=Linking)

    def rules(self) -> tuple[str, ...]:
        """The rules and the linking, one per line, for reports."""
        return (
            f"protocol {self.name}: {self.program}",
            f"frame-AP at IoU >= {self.frame_iou:g}; video-AP of tubes at IoU >= "
            + ", ".join(threshold.name for threshold in self.video_ious),
            _TIME_TEXT[self.time_overlap],
            _MATCHING_TEXT[self.matching],
            _CURVE_TEXT[self.curve],
            _FRAMES_TEXT[self.frames],
            "equal scores keep their order: by video and keyframe, then as in the file",
            "a tube of the ground truth: the boxes of a person id with one action",
            *self.linking.rules(),
            "mAP: mean over the classes that have ground truth",
        )

    @property
    def frame_protocol(self) -> protocols.Protocol:
        """Which rows count at all, for `selection.select`."""
        return protocols.Protocol(self.name, self.program, self.frames, row_order="score")


def parse_thresholds(text: str) -> tuple[Thresholds, ...]:
    """From "0.2,0.5,0.5:0.95"; raises what `Thresholds.parse` raises."""
    return tuple(Thresholds.parse(part) for part in text.split(","))


# The programs' linking of single-frame detections. They lower the score of a box that another
# overlaps, where here it is left out.
_ACT_LINKING = Linking(
    min_iou=0.5,
    max_gap=0,
    box_nms_iou=0.6,
    max_boxes=10,
    min_keyframes=15,
    min_score=0.005,
    tube_nms_iou=0.3,
)
GENERAL = TubeProtocol(
    "general",
    "for data of one's own: PASCAL VOC rules, at the keyframes that the ground truth lists",
    frames="listed",
    matching="closest",
    curve="envelope",
    time_overlap="moments",
    video_ious=parse_thresholds("0.2,0.5,0.75,0.5:0.95"),
)
JHMDB = TubeProtocol(
    "jhmdb",
    "J-HMDB as the program of the ACT detector evaluates it (act-detector-scripts/ACT.py)",
    frames="all",
    matching="remaining",
    curve="trapezoid",
    time_overlap="moments",
    video_ious=parse_thresholds("0.2,0.5,0.75,0.5:0.95"),
    linking=_ACT_LINKING,
)
UCF101_24 = dataclasses.replace(
    JHMDB,
    name="ucf101_24",
    program="UCF101-24 as the program of the ACT detector evaluates it "
    "(act-detector-scripts/ACT.py)",
)
MULTISPORTS = TubeProtocol(
    "multisports",
    "MultiSports (evaluate.py of the data set)",
    frames="all",
    matching="closest",
    curve="envelope",
    time_overlap="duration",
    video_ious=parse_thresholds("0.2,0.5,0.05:0.45,0.1:0.9:0.1,0.5:0.95"),
    # Several people do the same at the same place: no suppression of tubes.
    linking=dataclasses.replace(_ACT_LINKING, tube_nms_iou=0.0),
)

TUBE_PROTOCOLS: dict[str, TubeProtocol] = {
    protocol.name: protocol for protocol in (GENERAL, JHMDB, UCF101_24, MULTISPORTS)
}


def by_name(name: str) -> TubeProtocol:
    """The protocol of that name.

    Raises:
        InputError: if there is none.
    """
    if name not in TUBE_PROTOCOLS:
        raise errors.InputError(
            f"There is no tube protocol {name!r}; there are: {', '.join(TUBE_PROTOCOLS)}"
        )
    return TUBE_PROTOCOLS[name]


def changed(
    name: str, frame_iou: float | None = None, video_iou: str | None = None, **linking
) -> TubeProtocol:
    """A protocol with other thresholds or linking.

    Args:
        name: of the protocol.
        frame_iou: None for the protocol's.
        video_iou: as users write them, "0.2,0.5:0.95"; None for the protocol's.
        **linking: fields of `Linking`; None for the protocol's.

    Raises:
        InputError: for an unknown name or a number out of range.
    """
    protocol = by_name(name)
    changes = {}
    if frame_iou is not None:
        protocols.check_iou_threshold(frame_iou)
        changes["frame_iou"] = frame_iou
    if video_iou is not None:
        changes["video_ious"] = parse_thresholds(video_iou)
    given = {field: value for field, value in linking.items() if value is not None}
    changes["linking"] = dataclasses.replace(protocol.linking, **given)
    changes["linking"].check()
    return dataclasses.replace(protocol, **changes)
