"""How outputs of one sort are fitted, weighted and calibrated: numbers, or classes.

A `Recipe` is all that the fit of a group of rows needs beside these rows, whichever process it runs
in. It says how the clusters' forecasts are weighted on the folds, and what model comes of it.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import lightgbm as lgb
import numpy as np

from tsclust_model.boosting.boosters import (
    booster_forecast,
    class_forecast,
    rows_by_cluster,
    train_boosters,
)
from tsclust_model.boosting.intervals import Calibration, Support
from tsclust_model.boosting.output_model import (
    ClassModel,
    FoldScores,
    NumberModel,
    OutputModel,
    blend,
    fit_temperature,
    tempered,
)
from tsclust_model.metrics import (
    LOG_LOSS,
    RMSE,
    Metric,
    calculate_classification_metrics,
    calculate_model_metrics,
    log_losses,
    true_probabilities,
)
from tsclust_model.shown import one_line

WEIGHTS = (0.0, 0.25, 0.5, 0.75, 1.0)

_ABSOLUTE = frozenset({"regression_l1", "l1", "mae", "mape", "quantile"})

Answers = dict[str, Any]
"""By output: the text of a model that is kept, or an array of forecasts."""


@one_line
@dataclass(frozen=True)
class OutOfFold:
    """Forecasts of the folds' validation rows by models that had not seen them.

    Attributes
    ----------
    truth : list of ndarray of float64, shape (n_valid,) for each fold
    ways : dict of str to list of ndarray
        Of each fold, the forecasts of ``global`` and ``cluster`` (the global one where a cluster
        has no model), and of their ``blend``.
    labels : ndarray of int64, shape (n_valid of all folds,)
    """

    truth: list[np.ndarray]
    ways: dict[str, list[np.ndarray]]
    labels: np.ndarray

    def scored(
        self, recipe: Recipe, adjusted: Callable[[np.ndarray], np.ndarray], *served: str
    ) -> dict[str, Any]:
        """Scores, losses and forecasts of adjusted forecasts, as `OutputModel` holds them."""
        truth = np.concatenate(self.truth)
        ways = {way: adjusted(np.concatenate(parts)) for way, parts in self.ways.items()}
        losses = {way: recipe.losses(truth, values) for way, values in ways.items()}
        values = ways["blend"]
        overall = recipe.figures(truth, values)
        scores = FoldScores(
            n_rows=len(truth),
            errors={way: recipe.metric.of(own.mean()) for way, own in losses.items()},
            clusters={
                cluster: recipe.figures(truth[rows], values[rows]) | {"n_rows": len(rows)}
                for cluster, rows in rows_by_cluster(self.labels)
            },
            metric=recipe.metric.name,
            served={name: overall[name] for name in served},
        )
        return {"scores": scores, "fold_values": values, "fold_losses": losses}


@one_line
@dataclass(frozen=True)
class Recipe(ABC):
    """How outputs of one sort are fitted and blended.

    Attributes
    ----------
    params : mapping
        LightGBM parameters.
    categorical : sequence of int
        Positions of categorical columns.
    combine : {'blend', 'cluster', 'global'}
        'blend' chooses the weight on the folds, 'cluster' sets it to 1 and 'global' to 0.
    min_cluster_rows : int
        A cluster with fewer rows uses the global model (in a fold: with fewer than the share of
        them that the fold trains on).
    """

    params: Mapping[str, Any]
    categorical: Sequence[int] = ()
    combine: str = "blend"
    min_cluster_rows: int = 40
    metric: ClassVar[Metric]

    @property
    def settings(self) -> Mapping[str, Any]:
        """What LightGBM is given."""
        return self.params

    def can_learn(self, y: np.ndarray) -> bool:
        """Whether rows with these outcomes can make a model."""
        return True

    def forecast(self, booster: lgb.Booster, X: np.ndarray) -> np.ndarray:
        """The forecast of a model, a row for each row of X."""
        return booster_forecast(booster, X)

    def fit(
        self, X: np.ndarray, outcomes: Mapping[str, np.ndarray], later: np.ndarray | None = None
    ) -> Answers:
        """Fit the models of one group's rows: all that a process needs is given.

        Parameters
        ----------
        X : ndarray of float64, shape (n, n_features)
            In an order that does not depend on where the rows come from: it decides the bits.
        outcomes : mapping of str to ndarray of float64, shape (n,)
        later : ndarray of float64, shape (n_later, n_features), optional
            Rows to forecast.

        Returns
        -------
        dict
            By output: the forecasts of `later`, or without it the text of the model.
        """
        boosters = train_boosters(X, outcomes, self.settings, self.categorical)
        if later is None:
            return {name: str(booster.model_to_string()) for name, booster in boosters}
        return {name: self.forecast(booster, later) for name, booster in boosters}

    @abstractmethod
    def weight(
        self, truth: list[np.ndarray], everywhere: list[np.ndarray], own: list[np.ndarray]
    ) -> float:
        """The share of the clusters' models, see `choose_weight`."""

    @abstractmethod
    def model(
        self, texts: Mapping[int, str], weight: float, y: np.ndarray, known: OutOfFold
    ) -> OutputModel:
        """The model of an output, calibrated on the folds."""

    @staticmethod
    @abstractmethod
    def losses(y: np.ndarray, values: np.ndarray) -> np.ndarray:
        """The loss of each forecast, shape (n,), whose mean is the metric (`Metric.of`)."""

    @staticmethod
    @abstractmethod
    def figures(y: np.ndarray, values: np.ndarray) -> dict[str, float | None]:
        """How good forecasts are."""


@one_line
@dataclass(frozen=True)
class NumberRecipe(Recipe):
    """How numbers are fitted; see `Recipe`.

    Attributes
    ----------
    clip, whole : bool
        Keep to the support of an outcome, see `Support.of`.
    """

    clip: bool = True
    whole: bool = True
    metric: ClassVar[Metric] = RMSE

    def weight(
        self, truth: list[np.ndarray], everywhere: list[np.ndarray], own: list[np.ndarray]
    ) -> float:
        loss = np.abs if self.params.get("objective") in _ABSOLUTE else np.square
        return choose_weight(truth, everywhere, own, loss)

    def model(
        self, texts: Mapping[int, str], weight: float, y: np.ndarray, known: OutOfFold
    ) -> OutputModel:
        support = Support.of(y, clip=self.clip, whole=self.whole)
        scored = known.scored(self, support.clipped)
        residuals = np.concatenate(known.truth) - scored["fold_values"]
        calibration = Calibration.fit(residuals, known.labels)
        return NumberModel(
            texts=texts, weight=weight, calibration=calibration, support=support, **scored
        )

    @staticmethod
    def losses(y: np.ndarray, values: np.ndarray) -> np.ndarray:
        return np.square(y - values)

    @staticmethod
    def figures(y: np.ndarray, values: np.ndarray) -> dict[str, float | None]:
        return calculate_model_metrics(y, values)


@one_line
@dataclass(frozen=True, kw_only=True)
class ClassRecipe(Recipe):
    """How a target of classes is fitted; see `Recipe`. Outcomes are codes of classes.

    Attributes
    ----------
    n_classes : int
    """

    n_classes: int
    metric: ClassVar[Metric] = LOG_LOSS

    @property
    def settings(self) -> Mapping[str, Any]:
        kept = {key: value for key, value in self.params.items() if key != "metric"}
        if self.n_classes == 2:
            return kept | {"objective": "binary", "metric": "binary_logloss"}
        own = {"objective": "multiclass", "metric": "multi_logloss", "num_class": self.n_classes}
        return kept | own

    def can_learn(self, y: np.ndarray) -> bool:
        # Of one class LightGBM learns that all others are impossible.
        return bool(np.ptp(y) > 0)

    def forecast(self, booster: lgb.Booster, X: np.ndarray) -> np.ndarray:
        return class_forecast(booster, X)

    def weight(
        self, truth: list[np.ndarray], everywhere: list[np.ndarray], own: list[np.ndarray]
    ) -> float:
        # The probability of what happened blends as probabilities do.
        g, c = (
            [true_probabilities(P, codes) for P, codes in zip(parts, truth, strict=True)]
            for parts in (everywhere, own)
        )
        nothing = [np.zeros(len(codes)) for codes in truth]
        return choose_weight(nothing, g, c, lambda residual: log_losses(-residual))

    def model(
        self, texts: Mapping[int, str], weight: float, y: np.ndarray, known: OutOfFold
    ) -> OutputModel:
        codes = [part.astype(np.int64) for part in known.truth]
        temperature = fit_temperature(known.ways["blend"], codes)
        scored = known.scored(self, lambda P: tempered(P, temperature), "accuracy", "auc")
        return ClassModel(texts=texts, weight=weight, temperature=temperature, **scored)

    @staticmethod
    def losses(y: np.ndarray, values: np.ndarray) -> np.ndarray:
        return log_losses(true_probabilities(values, y))

    @staticmethod
    def figures(y: np.ndarray, values: np.ndarray) -> dict[str, float | None]:
        return calculate_classification_metrics(y.astype(np.int64), values)


def choose_weight(
    truth: Sequence[np.ndarray],
    everywhere: Sequence[np.ndarray],
    own: Sequence[np.ndarray],
    loss: Callable[[np.ndarray], np.ndarray] = np.square,
) -> float:
    """The smallest weight that is not worse than the best by more than one standard error.

    The error is that of the paired difference in loss, the larger of the one over rows and the
    one over folds: many rows do not make up for two origins that disagree (Hastie, Tibshirani &
    Friedman, *The Elements of Statistical Learning*, 7.10, for the rule).

    Parameters
    ----------
    truth, everywhere, own : sequences of ndarray, shape (n_valid,) for each fold
        The outcome, the global forecast and the clusters' forecast.
    loss : callable
        Of the residuals, row by row.

    Returns
    -------
    float
        One of 0, 0.25, 0.5, 0.75 and 1.
    """
    losses = {
        weight: [
            loss(y - blend(g, c, weight)) for y, g, c in zip(truth, everywhere, own, strict=True)
        ]
        for weight in WEIGHTS
    }
    best = min(WEIGHTS, key=lambda weight: float(np.concatenate(losses[weight]).mean()))
    for weight in WEIGHTS:
        paired = [a - b for a, b in zip(losses[weight], losses[best], strict=True)]
        rows = np.concatenate(paired)
        by_fold = np.array([part.mean() for part in paired])
        error = max(_standard_error(rows), _standard_error(by_fold))
        if rows.mean() <= error:
            return weight
    return best


def _standard_error(values: np.ndarray) -> float:
    return float(values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else 0.0
