"""Forecasts at rolling origins inside the training panel: their errors, shares and gains."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from tsclust_model.boosting.boosters import rows_by_cluster
from tsclust_model.boosting.segment_gain import mean_error, segment_gain
from tsclust_model.results import NOISE
from tsclust_model.series.examples import Examples
from tsclust_model.series.features import shape_features
from tsclust_model.series.output_model import WAYS, blended
from tsclust_model.series.panel import LARGEST_LOSS, Panel
from tsclust_model.shown import one_line

Shares = dict[int, tuple[float, ...]]

# Segments have to earn their place: on real series they seldom beat the models of all series.
_PRIORS = {"global": 0.4, "cluster": 0.1, "bank": 0.22, "theta": 0.08, "regression": 0.2}

_SHARPNESS = 20.0

_SHRUNK_BY, _FEW_CASES = 100, 20

_BASES = WAYS[2:]

_CES_SHARES, _CES_PRIOR = (0.0, 0.05, 0.1, 0.15, 0.2), 0.1

_NO_LOSS, _MOST_RELATIVE, _FAR_BEHIND = 1e-9, 3.0, 1.0


@one_line
@dataclass(frozen=True)
class Backtest:
    """Forecasts of one output at the folds, and how good each was for its series.

    A case is a series at an origin.

    Attributes
    ----------
    examples : Examples
    ways : ndarray of float64, shape (5, m)
        Scaled forecasts of `WAYS`.
    case : ndarray of int64, shape (m,)
        Number of the case of each forecast.
    series, origins, labels : ndarray of int64, shape (n_cases,)
        Labels are the segments of the series at the origin.
    """

    examples: Examples
    ways: np.ndarray
    case: np.ndarray
    series: np.ndarray
    origins: np.ndarray
    labels: np.ndarray

    @classmethod
    def of(
        cls,
        examples: Examples,
        everywhere: Mapping[int, np.ndarray],
        own: Mapping[int, np.ndarray],
        labels: Mapping[Any, np.ndarray],
    ) -> Backtest:
        """Forecasts of the models of all series, and of the segments' own, by fold."""
        rows = slice(examples.n_train, None)
        series, origins = examples.series[rows], examples.origins[rows]
        keys, case = np.unique(series * (origins.max() + 1) + origins, return_inverse=True)
        who, when = np.divmod(keys, origins.max() + 1)
        segments = [labels[int(o)][s] for s, o in zip(who, when, strict=True)]
        corrected = [_in_order(examples, found) for found in (everywhere, own)]
        bases = [getattr(examples.rows, name)[rows] for name in WAYS[len(corrected) :]]
        ways = np.array([*corrected, *bases])
        return cls(examples, ways, case, who, when, np.array(segments, dtype=np.int64))

    @cached_property
    def weights(self) -> np.ndarray:
        """How much each case counts, by its fold, shape (n_cases,)."""
        return np.array([self.examples.weight_of(int(fold)) for fold in self.origins])

    @property
    def truth(self) -> np.ndarray:
        """Scaled, shape (m,)."""
        return self.examples.truth[self.examples.n_train :]

    def losses(self, forecast: np.ndarray) -> np.ndarray:
        """Mean absolute scaled error of each case, shape (n_cases,)."""
        missed = np.abs(self.truth - forecast)
        return np.bincount(self.case, missed) / np.bincount(self.case)

    @cached_property
    def way_losses(self) -> dict[str, np.ndarray]:
        """`losses` of each of `WAYS`."""
        return dict(zip(WAYS, map(self.losses, self.ways), strict=True))

    def shares(self, own: Collection[int], combine: str) -> Shares:
        """Shares of the ways: of series without a segment (-1), and of each segment.

        ``prior * (loss / best) ** -p``, where p rises from 0 to 20 with the number of independent
        forecasts, ``20 * n / (n + 20)``. A loss counts as a multiple, at most 3, of the mean loss
        of all ways in the same case, so that no case outweighs others. A segment's log ratios are
        shrunk towards those of all series by ``n / (n + 100)``. A base that is better than the
        blend by more than noise serves alone. `own` are the segments with models of their own, and
        -1 if there is any model at all.
        """
        models = _PRIORS["global"] + _PRIORS["cluster"] if NOISE in own else 0.0
        priors = _PRIORS | {"global": models, "cluster": 0.0}
        with_own = {
            "blend": _PRIORS,
            "cluster": priors | {"global": 0.0, "cluster": priors["global"]},
            "global": priors,
        }[combine]

        relative = self._relative(np.array([self.way_losses[way] for way in WAYS]))
        n_independent = self.weights.sum() ** 2 / np.square(self.weights).sum()
        sharpness = _SHARPNESS * n_independent / (n_independent + _FEW_CASES)

        def logs(rows: np.ndarray) -> np.ndarray:
            means = np.average(relative[:, rows], axis=1, weights=self.weights[rows])
            return np.log(np.maximum(means, 1e-12) / max(means.min(), 1e-12))

        def shares(ratios: np.ndarray, prior: Mapping[str, float]) -> tuple[float, ...]:
            weights = np.array([prior[way] for way in WAYS]) * np.exp(-sharpness * ratios)
            return tuple(float(share) for share in weights / weights.sum())

        overall = logs(np.arange(len(self.labels)))
        found = {NOISE: shares(overall, priors)}  # where no case was without a segment
        for cluster, rows in rows_by_cluster(self.labels):
            n = len(rows)
            ratios = (n * logs(rows) + _SHRUNK_BY * overall) / (n + _SHRUNK_BY)
            has_own = cluster != NOISE and cluster in own
            found[cluster] = shares(ratios, with_own if has_own else priors)
        return self._not_behind_a_base(found)

    def _relative(self, losses: np.ndarray) -> np.ndarray:
        """Losses, shape (..., n_cases), as multiples of the mean of the ways, none far off."""
        ways = np.array([self.way_losses[way] for way in WAYS])
        usual = np.minimum(ways, _MOST_RELATIVE * ways.min(axis=0)).mean(axis=0)
        return np.asarray(np.minimum((losses + _NO_LOSS) / (usual + _NO_LOSS), _MOST_RELATIVE))

    def _not_behind_a_base(self, found: Shares) -> Shares:
        """The shares, or all to the best base where the blend is behind it by more than noise.

        A blend that is far behind stays: its models are broken, and are left out with a warning.
        """
        served = self._relative(self.losses(self.blend(found)))
        bases = {way: self._relative(self.way_losses[way]) for way in _BASES}
        best = min(bases, key=lambda way: float(np.average(bases[way], weights=self.weights)))
        behind = (served - bases[best]) * self.weights / self.weights.mean()
        noise = mean_error(behind, units=self.series)
        if noise is None or not noise < behind.mean() < _FAR_BEHIND:
            return found
        return dict.fromkeys(found, tuple(float(way == best) for way in WAYS))

    def blend(self, shares: Shares) -> np.ndarray:
        """The ways' forecasts averaged by the shares of their segments, shape (m,)."""
        return blended(self.ways, self._share_table(shares)[self.case])

    def served(self, shares: Shares) -> tuple[np.ndarray, float]:
        """The blend with complex exponential smoothing, shape (m,), and the share of the latter.

        The share is the one the folds like best, of 0 to 0.2; near 0.1 where few forecasts say so.
        """
        blend, ces = self.blend(shares), self.examples.ces
        if ces is None:
            return blend, 0.0
        weights = self.weights * np.bincount(self.case, ces.trust) / np.bincount(self.case)
        share = _CES_PRIOR
        if weights.any():
            made = [self.losses(ces.mixed(blend, share)) for share in _CES_SHARES]
            errors = np.average(self._relative(np.array(made)), axis=1, weights=weights)
            n = weights.sum() ** 2 / np.square(weights).sum()
            best = _CES_SHARES[int(errors.argmin())]
            share = float((n * best + _FEW_CASES * _CES_PRIOR) / (n + _FEW_CASES))
        return ces.mixed(blend, share), share

    def _share_table(self, shares: Shares) -> np.ndarray:
        known, inverse = np.unique(self.labels, return_inverse=True)
        return np.array([shares[int(label)] for label in known])[inverse]

    def scores(
        self, losses: Mapping[str, np.ndarray], shares: Shares, rounds: int
    ) -> dict[str, Any]:
        """JSON-ready figures: mean and median MASE of each way, and of what is served by segment.

        Parameters
        ----------
        losses : mapping of str to ndarray of float64, shape (n_cases,)
            Those of `way_losses`, and of ``blend``, which is served.
        shares : dict
            Of `shares`.
        rounds : int
            Trees of a model.
        """
        served = losses["blend"]
        gain, n = losses["global"] - served, len(served)
        return {
            "gain": None,  # without a control
            "n_forecasts": n,
            "folds": [self._fold_sizes(fold) for fold in self.examples.folds],
            "n_trees": rounds,
            "mase": {way: float(found.mean()) for way, found in losses.items()},
            "median_mase": {way: float(np.median(found)) for way, found in losses.items()},
            "clipped": {way: float((found > LARGEST_LOSS).mean()) for way, found in losses.items()},
            "n_series_clipped": len(np.unique(self.series[served > LARGEST_LOSS])),
            "clipped_mase": {
                way: float(np.minimum(found, LARGEST_LOSS).mean()) for way, found in losses.items()
            },
            "gain_over_global": {
                "mean": float(gain.mean()),
                "standard_error": float(gain.std(ddof=1) / np.sqrt(n)) if n > 1 else None,
            },
            "shares": {str(c): dict(zip(WAYS, found, strict=True)) for c, found in shares.items()},
            "cluster_weight": float(self._share_table(shares)[:, 1].mean()),
            "clusters": {
                cluster: {"mase": float(served[rows].mean()), "n_forecasts": len(rows)}
                for cluster, rows in rows_by_cluster(self.labels)
            },
        }

    def _fold_sizes(self, fold: int) -> dict[str, int]:
        """How many series a fold has, and values that are forecast."""
        rows = self.examples.evaluated_at(fold)
        n_series = len(np.unique(self.examples.series[rows]))
        return {"origin": fold, "n_series": n_series, "n_forecasts": len(rows)}

    def gain(self, served: np.ndarray, control: np.ndarray) -> dict[str, Any] | None:
        """What the segments save beyond shuffled ones; no series loses more than the largest
        loss."""
        gain = segment_gain(
            np.minimum(self.way_losses["global"], LARGEST_LOSS),
            np.minimum(served, LARGEST_LOSS),
            np.minimum(control, LARGEST_LOSS),
            root=False,
            parts=self.origins,
            units=self.series,
            only_segments=False,  # bank and Theta are blended in, too
        )
        return None if gain is None else gain.to_dict()

    def shapes(self, panel: Panel) -> np.ndarray:
        """Shapes of the series at their origins, shape (n_cases, n_shapes); NaN without one."""
        parts, places = [], []
        for fold in self.examples.folds:
            (own,) = np.nonzero(self.origins == fold)
            parts.append(shape_features(panel.y[self.series[own], :fold], panel.frequency.season))
            places.append(own)
        return np.concatenate(parts)[np.argsort(np.concatenate(places), kind="stable")]


def _in_order(examples: Examples, by_fold: Mapping[int, np.ndarray]) -> np.ndarray:
    """Forecasts of the folds in the order of the rows that are evaluated."""
    found = np.empty(len(examples.truth) - examples.n_train)
    for fold, forecast in by_fold.items():
        found[examples.evaluated_at(fold) - examples.n_train] = forecast
    return found
