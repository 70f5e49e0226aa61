"""What the report of a model of series is made of; a row is a series at an origin."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import norm

from tsclust_model.boosting.intervals import Support
from tsclust_model.boosting.quantiles import DECILES
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
from tsclust_model.series.evaluation import series_quantile_figures
from tsclust_model.series.features import SHAPE_FEATURES
from tsclust_model.series.output_model import WAYS, SeriesForecast
from tsclust_model.series.panel import LARGEST_LOSS, HeldBack, Panel, row_means, scaled_errors

if TYPE_CHECKING:
    from tsclust_model.data.roles import Roles
    from tsclust_model.series.model import SeriesGeneration

_SHOWN_SEGMENTS = 3

_SHOWN_SERIES = 2

_SHOWN_SEASONS = 3


def series_inputs(
    generation: SeriesGeneration,
    panel: Panel,
    holdout: HeldBack | None,
    evaluated: SeriesGeneration | None = None,
) -> ReportInputs:
    """What the report of a model of series is made of.

    Parameters
    ----------
    generation : SeriesGeneration
    panel : Panel
        The series whose segments are shown.
    holdout : HeldBack or None
        Series up to an origin, and what followed.
    evaluated : SeriesGeneration, optional
        A model that was fitted without `holdout`, if this one was not; accuracy is its own.
    """
    evidence, charts = None, []
    if holdout is not None and len(holdout):
        basis = (
            f"{len(holdout):,} series and origins, {holdout.y.shape[1]} periods ahead, not fitted"
        )
        evidence = series_evidence(evaluated or generation, holdout, basis)
        if evidence is not None:
            charts = [_forecast_chart(evaluated or generation, holdout)]
            labels = generation.assign(holdout.panel).labels
            if len(labels) == len(evidence.labels):
                evidence = replace(evidence, labels=labels)  # the segments are those of this model
    first = panel.frequency.moved(panel.last_times, 1 - panel.lengths).min()
    shown = panel.frequency.shown(np.array([first, panel.last_times.max()]))
    return ReportInputs(
        traits(generation),
        series_segments(generation, panel),
        evidence,
        {
            "period": [str(t)[:10] for t in shown],
            "covariates": _covariates(generation.roles),
            "n_holdout": 0 if holdout is None else len(holdout),
        },
        _rolling_methods(generation),
        charts=charts,
    )


def _covariates(roles: Roles) -> str | None:
    """The covariates that a model uses, and what is known of each; None without any."""
    kinds = (
        (roles.features, "known up to the last period"),
        (roles.future, "known for the future"),
        (roles.static, "one value for each series"),
    )
    told = [f"{', '.join(names)} ({what})" for names, what in kinds if names]
    if roles.holidays is not None:
        told.append(f"holidays ({roles.holidays})")
    return "; ".join(told) or None


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


def series_evidence(generation: SeriesGeneration, holdout: HeldBack, basis: str) -> Evidence | None:
    """Series up to an origin and what followed; None if no error has a scale.

    Outputs are sums over the horizon. The variance of a sum comes from the intervals of its steps,
    whose errors are taken to go together within a series.

    Parameters
    ----------
    generation : SeriesGeneration
    holdout : HeldBack
    basis : str
        Which they are, in words.
    """
    forecast = generation.forecast(holdout.panel, generation.coverage, DECILES)
    labels = forecast.assignment.labels
    predictions = {"blend": forecast.target.prediction} | generation.baselines(
        holdout.panel, labels
    )
    losses = {
        method: row_means(scaled_errors(holdout, steps)) for method, steps in predictions.items()
    }
    rows = np.flatnonzero(np.isfinite(losses["blend"]))
    if not rows.size:
        return None
    target, *others = (
        _sums(holdout.truth[name][rows], _taken(output, rows), generation, name)
        for name, output in forecast.outputs.items()
    )
    return Evidence(
        basis=basis + _clipped_share(float((losses["blend"][rows] > LARGEST_LOSS).mean())),
        labels=labels[rows],
        parts=np.zeros(len(rows), dtype=np.int64),
        losses={method: values[rows] for method, values in losses.items()},
        name=generation.roles.target,
        target=target,
        resources=dict(zip(generation.resources, others, strict=True)),
        groups={},
        metric=generation.metric,
        quantile_losses=series_quantile_figures(holdout, forecast.target),
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


def shown_forecasts(generation: SeriesGeneration, holdout: HeldBack) -> list[ShownForecast]:
    """The first two series of each of the three largest segments."""
    forecast = generation.forecast(holdout.panel, generation.coverage)
    labels, target = forecast.assignment.labels, forecast.target
    clusters, counts = np.unique(labels, return_counts=True)
    largest = clusters[np.argsort(-counts, kind="stable")][:_SHOWN_SEGMENTS]
    steps, n_known = holdout.y.shape[1], _SHOWN_SEASONS * max(generation.target.season, 4)
    shown = []
    for cluster in largest.tolist():
        segment = "no segment" if cluster == NOISE else f"segment {cluster}"
        for row in np.flatnonzero(labels == cluster)[:_SHOWN_SERIES].tolist():
            past = holdout.panel.y[row]
            shown.append(
                ShownForecast(
                    f"{_name(generation, holdout.panel, row)} ({segment})",
                    past[~np.isnan(past)][-n_known:],
                    target.prediction[row, :steps],
                    target.lower[row, :steps],
                    target.upper[row, :steps],
                    holdout.y[row],
                )
            )
    return shown


def _forecast_chart(generation: SeriesGeneration, holdout: HeldBack) -> Chart:
    shown = shown_forecasts(generation, holdout)
    return Chart(
        "forecasts",
        "Forecasts of a few series of the largest segments, by id, with their intervals.",
        f"Known values, forecasts and outcomes of {len(shown)} series.",
        (shown, generation.roles.target),
    )


def _rolling_methods(generation: SeriesGeneration) -> MethodTable:
    """What the fit found out inside the training part, where only the means are kept."""
    scores = generation.info["scores"][generation.metric.name]
    before = scores.get("global")
    return {
        "basis": "rolling origins inside the training series"
        + _clipped_share(generation.info["scores"].get("clipped", {}).get("blend", 0.0)),
        "ways": [
            {
                "way": method,
                "label": label,
                "value": scores[method],
                "error": None,
                "saved": 1 - scores[method] / before if before and method != "global" else None,
                "saved_error": None,
            }
            for method, label in METHODS.items()
            if scores.get(method) is not None
        ],
    }


def _clipped_share(share: float) -> str:
    """How many errors carry a mean away, where any do."""
    return f"; {share:.1%} of the errors are above {LARGEST_LOSS:g}" if share else ""


def _name(generation: SeriesGeneration, panel: Panel, row: int) -> str:
    return str(panel.ids[row]) if generation.shows_ids else f"series {row}"


def _taken(forecast: SeriesForecast, rows: np.ndarray) -> SeriesForecast:
    names = ("prediction", "lower", "upper", "weight", "replaced")
    return replace(forecast, **{name: getattr(forecast, name)[rows] for name in names})


def _sums(
    truth: np.ndarray, forecast: SeriesForecast, generation: SeriesGeneration, name: str
) -> OutputRows:
    """Sums over the steps that are known, shape (n,); NaN where none is."""
    model, coverage, steps = generation.models[name], generation.coverage, truth.shape[1]
    known = np.isfinite(truth)
    some = known.any(axis=1)
    lower, upper = forecast.lower[:, :steps], forecast.upper[:, :steps]

    def summed(values: np.ndarray) -> np.ndarray:
        return np.where(some, np.where(known, values, 0.0).sum(axis=1), np.nan)

    deviation = (upper - lower) / (2 * float(norm.ppf((1 + coverage) / 2)))
    inside = known & (lower <= truth) & (truth <= upper)
    n = len(truth)
    return OutputRows(
        truth=summed(truth),
        prediction=summed(forecast.prediction[:, :steps]),
        lower=np.full(n, np.nan),
        upper=np.full(n, np.nan),
        variance=np.nan_to_num(summed(deviation)) ** 2,
        pool=np.zeros(n, dtype=np.int64),
        pools=[Pool(0.0, 0.0, 1)],
        shares=np.divide(inside.sum(axis=1), known.sum(axis=1), out=np.full(n, np.nan), where=some),
        support=Support(model.never_negative, model.whole),
    )
