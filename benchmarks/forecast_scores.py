"""MASE, SQL and WQL as the public tables of forecasts compute them.

Series are rows and steps columns; a value that is not known is NaN and does not count.
"""

from __future__ import annotations

import numpy as np

QUANTILES = np.arange(1, 10) / 10


def seasonal_error(known: np.ndarray, season: int) -> np.ndarray:
    """Mean absolute difference between values a season apart, shape (n,); NaN where it is 0."""
    changes = np.abs(known[:, season:] - known[:, :-season])
    found = np.full(len(known), np.nan)
    rows = ~np.isnan(changes).all(axis=1)
    found[rows] = np.nanmean(changes[rows], axis=1)
    return np.where(found > 0, found, np.nan)


def mase(truth: np.ndarray, forecast: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Mean absolute scaled error of each series, shape (n,) (Hyndman & Koehler 2006)."""
    return np.nanmean(np.abs(truth - forecast), axis=1) / scale


def pinball(truth: np.ndarray, quantiles: np.ndarray) -> np.ndarray:
    """Twice the quantile loss at `QUANTILES`; quantiles and result of shape (9, n, steps)."""
    missed = truth - quantiles
    level = QUANTILES[:, None, None]
    return 2 * np.maximum(level * missed, (level - 1) * missed)


def sql(truth: np.ndarray, quantiles: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Scaled quantile loss of each series, shape (n,): the MASE of quantiles (fev-bench)."""
    return np.nanmean(pinball(truth, quantiles), axis=(0, 2)) / scale


def wql(truth: np.ndarray, quantiles: np.ndarray) -> float:
    """Quantile loss of all series over the sum of their absolute values (GIFT-Eval)."""
    losses = np.nansum(pinball(truth, quantiles), axis=(1, 2))
    return float(losses.mean() / np.nansum(np.abs(truth)))
