"""Puts a report together and logs it: page, figures as JSON, and what runs and versions say."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tsclust_model.drift import DriftWindow
from tsclust_model.errors import MLflowIntegrationError
from tsclust_model.generation import FittedGeneration, Generation
from tsclust_model.monitoring import PerformanceMonitor
from tsclust_model.panel import HeldBack, Panel
from tsclust_model.registry import name_and_version, segment_names
from tsclust_model.report import plain_figures, render, run_note
from tsclust_model.report_advice import next_steps
from tsclust_model.report_figures import Watched, report_figures
from tsclust_model.report_groups import SMALLEST_GROUP, moved_rows
from tsclust_model.report_pictures import forecast_picture, report_pictures
from tsclust_model.report_rows import (
    Evidence,
    SegmentRows,
    fold_evidence,
    frame_evidence,
    frame_segments,
    shows_ids,
    training_segments,
)
from tsclust_model.retraining import Comparison
from tsclust_model.series_generation import AnyGeneration, SeriesGeneration
from tsclust_model.series_report_rows import (
    series_evidence,
    series_segments,
    shown_forecasts,
)
from tsclust_model.tracking import log_page
from tsclust_model.validation import TrainingData

PAGE, FIGURES = "performance-report.html", "performance-report.json"


def fit_report(
    fitted: FittedGeneration,
    data: TrainingData,
    known: pd.DataFrame,
    unseen: pd.DataFrame,
    about: Mapping[str, Any],
    control: np.ndarray | None = None,
    *,
    champion: Generation | None = None,
    comparison: Comparison | None = None,
    watched: Watched | None = None,
    names: Mapping[int, str] | None = None,
    evaluated: Generation | None = None,
) -> dict[str, Any]:
    """The figures and pictures of a training or a retrain.

    Parameters
    ----------
    fitted : FittedGeneration
    data : TrainingData
    known : DataFrame
        The table of `data`, in the same order.
    unseen : DataFrame
        Labelled rows that were not fitted; may be empty.
    about : mapping
        See `report_figures`.
    control : ndarray of float64, optional
        Losses on the folds of the blend with shuffled segments.
    champion : Generation, optional
        The generation before, for who moved.
    comparison : Comparison, optional
    watched : Watched, optional
        What batches have shown.
    names : mapping of int to str, optional
        Of segments.
    evaluated : Generation, optional
        A model that was fitted without `unseen`, if this one was not; accuracy is its own.
    """
    generation = fitted.generation
    judge = evaluated or generation
    folds = fold_evidence(fitted, data, known, generation.reported_columns, control)
    evidence, newest = folds, None
    if _n_scorable(judge, unseen) >= SMALLEST_GROUP:
        basis = "the newest {n} rows, which were not fitted"
        if evaluated is not None:
            basis = "the newest {n} rows, by the same fit without them"
        evidence = _on_frame(judge, unseen, basis)
        own = generation.schema.encode(unseen)
        if own.scorable.sum() == len(evidence.labels):  # the segments are those of this model
            evidence = replace(evidence, labels=generation.assign(own.X[own.scorable]).labels)
        newest = _window(judge, unseen)
    roles = generation.roles
    named = roles.id is not None and shows_ids(generation)
    ids = known[roles.id].tolist() if named else None
    segments = training_segments(fitted, data, ids)
    n_holdout = 0 if evaluated is not None else len(unseen)
    facts = {"n_holdout": n_holdout, "period": period(known, roles.time)} | dict(about)
    figures = report_figures(
        generation,
        segments,
        evidence,
        facts,
        folds=None if evidence is folds else folds,
        comparison=comparison,
        moves=None if champion is None else _moves(champion, generation, known),
        newest=newest,
        watched=watched,
        names=names,
    )
    return _completed(figures, generation, segments, evidence)


def evaluation_report(
    generation: Generation,
    frame: pd.DataFrame,
    about: Mapping[str, Any],
    *,
    unseen: pd.DataFrame | None = None,
    comparison: Comparison | None = None,
    watched: Watched | None = None,
    names: Mapping[int, str] | None = None,
) -> dict[str, Any]:
    """The figures and pictures of a model on a labelled table.

    Parameters
    ----------
    generation : Generation
    frame : DataFrame
        Whose segments are shown.
    about : mapping
        See `report_figures`.
    unseen : DataFrame, optional
        Those of the rows that the model was not fitted on; default: all. Accuracy and drift are
        theirs.
    comparison, watched, names
        As for `fit_report`.
    """
    segments = frame_segments(generation, frame)
    n_scored = len(segments.labels)
    unseen = frame if unseen is None else unseen
    evidence, newest = None, None
    if _n_scorable(generation, unseen):
        unknown = "n_trained_on" in about and about["n_trained_on"] is None
        basis = "{n} rows, of which some may have been fitted: the model does not know"
        fresh = "{n} rows that were not fitted"
        evidence = _on_frame(generation, unseen, basis if unknown else fresh)
        newest = _window(generation, unseen)
    facts = {
        "n_evaluated": 0 if evidence is None else len(evidence.labels),
        "n_not_scored": len(frame) - n_scored,
        "period": period(frame, generation.roles.time),
    }
    figures = report_figures(
        generation,
        segments,
        evidence,
        facts | dict(about),
        comparison=comparison,
        newest=newest,
        watched=watched,
        names=names,
    )
    return _completed(figures, generation, segments, evidence)


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


def save_page(figures: Mapping[str, Any], folder: Path) -> dict[str, str]:
    """Write the page, its figures and its pictures, and return their paths by name."""
    folder.mkdir(parents=True, exist_ok=True)
    contents = {
        "performance_report": (PAGE, render(figures).encode()),
        "figures": (FIGURES, json.dumps(plain_figures(figures), indent=1).encode()),
    }
    for picture in figures["pictures"]:
        contents[picture["name"]] = (f"{picture['name']}.png", base64.b64decode(picture["png"]))
    for file_name, content in contents.values():
        (folder / file_name).write_bytes(content)
    return {name: str(folder / file_name) for name, (file_name, _) in contents.items()}


def series_report(
    generation: SeriesGeneration,
    panel: Panel,
    held: HeldBack | None,
    about: Mapping[str, Any],
    *,
    comparison: Comparison | None = None,
    names: Mapping[int, str] | None = None,
    evaluated: SeriesGeneration | None = None,
) -> dict[str, Any]:
    """The figures and pictures of a model of series.

    Parameters
    ----------
    generation : SeriesGeneration
    panel : Panel
        The series whose segments are shown.
    held : HeldBack or None
        Series up to an origin, and what followed that the model was not fitted on.
    about : mapping
        See `report_figures`.
    comparison, names
        As for `fit_report`.
    evaluated : SeriesGeneration, optional
        A model that was fitted without `held`, if this one was not; accuracy is its own.
    """
    judge = evaluated or generation
    aligned = panel.right_aligned()
    assignment = generation.assign(aligned)
    segments = series_segments(generation, panel, assignment)
    evidence = None
    if held is not None and len(held):
        basis = f"{len(held):,} series and origins, {held.y.shape[1]} periods ahead, not fitted"
        evidence = series_evidence(judge, held, basis)
        labels = generation.assign(held.panel).labels
        if evidence is not None and len(labels) == len(evidence.labels):
            evidence = replace(evidence, labels=labels)  # the segments are those of this model
    first = panel.frequency.moved(panel.last_times, 1 - panel.lengths).min()
    last = panel.last_times.max()
    facts = {
        "period": [str(t)[:10] for t in panel.frequency.shown(np.array([first, last]))],
        "n_holdout": 0 if held is None else len(held),
    }
    figures = report_figures(
        generation, segments, evidence, facts | dict(about), comparison=comparison, names=names
    )
    figures = _completed(figures, generation, segments, evidence)
    if evidence is not None and held is not None:
        figures["pictures"].append(
            forecast_picture(shown_forecasts(judge, held), generation.roles.target)
        )
    return figures


def log_report(figures: Mapping[str, Any]) -> None:
    """Log the page and its figures under the active run, and describe the run."""
    log_page(PAGE, render(figures), FIGURES, plain_figures(figures), run_note(figures))


def named_segments(model_uri: str) -> dict[int, str]:
    """Names that people gave to the segments of a registered model; none for another URI."""
    try:
        return segment_names(name_and_version(model_uri)[0])
    except MLflowIntegrationError:
        return {}


def now() -> str:
    """The time for a reader, UTC."""
    return datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")


def period(frame: pd.DataFrame, time: str | None) -> list[str] | None:
    """First and last day (or number) of the time column; None without one."""
    if time is None or time not in frame or not len(frame):
        return None
    column = frame[time].infer_objects()
    if pd.api.types.is_numeric_dtype(column):
        return [f"{column.min():g}", f"{column.max():g}"]
    days = pd.to_datetime(column, format="ISO8601", utc=True)
    return [days.min().date().isoformat(), days.max().date().isoformat()]


def _n_scorable(generation: Generation, frame: pd.DataFrame) -> int:
    return int(generation.schema.encode(frame).scorable.sum()) if len(frame) else 0


def _on_frame(generation: Generation, frame: pd.DataFrame, basis: str) -> Evidence:
    n = _n_scorable(generation, frame)
    return frame_evidence(generation, frame, generation.reported_columns, basis.format(n=f"{n:,}"))


def _window(generation: Generation, frame: pd.DataFrame) -> DriftWindow:
    encoded = generation.schema.encode(frame)
    X = encoded.X[encoded.scorable]
    return DriftWindow(X, generation.assign(X).is_noise)


def _moves(champion: Generation, generation: Generation, frame: pd.DataFrame) -> dict[str, Any]:
    both = []
    for one in (champion, generation):
        encoded = one.schema.encode(frame)
        labels = np.full(len(frame), -2)  # a row that one of them cannot score
        labels[encoded.scorable] = one.assign(encoded.X[encoded.scorable]).labels
        both.append(labels)
    rows = (both[0] != -2) & (both[1] != -2)
    return moved_rows(both[0][rows], both[1][rows])


def _completed(
    figures: dict[str, Any],
    generation: AnyGeneration,
    segments: SegmentRows,
    evidence: Evidence | None,
) -> dict[str, Any]:
    figures["next"] = next_steps(figures)
    figures["pictures"] = report_pictures(generation, segments, evidence, figures)
    return figures
