# SPDX-License-Identifier: Apache-2.0
"""Buckets that nobody can reach: one line within seconds, where TensorFlow tries for minutes."""

import os
import socket
import subprocess
import sys
import time

import pytest
import tensorflow as tf

from object_detection_ext import errors, files

_CODE = """
import sys, time
from object_detection_ext import files
files.REACH_SECONDS = 1.0
from object_detection_ext import registration
registration.register()
from absl import flags
import atexit
flags.DEFINE_string("pipeline_config_path", None, "")
flags.DEFINE_string("model_dir", None, "")
start = time.monotonic()
atexit.register(lambda: print(time.monotonic() - start))
registration.run(lambda argv: print("it ran"))
"""


def _run(*arguments: str, proxy: str) -> tuple[int, str, float]:
    environment = {**os.environ, "https_proxy": proxy, "NO_GCE_CHECK": "true"}
    done = subprocess.run(
        [sys.executable, "-c", _CODE, *arguments],
        env=environment, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    (said,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    return done.returncode, said, float(done.stdout)


@pytest.mark.slow
@pytest.mark.parametrize("flag", ["pipeline_config_path", "model_dir"])
def test_bucket_behind_a_network_that_swallows_everything(flag):
    with socket.create_server(("localhost", 0)) as silent:
        others = {"pipeline_config_path": "nothing.config", "model_dir": "nothing"}
        arguments = [f"--{name}={value}" for name, value in {**others, flag: "gs://b/x"}.items()]
        port = silent.getsockname()[1]
        status, said, seconds = _run(*arguments, proxy=f"http://localhost:{port}")
    assert status == 2
    assert said.startswith("error: gs://b/: cannot be reached: no answer within 1 s. Is there a ne")
    assert seconds < 5


def _answering(monkeypatch, answer):
    class Files:
        def exists(self, path):
            if isinstance(answer, Exception):
                raise answer
            time.sleep(answer)
            return True

    files._check_root.cache_clear()
    monkeypatch.setattr(files, "TensorFlowFiles", Files)
    monkeypatch.setattr(files, "REACH_SECONDS", 0.2)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (1.0, "gs://b/: cannot be reached: no answer within 0.2 s. Is there a network"),
        (tf.errors.UnavailableError(None, None, "no\nroute"), "be reached: no route. Is there a n"),
        (tf.errors.FailedPreconditionError(None, None, "host"), "cannot be reached: host"),
        (tf.errors.UnimplementedError(None, None, "scheme"), "cannot be reached: scheme"),
    ],
)
def test_every_way_to_read_says_it(monkeypatch, answer, message):
    for ask in (files.exists, files.glob, files.system_of, files.check_reachable):
        _answering(monkeypatch, answer)
        with pytest.raises(errors.InputError, match=message):
            ask("gs://b/a/file")


def test_what_answers_is_asked_once(monkeypatch):
    _answering(monkeypatch, 0.0)
    files.check_reachable("gs://b/one")
    monkeypatch.setattr(files, "TensorFlowFiles", None)
    files.check_reachable("gs://b/another")


def test_bucket_that_one_may_not_look_at_may_have_files_that_one_may_read(monkeypatch):
    _answering(monkeypatch, tf.errors.PermissionDeniedError(None, None, "buckets.get"))
    files.check_reachable("gs://b/file")
    with pytest.raises(errors.InputError, match="gs://b/file: cannot be read: buckets.get"):
        files.exists("gs://b/file")


def test_local_files_are_not_asked_for(monkeypatch):
    monkeypatch.setattr(files, "_check_root", None)
    assert files.exists(__file__) and not files.exists("/no/such/file")


@pytest.fixture(autouse=True)
def _forget():
    yield
    files._check_root.cache_clear()
