"""What the README shows is run as it stands."""

from __future__ import annotations

import re

import pytest
import yaml
from conftest import PROJECT

import entrypoints.main
from tsclust_model.config import PipelineConfig

README = (PROJECT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


@pytest.mark.usefixtures("store")
def test_the_python_of_the_readme_runs_after_the_demo(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    entrypoints.main.main("demo")
    shown = [block for block in blocks("python") if "spark" not in block]
    assert len(shown) == 4
    for block in shown:
        exec(compile(block, "README.md", "exec"), {})
    assert "models:/timeseries-clustering@champion" in capsys.readouterr().out


def test_the_settings_of_the_readme_are_settings():
    (text,) = blocks("yaml")
    config = PipelineConfig.from_dict(yaml.safe_load(text))
    assert config.hdbscan_params["min_cluster_size"] == 40
    assert config.hdbscan_params["min_samples"] == 10  # the preset's


def test_the_readme_names_no_parameter_that_does_not_exist():
    project = yaml.safe_load((PROJECT / "MLproject").read_text())["entry_points"]
    known = {name for entry in project.values() for name in entry.get("parameters", {})}
    assert set(re.findall(r"-P (\w+)=", README)) <= known
    assert set(re.findall(r"mlflow run \. -e (\w+)", README)) <= set(project)
