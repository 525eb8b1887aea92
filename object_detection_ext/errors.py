# SPDX-License-Identifier: Apache-2.0
"""What users did not mean to give: command lines print these without a traceback."""


class InputError(ValueError):
    """A wrong input; the message names the file, the row or the field, and what would be right."""
