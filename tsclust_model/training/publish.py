"""Logs and registers what a training made."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tsclust_model.config import PipelineConfig
from tsclust_model.errors import (
    MLflowIntegrationError,
)
from tsclust_model.files import write_whole
from tsclust_model.mlflow_integration.artifacts import ArtifactManager
from tsclust_model.mlflow_integration.pyfunc import log_generation
from tsclust_model.mlflow_integration.registry import (
    describe_version,
    name_and_version,
    register,
    segment_names,
    training_data_tags,
)
from tsclust_model.mlflow_integration.runs import ExperimentManager, log_page
from tsclust_model.mlflow_integration.stores import translated
from tsclust_model.models.base import MODEL_TYPE_TAG, FittedModel
from tsclust_model.monitoring.metrics import PerformanceMonitor
from tsclust_model.report.build import now
from tsclust_model.report.figures import Watched
from tsclust_model.report.page import model_card, plain_figures, render, run_note
from tsclust_model.report.schema import Figures

PAGE, FIGURES = "performance-report.html", "performance-report.json"


def watched_batches(monitor: PerformanceMonitor, metric: str) -> Watched:
    """Noise ratio and accuracy over the batches a monitor has seen, and its alerts.

    Parameters
    ----------
    monitor : PerformanceMonitor
    metric : str
        Name of the accuracy.
    """
    history: dict[str, list[float]] = {}
    for record in monitor.records():
        if record.metric_name in ("noise_ratio", metric):
            history.setdefault(record.metric_name, []).append(record.value)
    return Watched(
        history,
        {name: limit for name, limit in monitor.alert_thresholds.items() if name in history},
        [f"{alert.message} ({alert.severity})" for alert in monitor.alerts()],
    )


def save_page(figures: Figures, folder: Path) -> dict[str, str]:
    """Write the page, its figures and its pictures, and return their paths by name."""
    contents = {
        "performance_report": (PAGE, render(figures).encode()),
        "figures": (FIGURES, json.dumps(plain_figures(figures), indent=1).encode()),
    }
    for picture in figures["pictures"]:
        contents[picture["name"]] = (f"{picture['name']}.png", base64.b64decode(picture["png"]))
    for file_name, content in contents.values():
        write_whole(folder / file_name, content)
    return {name: str(folder / file_name) for name, (file_name, _) in contents.items()}


def log_report(figures: Figures) -> None:
    """Log the page and its figures under the active run, and describe the run."""
    log_page(PAGE, render(figures), FIGURES, plain_figures(figures), run_note(figures))


def named_segments(model_uri: str) -> dict[int, str]:
    """Names that people gave to the segments of a registered model; none for another URI."""
    try:
        return segment_names(name_and_version(model_uri)[0])
    except MLflowIntegrationError:
        return {}


def publish(
    experiments: ExperimentManager,
    model: FittedModel,
    report: Mapping[str, Any],
    page: Figures | None,
    config: PipelineConfig,
    name: str,
    told: Mapping[str, Any] | None = None,
) -> str:
    """Log figures, report and model under the active run; returns the registered version.

    Without a page there is no report. What is `told` becomes tags of the version.
    """
    experiments.log_metrics(headline(report))
    ArtifactManager(config.hospital_profile_id).save_report(report, "report.json")
    with translated("the model cannot be logged"):
        logged = log_generation(model, config.serialization)
    digest = (logged.metadata or {})["state_sha256"]
    tags = {MODEL_TYPE_TAG: model.model_type} | training_data_tags(model.info["trained_on"])
    tags |= {key: str(value) for key, value in (told or {}).items()}
    version = str(register(logged.model_uri, name, digest, tags).version)
    if page is not None:
        page["model"]["version"] = version
        describe_version(name, version, model_card(page))
        log_report(page)
    return version


def about_run(
    name: str, run_id: str, phase: str, replaced: str | None, source: str
) -> dict[str, str | None]:
    """What the report of a fit says of where it is; the version is not known yet."""
    told = {"phase": phase, "source": source, "model_name": name, "version": "", "run_id": run_id}
    return told | {"replaced": replaced, "made_at": now()}


def run_tags(phase: str, trigger: str, config: PipelineConfig) -> dict[str, str | None]:
    """The tags of a run that trains."""
    return {
        "phase": phase,
        "trigger": trigger,
        "hospital_profile_id": config.hospital_profile_id,
    }


def headline(report: Mapping[str, Any]) -> dict[str, Any]:
    """The figures of a report that a run shows as metrics."""
    clustering = report["clustering"]
    names = ("n_clusters", "noise_ratio", "silhouette_score")
    figures = {name: clustering[name] for name in names if name in clustering}
    figures |= {f"fold_{name}": value for name, value in report["folds"].items()}
    if report["gain"] is not None:
        figures["fold_saved_beyond_control"] = report["gain"]["beyond"]
        figures["fold_saved_beyond_control_error"] = report["gain"]["error"]
    for name, value in (report["holdout"] or {}).items():
        if not isinstance(value, dict):
            figures[f"holdout_{name}"] = value
    return figures
