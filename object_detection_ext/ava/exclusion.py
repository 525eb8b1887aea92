# SPDX-License-Identifier: Apache-2.0
"""Which frames of a file a list of excluded timestamps means, and which of it mean none."""

from collections.abc import Iterable

from object_detection_ext.ava import timestamps
from object_detection_ext.ava.timestamps import Frame


class Exclusion:
    """Excluded moments against the frames of a file.

    Attributes:
        left_out: the frames that are excluded.
        unmet: excluded moments that meet no frame, sorted.
    """

    def __init__(self, excluded: Iterable[Frame], frames: Iterable[Frame]):
        """Compares the two; see `timestamps.Moments` for which moments are the same."""
        excluded = frozenset(excluded)
        self._num_excluded = len(excluded)
        self._moments = timestamps.Moments(frames if excluded else ())
        met = {moment: self._moments.met_by(moment) for moment in excluded}
        self.left_out = frozenset(frame for frame in met.values() if frame is not None)
        self.unmet = sorted(moment for moment, frame in met.items() if frame is None)

    def message(self) -> str | None:
        """What is to be said of moments that exclude nothing; None if each does."""
        if not self.unmet:
            return None
        # One that is near to a frame says most.
        shown = min(self.unmet, key=self._distance)
        video_id, seconds = shown
        nearest = self._moments.nearest(shown)
        near = "the video has no keyframe"
        if nearest is not None:
            near = f"the nearest keyframe is at {timestamps.format_timestamp(nearest[1])} s"
        return (
            f"{len(self.unmet):,} of {self._num_excluded:,} excluded timestamps meet no keyframe "
            f"and exclude nothing (such as '{video_id}' at "
            f"{timestamps.format_timestamp(seconds)} s: {near})"
        )

    def _distance(self, moment: Frame) -> tuple[float, Frame]:
        nearest = self._moments.nearest(moment)
        return (float("inf") if nearest is None else abs(nearest[1] - moment[1])), moment
