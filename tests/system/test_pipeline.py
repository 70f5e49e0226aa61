from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient

from tests.support import ON_PATH, QUICK, START, VITALS, Clock, copy_model
from tsclust_model.config import PipelineConfig
from tsclust_model.data.synthetic import make_hospital
from tsclust_model.errors import (
    ConfigurationError,
    DataValidationError,
    MLflowIntegrationError,
    NotFittedError,
    PipelineError,
    PredictionError,
    RetrainingError,
)
from tsclust_model.mlflow_integration.registry import alias_version
from tsclust_model.mlflow_integration.storage import open_storage
from tsclust_model.monitoring.metrics import PerformanceMonitor
from tsclust_model.pipeline import TimeSeriesClusteringPipeline
from tsclust_model.results import (
    BatchResult,
    ClusteringResult,
    PerformanceAlert,
    PerformanceReport,
)

SECRET = 987654.25
TARGET = "length_of_stay_days"
RESOURCES = ("nursing_hours", "medication_cost")
CONFIG = PipelineConfig(
    hdbscan_params={"min_cluster_size": 15},
    lgb_timeseries_params=QUICK,
    lgb_resource_params=QUICK,
    batch_size=64,
)
_numbers = count()


def features(frame: pd.DataFrame) -> pd.DataFrame:
    return frame[list(VITALS)].astype(float)


def parts(frame: pd.DataFrame) -> tuple[pd.DataFrame, pd.Series]:
    return features(frame), frame[TARGET]


def resources(frame: pd.DataFrame) -> dict[str, np.ndarray]:
    return {name: frame[name].to_numpy() for name in RESOURCES}


@pytest.fixture(scope="module")
def stream() -> pd.DataFrame:
    return make_hospital(1500, random_state=3)


@pytest.fixture(scope="module")
def moved() -> pd.DataFrame:
    """Admissions of a hospital that is no longer the one of `stream`."""
    return make_hospital(2400, random_state=4, drift=5.0).tail(1000).reset_index(drop=True)


@pytest.fixture
def make(store) -> Iterator[Callable[..., TimeSeriesClusteringPipeline]]:
    """make(config) -> a pipeline with a model name of its own, closed in the end."""
    made = []

    def call(config: PipelineConfig = CONFIG, copy_of: str | None = None, **options):
        name = f"living-{next(_numbers)}"
        if copy_of is None:
            made.append(TimeSeriesClusteringPipeline(config, model_name=name, **options))
        else:
            uri = f"models:/{copy_model(copy_of, name)}@champion"
            made.append(TimeSeriesClusteringPipeline.load(uri, config, **options))
        return made[-1]

    yield call
    for pipeline in made:
        pipeline.close()


@pytest.fixture(scope="module")
def fitted_once() -> set[str]:
    """Names of the models that are fitted already, on the first 500 admissions."""
    return set()


@pytest.fixture
def fit(make, stream, fitted_once) -> Callable[..., TimeSeriesClusteringPipeline]:
    """fit(config) -> a pipeline of the first 500 admissions' vitals: a copy, fitted once.

    With `more`, of "resources", or "roles": time and id, too.
    """

    def call(config: PipelineConfig = CONFIG, more: str = "", **options):
        known = stream.head(500)
        X, y = parts(known)
        outcomes = resources(known) if more == "resources" else None
        roles = {"time": "admission_time", "id": "patient_id"} if more == "roles" else {}
        name = f"fitted-{more}"
        if name not in fitted_once:
            X = X.join(known[[*roles.values()]])
            TimeSeriesClusteringPipeline(CONFIG, model_name=name).fit_initial(
                X, y, outcomes, **roles
            )
            fitted_once.add(name)
        return make(config, copy_of=name, **options)

    return call


def name_of(pipeline: TimeSeriesClusteringPipeline) -> str:
    return pipeline._model_name


def with_generation(pipeline: TimeSeriesClusteringPipeline, **changes) -> None:
    """Let a changed generation serve: a stand-in for a model that breaks."""
    serving = pipeline._serving
    pipeline._serving = replace(serving, generation=replace(serving.generation, **changes))


def break_resources(pipeline: TimeSeriesClusteringPipeline) -> None:
    generation = pipeline._serving.generation
    broken = {
        name: replace(model, texts={-1: "no tree"}) for name, model in generation.resources.items()
    }
    with_generation(pipeline, resources=broken)


def aliases(pipeline: TimeSeriesClusteringPipeline) -> dict[str, str | None]:
    return {
        alias: alias_version(name_of(pipeline), alias)
        for alias in ("champion", "challenger", "previous")
    }


def history_files(pipeline: TimeSeriesClusteringPipeline) -> dict[str, bytes]:
    folder = open_storage(pipeline.config, name_of(pipeline)).history.base_dir
    return {path.name: path.read_bytes() for path in folder.glob("*.parquet")}


# -- before the fit ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "call",
    [
        lambda p: p.process_batch(np.ones((3, 8))),
        lambda p: p.record_outcomes("a", [1.0]),
        lambda p: p.retrain(),
        lambda p: p.check_scheduled_retraining(timedelta(days=1)),
        lambda p: p.rollback("reason"),
        lambda p: p.name_segment(0, "post-op"),
        lambda p: p.purge(ids=["P1"]),
        lambda p: p.get_performance_report(),
        lambda p: p.get_model_info(),
        lambda p: p.get_retraining_status(),
        lambda p: p.get_retraining_recommendations(),
        lambda p: p.retraining_manager,
    ],
)
def test_what_needs_a_model_says_that_there_is_none(call):
    with pytest.raises(NotFittedError, match="not fitted; call fit_initial or load first") as found:
        call(TimeSeriesClusteringPipeline(CONFIG))
    assert isinstance(found.value, PipelineError)


def test_an_unfitted_pipeline_can_be_asked_how_it_is():
    pipeline = TimeSeriesClusteringPipeline(CONFIG, clock=Clock())
    assert (pipeline.is_fitted, pipeline.is_batch_processing_enabled) == (False, False)
    assert pipeline.current_model_version is None
    assert pipeline.last_performance_report is None
    assert pipeline.current_health_status == "not_fitted"
    assert pipeline.monitoring_statistics == {"batches": 0, "metrics": {}, "alerts": 0, "errors": 0}
    assert pipeline.get_pipeline_status() == {
        "pipeline_fitted": False,
        "batch_processing_enabled": False,
        "current_model_version": None,
        "last_training_time": None,
        "performance_metrics": {},
    }
    assert pipeline.diagnose_pipeline_health()["recommendations"] == [
        "Call fit_initial, or load a registered model."
    ]


def test_the_constructor_touches_no_file_and_no_store(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    TimeSeriesClusteringPipeline(CONFIG)
    assert list(tmp_path.iterdir()) == []


# -- the first fit -----------------------------------------------------------------------------


def test_the_first_fit_registers_a_champion_and_keeps_the_callers_data(make, stream):
    pipeline = make(clock=Clock())
    X, y = parts(stream.head(500))
    before = X.copy(), y.copy()
    result = pipeline.fit_initial(X, y)
    assert isinstance(result, ClusteringResult)
    assert result.labels.shape == (500,)
    assert result.cluster_centers.shape == (result.metrics["n_clusters"], 8)
    assert result.noise_ratio == (result.labels == -1).mean()
    pd.testing.assert_frame_equal(X, before[0])
    pd.testing.assert_series_equal(y, before[1])
    assert pipeline.is_fitted
    assert pipeline.is_batch_processing_enabled
    assert pipeline.current_model_version == "1"
    assert aliases(pipeline) == {"champion": "1", "challenger": None, "previous": None}
    status = pipeline.get_pipeline_status()
    assert status["last_training_time"] == START
    assert (status["pipeline_fitted"], status["current_model_version"]) == (True, "1")
    assert pipeline.current_health_status == "healthy"


def test_arrays_and_tables_give_the_same_bits(fit, make, stream):
    known, new = stream.head(500), features(stream[500:600])
    tables, arrays = fit(), make()
    arrays.fit_initial(features(known).to_numpy(), known[TARGET].to_numpy())
    expected = tables.process_batch(new)
    for pipeline, batch in (
        (tables, new[new.columns[::-1]]),
        (tables, new.assign(more="column").sample(frac=1, random_state=0).loc[new.index]),
        (tables, new.to_numpy()),
        (arrays, new.to_numpy()),
    ):
        found = pipeline.process_batch(batch)
        np.testing.assert_array_equal(found.cluster_assignments, expected.cluster_assignments)
        np.testing.assert_array_equal(found.timeseries_predictions, expected.timeseries_predictions)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda X, y: (X * np.nan, y), "every feature holds one value only, or none: age"),
        (lambda X, y: (X.drop(index=3).reindex(X.index), y), r"missing values \(1 of 500 rows\)"),
        (lambda X, y: (X, y.mask(y.index == 3)), r"missing or infinite in 1 row\(s\)"),
        (lambda X, y: (X, y[:-1]), "has 499 values for 500 rows"),
        (lambda X, y: (X.head(3), y.head(3)), "3 rows are fewer than"),
        (lambda X, y: (X.to_numpy()[0], y), "X has 1 dimension"),
    ],
)
def test_data_that_cannot_be_fitted_is_refused_and_registers_nothing(make, stream, change, message):
    pipeline = make()
    X, y = change(*parts(stream.head(500)))
    with pytest.raises(DataValidationError, match=message):
        pipeline.fit_initial(X, y)
    assert not pipeline.is_fitted
    assert MlflowClient().search_registered_models(f"name = '{name_of(pipeline)}'") == []


def test_a_matrix_keeps_its_width_where_a_constant_column_is_left_out(make, stream):
    X, y = parts(stream.head(700))
    X = X.assign(constant=1.0)[[X.columns[0], "constant", *X.columns[1:]]]
    pipeline = make()
    with pytest.warns(UserWarning, match="left out, .* none: feature_1$"):
        pipeline.fit_initial(X[:500].to_numpy(float), y[:500].to_numpy())
    result = pipeline.process_batch(X[500:].to_numpy(float))
    named = pd.DataFrame(X[500:].to_numpy(float)).add_prefix("feature_")
    again = pipeline.process_batch(named.drop(columns="feature_1"))
    np.testing.assert_array_equal(again.timeseries_predictions, result.timeseries_predictions)
    with pytest.raises(DataValidationError, match="the model was fitted with"):
        pipeline.process_batch(X[500:].to_numpy(float)[:, :2])


# -- batches -----------------------------------------------------------------------------------


def test_a_batch_gets_what_the_logged_model_forecasts_bit_for_bit(fit, stream):
    pipeline = fit(more="resources")
    X = features(stream[500:700])
    result = pipeline.process_batch(X)  # in chunks of 64 rows
    logged = mlflow.pyfunc.load_model(f"models:/{name_of(pipeline)}@champion").predict(X)
    assert isinstance(result, BatchResult)
    np.testing.assert_array_equal(
        result.timeseries_predictions, logged["prediction"].to_numpy(dtype=float)
    )
    np.testing.assert_array_equal(result.cluster_assignments, logged["cluster"].to_numpy(dtype=int))
    assert result.noise_ratio == (logged["cluster_source"] == "knn").mean() > 0
    assert (result.cluster_assignments >= 0).all()
    sums = logged.groupby("cluster")[[f"resource_{name}" for name in RESOURCES]].sum()
    assert set(result.resource_predictions) == set(sums.index)
    for cluster, found in result.resource_predictions.items():
        assert found == {
            name: pytest.approx(sums.loc[cluster, f"resource_{name}"], rel=1e-12)
            for name in RESOURCES
        }
    assert 0 < result.processing_time < 60
    assert result.degraded == ()


def test_noise_is_counted_before_the_fallback(fit):
    pipeline = fit()
    far = np.random.default_rng(0).uniform(1e3, 1e4, size=(50, 8))
    result = pipeline.process_batch(far)
    assert result.noise_ratio == 1.0
    assert (result.cluster_assignments >= 0).all()


def test_without_resources_a_batch_says_what_its_rows_cost(fit, stream):
    pipeline = fit()
    result = pipeline.process_batch(features(stream[500:600]))
    costs = pipeline._serving.costs.of(100)
    clusters, counts = np.unique(result.cluster_assignments, return_counts=True)
    assert result.resource_predictions == {
        int(cluster): {name: n / 100 * value for name, value in costs.items()}
        for cluster, n in zip(clusters, counts, strict=True)
    }
    assert min(costs.values()) > 0


@pytest.mark.parametrize("n_rows", [100, 20_000])
def test_the_time_of_a_batch_is_foreseen_by_what_it_takes(fit, stream, n_rows):
    pipeline = fit()
    X = features(stream.sample(n_rows, replace=True, random_state=1)).to_numpy()
    ratios = []
    for step in range(3):
        result = pipeline.process_batch(X + step)
        planned = sum(cost["processing_time"] for cost in result.resource_predictions.values())
        ratios.append(planned / result.processing_time)
    assert 1 / 5 < np.median(ratios) < 5  # what else the machine does counts too


def test_the_watched_memory_is_what_the_process_holds(fit, stream):
    pipeline = fit()
    pipeline.process_batch(features(stream[500:600]))
    (entry,) = pipeline.get_performance_metrics(["memory_usage"])["memory_usage"]
    lines = Path("/proc/self/status").read_text().splitlines()
    (kilobytes,) = (int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))
    assert entry["value"] == pytest.approx(kilobytes / 1024, rel=0.2)


def test_a_batch_over_the_threshold_of_its_time_or_memory_alarms(fit, stream):
    pipeline = fit()
    limits = {"processing_time": 1e-9, "memory_usage": 1.0}
    pipeline.update_performance_thresholds(alert_thresholds=limits)
    result = pipeline.process_batch(features(stream[500:600]))
    alerts = {alert.metric_name: alert for alert in pipeline.get_alert_summary()["alerts"]}
    assert {name: alert.threshold for name, alert in alerts.items()} == limits
    assert alerts["processing_time"].value == result.processing_time


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_row_that_cannot_be_scored_is_refused_without_a_value(fit, stream, value):
    pipeline = fit()
    X = features(stream[500:600]).assign(age=SECRET)
    X.iloc[3, 1] = value
    before = history_files(pipeline)
    with pytest.raises(DataValidationError, match="1 of 100 rows cannot be scored") as caught:
        pipeline.process_batch(X)
    assert str(SECRET) not in str(caught.value)
    assert "heart_rate" in str(caught.value)
    assert history_files(pipeline) == before
    assert pipeline.monitoring_statistics["batches"] == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (lambda X: (X.drop(columns="age"),), "the batch has no column 'age'; add it"),
        (lambda X: (X.to_numpy()[:, 1:],), "has 7 features, the model was fitted with 8: age, "),
        (lambda X: (X.head(0),), "the batch has no rows"),
        (lambda X: (X, [1.0]), "length_of_stay_days has 1 values for 100 rows"),
        (lambda X: (X, None, {"beds": [1.0] * 100}), "'beds' is no resource of this model"),
    ],
)
def test_a_batch_of_another_shape_is_refused_and_not_kept(fit, stream, arguments, message):
    pipeline = fit()
    before = history_files(pipeline)
    with pytest.raises(DataValidationError, match=message):
        pipeline.process_batch(*arguments(features(stream[500:600])))
    assert history_files(pipeline) == before


def test_a_batch_is_kept_once_with_its_outcomes(fit, stream):
    pipeline = fit(more="resources")
    batch = stream[500:600]
    first = pipeline.process_batch(*parts(batch), resources(batch))
    assert pipeline.process_batch(*parts(batch), resources(batch)).version_id == first.version_id
    history = open_storage(CONFIG, name_of(pipeline)).history
    assert history.list_versions()[0] == first.version_id
    assert len(history.list_versions()) == 2
    frame, _ = history.load(first.version_id)
    pd.testing.assert_frame_equal(
        frame,
        batch[[*VITALS, TARGET, *RESOURCES]].astype(float).reset_index(drop=True),
    )


def test_outcomes_that_come_later_join_the_history_and_the_accuracy(fit, stream):
    pipeline = fit()
    batch = stream[500:600]
    result = pipeline.process_batch(features(batch))
    assert "rmse" not in pipeline.get_performance_metrics()
    pipeline.record_outcomes(result.version_id, batch[TARGET].to_numpy())
    frame, _ = open_storage(CONFIG, name_of(pipeline)).history.load(result.version_id)
    assert frame[TARGET].tolist() == batch[TARGET].tolist()
    (found,) = pipeline.get_performance_metrics(["rmse"])["rmse"]
    error = batch[TARGET].to_numpy() - result.timeseries_predictions
    assert found["value"] == pytest.approx(np.sqrt(np.mean(error**2)), rel=1e-12)
    assert found["component"] == "accuracy"
    assert pipeline.retrain().comparison.n_rows == 100


def watched(pipeline: TimeSeriesClusteringPipeline) -> tuple:
    """What a batch or its outcomes may change: metrics, and what the detectors have."""
    manager = pipeline.retraining_manager
    return (
        {k: v["count"] for k, v in pipeline.monitoring_statistics["metrics"].items()},
        {k: v for k, v in manager.state().items() if k != "ask_again"},
    )


def test_the_same_batch_again_is_forecast_and_counts_once(fit, stream):
    pipeline = fit()
    batch = stream[500:600]
    first = pipeline.process_batch(*parts(batch))
    before = watched(pipeline)
    again = pipeline.process_batch(*parts(batch))
    assert again.version_id == first.version_id
    np.testing.assert_array_equal(again.timeseries_predictions, first.timeseries_predictions)
    assert watched(pipeline) == before
    assert pipeline.monitoring_statistics["batches"] == 1
    pipeline.process_batch(*parts(stream[600:700]))
    assert pipeline.monitoring_statistics["batches"] == 2


def test_outcomes_come_bit_by_bit_and_each_row_counts_once(fit, stream):
    pipeline = fit(more="resources")
    history = open_storage(CONFIG, name_of(pipeline)).history
    batch = stream[500:620]
    stay, hours = batch[TARGET].to_numpy(), batch["nursing_hours"].to_numpy()
    result = pipeline.process_batch(features(batch))
    ended = np.arange(120) < 60
    error = np.square(stay - result.timeseries_predictions)
    accuracy = pipeline.retraining_manager.drift.accuracy
    pipeline.record_outcomes(
        result.version_id, np.where(ended, stay, np.nan), {"nursing_hours": hours}
    )
    kept, _ = history.load(result.version_id)
    np.testing.assert_array_equal(kept[TARGET], np.where(ended, stay, np.nan))
    assert accuracy.state()["seen"] == 1
    before = watched(pipeline)
    pipeline.record_outcomes(result.version_id, np.where(ended, stay, np.nan))
    assert watched(pipeline) == before
    pipeline.record_outcomes(result.version_id, np.where(ended, np.nan, stay))
    kept, _ = history.load(result.version_id)
    assert kept[TARGET].tolist() == stay.tolist()
    assert kept["nursing_hours"].tolist() == hours.tolist()
    assert accuracy.state()["seen"] == 2
    found = [item["value"] for item in pipeline.get_performance_metrics(["rmse"])["rmse"]]
    assert found == pytest.approx(
        [np.sqrt(error[ended].mean()), np.sqrt(error[~ended].mean())], rel=1e-12
    )
    before = watched(pipeline)
    pipeline.record_outcomes(result.version_id, stay)
    assert watched(pipeline) == before


def test_corrected_outcomes_replace_the_old_ones_without_a_vote(fit, stream):
    pipeline = fit()
    history = open_storage(CONFIG, name_of(pipeline)).history
    batch = stream[500:600]
    stay = batch[TARGET].to_numpy()
    result = pipeline.process_batch(features(batch), stay * 24)
    before = pipeline.retraining_manager.state()
    pipeline.record_outcomes(result.version_id, stay)
    assert pipeline.retraining_manager.state() == before
    assert history.load(result.version_id)[0][TARGET].tolist() == stay.tolist()
    newest = pipeline.get_performance_metrics(["rmse"])["rmse"][-1]["value"]
    error = np.square(stay - result.timeseries_predictions)
    assert newest == pytest.approx(np.sqrt(error.mean()), rel=1e-12)


def test_outcomes_in_another_order_than_the_rows_are_refused(fit, make, stream):
    pipeline = fit()
    X, y = parts(stream[500:600])
    mixed = y.sample(frac=1, random_state=0)
    message = "has the index of X in another order; reorder it"
    with pytest.raises(DataValidationError, match=message):
        make().fit_initial(X, mixed)
    with pytest.raises(DataValidationError, match=message):
        pipeline.process_batch(X, mixed)
    assert pipeline.monitoring_statistics["batches"] == 0
    version_id = pipeline.process_batch(X, mixed.loc[X.index]).version_id
    counted = y.reset_index(drop=True).sample(frac=1, random_state=0)
    with pytest.raises(DataValidationError, match="y counts the rows in another order"):
        pipeline.record_outcomes(version_id, counted)
    pipeline.record_outcomes(version_id, counted.sort_index())


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (np.full(100, np.nan), "length_of_stay_days holds no outcome that is known; call again"),
        (np.r_[np.inf, np.ones(99)], "length_of_stay_days is missing or infinite in 1 row"),
    ],
)
def test_outcomes_that_say_nothing_or_are_infinite_are_refused(fit, stream, y, message):
    pipeline = fit()
    result = pipeline.process_batch(features(stream[500:600]))
    before = watched(pipeline)
    with pytest.raises(DataValidationError, match=message):
        pipeline.record_outcomes(result.version_id, y)
    assert watched(pipeline) == before


def test_outcomes_of_another_length_or_of_no_batch_are_refused(fit, stream):
    pipeline = fit()
    result = pipeline.process_batch(features(stream[500:600]))
    with pytest.raises(DataValidationError, match="length_of_stay_days has 2 values for 100 rows"):
        pipeline.record_outcomes(result.version_id, [1.0, 2.0])
    with pytest.raises(DataValidationError, match="there is no version 'nothing'"):
        pipeline.record_outcomes("nothing", [1.0, 2.0])


# -- callbacks ---------------------------------------------------------------------------------


def test_callbacks_come_in_order_with_their_arguments(make, stream):
    pipeline, calls = make(), []
    pipeline.set_callbacks(
        **{
            name: lambda *arguments, name=name: calls.append((name, arguments))
            for name in ("pre_training", "post_training", "pre_batch", "post_batch")
        }
    )
    clustering = pipeline.fit_initial(*parts(stream.head(500)))
    X = features(stream[500:600]).to_numpy()
    result = pipeline.process_batch(X)
    assert [name for name, _ in calls] == [
        "pre_training",
        "post_training",
        "pre_batch",
        "post_batch",
    ]
    assert calls[0][1] == ()
    assert calls[1][1][0] is clustering
    (seen,) = calls[2][1]
    np.testing.assert_array_equal(seen, X)
    assert calls[3][1] == (result,)
    pipeline.set_callbacks()
    pipeline.process_batch(X)
    assert len(calls) == 4


def test_a_training_callback_gets_a_clustering_result_after_a_retrain_too(fit, stream):
    pipeline, found = fit(), []
    pipeline.process_batch(*parts(stream[500:600]))
    pipeline.set_callbacks(post_training=lambda result: found.append(result.metrics["n_clusters"]))
    pipeline.retrain()
    assert len(found) == 1


def test_a_batch_callback_gets_an_array_for_a_table_too(fit, stream):
    pipeline, found = fit(), []
    pipeline.set_callbacks(pre_batch=lambda X: found.append(type(X)))
    pipeline.process_batch(features(stream[500:600]))
    assert found == [np.ndarray]


# -- graceful degradation ----------------------------------------------------------------------


def raises(*arguments) -> None:
    raise ZeroDivisionError(f"a bug of the user's, at {SECRET}")


def test_a_failing_resource_model_costs_no_prediction(fit, stream):
    pipeline = fit(more="resources")
    X = features(stream[500:600])
    expected = pipeline.process_batch(X)
    break_resources(pipeline)
    result = pipeline.process_batch(X)
    np.testing.assert_array_equal(result.timeseries_predictions, expected.timeseries_predictions)
    np.testing.assert_array_equal(result.cluster_assignments, expected.cluster_assignments)
    assert result.degraded == ("resources",)
    assert result.noise_ratio == expected.noise_ratio
    assert all(sums == {} for sums in result.resource_predictions.values())
    assert pipeline.get_error_statistics()["by_component"] == {"resources": 2}
    assert pipeline.current_health_status == "degraded"
    (first, second) = pipeline.get_recent_errors()
    assert first["error_type"] == second["error_type"] == "LightGBMError"
    assert first["message"] == "'medication_cost' cannot be predicted"


def strict(pipeline: TimeSeriesClusteringPipeline) -> TimeSeriesClusteringPipeline:
    pipeline.enable_graceful_degradation(False)
    return pipeline


def test_a_failing_resource_model_raises_without_degradation_after_the_batch(fit, stream):
    pipeline = strict(fit(more="resources"))
    break_resources(pipeline)
    with pytest.raises(PredictionError, match="nursing_hours"):
        pipeline.process_batch(features(stream[500:600]))
    assert pipeline.get_error_statistics()["by_component"] == {"resources": 2}
    result = pipeline.last_batch_result
    assert result.degraded == ("resources",)
    assert np.isfinite(result.timeseries_predictions).all()
    assert open_storage(CONFIG, name_of(pipeline)).history.list_versions()[0] == result.version_id


@pytest.mark.parametrize("name", ["pre_batch", "post_batch"])
def test_a_failing_callback_costs_no_prediction(fit, stream, name):
    pipeline = fit()
    X = features(stream[500:600])
    expected = pipeline.process_batch(X)
    pipeline.set_callbacks(**{name: raises})
    result = pipeline.process_batch(X)
    np.testing.assert_array_equal(result.timeseries_predictions, expected.timeseries_predictions)
    assert result.degraded == (f"callback {name}",)
    (error,) = pipeline.get_recent_errors()
    assert set(error) == {"timestamp", "error_type", "message", "component", "severity"}
    assert (error["error_type"], error["component"]) == ("ZeroDivisionError", f"callback {name}")
    assert (error["severity"], error["message"]) == (
        "warning",
        f"ZeroDivisionError in callback {name}",
    )


@pytest.mark.parametrize("name", ["pre_batch", "post_batch"])
def test_a_failing_callback_raises_without_degradation_after_the_batch(fit, stream, name):
    pipeline = strict(fit())
    pipeline.set_callbacks(**{name: raises})
    with pytest.raises(ZeroDivisionError):
        pipeline.process_batch(features(stream[500:600]))
    assert pipeline.last_batch_result.degraded == (f"callback {name}",)
    assert pipeline.monitoring_statistics["batches"] == 1
    pipeline.set_callbacks()
    assert pipeline.process_batch(features(stream[500:600])).degraded == ()


def test_a_failing_training_callback_in_a_batch_is_named_in_its_result(fit, stream, moved):
    pipeline = fit()
    pipeline.set_callbacks(post_training=raises)
    results = [
        pipeline.process_batch(*parts(moved[start : start + 100])) for start in (0, 100, 200)
    ]
    assert pipeline.last_retraining.version == "2"  # whether it serves is not the callback's
    assert [name for found in results for name in found.degraded] == ["callback post_training"]


def test_a_failing_training_callback_raises_without_degradation_after_the_retrain(fit, stream):
    pipeline = strict(fit())
    pipeline.set_callbacks(pre_training=raises)
    pipeline.process_batch(*parts(stream[500:600]))
    with pytest.raises(ZeroDivisionError):
        pipeline.retrain()
    assert pipeline.last_retraining.version == "2"


def block(pipeline: TimeSeriesClusteringPipeline) -> tuple[Path, Path]:
    """Put a file where the history's folder is; returns where the folder is now, and the file."""
    folder = open_storage(pipeline.config, name_of(pipeline)).history.base_dir
    aside = folder.with_name(f"{folder.name}-aside")
    folder.rename(aside)
    folder.write_text("no folder")
    return aside, folder


def test_a_history_that_cannot_be_written_costs_no_prediction(fit, stream):
    pipeline = fit()
    X = features(stream[500:600])
    expected = pipeline._serving.generation.predict(X)["prediction"].to_numpy(dtype=float)
    aside, file = block(pipeline)
    result = pipeline.process_batch(X)
    np.testing.assert_array_equal(result.timeseries_predictions, expected)
    assert (result.degraded, result.version_id) == (("history",), None)
    assert pipeline.get_recent_errors()[0]["component"] == "history"
    assert pipeline.current_health_status == "degraded"
    file.unlink()
    aside.rename(file)
    result = pipeline.process_batch(X)  # the folder is there again
    assert result.degraded == ()
    assert result.version_id is not None
    assert pipeline.current_health_status == "healthy"
    assert pipeline.get_error_statistics()["total_errors"] == 1


def test_a_history_that_cannot_be_written_raises_without_degradation_after_the_batch(fit, stream):
    pipeline = strict(fit())
    block(pipeline)
    with pytest.raises(OSError, match=name_of(pipeline)):
        pipeline.process_batch(features(stream[500:600]))
    assert len(pipeline.last_batch_result.timeseries_predictions) == 100
    assert pipeline.last_batch_result.degraded == ("history",)


class BrokenMonitor(PerformanceMonitor):
    """A stand-in for a monitor whose state cannot be written."""

    def record_metric(self, *arguments) -> None:
        raise OSError(28, "No space left on device")


def test_a_monitor_that_fails_costs_no_prediction(fit, stream):
    pipeline = fit()
    pipeline._monitor = BrokenMonitor()
    result = pipeline.process_batch(*parts(stream[500:600]))
    assert len(result.timeseries_predictions) == 100
    assert result.degraded == ("monitoring",)
    assert pipeline.get_recent_errors()[0]["error_type"] == "OSError"


def test_a_drift_detector_that_fails_costs_no_prediction(fit, stream):
    pipeline = fit()
    pipeline._retraining.drift.detectors.clear()
    pipeline._retraining.drift.detectors["broken"] = None
    result = pipeline.process_batch(features(stream[500:600]))
    assert len(result.timeseries_predictions) == 100
    assert result.degraded == ("retraining", "monitoring")  # its state cannot be kept either
    assert {error["error_type"] for error in pipeline.get_recent_errors()} == {"AttributeError"}


def test_an_outcome_of_a_batch_that_was_not_kept_is_refused_in_one_line(fit):
    with pytest.raises(DataValidationError, match="version_id is None: the batch was not kept"):
        fit().record_outcomes(None, [1.0])


def test_refused_calls_are_no_errors_and_leave_the_health_alone(fit, stream):
    pipeline = fit()
    for X in (features(stream[500:600]).drop(columns="age"), np.ones((2, 3))):
        with pytest.raises(DataValidationError):
            pipeline.process_batch(X)
    with pytest.raises(DataValidationError):
        pipeline.record_outcomes("nothing", [1.0])
    found = pipeline.get_error_statistics()
    assert (found["total_errors"], found["refused_calls"]) == (0, {"DataValidationError": 3})
    assert pipeline.get_recent_errors() == []
    assert pipeline.current_health_status == "healthy"


def test_errors_are_read_newest_first(fit, stream):
    pipeline = fit()
    for name in ("pre_batch", "post_batch", "pre_batch"):
        pipeline.set_callbacks(**{name: raises})
        pipeline.process_batch(features(stream[500:600]))
    assert [error["component"] for error in pipeline.get_recent_errors(2)] == [
        "callback pre_batch",
        "callback post_batch",
    ]
    assert pipeline.get_error_statistics() == {
        "total_errors": 3,
        "by_type": {"ZeroDivisionError": 3},
        "by_component": {"callback pre_batch": 2, "callback post_batch": 1},
        "refused_calls": {},
        "graceful_degradation": True,
    }


def test_an_error_leaves_the_health_when_its_part_works_again_or_a_day_later(fit, stream):
    clock = Clock()
    pipeline = fit(clock=clock)
    X = features(stream[500:600])
    pipeline.set_callbacks(post_batch=raises)
    pipeline.process_batch(X)
    assert pipeline.perform_health_check()["components"]["errors"] == (
        "1 part(s) failed: callback post_batch; see get_recent_errors()"
    )
    pipeline.set_callbacks(post_batch=print)
    pipeline.process_batch(X)
    assert pipeline.current_health_status == "healthy"
    pipeline.set_callbacks(post_batch=raises)
    pipeline.process_batch(X)
    assert pipeline.current_health_status == "degraded"
    clock.now += timedelta(hours=24, seconds=1)
    assert pipeline.current_health_status == "healthy"
    assert pipeline.monitoring_statistics["errors"] == 2


# -- monitoring --------------------------------------------------------------------------------


def test_metrics_have_the_batch_as_their_step_under_one_run(fit, stream):
    pipeline = fit(replace(CONFIG, hospital_profile_id="ward-7"))
    results = [
        pipeline.process_batch(*parts(stream[start : start + 50])) for start in (500, 550, 600)
    ]
    assert pipeline._writer.flush(60)
    run_id = pipeline._writer.run_id
    pipeline.close()
    run = mlflow.get_run(run_id)
    assert run.data.tags["phase"] == "batch-processing"
    assert run.data.tags["hospital_profile_id"] == "ward-7"
    found = MlflowClient().get_metric_history(run_id, "noise_ratio")
    assert [(metric.step, metric.value) for metric in found] == [
        (step, result.noise_ratio) for step, result in enumerate(results, 1)
    ]
    assert {"processing_time", "memory_usage", "rmse", "n_rows"} <= run.data.metrics.keys()
    assert run.data.metrics["n_rows"] == 50


def test_the_batch_processing_run_ends_with_the_pipeline(fit, stream):
    pipeline = fit()
    pipeline.process_batch(features(stream[500:600]))
    assert pipeline._writer.flush(60)
    run_id = pipeline._writer.run_id
    pipeline.close()
    assert mlflow.get_run(run_id).info.status == "FINISHED"


def test_metrics_are_read_by_name_and_time(fit, stream):
    clock = Clock()
    pipeline = fit(clock=clock)
    for start in (500, 600):
        pipeline.process_batch(*parts(stream[start : start + 100]))
        clock.now += timedelta(hours=1)
    found = pipeline.get_performance_metrics()
    assert set(found) == {"noise_ratio", "processing_time", "memory_usage", "rmse"}
    assert [entry["timestamp"] for entry in found["rmse"]] == [START, START + timedelta(hours=1)]
    newest = pipeline.get_performance_metrics(["rmse"], timedelta(minutes=90))
    assert newest == {"rmse": found["rmse"][1:]}
    assert pipeline.get_performance_metrics(["nothing"]) == {}
    assert pipeline.monitoring_statistics["batches"] == 2
    assert pipeline.monitoring_statistics["metrics"]["rmse"]["count"] == 2


def test_alerts_name_the_metric_its_value_and_the_threshold(fit, stream):
    clock = Clock()
    pipeline = fit(clock=clock)
    pipeline.update_performance_thresholds(alert_thresholds={"noise_ratio": 0.0})
    result = pipeline.process_batch(features(stream[500:600]))
    found = pipeline.get_alert_summary()
    assert (found["total"], found["by_metric"]) == (1, {"noise_ratio": 1})
    assert found["by_severity"] == {"critical": 1}
    (alert,) = found["alerts"]
    assert isinstance(alert, PerformanceAlert)
    assert (alert.value, alert.threshold) == (result.noise_ratio, 0.0)
    clock.now += timedelta(hours=2)
    assert pipeline.get_alert_summary(timedelta(hours=1))["total"] == 0
    assert pipeline.monitoring_statistics["alerts"] == 1


def test_alerts_show_in_the_health_until_the_metric_is_normal_again(fit, stream):
    pipeline = fit()
    pipeline.update_performance_thresholds(alert_thresholds={"noise_ratio": 0.5})
    pipeline.process_batch(np.random.default_rng(0).uniform(1e3, 1e4, size=(50, 8)))
    assert pipeline.perform_health_check()["components"]["alerts"] == (
        "noise_ratio 1 is over its threshold 0.5"
    )
    assert pipeline.current_health_status == "degraded"
    pipeline.process_batch(features(stream[500:600]))
    assert pipeline.current_health_status == "healthy"
    assert pipeline.get_alert_summary()["total"] == 1


def test_an_update_of_the_configuration_keeps_the_users_alert_thresholds(fit):
    pipeline = fit()
    pipeline.update_configuration(replace(CONFIG, noise_threshold=0.35))
    assert pipeline._monitor.alert_thresholds["noise_ratio"] == 0.35
    own = {"noise_ratio": 0.5, "processing_time": 5.0, "memory_usage": 100.0}
    pipeline.update_performance_thresholds(alert_thresholds=own)
    for noise_threshold in (0.35, 0.2):
        pipeline.update_configuration(replace(CONFIG, noise_threshold=noise_threshold))
        assert pipeline._monitor.alert_thresholds == own


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alert_thresholds": {"noise": 0.1}}, r"no threshold 'noise' \(did you mean"),
        ({"drift_thresholds": {"noise_ratio_trend": -1}}, "must be a number of at least 0"),
    ],
)
def test_impossible_thresholds_are_refused(options, message):
    with pytest.raises(ConfigurationError, match=message):
        TimeSeriesClusteringPipeline(CONFIG).update_performance_thresholds(**options)


def test_drift_thresholds_steer_the_detectors_before_the_fit_and_after_a_retrain(fit, make, stream):
    pipeline = make()
    pipeline.update_performance_thresholds(drift_thresholds={"noise_ratio_trend": 0.4})
    pipeline.fit_initial(*parts(stream.head(500)))
    assert pipeline._retraining.drift.trend.rise == 0.4
    pipeline.update_performance_thresholds(drift_thresholds={"performance_degradation": 0.05})
    for start in (500, 600):
        pipeline.process_batch(*parts(stream[start : start + 100]))
    pipeline.retrain()
    drift = pipeline._retraining.drift
    assert (drift.trend.rise, drift.accuracy.degradation) == (0.4, 0.05)


def test_a_loss_that_usual_thresholds_call_drift_is_none_under_a_higher_one(fit, stream):
    batches = [parts(stream[start : start + 100]) for start in (500, 600, 700)]
    alarms = []
    for degradation in (0.2, 50.0):
        pipeline = fit(replace(CONFIG, promotion_margin=1.0))
        pipeline.update_performance_thresholds(
            drift_thresholds={"performance_degradation": degradation}
        )
        for X, y in batches:
            pipeline.process_batch(X, y + 12)
        alarms.append(pipeline._retraining.last_reason)
    assert alarms[0].startswith("RMSE ")
    assert alarms[1] == ""


READERS = {
    "json": lambda path: pd.DataFrame(json.loads(path.read_text())),
    "csv": pd.read_csv,
    "parquet": pd.read_parquet,
}


@pytest.mark.parametrize("suffix", READERS)
def test_what_was_watched_is_exported_by_the_suffix(fit, stream, tmp_path, suffix):
    pipeline = fit(clock=Clock())
    pipeline.process_batch(*parts(stream[500:600]))
    path = tmp_path / "new" / f"watched.{suffix}"
    assert pipeline.export_performance_data(path) == str(path)
    table = READERS[suffix](path)
    assert list(table) == ["timestamp", "metric_name", "value", "component"]
    expected = {
        name: entries[0]["value"] for name, entries in pipeline.get_performance_metrics().items()
    }
    assert dict(zip(table["metric_name"], table["value"], strict=True)) == expected
    assert (pd.to_datetime(table["timestamp"], utc=True) == START).all()


def test_an_export_to_another_suffix_is_refused(fit, stream, tmp_path):
    pipeline = fit()
    with pytest.raises(PipelineError, match=r"suffix|written as"):
        pipeline.export_performance_data(tmp_path / "watched.xlsx")


def test_the_report_holds_the_serving_models_figures(fit):
    pipeline = fit(clock=Clock())
    report = pipeline.get_performance_report()
    assert isinstance(report, PerformanceReport)
    assert (report.model_version, report.timestamp) == ("1", START)
    assert report.clustering_metrics["n_clusters"] == 5
    assert all({"rmse", "mae", "r2"} <= set(found) for found in report.model_metrics.values())
    assert pipeline.last_performance_report is report


def test_the_report_is_a_page_with_pictures_of_rows_the_model_has_not_seen(fit, stream, tmp_path):
    pipeline = fit()
    pipeline.process_batch(features(stream[:120]), stream[TARGET][:120])
    report = pipeline.get_performance_report(tmp_path / "report")
    assert sorted(report.visualizations) == [
        *("batches", "cluster_heatmap", "cluster_map", "condensed_tree", "figures"),
        *("performance_report", "predicted", "residuals", "silhouette"),
    ]
    assert all(Path(path).is_file() for path in report.visualizations.values())
    figures = json.loads(Path(report.visualizations["figures"]).read_text())
    assert figures["accuracy"]["all"]["n_rows"] == 120
    assert figures["drift"]["history"]["rmse"] == [
        pipeline.get_performance_metrics(["rmse"])["rmse"][0]["value"]
    ]
    assert figures["model"]["phase"] == "serving"


def test_the_model_is_described(fit):
    pipeline = fit(more="resources")
    info = pipeline.get_model_info()
    assert set(info) == {"clustering", "timeseries_models", "resource_models", "fallback_model"}
    assert info["clustering"]["cluster_ids"] == [0, 1, 2, 3, 4]
    assert info["clustering"]["n_clusters"] == 5
    assert sum(info["clustering"]["cluster_sizes"].values()) == 500
    assert info["clustering"]["lineage"] == {
        "kept": {},
        "born": [0, 1, 2, 3, 4],
        "retired": [],
        "next_id": 5,
    }
    assert 0 <= info["timeseries_models"]["cluster_weight"] <= 1
    assert set(info["resource_models"]) == set(RESOURCES)
    assert info["fallback_model"]["n_neighbors"] == 5


def test_health_and_recommendations_name_a_number_and_an_action(fit, moved):
    pipeline = fit(replace(CONFIG, retrain_cooldown_batches=0, expanding_window_size=40))
    for start in (0, 100):
        pipeline.process_batch(*parts(moved[start : start + 100]))
    found = pipeline.diagnose_pipeline_health()
    assert found["pipeline_status"] == pipeline.current_health_status == "drifting"
    assert set(found["component_health"]) == {
        *("model", "registry", "tracking", "drift", "alerts", "errors")
    }
    assert "feature(s) drifted" in found["component_health"]["drift"]
    assert "noise_ratio" in found["performance_metrics"]
    lines = found["recommendations"]
    refused = "The last retrain was refused: 40 labelled rows are too few for a retrain"
    assert any(line.startswith(refused) for line in lines)
    assert all(any(character.isdigit() for character in line) for line in lines)


def test_segments_without_worth_are_a_recommendation(fit):
    pipeline = fit()
    with_generation(pipeline, target=replace(pipeline._serving.generation.target, weight=0.0))
    rmse = pipeline._serving.generation.target.scores.errors["global"]
    (line,) = pipeline.diagnose_pipeline_health()["recommendations"]
    assert line.startswith(f"Segments have weight 0 in the forecast (global RMSE {rmse:.4g}): ")
    assert "try other cluster_features" in line


def test_a_champion_that_was_moved_elsewhere_shows_in_the_health(fit):
    pipeline = fit()
    client, name = MlflowClient(), name_of(pipeline)
    version = client.copy_model_version(f"models:/{name}/1", name).version
    client.set_registered_model_alias(name, "champion", version)
    found = pipeline.perform_health_check()
    assert found["status"] == "degraded"
    assert found["components"]["registry"] == (
        "version 1 serves here, @champion is 2; load it anew"
    )


def test_a_store_that_does_not_answer_is_no_champion_that_was_moved(fit, monkeypatch):
    pipeline = fit()
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    mlflow.set_tracking_uri("http://127.0.0.1:9")  # nobody listens there
    found = pipeline.perform_health_check()["components"]["registry"]
    assert found != "ok"
    assert "load it anew" not in found


# -- retraining --------------------------------------------------------------------------------


def test_drift_retrains_and_promotes_the_better_challenger(fit, moved):
    pipeline = fit()
    old = pipeline._serving.generation
    served = []
    for start in range(0, 300, 100):
        pipeline.process_batch(*parts(moved[start : start + 100]))
        served.append(pipeline.current_model_version)
    assert served == ["1", "2", "2"]
    assert aliases(pipeline) == {"champion": "2", "challenger": "2", "previous": "1"}
    tags = MlflowClient().get_model_version(name_of(pipeline), "2").tags
    assert "feature(s) drifted" in tags["promoted.reason"]
    assert tags["promoted.from"] == "1"
    new = features(moved[600:])
    y = moved[600:][TARGET].to_numpy()
    before = old.predict(new)["prediction"].to_numpy(dtype=float)
    after = pipeline.process_batch(new).timeseries_predictions
    assert np.mean((y - after) ** 2) < np.mean((y - before) ** 2)
    assert pipeline.get_model_info()["clustering"]["lineage"]["next_id"] >= 5


def test_what_decides_about_retrains_is_reached_from_the_pipeline_and_says_why(fit, stream):
    pipeline = fit(replace(CONFIG, promotion_margin=0.9))
    pipeline.process_batch(*parts(stream[500:600]))
    assert pipeline.get_retraining_status()["last_comparison"] == ""
    assert pipeline.retraining_manager.request_manual_retraining("a new ward") is True
    status = pipeline.get_retraining_status()
    assert (status["last_reason"], status["last_refusal"]) == ("a new ward", "")
    assert status["batches_seen"] == 1
    assert pipeline.last_retraining.reason == "a new ward"
    reason = pipeline.last_retraining.comparison.reason
    assert reason.startswith("RMSE ")
    assert status["last_comparison"] == reason
    assert pipeline.get_retraining_recommendations() == [
        f"The last challenger was not promoted: {reason}; label more rows, or lower "
        "expanding_window_size if the data has changed."
    ]
    name = name_of(pipeline)
    pipeline.close()
    loaded = TimeSeriesClusteringPipeline.load(f"models:/{name}@champion")
    assert loaded.get_retraining_status()["last_comparison"] == reason
    assert len(loaded.get_retraining_recommendations()) == 1
    loaded.close()


def test_a_challenger_that_is_not_better_changes_no_served_bit(fit, stream, moved):
    pipeline = fit(replace(CONFIG, promotion_margin=1.0))
    X = features(stream[500:600])
    before = pipeline.process_batch(X)
    for start in (0, 100):
        pipeline.process_batch(*parts(moved[start : start + 100]))
    assert aliases(pipeline) == {"champion": "1", "challenger": "2", "previous": None}
    after = pipeline.process_batch(X)
    np.testing.assert_array_equal(after.timeseries_predictions, before.timeseries_predictions)
    np.testing.assert_array_equal(after.cluster_assignments, before.cluster_assignments)
    assert pipeline.current_model_version == "1"


def test_a_champion_that_somebody_moved_refuses_the_retrain(fit, moved):
    pipeline = fit()
    pipeline.process_batch(*parts(moved[:300]))
    client, name = MlflowClient(), name_of(pipeline)
    version = client.copy_model_version(f"models:/{name}/1", name).version
    client.set_registered_model_alias(name, "champion", version)
    before = history_files(pipeline)
    with pytest.raises(MLflowIntegrationError, match="was moved from version 1 to 2 meanwhile"):
        pipeline.retrain()
    assert (aliases(pipeline)["champion"], aliases(pipeline)["previous"]) == ("2", None)
    assert pipeline.current_model_version == "1"
    assert history_files(pipeline) == before


def test_a_failed_retrain_changes_nothing(fit, stream):
    pipeline = fit()
    X = features(stream[500:600])
    expected = pipeline.process_batch(X)
    pipeline.update_configuration(replace(CONFIG, hdbscan_params={"min_cluster_size": 5000}))
    before = aliases(pipeline), history_files(pipeline), pipeline.current_model_version
    with pytest.raises(RetrainingError, match="min_cluster_size"):
        pipeline.retrain()
    assert (aliases(pipeline), history_files(pipeline), pipeline.current_model_version) == before
    np.testing.assert_array_equal(
        pipeline.process_batch(X).timeseries_predictions, expected.timeseries_predictions
    )


def test_a_retrain_that_fails_in_a_batch_costs_no_prediction(fit, moved):
    pipeline = fit(replace(CONFIG, expanding_window_size=40))
    results = [
        pipeline.process_batch(*parts(moved[start : start + 100])) for start in (0, 100, 200)
    ]
    assert all(np.isfinite(found.timeseries_predictions).all() for found in results)
    assert [found.degraded for found in results[:2]] == [(), ("retraining",)]
    assert pipeline.get_recent_errors()[0]["error_type"] == "RetrainingError"
    assert pipeline.current_model_version == "1"
    assert aliases(pipeline)["challenger"] is None


def test_right_after_the_fit_a_challenger_is_registered_but_not_promoted(fit):
    pipeline = fit()
    done = pipeline.retrain("curious")
    assert not done.promoted
    assert done.comparison.reason.startswith("there are no labelled rows")
    assert aliases(pipeline) == {"champion": "1", "challenger": "2", "previous": None}
    assert pipeline.current_model_version == "1"


def test_a_retrain_on_batches_without_resources_says_what_it_compared(fit, moved):
    pipeline = fit(more="resources")
    pipeline.process_batch(*parts(moved[:300]))  # the outcome is known, the resources are not
    done = pipeline.retrain()
    assert done.reason == "Manual request"
    assert done.promoted
    assert done.comparison.n_rows == 160  # the newest fifth of 800
    assert pipeline.current_model_version == done.version == "2"
    assert set(done.generation.resources) == set(RESOURCES)


@pytest.mark.parametrize("absent", ["admission_time", "patient_id"])
def test_batches_without_time_or_id_do_not_stop_retrains(fit, stream, absent):
    pipeline = fit(more="roles")
    columns = [*VITALS, "admission_time", "patient_id"]
    batch = stream[500:700]
    pipeline.process_batch(batch[columns].drop(columns=absent), batch[TARGET])
    assert pipeline.retrain().comparison.n_rows == 140


def test_a_schedule_retrains_by_the_injected_clock(make, stream, moved):
    clock = Clock()
    pipeline = make(clock=clock)
    pipeline.fit_initial(*parts(stream.head(500)))
    pipeline.process_batch(*parts(moved[:300]))
    week = timedelta(days=7)
    assert pipeline.check_scheduled_retraining(week) is False
    clock.now += week
    assert pipeline.check_scheduled_retraining(week) is True
    assert pipeline.current_model_version == "2"
    assert pipeline.get_pipeline_status()["last_training_time"] == clock.now
    assert pipeline.check_scheduled_retraining(week) is False


def test_a_rollback_serves_the_previous_version_again(fit, moved):
    pipeline = fit()
    X = features(moved[900:])
    before = pipeline.process_batch(X).timeseries_predictions
    pipeline.process_batch(*parts(moved[:100]))  # the second batch that has drifted
    assert pipeline.current_model_version == "2"
    assert not np.array_equal(pipeline.process_batch(X).timeseries_predictions, before)
    assert pipeline.rollback("worse on the ward") == "1"
    assert pipeline.current_model_version == "1"
    assert aliases(pipeline) == {"champion": "1", "challenger": "2", "previous": "2"}
    np.testing.assert_array_equal(pipeline.process_batch(X).timeseries_predictions, before)
    tags = MlflowClient().get_model_version(name_of(pipeline), "1").tags
    assert tags["promoted.reason"] == "rollback: worse on the ward"


def test_without_a_previous_version_there_is_no_rollback(fit):
    pipeline = fit()
    with pytest.raises(MLflowIntegrationError, match="has no @previous version"):
        pipeline.rollback("reason")
    assert pipeline.current_model_version == "1"


def test_a_name_follows_its_segment_through_a_retrain(fit, stream):
    pipeline = fit()
    pipeline.name_segment(2, "post-op, long stay")
    pipeline.process_batch(*parts(stream[500:700]))
    pipeline.retrain()
    assert pipeline.get_model_info()["clustering"]["segment_names"] == {2: "post-op, long stay"}
    with pytest.raises(PredictionError, match="there is no segment 99"):
        pipeline.name_segment(99, "nobody")


# -- another process, another configuration ----------------------------------------------------

GO_ON = """
import json, sys
import numpy as np, pandas as pd
from tsclust_model.pipeline import TimeSeriesClusteringPipeline
pipeline = TimeSeriesClusteringPipeline.load(sys.argv[1])
batch = pd.read_parquet(sys.argv[2])
result = pipeline.process_batch(batch.drop(columns="length_of_stay_days"),
                                batch["length_of_stay_days"])
done = pipeline.retrain("in another process")
np.save(sys.argv[3], result.timeseries_predictions)
print(json.dumps([pipeline.current_model_version, done.comparison.n_rows, done.promoted,
                  pipeline.get_model_info()["clustering"]["segment_names"]]))
"""


def test_another_process_goes_on_with_the_registered_model(fit, moved, python, tmp_path):
    pipeline = fit()
    pipeline.name_segment(1, "short stay")
    batch = moved[:300]
    expected = pipeline._serving.generation.predict(features(batch))["prediction"]
    batch[[*VITALS, TARGET]].astype(float).to_parquet(tmp_path / "batch.parquet")
    done = subprocess.run(
        [
            python,
            "-c",
            GO_ON,
            f"models:/{name_of(pipeline)}@champion",
            str(tmp_path / "batch.parquet"),
            str(tmp_path / "found.npy"),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | {"PYTHONPATH": ON_PATH},
    )
    assert done.returncode == 0, done.stderr
    version, n_rows, promoted, names = json.loads(done.stdout.splitlines()[-1])
    np.testing.assert_array_equal(np.load(tmp_path / "found.npy"), expected.to_numpy(dtype=float))
    assert (version, n_rows, promoted, names) == ("2", 160, True, {"1": "short stay"})
    assert aliases(pipeline) == {"champion": "2", "challenger": "2", "previous": "1"}


END_AT_ONCE = """
import sys
import numpy as np
from tsclust_model.pipeline import TimeSeriesClusteringPipeline
pipeline = TimeSeriesClusteringPipeline.load(sys.argv[1])
for step in range(3):
    pipeline.process_batch(np.random.default_rng(step).uniform(0, 100, (50, 8)))
print(pipeline.config.experiment_name)
"""


def test_a_script_that_ends_without_close_loses_no_metric(fit, python):
    pipeline = fit()
    done = subprocess.run(
        [python, "-c", END_AT_ONCE, f"models:/{name_of(pipeline)}@champion"],
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | {"PYTHONPATH": ON_PATH},
    )
    assert done.returncode == 0, done.stderr
    experiment = mlflow.get_experiment_by_name(done.stdout.splitlines()[-1])
    (newest,) = MlflowClient().search_runs(
        [experiment.experiment_id], "tags.phase = 'batch-processing'", max_results=1
    )
    assert newest.info.status == "FINISHED"
    found = MlflowClient().get_metric_history(newest.info.run_id, "noise_ratio")
    assert [metric.step for metric in found] == [1, 2, 3]


def test_a_loaded_pipeline_knows_when_its_model_was_trained(fit):
    pipeline = fit()
    later = datetime.now(UTC) + timedelta(days=8)
    loaded = TimeSeriesClusteringPipeline.load(
        f"models:/{name_of(pipeline)}@champion", clock=lambda: later
    )
    assert loaded.current_model_version == "1"
    assert loaded.config == pipeline.config
    trained = loaded.get_pipeline_status()["last_training_time"]
    assert later - trained > timedelta(days=7)


def test_load_refuses_what_is_not_registered(store):
    with pytest.raises(MLflowIntegrationError, match="models:/nobody@champion"):
        TimeSeriesClusteringPipeline.load("models:/nobody@champion")


def test_a_new_configuration_says_what_holds_now_and_what_at_the_next_retrain(fit, stream):
    pipeline = fit()
    new = replace(CONFIG, noise_threshold=0.01, batch_size=10, coverage=0.5, hdbscan_params={})
    assert pipeline.update_configuration(new) == {
        "effective_now": ["noise_threshold", "batch_size"],
        "effective_at_retrain": ["hdbscan_params", "coverage"],
    }
    assert pipeline.config is new
    result = pipeline.process_batch(features(stream[500:600]))
    assert result.noise_ratio > 0.01
    assert pipeline.get_alert_summary()["by_metric"] == {"noise_ratio": 1}
    assert pipeline.update_configuration(new) == {
        "effective_now": [],
        "effective_at_retrain": [],
    }


@pytest.mark.parametrize(
    "change",
    [
        {"model_registry_prefix": "elsewhere"},
        {"hospital_profile_id": "ward-9"},
        {"history_dir": "elsewhere"},
    ],
)
def test_where_a_fitted_model_and_its_history_are_cannot_change(fit, change):
    pipeline = fit()
    with pytest.raises(PipelineError, match=f"{next(iter(change))} of a fitted pipeline cannot"):
        pipeline.update_configuration(replace(CONFIG, **change))
    assert pipeline.config == CONFIG


def test_a_reset_forgets_the_model_until_the_next_fit(fit, stream):
    pipeline = fit()
    pipeline.process_batch(*parts(stream[500:600]))
    pipeline.set_callbacks(post_batch=raises)
    pipeline.update_performance_thresholds(alert_thresholds={"noise_ratio": 0.0})
    pipeline.process_batch(*parts(stream[600:700]))
    pipeline.set_callbacks()
    pipeline.get_performance_report()
    before = pipeline.monitoring_statistics
    assert (before["batches"], before["alerts"], before["errors"]) == (2, 1, 1)
    pipeline.reset_pipeline_state()
    assert pipeline.get_recent_errors() == []
    assert pipeline.get_alert_summary()["total"] == 0
    assert pipeline.get_performance_metrics() == {}
    assert pipeline.last_performance_report is None
    assert pipeline.last_batch_result is None
    assert pipeline._monitor.alert_thresholds["noise_ratio"] == 0.0
    assert (pipeline.is_fitted, pipeline.is_batch_processing_enabled) == (False, False)
    assert pipeline.current_model_version is None
    assert pipeline.monitoring_statistics == {"batches": 0, "metrics": {}, "alerts": 0, "errors": 0}
    with pytest.raises(NotFittedError, match="call fit_initial or load"):
        pipeline.process_batch(features(stream[500:600]))
    pipeline.fit_initial(*parts(stream[500:1000]))
    assert pipeline.is_batch_processing_enabled
    assert pipeline.current_model_version == "2"
    assert pipeline.process_batch(features(stream[1000:1100])).degraded == ()


def test_a_purge_removes_patients_and_says_which_models_know_them(fit, stream):
    pipeline = fit(more="roles")
    columns = [*VITALS, "admission_time", "patient_id"]
    known, batch = stream.head(500), stream[500:700]
    (first,) = open_storage(CONFIG, name_of(pipeline)).history.list_versions()
    second = pipeline.process_batch(batch[columns], batch[TARGET]).version_id
    pipeline.retrain()  # fitted on 560 rows: all of the first batch, and 60 of the second
    only_later = set(batch["patient_id"]) - set(known["patient_id"])
    patient = sorted(only_later)[0]
    n_rows = int((batch["patient_id"] == patient).sum())
    assert pipeline.purge(ids=[patient]) == {
        "removed_rows": {second: n_rows},
        "model_versions": ["2"],
    }
    everyone = pipeline.purge(ids=known["patient_id"].tolist())
    assert everyone["removed_rows"][first] == 500
    assert everyone["model_versions"] == ["1", "2"]
    history = open_storage(CONFIG, name_of(pipeline)).history
    assert history.list_versions() == [second]
    left, _ = history.load(second)
    assert set(left["patient_id"]) == only_later - {patient}
    assert pipeline.purge(before="2999-01-01")["removed_rows"] == {second: len(left)}
    assert history.list_versions() == []


def test_a_purge_without_the_rows_of_the_model_names_the_folder(fit):
    pipeline = fit()
    folder = open_storage(CONFIG, name_of(pipeline)).history.base_dir
    shutil.rmtree(folder)
    with pytest.warns(UserWarning, match="holds no batch that version 1 was trained on") as caught:
        assert pipeline.purge(before="2999-01-01")["removed_rows"] == {}
    assert str(folder) in str(caught[0].message)


# -- processes that come and go ----------------------------------------------------------------


def statuses(pipeline: TimeSeriesClusteringPipeline) -> tuple:
    found = pipeline.get_retraining_status()
    alerts = [alert.message for alert in pipeline.get_alert_summary()["alerts"]]
    return (
        *(found[key] for key in ("batches_seen", "drift_detected", "waits_for", "last_reason")),
        *(found["cooldown_batches_left"], pipeline.current_model_version, alerts),
    )


def test_twelve_processes_alarm_as_one_long_process_does(fit, stream, moved):
    """Batches of 30 rows: two make a window; outcomes come from the seventh batch on."""
    frame = pd.concat([stream[500:620], moved[:240]], ignore_index=True)
    long, short = fit(), fit()
    found: list[list[tuple]] = [[], []]
    for number in range(12):
        X, y = parts(frame[number * 30 : number * 30 + 30])
        outcome = y if number >= 6 else None
        long.process_batch(X, outcome)
        found[0].append(statuses(long))
        loaded = TimeSeriesClusteringPipeline.load(f"models:/{name_of(short)}@champion", CONFIG)
        loaded.process_batch(X, outcome)
        loaded.close()
        found[1].append(statuses(loaded))
    assert found[1] == found[0]
    assert [status[0] for status in found[0]] == list(range(1, 13))
    assert any(status[3] for status in found[0])  # it alarmed
    assert aliases(long)["challenger"] is not None  # and was answered
    assert aliases(short) == aliases(long)


def test_what_is_left_to_the_next_process_holds_no_rows_value(fit, stream):
    pipeline = fit()
    batch = stream[500:520].assign(age=SECRET)
    pipeline.process_batch(features(batch), np.full(20, SECRET))
    text = pipeline._state_path.read_text()
    assert json.loads(text)["retraining"]["drift"]["waiting"]["rows"][0][2] == 20
    assert str(SECRET) not in text
    assert str(int(SECRET)) not in text


def test_a_users_thresholds_survive_the_process(fit):
    pipeline = fit()
    pipeline.update_performance_thresholds(
        {"processing_time": 7.0, "noise_ratio": 0.4}, {"performance_degradation": 0.9}
    )
    loaded = TimeSeriesClusteringPipeline.load(f"models:/{name_of(pipeline)}@champion")
    assert loaded._monitor.alert_thresholds["processing_time"] == 7.0
    assert loaded._monitor.alert_thresholds["noise_ratio"] == 0.4
    assert loaded.retraining_manager.drift.accuracy.degradation == 0.9


def test_outcomes_of_all_batches_end_the_wait_for_them(fit, moved):
    pipeline = fit()
    batches = [moved[start : start + 100] for start in range(0, 300, 100)]
    results = [pipeline.process_batch(features(batch)) for batch in batches]
    status = pipeline.get_retraining_status()
    assert status["waits_for"] == "labelled rows that the champion was not trained on"
    for batch, result in zip(batches, results, strict=True):
        pipeline.record_outcomes(result.version_id, batch[TARGET].to_numpy())
    assert pipeline.get_retraining_status()["waits_for"] == ""
    assert pipeline.get_retraining_recommendations()[0].startswith("Retrain: ")
    assert pipeline.current_model_version == "1"
    pipeline.process_batch(features(moved[300:400]))
    assert pipeline.current_model_version == "2"


def test_drift_without_labels_alarms_waits_and_registers_nothing(fit, moved):
    pipeline = fit()
    for start in range(0, 400, 100):
        pipeline.process_batch(features(moved[start : start + 100]))
    status = pipeline.get_retraining_status()
    assert status["drift_detected"] is True
    assert status["waits_for"] == "labelled rows that the champion was not trained on"
    assert status["last_reason"].startswith("noise ratio")
    assert pipeline.current_health_status == "drifting"
    assert aliases(pipeline) == {"champion": "1", "challenger": None, "previous": None}
    pipeline.process_batch(*parts(moved[400:500]))
    assert aliases(pipeline)["champion"] == "2"
    assert pipeline.get_retraining_status()["waits_for"] == ""
