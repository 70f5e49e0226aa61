"""``tsclust pipeline``: the operations loop from one YAML; a scheduler may call it at any time."""

from __future__ import annotations

from collections.abc import Mapping
from json import dumps
from typing import Any

import click

from tsclust_model.commands.figures import naive_line
from tsclust_model.metrics import NAIVE_FIGURES
from tsclust_model.operations.results import FIGURES
from tsclust_model.operations.steps import is_good, run_pipeline


def run(config: str, json: bool) -> None:
    """Ingest, check, retrain if needed, evaluate and record; exit 1 if a person has to look."""
    summary = run_pipeline(config, closing_line=False)
    click.echo(dumps(summary) if json else "\n".join(lines(summary)))
    if not is_good(summary):
        raise SystemExit(1)


def lines(summary: Mapping[str, Any]) -> list[str]:
    """The summary for people."""
    shown = [f"{summary['status']}: {summary['message']}"]
    shown.append(f"data       {summary['data_version']}{_quality(summary['quality'])}")
    if summary["model_version"] is not None:
        shown.append(f"model      {summary['model_uri']}, version {summary['model_version']}")
    shown.append(f"retrained  {'yes' if summary['retrained'] else 'no'}")
    shown += [f"reason     {reason}" for reason in summary["reasons"]]
    own = [name for name in FIGURES if name not in NAIVE_FIGURES and summary.get(name) is not None]
    if own:
        shown.append("figures    " + "   ".join(f"{name} {summary[name]:.4g}" for name in own))
        shown += filter(None, [naive_line(summary, "beside     ")])
    if summary["validation_status"] is not None:
        shown.append(f"thresholds {summary['validation_status']}")
        shown += [f"           {failure}" for failure in summary["failures"]]
    seconds = [f"{name} {value:.1f} s" for name, value in summary["durations"].items()]
    return [*shown, f"took       {', '.join(seconds)}"]


def _quality(quality: Mapping[str, Any] | None) -> str:
    if quality is None:
        return ""
    removed = ", ".join(f"{n} {reason}" for reason, n in quality["removed"].items())
    text = f": {quality['n_kept']} of {quality['n_rows']} rows kept"
    problems = "".join(f"\n           {item['message']}" for item in quality["problems"])
    return text + (f" (removed: {removed})" if removed else "") + problems
