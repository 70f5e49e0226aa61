"""Evaluate: labelled rows in, metrics out, and a non-zero exit where the model got worse."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import click
import pandas as pd

from entrypoints import DATA_HELP, beside, command, optional
from tsclust_model.config import PipelineConfig
from tsclust_model.errors import ConfigurationError
from tsclust_model.evaluation import evaluate_generation
from tsclust_model.metrics import Metric
from tsclust_model.panel import HeldBack, Panel
from tsclust_model.registry import load_generation, name_and_version
from tsclust_model.reporting import (
    evaluation_report,
    log_report,
    named_segments,
    now,
    series_report,
)
from tsclust_model.retraining import compare
from tsclust_model.series_evaluation import evaluate_series
from tsclust_model.series_generation import AnyGeneration, SeriesGeneration
from tsclust_model.series_table import series_panel
from tsclust_model.settings import load_settings
from tsclust_model.tables import content_digest, read_table
from tsclust_model.thresholds import failed_thresholds, tag_validation
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
@click.option(
    "--config",
    default="",
    callback=optional,
    help="YAML of -e pipeline, whose monitoring.thresholds decide instead",
)
def main(
    data: str,
    model_uri: str,
    baseline_uri: str | None,
    fail_on_regression: bool,
    config: str | None,
) -> None:
    """Compare a model's forecasts with what happened."""
    thresholds = _thresholds(config)
    generation = load_generation(model_uri)
    baseline = load_generation(baseline_uri) if baseline_uri else None
    frame = read_table(data, generation.text_columns, generation.schema.missing_markers)
    settings = PipelineConfig.from_dict(generation.info["config"])
    experiments = ExperimentManager(settings.experiment_name)
    with experiments.run("evaluation", {"phase": "evaluation", "model_uri": model_uri}) as run_id:
        report = _report(generation, frame)
        log_input(frame, data, content_digest(frame), "evaluation", generation.roles.target)
        metric = generation.metric
        before = None if baseline is None else _baseline_report(baseline, metric, frame)
        limit, against = _limit(report, metric, baseline, before)
        figures = {name: v for name, v in report.items() if not isinstance(v, dict)}
        experiments.log_metrics(figures | {f"{metric.name}_limit": limit})
        ArtifactManager(settings.hospital_profile_id).save_report(_json(report), "evaluation.json")
        told = {
            "phase": "evaluation",
            "made_at": now(),
            "model_name": model_uri,
            "source": data,
            "baseline": baseline_uri,
            "run_id": run_id,
        }
        log_report(_page(generation, baseline, frame, told))
        _show(report, metric)
        found = report[metric.name]
        lines = []
        if thresholds:
            lines = failed_thresholds(thresholds, figures, before)
            name, version = name_and_version(model_uri)
            click.echo(f"thresholds: {tag_validation(name, version, lines)}")
        elif found > limit:
            lines = [f"regression: {metric.label} {found:.4g} is above {limit:.4g}, {against}"]
        if lines and fail_on_regression:
            raise click.ClickException(" ".join(lines))
        for line in lines:
            click.echo(line)


def _thresholds(config: str | None) -> dict[str, dict[str, Any]]:
    """The fields of mlflow's `MetricThreshold` by metric; empty without a YAML."""
    if config is None:
        return {}
    found = load_settings(config).monitoring.thresholds
    if not found:
        raise ConfigurationError(f"{config} has no monitoring.thresholds; add some")
    return {name: item.model_dump(exclude_none=True) for name, item in found.items()}


def _report(generation: AnyGeneration, frame: pd.DataFrame) -> dict[str, Any]:
    """Figures of labelled rows, or of the last `horizon` values of each series."""
    if not isinstance(generation, SeriesGeneration):
        return evaluate_generation(generation, frame)
    return evaluate_series(generation, _newest(generation, _panel(generation, frame)))


def _panel(generation: SeriesGeneration, frame: pd.DataFrame) -> Panel:
    schema, config = generation.schema, PipelineConfig.from_dict(generation.info["config"])
    roles = replace(generation.roles, frequency=schema.frequency)
    return series_panel(frame, roles, config.gap_policy, schema.missing_markers)


def _newest(generation: SeriesGeneration, panel: Panel) -> HeldBack:
    return panel.held_back(generation.schema.horizon, generation.schema.horizon)


def _page(
    generation: AnyGeneration,
    baseline: AnyGeneration | None,
    frame: pd.DataFrame,
    told: dict[str, Any],
) -> dict[str, Any]:
    """The report's figures."""
    names = named_segments(str(told["model_name"]))
    if isinstance(generation, SeriesGeneration):
        panel = _panel(generation, frame)
        held = _newest(generation, panel)
        comparison = None if baseline is None else compare(baseline, generation, held, 0.0)
        return series_report(generation, panel, held, told, comparison=comparison, names=names)
    comparison = None if baseline is None else compare(baseline, generation, frame, 0.0)
    return evaluation_report(generation, frame, told, comparison=comparison, names=names)


def _baseline_report(
    baseline: AnyGeneration, metric: Metric, frame: pd.DataFrame
) -> dict[str, Any]:
    """The baseline's figures of the same rows, if it is judged by the same metric."""
    if baseline.metric != metric:
        raise ConfigurationError(
            f"the model is judged by {metric.label} and the baseline by "
            f"{baseline.metric.label}; give a baseline of the same task"
        )
    return _report(baseline, frame)


def _limit(
    report: dict[str, Any],
    metric: Metric,
    baseline: AnyGeneration | None,
    before: dict[str, Any] | None,
) -> tuple[float, str]:
    """The error that must not be exceeded, and what it is."""
    if baseline is not None and before is not None:
        return before[metric.name], "the baseline's on the same rows"
    own = report[f"{metric.name}_global"] * (1 + TOLERANCE)
    return own, f"its own global model's plus {TOLERANCE:.0%}"


def _json(report: dict[str, Any]) -> dict[str, Any]:
    return report | {"clusters": {str(c): found for c, found in report["clusters"].items()}}


def _show(report: dict[str, Any], metric: Metric) -> None:
    unit = "series" if "wape" in report else "rows"
    click.echo(f"{report['n_rows']} {unit}, {report['n_not_scored']} not scored")
    click.echo(
        f"{metric.label} {report[metric.name]:.4g} (global alone "
        f"{report[f'{metric.name}_global']:.4g}, clusters alone "
        f"{report[f'{metric.name}_cluster']:.4g})   {_second(report)}"
    )
    if unit == "series":
        click.echo(beside(report, "simple: ", report["wape"]))
    click.echo(f"{report['noise_ratio']:.1%} noise")
    if "coverage" in report:
        inside = report["interval_coverage"]
        click.echo(f"{inside:.1%} inside the {report['coverage']:.0%} intervals")
    for name, figures in report["resources"].items():
        known = metric.name if unit == "series" else "rmse"
        found = figures[known]
        click.echo(f"{name}: {known.upper()} " + ("undefined" if found is None else f"{found:.4g}"))


def _second(report: dict[str, Any]) -> str:
    """What people ask for beside the metric."""
    if "mae" in report:
        return f"MAE {report['mae']:.4g}"
    auc = "" if report["auc"] is None else f"   AUC {report['auc']:.4g}"
    return f"accuracy {report['accuracy']:.1%}{auc}"


if __name__ == "__main__":
    command(main)()
