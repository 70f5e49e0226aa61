"""``tsclust retrain``: new rows in, a challenger fitted and compared, at any time."""

from __future__ import annotations

import click

from tsclust_model.commands.figures import held_line
from tsclust_model.config import PipelineConfig
from tsclust_model.data.tables import read_table
from tsclust_model.mlflow_integration.registry import CHAMPION, check_model_name, load_generation
from tsclust_model.operations.maintenance import maintain


def run(
    data: str | None,
    model_name: str | None,
    reason: str,
    if_due: bool,
    promote: bool,
    config: str | None,
) -> None:
    """Add rows to a model's history, and retrain it (if it is due)."""
    settings = None if config is None else PipelineConfig.from_yaml(config)
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
