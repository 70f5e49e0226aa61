"""How good a generation is on labelled rows, beside its own global model."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from tsclust_model.errors import DataValidationError
from tsclust_model.generation import Forecast, Generation
from tsclust_model.metrics import calculate_classification_metrics, calculate_model_metrics
from tsclust_model.validation import outcome


def evaluate_generation(generation: Generation, frame: pd.DataFrame) -> dict[str, Any]:
    """Compare forecasts with what happened.

    Parameters
    ----------
    generation : Generation
    frame : DataFrame
        The model's columns, and its target; resources are compared where they are there.

    Returns
    -------
    dict
        ``n_rows``, ``n_not_scored``, ``rmse``, ``mae``, ``r2`` (of what is served),
        ``rmse_global`` and ``rmse_cluster`` (global model alone, clusters alone), ``coverage``
        (wanted) and ``interval_coverage`` (reached, 0 to 1), ``noise_ratio``, ``resources``
        {name: metrics} and ``clusters`` {cluster: metrics}. Of classes: ``accuracy``,
        ``log_loss``, ``auc``, ``log_loss_global`` and ``log_loss_cluster``, and no intervals.

    Raises
    ------
    DataValidationError
        The target is absent or missing, a column does not fit, or no row can be scored.
    """
    y = generation.outcomes(frame)
    encoded = generation.schema.encode(frame)
    scored = encoded.scorable
    if not scored.any():
        why = f"; the first: {encoded.status[0]}" if len(frame) else ""
        raise DataValidationError(f"none of {len(frame)} rows can be scored{why}")
    X, y = encoded.X[scored], y[scored]
    forecast = generation.forecast(X, generation.coverage)
    labels = forecast.assignment.labels
    found = forecast.prediction if generation.classes is None else forecast.probabilities
    figures, metric = _figures(generation), generation.metric.name
    alone = {
        f"{metric}_{way}": figures(y, generation.target.predict(X, labels, weight)[0])[metric]
        for way, weight in (("global", 0.0), ("cluster", 1.0))
    }
    return {
        "n_rows": len(y),
        "n_not_scored": int((~scored).sum()),
        **figures(y, found),
        **alone,
        **_intervals(generation, y, forecast),
        "noise_ratio": forecast.assignment.noise_ratio,
        "resources": {
            name: _known_metrics(frame.loc[scored, name], found)
            for name, found in forecast.resources.items()
            if name in frame
        },
        "clusters": {
            int(cluster): figures(y[labels == cluster], found[labels == cluster])
            | {"n_rows": int((labels == cluster).sum())}
            for cluster in np.unique(labels)
        },
    }


def _figures(generation: Generation) -> Callable[..., dict[str, float | None]]:
    """What makes figures of outcomes and forecasts."""
    if generation.classes is None:
        return calculate_model_metrics
    return partial(calculate_classification_metrics, classes=generation.classes.classes)


def _intervals(generation: Generation, y: np.ndarray, forecast: Forecast) -> dict[str, float]:
    if generation.classes is not None:
        return {}
    inside = (forecast.lower <= y) & (y <= forecast.upper)
    return {"coverage": generation.coverage, "interval_coverage": float(inside.mean())}


def _known_metrics(column: pd.Series, forecast: np.ndarray) -> dict[str, float | None]:
    """The metrics of a resource on the rows where it is known."""
    known = column.notna().to_numpy()
    truth = outcome(column[known].to_frame(), str(column.name), "resource column")
    return calculate_model_metrics(truth, forecast[known])
