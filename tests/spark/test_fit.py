"""Fits in executors: the models of `fit_outputs`, to the bit, however the rows are split."""

from __future__ import annotations

import os
import signal
import threading

import numpy as np
import pandas as pd
import pytest

from tests.spark.cluster import executors
from tsclust_model.boosting.blend import fit_outputs
from tsclust_model.boosting.folds import time_ordered_folds
from tsclust_model.boosting.recipes import ClassRecipe, NumberRecipe, Recipe
from tsclust_model.errors import DataValidationError

pytest.importorskip("pyspark", reason="pyspark is not installed: the extra 'spark'")

from tsclust_model.spark.fit import Caps, fit_on_spark

pytestmark = pytest.mark.filterwarnings("ignore")  # pyspark's and pandas' of one another

N_ROWS = 900
PARAMS = {
    "objective": "regression",
    "n_estimators": 20,
    "num_leaves": 7,
    "random_state": 42,
    "bagging_fraction": 0.7,
    "bagging_freq": 2,
    "feature_fraction": 0.8,
}


@pytest.fixture(scope="module")
def table() -> tuple[np.ndarray, dict[str, np.ndarray], np.ndarray]:
    """Clusters of many, few and too few rows, and noise; gaps, a category and two outcomes."""
    rng = np.random.default_rng(5)
    labels = rng.choice([0, 1, 2, 7, -1], N_ROWS, p=[0.55, 0.3, 0.02, 0.1, 0.03])
    X = rng.normal(size=(N_ROWS, 4))
    X[:, 3] = rng.integers(0, 3, N_ROWS)
    y = X[:, 0] * (1 + labels) + rng.normal(scale=0.3, size=N_ROWS)
    X[rng.random(N_ROWS) < 0.1, 1] = np.nan
    return X, {"days": y, "cost": np.round(np.exp(X[:, 2]) * 10)}, labels


def on_spark(spark, X, outcomes, labels, groups=None, n_partitions=3):
    """The rows in another order, split among partitions."""
    folds = time_ordered_folds(len(X), groups)
    part = np.full(len(X), len(folds))
    for i, fold in reversed(list(enumerate(folds))):
        part[fold.train] = i
    rows = pd.DataFrame({"row": np.arange(len(X)), "part": part, "cluster": labels})
    rows["features"], rows["outcomes"] = list(X), list(np.column_stack(list(outcomes.values())))
    schema = "row long, part int, cluster long, features array<double>, outcomes array<double>"
    shuffled = rows.sample(frac=1, random_state=n_partitions)
    return spark.createDataFrame(shuffled, schema).repartition(n_partitions)


def assert_same_models(found, expected) -> None:
    """Trees, weights, scores and intervals."""
    assert list(found) == list(expected)
    for name, model in expected.items():
        assert found[name].texts == model.texts
        (values, arrays), (own_values, own_arrays) = found[name].to_state(), model.to_state()
        assert values == own_values
        assert all(np.array_equal(arrays[key], own) for key, own in own_arrays.items())
        assert np.array_equal(found[name].fold_values, model.fold_values)
        for way, losses in model.fold_losses.items():
            assert np.array_equal(found[name].fold_losses[way], losses), way


@pytest.mark.parametrize("n_partitions", [1, 5])
def test_the_models_are_those_of_one_process(spark, table, n_partitions):
    X, outcomes, labels = table
    groups = np.random.default_rng(1).integers(0, 300, N_ROWS)
    recipe = NumberRecipe(PARAMS, [3])
    expected = fit_outputs(X, outcomes, labels, time_ordered_folds(N_ROWS, groups), recipe)
    rows = on_spark(spark, X, outcomes, labels, groups, n_partitions)
    found, capped = fit_on_spark(rows, list(outcomes), recipe, 2)
    assert expected["days"].clusters == [0, 1, 7]  # 2 is too small, and -1 no cluster
    assert_same_models(found, expected)
    assert capped == []


def test_a_killed_executor_changes_no_bit(cluster, spark, table):
    X, outcomes, labels = table
    recipe = NumberRecipe(PARAMS | {"n_estimators": 400}, [3])
    rows, found = on_spark(spark, X, outcomes, labels), []
    fit = threading.Thread(
        target=lambda: found.append(fit_on_spark(rows, list(outcomes), recipe, 2)[0])
    )
    fit.start()
    tracker = spark.sparkContext.statusTracker()
    while not any(is_fitting(tracker, stage) for stage in tracker.getActiveStageIds()):
        fit.join(0.02)
        assert fit.is_alive(), "it was done before an executor could be killed"
    os.kill(executors()[0], signal.SIGKILL)
    fit.join(300)
    expected = fit_outputs(X, outcomes, labels, time_ordered_folds(N_ROWS), recipe)
    assert_same_models(found[0], expected)


def is_fitting(tracker, stage: int) -> bool:
    """Whether it belongs to the query that fits the groups, the first one that asks for Arrow."""
    info = tracker.getStageInfo(stage)
    return info is not None and info.numActiveTasks > 0 and "toArrow" in info.name


@pytest.mark.parametrize("n_classes", [2, 3])
def test_classes_are_those_of_one_process(spark, table, n_classes):
    X, outcomes, labels = table
    kind = {"kind": np.digitize(outcomes["days"], [0, 1][: n_classes - 1]).astype(float)}
    kind["kind"][labels == 7] = 1.0  # of one class nothing is learned
    recipe: Recipe = ClassRecipe(PARAMS, [3], n_classes=n_classes)
    expected = fit_outputs(X, kind, labels, time_ordered_folds(N_ROWS), recipe)
    found, _ = fit_on_spark(on_spark(spark, X, kind, labels), ["kind"], recipe, 2)
    assert expected["kind"].clusters == [0, 1]
    assert_same_models(found, expected)


def test_a_cap_takes_the_same_rows_however_they_are_split(spark, table):
    X, outcomes, labels = table
    recipe, caps = NumberRecipe(PARAMS, [3]), Caps(cluster_rows=150, global_rows=300)
    one, capped = fit_on_spark(
        on_spark(spark, X, outcomes, labels, n_partitions=1), list(outcomes), recipe, 2, caps
    )
    other, _ = fit_on_spark(on_spark(spark, X, outcomes, labels), list(outcomes), recipe, 2, caps)
    assert_same_models(one, other)
    assert capped == [0, 1]
    n_rows = {c: trained_rows(booster) for c, booster in one["days"].cluster_boosters.items()}
    assert 110 < n_rows[0] < 190
    assert 110 < n_rows[1] < 190
    whole = fit_outputs(X, outcomes, labels, time_ordered_folds(N_ROWS), recipe)
    assert one["days"].texts[7] == whole["days"].texts[7]  # not capped
    assert 240 < trained_rows(one["days"].global_booster) < 360


def trained_rows(booster) -> int:
    """How many rows a model has seen: of bagging the first tree has 0.7."""
    (_, tree), *_ = booster.trees_to_dataframe().groupby("tree_index")
    return round(tree.loc[tree["node_depth"] == 1, "count"].iloc[0] / 0.7)


@pytest.mark.parametrize(
    ("n_rows", "expected"), [(900, "hold one class of 'kind' only"), (1, "too few for two folds")]
)
def test_what_one_process_refuses_is_refused(spark, table, n_rows, expected):
    X, _, labels = (part[:n_rows] if isinstance(part, np.ndarray) else part for part in table)
    kind = {"kind": (np.arange(n_rows) > 0.9 * n_rows).astype(float)}
    n_folds = len(time_ordered_folds(n_rows))
    recipe = ClassRecipe(PARAMS, [3], n_classes=2)
    with pytest.raises(DataValidationError, match=expected):
        fit_outputs(X, kind, labels, time_ordered_folds(n_rows), recipe)
    with pytest.raises(DataValidationError, match=expected):
        fit_on_spark(on_spark(spark, X, kind, labels), ["kind"], recipe, n_folds)
