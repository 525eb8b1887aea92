# SPDX-License-Identifier: Apache-2.0
"""The files of one video's results: what is finished, and where an interrupted run resumes."""

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence

from object_detection_ext import errors, files, json_text
from object_detection_ext.data import frame_folders, video_info
from object_detection_ext.inference import annotated_video, results
from object_detection_ext.inference.results import Keyframe


class VideoResults:
    """The files of one video."""

    def __init__(
        self,
        folder: str,
        path: str,
        name: str,
        video_id: str,
        settings: Mapping[str, object],
        wants_video: bool = True,
        offset: float = 0.0,
    ):
        """Looks at what an earlier run left.

        Args:
          folder: of the results.
          path: the video.
          name: what the files of its results are called.
          video_id: what it is called in them.
          settings: what decides the results; files of a run with others are not used.
          wants_video: whether the annotated video is one of them.
          offset: seconds that the CSV's times are ahead of times in the video.
        """
        base = os.path.join(folder, name)
        self.path, self.name, self.video_id, self.offset = path, name, video_id, offset
        self.lines, self.unfinished = f"{base}.jsonl", f"{base}.jsonl.incomplete"
        self.csv, self.mp4 = f"{base}_detections.csv", f"{base}_detections.mp4"
        self.picture, self._settings_file = f"{base}_detections.png", f"{base}.settings.json"
        self._wants_video = wants_video
        self._settings = {**settings, "video_path": os.path.realpath(path)}

    @property
    def finished(self) -> bool:
        """Whether an earlier run with the same options finished this video."""
        return self.detected and (not self._wants_video or os.path.exists(self.mp4))

    @property
    def detected(self) -> bool:
        """Whether all keyframes are there; only the annotated video may be missing."""
        is_whole = os.path.exists(self.lines) and os.path.exists(self.csv)
        return is_whole and self._same_settings()

    def begin(self) -> list[Keyframe]:
        """Makes ready to detect and returns the keyframes that are there already.

        A line that was being written when the run was stopped is cut off.

        Raises:
          errors.InputError: if the files are another video's.
        """
        if not self._same_settings():
            self._check_same_video()
            for path in (self.csv, self.lines, self.unfinished, self.mp4, self.picture):
                if os.path.exists(path):
                    os.remove(path)
            files.write_text(self._settings_file, json.dumps(self._settings, indent=2) + "\n")
        if self.detected:
            with open(self.lines, encoding="utf-8") as file:
                return [results.from_json(line) for line in file]
        keyframes = readable_keyframes(self.unfinished)
        files.write_text(self.unfinished, _lines(keyframes))
        return keyframes

    def recorded(self, keyframes: Iterable[Keyframe]) -> Iterator[Keyframe]:
        """Passes keyframes on, each written down before the next is asked for."""
        with files.journal(self.unfinished) as file:
            for keyframe in keyframes:
                file.write(results.to_json(keyframe) + "\n")
                file.flush()
                yield keyframe

    def finish(self, video: video_info.VideoInfo, keyframes: Sequence[Keyframe]) -> int:
        """Writes the results and returns the number of rows.

        The annotated video comes last: whatever happens to it, what was detected is there.
        """
        rows = results.write_ava_csv(self.csv, keyframes, self.offset)
        if not self.detected:
            files.write_text(self.lines, _lines(keyframes))
            os.remove(self.unfinished)
        if self._wants_video:
            annotated_video.write(video, self.mp4, keyframes, self.picture)
        return rows

    def _earlier_settings(self) -> dict:
        try:
            with open(self._settings_file, encoding="utf-8") as file:
                settings = json_text.parsed(file.read())
        except (OSError, ValueError):
            return {}
        return settings if isinstance(settings, dict) else {}

    def _same_settings(self) -> bool:
        # Not by path: a file that was moved is the same.
        return {**self._earlier_settings(), "video_path": ""} == {
            **self._settings,
            "video_path": "",
        }

    def _check_same_video(self) -> None:
        """Results of another video of this name, which is still there, are not thrown away."""
        earlier = self._earlier_settings().get("video_path")
        path = self._settings["video_path"]
        if earlier and earlier != path and os.path.exists(earlier):
            raise errors.InputError(
                f"{path}: {self.lines} and the files beside it are the results of {earlier}; give "
                "another --output, or both videos at once."
            )


def _lines(keyframes: Sequence[Keyframe]) -> str:
    return "".join(results.to_json(keyframe) + "\n" for keyframe in keyframes)


def readable_keyframes(path: str) -> list[Keyframe]:
    """The keyframes of a file of lines that may be missing, cut off or damaged, up to there."""
    keyframes = []
    if os.path.exists(path):
        with open(path, encoding="utf-8", errors="replace") as file:
            for line in file:
                try:
                    keyframes.append(results.from_json(line))
                except errors.InputError:
                    break
    return keyframes


def stamps(paths: Mapping[str, str | None]) -> dict[str, str]:
    """What changes when one of these files does, or a folder of frames: by name, if it is there."""
    found = {}
    for name, path in paths.items():
        if path and os.path.isdir(path):
            try:
                found[f"{name}_file"] = frame_folders.stamp(path)
            except video_info.VideoError:
                continue  # reported when its own turn comes
        elif path and os.path.exists(path):
            found[f"{name}_file"] = files.system_of(path).stamp(path)
    return found
