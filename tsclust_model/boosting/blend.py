"""LightGBM for each cluster beside a global one, blended where the clusters earn it.

`fit_outputs` is the work: it sees the time order and the groups. Each output (the target, or a
resource) becomes an immutable `OutputModel`, whose forecast of a row is
``(1 - w) * global + w * cluster``.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import lightgbm as lgb
import numpy as np

from tsclust_model.boosting.folds import Fold
from tsclust_model.boosting.intervals import Calibration, Support
from tsclust_model.boosting.packed_trees import Forest, is_packable
from tsclust_model.errors import DataValidationError, ModelTrainingError
from tsclust_model.metrics import RMSE, calculate_model_metrics
from tsclust_model.results import NOISE
from tsclust_model.shown import one_line

WEIGHTS = (0.0, 0.25, 0.5, 0.75, 1.0)

# One thread a model, models side by side: LightGBM's own threads gain little on small clusters,
# and the same text comes out whatever the number of cores.
_MANAGED = {"num_threads": 1, "deterministic": True, "force_row_wise": True, "verbose": -1}

_ABSOLUTE = frozenset({"regression_l1", "l1", "mae", "mape", "quantile"})

_FEWEST_FOLDS = 2

_FINAL = -1  # the fold of the models that are kept

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class FoldScores:
    """What each way of forecasting was worth on rows that no model had seen.

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
    clusters: dict[int, dict[str, Any]]
    metric: str = RMSE.name
    served: dict[str, float | None] = field(default_factory=dict)


class ClusterModels:
    """What models of clusters beside a global one have in common.

    Attributes
    ----------
    texts : mapping of int to str
        The LightGBM model of each cluster that is large enough; -1 is the global one.
    """

    texts: Mapping[int, str]

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


@one_line
@dataclass(frozen=True)
class OutputModel(ClusterModels):
    """Everything that forecasts one output.

    Attributes
    ----------
    texts : mapping of int to str
        The LightGBM model of each cluster that is large enough; -1 is the global one.
    weight : float
        Share (0 to 1) of the cluster's model in a forecast.
    calibration : Calibration
    scores : FoldScores
    support : Support
        What forecasts and bounds keep to.
    residuals : ndarray of float64, shape (n_valid,)
        y - forecast on the folds, oldest first; only after a fit, a loaded model has none.
    fold_losses : mapping of str to ndarray of float64, shape (n_valid,)
        Squared errors of the same rows for each way of `scores`; only after a fit.
    """

    texts: Mapping[int, str]
    weight: float
    calibration: Calibration
    scores: FoldScores
    support: Support = field(default_factory=Support)
    residuals: np.ndarray = field(default_factory=lambda: np.empty(0))
    fold_losses: Mapping[str, np.ndarray] = field(default_factory=dict)

    @property
    def losses(self) -> np.ndarray:
        """Squared errors on the folds, shape (n_valid,), oldest first; of a fitted model only."""
        return np.square(self.residuals)

    @cached_property
    def _alone(self) -> Ensemble:
        return Ensemble([self])

    def predict(
        self, X: np.ndarray, labels: np.ndarray, weight: float | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Forecast and the cluster model's share in it, shape (n,) each.

        Parameters
        ----------
        X : ndarray of float64, shape (n, n_features)
        labels : ndarray of int64, shape (n,)
        weight : float, optional
            Instead of the fitted weight: 0 is global only, 1 clusters only.
        """
        return self._alone.predict(X, labels, weight)[0]

    def bounds(
        self, prediction: np.ndarray, labels: np.ndarray, coverage: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """Lower and upper bound of each prediction; see `Calibration.bounds`."""
        return self.support.bounds(
            prediction, *self.calibration.bounds(prediction, labels, coverage)
        )

    def renumbered(self, ids: Mapping[int, int]) -> OutputModel:
        """The same models under other cluster ids."""

        def moved(found: Mapping[int, Any]) -> dict[int, Any]:
            return {ids.get(cluster, cluster): value for cluster, value in found.items()}

        return replace(
            self,
            texts=moved(self.texts),
            calibration=Calibration(moved(self.calibration.residuals)),
            scores=replace(self.scores, clusters=moved(self.scores.clusters)),
        )


class Ensemble:
    """The models of several outputs, which forecast a batch in one pass.

    Parameters
    ----------
    models : sequence of OutputModel
        Those that are plain sums of trees are packed (see `boosting.packed_trees`); the others ask
        LightGBM.
    """

    def __init__(
        self, models: Sequence[OutputModel], packed: Mapping[str, np.ndarray] | None = None
    ) -> None:
        self._models = list(models)
        self._packed = self._pack() if packed is None else dict(packed)
        self._forest = Forest.from_arrays(self._packed) if len(self._packed["outputs"]) else None

    def to_arrays(self) -> dict[str, np.ndarray]:
        """What packing the models' texts has found; the argument `packed` takes it back."""
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
            {name: np.array(found, np.int64) for name, found in numbers.items()}
            | {"own": own}
            | forest
        )

    def predict(
        self, X: np.ndarray, labels: np.ndarray, weight: float | None = None
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """`OutputModel.predict` of each output."""
        if len(X) == 0:
            return [(np.empty(0), np.empty(0)) for _ in self._models]
        shares = [model.weight if weight is None else weight for model in self._models]
        everyone, own = np.zeros((2, len(shares), len(X)))
        has_own = np.zeros(everyone.shape, dtype=bool)
        outputs = self._packed["outputs"]
        if self._forest is not None:
            clusters = self._packed["clusters"]
            places = np.searchsorted(clusters, labels)
            places[np.append(clusters, NOISE)[places] != labels] = len(clusters)
            wanted = np.where(np.array(shares)[outputs] > 0, self._packed["own"], NOISE)
            sums = self._forest.predict(X, places, wanted, np.arange(len(outputs)))
            everyone[outputs], own[outputs] = sums[: len(outputs)], sums[len(outputs) :]
            has_own[outputs] = wanted[places].T != NOISE
        for i in set(range(len(shares))) - set(outputs.tolist()):
            model = self._models[i]
            everyone[i] = booster_forecast(model.global_booster, X)
            for cluster, rows in rows_by_cluster(labels) if shares[i] > 0 else ():
                if cluster in model.cluster_boosters:
                    own[i, rows] = booster_forecast(model.cluster_boosters[cluster], X[rows])
                    has_own[i, rows] = True
        # A linear tree forecasts infinity for a row that is far outside: 0 of it is no warning.
        with np.errstate(invalid="ignore"):
            return [
                (
                    self._models[i].support.clipped(
                        np.where(has_own[i], blend(everyone[i], own[i], share), everyone[i])
                    ),
                    np.where(has_own[i], share, 0.0),
                )
                for i, share in enumerate(shares)
            ]


def fit_outputs(
    X: np.ndarray,
    outcomes: Mapping[str, np.ndarray],
    labels: np.ndarray,
    folds: Sequence[Fold],
    params: Mapping[str, Any],
    *,
    categorical: Sequence[int] = (),
    combine: str = "blend",
    min_cluster_rows: int = 40,
    clip: bool = True,
    whole: bool = True,
    progress: Progress | None = None,
) -> dict[str, OutputModel]:
    """Fit global and cluster models of each output, and choose their blend.

    Parameters
    ----------
    X : ndarray of float64, shape (n_samples, n_features)
        Rows in time order; NaN is missing.
    outcomes : mapping of str to ndarray of float64, shape (n_samples,)
        One entry an output.
    labels : ndarray of int64, shape (n_samples,)
        Segment of each row (after the fallback); -1 has no cluster model.
    folds : sequence of Fold
        Two or more; see `tsclust_model.boosting.folds.time_ordered_folds`.
    params : mapping
        LightGBM parameters.
    categorical : sequence of int
        Positions of categorical columns.
    combine : {'blend', 'cluster', 'global'}
        'blend' chooses the weight on the folds, 'cluster' sets it to 1 and 'global' to 0.
    min_cluster_rows : int
        A cluster with fewer rows uses the global model (in a fold: with fewer than the share of
        them that the fold trains on).
    clip, whole : bool
        Keep to the support of an outcome, see `Support.of`.
    progress : callable, optional
        Called with (models done, models in all).

    Raises
    ------
    DataValidationError
        Fewer than two folds.
    ModelTrainingError
        LightGBM refused the data or its parameters.
    """
    with model_threads() as threads:
        fits = OutputFits(threads, X, outcomes, folds, params, categorical=categorical)
        fits.add_clusters(labels, min_cluster_rows)
        return fits.finish(combine, progress, clip=clip, whole=whole)


def fold_blend(
    X: np.ndarray,
    y: np.ndarray,
    labels: np.ndarray,
    folds: Sequence[Fold],
    params: Mapping[str, Any],
    *,
    categorical: Sequence[int] = (),
    min_cluster_rows: int = 40,
    clip: bool = True,
) -> OutputModel:
    """The blend on the folds for any labels, e.g. shuffled ones as a control.

    The parameters are those of `fit_outputs`; what comes back has scores and no model.
    """
    with model_threads() as threads:
        fits = OutputFits(threads, X, {"y": y}, folds, params, categorical=categorical, final=False)
        fits.add_clusters(labels, min_cluster_rows)
        return fits.finish("blend", None, clip=clip)["y"]


@contextmanager
def model_threads() -> Iterator[ThreadPoolExecutor]:
    """Threads that fit models, for `OutputFits`; what waits is dropped when an error leaves."""
    # One more than there are cores: while one thread is in Python, another computes.
    threads = ThreadPoolExecutor((os.cpu_count() or 1) + 1)
    try:
        yield threads
    finally:
        threads.shutdown(cancel_futures=True)


@one_line
@dataclass(frozen=True)
class _Job:
    """The models of all outputs on the same rows; cluster -1 is the global one."""

    fold: int
    cluster: int
    rows: np.ndarray


@one_line
@dataclass
class Trained:
    """The models and out-of-fold forecasts of one output, as they come in.

    Attributes
    ----------
    texts : dict of int to str
        By cluster; -1 is the global model.
    forecasts : list of dict of int to ndarray
        Of each fold, by cluster: of the rows of its validation part that are of the cluster.
    """

    texts: dict[int, str]
    forecasts: list[dict[int, np.ndarray]]


class OutputFits:
    """Fits under way of the models of some outputs, the largest first.

    The global models need no segments. They are begun here, so that they are fitted while the
    segments are being found; `add_clusters` begins the others, and `finish` waits.

    Parameters
    ----------
    threads : Executor
        Of `model_threads`; several `OutputFits` may share it.
    X, outcomes, folds, params, categorical
        As for `fit_outputs`.
    final : bool
        Fit the models that are kept, too, not only those of the folds.
    """

    def __init__(
        self,
        threads: Executor,
        X: np.ndarray,
        outcomes: Mapping[str, np.ndarray],
        folds: Sequence[Fold],
        params: Mapping[str, Any],
        *,
        categorical: Sequence[int] = (),
        final: bool = True,
    ) -> None:
        self._threads, self._X, self._outcomes, self.folds = threads, X, outcomes, folds
        self._settings, self._categorical = training_params(params), categorical
        self._loss = np.abs if params.get("objective") in _ABSOLUTE else np.square
        self._parts = [(i, fold.train) for i, fold in enumerate(folds)]
        if final:
            self._parts.append((_FINAL, np.arange(len(X))))
        self._pending: dict[Future[dict[str, str] | dict[str, np.ndarray]], _Job] = {}
        if len(folds) >= _FEWEST_FOLDS:
            self._begin([(fold, NOISE, train) for fold, train in self._parts])

    def add_clusters(self, labels: np.ndarray, min_cluster_rows: int) -> None:
        """Begin the models of the clusters.

        A fold evaluates the clusters whose models are kept, so it asks of a cluster the share of
        `min_cluster_rows` that its training part has of all rows.

        Raises
        ------
        DataValidationError
            Fewer than two folds.
        """
        if len(self.folds) < _FEWEST_FOLDS:
            raise DataValidationError(
                f"{len(self._X)} rows, or their ids, are too few for two folds; give more rows, "
                "or train without id if a few ids hold most of them"
            )
        self._labels = labels
        kept = {
            cluster
            for cluster, rows in rows_by_cluster(labels)
            if cluster != NOISE and len(rows) >= min_cluster_rows
        }
        self._begin(
            [
                (fold, cluster, train[rows])
                for fold, train in self._parts
                for cluster, rows in rows_by_cluster(labels[train])
                if cluster in kept
                and len(rows) * len(labels) >= min_cluster_rows * len(train)
                and self._can_be_fitted(train[rows])
            ]
        )

    def _can_be_fitted(self, rows: np.ndarray) -> bool:
        """Whether these rows can make a model of a cluster."""
        return True

    def _forecast(self, booster: lgb.Booster, X: np.ndarray) -> np.ndarray:
        """The forecast of a fold's model, a row for each row of X."""
        return booster_forecast(booster, X)

    def _begin(self, parts: list[tuple[int, int, np.ndarray]]) -> None:
        for fold, cluster, rows in sorted(parts, key=lambda part: -len(part[2])):
            job = _Job(fold, cluster, rows)
            self._pending[self._threads.submit(self._fit, job)] = job

    def _fit(self, job: _Job) -> dict[str, str] | dict[str, np.ndarray]:
        """The texts of models that are kept; the forecasts of those that are not.

        A global model of a fold forecasts all of the fold's rows, before the clusters are known.
        """
        boosters = train_boosters(
            self._X[job.rows],
            {name: y[job.rows] for name, y in self._outcomes.items()},
            self._settings,
            self._categorical,
        )
        if job.fold == _FINAL:
            return {name: str(booster.model_to_string()) for name, booster in boosters}
        valid = self.folds[job.fold].valid
        if job.cluster != NOISE:
            valid = valid[self._labels[valid] == job.cluster]
        return {name: self._forecast(booster, self._X[valid]) for name, booster in boosters}

    def finish(
        self, combine: str, progress: Progress | None, *, clip: bool = True, whole: bool = True
    ) -> dict[str, OutputModel]:
        """Wait for every model, and put each output together; see `fit_outputs`."""
        trained = self._collect(progress)
        return {
            name: _output_model(
                *(y, self._labels, self.folds, trained[name], combine, self._loss),
                Support.of(y, clip=clip, whole=whole),
            )
            for name, y in self._outcomes.items()
        }

    def _collect(self, progress: Progress | None) -> dict[str, Trained]:
        """Wait for every model."""
        trained = {name: Trained({}, [{} for _ in self.folds]) for name in self._outcomes}
        done = 0
        for future in as_completed(self._pending):
            job = self._pending[future]
            for name, answer in future.result().items():
                if isinstance(answer, str):
                    trained[name].texts[job.cluster] = answer
                else:
                    trained[name].forecasts[job.fold][job.cluster] = answer
                done += 1
                if progress is not None:
                    progress(done, len(self._pending) * len(trained))
        return trained


def rows_by_cluster(labels: np.ndarray) -> list[tuple[int, np.ndarray]]:
    """Each label with the sorted positions of its rows, in one sort."""
    order = np.argsort(labels, kind="stable")
    clusters, starts = np.unique(labels[order], return_index=True)
    parts = np.split(order, starts[1:])
    return [(int(cluster), rows) for cluster, rows in zip(clusters, parts, strict=True)]


def training_params(params: Mapping[str, Any]) -> dict[str, Any]:
    settings = dict(params) | _MANAGED
    return {"n_estimators": 100} | settings


def train_boosters(
    X: np.ndarray,
    outcomes: Mapping[str, np.ndarray],
    settings: Mapping[str, Any],
    categorical: Sequence[int],
) -> Iterator[tuple[str, lgb.Booster]]:
    """A model of each outcome; the rows are sorted into bins once."""
    params = dict(settings)
    rounds = params.pop("n_estimators")
    data = lgb.Dataset(X, categorical_feature=list(categorical), free_raw_data=True)
    try:
        for name, y in outcomes.items():
            data.set_label(y)
            booster = lgb.train(params, data, num_boost_round=rounds, keep_training_booster=True)
            yield name, booster
    except lgb.basic.LightGBMError as error:
        raise ModelTrainingError(f"LightGBM refused the data or its parameters: {error}") from error


def booster_forecast(booster: lgb.Booster, X: np.ndarray) -> np.ndarray:
    """LightGBM's own forecast, by one thread; each row's answer depends on that row alone."""
    if len(X) == 0:
        return np.empty(0)
    return np.asarray(booster.predict(X, num_threads=1), dtype=np.float64)


def blend(everyone: np.ndarray, own: np.ndarray, weight: float) -> np.ndarray:
    """``(1 - weight) * everyone + weight * own``."""
    return (1.0 - weight) * everyone + weight * own


def fold_forecasts(
    labels: np.ndarray, folds: Sequence[Fold], trained: Trained
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Of each fold's validation rows, the global forecast and that of the clusters' models (of
    the global one where a cluster has none)."""
    everyone, own = [], []
    for fold, forecasts in zip(folds, trained.forecasts, strict=True):
        everyone.append(forecasts[NOISE])
        alone = forecasts[NOISE].copy()
        for cluster, forecast in forecasts.items():
            if cluster != NOISE:
                alone[labels[fold.valid] == cluster] = forecast
        own.append(alone)
    return everyone, own


def _output_model(
    y: np.ndarray,
    labels: np.ndarray,
    folds: Sequence[Fold],
    trained: Trained,
    combine: str,
    loss: Callable[[np.ndarray], np.ndarray],
    support: Support,
) -> OutputModel:
    """Put the pieces of one output together: weight, calibration and scores."""
    everyone, own = fold_forecasts(labels, folds, trained)
    truth = [y[fold.valid] for fold in folds]
    if combine == "blend":
        weight = choose_weight(truth, everyone, own, loss)
    else:
        weight = 1.0 if combine == "cluster" else 0.0
    served = [blend(g, c, weight) for g, c in zip(everyone, own, strict=True)]

    seen = np.concatenate([labels[fold.valid] for fold in folds])
    y_all = np.concatenate(truth)
    ways = {
        way: support.clipped(np.concatenate(parts))
        for way, parts in {"global": everyone, "cluster": own, "blend": served}.items()
    }
    served_all = ways["blend"]
    scores = FoldScores(
        n_rows=len(y_all),
        errors={way: _rmse(y_all, forecast) for way, forecast in ways.items()},
        clusters={
            cluster: calculate_model_metrics(y_all[rows], served_all[rows]) | {"n_rows": len(rows)}
            for cluster, rows in rows_by_cluster(seen)
        },
    )
    return OutputModel(
        texts=dict(sorted(trained.texts.items())),
        weight=weight,
        calibration=Calibration.fit(y_all - served_all, seen),
        scores=scores,
        support=support,
        residuals=y_all - served_all,
        fold_losses={way: np.square(y_all - forecast) for way, forecast in ways.items()},
    )


def choose_weight(
    truth: Sequence[np.ndarray],
    everyone: Sequence[np.ndarray],
    own: Sequence[np.ndarray],
    loss: Callable[[np.ndarray], np.ndarray] = np.square,
) -> float:
    """The smallest weight that is not worse than the best by more than one standard error.

    The error is that of the paired difference in loss, the larger of the one over rows and the
    one over folds: many rows do not make up for two origins that disagree (Hastie, Tibshirani &
    Friedman, *The Elements of Statistical Learning*, 7.10, for the rule).

    Parameters
    ----------
    truth, everyone, own : sequences of ndarray, shape (n_valid,) for each fold
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
            loss(y - blend(g, c, weight)) for y, g, c in zip(truth, everyone, own, strict=True)
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


def _rmse(y: np.ndarray, forecast: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(y - forecast))))
