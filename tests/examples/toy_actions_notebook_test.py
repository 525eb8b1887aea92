# SPDX-License-Identifier: Apache-2.0
"""The notebook: what is committed can be read, and it runs from its first cell to its last.

After changes of the notebook its outputs are renewed by `jupyter execute --inplace
examples/toy_actions.ipynb`. Shapes: H W pixels.
"""

import ast
import base64
import contextlib
import importlib
import io
import os
import pathlib
import re

import nbclient
import nbformat
import numpy as np
import pytest
import tensorflow as tf
from absl import flags
from IPython.core.inputtransformer2 import TransformerManager
from PIL import Image

import object_detection_ext
from object_detection_ext import registration
from object_detection_ext.checkpoints import files
from object_detection_ext.data import video_probe

_ROOT = pathlib.Path(__file__).resolve().parents[2]
_NOTEBOOK = _ROOT / "examples" / "toy_actions.ipynb"
_PICTURES = ("contact-sheet", "picture", "attention")
_COMMAND = re.compile(r"^!\{PYTHON\} -m (\S+)((?:.*\\\n)*.*)$", flags=re.MULTILINE)
# Of any machine, not only of the one where the notebook was run last.
_MACHINE_PATH = re.compile(
    r"(?<![\w.:/])/(?:tmp|work|srv|home|root|Users|usr|opt|var|mnt|etc)/|site-packages|[A-Z]:\\\\"
)
_WARNING = re.compile(r"\w*Warning: |^WARNING|^[EWI]\d{4} \d\d:|\bdeprecated\b", flags=re.MULTILINE)
_MAX_BYTES = 600_000
_STEPS, _TRAIN_VIDEOS = 3, 2


def _read() -> nbformat.NotebookNode:
    return nbformat.read(_NOTEBOOK, as_version=4)


def _code_cells(notebook) -> list[nbformat.NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def _cell(notebook, name: str) -> nbformat.NotebookNode:
    (found,) = (cell for cell in notebook.cells if cell["id"] == name)
    return found


def _texts(cell) -> list[str]:
    """What a cell printed and returned, as plain text and as HTML."""
    texts = [output.get("text", "") for output in cell.outputs]
    for output in cell.outputs:
        data = output.get("data", {})
        texts += [data[kind] for kind in ("text/plain", "text/html") if kind in data]
    return texts


def _pictures(cell) -> list[np.ndarray]:
    """The pictures that a cell shows, each uint8 [H, W, 3]."""
    shown = (output.get("data", {}).get("image/jpeg") for output in cell.outputs)
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(jpeg)))) for jpeg in shown if jpeg]


def _check_pictures(notebook) -> None:
    for name in _PICTURES:
        pictures = _pictures(_cell(notebook, name))
        assert pictures, f"cell {name} shows no picture"
        for picture in pictures:
            assert picture.shape[1] > 500 and picture.std() > 20, f"cell {name}: {picture.shape}"


# --- What is committed ----------------------------------------------------------------------------


def test_the_notebook_is_valid_and_its_code_is_python():
    notebook = _read()
    nbformat.validate(notebook)
    assert "SPDX-License-Identifier: Apache-2.0" in _code_cells(notebook)[0].source
    for cell in _code_cells(notebook):
        python = TransformerManager().transform_cell(cell.source)
        ast.parse(python, filename=f"cell {cell['id']}")


def test_committed_outputs_are_whole_and_say_nothing_of_a_machine():
    notebook = _read()
    cells = _code_cells(notebook)
    if not any(cell.outputs for cell in cells):
        pytest.skip("the notebook is committed without outputs")
    assert [cell.execution_count for cell in cells] == [*range(1, len(cells) + 1)]
    for cell in cells:
        assert all(output.output_type != "error" for output in cell.outputs), cell["id"]
        for text in (cell.source, *_texts(cell)):
            for pattern in (_MACHINE_PATH, _WARNING):
                match = pattern.search(text)
                assert not match, f"cell {cell['id']}: {text[match.start() : match.end() + 80]!r}"
    _check_pictures(notebook)
    assert _NOTEBOOK.stat().st_size < _MAX_BYTES


def test_patterns_find_paths_and_warnings():
    for text in ("in '/tmp/x/y.py'", "/srv/a", "lib/site-packages/tf.py", 'File "/home/me/a"'):
        assert _MACHINE_PATH.search(text), text
    for text in ("toy_actions/data/tmp/x", "../docs/srv/a", "https://a.org/home/x", "1/usr/2"):
        assert not _MACHINE_PATH.search(text), text
    for text in ("a.py:1: FutureWarning: x", "x\nWARNING:tensorflow:y", "E0000 00:00:17 cuda"):
        assert _WARNING.search(text), text
    assert not _WARNING.search("warning  class_without_examples, 1 class")


def test_commands_are_modules_with_these_options():
    commands = [match for cell in _code_cells(_read()) for match in _COMMAND.findall(cell.source)]
    assert len(commands) == 3
    for module, options in commands:
        values = flags.FlagValues()
        importlib.import_module(module).define_flags(values)
        for option in re.findall(r"--(\w+)", options):
            assert option in values, f"{module} has no option --{option}"


def test_links_lead_to_files():
    text = "\n".join(cell.source for cell in _read().cells if cell.cell_type == "markdown")
    links = re.findall(r"\]\(([^)]+)\)", text)
    assert len(links) >= 4
    for link in links:
        assert (_NOTEBOOK.parent / link).exists(), link


@pytest.mark.parametrize("steps", [7, 1000])
def test_config_has_the_paths_and_steps_of_the_run(tmp_path, steps):
    names = {
        "object_detection_ext": object_detection_ext,
        "pathlib": pathlib,
        "DATA": tmp_path / "data",
        "CONFIG": tmp_path / "pipeline.config",
        "STEPS": steps,
    }
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(_cell(_read(), "config").source, names)
    assert "tx_head {" in printed.getvalue() and "train_config" not in printed.getvalue()
    pipeline = registration.parse_pipeline(str(tmp_path / "pipeline.config"))
    rate = pipeline.train_config.optimizer.adam_optimizer.learning_rate.cosine_decay_learning_rate
    assert pipeline.train_config.num_steps == rate.total_steps == steps
    assert rate.warmup_steps == steps // 20
    for reader in (pipeline.train_input_reader, *pipeline.eval_input_reader):
        assert reader.label_map_path == str(tmp_path / "data" / "label_map.pbtxt")
        (path,) = reader.tf_record_input_reader.input_path
        assert path.startswith(str(tmp_path / "data"))


# --- A run with tiny sizes ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> tuple[nbformat.NotebookNode, pathlib.Path]:
    """The notebook after a run, and the folder with its results."""
    folder = tmp_path_factory.mktemp("notebook")
    notebook = _read()
    for cell in _code_cells(notebook):
        cell.outputs, cell.execution_count = [], None
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(_ROOT), os.environ.get("PYTHONPATH", "")]),
        "IPYTHONDIR": str(folder / "ipython"),
        "TOY_STEPS": str(_STEPS),
        "TOY_TRAIN_VIDEOS": str(_TRAIN_VIDEOS),
        "TOY_EVAL_VIDEOS": "1",
        # Hardly trained, the model is sure of nothing.
        "TOY_MIN_SCORE": "0.02",
        "TOY_WORK": "results",
    }
    client = nbclient.NotebookClient(
        notebook,
        timeout=1800,
        kernel_name="python3",
        coalesce_streams=True,
        resources={"metadata": {"path": str(folder)}},
    )
    client.execute(env=environment)
    return notebook, folder / "results"


@pytest.mark.slow
def test_a_run_makes_every_file(run):
    _, results = run
    videos = sorted(path.name for path in (results / "data" / "videos").iterdir())
    assert videos == ["eval_0000.mp4", "train_0000.mp4", "train_0001.mp4"]
    assert len(list((results / "data").glob("*.record-?????-of-00004"))) == 8
    assert files.step_of_newest(str(results / "model")) == _STEPS
    assert tf.saved_model.contains_saved_model(str(results / "exported" / "saved_model"))
    source = video_probe.probe(results / "data" / "videos" / "eval_0000.mp4")
    made = video_probe.probe(results / "annotated.mp4")
    assert made.duration == pytest.approx(source.duration, abs=0.1)


@pytest.mark.slow
def test_a_run_measures_and_finds_people_at_every_second(run):
    notebook, _ = run
    assert "mAP@0.5IOU: " in "".join(_texts(_cell(notebook, "evaluation")))
    lines = "".join(_texts(_cell(notebook, "detection"))).splitlines()
    assert [float(line.split()[0]) for line in lines] == [0.0, 1.0, 2.0, 3.0]
    (table,) = (text for text in _texts(_cell(notebook, "table")) if "<table" in text)
    assert "eval_0000" in table and "<th>score</th>" in table


@pytest.mark.slow
def test_a_run_shows_pictures(run):
    notebook, _ = run
    _check_pictures(notebook)
    # Three of the keyframes are annotated: each is drawn as found and as annotated, 4 to 3.
    (picture,) = _pictures(_cell(notebook, "picture"))
    assert picture.shape[1] / picture.shape[0] == pytest.approx(3 * 4 / (2 * 3), abs=0.02)
