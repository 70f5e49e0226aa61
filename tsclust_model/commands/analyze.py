"""``tsclust analyze``: which clustering suits a table? A JSON request in, a JSON result out."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import click

from tsclust_model.analysis.analyze import (
    analyze,
    recommended_config,
    require_promotable,
    with_sweep,
)
from tsclust_model.analysis.schema import AnalysisRequest, read_request
from tsclust_model.commands.next_steps import NextSteps
from tsclust_model.errors import counted
from tsclust_model.files import write_whole
from tsclust_model.mlflow_integration.runs import ExperimentManager
from tsclust_model.plots import shown_pictures

_METRICS = (
    *("silhouette_score", "calinski_harabasz_score", "davies_bouldin_score", "inertia"),
    *("dbcv", "adjusted_rand_score", "normalized_mutual_info_score"),
)


def run(request: str, output: str, promote_to_config: str | None) -> None:
    """Cluster a table as asked, evaluate it, and say which clustering suits it."""
    asked = read_request(request)
    if promote_to_config is not None:
        require_promotable(asked)
        asked = with_sweep(asked)
    path = _result_path(Path(output))
    path.parent.mkdir(parents=True, exist_ok=True)  # before the work, not after it
    experiments = ExperimentManager()
    with experiments.run("analysis", {"phase": "analysis"}) as run_id:
        wanted = asked.clustering_configuration
        experiments.log_params(
            {
                "data_source": asked.clustering_data.data_source,
                "algorithm": wanted.algorithm,
                "random_state": wanted.random_state,
            }
        )
        experiments.log_artifact(request, "request.json")
        result = analyze(asked, plot_dir=os.environ.get("PLOT_OUTPUT_DIR") or path.parent / "plots")
        write_whole(path, json.dumps(result, allow_nan=False))
        _log(experiments, result, path)
        if promote_to_config is not None:
            config = Path(promote_to_config)
            write_whole(config, recommended_config(asked, result).to_yaml())
            experiments.log_artifact(config, "config.yaml")
    _show(result, path)
    if promote_to_config is not None:
        _show_next(asked, promote_to_config, NextSteps(run_id))


def _result_path(output: Path) -> Path:
    """The file itself where one is named; in a folder ``result.json``."""
    is_file = output.suffix == ".json" and not output.is_dir()
    return output if is_file else output / "result.json"


def _log(experiments: ExperimentManager, result: dict[str, Any], path: Path) -> None:
    """Figures as metrics; the result and its pictures as artifacts."""
    results = result["clustering_results"]
    figures = {name: results["evaluation_metrics"][name] for name in _METRICS}
    info = results["model_info"]
    experiments.log_metrics(
        figures | {"n_clusters": info["n_clusters"], "noise_ratio": info["noise_ratio"]}
    )
    experiments.log_artifact(path, "result.json")
    pictures = results["visualizations"]
    with tempfile.TemporaryDirectory() as scratch:
        for name, content, suffix in shown_pictures(pictures):
            picture = Path(scratch) / f"{name}.{suffix}"
            picture.write_bytes(content)
            experiments.log_artifact(picture, f"plots/{picture.name}")


def _show(result: dict[str, Any], path: Path) -> None:
    results, advised = (
        result["clustering_results"],
        result["clustering_results"]["recommendations"],
    )
    info = results["model_info"]
    click.echo(
        f"{info['algorithm']}: {counted(info['n_clusters'], 'cluster')}, "
        f"{info['noise_ratio']:.1%} noise in "
        f"{counted(result['metadata']['data_statistics']['n_rows_used'], 'row')}"
    )
    for line in advised["interpretation_guidance"]:
        click.echo(f"  {line}")
    click.echo(f"result: {path}")


def _show_next(asked: AnalysisRequest, config: str, steps: NextSteps) -> None:
    """How to train on the settings that were written, once a person has chosen the columns."""
    click.echo(
        f"settings: {config}; next, with your names for the words in capitals (without --time or "
        "--id where the table has none):"
    )
    if (first := steps.once()) is not None:
        click.echo(f"  {first}")
    data = asked.clustering_data
    columns = {
        "target": data.target_variable or "TARGET",
        "time": "TIME",
        "id": data.id_column or "ID",
        "model_name": "MODEL",
    }
    click.echo(f"  {steps.command('train', data=data.data_source, **columns, config=config)}")
