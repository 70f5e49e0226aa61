"""Evaluate: labelled rows in, metrics out, and a non-zero exit where the model got worse."""

from __future__ import annotations

from typing import Any

import click
import pandas as pd

from entrypoints import DATA_HELP, command, optional
from tsclust_model.config import PipelineConfig
from tsclust_model.errors import ConfigurationError
from tsclust_model.evaluation import evaluate_generation
from tsclust_model.generation import Generation
from tsclust_model.metrics import Metric
from tsclust_model.registry import load_generation
from tsclust_model.reporting import evaluation_report, log_report, named_segments, now
from tsclust_model.retraining import compare
from tsclust_model.tables import content_digest, read_table
from tsclust_model.tracking import ArtifactManager, ExperimentManager, log_input

# Without a baseline, what is served may be this much worse than its own global model.
TOLERANCE = 0.01


@click.option("--data", required=True, help=DATA_HELP)
@click.option("--model-uri", "--model_uri", required=True, help="models:/<name>@champion")
@click.option("--baseline-uri", "--baseline_uri", default="", callback=optional, help="model")
@click.option(
    "--fail-on-regression",
    "--fail_on_regression",
    default=False,
    type=bool,
    help="exit 1 if the error is above the baseline's, or without one 1% above the global model's",
)
def main(data: str, model_uri: str, baseline_uri: str | None, fail_on_regression: bool) -> None:
    """Compare a model's forecasts with what happened."""
    generation = load_generation(model_uri)
    baseline = load_generation(baseline_uri) if baseline_uri else None
    frame = read_table(data, generation.text_columns, generation.schema.missing_markers)
    config = PipelineConfig.from_dict(generation.info["config"])
    experiments = ExperimentManager(config.experiment_name)
    with experiments.run("evaluation", {"phase": "evaluation", "model_uri": model_uri}) as run_id:
        report = evaluate_generation(generation, frame)
        log_input(frame, data, content_digest(frame), "evaluation", generation.roles.target)
        metric = generation.metric
        limit, against = _limit(report, metric, baseline, frame)
        figures = {name: v for name, v in report.items() if not isinstance(v, dict)}
        experiments.log_metrics(figures | {f"{metric.name}_limit": limit})
        ArtifactManager(config.hospital_profile_id).save_report(_json(report), "evaluation.json")
        comparison = None if baseline is None else compare(baseline, generation, frame, 0.0)
        page = evaluation_report(
            generation,
            frame,
            {
                "phase": "evaluation",
                "made_at": now(),
                "model_name": model_uri,
                "source": data,
                "baseline": baseline_uri,
                "run_id": run_id,
            },
            comparison=comparison,
            names=named_segments(model_uri),
        )
        log_report(page)
        _show(report, metric)
        found = report[metric.name]
        if found > limit:
            line = f"regression: {metric.label} {found:.4g} is above {limit:.4g}, {against}"
            if fail_on_regression:
                raise click.ClickException(line)
            click.echo(line)


def _limit(
    report: dict[str, Any], metric: Metric, baseline: Generation | None, frame: pd.DataFrame
) -> tuple[float, str]:
    """The error that must not be exceeded, and what it is."""
    if baseline is not None:
        if baseline.metric != metric:
            raise ConfigurationError(
                f"the model is judged by {metric.label} and the baseline by "
                f"{baseline.metric.label}; give a baseline of the same task"
            )
        return evaluate_generation(baseline, frame)[metric.name], "the baseline's on the same rows"
    own = report[f"{metric.name}_global"] * (1 + TOLERANCE)
    return own, f"its own global model's plus {TOLERANCE:.0%}"


def _json(report: dict[str, Any]) -> dict[str, Any]:
    return report | {"clusters": {str(c): found for c, found in report["clusters"].items()}}


def _show(report: dict[str, Any], metric: Metric) -> None:
    click.echo(f"{report['n_rows']} rows, {report['n_not_scored']} not scored")
    click.echo(
        f"{metric.label} {report[metric.name]:.4g} (global alone "
        f"{report[f'{metric.name}_global']:.4g}, clusters alone "
        f"{report[f'{metric.name}_cluster']:.4g})   {_second(report)}"
    )
    click.echo(f"{report['noise_ratio']:.1%} noise")
    if "coverage" in report:
        inside = report["interval_coverage"]
        click.echo(f"{inside:.1%} inside the {report['coverage']:.0%} intervals")
    for name, figures in report["resources"].items():
        click.echo(f"{name}: RMSE {figures['rmse']:.4g}")


def _second(report: dict[str, Any]) -> str:
    """What people ask for beside the metric."""
    if "mae" in report:
        return f"MAE {report['mae']:.4g}"
    auc = "" if report["auc"] is None else f"   AUC {report['auc']:.4g}"
    return f"accuracy {report['accuracy']:.1%}{auc}"


if __name__ == "__main__":
    command(main)()
