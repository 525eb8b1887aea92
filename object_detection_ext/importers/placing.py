# SPDX-License-Identifier: Apache-2.0
"""Marks of a source in seconds and fractions of the frame, checked against the videos.

Coordinate frames: marks are in the source's unit; `Person.box` is normalized, [ymin, xmin, ymax,
xmax].
"""

import collections
import dataclasses
import math
from collections.abc import Hashable, Sequence

import numpy as np

from object_detection_ext.data import keyframe_thinning
from object_detection_ext.importers import model, video_facts

# Frames by which a count that was rounded may differ.
_ROUNDED_FRAMES = 2
# Seconds by which a length may differ where frames are counted at a rate of the tool's own.
_LENGTH_TOLERANCE = 0.5


@dataclasses.dataclass(frozen=True, slots=True)
class Person:
    """A person at a moment: `box` is [ymin, xmin, ymax, xmax], normalized."""

    box: tuple[float, float, float, float]
    actions: tuple[str, ...]
    person: Hashable | None


@dataclasses.dataclass(slots=True)
class PlacedVideo:
    """A video's keyframes: people by seconds, an empty list where nobody is."""

    video_id: str
    name: str
    keyframes: dict[float, list[Person]] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Rules:
    """How marks become keyframes.

    Attributes:
        every: keeps one keyframe in so many seconds; None keeps all.
        with_empty: whether frames that were looked through and have nobody are keyframes.
        box_tolerance: how far a box may stick out of the frame, as a fraction of it; what sticks
            out is cut off.
        fps: frames per second of videos whose files are missing.
        any_frame_count: whether videos may have another number of frames than annotations say.
        no_action: the action of people for whom none is marked; None leaves them out.
    """

    every: float | None = None
    with_empty: bool = False
    box_tolerance: float = 0.01
    fps: float | None = None
    any_frame_count: bool = False
    no_action: str | None = None

    def check(self) -> None:
        """Raises errors.InputError for values that cannot be."""
        if self.every is not None:
            keyframe_thinning.check_every(self.every)
        if not 0 <= self.box_tolerance <= 1:
            raise model.ImportFault(
                f"--box_tolerance is {self.box_tolerance:g}; it must be 0 to 1."
            )
        if self.fps is not None and not 0 < self.fps < math.inf:
            raise model.ImportFault(f"--fps is {self.fps:g}; it must be more than 0.")


class Placer:
    """Places the videos of a source, and counts what it changes."""

    def __init__(self, rules: Rules, notes: collections.Counter[str]):
        """Takes the rules, and the counter to add to."""
        self._rules, self._notes = rules, notes

    def place(self, video: model.SourceVideo, facts: video_facts.Facts) -> PlacedVideo:
        """Places one video.

        Args:
            video: as the annotation file has it.
            facts: what is known of the video itself.

        Raises:
            model.ImportFault: if the two do not match, or marks lie outside the video.
        """
        clock = _Clock(video, facts, self._rules)
        size = _size(video, facts)
        placed = PlacedVideo(facts.video_id, video.name)
        moments = self._moments(video, clock)
        kept = set(moments.values())
        if self._rules.every is not None:
            kept = set(keyframe_thinning.kept_times(kept, self._rules.every))
            dropped = len(set(moments.values())) - len(kept)
            self._notes[f"keyframes left out by --every {self._rules.every:g}"] += dropped
        self._add_people(placed, video, clock, kept, size)
        if self._rules.with_empty:
            for time in kept:
                placed.keyframes.setdefault(time, [])
        self._drop_without_action(placed)
        return placed

    def _moments(self, video: model.SourceVideo, clock: "_Clock") -> dict[int, float]:
        """The seconds of all keyframes, by frame, or by a number of the moment."""
        faults, moments = [], {}
        for number, mark in enumerate(video.marks):
            key = -1 - number if mark.frame is None else mark.frame
            if key not in moments:
                time = clock.seconds(mark)
                if time is not None:
                    moments[key] = time
                elif clock.is_rounded_up(mark):
                    self._notes["boxes after the last frame, by rounding, were left out"] += 1
                else:
                    faults.append(f"{mark.place}: {clock.fault(mark)}")
        model.raise_faults(faults, f"{video.file}: outside the video '{video.name}'")
        taken = set(moments)
        empty = [frame for frame in video.listed or () if frame not in taken]
        if self._rules.with_empty:
            moments |= {frame: clock.of_frame(frame) for frame in empty if clock.has(frame)}
        elif empty:
            self._notes[
                "frames on which nobody is marked were left out (--empty_keyframes writes them)"
            ] += len(empty)
        return moments

    def _add_people(self, placed, video, clock, kept: set[float], size) -> None:
        faults, lost = [], set()
        for mark in video.marks:
            time = clock.seconds(mark)
            if time not in kept:
                continue
            if not clock.is_first_of_its_frame(mark, time):
                self._notes["boxes between two frames of the video were left out"] += 1
                continue
            corners = _fractions(mark, video, size)
            if max(-min(corners), max(corners) - 1) > self._rules.box_tolerance:
                faults.append(f"{mark.place}: {_box_fault(mark, video, size)}")
                continue
            cut = tuple(min(max(side, 0.0), 1.0) for side in corners)
            self._notes["boxes were cut off at the edge of the frame"] += cut != corners
            x1, y1, x2, y2 = cut
            if x1 >= x2 or y1 >= y2:
                self._notes["boxes without an area in the frame were left out"] += 1
                lost.add(time)
                continue
            person = Person((y1, x1, y2, x2), mark.actions, mark.person)
            placed.keyframes.setdefault(time, []).append(person)
        # A moment without people would say that nobody is there.
        kept -= lost - placed.keyframes.keys()
        model.raise_faults(
            faults,
            f"{video.file}: boxes outside the frame of '{video.name}' by more than "
            f"--box_tolerance {self._rules.box_tolerance:g}",
        )

    def _drop_without_action(self, placed: PlacedVideo) -> None:
        """Gives people without an action the one for that, or leaves them out, counted."""
        for time, people in list(placed.keyframes.items()):
            idle = [person for person in people if not person.actions]
            if not idle:
                continue
            if self._rules.no_action is not None:
                self._notes[f"people without an action were given '{self._rules.no_action}'"] += (
                    len(idle)
                )
                named = (self._rules.no_action,)
                placed.keyframes[time] = [
                    person if person.actions else dataclasses.replace(person, actions=named)
                    for person in people
                ]
                continue
            self._notes[
                "people without an action were left out, and count as background (--no_action "
                "NAME gives them one)"
            ] += len(idle)
            placed.keyframes[time] = [person for person in people if person.actions]
            if not placed.keyframes[time]:
                # A keyframe without people would say that nobody is there.
                del placed.keyframes[time]
                self._notes["keyframes of which no person has an action were left out"] += 1


class _Clock:
    """Turns frames into seconds, by the video's own times where its file is there."""

    def __init__(self, video: model.SourceVideo, facts: video_facts.Facts, rules: Rules):
        self._times, self._rate = facts.times, None
        self._count = self._said = video.num_frames
        self._first: dict[float, int] = {}
        self._is_rounded = False
        if self._times is None:
            self._rate = video.rate or rules.fps
            if self._rate is None and any(mark.frame is not None for mark in video.marks):
                raise model.ImportFault(
                    f"{video.file}: it counts frames and does not say how many of '{video.name}' "
                    "are a second: give --videos FOLDER, to take frames' times from the files, or "
                    "--fps."
                )
            return
        if video.rate is not None and not self._is_near_count(video):
            self._rate = video.rate
            _check_length(video, facts)
            return
        self._is_rounded = video.rate is not None
        if not self._is_rounded:
            _check_count(video, facts, rules)
        self._count = len(self._times)

    def _is_near_count(self, video: model.SourceVideo) -> bool:
        return abs(len(self._times) - (video.num_frames or 0)) <= _ROUNDED_FRAMES

    def has(self, frame: int) -> bool:
        """Whether the video has this frame."""
        return frame >= 0 and (self._count is None or frame < self._count)

    def of_frame(self, frame: int) -> float:
        """The seconds at which a frame that the video has is shown."""
        if self._rate is None:
            return round(float(self._times[frame]), 6)
        time = frame / self._rate
        return self._shown_at(time) if self._times is not None else round(time, 6)

    def seconds(self, mark: model.Mark) -> float | None:
        """The seconds of a mark's frame; None if the video does not have it."""
        if mark.frame is not None:
            return self.of_frame(mark.frame) if self.has(mark.frame) else None
        if self._times is None:
            return round(mark.seconds, 6) if mark.seconds >= 0 else None
        return self._shown_at(mark.seconds) if 0 <= mark.seconds <= self._end else None

    @property
    def _end(self) -> float:
        interval = self._times[-1] - self._times[-2] if len(self._times) > 1 else 0.0
        # A player that stands at the end shows the last frame, and its clock is rounded.
        return float(self._times[-1] + interval + _LENGTH_TOLERANCE)

    def _shown_at(self, time: float) -> float:
        """The time of the frame that a player shows at a moment."""
        # Tools round to a few decimals, which can bring a moment before its frame.
        index = int(np.searchsorted(self._times, time + 5e-4, side="right")) - 1
        return round(float(self._times[max(index, 0)]), 6)

    def is_rounded_up(self, mark: model.Mark) -> bool:
        """Whether a frame that the video lacks is one by which a tool's count was rounded up."""
        if mark.frame is None or self._count is None or self._said is None:
            return False
        return self._is_rounded and self._count <= mark.frame < self._said

    def is_first_of_its_frame(self, mark: model.Mark, time: float) -> bool:
        """Whether no earlier frame of a tool that counts faster is the same frame of the video."""
        if self._rate is None or mark.frame is None:
            return True
        return self._first.setdefault(time, mark.frame) == mark.frame

    def fault(self, mark: model.Mark) -> str:
        """Why a mark has no time."""
        if mark.frame is None:
            end = "" if self._times is None else f"; the video ends at {self._times[-1]:.3f} s"
            return f"{mark.seconds:g} s{end}"
        return f"frame {mark.frame} (from 0); the video has {self._count} frames"


def _check_count(video: model.SourceVideo, facts: video_facts.Facts, rules: Rules) -> None:
    count, said = len(facts.times), video.num_frames
    if said is None or count == said:
        return
    if rules.any_frame_count or (count > said and video.count_may_be_less):
        return
    advice = "is it another version of the video, or cut?"
    if count > said:
        advice += " If only its first frames were annotated, give --allow_frame_count_mismatch."
    raise model.ImportFault(
        f"{facts.path} has {count} frames, but {video.file} says {said} of '{video.name}': {advice}"
    )


def _check_length(video: model.SourceVideo, facts: video_facts.Facts) -> None:
    said, length = video.num_frames / video.rate, float(facts.times[-1])
    if abs(said - length) > _LENGTH_TOLERANCE + 1 / video.rate:
        raise model.ImportFault(
            f"{facts.path} lasts {length:.2f} s and has {len(facts.times)} frames, but "
            f"{video.file} says {said:.2f} s and {video.num_frames} frames of '{video.name}': is "
            "it another version of the video, or cut?"
        )


def _size(video: model.SourceVideo, facts: video_facts.Facts) -> tuple[int, int] | None:
    """(width, height) in pixels as shown; None if nothing needs it."""
    said = (video.width, video.height) if video.width and video.height else None
    if said and facts.size and said != facts.size:
        raise model.ImportFault(
            f"{facts.path} is {facts.size[0]}x{facts.size[1]} pixels, but {video.file} says "
            f"{said[0]}x{said[1]} of '{video.name}': is it another version of the video?"
        )
    size = facts.size or said
    turned = any(mark.rotation for mark in video.marks)
    if size is None and (video.unit == model.PIXELS or turned) and video.marks:
        raise model.ImportFault(
            f"{video.file}: it does not say how many pixels '{video.name}' has: give --videos "
            "FOLDER."
        )
    return size


def _fractions(mark: model.Mark, video: model.SourceVideo, size) -> tuple[float, ...]:
    """x1, y1, x2, y2 of a mark as fractions of the frame; of a rotated one, of the box around."""
    x1, y1, x2, y2 = mark.box
    if video.unit == model.PIXELS:
        width, height = size
    else:
        width = height = 100.0 if video.unit == model.PERCENT else 1.0
    if mark.rotation % 360:
        x1, y1, x2, y2 = _upright(mark, size[0] / width, size[1] / height)
    return x1 / width, y1 / height, x2 / width, y2 / height


def _upright(mark: model.Mark, x_pixels: float, y_pixels: float) -> tuple[float, ...]:
    """The upright box around a rotated mark, in its unit, of so many pixels."""
    x1, y1, x2, y2 = mark.box
    turn = math.radians(mark.rotation)
    right, down = (x2 - x1) * x_pixels, (y2 - y1) * y_pixels
    xs, ys = [], []
    for along, below in ((0, 0), (right, 0), (0, down), (right, down)):
        xs.append(x1 + (along * math.cos(turn) - below * math.sin(turn)) / x_pixels)
        ys.append(y1 + (along * math.sin(turn) + below * math.cos(turn)) / y_pixels)
    return min(xs), min(ys), max(xs), max(ys)


def _box_fault(mark: model.Mark, video: model.SourceVideo, size: Sequence[int] | None) -> str:
    corners = ", ".join(f"{side:.6g}" for side in mark.box)
    if video.unit == model.PIXELS:
        return f"x1, y1, x2, y2 are {corners} pixels; the frame is {size[0]}x{size[1]}"
    return f"x1, y1, x2, y2 are {corners}, in {video.unit} of the frame"
