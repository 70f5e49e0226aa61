"""Retrain: new rows in, a challenger fitted and compared; a scheduler may call it at any time."""

from __future__ import annotations

import click

from entrypoints import DATA_HELP, command, held_line, load_config, only_local, optional
from tsclust_model.config import PipelineConfig
from tsclust_model.operations import maintain
from tsclust_model.registry import CHAMPION, check_model_name, load_generation
from tsclust_model.tables import read_table


@click.option("--data", default="", callback=optional, help=f"new rows: {DATA_HELP}")
@click.option(
    "--model-name", "--model_name", default="", callback=optional, help="registered model"
)
@click.option("--reason", default="Manual request", help="why, for the record")
@click.option("--if-due", "--if_due", default=False, type=bool, help="only if the data has drifted")
@click.option("--promote", default=True, type=bool, help="let the challenger serve if it is better")
@click.option("--config", default="", callback=optional, help="YAML file of PipelineConfig")
@click.option("--engine", default="local", type=click.Choice(["local", "spark"]))
def main(
    data: str | None,
    model_name: str | None,
    reason: str,
    if_due: bool,
    promote: bool,
    config: str | None,
    engine: str,
) -> None:
    """Add rows to a model's history, and retrain it (if it is due)."""
    only_local(engine)
    settings = load_config(config) if config else None
    name = check_model_name(model_name or (settings or PipelineConfig()).registered_model_name)
    frame = None
    if data is not None:
        champion = load_generation(f"models:/{name}@{CHAMPION}")
        frame = read_table(data, champion.text_columns, champion.schema.missing_markers)
    done = maintain(name, frame, config=settings, reason=reason, if_due=if_due, promote=promote)
    click.echo(done.message)
    if done.retraining is not None:
        held = done.retraining.report["holdout"]
        if held is not None and "mase" not in held:
            refitted = done.retraining.report.get("refitted")
            when = ", before it learned from them" if refitted else ""
            version = done.retraining.version
            click.echo(f"version {version} on the newest rows{when}: {held_line(held)}")


if __name__ == "__main__":
    command(main)()
