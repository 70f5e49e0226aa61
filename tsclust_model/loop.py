"""The operations loop: what a scheduler calls with one YAML.

    ingest -> check_quality -> check_monitor -> train -> evaluate -> record

Each step is a function of the path of the YAML and plain data, and keeps what it makes on disk or
in MLflow, so that the steps may run in one process (`run_pipeline`) or one container each. A
version of the data is dealt with once `record` has written it down; until then the next call takes
it up.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tsclust_model.errors import (
    DataLoadError,
    DataValidationError,
    MLflowIntegrationError,
    PipelineError,
    RetrainingError,
)
from tsclust_model.evaluation import evaluate_generation
from tsclust_model.generation import Generation
from tsclust_model.history import DataVersioner
from tsclust_model.model_monitor import ModelMonitor
from tsclust_model.operations import maintain, observe
from tsclust_model.quality import kept_rows, validate_data_quality
from tsclust_model.registry import CHAMPION, PREVIOUS, alias_version, answers, registered_generation
from tsclust_model.retraining import retrain_lock
from tsclust_model.settings import LoopSettings, load_settings, mlflow_variables
from tsclust_model.tables import read_table
from tsclust_model.thresholds import failed_thresholds, tag_validation
from tsclust_model.tracking import ExperimentManager, error_handler
from tsclust_model.training import open_history, train_table
from tsclust_model.validation import Roles, canonical_rows, in_time_order

STEPS = ("ingest", "check_quality", "check_monitor", "train", "evaluate", "record")
"""In their order; each is a function of this module."""
FIGURES = ("accuracy", "rmse", "mae", "r2", "log_loss", "auc")
"""What `evaluate` and the summary say of the serving model; None where it has no such figure."""

OnStep = Callable[[str, Mapping[str, Any]], None]


_Step = Callable[..., Any]


def _step(function: _Step) -> _Step:
    """A step as it is called: with the path of the YAML in the place of its settings."""

    @functools.wraps(function)
    def run(config_path: str | Path, *arguments: Any) -> dict[str, Any]:
        settings = load_settings(config_path)
        with mlflow_variables(settings.mlflow):
            return function(settings, *arguments)

    return run


def run_pipeline(config_path: str | Path, *, on_step: OnStep | None = None) -> dict[str, Any]:
    """Ingest, check, retrain if needed, evaluate and record; safe to call at any time.

    Parameters
    ----------
    config_path : path
        YAML of `tsclust_model.settings.LoopSettings`; the environment is laid over it.
    on_step : callable, optional
        Called with the name and the result of each step as it ends.

    Returns
    -------
    dict
        ``status``: ``done``, ``unchanged`` (this data was dealt with before), ``blocked`` (by its
        quality), ``refused`` (a retrain was due and could not be done) or ``deferred`` (MLflow does
        not answer: the data is kept, and the next call goes on). ``data_version``,
        ``model_version`` and ``model_uri`` (what serves), ``retrained``, ``promoted``, ``reasons``
        (list), ``accuracy``, ``rmse``, ``mae``, ``r2``, ``log_loss`` and ``auc`` (None where
        undefined), ``validation_status``, ``quality``, ``caught_up`` (versions that an earlier call
        had left), ``durations`` {step: seconds} and ``message``.

    Raises
    ------
    FileNotFoundError
        There is no such YAML.
    PipelineError
        The settings or the data cannot be used, or a step failed; the champion is untouched.
    """
    settings = load_settings(config_path)
    path = str(config_path)
    durations: dict[str, float] = {}

    def took(name: str, started: float, result: Mapping[str, Any]) -> None:
        durations[name] = durations.get(name, 0.0) + time.perf_counter() - started
        if on_step is not None:
            on_step(name, result)

    def handle(version: str) -> dict[str, Any]:
        """One version through all steps, in a run of its own."""
        outcome: dict[str, Any] = {}
        experiments = ExperimentManager(settings.pipeline.experiment_name)
        with experiments.run("pipeline", {"phase": "pipeline", "data_version": version}):
            for name in STEPS[1:]:
                started = time.perf_counter()
                outcome = advance(name, path, version, outcome)
                if name in outcome:
                    took(name, started, outcome[name])
        return dict(outcome["record"])

    with mlflow_variables(settings.mlflow), retrain_lock(_folder(settings) / ".loop.lock"):
        started = time.perf_counter()
        with error_handler("ingest"):
            found = ingest(path)
        took("ingest", started, found)
        current = found["data_version"]
        try:
            done = dealt_with(path, current)
            left = found["pending"] if done is None else found["pending"][:-1]
            summaries = [handle(version) for version in left]
            summary = done or summaries.pop()
        except MLflowIntegrationError:
            if answers():
                raise
            summary = _deferred(current, settings)
            summaries = []
    caught_up = [item["data_version"] for item in summaries]
    return summary | {"caught_up": caught_up, "durations": durations}


def advance(
    step: str, config_path: str, data_version: str, outcome: Mapping[str, Any]
) -> dict[str, Any]:
    """Take one of the `STEPS` after ``ingest``, if what the steps before it found calls for it.

    Parameters
    ----------
    step, config_path, data_version : str
    outcome : mapping
        The results of the steps that were taken, by their names; empty before the first.

    Returns
    -------
    dict
        `outcome`, and the result of this step, unless there was nothing to do: blocked data is only
        recorded, and without a reason nothing is trained.
    """
    blocked = "check_quality" in outcome and outcome["check_quality"]["decision"] == "block"
    if blocked and step != "record":
        return dict(outcome)
    arguments: list[Any] = []
    if step == "train":
        if not outcome["check_monitor"]["retrain"]:
            return dict(outcome)
        arguments = [outcome["check_monitor"]["reasons"]]
    elif step == "record":
        arguments = [outcome]
    try:
        with error_handler(step):
            result = _STEP[step](config_path, data_version, *arguments)
    except MLflowIntegrationError:
        raise  # perhaps only for now
    except PipelineError as error:
        # Or this version would stand in the way of every later one.
        settings = load_settings(config_path)
        _monitor(settings).record_metrics(
            None,
            data_version,
            None,
            {"failed": type(error).__name__, "settings": _digest(settings)},
        )
        raise
    return dict(outcome) | {step: result}


@_step
def ingest(settings: LoopSettings) -> dict[str, Any]:
    """Read the data and keep it as a version.

    Returns
    -------
    dict
        ``data_version``, ``n_rows``, and ``pending``: the versions that are not dealt with yet,
        oldest first, this one last.

    Raises
    ------
    DataLoadError
        The table cannot be read.
    """
    data, markers = settings.data, settings.pipeline.missing_markers
    try:
        frame = _one_type(read_table(data.path, data.text_columns, markers))
        versions = _versions(settings)
        version = versions.register(frame)
    except DataValidationError as error:
        raise DataLoadError(f"data: {error}") from error
    known = {record["data_version"] for record in _monitor(settings).records()}
    left = [v for v in reversed(versions.list_versions()) if v not in known and v != version]
    return {"data_version": version, "n_rows": len(frame), "pending": [*left, version]}


@_step
def check_quality(settings: LoopSettings, data_version: str) -> dict[str, Any]:
    """Hold a version against the schema of the champion; see `validate_data_quality`.

    The report is kept, and the later steps read the rows that it leaves.
    """
    version = alias_version(settings.model_name, CHAMPION)
    schema = None
    if version is not None:
        schema = _champion(settings, version).info.get("quality")
    data, quality, config = settings.data, settings.quality, settings.pipeline
    frame, _ = _versions(settings).load(data_version)
    report = validate_data_quality(
        frame,
        "ingest",
        schema=schema,
        time=data.time if data.time in frame else None,
        duplicates=bool(data.time or data.id),
        allow_missing=config.missing_values == "impute",
        markers=config.missing_markers,
        **quality.model_dump(),
    )
    _write_json(_quality_path(settings, data_version), report)
    return report


@_step
def check_monitor(settings: LoopSettings, data_version: str) -> dict[str, Any]:
    """Ask whether a retrain is due: no model yet, too low an accuracy, drift.

    Returns
    -------
    dict
        ``retrain``, ``reasons`` (list), ``drift``, ``message`` and the `FIGURES` of the champion
        on these rows.
    """
    name = settings.model_name
    version = alias_version(name, CHAMPION)
    if version is None:
        decision = _monitor(settings).should_retrain(None, None, no_model_yet=True)
        return _decision(decision.reasons, None, "there is no model yet", {})
    champion = _champion(settings, version)
    frame = _rows(settings, data_version)
    seen = observe(name, frame, settings.pipeline)
    figures = _figures(champion, _labelled(champion, _unseen(settings, champion, data_version)))
    monitor = _monitor(settings, champion)
    if not monitor.drift_path.exists():  # the model was trained by somebody else
        _set_reference(settings, champion, data_version)
    decision = monitor.should_retrain(
        figures[_score(champion)], _feature_means(champion, frame), n_samples=len(frame)
    )
    reasons = [*decision.reasons, *filter(None, [seen.reason])]
    message = seen.message
    if reasons and not seen.n_fresh:
        message = (
            f"a retrain is due ({'; '.join(reasons)}) and waits for labelled rows that the "
            "champion was not trained on"
        )
        reasons = []
    return _decision(reasons, decision.drift, message, figures)


@_step
def train(settings: LoopSettings, data_version: str, reasons: Sequence[str]) -> dict[str, Any]:
    """Train the first model, or a challenger for the champion.

    Returns
    -------
    dict
        ``retrained``, ``promoted``, ``model_version`` (the new one), ``refused`` (why there is
        none) and ``message``.
    """
    name, why = settings.model_name, "; ".join(reasons)
    if alias_version(name, CHAMPION) is None:
        training = train_table(
            _rows(settings, data_version),
            _roles(settings),
            settings.pipeline,
            source=settings.data.path,
            holdout=settings.training.holdout,
            model_name=name,
            trigger=why,
        )
        _set_reference(settings, training.generation, data_version)
        return _trained(training.version, True, f"trained ({why}): version {training.version}")
    try:
        done = maintain(
            name, config=settings.pipeline, reason=why, promote=settings.training.promote
        )
    except RetrainingError as error:
        return _trained(None, False, f"a retrain was due ({why}), but {error}") | {
            "refused": str(error)
        }
    retraining = done.retraining
    assert retraining is not None
    _set_reference(settings, retraining.generation, data_version)
    return _trained(retraining.version, retraining.promoted, done.message)


@_step
def evaluate(settings: LoopSettings, data_version: str) -> dict[str, Any]:
    """Judge the serving model on the rows of a version that it was not trained on.

    Returns
    -------
    dict
        ``model_version``, ``n_rows`` (labelled ones), the `FIGURES`, ``validation_status``
        (``PASSED``, ``FAILED``, or None without thresholds or rows) and ``failures``.
    """
    name = settings.model_name
    version = alias_version(name, CHAMPION)
    if version is None:
        raise MLflowIntegrationError(f"'{name}' has no @{CHAMPION}; run the loop from its start")
    champion = _champion(settings, version)
    rows = _labelled(champion, _unseen(settings, champion, data_version))
    figures = _figures(champion, rows)
    status, failures = None, []
    if settings.monitoring.thresholds and len(rows):
        failures = _failures(settings, figures, rows, version)
        status = tag_validation(name, version, failures)
    return {
        "model_version": version,
        "n_rows": len(rows),
        **figures,
        "validation_status": status,
        "failures": failures,
    }


@_step
def record(settings: LoopSettings, data_version: str, outcome: Mapping[str, Any]) -> dict[str, Any]:
    """Write down that a version is dealt with: in the run, and in the monitor's metrics.

    Parameters
    ----------
    outcome : mapping
        What the steps returned, by their names (see `advance`).

    Returns
    -------
    dict
        The summary of `run_pipeline`, without durations.
    """
    summary = _summary(settings, data_version, outcome)
    quality = {f"quality_{key}": v for key, v in outcome["check_quality"]["metrics"].items()}
    tags = {
        "phase": "pipeline",
        "status": summary["status"],
        "data_version": data_version,
        "reasons": "; ".join(summary["reasons"]),
        "hospital_profile_id": settings.pipeline.hospital_profile_id,
    }
    experiments = ExperimentManager(settings.pipeline.experiment_name)
    with experiments.active_or_new("pipeline", tags):
        experiments.log_metrics(quality | {key: summary[key] for key in FIGURES})
    _monitor(settings).record_metrics(
        summary["accuracy"] if summary["accuracy"] is not None else summary["r2"],
        data_version,
        summary["model_version"],
        {"summary": summary, "settings": _digest(settings)},
    )
    return summary


_STEP: dict[str, _Step] = {
    "check_quality": check_quality,
    "check_monitor": check_monitor,
    "train": train,
    "evaluate": evaluate,
    "record": record,
}


def _summary(
    settings: LoopSettings, data_version: str, outcome: Mapping[str, Any]
) -> dict[str, Any]:
    quality = outcome["check_quality"]
    shown = {key: quality[key] for key in ("decision", "problems", "removed", "n_rows", "n_kept")}
    empty = dict.fromkeys(FIGURES) | {"validation_status": None, "failures": []}
    summary: dict[str, Any] = {
        "status": "blocked",
        "data_version": data_version,
        "model_version": alias_version(settings.model_name, CHAMPION),
        "model_uri": f"models:/{settings.model_name}@{CHAMPION}",
        "retrained": False,
        "promoted": False,
        "reasons": [],
        **empty,
        "quality": shown,
    }
    if quality["decision"] == "block":
        worst = [item["message"] for item in quality["problems"] if item["severity"] == "block"]
        return summary | {"message": f"data version {data_version} is blocked: {'; '.join(worst)}"}
    decision, training = outcome["check_monitor"], outcome.get("train")
    message = f"nothing is due: {decision['message']}"
    if training is not None:
        message = training["message"]
        summary |= {key: training[key] for key in ("retrained", "promoted")}
    elif decision["message"].startswith("a retrain is due"):
        message = decision["message"]
    refused = training is not None and training["refused"] is not None
    return summary | {
        "status": "refused" if refused else "done",
        "reasons": list(decision["reasons"]),
        **{key: outcome["evaluate"][key] for key in empty},
        "message": message,
    }


def _deferred(data_version: str, settings: LoopSettings) -> dict[str, Any]:
    return {
        "status": "deferred",
        "data_version": data_version,
        "model_version": None,
        "model_uri": f"models:/{settings.model_name}@{CHAMPION}",
        "retrained": False,
        "promoted": False,
        "reasons": [],
        **dict.fromkeys(FIGURES),
        "validation_status": None,
        "failures": [],
        "quality": None,
        "message": (
            f"MLflow does not answer; data version {data_version} is kept, nothing was changed, "
            "and the next call goes on from here"
        ),
    }


@_step
def dealt_with(settings: LoopSettings, data_version: str) -> dict[str, Any] | None:
    """What to say of a version that was recorded under these settings, with the same champion."""
    found = [r for r in _monitor(settings).records() if r["data_version"] == data_version]
    if not found or "summary" not in found[-1] or found[-1]["settings"] != _digest(settings):
        return None
    last = found[-1]["summary"]
    if last["status"] != "done" or last["model_version"] != alias_version(
        settings.model_name, CHAMPION
    ):
        return None
    when = found[-1]["recorded_at"]
    return dict(last) | {
        "status": "unchanged",
        "retrained": False,
        "promoted": False,
        "reasons": [],
        "message": f"nothing to do: data version {data_version} was dealt with at {when}",
    }


def _decision(
    reasons: Sequence[str], drift: float | None, message: str, figures: Mapping[str, Any]
) -> dict[str, Any]:
    return {
        "retrain": bool(reasons),
        "reasons": list(reasons),
        "drift": drift,
        "message": message,
        **(dict.fromkeys(FIGURES) | dict(figures)),
    }


def _trained(version: str | None, promoted: bool, message: str) -> dict[str, Any]:
    return {
        "retrained": version is not None,
        "promoted": promoted,
        "model_version": version,
        "refused": None,
        "message": message,
    }


def _failures(
    settings: LoopSettings, figures: Mapping[str, Any], rows: pd.DataFrame, version: str
) -> list[str]:
    """Thresholds that are not met; changes are against ``@previous``, if there is one."""
    wanted = {
        name: {key: value for key, value in found.model_dump().items() if value is not None}
        for name, found in settings.monitoring.thresholds.items()
    }
    before = alias_version(settings.model_name, PREVIOUS)
    if before is None or before == version:
        changes = ("min_absolute_change", "min_relative_change")
        absolute = {
            name: {key: v for key, v in fields.items() if key not in changes}
            for name, fields in wanted.items()
        }
        return failed_thresholds({k: v for k, v in absolute.items() if "threshold" in v}, figures)
    return failed_thresholds(wanted, figures, _figures(_champion(settings, before), rows))


def _figures(model: Generation, rows: pd.DataFrame) -> dict[str, Any]:
    """The `FIGURES` on labelled rows; all None without any."""
    report = evaluate_generation(model, rows) if len(rows) else {}
    return {name: report.get(name) for name in FIGURES}


def _score(model: Generation) -> str:
    """The figure that `accuracy_min_threshold` is about."""
    return "r2" if model.metric.name == "rmse" else "accuracy"


def _labelled(model: Generation, frame: pd.DataFrame) -> pd.DataFrame:
    target = model.roles.target
    if target not in frame:
        return frame.head(0)
    known = frame[frame[target].notna()].reset_index(drop=True)
    return known[model.schema.encode(known).scorable].reset_index(drop=True)


def _unseen(settings: LoopSettings, model: Generation, data_version: str) -> pd.DataFrame:
    """Rows of a version that the model was not trained on, as the history keeps them."""
    frame = in_time_order(_rows(settings, data_version), model.roles.time)
    history = open_history(settings.pipeline, settings.model_name)
    batch = history.register(canonical_rows(frame, model.schema, model.roles))
    rows, _ = history.load(batch)
    start, stop = model.info["trained_on"].get(batch, (0, 0))
    return pd.concat([rows.iloc[:start], rows.iloc[stop:]], ignore_index=True)


def _feature_means(model: Generation, frame: pd.DataFrame) -> dict[str, float]:
    X = model.schema.encode(frame).X
    return {
        feature.name: float(np.nanmean(X[:, i]))
        for i, feature in enumerate(model.schema.features)
        if feature.is_number and not np.isnan(X[:, i]).all()
    }


def _set_reference(settings: LoopSettings, model: Generation, data_version: str) -> None:
    """Measure drift from these rows on: whatever they showed is dealt with."""
    known = model.reference.features
    _monitor(settings, model).update_reference_distribution(
        _feature_means(model, _rows(settings, data_version)),
        dict(zip(known.names, map(float, known.scale), strict=True)),
    )


def _rows(settings: LoopSettings, data_version: str) -> pd.DataFrame:
    """The rows of a version that its quality report has left."""
    frame, _ = _versions(settings).load(data_version)
    path = _quality_path(settings, data_version)
    return kept_rows(frame, json.loads(path.read_bytes()))


def _one_type(frame: pd.DataFrame) -> pd.DataFrame:
    """Columns of mixed types (from JSON) as texts, which can be kept and are then judged."""
    mixed = [
        name
        for name in map(str, frame)
        if frame[name].dtype == object
        and pd.api.types.infer_dtype(frame[name], skipna=True).startswith("mixed")
    ]
    texts = {name: frame[name].map(str, na_action="ignore") for name in mixed}
    return frame.assign(**texts) if mixed else frame


def _roles(settings: LoopSettings) -> Roles:
    data = settings.data
    return Roles(data.target, data.features, data.resources, data.time, data.id)


def _champion(settings: LoopSettings, version: str) -> Generation:
    return registered_generation(settings.model_name, version)


def _folder(settings: LoopSettings) -> Path:
    return Path(settings.monitoring.dir) / settings.model_name


def _versions(settings: LoopSettings) -> DataVersioner:
    return DataVersioner(Path(settings.data.versions_dir) / settings.model_name)


def _monitor(settings: LoopSettings, model: Generation | None = None) -> ModelMonitor:
    monitoring = settings.monitoring
    label = "accuracy" if model is None or _score(model) == "accuracy" else "R²"
    return ModelMonitor(
        _folder(settings),
        monitoring.metrics_file,
        monitoring.drift_file,
        monitoring.accuracy_min_threshold,
        monitoring.drift_threshold,
        monitoring.drift_min_samples,
        score_name=label,
    )


def _quality_path(settings: LoopSettings, data_version: str) -> Path:
    return _folder(settings) / "quality" / f"{data_version}.json"


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text(json.dumps(content))
    partial.replace(path)


def _digest(settings: LoopSettings) -> str:
    """Of what decides; where logs and runs go does not."""
    text = settings.model_dump_json(exclude={"logging", "mlflow"})
    return hashlib.sha256(text.encode()).hexdigest()[:16]
