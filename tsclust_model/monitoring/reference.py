"""What drift is measured against: the distributions of a training."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.special import kolmogorov

from tsclust_model.metrics import RMSE
from tsclust_model.shown import one_line

MIN_ROWS = 50
"""A window with fewer rows says nothing; see `DriftMonitor`."""

_QUANTILES = 512

_BINS = 10

_BLOCKS = 20

ALPHA = 0.001

# The least change that matters, of each statistic, whatever the number of rows.
_KS_EFFECT = 0.15

_PSI_EFFECT = 0.25

_SHIFT_EFFECT = 0.5

# How much further than the training rows' own variation over time a window must be.
BEYOND = 1.25


@one_line
@dataclass(frozen=True)
class FeatureCounts:
    """What rows show of each column, beside a `FeatureReference`.

    Parts of a table can be counted apart and added: the distances are those of all rows together.

    Attributes
    ----------
    n_rows : int
    known : ndarray of int64, shape (n_features,)
        Values that are not missing.
    total : ndarray of float64, shape (n_features,)
        Their sum.
    other : ndarray of int64, shape (n_features,)
        Values that are not the mean of the reference.
    below, up_to : ndarray of int64, shape (n_features, n_quantiles)
        Values below each quantile of the reference, and below or equal to it.
    bins : ndarray of int64, shape (n_features, 10)
    """

    n_rows: int
    known: np.ndarray
    total: np.ndarray
    other: np.ndarray
    below: np.ndarray
    up_to: np.ndarray
    bins: np.ndarray

    def plus(self, more: FeatureCounts) -> FeatureCounts:
        """Both together."""
        return FeatureCounts(*(a + b for a, b in zip(self.values(), more.values(), strict=True)))

    def values(self) -> tuple[Any, ...]:
        """The attributes in their order."""
        return tuple(vars(self).values())


@one_line
@dataclass(frozen=True)
class FeatureReference:
    """What the training rows looked like, column by column.

    Attributes
    ----------
    names : tuple of str
    quantiles : ndarray of float64, shape (n_features, min(512, n_samples))
        Evenly spaced order statistics; NaN is left out.
    mean, scale : ndarray of float64, shape (n_features,)
    edges : ndarray of float64, shape (n_features, 9)
        Inner edges of the ten bins of the population stability index.
    shares : ndarray of float64, shape (n_features, 10)
        Share of the training rows in each bin.
    usual : ndarray of float64, shape (3, n_features)
        Largest Kolmogorov-Smirnov distance, index and relative shift of any of 20 consecutive
        blocks of the training rows against all of them.
    """

    names: tuple[str, ...]
    quantiles: np.ndarray
    mean: np.ndarray
    scale: np.ndarray
    edges: np.ndarray
    shares: np.ndarray
    usual: np.ndarray

    @classmethod
    def fit(cls, X: np.ndarray, names: Sequence[str]) -> FeatureReference:
        """Describe training rows, shape (n_samples, n_features), oldest first."""
        levels = np.linspace(0, 1, min(_QUANTILES, len(X)))
        quantiles = np.array([np.nanquantile(x, levels, method="nearest") for x in X.T])
        edges = np.array([np.nanquantile(x, np.arange(1, _BINS) / _BINS) for x in X.T])
        mean, scale = np.nanmean(X, axis=0), np.nanstd(X, axis=0)
        constant = quantiles[:, 0] == quantiles[:, -1]
        mean, scale = np.where(constant, quantiles[:, 0], mean), np.where(constant, 0.0, scale)
        shares = np.array([_bin_shares(x, e) for x, e in zip(X.T, edges, strict=True)])
        whole = cls(tuple(names), quantiles, mean, scale, edges, shares, np.zeros((3, X.shape[1])))
        blocks = [part for part in np.array_split(X, _BLOCKS) if len(part) >= MIN_ROWS]
        if not blocks:
            return whole
        return replace(whole, usual=np.max([whole.distances(part) for part in blocks], axis=0))

    def counts(self, X: np.ndarray) -> FeatureCounts:
        """Count rows, shape (n, n_features); NaN is missing."""
        columns = [np.sort(x[~np.isnan(x)]) for x in X.T]
        places = list(zip(columns, self.quantiles, strict=True))
        return FeatureCounts(
            len(X),
            np.array([len(x) for x in columns]),
            np.array([x.sum() for x in columns]),
            np.array([(x != mean).sum() for x, mean in zip(columns, self.mean, strict=True)]),
            np.array([np.searchsorted(x, q, side="left") for x, q in places]),
            np.array([np.searchsorted(x, q, side="right") for x, q in places]),
            np.array([_bin_counts(x, e) for x, e in zip(columns, self.edges, strict=True)]),
        )

    def distances(self, window: np.ndarray | FeatureCounts) -> np.ndarray:
        """How far rows, shape (n, n_features), or their counts are, shape (3, n_features).

        Kolmogorov-Smirnov distance (0 to 1), population stability index ``sum((p - q) log(p/q))``
        over ten bins, and shift of the mean in standard deviations.
        """
        counts = window if isinstance(window, FeatureCounts) else self.counts(window)
        distances = np.zeros((3, len(counts.known)))
        for i in np.flatnonzero(counts.known):
            n, quantiles = counts.known[i], self.quantiles[i]
            # The steps of the reference are at its quantiles: there, or just before, the
            # difference is largest.
            before, after = (
                np.searchsorted(quantiles, quantiles, side) / len(quantiles)
                for side in ("left", "right")
            )
            apart = np.maximum(
                np.abs(counts.below[i] / n - before), np.abs(counts.up_to[i] / n - after)
            )
            distances[0, i] = apart.max()
            distances[1, i] = _stability_index(counts.bins[i] / n, self.shares[i])
            shift = abs(counts.total[i] / n - self.mean[i])
            constant = math.inf if counts.other[i] else 0.0
            distances[2, i] = shift / self.scale[i] if self.scale[i] > 0 else constant
        return distances

    def shifted(self, window: np.ndarray | FeatureCounts) -> list[str]:
        """The columns that have shifted, most first, each with how far."""
        counts = window if isinstance(window, FeatureCounts) else self.counts(window)
        distances = self.distances(counts)
        p_values = _ks_p_values(distances[0], counts.known, self.quantiles.shape[1])
        # A column with few known values says nothing, however many rows there are.
        fewest = min(MIN_ROWS, counts.n_rows)
        significant = _false_discovery(np.where(counts.known >= fewest, p_values, 1.0))
        floors = np.array([_KS_EFFECT, _PSI_EFFECT, _SHIFT_EFFECT])[:, None]
        limits = np.maximum(floors, BEYOND * self.usual)
        # The distance decides; index or shift must agree that it matters.
        large = (distances[0] > limits[0]) & (distances[1:] > limits[1:]).any(axis=0)
        order = np.argsort(-distances[0])
        return [
            f"{self.names[i]} (KS {distances[0, i]:.2f}, PSI {distances[1, i]:.2f}, "
            + (f"shift {distances[2, i]:.2f} sd)" if self.scale[i] > 0 else "constant until now)")
            for i in order
            if significant[i] and large[i]
        ]


@one_line
@dataclass(frozen=True)
class Reference:
    """Everything drift is measured against; it lives inside the model.

    Attributes
    ----------
    features : FeatureReference
    noise_ratio : float
        Share of noise (0 to 1) that new rows of the training period would have.
    usual_noise : float
        Highest such share in any of 20 consecutive blocks of the training rows.
    loss_mean, loss_sd : float
        Mean and standard deviation of the loss on rows no model had seen.
    usual_loss : float
        Highest mean of it in any of 20 consecutive blocks.
    loss_rows : int
        Rows these were computed on.
    metric : str
        What the loss is, a name of `tsclust_model.metrics.METRICS`.
    """

    features: FeatureReference
    noise_ratio: float
    usual_noise: float
    loss_mean: float
    loss_sd: float
    usual_loss: float
    loss_rows: int = 10_000
    metric: str = RMSE.name

    @classmethod
    def fit(
        cls,
        X: np.ndarray,
        names: Sequence[str],
        is_noise: np.ndarray,
        losses: np.ndarray,
        metric: str = RMSE.name,
    ) -> Reference:
        """Describe training rows, oldest first.

        Parameters
        ----------
        X : ndarray of float64, shape (n_samples, n_features)
        names : sequence of str
        is_noise : ndarray of bool, shape (n_rows,)
            Of rows assigned as if they were new.
        losses : ndarray of float64, shape (n_valid,)
            Of rows no model had seen.
        metric : str
            What the losses are.
        """
        return cls(
            FeatureReference.fit(X, names),
            float(is_noise.mean()),
            block_maximum(is_noise),
            float(losses.mean()),
            float(losses.std()),
            block_maximum(losses),
            len(losses),
            metric,
        )

    def most_noise(self, rise: float) -> float:
        """The most noise (0 to 1) that is no drift: of any block, or `rise` over all of them."""
        return max(self.usual_noise, self.noise_ratio + rise)

    def of_rows(self, X: np.ndarray, is_noise: np.ndarray | None) -> Reference:
        """The same of other rows, oldest first; None keeps what is usual of the noise."""
        features = FeatureReference.fit(X, self.features.names)
        if is_noise is None:
            return replace(self, features=features)
        noise, usual = float(is_noise.mean()), block_maximum(is_noise)
        return replace(self, features=features, noise_ratio=noise, usual_noise=usual)

    def of_losses(self, losses: np.ndarray) -> Reference:
        """The same of other losses, oldest first."""
        return replace(
            self,
            loss_mean=float(losses.mean()),
            loss_sd=float(losses.std()),
            usual_loss=block_maximum(losses),
            loss_rows=len(losses),
        )

    def to_arrays(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """The reference as arrays and JSON-ready values; `from_arrays` reads them back."""
        features = dict(vars(self.features))
        names = list(features.pop("names"))
        values = {k: v for k, v in vars(self).items() if k != "features"}
        return features, values | {"names": names}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray], values: Mapping[str, Any]) -> Reference:
        numbers = dict(values)
        names = tuple(numbers.pop("names"))
        return cls(FeatureReference(names, **arrays), **numbers)


def block_maximum(values: np.ndarray) -> float:
    blocks = [part for part in np.array_split(values, _BLOCKS) if len(part) >= MIN_ROWS]
    return float(max((part.mean() for part in blocks), default=values.mean()))


def _bin_counts(values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    return np.bincount(np.searchsorted(edges, values, side="left"), minlength=_BINS)


def _bin_shares(values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    values = values[~np.isnan(values)]
    return _bin_counts(values, edges) / max(len(values), 1)


def _stability_index(shares: np.ndarray, expected: np.ndarray) -> float:
    """Population stability index; an empty bin counts as a tenth of a per cent."""
    p, q = np.maximum(shares, 0.001), np.maximum(expected, 0.001)
    return float(((p - q) * np.log(p / q)).sum())


def _ks_p_values(distances: np.ndarray, n: int | np.ndarray, m: int) -> np.ndarray:
    """Asymptotic two-sided p-values of Kolmogorov-Smirnov distances."""
    return kolmogorov(distances * np.sqrt(n * m / (n + m)))


def _false_discovery(p_values: np.ndarray) -> np.ndarray:
    """Mask of the discoveries at a false-discovery rate of 0.1% (Benjamini & Hochberg 1995)."""
    order = np.argsort(p_values)
    passed = p_values[order] <= ALPHA * np.arange(1, len(order) + 1) / len(order)
    discoveries = np.zeros(len(order), dtype=bool)
    if passed.any():
        discoveries[order[: np.flatnonzero(passed)[-1] + 1]] = True
    return discoveries
