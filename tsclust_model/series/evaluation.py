"""How good forecasts of series are, beside what simpler ones would have said."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from tsclust_model.boosting.boosters import rows_by_cluster
from tsclust_model.boosting.quantiles import DECILES
from tsclust_model.errors import DataValidationError
from tsclust_model.metrics import interval_coverage, quantile_losses, weighted_quantile_loss
from tsclust_model.series.output_model import SeriesForecast
from tsclust_model.series.panel import (
    LARGEST_LOSS,
    HeldBack,
    Panel,
    mase_scale,
    row_means,
    scaled_errors,
)

if TYPE_CHECKING:
    from tsclust_model.series.model import SeriesGeneration


def evaluate_series(generation: SeriesGeneration, held: HeldBack) -> dict[str, Any]:
    """Compare forecasts with what followed.

    Parameters
    ----------
    generation : SeriesGeneration
    held : HeldBack
        Series up to an origin, and what followed.

    Returns
    -------
    dict
        ``n_rows`` (series and origins), ``n_not_scored`` (constant series have no scale),
        `series_metrics`, and ``mase`` and ``wape`` of the ``_global`` model of all series alone,
        ``_cluster``, ``_bank``, ``_theta`` and ``_seasonal_naive``; ``clipped`` (share of series
        whose scaled error is above 10, which counts as 10 where models are compared), ``coverage``
        (wanted), ``interval_coverage`` (reached, 0 to 1), `series_quantile_figures`,
        ``noise_ratio``, ``resources`` {name:
        metrics} and ``clusters`` {cluster: metrics}.

    Raises
    ------
    DataValidationError
        There is no series to compare.
    """
    needed = held.panel.frequency.season + 1
    if not len(held):
        raise DataValidationError(
            f"nothing lies before the newest {held.panel.horizon} periods, which are evaluated; "
            f"add the history of each series before them, {needed} periods or more"
        )
    forecast = generation.forecast(held.panel, generation.coverage, DECILES)
    labels, served = forecast.assignment.labels, forecast.target
    losses = row_means(scaled_errors(held, served.prediction))
    figures = series_metrics(held, served.prediction)
    if figures["mase"] is None:
        raise DataValidationError(
            "no series varies before the periods that are evaluated, so that errors have no scale; "
            f"add the history before them ({needed} periods or more), give series that vary, or "
            "train without holdout"
        )
    for way, values in generation.baselines(held.panel, labels).items():
        other = series_metrics(held, values)
        figures |= {f"{name}_{way}": other[name] for name in ("mase", "wape")}
    return {
        "n_rows": len(held),
        "n_not_scored": int(np.isnan(losses).sum()),
        **figures,
        "clipped": float((losses[~np.isnan(losses)] > LARGEST_LOSS).mean()),
        "coverage": generation.coverage,
        "interval_coverage": _coverage(held, served),
        **series_quantile_figures(held, served),
        "noise_ratio": forecast.assignment.noise_ratio,
        "resources": {
            name: series_metrics(held.of(name), forecast.outputs[name].prediction)
            for name in generation.resources
        },
        "clusters": {
            cluster: series_metrics(held.take(rows), served.prediction[rows])
            | {"n_rows": len(rows), "interval_coverage": _coverage(held, served, rows)}
            for cluster, rows in rows_by_cluster(labels)
        },
    }


def series_quantile_figures(held: HeldBack, served: SeriesForecast) -> dict[str, float | None]:
    """``wql`` and ``sql`` of forecasts with `DECILES`; None where undefined.

    WQL is `weighted_quantile_loss` over all series; SQL (scaled quantile loss, fev-bench) is to
    quantiles what MASE is to the median: the mean over series of their mean loss over their scale.
    """
    losses = quantile_losses(held.y, served.quantiles[..., : held.y.shape[1]], DECILES)
    scaled = row_means(losses / mase_scale(held.panel)[:, None])
    scaled = scaled[~np.isnan(scaled)]
    sql = float(scaled.mean()) if scaled.size else None
    return {"wql": weighted_quantile_loss(held.y, losses), "sql": sql}


def _coverage(
    held: HeldBack, served: SeriesForecast, rows: np.ndarray | slice = slice(None)
) -> float | None:
    y, steps = held.y[rows], held.y.shape[1]
    return interval_coverage(y, served.lower[rows, :steps], served.upper[rows, :steps])


def series_metrics(held: HeldBack, forecast: np.ndarray) -> dict[str, float | None]:
    """``mase``, ``median_mase``, ``wape``, ``rmse`` and ``mae``; None where undefined.

    MASE is the mean over series of the mean absolute error over their scale, which is the mean
    absolute difference between values a season apart before the origin; WAPE is the sum of absolute
    errors over the sum of absolute values.
    """
    errors = held.y - forecast[:, : held.y.shape[1]]
    errors = errors[~np.isnan(errors)]
    scaled = row_means(scaled_errors(held, forecast))
    scaled = scaled[~np.isnan(scaled)]
    total = float(np.nansum(np.abs(held.y)))
    return {
        "mase": float(scaled.mean()) if scaled.size else None,
        "median_mase": float(np.median(scaled)) if scaled.size else None,
        "wape": float(np.abs(errors).sum() / total) if total > 0 else None,
        "rmse": math.sqrt(float(np.square(errors).mean())) if errors.size else None,
        "mae": float(np.abs(errors).mean()) if errors.size else None,
    }


def newest_origins(panel: Panel, share: float = 0.0) -> tuple[Panel, HeldBack]:
    """What a model may be fitted on, and the newest periods it is evaluated on.

    The last `horizon` values of each series are held back, or as many times `horizon` as fit into
    the newest `share` (0 to 1) of its own values; each of them is forecast from just before it.
    """
    horizon, held = panel.horizon, held_lengths(panel, share)
    parts = [
        panel.take(held >= drop).held_back(drop, horizon)
        for drop in range(int(held.max()), 0, -horizon)
    ]
    return panel.known(held), HeldBack.joined(parts)


def held_lengths(panel: Panel, share: float) -> np.ndarray:
    """How many values at its end each series has for `newest_origins`, int64, shape (n,)."""
    horizon = panel.horizon
    return horizon * np.maximum((panel.lengths * share).astype(np.int64) // horizon, 1)
