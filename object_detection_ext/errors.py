# SPDX-License-Identifier: Apache-2.0
"""What command lines print without a traceback."""


class InputError(ValueError):
    """A wrong input; the message names the file, the row or the field, and what would be right."""


class OutsideError(Exception):
    """What no other input would make right: a full disk, a server that fails."""
