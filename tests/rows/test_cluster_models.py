from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tsclust_model.errors import ConfigurationError, DataValidationError, NotFittedError
from tsclust_model.rows.cluster_models import ClusterSpecificModelManager


def rmse(y: np.ndarray, forecast: np.ndarray) -> float:
    return float(np.sqrt(np.mean((y - forecast) ** 2)))


@pytest.fixture(scope="module")
def cluster_data() -> dict[int, dict[str, Any]]:
    """Two clusters with opposite slopes, and what each row used."""
    rng = np.random.default_rng(51)
    data = {}
    for cluster, (size, slope) in {0: (150, 4.0), 7: (100, -4.0)}.items():
        X = rng.uniform(0, 1, (size, 2))
        y = 10 + slope * X[:, 0] + rng.normal(0, 0.1, size)
        data[cluster] = {"X": X, "y": y, "resources": {"hours": 2 * y, "cost": 100 - y}}
    return data


@pytest.fixture(scope="module")
def manager(cluster_data: dict[int, dict[str, Any]]) -> ClusterSpecificModelManager:
    fitted = ClusterSpecificModelManager({"n_estimators": 40}, {"n_estimators": 40})
    fitted.fit_timeseries_models(cluster_data)
    fitted.fit_resource_models(cluster_data)
    return fitted


def test_each_cluster_is_forecast_by_its_own_slope(manager, cluster_data):
    assert manager.timeseries_.weight == 1.0
    for cluster, slope in ((0, 4.0), (7, -4.0)):
        X = cluster_data[cluster]["X"]
        forecast = manager.predict_timeseries(cluster, X)
        np.testing.assert_array_equal(
            forecast, manager.timeseries_.cluster_boosters[cluster].predict(X)
        )
        assert rmse(10 + slope * X[:, 0], forecast) < 0.3


def test_model_metrics_are_of_every_cluster_out_of_fold(manager, cluster_data):
    metrics = ClusterSpecificModelManager({"n_estimators": 40}).fit_timeseries_models(cluster_data)
    assert metrics == manager.get_model_metrics()
    assert sorted(metrics) == [0, 7]
    for figures in metrics.values():
        assert sorted(figures) == ["mae", "n_rows", "r2", "rmse"]
        assert figures["r2"] > 0.8
    assert metrics[0]["n_rows"] + metrics[7]["n_rows"] == 100  # the newest 40 % of 250 rows


def test_the_newest_rows_of_each_cluster_are_held_out(cluster_data):
    # The oldest 60 % of each cluster are 0, the rest 1000: nothing that is held out is known.
    data = {
        cluster: {
            "X": part["X"],
            "y": np.where(np.arange(len(part["X"])) < 0.6 * len(part["X"]), 0.0, 1e3),
        }
        for cluster, part in cluster_data.items()
    }
    manager = ClusterSpecificModelManager({"n_estimators": 1, "learning_rate": 1e-9})
    metrics = manager.fit_timeseries_models(data)
    # One tiny step learns the mean of what is seen: 0 in the first fold, 250 in the second.
    assert {cluster: figures["n_rows"] for cluster, figures in metrics.items()} == {0: 60, 7: 40}
    assert [figures["mae"] for figures in metrics.values()] == pytest.approx([875, 875])


def test_resources_are_summed_over_the_rows(manager, cluster_data):
    X = cluster_data[7]["X"][:30]
    found = manager.predict_resources(7, X)
    assert sorted(found) == ["cost", "hours"]
    for name, total in found.items():
        by_row = manager.resources_[name].predict(X, np.full(30, 7))[0]
        assert total == pytest.approx(math.fsum(by_row))
        assert total == pytest.approx(cluster_data[7]["resources"][name][:30].sum(), rel=0.02)
    assert all(isinstance(total, float) for total in found.values())


def test_resource_metrics_are_by_cluster_and_resource(cluster_data):
    manager = ClusterSpecificModelManager(lgb_resource_params={"n_estimators": 10})
    metrics = manager.fit_resource_models(cluster_data)
    assert {cluster: sorted(found) for cluster, found in metrics.items()} == {
        0: ["cost", "hours"],
        7: ["cost", "hours"],
    }
    assert sorted(metrics[7]["hours"]) == ["mae", "n_rows", "r2", "rmse"]
    assert manager.resources_["hours"].global_booster.num_trees() == 10


def test_an_unknown_cluster_is_served_by_the_global_model(manager, cluster_data):
    X = cluster_data[0]["X"][:5]
    np.testing.assert_array_equal(
        manager.predict_timeseries(12, X), manager.timeseries_.global_booster.predict(X)
    )


@pytest.mark.parametrize(
    "ask",
    [
        lambda manager: manager.predict_timeseries(0, [[1.0]]),
        lambda manager: manager.predict_resources(0, [[1.0]]),
        lambda manager: manager.get_model_metrics(),
    ],
    ids=["predict_timeseries", "predict_resources", "get_model_metrics"],
)
def test_an_unfitted_manager_says_what_to_call(ask):
    with pytest.raises(NotFittedError, match=r"call fit_\w+_models first"):
        ask(ClusterSpecificModelManager())


def test_target_and_resources_are_fitted_apart(cluster_data):
    manager = ClusterSpecificModelManager()
    manager.fit_resource_models(cluster_data)
    with pytest.raises(NotFittedError, match="call fit_timeseries_models first"):
        manager.predict_timeseries(0, cluster_data[0]["X"])


def test_a_second_fit_of_the_manager_forgets_the_first(manager, cluster_data):
    again = ClusterSpecificModelManager({"n_estimators": 40})
    again.fit_timeseries_models({3: {"X": np.eye(60), "y": np.arange(60.0)}})
    again.fit_timeseries_models(cluster_data)
    assert again.timeseries_.cluster_texts == manager.timeseries_.cluster_texts
    assert again.get_model_metrics() == manager.get_model_metrics()


def test_the_manager_leaves_its_arguments_untouched(cluster_data):
    params = {"num_leaves": 4}
    given = {
        cluster: {"X": part["X"].copy(), "y": part["y"].tolist()}
        for cluster, part in cluster_data.items()
    }
    ClusterSpecificModelManager(params).fit_timeseries_models(given)
    assert params == {"num_leaves": 4}
    for cluster, part in cluster_data.items():
        np.testing.assert_array_equal(given[cluster]["X"], part["X"])
        assert given[cluster]["y"] == part["y"].tolist()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({}, "cluster_data is empty"),
        ({0: {"y": [1.0]}}, "y of cluster 0 has 1 values for 60 rows"),
        ({0: {"y": [np.nan] * 60}}, r"y of cluster 0 is missing or infinite in 60 row\(s\)"),
        ({0: {"X": np.full((60, 2), np.inf)}}, "X has missing or infinite values"),
    ],
)
def test_cluster_data_is_checked(change, message):
    good = {"X": np.random.default_rng(0).normal(size=(60, 2)), "y": np.arange(60.0)}
    data = {cluster: good | part for cluster, part in change.items()}
    with pytest.raises(DataValidationError, match=message):
        ClusterSpecificModelManager().fit_timeseries_models(data)


@pytest.mark.parametrize("method", ["fit_timeseries_models", "fit_resource_models"])
@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({4: {"X": np.ones((9, 2))}}, "cluster 4 has no '(y|resources)'; give {'X': ..., "),
        ({4: {"y": np.ones(9), "resources": {"a": np.ones(9)}}}, "cluster 4 has no 'X'; give"),
        ({4: np.ones((9, 2))}, "cluster 4 has no 'X'; give"),
        ([1], "cluster_data is a list; give {cluster: {'X': "),
    ],
)
def test_cluster_data_without_a_part_is_refused_in_one_line(method, data, message):
    with pytest.raises(DataValidationError, match=message) as caught:
        getattr(ClusterSpecificModelManager(), method)(data)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("resources", [{}, None, np.ones(9)])
def test_clusters_without_resources_are_refused_in_one_line(resources):
    data = {4: {"X": np.ones((9, 2)), "resources": resources}}
    with pytest.raises(DataValidationError, match="'resources' of cluster 4 holds none; give"):
        ClusterSpecificModelManager().fit_resource_models(data)


def test_every_cluster_needs_the_same_resources(cluster_data):
    data = {0: cluster_data[0], 7: cluster_data[7] | {"resources": {"hours": np.ones(100)}}}
    with pytest.raises(DataValidationError, match="every cluster must have the same resources"):
        ClusterSpecificModelManager().fit_resource_models(data)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lgb_params": {"learning_rat": 1}}, "no key 'learning_rat' .did you mean"),
        ({"lgb_resource_params": {"num_leaves": 1}}, "lgb_resource_params.num_leaves is 1"),
        ({"combine": "both"}, "combine is 'both'"),
        ({"min_cluster_rows": 0}, "min_cluster_rows is 0"),
    ],
)
def test_the_managers_parameters_are_checked_by_the_configuration(cluster_data, settings, message):
    with pytest.raises(ConfigurationError, match=message):
        ClusterSpecificModelManager(**settings).fit_timeseries_models(cluster_data)


@pytest.mark.parametrize(("combine", "weight"), [("global", 0.0), ("cluster", 1.0)])
def test_the_manager_combines_as_it_is_told(cluster_data, combine, weight):
    manager = ClusterSpecificModelManager({"n_estimators": 5}, combine=combine)
    manager.fit_timeseries_models(cluster_data)
    assert manager.timeseries_.weight == weight


@pytest.mark.parametrize(
    "alias", ["n_estimators", "num_iterations", "num_boost_round", "num_rounds", "num_trees"]
)
def test_every_name_of_the_number_of_rounds_counts(cluster_data, alias):
    manager = ClusterSpecificModelManager({alias: 3})
    manager.fit_timeseries_models(cluster_data)
    assert manager.timeseries_.global_booster.num_trees() == 3
    assert {b.num_trees() for b in manager.timeseries_.cluster_boosters.values()} == {3}


def test_a_hundred_rounds_are_the_default(cluster_data):
    manager = ClusterSpecificModelManager()
    manager.fit_timeseries_models(cluster_data)
    assert manager.timeseries_.global_booster.num_trees() == 100


def test_a_cluster_of_one_row_has_metrics_too(cluster_data):
    one = {"X": cluster_data[0]["X"][:1], "y": cluster_data[0]["y"][:1]}
    metrics = ClusterSpecificModelManager().fit_timeseries_models(cluster_data | {3: one})
    assert sorted(metrics) == [0, 3, 7]


def test_too_few_rows_for_two_folds_are_blamed_on_the_rows():
    data = {0: {"X": np.eye(2), "y": np.arange(2.0)}}
    with pytest.raises(DataValidationError, match="rows"):
        ClusterSpecificModelManager().fit_timeseries_models(data)


@pytest.mark.parametrize("method", ["predict_timeseries", "predict_resources"])
def test_the_manager_refuses_rows_of_another_width(manager, method):
    with pytest.raises(DataValidationError, match="3 features"):
        getattr(manager, method)(0, np.zeros((4, 3)))


def test_clusters_with_different_numbers_of_columns_are_refused(cluster_data):
    wide = {"X": np.zeros((50, 3)), "y": np.zeros(50)}
    with pytest.raises(DataValidationError, match="features"):
        ClusterSpecificModelManager().fit_timeseries_models(cluster_data | {3: wide})


def test_columns_of_a_managers_frames_may_come_in_any_order(manager, cluster_data):
    frames = {
        cluster: {"X": pd.DataFrame(part["X"], columns=["age", "pulse"]), "y": part["y"]}
        for cluster, part in cluster_data.items()
    }
    named = ClusterSpecificModelManager({"n_estimators": 40})
    named.fit_timeseries_models(frames)
    X = frames[0]["X"]
    np.testing.assert_array_equal(
        named.predict_timeseries(0, X[["pulse", "age"]]), manager.predict_timeseries(0, X)
    )
