# SPDX-License-Identifier: Apache-2.0
"""Makes a small synthetic action data set: real video files, AVA-style CSVs and a label map.

    python -m object_detection_ext.tools.make_toy_dataset --output DIR --num_train 60 --num_eval 20

One to three drawn people per video stand, crouch, walk, jump or wave before a cluttered
background. Some actions show in the pose (crouch), some only in motion (walk, wave, jump), and one
only in the company: a still person is labelled `watch (a person)` exactly if somebody else in the
scene waves. Nothing in the drawing of a watching person depends on that label.

DIR then holds videos/*.mp4, train.csv, eval.csv and label_map.pbtxt. The labels depend on the
options and the seed alone, down to the byte; the pictures also on the installed encoder.

Lengths of a body are in units of the standing person's height, with x to the right, y up and the
origin on the ground below the hips. Lengths of a scene are in units of the frame's height, with x
to the right and y down from the top left corner.
"""

import concurrent.futures
import dataclasses
import itertools
import math
import multiprocessing
import os
import pathlib
from collections.abc import Sequence

import av
import numpy as np
from absl import app, flags
from PIL import Image, ImageDraw

from object_detection_ext import command_line, listing
from object_detection_ext import progress as progress_lib
from object_detection_ext.ava import writer
from object_detection_ext.visualization import drawing

ACTIONS = {
    1: "stand",
    2: "crouch/kneel",
    3: "walk",
    4: "jump/leap",
    5: "hand wave",
    6: "watch (a person)",
}
STAND, CROUCH, WALK, JUMP, WAVE, WATCH = ACTIONS

# Who is in a scene; the deck is dealt evenly so that every class is frequent in small data sets
# too. For each company with somebody who waves (W) there is one of the same size without, in which
# X walks or jumps: the number of people says nothing about the `watch` label of a still one (S).
_COMPANIES = (
    ("W", "S"), ("X", "S"),
    ("W", "S", "walk"), ("X", "S", "walk"),
    ("W", "S", "jump"), ("X", "S", "jump"),
    ("W", "S", "S"), ("X", "S", "S"),
    ("W",), ("X",), ("S",),
)  # fmt: skip

# Half of the width that a person takes while doing something, in body heights.
_HALF_WIDTH = {"still": 0.23, "wave": 0.34, "walk": 0.24, "jump": 0.29}
_JUMP_RISE = 0.25
_SUPERSAMPLING = 3


@dataclasses.dataclass(frozen=True)
class Look:
    """What a person looks like; colours are RGB in 0..255, `build` scales the limbs' thickness."""

    skin: tuple[int, int, int]
    hair: tuple[int, int, int]
    shirt: tuple[int, int, int]
    trousers: tuple[int, int, int]
    shoes: tuple[int, int, int]
    build: float
    long_sleeves: bool
    hat: bool
    skirt: bool


@dataclasses.dataclass(frozen=True)
class Person:
    """A person of a scene.

    `motion` is one of still, wave, walk, jump; `crouched` holds for still and wave. `height`, `x`,
    `ground` and the walker's `span` are in frame heights; `period` is in seconds and `phase` in
    cycles; `side` (-1 or 1) is the arm that waves and the way that a walker starts; `rest` is the
    angle of the hanging arms in radians from straight down.
    """

    look: Look
    motion: str
    crouched: bool
    height: float
    x: float
    ground: float
    span: float
    speed: float
    period: float
    phase: float
    side: int
    rest: float


@dataclasses.dataclass(frozen=True)
class Scene:
    """A background and its people, the ones farther away (higher on the ground) first."""

    background: Image.Image
    people: tuple[Person, ...]
    ball: tuple[float, float, float, tuple[int, int, int]] | None


def person_actions(people: Sequence[Person], index: int) -> list[int]:
    """Returns the sorted action ids of `people[index]`, given everybody in the scene."""
    person = people[index]
    if person.motion == "walk":
        return [WALK]
    if person.motion == "jump":
        return [JUMP]
    actions = [CROUCH if person.crouched else STAND]
    if person.motion == "wave":
        actions.append(WAVE)
    elif any(other.motion == "wave" for other in people):
        actions.append(WATCH)
    return actions


# --- Motion: where the joints are at a time -------------------------------------------------------


def _bend(start, end, bend: float, length: float = 0.245):
    """Returns the joint between two segments of one length; `bend` (-1 or 1) is its side."""
    dx, dy = end[0] - start[0], end[1] - start[1]
    distance = max(math.hypot(dx, dy), 1e-6)
    offset = math.sqrt(max(length**2 - (distance / 2) ** 2, 0.0)) * bend
    middle = ((start[0] + end[0]) / 2, (start[1] + end[1]) / 2)
    return (middle[0] - dy / distance * offset, middle[1] + dx / distance * offset)


def _arm(shoulder, upper: float, lower: float, side: int):
    """Returns [shoulder, elbow, hand] for angles from straight down, outwards on `side`."""
    elbow = (shoulder[0] + side * 0.17 * math.sin(upper), shoulder[1] - 0.17 * math.cos(upper))
    hand = (elbow[0] + side * 0.17 * math.sin(lower), elbow[1] - 0.17 * math.cos(lower))
    return [shoulder, elbow, hand]


def _feet_and_hips(person: Person, cycle: float):
    """Returns (left foot, right foot, hips, lift, lean) for a phase in cycles."""
    turn = 2 * math.pi * cycle
    if person.motion == "walk":
        reach, raised = 0.17 * math.sin(turn), 0.07 * math.cos(turn)
        left, right = (reach, max(0.0, raised)), (-reach, max(0.0, -raised))
        return left, right, (0.0, 0.455 + 0.015 * math.cos(2 * turn)), 0.0, 0.0
    if person.motion == "jump":
        u = cycle % 1.0
        if u < 0.35:
            dip = 0.14 * math.sin(math.pi * u / 0.35)
            return (-0.09, 0.0), (0.09, 0.0), (0.0, 0.478 - dip), 0.0, 0.0
        s = (u - 0.35) / 0.65
        arc = 4 * s * (1 - s)
        tuck = 0.06 * arc
        return (-0.09, tuck), (0.09, tuck), (0.0, 0.478), _JUMP_RISE * arc, 0.0
    # A still person breathes and sways a little, so that nobody is a photograph.
    sway = 0.008 * math.sin(turn * 0.4)
    if person.crouched:
        return (-0.12, 0.0), (0.12, 0.0), (sway, 0.19), 0.0, 0.03 * person.side
    return (-0.065, 0.0), (0.065, 0.0), (sway, 0.483), 0.0, 0.0


def _arms(person: Person, shoulders, cycle: float):
    """Returns the two arms, each [shoulder, elbow, hand]."""
    turn = 2 * math.pi * cycle
    angles = {-1: (person.rest, person.rest * 0.6), 1: (person.rest, person.rest * 0.6)}
    if person.motion == "wave":
        swing = 0.75 * math.sin(turn)
        angles[person.side] = (2.15 + 0.15 * math.sin(turn), 2.75 + swing)
    elif person.motion == "walk":
        swing = 0.6 * math.sin(turn)
        angles = {-1: (swing, swing + 0.2), 1: (swing, swing - 0.2)}
    elif person.motion == "jump":
        raised = 0.4 + 1.1 * max(0.0, math.sin(math.pi * ((cycle % 1.0) - 0.3) / 0.7))
        angles = {-1: (raised, raised), 1: (raised, raised)}
    return [_arm(shoulders[side], *angles[side], side) for side in (-1, 1)]


def _position(person: Person, seconds: float) -> float:
    """Returns the x of the person: walkers go back and forth in a span around their place."""
    if person.motion != "walk":
        return person.x
    travelled = (seconds * person.speed / person.span + person.phase) % 2.0
    along = travelled if travelled < 1.0 else 2.0 - travelled
    return person.x + person.side * person.span * (along - 0.5)


def skeleton(person: Person, seconds: float) -> dict[str, list[tuple[float, float]]]:
    """Returns the body's polylines by name, in body heights (x right, y up from the ground)."""
    cycle = seconds / person.period + person.phase
    left, right, hips, lift, lean = _feet_and_hips(person, cycle)
    torso = 0.27 if person.crouched else 0.32
    neck = (hips[0] + lean, hips[1] + torso)
    half = 0.085 * person.look.build
    shoulders = {side: (neck[0] + side * half, neck[1] - 0.02) for side in (-1, 1)}
    parts = {"torso": [hips, neck], "head": [(neck[0] + lean * 0.5, neck[1] + 0.115)]}
    # Knees point outwards, but both forwards in a walk.
    for name, foot, side in (("left_leg", left, -1), ("right_leg", right, 1)):
        hip = (hips[0] + side * 0.04, hips[1])
        bend = -1 if (person.motion == "walk" or side > 0) else 1
        parts[name] = [hip, _bend(hip, foot, -bend), foot]
    parts["left_arm"], parts["right_arm"] = _arms(person, shoulders, cycle)
    return {name: [(x, y + lift) for x, y in points] for name, points in parts.items()}


# --- Drawing --------------------------------------------------------------------------------------


def _draw_person(
    person: Person, seconds: float, size: tuple[int, int]
) -> tuple[Image.Image, tuple[float, float, float, float]]:
    """Draws one person by itself.

    Returns:
      (RGBA picture of `size` (width, height) in pixels, its drawn extent
      [ymin, xmin, ymax, xmax] normalized to the frame).
    """
    scale = size[1] * _SUPERSAMPLING
    canvas = Image.new("RGBA", (size[0] * _SUPERSAMPLING, size[1] * _SUPERSAMPLING), (0, 0, 0, 0))
    draw = ImageDraw.Draw(canvas)
    x0, body, look = _position(person, seconds), person.height, person.look

    def place(point):
        return ((x0 + point[0] * body) * scale, (person.ground - point[1] * body) * scale)

    def limb(points, width, color):
        points, width = [place(p) for p in points], width * look.build * body * scale
        draw.line(points, fill=color, width=max(1, round(width)))
        for x, y in points:
            draw.ellipse((x - width / 2, y - width / 2, x + width / 2, y + width / 2), fill=color)

    parts = skeleton(person, seconds)
    for name in ("left_leg", "right_leg"):
        hip, knee, foot = parts[name]
        limb([knee, foot], 0.065, look.skin if look.skirt else look.trousers)
        limb([hip, knee], 0.085, look.trousers)
        toes = (foot[0] + (0.02 if name == "right_leg" else -0.02), foot[1])
        limb([foot, toes], 0.06, look.shoes)
    _draw_clothes(draw, parts, place, look)
    for name in ("left_arm", "right_arm"):
        shoulder, elbow, hand = parts[name]
        limb([elbow, hand], 0.05, look.shirt if look.long_sleeves else look.skin)
        limb([shoulder, elbow], 0.06, look.shirt)
        limb([hand], 0.062, look.skin)
    _draw_head(draw, place(parts["head"][0]), 0.082 * body * scale, look)
    left, top, right, bottom = canvas.getchannel("A").getbbox()
    width, height = canvas.size
    extent = (top / height, left / width, bottom / height, right / width)
    return canvas.reduce(_SUPERSAMPLING), extent


def _draw_clothes(draw: ImageDraw.ImageDraw, parts, place, look: Look) -> None:
    """Draws the shirt's body and the skirt; `place` takes a point of the body to pixels."""
    hips, neck = parts["torso"]
    half = 0.095 * look.build
    if look.skirt:
        knees = [parts[name][1] for name in ("left_leg", "right_leg")]
        corners = [(hips[0] - half * 0.8, hips[1] + 0.03), (hips[0] + half * 0.8, hips[1] + 0.03)]
        hem = min(knee[1] for knee in knees) + 0.02
        corners += [(max(k[0] for k in knees) + 0.05, hem), (min(k[0] for k in knees) - 0.05, hem)]
        draw.polygon([place(p) for p in corners], fill=look.trousers)
    corners = [(hips[0] - half * 0.75, hips[1]), (hips[0] + half * 0.75, hips[1])]
    corners += [(neck[0] + half, neck[1]), (neck[0] - half, neck[1])]
    draw.polygon([place(p) for p in corners], fill=look.shirt)


def _draw_head(draw: ImageDraw.ImageDraw, centre, radius: float, look: Look) -> None:
    x, y = centre
    draw.rectangle((x - radius * 0.35, y, x + radius * 0.35, y + radius * 1.5), fill=look.skin)
    draw.ellipse((x - radius, y - radius * 1.1, x + radius, y + radius * 1.1), fill=look.hair)
    draw.ellipse(
        (x - radius * 0.85, y - radius * 0.6, x + radius * 0.85, y + radius * 1.1), fill=look.skin
    )
    if look.hat:
        draw.rectangle((x - radius * 1.3, y - radius * 0.75, x + radius * 1.3, y - radius * 0.5),
                       fill=look.shoes)  # fmt: skip
    for eye in (-0.35, 0.35):
        draw.ellipse(
            (x + (eye - 0.12) * radius, y, x + (eye + 0.12) * radius, y + 0.24 * radius),
            fill=(20, 20, 20),
        )


def render(scene: Scene, seconds: float) -> tuple[np.ndarray, list[tuple]]:
    """Draws a scene at a time.

    Returns:
      (uint8 [H, W, 3] RGB, boxes [ymin, xmin, ymax, xmax] normalized, in the order of the people).
    """
    frame = scene.background.copy()
    if scene.ball is not None:
        _draw_ball(frame, scene.ball, seconds)
    boxes = []
    for person in scene.people:
        layer, box = _draw_person(person, seconds, frame.size)
        frame.paste(layer, (0, 0), layer)
        boxes.append(box)
    return np.asarray(frame), boxes


def _draw_ball(frame: Image.Image, ball, seconds: float) -> None:
    """Rolls a ball behind the people: something that moves and is nobody."""
    start, speed, radius, color = ball
    aspect = frame.width / frame.height
    x = (start + speed * seconds) % (aspect + 2 * radius) - radius
    y = 0.82 - 0.12 * abs(math.sin(4 * seconds + start))
    box = [round(v * frame.height) for v in (x - radius, y - radius, x + radius, y + radius)]
    draw = ImageDraw.Draw(frame)
    draw.ellipse(box, fill=color)
    draw.arc(box, 200, 320, fill=tuple(c // 2 for c in color), width=2)


# --- Random scenes --------------------------------------------------------------------------------


def _muted_color(rng, low: int, high: int) -> tuple[int, int, int]:
    """Returns a greyish colour, as walls and furniture have."""
    color = rng.integers(low, high) + rng.integers(-28, 29, 3)
    return tuple(int(v) for v in np.clip(color, 0, 255))


def _vivid_color(rng) -> tuple[int, int, int]:
    """Returns a saturated or a very light or dark colour, as clothes have."""
    color = rng.integers(0, 256, 3)
    color[rng.integers(3)] = rng.choice([15, 240])
    return tuple(int(v) for v in color)


def _random_look(rng) -> Look:
    skins = ((250, 218, 190), (230, 185, 150), (190, 140, 105), (135, 90, 65), (90, 60, 45))
    hairs = ((30, 25, 20), (90, 55, 30), (200, 165, 90), (150, 150, 150), (160, 60, 30))
    return Look(
        skin=skins[rng.integers(len(skins))],
        hair=hairs[rng.integers(len(hairs))],
        shirt=_vivid_color(rng),
        trousers=_vivid_color(rng),
        shoes=_muted_color(rng, 15, 110),
        build=float(rng.uniform(0.9, 1.35)),
        long_sleeves=bool(rng.random() < 0.5),
        hat=bool(rng.random() < 0.25),
        skirt=bool(rng.random() < 0.25),
    )


def _random_background(rng, size: tuple[int, int]) -> Image.Image:
    """Draws a wall and a floor with texture, furniture and pictures."""
    width, height = size
    floor = int(height * rng.uniform(0.55, 0.8))
    pixels = np.empty((height, width, 3), np.float32)
    pixels[:floor], pixels[floor:] = _muted_color(rng, 70, 225), _muted_color(rng, 50, 180)
    pixels *= np.linspace(rng.uniform(0.75, 1.25), rng.uniform(0.75, 1.25), width)[None, :, None]
    frame = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(frame)
    for _ in range(rng.integers(3, 9)):
        x, y = rng.uniform(-0.1, 1.0) * width, rng.uniform(-0.1, 0.75) * height
        w, h = rng.uniform(0.05, 0.3) * width, rng.uniform(0.08, 0.55) * height
        shape = draw.rectangle if rng.random() < 0.75 else draw.ellipse
        shape((x, y, x + w, y + h), fill=_muted_color(rng, 40, 220))
        if rng.random() < 0.5:
            stripe = _muted_color(rng, 40, 220)
            for k in range(1, int(rng.integers(2, 6))):
                draw.line((x, y + h * k / 6, x + w, y + h * k / 6), fill=stripe, width=2)
    grain = rng.normal(0, 1, (max(2, height // 6), max(2, width // 6), 3)).astype(np.float32)
    channels = [Image.fromarray(grain[..., c]) for c in range(3)]
    channels = [np.asarray(c.resize(size, Image.Resampling.BICUBIC)) for c in channels]
    grain = np.stack(channels, -1) * rng.uniform(3, 12)
    grain = 0.8 * grain.mean(-1, keepdims=True) + 0.2 * grain  # mostly light and dark
    pixels = np.asarray(frame, np.float32) + grain + rng.normal(0, 4, (height, width, 1))
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def _random_person(rng, motion: str, crouched: bool, max_height: float) -> Person:
    height = min(float(rng.uniform(0.45, 0.72)), max_height)
    if motion == "jump":
        height = min(height, 0.66)
    periods = {"still": (0.8, 1.4), "wave": (0.45, 0.75), "walk": (0.65, 0.9), "jump": (0.7, 0.9)}
    ground_low = max(0.8, height * (1 + _JUMP_RISE * (motion == "jump")) + 0.12)
    return Person(
        look=_random_look(rng),
        motion=motion,
        crouched=crouched,
        height=height,
        x=0.0,
        ground=float(rng.uniform(ground_low, max(ground_low, 0.96))),
        span=0.0,
        speed=height * float(rng.uniform(0.5, 0.8)),
        period=float(rng.uniform(*periods[motion])),
        phase=float(rng.uniform(0, 1)),
        side=int(rng.choice([-1, 1])),
        rest=float(rng.uniform(0.05, 0.55)),
    )


def _placed(rng, people: list[Person], aspect: float) -> tuple[Person, ...]:
    """Gives everybody a place beside the others; walkers get most of the free room."""
    widths = [2 * _HALF_WIDTH[p.motion] * p.height for p in people]
    margin = 0.02
    free = aspect - 2 * margin - sum(widths)
    shares = np.array([6.0 if p.motion == "walk" else 1.0 for p in people] + [0.5])
    shares *= rng.uniform(0.4, 1.0, len(shares))
    rooms = free * shares / shares.sum()
    placed, left = [], margin
    for person, width, room in zip(people, widths, rooms, strict=False):
        if person.motion == "walk":
            person = dataclasses.replace(person, x=left + (width + room) / 2, span=float(room))
        else:
            person = dataclasses.replace(person, x=left + width / 2 + float(rng.uniform(0, room)))
        placed.append(person)
        left += width + room
    return tuple(sorted(placed, key=lambda p: p.ground))


def make_scene(company: Sequence[tuple[str, bool]], rng, size: tuple[int, int]) -> Scene:
    """Makes a random scene.

    Args:
      company: (motion, crouched) of each person.
      rng: a numpy Generator, which alone decides how the scene looks.
      size: (width, height) in pixels.
    """
    aspect = size[0] / size[1]
    max_height = 0.9 * aspect / sum(2 * _HALF_WIDTH[motion] for motion, _ in company)
    if any(motion == "walk" for motion, _ in company):
        max_height *= 0.8
    people = [_random_person(rng, motion, crouched, max_height) for motion, crouched in company]
    people = [people[i] for i in rng.permutation(len(people))]
    ball = None
    if rng.random() < 0.3:
        speed = float(rng.choice([-1, 1]) * rng.uniform(0.2, 0.6))
        ball = (float(rng.uniform(0, 1)), speed, float(rng.uniform(0.03, 0.06)), _vivid_color(rng))
    return Scene(_random_background(rng, size), _placed(rng, people, aspect), ball)


def deal_companies(num_videos: int, rng) -> list[list[tuple[str, bool]]]:
    """Returns (motion, crouched) of each person of each video, evenly over classes, shuffled."""
    dealt, movers, crouches = [], 0, {"S": 0, "W": 0}
    for index in range(num_videos):
        company = []
        for role in _COMPANIES[index % len(_COMPANIES)]:
            if role == "X":
                role, movers = ("walk", "jump")[movers % 2], movers + 1
            if role in crouches:
                # Stills alternate; a third of those who wave crouch.
                crouches[role] += 1
                crouched = crouches[role] % (2 if role == "S" else 3) == 0
                company.append(({"S": "still", "W": "wave"}[role], crouched))
            else:
                company.append((role, False))
        dealt.append(company)
    return [dealt[i] for i in rng.permutation(num_videos)]


# --- Files ----------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class VideoTask:
    """One video to make; `seed` decides all that is random about it."""

    path: pathlib.Path
    company: tuple[tuple[str, bool], ...]
    seed: tuple[int, ...]
    size: tuple[int, int]
    seconds: float
    fps: int


# Arguments of `writer.RowWriter.annotation`.
Row = tuple[str, float, np.ndarray, int, int]


def make_video(task: VideoTask) -> list[Row]:
    """Writes the video and returns the rows of its keyframes (one per whole second inside)."""
    scene = make_scene(task.company, np.random.default_rng(task.seed), task.size)
    num_frames = round(task.seconds * task.fps)
    drawing.write_video(
        task.path, (render(scene, i / task.fps)[0] for i in range(num_frames)), task.fps
    )
    rows = []
    for second in range(1, math.ceil(num_frames / task.fps)):
        _, boxes = render(scene, float(second))
        for index, box in enumerate(boxes):
            for action in person_actions(scene.people, index):
                rows.append((task.path.stem, second, box, action, index))
    return rows


def _plan(output: pathlib.Path, split: str, num_videos: int, options: dict) -> list[VideoTask]:
    split_seed = (options["seed"], {"train": 0, "eval": 1}[split])
    companies = deal_companies(num_videos, np.random.default_rng(split_seed))
    return [
        VideoTask(
            path=output / "videos" / f"{split}_{index:04d}.mp4",
            company=tuple(company),
            seed=(*split_seed, 1 + index),
            size=(options["width"], options["height"]),
            seconds=options["seconds"],
            fps=options["fps"],
        )
        for index, company in enumerate(companies)
    ]


def make_dataset(output: str | os.PathLike, *, num_train: int, num_eval: int, seed: int = 0,
                 width: int = 192, height: int = 144, seconds: float = 4.0, fps: int = 25,
                 workers: int | None = None) -> dict[str, int]:  # fmt: skip
    """Writes the data set under `output`.

    Args:
      output: the folder, made if missing. Files of an earlier run are overwritten.
      num_train: number of videos of the train split.
      num_eval: number of videos of the eval split.
      seed: decides everything random.
      width: of the videos, in pixels, even.
      height: of the videos, in pixels, even.
      seconds: length of each video; keyframes are at the whole seconds inside it.
      fps: frame rate of the videos.
      workers: number of processes; by default one per core.

    Returns:
      Number of CSV rows by split.

    Raises:
      ValueError: if an option is out of range.
    """
    _check_options(num_train, num_eval, width, height, seconds, fps)
    output = pathlib.Path(output)
    (output / "videos").mkdir(parents=True, exist_ok=True)
    options = {"seed": seed, "width": width, "height": height, "seconds": seconds, "fps": fps}
    tasks = _plan(output, "train", num_train, options) + _plan(output, "eval", num_eval, options)
    workers = workers or os.cpu_count() or 1
    results, progress = [], progress_lib.Progress("toy data", len(tasks), "videos")
    # A forked copy of a process whose other threads hold locks (TensorFlow's, in a notebook) hangs.
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(workers, mp_context=context) as pool:
        for rows in pool.map(make_video, tasks):
            results.append(rows)
            progress.update(len(results))
    counts = {}
    for split, part in (("train", results[:num_train]), ("eval", results[num_train:])):
        with writer.writing(output / f"{split}.csv") as rows:
            for row in itertools.chain.from_iterable(part):
                rows.annotation(*row)
        counts[split] = rows.num_rows
    writer.write_label_map(output / "label_map.pbtxt", ACTIONS)
    return counts


def _check_options(num_train, num_eval, width, height, seconds, fps) -> None:
    problems = []
    if num_train < 0 or num_eval < 0 or num_train + num_eval == 0:
        problems.append(f"num_train ({num_train}) and num_eval ({num_eval}) must be at least 0, "
                        "and one of them more")  # fmt: skip
    for name, value in (("width", width), ("height", height)):
        if value < 64 or value % 2:
            problems.append(f"{name} must be even and at least 64 pixels, not {value}")
    if height > 0 and not 1.0 <= width / height <= 3.0:
        problems.append(f"width must be 1 to 3 times the height, not {width}x{height}")
    if fps < 5:
        problems.append(f"fps must be at least 5, or nobody can see the motion, not {fps}")
    if not seconds > 1.0:
        problems.append(f"seconds must be more than 1, for a keyframe inside, not {seconds}")
    if problems:
        raise ValueError("Cannot make the toy data: " + "; ".join(problems) + ".")


def define_flags(values: flags.FlagValues) -> None:
    """Defines the tool's options."""
    flags.DEFINE_string(
        "output", None, "Folder for the data set.", required=True, flag_values=values
    )
    flags.DEFINE_integer("num_train", 60, "Videos of the train split.", flag_values=values)
    flags.DEFINE_integer("num_eval", 20, "Videos of the eval split.", flag_values=values)
    flags.DEFINE_integer("seed", 0, "Decides everything random.", flag_values=values)
    flags.DEFINE_integer("width", 192, "Of the videos, in pixels.", flag_values=values)
    flags.DEFINE_integer("height", 144, "Of the videos, in pixels.", flag_values=values)
    flags.DEFINE_float("seconds", 4.0, "Length of each video.", flag_values=values)
    flags.DEFINE_integer("fps", 25, "Frames per second of the videos.", flag_values=values)


def main(argv: Sequence[str], values: flags.FlagValues = flags.FLAGS) -> None:
    if len(argv) > 1:
        raise app.UsageError(f"Unexpected arguments: {argv[1:]}")
    names = ("num_train", "num_eval", "seed", "width", "height", "seconds", "fps")
    with command_line.ending(ValueError, av.FFmpegError):
        counts = make_dataset(values.output, **{name: values[name].value for name in names})
        print(
            f"Toy data is in {values.output}: videos/, train.csv "
            f"({listing.counted(counts['train'], 'row')}), "
            f"eval.csv ({listing.counted(counts['eval'], 'row')}), label_map.pbtxt.\nNext: "
            f"python -m "
            "object_detection_ext.tools.create_ava_records "
            f"--annotations {values.output}/train.csv --videos {values.output}/videos "
            f"--label_map {values.output}/label_map.pbtxt "
            f"--output {values.output}/train.tfrecord@4 --num_frames 16 --fps 12.5"
        )


if __name__ == "__main__":
    define_flags(flags.FLAGS)
    app.run(main)
