from __future__ import annotations

import runpy

import pytest
from conftest import PROJECT

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
