# SPDX-License-Identifier: Apache-2.0
"""What tests ask of command lines that run in this process."""

import contextlib
import re

import pytest


@contextlib.contextmanager
def ends(capsys: pytest.CaptureFixture[str], status: int, message: str):
    """Checks that the body ends the process with a status, and with what on standard error."""
    with pytest.raises(SystemExit) as ended:
        yield
    reported = capsys.readouterr().err
    assert ended.value.code == status
    assert re.search(message, reported), reported
