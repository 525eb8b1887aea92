# SPDX-License-Identifier: Apache-2.0
"""Who does what in a video, in three lines.

    detector = object_detection_ext.ActionDetector("exported/saved_model")
    for keyframe in detector("street.mp4", every_seconds=1.0):
        print(keyframe.time, keyframe.boxes, keyframe.actions)

Shapes: B clips, T frames of a clip, N frames of a source, H W pixels.
"""

import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from object_detection_ext import errors
from object_detection_ext.data import video_reader
from object_detection_ext.inference import (
    annotated_video,
    camera,
    given_boxes,
    results,
    shared_trunk,
    sources,
)
from object_detection_ext.inference import model as model_lib
from object_detection_ext.inference import tracks as tracks_lib
from object_detection_ext.inference.results import Keyframe, Person
from object_detection_ext.visualization import people as people_lib

Source = str | os.PathLike | np.ndarray | Iterable


class ActionDetector:
    """Detects people and their actions at regular moments of a video.

    A moment's people are found in the clip of T frames around it. At the ends of a source its first
    and last frames are repeated, also where it is shorter than a clip.
    """

    def __init__(
        self,
        saved_model: str | os.PathLike | model_lib.ClipModel,
        *,
        score_threshold: float = 0.3,
        label_map: str | None = None,
        person_boxes: str | os.PathLike | given_boxes.PersonDetector | None = None,
        fps: float | None = None,
        num_frames: int | None = None,
        short_side: int | None = None,
        batch_size: int = 1,
        share_trunk: bool = False,
        clips_per_stretch: int = shared_trunk.DEFAULT_CLIPS_PER_STRETCH,
        track: bool = False,
        keep_frames: bool = False,
        keep_attention: bool = False,
    ):
        """Loads the model.

        Args:
          saved_model: folder that `exporter_main_v2` wrote with `--input_type` clip_tensor or
            clip_and_boxes, or a model that is loaded already.
          score_threshold: actions below it are left out, in [0, 1].
          label_map: path; None takes that of the model's assets.
          person_boxes: for a model of clip_and_boxes, whose boxes it classifies and refines. A
            function from a keyframe's picture, uint8 [H, W, 3] RGB (shrunk as `short_side` says),
            to float [G, 4], normalized [ymin, xmin, ymax, xmax]. Or the path of a CSV (see
            `given_boxes.BoxTable`), for video files: its keyframes are then those of the video,
            and `every_seconds` does nothing.
          fps: frames per second of the clips; None takes what the model was trained at, or 25
            where it does not tell.
          num_frames: T, needed only where the model leaves it open.
          short_side: pixels that larger frames are shrunk to before the model resizes them, as the
            converter's option of this name does to training frames; 0 keeps their size. None
            shrinks frames that are more than 1.5 times the model's own size to it: the model's
            resizer takes single pixels of large frames, which flicker.
          batch_size: clips that are detected at once; not with share_trunk, where
            `clips_per_stretch` tells how much is done at once.
          share_trunk: whether neighbouring clips share the trunk's work, on video files; nearly
            the same results in less time, see `shared_trunk`.
          clips_per_stretch: with share_trunk, clips that share; memory grows with it.
          track: whether people keep their number from keyframe to keyframe (`Person.track`).
          keep_frames: whether keyframes hold their picture.
          keep_attention: whether people hold their attention; the model must have been exported
            with `outputs { attention: true }`.

        Raises:
          errors.InputError: if the model or its label map cannot be used, or a number is out of
            range.
        """
        _check_numbers(score_threshold, fps, short_side, batch_size, clips_per_stretch)
        if share_trunk and batch_size > 1:
            raise errors.InputError("batch_size and share_trunk exclude each other.")
        if isinstance(saved_model, model_lib.ClipModel):
            if (label_map, fps, num_frames) != (None, None, None):
                raise errors.InputError(
                    "label_map, fps and num_frames are for a model that is loaded here; this one "
                    "is loaded already."
                )
        else:
            saved_model = model_lib.load_saved_model(
                os.fspath(saved_model), label_map=label_map, fps=fps, num_frames=num_frames
            )
        self.model = saved_model
        self._person_boxes = _checked_person_boxes(self.model, person_boxes)
        if share_trunk:
            shared_trunk.check(self.model)
        if keep_attention:
            _check_attention(self.model)
        self._score_threshold, self._short_side = score_threshold, short_side
        self._batch_size = batch_size if self.model.takes_batches else 1
        self._clips_per_stretch = clips_per_stretch if share_trunk else 0
        self._track, self._keep_frames = track, keep_frames
        self._keep_attention = keep_attention

    @classmethod
    def from_checkpoint(
        cls,
        pipeline_config: str | os.PathLike,
        checkpoint: str | os.PathLike,
        *,
        config_override: str | None = None,
        label_map: str | None = None,
        fps: float | None = None,
        person_boxes: str | os.PathLike | given_boxes.PersonDetector | None = None,
        **options,
    ) -> "ActionDetector":
        """A detector without an export.

        Args:
          pipeline_config: path of the pipeline.config.
          checkpoint: a folder of checkpoints (the training's, or its `best`), whose newest whole
            one is taken, or a checkpoint's prefix (`model/ckpt-5`).
          config_override: text proto, merged into the pipeline.config.
          label_map: path; None takes that of the pipeline.config.
          fps: as in `__init__`; None takes the pipeline.config's.
          person_boxes: as in `__init__`; with them any model classifies given boxes.
          **options: as in `__init__`.

        Raises:
          errors.InputError: if one of them cannot be used.
        """
        model = model_lib.load_checkpoint(
            os.fspath(pipeline_config),
            os.fspath(checkpoint),
            label_map=label_map,
            fps=fps,
            config_override=config_override,
            takes_boxes=person_boxes is not None,
        )
        return cls(model, person_boxes=person_boxes, **options)

    def annotate(
        self,
        video: str | os.PathLike,
        output: str | os.PathLike,
        every_seconds: float = 1.0,
        keyframes: Iterable[Keyframe] | None = None,
    ) -> list[Keyframe]:
        """Writes a video whose frames show the people of the nearest keyframe within a second.

        With `keep_attention`, frames also show what the people attend to.

        Args:
          video: the video file.
          output: the mp4 file to write.
          every_seconds: between two keyframes.
          keyframes: what was detected already; None detects.

        Returns:
          The keyframes; what was detected here has the map of its attention in place of all of it
          (see `results.with_attention_map`), which of a long video would not fit into memory.

        Raises:
          errors.InputError: if the video cannot be read, or nothing of it.
        """
        if keyframes is None:
            keyframes = map(results.with_attention_map, self(video, every_seconds))
        keyframes = list(keyframes)
        annotated_video.write(os.fspath(video), os.fspath(output), keyframes)
        return keyframes

    def keyframe_times(
        self, video: str | os.PathLike, every_seconds: float = 1.0, name: str | None = None
    ) -> list[float]:
        """When the keyframes of a video file are, in seconds, ascending.

        Args:
          video: the video file.
          every_seconds: between two keyframes.
          name: what the video is called, also in a file of boxes.

        Raises:
          errors.InputError: if the video cannot be read, or a file of boxes has none of it.
        """
        path = os.fspath(video)
        info = video_reader.probe(path)
        if isinstance(self._person_boxes, given_boxes.BoxTable):
            return self._person_boxes.times(name or sources.names_of([path])[0])
        return sources.keyframe_times(info, every_seconds)

    @property
    def label_map(self) -> dict[int, str]:
        """Action names by id."""
        return self.model.label_map

    def __call__(
        self,
        source: Source,
        every_seconds: float = 1.0,
        *,
        source_fps: float | None = None,
        name: str | None = None,
        start_seconds: float = 0.0,
    ) -> Iterator[Keyframe]:
        """Yields the people of 0, `every_seconds`, 2 `every_seconds`, ... seconds.

        Args:
          source: a video file; a folder of pictures, by name; the number of a camera; uint8
            [N, H, W, 3] or any iterable of uint8 [H, W, 3], RGB, with `source_fps`; or an iterable
            of (seconds, uint8 [H, W, 3]), which is read one frame at a time.
          every_seconds: between two keyframes, more than 0.
          source_fps: frames per second of a source that has no times.
          name: what the source is called in results; by default a file's name without extension.
          start_seconds: of a video file, keyframes before it are left out.

        Yields:
          Keyframes. Those in damaged parts of a video are left out, with a line that says so.

        Raises:
          errors.InputError: if the source cannot be read, or is none.
        """
        if not 0 < every_seconds < np.inf:
            raise errors.InputError(f"every_seconds must be more than 0, not {every_seconds:g}.")
        keyframes = self._keyframes(source, every_seconds, source_fps, name, start_seconds)
        return map(tracks_lib.Tracker(), keyframes) if self._track else keyframes

    def _keyframes(self, source, every_seconds, source_fps, name, start_seconds):
        if isinstance(source, str | os.PathLike) and not os.path.isdir(source):
            path = os.fspath(source)
            name = name or sources.names_of([path])[0]
            times = self.keyframe_times(path, every_seconds, name)
            if self._clips_per_stretch:
                return self._shared(path, times, name, start_seconds)
            times = [time for time in times if time >= start_seconds]
            reader = video_reader.ClipReader(
                path, num_frames=self.model.num_frames, fps=self.model.fps, transform=self._shrunk
            )
            return self._clip_by_clip(reader.clips(times), name)
        if self._clips_per_stretch:
            raise errors.InputError("share_trunk is for video files; this source is none.")
        if isinstance(self._person_boxes, given_boxes.BoxTable):
            raise errors.InputError(
                f"{self._person_boxes.path}: boxes of a file are for video files; this source is "
                "none. Give a function as person_boxes."
            )
        wanted = {
            "num_frames": self.model.num_frames, "fps": self.model.fps,
            "every_seconds": every_seconds, "transform": self._shrunk,
        }  # fmt: skip
        if isinstance(source, int) and not isinstance(source, bool):
            clips = camera.clips_of_camera(source, **wanted)
            # A batch would wait for keyframes that are yet to come.
            return self._clip_by_clip(clips, name or f"camera_{source}", batch_size=1)
        frames, default = _timed_frames(source, source_fps)
        return self._clip_by_clip(sources.clips_of_frames(frames, **wanted), name or default)

    def _clip_by_clip(
        self, clips: Iterable[video_reader.Clip], name: str, batch_size: int | None = None
    ) -> Iterator[Keyframe]:
        left_out = _LeftOut(name)
        usable = (clip for clip in clips if not left_out.tell(clip.problem, clip.outside))
        while batch := list(itertools.islice(usable, batch_size or self._batch_size)):
            middle = self.model.num_frames // 2
            boxes = None
            if self._person_boxes is not None:
                boxes = [self._boxes_of(name, clip.keyframe_time, clip.frames[middle])
                         for clip in batch]  # fmt: skip
            found = self.model(np.stack([np.stack(clip.frames) for clip in batch]), boxes)
            for clip, detections in zip(batch, found, strict=True):
                yield self._keyframe(name, clip.keyframe_time, detections, clip.frames[middle])
        left_out.tell_rest()

    def _boxes_of(self, name: str, time: float, picture: np.ndarray) -> np.ndarray:
        if isinstance(self._person_boxes, given_boxes.BoxTable):
            return self._person_boxes.boxes(name, time)
        return self._person_boxes(picture)

    def _shared(
        self, path: str, times: Sequence[float], name: str, start_seconds: float
    ) -> Iterator[Keyframe]:
        reader, left_out = video_reader.FrameReader(path, transform=self._shrunk), _LeftOut(name)
        for time, detections, picture, problem in shared_trunk.results(
            self.model, reader, times, self._clips_per_stretch, start_seconds
        ):
            if problem is None:
                yield self._keyframe(name, time, detections, picture)
            else:
                left_out.tell(problem.text, problem.outside)
        left_out.tell_rest()

    def _keyframe(self, name: str, time: float, detections: dict, picture) -> Keyframe:
        people = people_lib.group_people(
            detections["detection_boxes"],
            detections["detection_scores"],
            detections["detection_classes"],
            action_ids=self.label_map,
            score_threshold=self._score_threshold,
        )
        attention = detections.get(model_lib.ATTENTION) if self._keep_attention else None
        return Keyframe(
            name,
            float(time),
            tuple(
                Person(
                    person.box,
                    dict(sorted(person.scores.items(), key=lambda item: -item[1])),
                    self.label_map,
                    # A view would keep that of all detections in memory.
                    attention=None if attention is None else attention[person.row].copy(),
                )
                for person in people
            ),
            picture if self._keep_frames else None,
        )

    def _shrunk(self, frame: np.ndarray) -> np.ndarray:
        return sources.shrunk(frame, self._short_side, self.model.frame_size, self.model.short_side)


def _checked_person_boxes(
    model: model_lib.ClipModel, person_boxes: str | os.PathLike | Callable | None
) -> given_boxes.BoxTable | given_boxes.PersonDetector | None:
    """The boxes as they will be asked for.

    Raises:
      errors.InputError: if they do not fit the model.
    """
    if model.takes_boxes and person_boxes is None:
        raise errors.InputError(
            f"{model.name} classifies boxes that it is given: give them as person_boxes "
            "(--person_boxes), or export a model with proposals of its own with "
            "--input_type=clip_tensor."
        )
    if not model.takes_boxes and person_boxes is not None:
        raise errors.InputError(
            f"{model.name} has proposals of its own and takes no person_boxes; export it with "
            "--input_type=clip_and_boxes."
        )
    is_path = isinstance(person_boxes, str | os.PathLike)
    return given_boxes.BoxTable(person_boxes) if is_path else person_boxes


def _check_attention(model: model_lib.ClipModel) -> None:
    if model_lib.ATTENTION not in model.outputs:
        raise errors.InputError(
            f"{model.name} has no attention: export it again with --config_override "
            "'[object_detection_ext.protos.video_action_transformer] "
            "{ outputs { attention: true } }'."
        )


def _check_numbers(score_threshold, fps, short_side, batch_size, clips_per_stretch) -> None:
    problems = []
    if not 0 <= score_threshold <= 1:
        problems.append(f"score_threshold must be in [0, 1], not {score_threshold:g}")
    if fps is not None and not 0 < fps <= 1000:
        problems.append(f"fps must be more than 0 and at most 1000, not {fps:g}")
    if short_side is not None and short_side < 0:
        problems.append(f"short_side must be at least 0 pixels, not {short_side}")
    if batch_size < 1:
        problems.append(f"batch_size must be at least 1, not {batch_size}")
    if clips_per_stretch < 1:
        problems.append(f"clips_per_stretch must be at least 1, not {clips_per_stretch}")
    if problems:
        raise errors.InputError("; ".join(problems) + ".")


class _LeftOut:
    """Tells of keyframes that cannot be used: the first with the reason, then how many more."""

    _MOST_TOLD = 3

    def __init__(self, name: str):
        self._name, self._count = name, 0

    def tell(self, problem: str | None, outside: bool) -> bool:
        """Whether there is a problem; it is told unless the keyframe was outside of the video."""
        if problem and not outside:
            self._count += 1
            if self._count <= self._MOST_TOLD:
                print(f"detection: {self._name}: left out: {problem}", flush=True)
        return bool(problem)

    def tell_rest(self) -> None:
        """At the end of the source."""
        if self._count > self._MOST_TOLD:
            more = self._count - self._MOST_TOLD
            print(
                f"detection: {self._name}: left out: {more} more keyframes ({self._count} in all)",
                flush=True,
            )


def _timed_frames(source: Source, source_fps: float | None) -> tuple[Iterable, str]:
    """The source as (seconds, frame), and what it is called."""
    if isinstance(source, bool) or source is None:
        raise errors.InputError(f"{source!r} is no video, folder, camera, array or iterable.")
    default = "frames"
    if isinstance(source, str | os.PathLike):
        pictures = sources.pictures_of_folder(os.fspath(source))
        if not pictures:
            raise errors.InputError(
                f"{os.fspath(source)}: no pictures in this folder; call the detector for each "
                "video of a folder."
            )
        default = os.path.basename(os.path.normpath(source))
        return sources.frames_of_folder(pictures, _needed(source_fps)), default
    if isinstance(source, np.ndarray):
        return sources.at_rate(source, _needed(source_fps)), default
    if not isinstance(source, Iterable):
        raise errors.InputError(f"{source!r} is no video, folder, camera, array or iterable.")
    frames = iter(source)
    first = next(frames, None)
    if first is None:
        raise errors.InputError("The source has no frames.")
    frames = itertools.chain([first], frames)
    if isinstance(first, tuple):
        return frames, default
    return sources.at_rate(frames, _needed(source_fps)), default


def _needed(source_fps: float | None) -> float:
    if source_fps is None or not 0 < source_fps <= 1000:
        raise errors.InputError(
            f"source_fps must be the source's frames per second, up to 1000, not {source_fps}."
        )
    return source_fps
