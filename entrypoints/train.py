"""Train: a table in, a registered model out, as ``@champion``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from entrypoints import (
    DATA_HELP,
    activation,
    beside,
    command,
    fold_line,
    held_line,
    in_shell,
    load_config,
    only_local,
    optional,
    split_names,
)
from tsclust_model.registry import store_address
from tsclust_model.segment_gain import gain_sentence
from tsclust_model.series_table import require_series_roles
from tsclust_model.tables import read_table
from tsclust_model.tracking import project_source
from tsclust_model.training import Training, train_table
from tsclust_model.validation import Roles


@click.option("--data", required=True, help=DATA_HELP)
@click.option("--target", required=True, help="column to predict")
@click.option(
    "--features",
    default="",
    callback=split_names,
    help="input columns [all others; none of series]",
)
@click.option("--resources", default="", callback=split_names, help="further columns to predict")
@click.option("--time", default="", callback=optional, help="column that orders the rows")
@click.option("--id", default="", callback=optional, help="column that says whose row it is")
@click.option("--horizon", default=0, help="periods ahead; 0 predicts the target of the same row")
@click.option(
    "--frequency", default="", callback=optional, help="MS, W, D, h, period/12 ... [guessed]"
)
@click.option("--holdout", default=0.0, help="newest share that is only evaluated on")
@click.option("--drop-columns", "--drop_columns", default="", callback=split_names, help="not used")
@click.option(
    "--task",
    default="",
    type=click.Choice(["", "auto", "regression", "classification"]),
    help="what the target is [that of the config]",
)
@click.option("--config", default="", callback=optional, help="YAML file of PipelineConfig")
@click.option(
    "--model-name", "--model_name", default="", callback=optional, help="registered model"
)
@click.option("--engine", default="local", type=click.Choice(["local", "spark"]))
def main(
    data: str,
    target: str,
    features: tuple[str, ...],
    resources: tuple[str, ...],
    time: str | None,
    id: str | None,
    horizon: int,
    frequency: str | None,
    holdout: float,
    drop_columns: tuple[str, ...],
    task: str,
    config: str | None,
    model_name: str | None,
    engine: str,
) -> None:
    """Find segments, fit their models and register them as one MLflow model."""
    only_local(engine)
    settings = load_config(config)
    dropped = list(dict.fromkeys([*settings.drop_columns, *drop_columns]))
    settings = replace(settings, drop_columns=dropped, task=task or settings.task)
    roles = Roles(target, features, resources, time, id, horizon, frequency)
    if horizon:
        require_series_roles(roles)
    texts = [id] if id and horizon else []
    frame = read_table(data, texts, settings.missing_markers)
    if time is None:
        click.echo("no time column: the order of the rows counts as time; name one with time")
    training = train_table(
        frame, roles, settings, source=data, holdout=holdout, model_name=model_name, trigger="train"
    )
    show(training, data)


def show(training: Training, data: str) -> None:
    """The last screen: what was found, where it is, what to type next."""
    report = training.report
    found, worth, held = report["clustering"], report["worth"], report["holdout"]
    unit = "series" if training.generation.roles.horizon else "rows"
    served = "the nearest segment" if found["n_clusters"] else "the global model"
    click.echo(
        f"\n{found['n_clusters']} clusters in {training.generation.info['n_rows']} {unit}, "
        f"{found['noise_ratio']:.1%} noise (served by {served})"
    )
    metric = training.generation.metric
    click.echo(f"\nerror ({metric.label}) of {training.generation.roles.target}:")
    columns = [
        ("folds", *(worth[f"{metric.name}_{way}"] for way in ("global", "cluster", "blend")))
    ]
    if held is not None:
        alone = (held[f"{metric.name}_{way}"] for way in ("global", "cluster"))
        columns.append(("holdout", *alone, held[metric.name]))
    for name, everyone, own, served in columns:
        click.echo(
            f"  {name:<8} global {everyone:.4g}   clusters alone {own:.4g}   "
            f"blend {served:.4g} ({served / everyone - 1:+.1%} against global)"
        )
    if f"{metric.name}_control" in worth:  # segments' own models were fitted
        click.echo(
            f"  control  {worth[f'{metric.name}_control']:.4g} with shuffled segments; "
            f"served with cluster weight {worth['cluster_weight']:g}"
        )
    if report["gain"] is not None and found["n_clusters"]:
        click.echo(f"  {gain_sentence(report['gain'], worth['cluster_weight'])}")
    if unit == "rows":
        for name, line in (("folds", fold_line(worth)), ("holdout", held and held_line(held))):
            if line:
                click.echo(f"  {name:<8} {line}")
    if "accuracy_blend" in worth:
        shares = [("folds", worth["accuracy_blend"])]
        shares += [("holdout", held["accuracy"])] if held is not None else []
        click.echo("  right    " + "   ".join(f"{name} {share:.1%}" for name, share in shares))
    if unit == "series":
        folds = ", ".join(str(fold["n_series"]) for fold in report["scores"]["folds"])
        click.echo(f"  origins  {folds} series at the rolling origins, oldest first")
        if not report["scores"]["n_trees"]:
            why = "left out" if "left_out" in report["scores"] else "too few rows"
            click.echo(f"  LightGBM {why}: the exponential filters and Theta forecast alone")
        if report["scores"]["n_series_clipped"]:
            click.echo(clipped_line(report["scores"]))
        click.echo(beside(worth, "  simple   "))
        for kind in ("filled", "dropped", "copies", "without_values", "shorter_than_a_season"):
            if report["gaps"][kind]:
                click.echo(f"  {kind.replace('_', ' ')}: {report['gaps'][kind]}")
    if held is not None and "interval_coverage" in held:
        click.echo(
            f"  {held['interval_coverage']:.1%} of the holdout inside the "
            f"{held['coverage']:.0%} intervals"
        )
    click.echo(f"\nmodel: {training.model_uri}, version {training.version}")
    if training.replaced is not None:
        click.echo(f"       version {training.replaced} is now @previous")
    _show_next(training, data)


def _show_next(training: Training, data: str) -> None:
    """What to type next, as it works where it is printed."""
    uri = training.model_uri
    serve = ["mlflow", "models", "serve", "-m", uri, "--env-manager", "local"]
    score = {"data": data, "model_uri": uri, "output": "scored.csv"}
    click.echo("\nnext, in the folder you typed this in:")
    first = activation()
    if first is not None:
        click.echo("  once   " + first)
    click.echo("  serve  " + in_shell(*serve))
    project = project_source(training.run_id) or str(Path(__file__).resolve().parents[1])
    click.echo("  score  " + in_shell(*_entry_point("score", score, project)))
    store = store_address()
    click.echo(f"  look   {store if store.startswith('http') else 'mlflow ui'}")


def clipped_line(scores: Mapping[str, Any]) -> str:
    """How many series carry the means of the folds away, and what these are without that."""
    n, clipped = scores["n_series_clipped"], scores["clipped_mase"]
    return (
        f"  clipped  {n} series {'have' if n > 1 else 'has'} an error above 10 on the folds; "
        f"counting 10 there: global {clipped['global']:.4g}   blend {clipped['blend']:.4g}"
    )


def _entry_point(name: str, options: dict[str, str], project: str) -> list[str]:
    """The command of an entry point that works in this folder: modules are found in the project's
    own only."""
    if str(Path.cwd()) == project:
        words = [word for key, value in options.items() for word in (f"--{key}", value)]
        return ["python", "-m", f"entrypoints.{name}", *words]
    given = [word for key, value in options.items() for word in ("-P", f"{key}={value}")]
    return ["mlflow", "run", project, "-e", name, "--env-manager", "local", *given]


if __name__ == "__main__":
    command(main)()
