"""Fits LightGBM of each cluster beside a global one, and blends them where the clusters earn it.

`fit_outputs` sees the time order and the groups. A `Recipe` says how outputs of a sort are fitted:
numbers (`NumberRecipe`) or classes (`ClassRecipe`, whose probabilities are blended).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, Future, as_completed
from dataclasses import dataclass

import numpy as np

from tsclust_model.boosting.boosters import model_threads, rows_by_cluster
from tsclust_model.boosting.folds import Fold
from tsclust_model.boosting.output_model import OutputModel, blend
from tsclust_model.boosting.recipes import Answers, OutOfFold, Recipe
from tsclust_model.errors import DataValidationError
from tsclust_model.results import NOISE
from tsclust_model.shown import one_line

_FEWEST_FOLDS = 2

FINAL = -1
"""The fold of the models that are kept."""

Progress = Callable[[int, int], None]


def fit_outputs(
    X: np.ndarray,
    outcomes: Mapping[str, np.ndarray],
    labels: np.ndarray,
    folds: Sequence[Fold],
    recipe: Recipe,
    *,
    final: bool = True,
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
        Segment of each row (after the fallback), or any others, e.g. shuffled ones as a control;
        -1 has no cluster model.
    folds : sequence of Fold
        Two or more; see `tsclust_model.boosting.folds.time_ordered_folds`.
    recipe : Recipe
    final : bool
        Fit the models that are kept, too; without them what comes back has scores and no model.
    progress : callable, optional
        Called with (models done, models in all).

    Raises
    ------
    DataValidationError
        Fewer than two folds, or one that would learn from one class only.
    ModelTrainingError
        LightGBM refused the data or its parameters.
    """
    with model_threads() as threads:
        fits = OutputFits(threads, X, outcomes, folds, recipe, final=final)
        fits.add_clusters(labels)
        return fits.finish(progress)


@one_line
@dataclass(frozen=True)
class _Job:
    """The models of all outputs on the same rows; cluster -1 is the global one."""

    fold: int
    cluster: int
    rows: np.ndarray


class OutputFits:
    """Fits under way of the models of some outputs, the largest first.

    The global models need no segments. They are begun here, so that they are fitted while the
    segments are being found; `add_clusters` begins the others, and `finish` waits.

    Parameters
    ----------
    threads : Executor
        Of `model_threads`; several `OutputFits` may share it.
    X, outcomes, folds, recipe, final
        As for `fit_outputs`.
    """

    def __init__(
        self,
        threads: Executor,
        X: np.ndarray,
        outcomes: Mapping[str, np.ndarray],
        folds: Sequence[Fold],
        recipe: Recipe,
        *,
        final: bool = True,
    ) -> None:
        for name, y in outcomes.items():
            for fold in folds:
                refuse_one_class(recipe, name, y[fold.train], len(fold.train), len(y))
        self._threads, self._X, self._outcomes = threads, X, outcomes
        self.folds, self._recipe = folds, recipe
        self._parts = [(i, fold.train) for i, fold in enumerate(folds)]
        if final:
            self._parts.append((FINAL, np.arange(len(X))))
        self._pending: dict[Future[Answers], _Job] = {}
        if len(folds) >= _FEWEST_FOLDS:
            self._begin([(fold, NOISE, train) for fold, train in self._parts])

    def add_clusters(self, labels: np.ndarray) -> None:
        """Begin the models of the clusters that are large enough, see `is_fitted`.

        Raises
        ------
        DataValidationError
            Fewer than two folds.
        """
        refuse_few_folds(len(self.folds), len(self._X))
        self._labels, fewest = labels, self._recipe.min_cluster_rows
        sizes = {cluster: len(rows) for cluster, rows in rows_by_cluster(labels)}
        self._begin(
            [
                (fold, cluster, train[rows])
                for fold, train in self._parts
                for cluster, rows in rows_by_cluster(labels[train])
                if cluster != NOISE
                and is_fitted(fewest, (sizes[cluster], len(labels)), (len(rows), len(train)))
                and all(self._recipe.can_learn(y[train[rows]]) for y in self._outcomes.values())
            ]
        )

    def _begin(self, parts: list[tuple[int, int, np.ndarray]]) -> None:
        for fold, cluster, rows in sorted(parts, key=lambda part: -len(part[2])):
            job = _Job(fold, cluster, rows)
            self._pending[self._threads.submit(self._fit, job)] = job

    def _fit(self, job: _Job) -> Answers:
        """The texts of models that are kept; the forecasts of those that are not.

        A global model of a fold forecasts all of the fold's rows, before the clusters are known.
        """
        X, later = self._X, None
        if job.fold != FINAL:
            valid = self.folds[job.fold].valid
            if job.cluster != NOISE:
                valid = valid[self._labels[valid] == job.cluster]
            later = X[valid]
        outcomes = {name: y[job.rows] for name, y in self._outcomes.items()}
        return self._recipe.fit(X[job.rows], outcomes, later)

    def finish(self, progress: Progress | None = None) -> dict[str, OutputModel]:
        """Wait for every model, and put each output together."""
        answers: dict[tuple[int, int], Answers] = {}
        for done, future in enumerate(as_completed(self._pending), 1):
            job, n = self._pending[future], len(self._outcomes)
            answers[job.fold, job.cluster] = future.result()
            if progress is not None:
                for model in range(n):
                    progress((done - 1) * n + model + 1, len(self._pending) * n)
        folds = [{name: y[fold.valid] for name, y in self._outcomes.items()} for fold in self.folds]
        labels = [self._labels[fold.valid] for fold in self.folds]
        return assembled(self._recipe, self._outcomes, folds, labels, answers)


def refuse_one_class(recipe: Recipe, name: str, y: np.ndarray, n_train: int, n_rows: int) -> None:
    """Refuse a fold whose training part, or the ends of it, cannot make a model."""
    if not recipe.can_learn(y):
        raise DataValidationError(
            f"the oldest {n_train} of {n_rows} rows hold one class of '{name}' only; give more "
            "rows, or take out the oldest"
        )


def refuse_few_folds(n_folds: int, n_rows: int) -> None:
    """Refuse what cannot be split by time."""
    if n_folds < _FEWEST_FOLDS:
        raise DataValidationError(
            f"{n_rows} rows, or their ids, are too few for two folds; give more rows, "
            "or train without id if a few ids hold most of them"
        )


def is_fitted(fewest: int, everywhere: tuple[int, int], fold: tuple[int, int]) -> bool:
    """Whether a cluster has a model in a fold: its rows and all rows, of all and of the fold's.

    A fold evaluates the clusters whose models are kept, so it asks of a cluster the share of
    `fewest` that its training part has of all rows.
    """
    return everywhere[0] >= fewest and fold[0] * everywhere[1] >= fewest * fold[1]


def assembled(
    recipe: Recipe,
    outcomes: Mapping[str, np.ndarray],
    truth: Sequence[Mapping[str, np.ndarray]],
    labels: Sequence[np.ndarray],
    answers: Mapping[tuple[int, int], Answers],
) -> dict[str, OutputModel]:
    """Put each output together from what the fits of its groups have answered.

    Parameters
    ----------
    recipe : Recipe
    outcomes : mapping of str to ndarray of float64, shape (n_samples,)
        All that are fitted; only their support counts, see `Support.of`.
    truth : sequence of mapping of str to ndarray of float64, shape (n_valid,)
        For each fold, the outcomes of its validation rows.
    labels : sequence of ndarray of int64, shape (n_valid,)
        Their segments.
    answers : mapping of (fold, cluster) to Answers
        Of `Recipe.fit`: of folds the forecasts of the validation rows (of the cluster, in their
        order), of `FINAL` the models. Cluster -1 is the global model.
    """
    return {
        name: _assembled(recipe, name, y, [fold[name] for fold in truth], labels, answers)
        for name, y in outcomes.items()
    }


def _assembled(
    recipe: Recipe,
    name: str,
    y: np.ndarray,
    truth: list[np.ndarray],
    labels: Sequence[np.ndarray],
    answers: Mapping[tuple[int, int], Answers],
) -> OutputModel:
    everywhere, own = [], []
    for i, clusters in enumerate(labels):
        everywhere.append(answers[i, NOISE][name])
        alone = everywhere[i].copy()
        for (part, cluster), answer in answers.items():
            if part == i and cluster != NOISE:
                alone[clusters == cluster] = answer[name]
        own.append(alone)
    weight = {"cluster": 1.0, "global": 0.0}.get(recipe.combine)
    if weight is None:
        weight = recipe.weight(truth, everywhere, own)
    served = [blend(g, c, weight) for g, c in zip(everywhere, own, strict=True)]
    texts = {cluster: answer[name] for (part, cluster), answer in answers.items() if part == FINAL}
    known = OutOfFold(
        truth, {"global": everywhere, "cluster": own, "blend": served}, np.concatenate(labels)
    )
    return recipe.model(dict(sorted(texts.items())), weight, y, known)
