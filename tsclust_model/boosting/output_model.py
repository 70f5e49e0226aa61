"""What forecasts one output: LightGBM of each cluster beside a global one, and their blend.

The forecast of a row is ``(1 - w) * global + w * cluster``, of a number (`NumberModel`) or of the
probabilities of classes (`ClassModel`). `boosting.blend` fits them.
"""

from __future__ import annotations

import math
import operator
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from itertools import repeat
from typing import Any, ClassVar, Self

import lightgbm as lgb
import numpy as np
from scipy.optimize import minimize_scalar

from tsclust_model.boosting.boosters import booster_forecast, class_forecast, rows_by_cluster
from tsclust_model.boosting.intervals import Calibration, Support, renumbered_keys
from tsclust_model.boosting.packed_trees import Forest, is_packable
from tsclust_model.errors import PredictionError
from tsclust_model.metrics import RMSE, log_losses, true_probabilities
from tsclust_model.results import NOISE, ClusterFigures
from tsclust_model.shown import one_line

_HOTTEST = 10.0  # and coldest 1 / 10; what lies beyond is no calibration

_TINY = 1e-300


@dataclass(frozen=True)
class FoldScores:
    """How good each way of forecasting was on rows that no model had seen.

    Attributes
    ----------
    n_rows : int
        Rows in the validation parts of the folds.
    errors : dict of str to float
        The metric of ``global``, ``cluster`` (clusters alone) and ``blend`` (what is served).
    clusters : dict of int to dict
        Figures and ``n_rows`` of what is served, for each cluster.
    metric : str
        What the errors are, a name of `tsclust_model.metrics.METRICS`.
    served : dict of str to float
        Further figures of what is served, e.g. ``accuracy`` of classes.
    """

    n_rows: int
    errors: dict[str, float]
    clusters: dict[int, ClusterFigures]
    metric: str = RMSE.name
    served: dict[str, float | None] = field(default_factory=dict)

    @classmethod
    def from_dict(cls, scores: Mapping[str, Any]) -> FoldScores:
        """The scores of ``asdict``, through JSON."""
        return cls(
            scores["n_rows"],
            scores["errors"] if "errors" in scores else scores["rmse"],  # older builds
            {int(cluster): figures for cluster, figures in scores["clusters"].items()},
            scores.get("metric", RMSE.name),
            scores.get("served", {}),
        )


@one_line
@dataclass(frozen=True, kw_only=True)
class OutputModel(ABC):
    """Everything that forecasts one output.

    Attributes
    ----------
    texts : mapping of int to str
        The LightGBM model of each cluster that is large enough; -1 is the global one.
    weight : float
        Share (0 to 1) of the cluster's model in a forecast.
    scores : FoldScores
    fold_values : ndarray of float64, shape (n_valid,) or (n_valid, n_classes)
        What is served, forecast on the folds, oldest first; only after a fit, a loaded model has
        none.
    fold_losses : mapping of str to ndarray of float64, shape (n_valid,)
        Losses of the same rows for each way of `scores`; only after a fit.
    """

    texts: Mapping[int, str]
    weight: float
    scores: FoldScores
    fold_values: np.ndarray = field(default_factory=lambda: np.empty(0))
    fold_losses: Mapping[str, np.ndarray] = field(default_factory=dict)
    has_arrays: ClassVar[bool] = True

    @property
    def clusters(self) -> list[int]:
        """The clusters that have a model of their own."""
        return sorted(cluster for cluster in self.texts if cluster != NOISE)

    @property
    def global_text(self) -> str:
        return self.texts[NOISE]

    @property
    def cluster_texts(self) -> dict[int, str]:
        return {cluster: self.texts[cluster] for cluster in self.clusters}

    @cached_property
    def global_booster(self) -> lgb.Booster:
        return lgb.Booster(model_str=self.global_text)

    @cached_property
    def cluster_boosters(self) -> dict[int, lgb.Booster]:
        return {
            cluster: lgb.Booster(model_str=text) for cluster, text in self.cluster_texts.items()
        }

    @property
    def summed(self) -> list[NumberModel]:
        """Itself where an `Ensemble` can forecast it."""
        return []

    @abstractmethod
    def predict(
        self, X: np.ndarray, labels: np.ndarray, weight: float | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Forecast, and the cluster model's share in it, shape (n,).

        Parameters
        ----------
        X : ndarray of float64, shape (n, n_features)
        labels : ndarray of int64, shape (n,)
        weight : float, optional
            Instead of the fitted weight: 0 is global only, 1 clusters only.
        """

    @abstractmethod
    def bounds(
        self, values: np.ndarray, labels: np.ndarray, coverage: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """Lower and upper bound of each forecast, shape (n,); NaN where an output has none."""

    @abstractmethod
    def quantiles(
        self, values: np.ndarray, labels: np.ndarray, probabilities: Sequence[float]
    ) -> np.ndarray:
        """Quantiles around each forecast, shape (n_probabilities, n); they never cross.

        The bounds of a coverage ``c`` are those of ``(1 - c) / 2`` and ``(1 + c) / 2``, and the
        median is the forecast.

        Raises
        ------
        PredictionError
            Some are asked of classes.
        """

    def recalibrated(self, y: np.ndarray, values: np.ndarray, labels: np.ndarray) -> Self:
        """With intervals from outcomes and out-of-sample forecasts of rows, where it has any."""
        return self

    def renumbered(self, ids: Mapping[int, int]) -> Self:
        """The same models under other cluster ids."""
        scores = replace(self.scores, clusters=renumbered_keys(self.scores.clusters, ids))
        return replace(self, texts=renumbered_keys(self.texts, ids), scores=scores)

    def to_state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """JSON-ready values and arrays, but for the texts; `from_state` reads them back."""
        own = {"clusters": self.clusters, "weight": self.weight, "scores": asdict(self.scores)}
        return own, {}

    @classmethod
    def from_state(
        cls,
        texts: Mapping[int, str],
        content: Mapping[str, Any],
        arrays: Mapping[str, np.ndarray],
    ) -> Self:
        scores = FoldScores.from_dict(content["scores"])
        own = cls._own_state(content, arrays)
        return cls(texts=texts, weight=content["weight"], scores=scores, **own)

    @classmethod
    @abstractmethod
    def _own_state(
        cls, content: Mapping[str, Any], arrays: Mapping[str, np.ndarray]
    ) -> dict[str, Any]:
        """The fields that this class adds."""


@one_line
@dataclass(frozen=True, kw_only=True)
class NumberModel(OutputModel):
    """Everything that forecasts a number; see `OutputModel`.

    Attributes
    ----------
    calibration : Calibration
    support : Support
        What forecasts and bounds keep to.
    """

    calibration: Calibration
    support: Support = field(default_factory=Support)

    @property
    def summed(self) -> list[NumberModel]:
        return [self]

    @cached_property
    def _alone(self) -> Ensemble:
        return Ensemble([self])

    def predict(
        self, X: np.ndarray, labels: np.ndarray, weight: float | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        return self._alone.predict(X, labels, weight)[0]

    def bounds(
        self, values: np.ndarray, labels: np.ndarray, coverage: float
    ) -> tuple[np.ndarray, np.ndarray]:
        lower, upper = self.calibration.bounds(values, labels, coverage)
        return self.support.bounds(values, lower, upper)

    def quantiles(
        self, values: np.ndarray, labels: np.ndarray, probabilities: Sequence[float]
    ) -> np.ndarray:
        if not probabilities:
            return np.empty((0, len(values)))
        found = self.calibration.quantiles(values, labels, probabilities)
        kept = map(self.support.quantile, repeat(values), found, probabilities)
        return np.array([*kept])

    def recalibrated(self, y: np.ndarray, values: np.ndarray, labels: np.ndarray) -> Self:
        return replace(self, calibration=Calibration.fit(y - values, labels))

    def renumbered(self, ids: Mapping[int, int]) -> Self:
        return replace(super().renumbered(ids), calibration=self.calibration.renumbered(ids))

    def to_state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        own, _ = super().to_state()
        residuals = {str(cluster): values for cluster, values in self.calibration.residuals.items()}
        return own | {"support": asdict(self.support)}, residuals

    @classmethod
    def _own_state(
        cls, content: Mapping[str, Any], arrays: Mapping[str, np.ndarray]
    ) -> dict[str, Any]:
        return {
            "calibration": Calibration({int(cluster): r for cluster, r in arrays.items()}),
            "support": Support(**content.get("support", {})),  # older builds keep to none
        }


@one_line
@dataclass(frozen=True, kw_only=True)
class ClassModel(OutputModel):
    """Everything that forecasts the probabilities of classes; see `OutputModel`.

    Attributes
    ----------
    temperature : float
        Calibrates: the probabilities are proportional to ``p ** (1 / temperature)``. Above 1 they
        are made less sure of themselves; the order of classes stays.
    """

    temperature: float
    has_arrays: ClassVar[bool] = False

    def predict(
        self, X: np.ndarray, labels: np.ndarray, weight: float | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        share = self.weight if weight is None else weight
        P, shares = class_forecast(self.global_booster, X), np.zeros(len(X))
        for cluster, rows in rows_by_cluster(labels) if share > 0 and len(X) else ():
            if cluster in self.cluster_boosters:
                own = class_forecast(self.cluster_boosters[cluster], X[rows])
                P[rows], shares[rows] = blend(P[rows], own, share), share
        return tempered(P, self.temperature), shares

    def bounds(
        self, values: np.ndarray, labels: np.ndarray, coverage: float
    ) -> tuple[np.ndarray, np.ndarray]:
        none = np.full(len(values), np.nan)
        return none, none

    def quantiles(
        self, values: np.ndarray, labels: np.ndarray, probabilities: Sequence[float]
    ) -> np.ndarray:
        if len(probabilities):
            raise PredictionError(
                "quantiles are of numbers, and this model forecasts classes; leave quantiles out"
            )
        return np.empty((0, len(values)))

    def to_state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        own, arrays = super().to_state()
        return own | {"temperature": self.temperature}, arrays

    @classmethod
    def _own_state(
        cls, content: Mapping[str, Any], arrays: Mapping[str, np.ndarray]
    ) -> dict[str, Any]:
        return {"temperature": content["temperature"]}


@one_line
@dataclass(frozen=True)
class Packing:
    """What packing some models' texts gave.

    Attributes
    ----------
    texts : list of mapping of int to str
        Of each model.
    arrays : mapping of str to ndarray
        Of `Ensemble.to_arrays`.
    """

    texts: list[Mapping[int, str]]
    arrays: Mapping[str, np.ndarray]

    def is_of(self, models: Sequence[OutputModel]) -> bool:
        """Whether these are the models."""
        texts = [model.texts for model in models]
        return len(texts) == len(self.texts) and all(map(operator.is_, texts, self.texts))


class Ensemble:
    """The models of several outputs, which forecast a batch in one pass.

    Parameters
    ----------
    models : sequence of NumberModel
        Those that are plain sums of trees are packed (see `boosting.packed_trees`); the others ask
        LightGBM.
    packing : Packing, optional
        Taken if it is of the same models.
    """

    def __init__(self, models: Sequence[NumberModel], packing: Packing | None = None) -> None:
        self._models = list(models)
        if packing is not None and packing.is_of(models):
            self._packed = dict(packing.arrays)
        else:
            self._packed = self._pack()
        self._forest = Forest.from_arrays(self._packed) if len(self._packed["outputs"]) else None

    def to_arrays(self) -> dict[str, np.ndarray]:
        """What packing the models' texts gave, for a `Packing`."""
        return self._packed

    def _pack(self) -> dict[str, np.ndarray]:
        clusters = sorted({cluster for model in self._models for cluster in model.clusters})
        outputs = [
            i for i, model in enumerate(self._models) if all(map(is_packable, model.texts.values()))
        ]
        packed = [self._models[i] for i in outputs]
        texts = [model.global_text for model in packed]
        # The last row stands for rows without a cluster model.
        own = np.full((len(clusters) + 1, len(packed)), NOISE)
        for output, model in enumerate(packed):
            rows = np.searchsorted(clusters, model.clusters)
            own[rows, output] = len(texts) + np.arange(len(rows))
            texts += model.cluster_texts.values()
        forest = Forest.pack(texts).to_arrays() if packed else {}
        numbers = {"clusters": clusters, "outputs": outputs}
        return (
            {name: np.array(positions, np.int64) for name, positions in numbers.items()}
            | {"own": own}
            | forest
        )

    def predict(
        self, X: np.ndarray, labels: np.ndarray, weight: float | None = None
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """`NumberModel.predict` of each output."""
        if len(X) == 0:
            return [(np.empty(0), np.empty(0)) for _ in self._models]
        shares = [model.weight if weight is None else weight for model in self._models]
        everywhere, own = np.zeros((2, len(shares), len(X)))
        has_own = np.zeros(everywhere.shape, dtype=bool)
        outputs = self._packed["outputs"]
        if self._forest is not None:
            clusters = self._packed["clusters"]
            places = np.searchsorted(clusters, labels)
            places[np.append(clusters, NOISE)[places] != labels] = len(clusters)
            wanted = np.where(np.array(shares)[outputs] > 0, self._packed["own"], NOISE)
            sums = self._forest.predict(X, places, wanted, np.arange(len(outputs)))
            everywhere[outputs], own[outputs] = sums[: len(outputs)], sums[len(outputs) :]
            has_own[outputs] = wanted[places].T != NOISE
        for i in set(range(len(shares))) - set(outputs.tolist()):
            model = self._models[i]
            everywhere[i] = booster_forecast(model.global_booster, X)
            for cluster, rows in rows_by_cluster(labels) if shares[i] > 0 else ():
                if cluster in model.cluster_boosters:
                    own[i, rows] = booster_forecast(model.cluster_boosters[cluster], X[rows])
                    has_own[i, rows] = True
        # A linear tree forecasts infinity for a row that is far outside: 0 of it is no warning.
        with np.errstate(invalid="ignore"):
            return [
                (
                    self._models[i].support.clipped(
                        np.where(has_own[i], blend(everywhere[i], own[i], share), everywhere[i])
                    ),
                    np.where(has_own[i], share, 0.0),
                )
                for i, share in enumerate(shares)
            ]


def blend(everywhere: np.ndarray, own: np.ndarray, weight: float) -> np.ndarray:
    """``(1 - weight) * everywhere + weight * own``."""
    return (1.0 - weight) * everywhere + weight * own


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
        warmed = tempered(P, math.exp(log_temperature))
        return float(log_losses(true_probabilities(warmed, codes)).mean())

    limit = math.log(_HOTTEST)
    best = minimize_scalar(loss, bounds=(-limit, limit), method="bounded")
    return math.exp(float(best.x))
