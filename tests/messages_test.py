# SPDX-License-Identifier: Apache-2.0
"""Signs of life."""

import time

from object_detection_ext import messages


def test_heartbeat_until_the_first_step(capsys, monkeypatch):
    monkeypatch.setattr(messages, "_HEARTBEAT_SECONDS", 0.01)
    with messages.heartbeat("building") as stop:
        time.sleep(0.2)
        stop()
        time.sleep(0.05)  # a beat that was under way
        said = capsys.readouterr().err
        time.sleep(0.1)
        assert capsys.readouterr().err == ""
    assert said.count("building ... 0 s") >= 2
