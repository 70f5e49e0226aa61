"""Puts a report together and logs it: page, figures as JSON, and what runs and versions say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd

from tsclust_model.mlflow_integration.kinds import AnyGeneration
from tsclust_model.models.compare import Comparison
from tsclust_model.models.evidence import Evidence, SegmentRows, shows_ids
from tsclust_model.monitoring.drift import DriftWindow
from tsclust_model.report.advice import next_steps
from tsclust_model.report.figures import Watched, report_figures
from tsclust_model.report.groups import SMALLEST_GROUP, moved_rows
from tsclust_model.report.pictures import forecast_picture, report_pictures
from tsclust_model.rows.fit import FittedGeneration
from tsclust_model.rows.model import Generation
from tsclust_model.rows.report import (
    fold_evidence,
    frame_evidence,
    frame_segments,
    training_segments,
)
from tsclust_model.rows.table import TrainingData
from tsclust_model.series.model import SeriesGeneration
from tsclust_model.series.panel import HeldBack, Panel
from tsclust_model.series.report import series_evidence, series_segments, shown_forecasts


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
