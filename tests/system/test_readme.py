"""What the README and the guides show is run as it stands."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pandas as pd
import pytest
import yaml
from mlflow import MlflowClient

from tests.support import PROJECT, typed, under_next
from tsclust_model.commands import main
from tsclust_model.config import PipelineConfig

PAGES = {
    name: (PROJECT / name).read_text()
    for name in (
        *("README.md", "docs/user_guide.md", "docs/operations_guide.md"),
        *("docs/deployment_guide.md", "docs/analysis.md", "docs/series.md"),
    )
}


CONTINUED = re.compile(r"\\\n\s*")


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGES[page], flags=re.DOTALL)


def shell_lines(page: str) -> list[str]:
    """The lines of a page's shell blocks; one that goes on below is one."""
    return [line for block in blocks(page, "sh") for line in CONTINUED.sub(" ", block).splitlines()]


def words_of(screen: str) -> set[str]:
    """The lines without their figures, which differ a little between processors."""
    return {re.sub(r"\d[\d.]*", "#", line) for line in screen.splitlines()}


@pytest.fixture(scope="module")
def made(tmp_path_factory, programs, mlflow_run) -> tuple[Path, str]:
    """A user's folder in which the demo was made, and the screen: ``mlflow run .``."""
    folder = tmp_path_factory.mktemp("demo") / "at home"
    folder.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
        done = mlflow_run(folder)
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


@pytest.fixture
def home(made, programs, monkeypatch) -> Iterator[Path]:
    """The folder of the demo, with nothing in the environment."""
    folder, _ = made
    monkeypatch.chdir(folder)
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(None)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("MLFLOW_RUN_ID", raising=False)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    yield folder
    mlflow.set_tracking_uri(before)


def test_the_demo_has_a_blend_that_beats_global_and_a_control_that_does_not(made, home, tsclust):
    screen = made[1]
    assert "5 clusters in 4800 rows" in screen
    lines, uri = under_next(screen), "models:/timeseries-clustering@champion"
    assert lines["serve"] == f"mlflow models serve -m {uri} --env-manager local"
    assert lines["look"] == "mlflow ui"
    scored = typed(f"{lines.get('once', 'true')}\n{lines['score']}", home)
    assert scored.returncode == 0, scored.stderr
    table = pd.read_csv("scored.csv")
    assert len(table) == 200
    assert list(table.columns[:3]) == ["patient_id", "admission_time", "prediction"]
    assert set(table["status"]) == {"ok"}

    held = tsclust("evaluate", data="demo/holdout.csv", model_uri=uri, fail_on_regression="true")
    assert held.exit_code == 0, held.output
    assert held.stdout.splitlines()[0] == "1200 rows, 0 not scored"
    assert "trained on" not in held.stdout
    (trained,) = mlflow.MlflowClient().search_runs(["0"], "tags.trigger = 'demo'")
    worth = trained.data.metrics
    assert worth["fold_rmse_blend"] <= 0.9 * worth["fold_rmse_global"]
    assert worth["holdout_rmse"] <= 0.9 * worth["holdout_rmse_global"]
    assert worth["fold_rmse_control"] >= 0.99 * worth["fold_rmse_global"]


@pytest.mark.usefixtures("home")
def test_the_python_of_the_pages_runs_after_the_demo(made):
    screen = made[1]
    assert "models:/timeseries-clustering@champion" in screen
    (shown,) = blocks("README.md", "text")
    assert words_of(shown) <= words_of(screen)
    of_the_demo = "name = 'timeseries-clustering'"
    before = [str(v.version) for v in MlflowClient().search_model_versions(of_the_demo)]
    for page, n_blocks in {"README.md": 2, "docs/user_guide.md": 2, "docs/series.md": 1}.items():
        shown = [block for block in blocks(page, "python") if "spark" not in block]
        assert len(shown) == n_blocks
        for block in shown:
            exec(compile(block, page, "exec"), {})
    names: dict[str, object] = {}
    for block in blocks("docs/operations_guide.md", "python"):  # one story
        exec(compile(block, "operations_guide.md", "exec"), names)
    # Nobody's first steps take the demo's place.
    after = [str(v.version) for v in MlflowClient().search_model_versions(of_the_demo)]
    assert after == before != []


@pytest.mark.parametrize("page", PAGES)
def test_no_page_trains_over_the_model_of_the_demo(page):
    for line in shell_lines(page):
        is_train = "-e train" in line or line.startswith("tsclust train")
        named = ("model_name=", "config=", "--model-name ", "--config ")
        assert not is_train or any(word in line for word in named), line


@pytest.mark.parametrize("page", PAGES)
def test_the_commands_of_a_page_are_commands_with_those_options(page):
    lines = [line for line in shell_lines(page) if line.startswith("tsclust ")]
    for line in lines:
        _, name, *words = shlex.split(line)
        main.tsclust.commands[name].make_context(name, words)
    assert lines


@pytest.mark.parametrize("path", sorted((PROJECT / "examples").glob("*.*")), ids=lambda p: p.name)
def test_no_example_trains_over_the_model_of_the_demo(path):
    text = path.read_text()
    assert "timeseries-clustering" not in text
    if "TimeSeriesClusteringPipeline(" in text:
        assert "model_name=" in text or "model_registry_prefix=" in text


def test_the_settings_of_the_user_guide_are_settings():
    (text,) = blocks("docs/user_guide.md", "yaml")
    config = PipelineConfig.from_dict(yaml.safe_load(text))
    assert config.hdbscan_params["min_cluster_size"] == 40
    assert config.hdbscan_params["min_samples"] == 10  # the preset's


@pytest.mark.parametrize("page", PAGES)
def test_a_page_names_no_parameter_that_does_not_exist(page):
    project = yaml.safe_load((PROJECT / "MLproject").read_text())["entry_points"]
    known = {name for entry in project.values() for name in entry.get("parameters", {})}
    assert set(re.findall(r"-P (\w+)=", PAGES[page])) <= known
    assert set(re.findall(r"mlflow run \. -e (\w+)", PAGES[page])) <= set(project)


def test_the_readme_is_short_and_its_links_lead_somewhere():
    text = PAGES["README.md"]
    assert len(text.splitlines()) < 200
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        assert (PROJECT / target).exists(), target
