"""The models of some outputs, fitted where the rows are: the fits and the blend of `fit_outputs`.

A group is the rows of one segment, or all of them, as a fold or the models that are kept train on
them. Each is fitted by one task, from rows in the order of their number, by `Recipe.fit`, so that
the trees have the bits of a fit in one process, however the table is split. Rows are left out by
a hash of their number, which is the same rows under any split.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F  # noqa: N812  # its name in the docs of Spark

from tsclust_model.boosting.blend import (
    FINAL,
    assembled,
    is_fitted,
    refuse_few_folds,
    refuse_one_class,
)
from tsclust_model.boosting.output_model import OutputModel
from tsclust_model.boosting.recipes import Answers, Recipe
from tsclust_model.results import NOISE
from tsclust_model.shown import one_line

ROW, PART, CLUSTER, FEATURES, OUTCOMES = "row", "part", "cluster", "features", "outcomes"
"""Columns of rows: a number of its own in time order (long); the folds that train on it (int, from
0: of F folds, fold i trains on the parts up to i and evaluates part i + 1); its segment (long); the
encoded features and the outcomes (arrays of double, NaN is missing)."""

_FOLD, _TRAINS, _EVALUATES = "fold", "trains", "evaluates"

_SCALE = 1 << 30

_ANSWER = (
    f"{CLUSTER} long, {_FOLD} int, output string, model string, forecast array<double>, width int"
)


@one_line
@dataclass(frozen=True)
class Caps:
    """How many rows one task trains on at most, about, and the seed of their choice.

    Attributes
    ----------
    cluster_rows : int
        Of one segment.
    global_rows : int
        Of the global model, and rows that the folds evaluate.
    seed : int
    """

    cluster_rows: int = 200_000
    global_rows: int = 1_000_000
    seed: int = 42

    def share(self, cluster: int, n_rows: int) -> int:
        """How many of `_SCALE` hashes are in."""
        most = self.global_rows if cluster == NOISE else self.cluster_rows
        return _SCALE if n_rows <= most else _SCALE * most // n_rows


@one_line
@dataclass(frozen=True)
class _Sizes:
    """What the driver knows of the rows: sums by segment and part.

    Attributes
    ----------
    rows : dict of (cluster, part) to int
    ends : dict of (cluster, part) to ndarray of float64, shape (2, n_outputs)
        Least and largest outcomes.
    """

    rows: dict[tuple[int, int], int]
    ends: dict[tuple[int, int], np.ndarray]

    def keys(self, cluster: int, fold: int) -> list[tuple[int, int]]:
        """Those of a group; cluster -1 is all of them."""
        return [
            (c, part)
            for c, part in self.rows
            if cluster in (NOISE, c) and (fold == FINAL or part <= fold)
        ]

    def n_rows(self, cluster: int, fold: int) -> int:
        return sum(self.rows[key] for key in self.keys(cluster, fold))

    def outcomes(self, cluster: int, fold: int) -> np.ndarray:
        """The ends of a group's outcomes, shape (n, n_outputs)."""
        return np.concatenate([self.ends[key] for key in self.keys(cluster, fold)])


def fit_on_spark(
    rows: DataFrame, names: Sequence[str], recipe: Recipe, n_folds: int, caps: Caps | None = None
) -> tuple[dict[str, OutputModel], list[int]]:
    """Fit global and cluster models of each output in the executors, and choose their blend.

    Parameters
    ----------
    rows : DataFrame
        The columns `ROW`, `PART`, `CLUSTER`, `FEATURES` and `OUTCOMES`; it is read three times.
    names : sequence of str
        The outputs, as `OUTCOMES` has them.
    recipe : Recipe
    n_folds : int
    caps : Caps, optional

    Returns
    -------
    models : dict of str to OutputModel
        Those of `fit_outputs` on the same rows, as long as no cap is reached.
    capped : list of int
        Segments of which a hash chose the rows.

    Raises
    ------
    DataValidationError
        See `fit_outputs`.
    """
    caps = caps or Caps()
    sizes = _sizes(rows)
    groups = _groups(sizes, names, recipe, n_folds)
    refuse_few_folds(n_folds, sizes.n_rows(NOISE, FINAL))
    n_evaluated = sum(n for (_, part), n in sizes.rows.items() if part > 0)
    evaluated = _SCALE * min(caps.global_rows, n_evaluated) // max(n_evaluated, 1)
    shares = {cluster: caps.share(cluster, sizes.n_rows(cluster, FINAL)) for cluster, _ in groups}
    hashed = F.pmod(F.xxhash64(F.lit(caps.seed), F.col(ROW)), F.lit(_SCALE))
    table = rows.withColumn("hash", hashed).withColumn("in", F.col("hash") < evaluated)
    answers = _answers(_grouped(table, groups, shares), names, recipe)
    truth, labels = _evaluated(table, names, n_folds)
    support = _support(rows, names)
    capped = sorted(c for c, share in shares.items() if c != NOISE and share < _SCALE)
    return assembled(recipe, support, truth, labels, answers), capped


def _sizes(rows: DataFrame) -> _Sizes:
    numbers = F.col(OUTCOMES)
    found = (
        rows.select(CLUSTER, PART, F.posexplode(numbers).alias("output", "y"))
        .groupBy(CLUSTER, PART, "output")
        .agg(F.count(F.lit(1)).alias("n"), F.min("y").alias("least"), F.max("y").alias("most"))
        .orderBy("output")
        .collect()
    )
    counts: dict[tuple[int, int], int] = {}
    ends: dict[tuple[int, int], list[list[float]]] = {}
    for row in found:
        key = (row[CLUSTER], row[PART])
        counts[key] = row["n"]
        ends.setdefault(key, []).append([row["least"], row["most"]])
    return _Sizes(counts, {key: np.array(own).T for key, own in ends.items()})


def _groups(
    sizes: _Sizes, names: Sequence[str], recipe: Recipe, n_folds: int
) -> list[tuple[int, int]]:
    """Cluster and fold of every fit."""
    n_all, folds = sizes.n_rows(NOISE, FINAL), [*range(n_folds), FINAL]
    for fold in range(n_folds):
        ends = sizes.outcomes(NOISE, fold)
        for i, name in enumerate(names):
            refuse_one_class(recipe, name, ends[:, i], sizes.n_rows(NOISE, fold), n_all)
    clusters = sorted({cluster for cluster, _ in sizes.rows if cluster != NOISE})
    own = [
        (cluster, fold)
        for cluster in clusters
        for fold in folds
        if sizes.keys(cluster, fold)
        and is_fitted(
            recipe.min_cluster_rows,
            (sizes.n_rows(cluster, FINAL), n_all),
            (sizes.n_rows(cluster, fold), sizes.n_rows(NOISE, fold)),
        )
        and all(recipe.can_learn(y) for y in sizes.outcomes(cluster, fold).T)
    ]
    return [*((NOISE, fold) for fold in folds), *own]


def _grouped(
    table: DataFrame, groups: Sequence[tuple[int, int]], shares: Mapping[int, int]
) -> DataFrame:
    """Each row once for every group that it is in, with what it is there."""
    plan = table.sparkSession.createDataFrame(
        [(cluster, fold, shares[cluster]) for cluster, fold in groups],
        f"group long, {_FOLD} int, share long",
    )
    part, fold = F.col(PART), F.col(_FOLD)
    trains = ((fold == FINAL) | (part <= fold)) & (F.col("hash") < F.col("share"))
    evaluates = (fold != FINAL) & (part == fold + 1) & F.col("in")
    of_group = (F.col("group") == NOISE) | (F.col("group") == F.col(CLUSTER))
    joined = table.join(F.broadcast(plan), of_group).where(trains | evaluates)
    wanted: list[Column] = [F.col("group").alias(CLUSTER), fold, F.col(ROW), trains.alias(_TRAINS)]
    wanted += [evaluates.alias(_EVALUATES), F.col(FEATURES), F.col(OUTCOMES)]
    return joined.select(*wanted)


def _answers(
    grouped: DataFrame, names: Sequence[str], recipe: Recipe
) -> dict[tuple[int, int], Answers]:
    """What each group has answered, by fold and cluster."""
    fits = grouped.groupBy(CLUSTER, _FOLD).applyInArrow(fitting(tuple(names), recipe), _ANSWER)
    answers: dict[tuple[int, int], Answers] = {}
    for batch in fits.toArrow().to_batches():
        columns = (column.to_numpy(zero_copy_only=False) for column in batch.columns)
        for cluster, fold, output, model, forecast, width in zip(*columns, strict=True):
            if fold != FINAL:
                model = forecast.reshape(-1, width) if width else forecast
            answers.setdefault((int(fold), int(cluster)), {})[output] = model
    return answers


def fitting(names: tuple[str, ...], recipe: Recipe) -> Callable[[tuple[Any, ...], pa.Table], Any]:
    """A function for ``applyInArrow`` that fits one group; it needs nothing but the group."""

    def fit(key: tuple[Any, ...], table: pa.Table) -> pa.Table:
        cluster, fold = key[0].as_py(), key[1].as_py()
        table = table.sort_by(ROW)
        X, y = (_matrix(table[name]) for name in (FEATURES, OUTCOMES))
        trains, evaluates = (table[name].to_numpy() for name in (_TRAINS, _EVALUATES))
        outcomes = {name: y[trains, i] for i, name in enumerate(names)}
        later = None if fold == FINAL else X[evaluates]
        found = list(recipe.fit(X[trains], outcomes, later).values())
        empty = [np.empty(0)] * len(names)
        forecasts = empty if fold == FINAL else found
        texts = found if fold == FINAL else [""] * len(names)
        widths = [f.shape[-1] if f.ndim > 1 else 0 for f in forecasts]
        return pa.table(
            {
                CLUSTER: pa.array([cluster] * len(names), pa.int64()),
                _FOLD: pa.array([fold] * len(names), pa.int32()),
                "output": pa.array(names, pa.string()),
                "model": pa.array(texts, pa.string()),
                "forecast": pa.array([f.ravel() for f in forecasts], pa.list_(pa.float64())),
                "width": pa.array(widths, pa.int32()),
            }
        )

    return fit


def _matrix(column: pa.ChunkedArray) -> np.ndarray:
    """A column of arrays of equal length, shape (n, length)."""
    values = column.combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return np.ascontiguousarray(values.reshape(len(column), -1), dtype=np.float64)


def _evaluated(
    table: DataFrame, names: Sequence[str], n_folds: int
) -> tuple[list[dict[str, np.ndarray]], list[np.ndarray]]:
    """Outcomes and segments of the rows that each fold evaluates, in the order of their numbers."""
    found = table.where((F.col(PART) > 0) & F.col("in")).select(ROW, PART, CLUSTER, OUTCOMES)
    rows = found.toArrow().sort_by(ROW)
    y, part, clusters = _matrix(rows[OUTCOMES]), rows[PART].to_numpy(), rows[CLUSTER].to_numpy()
    of_fold = [part == fold + 1 for fold in range(n_folds)]
    truth = [{name: y[own, i] for i, name in enumerate(names)} for own in of_fold]
    return truth, [clusters[own] for own in of_fold]


def _support(rows: DataFrame, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Values with the support of all outcomes, see `Support.of`."""
    y = F.col("y")
    found = (
        rows.select(F.posexplode(OUTCOMES).alias("output", "y"))
        .groupBy("output")
        .agg(F.min(y).alias("least"), F.max(y != F.rint(y)).alias("broken"))
        .collect()
    )
    own = {row["output"]: (row["least"], row["broken"]) for row in found}
    return {
        name: np.array([own[i][0], np.ceil(own[i][0]) + 0.5 * own[i][1]])
        for i, name in enumerate(names)
    }
