"""Champion and challenger on the same rows."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.stats import t as student

if TYPE_CHECKING:
    from tsclust_model.models.base import FittedModel

_CONFIDENCE = 0.8413
"""One-sided, of a promotion: the rule of one standard error, as in the choice of the weights. At
95% a challenger with half the champion's error waited for weeks: few rows carry a squared loss."""


@dataclass(frozen=True)
class Comparison:
    """Champion and challenger on the same rows, which neither was trained on.

    Attributes
    ----------
    n_rows : int
    metric : str
        What they are compared by, e.g. ``rmse``.
    champion, challenger : float or None
        The metric of each; None without rows.
    improvement : float or None
        Share of the champion's metric that the challenger saves; below 0 it is worse.
    margin : float
        The improvement that is asked for.
    difference, standard_error : float or None
        Mean of the paired difference in loss (champion - challenger), and its standard error over
        `n_units`.
    better : bool
        Whether the improvement is above the margin, and by more than chance; see `compare`.
    reason : str
    n_units : int
        What counts as one observation: rows, ids (patients) where the rows have one, or series.
    """

    n_rows: int
    metric: str
    champion: float | None
    challenger: float | None
    improvement: float | None
    margin: float
    difference: float | None
    standard_error: float | None
    better: bool
    reason: str
    n_units: int = 0

    @property
    def figures(self) -> dict[str, float | None]:
        """The metric of both, as tags and reports name them, e.g. ``rmse_champion``."""
        return {
            f"{self.metric}_champion": self.champion,
            f"{self.metric}_challenger": self.challenger,
        }

    def to_dict(self) -> dict[str, Any]:
        """All of it, JSON-ready."""
        own = asdict(self)
        return self.figures | {k: v for k, v in own.items() if k not in ("champion", "challenger")}


def compare(
    champion: FittedModel,
    challenger: FittedModel,
    rows: Any,
    margin: float,
    groups: np.ndarray | None = None,
) -> Comparison:
    """Compare two generations on labelled rows that both can score.

    The challenger is better if what it saves beyond the margin is more than chance: with the paired
    differences ``champion's loss * (1 - margin) - challenger's loss`` (the margin is one of the
    metric, so it is squared for RMSE), their mean must be above t standard errors, t being the 84%
    quantile of Student's distribution (one-sided; 1 of many rows, more of few). Rows of one id
    are one observation (cluster-robust standard error, Cameron & Miller 2015), as are the steps of
    a series. Fewer than two observations, or an infinite error, prove nothing.

    Parameters
    ----------
    champion, challenger : FittedModel
    rows : DataFrame or HeldBack
        Cases that neither was trained on; may be empty.
    margin : float
        Share of the metric (0 to 1) that the challenger must save.
    groups : ndarray, shape (n,), optional
        Who each row belongs to; default: every row is its own.
    """
    metric = champion.metric
    losses = [generation.losses(rows) for generation in (champion, challenger)]
    both = ~np.isnan(losses[0]) & ~np.isnan(losses[1])
    n_rows = int(both.sum())
    if n_rows == 0:
        reason = "there are no labelled rows that neither model was trained on"
        return Comparison(0, metric.name, None, None, None, margin, None, None, False, reason)
    old, new = losses[0][both], losses[1][both]
    units = np.arange(n_rows) if groups is None else np.unique(groups[both], return_inverse=True)[1]
    n_units = int(units.max()) + 1
    before, after = metric.of(old.mean()), metric.of(new.mean())
    improvement = 1 - after / before if before > 0 else 0.0
    above = improvement > margin
    with np.errstate(invalid="ignore"):  # infinite losses prove nothing
        beyond, error = _mean_and_error(metric.loss(1 - margin) * old - new, units)
        difference, spread = _mean_and_error(old - new, units)
    asked = float(student.ppf(_CONFIDENCE, n_units - 1)) if n_units > 1 else math.inf
    better = bool(above and beyond > asked * error)
    reason = (
        f"{metric.label} {after:.4g} against the champion's {before:.4g} on {n_rows} rows: "
        f"{improvement:+.1%}, {'above' if above else 'not above'} the margin of {margin:.1%}"
    )
    if above:
        more = "more" if better else "not more"
        what = f"{n_units} {'rows' if groups is None else 'ids'}"
        reason += f" by {more} than {asked:.3f} standard errors of {what}"
    figures = (before, after, improvement, margin, difference, spread)
    return Comparison(n_rows, metric.name, *figures, better, reason, n_units)


def _mean_and_error(values: np.ndarray, units: np.ndarray) -> tuple[float, float]:
    """Mean of the values, shape (n,), and its standard error over units (numbers from 0)."""
    mean, n_units = float(values.mean()), int(units.max()) + 1
    if n_units < 2 or not math.isfinite(mean):
        return mean, math.inf
    sums = np.bincount(units, weights=values - mean, minlength=n_units)
    spread = float((sums**2).sum()) * n_units / (n_units - 1)
    return mean, math.sqrt(spread) / len(values)
