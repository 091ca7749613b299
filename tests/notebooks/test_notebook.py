"""The Colab notebook is its script, and runs from top to bottom without a network."""

import importlib.util
import pathlib

import pytest

FOLDER = pathlib.Path(__file__).parents[2] / "notebooks"


def _pair():
    spec = importlib.util.spec_from_file_location("pair", FOLDER / "pair.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_notebook_is_its_script_without_outputs():
    pair = _pair()
    assert pair.NOTEBOOK.read_text("utf-8") == pair.text(pair.SCRIPT.read_text("utf-8")), "run: python notebooks/pair.py"


@pytest.mark.slow
# jupyter_client's tornado and zmq, not ours.
@pytest.mark.filterwarnings("default::DeprecationWarning", "default::ResourceWarning")
def test_notebook_runs_from_top_to_bottom_offline(tmp_path, monkeypatch):
    import nbformat
    from nbclient import NotebookClient

    monkeypatch.setenv("IMAGENET_JAX_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("PYTHONPATH", str(FOLDER.parent))
    monkeypatch.delenv("XLA_FLAGS", raising=False)  # one device, as a reader has
    notebook = nbformat.read(FOLDER / "imagenet_jax.ipynb", as_version=4)
    nbformat.validate(notebook)
    NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": tmp_path}}).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 11  # five a run, and the photograph
    printed = "".join(output.get("text", "") for output in outputs)
    assert "at step 100." in printed  # where the second command went on
