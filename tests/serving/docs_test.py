# SPDX-License-Identifier: Apache-2.0
"""The examples of docs/serving.md as they stand, but for the servers' addresses."""

import json
import pathlib
import re
import shlex
import shutil
import subprocess

import numpy as np
import pytest
import tensorflow as tf
from absl import flags
from tensorflow_serving.apis import prediction_log_pb2

from object_detection_ext.tools import serving_client
from object_detection_ext.visualization import drawing
from tests import tiny_pipeline
from tests.serving import fake_servers

_PAGE = (pathlib.Path(__file__).parents[2] / "docs" / "serving.md").read_text(encoding="utf-8")
# The middle frame of `clip/` has the level 100; see the fake detector.
_PRINTED = [
    "0.300 0.200 0.600 0.800 action 3 score 0.20",
    "0.700 0.100 0.950 0.500 action 1 score 0.39",
    "0.300 0.200 0.600 0.800 action 2 score 0.10",
]


def _block(language: str, containing: str) -> str:
    blocks = re.findall(rf"^```{language}\n(.*?)^```$", _PAGE, flags=re.MULTILINE | re.DOTALL)
    (found,) = [block for block in blocks if containing in block]
    return found


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder, with the files that the examples read."""
    monkeypatch.setenv("no_proxy", "localhost")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "clip").mkdir()
    for index, jpeg in enumerate(tiny_pipeline.gray_frames(fake_servers.T, step=50, size=32)):
        (tmp_path / "clip" / f"{index:03d}.jpg").write_bytes(jpeg)
    return tmp_path


def _executed(code: str, written: str, address: str) -> None:
    assert written in code
    exec(compile(code.replace(written, address), "docs/serving.md", "exec"), {})


def test_grpc_example(folder, capsys):
    model = fake_servers.model("encoded_clip")
    with fake_servers.grpc_server(model) as address:
        _executed(_block("python", "make_tensor_proto"), "localhost:8500", address)
    assert capsys.readouterr().out.splitlines() == _PRINTED
    assert len(model.requests[-1].output_filter) == 4


def test_rest_examples(folder, capsys):
    with fake_servers.rest_server(fake_servers.model("encoded_clip")) as address:
        _executed(_block("python", "urllib"), "http://localhost:8501", address)
        assert capsys.readouterr().out.splitlines() == _PRINTED
        if shutil.which("curl") is None:
            pytest.skip("curl is not installed")
        command = _block("bash", "curl").replace("http://localhost:8501", address)
        subprocess.run(["bash", "-e", "-c", command], check=True, timeout=60)
    outputs = json.loads((folder / "answer.json").read_text())["outputs"]
    assert outputs["num_detections"] == [3.0]


def test_example_of_the_other_form_works_too(folder):
    """The page says that both forms work."""
    body = {
        "instances": json.loads((_written_request(folder)).read_text())["inputs"]["input_tensor"]
    }
    answer = fake_servers.answer_json(fake_servers.model("encoded_clip"), "vat", body)
    (prediction,) = answer["predictions"]
    assert prediction["num_detections"] == 3.0 and len(prediction["detection_scores"]) == 3


def _written_request(folder) -> pathlib.Path:
    code = _block("python", "urllib")
    exec(code[: code.index("url = ")], {})
    return folder / "request.json"


def test_python_example(folder, capsys):
    frames = (np.full((48, 64, 3), 4 * k, np.uint8) for k in range(50))
    drawing.write_video(folder / "street.mp4", frames, 25)
    with fake_servers.grpc_server(fake_servers.model("clip_tensor")) as address:
        _executed(_block("python", "GrpcClient"), "localhost:8500", address)
    first, second = capsys.readouterr().out.splitlines()
    # Frame 25 has the level 100; the first row has half of the brightness.
    assert re.fullmatch(r"1\.0 \[0\.2 0\.3 0\.8 0\.6\] 0\.(19|20)\d*", first)
    assert second.startswith("1.5 ")


def test_warmup_example(folder):
    exec(_block("python", "warmup.write"), {})
    path = folder / "exported" / "saved_model" / "assets.extra" / "tf_serving_warmup_requests"
    (record,) = tf.data.TFRecordDataset(str(path)).as_numpy_iterator()
    request = prediction_log_pb2.PredictionLog.FromString(record).predict_log.request
    shape = request.inputs["input_tensor"].tensor_shape
    assert [dim.size for dim in shape.dim] == [1, 64, 720, 1280, 3]


def test_command_lines_have_the_tool_s_flags():
    commands = re.findall(
        r"python -m object_detection_ext\.tools\.serving_client((?:.*\\\n)*.*)", _PAGE
    )
    assert commands
    for command in commands:
        values = flags.FlagValues()
        serving_client.define_flags(values)
        assert values(["tool", *shlex.split(command.replace("\\\n", " "))]) == ["tool"]
        assert values.video == "street.mp4"
    for flag in re.findall(
        r"`--([a-z_]+)", _PAGE[_PAGE.index("## Ask: a video") :].split("## ")[1]
    ):
        assert flag in values, flag
