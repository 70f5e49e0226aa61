"""What the report of a model of series is made of; a row is a series at an origin."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.stats import norm

from tsclust_model.boosting.intervals import Support
from tsclust_model.models.evidence import (
    Evidence,
    Measure,
    OutputRows,
    Pool,
    SegmentRows,
    shows_ids,
)
from tsclust_model.results import NOISE, Assignment
from tsclust_model.series.features import SHAPE_FEATURES
from tsclust_model.series.output_model import SeriesForecast
from tsclust_model.series.panel import HeldBack, Panel, row_means, scaled_errors

if TYPE_CHECKING:
    from tsclust_model.series.model import SeriesGeneration

_SHOWN_SEGMENTS = 3

_SHOWN_SERIES = 2

_SHOWN_SEASONS = 3


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
    scaled = {"blend": scaled_errors(held, forecast.target.prediction)}
    baselines = generation.baselines(held.panel, forecast.assignment.labels)
    scaled |= {way: scaled_errors(held, found) for way, found in baselines.items()}
    losses = {way: row_means(found) for way, found in scaled.items()}
    rows = np.flatnonzero(np.isfinite(losses["blend"]))
    if not rows.size:
        return None
    outputs = {
        name: _sums(held.truth[name][rows], _taken(found, rows), generation, name)
        for name, found in forecast.outputs.items()
    }
    metric = generation.metric
    return Evidence(
        basis,
        forecast.assignment.labels[rows],
        np.zeros(len(rows), dtype=np.int64),
        {way: found[rows] for way, found in losses.items()},
        outputs,
        tuple(generation.resources),
        {},
        Measure(metric.name, metric.label, "", metric.squared),
    )


def series_segments(
    generation: SeriesGeneration, panel: Panel, assignment: Assignment
) -> SegmentRows:
    """The series of a panel, described by the shapes that segments are found on.

    Parameters
    ----------
    generation : SeriesGeneration
    panel : Panel
    assignment : Assignment
        Of the same series; those too short for a shape are left out.
    """
    shapes = generation.shapes(panel.right_aligned())
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


def shown_forecasts(generation: SeriesGeneration, held: HeldBack) -> list[dict[str, Any]]:
    """The first two series of each of the three largest segments, for `forecast_plot`."""
    forecast = generation.forecast(held.panel, generation.coverage)
    labels, found = forecast.assignment.labels, forecast.target
    clusters, counts = np.unique(labels, return_counts=True)
    largest = clusters[np.argsort(-counts, kind="stable")][:_SHOWN_SEGMENTS]
    steps = held.y.shape[1]
    shown = []
    for cluster in largest.tolist():
        for row in np.flatnonzero(labels == cluster)[:_SHOWN_SERIES].tolist():
            past = held.panel.y[row]
            past = past[~np.isnan(past)][-_SHOWN_SEASONS * max(generation.target.season, 4) :]
            segment = "no segment" if cluster == NOISE else f"segment {cluster}"
            shown.append(
                {
                    "name": f"{_name(generation, held.panel, row)} ({segment})",
                    "past": past,
                    "prediction": found.prediction[row, :steps],
                    "lower": found.lower[row, :steps],
                    "upper": found.upper[row, :steps],
                    "actual": held.y[row],
                }
            )
    return shown


def _name(generation: SeriesGeneration, panel: Panel, row: int) -> str:
    return str(panel.ids[row]) if shows_ids(generation) else f"series {row}"


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
    pools: Sequence[Pool] = [Pool(0.0, 0.0, 1)]
    return OutputRows(
        summed(truth),
        summed(found.prediction[:, :steps]),
        np.full(n, np.nan),
        np.full(n, np.nan),
        np.nan_to_num(summed(deviation)) ** 2,
        np.zeros(n, dtype=np.int64),
        pools,
        np.divide(inside.sum(axis=1), known.sum(axis=1), out=np.full(n, np.nan), where=some),
        Support(model.never_negative, model.whole),
    )
