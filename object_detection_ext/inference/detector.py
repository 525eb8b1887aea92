# SPDX-License-Identifier: Apache-2.0
"""Who does what in a video, in three lines.

    detector = object_detection_ext.ActionDetector("exported/saved_model")
    for keyframe in detector("street.mp4", every_seconds=1.0):
        print(keyframe.time, keyframe.boxes, keyframe.actions)

Shapes: B clips, T frames of a clip, N frames of a source, H W pixels.
"""

import itertools
import os
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from object_detection_ext import errors, rates
from object_detection_ext.data import video_info, video_probe, video_reader
from object_detection_ext.inference import (
    annotated_video,
    camera,
    clip_model,
    given_boxes,
    network_stream,
    notices,
    results,
    shared_trunk,
    sources,
)
from object_detection_ext.inference import model as model_lib
from object_detection_ext.inference import tracks as tracks_lib
from object_detection_ext.inference.results import Keyframe, Person
from object_detection_ext.visualization import people as people_lib

Source = str | os.PathLike | video_info.VideoInfo | np.ndarray | Iterable


class ActionDetector:
    """Detects people and their actions at regular moments of a video.

    A moment's people are found in the clip of T frames around it. At the ends of a source its first
    and last frames are repeated, also where it is shorter than a clip.
    """

    def __init__(
        self,
        saved_model: str | os.PathLike | clip_model.ClipModel,
        *,
        score_threshold: float = 0.3,
        label_map: str | None = None,
        person_boxes: given_boxes.PersonBoxes | None = None,
        fps: float | None = None,
        num_frames: int | None = None,
        precision: str | None = None,
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
            to float [G, 4], normalized [ymin, xmin, ymax, xmax]. Or the path of a CSV, or what
            was read of it (`given_boxes.BoxTable`), for video files: its keyframes are then those
            of the video, and `every_seconds` does nothing.
          fps: frames per second of the clips; None takes what the model was trained at, or 25
            where it does not tell.
          num_frames: T, needed only where the model leaves it open.
          precision: 'float32' or 'bfloat16', in which trunk and head must compute. A SavedModel has
            that of its export, and another is an error; `from_checkpoint` takes either.
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
        # Before the model is loaded, which takes a minute.
        person_boxes = given_boxes.opened(person_boxes)
        self.model = _loaded(
            saved_model, label_map=label_map, fps=fps, num_frames=num_frames, precision=precision
        )
        _check_person_boxes(self.model, person_boxes)
        self._person_boxes = person_boxes
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
        config_override_paths: Sequence[str | os.PathLike] = (),
        label_map: str | None = None,
        fps: float | None = None,
        person_boxes: given_boxes.PersonBoxes | None = None,
        precision: str | None = None,
        **options,
    ) -> "ActionDetector":
        """A detector without an export.

        Args:
          pipeline_config: path of the pipeline.config.
          checkpoint: a folder of checkpoints (the training's, or its `best`), whose newest whole
            one is taken, or a checkpoint's prefix (`model/ckpt-5`).
          config_override: text proto, merged into the pipeline.config.
          config_override_paths: files of such text, which are merged before it, in this order.
          label_map: path; None takes that of the pipeline.config.
          fps: as in `__init__`; None takes the pipeline.config's.
          person_boxes: as in `__init__`; with them any model classifies given boxes.
          precision: 'float32' or 'bfloat16', in which trunk and head compute, whichever they were
            trained in; None takes the pipeline.config's.
          **options: as in `__init__`.

        Raises:
          errors.InputError: if one of them cannot be used.
        """
        person_boxes = given_boxes.opened(person_boxes)
        model = model_lib.load_checkpoint(
            os.fspath(pipeline_config),
            os.fspath(checkpoint),
            label_map=label_map,
            fps=fps,
            config_override=config_override,
            config_override_paths=[os.fspath(path) for path in config_override_paths],
            takes_boxes=person_boxes is not None,
            precision=precision,
        )
        return cls(model, person_boxes=person_boxes, **options)

    def annotate(
        self,
        video: video_reader.Video,
        output: str | os.PathLike,
        every_seconds: float = 1.0,
        keyframes: Iterable[Keyframe] | None = None,
    ) -> list[Keyframe]:
        """Writes a video whose frames show the people of the nearest keyframe within a second.

        With `keep_attention`, frames also show what the people attend to.

        Args:
          video: the video file, or what `video_probe.probe` says of a video.
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
        annotated_video.write(video, os.fspath(output), keyframes)
        return keyframes

    def keyframe_times(
        self, video: video_reader.Video, every_seconds: float = 1.0, name: str | None = None
    ) -> list[float]:
        """When the keyframes of a video file are, in seconds, ascending.

        Args:
          video: the video file, or what `video_probe.probe` says of a video.
          every_seconds: between two keyframes.
          name: what the video is called, also in a file of boxes.

        Raises:
          errors.InputError: if the video cannot be read, or a file of boxes has none of it.
        """
        info = video_probe.known(video)
        if isinstance(self._person_boxes, given_boxes.BoxTable):
            return self._person_boxes.times(name or sources.names_of([info.path])[0])
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
        times: Sequence[float] | None = None,
    ) -> Iterator[Keyframe]:
        """Yields the people of 0, `every_seconds`, 2 `every_seconds`, ... seconds.

        Args:
          source: a video file, or what `video_probe.probe` says of a video file or a folder of
            numbered frames; a folder of any pictures, by name; the number of a camera; the address
            of a stream (`rtsp://...`, see `network_stream`); uint8 [N, H, W, 3] or any iterable of
            uint8 [H, W, 3], RGB, with `source_fps`; or an iterable of (seconds,
            uint8 [H, W, 3]), which is read one frame at a time.
          every_seconds: between two keyframes, at least 0.001.
          source_fps: frames per second of a source that has no times.
          name: what the source is called in results; by default a file's name without extension.
          start_seconds: of a video file, keyframes before it are left out.
          times: of a video file, when its keyframes are, in seconds, ascending; None for those of
            `every_seconds`.

        Yields:
          Keyframes. Those in damaged parts of a video are left out, with a line that says so; so
          are `times` that are not in the video.

        Raises:
          errors.InputError: if the source cannot be read, or is none.
        """
        rates.check(rates.spacing_faults("every_seconds", every_seconds))
        keyframes = self._keyframes(source, every_seconds, source_fps, name, start_seconds, times)
        return map(tracks_lib.Tracker(), keyframes) if self._track else keyframes

    def _keyframes(self, source, every_seconds, source_fps, name, start_seconds, times):
        wanted = {
            "num_frames": self.model.num_frames, "fps": self.model.fps,
            "every_seconds": every_seconds, "transform": self._shrunk,
        }  # fmt: skip
        is_stream = network_stream.is_address(source)
        if sources.is_video(source) and not is_stream:
            info = video_probe.known(source)
            name = name or sources.names_of([info.path])[0]
            is_asked_for = times is not None
            if times is None:
                times = self.keyframe_times(info, every_seconds, name)
                is_asked_for = isinstance(self._person_boxes, given_boxes.BoxTable)
            left_out = notices.LeftOut(name, counts_outside=is_asked_for)
            return self._of_video(info, times, name, start_seconds, left_out)
        self._check_is_no_stream()
        # A batch would wait for keyframes that are yet to come.
        if is_stream:
            name = name or network_stream.name_of(source)
            return self._clip_by_clip(network_stream.clips(source, **wanted), name, batch_size=1)
        if isinstance(source, int) and not isinstance(source, bool):
            clips = camera.clips_of_camera(source, **wanted)
            return self._clip_by_clip(clips, name or f"camera_{source}", batch_size=1)
        frames, default = sources.timed_frames(source, source_fps)
        return self._clip_by_clip(sources.clips_of_frames(frames, **wanted), name or default)

    def _check_is_no_stream(self) -> None:
        """Raises errors.InputError if an option is for video files only."""
        if self._clips_per_stretch:
            raise errors.InputError("share_trunk is for video files; this source is none.")
        if isinstance(self._person_boxes, given_boxes.BoxTable):
            raise errors.InputError(
                f"{self._person_boxes.path}: boxes of a file are for video files; this source is "
                "none. Give a function as person_boxes."
            )

    def _of_video(
        self,
        info: video_info.VideoInfo,
        times: Sequence[float],
        name: str,
        start_seconds: float,
        left_out: notices.LeftOut,
    ) -> Iterator[Keyframe]:
        notices.warn_of_info(info, name)
        if self._clips_per_stretch:
            reader = video_reader.FrameReader(info, transform=self._shrunk)
            yield from self._shared(reader, times, name, start_seconds, left_out)
        else:
            reader = video_reader.ClipReader(
                info, num_frames=self.model.num_frames, fps=self.model.fps, transform=self._shrunk
            )
            times = [time for time in times if time >= start_seconds]
            yield from self._clip_by_clip(reader.clips(times), name, left_out=left_out)
        notices.warn_of_restarts(reader.stats, name)
        notices.warn_of_size_changes(reader.stats, name)

    def _clip_by_clip(
        self,
        clips: Iterable[video_reader.Clip],
        name: str,
        batch_size: int | None = None,
        left_out: notices.LeftOut | None = None,
    ) -> Iterator[Keyframe]:
        left_out = left_out or notices.LeftOut(name)
        usable = (clip for clip in clips if not left_out.is_left_out(clip.problem, clip.outside))
        while batch := list(itertools.islice(usable, batch_size or self._batch_size)):
            middle = self.model.num_frames // 2
            boxes = None
            if self._person_boxes is not None:
                boxes = [self._boxes_of(name, clip.keyframe_time, clip.frames[middle])
                         for clip in batch]  # fmt: skip
            found = self.model(np.stack([np.stack(clip.frames) for clip in batch]), boxes)
            for clip, detections in zip(batch, found, strict=True):
                yield self._keyframe(name, clip.keyframe_time, detections, clip.frames[middle])
        left_out.report_rest()

    def _boxes_of(self, name: str, time: float, picture: np.ndarray) -> np.ndarray:
        if isinstance(self._person_boxes, given_boxes.BoxTable):
            return self._person_boxes.boxes(name, time)
        return self._person_boxes(picture)

    def _shared(
        self,
        reader: video_reader.FrameReader,
        times: Sequence[float],
        name: str,
        start_seconds: float,
        left_out: notices.LeftOut,
    ) -> Iterator[Keyframe]:
        for time, detections, picture, problem in shared_trunk.results(
            self.model, reader, times, self._clips_per_stretch, start_seconds
        ):
            if problem is None:
                yield self._keyframe(name, time, detections, picture)
            else:
                left_out.is_left_out(problem.text, problem.outside)
        left_out.report_rest()

    def _keyframe(self, name: str, time: float, detections: dict, picture) -> Keyframe:
        people = people_lib.group_people(
            detections["detection_boxes"],
            detections["detection_scores"],
            detections["detection_classes"],
            action_ids=self.label_map,
            score_threshold=self._score_threshold,
        )
        attention = detections.get(clip_model.ATTENTION) if self._keep_attention else None
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


def _loaded(
    saved_model: str | os.PathLike | clip_model.ClipModel, **options
) -> clip_model.ClipModel:
    """The model, with these options of `load_saved_model`. Raises errors.InputError."""
    if not isinstance(saved_model, clip_model.ClipModel):
        return model_lib.load_saved_model(os.fspath(saved_model), **options)
    if any(value is not None for value in options.values()):
        *names, last = options
        raise errors.InputError(
            f"{', '.join(names)} and {last} are for a model that is loaded here; this one is "
            "loaded already."
        )
    return saved_model


def _check_person_boxes(
    model: clip_model.ClipModel, person_boxes: given_boxes.PersonBoxes | None
) -> None:
    """Raises errors.InputError if the boxes do not fit the model."""
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


def _check_attention(model: clip_model.ClipModel) -> None:
    if clip_model.ATTENTION not in model.outputs:
        raise errors.InputError(
            f"{model.name} has no attention: export it again with --config_override "
            "'[object_detection_ext.protos.video_action_transformer] "
            "{ outputs { attention: true } }'."
        )


def _check_numbers(score_threshold, fps, short_side, batch_size, clips_per_stretch) -> None:
    problems = []
    if not 0 <= score_threshold <= 1:
        problems.append(f"score_threshold must be in [0, 1], not {score_threshold:g}")
    if fps is not None:
        problems += rates.fps_faults("fps", fps)
    if short_side is not None and short_side < 0:
        problems.append(f"short_side must be at least 0 pixels, not {short_side}")
    if batch_size < 1:
        problems.append(f"batch_size must be at least 1, not {batch_size}")
    if clips_per_stretch < 1:
        problems.append(f"clips_per_stretch must be at least 1, not {clips_per_stretch}")
    if problems:
        raise errors.InputError("; ".join(problems) + ".")
