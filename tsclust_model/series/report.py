"""What the report of a model of series is made of; a row is a series at an origin."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import norm

from tsclust_model.boosting.intervals import Support
from tsclust_model.models.evidence import (
    METHODS,
    Chart,
    Evidence,
    MethodTable,
    OutputRows,
    Pool,
    ReportInputs,
    SegmentRows,
    ShownForecast,
    Traits,
)
from tsclust_model.results import NOISE
from tsclust_model.series.features import SHAPE_FEATURES
from tsclust_model.series.output_model import WAYS, SeriesForecast
from tsclust_model.series.panel import HeldBack, Panel, row_means, scaled_errors

if TYPE_CHECKING:
    from tsclust_model.series.model import SeriesGeneration

_SHOWN_SEGMENTS = 3

_SHOWN_SERIES = 2

_SHOWN_SEASONS = 3


def series_inputs(
    generation: SeriesGeneration,
    panel: Panel,
    held: HeldBack | None,
    evaluated: SeriesGeneration | None = None,
) -> ReportInputs:
    """What the report of a model of series is made of.

    Parameters
    ----------
    generation : SeriesGeneration
    panel : Panel
        The series whose segments are shown.
    held : HeldBack or None
        Series up to an origin, and what followed.
    evaluated : SeriesGeneration, optional
        A model that was fitted without `held`, if this one was not; accuracy is its own.
    """
    evidence, charts = None, []
    if held is not None and len(held):
        basis = f"{len(held):,} series and origins, {held.y.shape[1]} periods ahead, not fitted"
        evidence = series_evidence(evaluated or generation, held, basis)
        if evidence is not None:
            charts = [_forecast_chart(evaluated or generation, held)]
            labels = generation.assign(held.panel).labels
            if len(labels) == len(evidence.labels):
                evidence = replace(evidence, labels=labels)  # the segments are those of this model
    first = panel.frequency.moved(panel.last_times, 1 - panel.lengths).min()
    shown = panel.frequency.shown(np.array([first, panel.last_times.max()]))
    return ReportInputs(
        traits(generation),
        series_segments(generation, panel),
        evidence,
        {"period": [str(t)[:10] for t in shown], "n_holdout": 0 if held is None else len(held)},
        _rolling_methods(generation),
        charts=charts,
    )


def traits(generation: SeriesGeneration) -> Traits:
    """What a report says of a model of series and only it knows."""
    target, scores = generation.target, generation.info["scores"]
    none, place = (0.0,) * len(WAYS), WAYS.index("cluster")
    own = [cluster for cluster in target.texts if cluster != NOISE]
    return Traits(
        clustered=[name.replace("_", " ") for name in SHAPE_FEATURES],
        weight=float(scores["cluster_weight"]),
        own_shares={cluster: target.shares.get(cluster, none)[place] for cluster in own},
        gain=scores.get("gain"),
        importance={},  # its features are windows of the series itself
        ahead=f"{generation.schema.horizon} periods ahead",
        has_groups=False,
    )


def series_evidence(generation: SeriesGeneration, held: HeldBack, basis: str) -> Evidence | None:
    """Series up to an origin and what followed; None if no error has a scale.

    Outputs are sums over the horizon. The variance of a sum comes from the intervals of its steps,
    whose errors are taken to go together within a series.

    Parameters
    ----------
    generation : SeriesGeneration
    held : HeldBack
    basis : str
        Which they are, in words.
    """
    forecast = generation.forecast(held.panel, generation.coverage)
    labels = forecast.assignment.labels
    predictions = {"blend": forecast.target.prediction} | generation.baselines(held.panel, labels)
    losses = {
        method: row_means(scaled_errors(held, found)) for method, found in predictions.items()
    }
    rows = np.flatnonzero(np.isfinite(losses["blend"]))
    if not rows.size:
        return None
    target, *others = (
        _sums(held.truth[name][rows], _taken(found, rows), generation, name)
        for name, found in forecast.outputs.items()
    )
    return Evidence(
        basis=basis,
        labels=labels[rows],
        parts=np.zeros(len(rows), dtype=np.int64),
        losses={method: found[rows] for method, found in losses.items()},
        name=generation.roles.target,
        target=target,
        resources=dict(zip(generation.resources, others, strict=True)),
        groups={},
        metric=generation.metric,
    )


def series_segments(generation: SeriesGeneration, panel: Panel) -> SegmentRows:
    """The series of a panel, described by the shapes that segments are found on.

    Those too short for a shape are left out.
    """
    aligned = panel.right_aligned()
    assignment, shapes = generation.assign(aligned), generation.shapes(aligned)
    rows = np.flatnonzero(~np.isnan(shapes).any(axis=1))
    labels = assignment.labels[rows]
    return SegmentRows(
        generation.segmentation.scaler.transform(shapes[rows]),
        shapes[rows],
        list(SHAPE_FEATURES),
        np.where(assignment.is_noise[rows], NOISE, labels),
        labels,
        assignment.strength[rows],
        [_name(generation, panel, row) for row in rows.tolist()],
    )


def shown_forecasts(generation: SeriesGeneration, held: HeldBack) -> list[ShownForecast]:
    """The first two series of each of the three largest segments."""
    forecast = generation.forecast(held.panel, generation.coverage)
    labels, found = forecast.assignment.labels, forecast.target
    clusters, counts = np.unique(labels, return_counts=True)
    largest = clusters[np.argsort(-counts, kind="stable")][:_SHOWN_SEGMENTS]
    steps, n_known = held.y.shape[1], _SHOWN_SEASONS * max(generation.target.season, 4)
    shown = []
    for cluster in largest.tolist():
        segment = "no segment" if cluster == NOISE else f"segment {cluster}"
        for row in np.flatnonzero(labels == cluster)[:_SHOWN_SERIES].tolist():
            past = held.panel.y[row]
            shown.append(
                ShownForecast(
                    f"{_name(generation, held.panel, row)} ({segment})",
                    past[~np.isnan(past)][-n_known:],
                    found.prediction[row, :steps],
                    found.lower[row, :steps],
                    found.upper[row, :steps],
                    held.y[row],
                )
            )
    return shown


def _forecast_chart(generation: SeriesGeneration, held: HeldBack) -> Chart:
    shown = shown_forecasts(generation, held)
    return Chart(
        "forecasts",
        "Forecasts of a few series of the largest segments, by id, with their intervals.",
        f"Known values, forecasts and outcomes of {len(shown)} series.",
        (shown, generation.roles.target),
    )


def _rolling_methods(generation: SeriesGeneration) -> MethodTable:
    """What the fit found out inside the training part, where only the means are kept."""
    scores = generation.info["scores"][generation.metric.name]
    everyone = scores.get("global")
    return {
        "basis": "rolling origins inside the training series",
        "ways": [
            {
                "way": method,
                "label": label,
                "value": scores[method],
                "error": None,
                "saved": 1 - scores[method] / everyone if everyone and method != "global" else None,
                "saved_error": None,
            }
            for method, label in METHODS.items()
            if scores.get(method) is not None
        ],
    }


def _name(generation: SeriesGeneration, panel: Panel, row: int) -> str:
    return str(panel.ids[row]) if generation.shows_ids else f"series {row}"


def _taken(found: SeriesForecast, rows: np.ndarray) -> SeriesForecast:
    names = ("prediction", "lower", "upper", "weight", "replaced")
    return replace(found, **{name: getattr(found, name)[rows] for name in names})


def _sums(
    truth: np.ndarray, found: SeriesForecast, generation: SeriesGeneration, name: str
) -> OutputRows:
    """Sums over the steps that are known, shape (n,); NaN where none is."""
    model, coverage, steps = generation.models[name], generation.coverage, truth.shape[1]
    known = np.isfinite(truth)
    some = known.any(axis=1)
    lower, upper = found.lower[:, :steps], found.upper[:, :steps]

    def summed(values: np.ndarray) -> np.ndarray:
        return np.where(some, np.where(known, values, 0.0).sum(axis=1), np.nan)

    deviation = (upper - lower) / (2 * float(norm.ppf((1 + coverage) / 2)))
    inside = known & (lower <= truth) & (truth <= upper)
    n = len(truth)
    return OutputRows(
        truth=summed(truth),
        prediction=summed(found.prediction[:, :steps]),
        lower=np.full(n, np.nan),
        upper=np.full(n, np.nan),
        variance=np.nan_to_num(summed(deviation)) ** 2,
        pool=np.zeros(n, dtype=np.int64),
        pools=[Pool(0.0, 0.0, 1)],
        shares=np.divide(inside.sum(axis=1), known.sum(axis=1), out=np.full(n, np.nan), where=some),
        support=Support(model.never_negative, model.whole),
    )
