# SPDX-License-Identifier: Apache-2.0
"""Ids of videos that look the same are the same."""

import unicodedata


def same_id(video_id: str) -> str:
    """Returns what is equal for ids, and names of files, that look the same.

    An accent may be part of its letter, as most programs write it, or a character of its own, as
    macOS writes names of files.
    """
    return unicodedata.normalize("NFC", video_id)
