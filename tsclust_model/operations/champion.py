"""The champion of a loop: observed, trained, challenged, and checked against the thresholds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tsclust_model.data.quality import SCHEMA_CHECKS
from tsclust_model.mlflow_integration.registry import PREVIOUS, alias_version
from tsclust_model.mlflow_integration.thresholds import failed_thresholds
from tsclust_model.models.base import Cases, FittedModel
from tsclust_model.operations.maintenance import Observation, maintain, observe, outcome_of
from tsclust_model.operations.results import FIGURES, Figures, Trained, figures_of
from tsclust_model.operations.workspace import Workspace
from tsclust_model.training.challenge import (
    Champion,
    Retraining,
    challenger_task,
    retrain,
    waits_for,
)
from tsclust_model.training.train import train


def figures_on(model: FittedModel, cases: Cases) -> Figures:
    """The `FIGURES` of a model on cases it was not fitted on; all None without any."""
    return figures_of(model.evaluate(cases) if len(cases) else {})


def observed(
    work: Workspace, champion: FittedModel, version: str, data_version: str
) -> Observation:
    """What the champion's own detectors say of a version, if it has any."""
    frame = work.rows(data_version)
    if champion.reference is not None:
        return observe(work.name, frame, work.config)
    work.register(champion, data_version)
    window = champion.labelled_window(work.storage.history, work.config)
    n_fresh = int(window.outside(champion.info["trained_on"]).sum())
    wanted = waits_for(champion, version, work.name, work.config)
    return Observation(f"{len(frame)} rows and no drift", "", n_fresh, waits_for=wanted)


def first_model(work: Workspace, data_version: str, why: str) -> Trained:
    """Train the first model."""
    training = work.settings.training
    made = train(
        work.task,
        work.rows(data_version),
        source=work.settings.data.path,
        holdout=training.holdout,
        model_name=work.name,
        trigger=why,
    )
    return Trained(
        retrained=True,
        promoted=True,
        model_version=made.version,
        refused=None,
        compared=None,
        message=f"trained ({why}): version {made.version}",
    )


def challenger(work: Workspace, champion: FittedModel, version: str, why: str) -> Trained:
    """Train a challenger."""
    training, config = work.settings.training, work.config
    done: Retraining | None
    if champion.reference is not None and training.model_type == champion.model_type:
        done = maintain(work.name, config=config, reason=why, promote=training.promote).retraining
        assert done is not None
    else:
        task = challenger_task(champion, config, training.model_type, training.params)
        serving = Champion(champion, version, work.name)
        done = retrain(task, serving, why, promote=training.promote)
    holdout = done.report["holdout"] or {"n_rows": 0}
    compared = {name: holdout[name] for name in ("n_rows", *FIGURES) if name in holdout}
    return Trained(
        retrained=True,
        promoted=done.promoted,
        model_version=done.version,
        refused=None,
        compared=compared if done.promoted else None,
        message=outcome_of(done, why),
    )


def missed_thresholds(work: Workspace, figures: Figures, cases: Cases, version: str) -> list[str]:
    """Thresholds that are not met; changes are against ``@previous``, if there is one."""
    wanted = {
        name: fields.model_dump(exclude_none=True)
        for name, fields in work.settings.monitoring.thresholds.items()
    }
    before = alias_version(work.name, PREVIOUS)
    if before is not None and before != version:
        previous = work.model(before)
        if work.task.forecasts_as(previous):
            fitted = previous.fitted_part(cases, work.storage.history) if len(cases) else None
            both = cases if fitted is None else previous.part(cases, ~fitted)
            if len(both):
                same = len(both) == len(cases)
                now = figures if same else figures_on(work.model(version), both)
                return failed_thresholds(wanted, now, figures_on(previous, both))
    changes = ("min_absolute_change", "min_relative_change")
    alone = {
        name: {key: value for key, value in fields.items() if key not in changes}
        for name, fields in wanted.items()
        if "threshold" in fields
    }
    return failed_thresholds(alone, figures)


def obstacle_to_learning(report: Mapping[str, Any], n_fresh: int) -> str:
    """What a retrain has to wait for; empty for nothing."""
    changed = [p["message"] for p in report["problems"] if p["check"] in SCHEMA_CHECKS]
    if changed:  # with quality.mode warn such data goes on, but no champion learns from it
        return f"data of the known schema: {'; '.join(changed)}"
    return "" if n_fresh else "labelled rows that the champion was not trained on"
