# SPDX-License-Identifier: Apache-2.0
"""The boxes that MP4 and QuickTime files are made of, as far as they say what players leave out.

Source: ISO/IEC 14496-12, section 4.2.
"""

from object_detection_ext import files

_HEADER, _LONG_HEADER = 8, 16


def unread_parts(path: str) -> int:
    """Returns how many films follow the first one in a file (`cat a.mp4 b.mp4`).

    FFmpeg and players show the first one only. Fragments of one film are no films of their own.

    Args:
        path: of an MP4 or QuickTime file.
    """
    system = files.system_of(path)
    size, place, films = system.size(path), 0, 0
    with system.open(path, "rb") as file:
        while place + _HEADER <= size:
            file.seek(place)
            header = file.read(_LONG_HEADER)
            length, kind = int.from_bytes(header[:4], "big"), header[4:8]
            if kind == b"moof":
                return 0
            films += kind == b"moov"
            if length == 1:
                length = int.from_bytes(header[8:], "big")
            if length < _HEADER:
                break  # up to the file's end, or no box
            place += length
    return max(0, films - 1)
