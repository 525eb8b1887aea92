# SPDX-License-Identifier: Apache-2.0
"""Errors that command lines print without a traceback, each with its exit status."""


class ReportedError(Exception):
    """An error with a message for people; what ended is not the fault of the input."""

    exit_status = 1


class InputError(ReportedError, ValueError):
    """A wrong input; the message names the file, the row or the field, and what would be right."""

    exit_status = 2


class OutsideError(ReportedError):
    """What no other input would make right: a full disk, a server that fails."""


class NothingDoneError(ReportedError):
    """There was nothing to do; the message says what was looked for."""

    exit_status = 3
