# SPDX-License-Identifier: Apache-2.0
"""J-HMDB: the puppet masks of a person, or ACT's form (`JHMDB-GT.pkl`).

`puppet_mask/CLASS/VIDEO/puppet_mask.mat` has `part_mask` [height, width, frames], which is not 0
where the person is. The box is the outline of these pixels: from the left side of the first to the
right side of the last. A video may have more frames than masks.

Source: jhmdb.is.tue.mpg.de, "Puppet mask annotation".
"""

import os
import warnings

import numpy as np

from object_detection_ext import printable
from object_detection_ext.importers import act_tubes, model, plain_pickle

_FILE = "puppet_mask.mat"


def read(path: str, options: model.ReadOptions) -> model.Source:
    """Reads the masks of all videos below a folder, one `.mat`, or a pickle in ACT's form.

    Raises:
        model.ImportFault: if a file is not of this form, or there is none.
    """
    if path.endswith((".pkl", ".pickle")):
        return act_tubes.source_of(plain_pickle.read(path), path, options)
    files = [path] if os.path.isfile(path) else sorted(_mask_files(path))
    if not files:
        raise model.ImportFault(f"{path}: there is no CLASS/VIDEO/{_FILE} in it.")
    source = model.Source()
    for file in files:
        folder, name = os.path.split(os.path.dirname(os.path.abspath(file)))
        label = os.path.basename(folder)
        video, num_empty = _video(file, name, label)
        source.videos.append(video)
        source.add_labels([label])
        if num_empty:
            source.notes["frames with an empty mask were left out"] += num_empty
    source.labels.sort()
    return source


def _mask_files(path: str):
    for folder, folders, names in os.walk(path):
        folders.sort()
        if _FILE in names:
            yield os.path.join(folder, _FILE)


def _video(file: str, name: str, label: str) -> tuple[model.SourceVideo, int]:
    """Returns the video of a file of masks, and how many masks are empty."""
    masks = _masks(file)
    height, width, num_frames = masks.shape
    video = model.SourceVideo(name, file, model.PIXELS, width, height, num_frames, True)
    num_empty = 0
    for frame in range(num_frames):
        rows = np.flatnonzero(masks[:, :, frame].any(axis=1))
        columns = np.flatnonzero(masks[:, :, frame].any(axis=0))
        if not len(rows):
            num_empty += 1
            continue
        box = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
        video.marks.append(model.Mark(tuple(map(float, box)), (label,), f"frame {frame}",
                                      frame=frame, person=0))  # fmt: skip
    return video, num_empty


def _masks(file: str) -> np.ndarray:
    """Bool [height, width, frames].

    Raises:
        model.ImportFault: if the file cannot be read, or has no such masks.
    """
    from scipy import io as scipy_io  # takes half a second to import; only this needs it

    model.read_bytes(file)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            masks = scipy_io.loadmat(file, variable_names=["part_mask"]).get("part_mask")
    except NotImplementedError as error:
        raise model.ImportFault(
            f"{file}: a MATLAB file of version 7.3, which is not what J-HMDB has."
        ) from error
    except Exception as error:  # a damaged file can end in any of Python's errors
        raise model.ImportFault(
            f"{file}: not a MATLAB file: {printable.in_one_line(error)}."
        ) from error
    if masks is None:
        raise model.ImportFault(f"{file}: it has no 'part_mask'.")
    if masks.ndim == 2:  # MATLAB drops the last dimension of a single frame
        masks = masks[:, :, None]
    if masks.ndim != 3 or masks.dtype.kind not in "buif":
        raise model.ImportFault(
            f"{file}: 'part_mask' is {masks.dtype} {list(masks.shape)}; it must be numbers of "
            "[height, width, frames]."
        )
    return masks != 0
