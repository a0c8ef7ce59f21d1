"""The notebook of the documents runs from its first cell to its last, here on a run that is small and untrained."""

from __future__ import annotations

import os
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests.cached_run import sharded_run

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOK = ROOT / "docs" / "notebook.ipynb"
RECIPE = 'recipe = override(find_recipe("demo"), ["cluster.in_process=true"])'

pytestmark = pytest.mark.slow


@pytest.mark.long
def test_every_cell_of_the_notebook_runs(tmp_path, monkeypatch):
    sharded_run(tmp_path / "run")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    settings = ["cluster.in_process=true", f"folder={tmp_path / 'run'}", "world.videos_train=4", "world.videos_val=1"]
    small = f'recipe = override(find_recipe("tiny"), {settings})'
    assert RECIPE in notebook.cells[1].source
    notebook.cells[1].source = notebook.cells[1].source.replace(RECIPE, small)
    done = NotebookClient(notebook, timeout=240, kernel_name="python3",
                          resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert not [output for cell in done.cells for output in cell.get("outputs", ()) if output.output_type == "error"]
    assert isinstance(float(done.cells[-1].outputs[-1].data["text/plain"]), float)
