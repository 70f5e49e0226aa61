"""``tsclust train``: a table in, a registered model out, as ``@champion``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import click

from tsclust_model.boosting.segment_gain import gain_sentence
from tsclust_model.commands.figures import beside, change, fold_line, held_line, interval_line
from tsclust_model.commands.next_steps import NextSteps
from tsclust_model.config import PipelineConfig
from tsclust_model.data.delta import pinned
from tsclust_model.data.roles import Roles
from tsclust_model.data.tables import read_table
from tsclust_model.training.task import task_of
from tsclust_model.training.train import Training
from tsclust_model.training.train import train as fit


def run(
    data: str,
    holdout: float,
    drop_columns: tuple[str, ...],
    task: str,
    config: str | None,
    model_name: str | None,
    **columns: Any,
) -> None:
    """Find segments, fit their models and register them; `columns` are the fields of `Roles`."""
    settings = PipelineConfig() if config is None else PipelineConfig.from_yaml(config)
    dropped = list(dict.fromkeys([*settings.drop_columns, *drop_columns]))
    settings = replace(settings, drop_columns=dropped, task=task or settings.task)
    roles = Roles(**columns)
    task_ = task_of(roles, settings)
    task_.check_roles()
    source = pinned(data)
    frame = read_table(source, task_.text_columns, settings.missing_markers)
    if roles.time is None:
        click.echo("no time column: the order of the rows counts as time; name one with time")
    training = fit(
        task_, frame, source=source, holdout=holdout, model_name=model_name, trigger="train"
    )
    show(training, data)


def show(training: Training, data: str) -> None:
    """The last screen: what was found, where it is, what to type next."""
    report = training.report
    clustering, unit = report["clustering"], training.generation.unit
    served = "the nearest segment" if clustering["n_clusters"] else "the global model"
    click.echo(
        f"\n{clustering['n_clusters']} clusters in {training.generation.info['n_rows']} {unit}, "
        f"{clustering['noise_ratio']:.1%} noise (served by {served})"
    )
    metric = training.generation.metric
    click.echo(f"\nerror ({metric.label}) of {training.generation.roles.target}:")
    own = _series_lines(report) if unit == "series" else _row_lines(report)
    for line in (*_errors(report, metric.name), *own):
        click.echo(line)
    if inside := interval_line(report["holdout"] or {}, "of the holdout "):
        click.echo(f"  {inside}")
    click.echo(f"\nmodel: {training.model_uri}, version {training.version}")
    if training.replaced is not None:
        click.echo(f"       version {training.replaced} is now @previous")
    _show_next(training, data)


def _errors(report: Mapping[str, Any], metric: str) -> Iterator[str]:
    """Errors of the global model, the clusters' and the blend, and what the segments gain."""
    folds, held = report["folds"], report["holdout"]
    columns = [("folds", *(folds[f"{metric}_{way}"] for way in ("global", "cluster", "blend")))]
    if held is not None:
        alone = (held[f"{metric}_{way}"] for way in ("global", "cluster"))
        columns.append(("holdout", *alone, held[metric]))
    for name, everyone, own, served in columns:
        yield (
            f"  {name:<8} global {everyone:.4g}   clusters alone {own:.4g}   "
            f"blend {served:.4g} ({change(served, everyone)} against global)"
        )
    if f"{metric}_control" in folds:  # segments' own models were fitted
        yield (
            f"  control  {folds[f'{metric}_control']:.4g} with shuffled segments; "
            f"served with cluster weight {folds['cluster_weight']:g}"
        )
    if report["gain"] is not None and report["clustering"]["n_clusters"]:
        yield f"  {gain_sentence(report['gain'], folds['cluster_weight'])}"


def _row_lines(report: Mapping[str, Any]) -> Iterator[str]:
    folds, held = report["folds"], report["holdout"]
    for name, line in (("folds", fold_line(folds)), ("holdout", held and held_line(held))):
        if line:
            yield f"  {name:<8} {line}"
    if "accuracy_blend" in folds:
        shares = [("folds", folds["accuracy_blend"])]
        shares += [("holdout", held["accuracy"])] if held is not None else []
        yield "  accuracy " + "   ".join(f"{name} {share:.1%}" for name, share in shares)


def _series_lines(report: Mapping[str, Any]) -> Iterator[str]:
    scores, gaps = report["scores"], report["gaps"]
    folds = ", ".join(str(fold["n_series"]) for fold in scores["folds"])
    yield f"  origins  {folds} series at the rolling origins, oldest first"
    if not scores["n_trees"]:
        why = "left out" if "left_out" in scores else "too few rows"
        yield f"  LightGBM {why}: the exponential filters and Theta forecast alone"
    if scores["n_series_clipped"]:
        yield clipped_line(scores)
    for name, figures in (("folds", report["folds"]), ("holdout", report["holdout"] or {})):
        if line := beside(figures, f"  {name:<8} "):
            yield line
    for kind in ("filled", "dropped", "copies", "without_values", "shorter_than_a_season"):
        if gaps[kind]:
            yield f"  {kind.replace('_', ' ')}: {gaps[kind]}"


def clipped_line(scores: Mapping[str, Any]) -> str:
    """How many series carry the means of the folds away, and what these are without that."""
    n, clipped = scores["n_series_clipped"], scores["clipped_mase"]
    return (
        f"  clipped  {n} series {'have' if n > 1 else 'has'} an error above 10 on the folds; "
        f"with 10 at most: global {clipped['global']:.4g}   blend {clipped['blend']:.4g}"
    )


def _show_next(training: Training, data: str) -> None:
    uri, steps = training.model_uri, NextSteps(training.run_id)
    first = steps.once()
    click.echo("\nnext, in the folder you typed this in:")
    if first is not None:
        click.echo(f"  once   {first}")
    click.echo(f"  serve  {steps.serve(uri)}")
    roles = training.generation.roles
    if roles.future:
        score = (
            f"give 'score' a table that goes on for {roles.horizon} periods with "
            f"{', '.join(roles.future)} and without {roles.target}"
        )
    else:
        score = steps.command("score", data=data, model_uri=uri, output="scored.csv")
    click.echo(f"  score  {score}")
    click.echo(f"  look   {steps.look()}")
