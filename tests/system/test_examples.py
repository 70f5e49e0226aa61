from __future__ import annotations

import runpy
import sys

import nbformat
import pytest
from nbclient import NotebookClient

from tests.support import PROJECT

EXAMPLES = sorted((PROJECT / "examples").glob("*_example.py"))
EXPECTED = {
    "batch_processing_example.py": "batches.csv",
    "clustering_analysis_example.py": "anomalous readings",
    "complete_pipeline_example.py": "back to version",
    "initial_training_example.py": "registered as version",
    "retraining_configuration_example.py": "was replaced by",
}


def test_every_example_is_tested():
    assert [path.name for path in EXAMPLES] == sorted(EXPECTED)


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_runs_and_shows_what_it_promises(path, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(path), run_name="__main__")
    assert EXPECTED[path.name] in capsys.readouterr().out


def test_the_notebook_runs_from_top_to_bottom(tmp_path, monkeypatch, python):
    monkeypatch.setattr(sys, "executable", str(python))
    monkeypatch.delenv("MLFLOW_RUN_ID", raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    notebook = nbformat.read(PROJECT / "examples" / "hospital.ipynb", as_version=4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(not cell.outputs and cell.execution_count is None for cell in cells)
    client = NotebookClient(
        notebook, resources={"metadata": {"path": str(tmp_path)}}, kernel_name="python3"
    )
    client.execute()
    shown = "".join(output.get("text", "") for cell in cells for output in cell.outputs)
    assert "5 segments" in shown
    assert "rows 2650 to 2999: noise" in shown
    assert "promoted: True" in shown
