"""LightGBM classifiers of each cluster beside a global one, blended on their probabilities.

The probability of a class is ``(1 - w) * global + w * cluster``; the weight is chosen as for
numbers (`tsclust_model.boosting.blend`), on the log-loss. What comes out is calibrated by one
temperature.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from typing import Any

import lightgbm as lgb
import numpy as np
from scipy.optimize import minimize_scalar

from tsclust_model.boosting.blend import (
    ClusterModels,
    FoldScores,
    OutputFits,
    Progress,
    blend,
    booster_forecast,
    choose_weight,
    fold_forecasts,
    model_threads,
    rows_by_cluster,
)
from tsclust_model.boosting.folds import Fold
from tsclust_model.data.class_labels import ClassTarget
from tsclust_model.errors import DataValidationError
from tsclust_model.metrics import (
    LOG_LOSS,
    calculate_classification_metrics,
    log_losses,
    true_probabilities,
)
from tsclust_model.shown import one_line

_HOTTEST = 10.0  # and coldest 1 / 10; what lies beyond is no calibration

_TINY = 1e-300


@one_line
@dataclass(frozen=True)
class ClassModel(ClusterModels):
    """Everything that forecasts a target of classes.

    Attributes
    ----------
    outcome : ClassTarget
    texts : mapping of int to str
        The LightGBM model of each cluster that is large enough; -1 is the global one.
    weight : float
        Share (0 to 1) of the cluster's model in a probability.
    temperature : float
        Calibrates: the probabilities are proportional to ``p ** (1 / temperature)``. Above 1 they
        are made less sure of themselves; the order of classes stays.
    scores : FoldScores
    losses : ndarray of float64, shape (n_valid,)
        Log-loss of what is served on the folds, oldest first; of a fitted model only.
    fold_losses : mapping of str to ndarray of float64, shape (n_valid,)
        The same of each way of `scores`.
    fold_probabilities : ndarray of float64, shape (n_valid, n_classes)
        What is served, on the same rows.
    """

    outcome: ClassTarget
    texts: Mapping[int, str]
    weight: float
    temperature: float
    scores: FoldScores
    losses: np.ndarray = field(default_factory=lambda: np.empty(0))
    fold_losses: Mapping[str, np.ndarray] = field(default_factory=dict)
    fold_probabilities: np.ndarray = field(default_factory=lambda: np.empty((0, 0)))

    @property
    def classes(self) -> np.ndarray:
        """The classes in the order of the columns, shape (n_classes,)."""
        return np.array(self.outcome.classes, dtype=object)

    def predict(
        self, X: np.ndarray, labels: np.ndarray, weight: float | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Probabilities, shape (n, n_classes), and the cluster model's share in them, shape (n,).

        Parameters
        ----------
        X : ndarray of float64, shape (n, n_features)
        labels : ndarray of int64, shape (n,)
        weight : float, optional
            Instead of the fitted weight: 0 is global only, 1 clusters only.
        """
        share = self.weight if weight is None else weight
        n_classes = len(self.outcome.classes)
        P, shares = class_forecast(self.global_booster, X, n_classes), np.zeros(len(X))
        for cluster, rows in rows_by_cluster(labels) if share > 0 and len(X) else ():
            if cluster in self.cluster_boosters:
                own = class_forecast(self.cluster_boosters[cluster], X[rows], n_classes)
                P[rows], shares[rows] = blend(P[rows], own, share), share
        return tempered(P, self.temperature), shares

    def row_losses(self, texts: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
        """Log-loss of each row, shape (n,), given the classes that happened as texts."""
        return log_losses(true_probabilities(probabilities, self.outcome.codes(texts)))

    def renumbered(self, ids: Mapping[int, int]) -> ClassModel:
        """The same models under other cluster ids."""

        def moved(found: Mapping[int, Any]) -> dict[int, Any]:
            return {ids.get(cluster, cluster): value for cluster, value in found.items()}

        scores = replace(self.scores, clusters=moved(self.scores.clusters))
        return replace(self, texts=moved(self.texts), scores=scores)


class ClassFits(OutputFits):
    """Fits under way of the models of a target of classes; see `OutputFits`.

    Parameters
    ----------
    threads, X, folds, params, categorical, final
        As for `OutputFits`.
    y : ndarray of float64, shape (n_samples,)
        Codes of the classes.
    target : ClassTarget

    Raises
    ------
    DataValidationError
        A fold would learn from one class only.
    """

    def __init__(
        self,
        threads: Executor,
        X: np.ndarray,
        y: np.ndarray,
        folds: Sequence[Fold],
        params: Mapping[str, Any],
        target: ClassTarget,
        *,
        categorical: Sequence[int] = (),
        final: bool = True,
    ) -> None:
        self._y, self._target = y, target
        for fold in folds:
            if not self._can_be_fitted(fold.train):
                raise DataValidationError(
                    f"the oldest {len(fold.train)} of {len(y)} rows hold one class of "
                    f"'{target.name}' only; give more rows, or take out the oldest"
                )
        settings = _class_params(params, len(target.classes))
        outcomes = {target.name: y}
        super().__init__(
            threads, X, outcomes, folds, settings, categorical=categorical, final=final
        )

    def _can_be_fitted(self, rows: np.ndarray) -> bool:
        # Of one class LightGBM learns that all others are impossible.
        return bool(np.ptp(self._y[rows]) > 0)

    def _forecast(self, booster: lgb.Booster, X: np.ndarray) -> np.ndarray:
        return class_forecast(booster, X, len(self._target.classes))

    def finish_classes(self, combine: str, progress: Progress | None) -> ClassModel:
        """Wait for every model and put them together; see `fit_outputs` for `combine`."""
        trained = self._collect(progress)[self._target.name]
        everyone, own = fold_forecasts(self._labels, self.folds, trained)
        codes = [self._y[fold.valid].astype(np.int64) for fold in self.folds]
        weight = {"cluster": 1.0, "global": 0.0}.get(combine)
        if weight is None:
            weight = _blend_weight(codes, everyone, own)
        served = [blend(g, c, weight) for g, c in zip(everyone, own, strict=True)]
        temperature = fit_temperature(served, codes)
        seen = np.concatenate([self._labels[fold.valid] for fold in self.folds])
        truth = np.concatenate(codes)
        ways = {
            way: tempered(np.concatenate(parts), temperature)
            for way, parts in {"global": everyone, "cluster": own, "blend": served}.items()
        }
        losses = {way: log_losses(true_probabilities(P, truth)) for way, P in ways.items()}
        overall = calculate_classification_metrics(truth, ways["blend"])
        scores = FoldScores(
            n_rows=len(truth),
            errors={way: float(found.mean()) for way, found in losses.items()},
            clusters={
                cluster: calculate_classification_metrics(truth[rows], ways["blend"][rows])
                | {"n_rows": len(rows)}
                for cluster, rows in rows_by_cluster(seen)
            },
            metric=LOG_LOSS.name,
            served={name: overall[name] for name in ("accuracy", "auc")},
        )
        texts = dict(sorted(trained.texts.items()))
        return ClassModel(
            *(self._target, texts, weight, temperature, scores, losses["blend"]),
            fold_losses=losses,
            fold_probabilities=ways["blend"],
        )


def fold_blend_classes(
    X: np.ndarray,
    y: np.ndarray,
    labels: np.ndarray,
    folds: Sequence[Fold],
    params: Mapping[str, Any],
    target: ClassTarget,
    *,
    categorical: Sequence[int] = (),
    min_cluster_rows: int = 40,
) -> ClassModel:
    """The blend on the folds for any labels, e.g. shuffled ones as a control.

    What comes back has scores and no model.
    """
    with model_threads() as threads:
        fits = ClassFits(threads, X, y, folds, params, target, categorical=categorical, final=False)
        fits.add_clusters(labels, min_cluster_rows)
        return fits.finish_classes("blend", None)


def class_forecast(booster: lgb.Booster, X: np.ndarray, n_classes: int) -> np.ndarray:
    """LightGBM's probabilities, shape (n, n_classes)."""
    if len(X) == 0:
        return np.empty((0, n_classes))
    found = booster_forecast(booster, X)
    return np.column_stack([1.0 - found, found]) if found.ndim == 1 else found


def fit_temperature(probabilities: Sequence[np.ndarray], codes: Sequence[np.ndarray]) -> float:
    """The temperature that makes out-of-fold probabilities more likely in every fold, or 1.

    One number cannot overfit as isotonic steps, or a slope and offset for each class, can, and it
    changes the order of no two classes (Guo et al. 2017, *On Calibration of Modern Neural
    Networks*). Of the folds' own best ones it is the nearest to 1, if all are on one side of it:
    the log-loss is convex in 1 / T, so that it is lower in each fold then. It is used if it saves
    more than one standard error. A fold in which one class only happened says nothing: there, the
    surer the better.

    Parameters
    ----------
    probabilities : sequence of ndarray, shape (n_valid, n_classes) for each fold
    codes : sequence of ndarray of int, shape (n_valid,) for each fold
    """
    if any(np.ptp(c) == 0 for c in codes):
        return 1.0
    best = [_best_temperature(P, c) for P, c in zip(probabilities, codes, strict=True)]
    temperature = min(best) if min(best) > 1 else max(best)
    if min(best) <= 1 <= max(best):
        return 1.0
    P, truth = np.concatenate(probabilities), np.concatenate(codes)
    before, after = (
        log_losses(true_probabilities(tempered(P, t), truth)) for t in (1.0, temperature)
    )
    gain = before - after
    error = float(gain.std(ddof=1)) / math.sqrt(len(gain)) if len(gain) > 1 else math.inf
    return temperature if gain.mean() > error else 1.0


def tempered(P: np.ndarray, temperature: float) -> np.ndarray:
    """``P ** (1 / temperature)``, rows summing to 1 again, shape (n, n_classes)."""
    if temperature == 1.0:
        return P
    # By classes, not along rows: a row's bits must not depend on how many come with it.
    logs = np.log(np.maximum(np.ascontiguousarray(P.T), _TINY)) / temperature
    powers = np.exp(logs - logs.max(axis=0))
    total = np.zeros(len(P))
    for power in powers:
        total += power
    return np.ascontiguousarray((powers / total).T)


def _best_temperature(P: np.ndarray, codes: np.ndarray) -> float:
    def loss(log_temperature: float) -> float:
        found = tempered(P, math.exp(log_temperature))
        return float(log_losses(true_probabilities(found, codes)).mean())

    limit = math.log(_HOTTEST)
    found = minimize_scalar(loss, bounds=(-limit, limit), method="bounded")
    return math.exp(float(found.x))


def _blend_weight(
    codes: Sequence[np.ndarray], everyone: Sequence[np.ndarray], own: Sequence[np.ndarray]
) -> float:
    """`choose_weight` on the probability of what happened, which blends as probabilities do."""
    g, c = (
        [true_probabilities(P, code) for P, code in zip(parts, codes, strict=True)]
        for parts in (everyone, own)
    )
    nothing = [np.zeros(len(code)) for code in codes]
    return choose_weight(nothing, g, c, lambda residual: log_losses(-residual))


def _class_params(params: Mapping[str, Any], n_classes: int) -> dict[str, Any]:
    """The parameters with the objective of so many classes; a metric of numbers is no use."""
    kept = {key: value for key, value in params.items() if key != "metric"}
    if n_classes == 2:
        return kept | {"objective": "binary", "metric": "binary_logloss"}
    return kept | {"objective": "multiclass", "metric": "multi_logloss", "num_class": n_classes}
