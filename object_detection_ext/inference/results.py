# SPDX-License-Identifier: Apache-2.0
"""What a detector finds, and the forms that it is kept in.

Boxes are [ymin, xmin, ymax, xmax], normalized. Shapes: P people of a keyframe, L layers and M heads
of Tx units, t h w cells of the feature map.
"""

import dataclasses
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from object_detection_ext import errors, json_text
from object_detection_ext.ava import writer
from object_detection_ext.visualization import attention as attention_lib

_COLUMNS = (
    "video", "time", "person", "track", "ymin", "xmin", "ymax", "xmax",
    "action_id", "action", "score",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Person:
    """A person in a keyframe.

    Attributes:
      box: float [4].
      scores: 0..1 by action id, the highest first.
      names: action names by id, at least of those in `scores`.
      track: the same for the same person in other keyframes; None without tracking.
      attention: float [L, M, t, h, w], what the person's query attended to in the clip, each map
        with sum 1; None unless it was asked for.
    """

    box: np.ndarray
    scores: Mapping[int, float]
    names: Mapping[int, str]
    track: int | None = None
    attention: np.ndarray | None = None

    @property
    def actions(self) -> dict[str, float]:
        """Scores by action name, the highest first."""
        return {self.names[action]: score for action, score in self.scores.items()}

    @property
    def score(self) -> float:
        """That of the surest action."""
        return max(self.scores.values())


@dataclasses.dataclass(frozen=True)
class Keyframe:
    """The people of a moment of a video.

    Attributes:
      video: what the source is called.
      time: seconds from its start.
      people: the surest first.
      frame: uint8 [H, W, 3] RGB, if frames are kept.
      attention_map: float [h, w], what its people attended to in the clip's middle frame, 1 where
        it is uniform; None unless `with_attention_map` made it.
    """

    video: str
    time: float
    people: tuple[Person, ...]
    frame: np.ndarray | None = None
    attention_map: np.ndarray | None = None

    @property
    def boxes(self) -> np.ndarray:
        """Float [P, 4]."""
        return np.array([person.box for person in self.people], np.float64).reshape(-1, 4)

    @property
    def actions(self) -> list[dict[str, float]]:
        """For each of the P people the scores by action name."""
        return [person.actions for person in self.people]


def with_attention_map(keyframe: Keyframe) -> Keyframe:
    """The keyframe with what a picture shows of its people's attention, in place of all of it.

    That is the mean over the people and over the heads of the last layer: some kilobytes, where the
    attention of a crowd is some megabytes. Three decimals are kept, as in a line of JSON.
    """
    maps = [person.attention[-1].mean(axis=0) for person in keyframe.people
            if person.attention is not None]  # fmt: skip
    if not maps:
        return keyframe
    relative = attention_lib.relative_to_uniform(np.mean(maps, axis=0))  # [t, h, w]
    return dataclasses.replace(
        keyframe,
        people=tuple(dataclasses.replace(person, attention=None) for person in keyframe.people),
        attention_map=np.round(relative[len(relative) // 2].astype(np.float64), 3),
    )


def rows(keyframes: Iterable[Keyframe]) -> Iterator[dict[str, object]]:
    """One row per person and action, with the columns of `to_dataframe`."""
    for keyframe in keyframes:
        for number, person in enumerate(keyframe.people):
            corners = [float(value) for value in person.box]
            for action, score in person.scores.items():
                values = (keyframe.video, keyframe.time, number, person.track, *corners,
                          action, person.names[action], score)  # fmt: skip
                yield dict(zip(_COLUMNS, values, strict=True))


def to_dataframe(keyframes: Iterable[Keyframe]):
    """A pandas frame with a row per person and action.

    Columns: video, time (s), person (place in the keyframe), track, ymin, xmin, ymax, xmax
    (normalized), action_id, action, score.
    """
    import pandas as pd  # takes a second to import; only this needs it

    frame = pd.DataFrame(list(rows(keyframes)), columns=_COLUMNS)
    return frame.astype({"track": "Int64"})


def write_ava_csv(
    path: str | os.PathLike, keyframes: Iterable[Keyframe], offset: float = 0.0
) -> int:
    """Writes detections as `evaluation.ava_ap` reads them and returns the number of rows.

    Rows: video_id,timestamp,x1,y1,x2,y2,action_id,score. An existing file is replaced when the new
    one is complete.

    Args:
      path: of the file.
      keyframes: what was detected.
      offset: seconds that are added to the keyframes' times.
    """
    with writer.writing(path) as ava_rows:
        for row in rows(keyframes):
            box = [row[side] for side in ("ymin", "xmin", "ymax", "xmax")]
            time = row["time"] + offset
            ava_rows.detection(row["video"], time, box, row["action_id"], row["score"])
    return ava_rows.num_rows


def to_json(keyframe: Keyframe) -> str:
    """A keyframe as one line of JSON, without frame and attention; with the map of it, if any."""
    people = [
        {
            "box": [round(float(value), 6) for value in person.box],
            "track": person.track,
            "actions": [
                {"id": action, "name": person.names[action], "score": round(float(score), 6)}
                for action, score in person.scores.items()
            ],
        }
        for person in keyframe.people
    ]
    fields = {"video": keyframe.video, "time": keyframe.time, "people": people}
    if keyframe.attention_map is not None:
        fields["attention_map"] = keyframe.attention_map.tolist()
    return json.dumps(fields)


def from_json(line: str) -> Keyframe:
    """The keyframe of a line that `to_json` made.

    Raises:
      errors.InputError: if it is none.
    """
    try:
        fields = json_text.parsed(line)
        people = tuple(
            Person(
                np.array(person["box"], np.float64),
                {action["id"]: action["score"] for action in person["actions"]},
                {action["id"]: action["name"] for action in person["actions"]},
                person["track"],
            )
            for person in fields["people"]
        )
        attention_map = fields.get("attention_map")
        return Keyframe(
            fields["video"],
            fields["time"],
            people,
            attention_map=None if attention_map is None else np.array(attention_map, np.float64),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise errors.InputError(f"Not a keyframe's line of JSON ({error}): {line[:80]!r}") from None


def clearest(keyframes: Sequence[Keyframe]) -> int:
    """Returns the index of the keyframe whose people have the highest scores in sum.

    The one nearest to the middle wins between equals, so that an empty video gives its middle.
    """
    middle = (len(keyframes) - 1) / 2
    sums = [sum(person.score for person in keyframe.people) for keyframe in keyframes]
    return max(range(len(sums)), key=lambda i: (round(sums[i], 6), -abs(i - middle)))
