"""``tsclust evaluate``: labelled rows in, metrics out, and exit 1 where the model got worse."""

from __future__ import annotations

import re
from typing import Any

import click

from tsclust_model.commands.figures import beside, change, held_line, interval_line, naive_line
from tsclust_model.data.delta import pinned
from tsclust_model.data.digest import content_digest
from tsclust_model.data.tables import read_table
from tsclust_model.errors import ConfigurationError
from tsclust_model.metrics import Metric
from tsclust_model.mlflow_integration.artifacts import ArtifactManager
from tsclust_model.mlflow_integration.registry import (
    load_generation,
    name_and_version,
    version_tags,
)
from tsclust_model.mlflow_integration.runs import ExperimentManager, log_input
from tsclust_model.mlflow_integration.thresholds import (
    below_floor,
    failed_thresholds,
    tag_validation,
    undefined_floor,
)
from tsclust_model.models.base import FittedPipeline
from tsclust_model.models.compare import compare
from tsclust_model.operations.results import figures_of, score
from tsclust_model.operations.settings import MonitoringSettings, load_settings
from tsclust_model.report.build import build_report, now
from tsclust_model.report.schema import Figures
from tsclust_model.results import Evaluation
from tsclust_model.training.out_of_sample import Apart, apart, evaluate_apart
from tsclust_model.training.publish import log_report, named_segments

# Without a baseline, what is served may be this much worse than its own global model.
TOLERANCE = 0.01
EVALUATION = "evaluation.json"


def run(
    data: str,
    model_uri: str,
    baseline_uri: str | None,
    fail_on_regression: bool,
    config: str | None,
) -> None:
    """Compare a model's forecasts with what happened, on rows it was not trained on."""
    settings = None if config is None else load_settings(config).monitoring
    _require_thresholds(settings, config)
    generation = load_generation(model_uri)
    baseline = load_generation(baseline_uri) if baseline_uri else None
    _require_same_task(generation, baseline)
    data = pinned(data)
    frame = read_table(data, generation.text_columns, generation.schema.missing_markers)
    fitted_with = generation.config
    experiments = ExperimentManager(fitted_with.experiment_name)
    with experiments.run("evaluation", {"phase": "evaluation", "model_uri": model_uri}) as run_id:
        table = generation.opened(frame)
        cases = generation.cases(table)
        if baseline is not None:
            baseline.cases(table)  # it may want other columns
        parts = apart(generation, cases, baseline)
        report = evaluate_apart(generation, parts)
        log_input(frame, data, content_digest(frame), "evaluation", generation.roles.target)
        metric, before = generation.metric, None
        if baseline is not None and len(parts.fresh):
            before = baseline.evaluate(parts.fresh, parts.all)
            report[f"{metric.name}_baseline"] = before[metric.name]
        limit, against = _limit(report, metric, before)
        experiments.log_metrics(_metrics(report) | {f"{metric.name}_limit": limit})
        ArtifactManager(fitted_with.hospital_profile_id).save_report(_json(report), EVALUATION)
        told = {
            "phase": "evaluation",
            "made_at": now(),
            "model_name": model_uri,
            "source": data,
            "baseline": baseline_uri,
            "run_id": run_id,
            "n_trained_on": report["n_trained_on"],
        }
        log_report(_page(generation, baseline, table, parts, told))
        _show(report, generation)
        if not report["n_rows"]:
            lines = [_nothing_left(report, generation.unit)]
        elif settings is not None:
            lines = _by_thresholds(settings, report, before, generation, model_uri)
        elif limit is not None and report[metric.name] > limit:
            error = report[metric.name]
            lines = [
                f"regression: {metric.label} {error:.4g} is above {limit:.4g}, {against}",
                *_promotion(model_uri, baseline_uri),
            ]
        else:
            lines = []
        if lines and (fail_on_regression or settings is not None):
            raise click.ClickException(" ".join(lines))
        for line in lines:
            click.echo(line)


def _promotion(model_uri: str, baseline_uri: str | None) -> list[str]:
    """A sentence on a model that took over from the baseline that is better here."""
    uris = [model_uri, baseline_uri or ""]
    if not all(re.match("models:/.+[@/]", uri) for uri in uris):
        return []
    (name, version), baseline = map(name_and_version, uris)
    tags = version_tags(name, version)
    if baseline != (name, tags.get("promoted.from")):
        return []
    return [
        f"version {version} took over from version {baseline[1]} ({tags['promoted.reason']}) "
        "because it was better on other rows; if rows like these are what comes, roll back"
    ]


def _require_thresholds(settings: MonitoringSettings | None, config: str | None) -> None:
    if settings is None or settings.thresholds or settings.accuracy_min_threshold is not None:
        return
    raise ConfigurationError(f"{config} has no monitoring.thresholds; add some")


def _require_same_task(generation: FittedPipeline, baseline: FittedPipeline | None) -> None:
    if baseline is not None and baseline.metric != generation.metric:
        raise ConfigurationError(
            f"the model is judged by {generation.metric.label} and the baseline by "
            f"{baseline.metric.label}; give a baseline of the same task"
        )


def _by_thresholds(
    settings: MonitoringSettings,
    report: Evaluation,
    before: Evaluation | None,
    generation: FittedPipeline,
    model_uri: str,
) -> list[str]:
    """What misses its threshold, or has no figure to compare; the version is tagged with it."""
    missed = _missed(settings, report, before, generation)
    undefined = _undefined(settings, report, generation)
    if missed or not undefined:
        name, version = name_and_version(model_uri)
        click.echo(f"thresholds: {tag_validation(name, version, missed)}")
    return missed + undefined


def _missed(
    settings: MonitoringSettings,
    report: Evaluation,
    before: Evaluation | None,
    generation: FittedPipeline,
) -> list[str]:
    """Sentences on the thresholds and the floor of the YAML that are not met."""
    wanted = {
        name: item.model_dump(exclude_none=True) for name, item in settings.thresholds.items()
    }
    missed = failed_thresholds(wanted, report, before) if wanted else []
    floor = settings.accuracy_min_threshold
    return [*missed, *below_floor(floor, _score(report), generation.score_name)]


def _undefined(
    settings: MonitoringSettings, report: Evaluation, generation: FittedPipeline
) -> list[str]:
    """A sentence on a floor that these rows say nothing of."""
    floor, name = settings.accuracy_min_threshold, generation.score_name
    return undefined_floor(floor, _score(report), name, report["n_rows"])


def _score(report: Evaluation) -> float | None:
    return score(figures_of(report))


def _page(
    generation: FittedPipeline,
    baseline: FittedPipeline | None,
    table: Any,
    parts: Apart,
    told: dict[str, Any],
) -> Figures:
    """The report's figures: segments of all rows, accuracy of those the model was not fitted on."""
    names = named_segments(str(told["model_name"]))
    comparison = None if baseline is None else compare(baseline, generation, parts.fresh, 0.0)
    certain = told["n_trained_on"] is not None
    inputs = generation.report_inputs(table, parts.fresh, certain=certain)
    return build_report(generation, inputs, told, comparison=comparison, names=names)


def _limit(
    report: Evaluation, metric: Metric, before: Evaluation | None
) -> tuple[float | None, str]:
    """The error that must not be exceeded, and what it is; None without rows."""
    if not report["n_rows"]:
        return None, ""
    if before is not None:
        return before[metric.name], "the baseline's on the same rows"
    own = report[f"{metric.name}_global"] * (1 + TOLERANCE)
    return own, f"its own global model's plus {TOLERANCE:.0%}"


def _metrics(report: Evaluation) -> Evaluation:
    """The figures of a run; in-sample ones say so in their names."""
    inner = report["in_sample"] or {}
    return {name: value for name, value in report.items() if not isinstance(value, dict)} | {
        f"in_sample_{name}": value for name, value in inner.items() if not isinstance(value, dict)
    }


def _nothing_left(report: Evaluation, unit: str) -> str:
    n = report["n_trained_on"] + (report["n_baseline_trained_on"] or 0)
    return (
        f"all {n} {unit} were trained on, so that nothing is out-of-sample; give {unit} that are "
        "newer than the training, or train with holdout"
    )


def _json(report: Evaluation) -> Evaluation:
    inner = report["in_sample"]
    return _with_text_keys(report) | {
        "in_sample": None if inner is None else _with_text_keys(inner)
    }


def _with_text_keys(report: Evaluation) -> Evaluation:
    return report | {"clusters": {str(c): figures for c, figures in report["clusters"].items()}}


def _show(report: Evaluation, model: FittedPipeline) -> None:
    metric, unit = model.metric, model.unit
    n_missed = report["n_not_scored"]
    why = f" ({model.why_not_scored})" if n_missed else ""
    click.echo(f"{report['n_rows']} {unit}, {n_missed} not scored{why}")
    _show_trained_on(report, metric, unit)
    if not report["n_rows"]:
        return
    click.echo(
        f"{metric.label} {report[metric.name]:.4g} (global alone "
        f"{report[f'{metric.name}_global']:.4g}, clusters alone "
        f"{report[f'{metric.name}_cluster']:.4g})   {_second(report)}"
    )
    if (before := report.get(f"{metric.name}_baseline")) is not None:
        against = f" (the model {change(report[metric.name], before)} against it)" if before else ""
        click.echo(f"baseline on the same {unit}: {before:.4g}{against}")
    for line in filter(None, (beside(report, "simple: ", report.get("wape")), naive_line(report))):
        click.echo(line)
    click.echo(f"{report['noise_ratio']:.1%} noise")
    if line := interval_line(report):
        click.echo(line)
    for name, figures in report["resources"].items():
        value = figures[model.resource_metric]
        click.echo(
            f"{name}: {model.resource_metric.upper()} "
            + ("undefined" if value is None else f"{value:.4g}")
        )


def _show_trained_on(report: Evaluation, metric: Metric, unit: str) -> None:
    """How many rows were trained on, and figures of them only as such."""
    n, further = report["n_trained_on"], report["n_baseline_trained_on"]
    if n is None or further is None:
        whose = "the model" if n is None else "the baseline"
        click.echo(
            f"it is unknown which rows {whose} was trained on (it is older, or row_hashes was "
            "off): these figures may be in-sample"
        )
    if n:
        click.echo(f"{n} further {unit} were trained on and are left out")
    if further:
        click.echo(f"{further} further {unit} were trained on by the baseline and are left out")
    inner = report["in_sample"]
    if inner is not None:
        click.echo(
            f"in-sample {metric.label} of what was trained on: {inner[metric.name]:.4g} "
            "(says nothing about new rows)"
        )


def _second(report: Evaluation) -> str:
    """What people ask for beside the metric."""
    if "mae" in report:
        return held_line({name: report.get(name) for name in ("mae", "r2")})
    auc = "" if report["auc"] is None else f"   AUC {report['auc']:.4g}"
    return f"accuracy {report['accuracy']:.1%}{auc}"
